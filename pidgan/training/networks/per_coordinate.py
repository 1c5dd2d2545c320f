"""Multilayer perceptrons, one for each coordinate, and the one-pass generator.

All see the conditions, the pattern and the coordinates before their own; those from
their own on are zero. Stacked, they are one batched product a layer where all
coordinates are known, as in a likelihood. The one-pass generator makes, in turn,

    y_j = a_j + (1 + b_j) z_j,   (a_j, b_j) a function of (x, pattern, y_<j, z_<=j).

An autoregressive teacher gives each network a function of one number of noise, z_j, at
known earlier coordinates. These say all that the teacher needs to know; but where one
of them hardly varies, what comes after it depends steeply on it, and rounding would
grow from network to network. So the networks are taught with coordinates that are off
by a little, and see the noise that made them for what this hides.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.training.backend import keras, tf
from pidgan.training.networks import draws
from pidgan.training.networks.perceptrons import Shape


class CoordinateNetworks:
    """One multilayer perceptron with ReLU layers of one width for each coordinate.

    Skips make residual blocks of pairs of layers, whose number is odd then; a
    likelihood gains by them. An exported graph without skips has fewer operators.
    `n_extra` inputs of every network come after the coordinates.
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

    def inputs(self, batch: dict[str, Any]) -> tf.Tensor:
        """Return the inputs of all networks, (n_targets, n, ...), from known rows."""
        d = self.shape.n_targets
        context = tf.concat([batch["x"], batch["pattern"]], axis=1)
        earlier = tf.linalg.band_part(tf.ones((d, d)), -1, 0) - tf.eye(d)
        each = batch["y"][tf.newaxis] * earlier[:, tf.newaxis]
        return tf.concat([tf.tile(context[tf.newaxis], (d, 1, 1)), each], 2)

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the outputs of all networks, (n_targets, n, n_outputs)."""

        def dense(v: tf.Tensor, layer: int) -> tf.Tensor:
            return tf.matmul(v, self.kernels[layer]) + self.biases[layer]

        last = len(self.kernels) - 1
        return dense(self._hidden(dense(inputs, 0), dense), last)

    def hidden(self, j: int, known: list[Array], extra: Sequence[Array] = ()) -> Array:
        """Return the last hidden values of network j, (n, width).

        Known are conditions, perhaps the pattern, and the coordinates before j; of the
        extra inputs the first may be given, others are zero.
        """
        joined = f.concatenate([*known, *extra])
        first = self.n_inputs - self.n_extra
        n_known = first - self.shape.n_targets + j
        n_extra = joined.shape[-1] - n_known
        kernel, bias = self.weights(0, j)
        rows = [kernel[:n_known], kernel[first : first + n_extra]]
        kernel = tf.concat(rows, axis=0) if n_extra else rows[0]

        def dense(v: Array, layer: int) -> Array:
            return f.affine(v, *self.weights(layer, j))

        return self._hidden(f.affine(joined, kernel, bias), dense)

    def _hidden(self, v: Array, dense: Callable[[Array, int], Array]) -> Array:
        """Return what the last layer sees, from the output of the first one."""
        last = len(self.kernels) - 1
        if self.skips:
            for layer in range(1, last, 2):
                v = v + dense(f.relu(dense(f.relu(v), layer)), layer + 1)
        else:
            for layer in range(1, last):
                v = dense(f.relu(v), layer)
        return f.relu(v)

    def weights(self, layer: int, j: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Return kernel and bias of a layer of network j; layer -1 gives outputs."""
        return self.kernels[layer][j], self.biases[layer][j, 0]


def free_coordinates(shape: Shape, inputs: dict[str, Array]) -> Array | None:
    """Return 1 for each coordinate that is continuous; None where all always are."""
    everywhere = (1,) * shape.n_targets
    free = np.array(shape.free or (everywhere,), dtype=np.float32)
    if shape.n_patterns:
        return f.matmul(inputs["pattern"], free)
    if free.all():
        return None
    zero = f.columns(inputs["conditions"], 0, 1) * 0.0
    return zero + f.like(zero, free)


def in_turn(
    shape: Shape,
    inputs: dict[str, Array],
    free: Array | None,
    make: Callable[[int, list[Array]], Array],
) -> Array:
    """Return coordinates (n, n_targets), made one after the other.

    `make` returns coordinate j, (n, 1), given j and all before it; where `free` is 0,
    it becomes zero.
    """
    known = [inputs[k] for k in ("conditions", "pattern") if k in inputs]
    first = len(known)
    for j in range(shape.n_targets):
        y = make(j, known)
        if free is not None:
            y = y * f.columns(free, j, j + 1)
        known = [*known, y]
    return f.concatenate(known[first:])


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
            shift, scale = self._line(j, known, [f.columns(seen, 0, j + 1)])
            return shift + scale * f.columns(noise, j, j + 1)

        return in_turn(self.shape, inputs, free, make)

    def coordinate(
        self, j: int, known: list[Array], earlier: Sequence[Array], z: Array
    ) -> Array:
        """Return coordinate j (n, 1) as a function of its own number of noise.

        Known are conditions, perhaps the pattern, and the coordinates before j, each
        with the noise that made it.
        """
        shift, scale = self._line(j, known, [*map(_bounded, [*earlier, z])])
        return shift + scale * z

    def _line(
        self, j: int, known: list[Array], seen: Sequence[Array]
    ) -> tuple[Array, Array]:
        """Return a_j and 1 + b_j, (n, 1) each."""
        v = self.networks.hidden(j, known, seen)
        offset = np.array([0, 1], dtype=np.float32)
        outputs = f.affine(v, *self.networks.weights(-1, j), offset)
        return f.columns(outputs, 0, 1), f.columns(outputs, 1, 2)

    def respond(
        self, batch: dict[str, Any], earlier: tf.Tensor, z: tf.Tensor, seed: Any
    ) -> tf.Tensor:
        """Return y_j(z_j) of every coordinate, (n_targets, n), at known earlier ones.

        These have the noise `earlier` (n, n_targets), and are shifted a little with a
        seed.
        """
        d, free = self.shape.n_targets, batch["free"]
        shift = draws.normal(tf.shape(free), seed, stddev=JITTER)
        known = self.networks.inputs({**batch, "y": batch["y"] + shift * free})
        own = tf.eye(d)[:, tf.newaxis]
        before = tf.linalg.band_part(tf.ones((d, d)), -1, 0)[:, tf.newaxis] - own
        seen = _bounded(earlier) * free * before + tf.transpose(z) * own
        outputs = self.networks(tf.concat([known, seen], 2))
        shift, stretch = tf.unstack(outputs, axis=-1)
        return shift + (1 + stretch) * z


def _bounded(noise: Array) -> Array:
    return f.clip(noise, -MAX_NOISE, MAX_NOISE)
