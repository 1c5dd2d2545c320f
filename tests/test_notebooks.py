"""Every notebook of the examples runs from its first cell to its last one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def test_there_are_three() -> None:
    if EXAMPLES.is_dir():
        assert {path.stem for path in NOTEBOOKS} == {
            *("chain", "two_track_cut", "calorimeter")
        }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


# Each has a process: what one client leaves in an event loop disturbs the next one.
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
place = {"metadata": {"path": sys.argv[3]}}
nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    for name in ("tensorflow", "ipykernel", "nbclient", "nbformat"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    paths = [str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {"PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"}
    out = tmp_path / path.name
    command = [sys.executable, "-c", RUN, str(path), str(out), str(EXAMPLES)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **given}
    )
    assert done.returncode == 0, done.stderr
    cards = [
        output["data"]["text/html"]
        for cell in json.loads(out.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    assert cards, "no card was shown"
