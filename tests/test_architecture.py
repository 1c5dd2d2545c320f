"""The shape of the package: who imports whom, what is public, what `import` loads."""

import ast
import functools
import graphlib
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pidgan
from pidgan.cli import VERBS, cli

PACKAGE = Path(pidgan.__file__).parent
DOCS = PACKAGE.parent / "docs"

# Each room may import from those named here, and from itself.
GROUND = {"errors", "bounds", "arguments", "arrays", "higher", "notebook", "progress"}
FLOOR = GROUND | {"files", "simulation", "calorimeter"}
ROOMS = {
    "errors": set(),
    "bounds": set(),
    "arrays": set(),
    "higher": {"arguments"},
    "arguments": {"errors", "bounds"},
    "notebook": set(),
    "progress": set(),
    "files": GROUND,
    "simulation": GROUND,
    "calorimeter": GROUND | {"files"},
    "sample": FLOOR,
    "bundle": FLOOR | {"sample"},
    "application": FLOOR | {"sample", "bundle"},
    "training": FLOOR | {"sample", "bundle"},
    "efficiency": FLOOR | {"sample", "bundle", "application"},
    "service": FLOOR | {"sample", "bundle", "application"},
    "report": FLOOR | {"sample", "bundle", "training", "application", "efficiency"},
    "campaign": FLOOR
    | {"sample", "bundle", "training", "application", "efficiency", "report"},
}

# Methods whose work a higher room does, by `pidgan.higher`.
HIGHER = {
    ("application/apply.py", "service.client", "open_tracks"),
    ("bundle/bundle.py", "application.in_memory", "sample"),
    ("bundle/collection.py", "application.in_memory", "sample"),
    ("bundle/opening.py", "efficiency.simulated_rows", "corrected_rows"),
    ("bundle/opening.py", "training.model", "open_model"),
}

# The one room, or files of it, that may import a heavy library.
OWNERS = {
    "uproot": "files/",
    "iminuit": "sample/mass_fit",
    "sweights": "sample/sweights",
    "onnxruntime": ("bundle/session", "bundle/devices"),
    "distributed": ("application/workers", "campaign/engines"),
    "aiohttp": ("service/", "files/trees"),
    "grpc": "service/grpc_server",
    "tritonclient": "service/grpc_server",
    "prometheus_client": "service/metrics",
    "matplotlib": "report/plots/",
    "mplhep": "report/plots/",
    "keras": "training/",
    "tensorflow": "training/",
    "onnx": "training/export",
    "sklearn": ("sample/weights", "report/classifiers"),
    "tqdm": "progress",
    "jinja2": "report/page",
}
MAX_LINES, MANY_LINES, MANY_FILES = 600, 450, 5
# Not heavy, but a help text needs none of them.
FOR_WORK = ("pandas", "pydantic", "fsspec", "scipy", "pyarrow")
HEAVY = ("keras", "tensorflow", "uproot", "onnxruntime", "matplotlib", "sklearn")


SOURCES = sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    """Module of a file, "pidgan.files.trees"."""
    parts = ("pidgan", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, those for annotations only too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = names & MODULES
            found |= modules or {node.module}
    return found


MODULES = {_name(path) for path in SOURCES}
IMPORTS = {_name(path): _imports(path) for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in IMPORTS[_name(path)]:
        parts = name.split(".")
        if parts[0] == "pidgan" and len(parts) > 1 and room in ROOMS:
            assert parts[1] in ROOMS[room] | {room}, f"{place} imports {name}"
        if parts[0] in OWNERS:
            assert place.startswith(OWNERS[parts[0]]), f"{place} imports {name}"


def test_methods_whose_work_a_higher_room_does() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), *map(ast.literal_eval, node.args))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "higher.function"
    }
    assert found == HIGHER
    for _, place, name in HIGHER:
        assert callable(getattr(importlib.import_module(f"pidgan.{place}"), name))


def _offered(room: str) -> set[str]:
    """Return the modules that a room lists for others in its `__all__`."""
    found = importlib.import_module(f"pidgan.{room}")
    return {name for name in found.__all__ if f"pidgan.{room}.{name}" in MODULES}


@functools.cache
def _taken() -> tuple[tuple[str, str, str], ...]:
    return tuple(_imports_from_rooms())


def _imports_from_rooms() -> Iterator[tuple[str, str, str]]:
    """Yield user, module and name of each import from a room that is not the user's."""
    outside = [*DOCS.rglob("*.py"), *(PACKAGE.parent / "examples").rglob("*.py")]
    for path in [*SOURCES, *outside]:
        own = path.relative_to(PACKAGE).parts[0] if path in SOURCES else ""
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and (node.module or "")[:7] == "pidgan."
            ):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    module = full if full in MODULES else str(node.module)
                    name = "" if full in MODULES else alias.name
                    if module.split(".")[1] != own.removesuffix(".py"):
                        yield str(path), module, name
    for page in DOCS.rglob("*.md"):
        for module in re.findall(
            r"^(?:from|import|\.\. auto\w+::) (pidgan(?:\.[a-z_]\w*)+)\b",
            page.read_text(encoding="utf-8"),
            re.MULTILINE,
        ):
            if module not in MODULES:
                module = module.rpartition(".")[0]
            yield str(page), module, ""


@pytest.mark.skipif(not DOCS.is_dir(), reason="a wheel has no docs, which use modules")
@pytest.mark.parametrize("room", sorted(set(ROOMS) - GROUND))
def test_rooms_say_what_they_offer(room: str) -> None:
    places = [module.split(".") for _, module, _ in _taken()]
    used = {place[2] for place in places if place[1] == room and len(place) > 2}
    assert _offered(room) == used
    text = importlib.import_module(f"pidgan.{room}").__doc__ or ""
    assert not [name for name in used if f"`{name}`" not in text]


def test_other_rooms_take_public_names() -> None:
    assert not [use for use in _taken() if "._" in use[1] or use[2].startswith("_")]


def test_rooms_are_all_there_is() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    rooms = {entry.removesuffix(".py") for entry in entries}
    assert rooms == {*ROOMS, "cli", "__init__", "py.typed"} | (rooms & {"calibration"})


def test_no_circle_between_files() -> None:
    graph = {name: imports & MODULES for name, imports in IMPORTS.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_files_are_short() -> None:
    lines = {str(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert not [path for path, n in lines.items() if n > MAX_LINES]
    assert len([path for path, n in lines.items() if n > MANY_LINES]) <= MANY_FILES


def test_import_is_light() -> None:
    code = (
        "import sys, pidgan, pidgan.cli; dir(pidgan); "
        f"print([m for m in {HEAVY + FOR_WORK} if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
    code = "import sys, pidgan.cli; print('numpy' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"  # a third of the time of `pidgan --help`


def test_completion_shows_public_names_only() -> None:
    shown = {name for name in dir(pidgan) if not name.startswith("__")}
    assert shown == set(pidgan.__all__) - {"__version__"}


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
        "plot",
    }
    assert nouns | verbs <= set(pidgan.__all__)
    assert set(pidgan.__all__) == {*pidgan._HOMES, "__version__"}
    assert pidgan.__all__ == sorted(pidgan.__all__)
    assert not set(pidgan._HOMES) & set(ROOMS)
    with pytest.raises(AttributeError, match="no attribute 'trian'; closest: 'train'"):
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
