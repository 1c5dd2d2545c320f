"""ROOT files: directories with TTrees, RNTuples and other objects, by uproot.

New trees are TTrees; a copy keeps its class. What uproot cannot write
(vector<vector<...>>, split objects) is found before any work is done. Variable-length
branches keep sharing their counter, and new ones share that of the branches they belong
to.
"""

import functools
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import awkward as ak
import numpy as np
import uproot

from pidgan.errors import NtupleError, one_line
from pidgan.files.trees import (
    BASKET_ENTRIES,
    Addition,
    Append,
    BranchType,
    Format,
    Tree,
    reading,
)

TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "RNTuple")

COMPRESSION = uproot.ZSTD(1)
"""Several times faster to write than uproot's default, ZLIB(1), and no larger; ROOT
reads it from 6.20 on."""

NUMBERS = {
    "bool": "bool",
    "float": "float32",
    "double": "float64",
    **{
        f"std::{sign}int{bits}_t": f"{sign}int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
"""Types of fields with one number or bool per entry."""


def _typenames(self: Any) -> dict[str, str]:
    """Return the branches, each with its C++ type."""
    return {str(name): str(kind) for name, kind in self.tree.typenames().items()}


def _names(self: Any) -> list[str]:
    """Return the branches that are not part of another."""
    return list(self.tree.keys(recursive=False))


def _stored_bytes(self: Any, branches: Iterable[str]) -> int:
    """Return the uncompressed size of branches; 0 if it is unknown."""
    found = (self.tree[name] for name in set(branches))
    return sum(int(getattr(branch, "uncompressed_bytes", 0)) for branch in found)


def _pieces(
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


def _arrays(self: Any, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
    """Return arrays, as numpy where every entry has the same shape."""
    found = ((name, piece[name]) for name in branches)
    return {
        name: np.asarray(array) if array.layout.purelist_isregular else array
        for name, array in found
    }


def _appending(new: Any, kept: Sequence[str]) -> Append:
    """Return the function that appends to a new tree."""

    def append(piece: Any, fresh: Mapping[str, Any]) -> None:
        new.extend({name: piece[name] for name in kept} | dict(fresh))

    return append


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
    typenames = _typenames
    names = _names
    stored_bytes = _stored_bytes
    pieces = _pieces
    arrays = _arrays

    def branch_type(self, name: str) -> BranchType | None:
        kind = _type(self.tree[name].interpretation)
        return kind if kind is not None and len(kind.shape) < 2 else None

    def unwritable(self) -> dict[str, str]:
        return self._layout.unwritable

    def changed(self) -> dict[str, str]:
        return self._layout.changed

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        layout = self._layout if kept else _empty_layout()
        added = {branch: _mktree_type(kind) for branch, kind in addition.types.items()}
        counters = layout.counters | {
            branch: layout.counters.get(like) or self._counter(self.tree[like])
            for branch, like in addition.like.items()
        }
        written = new.mktree(
            addition.source.name,
            layout.types | added,
            title=self.tree.title,
            counter_name=counters.__getitem__,
            initial_basket_capacity=self.entries // rows + 3,
        )
        return _appending(written, kept)

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


def _write(
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


@final
@dataclass(frozen=True)
class RNTuple:
    """An RNTuple of an open file; its branches are its fields."""

    tree: Any

    @property
    def entries(self) -> int:
        return int(self.tree.num_entries)

    # uproot does these alike for TTrees and RNTuples.
    typenames = _typenames
    names = _names
    stored_bytes = _stored_bytes
    pieces = _pieces
    arrays = _arrays

    def branch_type(self, name: str) -> BranchType | None:
        kind = str(self.tree[name].typename)
        vector = re.fullmatch(r"std::vector<(.+)>", kind)
        array = re.fullmatch(r"std::array<(.+),\s*(\d+)>", kind)
        number = (vector or array or [kind, kind])[1]
        if number not in NUMBERS:
            return None
        shape = (None,) if vector else (int(array[2]),) if array else ()
        return BranchType(np.dtype(NUMBERS[number]), shape)

    def unwritable(self) -> dict[str, str]:
        refused = {}
        for name, kind in self.tree.typenames(recursive=False).items():
            try:
                self.tree.to_akform(filter_name=lambda key, name=name: key == name)
            except Exception:
                refused[name] = kind
        return refused

    def changed(self) -> dict[str, str]:
        return {}

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        written = new.mkrntuple(addition.source.name, self._form(kept, addition.types))
        return _appending(written, kept)

    def _form(self, kept: Sequence[str], added: Mapping[str, BranchType]) -> Any:
        """Return the awkward form of the fields that stay and of new ones."""
        forms = {}
        if kept:
            old, _ = self.tree.to_akform(filter_name=frozenset(kept).__contains__)
            forms = {name: old.content(name) for name in kept}
        for name, kind in added.items():
            number = ak.forms.NumpyForm(kind.number.name)
            if kind.shape == (None,):
                forms[name] = ak.forms.ListOffsetForm("i64", number)
            else:
                size = kind.shape[0] if kind.shape else None
                forms[name] = ak.forms.RegularForm(number, size) if size else number
        return ak.forms.RecordForm(list(forms.values()), list(forms))


def _open(path: str) -> Any:
    return uproot.open({path: None})


def _tree(file: Any, name: str | None) -> Tree:
    """Return a tree of an open file."""
    found = file[str(name)]
    return TTree(found) if isinstance(found, uproot.TTree) else RNTuple(found)


def _tree_names(file: Any) -> list[str]:
    """Return the names of the trees of an open file, directories included."""
    classes = file.classnames(recursive=True, cycle=False)
    return [name for name, kind in classes.items() if _is_tree(kind)]


def _create(path: Path) -> Any:
    return uproot.recreate(path, compression=COMPRESSION)


def _expected_size(header: bytes) -> int:
    """Return fEND, 8 bytes in large files.

    https://root.cern.ch/doc/master/classTFile.html
    """
    is_large = struct.unpack(">i", header[4:8])[0] >= 1_000_000
    end: int = struct.unpack(">q", header[12:20])[0]
    return end if is_large else end >> 32


def _copy_rest(
    file: Any, new: Any, done: set[str], copy: Callable[[str], list[str]]
) -> list[str]:
    """Copy everything but some trees; return notes on what is lost."""
    lost: list[str] = []
    notes: list[str] = []
    with reading(str(file.file_path)):
        classes = file.classnames(recursive=True, cycle=False)
    for name, kind in classes.items():
        if name in done or kind.startswith("TDirectory"):
            continue
        try:
            if _is_tree(kind):
                notes += copy(name)
            else:
                new.copy_from(file, filter_name=lambda key, name=name: key == name)
                if "" in new.keys(recursive=False, cycle=False):
                    # uproot 5.7 leaves a nameless directory with each such copy.
                    del new[""]
        # uproot refuses what it does not know with many classes of exceptions.
        except Exception as error:
            lost.append(f"{name} ({kind}: {one_line(error)})")
    return [f"not copied: {', '.join(lost)}", *notes] if lost else notes


def _is_tree(name: str) -> bool:
    """Return whether a C++ class name is the class of a tree."""
    return name.split("::")[-1] in TREE_CLASSES


FORMAT = Format(
    name="ROOT",
    suffixes=(".root",),
    magic=b"root",
    open=_open,
    tree=_tree,
    create=_create,
    write=_write,
    tree_names=_tree_names,
    copy_rest=_copy_rest,
    expected_size=_expected_size,
)
