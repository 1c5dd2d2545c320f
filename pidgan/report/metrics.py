"""Distances between two weighted samples, each with the uncertainty behind it.

Which to use when:

- `weighted_ks`: one variable without binning. It is the first figure to look at, and
  blind to correlations.
- `wasserstein`: one variable, in its unit: how far the mass has to move. It sees the
  tails, which KS does not.
- `separation_power`: one variable in given bins, for comparison with shower papers. It
  is 0 for equal histograms and 1 for disjoint ones.
- `energy_distance`: several variables at once. It needs no training and no tuning, but
  is less sensitive than a classifier, `classifiers.c2st`.

Weights may have any sign. No distance is 0 for two finite samples of the same
distribution. A distance is therefore read beside its floor: the distance of two samples
of real rows of the same sizes. `ks_scale` gives the floor to expect where there is no
second real sample.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.sample.weights import (
    checked_rows,
    positive_sum,
)

BOOTSTRAP_REPLICAS = 20  # they give an error to 16 %
ENERGY_ROWS = 2000  # pairs grow as the square of the rows: 4M distances


def weighted_ks(
    a: ArrayLike,
    b: ArrayLike,
    weights_a: ArrayLike | None = None,
    weights_b: ArrayLike | None = None,
) -> float:
    """Return the Kolmogorov-Smirnov distance, sup_t |F_a(t) - F_b(t)|.

    F(t) = sum_{x <= t} w / sum w. With weights of both signs F need not be monotonic;
    the supremum over the values that occur is still the distance of the two signed
    distributions. Equal values are stepped over together, so that ties count once.

    Args:
        a, b: (n,) and (m,) Values of the two samples.
        weights_a, weights_b: (n,) and (m,) Weights with a positive sum; None means 1.

    Returns:
        The distance, in [0, 1] for weights that are not negative.

    Example:
        >>> weighted_ks([1.0, 2.0], [1.0, 2.0], weights_b=[1.0, 3.0])
        0.25
    """
    _, step_a, step_b = _distributions(a, b, weights_a, weights_b)
    return float(np.max(np.abs(step_a - step_b)))


def wasserstein(
    a: ArrayLike,
    b: ArrayLike,
    weights_a: ArrayLike | None = None,
    weights_b: ArrayLike | None = None,
) -> float:
    """Return the Wasserstein-1 distance, the integral of |F_a - F_b|.

    Weights of both signs give the same integral over signed distributions.

    Args:
        a, b: (n,) and (m,) Values of the two samples.
        weights_a, weights_b: (n,) and (m,) Weights with a positive sum; None means 1.

    Returns:
        The distance, in the unit of the variable.

    Example:
        >>> wasserstein([0.0, 1.0], [0.5, 1.5])
        0.5
    """
    values, step_a, step_b = _distributions(a, b, weights_a, weights_b)
    return float(np.sum(np.abs(step_a - step_b)[:-1] * np.diff(values)))


def wasserstein_error(
    a: ArrayLike,
    b: ArrayLike,
    weights_a: ArrayLike | None = None,
    weights_b: ArrayLike | None = None,
    *,
    seed: int = 1,
) -> float:
    """Return the standard error of `wasserstein`, by bootstrap.

    Each replica multiplies every weight by a Poisson number of mean 1, independently in
    the two samples.

    Args:
        a, b: (n,) and (m,) Values of the two samples.
        weights_a, weights_b: (n,) and (m,) Weights with a positive sum; None means 1.
        seed: Seed of the replicas.

    Returns:
        The standard deviation of the replicas, in the unit of the variable.
    """
    rng = np.random.default_rng(seed)
    x, wx = checked_rows(a, weights_a, "weights_a")
    y, wy = checked_rows(b, weights_b, "weights_b")
    found = []
    for _ in range(BOOTSTRAP_REPLICAS):
        vx, vy = wx * rng.poisson(1.0, len(x)), wy * rng.poisson(1.0, len(y))
        if vx.sum() > 0 and vy.sum() > 0:
            found.append(wasserstein(x[:, 0], y[:, 0], vx, vy))
    return float(np.std(found, ddof=1)) if len(found) > 1 else float("nan")


def ks_scale(n_a: float, n_b: float) -> float:
    """Return the mean KS distance of two samples of one continuous distribution.

    sqrt(pi / 2) ln 2 sqrt((n_a + n_b) / (n_a n_b)), the mean of Kolmogorov's
    distribution (Marsaglia, Tsang, Wang, J. Stat. Softw. 8 (2003) 18).

    Args:
        n_a, n_b: Effective numbers of rows of the two samples.

    Returns:
        The distance that equal distributions show on average.
    """
    mean = np.sqrt(np.pi / 2) * np.log(2)
    return float(mean * np.sqrt((n_a + n_b) / (n_a * n_b)))


def ks_error(
    a: ArrayLike,
    b: ArrayLike,
    weights_a: ArrayLike | None = None,
    weights_b: ArrayLike | None = None,
) -> float:
    """Return the standard error of `weighted_ks`.

    At the point t of the largest difference, F(t) is the efficiency of the cut x <= t.
    Its variance in each sample is sum w^2 (pass - F)^2 / S^2, and the variances of the
    two samples add. The error of a distance near its floor is an upper bound, as t
    follows the fluctuations.

    Args:
        a, b: (n,) and (m,) Values of the two samples.
        weights_a, weights_b: (n,) and (m,) Weights with a positive sum; None means 1.
    """
    values, step_a, step_b = _distributions(a, b, weights_a, weights_b)
    t = values[np.argmax(np.abs(step_a - step_b))]
    variance = 0.0
    for sample, weights in ((a, weights_a), (b, weights_b)):
        x, w = checked_rows(sample, weights, "weights")
        below = x[:, 0] <= t
        f = w[below].sum() / w.sum()
        variance += float(np.sum(w**2 * (below - f) ** 2)) / w.sum() ** 2
    return float(np.sqrt(variance))


def separation_power(
    counts_a: ArrayLike, counts_b: ArrayLike, *, normalise: bool = True
) -> float:
    """Return the separation power of two histograms, 1/2 sum (h1 - h2)^2 / (h1 + h2).

    Source: Diefenbacher et al., J. Instrum. 15 (2020) P11004; used by the CaloChallenge
    (arXiv:2410.21611). Bins where h1 + h2 <= 0, possible with weights of both signs,
    are left out.

    Args:
        counts_a, counts_b: (n,) Sums of weights per bin of the two samples.
        normalise: Whether each histogram is first divided by its sum.

    Returns:
        0 for equal histograms, 1 for histograms without a common bin.
    """
    h1 = np.asarray(counts_a, dtype=np.float64)
    h2 = np.asarray(counts_b, dtype=np.float64)
    if normalise:
        h1, h2 = h1 / positive_sum(h1, "counts_a"), h2 / positive_sum(h2, "counts_b")
    use = h1 + h2 > 0
    return float(0.5 * np.sum((h1[use] - h2[use]) ** 2 / (h1[use] + h2[use])))


def energy_distance(
    a: ArrayLike,
    b: ArrayLike,
    weights_a: ArrayLike | None = None,
    weights_b: ArrayLike | None = None,
    *,
    seed: int = 1,
    max_rows: int = ENERGY_ROWS,
) -> float:
    """Return the energy distance, 2 E|a - b| - E|a - a'| - E|b - b'|.

    Source: Szekely and Rizzo, J. Stat. Plan. Inference 143 (2013) 1249. Each column is
    first divided by its standard deviation in the two samples together, so that units
    do not matter. The means run over all pairs, a row with itself included, which
    makes the distance non-negative for weights of any sign, and its floor positive.

    Args:
        a, b: (n, d) and (m, d), or (n,) and (m,), Values of the two samples.
        weights_a, weights_b: (n,) and (m,) Weights with a positive sum; None means 1.
        seed: Seed of the choice of rows where there are more than `max_rows`.
        max_rows: Largest number of rows of each sample that are used.

    Returns:
        The distance, without unit; 0 exactly if b is a.
    """
    x, wx = checked_rows(a, weights_a, "weights_a")
    y, wy = checked_rows(b, weights_b, "weights_b")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{x.shape[1]} columns against {y.shape[1]}")
    # The same seed twice: equal samples keep equal rows, and distance(x, x) = 0.
    pick_x, pick_y = (
        pick_rows(len(x), max_rows, seed),
        pick_rows(len(y), max_rows, seed),
    )
    x, wx, y, wy = x[pick_x], wx[pick_x], y[pick_y], wy[pick_y]
    scale = np.std(np.concatenate([x, y]), axis=0)
    scale[scale == 0] = 1.0
    x, y = x / scale, y / scale
    wx, wy = wx / positive_sum(wx, "weights_a"), wy / positive_sum(wy, "weights_b")
    within = wx @ _pair_distances(x, x) @ wx + wy @ _pair_distances(y, y) @ wy
    return float(2 * (wx @ _pair_distances(x, y) @ wy) - within)


def pick_rows(n: int, most: int, seed: int) -> Any:
    """Return the rows to use: all, or `most` of them at random, in their order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _pair_distances(x: FloatArray, y: FloatArray) -> FloatArray:
    """Euclidean distances, (n, m)."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(x, y))


def _distributions(
    a: ArrayLike,
    b: ArrayLike,
    weights_a: ArrayLike | None,
    weights_b: ArrayLike | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distinct values of both samples, and the two distribution functions there."""
    x, wx = checked_rows(a, weights_a, "weights_a")
    y, wy = checked_rows(b, weights_b, "weights_b")
    if x.shape[1] != 1 or y.shape[1] != 1:
        raise ValueError("one variable expected, shape (n,)")
    values = np.concatenate([x[:, 0], y[:, 0]])
    order = np.argsort(values, kind="stable")
    values = values[order]
    last = np.append(values[1:] != values[:-1], True)
    steps_a = np.concatenate([wx / wx.sum(), np.zeros(len(y))])[order]
    steps_b = np.concatenate([np.zeros(len(x)), wy / wy.sum()])[order]
    return values[last], np.cumsum(steps_a)[last], np.cumsum(steps_b)[last]
