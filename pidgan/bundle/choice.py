"""Which of several bundles serves a row, by columns of whole numbers.

Each bundle says for some columns, such as `polarity` or `run`, which values it serves,
as ranges whose ends are included; a column that it does not name may have any value. At
most one bundle serves a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arrays import BoolArray

Ranges = tuple[tuple[int, int], ...]
"""First and last values of ranges."""

When = Mapping[str, Ranges]
"""By column, the values that a bundle serves."""

NOBODY = -1
"""Number of the bundle of a row that none serves."""

MOST_LISTED = 2**22
"""Largest span of values for which a table is faster than a search."""


BLOCK_ROWS = 8192
"""Rows at a time: their numbers stay in the cache, and in memory that is there."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A choice among `len(when)` bundles, numbered from 0."""

    columns: tuple[str, ...]
    when: tuple[When, ...]

    @cached_property
    def _steps(self) -> "list[_Step]":
        states = np.ones((1, len(self.when)), dtype=np.bool_)
        steps = []
        for name in self.columns:
            column = self._column(name)
            both = states[:, np.newaxis] & column.members[np.newaxis]
            flat = both.reshape(-1, len(self.when))
            states, index = np.unique(flat, axis=0, return_inverse=True)
            steps.append(
                _Step(
                    column=column,
                    following=index.reshape(-1).astype(np.int32),
                    n_classes=both.shape[1],
                    states=states,
                )
            )
        return steps

    def find(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int16]:
        """Return the number (n,) of the bundle of each row, -1 for none.

        None serves NaN, and numbers that are not whole.
        """
        arrays = {name: np.asarray(columns[name]) for name in self.columns}
        n = max(map(len, arrays.values()), default=0)
        if n <= BLOCK_ROWS:
            return self._find(arrays)
        found = np.empty(n, dtype=np.int16)
        for first in range(0, n, BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            found[rows] = self._find({name: own[rows] for name, own in arrays.items()})
        return found

    def _find(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int16]:
        state: Any = 0
        lost: Any = False
        for name, step in zip(self.columns, self._steps, strict=True):
            values = columns[name]
            if values.dtype.kind == "f":
                lost = lost | (values != np.rint(values))
            own = step.column.classes(values)
            state = step.following.take(state * step.n_classes + own)
        served = self._steps[-1].states if self._steps else np.ones((1, 1), np.bool_)
        number = np.where(served.any(axis=1), served.argmax(axis=1), NOBODY)
        found = number.astype(np.int16).take(state)
        return np.where(lost, np.int16(NOBODY), found) if np.any(lost) else found

    def names(self, column: str, value: float) -> bool:
        """Return whether any bundle serves a value of a column."""
        return any(_has(own.get(column), value) for own in self.when)

    def overlap(self) -> tuple[int, int, dict[str, int]] | None:
        """Return two bundles that serve the same values, with an example; else None."""
        n = len(self.when)
        columns = {name: self._column(name) for name in self.columns}
        both = ~np.eye(n, dtype=np.bool_)
        for column in columns.values():
            members = column.members.astype(np.float32)
            both &= members.T @ members > 0
        if not both.any():
            return None
        i, j = (int(k) for k in np.argwhere(both)[0])
        shared = {name: column.example(i, j) for name, column in columns.items()}
        return i, j, {k: value for k, value in shared.items() if value is not None}

    def _column(self, name: str) -> "_Column":
        return _Column([own.get(name) for own in self.when])

    def without(self, column: str) -> "Choice":
        """Return the choice that does not look at a column."""
        left = tuple(name for name in self.columns if name != column)
        return Choice(columns=left, when=self.when)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A column, and which bundles are left after it.

    `following` numbers them by those left before and the class of the value.
    """

    column: "_Column"
    following: npt.NDArray[np.int32]
    n_classes: int
    states: BoolArray


class _Column:
    """Classes of values of a column that the same bundles serve.

    `members` (n_classes, n_bundles) says which ones.
    """

    def __init__(self, served: Sequence[Ranges | None]) -> None:
        ranges = [pair for own in served for pair in own or ()]
        ends = {end for first, last in ranges for end in (first, last + 1)}
        # Cell k has the values from edge k - 1 to below edge k.
        self._edges = np.array(sorted(ends), dtype=np.int64)
        cells = np.zeros((len(ends) + 1, len(served)), dtype=np.bool_)
        for number, own in enumerate(served):
            for first, last in own or ():
                begin, end = np.searchsorted(self._edges, (first, last + 1)) + 1
                cells[begin:end, number] = True
            if own is None:
                cells[:, number] = True
        self.members, index = np.unique(cells, axis=0, return_inverse=True)
        self._class = index.reshape(-1).astype(np.int32)
        self._table: npt.NDArray[np.int32] | None = None
        if len(ends) and self._edges[-1] - self._edges[0] < MOST_LISTED:
            listed = np.arange(self._edges[0] - 1, self._edges[-1] + 1)
            self._table = self._class[np.searchsorted(self._edges, listed, "right")]

    def example(self, i: int, j: int) -> int | None:
        """Return a value that two bundles serve; None if they serve any."""
        shared = (self.members[:, i] & self.members[:, j])[self._class]
        cell = int(np.argmax(shared[1:])) if shared[1:].any() else None
        return None if cell is None else int(self._edges[cell])

    def classes(self, values: npt.NDArray[Any]) -> Any:
        """Return the class (n,) of each value."""
        if not len(self._edges):
            return 0
        if self._table is None:
            return self._class.take(np.searchsorted(self._edges, values, "right"))
        low = int(self._edges[0]) - 1
        if values.dtype.kind == "f":
            inside = np.clip(np.nan_to_num(values), low, self._edges[-1])
            return self._table.take(inside.astype(np.int64) - low)
        if values.dtype == np.uint64:
            values = np.minimum(values, np.uint64(max(int(self._edges[-1]), 0)))
        # Values beyond the ends of the table count as those at the ends.
        return self._table.take(values.astype(np.int64) - low, mode="clip")


def _has(ranges: Ranges | None, value: float) -> bool:
    """Return whether a value is in ranges, of which None stands for all values."""
    return ranges is None or any(a <= value <= b for a, b in ranges)
