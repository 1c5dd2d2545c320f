"""The smoothed difference of an efficiency map in bins that are twice as wide."""

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.efficiency import binning as bins
from pidgan.efficiency import smoothing
from pidgan.efficiency.real_vs_generated import ComparedRows


def merged_mean(
    rows: ComparedRows,
    edges: bins.ChosenEdges,
    generated: FloatArray,
    *,
    scale: FloatArray,
    sizes: FloatArray,
) -> FloatArray:
    """Discrepancy with bins merged two by two, on the fine bins, (n_cuts, n_bins).

    The model is d_b = s_b u with the scale s (n_cuts, n_bins) and u common to the parts
    of a merged bin m. With the sizes n_b (n_bins,) of its parts, its difference d_m is
    u sum n_b s_b / sum n_b, so that d_b = d_m s_b sum n_b / sum n_b s_b.
    """
    coarse = {name: (*values[:-1:2], values[-1]) for name, values in edges.items()}
    steps = np.unravel_index(np.arange(scale.shape[1]), bins.bin_shape(edges))
    merged = np.ravel_multi_index([step // 2 for step in steps], bins.bin_shape(coarse))
    # One row more in each bin, so that merged empty bins have an average too.
    sizes = sizes + 1
    norm = np.bincount(merged, sizes)

    def average(values: FloatArray) -> FloatArray:
        return np.array([np.bincount(merged, sizes * row) / norm for row in values])

    smooth, _ = smoothing.smooth_cuts(
        rows.in_bins(coarse).measured(smoothing.MIN_N_EFF), average(generated)
    )
    means = np.array([cut.mean for cut in smooth])
    return np.asarray((means / average(scale))[:, merged] * scale)
