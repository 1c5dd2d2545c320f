"""Every notebook of the examples runs from its first cell to its last one.

Cells run in shells of IPython in this process, which has loaded the libraries already.
Nothing in them needs more of Jupyter.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells with code."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_there_are_three() -> None:
    if EXAMPLES.is_dir():
        assert {path.stem for path in NOTEBOOKS} == {
            *("chain", "two_track_cut", "calorimeter")
        }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    for cell in cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.filterwarnings("ignore")  # short trainings are poor
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorflow", "IPython"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from traitlets.config import Config

    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    quiet = Config({"HistoryManager": {"enabled": False}})
    shell, cards = InteractiveShell(config=quiet), 0
    for cell in cells(path):
        with capture_output():
            done = shell.run_cell("".join(cell["source"]))
        done.raise_error()
        shown, _ = shell.display_formatter.format(done.result)
        cards += "text/html" in shown
    assert cards, "no card was shown"
