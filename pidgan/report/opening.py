"""What a path or object is, by its content: whatever can be plotted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pidgan.arguments import brief
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.opening import open_generator
from pidgan.bundle.shipped import shipped_names
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.pid_efficiency import PidEfficiencies
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.efficiency.table import EfficiencyTable
from pidgan.efficiency.working_point import WorkingPoint
from pidgan.errors import NtupleError, PidganError, nearest
from pidgan.files import tables
from pidgan.files.documents import read_json
from pidgan.files.frames import is_frame
from pidgan.files.places import file_problem
from pidgan.files.recognition import recognise
from pidgan.files.trees import is_remote
from pidgan.report.binned import Binned, binned
from pidgan.report.report import Report
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.loading import list_samples, load_sample
from pidgan.sample.sweights import SweightResult

Kind = Literal[
    "dataset", "generator", "map", "ntuple", "table", "working point", "mass fit",
    "definition", "report",
]  # fmt: skip

EXPECTED = (
    "a dataset, a bundle, a model, an efficiency map, an ntuple, a table of "
    "efficiencies, or a definition with its ntuples"
)

_TABLES = (EfficiencyTable, RealVsGenerated, PidEfficiencies, Binned)
_SUFFIXES = {".onnx": "bundle", ".toml": "definition", ".json": "json", ".csv": "csv"}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Something that can be plotted, its kind, and its name in titles and messages."""

    kind: Kind
    content: Any
    name: str

    @property
    def species(self) -> str | None:
        """Species that it is about, None if that is not known."""
        if self.kind in ("dataset", "definition"):
            sample = self.content.sample if self.kind == "dataset" else self.content
            return str(sample.species)
        if self.kind == "generator":
            return str(self.content.card.species)
        if self.kind == "map":
            return str(self.content.metadata["species"])
        return getattr(self.content, "species", None) or None


def open_plotted(given: Any) -> Opened:
    """Return what a path or object is; a PidganError says what it is not."""
    if isinstance(given, str | Path):
        return _open_path(str(given))
    kind = _kind(given)
    if kind is None:
        raise TypeError(
            f"plot: what is {brief(given)}, expected {EXPECTED}, or its path"
        )
    content = binned(given) if kind == "table" else given
    if kind == "ntuple":
        content = tables.find_sources(given)
    return Opened(kind=kind, content=content, name=_name(given, kind))


def _kind(given: Any) -> Kind | None:
    known: dict[Kind, Any] = {
        "dataset": Dataset,
        "map": EfficiencyMap,
        "table": _TABLES,
        "working point": WorkingPoint,
        "mass fit": SweightResult,
        "definition": Sample,
        "report": Report,
    }
    for kind, types in known.items():
        if isinstance(given, types):
            return kind
    if hasattr(given, "card") and hasattr(given, "generate"):
        return "generator"
    if isinstance(given, pd.DataFrame):
        return "table" if Binned.fits(given) else "ntuple"
    return "ntuple" if is_frame(given) else None


def _name(given: Any, kind: Kind) -> str:
    if kind == "dataset":
        return str(given.sample.name)
    if kind == "generator":
        path = getattr(given, "path", None)
        return str(given.card.sample.name if path is None else Path(path).name)
    if kind == "definition":
        return str(given.name)
    return kind


def _open_path(text: str) -> Opened:
    name = Path(text).name or text
    if text in list_samples() and not Path(text).exists():
        return Opened(kind="definition", content=load_sample(text), name=name)
    if text in shipped_names() and not Path(text).exists():
        return Opened(kind="generator", content=open_bundle(text), name=name)
    if is_remote(text):
        if text.partition("?")[0].endswith(".onnx"):
            raise NtupleError(f"{text}: a bundle is opened from a local file; fetch it")
        return Opened(kind="ntuple", content=tables.find_sources(text), name=name)
    if not text:
        raise NtupleError(f"the path of what to plot is empty, expected {EXPECTED}")
    path = Path(text)
    if path.is_dir():
        return _open_folder(path)
    kind = _SUFFIXES.get(path.suffix.lower(), "")
    problem = file_problem(path)
    if problem:
        if kind or problem != "no such file":
            raise _no_file(path, problem)
        # FILE:TREE, or a pattern.
        return Opened(kind="ntuple", content=tables.find_sources([text]), name=name)
    return _open_file(path, kind)


def _open_folder(path: Path) -> Opened:
    kind = recognise(path)
    if kind == "dataset":
        return Opened(kind="dataset", content=Dataset.open(path), name=path.name)
    if kind == "model":
        return Opened(kind="generator", content=open_generator(path), name=path.name)
    names = sorted(item.name for item in path.iterdir())
    found = "an empty folder" if not names else f"a folder with {', '.join(names[:4])}"
    if any(name.startswith("member_") for name in names):
        found += ", which is a folder of members: name one of them"
    elif "report.html" in names:
        found += ", which is a report: open report.html in a browser"
    more = " ..." if len(names) > 4 else ""
    raise NtupleError(f"{path}: found {found}{more}; expected {EXPECTED}")


def _open_file(path: Path, kind: str) -> Opened:
    with path.open("rb") as file:
        head = file.read(512)
    name = path.name
    if not head:
        raise _wrong(path, "an empty file")
    if head.startswith(b"root"):
        if tables.list_trees(path):
            sources = tables.find_sources([path])
            return Opened(kind="ntuple", content=sources, name=name)
        histograms = tables.read_histograms(path)
        return Opened(kind="table", content=binned(histograms, path), name=name)
    if head.startswith(b"PAR1"):
        frame = tables.read_table(path)
        if Binned.fits(frame):
            return Opened(kind="table", content=binned(frame, path), name=name)
        return Opened(kind="ntuple", content=tables.find_sources([path]), name=name)
    if head.startswith((b"PK\x03\x04", b"\x89HDF")):
        arrays = path.suffix.lower() == ".npz" and path.with_suffix(".json")
        if arrays and arrays.is_file():
            raise NtupleError(f"{path}: part of an efficiency map; plot {arrays}")
        return Opened(kind="ntuple", content=tables.find_sources([path]), name=name)
    if kind == "bundle":
        return Opened(kind="generator", content=open_bundle(path), name=name)
    text = _as_text(head)
    if text is None:
        raise _wrong(path, "a file of an unknown kind")
    if kind == "definition":
        return _open_definition(path)
    if kind == "json" or text.lstrip()[:1] in ("{", "["):
        return _open_json(path)
    if kind == "csv" or "," in text.partition("\n")[0]:
        return _open_csv(path)
    raise _wrong(path, "a text" if text.strip() else "an empty text")


def _open_definition(path: Path) -> Opened:
    text = path.read_text(encoding="utf-8", errors="replace")
    if "[[bundles]]" in text:
        raise _wrong(path, "a collection of bundles: plot one of its bundles")
    return Opened(kind="definition", content=load_sample(path), name=path.name)


def _open_json(path: Path) -> Opened:
    content = read_json(path, error=NtupleError)
    if isinstance(content, dict) and "corrections" in content:
        return Opened(kind="map", content=EfficiencyMap.open(path), name=path.name)
    keys = list(content)[:4] if isinstance(content, dict) else []
    what = f"JSON with {', '.join(map(repr, keys))}" if keys else "JSON"
    is_manifest = isinstance(content, dict) and {"request", "bundles"} <= set(content)
    if is_manifest:
        what = "the manifest of an ntuple: plot the ntuple"
    raise _wrong(path, what)


def _open_csv(path: Path) -> Opened:
    try:
        frame = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise _wrong(
            path, f"a text that is no table ({type(error).__name__})"
        ) from None
    if Binned.fits(frame):
        return Opened(kind="table", content=binned(frame, path), name=path.name)
    numbers = frame.select_dtypes("number")
    if numbers.empty:
        columns = ", ".join(map(str, list(frame)[:4]))
        raise _wrong(path, f"a table without numbers, of columns {columns}")
    return Opened(kind="ntuple", content=tables.find_sources(frame), name=path.name)


def _as_text(head: bytes) -> str | None:
    try:
        text = head[: head.rfind(b"\n") + 1 or None].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if "\0" not in text else None


def _no_file(path: Path, problem: str) -> PidganError:
    siblings = (
        sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    )
    return NtupleError(f"{path}: {problem}{nearest(path.name, siblings)}")


def _wrong(path: Path, found: str) -> PidganError:
    return NtupleError(f"{path}: found {found}; expected {EXPECTED}")
