"""Multilayer perceptrons, one for each coordinate, whose weights are stacked.

All see the conditions, the pattern and the coordinates before their own; those from
their own on are zero. Stacked, they are one batched product a layer where all
coordinates are known, as in a likelihood.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from pidgan.training.backend import keras, tf
from pidgan.training.networks.nodes import Graph
from pidgan.training.networks.perceptrons import Shape


class CoordinateNetworks:
    """One multilayer perceptron with ReLU layers of one width for each coordinate.

    With skips, pairs of layers are residual blocks as in `networks.residual_network`:
    a likelihood gains by them. Without, an exported graph has fewer operators.
    """

    def __init__(
        self,
        *,
        shape: Shape,
        n_extra: int = 0,
        n_outputs: int,
        width: int,
        layers: int,
        skips: bool,
        seed: int,
    ) -> None:
        """Draw the initial weights.

        Args:
            shape: of the model.
            n_extra: inputs of every network after the coordinates.
            n_outputs: of each network.
            width: of every hidden layer.
            layers: number of hidden layers; odd with skips.
            skips: whether every second layer is added to what it began with.
            seed: of the initial weights.
        """
        self.shape, self.n_extra, self.skips = shape, n_extra, skips
        d = shape.n_targets
        self.n_inputs = shape.n_conditions + shape.n_patterns + d + n_extra
        seeds = keras.random.SeedGenerator(seed)
        scales = [1.0, *[2.0, 0.5] * (layers // 2)] if skips else [2.0] * layers
        sizes = [self.n_inputs, *[width] * layers, n_outputs]
        self.kernels, self.biases = [], []
        layout = zip(sizes[:-1], sizes[1:], [*scales, 0.01], strict=True)
        for n_in, n_out, scale in layout:
            draw = keras.initializers.RandomNormal(
                stddev=(scale / n_in) ** 0.5, seed=seeds
            )
            self.kernels.append(keras.Variable(draw((d, n_in, n_out))))
            self.biases.append(keras.Variable(tf.zeros((d, 1, n_out))))

    @property
    def variables(self) -> list[Any]:
        """Return the weights of all networks, in order."""
        return [*self.kernels, *self.biases]

    def in_double(self) -> "CoordinateNetworks":
        """Return the same networks in double precision, to compare with."""
        double = copy.copy(self)
        double.kernels = [tf.cast(v.value, tf.float64) for v in self.kernels]
        double.biases = [tf.cast(v.value, tf.float64) for v in self.biases]
        return double

    def inputs(self, batch: dict[str, Any]) -> tf.Tensor:
        """Return the inputs of all networks, (n_targets, n, ...), from known rows."""
        d = self.shape.n_targets
        context = tf.concat([batch["x"], batch["pattern"]], axis=1)
        earlier = tf.linalg.band_part(tf.ones((d, d)), -1, 0) - tf.eye(d)
        each = batch["y"][tf.newaxis] * earlier[:, tf.newaxis]
        return tf.concat([tf.tile(context[tf.newaxis], (d, 1, 1)), each], 2)

    def input_of(self, batch: dict[str, Any], earlier: list[tf.Tensor]) -> tf.Tensor:
        """Return the input of the network after some coordinates, (1, n, ...)."""
        zero = tf.zeros_like(batch["x"][:, 0])
        later = [zero] * (self.shape.n_targets - len(earlier))
        y = tf.stack([*earlier, *later], axis=1)
        return tf.concat([batch["x"], batch["pattern"], y], axis=1)[tf.newaxis]

    def __call__(self, inputs: tf.Tensor, *, only: int | None = None) -> tf.Tensor:
        """Return the outputs of all networks, or of one, (networks, n, n_outputs)."""
        rows = slice(None) if only is None else slice(only, only + 1)

        def dense(v: tf.Tensor, layer: int) -> tf.Tensor:
            kernel, bias = self.kernels[layer], self.biases[layer]
            return tf.matmul(v, kernel[rows]) + bias[rows]

        last = len(self.kernels) - 1
        v = dense(inputs, 0)
        if self.skips:
            for layer in range(1, last, 2):
                v += dense(tf.nn.relu(dense(tf.nn.relu(v), layer)), layer + 1)
        else:
            for layer in range(1, last):
                v = dense(tf.nn.relu(v), layer)
        return dense(tf.nn.relu(v), last)

    def write_hidden(
        self,
        graph: Graph,
        j: int,
        known: list[str],
        *,
        extra: str | None = None,
        n_extra: int = 0,
    ) -> str:
        """Append the hidden layers of a network to a graph and return their output.

        Args:
            graph: to append to.
            j: which coordinate.
            known: conditions, perhaps the pattern, and the coordinates before j.
            extra: the first of the extra inputs, the others being zero.
            n_extra: how many these are.
        """
        first = self.n_inputs - self.n_extra
        n_known = first - self.shape.n_targets + j
        kept = [*range(n_known), *range(first, first + n_extra)]
        names = [*known, *([] if extra is None else [extra])]
        v = graph.add("Concat", *names, axis=1) if len(names) > 1 else names[0]

        def dense(v: str, layer: int, rows: Any = slice(None)) -> str:
            kernel, bias = self.weights(layer, j)
            return graph.add(
                "Gemm", v, graph.constant(kernel[rows]), graph.constant(bias)
            )

        last = len(self.kernels) - 1
        v = dense(v, 0, kept)
        if self.skips:
            for layer in range(1, last, 2):
                hidden = graph.add("Relu", dense(graph.add("Relu", v), layer))
                v = graph.add("Add", v, dense(hidden, layer + 1))
        else:
            for layer in range(1, last):
                v = dense(graph.add("Relu", v), layer)
        return graph.add("Relu", v)

    def weights(self, layer: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Return kernel and bias of a layer of network j; layer -1 gives outputs."""
        return self.kernels[layer].numpy()[j], self.biases[layer].numpy()[j, 0]


def known_rows(
    shape: Shape, inputs: dict[str, Any], *, dtype: tf.DType = tf.float32
) -> dict[str, Any]:
    """Return "x", "pattern" and "free" of a batch, from the inputs of a generator."""
    x = tf.cast(inputs["conditions"], dtype)
    free = tf.constant(_free(shape), dtype)
    if not shape.n_patterns:
        n = tf.shape(x)[0]
        return {"x": x, "pattern": x[:, :0], "free": tf.tile(free, (n, 1))}
    pattern = tf.cast(inputs["pattern"], dtype)
    return {"x": x, "pattern": pattern, "free": tf.matmul(pattern, free)}


def write_free(graph: Graph, shape: Shape, inputs: dict[str, str]) -> str | None:
    """Append 1 for each coordinate that is continuous; None where all always are."""
    free = _free(shape)
    if shape.n_patterns:
        return graph.add("MatMul", inputs["pattern"], graph.constant(free))
    if free.all():
        return None
    zero = graph.columns(inputs["conditions"], 0, 1)
    zero = graph.add("Mul", zero, graph.constant(0.0))
    return graph.add("Add", zero, graph.constant(free))


def write_in_turn(
    graph: Graph,
    shape: Shape,
    inputs: dict[str, str],
    free: str | None,
    write: Callable[[int, list[str]], str],
) -> str:
    """Append one coordinate after the other to a graph and return their name.

    Args:
        graph: to append to.
        shape: of the model.
        inputs: names of "conditions" and perhaps "pattern".
        free: of `write_free`.
        write: appends coordinate j, given j and the names of what comes before it.
    """
    known = [inputs[k] for k in ("conditions", "pattern") if k in inputs]
    first = len(known)
    for j in range(shape.n_targets):
        y = write(j, known)
        if free is not None:
            y = graph.add("Mul", y, graph.columns(free, j, j + 1))
        known = [*known, y]
    made = known[first:]
    return graph.add("Concat", *made, axis=1) if len(made) > 1 else made[0]


def _free(shape: Shape) -> np.ndarray:
    """Return `Shape.free` as numbers, (n_patterns, n_targets)."""
    return np.array(shape.free or ((1,) * shape.n_targets,), dtype=np.float32)
