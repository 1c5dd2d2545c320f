"""Fit of a GFlash-like parametrisation to a sample of showers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import layer_energies
from pidgan.training.classical import sample_fits as fits
from pidgan.training.classical.gflash import Depth, GFlash
from pidgan.training.classical.lateral_fit import fit_lateral
from pidgan.training.classical.lateral_profile import no_plane, normalise

MIN_SHOWERS = 200  # smallest number of showers that determines two dozen parameters

# Depth grid of the fit of each shower: ln T in units of the depth, and ln(a - 1).
GRID_T = np.linspace(np.log(0.02), np.log(2.0), 90)
GRID_A = np.linspace(np.log(0.1), np.log(20.0), 60)
# Taken from scores for the squared distance to the middle of the grid: of places with
# equal scores, as those of showers in a single layer, not rounding chooses.
TIE = 1e-6
GRID_ROWS = 2000  # showers at a time, with 90 x 60 likelihoods each

FIT_SHOWERS = 1000  # largest number of showers in the lateral fit
_LOG_CHI2 = -1.2704  # mean of the logarithm of chi-squared with one degree of freedom

MIN_SLICES = 16  # smallest number of slices: a shower is a few of them wide
UNKNOWN_SHAPE = 3.0  # a of the average shower, if positions are unknown

# Points and weights of the integral over a slice.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)


def fit_gflash(
    cells: ArrayLike,
    conditions: ArrayLike,
    geometry: Geometry,
    *,
    names: Sequence[str],
    seed: int = 1,
) -> GFlash:
    """Tune a GFlash-like parametrisation to cells (n, n_cells) and conditions (n, c).

    T and a of every shower maximise the sum of E_layer ln f_layer on a grid. Parameters
    are then linear fits in `Beam.features`, and lateral ones a least-squares fit to
    images of up to 1000 showers, which the seed chooses. Names are those of `ROLES`
    of `Beam`, "energy" in the unit of the cells and "x0", "y0" in mm, and others.
    """
    showers = fits.read_showers(
        cells, conditions, geometry, names=names, least=MIN_SHOWERS
    )
    x, beam, views = showers.x, showers.beam, showers.views
    features = beam.features(x)
    columns = [np.log(showers.totals[:, 0] / x[:, beam.names.index("energy")])]
    depth = _fit_depth(geometry, views)
    if depth is not None:
        columns = [*_fit_profiles(depth, _first_profile(geometry, views)), *columns]
    mean, sigma, mixing = _fit_normal(features, np.stack(columns, axis=1))
    m = features.shape[1]
    start = GFlash(
        geometry=geometry,
        beam=beam,
        depth=depth,
        mean=mean,
        spread=sigma,
        mixing=mixing,
        view_scale=showers.view_scale,
        plane=no_plane(m, len(views)),
        lateral=np.zeros((3, 4)),
        layer_spot=np.zeros(m),
    )
    if depth is not None:
        start = _with_layer_spot(start, depth, features, views, columns)
    if not any(view.has_plane for view in geometry.views):
        return start
    rows = np.random.default_rng(seed).permutation(len(x))[:FIT_SHOWERS]
    return _with_plane(start, showers.take(rows), [column[rows] for column in columns])


def _fit_depth(geometry: Geometry, views: Sequence[FloatArray]) -> Depth | None:
    """Return slices of the depth by the first view with layers, None without one."""
    first = next((v for v, view in enumerate(geometry.views) if view.has_depth), None)
    if first is None:
        return None
    view = geometry.views[first]
    n = len(view.layers)
    known = all(la.z is not None and la.thickness is not None for la in view.layers)
    if known:
        front = np.array([la.z for la in view.layers], dtype=np.float64)
        edges = np.stack([front, front + [la.thickness for la in view.layers]], axis=1)
    else:
        mean = layer_energies(views[first], view).sum(axis=0)
        share = np.clip(np.cumsum(mean) / mean.sum(), 1e-6, 1 - 1e-4)
        ends = scipy.special.gammaincinv(UNKNOWN_SHAPE, np.append(0, share))
        ends = np.maximum.accumulate(ends) + 1e-3 * np.arange(n + 1)
        edges = np.stack([ends[:-1], ends[1:]], axis=1)
    pieces = -(-MIN_SLICES // n)
    fractions = np.linspace(0, 1, pieces + 1)
    bounds = edges[:, :1] + (edges[:, 1:] - edges[:, :1]) * fractions
    low, high = bounds[:, :-1].ravel(), bounds[:, 1:].ravel()
    low, high = low - edges[0, 0], high - edges[0, 0]  # the shower starts at the front
    middle, half = (low + high) / 2, (high - low) / 2
    own = np.repeat(np.arange(n), pieces)
    layers = []
    for other in geometry.views:
        if len(other.layers) not in (1, n):
            raise ValueError(
                f"views {view.name!r} and {other.name!r} have {n} and "
                f"{len(other.layers)} layers, expected equal numbers or one layer"
            )
        layers.append(own if len(other.layers) == n else np.zeros_like(own))
    return Depth(
        nodes=middle[:, None] + half[:, None] * _NODES,
        steps=half[:, None] * _WEIGHTS,
        z=middle + edges[0, 0] if known else np.zeros(len(middle)),
        layers=tuple(layers),
    )


def _first_profile(geometry: Geometry, views: Sequence[FloatArray]) -> FloatArray:
    pairs = zip(geometry.views, views, strict=True)
    return next(layer_energies(e, view) for view, e in pairs if view.has_depth)


def _fit_profiles(depth: Depth, layers: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ln T and ln(a - 1) of each shower: the best of a grid, refined by a parabola."""
    length = float(depth.nodes[-1].max())
    t, a = np.meshgrid(GRID_T + np.log(length), GRID_A, indexing="ij")
    v = next(v for v, own in enumerate(depth.layers) if own.max() > 0)
    slices = depth.shares(np.exp(t).reshape(-1, 1), np.exp(a).reshape(-1, 1))
    templates = np.log(np.maximum(depth.in_layers(slices, v), 1e-12))
    off = (GRID_T - GRID_T.mean())[:, None] ** 2 + (GRID_A - GRID_A.mean()) ** 2
    share = layers / layers.sum(axis=1, keepdims=True)
    peak, shape = np.empty(len(share)), np.empty(len(share))
    for start in range(0, len(share), GRID_ROWS):
        part = slice(start, start + GRID_ROWS)
        score = (share[part] @ templates.T).reshape(-1, *t.shape) - TIE * off
        best = score.reshape(len(score), -1).argmax(axis=1)
        i, j = np.unravel_index(best, t.shape)
        rows = np.arange(len(score))
        i, j = np.clip(i, 1, len(GRID_T) - 2), np.clip(j, 1, len(GRID_A) - 2)
        di = _vertex(*(score[rows, i + d, j] for d in (-1, 0, 1)))
        dj = _vertex(*(score[rows, i, j + d] for d in (-1, 0, 1)))
        peak[part] = t[i, 0] + di * (GRID_T[1] - GRID_T[0])
        shape[part] = GRID_A[j] + dj * (GRID_A[1] - GRID_A[0])
    return peak, shape


def _vertex(low: FloatArray, middle: FloatArray, high: FloatArray) -> FloatArray:
    """Place of the maximum of a parabola through -1, 0, 1; at most a step away."""
    curvature = low - 2 * middle + high
    flat = curvature >= 0
    place = 0.5 * (low - high) / np.where(flat, 1.0, curvature)
    return np.where(flat, 0.0, np.clip(place, -1, 1))


def _fit_normal(
    features: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean and logarithm of the deviation, linear in features, and correlations."""
    mean = np.linalg.lstsq(features, values, rcond=None)[0]
    rest = values - features @ mean
    floor = 1e-12 + 1e-6 * np.var(rest, axis=0)
    squares = np.log(rest**2 + floor) - _LOG_CHI2
    sigma = np.linalg.lstsq(features, squares, rcond=None)[0] / 2
    pulls = np.clip(rest / np.exp(features @ sigma), -4, 4)
    # A value without fluctuations, but for rounding, has no correlations.
    deviation = np.maximum(np.std(pulls, axis=0), 1e-3)
    # Tails move the mean of a logarithm; the variance itself has to be right.
    sigma[0] += np.log(deviation)
    pulls = (pulls - pulls.mean(axis=0)) / deviation
    correlation = pulls.T @ pulls / len(pulls)
    np.fill_diagonal(correlation, 1.0)
    return mean, sigma, np.linalg.cholesky(correlation)


def _with_layer_spot(
    start: GFlash,
    depth: Depth,
    features: FloatArray,
    views: Sequence[FloatArray],
    columns: Sequence[FloatArray],
) -> GFlash:
    """Add the fluctuations of layers about the profile of their own shower."""
    layers = _first_profile(start.geometry, views)
    v = next(i for i, view in enumerate(start.geometry.views) if view.has_depth)
    peak, shape = (np.exp(column)[:, None] for column in columns[:2])
    share = normalise(depth.in_layers(depth.shares(peak, shape), v))
    expected = share * layers.sum(axis=1, keepdims=True)
    some = np.maximum(expected, 1e-4 * layers.sum(axis=1, keepdims=True))
    # The fit of T and a used two degrees of freedom of the layers.
    n = layers.shape[1]
    unit = ((layers - expected) ** 2 / some).sum(axis=1) / (2 * max(n - 2, 1))
    return replace(start, layer_spot=fits.fit_positive(features, unit))


def _with_plane(
    start: GFlash, showers: fits.Showers, columns: Sequence[FloatArray]
) -> GFlash:
    """Add lateral profiles, and the fluctuations of the axis and of cells."""
    x, views = showers.x, showers.views
    peak, slices = np.ones((len(x), 1)), None
    if start.depth is not None:
        peak, shape = (np.exp(column)[:, None] for column in columns[:2])
        slices = start.depth.shares(peak, shape)

    def fit(model: GFlash, shift: FloatArray) -> GFlash:
        lateral = fit_lateral(model, x, views, (slices, peak, shift))
        return replace(model, lateral=lateral)

    def image(model: GFlash, shift: FloatArray, v: int, i: int) -> FloatArray:
        return np.asarray(model.image(x, (slices, peak, shift), v, i))

    return fits.fit_plane(start, showers, fit=fit, image=image)[0]
