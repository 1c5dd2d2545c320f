"""Scripts that people run beside the package: examples, studies and pictures."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [ROOT / "examples", *sorted((ROOT / "docs").glob("*/"))]
SCRIPTS = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))


@pytest.mark.skipif(not SCRIPTS, reason="scripts are not part of a wheel")
def test_there_are_scripts() -> None:
    assert {"examples", "studies"} <= {path.parent.name for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_hides_a_library_from_its_neighbours(script: Path) -> None:
    """Python looks for modules in the folder of a script before all others."""
    elsewhere = [p for p in sys.path if Path(p).resolve() not in (ROOT, script.parent)]
    assert script.stem not in sys.stdlib_module_names
    assert PathFinder.find_spec(script.stem, elsewhere) is None


def test_no_two_tests_have_the_same_name() -> None:
    """Pytest imports files by their name alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
