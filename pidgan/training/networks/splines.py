"""Monotonic rational-quadratic splines, elementwise and invertible.

Durkan, Bekasov, Murray, Papamakarios, *Neural Spline Flows*, arXiv:1906.04032: Eq. 4
is the spline, Eq. 5 its derivative, Eq. 6-8 its inverse. Outside [-BOUND, BOUND] it is
the identity.
"""

import math

import numpy as np
import numpy.typing as npt

from pidgan.training.backend import tf

Float32Array = npt.NDArray[np.float32]

BOUND = 6.0
MIN_BIN = 1e-3
MIN_DERIVATIVE = 1e-3
# softplus(this) + MIN_DERIVATIVE = 1, so that parameters of zero give the identity.
UNIT_DERIVATIVE = math.log(math.expm1(1 - MIN_DERIVATIVE))


def n_parameters(n_bins: int) -> int:
    """Return how many numbers describe a spline: widths, heights, inner derivatives."""
    return 3 * n_bins - 1


def spline(
    v: tf.Tensor, parameters: tf.Tensor, *, inverse: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Map values through one spline each, or back.

    Args:
        v: any shape (...).
        parameters: (..., 3 n_bins - 1), unconstrained.
        inverse: map back.

    Returns:
        The images, (...), and the logarithm of |dy/dx| of the *forward* map, (...).
    """
    n_bins = (parameters.shape[-1] + 1) // 3
    widths, heights, slopes = tf.split(
        parameters, [n_bins, n_bins, n_bins - 1], axis=-1
    )
    w, x = _bins(widths)
    h, y = _bins(heights)
    ones = tf.ones_like(slopes[..., :1])
    inner = tf.nn.softplus(slopes + UNIT_DERIVATIVE) + MIN_DERIVATIVE
    d = tf.concat([ones, inner, ones], axis=-1)
    inside = tf.abs(v) < BOUND
    clipped = tf.clip_by_value(v, -BOUND, BOUND)
    edges = (y if inverse else x)[..., 1:]
    above = tf.cast(clipped[..., tf.newaxis] >= edges, v.dtype)
    first, last = tf.ones_like(above[..., :1]), tf.zeros_like(above[..., :1])
    bin_code = tf.concat([first, above], -1) - tf.concat([above, last], -1)

    def pick(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(bin_code * values, axis=-1)

    w, h, x, y = pick(w), pick(h), pick(x), pick(y)
    d_0, d_1 = pick(d[..., :-1]), pick(d[..., 1:])
    s = h / w
    curve = d_0 + d_1 - 2 * s
    if inverse:
        a = h * (s - d_0) + (clipped - y) * curve
        b = h * d_0 - (clipped - y) * curve
        c = -s * (clipped - y)
        root = tf.sqrt(tf.maximum(b * b - 4 * a * c, 0))
        xi = _share(2 * c / (-b - root))
        image = x + w * xi
    else:
        xi = _share((clipped - x) / w)
        image = y + h * (s * xi * xi + d_0 * xi * (1 - xi)) / (
            s + curve * xi * (1 - xi)
        )
    log_derivative = (
        2 * tf.math.log(s)
        + tf.math.log(d_1 * xi**2 + 2 * s * xi * (1 - xi) + d_0 * (1 - xi) ** 2)
        - 2 * tf.math.log(s + curve * xi * (1 - xi))
    )
    return (
        tf.where(inside, image, v),
        tf.where(inside, log_derivative, tf.zeros_like(v)),
    )


def _share(xi: tf.Tensor) -> tf.Tensor:
    """Return a place in a bin; rounded beyond it, a derivative could be negative."""
    return tf.clip_by_value(xi, 0, 1)


def equal_edges(n_bins: int) -> Float32Array:
    """Return the left edges of bins of equal size, (n_bins,)."""
    return np.linspace(-BOUND, BOUND, n_bins + 1, dtype=np.float32)[:-1]


def _bins(parameters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the sizes of the bins and their left edges, (..., n_bins) each."""
    n_bins = parameters.shape[-1]
    share = MIN_BIN + (1 - MIN_BIN * n_bins) * tf.nn.softmax(parameters)
    size = 2 * BOUND * share
    # The sum of what is more or less than equal bins: it stays small, and so does its
    # rounding, which a steep spline would enlarge.
    excess = tf.cumsum(size - 2 * BOUND / n_bins, axis=-1, exclusive=True)
    return size, tf.cast(equal_edges(n_bins), size.dtype) + excess
