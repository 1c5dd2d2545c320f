"""A tree on disk, opened: whether its file is sound, what its branches are.

Three formats behind one name: TTree and RNTuple (ROOT files, uproot) and Parquet
(pyarrow). Damage, which every library reports in its own way, becomes an `NtupleError`
that names the file. Reading and writing is in `pidgan.files.tables`, copies of trees
with branches added in `pidgan.files.copying`.
"""

import contextlib
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from pidgan.errors import NtupleError, PidganError, nearest, one_line

TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "RNTuple")

PARQUET_SUFFIXES = (".parquet", ".pq")

RNTUPLE_TYPES = {
    "bool": "bool",
    "float": "float32",
    "double": "float64",
    **{
        f"std::{sign}int{bits}_t": f"{sign}int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
"""Types of RNTuple fields with one number or bool per entry."""

_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Source:
    """A tree in a file, local or remote; a Parquet file has no tree name."""

    path: str
    tree: str | None = None

    def __str__(self) -> str:
        return self.path if self.tree is None else f"{self.path}:{self.tree}"


@dataclass(frozen=True)
class BranchType:
    """The numbers of a branch, and the shape of its entries.

    Attributes:
        number: their type.
        shape: () for one number per entry, (3,) for three, (None,) for any number.
    """

    number: np.dtype[Any]
    shape: tuple[int | None, ...] = ()

    def __str__(self) -> str:
        lengths = ("" if n is None else str(n) for n in self.shape)
        return f"{self.number}{''.join(f'[{length}]' for length in lengths)}"


@dataclass(frozen=True, kw_only=True)
class TreeInfo:
    """What a tree holds.

    Attributes:
        entries: number of entries.
        branches: its branches, each with its type on disk.
        types: those of them that hold numbers.
    """

    entries: int
    branches: dict[str, str]
    types: dict[str, BranchType]


def is_parquet(path: str | Path) -> bool:
    """Return whether a path names a Parquet file."""
    return str(path).partition("?")[0].lower().endswith(PARQUET_SUFFIXES)


def is_npz(path: str | Path) -> bool:
    """Return whether a path names a file of numpy arrays."""
    return str(path).lower().endswith(".npz")


def is_remote(path: str | Path) -> bool:
    """Return whether a path is an address such as root:// or http://."""
    return _REMOTE.match(str(path)) is not None


def file_stamp(path: str | Path) -> dict[str, int]:
    """Return what tells a changed file: its size, and its time of change if local."""
    if not is_remote(path):
        status = os.stat(path)
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    import fsspec

    with reading(str(path)):
        filesystem, name = fsspec.core.url_to_fs(str(path))
        return {"size": int(filesystem.size(name) or 0)}


def is_tree_class(name: str) -> bool:
    """Return whether a C++ class name is one of a tree."""
    return name.split("::")[-1] in TREE_CLASSES


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into an NtupleError."""
    try:
        yield
    except (NtupleError, MemoryError):
        raise
    # uproot, fsspec and the codecs have no common base class for damage.
    except Exception as error:
        raise NtupleError(f"{where} cannot be read: {one_line(error)}") from error


@contextlib.contextmanager
def copying(where: str) -> Iterator[None]:
    """Turn what a writer raises on contents that contradict into an NtupleError."""
    try:
        yield
    except (PidganError, MemoryError, OSError):
        raise
    # A damaged file may be read and still not be fit to be written.
    except Exception as error:
        raise NtupleError(f"{where} cannot be copied: {one_line(error)}") from error


def check_file(path: str | Path) -> None:
    """Raise if a local file is missing, of another format or shorter than it says."""
    if is_remote(path):
        return
    file = Path(path)
    if file.is_dir():
        raise NtupleError(f"{path} is a directory, expected a file")
    if not file.parent.is_dir():
        raise NtupleError(f"{path} does not exist, nor does its directory")
    if not file.exists():
        present = [item.name for item in file.parent.iterdir()]
        raise NtupleError(f"{path} does not exist{nearest(file.name, present)}")
    with reading(str(path)), file.open("rb") as stream:
        header = stream.read(20)
    size = file.stat().st_size
    kind, expected = "ROOT", b"root"
    if is_parquet(path):
        kind, expected = "Parquet", b"PAR1"
    elif is_npz(path):
        kind, expected = ".npz", b"PK\x03\x04"
    if header[:4] != expected or size < 20:
        raise NtupleError(
            f"{path} is not a {kind} file: starts with {header[:4]!r}, expected "
            f"{expected!r}"
        )
    if is_parquet(path) or is_npz(path):
        return
    # https://root.cern.ch/doc/master/classTFile.html: fEND is 8 bytes in large files.
    large = struct.unpack(">i", header[4:8])[0] >= 1_000_000
    end: int = struct.unpack(">q", header[12:20])[0]
    end = end if large else end >> 32
    if size < end:
        raise NtupleError(f"{path} is truncated: got {size} bytes, expected {end}")


@contextlib.contextmanager
def open_root(path: str | Path) -> Iterator[Any]:
    """Open a ROOT file after a look at whether it is there and complete."""
    check_file(path)
    with reading(str(path)):
        file = uproot.open({str(path): None})
    with file:
        yield file


@contextlib.contextmanager
def open_parquet(path: str | Path) -> Iterator[Any]:
    """Open a Parquet file, local or remote."""
    import fsspec
    import pyarrow.parquet as pq

    check_file(path)
    with contextlib.ExitStack() as stack:
        with reading(str(path)):
            stream = stack.enter_context(fsspec.open(str(path), "rb"))
            file = stack.enter_context(pq.ParquetFile(stream))
        yield file


@contextlib.contextmanager
def open_tree(source: Source) -> Iterator[Any]:
    """Open a tree: an uproot TTree or RNTuple, or a pyarrow ParquetFile."""
    if is_parquet(source.path):
        with open_parquet(source.path) as file:
            yield file
        return
    with open_root(source.path) as file:
        yield find_tree(file, source)


def find_tree(file: Any, source: Source) -> Any:
    """Return the tree of an open ROOT file that a source names."""
    name = str(source.tree).partition(";")[0].strip("/")
    with reading(str(source)):
        trees = tree_names(file)
        if name not in trees:
            listed = ", ".join(repr(tree) for tree in trees) or "none"
            raise NtupleError(
                f"{source.path} has no tree {source.tree!r}; its trees: {listed}"
                f"{nearest(name, trees)}"
            )
        return file[str(source.tree)]


def tree_names(file: Any) -> list[str]:
    """Return the names of the trees of an open ROOT file, directories included."""
    classes = file.classnames(recursive=True, cycle=False)
    return [name for name, kind in classes.items() if is_tree_class(kind)]


def is_ttree(tree: Any) -> bool:
    """Return whether an open tree is a TTree, neither RNTuple nor Parquet."""
    return isinstance(tree, uproot.TTree)


def is_table(tree: Any) -> bool:
    """Return whether an open tree is a Parquet file."""
    return hasattr(tree, "schema_arrow")


def entries_of(tree: Any) -> int:
    """Return the number of entries of an open tree."""
    return int(tree.metadata.num_rows if is_table(tree) else tree.num_entries)


def stored_bytes(tree: Any, branches: Iterable[str]) -> int:
    """Return the uncompressed size of branches of an open tree; 0 if it is unknown."""
    wanted = frozenset(branches)
    if is_table(tree):
        groups = (tree.metadata.row_group(i) for i in range(tree.num_row_groups))
        columns = (
            group.column(j) for group in groups for j in range(group.num_columns)
        )
        return sum(
            column.total_uncompressed_size
            for column in columns
            if column.path_in_schema.partition(".")[0] in wanted
        )
    return sum(int(getattr(tree[name], "uncompressed_bytes", 0)) for name in wanted)


def typenames(tree: Any) -> dict[str, str]:
    """Return the branches of an open tree, each with its type on disk."""
    if is_table(tree):
        return {field.name: str(field.type) for field in tree.schema_arrow}
    return {str(name): str(kind) for name, kind in tree.typenames().items()}


def flat_types(
    tree: Any, source: Source, branches: Iterable[str]
) -> dict[str, np.dtype[Any]]:
    """Return the types of flat branches of an open tree; raise if one is not flat."""
    with reading(str(source)):
        present = typenames(tree)
    types: dict[str, np.dtype[Any]] = {}
    for name in branches:
        if name not in present:
            raise NtupleError(
                f"{source} has no branch {name!r}{nearest(name, present)}"
            )
        with reading(f"{source}, branch {name!r}"):
            kind = flat_type(tree, name)
        if kind is None:
            raise NtupleError(
                f"{source}, branch {name!r} is of type {present[name]}, expected one "
                "number per entry"
            )
        types[name] = kind
    return types


def flat_type(tree: Any, name: str) -> np.dtype[Any] | None:
    """Return the type of a branch of an open tree, None if it is not flat."""
    found = branch_type(tree, name)
    return found.number if found is not None and found.shape == () else None


def branch_type(tree: Any, name: str) -> BranchType | None:
    """Return the type of a branch of an open tree, None if it holds no numbers.

    Arrays of arrays count as none.
    """
    if is_table(tree):
        return _arrow_type(tree.schema_arrow.field(name).type)
    if not is_ttree(tree):
        return _rntuple_type(str(tree[name].typename))
    interpretation = tree[name].interpretation
    if isinstance(interpretation, uproot.AsJagged):
        found = _numerical_type(interpretation.content)
        flat = found is not None and found.shape == ()
        return BranchType(found.number, (None,)) if found and flat else None
    return _numerical_type(interpretation)


def describe(tree: Any) -> TreeInfo:
    """Return what an open tree holds."""
    branches = typenames(tree)
    found = {name: branch_type(tree, name) for name in branches}
    types = {name: kind for name, kind in found.items() if kind is not None}
    return TreeInfo(entries=entries_of(tree), branches=branches, types=types)


def _numerical_type(interpretation: Any) -> BranchType | None:
    """Return the type of an interpretation of uproot, None if not of numbers."""
    if not isinstance(interpretation, uproot.interpretation.numerical.Numerical):
        return None
    kind = np.dtype(interpretation.numpy_dtype)
    if kind.base.kind not in "biuf" or len(kind.shape) > 1:
        return None
    return BranchType(kind.base, kind.shape)


def _rntuple_type(name: str) -> BranchType | None:
    """Return the type of an RNTuple field from the name of its C++ type."""
    vector = re.fullmatch(r"std::vector<(.+)>", name)
    array = re.fullmatch(r"std::array<(.+),\s*(\d+)>", name)
    number = (vector or array or [name, name])[1]
    if number not in RNTUPLE_TYPES:
        return None
    shape = (None,) if vector else (int(array[2]),) if array else ()
    return BranchType(np.dtype(RNTUPLE_TYPES[number]), shape)


def iterate_arrays(
    tree: Any, branches: Sequence[str], *, start: int, stop: int, chunk: int
) -> Iterator[dict[str, Any]]:
    """Yield arrays of branches of numbers, chunk by chunk.

    Those with a variable number per entry are awkward, the others numpy, (n,) or
    (n, k).
    """
    if is_table(tree):
        for batch in iterate_batches(
            tree, branches, start=start, stop=stop, chunk=chunk
        ):
            yield table_arrays(batch, branches)
        return
    for arrays in tree.iterate(
        filter_name=frozenset(branches).__contains__,
        entry_start=start,
        entry_stop=stop,
        step_size=chunk,
        library="ak",
        how=dict,
    ):
        yield {name: plain_array(arrays[name]) for name in branches}


def plain_array(array: Any) -> Any:
    """Return an awkward array as numpy if every entry has the same shape."""
    return np.asarray(array) if array.layout.purelist_isregular else array


def iterate_flat(
    tree: Any, branches: Sequence[str], *, start: int, stop: int, chunk: int
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield arrays of flat branches of an open tree, chunk by chunk."""
    if is_table(tree):
        for batch in iterate_batches(
            tree, branches, start=start, stop=stop, chunk=chunk
        ):
            yield table_arrays(batch, branches)
        return
    # Names are matched by a function: a list of names would be one of glob patterns.
    yield from tree.iterate(
        filter_name=frozenset(branches).__contains__,
        entry_start=start,
        entry_stop=stop,
        step_size=chunk,
        library="np",
        how=dict,
    )


def iterate_batches(
    file: Any, columns: Sequence[str] | None, *, start: int, stop: int, chunk: int
) -> Iterator[Any]:
    """Yield pyarrow batches of a range of rows of an open Parquet file."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = np.cumsum(sizes, dtype=np.int64)
    groups = [
        i for i in range(len(sizes)) if ends[i] > start and ends[i] - sizes[i] < stop
    ]
    if not groups:
        return
    position = int(ends[groups[0]] - sizes[groups[0]])
    for batch in file.iter_batches(chunk, row_groups=groups, columns=columns):
        first, last = max(start - position, 0), min(stop - position, batch.num_rows)
        position += batch.num_rows
        if first < last:
            yield batch.slice(first, last - first)


def table_arrays(batch: Any, columns: Sequence[str]) -> dict[str, Any]:
    """Return columns of a pyarrow batch as arrays, a null as NaN or as no number."""
    return {name: _arrow_array(batch.column(name), name) for name in columns}


def _arrow_type(kind: Any) -> BranchType | None:
    """Return the type of an arrow column, None if it does not hold numbers."""
    import pyarrow as pa

    shape: tuple[int | None, ...] = ()
    if pa.types.is_fixed_size_list(kind):
        kind, shape = kind.value_type, (kind.list_size,)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, shape = kind.value_type, (None,)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return (
        BranchType(np.dtype(kind.to_pandas_dtype()), shape)
        if is_number or pa.types.is_boolean(kind)
        else None
    )


def _arrow_array(column: Any, name: str) -> Any:
    """Return an arrow column as numpy, or awkward if lists vary in length."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_fixed_size_list(column.type):
        if column.null_count:
            raise NtupleError(f"column {name!r} holds a null, expected lists")
        return _arrow_array(column.flatten(), name).reshape(len(column), -1)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        counts = pc.fill_null(pc.list_value_length(column), 0)
        return ak.unflatten(_arrow_array(column.flatten(), name), np.asarray(counts))
    if column.null_count:
        column = column.cast("float64").fill_null(np.nan)
    return np.asarray(column.to_numpy(zero_copy_only=False))
