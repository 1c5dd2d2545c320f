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

from pidgan.training.backend import tf
from pidgan.training.networks.nodes import Graph
from pidgan.training.networks.per_coordinate import (
    CoordinateNetworks,
    known_rows,
    write_free,
    write_in_turn,
)
from pidgan.training.networks.perceptrons import Shape

# Noise of a real row beyond this is that of a row which the teacher does not know.
MAX_NOISE = 5.0
# Standard deviation by which the known coordinates are off while they are taught.
JITTER = 0.02


class OnePassGenerator:
    """From conditions, pattern and one number of noise a coordinate to coordinates."""

    def __init__(self, *, shape: Shape, width: int, layers: int, seed: int) -> None:
        """Build one network for each coordinate."""
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

    def __call__(self, inputs: dict[str, Any]) -> tf.Tensor:
        """Return the coordinates, (n, n_targets), zero on atoms."""
        batch = known_rows(self.shape, inputs)
        noise = tf.cast(inputs["noise"], tf.float32)
        seen = _bounded(noise) * batch["free"]
        d = self.shape.n_targets
        y: list[tf.Tensor] = []
        for j in range(d):
            so_far = tf.pad(seen[:, : j + 1], ((0, 0), (0, d - j - 1)))
            known = self.networks.input_of(batch, y)
            outputs = self.networks(tf.concat([known, so_far[tf.newaxis]], 2), only=j)
            shift, stretch = tf.unstack(outputs[0], axis=-1)
            y.append((shift + (1 + stretch) * noise[:, j]) * batch["free"][:, j])
        return tf.stack(y, axis=1)

    def respond(
        self, batch: dict[str, Any], earlier: tf.Tensor, z: tf.Tensor, seed: Any
    ) -> tf.Tensor:
        """Return y_j(z_j) of every coordinate, at known earlier ones.

        Args:
            batch: "x", "pattern", "free" and the coordinates "y".
            earlier: the noise of these, (n, n_targets).
            z: (n_targets, n).
            seed: of the small shifts of the known coordinates.

        Returns:
            (n_targets, n).
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

    def write_onnx(self, graph: Graph, inputs: dict[str, str]) -> str:
        """Append the networks to a graph."""
        bounds = graph.constant(-MAX_NOISE), graph.constant(MAX_NOISE)
        bounded = graph.add("Clip", inputs["noise"], *bounds)
        free = write_free(graph, self.shape, inputs)
        seen = bounded if free is None else graph.add("Mul", bounded, free)

        def write(j: int, known: list[str]) -> str:
            extra = graph.columns(seen, 0, j + 1)
            v = self.networks.write_hidden(graph, j, known, extra=extra, n_extra=j + 1)
            kernel, bias = self.networks.weights(-1, j)
            bias = bias + np.array([0, 1], dtype=np.float32)
            v = graph.add("Gemm", v, graph.constant(kernel), graph.constant(bias))
            shift, scale = (graph.columns(v, i, i + 1) for i in (0, 1))
            z = graph.columns(inputs["noise"], j, j + 1)
            return graph.add("Add", shift, graph.add("Mul", scale, z))

        return write_in_turn(graph, self.shape, inputs, free, write)


def _bounded(noise: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(noise, -MAX_NOISE, MAX_NOISE)
