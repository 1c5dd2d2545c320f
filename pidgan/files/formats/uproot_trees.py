"""TTrees and RNTuples alike: the functions are methods of both of their classes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.files.trees import Append


def typenames(self: Any) -> dict[str, str]:
    """Return the branches, each with its C++ type."""
    return {str(name): str(kind) for name, kind in self.tree.typenames().items()}


def names(self: Any) -> list[str]:
    """Return the branches that are not part of another."""
    return list(self.tree.keys(recursive=False))


def stored_bytes(self: Any, branches: Iterable[str]) -> int:
    """Return the uncompressed size of branches; 0 if it is unknown."""
    found = (self.tree[name] for name in set(branches))
    return sum(int(getattr(branch, "uncompressed_bytes", 0)) for branch in found)


def pieces(
    self: Any, branches: Sequence[str], *, start: int, stop: int, chunk: int
) -> Iterator[dict[str, Any]]:
    """Return an iterator over dictionaries of awkward arrays."""
    # Names are matched by a function: a list of names would be one of glob patterns.
    found: Iterator[dict[str, Any]] = self.tree.iterate(
        filter_name=frozenset(branches).__contains__,
        entry_start=start,
        entry_stop=stop,
        step_size=chunk,
        library="ak",
        how=dict,
    )
    return found


def arrays(self: Any, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
    """Return arrays, as numpy where every entry has the same shape."""
    found = ((name, piece[name]) for name in branches)
    return {
        name: np.asarray(array) if array.layout.purelist_isregular else array
        for name, array in found
    }


def appending(new: Any, kept: Sequence[str]) -> Append:
    """Return the function that appends to a new tree."""

    def append(piece: Any, fresh: Mapping[str, Any]) -> None:
        new.extend({name: piece[name] for name in kept} | dict(fresh))

    return append
