"""A chain of principal components in the manner of FastCaloSim.

Source: ATLAS, ATL-SOFT-PUB-2018-002 and arXiv:2109.02551 (AtlFast3), section 5.

- Energies: cumulated distributions map the response and the fractions of layers to
  normal numbers, whose correlations have principal components, for each species around
  each of some energies.
- Shapes: the lateral profile of a layer is a sum of Gaussians with fixed widths and
  positive weights (a histogram in r in FastCaloSim), which depend on the energy and on
  the depth of the shower. The width of a shower and its axis fluctuate, and the energy
  of a cell is made of spots (of hits in FastCaloSim).

Tables are interpolated linearly in ln E (FastCaloSim picks one of two at random), and
the mean of the normal numbers is linear in the angle and in conditions without a
meaning, so that showers are smooth in every condition.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import depths
from pidgan.training.classical import lateral_profile as lateral
from pidgan.training.classical.beam import Beam
from pidgan.training.classical.lateral_profile import Plane, normalise
from pidgan.training.classical.normal_numbers import Numbers, interpolate

MOST_WIDER = 1.0  # largest |ln(width)| about the mean

# Gauss' and Hermite's points, in widths of the profile, and weights: a layer that holds
# a whole shower is filled at three depths, as the shower may have an angle.
DEPTH_POINTS = np.sqrt(3.0) * np.array([-1.0, 0.0, 1.0])
DEPTH_WEIGHTS = np.array([1.0, 4.0, 1.0]) / 6


@dataclass(frozen=True, kw_only=True)
class PCA:
    """A fitted chain with b tables, d energies (response, layers), k Gaussian widths.

    Attributes:
        nodes: Values of ln(E / E_scale) of the tables of each species, increasing.
        quantiles: Quantiles (b, d, knots) of response and layer fractions; tables of
            one species after tables of another.
        shifts: Mean (b, d, 1 + c) of the normal number, and its change with
            1 / cos theta - 1 and conditions without a meaning.
        sizes: Standard deviation (b, d) of the normal number at fixed conditions.
        roots: Symmetric roots (b, d, d) of the correlation matrices.
        view_scale: Energy of each view over the energy of the first.
        depth: Coefficients (m, 2) in `Beam.features` of the mean depth of a shower and
            of ln of its standard deviation; empty if no view has layers.
        shapes: Weights (nodes, 2, k) of the Gaussians of shallow and of deep showers
            at `shape_nodes`, by view and layer; empty for layers of one cell.
        width_spread: Coefficients (m,) of ln of the standard deviation of ln(width).
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
    plane: Plane
    shape_nodes: FloatArray
    shapes: tuple[tuple[FloatArray, ...], ...]
    width_spread: FloatArray

    @property
    def n_noise(self) -> int:
        """Number of normal numbers that a shower needs."""
        plane = 3 if len(self.plane.widths) else 0
        cells = sum(la.n_cells for la in self.geometry.layers if la.n_cells > 1)
        return len(self.quantiles[0]) + plane + cells

    def sample(self, conditions: Array, noise: Array) -> Array:
        """Return energies (n, n_cells) for conditions (n, c) and noise (n, n_noise)."""
        d, numbers = self.quantiles.shape[1], Numbers(noise)
        features = self.beam.features(conditions)
        values = self._energies(conditions, numbers.take(d))
        energy = self.beam.column(conditions, "energy") * f.take(values, [0])
        fractions = normalise(f.take(values, np.arange(1, d))) if d > 1 else None
        z = self.depth_of(fractions)
        plane, moved = self.plane, None
        if len(plane.widths):
            shift = plane.shift(features, numbers)
            scale = f.exp(f.matmul(features, self.width_spread[:, None]))
            wider = numbers.take(1) * scale
            moved = (shift, f.exp(f.maximum(f.minimum(wider, MOST_WIDER), -MOST_WIDER)))
        parts = []
        for v, view in enumerate(self.geometry.views):
            layers = energy * self.view_scale[v]
            if view.has_depth:
                layers = layers * fractions
            image = partial(self.image, conditions, features, (z, moved), v)
            log_unit = (features, plane.cell_spot[v])
            parts += lateral.fill_cells(view, layers, numbers, image, log_unit)
        return f.concatenate(parts)

    def _energies(self, conditions: Array, noise: Array) -> Array:
        """Response and fractions of the layers, (n, d), whose sum is not yet 1."""
        b, d, n_knots = self.quantiles.shape
        hat = table_weights(self.beam, conditions, self.nodes)
        root = f.reshape(f.matmul(hat, self.roots.reshape(b, d * d)), (d, d))
        # A mixture of two tables has a variance below 1.
        root = root / f.sqrt(f.total(root * root, -1))
        g = f.total(root * f.reshape(noise, (1, d)), -1)
        c = self.shifts.shape[2]
        slope = f.reshape(f.matmul(hat, self.shifts.reshape(b, d * c)), (d, c))
        extra = f.reshape(shift_features(self.beam, conditions), (1, c))
        size = f.reshape(f.matmul(hat, self.sizes), (d, 1))
        g = g * size + f.total(slope * extra, -1)
        table = f.reshape(f.matmul(hat, self.quantiles.reshape(b, -1)), (d, n_knots))
        return f.maximum(f.reshape(interpolate(table, g), (d,)), 0.0)

    def depth_of(self, fractions: Array) -> Array:
        """Return mean and root variance (n, 2) of the depth, None without layers."""
        view = next((view for view in self.geometry.views if view.has_depth), None)
        if view is None:
            return None
        z = depths(view)
        middle = float(z.mean())
        powers = f.matmul(fractions, np.stack([z - middle, (z - middle) ** 2], axis=1))
        mean = f.take(powers, [0])
        variance = f.maximum(f.take(powers, [1]) - mean * mean, 0.0)
        return f.concatenate([mean + middle, f.sqrt(variance)])

    def image(
        self,
        conditions: Array,
        features: Array,
        shower: tuple[Array, tuple[Array, Array] | None],
        v: int,
        i: int,
    ) -> Array:
        """Return expected shares (n, n_cells) of the cells of layer i of view v."""
        z, moved = shower
        layer, k = self.geometry.views[v].layers[i], len(self.plane.widths)
        shift, scale = (None, None) if moved is None else moved
        axis = self.beam.axis(conditions, self.axis_depth((v, i), z), shift)
        kernels = lateral.spread(layer, axis, self.plane.widths, scale)
        if axis[0].shape[-1] > 1:
            kernels = f.total(kernels * DEPTH_WEIGHTS[None, :, None, None], 1)
        kernels = f.reshape(kernels, (k, layer.n_cells))
        hat = self.shape_weights(conditions, features, z)
        weights = f.matmul(hat, self.shapes[v][i].reshape(-1, k))
        image = f.total(kernels * f.reshape(weights, (k, 1)), 1)
        return normalise(f.reshape(image, (layer.n_cells,)))

    def axis_depth(self, place: tuple[int, int], z: Array) -> Array:
        """Return depths (n, m) of the axis in a layer: one, or three with a shower."""
        view = self.geometry.views[place[0]]
        if not all(np.isfinite(layer.middle) for layer in self.geometry.layers):
            return np.zeros((1, 1))
        if view.has_depth or z is None:
            return np.full((1, 1), view.layers[place[1]].middle)
        return f.take(z, [0]) + f.take(z, [1]) * DEPTH_POINTS[None]

    def shape_weights(self, conditions: Array, features: Array, z: Array) -> Array:
        """Return weights (n, nodes * 2) of the tabulated shapes."""
        u = self.beam.log_energy(conditions)
        hat = _hats(u, self.shape_nodes)
        n = len(self.shape_nodes)
        deep = u * 0.0 + 0.5
        if z is not None:
            sigma = f.exp(f.matmul(features, self.depth[:, 1:]))
            pull = (f.take(z, [0]) - f.matmul(features, self.depth[:, :1])) / sigma
            deep = f.maximum(f.minimum(0.5 + 0.25 * pull, 1.0), 0.0)
        both = f.concatenate([1.0 - deep, deep])
        return f.reshape(f.reshape(hat, (n, 1)) * f.reshape(both, (1, 2)), (n * 2,))


def shift_features(beam: Beam, conditions: Array) -> Array:
    """Return 1 and the conditions (n, 1 + c) that move normal numbers."""
    one = beam.column(conditions, "energy") * 0.0 + 1.0
    return f.concatenate([one, *beam.angle_and_others(conditions)])


def table_weights(beam: Beam, conditions: Array, nodes: FloatArray) -> Array:
    """Return weights (n, b) of the tables of a species, interpolated in energy."""
    hat = _hats(beam.log_energy(conditions), nodes)
    if len(beam.species) == 1:
        return hat
    code = beam.column(conditions, "species")
    return f.concatenate([hat * f.near(code, value) for value in beam.species])


def _hats(u: Array, nodes: FloatArray) -> Array:
    """Weights (n, nodes) of linear interpolation, constant beyond the ends."""
    if len(nodes) == 1:
        return u * 0.0 + 1.0
    inside = f.maximum(f.minimum(u, nodes[-1]), nodes[0])
    steps = np.diff(nodes)
    # Shares of the way through each step: a hat is a share minus the next one.
    way = (inside - nodes[None, :-1]) * (1 / steps)[None]
    way = f.maximum(f.minimum(way, 1.0), 0.0)
    n = len(steps)
    difference = np.eye(n, n + 1, 1) - np.eye(n, n + 1)
    return f.matmul(way, difference) + np.eye(1, n + 1)
