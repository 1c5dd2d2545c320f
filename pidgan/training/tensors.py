"""The arm of the formulas on tensors, which gradients pass through."""

from types import SimpleNamespace
from typing import Any

import numpy as np


def tensor_arm(tf: Any) -> SimpleNamespace:
    """Return the words of `pidgan.bundle.formulas`, see there, on tensors.

    Args:
        tf: tensorflow; an argument, as it must not be imported before
            `pidgan.training.backend` has set it up, which registers this arm.
    """
    operators = {
        "Abs": tf.abs,
        "And": tf.logical_and,
        "Asin": tf.asin,
        "Clip": tf.clip_by_value,
        "Cos": tf.cos,
        "Equal": tf.equal,
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

    kinds = {False: tf.float32, True: tf.float64}

    def like(x: Any, value: Any) -> Any:
        return tf.cast(value, x.dtype)

    def bins(v: Any, edges: Any) -> Any:
        # 1 in the bin and 0 elsewhere: the gradient of `in_bin` is a plain product.
        above = tf.cast(v >= edges, v.dtype)
        first, last = tf.ones_like(above[..., :1]), tf.zeros_like(above[..., :1])
        return tf.concat([first, above], -1) - tf.concat([above, last], -1)

    def in_bin(values: Any, bins: Any, ahead: int) -> Any:
        here = values[..., ahead : ahead + bins.shape[-1]]
        return tf.reduce_sum(bins * here, axis=-1, keepdims=True)

    def affine(x: Any, matrix: Any, constant: Any) -> Any:
        return tf.matmul(x, like(x, matrix)) + like(x, constant)

    return SimpleNamespace(
        affine=affine,
        apply=lambda operator, x, *others: operators[operator](x, *others),
        bins=bins,
        columns=lambda x, start, stop: x[..., start:stop],
        concatenate=lambda parts: tf.concat(parts, axis=-1),
        cumulated=lambda x, exclusive: tf.cumsum(x, axis=-1, exclusive=exclusive),
        fold=lambda x, shape: tf.reshape(x, (*shape, -1)),
        in_bin=in_bin,
        index=lambda x, first: tf.cast(x, tf.int64) + tf.cast(first, tf.int64),
        largest=lambda x: tf.reduce_max(x, axis=-2),
        like=like,
        lookup=tf.gather,
        matmul=lambda x, matrix: tf.matmul(x, like(x, matrix)),
        numbers=lambda mask, x: tf.cast(mask, x.dtype),
        pick=lambda x, places: tf.gather(x, places, axis=-2),
        precise=lambda x: tf.cast(x, tf.float64),
        product=lambda matrix, x: tf.matmul(like(x, matrix), x),
        reshape=lambda x, shape: tf.reshape(x, (-1, *shape)),
        softmax=tf.nn.softmax,
        stack=lambda parts: tf.concat(parts, axis=-2),
        take=lambda x, places, axis: tf.gather(x, places, axis=axis),
        total=lambda x, axis: tf.reduce_sum(x, axis=axis, keepdims=True),
        turn=tf.transpose,
        uniform=lambda z: tf.math.erf(z * float(np.sqrt(0.5))) * 0.5 + 0.5,
        where=tf.where,
        with_precision=lambda x, double: tf.cast(x, kinds[double]),
    )
