"""Find trees, read them in chunks, and write new files.

A tree is a TTree or RNTuple of a ROOT file, or the table of a file of another format
(`pidgan.files.formats`). `name[3]` among the branches to read is number 3 of each entry
of an array.
"""

import glob
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd

from pidgan.errors import NtupleError, PidganWarning, nearest
from pidgan.files import formats
from pidgan.files.formats.npz import read_arrays as read_arrays
from pidgan.files.formats.root import Histogram as Histogram
from pidgan.files.formats.root import read_histograms as _read_histograms
from pidgan.files.frames import Rows, frame_source, is_frame
from pidgan.files.places import check_end, check_folder_name, check_output
from pidgan.files.trees import BASKET_ENTRIES, Tree, is_remote, read_pieces, reading
from pidgan.files.trees import BranchType as BranchType
from pidgan.files.trees import Source as Source
from pidgan.files.trees import TreeInfo as TreeInfo
from pidgan.files.writing import writing_file


def find_sources(
    patterns: Rows | Iterable[str | Path],
    *,
    trees: Sequence[str] = (),
    companion: Callable[[str], str] | None = None,
) -> list[Source]:
    """Return the trees that file patterns stand for, in natural order of the files.

    Rows in memory are a source too. They come after the files, in the given order.

    A pattern is FILE or FILE:TREE; FILE may be a glob (`**` included), an address
    (`root://`, `http://`, ...) or Parquet. A file named twice counts once, also with
    another spelling of its path, and `b2.root` comes before `b10.root`. Without
    `:TREE`, a file's trees are those of `trees` that it holds, else its only tree.
    `companion` gives the path of the file that belongs to a file; such files are left
    out where both are found.
    """
    given: list[Any] = [patterns]
    if not isinstance(patterns, str | Path) and not is_frame(patterns):
        given = list(patterns)
    found: dict[Source, None] = {}
    for pattern in given:
        if is_frame(pattern):
            continue
        path, tree = _split(str(pattern))
        found.update((Source(match, tree), None) for match in _match(path))
    frames = _frame_sources([rows for rows in given if is_frame(rows)])
    if not found and not frames:
        raise NtupleError("no input file given")
    if companion is not None:
        pairs = {(_place(s.path), _place(companion(s.path))) for s in found}
        others = {other for path, other in pairs if other != path}
        found = {s: None for s in found if _place(s.path) not in others}
    sources: dict[tuple[str, str | None], Source] = {}
    for source in sorted(found, key=lambda source: _natural(source.path)):
        for meant in _trees_meant(source, trees):
            sources.setdefault((_place(meant.path), meant.tree), meant)
    return [*sources.values(), *frames]


def find_files(patterns: Iterable[str]) -> list[str]:
    """Return the files that patterns stand for; none of them is opened.

    An NtupleError says which pattern stands for none.
    """
    found = {match for one in patterns for match in _match(_split(one)[0])}
    return sorted(found, key=_natural)


def find_outputs(paths: Sequence[str], output: Path) -> dict[str, Path]:
    """Return the output file of each input file; it is or lies in `output`."""
    is_file = output.suffix.lower() in formats.known_suffixes() and not output.is_dir()
    if not is_file:
        check_folder_name(output)
    if is_file and len(paths) > 1:
        raise NtupleError(f"{output}: expected a directory for {len(paths)} files")
    outputs = {
        path: output if is_file else output / Path(path.partition("?")[0]).name
        for path in paths
    }
    written: dict[Path, str] = {}
    for path, file in outputs.items():
        check_output(file)
        if file in written:
            raise NtupleError(
                f"{written[file]} and {path} have the same name: both would be {file}; "
                "process them in separate runs"
            )
        written[file] = path
        if formats.format_of(file) is not formats.format_of(path):
            raise NtupleError(f"{file}: expected the same file extension as {path}")
    for path in paths:
        for file in written:
            if file.exists() and not is_remote(path) and file.samefile(path):
                raise NtupleError(f"{file} is an input; an input is never changed")
    return outputs


def list_trees(path: str | Path) -> list[str]:
    """Return the names of the trees in a file, directories included."""
    names = formats.format_of(path).tree_names
    with formats.open_file(path) as file, reading(str(path)):
        return [] if names is None else names(file)


def read_record(path: str | Path | Source) -> list[str]:
    """Return the lines of the record of a file or of rows; empty if there is none."""
    if isinstance(path, Source):
        if path.table is not None:
            return list(path.table.record)
        path = path.path
    with formats.open_file(path) as file, reading(f"the record in {path}"):
        return formats.format_of(path).read_record(file)


def describe_tree(source: Source) -> TreeInfo:
    """Return entries and branches of a tree."""
    with formats.open_tree(source) as tree:
        return _describe(tree, source)


def count_entries(source: Source, branches: Sequence[str]) -> int:
    """Return the number of entries.

    An NtupleError tells which of `branches` is missing, or is not one number per entry.
    """
    with formats.open_tree(source) as tree:
        _find(tree, source, branches, are_flat=True)
        with reading(str(source)):
            return tree.entries


def choose_tree(
    path: str | Path, choose: Callable[[list[str]], str | None]
) -> tuple[Source, TreeInfo]:
    """Return a tree and its content from a file that is opened once.

    `choose` gets the names of the trees, none for a file of one table.
    """
    names = formats.format_of(path).tree_names
    with formats.open_file(path) as file:
        with reading(str(path)):
            trees = [] if names is None else names(file)
        source = Source(str(path), choose(trees))
        return source, _describe(formats.find_tree(file, source), source)


def iterate_entries(
    source: Source,
    branches: Sequence[str],
    *,
    start: int | None = None,
    stop: int | None = None,
    chunk: int = BASKET_ENTRIES,
    are_flat: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield chunks of branches of numbers: numpy (n,) or (n, k), awkward (n, variable).

    An NtupleError tells what is damaged, empty, missing or of another type; branches
    that `are_flat` have one number or bool per entry.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    with formats.open_tree(source) as tree:
        places = _find(tree, source, branches, are_flat=are_flat)
        with reading(str(source)):
            entries = tree.entries
        if entries == 0:
            raise NtupleError(f"{source} is empty: got 0 entries, expected at least 1")
        first, last, _ = slice(start, stop).indices(entries)
        wanted = list(dict.fromkeys(branch for branch, _ in places.values()))
        pieces = tree.pieces(wanted, start=first, stop=last, chunk=chunk)
        read = (tree.arrays(piece, wanted) for piece in pieces)
        for arrays in read_pieces(read, source):
            yield {
                name: arrays[branch]
                if element is None
                else _element(source, branch, element, arrays[branch])
                for name, (branch, element) in places.items()
            }


def read_columns(
    source: Source,
    branches: Sequence[str],
    *,
    start: int | None = None,
    stop: int | None = None,
) -> pd.DataFrame:
    """Return branches with one number or bool per entry, of the types on disk.

    The columns are in the order asked for. `start` and `stop` are those of a slice.
    """
    frames = [
        pd.DataFrame(arrays, copy=False)
        for arrays in iterate_entries(
            source, branches, start=start, stop=stop, are_flat=True
        )
    ]
    if not frames:
        return read_columns(source, branches, stop=1)[:0]
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def iterate_columns(
    source: Source,
    branches: Sequence[str],
    *,
    start: int = 0,
    stop: int | None = None,
    chunk: int = BASKET_ENTRIES,
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield (first entry, frame) of chunks of branches with one number per entry."""
    first = start
    places: Any = {"start": start, "stop": stop, "chunk": chunk}
    for arrays in iterate_entries(source, branches, **places, are_flat=True):
        frame = pd.DataFrame(arrays, copy=False)
        yield first, frame
        first += len(frame)


def iterate_rows(
    source: Source,
    branches: Sequence[str],
    *,
    start: int = 0,
    stop: int | None = None,
    chunk: int = BASKET_ENTRIES,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield chunks of branches, (n,) or (n, k), whose entries all have one shape."""
    places: Any = {"start": start, "stop": stop, "chunk": chunk}
    for arrays in iterate_entries(source, branches, **places):
        yield {name: _regular(source, name, array) for name, array in arrays.items()}


def write_trees(
    path: str | Path,
    trees: Mapping[str, Mapping[str, Any]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a new ROOT file of TTrees, or a file of the format that its name tells.

    A tree, whose name may have directories ("Dir/DecayTree"), has as branches numpy
    arrays (n,) or (n, ...), awkward arrays with one variable-length axis, lists of
    strings, or objects with `content` and `counts` (and a `counter`, the name of the
    branch with the counts, which branches may share; "n" and the branch's name
    otherwise). Other formats hold only one tree.
    """
    check_end(path, sorted(formats.known_suffixes()))
    known = formats.format_of(path)
    if known.tree_names is None and len(trees) != 1:
        raise NtupleError(f"{path}: {known.name} holds one tree, got {list(trees)}")
    with writing_file(path, overwrite=overwrite) as file, known.create(file) as new:
        for name, branches in trees.items():
            counters = {
                branch: getattr(values, "counter", None) or f"n{branch}"
                for branch, values in branches.items()
            }
            arrays = {branch: _as_array(values) for branch, values in branches.items()}
            known.write(new, name, arrays, counters)


def write_histograms(
    path: str | Path, histograms: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write a ROOT file of `hist.Hist` objects of one to three axes, as TH1 to TH3."""
    with (
        writing_file(path, overwrite=overwrite) as file,
        formats.ROOT.create(file) as new,
    ):
        for name, histogram in histograms.items():
            new[name] = histogram


def read_histograms(path: str | Path) -> dict[str, Histogram]:
    """Return the histograms of a ROOT file by name, with edges, values, variances."""
    with formats.open_file(path) as file, reading(str(path)):
        return _read_histograms(file)


def write_table(
    path: str | Path, frame: pd.DataFrame, *, overwrite: bool = False
) -> None:
    """Write a DataFrame as Parquet, without its index."""
    with writing_file(path, overwrite=overwrite) as temporary:
        frame.to_parquet(temporary, engine="pyarrow", index=False)


def read_table(path: str | Path) -> pd.DataFrame:
    """Return the DataFrame of a Parquet file."""
    formats.check_file(str(path))
    with reading(str(path)):
        return pd.read_parquet(path, engine="pyarrow")


def _describe(tree: Tree, source: Source) -> TreeInfo:
    with reading(str(source)):
        branches = tree.typenames()
        found = {name: tree.branch_type(name) for name in branches}
        types = {name: kind for name, kind in found.items() if kind is not None}
        return TreeInfo(entries=tree.entries, branches=branches, types=types)


def _find(
    tree: Tree, source: Source, branches: Sequence[str], *, are_flat: bool
) -> dict[str, tuple[str, int | None]]:
    """Return branches and elements; raise if one is missing or holds no numbers."""
    with reading(str(source)):
        present = tree.typenames()
    places: dict[str, tuple[str, int | None]] = {}
    for name in branches:
        element = re.fullmatch(r"(.+)\[(\d+)\]", name)
        base, number = name, None
        if element is not None and name not in present:
            base, number = element[1], int(element[2])
        if base not in present:
            raise NtupleError(
                f"{source} has no {source.branch} {base!r}{nearest(base, present)}"
            )
        with reading(f"{source}, {source.branch} {base!r}"):
            kind = tree.branch_type(base)
        if kind is None or (are_flat and kind.shape and number is None):
            raise NtupleError(
                f"{source}, {source.branch} {base!r} is of type {present[base]}, "
                f"expected {'one number per entry' if are_flat else 'numbers'}"
            )
        places[name] = base, number
    return places


def _element(source: Source, branch: str, element: int, array: Any) -> np.ndarray:
    """Return one number (n,) of each entry of an array."""
    rows = _regular(source, branch, array)
    width = rows.shape[1] if rows.ndim > 1 else 1
    if element >= width:
        has = f"{width} numbers" if width != 1 else "one number"
        raise NtupleError(
            f"{source}: {branch}[{element}] is element {element}, counted from 0, but "
            f"{branch!r} has {has} per entry"
        )
    return np.asarray(rows.reshape(len(rows), width)[:, element])


def _regular(source: Source, name: str, array: Any) -> np.ndarray:
    """Return an array as (n,) or (n, k); raise if its entries differ in length."""
    try:
        rows = np.asarray(array)
    except ValueError:
        raise NtupleError(
            f"{source}: {source.branch} {name!r} has entries of different lengths, "
            "expected one length"
        ) from None
    return rows.reshape(len(rows), math.prod(rows.shape[1:])) if rows.ndim > 1 else rows


def _as_array(values: Any) -> Any:
    """Return what is to be written as a numpy or awkward array."""
    if hasattr(values, "content") and hasattr(values, "counts"):
        return ak.unflatten(np.asarray(values.content), np.asarray(values.counts))
    if isinstance(values, ak.Array):
        return values
    array = np.asarray(values)
    return ak.Array(array.tolist()) if array.dtype.kind in "UO" else array


def _frame_sources(frames: Sequence[Any]) -> list[Source]:
    """Return rows in memory as sources of different names, each given once."""
    unique = list({id(rows): rows for rows in frames}.values())
    if len(unique) < len(frames):
        warnings.warn(
            f"{len(frames)} tables are given, of which {len(frames) - len(unique)} "
            "are another one again; each counts once",
            PidganWarning,
            stacklevel=4,
        )
    if len(unique) == 1:
        return [frame_source(unique[0])]
    return [frame_source(rows, f"table {i}") for i, rows in enumerate(unique, 1)]


def _split(pattern: str) -> tuple[str, str | None]:
    """Split FILE:TREE; the colons of an address and of an existing file are FILE's."""
    if is_remote(pattern):
        scheme, _, rest = pattern.partition("://")
        host, slash, path = rest.partition("/")
        path, _, tree = path.partition(":")
        return f"{scheme}://{host}{slash}{path}", tree or None
    if Path(pattern).exists():
        return pattern, None
    path, _, tree = pattern.rpartition(":") if ":" in pattern else (pattern, "", "")
    return path, tree or None


def _match(path: str) -> list[str]:
    """Return the files that a path or glob stands for."""
    if is_remote(path) or Path(path).exists() or not glob.has_magic(path):
        formats.check_file(path)
        return [path]
    matches = [
        match for match in glob.glob(path, recursive=True) if Path(match).is_file()
    ]
    if not matches:
        raise NtupleError(f"no file matches {path!r}")
    return matches


def _place(path: str) -> str:
    """Return one spelling of a path or address."""
    return path if is_remote(path) else os.path.abspath(path)


def _natural(path: str) -> list[tuple[int, str]]:
    """Return a sort key in which numbers within names count as numbers."""
    parts = re.split(r"(\d+)", path)
    return [(int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)]


def _trees_meant(source: Source, trees: Sequence[str]) -> list[Source]:
    """Return the trees of a file that a pattern without a tree's name stands for."""
    known = formats.format_of(source.path)
    if source.tree is not None and known.tree_names is None:
        raise NtupleError(f"{source}: a {known.name} file has no trees to name")
    if source.tree is not None or known.tree_names is None:
        return [source]
    present = list_trees(source.path)
    listed = ", ".join(repr(name) for name in present) or "none"
    meant = [name for name in trees if name in present] if trees else present
    if trees and not meant:
        raise NtupleError(
            f"{source} has none of the trees {', '.join(map(repr, trees))}; its trees: "
            f"{listed}; name yours as `trees` in the definition of the sample"
        )
    if not trees and len(present) != 1:
        raise NtupleError(
            f"{source} has {len(present)} trees, expected one or FILE:TREE; its trees: "
            f"{listed}"
        )
    return [Source(source.path, name) for name in meant]
