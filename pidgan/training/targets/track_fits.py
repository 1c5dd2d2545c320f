"""Fits the quantiles of the targets of tracks, given their discrete structure.

`fit_tracks` is the project's own way, `fit_columns` that of published recipes. Use both
on training rows only.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import scipy.special

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.training.targets.grid_fits import (
    MIN_ROWS,
    Stated,
    find_layer,
    least_rows,
)
from pidgan.training.targets.grids import Coordinates
from pidgan.training.targets.structure import (
    MIN_PATTERN_SHARE,
    blank_transform,
    find_structure,
)
from pidgan.training.targets.tracks import N_KNOTS, TargetTransform

# Width over which quantile transforms of targets are smoothed, in normal scores.
SMOOTHING = 0.3
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
    stated: Stated | None = None,
    divided: bool = True,
    from_first: bool = False,
) -> TargetTransform:
    """Find atoms, ties and grids of targets (n, n_targets), and fit their quantiles.

    Weights (n,) of any sign count in the quantiles only; the sentinels of each target
    are atoms, however rare they are. Targets that others are differences of are
    `divided` at `CUTS`. The first of tied targets is no difference if `from_first`.
    """
    y = targets.astype(np.float32)
    declared = [
        np.asarray(sentinels[j] if j < len(sentinels) else (), dtype=np.float32)
        for j in range(y.shape[1])
    ]
    blank, coordinates = find_structure(
        y, declared, stated or Stated(), from_first=from_first
    )
    apart = np.stack([np.isin(v, d) for v, d in zip(y.T, declared, strict=True)], 1)
    parts = _cut(blank, coordinates) if divided else blank
    return _fit_continuous(parts, coordinates, weights, apart)


def widen_tracks(known: TargetTransform, targets: FloatArray) -> TargetTransform:
    """Return a transform whose quantiles reach to the last of other rows.

    Targets (n, n_targets) are without sums. Only the outermost knots move: networks
    that know the coordinates find them as they were.
    """
    coordinates = known.coordinates(targets.astype(np.float32))
    pattern = known.match(coordinates)
    values = known.spread(coordinates, seed=0)
    knots = known.knots.copy()
    for j in range(known.n_targets):
        free = (pattern >= 0) & (known.patterns[pattern, j] == 1)
        table = known.table[pattern, j]
        for k in np.unique(table[free]):
            rows = values[free & (table == k), j]
            knots[k, 0] = min(knots[k, 0], rows.min())
            knots[k, -1] = max(knots[k, -1], rows.max())
    return dataclasses.replace(known, knots=knots)


def _cut(transform: TargetTransform, coordinates: Coordinates) -> TargetTransform:
    """Divide the targets that others are differences of at `CUTS`, with rows enough.

    Targets on a grid or in an order are not: others are close for another reason.
    """
    grids = transform.grids
    kept = (
        [] if grids is None else [*np.flatnonzero(grids.on_grid), *grids.orders[:, 1]]
    )
    for j in np.unique(transform.base[transform.base >= 0]):
        if transform.base[j] < 0 and j not in kept:
            free = transform.patterns[transform.match(coordinates), j] == 1
            for value in np.unique(np.quantile(coordinates.values[free, j], CUTS)):
                transform = _cut_at(transform, coordinates, int(j), float(value))
    return transform


def _cut_at(
    transform: TargetTransform, coordinates: Coordinates, j: int, value: float
) -> TargetTransform:
    """Make two patterns of each that has rows on both sides of a value."""
    pattern = transform.match(coordinates)
    above = coordinates.values[:, j] >= np.float32(value)
    count = transform.n_patterns
    n_above = np.bincount(pattern[above & (pattern >= 0)], minlength=count)
    n_below = np.bincount(pattern[~above & (pattern >= 0)], minlength=count)
    least = least_rows(len(above), MIN_PATTERN_SHARE)
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
    grids = transform.grids
    return dataclasses.replace(
        transform,
        grids=None if grids is None else grids.repeated(source),
        patterns=transform.patterns[source],
        atoms=transform.atoms[source],
        mixing=transform.mixing[source],
        low=low,
        high=high,
        table=table,
        knots=np.zeros((n_tables, N_KNOTS), dtype=np.float32),
    )


def _fit_continuous(
    blank: TargetTransform,
    coordinates: Coordinates,
    weights: FloatArray,
    apart: BoolArray,
) -> TargetTransform:
    """Fit quantile transforms and mixing to what is continuous.

    Sentinels and categories, which are `apart` (n, n_targets), are no quantiles, even
    where they come in a combination too rare for a pattern.
    """
    pattern = blank.match(coordinates)
    values = blank.spread(coordinates, seed=0)
    z_max, knots = blank.z_max.copy(), blank.knots.copy()
    for j in range(blank.n_targets):
        free = (pattern >= 0) & (blank.patterns[pattern, j] == 1) & ~apart[:, j]
        if not free.any():
            continue
        z_max[j] = _last_knot(int(free.sum()))
        width = SMOOTHING * (N_KNOTS - 1) / (2 * z_max[j])
        table = blank.table[pattern, j]
        for k in np.unique(table[free]):
            rows = free & (table == k)
            quantiles = _fit_quantiles(values[rows, j], weights[rows], z_max[j])
            knots[k] = _smooth(quantiles, width)
    scaled = dataclasses.replace(blank, z_max=z_max, knots=knots)
    z = scaled.normal_scores(values, pattern)
    mixing = _fit_mixing(blank.patterns, pattern, z, weights)
    return dataclasses.replace(scaled, mixing=mixing)


def fit_columns(
    targets: FloatArray, weights: FloatArray, *, stated: Stated | None = None
) -> TargetTransform:
    """Fit the quantile transform of each target, and nothing else.

    Published recipes use it: no differences, no atoms, no decorrelation. Values on a
    grid stay there, and in order.
    """
    y = targets.astype(np.float32)
    d, z_max = y.shape[1], _last_knot(len(y))
    nothing: list[FloatArray] = [np.zeros(0, dtype=np.float32)] * d
    layer = find_layer(y, nothing, stated or Stated(), special=False)
    places = y if layer is None else layer.places(y)
    layer = layer if np.isfinite(places).all() else None  # a sentinel off the grid
    if layer is not None:
        y = layer.spread(Coordinates(places, np.zeros(y.shape, np.bool_)), seed=0)
    every = np.ones((1, d), dtype=np.int64)
    return dataclasses.replace(
        blank_transform(np.full(d, -1), every, np.zeros((1, d), dtype=np.float32)),
        z_max=np.full(d, z_max, dtype=np.float32),
        knots=np.stack([_fit_quantiles(v, weights, z_max) for v in y.T]),
        mixing=np.eye(d, dtype=np.float32)[np.newaxis],
        grids=layer,
    )


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
