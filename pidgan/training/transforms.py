"""Invertible maps between physical columns and the coordinates that networks see.

Conditions are scaled, after a logarithm where the sample definition asks for one;
angles, positions in pads and categories become several columns each.

Targets have discrete structure that a smooth network cannot make: values taken
exactly by a finite share of rows (*atoms*, sentinels among them) and pairs of targets
that are exactly equal (*ties*). Both are found in the data. A target tied to another
is replaced by their difference, which turns a tie into an atom at zero. Each row then
has a *pattern*: for every coordinate, which atom it sits on, or none. The pattern is
learnt as a class, which also says in which quarter of its range a target is that others
are differences of: a class that is rare at some conditions is learnt better than a
second peak of a density. What is continuous given the pattern is mapped to a normal
distribution by its smoothed weighted quantiles, and then to uncorrelated coordinates
of unit variance within the pattern. Targets of one track are strongly correlated:
without the latter, directions in which they hardly vary would not count in a loss. The
map is triangular: each coordinate is a target less what the targets before it say of
it, so that a sharp edge in one target stays one in a single coordinate. Principal axes
spread it over all.

Use `fit_conditions` and `fit_targets` on training rows only.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.ndimage
import scipy.special

from pidgan.arrays import FloatArray, IntArray
from pidgan.errors import DatasetError

# Knots of a quantile transform: 0.03 in units of the normal scores for 10^6 rows.
N_KNOTS = 256
# Width over which quantile transforms of targets are smoothed, in normal scores.
SMOOTHING = 0.3
# An atom or tie is structure when this share of rows, and at least this many, has it.
MIN_SHARE = 2e-3
MIN_ROWS = 10
# A pattern is learnt when it has this share of rows, and at least as many: the atoms
# that it is made of are known to be none by chance.
MIN_PATTERN_SHARE = 3e-5
# A target that varies less than this at given earlier ones, in units of the squared
# normal scores, is not blown up.
MIN_VARIANCE = 1e-3
# A target that others are differences of is divided at these quantiles.
CUTS = (0.25, 0.5, 0.75)
CONTINUOUS = -1

# What a column of the scaled conditions holds, see `ConditionTransform`.
LINEAR, LOG, SIN, COS, WHOLE, FRACTION, EQUAL = range(7)
TRANSFORMS: dict[str, tuple[int, ...]] = {
    "linear": (LINEAR,),
    "log": (LOG,),
    "angle": (SIN, COS),
    "fraction": (WHOLE, FRACTION),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionTransform:
    """Conditions as the columns that networks see, one or several a condition.

    A column is (v - centre) / scale with v a function of a condition x, by its code:

    - `LINEAR`: x; `LOG`: log(x / c) / scale, with `centre` c. The division inside the
      logarithm keeps it near zero, where single precision is finest: networks are
      steep in momentum near thresholds.
    - `SIN`, `COS`: of an angle, which together have no edge at a full turn.
    - `WHOLE`, `FRACTION`: floor(x) and x - floor(x), of a position in units of pads.
    - `EQUAL`: 1 where x is the category `centre`, 0 elsewhere.

    Attributes:
        source: (n_columns,), the condition of each column.
        code: (n_columns,), one of the above.
        centre: (n_columns,), in the units of the condition.
        scale: (n_columns,), positive.
    """

    source: IntArray
    code: IntArray
    centre: FloatArray
    scale: FloatArray

    @property
    def n_columns(self) -> int:
        """Number of columns that the networks see."""
        return len(self.source)

    @property
    def dimension(self) -> int:
        """Number of conditions that are continuous."""
        return len(set(self.source[self.code != EQUAL]))

    def forward(self, conditions: FloatArray) -> FloatArray:
        """Map conditions, (n, n_conditions) in package units, to float32 columns."""
        x = conditions.astype(np.float32)[:, self.source]
        columns = [
            _encode(x[:, k], int(code), centre)
            for k, (code, centre) in enumerate(zip(self.code, self.centre, strict=True))
        ]
        return (np.stack(columns, axis=1) / self.scale).astype(np.float32)

    def inverse(self, columns: FloatArray) -> FloatArray:
        """Map columns back to conditions in package units, (n, n_conditions).

        Angles come back between -pi and pi.
        """
        values = columns * self.scale
        found = np.zeros((len(columns), int(self.source.max()) + 1))
        sines = np.zeros_like(found)
        for k, (j, code) in enumerate(zip(self.source, self.code, strict=True)):
            v, centre = values[:, k].astype(np.float64), float(self.centre[k])
            if code == LOG:
                found[:, j] = centre * np.exp(v)
            elif code == SIN:
                sines[:, j] = v + centre
            elif code == COS:
                found[:, j] = np.arctan2(sines[:, j], v + centre)
            elif code == EQUAL:
                found[:, j] += centre * (v > 0.5)
            else:  # WHOLE and FRACTION add up
                found[:, j] += v + centre
        return found.astype(np.float32)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as arrays, for `from_arrays`."""
        return {f"condition_{k}": np.asarray(v) for k, v in vars(self).items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "ConditionTransform":
        """Rebuild the transform from `to_arrays`."""
        return ConditionTransform(**_fields(ConditionTransform, arrays, "condition_"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetTransform:
    """Targets as a pattern of atoms and, where continuous, whitened coordinates.

    Attributes:
        base: (n_targets,), the target that is subtracted from each, or -1.
        patterns: (n_patterns, n_targets), 1 where the coordinate is continuous.
        atoms: (n_patterns, n_targets), value of the coordinate where it is not.
        low, high: (n_patterns, n_targets), the interval, without its upper end, that a
            continuous coordinate is in; infinite where it is not bounded.
        table: (n_patterns, n_targets), which quantile transform each coordinate has.
        z_max: (n_targets,), last knot of the quantile transforms; the first is -z_max
            and the knots are equidistant in the normal score.
        knots: (n_tables, N_KNOTS), coordinate values at the knots, not decreasing.
        mixing: (n_patterns, n_targets, n_targets), upper triangular, from whitened
            coordinates to normal scores, z = y mixing; zero in rows and columns of
            atoms.
    """

    base: IntArray
    patterns: IntArray
    atoms: FloatArray
    low: FloatArray
    high: FloatArray
    table: IntArray
    z_max: FloatArray
    knots: FloatArray
    mixing: FloatArray

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return len(self.base)

    @property
    def n_patterns(self) -> int:
        """Number of patterns; 1 means that the targets are purely continuous."""
        return len(self.patterns)

    @property
    def depth(self) -> int:
        """Longest chain of differences to be added up on the way back."""
        return max(_chain_length(self.base, j) for j in range(self.n_targets))

    def forward(self, targets: FloatArray) -> tuple[IntArray, FloatArray]:
        """Map targets to patterns and whitened coordinates.

        Args:
            targets: (n, n_targets), physical values and sentinels.

        Returns:
            The pattern of each row, (n,), -1 for a row that fits none, and the
            coordinates, (n, n_targets) float32, zero where the pattern has an atom.
        """
        coordinates = _differences(targets.astype(np.float32), self.base)
        pattern = self._match(coordinates)
        z = self._normal_scores(coordinates, pattern)
        whitening = np.linalg.pinv(self.mixing.astype(np.float64))
        y = np.einsum("ni,nij->nj", z, whitening[pattern]) * self.patterns[pattern]
        return pattern, y.astype(np.float32)

    def inverse(self, pattern: IntArray, y: FloatArray) -> FloatArray:
        """Map patterns (n,) and coordinates (n, n_targets) to physical targets."""
        z = np.einsum("ni,nij->nj", y.astype(np.float32), self.mixing[pattern])
        z_max = self.z_max.astype(np.float32)
        position = (z + z_max) * ((N_KNOTS - 1) / (2 * z_max))
        position = np.clip(position, 0, N_KNOTS - 1)
        left = np.minimum(position.astype(np.int64), N_KNOTS - 2)
        fraction = position - left.astype(np.float32)
        table = self.table[pattern]
        low, high = self.knots[table, left], self.knots[table, left + 1]
        value = low + fraction * (high - low)
        value = np.where(
            self.patterns[pattern] == 1, value, self.atoms[pattern]
        ).astype(np.float32)
        return _sums(value, self.base, self.depth)

    def _normal_scores(self, coordinates: FloatArray, pattern: IntArray) -> FloatArray:
        """Map differences of targets to normal scores; atoms are at zero."""
        z = np.zeros_like(coordinates)
        for j in range(self.n_targets):
            grid = np.linspace(-self.z_max[j], self.z_max[j], N_KNOTS)
            table = self.table[pattern, j]
            for k in np.unique(table):
                values = coordinates[table == k, j]
                z[table == k, j] = _interpolate_back(values, self.knots[k], grid)
        return np.asarray(z * self.patterns[pattern])

    def _match(self, coordinates: FloatArray) -> IntArray:
        """Find for each row the pattern that has most of the row's atoms."""
        pattern = np.full(len(coordinates), CONTINUOUS)
        by_atoms = np.argsort(self.patterns.sum(axis=1), kind="stable")
        for k in by_atoms:
            inside = (coordinates >= self.low[k]) & (coordinates < self.high[k])
            on_atom = coordinates == self.atoms[k]
            fits = np.where(self.patterns[k] == 1, inside, on_atom).all(axis=1)
            pattern[fits & (pattern == CONTINUOUS)] = k
        return pattern

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as arrays, for `from_arrays`."""
        return {f"target_{k}": np.asarray(v) for k, v in vars(self).items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "TargetTransform":
        """Rebuild the transform from `to_arrays`."""
        return TargetTransform(**_fields(TargetTransform, arrays, "target_"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhysicalTransform:
    """Targets that a generator makes as they are, in physical units.

    Attributes:
        n_targets: how many.
    """

    n_targets: int

    @property
    def n_patterns(self) -> int:
        """Number of patterns of atoms and ties."""
        return 1

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as arrays."""
        return {"physical_targets": np.asarray(self.n_targets)}

    def inverse(self, _: IntArray, y: FloatArray) -> FloatArray:
        """Return what a generator makes, (n, n_targets)."""
        return y


def fit_conditions(
    conditions: FloatArray,
    transforms: Sequence[str],
    *,
    categories: Sequence[Sequence[float]] = (),
) -> ConditionTransform:
    """Fit the scaling of conditions; weights play no role in it.

    Args:
        conditions: (n, n_conditions), package units.
        transforms: a key of `TRANSFORMS` for each condition.
        categories: of each condition, the values it takes if it is categorical: it is
            one-hot coded then, whatever its transform.

    Raises:
        DatasetError: a condition is constant, or not positive under a logarithm.
    """
    values = conditions.astype(np.float64)
    constant = np.flatnonzero(values.min(axis=0) == values.max(axis=0)).tolist()
    if constant:
        raise DatasetError(f"conditions number {constant} are constant; leave them out")
    found: list[tuple[int, int, float, float]] = []
    for j, name in enumerate(transforms):
        x = values[:, j]
        if j < len(categories) and categories[j]:
            found += [(j, EQUAL, float(value), 1.0) for value in categories[j]]
            continue
        if name == "log" and (x <= 0).any():
            raise DatasetError("a condition with transform 'log' has values <= 0")
        for code in TRANSFORMS[name]:
            column = np.log(x) if code == LOG else _encode(x, code, 0.0)
            centre, scale = float(column.mean()), float(column.std())
            if scale == 0:  # such as the fraction of whole numbers
                continue
            found.append((j, code, np.exp(centre) if code == LOG else centre, scale))
    columns = [np.array(column) for column in zip(*found, strict=True)]
    return ConditionTransform(
        source=columns[0],
        code=columns[1],
        centre=columns[2].astype(np.float32),
        scale=columns[3].astype(np.float32),
    )


def _encode(x: FloatArray, code: int, centre: float) -> FloatArray:
    """Return what a column holds of a condition, before it is scaled."""
    if code == LOG:
        return np.asarray(np.log(x / centre))
    if code == EQUAL:
        return np.asarray(x == np.float32(centre), dtype=np.float32)
    if code == SIN:
        return np.asarray(np.sin(x) - centre)
    if code == COS:
        return np.asarray(np.cos(x) - centre)
    if code == WHOLE:
        return np.asarray(np.floor(x) - centre)
    if code == FRACTION:
        return np.asarray(x - np.floor(x) - centre)
    return np.asarray(x - centre)


def fit_targets(
    targets: FloatArray,
    weights: FloatArray,
    *,
    sentinels: Sequence[Sequence[float]] = (),
) -> TargetTransform:
    """Find atoms and ties, and fit the quantile transforms.

    Args:
        targets: (n, n_targets), physical values and sentinels.
        weights: (n,), of any sign; only the quantiles use them.
        sentinels: of each target, values that are atoms however rare they are.
    """
    y = targets.astype(np.float32)
    declared = [
        np.asarray(sentinels[j] if j < len(sentinels) else (), dtype=np.float32)
        for j in range(y.shape[1])
    ]
    base = _find_ties(y, declared)
    coordinates = _differences(y, base)
    codes = np.full(y.shape, CONTINUOUS)
    values: list[FloatArray] = []
    for j in range(y.shape[1]):
        atoms = _find_atoms(
            coordinates[:, j], declared[j] if base[j] < 0 else declared[j][:0]
        )
        values.append(atoms)
        for a, atom in enumerate(atoms):
            codes[coordinates[:, j] == atom, j] = a
    kept = _frequent_patterns(codes, declared, base, values)
    patterns = (kept == CONTINUOUS).astype(np.int64)
    atoms_of = np.zeros(kept.shape, dtype=np.float32)
    for j, atoms in enumerate(values):
        on_atom = kept[:, j] != CONTINUOUS
        atoms_of[on_atom, j] = atoms[kept[on_atom, j]]
    blank = TargetTransform(
        base=base,
        patterns=patterns,
        atoms=atoms_of,
        low=np.full(kept.shape, -np.inf, dtype=np.float32),
        high=np.full(kept.shape, np.inf, dtype=np.float32),
        table=np.tile(np.arange(y.shape[1]), (len(kept), 1)),
        z_max=np.ones(y.shape[1], dtype=np.float32),
        knots=np.zeros((y.shape[1], N_KNOTS), dtype=np.float32),
        mixing=np.zeros((len(patterns), y.shape[1], y.shape[1]), dtype=np.float32),
    )
    return _fit_continuous(_cut(blank, coordinates), coordinates, weights)


def _cut(transform: TargetTransform, coordinates: FloatArray) -> TargetTransform:
    """Divide the targets that others are differences of at `CUTS`.

    Patterns in which such a target is continuous become several, one for each interval
    that has rows enough.
    """
    for j in np.unique(transform.base[transform.base >= 0]):
        if transform.base[j] < 0:
            free = transform.patterns[transform._match(coordinates), j] == 1
            for value in np.unique(np.quantile(coordinates[free, j], CUTS)):
                transform = _cut_at(transform, coordinates, int(j), float(value))
    return transform


def _cut_at(
    transform: TargetTransform, coordinates: FloatArray, j: int, value: float
) -> TargetTransform:
    """Make two patterns of each that has rows on both sides of a value."""
    pattern = transform._match(coordinates)
    above = coordinates[:, j] >= np.float32(value)
    count = transform.n_patterns
    n_above = np.bincount(pattern[above & (pattern >= 0)], minlength=count)
    n_below = np.bincount(pattern[~above & (pattern >= 0)], minlength=count)
    least = _min_rows(len(coordinates), MIN_PATTERN_SHARE)
    enough = np.minimum(n_above, n_below) >= least
    twice = np.flatnonzero(enough & (transform.patterns[:, j] == 1))
    source = np.sort(np.append(np.arange(count), twice))
    is_second = np.append(False, source[1:] == source[:-1])
    is_first = np.append(is_second[1:], False)
    low, high = transform.low[source], transform.high[source]
    low[is_second, j] = high[is_first, j] = value
    table = transform.table[source]
    n_tables = len(transform.knots)
    for half in (is_first, is_second):
        before, new = np.unique(table[half, j], return_inverse=True)
        table[half, j] = n_tables + new
        n_tables += len(before)
    return dataclasses.replace(
        transform,
        patterns=transform.patterns[source],
        atoms=transform.atoms[source],
        mixing=transform.mixing[source],
        low=low,
        high=high,
        table=table,
        knots=np.zeros((n_tables, N_KNOTS), dtype=np.float32),
    )


def _fit_continuous(
    blank: TargetTransform, coordinates: FloatArray, weights: FloatArray
) -> TargetTransform:
    """Fit quantile transforms and mixing to what is continuous."""
    pattern = blank._match(coordinates)
    z_max, knots = blank.z_max.copy(), blank.knots.copy()
    for j in range(blank.n_targets):
        free = (pattern >= 0) & (blank.patterns[pattern, j] == 1)
        if not free.any():
            continue
        z_max[j] = _last_knot(int(free.sum()))
        width = SMOOTHING * (N_KNOTS - 1) / (2 * z_max[j])
        table = blank.table[pattern, j]
        for k in np.unique(table[free]):
            rows = free & (table == k)
            quantiles = _fit_quantiles(coordinates[rows, j], weights[rows], z_max[j])
            knots[k] = _smooth(quantiles, width)
    scaled = dataclasses.replace(blank, z_max=z_max, knots=knots)
    z = scaled._normal_scores(coordinates, pattern)
    mixing = _fit_mixing(blank.patterns, pattern, z, weights)
    return dataclasses.replace(scaled, mixing=mixing)


def fit_columns(targets: FloatArray, weights: FloatArray) -> TargetTransform:
    """Fit the quantile transform of each target, and nothing else.

    For published recipes: no differences, no atoms, no decorrelation.

    Args:
        targets: (n, n_targets), physical values.
        weights: (n,), of any sign.
    """
    y = targets.astype(np.float32)
    d = y.shape[1]
    z_max = _last_knot(len(y))
    return TargetTransform(
        base=np.full(d, -1),
        patterns=np.ones((1, d), dtype=np.int64),
        atoms=np.zeros((1, d), dtype=np.float32),
        low=np.full((1, d), -np.inf, dtype=np.float32),
        high=np.full((1, d), np.inf, dtype=np.float32),
        table=np.arange(d)[np.newaxis],
        z_max=np.full(d, z_max, dtype=np.float32),
        knots=np.stack([_fit_quantiles(v, weights, z_max) for v in y.T]),
        mixing=np.eye(d, dtype=np.float32)[np.newaxis],
    )


def _fields(
    cls: type, arrays: Mapping[str, np.ndarray], prefix: str
) -> dict[str, np.ndarray]:
    return {f.name: arrays[prefix + f.name] for f in dataclasses.fields(cls)}


def _chain_length(base: IntArray, j: int) -> int:
    """Number of differences between target j and the root of its tree."""
    return 0 if base[j] < 0 else 1 + _chain_length(base, int(base[j]))


def _differences(y: FloatArray, base: IntArray) -> FloatArray:
    """Subtract from each target its base."""
    columns = [y[:, j] - y[:, b] if b >= 0 else y[:, j] for j, b in enumerate(base)]
    return np.stack(columns, axis=1)


def _sums(coordinates: FloatArray, base: IntArray, depth: int) -> FloatArray:
    """Undo `_differences`; adding zero keeps ties exact."""
    y = coordinates
    for _ in range(depth):
        added = np.where(base >= 0, y[:, base], np.float32(0))
        y = coordinates + added
    return y


def _min_rows(n: int, share: float = MIN_SHARE) -> float:
    return max(MIN_ROWS, share * n)


def _find_atoms(values: FloatArray, declared: FloatArray) -> FloatArray:
    """Return the values that repeat in a finite share of rows, and sentinels."""
    unique, counts = np.unique(values, return_counts=True)
    is_atom = counts >= _min_rows(len(values))
    return unique[is_atom | np.isin(unique, declared)]


def _find_ties(y: FloatArray, declared: Sequence[FloatArray]) -> IntArray:
    """Return for each target its base in a maximum spanning forest of tie shares."""
    n, d = y.shape
    on_atom = np.stack(
        [np.isin(y[:, j], _find_atoms(y[:, j], declared[j])) for j in range(d)], axis=1
    )
    edges = []
    for i in range(d):
        for j in range(i + 1, d):
            tied = (y[:, i] == y[:, j]) & ~on_atom[:, i] & ~on_atom[:, j]
            if tied.sum() >= _min_rows(n):
                edges.append((int(tied.sum()), i, j))
    neighbours: list[list[int]] = [[] for _ in range(d)]
    tree = list(range(d))
    for _, i, j in sorted(edges, reverse=True):
        if tree[i] != tree[j]:
            neighbours[i].append(j)
            neighbours[j].append(i)
            tree = [tree[i] if t == tree[j] else t for t in tree]
    base = np.full(d, -1)
    seen: set[int] = set()
    for root in sorted(range(d), key=lambda t: -len(neighbours[t])):
        queue = [] if root in seen else [root]
        seen.update(queue)
        while queue:
            i = queue.pop()
            for j in neighbours[i]:
                if j not in seen:
                    base[j] = i
                    seen.add(j)
                    queue.append(j)
    return base


def _frequent_patterns(
    codes: IntArray,
    declared: Sequence[FloatArray],
    base: IntArray,
    values: Sequence[FloatArray],
) -> IntArray:
    """Return the patterns to learn; one without atoms is there for the rare rest."""
    patterns, counts = np.unique(codes, axis=0, return_counts=True)
    has_sentinel = np.zeros(len(patterns), dtype=bool)
    for j, atoms in enumerate(values):
        is_sentinel = np.append(np.isin(atoms, declared[j]), False)
        has_sentinel |= is_sentinel[patterns[:, j]] & (base[j] < 0)
    # A sentinel that comes with no pattern of its own would land in a quantile knot.
    least = _min_rows(len(codes), MIN_PATTERN_SHARE)
    kept = patterns[(counts >= least) | (has_sentinel & (counts > 1))]
    rest = np.full((1, codes.shape[1]), CONTINUOUS)
    fits_all = _leaves_rows_without_pattern(kept, patterns, counts)
    return np.unique(np.vstack([kept, rest]), axis=0) if fits_all else kept


def _leaves_rows_without_pattern(
    kept: IntArray, patterns: IntArray, counts: IntArray
) -> bool:
    fits = np.zeros(len(patterns), dtype=bool)
    for pattern in kept:
        fits |= ((patterns == pattern) | (pattern == CONTINUOUS)).all(axis=1)
    return bool(counts[~fits].sum() > 0)


def _last_knot(n: int) -> float:
    """Return the normal score of the outermost of some rows, within limits."""
    return float(np.clip(-scipy.special.ndtri(0.5 / n), 1.0, 5.0))


def _fit_quantiles(values: FloatArray, weights: FloatArray, z_max: float) -> FloatArray:
    """Return the weighted quantiles at normal scores from -z_max to z_max.

    With signed weights the empirical distribution function is not monotone; as it
    only defines coordinates here, its running maximum serves.
    """
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    if cumulative[-1] <= 0:
        cumulative = np.arange(1.0, len(values) + 1)
    cumulative = np.maximum.accumulate(np.clip(cumulative, 0, None))
    probability = (cumulative - 0.5 * cumulative[0]) / cumulative[-1]
    grid = scipy.special.ndtr(np.linspace(-z_max, z_max, N_KNOTS))
    knots = np.interp(grid, probability, values[order])
    knots[0], knots[-1] = values[order[0]], values[order[-1]]
    return np.maximum.accumulate(knots).astype(np.float32)


def _smooth(knots: FloatArray, width: float) -> FloatArray:
    """Return knots averaged over a normal distribution; the ends stay.

    Quantiles of all rows have the kinks of some, which others would have to undo; and
    where a step is wide, in the tails, rounding is enlarged.
    """
    margin = min(math.ceil(4 * width), len(knots) - 1)
    padded = np.pad(knots, margin, mode="reflect", reflect_type="odd")
    smooth = scipy.ndimage.gaussian_filter1d(padded, width)[margin:-margin]
    smooth[0], smooth[-1] = knots[0], knots[-1]
    return np.maximum.accumulate(smooth)


def _fit_mixing(
    patterns: IntArray, pattern: IntArray, z: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return for each pattern the triangular root of its covariance.

    Signed weights may give a matrix that is no covariance; unit weights serve then.
    """
    d = patterns.shape[1]
    mixing = np.zeros((len(patterns), d, d), dtype=np.float32)
    for k, continuous in enumerate(patterns):
        free = np.flatnonzero(continuous)
        rows, w = z[pattern == k][:, free], weights[pattern == k]
        root: FloatArray = np.eye(len(free))
        if len(rows) > MIN_ROWS * len(free) > 0:
            covariance = _covariance(rows, w) if w.sum() > 0 else np.zeros_like(root)
            if np.linalg.eigvalsh(covariance).min() < MIN_VARIANCE:
                covariance = _covariance(rows, np.ones(len(rows)))
            root = _triangular_root(covariance)
        mixing[k, free[:, None], free] = root.T
    return mixing


def _covariance(rows: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weighted covariance of columns."""
    share = weights / weights.sum()
    centred = rows - share @ rows
    return np.asarray((centred.T * share) @ centred)


def _triangular_root(covariance: FloatArray) -> FloatArray:
    """Return lower L with L L^T the covariance, its diagonal not below a minimum."""
    negligible = 1e-3 * MIN_VARIANCE * np.eye(len(covariance))
    root = np.linalg.cholesky(covariance + negligible)
    np.fill_diagonal(root, np.maximum(np.diag(root), np.sqrt(MIN_VARIANCE)))
    return root


def _interpolate_back(
    values: FloatArray, knots: FloatArray, grid: FloatArray
) -> FloatArray:
    """Return the normal score of each value; the middle of a flat piece of knots."""
    unique, first = np.unique(knots, return_index=True)
    last = np.append(first[1:], len(knots)) - 1
    middle = 0.5 * (grid[first] + grid[last])
    return np.asarray(np.interp(values, unique, middle), dtype=np.float32)
