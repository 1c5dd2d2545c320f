"""ROOT files: directories with TTrees, RNTuples and other objects, by uproot.

New trees are TTrees; a copy keeps its class. Variable-length branches keep sharing
their counter, and new ones share that of the branches they belong to.
"""

import functools
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import awkward as ak
import numpy as np
import uproot
from uproot.interpretation import numerical

from pidgan.errors import NtupleError, one_line
from pidgan.files import trees
from pidgan.files.trees import (
    BASKET_ENTRIES,
    RECORD,
    Addition,
    Append,
    BranchType,
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


@dataclass(frozen=True)
class _Layout:
    """The branches of a copy of a TTree as uproot's `mktree` wants them."""

    types: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, str] = field(default_factory=dict)
    unwritable: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class RootTree:
    """A TTree or an RNTuple, whose branches are its fields, of an open file."""

    tree: Any

    @property
    def entries(self) -> int:
        return int(self.tree.num_entries)

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        found = self.tree.typenames(recursive=recursive)
        return {str(name): str(kind) for name, kind in found.items()}

    def branch_type(self, name: str) -> BranchType | None:
        if not self._is_ttree:
            return _field_type(str(self.tree[name].typename))
        kind = _type(self.tree[name].interpretation)
        return kind if kind is not None and len(kind.shape) < 2 else None

    def stored_bytes(self, branches: Iterable[str]) -> int:
        found = (self.tree[name] for name in set(branches))
        return sum(int(getattr(branch, "uncompressed_bytes", 0)) for branch in found)

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        # A list of names would be one of glob patterns.
        found: Iterator[Any] = self.tree.iterate(
            filter_name=frozenset(branches).__contains__,
            entry_start=start,
            entry_stop=stop,
            step_size=chunk,
            library="ak",
            how=dict,
        )
        return found

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        found = ((name, piece[name]) for name in branches)
        return {
            name: np.asarray(array) if array.layout.purelist_isregular else array
            for name, array in found
        }

    def lossy(self) -> tuple[dict[str, str], dict[str, str]]:
        if self._is_ttree:
            return self._layout.unwritable, self._layout.changed
        refused = {}
        for name, kind in self.tree.typenames(recursive=False).items():
            try:
                self.tree.to_akform(filter_name=lambda key, name=name: key == name)
            except Exception:
                refused[name] = kind
        return refused, {}

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        name, added = addition.source.name, addition.types
        if self._is_ttree:
            layout = self._layout if kept else _Layout()
            counters = layout.counters | {
                branch: layout.counters.get(like) or self._counter(self.tree[like])
                for branch, like in addition.like.items()
            }
            written = new.mktree(
                name,
                layout.types | {n: _mktree_type(kind) for n, kind in added.items()},
                title=self.tree.title,
                counter_name=counters.__getitem__,
                initial_basket_capacity=self.entries // rows + 3,
            )
        else:
            written = new.mkrntuple(name, self._form(kept, added))

        def append(piece: Any, fresh: Mapping[str, Any]) -> None:
            written.extend({name: piece[name] for name in kept} | dict(fresh))

        return append

    @property
    def _is_ttree(self) -> bool:
        return isinstance(self.tree, uproot.TTree)

    @functools.cached_property
    def _layout(self) -> _Layout:
        """Return how the branches of a TTree are written."""
        layout = _Layout()
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
            # Double32_t and Float16_t are packed: uproot expands them.
            number = getattr(interpretation, "content", interpretation)
            is_packed = isinstance(number, numerical.TruncatedNumerical)
            if branch.classname == "TBranchElement" or is_packed:
                layout.changed[name] = branch.typename
        return layout

    def _counter(self, branch: Any) -> str:
        """Return the branch that holds the lengths: the input's own if it can stay."""
        own = branch.count_branch
        # uproot writes counters as int32 only: one of another type stays as it is,
        # beside a new one that the same branches share.
        int32 = BranchType(np.dtype(np.int32))
        if own is not None and self.branch_type(own.name) == int32:
            return str(own.name)
        counter = f"n{branch.name if own is None else own.name}"
        while counter in self.tree.keys(recursive=False):
            counter = f"n{counter}"
        return counter

    def _form(self, kept: Sequence[str], added: Mapping[str, BranchType]) -> Any:
        """Return the awkward form of fields of an RNTuple that stay and of new ones."""
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
    if not isinstance(interpretation, numerical.Numerical):
        return None
    kind = np.dtype(interpretation.numpy_dtype)
    number = kind.base.newbyteorder("=")
    return BranchType(number, kind.shape) if number.kind in "biuf" else None


def _field_type(kind: str) -> BranchType | None:
    """Return the type of a field of an RNTuple; None if it holds no numbers."""
    vector = re.fullmatch(r"std::vector<(.+)>", kind)
    array = re.fullmatch(r"std::array<(.+),\s*(\d+)>", kind)
    number = (vector or array or [kind, kind])[1]
    if number not in NUMBERS:
        return None
    shape = (None,) if vector else (int(array[2]),) if array else ()
    return BranchType(np.dtype(NUMBERS[number]), shape)


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


def _tree_names(file: Any) -> list[str]:
    """Return the names of the trees of an open file, directories included."""
    classes = file.classnames(recursive=True, cycle=False)
    return [n for n, kind in classes.items() if _is_tree(kind) and n != RECORD]


def _read_record(file: Any) -> list[str]:
    """Return the lines of the record."""
    if RECORD not in file.keys(recursive=False, cycle=False):
        return []
    text: str = file[RECORD]["text"].array(library="np").tobytes().decode()
    return text.splitlines()


def _write_record(new: Any, lines: Sequence[str]) -> None:
    """Add the record as a tree with one byte of its text an entry.

    `hadd` puts trees of the same name one after the other, so that the lines of all
    parts are there in the end. With strings as entries hadd ends in an abort: it makes
    room for those of the first file only.
    """
    text = "".join(f"{line}\n" for line in lines).encode()
    tree = new.mktree(RECORD, {"text": np.uint8}, title="Text: lines of JSON")
    tree.extend({"text": np.frombuffer(text, dtype=np.uint8)})


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
    with trees.reading(str(file.file_path)):
        classes = file.classnames(recursive=True, cycle=False)
    for name, kind in classes.items():
        if name in {*done, RECORD} or kind.startswith("TDirectory"):
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


FORMAT = trees.Format(
    name="ROOT",
    suffixes=(".root",),
    magic=b"root",
    open=lambda path: uproot.open({path: None}),
    tree=lambda file, name: RootTree(file[str(name)]),
    create=lambda path: uproot.recreate(path, compression=COMPRESSION),
    write=_write,
    tree_names=_tree_names,
    copy_rest=_copy_rest,
    expected_size=_expected_size,
    read_record=_read_record,
    write_record=_write_record,
)
