"""The shape of the package: who imports whom, what is public, what `import` loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pidgan
from pidgan.cli import VERBS, cli

PACKAGE = Path(pidgan.__file__).parent

# A module imports from lower levels, and from its own where this makes no circle.
LEVELS = {
    "errors": -1,
    "typing": -1,
    "duration": -1,
    "simulation": 0,
    "calorimeter": 1,
    "ntuple": 0,
    "ntuple_copy": 0,
    "treefile": 0,
    "preprocessing": 0,
    "metrics": 0,
    "plots": 0,
    "cuts": 0,
    "draws": 0,
    "noise": 0,
    "nesting": 0,
    "pipeline": 0,
    "quantile_map": 0,
    "resources": 0,
    "onnx_structure": 0,
    "onnx_graph": 0,
    "onnx_operators": 0,
    "discrepancy": 0,
    "species": 0,
    "sample": 1,
    "binning": 2,
    "efficiency": 2,
    "sweights": 2,
    "card": 2,
    "mapping": 3,
    "models": 3,
    "dataset": 3,
    "bundle": 3,
    "comparison": 3,
    "efficiency_map": 3,
    "training": 4,
    "tracks": 4,
    "reference": 4,
    "filejob": 5,
    "scheduling": 5,
    "application": 5,
    "onnx_export": 5,
    "c_export": 5,
    "c_operators": 2,
    "c_writer": 1,
    "validation": 5,
    "propagation": 5,
    "systematics": 6,
    "refinement": 4,
    "members": 5,
    "closure": 6,
    "family_comparison": 6,
    "working_point": 6,
    "report": 6,
    "shower_report": 7,
    "map_report": 7,
    "demo": 7,
    "__init__": 8,
    "cli": 8,
}

# Who may import a heavy library.
OWNERS = {
    "uproot": {"ntuple", "ntuple_copy", "treefile"},
    "iminuit": {"sweights"},
    "sweights": {"sweights"},
    "onnxruntime": {"bundle"},
    "distributed": {"scheduling"},
    "matplotlib": {"plots"},
    "mplhep": {"plots"},
    "keras": {"models"},
    "tensorflow": {"models"},
    "onnx": {"onnx_export"},
    "sklearn": {"metrics"},
    "jinja2": {"report"},
}
HEAVY = ("keras", "tensorflow", "uproot", "onnxruntime", "matplotlib", "sklearn")


def _module(path: Path) -> str:
    """First name below the package: a file, or a folder of alternatives."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    module = _module(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "pidgan" and len(parts) > 1 and module not in ("cli", "demo"):
            assert LEVELS[parts[1]] <= LEVELS[module], f"{module} imports {name}"
        if parts[0] in OWNERS:
            assert module in OWNERS[parts[0]], f"{module} imports {name}"


def test_import_is_light() -> None:
    code = (
        "import sys, pidgan, pidgan.cli; dir(pidgan); "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_public_names() -> None:
    nouns = {"Sample", "Dataset", "Report", "Bundle", "EfficiencyMap", "PidganError"}
    verbs = {
        "load_sample",
        "compute_sweights",
        "build_dataset",
        "train",
        "validate",
        "efficiency_table",
        "run_systematics",
        "pid_efficiency",
        "export_bundle",
        "open_bundle",
        "apply",
    }
    assert set(pidgan.__all__) == nouns | verbs
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        pidgan.trian  # noqa: B018


@pytest.mark.parametrize("name", pidgan.__all__)
def test_public_names_are_documented(name: str) -> None:
    pytest.importorskip("tensorflow")
    assert (getattr(pidgan, name).__doc__ or "").strip()


def test_every_verb_has_its_function() -> None:
    assert set(VERBS) == set(cli.commands)
    pytest.importorskip("tensorflow")
    for target in VERBS.values():
        module, _, function = target.rpartition(".")
        found = __import__(module, fromlist=[function])
        assert callable(getattr(found, function)), target


def test_no_text_recommends_the_other_package() -> None:
    # The name on PyPI belongs to another project.
    for path in [*SOURCES, Path(__file__).parents[1] / "README.md"]:
        assert "pip install pidgan" not in path.read_text(), path
