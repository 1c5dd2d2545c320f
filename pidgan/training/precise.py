"""Generators of many operations, which are made in double precision."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.bundle.graph_values import Traced
from pidgan.training.backend import tf


def in_double_precision(
    generate: Callable[[Any, Any], Any], inputs: dict[str, Array], *, size: int
) -> Array:
    """Return what a function of conditions and noise makes, in single precision.

    It is called in double precision, with rows last, and makes (n_columns, n). Outside
    of a graph it sees `size` rows at a time, which stay in the cache.
    """
    x, noise = inputs["conditions"], inputs["noise"]
    if isinstance(x, Traced):
        made = generate(f.turn(f.precise(x)), f.turn(f.precise(noise)))
        return f.with_precision(f.turn(made), double=False)
    x, noise = (np.asarray(v, dtype=np.float64) for v in (x, noise))
    starts = range(0, max(1, len(x)), size)
    blocks = [slice(start, start + size) for start in starts]
    made = [f.turn(generate(f.turn(x[b]), f.turn(noise[b]))) for b in blocks]
    return tf.constant(np.concatenate(made), dtype=tf.float32)
