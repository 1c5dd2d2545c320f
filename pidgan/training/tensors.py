"""The arm of the formulas on tensors, which gradients pass through.

`pidgan.training.backend` registers it: tensorflow is an argument here, as it must not
be imported before that file has set it up.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class TensorArm:
    """The words of `pidgan.bundle.formulas`, see there, on tensors."""

    def __init__(self, tf: Any) -> None:
        """Take the functions of tensorflow."""
        self.tf = tf
        self.operators = {
            "Abs": tf.abs,
            "And": tf.logical_and,
            "Asin": tf.asin,
            "Clip": tf.clip_by_value,
            "Cos": tf.cos,
            "Equal": tf.equal,
            "Erf": tf.math.erf,
            "Exp": tf.exp,
            "Floor": tf.floor,
            "Greater": tf.greater,
            "GreaterOrEqual": tf.greater_equal,
            "Less": tf.less,
            "LessOrEqual": tf.less_equal,
            "Log": tf.math.log,
            "Max": tf.maximum,
            "Min": tf.minimum,
            "Or": tf.logical_or,
            "Relu": tf.nn.relu,
            "Sigmoid": tf.sigmoid,
            "Sin": tf.sin,
            "Softplus": tf.nn.softplus,
            "Sqrt": tf.sqrt,
            "Tanh": tf.tanh,
        }

    def apply(self, operator: str, x: Any, *others: Any) -> Any:
        return self.operators[operator](x, *others)

    def like(self, x: Any, value: Any) -> Any:
        return self.tf.cast(value, x.dtype)

    def with_precision(self, x: Any, double: bool) -> Any:
        return self.tf.cast(x, self.tf.float64 if double else self.tf.float32)

    def precise(self, x: Any) -> Any:
        return self.tf.cast(x, self.tf.float64)

    def numbers(self, mask: Any, x: Any) -> Any:
        return self.tf.cast(mask, x.dtype)

    def where(self, mask: Any, x: Any, y: Any) -> Any:
        return self.tf.where(mask, x, y)

    def softmax(self, x: Any) -> Any:
        return self.tf.nn.softmax(x)

    def cumulated(self, x: Any, exclusive: bool) -> Any:
        return self.tf.cumsum(x, axis=-1, exclusive=exclusive)

    def uniform(self, z: Any) -> Any:
        return self.tf.math.erf(z * float(np.sqrt(0.5))) * 0.5 + 0.5

    def total(self, x: Any, axis: int) -> Any:
        return self.tf.reduce_sum(x, axis=axis, keepdims=True)

    def largest(self, x: Any) -> Any:
        return self.tf.reduce_max(x, axis=-2)

    def matmul(self, x: Any, matrix: Any) -> Any:
        return self.tf.matmul(x, self.like(x, matrix))

    def affine(self, x: Any, matrix: Any, constant: Any) -> Any:
        return self.matmul(x, matrix) + self.like(x, constant)

    def columns(self, x: Any, start: int, stop: int) -> Any:
        return x[..., start:stop]

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return self.tf.reshape(x, (-1, *shape))

    def take(self, x: Any, places: npt.NDArray[Any], axis: int) -> Any:
        return self.tf.gather(x, places, axis=axis)

    def concatenate(self, parts: Sequence[Any]) -> Any:
        return self.tf.concat(parts, axis=-1)

    def stack(self, parts: Sequence[Any]) -> Any:
        return self.tf.concat(parts, axis=-2)

    def turn(self, x: Any) -> Any:
        return self.tf.transpose(x)

    def product(self, matrix: Any, x: Any) -> Any:
        return self.tf.matmul(self.like(x, matrix), x)

    def pick(self, x: Any, places: npt.NDArray[Any]) -> Any:
        return self.tf.gather(x, places, axis=-2)

    def fold(self, x: Any, shape: Sequence[int]) -> Any:
        return self.tf.reshape(x, (*shape, -1))

    def index(self, x: Any, first: Any) -> Any:
        whole = self.tf.int64
        return self.tf.cast(x, whole) + self.tf.cast(first, whole)

    def lookup(self, table: Any, index: Any) -> Any:
        return self.tf.gather(table, index)

    def bins(self, v: Any, edges: Any) -> Any:
        """Return 1 in the bin and 0 elsewhere: its gradient is a plain product."""
        above = self.tf.cast(v >= edges, v.dtype)
        first = self.tf.ones_like(above[..., :1])
        last = self.tf.zeros_like(above[..., :1])
        upper = self.tf.concat([first, above], -1)
        return upper - self.tf.concat([above, last], -1)

    def in_bin(self, values: Any, bins: Any, ahead: int) -> Any:
        here = values[..., ahead : ahead + bins.shape[-1]]
        return self.tf.reduce_sum(bins * here, axis=-1, keepdims=True)
