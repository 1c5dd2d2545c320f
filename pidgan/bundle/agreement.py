"""Whether two evaluations of a generator agree, in units that matter.

A target y agrees within `TOLERANCE` max(1, |y|). Rounding that grows from cell to cell
moves a few cells of a shower further. If at most `MOVED` of all cells are, each may
differ by `TOLERANCE` of the energy of its shower: less than any calorimeter sees.
"""

import numpy as np

from pidgan.arrays import BoolArray, FloatArray

TOLERANCE = 1e-4
MOVED = 1e-2


def distances(expected: FloatArray, got: FloatArray, *, cells: bool) -> FloatArray:
    """Return |difference| of targets (n, n_targets), in the units of `TOLERANCE`."""
    found = np.abs(got - expected)
    scale = np.maximum(1.0, np.abs(expected))
    # The comparison is this way round because NaN is never <=.
    moved = ~(found <= TOLERANCE * scale)
    if cells and np.mean(moved) <= MOVED:
        total = np.abs(expected.sum(axis=1, keepdims=True))
        scale = np.maximum(scale, total)
    return np.asarray(found / scale)


def beyond(expected: FloatArray, got: FloatArray, *, cells: bool) -> BoolArray:
    """Return where targets (n, n_targets) differ by more than they may."""
    return ~(distances(expected, got, cells=cells) <= TOLERANCE)
