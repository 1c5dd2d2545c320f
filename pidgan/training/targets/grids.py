"""Targets on grids: whole numbers in between, the grid at the end, orders kept.

Targets (n, d) become *places*: on a grid the whole number k of offset + k step, else
the value itself. Special values, sentinels among them, have places of their own far
below all others. Coordinates are differences of places, see
`pidgan.training.targets.tracks`; a place is *absolute*, not a difference, where it or
its base is a special value, or where it is a spike of the target itself.

A coordinate on a grid that sits on no atom is learnt as a continuous one: it is
counted without the atoms, so that these leave no gap, and a uniform number of its cell
is added. On the way back it is rounded. The places then keep the ends of their range,
and the orders that hold in all rows, such as nClusters <= nRows.
"""

import dataclasses
import graphlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.sample.grids import Grid

# Places of special values: this, and below. Whole numbers up to here are exact.
SPECIAL = -(2.0**23)
# A number above all places, of which sums with places are finite.
LARGE = 1e30
# Width of the uniform numbers that are added, in cells: rounding stays in the cell.
CELL = 0.98
# Stream of these numbers.
DEQUANTISE = 3


class Coordinates(NamedTuple):
    """Differences of places (n, d), and which of them are absolute."""

    values: FloatArray
    absolute: BoolArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridLayer:
    """Grids, special values and orders of targets; lists are padded.

    Arrays are float64 (d,), or (d, m) for lists of each target, or (n_patterns, d).
    An order (m, 4) is (i, j, scale, shift): place i is at most scale * place j + shift,
    rounded down if i is on a grid. An equality (m, 3) is (i, j, shift).
    """

    step: FloatArray  # 0 where a target is continuous
    offset: FloatArray
    special: FloatArray  # special values as they are, padded with NaN
    spikes: FloatArray  # places that are absolute, padded with NaN
    atoms: FloatArray  # atoms of the coordinate, rising, padded with LARGE
    first: FloatArray  # smallest place but for special values
    last: FloatArray  # largest
    orders: FloatArray
    equal: FloatArray
    absolute: IntArray  # 1 where the coordinate is a place and no difference
    is_special: IntArray  # 1 where it is a special value
    value: FloatArray  # special values of the patterns, 0 elsewhere

    @property
    def on_grid(self) -> BoolArray:
        """Which targets are on a grid, (d,)."""
        return self.step > 0

    @property
    def is_coded(self) -> BoolArray:
        """Which targets have places that differ from their values, (d,)."""
        return self.on_grid | np.isfinite(self.special).any(axis=1)

    def places(self, targets: FloatArray) -> FloatArray:
        """Return the places of targets (n, d), float32; NaN where one is off a grid."""
        found = targets.astype(np.float32)
        for j in np.flatnonzero(self.is_coded).tolist():
            y = targets[:, j].astype(np.float32)
            if self.on_grid[j]:
                found[:, j] = self.grid(j).index(y)
            for i, value in enumerate(self.special[j]):
                found[y == np.float32(value), j] = SPECIAL - i
        return found

    def grid(self, j: int) -> Grid:
        """Return the grid of a target."""
        return Grid(step=float(self.step[j]), offset=float(self.offset[j]))

    def coordinates(self, places: FloatArray, base: IntArray) -> Coordinates:
        """Subtract from each place that of its base, where it is not absolute."""
        values, absolute = places.copy(), np.zeros(places.shape, dtype=np.bool_)
        special = self.is_coded & (places <= SPECIAL)
        for j in np.flatnonzero(base >= 0):
            is_spike = np.isin(places[:, j], self.spikes[j])
            absolute[:, j] = special[:, j] | special[:, base[j]] | is_spike
            difference = places[:, j] - places[:, base[j]]
            values[:, j] = np.where(absolute[:, j], places[:, j], difference)
        return Coordinates(values, absolute)

    def is_atom(self, coordinates: Coordinates) -> BoolArray:
        """Return which coordinates (n, d) on grids are atoms and no differences."""
        values, absolute = coordinates
        found = [
            np.isin(v, atoms) for v, atoms in zip(values.T, self.atoms, strict=True)
        ]
        return np.stack(found, axis=1) & ~absolute

    def spread(self, coordinates: Coordinates, seed: int) -> FloatArray:
        """Return coordinates on grids as continuous ones: without gaps, and spread."""
        values, absolute = coordinates
        spread = values.copy()
        rng = np.random.default_rng([seed, DEQUANTISE])
        for j in np.flatnonzero(self.on_grid):
            below = np.searchsorted(self.atoms[j], values[:, j])
            moved = values[:, j] - np.where(absolute[:, j], 0, below)
            spread[:, j] = moved + CELL * (rng.random(len(values)) - 0.5)
        return spread

    def brought(self) -> dict[str, FloatArray]:
        """Return what patterns bring beside atoms, each (n_patterns, ...)."""
        found: dict[str, FloatArray] = {}
        if self.absolute.any():
            found["difference"] = 1.0 - self.absolute
        if self.is_special.any():
            found["measured"] = 1.0 - self.is_special
            found["special"] = self.value
            upper = self.orders[:, 1].astype(np.int64)
            if len(upper):
                found["slack"] = LARGE * self.is_special[:, upper]
        return found

    def whole(self, values: Array, brought: Mapping[str, Array]) -> Array:
        """Return coordinates rounded on grids, with the atoms counted again."""
        found = f.floor(values + np.float32(0.5))
        # Padded atoms are above all places.
        for atom in self.atoms.T[: int((self.atoms < LARGE).sum(axis=1).max())]:
            above = f.numbers(f.at_least(found, _single(atom)), values)
            if "difference" in brought:
                above = above * brought["difference"]
            found = found + above
        return (
            found
            if self.on_grid.all()
            else f.where(self.on_grid[np.newaxis], found, values)
        )

    def finish(self, places: Array, brought: Mapping[str, Array]) -> Array:
        """Return targets of places, within their range and in order."""
        kept = f.maximum(places, _single(self.first))
        kept = f.minimum(kept, _single(self.last))
        if len(self.orders) or len(self.equal):
            kept = self._in_order(kept, brought)
        targets = self._values(kept)
        if "measured" in brought:
            targets = targets * brought["measured"] + brought["special"]
        return targets

    def _in_order(self, places: Array, brought: Mapping[str, Array]) -> Array:
        """Lower places to the bounds that others set, the highest ones first."""
        columns = [f.columns(places, j, j + 1) for j in range(len(self.step))]
        for m in sequence(self.orders):
            i, j = (int(v) for v in self.orders[m, :2])
            scale, shift = (float(v) for v in self.orders[m, 2:])
            bound = columns[j] if scale == 1 else columns[j] * np.float32(scale)
            bound = bound if shift == 0 else bound + np.float32(shift)
            if self.on_grid[i] and not (scale.is_integer() and shift.is_integer()):
                bound = f.floor(bound)
            if "slack" in brought:
                bound = bound + f.columns(brought["slack"], m, m + 1)
            columns[i] = f.minimum(columns[i], bound)
        for i, j, shift in self.equal:
            columns[int(i)] = columns[int(j)] + np.float32(shift)
        return f.concatenate(columns)

    def _values(self, places: Array) -> Array:
        """Return offset + k step; the step in two parts, of which one is exact."""
        step = np.where(self.on_grid, self.step, 1.0)
        largest = np.maximum(np.abs(self.first), np.abs(self.last)).clip(1, 2.0**23)
        exponent = np.floor(np.log2(step))
        bits = 23 - np.ceil(np.log2(largest)) - exponent
        coarse = np.where(self.on_grid, np.rint(step * 2.0**bits) / 2.0**bits, 1.0)
        fine = _single(step - coarse)
        found = places
        if (coarse != 1).any():
            found = places * _single(coarse)
        if fine.any():
            found = found + places * fine
        return found + _single(self.offset) if self.offset.any() else found

    def order_texts(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """Return for each target its orders, such as "<= nRows" or "= nRows - 3"."""
        found: list[list[str]] = [[] for _ in names]
        for i, j, scale, shift in self.orders:
            low = float(self.offset[int(i)] + self.step[int(i)] * shift)
            strict = scale == 1 and low < self.offset[int(j)]
            found[int(i)].append(f"{'<' if strict else '<='} {names[int(j)]}")
        for i, j, shift in self.equal:
            apart = (
                self.offset[int(i)] - self.offset[int(j)] + self.step[int(i)] * shift
            )
            sign = f" {'-' if apart < 0 else '+'} {abs(apart):g}" if apart else ""
            found[int(i)].append(f"= {names[int(j)]}{sign}")
        return [tuple(texts) for texts in found]

    def repeated(self, source: IntArray) -> "GridLayer":
        """Return the layer of other patterns, each of which is one of these."""
        names = ("absolute", "is_special", "value")
        return dataclasses.replace(self, **{n: getattr(self, n)[source] for n in names})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as arrays by name."""
        return {f"grid_{k}": np.asarray(v) for k, v in vars(self).items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "GridLayer":
        """Rebuild the layer from the arrays of `to_arrays`."""
        names = [field.name for field in dataclasses.fields(GridLayer)]
        return GridLayer(**{name: arrays[f"grid_{name}"] for name in names})


def sequence(orders: FloatArray) -> list[int]:
    """Return the numbers of orders (m, 4), those of the highest targets first."""
    uppers: dict[int, list[int]] = {}
    for i, j in orders[:, :2].astype(int):
        uppers.setdefault(int(i), []).append(int(j))
    turn = list(graphlib.TopologicalSorter(uppers).static_order())
    return sorted(range(len(orders)), key=lambda m: turn.index(int(orders[m, 0])))


def padded(lists: Sequence[Sequence[float] | FloatArray], fill: float) -> FloatArray:
    """Return lists as rows of one array, filled up."""
    width = max((len(values) for values in lists), default=0)
    return np.array([[*values, *[fill] * (width - len(values))] for values in lists])


def _single(values: FloatArray) -> FloatArray:
    return np.asarray(values, dtype=np.float32)[np.newaxis]
