"""Conditional autoregressive neural spline flow, trained by maximum likelihood.

p(y | x) = prod_j p(y_j | x, y_1 ... y_j-1), each factor a normal distribution seen
through a shift, a scale and a monotonic spline (`pidgan.training.networks.splines`),
which a network gives:

    u_j = S((y_j - m_j) exp(-s_j); theta_j),   u_j ~ N(0, 1),

with (m_j, s_j, theta_j) a function of (x, pattern, y_<j).

Coordinates on an atom are zero and take no part.
"""

from typing import Any

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.bundle.graph_values import Traced
from pidgan.training.backend import tf
from pidgan.training.networks import splines
from pidgan.training.networks.per_coordinate import (
    CoordinateNetworks,
    free_coordinates,
    in_turn,
)
from pidgan.training.networks.perceptrons import Shape

# Weight decays are those for so many rows; for n rows they are larger by
# (DECAY_ROWS / n)^DECAY_POWER. The best ones of 500 to 300,000 rows follow this power
# (docs/explanation/recipe.md).
DECAY_ROWS = 300_000
DECAY_POWER = 0.75


class SplineFlow:
    """Density of the coordinates given conditions and pattern."""

    def __init__(
        self, *, shape: Shape, width: int, blocks: int, bins: int, seed: int
    ) -> None:
        self.n_targets = shape.n_targets
        self.networks = CoordinateNetworks(
            shape=shape,
            n_outputs=2 + splines.n_parameters(bins),
            width=width,
            layers=1 + 2 * blocks,
            skips=True,
            seed=seed,
        )

    @property
    def variables(self) -> list[Any]:
        """Return the weights of all networks, in order."""
        return self.networks.variables

    def loss(self, batch: dict[str, Any]) -> tf.Tensor:
        """Return the weighted mean of -log p(y | x, pattern); no weight is negative."""
        each = self.loss_of_each(batch) * tf.transpose(batch["free"])
        return tf.reduce_mean(batch["positive_w"] * tf.reduce_sum(each, axis=0))

    def loss_of_each(self, batch: dict[str, Any]) -> tf.Tensor:
        """Return -log p of each coordinate (n_targets, n), less log(2 pi) / 2."""
        _, log_scale, u, log_derivative = self._noise(batch)
        return 0.5 * tf.square(u) - log_derivative + log_scale

    def respond(
        self, batch: dict[str, Any], u: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return y_j(u_j) and dy_j / du_j at the real earlier ones, and their noise.

        All are (n_targets, n), but for the noise of the real rows, (n, n_targets).
        """
        outputs, _, own, _ = self._noise(batch)
        shift, log_scale, parameters = _split(outputs)
        v, log_derivative = splines.spline(u, parameters, inverse=True)
        slope = tf.exp(log_scale - log_derivative)
        return shift + tf.exp(log_scale) * v, slope, tf.transpose(own)

    def _noise(self, batch: dict[str, Any]) -> tuple[tf.Tensor, ...]:
        """Return outputs and log s of real rows, their noise and log |du / dv|."""
        outputs = self.networks(self.networks.inputs(batch))
        shift, log_scale, parameters = _split(outputs)
        v = (tf.transpose(batch["y"]) - shift) * tf.exp(-log_scale)
        return outputs, log_scale, *splines.spline(v, parameters)


class FlowGenerator:
    """A spline flow as a function of conditions, pattern and noise.

    Arrays are evaluated in double precision: rounding grows through several networks.
    """

    def __init__(self, flow: SplineFlow, shape: Shape) -> None:
        self.flow, self.shape = flow, shape
        self.n_bins = (flow.networks.kernels[-1].shape[-1] - 1) // 3
        self.variables: list[Any] = list(flow.variables)

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """Return the coordinates that the noise is the image of."""
        # A bundle may not hold splines in double precision.
        if not isinstance(inputs["noise"], Traced):
            inputs = {name: f.precise(value) for name, value in inputs.items()}

        def make(j: int, known: list[Array]) -> Array:
            v = self.flow.networks.hidden(j, known)
            shift, log_scale, widths, heights, slopes = self._outputs(v, j)
            u = f.columns(inputs["noise"], j, j + 1)
            image, _, _ = splines.back(u, widths, heights, splines.slopes_from(slopes))
            return shift + f.exp(_bounded(log_scale)) * image

        free = free_coordinates(self.shape, inputs)
        made = in_turn(self.shape, inputs, free, make)
        return f.with_precision(made, double=False)

    def noise_of(self, inputs: dict[str, Array]) -> Array:
        """Return the noise that given coordinates "y" are the image of.

        Where a coordinate is not continuous, the number has no meaning.
        """
        if not isinstance(inputs["y"], Traced):
            inputs = {name: f.precise(value) for name, value in inputs.items()}
        known = [inputs[k] for k in ("conditions", "pattern") if k in inputs]
        found = []
        for j in range(self.shape.n_targets):
            y = f.columns(inputs["y"], j, j + 1)
            v = self.flow.networks.hidden(j, known)
            shift, log_scale, widths, heights, slopes = self._outputs(v, j)
            image = (y - shift) * f.exp(-_bounded(log_scale))
            u, _, _ = splines.forth(image, widths, heights, splines.slopes_from(slopes))
            found.append(u)
            known = [*known, y]
        return f.with_precision(f.concatenate(found), double=False)

    def _outputs(self, v: Array, j: int) -> list[Array]:
        """Return shift, logarithm of the scale, widths, heights and slopes."""
        kernels, biases = self.flow.networks.weights(-1, j)
        n = self.n_bins
        sizes, start, found = (1, 1, n, n, n - 1), 0, []
        for size in sizes:
            stop = start + size
            kernel, bias = kernels[:, start:stop], biases[start:stop]
            if stop == sum(sizes):
                # Columns of zero: the slope is one at both ends.
                kernel = tf.pad(kernel, ((0, 0), (1, 1)))
                bias = tf.pad(bias, ((1, 1),)) + splines.UNIT_DERIVATIVE
            found.append(f.affine(v, kernel, bias))
            start = stop
        return found


def decay_of_few(n_rows: int) -> float:
    """Return the factor for n rows of a weight decay that is meant for DECAY_ROWS rows.

    A likelihood learns its rows by heart; a decay (arXiv:1711.05101) stops it. The
    number of rows is an effective one, 0 if unknown.
    """
    return float((DECAY_ROWS / n_rows) ** DECAY_POWER) if n_rows else 1.0


def _split(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return shift, logarithm of the scale (bounded) and parameters of the spline."""
    return outputs[..., 0], _bounded(outputs[..., 1]), outputs[..., 2:]


def _bounded(log_scale: Array) -> Array:
    return f.tanh(log_scale / 4.0) * 4.0
