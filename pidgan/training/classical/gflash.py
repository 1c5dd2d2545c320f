"""A shower parametrisation in the manner of GFlash, tuned by itself to a sample.

Source: G. Grindhammer and S. Peters, hep-ex/0001020; the longitudinal profile is that
of E. Longo and I. Sestili, Nucl. Instr. Meth. 128 (1975) 283. A shower of energy E is

- longitudinally f(z) ~ (z / T)^(a - 1) exp(-(a - 1) z / T), with its maximum at T;
  ln T, ln(a - 1) and the logarithm of the response fluctuate together as correlated
  normal numbers (GFlash: ln T and ln a);
- laterally f(r) = p 2 r R_C^2 / (r^2 + R_C^2)^2 + (1 - p) 2 r R_T^2 / (r^2 + R_T^2)^2,
  core and tail, with R_C, R_T and p depending on tau = z / T and on ln E;
- fluctuating: the response, the energy of each layer and that of each cell, as sums of
  spots (a gamma distribution), and the axis.

GFlash has formulas in the radiation length, the critical energy and the Moliere radius
of a material. Here every parameter is a low polynomial of ln E, the angle and the
species (`Beam.features`), fitted to a sample, so that no material has to be given and
any geometry with depth, or with cells in the plane, can be tuned to. Where positions
of layers are unknown, the depth is measured so that the average shower is f(z) with
a = 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle.formulas import (
    Array,
    concatenate,
    exp,
    log,
    matmul,
    maximum,
    minimum,
    reshape,
    take,
    total,
)
from pidgan.calorimeter.geometry import Geometry, View
from pidgan.calorimeter.observables import check_cells, layer_energies
from pidgan.errors import DatasetError
from pidgan.training.classical.lateral_profile import (
    Beam,
    centre,
    find_axis,
    fit_beam,
    fit_hidden,
    fit_jitter,
    fit_positive,
    fit_spot,
    normalise,
    shift_axis,
    spots,
    spread,
    widths_of,
)

MIN_SHOWERS = 200
"""Fewer do not determine two dozen parameters and their fluctuations."""

MIN_SLICES = 16  # of the depth, at least; a shower is a few of them wide
PLANE_SLICES = 12  # of a layer that holds the whole shower, each with its own axis
NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)  # of the integral over a slice

# Depth grid of the fit of each shower: ln T in units of the depth, and ln(a - 1).
GRID_T = np.linspace(np.log(0.02), np.log(2.0), 90)
GRID_A = np.linspace(np.log(0.1), np.log(20.0), 60)
GRID_ROWS = 2000  # showers at a time: 90 x 60 likelihoods each

# Slopes in tau of ln R_C, ln R_T and logit p at the maximum, from the formulas of
# hep-ex/0001020: where the fit starts.
SLOPES = (0.83, -0.27, -1.7)
MAX_TAU = 2.0  # from the maximum; beyond is little energy, and no extrapolation
FIT_NUMBERS = 2_000_000  # most Gaussian integrals that the lateral fit keeps
FIT_SHOWERS = 1000
MOMENT_WEIGHT = 2.5  # of a shower's second moment, beside the cells of its image
ROUNDS, EVALUATIONS = 3, 5  # of the lateral fit: the parameters settle within these
SHARE_FLOOR = 1e-4  # of a share's variance: less is a single spot
UNKNOWN_SHAPE = 3.0  # a of the average shower, where layers have no position
_LOG_CHI2 = -1.2704  # mean of the logarithm of chi-squared with one degree of freedom


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Slices of the depth, and how layers are made of them.

    Attributes:
        nodes: (s, 3) depths at which the profile is evaluated, mm.
        steps: (s, 3) their weights in the integral, mm.
        z: (s,) middle of each slice where the axis passes, mm; 0 if unknown.
        layers: by view, (s,) the layer of each slice.
    """

    nodes: FloatArray
    steps: FloatArray
    z: FloatArray
    layers: tuple[IntArray, ...]


@dataclass(frozen=True, kw_only=True)
class GFlash:
    """A tuned parametrisation: m features, k Gaussian widths.

    Attributes:
        geometry: whose cells are filled.
        beam: what the conditions are.
        depth: slices of the depth; None if no view has layers.
        mean: (m, q) of ln T, ln(a - 1) and ln(response), or of the last alone.
        spread: (m, q) of the logarithms of their standard deviations.
        mixing: (q, q) root of their correlation matrix.
        view_scale: energy of each view over that of the first.
        widths: (k,) mm; empty without cells in the plane.
        lateral: (3, 4) ln R_C, ln R_T, logit p in 1, tau - 1, (tau - 1)^2 and ln E.
        jitter: (m,) logarithm of the standard deviation of the axis, mm.
        hidden: (2, knots) quantiles of the axis, mm, where the conditions do not tell
            the impact point; empty where they do.
        layer_spot: (m,) logarithm of the energy of a spot, for layers.
        cell_spot: (views, m), for cells.
    """

    geometry: Geometry
    beam: Beam
    depth: Depth | None
    mean: FloatArray
    spread: FloatArray
    mixing: FloatArray
    view_scale: tuple[float, ...]
    widths: FloatArray
    lateral: FloatArray
    jitter: FloatArray
    hidden: FloatArray
    layer_spot: FloatArray
    cell_spot: FloatArray

    @property
    def n_noise(self) -> int:
        """Normal numbers a shower needs."""
        plane = 2 if len(self.widths) else 0
        views = self.geometry.views
        layers = sum(len(view.layers) for view in views if view.has_depth)
        cells = sum(la.n_cells for la in self.geometry.layers if la.n_cells > 1)
        return len(self.mixing) + plane + layers + cells

    def sample(self, conditions: Array, noise: Array) -> Array:
        """Return showers.

        Args:
            conditions: (n, c), in the order of `beam.names`.
            noise: (n, n_noise), standard normal.

        Returns:
            (n, n_cells) energies; a graph's value, if the conditions are one.
        """
        q = len(self.mixing)
        features = self.beam.features(conditions)
        core = matmul(take(noise, np.arange(q)), self.mixing.T)
        values = matmul(features, self.mean) + exp(matmul(features, self.spread)) * core
        energy = self.beam.column(conditions, "energy") * exp(take(values, [q - 1]))
        peak, shape = exp(take(values, [0])), exp(take(values, [q - 2]))
        slices = None if self.depth is None else _slices(self.depth, peak, shape)
        shift, used = None, q
        if len(self.widths):
            size = exp(matmul(features, self.jitter[:, None]))
            shift = shift_axis(take(noise, [q, q + 1]), size, self.hidden)
            used += 2
        parts = []
        for v, view in enumerate(self.geometry.views):
            whole = energy * self.view_scale[v]
            layers = whole
            if view.has_depth:
                z = take(noise, used + np.arange(len(view.layers)))
                used += len(view.layers)
                expected = whole * normalise(self._in_layers(slices, v))
                unit = exp(matmul(features, self.layer_spot[:, None]))
                layers = whole * normalise(spots(expected, unit, z))
            for i, layer in enumerate(view.layers):
                own = take(layers, [i])
                if layer.n_cells > 1:
                    z = take(noise, used + np.arange(layer.n_cells))
                    used += layer.n_cells
                    image = self._image(conditions, v, i, (slices, peak, shift))
                    unit = exp(matmul(features, self.cell_spot[v][:, None]))
                    own = own * normalise(spots(own * image, unit, z))
                parts.append(own)
        return concatenate(parts)

    def _in_layers(self, slices: Array, v: int) -> Array:
        """Shares of the layers of a view from those of the slices."""
        assert self.depth is not None
        n = len(self.geometry.views[v].layers)
        return matmul(slices, np.eye(n)[self.depth.layers[v]])

    def _image(
        self, conditions: Array, v: int, i: int, shower: tuple[Array, Array, Array]
    ) -> Array:
        """Expected shares (n, n_cells) of the cells of a layer."""
        slices, peak, shift = shower
        layer = self.geometry.views[v].layers[i]
        z, groups = self._groups(v, i)
        x, y = self.beam.axis(conditions, z[None])
        if shift is not None:
            x, y = x + take(shift, [0]), y + take(shift, [1])
        kernels = spread(layer, (x, y), self.widths)
        k, n = len(self.widths), len(z)
        u = log(self.beam.column(conditions, "energy") * (1 / self.beam.energy))
        weights = lateral_weights(self.lateral, self.widths, _tau(z, peak, u), u)
        if slices is not None:
            weights = weights * reshape(normalise(matmul(slices, groups)), (n, 1))
        flat = reshape(weights, (n * k, 1))
        image = total(reshape(kernels, (n * k, layer.n_cells)) * flat, 1)
        return normalise(reshape(image, (layer.n_cells,)))

    def _groups(self, v: int, i: int) -> tuple[FloatArray, FloatArray]:
        """Depths (g,) at which a layer is filled, and which slices (s, g) they are."""
        if self.depth is None:
            return np.zeros(1), np.ones((1, 1))
        return group_slices(self.depth, self.geometry.views[v], (v, i))


def fit_gflash(
    cells: ArrayLike,
    conditions: ArrayLike,
    geometry: Geometry,
    *,
    names: Sequence[str],
    seed: int = 1,
) -> GFlash:
    """Tune a GFlash-like parametrisation to a sample.

    Every shower's T and a are those of the largest sum of E_layer ln f_layer on a grid;
    all parameters are then linear fits in `Beam.features`, and the lateral ones a
    least-squares fit to images of up to 1000 showers.

    Args:
        cells: (n, n_cells) energies.
        conditions: (n, c).
        geometry: of the cells.
        names: (c,) of the conditions, see `Beam`: "energy" in the unit of `cells`,
            "theta", "phi", "x0", "y0" (mm), "species"; others are allowed.
        seed: of the choice of showers for the lateral fit.

    Raises:
        DatasetError: too few showers with energy.
    """
    x = np.asarray(conditions, dtype=np.float64)
    e = check_cells(cells, geometry)
    beam = fit_beam(x, names)
    views = [e[:, geometry.view_slices[view.name]] for view in geometry.views]
    totals = np.stack([part.sum(axis=1) for part in views], axis=1)
    good = np.all(totals > 0, axis=1)
    if good.sum() < MIN_SHOWERS:
        raise DatasetError(
            f"{good.sum()} showers with energy, expected at least {MIN_SHOWERS}"
        )
    x, totals, views = x[good], totals[good], [part[good] for part in views]
    energy = x[:, beam.names.index("energy")]
    features = beam.features(x)
    columns = [np.log(totals[:, 0] / energy)]
    depth = fit_depth(geometry, views)
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
        view_scale=tuple((totals.sum(axis=0) / totals[:, 0].sum()).tolist()),
        widths=np.empty(0),
        lateral=np.zeros((3, 4)),
        jitter=np.zeros(m),
        hidden=np.empty((2, 0)),
        layer_spot=np.zeros(m),
        cell_spot=np.zeros((len(views), m)),
    )
    if depth is not None:
        start = _with_layer_spot(start, features, views, columns)
    if not any(view.has_plane for view in geometry.views):
        return start
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(x))[:FIT_SHOWERS]
    return _with_plane(
        start, x[rows], [part[rows] for part in views], [c[rows] for c in columns]
    )


def lateral_weights(
    parameters: FloatArray, widths: FloatArray, tau: Array, u: Array
) -> Array:
    """Return weights (n, g, k) of Gaussians that make up core and tail.

    2 r R^2 / (r^2 + R^2)^2 is the average of Gaussian profiles over their variance
    R^2 / 2x with exponential x: a Student distribution with two degrees of freedom. On
    widths in geometric progression their weights go with x exp(-x).

    Args:
        parameters: (3, 4), see `GFlash`.
        widths: (k,), mm.
        tau: (n, g) distances tau - 1 to the maximum.
        u: (n, 1) ln(E / E_scale).
    """
    g = tau.shape[-1]
    core, tail, logit = (
        reshape(a[0] + a[1] * tau + a[2] * tau * tau + a[3] * u, (g, 1))
        for a in parameters
    )
    share = 1.0 / (1.0 + exp(-logit))
    shapes = []
    for radius in (core, tail):
        x = exp(2.0 * radius) * (0.5 / widths**2)[None, None]
        x = minimum(x, 60.0)  # e^-60 is nothing, and no underflow
        shapes.append(normalise(x * exp(-x)))
    return share * shapes[0] + (1.0 - share) * shapes[1]


def fit_depth(geometry: Geometry, views: Sequence[FloatArray]) -> Depth | None:
    """Return slices of the depth, None if no view has layers.

    Args:
        geometry: whose first view with layers determines the slices.
        views: cells (n, n_cells) of each view.
    """
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
        if len(other.layers) == 1:
            layers.append(np.zeros(len(own), dtype=np.int64))
        elif len(other.layers) == n:
            layers.append(own)
        else:
            raise ValueError(
                f"views {view.name!r} and {other.name!r} have {n} and "
                f"{len(other.layers)} layers; expected as many, or one"
            )
    return Depth(
        nodes=middle[:, None] + half[:, None] * NODES,
        steps=half[:, None] * _WEIGHTS,
        z=middle + edges[0, 0] if known else np.zeros(len(middle)),
        layers=tuple(layers),
    )


def group_slices(
    depth: Depth, view: View, place: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Return where a layer is filled, (g,), and which slices (s, g) go there.

    A layer that holds the whole shower is filled at up to `PLANE_SLICES` depths,
    another one at its middle.

    Args:
        depth: of the geometry.
        view: to which the layer belongs.
        place: number of the view, and of the layer in it.
    """
    v, i = place
    own = np.flatnonzero(depth.layers[v] == i)
    n = 1 if view.has_depth else min(PLANE_SLICES, len(own))
    group = np.arange(len(own)) * n // len(own)
    matrix = np.zeros((len(depth.z), n))
    matrix[own, group] = 1
    return depth.z @ (matrix / matrix.sum(axis=0)), matrix


def _slices(depth: Depth, peak: Array, shape: Array) -> Array:
    """Shares (n, s) of the slices: integrals of f(z), with the sum 1."""
    ratio = depth.nodes.reshape(1, -1) / peak
    density = exp(shape * (log(ratio) - ratio + 1.0))
    n = len(depth.nodes)
    integral = np.repeat(np.eye(n), depth.nodes.shape[1], axis=0)
    return normalise(matmul(density, integral * depth.steps.reshape(-1, 1)))


def _tau(z: FloatArray, peak: Array, u: Array) -> Array:
    """Distances tau - 1 of depths to the maximum, held to a range."""
    if len(z) == 1 and z[0] == 0:
        return u * 0.0
    return maximum(minimum(z[None] / peak - 1.0, MAX_TAU), -1.0)


def _first_profile(geometry: Geometry, views: Sequence[FloatArray]) -> FloatArray:
    pairs = zip(geometry.views, views, strict=True)
    return next(layer_energies(e, view) for view, e in pairs if view.has_depth)


def _fit_profiles(depth: Depth, layers: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ln T and ln(a - 1) of each shower: the best of a grid, refined by a parabola."""
    length = float(depth.nodes[-1].max())
    t, a = np.meshgrid(GRID_T + np.log(length), GRID_A, indexing="ij")
    own = next(own for own in depth.layers if own.max() > 0)
    slices = _slices(depth, np.exp(t).reshape(-1, 1), np.exp(a).reshape(-1, 1))
    templates = np.log(np.maximum(slices @ np.eye(own.max() + 1)[own], 1e-12))
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
    # A logarithm is moved by tails; the variance itself has to come out.
    sigma[0] += np.log(np.std(pulls, axis=0))
    correlation = np.atleast_2d(np.corrcoef(pulls, rowvar=False))
    return mean, sigma, np.linalg.cholesky(correlation)


def _with_layer_spot(
    start: GFlash,
    features: FloatArray,
    views: Sequence[FloatArray],
    columns: Sequence[FloatArray],
) -> GFlash:
    """Add what layers fluctuate about their own shower's profile."""
    assert start.depth is not None
    layers = _first_profile(start.geometry, views)
    v = next(i for i, view in enumerate(start.geometry.views) if view.has_depth)
    peak, shape = (np.exp(column)[:, None] for column in columns[:2])
    share = normalise(start._in_layers(_slices(start.depth, peak, shape), v))
    expected = share * layers.sum(axis=1, keepdims=True)
    some = np.maximum(expected, 1e-4 * layers.sum(axis=1, keepdims=True))
    # Two of the layers' degrees of freedom were fitted.
    n = layers.shape[1]
    unit = ((layers - expected) ** 2 / some).sum(axis=1) / (2 * max(n - 2, 1))
    return replace(start, layer_spot=fit_positive(features, unit))


def _with_plane(
    start: GFlash,
    x: FloatArray,
    views: Sequence[FloatArray],
    columns: Sequence[FloatArray],
) -> GFlash:
    """Add lateral profiles, the fluctuation of the axis and that of cells."""
    geometry, beam = start.geometry, start.beam
    planes = [v for v, view in enumerate(geometry.views) if view.has_plane]
    main = max(planes, key=lambda v: geometry.views[v].n_cells)
    at = geometry.centres[geometry.view_slices[geometry.views[main].name]]
    origin_x, origin_y = centre(at, views[main])[0].mean(axis=0).tolist()
    beam = replace(beam, origin=(origin_x, origin_y))
    widths = widths_of(geometry)
    start = replace(start, beam=beam, widths=widths)
    peak, slices = np.ones((len(x), 1)), None
    if start.depth is not None:
        peak, shape = (np.exp(column)[:, None] for column in columns[:2])
        slices = _slices(start.depth, peak, shape)
    shift: FloatArray = np.zeros((len(x), 2))
    if "x0" not in beam.names:
        shift = centre(at, views[main])[0] - beam.origin
        first = _fit_lateral(start, x, views, (slices, peak, shift))
        start = replace(start, lateral=first)

        def image(shift: FloatArray) -> FloatArray:
            return _expected(start, x, main, (slices, peak, shift), views)

        shift = find_axis(at, views[main], image, shift)
        start = replace(start, hidden=fit_hidden(shift))
    shower = (slices, peak, shift)
    start = replace(start, lateral=_fit_lateral(start, x, views, shower))
    images = [_expected(start, x, v, shower, views) for v in range(len(views))]
    features = beam.features(x)
    m = features.shape[1]
    spot = np.stack(
        [
            fit_spot(features, e, f) if view.has_plane else np.zeros(m)
            for view, e, f in zip(geometry.views, views, images, strict=True)
        ]
    )
    step = float(widths[0])
    moved = _expected(start, x, main, (slices, peak, shift + step), views)
    compared = (views[main], images[main], moved)
    jitter = fit_jitter(features, at, compared, step=step, spot=spot[main])
    return replace(start, cell_spot=spot, jitter=jitter)


def _expected(
    start: GFlash,
    x: FloatArray,
    v: int,
    shower: tuple[Array, Array, Array],
    views: Sequence[FloatArray],
) -> FloatArray:
    """Expected cells of a view, given the energies of its layers."""
    view = start.geometry.views[v]
    layers = layer_energies(views[v], view)
    parts = [
        layers[:, [i]]
        * (start._image(x, v, i, shower) if layer.n_cells > 1 else np.ones((1, 1)))
        for i, layer in enumerate(view.layers)
    ]
    return np.concatenate(parts, axis=1)


def _fit_lateral(
    start: GFlash,
    x: FloatArray,
    views: Sequence[FloatArray],
    shower: tuple[Array, FloatArray, FloatArray],
) -> FloatArray:
    """Least-squares fit of core and tail to the images of showers."""
    slices, peak, shift = shower
    geometry, widths = start.geometry, start.widths
    u = log(start.beam.column(x, "energy") / start.beam.energy)
    places = [
        (v, i)
        for v, view in enumerate(geometry.views)
        for i, layer in enumerate(view.layers)
        if layer.n_cells > 1
    ]
    each = sum(
        geometry.views[v].layers[i].n_cells * start._groups(v, i)[0].size
        for v, i in places
    ) * len(widths)
    n = int(np.clip(FIT_NUMBERS // each, 20, len(x)))
    kept = []
    for v, i in places:
        view, layer = geometry.views[v], geometry.views[v].layers[i]
        z, groups = start._groups(v, i)
        at_x, at_y = start.beam.axis(x[:n], z[None])
        axis = (at_x + shift[:n, :1], at_y + shift[:n, 1:])
        kernels = spread(layer, axis, widths).astype(np.float32)
        share = normalise(slices[:n] @ groups) if slices is not None else np.ones(1)
        first = sum(la.n_cells for la in view.layers[:i])
        e = views[v][:n, first : first + layer.n_cells]
        tau = _tau(z, peak[:n], u[:n])
        weight = e.sum(axis=1, keepdims=True) / views[v][:n].sum(axis=1, keepdims=True)
        # Squared distances to the axis, at its mean depth.
        middle = np.stack([a.mean(axis=1) for a in axis], axis=1)
        square = ((layer.plane()[0][None] - middle[:, None]) ** 2).sum(axis=2)
        kept.append((kernels, share, tau, np.asarray(normalise(e)), weight, square))
    deep = any(geometry.views[v].has_depth for v, _ in places)
    free = np.array([[True, slices is not None, deep, True]] * 3)
    main = max(places, key=lambda p: geometry.views[p[0]].n_cells)[0]
    at = geometry.centres[geometry.view_slices[geometry.views[main].name]]
    rms = float(centre(at, views[main])[1].mean())
    initial = np.zeros((3, 4))
    initial[:, 0] = np.log(0.3 * rms), np.log(1.5 * rms), 2.0
    if slices is not None:
        initial[:, 1] = SLOPES

    def models(values: FloatArray) -> list[FloatArray]:
        parameters = initial.copy()
        parameters[free] = values
        images = []
        for kernels, share, tau, *_ in kept:
            w = lateral_weights(parameters, widths, tau, u[:n]) * share[..., None]
            flat = w.reshape(n, -1, 1).astype(np.float32)
            image = (kernels.reshape(n, -1, kernels.shape[-1]) * flat).sum(axis=1)
            images.append(np.asarray(normalise(image)))
        return images

    def residual(values: FloatArray, variances: list[FloatArray]) -> FloatArray:
        parts = []
        for model, variance, item in zip(models(values), variances, kept, strict=True):
            *_, real, weight, square = item
            parts.append(((real - model) / np.sqrt(variance) * np.sqrt(weight)).ravel())
            # Sums of squares leave the second moment, which physicists look at, free.
            wanted, found = ((e * square).sum(axis=1) for e in (real, model))
            ratio = (found - wanted) / (variance * square).sum(axis=1)
            parts.append(MOMENT_WEIGHT * ratio * np.sqrt(weight[:, 0]))
        return np.concatenate(parts)

    values = initial[free]
    for _ in range(ROUNDS):
        # As counts: the variance of a share goes with the share, of the last round; a
        # variance that follows the fit would draw it to the root mean square.
        variances = [model + SHARE_FLOOR for model in models(values)]
        values = scipy.optimize.least_squares(
            residual, values, x_scale=0.3, max_nfev=EVALUATIONS, args=(variances,)
        ).x
    result = initial.copy()
    result[free] = values
    return result
