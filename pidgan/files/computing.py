"""New branches of a tree, made in memory: nothing is written."""

from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np

from pidgan.files import formats, tables
from pidgan.files.trees import (
    BASKET_ENTRIES,
    CHUNK_BYTES,
    Addition,
    BranchType,
    reading,
)


def compute_columns(
    addition: Addition, *, chunk: int = BASKET_ENTRIES, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, Any]:
    """Return new branches of a tree in memory, made chunk after chunk."""
    source = addition.source
    with formats.open_tree(source) as tree, reading(str(source)):
        entries, stored = tree.entries, tree.stored_bytes(addition.needed)
    if not entries:
        return {name: _no_entries(kind) for name, kind in addition.types.items()}
    fitting = int(chunk_bytes * entries / stored) if stored else chunk
    rows, first, parts = max(1, min(chunk, fitting)), 0, []
    for arrays in tables.iterate_entries(source, addition.needed, chunk=rows):
        parts.append(addition.compute(first, arrays))
        first += len(next(iter(arrays.values())))
    return {name: _joined([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: Sequence[Any]) -> Any:
    """Return the chunks of a branch as one array."""
    if len(parts) == 1:
        return parts[0]
    is_nested = isinstance(parts[0], ak.Array)
    return ak.concatenate(parts) if is_nested else np.concatenate(parts)


def _no_entries(kind: BranchType) -> Any:
    """Return a branch of a type without entries."""
    if None in kind.shape:
        return ak.unflatten(np.empty(0, kind.number), np.empty(0, np.int64))
    return np.empty((0, *(int(n or 0) for n in kind.shape)), kind.number)
