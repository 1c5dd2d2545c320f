"""Conditional autoregressive neural spline flow, trained by maximum likelihood.

p(y | x) = prod_j p(y_j | x, y_1 ... y_j-1), each factor a normal distribution seen
through a shift, a scale and a monotonic spline (`pidgan.models.splines`), which a
network gives:

    u_j = S((y_j - m_j) exp(-s_j); theta_j),   u_j ~ N(0, 1),

with (m_j, s_j, theta_j) a function of (x, pattern, y_<j).

Coordinates on an atom are zero and take no part. The networks of all coordinates are
alike and see the same inputs, with the later coordinates set to zero; their weights
are stacked, so that a likelihood is one batched product a layer.
"""

from typing import Any

from pidgan.models.backend import keras, tf
from pidgan.models.networks import Shape
from pidgan.models.splines import n_parameters, spline


class SplineFlow:
    """Density of the coordinates given conditions and pattern."""

    def __init__(
        self, *, shape: Shape, width: int, blocks: int, bins: int, seed: int
    ) -> None:
        """Build one residual network for each coordinate (`residual_network`)."""
        self.n_targets = d = shape.n_targets
        seeds = keras.random.SeedGenerator(seed)
        n_inputs = shape.n_conditions + shape.n_patterns + d
        sizes = [(n_inputs, width, 1.0)]
        sizes += [(width, width, scale) for _ in range(blocks) for scale in (2.0, 0.5)]
        sizes += [(width, 2 + n_parameters(bins), 0.01)]
        self.kernels, self.biases = [], []
        for n_in, n_out, scale in sizes:
            draw = keras.initializers.RandomNormal(
                stddev=(scale / n_in) ** 0.5, seed=seeds
            )
            self.kernels.append(keras.Variable(draw((d, n_in, n_out))))
            self.biases.append(keras.Variable(tf.zeros((d, 1, n_out))))

    @property
    def variables(self) -> list[Any]:
        """Return the weights of all networks, in order."""
        return [*self.kernels, *self.biases]

    def loss(self, batch: dict[str, Any]) -> tf.Tensor:
        """Return the weighted mean of -log p(y | x, pattern).

        The weights must not be negative: the likelihood has no bound.
        """
        y = batch["y"]
        context = tf.concat([batch["x"], batch["pattern"]], axis=1)
        earlier = tf.linalg.band_part(tf.ones((self.n_targets,) * 2), -1, 0)
        earlier -= tf.eye(self.n_targets)
        inputs = [
            tf.tile(context[tf.newaxis], (self.n_targets, 1, 1)),
            y[tf.newaxis] * earlier[:, tf.newaxis],
        ]
        shift, log_scale, parameters = _split(self._parameters(tf.concat(inputs, 2)))
        v = (tf.transpose(y) - shift) * tf.exp(-log_scale)
        u, log_derivative = spline(v, parameters)
        each = 0.5 * tf.square(u) - log_derivative + log_scale
        each *= tf.transpose(batch["free"])
        return tf.reduce_mean(batch["positive_w"] * tf.reduce_sum(each, axis=0))

    def generate(self, batch: dict[str, Any], u: tf.Tensor) -> tf.Tensor:
        """Return the coordinates that noise (n, n_targets) is the image of."""
        context = tf.concat([batch["x"], batch["pattern"]], axis=1)
        y: list[tf.Tensor] = []
        for j in range(self.n_targets):
            later = [tf.zeros_like(u[:, 0])] * (self.n_targets - j)
            inputs = tf.concat([context, tf.stack(y + later, axis=1)], axis=1)
            shift, log_scale, parameters = _split(
                self._parameters(inputs[tf.newaxis], only=j)[0]
            )
            v, _ = spline(u[:, j], parameters, inverse=True)
            y.append((shift + tf.exp(log_scale) * v) * batch["free"][:, j])
        return tf.stack(y, axis=1)

    def _parameters(self, inputs: tf.Tensor, *, only: int | None = None) -> tf.Tensor:
        """Return spline parameters, from inputs (n_networks, n, n_inputs)."""
        rows = slice(None) if only is None else slice(only, only + 1)

        def dense(v: tf.Tensor, layer: int) -> tf.Tensor:
            kernel, bias = self.kernels[layer], self.biases[layer]
            return tf.matmul(v, kernel[rows]) + bias[rows]

        v = dense(inputs, 0)
        for layer in range(1, len(self.kernels) - 1, 2):
            v += dense(tf.nn.relu(dense(tf.nn.relu(v), layer)), layer + 1)
        return dense(tf.nn.relu(v), len(self.kernels) - 1)


def _split(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return shift, logarithm of the scale (bounded) and parameters of the spline."""
    return outputs[..., 0], 4 * tf.tanh(outputs[..., 1] / 4), outputs[..., 2:]
