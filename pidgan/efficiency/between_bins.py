"""Covariance of raw differences in different bins, from events with rows in several.

With the contributions c_ia = sum w (r - g - mean) / S_a of the rows of an event in bin
a, for cut i,

    N_ij(a, b) = sum over events c_ia c_jb,    a != b.

The smoothing takes no notice of them; what they add to the covariance of smoothed
differences is A_i N_ij A_j^T.
"""

import numpy as np
from scipy import sparse

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.real_vs_generated import ComparedRows


def between_bins(
    rows: ComparedRows, place: IntArray, sums: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Return pairs of different bins (2, n), and N_ij (n_cuts, n_cuts, n) of them.

    `place` (n_rows,) is the bin of a row, -1 outside, and `sums` (n_bins,) the sums of
    weights, not positive in bins that count for nothing.
    """
    n_cuts, n_bins = len(rows.cuts), len(sums)
    none = np.zeros((2, 0), dtype=np.int64), np.zeros((n_cuts, n_cuts, 0))
    if rows.events is None or rows.among is not None:
        return none
    use = place >= 0
    use[use] = sums[place[use]] > 0
    at, event = place[use], rows.events[use]
    step = rows.real[:, use] - rows.generated[:, use] / rows.repeats
    w = rows.weights[use]
    mean = (step @ w / w.sum())[:, np.newaxis]
    values = w * (step - mean) / sums[at]
    shape = (int(rows.events.max()) + 1, n_bins)
    parts = [sparse.csr_array((own, (event, at)), shape=shape) for own in values]
    ones = sparse.csr_array((np.ones(len(at)), (event, at)), shape=shape)
    pairs = sparse.coo_array(ones.T @ ones)
    different = pairs.row != pairs.col
    chosen = np.stack([pairs.row[different], pairs.col[different]]).astype(np.int64)
    if not chosen.size:
        return none
    found = np.array(
        [[(a.T @ b).tocsr()[chosen[0], chosen[1]] for b in parts] for a in parts]
    )
    return chosen, np.asarray(found).reshape(n_cuts, n_cuts, -1)


def pair_matrix(pairs: IntArray, values: FloatArray, n_bins: int) -> sparse.csr_array:
    """Return values (n,) of pairs of bins (2, n) as a matrix (n_bins, n_bins)."""
    return sparse.csr_array((values, (pairs[0], pairs[1])), shape=(n_bins, n_bins))
