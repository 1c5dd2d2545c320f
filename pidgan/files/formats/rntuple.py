"""RNTuples of ROOT files, by uproot.

A field that uproot reads under another type than ROOT (`char`, half precision) is
converted on reading; an RVec is a vector, a cardinality a whole number, and an optional
number is NaN where it is empty.
"""

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import awkward as ak
import numpy as np

from pidgan.files.formats.trial import has_same_copy
from pidgan.files.trees import Addition, Append, BranchType, entry_shape

NUMBERS = {
    *("bool", "float", "double"),
    *(f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
"""Words for one number or bool."""

SIMPLE = {*NUMBERS, "std", "vector", "string"}
"""Words of types that are read and written daily."""

COPIED = {*SIMPLE, "array", "optional", "tuple"}
"""Words of types that a copy has too."""

WITHOUT_MEMBERS = {*COPIED, "ROOT", "VecOps", "RVec", "RNTupleCardinality", "char"} - {
    "tuple"
}
"""Words of types that hold no records."""


@dataclass(frozen=True)
class _Field:
    """A field: its awkward form, and the type to which its numbers are converted."""

    kind: str
    form: Any
    convert: np.dtype[Any] | None


@final
@dataclass(frozen=True)
class RNTuple:
    """An RNTuple of an open file, whose branches are its fields."""

    tree: Any

    @property
    def entries(self) -> int:
        return int(self.tree.num_entries)

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        found: dict[str, str] = {}
        for field in self.tree.fields:
            found[field.name] = str(field.typename)
            if recursive and field.name in self._fields:
                found |= dict(_members(self._fields[field.name].form, field.name))
        return found

    def branch_type(self, name: str) -> BranchType | None:
        field, path = self._place(name)
        form = self._fields[field].form if field in self._fields else None
        for member in path:
            form = None if form is None else _member(form, member)
        return None if form is None else _type(form)

    def stored_bytes(self, branches: Iterable[str]) -> int:
        return 0

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        wanted = {self._place(name)[0] for name in branches}
        fields = {name: self._fields[name] for name in wanted & self._fields.keys()}
        converted = {n: f.convert for n, f in fields.items() if f.convert is not None}
        for piece in self.tree.iterate(
            filter_name=wanted.__contains__,
            entry_start=start,
            entry_stop=stop,
            step_size=chunk,
            library="ak",
            how=dict,
        ):
            yield piece | {
                name: ak.values_astype(piece[name], number)
                for name, number in converted.items()
            }

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        found = {}
        for name in branches:
            field, path = self._place(name)
            array = piece[field]
            for member in path:
                array = array[member]
            found[name] = _plain(array)
        return found

    def lossy(self) -> tuple[dict[str, str], dict[str, str]]:
        kinds = self.typenames(recursive=False)
        refused = {n: kind for n, kind in kinds.items() if n not in self._fields}
        return refused, {
            name: field.kind
            for name, field in self._fields.items()
            if _words(field.kind) - COPIED
            or (field.kind == "double" and set(_numbers(field.form)) != {"float64"})
        }

    def doubtful(self) -> list[str]:
        fields = self._fields.items()
        return [name for name, field in fields if _words(field.kind) - SIMPLE]

    def try_copy(self, branches: Sequence[str]) -> bool:
        return has_same_copy(self, RNTuple, branches)

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        forms = {name: self._fields[name].form for name in kept}
        columns = {
            name
            for name, kind in addition.types.items()
            if name in forms and forms[name].is_regular and not kind.shape
        }
        for name, kind in addition.types.items():
            if name not in columns:
                forms[name] = _new_form(kind)
        form = ak.forms.RecordForm(list(forms.values()), list(forms))
        written = new.mkrntuple(addition.source.name, form)

        def append(piece: Any, fresh: Mapping[str, Any]) -> None:
            shaped = {name: fresh[name].reshape(-1, 1) for name in columns}
            written.extend({name: piece[name] for name in kept} | dict(fresh) | shaped)

        return append

    def _place(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Return the field and the members within it that a name stands for."""
        if name in self._fields:
            return name, ()
        field, *path = name.split(".")
        return field, tuple(path)

    @functools.cached_property
    def _fields(self) -> dict[str, _Field]:
        """Return the fields that uproot can read."""
        found = {}
        for field in self.tree.fields:
            name, kind = field.name, str(field.typename)
            # One call for each field: for several, uproot compares all their names.
            members = field.keys() if _words(kind) - WITHOUT_MEMBERS else ()
            keys = [name, *(f"{name}.{member}" for member in members)]
            # uproot refuses what it does not know with many classes of exceptions.
            with contextlib.suppress(Exception):
                form = self.tree.field_form(field.field_id, keys)
                convert = _conversion(kind, form)
                if convert is not None:
                    form = _with_number(form, convert)
                found[name] = _Field(kind, form, convert)
        return found


def _words(kind: str) -> set[str]:
    """Return the words of a type."""
    return set(re.findall(r"[A-Za-z_]\w*", kind))


def _numbers(form: Any) -> Iterator[str]:
    """Yield the types of the numbers of a form."""
    if form.is_numpy:
        yield form.primitive
    elif form.is_record or form.is_union:
        for content in form.contents:
            yield from _numbers(content)
    elif form.parameter("__array__") != "string":
        yield from _numbers(form.content)


def _conversion(kind: str, form: Any) -> np.dtype[Any] | None:
    """Return the type of the numbers of a field, if uproot reads them as another."""
    numbers = set(_numbers(form))
    if numbers == {"float16"}:
        return np.dtype(np.float32)
    # ROOT's `char` has a sign on the processors that we know.
    if numbers == {"uint8"} and "char" in _words(kind):
        return np.dtype(np.int8)
    return None


def _with_number(form: Any, number: np.dtype[Any]) -> Any:
    """Return a form without records whose numbers have a type."""
    if form.is_numpy:
        return form.copy(primitive=number.name)
    return form.copy(content=_with_number(form.content, number))


def _member(form: Any, name: str) -> Any:
    """Return the form of a member of records, perhaps in lists; None without it."""
    if form.is_record:
        return form.content(name) if form.has_field(name) else None
    if form.is_union or form.is_numpy:
        return None
    inner = _member(form.content, name)
    return None if inner is None else form.copy(content=inner)


def _members(form: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the names and types of members of a form."""
    inner = form
    while inner.is_list or inner.is_option or inner.is_indexed:
        inner = inner.content
    for name in inner.fields if inner.is_record else ():
        member = _member(form, name)
        yield f"{prefix}.{name}", str(member.type)
        yield from _members(member, f"{prefix}.{name}")


def _type(form: Any) -> BranchType | None:
    """Return the type of the numbers of a form; None if it has no numbers."""
    shape: tuple[int | None, ...] = ()
    form = form.content if form.is_option else form
    if form.is_regular:
        form, shape = form.content, entry_shape((form.size,))
    elif form.is_list and form.parameter("__array__") != "string":
        form, shape = form.content, (None,)
    form = form.content if form.is_option else form
    if not form.is_numpy or form.inner_shape:
        return None
    number = np.dtype(form.primitive)
    return BranchType(number, shape) if number.kind in "biuf" else None


def _new_form(kind: BranchType) -> Any:
    """Return the form of a new field."""
    number = ak.forms.NumpyForm(kind.number.name)
    if kind.shape == (None,):
        return ak.forms.ListOffsetForm("i64", number)
    size = kind.shape[0] if kind.shape else None
    return ak.forms.RegularForm(number, size) if size else number


def _plain(array: Any) -> Any:
    """Return numbers as numpy or awkward; what is empty is NaN, or an empty list."""
    if array.layout.is_option and array.ndim > 1:
        array = ak.fill_none(array, [], axis=0)
    form = array.layout.form
    while not form.is_numpy and not form.is_option:
        form = form.content
    if form.is_option:
        number = np.dtype(next(_numbers(form)))
        is_whole = number.kind != "f" and not ak.any(ak.is_none(array, axis=-1))
        value = number.type(0) if is_whole else np.nan
        filled = ak.fill_none(array, value, axis=-1)
        array = ak.values_astype(filled, number) if number.kind == "f" else filled
    if not array.layout.purelist_isregular:
        return array
    numbers = np.asarray(array)
    return numbers.reshape(len(numbers), *entry_shape(numbers.shape[1:]))
