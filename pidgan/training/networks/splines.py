"""Monotonic rational-quadratic splines, elementwise and invertible.

Durkan, Bekasov, Murray, Papamakarios, *Neural Spline Flows*, arXiv:1906.04032: Eq. 4
is the spline, Eq. 5 its derivative, Eq. 6-8 its inverse. Outside [-BOUND, BOUND] it is
the identity.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
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


class Piece(NamedTuple):
    """The piece of a spline that a value lies in, (..., 1) each.

    Width and height, lower left corner, slopes at both ends, s = h / w and d_0 + d_1 -
    2 s.
    """

    w: Array
    h: Array
    x: Array
    y: Array
    d_0: Array
    d_1: Array
    s: Array
    curve: Array


def spline(
    v: tf.Tensor, parameters: tf.Tensor, *, inverse: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Map values (...) through one spline each, or back; return images and log |dy/dx|.

    Parameters (..., 3 n_bins - 1) are unconstrained; the derivative is that of the
    *forward* map.
    """
    n_bins = (parameters.shape[-1] + 1) // 3
    widths, heights, inner = tf.split(parameters, [n_bins, n_bins, n_bins - 1], axis=-1)
    ones = tf.ones_like(inner[..., :1])
    slopes = tf.concat([ones, slopes_from(inner + UNIT_DERIVATIVE), ones], axis=-1)
    v = v[..., tf.newaxis]
    go = back if inverse else forth
    image, xi, piece = go(v, widths, heights, slopes)
    s, curve, d_0, d_1 = piece.s, piece.curve, piece.d_0, piece.d_1
    log_derivative = (
        2 * tf.math.log(s)
        + tf.math.log(d_1 * xi**2 + 2 * s * xi * (1 - xi) + d_0 * (1 - xi) ** 2)
        - 2 * tf.math.log(s + curve * xi * (1 - xi))
    )
    log_derivative = tf.where(tf.abs(v) < BOUND, log_derivative, tf.zeros_like(v))
    return image[..., 0], log_derivative[..., 0]


def back(
    u: Array, widths: Array, heights: Array, slopes: Array
) -> tuple[Array, Array, Piece]:
    """Map values (..., 1) back (Eq. 6-8); return images, places in a piece, and pieces.

    Widths and heights (..., n_bins) are unconstrained; slopes are from `slopes_from`.
    """
    clipped, piece = _locate(u, widths, heights, slopes, inverse=True)
    w, h, x, y, d_0, _, s, curve = piece
    above = clipped - y
    bend = above * curve
    a = h * (s - d_0) + bend
    b = h * d_0 - bend
    c = -(s * above)
    root = f.sqrt(f.maximum(b * b - a * c * 4.0, 0.0))
    xi = _share(c * 2.0 / -(b + root))
    return f.where(f.less(f.absolute(u), BOUND), x + w * xi, u), xi, piece


def forth(
    v: Array, widths: Array, heights: Array, slopes: Array
) -> tuple[Array, Array, Piece]:
    """Map values through one spline each (Eq. 4); the same as `back` else."""
    clipped, piece = _locate(v, widths, heights, slopes, inverse=False)
    w, h, x, y, d_0, _, s, curve = piece
    xi = _share((clipped - x) / w)
    image = y + h * (s * xi * xi + d_0 * xi * (1 - xi)) / (s + curve * xi * (1 - xi))
    return f.where(f.less(f.absolute(v), BOUND), image, v), xi, piece


def slopes_from(parameters: Array) -> Array:
    """Return slopes at edges of unconstrained numbers."""
    return f.softplus(parameters) + MIN_DERIVATIVE


def _locate(
    v: Array, widths: Array, heights: Array, slopes: Array, *, inverse: bool
) -> tuple[Array, Piece]:
    """Return values within the bounds, and the pieces that they lie in."""
    w, x = _bins(widths)
    h, y = _bins(heights)
    clipped = f.clip(v, -BOUND, BOUND)
    bins = f.bins(clipped, f.columns(y if inverse else x, 1, w.shape[-1]))
    w, h, x, y = (f.in_bin(values, bins) for values in (w, h, x, y))
    d_0, d_1 = f.in_bin(slopes, bins), f.in_bin(slopes, bins, ahead=1)
    s = h / w
    return clipped, Piece(w, h, x, y, d_0, d_1, s, d_0 + d_1 - s * 2.0)


def _share(xi: Array) -> Array:
    """Return a place in a bin; rounded beyond it, a derivative could be negative."""
    return f.clip(xi, 0.0, 1.0)


def equal_edges(n_bins: int) -> Float32Array:
    """Return the left edges of bins of equal size, (n_bins,)."""
    return np.linspace(-BOUND, BOUND, n_bins + 1, dtype=np.float32)[:-1]


def _bins(parameters: Array) -> tuple[Array, Array]:
    """Return the sizes of the bins and their left edges, (..., n_bins) each."""
    n_bins = parameters.shape[-1]
    share = f.softmax(parameters) * (1 - MIN_BIN * n_bins) + MIN_BIN
    size = share * (2 * BOUND)
    # The sum of what is more or less than equal bins: it stays small, and so does its
    # rounding, which a steep spline would enlarge.
    excess = f.cumulated(size - 2 * BOUND / n_bins, exclusive=True)
    return size, excess + f.like(size, equal_edges(n_bins))
