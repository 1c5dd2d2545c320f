"""The one-pass generator: one small network for each coordinate, all at once.

    y_j = a_j + (1 + b_j) z_j,   (a_j, b_j) a function of (x, pattern, z_<j, z_j).

An autoregressive teacher gives each network a function of one number of noise, z_j, at
known earlier ones. The networks see the noise of the earlier coordinates and not these
coordinates: where a coordinate hardly varies, what comes after it depends steeply on
it, and rounding would grow from network to network.
"""

from typing import Any

import numpy as np

from pidgan.models.backend import tf
from pidgan.models.coordinates import CoordinateNetworks, known_rows, write_free
from pidgan.models.networks import Shape
from pidgan.models.nodes import Graph

# Noise of a real row beyond this is that of a row which the teacher does not know.
MAX_NOISE = 5.0


class ParallelGenerator:
    """From conditions, pattern and one number of noise a coordinate to coordinates."""

    def __init__(self, *, shape: Shape, width: int, blocks: int, seed: int) -> None:
        """Build one residual network for each coordinate."""
        self.shape = shape
        self.networks = CoordinateNetworks(
            shape=shape, n_extra=1, n_outputs=2, width=width, blocks=blocks, seed=seed
        )
        self.variables: list[Any] = self.networks.variables

    def __call__(self, inputs: dict[str, Any]) -> tf.Tensor:
        """Return the coordinates, (n, n_targets), zero on atoms."""
        batch = known_rows(self.shape, inputs)
        noise = tf.cast(inputs["noise"], tf.float32)
        y = self.respond(batch, noise, tf.transpose(noise))
        return tf.transpose(y) * batch["free"]

    def respond(
        self, batch: dict[str, Any], earlier: tf.Tensor, z: tf.Tensor
    ) -> tf.Tensor:
        """Return y_j(z_j) of every coordinate at the noise of the earlier ones.

        Args:
            batch: "x", "pattern" and "free".
            earlier: (n, n_targets), of which network j sees the first j columns.
            z: (n_targets, n).

        Returns:
            (n_targets, n).
        """
        seen = tf.clip_by_value(earlier, -MAX_NOISE, MAX_NOISE) * batch["free"]
        inputs = self.networks.inputs({**batch, "y": seen})
        outputs = self.networks(tf.concat([inputs, z[..., tf.newaxis]], 2))
        shift, stretch = tf.unstack(outputs, axis=-1)
        return shift + (1 + stretch) * z

    def write_onnx(self, graph: Graph, inputs: dict[str, str]) -> str:
        """Append the networks to a graph."""
        bounds = graph.constant(-MAX_NOISE), graph.constant(MAX_NOISE)
        seen = graph.add("Clip", inputs["noise"], *bounds)
        free = write_free(graph, self.shape, inputs)
        if free is not None:
            seen = graph.add("Mul", seen, free)
        context = [inputs[k] for k in ("conditions", "pattern") if k in inputs]
        made = []
        for j in range(self.shape.n_targets):
            z = graph.columns(inputs["noise"], j, j + 1)
            known = [*context, *([graph.columns(seen, 0, j)] if j else [])]
            v = self.networks.write_hidden(graph, j, known, z)
            kernel, bias = self.networks.weights(-1, j)
            bias = bias + np.array([0, 1], dtype=np.float32)
            v = graph.add("Gemm", v, graph.constant(kernel), graph.constant(bias))
            shift, scale = (graph.columns(v, i, i + 1) for i in (0, 1))
            made.append(graph.add("Add", shift, graph.add("Mul", scale, z)))
        y = graph.add("Concat", *made, axis=1) if len(made) > 1 else made[0]
        return y if free is None else graph.add("Mul", y, free)
