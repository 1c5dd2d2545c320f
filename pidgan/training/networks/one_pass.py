"""The one-pass generator: one small network for each coordinate, in turn.

    y_j = a_j + (1 + b_j) z_j,   (a_j, b_j) a function of (x, pattern, y_<j, z_<=j).

An autoregressive teacher gives each network a function of one number of noise, z_j, at
known earlier coordinates. These say all that the teacher needs to know; but where one
of them hardly varies, what comes after it depends steeply on it, and rounding would
grow from network to network. So the networks are taught with coordinates that are off
by a little, and see the noise that made them for what this hides.
"""

from typing import Any

import numpy as np

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.training.backend import tf
from pidgan.training.networks.per_coordinate import (
    CoordinateNetworks,
    free_coordinates,
    in_turn,
)
from pidgan.training.networks.perceptrons import Shape

# Noise of a real row beyond this is that of a row which the teacher does not know.
MAX_NOISE = 5.0
# Standard deviation by which the known coordinates are off while they are taught.
JITTER = 0.02


class OnePassGenerator:
    """From conditions, pattern and one number of noise a coordinate to coordinates."""

    def __init__(self, *, shape: Shape, width: int, layers: int, seed: int) -> None:
        self.shape = shape
        self.networks = CoordinateNetworks(
            shape=shape,
            n_extra=shape.n_targets,
            n_outputs=2,
            width=width,
            layers=layers,
            skips=False,
            seed=seed,
        )
        self.variables: list[Any] = self.networks.variables

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """Return the coordinates, (n, n_targets), zero on atoms."""
        noise = inputs["noise"]
        free = free_coordinates(self.shape, inputs)
        seen = _bounded(noise) if free is None else _bounded(noise) * free

        def make(j: int, known: list[Array]) -> Array:
            v = self.networks.hidden(j, known, [f.columns(seen, 0, j + 1)])
            offset = np.array([0, 1], dtype=np.float32)
            outputs = f.affine(v, *self.networks.weights(-1, j), offset)
            shift, scale = (f.columns(outputs, i, i + 1) for i in (0, 1))
            return shift + scale * f.columns(noise, j, j + 1)

        return in_turn(self.shape, inputs, free, make)

    def respond(
        self, batch: dict[str, Any], earlier: tf.Tensor, z: tf.Tensor, seed: Any
    ) -> tf.Tensor:
        """Return y_j(z_j) of every coordinate, (n_targets, n), at known earlier ones.

        These have the noise `earlier` (n, n_targets), and are shifted a little with a
        seed.
        """
        d, free = self.shape.n_targets, batch["free"]
        shift = tf.random.stateless_normal(tf.shape(free), seed, stddev=JITTER)
        known = self.networks.inputs({**batch, "y": batch["y"] + shift * free})
        own = tf.eye(d)[:, tf.newaxis]
        before = tf.linalg.band_part(tf.ones((d, d)), -1, 0)[:, tf.newaxis] - own
        seen = _bounded(earlier) * free * before + tf.transpose(z) * own
        outputs = self.networks(tf.concat([known, seen], 2))
        shift, stretch = tf.unstack(outputs, axis=-1)
        return shift + (1 + stretch) * z


def _bounded(noise: Array) -> Array:
    return f.clip(noise, -MAX_NOISE, MAX_NOISE)
