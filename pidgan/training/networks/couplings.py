"""Conditional flow of affine couplings, as fast to sample from as to evaluate.

Dinh, Sohl-Dickstein and Bengio, *Density estimation using Real NVP*,
arXiv:1605.08803, Eq. 7-8: half of the numbers of a row is kept and sets shift and scale
of the other half; conditions enter as in Ardizzone et al., arXiv:1907.02392. Between
two couplings lies a fixed rotation, so that every direction is changed.

Last comes a linear map, learnt by its inverse, a triangular matrix: most of what
coordinates have to do with each other is a covariance, and takes few rows to learn.

Sampling takes one pass and is exported as it is; in the flow of
`pidgan.training.networks.autoregressive` each number has to wait for those before it.
"""

from typing import Any

import numpy as np
import scipy.linalg

from pidgan.training.backend import keras, tf
from pidgan.training.networks.perceptrons import Residual, weights_of


class CouplingFlow:
    """Density of n numbers given a context."""

    def __init__(
        self, n: int, *, couplings: int, width: int, blocks: int, seed: int, name: str
    ) -> None:
        """Make the layers, built when first called; one number has no couplings."""
        self.n, kept = n, (n + 1) // 2
        couplings = couplings if n > 1 else 0
        self.whitening = keras.Variable(tf.zeros((n, n)), name=f"{name}_whitening")
        self.mixing = _fixed(np.eye(n, dtype=np.float32), name=f"{name}_mixing")
        rng = np.random.default_rng(seed)
        self.rotations = [_rotation(n, rng) for _ in range(couplings)]
        self.halves = [
            [
                _fixed(q[:, part], name=f"{name}_{k}_{half}")
                for half, part in (("kept", slice(kept)), ("moved", slice(kept, n)))
            ]
            for k, q in enumerate(self.rotations)
        ]
        size = {"width": width, "blocks": blocks}
        self.bodies = [Residual(**size, seed=seed + k) for k in range(couplings)]
        self.heads = [
            [keras.layers.Dense(n - kept, kernel_initializer="zeros") for _ in range(2)]
            for _ in range(couplings)
        ]

    def generate(self, u: Any, context: Any) -> Any:
        """Return what noise (m, n) becomes; tensors, or symbols of a keras model."""
        v = u
        for k, (kept, moved) in enumerate(self.halves):
            a, b = kept(v), moved(v)
            shift, log_scale = self._coupling(k, a, context)
            scale = keras.layers.Activation("exponential")(log_scale)
            b = keras.layers.Add()([keras.layers.Multiply()([b, scale]), shift])
            v = keras.layers.Concatenate()([a, b])
        return self.mixing(v)

    def settle(self) -> None:
        """Take the learnt map into `generate`, which needs its inverse."""
        matrix = self._triangle()[0].numpy().astype(np.float64)
        inverse = scipy.linalg.solve_triangular(matrix, np.eye(self.n), lower=False)
        self.mixing.kernel.assign(inverse.astype(np.float32))

    def loss(self, v: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
        """Return -log p(v | context) of each row, without its constant."""
        matrix, log_determinant = self._triangle()
        total = -log_determinant
        v = tf.matmul(v, matrix)
        kept = (self.n + 1) // 2
        for k, q in reversed(list(enumerate(self.rotations))):
            a, b = v[:, :kept], v[:, kept:]
            shift, log_scale = self._coupling(k, a, context)
            b = (b - shift) * tf.exp(-log_scale)
            total += tf.reduce_sum(log_scale, axis=1)
            v = tf.matmul(tf.concat([a, b], axis=1), q, transpose_b=True)
        return total + 0.5 * tf.reduce_sum(tf.square(v), axis=1)

    @property
    def variables(self) -> list[Any]:
        """Return the weights that are trained, in order."""
        heads = [layer for head in self.heads for layer in head]
        return [self.whitening, *weights_of(*self.bodies, *heads)]

    def _triangle(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the inverse of the linear map and the logarithm of its determinant."""
        log_diagonal = tf.linalg.diag_part(self.whitening.value)
        above = tf.linalg.band_part(self.whitening.value, 0, -1)
        matrix = tf.linalg.set_diag(above, tf.exp(log_diagonal))
        return matrix, tf.reduce_sum(log_diagonal)

    def _coupling(self, k: int, kept: Any, context: Any) -> tuple[Any, Any]:
        """Return shift and bounded logarithm of the scale that a coupling applies."""
        hidden = self.bodies[k](keras.layers.Concatenate()([kept, context]))
        shift, log_scale = (head(hidden) for head in self.heads[k])
        return shift, keras.layers.Activation("tanh")(log_scale)


def _rotation(n: int, rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return np.asarray(q * np.sign(np.diag(r)), dtype=np.float32)


def _fixed(kernel: np.ndarray, *, name: str) -> Any:
    """Return a layer that multiplies with a matrix and is not trained."""
    return keras.layers.Dense(
        kernel.shape[1],
        use_bias=False,
        trainable=False,
        kernel_initializer=lambda shape, dtype=None: tf.constant(kernel),
        name=name,
    )
