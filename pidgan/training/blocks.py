"""Evaluates a generator block by block, which bounds the memory that it takes."""

from collections.abc import Callable

import numpy as np

from pidgan.arrays import FloatArray

BLOCK_ROWS = 16_384


def in_blocks(
    evaluate: Callable[[FloatArray, FloatArray], FloatArray],
    conditions: FloatArray,
    noise: FloatArray,
    *,
    n_targets: int,
    size: int = BLOCK_ROWS,
) -> FloatArray:
    """Return targets (n, n_targets) float32; NaN where a condition is not finite.

    Conditions (n, n_conditions) are in package units; `evaluate` gets these and noise,
    of `size` rows at most, as float32.
    """
    targets = np.full((len(conditions), n_targets), np.nan, dtype=np.float32)
    for start in range(0, len(conditions), size):
        rows = slice(start, start + size)
        finite = np.isfinite(conditions[rows]).all(axis=1)
        if finite.any():
            x, z = (v[rows][finite].astype(np.float32) for v in (conditions, noise))
            targets[rows][finite] = evaluate(x, z)
    return targets
