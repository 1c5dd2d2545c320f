"""Weights found by keys: branches that a tuple and the file of its weights both have.

Keys are compared exactly. Whole numbers are compared as such in 64 bits, others in
double precision. A key that occurs twice on either side is an error.
"""

from typing import final

import numpy as np
import pandas as pd

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import SampleError
from pidgan.files.tables import Source, iterate_columns
from pidgan.sample.expressions import whole_branch
from pidgan.sample.stored import EXACT, as_column, as_double
from pidgan.sample.weight_columns import Column, read_whole, some_rows

_LARGEST = np.iinfo(np.int64).max


@final
class KeyTable:
    """The weights (m,) of one tree by their keys.

    `used` counts how many rows of tuples each weight belongs to.
    """

    def __init__(
        self, source: Source, names: tuple[str, ...], branch: str, entries: int
    ) -> None:
        self.source, self.names = source, names
        columns = [whole_branch(name) for name in (*names, branch)]
        *keys, weights = read_whole(source, columns, entries)
        self.weights: FloatArray = weights.astype(np.float64)
        self.used = np.zeros(entries, dtype=np.int64)
        own = [_plain(source, n, k, None) for n, k in zip(names, keys, strict=True)]
        self._types = [key.dtype for key in own]
        self._index = pd.MultiIndex.from_arrays(own)
        if not self._index.is_unique:
            twice = np.asarray(self._index.duplicated(keep=False))
            raise self._repeated(source, twice, int(np.argmax(twice)))

    def match(self, source: Source, entries: int) -> tuple[FloatArray, BoolArray]:
        """Return the weights (n,) of the rows of a tuple, and which rows have none."""
        found = np.empty(entries, dtype=np.int64)
        for first, frame in iterate_columns(source, self.names):
            keys = [
                _plain(source, name, as_column(frame[name]), kind)
                for name, kind in zip(self.names, self._types, strict=True)
            ]
            places = self._index.get_indexer(pd.MultiIndex.from_arrays(keys))
            found[first : first + len(frame)] = places
        unmatched = np.asarray(found < 0)
        self.used += np.bincount(found[~unmatched], minlength=len(self.used))
        if (self.used > 1).any():
            twice = ~unmatched & (self.used[found] > 1)
            raise self._repeated(source, twice, int(found[np.argmax(twice)]))
        return np.where(unmatched, np.nan, self.weights[found]), unmatched

    def _repeated(self, source: Source, twice: BoolArray, place: int) -> SampleError:
        key = ", ".join(
            f"{name} = {value}"
            for name, value in zip(self.names, self._index[place], strict=True)
        )
        return SampleError(
            f"{source}: {some_rows(twice)} with keys that another row has too, {key} "
            f"in the first; expected {', '.join(self.names)} to differ in every row"
        )


def _plain(
    source: Source, name: str, column: Column, kind: np.dtype[np.generic] | None
) -> Column:
    """Return a key as whole numbers of 64 bits or in double precision.

    `kind` is the type that the key has in the other file.
    """
    if kind is None:
        kind = np.dtype(np.float64 if column.dtype.kind == "f" else np.int64)
    where = f"{source}, branch {name!r}"
    if column.dtype.kind == "f":
        if (bad := np.isnan(column)).any():
            raise SampleError(f"{where} is NaN in {some_rows(bad)}; it is a key")
        if kind == np.int64:
            bad = (column != np.floor(column)) | (np.abs(column) > EXACT)
            if bad.any():
                listed = some_rows(bad, values=column)
                raise SampleError(
                    f"{where} is no whole number in {listed}, as it is in the file "
                    "with the weights; it is a key"
                )
        return np.asarray(column.astype(kind) + kind.type(0))  # -0 is 0
    if kind == np.float64:
        try:
            return as_double(column)
        except ValueError as error:
            raise SampleError(f"{where} {error}; it is a key") from None
    if column.dtype.kind == "u" and (bad := column > _LARGEST).any():
        listed = some_rows(bad, values=column)
        raise SampleError(f"{where} is beyond 2^63 in {listed}; it is a key")
    return column.astype(np.int64)
