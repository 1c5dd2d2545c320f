"""Fit of a chain of principal components to a sample of showers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.bundle.formulas import log
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import layer_energies
from pidgan.errors import DatasetError
from pidgan.training.classical import sample_fits as fits
from pidgan.training.classical.beam import Beam
from pidgan.training.classical.lateral_profile import no_plane, normalise, spread
from pidgan.training.classical.normal_numbers import KNOTS, spots
from pidgan.training.classical.principal_components import (
    DEPTH_WEIGHTS,
    PCA,
    shift_features,
    table_weights,
)

MIN_ROWS = 100  # smallest number of showers of a species around one energy
STEP = 0.5  # distance in ln E between tables, where energies are continuous
MOST_ENERGIES = 12  # largest number of energies with a table
SHAPE_ENERGIES = 4  # largest number of energies with lateral shapes
FIT_NUMBERS = 4_000_000  # largest number of numbers in a lateral fit
FIT_SHOWERS = 2000  # largest number of showers in a lateral fit
SAME = 9  # digits in which values differ that are not equal
WIDTH_STEP = 0.1  # change of ln(width), for the derivative


def fit_pca(
    cells: ArrayLike,
    conditions: ArrayLike,
    geometry: Geometry,
    *,
    names: Sequence[str],
    seed: int = 1,
) -> PCA:
    """Fit a chain of principal components to cells (n, n_cells) and conditions (n, c).

    The seed chooses the order of equal values, and the showers of the lateral fit.
    """
    showers = fits.read_showers(
        cells, conditions, geometry, names=names, least=MIN_ROWS
    )
    x, beam, views = showers.x, showers.beam, showers.views
    rng = np.random.default_rng(seed)
    layers = [
        normalise(layer_energies(part, view))
        for part, view in zip(views, geometry.views, strict=True)
        if view.has_depth
    ]
    if any(fraction.shape != layers[0].shape for fraction in layers):
        raise ValueError("views have different numbers of layers, expected equal ones")
    nodes = _choose_nodes(beam, x)
    response = showers.totals[:, :1] / beam.column(x, "energy")
    values = np.concatenate([response, *layers[:1]], axis=1)
    quantiles, shifts, sizes, roots = _fit_energies(beam, x, values, nodes, rng)
    features = beam.features(x)
    m = features.shape[1]
    chain = PCA(
        geometry=geometry,
        beam=beam,
        nodes=nodes,
        quantiles=quantiles,
        shifts=shifts,
        sizes=sizes,
        roots=roots,
        view_scale=showers.view_scale,
        depth=np.empty((0, 2)),
        plane=no_plane(m, len(views)),
        shape_nodes=np.linspace(nodes[0], nodes[-1], min(SHAPE_ENERGIES, len(nodes))),
        shapes=(),
        width_spread=np.zeros(m),
    )
    z = chain.depth_of(layers[0]) if layers else None
    if z is not None:
        mean = np.linalg.lstsq(features, z[:, 0], rcond=None)[0]
        variance = fits.fit_positive(features, (z[:, 0] - features @ mean) ** 2)
        chain = replace(chain, depth=np.stack([mean, variance / 2], axis=1))
    if not any(view.has_plane for view in geometry.views):
        return chain
    rows = rng.permutation(len(x))[:FIT_SHOWERS]
    return _with_plane(chain, showers.take(rows), None if z is None else z[rows], rng)


def _choose_nodes(beam: Beam, x: FloatArray) -> FloatArray:
    """ln(E / E_scale) of the tables: the energies themselves, or equal steps."""
    u = log(beam.column(x, "energy")[:, 0] / beam.energy)
    values, counts = np.unique(u, return_counts=True)
    if len(values) <= MOST_ENERGIES and counts.min() >= MIN_ROWS:
        return values
    span = float(u.max() - u.min())
    most = len(u) // (len(beam.species) * MIN_ROWS)
    n = int(np.clip(np.ceil(span / STEP) + 1, 1, max(1, min(MOST_ENERGIES, most))))
    return np.linspace(u.min(), u.max(), n) if n > 1 else np.array([np.median(u)])


def _fit_energies(
    beam: Beam,
    x: FloatArray,
    values: FloatArray,
    nodes: FloatArray,
    rng: np.random.Generator,
) -> tuple[FloatArray, ...]:
    """Cumulated distributions, shifts, sizes and roots of each table."""
    weights = table_weights(beam, x, nodes)
    extra = shift_features(beam, x)
    u = log(beam.column(x, "energy") / beam.energy)
    d = values.shape[1]
    quantiles, shifts, sizes, roots = [], [], [], []
    for number, column in enumerate(weights.T):
        rows = np.flatnonzero(column > 0)
        if len(rows) < MIN_ROWS:
            raise DatasetError(
                f"{len(rows)} showers of a species around one energy, expected "
                f"{MIN_ROWS} or more"
            )
        w = column[rows] / column[rows].sum()
        g = np.empty((len(rows), d))
        table = np.empty((d, len(KNOTS)))
        for j in range(d):
            v = values[rows, j]
            # Values that are equal, such as empty layers, or differ by rounding, come
            # in random order.
            apart = np.round(v / max(np.max(np.abs(v)), 1e-30), SAME)
            order = np.lexsort((rng.random(len(rows)), apart))
            cumulated = np.cumsum(w[order]) - w[order] / 2
            g[order, j] = scipy.special.ndtri(cumulated)
            table[j] = np.interp(KNOTS, g[order, j], v[order])
        # The trend with energy within a bin is taken out.
        distance = u[rows] - nodes[number % len(nodes)]
        known = np.concatenate([extra[rows], distance], axis=1)
        half = np.sqrt(w)[:, None]
        slope = np.linalg.lstsq(known * half, g * half, rcond=None)[0]
        rest = g - known @ slope
        covariance = (rest * w[:, None]).T @ rest
        size = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        value, vector = np.linalg.eigh(covariance / np.outer(size, size))
        quantiles.append(table)
        shifts.append(slope[:-1].T)
        sizes.append(size)
        roots.append((vector * np.sqrt(np.maximum(value, 0))) @ vector.T)
    return tuple(np.array(found) for found in (quantiles, shifts, sizes, roots))


def _with_plane(
    chain: PCA, showers: fits.Showers, z: FloatArray | None, rng: np.random.Generator
) -> PCA:
    """Add lateral shapes, fluctuations of width and axis, and spots."""
    x, views = showers.x, showers.views
    features = chain.beam.features(x)

    def fit(model: PCA, shift: FloatArray) -> PCA:
        hat = model.shape_weights(x, features, z)
        shapes = tuple(
            tuple(
                _fit_shape(model, x, (v, i), views, (z, shift), hat)
                if layer.n_cells > 1
                else np.empty((0, 2, 0))
                for i, layer in enumerate(view.layers)
            )
            for v, view in enumerate(model.geometry.views)
        )
        return replace(model, shapes=shapes)

    def image(
        model: PCA, shift: FloatArray, v: int, i: int, scale: float = 1.0
    ) -> FloatArray:
        moved = (shift, np.full((1, 1), scale))
        return np.asarray(model.image(x, features, (z, moved), v, i))

    chain, shift, expected = fits.fit_plane(chain, showers, fit=fit, image=image)
    main, at = fits.main_view(chain.geometry)
    middle = _log_width(at, expected)
    wider = fits.expected_cells(
        chain.geometry.views[main],
        views[main],
        lambda i: image(chain, shift, main, i, np.exp(WIDTH_STEP)),
    )
    slope = (_log_width(at, wider) - middle).mean() / WIDTH_STEP
    unit = np.exp(features @ chain.plane.cell_spot[main])[:, None]
    drawn = spots(expected, unit, rng.standard_normal(expected.shape))
    found, plain = (_log_width(at, e) - middle for e in (views[main], drawn))
    squares = ((found - found.mean()) ** 2 - plain**2) / max(slope, 0.1) ** 2
    return replace(chain, width_spread=fits.fit_positive(features, squares) / 2)


def _log_width(at: FloatArray, e: FloatArray) -> FloatArray:
    """Logarithm (n,) of the width of images; an image of one cell is a narrow one."""
    width = np.hypot(*fits.centre(at, e)[1].T)
    return np.asarray(np.log(np.maximum(width, 0.1 * np.median(width))))


def _fit_shape(
    chain: PCA,
    x: FloatArray,
    place: tuple[int, int],
    views: Sequence[FloatArray],
    shower: tuple[FloatArray | None, FloatArray],
    hat: FloatArray,
) -> FloatArray:
    """Positive weights (nodes, 2, k) of the Gaussians of a layer."""
    v, i = place
    view = chain.geometry.views[v]
    layer, widths = view.layers[i], chain.plane.widths
    k, columns = len(widths), hat.shape[1] * len(widths)
    n = int(np.clip(FIT_NUMBERS // (layer.n_cells * columns), 20, len(x)))
    e = views[v][:n, view.layer_slices[i]]
    z, shift = shower
    depth = chain.axis_depth(place, None if z is None else z[:n])
    axis = chain.beam.axis(x[:n], depth, shift[:n])
    kernels = spread(layer, axis, widths)
    if kernels.shape[1] > 1:
        kernels = kernels * DEPTH_WEIGHTS[:, None, None]
    kernels = kernels.sum(axis=1).transpose(0, 2, 1)
    design = hat[:n, None, :, None] * kernels[:, :, None, :]
    design = design.reshape(-1, columns)
    real = np.asarray(normalise(e)).reshape(-1)
    # Rows are counts with the energy of the layer as weight.
    share = e.sum(axis=1) / np.maximum(views[v][:n].sum(axis=1), 1e-30)
    weight = np.repeat(share, layer.n_cells)
    found = np.full(columns, 1.0 / columns)
    model = np.full(len(real), 1.0 / layer.n_cells)
    for _ in range(3):
        w = np.sqrt(weight / (model + 1e-5))
        gram = (design * w[:, None]).T @ (design * w[:, None])
        right = (design * w[:, None]).T @ (real * w)
        ridge = 1e-9 * np.trace(gram) / columns * np.eye(columns) + 1e-12
        lower = np.linalg.cholesky(gram + ridge)
        target = scipy.linalg.solve_triangular(lower, right, lower=True)
        found = scipy.optimize.nnls(lower.T, target)[0]
        model = design @ found
    # The normalisation of images restores energy beside the cells.
    shapes = found.reshape(-1, 2, k) + 1e-9
    return np.asarray(shapes / shapes.sum(axis=2, keepdims=True))
