"""Observables that a critic sees of a shower, beside its coordinates.

A critic of cells alone does not see the distribution of energies, nor where a shower
lies (ATLAS, ATL-SOFT-PUB-2020-006; CMS, Erdmann et al., arXiv:1807.01954). So these are
computed from the coordinates, as `CellTransform.inverse` does, in a way that gradients
pass through. They are shown to the critic, or drawn towards those of real showers by

    sum_o (mean_g o - mean_r o)^2 + (std_g o - std_r o)^2,

in units of the standard deviation of each observable o over real showers of a batch.
"""

from typing import Any

import numpy as np

from pidgan.bundle import formulas as f
from pidgan.calorimeter.geometry import Geometry
from pidgan.errors import PidganError, nearest
from pidgan.training.backend import tf
from pidgan.training.targets.cells import ALONE, CellTransform

OBSERVABLES = ("total", "layers", "centre", "width")
"""Names of observables: the total; the share of each layer in its view; for each view
the mean position in x, y and z, and the standard deviations."""

SMALL = 1e-6


class Observables:
    """Observables of showers as a function of their coordinates."""

    def __init__(
        self, transform: CellTransform, geometry: Geometry, names: tuple[str, ...]
    ) -> None:
        for name in names:
            if name not in OBSERVABLES:
                raise PidganError(
                    f"no observable {name!r}; there are {', '.join(OBSERVABLES)}"
                    + nearest(name, OBSERVABLES)
                )
        self.transform, self.names = transform, names
        centres = np.nan_to_num(np.asarray(geometry.centres))
        centres = centres - centres.mean(axis=0)
        spread = np.maximum(centres.std(axis=0), SMALL)
        self.positions = tf.constant(centres / spread, dtype=tf.float32)
        self.varies = centres.std(axis=0) > 0
        self.slices = list(geometry.view_slices.values())
        layer = np.asarray(geometry.layer_index)
        self.in_layer = tf.one_hot(layer, int(layer.max()) + 1)

    def __call__(self, coordinates: tf.Tensor) -> tf.Tensor:
        """Return (n, n_observables)."""
        cells = self.cells(coordinates)
        found = []
        total = tf.reduce_sum(cells[:, self.slices[0]], axis=1, keepdims=True)
        if "total" in self.names:
            found.append(total)
        if "layers" in self.names:
            layers = tf.matmul(cells, self.in_layer)
            found.append(layers / tf.maximum(total, SMALL))
        for part in self.slices if {"centre", "width"} & set(self.names) else ():
            energy = cells[:, part]
            share = energy / tf.maximum(
                tf.reduce_sum(energy, axis=1, keepdims=True), SMALL
            )
            at = tf.boolean_mask(self.positions[part], self.varies, axis=1)
            centre = tf.matmul(share, at)
            if "centre" in self.names:
                found.append(centre)
            if "width" in self.names:
                square = tf.matmul(share, tf.square(at)) - tf.square(centre)
                found.append(tf.sqrt(tf.maximum(square, SMALL)))
        return tf.concat(found, axis=1)

    def cells(self, z: tf.Tensor) -> tf.Tensor:
        """Return cells (n, n_cells) over the incident energy."""
        t, z = self.transform, f.turn(z)
        quantity = f.where(f.at_most(z, t.edge[:, None]), 0.0, t.quantities(z))
        if (t.group != ALONE).any():
            whole = t.sums(quantity)
            quantity = quantity / f.maximum(whole, SMALL)
        return f.turn(t.products(quantity))


def standardise(*observables: Any) -> list[tf.Tensor]:
    """Return observables in units of mean and deviation of the first, real ones."""
    mean, variance = tf.nn.moments(observables[0], axes=[0])
    scale = tf.stop_gradient(tf.sqrt(variance + SMALL))
    return [(o - tf.stop_gradient(mean)) / scale for o in observables]


def constraint(real: tf.Tensor, generated: tf.Tensor) -> tf.Tensor:
    """Return the squared differences of means and deviations, see the module."""
    mean_r, variance_r = tf.nn.moments(real, axes=[0])
    mean_g, variance_g = tf.nn.moments(generated, axes=[0])
    difference = tf.sqrt(variance_g + SMALL) - tf.sqrt(variance_r + SMALL)
    return tf.reduce_sum(tf.square(mean_g - mean_r) + tf.square(difference))
