"""Copy a file of trees with branches added: everything else keeps name, value and type.

`copy_file` writes a new file of the same format (TTree, RNTuple, Parquet), chunk by
chunk; the new branches of a chunk are computed from some of its branches. What uproot
cannot write (vector<vector<...>>, split objects) is found by `unwritable` before any
work is done. Variable-length branches keep sharing their counter, and new ones share
that of the branches they belong to. Reading, computing and writing go on at the same
time, each on the next chunk.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from pidgan.errors import NtupleError, PidganWarning, one_line
from pidgan.files.readahead import ahead
from pidgan.files.tables import BASKET_ENTRIES, COMPRESSION
from pidgan.files.trees import (
    BranchType,
    Source,
    branch_type,
    copying,
    entries_of,
    find_tree,
    flat_type,
    is_parquet,
    is_tree_class,
    is_ttree,
    iterate_batches,
    open_parquet,
    open_root,
    open_tree,
    plain_array,
    reading,
    stored_bytes,
    table_arrays,
)
from pidgan.files.writing import writing_file

CHUNK_BYTES = 100_000_000
"""Most bytes of a chunk, whatever number of entries is asked for."""

Compute = Callable[[int, Mapping[str, Any]], Mapping[str, Any]]
"""From the first entry's number and the arrays of a chunk to its new branches."""


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Branches to add to a tree, and how to compute them.

    Attributes:
        source: the tree.
        needed: branches of numbers that `compute` gets: numpy arrays (n,) or (n, k),
            or awkward arrays (n, variable).
        types: type of each new branch; that of a branch which exists is kept.
        compute: function of the first entry's number and the arrays of a chunk's
            `needed` that returns the new branches.
        like: for each new branch with a variable number of values per entry, a branch
            of the tree that has as many.
    """

    source: Source
    needed: tuple[str, ...]
    types: Mapping[str, BranchType]
    compute: Compute
    like: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Size:
    """Bounds of a chunk."""

    entries: int
    bytes: int

    def rows(self, tree: Any, branches: Sequence[str]) -> int:
        """Return the entries of a chunk, fewer than asked for if a tree is wide."""
        entries = entries_of(tree)
        if not entries:
            return self.entries
        per_entry = stored_bytes(tree, branches) / entries
        return max(1, min(self.entries, int(self.bytes / max(per_entry, 1))))


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The branches of a TTree as uproot's `mktree` wants them."""

    types: dict[str, Any]
    counters: dict[str, str]
    unwritable: dict[str, str]
    changed: dict[str, str]


def unwritable(source: Source) -> dict[str, str]:
    """Return the branches of a tree that cannot be written again, with their types."""
    if is_parquet(source.path):
        return {}
    with open_tree(source) as tree, reading(str(source)):
        return _unwritable(tree)


def copy_file(
    additions: Sequence[Addition],
    output: str | Path,
    *,
    keep: bool = True,
    overwrite: bool = False,
    chunk: int = BASKET_ENTRIES,
) -> None:
    """Write a copy of a file, in which trees have branches added.

    Args:
        additions: what to add, for one or several trees of one file.
        output: the new file; it appears under its name when it is complete.
        keep: copy the other branches, trees and objects too; else write only the new
            branches, in trees of the same names.
        overwrite: replace an existing file.
        chunk: largest number of entries in memory at a time.

    Warns:
        PidganWarning: something of the input is not in the output or has changed type.
    """
    with writing_file(output, overwrite=overwrite) as temporary:
        notes = write_copy(additions, temporary, keep=keep, chunk=chunk)
    if notes:
        warnings.warn(f"{output}: {'; '.join(notes)}", PidganWarning, stacklevel=2)


def write_copy(
    additions: Sequence[Addition],
    output: Path,
    *,
    keep: bool = True,
    chunk: int = BASKET_ENTRIES,
    chunk_bytes: int = CHUNK_BYTES,
) -> list[str]:
    """Write what `copy_file` writes, under its name from the start.

    Args:
        additions: as for `copy_file`.
        output: the new file.
        keep: as for `copy_file`.
        chunk: largest number of entries of a chunk; some five are in memory.
        chunk_bytes: largest size of a chunk.

    Returns:
        Notes on what of the input is not in the output or has changed type.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    path = additions[0].source.path
    size = _Size(entries=chunk, bytes=chunk_bytes)
    if is_parquet(path):
        with open_parquet(path) as table:
            _copy_table(table, additions[0], output, keep=keep, size=size)
        return []
    with (
        open_root(path) as file,
        uproot.recreate(output, compression=COMPRESSION) as new,
    ):
        notes = _copy_objects(file, new, additions, size) if keep else []
        for addition in additions:
            notes += _copy_tree(file, new, addition, keep=keep, size=size)
    return notes


def _copy_objects(
    file: Any, new: Any, additions: Sequence[Addition], size: _Size
) -> list[str]:
    """Copy what is in the file beside the trees; return notes on what is lost."""
    own = {str(a.source.tree).partition(";")[0].strip("/") for a in additions}
    lost: list[str] = []
    notes: list[str] = []
    with reading(str(file.file_path)):
        classes = file.classnames(recursive=True, cycle=False)
    for name, kind in classes.items():
        if name in own or kind.startswith("TDirectory"):
            continue
        try:
            if is_tree_class(kind):
                notes += _copy_other(file, new, name, size)
            else:
                new.copy_from(file, filter_name=lambda key, name=name: key == name)
                if "" in new.keys(recursive=False, cycle=False):
                    # uproot 5.7 leaves a nameless directory with each such copy.
                    del new[""]
        # uproot refuses what it does not know with many classes of exceptions.
        except Exception as error:
            lost.append(f"{name} ({kind}: {one_line(error)})")
    if lost:
        notes.insert(0, f"not copied: {', '.join(lost)}")
    return notes


def _copy_other(file: Any, new: Any, name: str, size: _Size) -> list[str]:
    """Copy a tree that gets no new branches."""
    nothing = Addition(
        source=Source(str(file.file_path), name),
        needed=(),
        types={},
        compute=lambda first, arrays: {},
    )
    refused = _unwritable(file[name])
    if refused:
        raise NtupleError(f"branches cannot be written: {', '.join(refused)}")
    return _copy_tree(file, new, nothing, keep=True, size=size)


def _copy_tree(
    file: Any, new: Any, addition: Addition, *, keep: bool, size: _Size
) -> list[str]:
    """Copy a tree of a ROOT file with its additions; return notes on changed types."""
    source = addition.source
    tree = find_tree(file, source)
    name = str(source.tree).partition(";")[0]
    with reading(str(source)):
        refused = _unwritable(tree) if keep else {}
        if refused:
            raise NtupleError(
                f"{source}: uproot cannot write {_listed(refused)}; write a friend tree"
            )
        layout = _layout(tree) if keep and is_ttree(tree) else None
        kept = _top_level(tree) if keep else []
        rows = size.rows(tree, [*kept, *addition.needed])
        added = _types(tree, addition, keep=keep)
    if is_ttree(tree):
        layout = layout or _Layout(types={}, counters={}, unwritable={}, changed={})
        types = {branch: _mktree_type(kind) for branch, kind in added.items()}
        counters = layout.counters | {
            branch: layout.counters.get(like) or _counter(tree, tree[like])
            for branch, like in addition.like.items()
        }
        written = new.mktree(
            name,
            layout.types | types,
            title=tree.title,
            counter_name=counters.__getitem__,
            initial_basket_capacity=entries_of(tree) // rows + 3,
        )
    else:
        written = new.mkrntuple(name, _form(tree, kept, added))

    def compute(piece: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        first, arrays = piece
        needed = {n: plain_array(arrays[n]) for n in addition.needed}
        computed = addition.compute(first, needed)
        copied = {branch: arrays[branch] for branch in kept}
        return copied | {b: _cast(computed[b], kind) for b, kind in added.items()}

    chunks = _chunks(tree, source, [*kept, *addition.needed], rows)
    with ahead(chunks) as pieces, ahead(map(compute, pieces)) as ready:
        for arrays in ready:
            with copying(str(source)):
                written.extend(arrays)
    return _notes(layout)


def _copy_table(
    table: Any, addition: Addition, output: Path, *, keep: bool, size: _Size
) -> None:
    """Copy a Parquet file with its additions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = addition.source
    with reading(str(source)):
        kept = list(table.schema_arrow.names) if keep else []
        added = _types(table, addition, keep=keep)
    columns = list(dict.fromkeys([*kept, *addition.needed]))
    schema = table.schema_arrow if keep else pa.schema([])
    for name, kind in added.items():
        index = schema.get_field_index(name)
        if index < 0:
            schema = schema.append(pa.field(name, _arrow_type(kind)))

    def compute(piece: tuple[int, Any]) -> Any:
        first, batch = piece
        computed = addition.compute(first, table_arrays(batch, addition.needed))
        data = {name: batch.column(name) for name in kept} | {
            name: _arrow_column(_cast(computed[name], kind), schema.field(name).type)
            for name, kind in added.items()
        }
        return pa.table(data, schema=schema)

    batches = _batches(table, source, columns, size.rows(table, columns))
    with (
        pq.ParquetWriter(output, schema) as writer,
        ahead(batches) as pieces,
        ahead(map(compute, pieces)) as ready,
    ):
        for piece in ready:
            writer.write_table(piece)


def _batches(
    table: Any, source: Source, columns: Sequence[str], chunk: int
) -> Iterator[tuple[int, Any]]:
    """Yield (first row, batch) of consecutive chunks of a Parquet file."""
    stop = entries_of(table)
    batches = iterate_batches(table, columns, start=0, stop=stop, chunk=chunk)
    first = 0
    while (batch := _next(batches, source)) is not None:
        yield first, batch
        first += batch.num_rows


def _arrow_type(kind: BranchType) -> Any:
    """Return the arrow type of a new column."""
    import pyarrow as pa

    number = pa.from_numpy_dtype(kind.number)
    if kind.shape == ():
        return number
    return pa.list_(number, -1 if kind.shape == (None,) else int(kind.shape[0] or 0))


def _arrow_column(values: Any, kind: Any) -> Any:
    """Return an array as an arrow column of a type."""
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values).cast(kind)
    if isinstance(values, np.ndarray):
        size = values.shape[1]
        return pa.FixedSizeListArray.from_arrays(values.reshape(-1), size).cast(kind)
    return ak.to_arrow(values, extensionarray=False).cast(kind)


def _mktree_type(kind: BranchType) -> Any:
    """Return the type of a new branch for uproot's `mktree`."""
    if kind.shape == (None,):
        return f"var * {kind.number.name}"
    return np.dtype((kind.number, kind.shape))


def _cast(values: Any, kind: BranchType) -> Any:
    """Return an array with numbers of a type."""
    if kind.shape == (None,):
        return ak.values_astype(values, kind.number)
    return np.asarray(values, dtype=kind.number)


def _form(tree: Any, kept: Sequence[str], added: Mapping[str, BranchType]) -> Any:
    """Return the awkward form of an RNTuple with its additions."""
    forms = {}
    if kept:
        old, _ = tree.to_akform(filter_name=frozenset(kept).__contains__)
        forms = {name: old.content(name) for name in kept}
    for name, kind in added.items():
        number = ak.forms.NumpyForm(kind.number.name)
        if kind.shape == (None,):
            forms[name] = ak.forms.ListOffsetForm("i64", number)
        else:
            size = kind.shape[0] if kind.shape else None
            forms[name] = ak.forms.RegularForm(number, size) if size else number
    return ak.forms.RecordForm(list(forms.values()), list(forms))


def _chunks(
    tree: Any, source: Source, branches: Sequence[str], rows: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (first entry, arrays) of consecutive chunks of a tree, of any branches."""
    wanted = frozenset(branches)
    pieces = tree.iterate(
        filter_name=wanted.__contains__, step_size=rows, library="ak", how=dict
    )
    first = 0
    while (arrays := _next(pieces, source)) is not None:
        yield first, arrays
        first += len(next(iter(arrays.values())))


def _next(pieces: Iterator[Any], source: Source) -> Any:
    """Return the next piece read, None at the end; damage names the source."""
    with reading(str(source)):
        return next(pieces, None)


def replaced_type(new: BranchType, old: BranchType | None, *, where: str) -> BranchType:
    """Return the type of a branch that takes the place of an existing one: the old.

    Args:
        new: type of the values that are to be written.
        old: type of the branch; None if it holds no numbers.
        where: tree and branch, for messages.

    Raises:
        NtupleError: the old type does not hold the new values.
    """
    if old is None or old.number.kind != new.number.kind or old.shape != new.shape:
        got = "no numbers" if old is None else str(old)
        raise NtupleError(
            f"{where} cannot be replaced: its type does not hold {new} (got {got})"
        )
    return old


def _types(tree: Any, addition: Addition, *, keep: bool) -> dict[str, BranchType]:
    """Return the types of the new branches; a replacement takes the old type."""
    types = dict(addition.types)
    for name in set(types) & set(_names(tree) if keep else []):
        where = f"{addition.source}, branch {name!r}"
        types[name] = replaced_type(types[name], branch_type(tree, name), where=where)
    return types


def _names(tree: Any) -> list[str]:
    """Return the names of a tree's branches or columns."""
    if hasattr(tree, "schema_arrow"):
        return list(tree.schema_arrow.names)
    return _top_level(tree)


def _top_level(tree: Any) -> list[str]:
    """Return the names of the branches that are not part of another."""
    return list(tree.keys(recursive=False))


def _unwritable(tree: Any) -> dict[str, str]:
    """Return the branches of an open tree that cannot be written, with their types."""
    if is_ttree(tree):
        return _layout(tree).unwritable
    refused = {}
    for name, kind in tree.typenames(recursive=False).items():
        try:
            tree.to_akform(filter_name=lambda key, name=name: key == name)
        except Exception:
            refused[name] = kind
    return refused


def _layout(tree: Any) -> _Layout:
    """Return how the branches of a TTree are written."""
    layout = _Layout(types={}, counters={}, unwritable={}, changed={})
    for branch in tree.branches:
        name, interpretation = branch.name, branch.interpretation
        kind = None if branch.branches else _branch_type(interpretation)
        if kind is None:
            layout.unwritable[name] = branch.typename
            continue
        layout.types[name] = kind
        if isinstance(kind, str) and kind.startswith("var"):
            layout.counters[name] = _counter(tree, branch)
        if branch.classname == "TBranchElement" or _is_packed(interpretation):
            layout.changed[name] = branch.typename
    return layout


def _branch_type(interpretation: Any) -> Any:
    """Return the type to write a branch with; None if uproot cannot write it."""
    if isinstance(interpretation, uproot.AsStrings):
        return "string"
    if isinstance(interpretation, uproot.AsJagged):
        content = _branch_type(interpretation.content)
        # uproot 5.7 writes wrong offsets for arrays of arrays (`x[n][3]`).
        is_flat = isinstance(content, np.dtype) and content.shape == ()
        return f"var * {content.name}" if is_flat else None
    if not isinstance(interpretation, uproot.interpretation.numerical.Numerical):
        return None
    kind = np.dtype(interpretation.numpy_dtype)
    return kind.newbyteorder("=") if kind.base.kind in "biuf" else None


def _counter(tree: Any, branch: Any) -> str:
    """Return the branch that holds the lengths: the input's own if it can be kept."""
    own = branch.count_branch
    # uproot writes counters as int32 only: one of another type stays as it is, beside
    # a new one that the same branches share.
    if own is not None and flat_type(tree, own.name) == np.int32:
        return str(own.name)
    counter = f"n{branch.name if own is None else own.name}"
    while counter in tree.keys(recursive=False):
        counter = f"n{counter}"
    return counter


def _is_packed(interpretation: Any) -> bool:
    """Return whether a branch is Double32_t or Float16_t, which uproot expands."""
    packed = uproot.interpretation.numerical.TruncatedNumerical
    return isinstance(getattr(interpretation, "content", interpretation), packed)


def _notes(layout: _Layout | None) -> list[str]:
    """Return a note on the branches whose type changes, values unchanged."""
    if layout is None or not layout.changed:
        return []
    return [f"written as plain numbers, arrays or strings: {_listed(layout.changed)}"]


def _listed(branches: Mapping[str, str]) -> str:
    """Return names with types for a message."""
    return ", ".join(f"{name!r} ({kind})" for name, kind in branches.items())
