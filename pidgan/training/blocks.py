"""Evaluates a generator block by block, which bounds the memory that it takes."""

from collections.abc import Callable

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle.bundle_file import as_rows
from pidgan.bundle.card import Card

BLOCK_ROWS = 16_384


def in_blocks(
    evaluate: Callable[[FloatArray, FloatArray], FloatArray],
    conditions: FloatArray,
    noise: FloatArray,
    *,
    card: Card,
    size: int = BLOCK_ROWS,
) -> FloatArray:
    """Return targets (n, n_targets) float32; NaN where a condition is not finite.

    Conditions (n, n_conditions) are in package units; `evaluate` gets these and noise,
    of `size` rows at most, as float32. A ValueError says that shapes, or names of
    columns, are not those of the card.
    """
    names = card.input_names
    conditions = as_rows(conditions, "conditions", len(names), names=names)
    noise = as_rows(noise, "noise", card.n_noise)
    if len(conditions) != len(noise):
        raise ValueError(
            f"{len(conditions)} rows of conditions but {len(noise)} of noise"
        )
    targets = np.full((len(conditions), len(card.targets)), np.nan, dtype=np.float32)
    for start in range(0, len(conditions), size):
        rows = slice(start, start + size)
        finite = np.isfinite(conditions[rows]).all(axis=1)
        if finite.any():
            x, z = (v[rows][finite] for v in (conditions, noise))
            targets[rows][finite] = evaluate(x, z)
    return targets
