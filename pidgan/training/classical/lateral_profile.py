"""Lateral profiles of showers, and the energies of cells.

A lateral profile is a sum of two-dimensional Gaussians with fixed widths. Their
integrals over cells are cheap: a product of two differences of the normal integral over
a rectangle, exp(-r1^2 / 2 s^2) - exp(-r2^2 / 2 s^2) over a ring.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.calorimeter.geometry import Geometry, Layer, View
from pidgan.training.classical import normal_numbers as normal
from pidgan.training.classical.normal_numbers import FAR, Numbers

WIDTH_STEP = 2.0  # ratio of neighbouring widths: a power law is followed to 1 %
NARROWEST = 0.1  # smallest Gaussian width in units of the smallest cell


def widths_of(geometry: Geometry) -> FloatArray:
    """Return Gaussian widths (k,), mm, from less than a cell to the whole plane."""
    several = [layer for layer in geometry.layers if layer.n_cells > 1]
    sizes = np.concatenate([layer.plane()[1] for layer in several])
    at = np.concatenate([layer.plane()[0] for layer in several])
    low = NARROWEST * float(sizes.min())
    high = max(float(np.ptp(at, axis=0).max()), 2 * low)
    n = int(np.ceil(np.log(high / low) / np.log(WIDTH_STEP))) + 1
    return low * WIDTH_STEP ** np.arange(n)


def normalise(x: Array) -> Array:
    """Return x divided by its sum over the last axis, 0 where the sum is 0."""
    return x / f.maximum(f.total(x, -1), 1e-30)


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Cells in the plane, with m features.

    Attributes:
        widths: Gaussian widths (k,), mm; empty without cells in the plane.
        jitter: Coefficients (m,) of the logarithm of the axis' standard deviation, mm.
        hidden: Quantiles (2, knots) of the axis, mm, if no condition gives it; empty
            otherwise.
        cell_spot: Coefficients (views, m) of the logarithm of a spot's energy in cells.
    """

    widths: FloatArray
    jitter: FloatArray
    hidden: FloatArray
    cell_spot: FloatArray

    def shift(self, features: Array, numbers: Numbers) -> Array:
        """Return shifts (n, 2) of the axis from its expected place, mm."""
        noise, jitter = numbers.take(2), f.exp(f.matmul(features, self.jitter[:, None]))
        if not self.hidden.size:
            return noise * jitter
        table = self.hidden[None] * np.ones((1, 1, 1)) + f.reshape(jitter * 0.0, (1, 1))
        moved = normal.interpolate(table, f.reshape(noise, (2, 1)))
        return f.reshape(moved, (2,))


def no_plane(n_features: int, n_views: int) -> Plane:
    """Return the record of a geometry without cells in the plane."""
    return Plane(
        widths=np.empty(0),
        jitter=np.zeros(n_features),
        hidden=np.empty((2, 0)),
        cell_spot=np.zeros((n_views, n_features)),
    )


def fill_cells(
    view: View,
    layers: Array,
    numbers: Numbers,
    image: Callable[[int], Array],
    log_unit: tuple[Array, FloatArray],
) -> list[Array]:
    """Return energies of the cells of a view, made of spots, by layer.

    The energy of a spot is given by features (n, m) and coefficients (m,) of its ln.
    """
    if not view.has_plane:
        return [layers]
    unit = f.exp(f.matmul(log_unit[0], log_unit[1][:, None]))
    parts = []
    for i, layer in enumerate(view.layers):
        own = f.take(layers, [i])
        if layer.n_cells > 1:
            noise = numbers.take(layer.n_cells)
            own = own * normalise(normal.spots(own * image(i), unit, noise))
        parts.append(own)
    return parts


def spread(
    layer: Layer,
    axis: tuple[Array, Array],
    widths: FloatArray,
    scale: Array | None = None,
) -> Array:
    """Return shares (n, m, k, n_cells) of k Gaussians in the cells of a layer.

    The axis is x and y, (n, m) each, at m depths of a shower; `scale` (n, 1) is a
    factor on the widths. Energy beside the cells is left out.
    """
    x, y = axis
    m = x.shape[-1]
    if layer.kind == "cylindrical":
        return _in_rings(layer, (x, y), widths, scale)
    if layer.kind == "rectangular":
        slow, fast = np.array(layer.slow), np.array(layer.fast)
        a, b = (y, x) if layer.order == "yx" else (x, y)
        rows = f.reshape(
            _between(a, slow, widths, scale), (m, len(widths), len(slow) - 1, 1)
        )
        columns = f.reshape(
            _between(b, fast, widths, scale), (m, len(widths), 1, len(fast) - 1)
        )
        return f.reshape(rows * columns, (m, len(widths), layer.n_cells))
    at, size = layer.plane()
    sides = []
    for centre, middle, side in ((x, at[:, 0], size[:, 0]), (y, at[:, 1], size[:, 1])):
        n = len(middle)
        edges = np.concatenate([middle - side / 2, middle + side / 2])
        tails, below = _tails(centre, edges, widths, scale)
        low, high = np.arange(n), np.arange(n, 2 * n)
        sides.append(_inside(tails, below, low, high))
    return sides[0] * sides[1]


def _between(
    centre: Array, edges: FloatArray, widths: FloatArray, scale: Array | None
) -> Array:
    """Integrals (n, m, k, bins) between neighbouring edges."""
    tails, below = _tails(centre, edges, widths, scale)
    bins = np.arange(len(edges) - 1)
    return _inside(tails, below, bins, bins + 1)


def _tails(
    centre: Array, edges: FloatArray, widths: FloatArray, scale: Array | None
) -> tuple[Array, Array]:
    """Integral beyond each edge, away from the centre, and whether it is below."""
    m = centre.shape[-1]
    distance = edges[None, None, None] - f.reshape(centre, (m, 1, 1))
    t = distance * (1 / widths)[None, None, :, None]
    t = t if scale is None else t / f.reshape(scale, (1, 1, 1))
    return normal.tail(f.minimum(f.absolute(t), FAR)), f.negative(t)


def _inside(tails: Array, below: Array, low: Array, high: Array) -> Array:
    """Integral between two edges, on one side of the centre or around it."""
    a, b = f.take(tails, low), f.take(tails, high)
    around = f.take(below, low) - f.take(below, high)
    return around * (1.0 - a - b) + (1.0 - around) * f.absolute(a - b)


def _in_rings(
    layer: Layer, axis: tuple[Array, Array], widths: FloatArray, scale: Array | None
) -> Array:
    """Shares of cylindrical cells: exact for rings about the origin, tilted otherwise.

    The tilt is the ratio of the densities of the moved and of the centred Gaussian,
    exp((c d - d^2 / 2) / s^2) for a shift d < s and the middle c of a cell; its
    logarithm is kept within +-1.
    """
    m, k = axis[0].shape[-1], len(widths)
    sectors = layer.shape[0]
    r = np.tile(np.array(layer.fast), (sectors, 1))
    inner = (r[:, :-1].reshape(-1) / widths[:, None]) ** 2 / 2
    outer = (r[:, 1:].reshape(-1) / widths[:, None]) ** 2 / 2
    at = layer.plane()[0]
    x, y = (f.reshape(a, (m, 1, 1)) for a in axis)
    product = x * at[:, 0][None, None, None] + y * at[:, 1][None, None, None]
    power = (product - 0.5 * (x * x + y * y)) * (1 / widths**2)[None, None, :, None]
    if scale is not None:
        inverse = f.reshape(1.0 / (scale * scale), (1, 1, 1))
        rings = f.exp(-inverse * np.minimum(inner, 80)[None, None])
        rings = rings - f.exp(-inverse * np.minimum(outer, 80)[None, None])
        rings, power = rings * (1 / sectors), power * inverse
    else:
        exact = np.exp(-inner) * -np.expm1(inner - outer) / sectors
        rings = exact[None, None]
    tilt = f.exp(f.maximum(f.minimum(power, 1.0), -1.0))
    if sectors == 1:
        tilt = tilt * 0.0 + 1.0
    return f.reshape(tilt * rings, (m, k, layer.n_cells))
