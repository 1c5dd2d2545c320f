"""A chain of principal components in the manner of FastCaloSim, fitted to a sample.

Source: ATLAS, ATL-SOFT-PUB-2018-002 and arXiv:2109.02551 (AtlFast3), section 5.

- Energies: the response and the fractions of the layers are mapped to normal numbers by
  their cumulated distributions, separately for each species around each of some
  energies. Their correlation matrix is diagonalised; a shower is a normal number times
  the root of each eigenvalue along each component, mapped back.
- Shapes: the lateral profile of a layer is a sum of Gaussians of fixed widths with
  positive weights (FastCaloSim: a histogram in r), which depend on the energy and on
  the depth of the shower (FastCaloSim: on the bin of the first component). A shower is
  wider or narrower than the average as a whole, its axis fluctuates, and the energy of
  a cell is made of spots (FastCaloSim: of hits).

FastCaloSim has tables at discrete energies and angles and picks one of two at random.
Here they are interpolated linearly in ln E, and normal numbers have a mean that is
linear in the angle and in conditions without a meaning of their own, so that the result
is smooth in every condition.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.bundle.formulas import (
    Array,
    concatenate,
    cos,
    exp,
    log,
    matmul,
    maximum,
    minimum,
    near,
    reshape,
    sqrt,
    take,
    total,
)
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import check_cells, depths, layer_energies
from pidgan.errors import DatasetError
from pidgan.training.classical.lateral_profile import (
    KNOTS,
    ROLES,
    Beam,
    centre,
    find_axis,
    fit_beam,
    fit_hidden,
    fit_jitter,
    fit_positive,
    fit_spot,
    interpolate,
    normalise,
    shift_axis,
    spots,
    spread,
    widths_of,
)

MIN_ROWS = 100
"""Showers of a species around one energy that cumulated distributions need."""

STEP = 0.5  # of ln E between tables, where the energies are continuous
MOST_ENERGIES = 12
SHAPE_ENERGIES = 4  # at which lateral shapes are tabulated
FIT_NUMBERS = 4_000_000  # most numbers of a lateral fit
FIT_SHOWERS = 2000
MOST_WIDER = 1.0  # |ln(width)| about the mean: a shower e times as wide is another one
WIDTH_STEP = 0.1  # of ln(width), for the derivative
# A layer that holds a whole shower, seen at an angle, is filled at three depths: Gauss'
# and Hermite's points and weights, in widths of the profile.
DEPTH_POINTS = np.sqrt(3.0) * np.array([-1.0, 0.0, 1.0])
DEPTH_WEIGHTS = np.array([1.0, 4.0, 1.0]) / 6


@dataclass(frozen=True, kw_only=True)
class PCA:
    """A fitted chain: b tables, d energies (response, layers), k Gaussian widths.

    Attributes:
        geometry: whose cells are filled.
        beam: what the conditions are.
        nodes: ln(E / E_scale) of the tables of each species, increasing.
        quantiles: (b, d, knots) response and layer fractions; tables of one species
            after those of another.
        shifts: (b, d, 1 + c) mean of the normal number: at the energy of the table, and
            its change with 1 / cos theta - 1 and conditions without a meaning.
        sizes: (b, d) standard deviation of the normal number at fixed conditions.
        roots: (b, d, d) symmetric roots of the correlation matrices.
        view_scale: energy of each view over that of the first.
        depth: (m, 2) mean depth of a shower and ln of its standard deviation, linear in
            `Beam.features`; empty if no view has layers.
        widths: (k,) mm; empty without cells in the plane.
        shape_nodes: ln(E / E_scale) of the shapes.
        shapes: by view and layer (nodes, 2, k), weights of the Gaussians of shallow
            and of deep showers; empty for layers of one cell.
        width_spread: (m,) logarithm of the standard deviation of ln(width).
        jitter: (m,) logarithm of the standard deviation of the axis, mm.
        hidden: (2, knots) quantiles of the axis, mm, where the conditions do not tell
            the impact point; empty where they do.
        cell_spot: (views, m) logarithm of the energy of a spot.
    """

    geometry: Geometry
    beam: Beam
    nodes: FloatArray
    quantiles: FloatArray
    shifts: FloatArray
    sizes: FloatArray
    roots: FloatArray
    view_scale: tuple[float, ...]
    depth: FloatArray
    widths: FloatArray
    shape_nodes: FloatArray
    shapes: tuple[tuple[FloatArray, ...], ...]
    width_spread: FloatArray
    jitter: FloatArray
    hidden: FloatArray
    cell_spot: FloatArray

    @property
    def n_noise(self) -> int:
        """Normal numbers a shower needs."""
        plane = 3 if len(self.widths) else 0
        cells = sum(la.n_cells for la in self.geometry.layers if la.n_cells > 1)
        return len(self.quantiles[0]) + plane + cells

    def sample(self, conditions: Array, noise: Array) -> Array:
        """Return showers.

        Args:
            conditions: (n, c), in the order of `beam.names`.
            noise: (n, n_noise), standard normal.

        Returns:
            (n, n_cells) energies; a graph's value, if the conditions are one.
        """
        used = self.quantiles.shape[1]
        features = self.beam.features(conditions)
        values = self._energies(conditions, take(noise, np.arange(used)))
        energy = self.beam.column(conditions, "energy") * take(values, [0])
        fractions = normalise(take(values, np.arange(1, used))) if used > 1 else None
        z = self._depth(fractions)
        moved = None
        if len(self.widths):
            shift = take(noise, [used, used + 1])
            size = exp(matmul(features, self.jitter[:, None]))
            shift = shift_axis(shift, size, self.hidden)
            scale = exp(matmul(features, self.width_spread[:, None]))
            wider = take(noise, [used + 2]) * scale
            scale = exp(maximum(minimum(wider, MOST_WIDER), -MOST_WIDER))
            moved = (shift, scale)
            used += 3
        parts = []
        for v, view in enumerate(self.geometry.views):
            whole = energy * self.view_scale[v]
            layers = whole * fractions if view.has_depth else whole
            for i, layer in enumerate(view.layers):
                own = take(layers, [i])
                if layer.n_cells > 1:
                    numbers = take(noise, used + np.arange(layer.n_cells))
                    used += layer.n_cells
                    image = self._image(conditions, (v, i), features, z, moved)
                    unit = exp(matmul(features, self.cell_spot[v][:, None]))
                    own = own * normalise(spots(own * image, unit, numbers))
                parts.append(own)
        return concatenate(parts)

    def _energies(self, conditions: Array, noise: Array) -> Array:
        """Response and fractions of the layers, (n, d), not yet of sum 1."""
        b, d, n_knots = self.quantiles.shape
        hat = _tables(self.beam, conditions, self.nodes)
        root = reshape(matmul(hat, self.roots.reshape(b, d * d)), (d, d))
        # Between two tables the variance of a mixture is below 1, which is restored.
        root = root / sqrt(total(root * root, -1))
        g = total(root * reshape(noise, (1, d)), -1)
        c = self.shifts.shape[2]
        slope = reshape(matmul(hat, self.shifts.reshape(b, d * c)), (d, c))
        extra = reshape(_extra(self.beam, conditions), (1, c))
        g = g * reshape(matmul(hat, self.sizes), (d, 1)) + total(slope * extra, -1)
        table = reshape(matmul(hat, self.quantiles.reshape(b, -1)), (d, n_knots))
        return maximum(reshape(interpolate(table, g), (d,)), 0.0)

    def _depth(self, fractions: Array) -> Array:
        """Mean and root variance (n, 2) of the depth, None if no view has layers."""
        view = next((view for view in self.geometry.views if view.has_depth), None)
        if view is None:
            return None
        z = depths(view)
        middle = float(z.mean())
        powers = matmul(fractions, np.stack([z - middle, (z - middle) ** 2], axis=1))
        mean = take(powers, [0])
        variance = maximum(take(powers, [1]) - mean * mean, 0.0)
        return concatenate([mean + middle, sqrt(variance)])

    def _image(
        self,
        conditions: Array,
        place: tuple[int, int],
        features: Array,
        z: Array,
        moved: tuple[Array, Array] | None,
    ) -> Array:
        """Expected shares (n, n_cells) of the cells of a layer."""
        v, i = place
        view = self.geometry.views[v]
        layer, k = view.layers[i], len(self.widths)
        x, y = self.beam.axis(conditions, self._axis_depth(place, z))
        if moved is not None:
            x, y = x + take(moved[0], [0]), y + take(moved[0], [1])
        scale = None if moved is None else moved[1]
        kernels = spread(layer, (x, y), self.widths, scale)
        if x.shape[-1] > 1:
            kernels = total(kernels * DEPTH_WEIGHTS[None, :, None, None], 1)
        kernels = reshape(kernels, (k, layer.n_cells))
        hat = self._shape_hat(conditions, features, z)
        weights = matmul(hat, self.shapes[v][i].reshape(-1, k))
        return normalise(
            reshape(total(kernels * reshape(weights, (k, 1)), 1), (layer.n_cells,))
        )

    def _axis_depth(self, place: tuple[int, int], z: Array) -> Array:
        """Where the axis passes a layer: one depth, or three of a whole shower."""
        v, i = place
        view = self.geometry.views[v]
        known = all(np.isfinite(layer.middle) for layer in self.geometry.layers)
        if not known:
            return np.zeros((1, 1))
        if view.has_depth or z is None:
            return np.full((1, 1), view.layers[i].middle)
        return take(z, [0]) + take(z, [1]) * DEPTH_POINTS[None]

    def _shape_hat(self, conditions: Array, features: Array, z: Array) -> Array:
        """Shares (n, nodes * 2) of the tabulated shapes."""
        u = log(self.beam.column(conditions, "energy") * (1 / self.beam.energy))
        hat = _hats(u, self.shape_nodes)
        n = len(self.shape_nodes)
        deep = u * 0.0 + 0.5
        if z is not None:
            sigma = exp(matmul(features, self.depth[:, 1:]))
            pull = (take(z, [0]) - matmul(features, self.depth[:, :1])) / sigma
            deep = maximum(minimum(0.5 + 0.25 * pull, 1.0), 0.0)
        both = concatenate([1.0 - deep, deep])
        return reshape(reshape(hat, (n, 1)) * reshape(both, (1, 2)), (n * 2,))


def fit_pca(
    cells: ArrayLike,
    conditions: ArrayLike,
    geometry: Geometry,
    *,
    names: Sequence[str],
    seed: int = 1,
) -> PCA:
    """Fit a chain of principal components to a sample.

    Args:
        cells: (n, n_cells) energies.
        conditions: (n, c).
        geometry: of the cells.
        names: (c,) of the conditions, see `lateral.Beam`.
        seed: of the order of equal values, and of the showers of the lateral fit.

    Raises:
        DatasetError: too few showers with energy.
    """
    x = np.asarray(conditions, dtype=np.float64)
    e = check_cells(cells, geometry)
    beam = fit_beam(x, names)
    views = [e[:, geometry.view_slices[view.name]] for view in geometry.views]
    totals = np.stack([part.sum(axis=1) for part in views], axis=1)
    good = np.all(totals > 0, axis=1)
    x, totals, views = x[good], totals[good], [part[good] for part in views]
    if len(x) < MIN_ROWS:
        raise DatasetError(
            f"{len(x)} showers with energy, expected at least {MIN_ROWS}"
        )
    rng = np.random.default_rng(seed)
    columns = [totals[:, :1] / beam.column(x, "energy")]
    layers = [
        normalise(layer_energies(part, view))
        for part, view in zip(views, geometry.views, strict=True)
        if view.has_depth
    ]
    if any(fraction.shape != layers[0].shape for fraction in layers):
        raise ValueError("views with different numbers of layers; expected as many")
    nodes = _choose_nodes(beam, x)
    values = np.concatenate([*columns, *layers[:1]], axis=1)
    quantiles, shifts, sizes, roots = _fit_energies(beam, x, values, nodes, rng)
    m = beam.features(x).shape[1]
    chain = PCA(
        geometry=geometry,
        beam=beam,
        nodes=nodes,
        quantiles=quantiles,
        shifts=shifts,
        sizes=sizes,
        roots=roots,
        view_scale=tuple((totals.sum(axis=0) / totals[:, 0].sum()).tolist()),
        depth=np.empty((0, 2)),
        widths=np.empty(0),
        shape_nodes=np.linspace(nodes[0], nodes[-1], min(SHAPE_ENERGIES, len(nodes))),
        shapes=(),
        width_spread=np.zeros(m),
        jitter=np.zeros(m),
        hidden=np.empty((2, 0)),
        cell_spot=np.zeros((len(views), m)),
    )
    z = chain._depth(layers[0]) if layers else None
    if z is not None:
        features = beam.features(x)
        mean = np.linalg.lstsq(features, z[:, 0], rcond=None)[0]
        variance = fit_positive(features, (z[:, 0] - features @ mean) ** 2)
        chain = replace(chain, depth=np.stack([mean, variance / 2], axis=1))
    if not any(view.has_plane for view in geometry.views):
        return chain
    rows = rng.permutation(len(x))[:FIT_SHOWERS]
    part = [view[rows] for view in views]
    return _with_plane(chain, x[rows], part, None if z is None else z[rows], rng)


def _extra(beam: Beam, conditions: Array) -> Array:
    """1 and the conditions (n, 1 + c) that move normal numbers."""
    parts = [beam.column(conditions, "energy") * 0.0 + 1.0]
    if "theta" in beam.names:
        parts.append(1.0 / cos(beam.column(conditions, "theta")) - 1.0)
    others = [name for name in beam.names if name not in ROLES]
    for name, middle, scale in zip(others, beam.centre, beam.scale, strict=True):
        parts.append((beam.column(conditions, name) - middle) * (1 / scale))
    return concatenate(parts)


def _hats(u: Array, nodes: FloatArray) -> Array:
    """Weights (n, nodes) of linear interpolation; constant beyond the ends."""
    if len(nodes) == 1:
        return u * 0.0 + 1.0
    inside = maximum(minimum(u, nodes[-1]), nodes[0])
    steps = np.diff(nodes)
    # The share of the way through each step; a hat is one way less the next.
    way = (inside - nodes[None, :-1]) * (1 / steps)[None]
    way = maximum(minimum(way, 1.0), 0.0)
    n = len(steps)
    difference = np.eye(n, n + 1, 1) - np.eye(n, n + 1)
    return matmul(way, difference) + np.eye(1, n + 1)


def _tables(beam: Beam, conditions: Array, nodes: FloatArray) -> Array:
    """Weights (n, b) of the tables: of the species, and interpolated in energy."""
    hat = _hats(log(beam.column(conditions, "energy") * (1 / beam.energy)), nodes)
    if len(beam.species) == 1:
        return hat
    code = beam.column(conditions, "species")
    return concatenate([hat * near(code, value) for value in beam.species])


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
    weights = _tables(beam, x, nodes)
    extra = _extra(beam, x)
    u = log(beam.column(x, "energy") / beam.energy)
    d = values.shape[1]
    quantiles, shifts, sizes, roots = [], [], [], []
    for number, column in enumerate(weights.T):
        rows = np.flatnonzero(column > 0)
        if len(rows) < MIN_ROWS:
            raise DatasetError(
                f"{len(rows)} showers of a species around one energy, expected "
                f"at least {MIN_ROWS}"
            )
        w = column[rows] / column[rows].sum()
        g = np.empty((len(rows), d))
        table = np.empty((d, len(KNOTS)))
        for j in range(d):
            v = values[rows, j]
            # Equal values, such as empty layers, in random order.
            order = np.lexsort((rng.random(len(rows)), v))
            cumulated = np.cumsum(w[order]) - w[order] / 2
            g[order, j] = scipy.special.ndtri(cumulated)
            table[j] = np.interp(KNOTS, g[order, j], v[order])
        # At the energy of the table: the trend within the bin is taken out.
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
    chain: PCA,
    x: FloatArray,
    views: Sequence[FloatArray],
    z: FloatArray | None,
    rng: np.random.Generator,
) -> PCA:
    """Add lateral shapes, fluctuations of width and axis, and spots."""
    geometry = chain.geometry
    planes = [v for v, view in enumerate(geometry.views) if view.has_plane]
    main = max(planes, key=lambda v: geometry.views[v].n_cells)
    at = geometry.centres[geometry.view_slices[geometry.views[main].name]]
    origin_x, origin_y = centre(at, views[main])[0].mean(axis=0).tolist()
    widths = widths_of(geometry)
    beam = replace(chain.beam, origin=(origin_x, origin_y))
    chain = replace(chain, beam=beam, widths=widths)
    features = beam.features(x)
    shift: FloatArray = np.zeros((len(x), 2))
    if "x0" in beam.names:
        chain = _with_shapes(chain, x, views, z, shift)
    else:
        shift = centre(at, views[main])[0] - beam.origin
        chain = _with_shapes(chain, x, views, z, shift)

        def image(shift: FloatArray) -> FloatArray:
            return _expected(chain, x, main, views, z, (shift, np.ones((1, 1))))

        shift = find_axis(at, views[main], image, shift)
        chain = _with_shapes(chain, x, views, z, shift)
        chain = replace(chain, hidden=fit_hidden(shift))
    same = (shift, np.ones((1, 1)))
    images = [_expected(chain, x, v, views, z, same) for v in range(len(views))]
    m = features.shape[1]
    spot = np.stack(
        [
            fit_spot(features, e, f) if view.has_plane else np.zeros(m)
            for view, e, f in zip(geometry.views, views, images, strict=True)
        ]
    )
    step = float(widths[0])
    moved = _expected(chain, x, main, views, z, (shift + step, np.ones((1, 1))))
    compared = (views[main], images[main], moved)
    jitter = fit_jitter(features, at, compared, step=step, spot=spot[main])
    wider = (shift, np.full((1, 1), np.exp(WIDTH_STEP)))
    expected = _log_width(at, images[main])
    slope = (
        _log_width(at, _expected(chain, x, main, views, z, wider)) - expected
    ).mean() / WIDTH_STEP
    unit = np.exp(features @ spot[main])[:, None]
    drawn = spots(images[main], unit, rng.standard_normal(images[main].shape))
    real, plain = (_log_width(at, e) - expected for e in (views[main], drawn))
    squares = ((real - real.mean()) ** 2 - plain**2) / max(slope, 0.1) ** 2
    return replace(
        chain,
        cell_spot=spot,
        jitter=jitter,
        width_spread=fit_positive(features, squares) / 2,
    )


def _with_shapes(
    chain: PCA,
    x: FloatArray,
    views: Sequence[FloatArray],
    z: FloatArray | None,
    shift: FloatArray,
) -> PCA:
    """Add the lateral shape of each layer, for known shifts (n, 2) of the axis."""
    hat = chain._shape_hat(x, chain.beam.features(x), z)
    shapes = tuple(
        tuple(
            _fit_shape(chain, x, (v, i), views, (z, shift), hat)
            if layer.n_cells > 1
            else np.empty((0, 2, 0))
            for i, layer in enumerate(view.layers)
        )
        for v, view in enumerate(chain.geometry.views)
    )
    return replace(chain, shapes=shapes)


def _log_width(at: FloatArray, e: FloatArray) -> FloatArray:
    """Logarithm (n,) of the width of images; that of a single cell is a narrow one."""
    width = np.hypot(*centre(at, e)[1].T)
    return np.asarray(np.log(np.maximum(width, 0.1 * np.median(width))))


def _expected(
    chain: PCA,
    x: FloatArray,
    v: int,
    views: Sequence[FloatArray],
    z: FloatArray | None,
    moved: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Expected cells of a view, given the energies of its layers."""
    view = chain.geometry.views[v]
    features = chain.beam.features(x)
    layers = layer_energies(views[v], view)
    parts = []
    for i, layer in enumerate(view.layers):
        image = np.ones((1, 1))
        if layer.n_cells > 1:
            image = chain._image(x, (v, i), features, z, moved)
        parts.append(layers[:, [i]] * image)
    return np.concatenate(parts, axis=1)


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
    layer, widths = view.layers[i], chain.widths
    k, columns = len(widths), hat.shape[1] * len(widths)
    n = int(np.clip(FIT_NUMBERS // (layer.n_cells * columns), 20, len(x)))
    first = sum(la.n_cells for la in view.layers[:i])
    e = views[v][:n, first : first + layer.n_cells]
    z, shift = shower
    depth = chain._axis_depth(place, None if z is None else z[:n])
    at_x, at_y = chain.beam.axis(x[:n], depth)
    axis = (at_x + shift[:n, :1], at_y + shift[:n, 1:])
    kernels = spread(layer, axis, widths)
    if kernels.shape[1] > 1:
        kernels = kernels * DEPTH_WEIGHTS[:, None, None]
    kernels = kernels.sum(axis=1).transpose(0, 2, 1)
    design = hat[:n, None, :, None] * kernels[:, :, None, :]
    design = design.reshape(-1, columns)
    real = np.asarray(normalise(e)).reshape(-1)
    # As counts, weighted with the energy of the layer: showers without any say nothing.
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
    # What falls beside the cells is restored by the normalisation.
    shapes = found.reshape(-1, 2, k) + 1e-9
    return np.asarray(shapes / shapes.sum(axis=2, keepdims=True))
