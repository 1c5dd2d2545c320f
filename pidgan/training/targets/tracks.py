"""Targets of tracks: a pattern of atoms and, where continuous, normal coordinates.

Targets have discrete structure that a smooth network cannot make: values taken
exactly by a finite share of rows (*atoms*, sentinels among them) and pairs of targets
that are exactly equal (*ties*). Both are found in the data. A target tied to another
is replaced by their difference, which turns a tie into an atom at zero. Each row then
has a *pattern*: for every coordinate, which atom it sits on, or none. The pattern is
learnt as a class, which also says in which quarter of its range a target is that others
are differences of: a class that is rare at some conditions is learnt better than a
second peak of a density.

Continuous targets, given the pattern, are mapped to a normal distribution by their
smoothed weighted quantiles, and then to uncorrelated coordinates of unit variance
within the pattern. Targets of one track are strongly correlated: directions in which
they hardly vary would otherwise not count in a loss. The map is triangular: each
coordinate is a target less all that the targets before it say of it, so that a sharp
edge in one target stays one in a single coordinate. Principal axes spread it over all.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.targets.grids import Coordinates, GridLayer
from pidgan.training.targets.sums import Sums

N_KNOTS = 256
"""Knots of a quantile transform: 0.03 in units of the normal scores for 10^6 rows."""

CONTINUOUS = -1
"""Pattern of a row that fits none, and code of a coordinate on no atom."""

ABSOLUTE = -2
"""Code of a coordinate on no atom that is no difference, though others of it are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetTransform:
    """Targets as a pattern of atoms and, where continuous, whitened coordinates.

    Arrays are (n_targets,) or (n_patterns, n_targets) if nothing else is said. Knots
    are equidistant in the normal score, from -z_max to z_max. Whitened coordinates y
    give the normal scores y mixing; rows and columns of atoms are zero.
    """

    has_signed_weights: ClassVar[bool] = True
    has_flatter_rows: ClassVar[bool] = True

    base: IntArray  # target that is subtracted from each, or -1
    patterns: IntArray  # 1 where the coordinate is continuous
    atoms: FloatArray  # value of the coordinate where it is not
    low: FloatArray  # lower end of a continuous one's interval, or -inf
    high: FloatArray  # upper end, which is not part of it
    table: IntArray  # quantile transform of each coordinate
    z_max: FloatArray  # last knot of the quantile transforms
    knots: FloatArray  # (n_tables, N_KNOTS), not decreasing
    mixing: FloatArray  # (n_patterns, n_targets, n_targets), upper triangular
    grids: GridLayer | None = None  # None where all targets are continuous
    sums: Sums | None = None  # None where none is a sum with earlier targets

    @property
    def n_targets(self) -> int:
        return len(self.base)

    @property
    def n_coordinates(self) -> int:
        return self.n_targets

    @property
    def n_patterns(self) -> int:
        return len(self.patterns)

    @property
    def free(self) -> FloatArray:
        return self.patterns.astype(np.float32)

    @property
    def depth(self) -> int:
        """Longest chain of differences to be added up on the way back."""
        return max(_chain_length(self.base, j) for j in range(self.n_targets))

    def forward(
        self,
        targets: FloatArray,
        *,
        conditions: FloatArray | None = None,
        seed: int = 0,
    ) -> tuple[IntArray, FloatArray]:
        """Map targets (n, n_targets) to patterns and whitened coordinates, float32.

        Sums with earlier targets need the conditions (n, n_conditions). The pattern is
        -1 for a row that fits none; coordinates are zero on its atoms. The seed is that
        of the numbers by which values on a grid are spread.
        """
        if self.sums is not None and conditions is not None:
            targets = self.sums.rest(targets, conditions)
        coordinates = self.coordinates(targets)
        pattern = self.match(coordinates)
        z = self.normal_scores(self.spread(coordinates, seed), pattern)
        whitening = np.linalg.pinv(self.mixing.astype(np.float64))
        y = np.einsum("ni,nij->nj", z, whitening[pattern]) * self.patterns[pattern]
        return pattern, y.astype(np.float32)

    def rows(self, part: Part, *, seed: int) -> tuple[BoolArray, dict[str, np.ndarray]]:
        """Return which rows fit a pattern, and "y" and "pattern" of these."""
        pattern, y = self.forward(part.targets, conditions=part.conditions, seed=seed)
        fits = np.asarray(pattern >= 0)
        return fits, {"y": y[fits], "pattern": pattern[fits].astype(np.int32)}

    def coordinates(self, targets: FloatArray) -> Coordinates:
        """Return the differences of targets (n, n_targets)."""
        y = targets.astype(np.float32)
        if self.grids is None:
            return Coordinates(differences(y, self.base), np.zeros(y.shape, np.bool_))
        return self.grids.coordinates(self.grids.places(y), self.base)

    def spread(self, coordinates: Coordinates, seed: int) -> FloatArray:
        """Return coordinates (n, n_targets) that are continuous on grids too."""
        if self.grids is None:
            return coordinates.values
        return self.grids.spread(coordinates, seed)

    def shape(self, sample: Sample, *, n_conditions: int) -> Shape:
        return Shape(
            n_conditions=n_conditions,
            n_patterns=self.n_patterns if self.n_patterns > 1 else 0,
            n_targets=self.n_targets,
            free=tuple(tuple(row) for row in self.patterns.tolist()),
        )

    def inverse(self, y: Array, codes: Array | None, conditions: Array = None) -> Array:
        """Map coordinates to physical targets, see `Targets.inverse`."""
        targets = self._own(y, codes)
        return targets if self.sums is None else self.sums.whole(targets, conditions)

    def _own(self, y: Array, codes: Array | None) -> Array:
        """Map coordinates to targets, or the rests of those that are sums.

        Copying a column is slow in a graph: products with matrices of zeros and ones
        do it, and look up what each pattern brings.
        """
        first = self.table * N_KNOTS
        more = {} if self.grids is None else self.grids.brought()
        brought = {name: table[:1].astype(np.float32) for name, table in more.items()}
        if codes is None:
            z, start = f.matmul(y, self.mixing[0]), first[0]
            free, atoms = self.free[0], self.atoms[0]
        else:
            d, (i, j) = self.n_targets, np.nonzero(self.mixing.any(axis=0))
            tables = (self.mixing[:, i, j], self.patterns, self.atoms, first)
            found = f.matmul(codes, np.hstack([*tables, *more.values()]))
            place = len(i) + 3 * d
            for name, table in more.items():
                brought[name] = f.columns(found, place, place + table.shape[1])
                place += table.shape[1]
            free, atoms, start = (
                f.columns(found, len(i) + k * d, len(i) + (k + 1) * d) for k in range(3)
            )
            # Every product y_i mixing_ij in a column of its own, then the sums over i.
            if len(i):
                each = f.matmul(y, np.eye(d)[:, i]) * f.columns(found, 0, len(i))
                z = f.matmul(each, np.eye(d)[j])
        if self.patterns.any():
            value = self._quantiles(z, start)
            if self.grids is not None:
                value = self.grids.whole(value, brought)
            if codes is not None or not self.patterns.all():
                value = value * free + atoms
        else:  # nothing but atoms
            value = atoms if codes is not None else f.matmul(y, self.mixing[0]) + atoms
        is_base = np.eye(self.n_targets)[:, self.base] * (self.base >= 0)
        targets = value
        for _ in range(self.depth):
            of_base = f.matmul(targets, is_base)
            if "difference" in brought:
                of_base = of_base * brought["difference"]
            targets = value + of_base
        return targets if self.grids is None else self.grids.finish(targets, brought)

    def _quantiles(self, z: Array, start: Array) -> Array:
        """Return the quantiles at normal scores, in tables that begin at `start`."""
        z_max = self.z_max.astype(np.float32)
        position = (z + z_max) * ((N_KNOTS - 1) / (2 * z_max))
        return interpolate(self.knots, position, start)

    def exact_values(self) -> list[FloatArray]:
        """Return for each target the values that whole patterns take exactly."""
        codes = np.eye(self.n_patterns, dtype=np.float32)
        y = np.zeros((self.n_patterns, self.n_targets), dtype=np.float32)
        made = self._own(y, codes if self.n_patterns > 1 else None)
        on_atom = np.asarray(self.patterns == 0)
        exact = on_atom
        for _ in range(self.depth):
            absolute = self.base < 0
            if self.grids is not None:
                absolute = absolute | (self.grids.absolute == 1)
            exact = on_atom & (absolute | exact[:, self.base])
        if self.sums is not None:
            kept = (made[:, :, None] == self.sums.kept).any(axis=2)
            exact = exact & (kept | ~self.sums.is_sum)
        return [np.unique(v[e]) for v, e in zip(made.T, exact.T, strict=True)]

    def normal_scores(self, coordinates: FloatArray, pattern: IntArray) -> FloatArray:
        """Map differences of targets to normal scores; atoms are at zero."""
        z = np.zeros_like(coordinates)
        for j in range(self.n_targets):
            grid = np.linspace(-self.z_max[j], self.z_max[j], N_KNOTS)
            table = self.table[pattern, j]
            for k in np.unique(table):
                values = coordinates[table == k, j]
                z[table == k, j] = _interpolate_back(values, self.knots[k], grid)
        return np.asarray(z * self.patterns[pattern])

    def match(self, coordinates: Coordinates) -> IntArray:
        """Find for each row the pattern that has most of the row's atoms."""
        values, absolute = coordinates
        pattern = np.full(len(values), CONTINUOUS)
        by_atoms = np.argsort(self.patterns.sum(axis=1), kind="stable")
        gaps = None if self.grids is None else self.grids.is_atom(coordinates)
        for k in by_atoms:
            inside = (values >= self.low[k]) & (values < self.high[k])
            if gaps is not None:
                inside &= ~gaps
            fits = np.where(self.patterns[k] == 1, inside, values == self.atoms[k])
            if self.grids is not None:
                fits &= absolute == self.grids.absolute[k]
            pattern[fits.all(axis=1) & (pattern == CONTINUOUS)] = k
        return pattern

    def to_arrays(self) -> dict[str, np.ndarray]:
        own = {k: v for k, v in vars(self).items() if k not in ("grids", "sums")}
        arrays = {f"target_{k}": np.asarray(v) for k, v in own.items()}
        for more in (self.grids, self.sums):
            arrays |= {} if more is None else more.to_arrays()
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "TargetTransform":
        names = {field.name for field in dataclasses.fields(TargetTransform)}
        names -= {"grids", "sums"}
        found = {name: arrays[f"target_{name}"] for name in names}
        has_grids = any(name.startswith("grid_") for name in arrays)
        grids = GridLayer.from_arrays(arrays) if has_grids else None
        sums = Sums.from_arrays(arrays) if "sum_terms" in arrays else None
        return TargetTransform(**found, grids=grids, sums=sums)


def _chain_length(base: IntArray, j: int) -> int:
    """Number of differences between target j and the root of its tree."""
    return 0 if base[j] < 0 else 1 + _chain_length(base, int(base[j]))


def differences(y: FloatArray, base: IntArray) -> FloatArray:
    """Subtract from each target its base."""
    columns = [y[:, j] - y[:, b] if b >= 0 else y[:, j] for j, b in enumerate(base)]
    return np.stack(columns, axis=1)


def _interpolate_back(
    values: FloatArray, knots: FloatArray, grid: FloatArray
) -> FloatArray:
    """Return the normal score of each value; the middle of a flat piece of knots."""
    unique, first = np.unique(knots, return_index=True)
    last = np.append(first[1:], len(knots)) - 1
    middle = 0.5 * (grid[first] + grid[last])
    return np.asarray(np.interp(values, unique, middle), dtype=np.float32)


def interpolate(knots: FloatArray, position: Array, start: Array) -> Array:
    """Return values on straight lines between knots (n_tables, n_knots).

    Positions are in units of the distance between knots; `start` is the first knot of
    each value's table, counted through all tables. The value at the end of a table
    holds beyond it. NaN, the logarithm of a negative condition, looks up the first
    knot, and its fraction stays NaN.
    """
    n_knots = knots.shape[-1]
    position = f.clip(position, 0.0, n_knots - 1.0)
    left = f.minimum(f.floor(position), n_knots - 2.0)
    knot = f.where(f.greater(left, 0.0), left, 0.0)
    index = f.index(knot, start)
    table = knots.ravel()
    rise = f.lookup(np.diff(table, append=table[-1]), index)
    return f.lookup(table, index) + (position - left) * rise
