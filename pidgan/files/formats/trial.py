"""Copies of the first entries of a ROOT tree in memory, to find out what can be copied.

uproot tells only on writing, or on reading again, that it does not know a type.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import awkward as ak
import uproot

from pidgan.files.trees import TRIAL_ENTRIES, Addition, Source, Tree


def has_same_copy(
    tree: Tree, wrap: Callable[[Any], Tree], branches: Sequence[str]
) -> bool:
    """Return whether a copy of the first entries of branches has the same values."""
    stop = min(tree.entries, TRIAL_ENTRIES)
    memory = io.BytesIO()
    addition = Addition(source=Source("", "T"))
    for piece in tree.pieces(branches, start=0, stop=stop, chunk=TRIAL_ENTRIES):
        new = uproot.recreate(memory)
        tree.copy(new, addition, kept=branches, rows=stop)(piece, {})
        # Closing the file would close the memory too.
        copy = wrap(uproot.open(io.BytesIO(memory.getvalue()))["T"])
        (again,) = copy.pieces(branches, start=0, stop=stop, chunk=TRIAL_ENTRIES)
        return all(
            ak.array_equal(piece[n], again[n], equal_nan=True, dtype_exact=False)
            for n in branches
        )
    return True
