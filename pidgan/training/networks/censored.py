"""Location and scale of data that are known only to lie below an edge.

A cell without energy is a coordinate below its edge (`pidgan.training.targets.cells`),
and nothing else is known of it. Location m and scale s of each coordinate are fitted by
the likelihood of censored data (Tobin, Econometrica 26 (1958) 24),

    log N(y; m, s) where y is observed,   log Phi((edge - m) / s) where it is not.

A flow or a critic needs a number everywhere: `impute` draws from N(m, s) below the edge
wherever a coordinate is censored.
"""

from typing import Any

import numpy as np

from pidgan.training.backend import keras, tf
from pidgan.training.networks.perceptrons import Residual

# Probabilities below this are rounding.
TINY = 1e-6


class Standard:
    """Location and scale of coordinates given a context."""

    def __init__(self, n: int, *, width: int, blocks: int, seed: int) -> None:
        self.body = Residual(width=width, blocks=blocks, seed=seed)
        self.location = keras.layers.Dense(n, kernel_initializer="zeros")
        self.log_scale = keras.layers.Dense(n, kernel_initializer="zeros")

    @property
    def variables(self) -> list[Any]:
        """Return the weights, in order."""
        heads = (self.location, self.log_scale)
        return [
            *self.body.trainable_variables,
            *(v for head in heads for v in head.trainable_variables),
        ]

    def __call__(self, context: Any) -> tuple[Any, Any]:
        """Return location and scale, (m, n) each."""
        hidden = self.body(context)
        scale = keras.layers.Activation("exponential")(self.log_scale(hidden))
        return self.location(hidden), scale

    def apply(self, residual: Any, context: Any) -> Any:
        """Return location + scale * residual."""
        location, scale = self(context)
        return keras.layers.Add()(
            [location, keras.layers.Multiply()([scale, residual])]
        )


def censored_loss(
    y: tf.Tensor, observed: tf.Tensor, location: tf.Tensor, scale: tf.Tensor
) -> tf.Tensor:
    """Return -log likelihood of rows (n,); y (n, k) is the edge where censored."""
    u = (y - location) / scale
    seen = 0.5 * tf.square(u) + tf.math.log(scale)
    below = -tf.math.log(tf.maximum(_phi(u), TINY))
    return tf.reduce_sum(tf.where(observed > 0, seen, below), axis=1)


def impute(
    y: tf.Tensor,
    observed: tf.Tensor,
    location: tf.Tensor,
    scale: tf.Tensor,
    *,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Return coordinates with those that are censored drawn below their edge."""
    top = tf.maximum(_phi((y - location) / scale), TINY)
    uniform = tf.random.stateless_uniform(tf.shape(y), seed)
    drawn = tf.math.ndtri(tf.maximum(uniform * top, TINY / 10))
    drawn = tf.minimum(location + scale * drawn, y)
    return tf.stop_gradient(tf.where(observed > 0, y, drawn))


def _phi(u: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(-u * np.float32(np.sqrt(0.5)))
