"""Files of numpy arrays (.npz), whose first axis is the entry.

They are read as a whole, so that they must fit in memory; nothing in them is ever
unpickled. An array of several axes counts as one of all its numbers an entry.
"""

import contextlib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import awkward as ak
import numpy as np

from pidgan.errors import NtupleError
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
    row_slices,
)

_VARIABLE = "array {!r} would have entries of different lengths: not for a .npz file"


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file; ValueError if it is damaged or has objects."""
    with open(path, "rb") as raw:
        try:
            with np.load(raw, allow_pickle=False) as file:
                return dict(file)
        except (EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no whole .npz file: {error}") from error


@final
@dataclass(frozen=True)
class NpzArrays(PlainTree):
    """The arrays of a .npz file."""

    file: Mapping[str, np.ndarray]

    @property
    def entries(self) -> int:
        return common_length(len(a) for a in self.file.values() if a.ndim)

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        return {
            name: str(BranchType(array.dtype, array.shape[1:]))
            for name, array in self.file.items()
        }

    def branch_type(self, name: str) -> BranchType | None:
        array = self.file[name]
        if array.dtype.kind not in "biuf" or not array.ndim:
            return None
        return BranchType(array.dtype, entry_shape(array.shape[1:]))

    def stored_bytes(self, branches: Iterable[str]) -> int:
        return sum(self.file[name].nbytes for name in set(branches))

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        return row_slices(start, stop, chunk)

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        expected = self.entries
        for name in branches:
            if len(self.file[name]) != expected:
                raise NtupleError(
                    f"array {name!r} has {len(self.file[name])} rows, expected "
                    f"{expected}"
                )
        found = {name: self.file[name][piece] for name in branches}
        return {
            name: array.reshape(len(array), *entry_shape(array.shape[1:]))
            for name, array in found.items()
        }

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        new |= {name: self.file[name] for name in kept}

        def make(name: str, shape: tuple[int, ...], number: np.dtype[Any]) -> None:
            new[name] = np.empty(shape, dtype=number)

        return add_arrays(
            new, addition.types, self.entries, make=make, variable=_VARIABLE
        )


@contextlib.contextmanager
def _open(path: str) -> Iterator[Any]:
    yield read_arrays(path)


@contextlib.contextmanager
def _create(path: Path) -> Iterator[Any]:
    """Give a dictionary of arrays that is written in the end."""
    new: dict[str, Any] = {}
    yield new
    with path.open("wb") as file:
        np.savez(file, **new)


def _write(
    new: Any, name: str, arrays: Mapping[str, Any], counters: Mapping[str, str]
) -> None:
    for name, array in arrays.items():
        if isinstance(array, ak.Array):
            raise NtupleError(_VARIABLE.format(name))
        new[name] = array


def _read_record(file: Mapping[str, np.ndarray]) -> list[str]:
    return str(file[RECORD]).splitlines() if RECORD in file else []


def _write_record(new: Any, lines: Sequence[str]) -> None:
    new[RECORD] = np.array("\n".join(lines))


FORMAT = Format(
    name=".npz",
    suffixes=(".npz",),
    magic=b"PK\x03\x04",
    open=_open,
    tree=lambda file, name: NpzArrays(
        {key: array for key, array in file.items() if key != RECORD}
    ),
    create=_create,
    write=_write,
    read_record=_read_record,
    write_record=_write_record,
)
