"""A shower parametrisation in the manner of GFlash, tuned to a sample without help.

Source: G. Grindhammer and S. Peters, hep-ex/0001020; the longitudinal profile is that
of E. Longo and I. Sestili, Nucl. Instr. Meth. 128 (1975) 283. A shower has

- a longitudinal profile f(z) ~ (z / T)^(a - 1) exp(-(a - 1) z / T) with its maximum at
  T; ln T, ln(a - 1) and the logarithm of the response are correlated normal numbers;
- a lateral profile f(r) = p 2 r R_C^2 / (r^2 + R_C^2)^2
  + (1 - p) 2 r R_T^2 / (r^2 + R_T^2)^2 of core and tail, with R_C, R_T and p that
  depend on tau = z / T and on ln E;
- fluctuations of the axis, and of the energies of layers and of cells, which are sums
  of spots (a gamma distribution).

Instead of GFlash's formulas in constants of a material, every parameter is a low
polynomial in ln E, the angle and the species (`Beam.features`), fitted to a sample. The
geometry may be any with depth or with cells in the plane. Where positions of layers are
unknown, the depth is measured so that the average shower is f(z) with a = 3.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.calorimeter.geometry import Geometry
from pidgan.training.classical import lateral_profile as lateral
from pidgan.training.classical.beam import Beam
from pidgan.training.classical.lateral_profile import Plane, normalise
from pidgan.training.classical.normal_numbers import Numbers, spots

MAX_TAU = 2.0  # largest distance tau - 1 from the maximum, with little energy beyond
MOST_LESS = 60.0  # logarithm of a ratio of weights that counts as infinite

PLANE_SLICES = 12  # most depths, with an axis each, in a layer with all energy


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Slices of the depth, mm: nodes and weights (s, 3) of integrals over each slice.

    `z` is the middle (s,) of each, 0 if unknown, and `layers` its layer (s,), by view.
    """

    nodes: FloatArray
    steps: FloatArray
    z: FloatArray
    layers: tuple[IntArray, ...]

    def shares(self, peak: Array, shape: Array) -> Array:
        """Return shares (n, s) of slices, integrals of f(z), for T and a - 1 (n, 1)."""
        ratio = self.nodes.reshape(1, -1) / peak
        density = f.exp(shape * (f.log(ratio) - ratio + 1.0))
        n = len(self.nodes)
        integral = np.repeat(np.eye(n), self.nodes.shape[1], axis=0)
        return normalise(f.matmul(density, integral * self.steps.reshape(-1, 1)))

    def in_layers(self, slices: Array, v: int) -> Array:
        """Return shares (n, layers) of the layers of a view from shares of slices."""
        layers = self.layers[v]
        return f.matmul(slices, np.eye(int(layers.max()) + 1)[layers])


@dataclass(frozen=True, kw_only=True)
class GFlash:
    """A tuned parametrisation with m features and k Gaussian widths.

    Coefficients `mean` (m, q) give ln T, ln(a - 1) and ln(response), or the last one
    alone; `spread` (m, q) gives ln of their deviations, and `mixing` (q, q) is a root
    of their correlations. `lateral` (3, 4) gives ln R_C, ln R_T and logit p from 1, tau
    - 1, (tau - 1)^2 and ln E. `layer_spot` (m,) gives ln of a spot's energy in layers.
    """

    geometry: Geometry
    beam: Beam
    depth: Depth | None
    mean: FloatArray
    spread: FloatArray
    mixing: FloatArray
    view_scale: tuple[float, ...]
    plane: Plane
    lateral: FloatArray
    layer_spot: FloatArray

    @property
    def n_noise(self) -> int:
        """Number of normal numbers that a shower needs."""
        plane = 2 if len(self.plane.widths) else 0
        views = self.geometry.views
        layers = sum(len(view.layers) for view in views if view.has_depth)
        cells = sum(la.n_cells for la in self.geometry.layers if la.n_cells > 1)
        return len(self.mixing) + plane + layers + cells

    def sample(self, conditions: Array, noise: Array) -> Array:
        """Return energies (n, n_cells) for conditions (n, c) and noise (n, n_noise)."""
        q, numbers = len(self.mixing), Numbers(noise)
        features = self.beam.features(conditions)
        core = f.matmul(numbers.take(q), self.mixing.T)
        sigma = f.exp(f.matmul(features, self.spread))
        values = f.matmul(features, self.mean) + sigma * core
        energy = self.beam.column(conditions, "energy") * f.exp(f.take(values, [q - 1]))
        peak, shape = f.exp(f.take(values, [0])), f.exp(f.take(values, [q - 2]))
        slices = None if self.depth is None else self.depth.shares(peak, shape)
        plane = self.plane
        shift = plane.shift(features, numbers) if len(plane.widths) else None
        parts = []
        for v, view in enumerate(self.geometry.views):
            layers = energy * self.view_scale[v]
            if self.depth is not None and view.has_depth:
                expected = layers * normalise(self.depth.in_layers(slices, v))
                unit = f.exp(f.matmul(features, self.layer_spot[:, None]))
                drawn = spots(expected, unit, numbers.take(len(view.layers)))
                layers = layers * normalise(drawn)
            image = partial(self.image, conditions, (slices, peak, shift), v)
            log_unit = (features, plane.cell_spot[v])
            parts += lateral.fill_cells(view, layers, numbers, image, log_unit)
        return f.concatenate(parts)

    def image(
        self, conditions: Array, shower: tuple[Array, Array, Array], v: int, i: int
    ) -> Array:
        """Return expected shares (n, n_cells) of the cells of layer i of view v."""
        slices, peak, shift = shower
        layer = self.geometry.views[v].layers[i]
        z, groups = self.groups(v, i)
        axis = self.beam.axis(conditions, z[None], shift)
        kernels = lateral.spread(layer, axis, self.plane.widths)
        k, n = len(self.plane.widths), len(z)
        u = self.beam.log_energy(conditions)
        tau = distance_to_maximum(z, peak, u)
        weights = lateral_weights(self.lateral, self.plane.widths, tau, u)
        if slices is not None:
            weights = weights * f.reshape(normalise(f.matmul(slices, groups)), (n, 1))
        flat = f.reshape(weights, (n * k, 1))
        image = f.total(f.reshape(kernels, (n * k, layer.n_cells)) * flat, 1)
        return normalise(f.reshape(image, (layer.n_cells,)))

    def groups(self, v: int, i: int) -> tuple[FloatArray, FloatArray]:
        """Return depths (g,) at which a layer is filled, and their slices (s, g)."""
        if self.depth is None:
            return np.zeros(1), np.ones((1, 1))
        own = np.flatnonzero(self.depth.layers[v] == i)
        # A layer that holds the whole shower is filled at several depths.
        n = 1 if self.geometry.views[v].has_depth else min(PLANE_SLICES, len(own))
        group = np.arange(len(own)) * n // len(own)
        matrix = np.zeros((len(self.depth.z), n))
        matrix[own, group] = 1
        return self.depth.z @ (matrix / matrix.sum(axis=0)), matrix


def lateral_weights(
    parameters: FloatArray, widths: FloatArray, tau: Array, u: Array
) -> Array:
    """Return weights (n, g, k) of the Gaussians that make up core and tail.

    2 r R^2 / (r^2 + R^2)^2 averages Gaussian profiles over their variance R^2 / 2x with
    exponential x (Student's distribution); for widths in geometric progression, the
    widest last, the weights are proportional to x exp(-x). `tau` is tau - 1 (n, g), and
    u = ln(E / E_scale) (n, 1).
    """
    g = tau.shape[-1]
    core, tail, logit = (
        f.reshape(a[0] + a[1] * tau + a[2] * tau * tau + a[3] * u, (g, 1))
        for a in parameters
    )
    share = 1.0 / (1.0 + f.exp(-logit))
    shapes = []
    for radius in (core, tail):
        # In units of the weight of the widest, so that nothing underflows.
        ratio = ((widths[-1] / widths) ** 2)[None, None]
        x = f.exp(2.0 * radius) * (0.5 / widths[-1] ** 2)
        beyond = f.minimum(x * (ratio - 1.0), MOST_LESS)
        shapes.append(normalise(ratio * f.exp(-beyond)))
    return share * shapes[0] + (1.0 - share) * shapes[1]


def distance_to_maximum(z: FloatArray, peak: Array, u: Array) -> Array:
    """Return distances tau - 1 (n, g) of depths z (g,) to the maximum, in a range."""
    if len(z) == 1 and z[0] == 0:
        return u * 0.0
    return f.maximum(f.minimum(z[None] / peak - 1.0, MAX_TAU), -1.0)
