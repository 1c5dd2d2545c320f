"""Entries of TTrees and RNTuples as arrays: what uproot does alike for both."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pidgan.files.trees import BranchType, CopyPlan


def iterate(tree: Any, branches: Iterable[str], library: str, **range_: int) -> Any:
    """Return uproot's iterator over chunks of branches, as dictionaries of arrays."""
    # Names are matched by a function: a list of names would be one of glob patterns.
    names = frozenset(branches)
    return tree.iterate(
        filter_name=names.__contains__, library=library, how=dict, **range_
    )


def number_arrays(
    tree: Any,
    types: Mapping[str, BranchType | None],
    *,
    start: int,
    stop: int,
    chunk: int,
) -> Iterator[dict[str, Any]]:
    """Yield arrays of branches of numbers, numpy where every entry has one shape."""
    are_flat = all(kind is not None and kind.shape == () for kind in types.values())
    library = "np" if are_flat else "ak"
    range_ = {"entry_start": start, "entry_stop": stop, "step_size": chunk}
    for arrays in iterate(tree, types, library, **range_):
        yield {name: plain_array(arrays[name]) for name in types}


def plain_array(array: Any) -> Any:
    """Return an awkward array as numpy if every entry has the same shape."""
    if isinstance(array, np.ndarray) or not array.layout.purelist_isregular:
        return array
    return np.asarray(array)


def stored_bytes(tree: Any, branches: Iterable[str]) -> int:
    """Return the uncompressed size of branches; 0 if it is unknown."""
    sizes = (getattr(tree[name], "uncompressed_bytes", 0) for name in set(branches))
    return sum(int(size) for size in sizes)


@final
@dataclass(frozen=True, kw_only=True)
class RootCopy:
    """A TTree or RNTuple that is being copied.

    Attributes:
        tree: The tree that is read.
        new: The tree that is written.
        plan: Content of the copy.
        notes: What of the tree changes in the copy.
    """

    tree: Any
    new: Any
    plan: CopyPlan
    notes: Sequence[str] = ()

    def pieces(self) -> Iterator[tuple[int, Any]]:
        first = 0
        for arrays in iterate(
            self.tree, self.plan.read, "ak", step_size=self.plan.rows
        ):
            yield first, arrays
            first += len(next(iter(arrays.values())))

    def needed(self, piece: Any) -> dict[str, Any]:
        return {name: plain_array(piece[name]) for name in self.plan.needed}

    def join(self, piece: Any, fresh: Mapping[str, Any]) -> Any:
        return {name: piece[name] for name in self.plan.kept} | dict(fresh)

    def write(self, piece: Any) -> None:
        self.new.extend(piece)
