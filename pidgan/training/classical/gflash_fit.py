"""Fit of a GFlash-like parametrisation to a sample of showers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.bundle.formulas import log
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import layer_energies
from pidgan.training.classical import sample_fits as fits
from pidgan.training.classical.gflash import (
    Depth,
    GFlash,
    distance_to_maximum,
    lateral_weights,
)
from pidgan.training.classical.lateral_profile import no_plane, normalise, spread

MIN_SHOWERS = 200  # smallest number of showers that determines two dozen parameters

# Depth grid of the fit of each shower: ln T in units of the depth, and ln(a - 1).
GRID_T = np.linspace(np.log(0.02), np.log(2.0), 90)
GRID_A = np.linspace(np.log(0.1), np.log(20.0), 60)
GRID_ROWS = 2000  # showers at a time, with 90 x 60 likelihoods each

# Slopes of ln R_C, ln R_T and logit p in tau at the maximum, from the formulas of
# hep-ex/0001020. The fit starts there.
SLOPES = (0.83, -0.27, -1.7)
FIT_NUMBERS = 2_000_000  # largest number of Gaussian integrals that a fit keeps
FIT_SHOWERS = 1000  # largest number of showers in the lateral fit
MOMENT_WEIGHT = 2.5  # weight of the second moment of an image, beside its cells
ROUNDS, EVALUATIONS = 3, 5  # steps of the lateral fit, in which parameters settle
SHARE_FLOOR = 1e-4  # variance of the share of a single spot
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
    share = layers / layers.sum(axis=1, keepdims=True)
    peak, shape = np.empty(len(share)), np.empty(len(share))
    for start in range(0, len(share), GRID_ROWS):
        part = slice(start, start + GRID_ROWS)
        score = (share[part] @ templates.T).reshape(-1, *t.shape)
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
    # Tails move the mean of a logarithm; the variance itself has to be right.
    sigma[0] += np.log(np.std(pulls, axis=0))
    correlation = np.atleast_2d(np.corrcoef(pulls, rowvar=False))
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
        lateral = _fit_lateral(model, x, views, (slices, peak, shift))
        return replace(model, lateral=lateral)

    def image(model: GFlash, shift: FloatArray, v: int, i: int) -> FloatArray:
        return np.asarray(model.image(x, (slices, peak, shift), v, i))

    return fits.fit_plane(start, showers, fit=fit, image=image)[0]


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Shares of the cells of a layer, with all numbers that do not change in a fit."""

    widths: FloatArray
    u: FloatArray
    kernels: FloatArray
    share: FloatArray
    tau: FloatArray
    real: FloatArray
    weight: FloatArray
    square: FloatArray

    def model(self, parameters: FloatArray) -> FloatArray:
        """Expected shares (n, k)."""
        weights = lateral_weights(parameters, self.widths, self.tau, self.u)
        flat = (weights * self.share[..., None]).reshape(len(self.u), -1, 1)
        kernels = self.kernels.reshape(len(self.u), -1, self.kernels.shape[-1])
        return np.asarray(normalise((kernels * flat.astype(np.float32)).sum(axis=1)))

    def residuals(self, model: FloatArray, variance: FloatArray) -> list[FloatArray]:
        """Differences of cells and of second moments in standard deviations."""
        cells = (self.real - model) / np.sqrt(variance) * np.sqrt(self.weight)
        # Sums of squares leave the second moment, which physicists look at, free.
        wanted, found = ((e * self.square).sum(axis=1) for e in (self.real, model))
        ratio = (found - wanted) / (variance * self.square).sum(axis=1)
        return [cells.ravel(), MOMENT_WEIGHT * ratio * np.sqrt(self.weight[:, 0])]


def _fit_lateral(
    start: GFlash,
    x: FloatArray,
    views: Sequence[FloatArray],
    shower: tuple[FloatArray | None, FloatArray, FloatArray],
) -> FloatArray:
    """Least-squares fit of core and tail to the images of showers, (3, 4)."""
    geometry = start.geometry
    u = log(start.beam.column(x, "energy") / start.beam.energy)
    places = [
        (v, i)
        for v, view in enumerate(geometry.views)
        for i, layer in enumerate(view.layers)
        if layer.n_cells > 1
    ]
    each = sum(
        geometry.views[v].layers[i].n_cells * start.groups(v, i)[0].size
        for v, i in places
    ) * len(start.plane.widths)
    n = int(np.clip(FIT_NUMBERS // each, 20, len(x)))
    kept = [_images(start, place, x[:n], u[:n], views, shower) for place in places]
    profile = shower[0] is not None
    deep = any(geometry.views[v].has_depth for v, _ in places)
    free = np.array([[True, profile, deep, True]] * 3)
    main, at = fits.main_view(geometry)
    rms = float(fits.centre(at, views[main])[1].mean())
    result = np.zeros((3, 4))
    result[:, 0] = np.log(0.3 * rms), np.log(1.5 * rms), 2.0
    if profile:
        result[:, 1] = SLOPES

    def models(values: FloatArray) -> list[FloatArray]:
        parameters = result.copy()
        parameters[free] = values
        return [images.model(parameters) for images in kept]

    def residual(values: FloatArray, variances: list[FloatArray]) -> FloatArray:
        rows = zip(kept, models(values), variances, strict=True)
        parts = [part for images, *given in rows for part in images.residuals(*given)]
        return np.concatenate(parts)

    values = result[free]
    for _ in range(ROUNDS):
        # The variance of a share is proportional to the share in the last round. A
        # variance that follows the fit would draw it to the root mean square.
        variances = [model + SHARE_FLOOR for model in models(values)]
        values = scipy.optimize.least_squares(
            residual, values, x_scale=0.3, max_nfev=EVALUATIONS, args=(variances,)
        ).x
    result[free] = values
    return result


def _images(
    start: GFlash,
    place: tuple[int, int],
    x: FloatArray,
    u: FloatArray,
    views: Sequence[FloatArray],
    shower: tuple[FloatArray | None, FloatArray, FloatArray],
) -> _Images:
    """Cells of a layer of the first showers."""
    (v, i), n = place, len(x)
    slices, peak, shift = shower
    view, layer = start.geometry.views[v], start.geometry.views[v].layers[i]
    z, groups = start.groups(v, i)
    axis = start.beam.axis(x, z[None], shift[:n])
    whole = views[v][:n]
    e = whole[:, view.layer_slices[i]]
    # Squared distances to the axis at its mean depth.
    middle = np.stack([a.mean(axis=1) for a in axis], axis=1)
    square = ((layer.plane()[0][None] - middle[:, None]) ** 2).sum(axis=2)
    return _Images(
        widths=start.plane.widths,
        u=u,
        kernels=spread(layer, axis, start.plane.widths).astype(np.float32),
        share=np.ones(1) if slices is None else normalise(slices[:n] @ groups),
        tau=distance_to_maximum(z, peak[:n], u),
        real=np.asarray(normalise(e)),
        weight=e.sum(axis=1, keepdims=True) / whole.sum(axis=1, keepdims=True),
        square=square,
    )
