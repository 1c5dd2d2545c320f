"""Read trees in chunks, write them whole or not at all.

A tree is a TTree or RNTuple of a ROOT file, or a Parquet file. `read_columns` for what
fits in memory, `iterate_columns` for what may not, `write_trees` for new files,
`write_table`, `read_table` and `read_arrays` for tables and arrays of our own. Copies
of trees with branches added are made by `pidgan.files.copying`.
"""

import glob
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import uproot

from pidgan.errors import NtupleError, nearest
from pidgan.files.trees import (
    PARQUET_SUFFIXES,
    BranchType,
    Source,
    TreeInfo,
    check_file,
    describe,
    entries_of,
    flat_types,
    is_npz,
    is_parquet,
    is_remote,
    iterate_arrays,
    iterate_flat,
    open_root,
    open_tree,
    reading,
    tree_names,
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
    "write_table",
    "write_trees",
]

BASKET_ENTRIES = 200_000
"""Entries written at a time, so that whoever reads in chunks need not unpack more."""

COMPRESSION = uproot.ZSTD(1)
"""Several times faster to write than uproot's default, ZLIB(1), and no larger; ROOT
reads it from 6.20 on."""


def find_sources(
    patterns: Iterable[str | Path] | str | Path, *, trees: Sequence[str] = ()
) -> list[Source]:
    """Return the trees that file patterns stand for, in natural order of the files.

    A pattern is FILE or FILE:TREE; FILE may be a glob (`**` included), an address
    (`root://`, `http://`, ...) or Parquet. A file named twice counts once, and
    `b2.root` comes before `b10.root`. Without `:TREE`, a file's trees are those of
    `trees` that it holds, else its only tree.

    Args:
        patterns: one or several.
        trees: names of trees to take from each file that does not name its own.

    Raises:
        NtupleError: nothing matches, or which tree is meant cannot be told.

    Example:
        >>> find_sources("mc/*.root:DecayTree")  # doctest: +SKIP
    """
    if isinstance(patterns, str | Path):
        patterns = [patterns]
    found: dict[Source, None] = {}
    for pattern in patterns:
        path, tree = _split(str(pattern))
        found.update((Source(match, tree), None) for match in _match(path))
    if not found:
        raise NtupleError("no input file given")
    sources: dict[Source, None] = {}
    for source in sorted(found, key=lambda source: _natural(source.path)):
        sources.update((meant, None) for meant in _trees_meant(source, trees))
    return list(sources)


def find_outputs(paths: Sequence[str], output: Path) -> dict[str, Path]:
    """Return the output file of each input file.

    Args:
        paths: the input files, no one twice.
        output: a file for one of them, or a directory.

    Raises:
        NtupleError: two outputs would be the same, one is an input or of another
            format.
    """
    suffixes = (".root", *PARQUET_SUFFIXES)
    is_file = output.suffix.lower() in suffixes and not output.is_dir()
    if is_file and len(paths) > 1:
        raise NtupleError(f"{output}: expected a directory for {len(paths)} files")
    outputs = {
        path: output if is_file else output / Path(path.partition("?")[0]).name
        for path in paths
    }
    written: dict[Path, str] = {}
    for path, file in outputs.items():
        if file in written:
            raise NtupleError(
                f"{written[file]} and {path} have the same name: both would be {file}; "
                "do them one by one"
            )
        written[file] = path
        if is_parquet(file) != is_parquet(path):
            raise NtupleError(f"{file}: expected a name that ends as that of {path}")
    for path in paths:
        for file in written:
            if file.exists() and not is_remote(path) and file.samefile(path):
                raise NtupleError(f"{file} is an input; an input is never changed")
    return outputs


def list_trees(path: str | Path) -> list[str]:
    """Return the names of the trees in a ROOT file, directories included."""
    with open_root(path) as file, reading(str(path)):
        return tree_names(file)


def describe_tree(source: Source) -> TreeInfo:
    """Return entries and branches of a tree."""
    with open_tree(source) as tree, reading(str(source)):
        return describe(tree)


def iterate_entries(
    source: Source, branches: Sequence[str], *, chunk: int = BASKET_ENTRIES
) -> Iterator[dict[str, Any]]:
    """Yield consecutive chunks of branches of numbers, arrays among them.

    Args:
        source: the tree.
        branches: their names, each in `TreeInfo.types`.
        chunk: largest number of entries of a chunk.

    Returns:
        By name an array: numpy (n,) or (n, k), or awkward (n, variable).

    Raises:
        NtupleError: the file is damaged, or the tree is empty.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    with open_tree(source) as tree:
        stop = _filled(tree, source)
        pieces = iterate_arrays(tree, branches, start=0, stop=stop, chunk=chunk)
        while True:
            with reading(str(source)):
                arrays = next(pieces, None)
            if arrays is None:
                return
            yield arrays


def read_columns(
    source: Source,
    branches: Sequence[str],
    *,
    start: int | None = None,
    stop: int | None = None,
) -> pd.DataFrame:
    """Return flat numeric branches of a tree, with the types they have on disk.

    Args:
        source: the tree.
        branches: names of branches with one number or bool per entry.
        start: first entry; the first of the tree if None.
        stop: one past the last entry; the last of the tree if None.

    Returns:
        One row per entry, one column per branch in the order asked for.

    Raises:
        NtupleError: the file is damaged, the tree is empty, or a branch is missing or
            not flat.
    """
    with open_tree(source) as tree:
        types = flat_types(tree, source, branches)
        first, last, _ = slice(start, stop).indices(_filled(tree, source))
        frames = [
            frame for _, frame in _frames(tree, source, types, start=first, stop=last)
        ]
    if not frames:
        return pd.DataFrame({name: np.empty(0, types[name]) for name in types})
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def iterate_columns(
    source: Source, branches: Sequence[str], *, chunk: int = BASKET_ENTRIES
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield (first entry, frame) of consecutive chunks of flat numeric branches.

    Args:
        source: the tree.
        branches: as for `read_columns`.
        chunk: largest number of entries of a frame.

    Raises:
        NtupleError: as `read_columns`.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    with open_tree(source) as tree:
        types = flat_types(tree, source, branches)
        stop = _filled(tree, source)
        yield from _frames(tree, source, types, stop=stop, chunk=chunk)


def iterate_rows(
    source: Source, branches: Sequence[str], *, chunk: int = BASKET_ENTRIES
) -> Iterator[dict[str, np.ndarray]]:
    """Yield consecutive chunks of branches whose entries all have one shape.

    Args:
        source: a tree, or a .npz file, whose arrays have an entry on their first axis.
        branches: their names; `name[3]` is number 3 of each entry.
        chunk: largest number of entries of a chunk.

    Returns:
        By name an array, (n,) for one number an entry or (n, k).

    Raises:
        NtupleError: the file is damaged, a branch is missing, or its entries differ in
            length.
    """
    places = {name: _element(name) for name in branches}
    wanted = list(dict.fromkeys(name for name, _ in places.values()))
    if is_npz(source.path):
        chunks: Iterator[dict[str, Any]] = iter([_npz_arrays(source, wanted)])
    else:
        types = describe_tree(source)
        for name in wanted:
            if name not in types.types:
                if name in types.branches:
                    what = f"is of type {types.branches[name]}, expected numbers"
                else:
                    what = f"is missing{nearest(name, types.branches)}"
                raise NtupleError(f"{source}: branch {name!r} {what}")
        chunks = iterate_entries(source, wanted, chunk=chunk)
    for arrays in chunks:
        yield {
            name: _rows(source, base, arrays[base], place)
            for name, (base, place) in places.items()
        }


def _element(name: str) -> tuple[str, int | None]:
    """Split `name[3]` into the branch and the number of the element."""
    found = re.fullmatch(r"(.+)\[(\d+)\]", name)
    return (name, None) if found is None else (found[1], int(found[2]))


def _npz_arrays(source: Source, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return arrays of a .npz file that have as many entries each."""
    with reading(str(source)):
        arrays = read_arrays(source.path)
    for name in names:
        if name not in arrays:
            raise NtupleError(f"{source} has no array {name!r}{nearest(name, arrays)}")
        if arrays[name].dtype.kind not in "biuf" or not arrays[name].ndim:
            raise NtupleError(f"{source}: array {name!r} does not hold rows of numbers")
    lengths = {name: len(arrays[name]) for name in names}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise NtupleError(f"{source}: arrays differ in their number of rows: {listed}")
    return {name: arrays[name] for name in names}


def _rows(source: Source, name: str, array: Any, place: int | None) -> np.ndarray:
    """Return an array as (n,) or (n, k), or one of its k columns."""
    try:
        rows = np.asarray(array)
    except ValueError:
        raise NtupleError(
            f"{source}: branch {name!r} has entries of different lengths, expected one "
            "length"
        ) from None
    if rows.ndim > 1:
        rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    if place is None:
        return rows
    if rows.ndim == 1 or place >= rows.shape[1]:
        width = "one number" if rows.ndim == 1 else f"{rows.shape[1]} numbers"
        raise NtupleError(
            f"{source}: {name}[{place}] asked for, but {name!r} has {width} an entry"
        )
    return np.asarray(rows[:, place])


def write_trees(
    path: str | Path,
    trees: Mapping[str, Mapping[str, Any]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a new ROOT file of TTrees, or a Parquet file if the name ends so.

    The file appears under its name when it is complete and never before.

    Args:
        path: the file.
        trees: for each tree (directories allowed, "Dir/DecayTree"; one tree for
            Parquet) its branches: numpy arrays (n,) or (n, ...), awkward arrays with
            one variable-length axis, lists of strings, or objects with `content` and
            `counts` (and a `counter`, the name of the branch with the counts; "n" and
            the branch's name otherwise). Branches with one counter share it.
        overwrite: replace an existing file.
    """
    with writing_file(path, overwrite=overwrite) as temporary:
        if is_parquet(path):
            if len(trees) != 1:
                raise NtupleError(f"{path}: Parquet holds one tree, got {list(trees)}")
            _write_parquet(temporary, next(iter(trees.values())))
            return
        with uproot.recreate(temporary, compression=COMPRESSION) as file:
            for name, branches in trees.items():
                _write_tree(file, name, branches)


def write_histograms(
    path: str | Path, histograms: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write a new ROOT file of histograms, as TH1, TH2 or TH3.

    Args:
        path: the file.
        histograms: `hist.Hist` objects of one to three axes by name.
        overwrite: replace an existing file.
    """
    with (
        writing_file(path, overwrite=overwrite) as temporary,
        uproot.recreate(temporary, compression=COMPRESSION) as file,
    ):
        for name, histogram in histograms.items():
            file[name] = histogram


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


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file; nothing in it is ever unpickled.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is damaged, or holds objects.
    """
    with open(path, "rb") as raw:
        try:
            with np.load(raw, allow_pickle=False) as file:
                return dict(file)
        except (EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no whole .npz file: {error}") from error


def as_branch(values: Any) -> tuple[Any, str | None]:
    """Return what uproot can write of an array, with its counter if it names one."""
    if hasattr(values, "content") and hasattr(values, "counts"):
        jagged = ak.unflatten(np.asarray(values.content), np.asarray(values.counts))
        return jagged, getattr(values, "counter", None)
    if isinstance(values, ak.Array):
        return values, None
    array = np.asarray(values)
    return (ak.Array(array.tolist()) if array.dtype.kind in "UO" else array), None


def as_type(array: Any) -> Any:
    """Return the branch type, for uproot's `mktree`, of an array."""
    if isinstance(array, np.ndarray):
        return np.dtype((array.dtype.newbyteorder("="), array.shape[1:]))
    kind = ak.type(array).content
    # uproot 5.7 writes wrong offsets for arrays of arrays (`x[n][3]`).
    if array.ndim > 2 and not array.layout.purelist_isregular:
        raise NtupleError(f"a branch of type {kind} cannot be written to a TTree")
    return kind


def _write_tree(file: Any, name: str, branches: Mapping[str, Any]) -> None:
    """Add a TTree to an open file, in baskets of BASKET_ENTRIES."""
    arrays: dict[str, Any] = {}
    counters: dict[str, str] = {}
    for branch, values in branches.items():
        arrays[branch], counter = as_branch(values)
        counters[branch] = counter or f"n{branch}"
    types = {branch: as_type(array) for branch, array in arrays.items()}
    tree = file.mktree(name, types, counter_name=counters.__getitem__)
    entries = max((len(array) for array in arrays.values()), default=0)
    for first in range(0, entries, BASKET_ENTRIES):
        last = first + BASKET_ENTRIES
        tree.extend({branch: array[first:last] for branch, array in arrays.items()})


def _write_parquet(path: Path, branches: Mapping[str, Any]) -> None:
    """Write branches as the columns of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: ak.to_arrow(ak.Array(as_branch(values)[0]), extensionarray=False)
        for name, values in branches.items()
    }
    pq.write_table(pa.table(columns), path, row_group_size=BASKET_ENTRIES)


def _filled(tree: Any, source: Source) -> int:
    """Return the number of entries of an open tree; raise if there are none."""
    with reading(str(source)):
        entries = entries_of(tree)
    if entries == 0:
        raise NtupleError(f"{source} is empty: got 0 entries, expected at least 1")
    return entries


def _frames(
    tree: Any,
    source: Source,
    branches: Iterable[str],
    *,
    stop: int,
    start: int = 0,
    chunk: int = BASKET_ENTRIES,
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield (first entry, frame) for a range of entries of an open tree."""
    names = list(branches)
    pieces = iterate_flat(tree, names, start=start, stop=stop, chunk=chunk)
    position = start
    while True:
        with reading(str(source)):
            arrays = next(pieces, None)
        if arrays is None:
            return
        frame = pd.DataFrame({name: arrays[name] for name in names}, copy=False)
        yield position, frame
        position += len(frame)


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
        if not is_remote(path):
            check_file(path)
        return [path]
    matches = [
        match for match in glob.glob(path, recursive=True) if Path(match).is_file()
    ]
    if not matches:
        raise NtupleError(f"no file matches {path!r}")
    return matches


def _natural(path: str) -> list[tuple[int, str]]:
    """Return a sort key in which numbers within names count as numbers."""
    parts = re.split(r"(\d+)", path)
    return [(int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)]


def _trees_meant(source: Source, trees: Sequence[str]) -> list[Source]:
    """Return the trees of a file that a pattern without a tree's name stands for."""
    if is_parquet(source.path) or is_npz(source.path):
        if source.tree is not None:
            kind = "Parquet" if is_parquet(source.path) else ".npz"
            raise NtupleError(f"{source}: a {kind} file has no trees to name")
        return [source]
    if source.tree is not None:
        return [source]
    present = list_trees(source.path)
    listed = ", ".join(repr(name) for name in present) or "none"
    meant = [name for name in trees if name in present] if trees else present
    if trees and not meant:
        raise NtupleError(
            f"{source} has none of the trees {', '.join(map(repr, trees))}; its trees: "
            f"{listed}"
        )
    if not trees and len(present) != 1:
        raise NtupleError(
            f"{source} has {len(present)} trees, expected one or FILE:TREE; its trees: "
            f"{listed}"
        )
    return [Source(source.path, name) for name in meant]
