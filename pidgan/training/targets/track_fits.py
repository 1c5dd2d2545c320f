"""Finds the discrete structure of the targets of tracks and fits their quantiles.

`fit_tracks` is the project's own way, `fit_columns` that of published recipes. Use both
on training rows only.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import scipy.special
from scipy.sparse import csgraph

from pidgan.arrays import FloatArray, IntArray
from pidgan.training.targets.tracks import (
    CONTINUOUS,
    N_KNOTS,
    TargetTransform,
    differences,
)

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


def fit_tracks(
    targets: FloatArray,
    weights: FloatArray,
    *,
    sentinels: Sequence[Sequence[float]] = (),
) -> TargetTransform:
    """Find atoms and ties of targets (n, n_targets), and fit the quantile transforms.

    Weights (n,) of any sign count in the quantiles only; the sentinels of each target
    are atoms, however rare they are.
    """
    y = targets.astype(np.float32)
    declared = [
        np.asarray(sentinels[j] if j < len(sentinels) else (), dtype=np.float32)
        for j in range(y.shape[1])
    ]
    base = _find_ties(y, declared)
    coordinates = differences(y, base)
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
    blank = _blank(base, patterns, atoms_of)
    return _fit_continuous(_cut(blank, coordinates), coordinates, weights)


def _cut(transform: TargetTransform, coordinates: FloatArray) -> TargetTransform:
    """Divide the targets that others are differences of at `CUTS`, with rows enough."""
    for j in np.unique(transform.base[transform.base >= 0]):
        if transform.base[j] < 0:
            free = transform.patterns[transform.match(coordinates), j] == 1
            for value in np.unique(np.quantile(coordinates[free, j], CUTS)):
                transform = _cut_at(transform, coordinates, int(j), float(value))
    return transform


def _cut_at(
    transform: TargetTransform, coordinates: FloatArray, j: int, value: float
) -> TargetTransform:
    """Make two patterns of each that has rows on both sides of a value."""
    pattern = transform.match(coordinates)
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
    pattern = blank.match(coordinates)
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
    z = scaled.normal_scores(coordinates, pattern)
    mixing = _fit_mixing(blank.patterns, pattern, z, weights)
    return dataclasses.replace(scaled, mixing=mixing)


def fit_columns(targets: FloatArray, weights: FloatArray) -> TargetTransform:
    """Fit the quantile transform of each target, and nothing else.

    Published recipes use it: no differences, no atoms, no decorrelation.
    """
    y = targets.astype(np.float32)
    d, z_max = y.shape[1], _last_knot(len(y))
    every = np.ones((1, d), dtype=np.int64)
    return dataclasses.replace(
        _blank(np.full(d, -1), every, np.zeros((1, d), dtype=np.float32)),
        z_max=np.full(d, z_max, dtype=np.float32),
        knots=np.stack([_fit_quantiles(v, weights, z_max) for v in y.T]),
        mixing=np.eye(d, dtype=np.float32)[np.newaxis],
    )


def _blank(base: IntArray, patterns: IntArray, atoms: FloatArray) -> TargetTransform:
    """Return a transform whose quantiles and mixing are still to be fitted."""
    n, d = patterns.shape
    return TargetTransform(
        base=base,
        patterns=patterns,
        atoms=atoms,
        low=np.full((n, d), -np.inf, dtype=np.float32),
        high=np.full((n, d), np.inf, dtype=np.float32),
        table=np.tile(np.arange(d), (n, 1)),
        z_max=np.ones(d, dtype=np.float32),
        knots=np.zeros((d, N_KNOTS), dtype=np.float32),
        mixing=np.zeros((n, d, d), dtype=np.float32),
    )


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
    # Costs for a minimum spanning forest; of equal ties the later pair comes first.
    costs = np.zeros((d, d))
    for i in range(d):
        for j in range(i + 1, d):
            tied = (y[:, i] == y[:, j]) & ~on_atom[:, i] & ~on_atom[:, j]
            if tied.sum() >= _min_rows(n):
                costs[i, j] = -tied.sum() - (i * d + j) / d**2
    tree = csgraph.minimum_spanning_tree(costs).toarray()
    degree = ((tree + tree.T) != 0).sum(axis=1)
    base, seen = np.full(d, -1), np.zeros(d, dtype=bool)
    for root in sorted(range(d), key=lambda t: -degree[t]):
        if not seen[root]:
            found, before = csgraph.breadth_first_order(tree, root, directed=False)
            seen[found] = True
            base[found[1:]] = before[found[1:]]
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
    fits = [((patterns == p) | (p == CONTINUOUS)).all(axis=1) for p in kept]
    if counts[~np.any(fits, axis=0)].sum() > 0:
        return np.unique(np.vstack([kept, rest]), axis=0)
    return kept


def _last_knot(n: int) -> float:
    """Return the normal score of the outermost of some rows, within limits."""
    return float(np.clip(-scipy.special.ndtri(0.5 / n), 1.0, 5.0))


def _fit_quantiles(values: FloatArray, weights: FloatArray, z_max: float) -> FloatArray:
    """Return the weighted quantiles at normal scores from -z_max to z_max."""
    order = np.argsort(values, kind="stable")
    # Of signed weights it is not monotone; as it defines coordinates, its maximum does.
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
    """Return knots averaged over a normal distribution, without kinks; ends stay."""
    margin = min(math.ceil(4 * width), len(knots) - 1)
    padded = np.pad(knots, margin, mode="reflect", reflect_type="odd")
    smooth = scipy.ndimage.gaussian_filter1d(padded, width)[margin:-margin]
    smooth[0], smooth[-1] = knots[0], knots[-1]
    return np.maximum.accumulate(smooth)


def _fit_mixing(
    patterns: IntArray, pattern: IntArray, z: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return for each pattern the triangular root of its covariance."""
    d = patterns.shape[1]
    mixing = np.zeros((len(patterns), d, d), dtype=np.float32)
    for k, continuous in enumerate(patterns):
        free = np.flatnonzero(continuous)
        rows, w = z[pattern == k][:, free], weights[pattern == k]
        root: FloatArray = np.eye(len(free))
        if len(rows) > MIN_ROWS * len(free) > 0:
            covariance = _covariance(rows, w) if w.sum() > 0 else np.zeros_like(root)
            # Signed weights may give no covariance: unit weights serve then.
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
