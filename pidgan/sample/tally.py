"""What was read of a calibration sample and why rows were dropped, chunk by chunk.

A chunk has a `Tally` of its own. The sum of those of all chunks tells what is said of
the sample: errors, warnings and numbers of rows do not depend on chunks.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arrays import BoolArray, FloatArray

#: Values that a chunk keeps for the median of an error message.
_SHOWN_VALUES = 20_000
#: Different values outside of a range that are counted; rare ones of more are not.
MOST_DIFFERENT = 1_000_000


@dataclass
class Median:
    """Where the median of values lies: numbers of them below and above a range."""

    below: int = 0
    above: int = 0
    n: int = 0
    values: list[FloatArray] = field(default_factory=list)

    @classmethod
    def of(cls, values: FloatArray, low: float, high: float) -> "Median":
        """Count values (n,), some of which are kept if most are out of the range."""
        below, above = np.count_nonzero(values < low), np.count_nonzero(values > high)
        found = cls(int(below), int(above), len(values))
        if found.is_outside:
            found.values.append(values[:: len(values) // _SHOWN_VALUES + 1].copy())
        return found

    @property
    def is_outside(self) -> bool:
        """Whether the median is outside of the range."""
        return 2 * max(self.below, self.above) > self.n

    @property
    def value(self) -> float:
        """The median, for a message, of those values that are known."""
        return float(np.median(np.concatenate(self.values)))

    def add(self, other: "Median") -> None:
        """Take in the values of another chunk."""
        self.below += other.below
        self.above += other.above
        self.n += other.n
        self.values += other.values


@dataclass
class Bad:
    """Rows that are not as the definition says: how many, and the first of them."""

    n: int = 0
    rows: int = 0
    first: float = 0.0

    @classmethod
    def of(cls, bad: BoolArray, values: FloatArray) -> "Bad":
        """Count the rows (n,) that a mask marks, by their values."""
        n = int(np.count_nonzero(bad))
        return cls(n, len(bad), float(values[bad][0]) if n else 0.0)

    def add(self, other: "Bad") -> None:
        """Take in the rows of a later chunk."""
        if not self.n:
            self.first = other.first
        self.n += other.n
        self.rows += other.rows


@dataclass
class Values:
    """Different values, and how many rows have each of them."""

    different: FloatArray = field(default_factory=lambda: np.zeros(0))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, values: FloatArray) -> "Values":
        """Count values (n,)."""
        return cls(*np.unique(values, return_counts=True))

    def add(self, other: "Values") -> None:
        """Take in other values; the rarest are left out where there are too many."""
        if not len(other.different):
            return
        both = np.concatenate([self.different, other.different])
        values, places = np.unique(both, return_inverse=True)
        counts = np.zeros(len(values), dtype=np.int64)
        np.add.at(counts, places, np.concatenate([self.counts, other.counts]))
        if len(values) > MOST_DIFFERENT:
            often = np.sort(np.argsort(-counts, kind="stable")[: MOST_DIFFERENT // 2])
            values, counts = values[often], counts[often]
        self.different, self.counts = values, counts


@dataclass
class Tally:
    """Numbers of rows of one chunk, or of all of them.

    Attributes:
        read: Rows that were read.
        dropped: Rows by the reason for which they were dropped, in a fixed order.
        infinite: Rows with a NaN or infinity, by column.
        inside: Rows that pass the fiducial cut, in or out of all ranges.
        medians: By variable, where its median lies.
        outside: By target, its stored values outside of its range.
        constant: By condition, the value that all rows have, None if they differ.
        above: By pairs of targets, rows in which the first is above the second.
        views: By view, rows in which its energy is not that of the first view.
        response: Energy in the cells over the incident energy.
    """

    read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    infinite: dict[str, int] = field(default_factory=dict)
    inside: int = 0
    medians: dict[str, Median] = field(default_factory=dict)
    outside: dict[str, Values] = field(default_factory=dict)
    constant: dict[str, float | None] = field(default_factory=dict)
    above: dict[tuple[str, str], Bad] = field(default_factory=dict)
    views: dict[str, Bad] = field(default_factory=dict)
    response: Median = field(default_factory=Median)

    def add(self, other: "Tally") -> None:
        """Take in the rows of the next chunk."""
        self.read += other.read
        self.inside += other.inside
        for mine, theirs in (
            (self.dropped, other.dropped),
            (self.infinite, other.infinite),
        ):
            for name, n in theirs.items():
                mine[name] = mine.get(name, 0) + n
        pairs: list[tuple[dict[Any, Any], dict[Any, Any]]] = [
            (self.medians, other.medians),
            (self.outside, other.outside),
            (self.above, other.above),
            (self.views, other.views),
        ]
        for known, new in pairs:
            for name, found in new.items():
                if name in known:
                    known[name].add(found)
                else:
                    known[name] = found
        for name, value in other.constant.items():
            if self.constant.setdefault(name, value) != value:
                self.constant[name] = None
        self.response.add(other.response)
