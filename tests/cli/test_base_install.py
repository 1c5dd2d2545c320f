"""The analysis verbs run in the base install, without any training library.

`.ci/run` names the Python of such an installation in PIDGAN_BASE_PYTHON.
"""

import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("PIDGAN_BASE_PYTHON", "")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="PIDGAN_BASE_PYTHON names no base installation"
)


def _run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(PYTHON).parent / "pidgan"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_analysis_world(kaon_bundle: Path, analysis_file: Path, tmp_path: Path) -> None:
    replace = ("-o", "out.root", "--mode", "replace")
    for arguments in (
        ("samples",),
        ("inspect", kaon_bundle, "--verify"),
        ("export", kaon_bundle, "--format", "c", "-o", "kaon.c"),
        ("apply", "--track", f"Kplus={kaon_bundle}", analysis_file, *replace),
        ("table", kaon_bundle, "--cut", "RichDLLk > 0", "--binning", "P=4"),
        ("working-point", kaon_bundle, "--cut", "RichDLLk > x", "--efficiency", "0.8"),
        ("systematics", kaon_bundle, "--cut", "RichDLLk > 0", "-o", "map.json"),
        ("efficiency", "out.root", "--track", "Kplus", "--map", "map.json"),
    ):
        done = _run(*arguments, cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stderr)


def test_training_verbs_say_what_is_missing(tmp_path: Path, kaon_dataset) -> None:
    kaon_dataset.save(tmp_path / "data")
    done = _run("train", "data", "-o", "model", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("pidgan: error:")
    assert '".[train]"' in done.stderr


def test_no_training_library_is_there(tmp_path: Path) -> None:
    code = "import tensorflow"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, cwd=tmp_path)
    assert done.returncode != 0
