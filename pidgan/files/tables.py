"""Read trees in chunks, write them whole or not at all.

A tree is a TTree or RNTuple of a ROOT file, or the table of a file of another format
(`pidgan.files.formats`). `read_columns` is for what fits in memory, `iterate_columns`
for what may not, `iterate_entries` and `iterate_rows` for branches with several numbers
per entry, `write_trees` for new files, `write_table` and `read_table` for tables of our
own. `name[3]` among the branches to read is number 3 of each entry of an array. Copies
of trees with branches added are made by `pidgan.files.copying`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd

from pidgan.errors import NtupleError, nearest
from pidgan.files.finding import find_outputs, find_sources, list_trees
from pidgan.files.formats import ROOT, check_file, format_of, open_tree
from pidgan.files.formats.npz import read_arrays
from pidgan.files.trees import (
    BASKET_ENTRIES,
    BranchType,
    Source,
    Tree,
    TreeInfo,
    read_pieces,
    reading,
)
from pidgan.files.writing import writing_file

__all__ = [
    "BranchType",
    "Source",
    "TreeInfo",
    "describe_tree",
    "find_outputs",
    "find_sources",
    "iterate_columns",
    "iterate_entries",
    "iterate_rows",
    "list_trees",
    "read_arrays",
    "read_columns",
    "read_table",
    "write_histograms",
    "write_table",
    "write_trees",
]


@dataclass(frozen=True)
class _Place:
    """A branch, or one element of it, and the type of its numbers."""

    branch: str
    element: int | None
    number: np.dtype[Any]


def describe_tree(source: Source) -> TreeInfo:
    """Return entries and branches of a tree."""
    with open_tree(source) as tree, reading(str(source)):
        branches = tree.typenames()
        found = {name: tree.branch_type(name) for name in branches}
        types = {name: kind for name, kind in found.items() if kind is not None}
        return TreeInfo(entries=tree.entries, branches=branches, types=types)


def iterate_entries(
    source: Source,
    branches: Sequence[str],
    *,
    start: int | None = None,
    stop: int | None = None,
    chunk: int = BASKET_ENTRIES,
) -> Iterator[dict[str, Any]]:
    """Yield consecutive chunks of branches of numbers, arrays among them.

    Args:
        source: The tree.
        branches: Names of branches of numbers.
        start: First entry; the first of the tree if None.
        stop: One past the last entry; the last of the tree if None.
        chunk: Largest number of entries of a chunk.

    Returns:
        Arrays by name: numpy (n,) or (n, k), or awkward (n, variable).

    Raises:
        NtupleError: The file is damaged, the tree is empty, or a branch is missing or
            does not hold numbers.
    """
    with open_tree(source) as tree:
        places = _find(tree, source, branches)
        yield from _read(tree, source, places, start=start, stop=stop, chunk=chunk)


def read_columns(
    source: Source,
    branches: Sequence[str],
    *,
    start: int | None = None,
    stop: int | None = None,
) -> pd.DataFrame:
    """Return flat numeric branches of a tree, with the types they have on disk.

    Args:
        source: The tree.
        branches: Names of branches with one number or bool per entry.
        start: First entry; the first of the tree if None.
        stop: One past the last entry; the last of the tree if None.

    Returns:
        One row per entry, one column per branch in the order asked for.

    Raises:
        NtupleError: The file is damaged, the tree is empty, or a branch is missing or
            not flat.
    """
    with open_tree(source) as tree:
        places = _find(tree, source, branches, are_flat=True)
        frames = [
            pd.DataFrame(arrays, copy=False)
            for arrays in _read(tree, source, places, start=start, stop=stop)
        ]
    if not frames:
        return pd.DataFrame({n: np.empty(0, p.number) for n, p in places.items()})
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def iterate_columns(
    source: Source, branches: Sequence[str], *, chunk: int = BASKET_ENTRIES
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield (first entry, frame) of consecutive chunks of flat numeric branches.

    Args:
        source: The tree.
        branches: Names of branches with one number or bool per entry.
        chunk: Largest number of entries of a frame.

    Raises:
        NtupleError: The file is damaged, the tree is empty, or a branch is missing or
            not flat.
    """
    with open_tree(source) as tree:
        places = _find(tree, source, branches, are_flat=True)
        first = 0
        for arrays in _read(tree, source, places, chunk=chunk):
            frame = pd.DataFrame(arrays, copy=False)
            yield first, frame
            first += len(frame)


def iterate_rows(
    source: Source, branches: Sequence[str], *, chunk: int = BASKET_ENTRIES
) -> Iterator[dict[str, np.ndarray]]:
    """Yield consecutive chunks of branches whose entries all have one shape.

    Args:
        source: The tree.
        branches: Names of branches of numbers.
        chunk: Largest number of entries of a chunk.

    Returns:
        By name an array, (n,) for one number an entry or (n, k).

    Raises:
        NtupleError: The file is damaged, a branch is missing, or its entries differ in
            length.
    """
    for arrays in iterate_entries(source, branches, chunk=chunk):
        yield {name: _regular(source, name, array) for name, array in arrays.items()}


def write_trees(
    path: str | Path,
    trees: Mapping[str, Mapping[str, Any]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a new ROOT file of TTrees, or a file of the format that its name tells.

    The file appears under its name when it is complete and never before.

    Args:
        path: The file.
        trees: For each tree (directories allowed, "Dir/DecayTree"; only one tree in
            other formats) its branches: numpy arrays (n,) or (n, ...), awkward arrays
            with one variable-length axis, lists of strings, or objects with `content`
            and `counts` (and a `counter`, the name of the branch with the counts; "n"
            and the branch's name otherwise). Branches with one counter share it.
        overwrite: Whether an existing file is replaced.
    """
    known = format_of(path)
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
    """Write a new ROOT file of histograms, as TH1, TH2 or TH3.

    Args:
        path: The file.
        histograms: `hist.Hist` objects of one to three axes by name.
        overwrite: Whether an existing file is replaced.
    """
    with writing_file(path, overwrite=overwrite) as file, ROOT.create(file) as new:
        for name, histogram in histograms.items():
            new[name] = histogram


def write_table(
    path: str | Path, frame: pd.DataFrame, *, overwrite: bool = False
) -> None:
    """Write a DataFrame as Parquet, without its index."""
    with writing_file(path, overwrite=overwrite) as temporary:
        frame.to_parquet(temporary, engine="pyarrow", index=False)


def read_table(path: str | Path) -> pd.DataFrame:
    """Return the DataFrame of a Parquet file."""
    check_file(str(path))
    with reading(str(path)):
        return pd.read_parquet(path, engine="pyarrow")


def _find(
    tree: Tree, source: Source, branches: Sequence[str], *, are_flat: bool = False
) -> dict[str, _Place]:
    """Return where branches are; raise if one is missing or does not hold numbers."""
    with reading(str(source)):
        present = tree.typenames()
    places: dict[str, _Place] = {}
    for name in branches:
        element = re.fullmatch(r"(.+)\[(\d+)\]", name)
        base, number = name, None
        if element is not None and name not in present:
            base, number = element[1], int(element[2])
        if base not in present:
            raise NtupleError(
                f"{source} has no branch {base!r}{nearest(base, present)}"
            )
        with reading(f"{source}, branch {base!r}"):
            kind = tree.branch_type(base)
        if kind is None or (are_flat and kind.shape and number is None):
            raise NtupleError(
                f"{source}, branch {base!r} is of type {present[base]}, expected "
                f"{'one number per entry' if are_flat else 'numbers'}"
            )
        places[name] = _Place(base, number, kind.number)
    return places


def _read(
    tree: Tree,
    source: Source,
    places: Mapping[str, _Place],
    *,
    start: int | None = None,
    stop: int | None = None,
    chunk: int = BASKET_ENTRIES,
) -> Iterator[dict[str, Any]]:
    """Yield arrays of an open tree, chunk by chunk; raise if it is empty."""
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    with reading(str(source)):
        entries = tree.entries
    if entries == 0:
        raise NtupleError(f"{source} is empty: got 0 entries, expected at least 1")
    first, last, _ = slice(start, stop).indices(entries)
    wanted = list(dict.fromkeys(place.branch for place in places.values()))
    pieces = tree.pieces(wanted, start=first, stop=last, chunk=chunk)
    read = (tree.arrays(piece, wanted) for piece in pieces)
    for arrays in read_pieces(read, source):
        yield {
            name: arrays[place.branch]
            if place.element is None
            else _element(source, place, arrays[place.branch])
            for name, place in places.items()
        }


def _element(source: Source, place: _Place, array: Any) -> np.ndarray:
    """Return one number (n,) of each entry of an array."""
    rows = _regular(source, place.branch, array)
    width = rows.shape[1] if rows.ndim > 1 else 0
    if place.element is None or place.element >= width:
        has = f"{width} numbers" if width else "one number"
        raise NtupleError(
            f"{source}: {place.branch}[{place.element}] asked for, but "
            f"{place.branch!r} has {has} an entry"
        )
    return np.asarray(rows[:, place.element])


def _regular(source: Source, name: str, array: Any) -> np.ndarray:
    """Return an array as (n,) or (n, k); raise if its entries differ in length."""
    try:
        rows = np.asarray(array)
    except ValueError:
        raise NtupleError(
            f"{source}: branch {name!r} has entries of different lengths, expected one "
            "length"
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
