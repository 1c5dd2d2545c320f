"""HDF5 files by h5py, if it is installed; the first axis of a dataset is the entry.

Those of Geant4's example Par04 are read by `pidgan.files.formats.par04`.

Datasets in groups have names with slashes, and the members of compound types follow a
point. A dataset of several axes counts as one of all its numbers an entry. A copy keeps
everything else of a file, as it is stored.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import awkward as ak
import fsspec
import numpy as np

from pidgan.errors import NtupleError
from pidgan.files.formats.par04 import Par04Showers, is_par04
from pidgan.files.trees import (
    RECORD,
    Addition,
    Append,
    BranchType,
    Format,
    PlainTree,
    add_arrays,
    common_length,
    entry_shape,
    is_remote,
    remote_options,
    row_slices,
)

if TYPE_CHECKING:
    import h5py

_VARIABLE = "dataset {!r} would have entries of different lengths: not for HDF5"


@dataclass(frozen=True)
class _Column:
    """A dataset, or a member of its compound type."""

    dataset: Any
    member: str | None = None

    @property
    def kind(self) -> np.dtype[Any]:
        """The type of its values."""
        own: np.dtype[Any] = self.dataset.dtype
        return own if self.member is None else own[self.member]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an entry."""
        return (*self.dataset.shape[1:], *self.kind.shape)

    def read(self, rows: slice) -> np.ndarray:
        """Return entries, (n,) or (n, k)."""
        values = (
            self.dataset if self.member is None else self.dataset.fields(self.member)
        )
        array = np.asarray(values[rows])
        number = self.kind.base.newbyteorder("=")
        return array.astype(number, copy=False).reshape(
            len(array), *entry_shape(self.shape)
        )


@final
@dataclass(frozen=True)
class Hdf5Datasets(PlainTree):
    """The datasets of an open HDF5 file."""

    file: Any

    @property
    def entries(self) -> int:
        return common_length(len(column.dataset) for column in self._columns.values())

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        return {
            name: str(BranchType(column.kind.base, column.shape))
            for name, column in self._columns.items()
            if recursive or column.member is None
        }

    def branch_type(self, name: str) -> BranchType | None:
        column = self._columns[name]
        number = column.kind.base.newbyteorder("=")
        if number.kind not in "biuf":
            return None
        return BranchType(number, entry_shape(column.shape))

    def stored_bytes(self, branches: Iterable[str]) -> int:
        found = {self._columns[name].dataset for name in branches}
        return sum(int(dataset.nbytes) for dataset in found)

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        # What is only copied need not be read.
        return row_slices(start, stop, chunk)

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        for name in branches:
            length, expected = len(self._columns[name].dataset), self.entries
            if length != expected:
                raise NtupleError(
                    f"dataset {name!r} has {length} entries, expected {expected}"
                )
        return {name: self._columns[name].read(piece) for name in branches}

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        if kept:
            _copy_all(self.file, new)

        def make(name: str, shape: tuple[int, ...], number: np.dtype[Any]) -> None:
            if name in new:
                del new[name]
            new.create_dataset(name, shape, dtype=number)

        return add_arrays(
            new, addition.types, self.entries, make=make, variable=_VARIABLE
        )

    @functools.cached_property
    def _columns(self) -> dict[str, _Column]:
        found: dict[str, _Column] = {}

        def add(name: str, item: Any) -> None:
            if not hasattr(item, "dtype") or not item.shape or name == RECORD:
                return
            found[name] = _Column(item)
            for member in item.dtype.names or ():
                found[f"{name}.{member}"] = _Column(item, member)

        self.file.visititems(add)
        return found


def _copy_all(file: Any, new: Any) -> None:
    """Copy everything but the record; links stay links."""
    import h5py

    new.attrs.update(file.attrs)
    for name in file:
        link = file.get(name, getlink=True)
        if name != RECORD and isinstance(link, h5py.HardLink):
            file.copy(name, new)
        elif name != RECORD:
            new[name] = link


def library(path: str | Path) -> Any:
    """Return h5py; an NtupleError says that it is not installed."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise NtupleError(
            f"{path}: HDF5 files need h5py, which is not installed: pip install "
            "'.[hdf5]' in the source tree"
        ) from error
    return h5py


@contextlib.contextmanager
def _open(path: str) -> Iterator["h5py.File"]:
    h5py = library(path)
    with contextlib.ExitStack() as stack:
        where = (
            stack.enter_context(fsspec.open(path, "rb", **remote_options(path)))
            if is_remote(path)
            else path
        )
        yield stack.enter_context(h5py.File(where, "r"))


@contextlib.contextmanager
def _create(path: Path) -> Iterator["h5py.File"]:
    with library(path).File(path, "w") as file:
        yield file


def _write(
    new: Any, name: str, arrays: Mapping[str, Any], counters: Mapping[str, str]
) -> None:
    for name, array in arrays.items():
        if isinstance(array, ak.Array):
            raise NtupleError(_VARIABLE.format(name))
        new.create_dataset(name, data=array)


def _read_record(file: Any) -> list[str]:
    return file[RECORD].asstr()[()].splitlines() if RECORD in file else []


def _write_record(new: Any, lines: Sequence[str]) -> None:
    new.create_dataset(RECORD, data="\n".join(lines))


FORMAT = Format(
    name="HDF5",
    suffixes=(".hdf5", ".h5", ".hdf"),
    magic=b"\x89HDF\r\n\x1a\n",
    open=_open,
    tree=lambda file, name: (
        Par04Showers(file) if is_par04(file) else Hdf5Datasets(file)
    ),
    create=_create,
    write=_write,
    read_record=_read_record,
    write_record=_write_record,
)
