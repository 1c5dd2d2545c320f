"""Slices of the depth, in which the longitudinal profile of a shower is integrated.

The profile is that of E. Longo and I. Sestili, Nucl. Instr. Meth. 128 (1975) 283:
f(z) ~ (z / T)^(a - 1) exp(-(a - 1) z / T), with its maximum at the depth T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special

from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.calorimeter.geometry import Geometry, View
from pidgan.calorimeter.observables import layer_energies
from pidgan.training.classical.lateral_profile import normalise

MIN_SLICES = 16
"""Smallest number of slices: a shower is a few of them wide."""

PLANE_SLICES = 12
"""Number of depths, each with its own axis, that fill a layer with the whole shower."""

UNKNOWN_SHAPE = 3.0
"""Parameter a of the average shower, where positions of layers are unknown."""

# Points and weights of the integral over a slice.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Slices of the depth, and the layers that they belong to.

    Attributes:
        nodes: Depths (s, 3) at which the profile is evaluated, mm.
        steps: Weights (s, 3) of these depths in the integral, mm.
        z: Middle (s,) of each slice, mm; 0 if positions are unknown.
        layers: Number (s,) of the layer of each slice, by view.
    """

    nodes: FloatArray
    steps: FloatArray
    z: FloatArray
    layers: tuple[IntArray, ...]

    def shares(self, peak: Array, shape: Array) -> Array:
        """Return shares (n, s) of the slices: integrals of f(z) with the sum 1.

        Args:
            peak: Depth T (n, 1) of the maximum, mm.
            shape: Parameter a - 1 (n, 1).
        """
        ratio = self.nodes.reshape(1, -1) / peak
        density = f.exp(shape * (f.log(ratio) - ratio + 1.0))
        n = len(self.nodes)
        integral = np.repeat(np.eye(n), self.nodes.shape[1], axis=0)
        return normalise(f.matmul(density, integral * self.steps.reshape(-1, 1)))

    def in_layers(self, slices: Array, v: int) -> Array:
        """Return shares (n, layers) of the layers of a view from shares of slices."""
        layers = self.layers[v]
        return f.matmul(slices, np.eye(int(layers.max()) + 1)[layers])

    def groups(
        self, view: View, place: tuple[int, int]
    ) -> tuple[FloatArray, FloatArray]:
        """Return depths (g,) at which a layer is filled, and their slices (s, g).

        A layer that holds the whole shower is filled at up to `PLANE_SLICES` depths,
        another layer at its middle.

        Args:
            view: View of the layer.
            place: Number of the view, and of the layer in it.
        """
        v, i = place
        own = np.flatnonzero(self.layers[v] == i)
        n = 1 if view.has_depth else min(PLANE_SLICES, len(own))
        group = np.arange(len(own)) * n // len(own)
        matrix = np.zeros((len(self.z), n))
        matrix[own, group] = 1
        return self.z @ (matrix / matrix.sum(axis=0)), matrix


def fit_depth(geometry: Geometry, views: Sequence[FloatArray]) -> Depth | None:
    """Return slices of the depth, None if no view has layers.

    Args:
        geometry: Geometry, whose first view with layers determines the slices.
        views: Energies (n, n_cells) of the cells, by view.
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
