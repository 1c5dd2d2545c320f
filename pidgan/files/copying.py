"""Copy a file of trees with branches added: everything else keeps name, value and type.

`copy_file` writes a new file of the same format, chunk by chunk; the new branches of a
chunk are computed from some of its branches. `check_writable` finds branches that
cannot be written again before any work is done. Reading, computing and writing go on at
the same time, each on the next chunk.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.formats import find_tree, format_of, open_file, open_tree
from pidgan.files.readahead import ahead
from pidgan.files.trees import (
    BASKET_ENTRIES,
    Addition,
    BranchType,
    Source,
    Tree,
    copying,
    read_pieces,
    reading,
)
from pidgan.files.writing import writing_file

CHUNK_BYTES = 100_000_000
"""Most bytes of a chunk, whatever number of entries is asked for."""


def check_writable(source: Source) -> None:
    """Raise an NtupleError if a tree has branches that cannot be written again."""
    with open_tree(source) as tree, reading(str(source)):
        _check_writable(tree, source)


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
        additions: Branches to add, for one or several trees of one file.
        output: The new file; it appears under its name when it is complete.
        keep: Whether the other branches, trees and objects are copied. Otherwise only
            the new branches are written, in trees of the same names.
        overwrite: Whether an existing file is replaced.
        chunk: Largest number of entries in memory at a time.

    Warns:
        PidganWarning: Something of the input is not in the output or has changed type.
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
    """Write the file of `copy_file`, under its name from the start.

    Args:
        additions: Branches to add, for one or several trees of one file.
        output: The new file.
        keep: Whether the other branches, trees and objects are copied.
        chunk: Largest number of entries of a chunk; some five are in memory.
        chunk_bytes: Largest size of a chunk.

    Returns:
        Notes on what of the input is not in the output or has changed type.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    path = additions[0].source.path
    known = format_of(path)
    with open_file(path) as file, known.create(output) as new:

        def copy(addition: Addition) -> list[str]:
            tree = find_tree(file, addition.source)
            with reading(str(addition.source)):
                if keep:
                    _check_writable(tree, addition.source)
                kept = tree.names() if keep else []
                whole = _with_old_types(addition, tree, kept)
                stored = tree.stored_bytes([*kept, *addition.needed])
            # A chunk of a wide tree has fewer entries than asked for.
            fitting = int(chunk_bytes * tree.entries / stored) if stored else chunk
            rows = max(1, min(chunk, fitting))
            return _copy_tree(tree, new, whole, kept, rows)

        def copy_other(name: str) -> list[str]:
            source = Source(path, name)
            return copy(Addition(source=source, needed=(), types={}, compute=_nothing))

        notes: list[str] = []
        if keep and known.copy_rest is not None:
            done = {addition.source.name for addition in additions}
            notes = known.copy_rest(file, new, done, copy_other)
        return notes + [note for addition in additions for note in copy(addition)]


def replaced_type(new: BranchType, old: BranchType | None, *, where: str) -> BranchType:
    """Return the type of a branch that takes the place of an existing one: the old.

    Args:
        new: Type of the values to write.
        old: Type of the branch; None if it holds no numbers.
        where: Tree and branch, for messages.

    Raises:
        NtupleError: The old type does not hold the new values.
    """
    if old is None or old.number.kind != new.number.kind or old.shape != new.shape:
        got = "no numbers" if old is None else str(old)
        raise NtupleError(
            f"{where} cannot be replaced: its type does not hold {new} (got {got})"
        )
    return old


def _nothing(first: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Compute no branch."""
    return {}


def _check_writable(tree: Tree, source: Source) -> None:
    refused = tree.unwritable()
    if refused:
        raise NtupleError(
            f"{source}: cannot write {_listed(refused)}; write a friend tree (--mode "
            "friend)"
        )


def _with_old_types(addition: Addition, tree: Tree, kept: Sequence[str]) -> Addition:
    """Return an addition whose branches that replace others have the types of those."""
    types = dict(addition.types)
    for name in types.keys() & set(kept):
        where = f"{addition.source}, branch {name!r}"
        types[name] = replaced_type(types[name], tree.branch_type(name), where=where)
    return replace(addition, types=types)


def _copy_tree(
    tree: Tree, new: Any, addition: Addition, kept: Sequence[str], rows: int
) -> list[str]:
    """Copy a tree with its additions; return notes on what changes."""
    source, types = addition.source, addition.types
    append = tree.copy(new, addition, kept=kept, rows=rows)
    first = 0

    def compute(piece: Any) -> tuple[Any, dict[str, Any]]:
        nonlocal first
        arrays = tree.arrays(piece, addition.needed)
        fresh = addition.compute(first, arrays)
        first += len(next(iter(arrays.values()), ()))
        return piece, {name: _cast(fresh[name], kind) for name, kind in types.items()}

    branches = list(dict.fromkeys([*kept, *addition.needed]))
    pieces = tree.pieces(branches, start=0, stop=tree.entries, chunk=rows)
    with (
        ahead(read_pieces(pieces, source)) as read,
        ahead(map(compute, read)) as computed,
    ):
        for piece, fresh in computed:
            with copying(str(source)):
                append(piece, fresh)
    changed = tree.changed() if kept else {}
    kinds = "plain numbers, arrays or strings"
    return [f"written as {kinds}: {_listed(changed)}"] if changed else []


def _listed(branches: Mapping[str, str]) -> str:
    """Return names with types for a message."""
    return ", ".join(f"{name!r} ({kind})" for name, kind in branches.items())


def _cast(values: Any, kind: BranchType) -> Any:
    """Return an array with numbers of a type."""
    if kind.shape == (None,):
        return ak.values_astype(values, kind.number)
    return np.asarray(values, dtype=kind.number)
