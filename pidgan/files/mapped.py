"""Arrays that grow beyond memory: written as they come, and read block by block.

`GrowingArrays` takes chunks of rows. Few rows stay in memory. More rows go to files of
numpy (.npy) in a temporary folder, and are mapped in the end. The folder is removed as
soon as no array needs it.

What is read through a map counts as memory of the process, and may fill it. The
functions here therefore read a mapped array by ordinary calls, some rows at a time.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.files.leftovers import remove_leftovers, temporary_name

Array = npt.NDArray[Any]

MEMORY_BYTES = 250_000_000
"""Bytes of all rows together up to which they stay in memory."""

BLOCK_BYTES = 16_000_000
"""Bytes that are read of a mapped array at a time."""

LARGE_BYTES = 64_000_000
"""Bytes of a mapped array up to which it is read as a whole."""


class GrowingArrays:
    """Arrays (n, ...) by name, whose rows come in chunks of the same columns.

    Args:
        folder: Where the temporary folder is made; by default that of the system.
        limit: Bytes up to which rows stay in memory.
    """

    def __init__(
        self, folder: str | Path | None = None, *, limit: int | None = None
    ) -> None:
        self._folder, self._limit = folder, MEMORY_BYTES if limit is None else limit
        self._chunks: list[Mapping[str, Array]] = []
        self._bytes = 0
        self._scratch: Scratch | None = None
        self._files: dict[str, ArrayFile] = {}
        self.rows = 0

    @property
    def are_on_disk(self) -> bool:
        """Whether the rows have gone to files."""
        return self._scratch is not None

    def append(self, chunk: Mapping[str, Array]) -> None:
        """Take in rows; every chunk has arrays of the same names and types."""
        self.rows += len(next(iter(chunk.values()), ()))
        if self._scratch is not None:
            self._write(chunk)
            return
        self._chunks.append(chunk)
        self._bytes += sum(array.nbytes for array in chunk.values())
        if self._bytes > self._limit:
            self._scratch = Scratch(self._folder)
            for waiting in self._chunks:
                self._write(waiting)
            self._chunks = []

    def finish(self) -> dict[str, Array]:
        """Return the arrays, in memory or mapped; nothing can be added from now on."""
        if self._scratch is not None:
            files, self._files = self._files, {}
            return {name: file.finish(self._scratch) for name, file in files.items()}
        found: dict[str, Array] = {}
        for name in self._chunks[0] if self._chunks else ():
            found[name] = np.concatenate([chunk[name] for chunk in self._chunks])
        self._chunks = []
        return found

    def _write(self, chunk: Mapping[str, Array]) -> None:
        assert self._scratch is not None
        for name, array in chunk.items():
            if name not in self._files:
                place = self._scratch.path / f"{name.strip('#')}.npy"
                self._files[name] = ArrayFile(place, array.dtype, array.shape[1:])
            self._files[name].write(array)


class ArrayFile:
    """A file of numpy that is written row by row, as `numpy.save` would write it."""

    def __init__(
        self, path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...] = ()
    ) -> None:
        self._path, self._dtype, self._shape = path, np.dtype(dtype), shape
        self._rows = 0
        path.touch()
        self._header()

    def write(self, array: Array) -> None:
        """Add rows."""
        with open(self._path, "ab") as file:
            file.write(np.ascontiguousarray(array, dtype=self._dtype).data)
        self._rows += len(array)

    def finish(self, keep: Any = None) -> Array:
        """Write the number of rows, and return the array, mapped from the file.

        `keep` lives as long as the array does.
        """
        self._header()  # numpy leaves room in it for more rows
        mapped = np.load(self._path, mmap_mode="r", allow_pickle=False)
        mapped._pidgan_keep = keep
        return mapped.view(np.ndarray) if mapped.size else np.array(mapped)

    def _header(self) -> None:
        content = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._shape),
        }
        with open(self._path, "r+b") as file:
            np.lib.format.write_array_header_1_0(file, content)


class Scratch:
    """A temporary folder, which is removed when nothing refers to it any more.

    A folder of a run that was killed is removed by the next one.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        place = Path(folder or tempfile.gettempdir()).absolute() / "pidgan-rows"
        remove_leftovers(place)
        self.path = temporary_name(place)
        self.path.mkdir(parents=True)
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def file_of(array: Array) -> Path | None:
    """Return the file that an array is mapped from as a whole, if there is one."""
    mapped = array if isinstance(array, np.memmap) else array.base
    if (
        not isinstance(mapped, np.memmap)
        or mapped.filename is None
        or array.shape != mapped.shape
        or array.strides != mapped.strides
        or not array.flags.c_contiguous
        or array.__array_interface__["data"][0] != mapped.__array_interface__["data"][0]
    ):
        return None
    return Path(mapped.filename)


def row_blocks(array: Array, rows: int | None = None) -> Iterator[tuple[slice, Array]]:
    """Yield blocks of consecutive rows, each with its place."""
    width = array.nbytes // max(len(array), 1)
    step = rows or max(1, BLOCK_BYTES // max(width, 1))
    for start in range(0, len(array), step):
        place = slice(start, min(start + step, len(array)))
        yield place, read_rows(array, place)


def read_rows(array: Array, place: slice) -> Array:
    """Return consecutive rows; those of a large mapped array are read, not mapped."""
    path = file_of(array) if array.nbytes > LARGE_BYTES else None
    if path is None:
        return array[place]
    start, stop, _ = place.indices(len(array))
    width = array.nbytes // len(array)
    mapped: Any = array if isinstance(array, np.memmap) else array.base
    flat = np.fromfile(
        path,
        dtype=array.dtype,
        count=max(0, stop - start) * (width // array.dtype.itemsize),
        offset=mapped.offset + start * width,
    )
    return flat.reshape(-1, *array.shape[1:])


def take_rows(array: Array, rows: npt.NDArray[np.int64]) -> Array:
    """Return some rows, by their numbers, which rise."""
    if array.nbytes <= LARGE_BYTES or file_of(array) is None:
        return np.asarray(array[rows])
    found = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
    for place, block in row_blocks(array):
        first, last = np.searchsorted(rows, (place.start, place.stop))
        if first < last:
            found[first:last] = block[rows[first:last] - place.start]
    return found


def store_array(array: Array, path: Path) -> None:
    """Write an array as a file of numpy; that of a temporary folder gets a new name."""
    source = file_of(array)
    if source is None:
        np.save(path, array, allow_pickle=False)
        return
    mapped: Any = array if isinstance(array, np.memmap) else array.base
    if getattr(mapped, "_pidgan_keep", None) is not None:
        try:
            os.link(source, path)
            return
        except OSError:  # another disk, or one without links
            pass
    shutil.copyfile(source, path)
