"""Balance positive weights: their sums in bins become those of the sWeights.

Weights g >= 0 that were regressed from sWeights w are smooth: what changes fast with a
variable is lost in part. They are multiplied by a ratio r = 1 + sum_k a_k phi_k of
densities, where phi_k is 1 in one bin of one feature and 0 elsewhere. It has the least

    L(a) = 1/2 sum g (r - 1)^2 - sum (w - g) (r - 1) + lambda/2 sum_k G_kk a_k^2,

with G_kl = sum g phi_k phi_l and both sums of weights equal: least-squares importance
fitting (Kanamori, Hido and Sugiyama, J. Mach. Learn. Res. 10 (2009) 1391), linear in
sWeights of any sign. Without lambda, sums of g r in each bin would be sums of w. These
fluctuate more than what they correct where there are few rows: lambda = RIDGE_ROWS /
n_eff.
"""

import numpy as np

from pidgan.arrays import FloatArray, IntArray

#: Edges of the bins of a feature, as quantiles; the outer bins are its tails.
EDGES = (0.01, *(k / 10 for k in range(1, 10)), 0.99)
#: Effective rows at which half of a deviation that bins share with no other is taken.
RIDGE_ROWS = 24_000
#: Range of the ratio.
LEAST, MOST = 0.2, 5.0
_BLOCK_ROWS = 16_384


def balance(
    features: FloatArray, weights: FloatArray, positive: FloatArray, *, size: float
) -> FloatArray:
    """Return positive weights (n,), multiplied by the ratio, of the same sum.

    `features` are (n, d), `weights` (n,) of any sign, and `size` is their n_eff.
    """
    places, n_bins = _bins(features)
    g = positive * (weights.sum() / positive.sum())
    moments, excess = np.zeros((n_bins, n_bins)), np.zeros(n_bins)
    blocks = [slice(k, k + _BLOCK_ROWS) for k in range(0, len(places), _BLOCK_ROWS)]
    for rows in blocks:
        phi = _indicators(places[rows], n_bins)
        moments += phi.T @ (g[rows, None] * phi)
        excess += phi.T @ (weights - g)[rows]
    scale = np.sqrt(np.diag(moments))
    known = scale > 0
    scale = scale[known]
    matrix = moments[np.ix_(known, known)] / np.outer(scale, scale)
    matrix[np.diag_indices_from(matrix)] += RIDGE_ROWS / size
    a = np.zeros(n_bins)
    a[known] = np.linalg.solve(matrix, excess[known] / scale) / scale
    r = 1 + a[places].sum(axis=1)
    found = g * np.clip(r, LEAST, MOST)
    return np.asarray(found * (positive.sum() / found.sum()))


def _bins(features: FloatArray) -> tuple[IntArray, int]:
    """Return the number of each row's bin of each feature (n, d), and that of all bins.

    A value that takes more rows than a bin has one alone.
    """
    places = np.empty(features.shape, dtype=np.int64)
    first = 0
    for j, values in enumerate(features.T):
        found = np.quantile(values, EDGES)
        edges, counts = np.unique(found, return_counts=True)
        alone = np.nextafter(edges[counts > 1], np.inf)
        edges = np.unique(np.concatenate([edges, alone]))
        places[:, j] = first + np.searchsorted(edges, values, side="right")
        first += len(edges) + 1
    return places, first


def _indicators(places: IntArray, n_bins: int) -> FloatArray:
    """Return phi (n, n_bins)."""
    phi = np.zeros((len(places), n_bins))
    np.put_along_axis(phi, places, 1.0, axis=1)
    return phi
