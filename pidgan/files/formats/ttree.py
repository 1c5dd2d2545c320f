"""TTrees of ROOT files, by uproot.

Members of leaf lists (`K.P`) and of objects (`K_P4/fE`, `evt/p/p.x`) are branches that
can be read. In a copy, variable-length branches keep sharing their counter, and new
ones share that of the branches they belong to.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import awkward as ak
import numpy as np
import uproot
from uproot.interpretation import numerical

from pidgan.errors import NtupleError
from pidgan.files.formats.trial import has_same_copy
from pidgan.files.trees import Addition, Append, BranchType

LONG_STRING = 255
"""First byte of a string whose length follows in four bytes."""


@dataclass(frozen=True)
class _Place:
    """Where numbers are: a branch, how it is read, members within its entries.

    `path` is the name by which the tree finds the branch.
    """

    path: str
    branch: Any
    interpretation: Any
    members: tuple[str, ...] = ()

    @property
    def typename(self) -> str:
        kind = self.type if self.members else None
        return str(self.branch.typename) if kind is None else str(kind)

    @property
    def type(self) -> BranchType | None:
        return _type(self.interpretation, self.members)

    @property
    def is_c_string(self) -> bool:
        """Whether ROOT wrote it as characters; of an empty string it writes nothing."""
        leaves = self.branch.member("fLeaves")
        return (
            isinstance(self.interpretation, uproot.AsStrings)
            and len(leaves) == 1
            and leaves[0].classname == "TLeafC"
            and self.branch.member("fEntryOffsetLen") > 0
        )


@dataclass(frozen=True)
class _Layout:
    """The branches of a copy as uproot's `mktree` wants them."""

    types: dict[str, Any] = field(default_factory=dict)
    variable: list[str] = field(default_factory=list)
    unwritable: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class TTree:
    """A TTree of an open file."""

    tree: Any

    @property
    def entries(self) -> int:
        return int(self.tree.num_entries)

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        if recursive:
            return {name: place.typename for name, place in self._places.items()}
        return {branch.name: str(branch.typename) for branch in self.tree.branches}

    def branch_type(self, name: str) -> BranchType | None:
        kind = self._places[name].type
        return kind if kind is not None and len(kind.shape) < 2 else None

    def stored_bytes(self, branches: Iterable[str]) -> int:
        found = {
            place.path: place.branch
            for place in map(self._places.__getitem__, branches)
        }
        return sum(int(branch.uncompressed_bytes) for branch in found.values())

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        places = {
            place.path: place for place in map(self._places.__getitem__, branches)
        }
        strings = [path for path, place in places.items() if place.is_c_string]
        # An interpretation makes a name that of a branch, never an expression.
        asked = {path: place.interpretation for path, place in places.items()}
        raw = uproot.AsJagged(uproot.AsDtype("u1"))
        for piece in self.tree.iterate(
            expressions=asked | dict.fromkeys(strings, raw),
            entry_start=start,
            entry_stop=stop,
            step_size=chunk,
            library="ak",
            how=dict,
        ):
            yield piece | {path: _strings(piece[path]) for path in strings}

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        found = {}
        for name in branches:
            place = self._places[name]
            array = piece[place.path]
            for member in place.members:
                array = array[member]
            is_regular = array.layout.purelist_isregular
            found[name] = np.asarray(array) if is_regular else array
        return found

    def lossy(self) -> tuple[dict[str, str], dict[str, str]]:
        return self._layout.unwritable, self._layout.changed

    def doubtful(self) -> list[str]:
        # One number of the machine an entry is no question.
        return [
            name
            for name in self._layout.types
            if type(self._places[name].interpretation) is not uproot.AsDtype
        ]

    def try_copy(self, branches: Sequence[str]) -> bool:
        return has_same_copy(self, TTree, branches)

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        added = addition.types
        types = {name: self._layout.types[name] for name in kept}
        like = {name: name for name in self._layout.variable if name in types}
        counters = self._counters(like | dict(addition.like), {*types, *added})
        written = new.mktree(
            addition.source.name,
            types | {name: _mktree_type(kind) for name, kind in added.items()},
            title=self.tree.title,
            counter_name=counters.__getitem__,
            initial_basket_capacity=self.entries // rows + 3,
        )

        def append(piece: Any, fresh: Mapping[str, Any]) -> None:
            written.extend({name: piece[name] for name in kept} | dict(fresh))

        return append

    @functools.cached_property
    def _places(self) -> dict[str, _Place]:
        """Return everything with a name: branches, those within others, members."""
        found: dict[str, _Place] = {}
        for path, branch in self.tree.iteritems(recursive=True):
            place = _Place(path, branch, branch.interpretation)
            found.setdefault(path, place)
            for name, members in _members(path, branch.interpretation):
                member = _Place(path, branch, branch.interpretation, members)
                found.setdefault(name, member)
        return found

    @functools.cached_property
    def _layout(self) -> _Layout:
        """Return how the branches are written."""
        layout = _Layout()
        seen: set[str] = set()
        for branch in self.tree.branches:
            name, interpretation = branch.name, branch.interpretation
            kind = _type(interpretation)
            are_strings = isinstance(interpretation, uproot.AsStrings)
            if branch.branches or (kind is None and not are_strings):
                layout.unwritable[name] = branch.typename
            elif name in seen:
                layout.unwritable[name] = "several branches have this name"
            if name in layout.unwritable:
                layout.types.pop(name, None)
                continue
            seen.add(name)
            layout.types[name] = "string" if kind is None else _mktree_type(kind)
            if kind is not None and kind.shape == (None,):
                layout.variable.append(name)
            # Double32_t and Float16_t are packed: uproot expands them.
            number = getattr(interpretation, "content", interpretation)
            is_packed = isinstance(number, numerical.TruncatedNumerical)
            is_widened = isinstance(number, uproot.AsDtype) and (
                number.from_dtype.base.itemsize != number.to_dtype.base.itemsize
            )
            if branch.classname == "TBranchElement" or is_packed or is_widened:
                layout.changed[name] = branch.typename
        return layout

    def _counters(self, like: Mapping[str, str], names: set[str]) -> dict[str, str]:
        """Return the counter of each branch: the input's own if it can stay.

        Each is like a branch of the tree; the other branches of the copy have `names`.
        """
        # uproot writes counters as int32 only: one of another type stays as it is,
        # beside a new one that the same branches share.
        int32 = BranchType(np.dtype(np.int32))
        taken = names | set(self.tree.keys(recursive=False))
        counters: dict[str, str] = {}
        for name in like.values():
            owner, base = self._owner(name)
            if owner in counters:
                continue
            place = self._places.get(owner)
            is_own = place is not None and place.type == int32
            counter = owner if is_own else f"n{base}"
            while not is_own and counter in taken:
                counter = f"n{counter}"
            taken.add(counter)
            counters[owner] = counter
        return {name: counters[self._owner(other)[0]] for name, other in like.items()}

    def _owner(self, name: str) -> tuple[str, str]:
        """Return the path and the name of what a branch has in common with others.

        This is its counter or, where it has none, the branch itself.
        """
        place = self._places[name]
        own = place.branch.count_branch
        if own is None:
            return f"{place.path} itself", str(place.branch.name)
        found = self._places.get(own.name)
        is_top = found is not None and found.branch.name == own.name
        return (own.name if is_top else f"{own.name} within"), str(own.name)


def _members(path: str, interpretation: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield names of numbers within the entries of a branch, and how to get them."""
    # Vectors of objects that are not split lie in files by member: uproot 5.7 reads
    # other numbers.
    if not isinstance(interpretation, uproot.AsDtype):
        return
    are_objects = isinstance(interpretation, uproot.AsStridedObjects)
    for name in interpretation.from_dtype.names or ():
        # Marks of versions and sizes begin with "@".
        if "@" not in name:
            members = tuple(name.split("/")) if are_objects else (name,)
            yield f"{path}{'/' if are_objects else '.'}{name}", members


def _type(interpretation: Any, members: tuple[str, ...] = ()) -> BranchType | None:
    """Return the type of numbers of an interpretation; None if a copy has no such."""
    if isinstance(interpretation, uproot.AsJagged):
        content = _type(interpretation.content)
        # uproot 5.7 writes wrong offsets for arrays of arrays (`x[n][3]`).
        is_flat = content is not None and content.shape == ()
        return BranchType(content.number, (None,)) if content and is_flat else None
    if not isinstance(interpretation, numerical.Numerical):
        return None
    if members:
        kind = interpretation.from_dtype["/".join(members)]
    else:
        kind = np.dtype(interpretation.numpy_dtype)
    number = kind.base.newbyteorder("=")
    return BranchType(number, kind.shape) if number.kind in "biuf" else None


def _mktree_type(kind: BranchType) -> Any:
    """Return the type of a branch for uproot's `mktree`."""
    if kind.shape == (None,):
        # A text would be parsed for each branch, slowly.
        return ak.types.ListType(ak.types.NumpyType(kind.number.name))
    return np.dtype((kind.number, kind.shape))


def _strings(raw: Any) -> Any:
    """Return strings of the bytes of entries: the length, the characters, or nothing.

    uproot expects a length even where ROOT wrote nothing, for an empty string, and
    would take those of other entries.
    """
    layout = ak.to_packed(raw).layout
    data, offsets = np.asarray(layout.content.data), np.asarray(layout.offsets.data)
    starts, stops = offsets[:-1], offsets[1:]
    sizes = np.zeros(len(starts), np.int64)
    is_written = stops > starts
    sizes[is_written] = np.where(data[starts[is_written]] == LONG_STRING, 5, 1)
    length = stops - starts - sizes
    is_short = sizes == 1
    if (length < 0).any() or (data[starts[is_short]] != length[is_short]).any():
        raise NtupleError("strings and their lengths differ")
    characters = ak.contents.NumpyArray(data, parameters={"__array__": "char"})
    strings = ak.contents.ListArray(
        ak.index.Index64(starts + sizes),
        ak.index.Index64(stops),
        characters,
        parameters={"__array__": "string"},
    )
    return ak.Array(strings.to_packed())
