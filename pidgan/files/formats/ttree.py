"""TTrees of ROOT files, read and written by uproot.

What uproot cannot write (vector<vector<...>>, split objects) is found before any work
is done. Variable-length branches keep sharing their counter, and new ones share that of
the branches they belong to.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import awkward as ak
import numpy as np
import uproot

from pidgan.errors import NtupleError
from pidgan.files.formats import uproot_trees
from pidgan.files.trees import BASKET_ENTRIES, Append, BranchType, CopyPlan


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The branches of a TTree as uproot's `mktree` wants them."""

    types: dict[str, Any]
    counters: dict[str, str]
    unwritable: dict[str, str]
    changed: dict[str, str]


@final
@dataclass(frozen=True)
class TTree:
    """A TTree of an open file."""

    tree: Any

    @property
    def entries(self) -> int:
        return int(self.tree.num_entries)

    # uproot does these alike for TTrees and RNTuples.
    typenames = uproot_trees.typenames
    names = uproot_trees.names
    stored_bytes = uproot_trees.stored_bytes
    pieces = uproot_trees.pieces
    arrays = uproot_trees.arrays

    def branch_type(self, name: str) -> BranchType | None:
        kind = _type(self.tree[name].interpretation)
        return kind if kind is not None and len(kind.shape) < 2 else None

    def unwritable(self) -> dict[str, str]:
        return self._layout.unwritable

    def changed(self) -> dict[str, str]:
        return self._layout.changed

    def copy(self, new: Any, name: str, plan: CopyPlan) -> Append:
        layout = self._layout if plan.kept else _empty_layout()
        added = {branch: _mktree_type(kind) for branch, kind in plan.added.items()}
        counters = layout.counters | {
            branch: layout.counters.get(like) or self._counter(self.tree[like])
            for branch, like in plan.like.items()
        }
        written = new.mktree(
            name,
            layout.types | added,
            title=self.tree.title,
            counter_name=counters.__getitem__,
            initial_basket_capacity=self.entries // plan.rows + 3,
        )
        return uproot_trees.appending(written, plan.kept)

    @functools.cached_property
    def _layout(self) -> _Layout:
        """Return how the branches are written."""
        layout = _empty_layout()
        for branch in self.tree.branches:
            name, interpretation = branch.name, branch.interpretation
            kind = _type(interpretation)
            are_strings = isinstance(interpretation, uproot.AsStrings)
            if branch.branches or (kind is None and not are_strings):
                layout.unwritable[name] = branch.typename
                continue
            layout.types[name] = "string" if kind is None else _mktree_type(kind)
            if kind is not None and kind.shape == (None,):
                layout.counters[name] = self._counter(branch)
            if branch.classname == "TBranchElement" or _is_packed(interpretation):
                layout.changed[name] = branch.typename
        return layout

    def _counter(self, branch: Any) -> str:
        """Return the branch that holds the lengths: the input's own if it can stay."""
        own = branch.count_branch
        # uproot writes counters as int32 only: one of another type stays as it is,
        # beside a new one that the same branches share.
        if own is not None and self.branch_type(own.name) == BranchType(
            np.dtype(np.int32)
        ):
            return str(own.name)
        counter = f"n{branch.name if own is None else own.name}"
        while counter in self.names():
            counter = f"n{counter}"
        return counter


def write(
    new: Any, name: str, arrays: Mapping[str, Any], counters: Mapping[str, str]
) -> None:
    """Add a TTree to an open file, in baskets of BASKET_ENTRIES."""
    types = {branch: _array_type(array) for branch, array in arrays.items()}
    tree = new.mktree(name, types, counter_name=counters.__getitem__)
    entries = max((len(array) for array in arrays.values()), default=0)
    for first in range(0, entries, BASKET_ENTRIES):
        last = first + BASKET_ENTRIES
        tree.extend({branch: array[first:last] for branch, array in arrays.items()})


def _empty_layout() -> _Layout:
    return _Layout(types={}, counters={}, unwritable={}, changed={})


def _array_type(array: Any) -> Any:
    """Return the type of an array for uproot's `mktree`."""
    if isinstance(array, np.ndarray):
        return np.dtype((array.dtype.newbyteorder("="), array.shape[1:]))
    kind = ak.type(array).content
    # uproot 5.7 writes wrong offsets for arrays of arrays (`x[n][3]`).
    if array.ndim > 2 and not array.layout.purelist_isregular:
        raise NtupleError(f"a branch of type {kind} cannot be written to a TTree")
    return kind


def _mktree_type(kind: BranchType) -> Any:
    """Return the type of a branch for uproot's `mktree`."""
    if kind.shape == (None,):
        return f"var * {kind.number.name}"
    return np.dtype((kind.number, kind.shape))


def _type(interpretation: Any) -> BranchType | None:
    """Return the type of an interpretation of uproot; None if it cannot be written."""
    if isinstance(interpretation, uproot.AsJagged):
        content = _type(interpretation.content)
        # uproot 5.7 writes wrong offsets for arrays of arrays (`x[n][3]`).
        is_flat = content is not None and content.shape == ()
        return BranchType(content.number, (None,)) if content and is_flat else None
    if not isinstance(interpretation, uproot.interpretation.numerical.Numerical):
        return None
    kind = np.dtype(interpretation.numpy_dtype)
    number = kind.base.newbyteorder("=")
    return BranchType(number, kind.shape) if number.kind in "biuf" else None


def _is_packed(interpretation: Any) -> bool:
    """Return whether a branch is Double32_t or Float16_t, which uproot expands."""
    packed = uproot.interpretation.numerical.TruncatedNumerical
    return isinstance(getattr(interpretation, "content", interpretation), packed)
