"""Copy a file of trees with branches added: everything else keeps name, value and type.

`copy_file` writes a new file of the same format (TTree, RNTuple, Parquet), chunk by
chunk; the new branches of a chunk are computed from some of its flat branches. What
uproot cannot write (vector<vector<...>>, split objects) is found by `unwritable`
before any work is done. Variable-length branches keep sharing their counter.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import pandas as pd
import uproot

from pidgan.errors import NtupleError, PidganWarning
from pidgan.ntuple import BASKET_ENTRIES, COMPRESSION
from pidgan.treefile import (
    Source,
    copying,
    entries_of,
    find_tree,
    flat_type,
    is_parquet,
    is_tree_class,
    is_ttree,
    iterate_batches,
    one_line,
    open_parquet,
    open_root,
    open_tree,
    reading,
    replacing,
    table_arrays,
)

CHUNK_BYTES = 100_000_000
"""Most bytes of a tree in memory at a time, whatever number of entries is asked for."""

Compute = Callable[[int, pd.DataFrame], Mapping[str, npt.NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Branches to add to a tree, and how to compute them.

    Attributes:
        source: the tree.
        needed: flat branches that `compute` gets.
        types: type of each new branch; that of a branch which exists is kept.
        compute: function of the first entry's number and the frame of a chunk's
            `needed` that returns the new branches.
    """

    source: Source
    needed: tuple[str, ...]
    types: Mapping[str, np.dtype[Any]]
    compute: Compute


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
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    path = additions[0].source.path
    with replacing(output, overwrite=overwrite) as temporary:
        if is_parquet(path):
            with open_parquet(path) as table:
                _copy_table(table, additions[0], temporary, keep=keep, chunk=chunk)
            return
        with (
            open_root(path) as file,
            uproot.recreate(temporary, compression=COMPRESSION) as new,
        ):
            notes = _copy_objects(file, new, additions) if keep else []
            for addition in additions:
                notes += _copy_tree(file, new, addition, keep=keep, chunk=chunk)
    if notes:
        warnings.warn(f"{output}: {'; '.join(notes)}", PidganWarning, stacklevel=2)


def _copy_objects(file: Any, new: Any, additions: Sequence[Addition]) -> list[str]:
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
                notes += _copy_other(file, new, name)
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


def _copy_other(file: Any, new: Any, name: str) -> list[str]:
    """Copy a tree that gets no new branches."""
    nothing = Addition(
        source=Source(str(file.file_path), name),
        needed=(),
        types={},
        compute=lambda first, frame: {},
    )
    refused = _unwritable(file[name])
    if refused:
        raise NtupleError(f"branches cannot be written: {', '.join(refused)}")
    return _copy_tree(file, new, nothing, keep=True, chunk=BASKET_ENTRIES)


def _copy_tree(
    file: Any, new: Any, addition: Addition, *, keep: bool, chunk: int
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
        rows = _rows(tree, kept, chunk)
        added = _types(tree, addition, keep=keep)
    if is_ttree(tree):
        layout = layout or _Layout(types={}, counters={}, unwritable={}, changed={})
        written = new.mktree(
            name,
            layout.types | added,
            title=tree.title,
            counter_name=layout.counters.__getitem__,
            initial_basket_capacity=entries_of(tree) // rows + 3,
        )
    else:
        written = new.mkrntuple(name, _form(tree, kept, added))
    for first, arrays in _chunks(tree, source, [*kept, *addition.needed], rows):
        computed = addition.compute(first, _frame(arrays, addition.needed))
        copied = {branch: arrays[branch] for branch in kept}
        fresh = {b: np.asarray(computed[b], dtype=kind) for b, kind in added.items()}
        with copying(str(source)):
            written.extend(copied | fresh)
    return _notes(layout)


def _copy_table(
    table: Any, addition: Addition, output: Path, *, keep: bool, chunk: int
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
        field = pa.field(name, pa.from_numpy_dtype(kind))
        index = schema.get_field_index(name)
        schema = schema.append(field) if index < 0 else schema.set(index, field)
    rows = entries_of(table)
    batches = iterate_batches(table, columns, start=0, stop=rows, chunk=chunk)
    first = 0
    with pq.ParquetWriter(output, schema) as writer:
        while (batch := _next(batches, source)) is not None:
            frame = pd.DataFrame(table_arrays(batch, addition.needed), copy=False)
            computed = addition.compute(first, frame)
            data = {name: batch.column(name) for name in kept} | {
                name: pa.array(np.asarray(computed[name], dtype=kind))
                for name, kind in added.items()
            }
            writer.write_table(pa.table(data, schema=schema))
            first += batch.num_rows


def _form(tree: Any, kept: Sequence[str], added: Mapping[str, np.dtype[Any]]) -> Any:
    """Return the awkward form of an RNTuple with its additions."""
    forms = {}
    if kept:
        old, _ = tree.to_akform(filter_name=frozenset(kept).__contains__)
        forms = {name: old.content(name) for name in kept}
    forms |= {name: ak.forms.NumpyForm(kind.name) for name, kind in added.items()}
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


def _frame(arrays: Mapping[str, Any], needed: Sequence[str]) -> pd.DataFrame:
    """Return the flat branches of a chunk as a DataFrame, without a copy."""
    columns = {name: np.asarray(arrays[name]) for name in needed}
    return pd.DataFrame(columns, copy=False)


def _types(tree: Any, addition: Addition, *, keep: bool) -> dict[str, np.dtype[Any]]:
    """Return the types of the new branches; a replacement takes the old type."""
    types = {name: np.dtype(kind) for name, kind in addition.types.items()}
    present = _names(tree) if keep else []
    for name in set(types) & set(present):
        kind = flat_type(tree, name)
        if kind is None or (kind.kind != types[name].kind):
            raise NtupleError(
                f"{addition.source}, branch {name!r} cannot be replaced: its type does "
                f"not hold {types[name]}"
            )
        types[name] = kind
    return types


def _names(tree: Any) -> list[str]:
    """Return the names of a tree's branches or columns."""
    if hasattr(tree, "schema_arrow"):
        return list(tree.schema_arrow.names)
    return _top_level(tree)


def _top_level(tree: Any) -> list[str]:
    """Return the names of the branches that are not part of another."""
    return list(tree.keys(recursive=False))


def _rows(tree: Any, kept: Sequence[str], chunk: int) -> int:
    """Return the entries per chunk, fewer than asked for if a tree is very wide."""
    entries = entries_of(tree)
    if not is_ttree(tree) or not kept or not entries:
        return chunk
    per_entry = sum(tree[name].uncompressed_bytes for name in kept) / entries
    return max(1, min(chunk, int(CHUNK_BYTES / max(per_entry, 1))))


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
