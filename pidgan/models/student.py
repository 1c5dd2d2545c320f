"""The one-pass generator: one small network for each coordinate, in turn.

    y_j = a_j + (1 + b_j) z_j,   (a_j, b_j) a function of (x, pattern, y_<j, z_j).

A network of one coordinate has to learn a function of one number of noise, which an
autoregressive teacher gives it for rows whose earlier coordinates are known. A single
network for all would have to learn how these functions are nested as well.
"""

from typing import Any

import numpy as np

from pidgan.models.backend import tf
from pidgan.models.coordinates import CoordinateNetworks, known_rows, write_in_turn
from pidgan.models.networks import Shape
from pidgan.models.nodes import Graph


class AutoregressiveGenerator:
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
        noise = tf.convert_to_tensor(inputs["noise"])
        y: list[tf.Tensor] = []
        for j in range(self.shape.n_targets):
            z = noise[tf.newaxis, :, j]
            value = self.respond(self.networks.input_of(batch, y), z, only=j)[0]
            y.append(value * batch["free"][:, j])
        return tf.stack(y, axis=1)

    def respond(
        self, inputs: tf.Tensor, z: tf.Tensor, *, only: int | None = None
    ) -> tf.Tensor:
        """Return y_j(z_j) of every coordinate, or one, at known earlier ones.

        Args:
            inputs: (networks, n, ...), from `CoordinateNetworks`.
            z: (networks, n).
            only: the coordinate, where it is one.
        """
        outputs = self.networks(tf.concat([inputs, z[..., tf.newaxis]], 2), only=only)
        shift, stretch = tf.unstack(outputs, axis=-1)
        return shift + (1 + stretch) * z

    def write_onnx(self, graph: Graph, inputs: dict[str, str]) -> str:
        """Append the networks to a graph."""

        def write(j: int, known: list[str]) -> str:
            z = graph.columns(inputs["noise"], j, j + 1)
            v = self.networks.write_hidden(graph, j, known, z)
            kernel, bias = self.networks.weights(-1, j)
            bias = bias + np.array([0, 1], dtype=np.float32)
            v = graph.add("Gemm", v, graph.constant(kernel), graph.constant(bias))
            shift, scale = (graph.columns(v, i, i + 1) for i in (0, 1))
            return graph.add("Add", shift, graph.add("Mul", scale, z))

        return write_in_turn(graph, self.shape, inputs, write)
