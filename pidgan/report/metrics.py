"""Distances between two weighted samples, each with the uncertainty behind it.

Which to use when:

- `weighted_ks`: one variable without binning. It is the first figure to look at, and
  blind to correlations.
- `wasserstein`: one variable, in its unit: how far the mass has to move. It sees the
  tails, which KS does not.
- `separation_power`: one variable in given bins, for comparison with shower papers. It
  is 0 for equal histograms and 1 for disjoint ones.
- `energy_distance`: several variables at once, without training or tuning.
- `c2st`: several variables at once: the AUC of a trained classifier, 0.5 for equal
  samples. It is the most sensitive.

Samples are (n,) or (n, d) and (m,) or (m, d); their weights may have any sign, with a
positive sum, and None means 1. No distance is 0 for two finite samples of the same
distribution. A distance is therefore read beside its floor: the distance of two samples
of real rows of the same sizes. `ks_scale` gives the floor to expect where there is no
second real sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import DatasetError
from pidgan.report.classifiers import score_network, score_trees
from pidgan.sample.weights import (
    checked_rows,
    halves,
    n_eff,
    one_thread,
    positive_sum,
    positive_weights,
)

Weights = ArrayLike | None

BOOTSTRAP_REPLICAS = 20  # they give an error to 16 %
ENERGY_ROWS = 2000  # pairs grow as the square of the rows: 4M distances


def weighted_ks(
    a: ArrayLike, b: ArrayLike, weights_a: Weights = None, weights_b: Weights = None
) -> float:
    """Return the Kolmogorov-Smirnov distance, sup_t |F_a(t) - F_b(t)|.

    F(t) = sum_{x <= t} w / sum w. With weights of both signs F need not be monotonic;
    the supremum over the values that occur is still the distance of the two signed
    distributions. Equal values are stepped over together, so that ties count once.
    """
    _, step_a, step_b = _distributions(a, b, weights_a, weights_b)
    return float(np.max(np.abs(step_a - step_b)))


def wasserstein(
    a: ArrayLike, b: ArrayLike, weights_a: Weights = None, weights_b: Weights = None
) -> float:
    """Return the Wasserstein-1 distance, the integral of |F_a - F_b|.

    Weights of both signs give the same integral over signed distributions.
    """
    values, step_a, step_b = _distributions(a, b, weights_a, weights_b)
    return float(np.sum(np.abs(step_a - step_b)[:-1] * np.diff(values)))


def wasserstein_error(
    a: ArrayLike,
    b: ArrayLike,
    weights_a: Weights = None,
    weights_b: Weights = None,
    *,
    seed: int = 1,
) -> float:
    """Return the standard error of `wasserstein`, by bootstrap.

    Each replica multiplies every weight by a Poisson number of mean 1, independently in
    the two samples.
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
    """
    mean = np.sqrt(np.pi / 2) * np.log(2)
    return float(mean * np.sqrt((n_a + n_b) / (n_a * n_b)))


def ks_error(
    a: ArrayLike, b: ArrayLike, weights_a: Weights = None, weights_b: Weights = None
) -> float:
    """Return the standard error of `weighted_ks`.

    At the point t of the largest difference, F(t) is the efficiency of the cut x <= t.
    Its variance in each sample is sum w^2 (pass - F)^2 / S^2, and the variances of the
    two samples add. The error of a distance near its floor is an upper bound, as t
    follows the fluctuations.
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


def separation_power(counts_a: ArrayLike, counts_b: ArrayLike) -> float:
    """Return the separation power of two histograms, 1/2 sum (h1 - h2)^2 / (h1 + h2).

    Source: Diefenbacher et al., J. Instrum. 15 (2020) P11004; used by the CaloChallenge
    (arXiv:2410.21611). Bins where h1 + h2 <= 0, possible with weights of both signs,
    are left out.
    """
    h1, h2 = (np.asarray(h, dtype=np.float64) for h in (counts_a, counts_b))
    h1, h2 = h1 / positive_sum(h1, "counts_a"), h2 / positive_sum(h2, "counts_b")
    use = h1 + h2 > 0
    return float(0.5 * np.sum((h1[use] - h2[use]) ** 2 / (h1[use] + h2[use])))


def energy_distance(
    a: ArrayLike,
    b: ArrayLike,
    weights_a: Weights = None,
    weights_b: Weights = None,
    *,
    seed: int = 1,
    max_rows: int = ENERGY_ROWS,
) -> float:
    """Return the energy distance, 2 E|a - b| - E|a - a'| - E|b - b'|.

    Source: Szekely and Rizzo, J. Stat. Plan. Inference 143 (2013) 1249. Each column is
    first divided by its standard deviation in the two samples together, so that units
    do not matter. The means run over all pairs, a row with itself included, which
    makes the distance non-negative for weights of any sign, and its floor positive.
    """
    x, wx = checked_rows(a, weights_a, "weights_a")
    y, wy = checked_rows(b, weights_b, "weights_b")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{x.shape[1]} columns against {y.shape[1]}")
    # The same seed twice: equal samples keep equal rows, and distance(x, x) = 0.
    pick_x, pick_y = (pick_rows(len(s), max_rows, seed) for s in (x, y))
    x, wx, y, wy = x[pick_x], wx[pick_x], y[pick_y], wy[pick_y]
    scale = np.std(np.concatenate([x, y]), axis=0)
    scale[scale == 0] = 1.0
    x, y = x / scale, y / scale
    wx, wy = wx / positive_sum(wx, "weights_a"), wy / positive_sum(wy, "weights_b")
    within = wx @ cdist(x, x) @ wx + wy @ cdist(y, y) @ wy
    return float(2 * (wx @ cdist(x, y) @ wy) - within)


def pick_rows(n: int, most: int, seed: int) -> Any:
    """Return the rows to use: all, or `most` of them at random, in their order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _distributions(
    a: ArrayLike, b: ArrayLike, weights_a: Weights, weights_b: Weights
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


C2ST_MIN_ROWS = 200  # of each sample; the AUC of fewer says nothing


@dataclass(frozen=True, kw_only=True)
class C2ST:
    """Outcome of a classifier two-sample test: the larger AUC and its error.

    `n_eff` is the harmonic mean of the effective numbers of rows of both samples.
    """

    auc: float
    error: float
    auc_trees: float
    auc_network: float
    n_real: int
    n_eff: float


def c2st(
    real: ArrayLike,
    generated: ArrayLike,
    weights_real: Weights = None,
    weights_generated: Weights = None,
    *,
    seed: int = 1,
    max_rows: int = 50_000,
    paired: bool = False,
) -> C2ST:
    """Return the classifier two-sample test: can a classifier tell real from generated?

    Two classifiers with fixed settings, boosted trees and a neural network, are trained
    on one half of the rows and applied to the other, and the reverse, so that every row
    is judged once. The larger AUC is quoted. Equal distributions give 0.5, up to the
    error. Source: Lopez-Paz and Oquab, arXiv:1610.06545.

    Where weights have both signs, the classifiers are trained with `positive_weights`,
    found from the rows they are trained on, and the AUC is evaluated with the given
    weights. The AUC is linear in the weights of each sample, so that equal
    distributions give 0.5 on average, however good the positive weights are. `paired`
    rows have the same conditions and stay in the same half; in different halves,
    conditions that a classifier remembers would pull the AUC below 0.5.
    """
    x0, w0 = checked_rows(real, weights_real, "weights_real")
    x1, w1 = checked_rows(generated, weights_generated, "weights_generated")
    if x0.shape[1] != x1.shape[1]:
        raise ValueError(f"{x0.shape[1]} real features, {x1.shape[1]} generated")
    if paired and len(x0) != len(x1):
        raise ValueError(f"paired, but {len(x0)} real and {len(x1)} generated rows")
    other = seed if paired else seed + 1
    picks = pick_rows(len(x0), max_rows, seed), pick_rows(len(x1), max_rows, other)
    x0, w0, x1, w1 = x0[picks[0]], w0[picks[0]], x1[picks[1]], w1[picks[1]]
    if min(len(x0), len(x1)) < C2ST_MIN_ROWS:
        raise DatasetError(
            f"{len(x0)} real and {len(x1)} generated rows are too few for a C2ST; "
            f"expected {C2ST_MIN_ROWS} each"
        )
    parts = (halves(len(x0), seed), halves(len(x1), other))
    with one_thread():
        outcome = [
            _cross_fitted_auc(score, (x0, x1), (w0, w1), parts, seed=seed)
            for score in (score_trees, score_network)
        ]
    auc, error = max(outcome)
    return C2ST(
        auc=auc,
        error=error,
        auc_trees=outcome[0][0],
        auc_network=outcome[1][0],
        n_real=len(x0),
        n_eff=2 / (1 / n_eff(w0) + 1 / n_eff(w1)),
    )


def weighted_auc(
    scores0: ArrayLike,
    scores1: ArrayLike,
    weights0: Weights = None,
    weights1: Weights = None,
) -> tuple[float, float]:
    """Return the area under the ROC curve and its standard error.

    AUC = sum w0 w1 [s0 < s1] / (sum w0 sum w1), where ties count half. The error is
    that of DeLong et al., Biometrics 44 (1988) 837, with sums weighted by w^2.
    """
    s0, w0 = checked_rows(scores0, weights0, "weights0")
    s1, w1 = checked_rows(scores1, weights1, "weights1")
    _, place = np.unique(np.concatenate([s0[:, 0], s1[:, 0]]), return_inverse=True)
    at0, at1 = place[: len(s0)], place[len(s0) :]
    above = np.bincount(at1, w1, place.max() + 1) / w1.sum()
    below = np.bincount(at0, w0, place.max() + 1) / w0.sum()
    share_above = (1 - np.cumsum(above) + 0.5 * above)[at0]
    share_below = (np.cumsum(below) - 0.5 * below)[at1]
    auc = float(np.sum(w0 * share_above) / w0.sum())
    variance = np.sum((w0 * (share_above - auc)) ** 2) / w0.sum() ** 2
    variance += np.sum((w1 * (share_below - auc)) ** 2) / w1.sum() ** 2
    return auc, float(np.sqrt(variance))


def _cross_fitted_auc(
    score: Callable[..., FloatArray],
    samples: tuple[FloatArray, FloatArray],
    weights: tuple[FloatArray, FloatArray],
    halves: tuple[BoolArray, BoolArray],
    *,
    seed: int,
) -> tuple[float, float]:
    """Mean AUC of two halves, each scored by a classifier of the other."""
    aucs, errors = [], []
    for parts in (halves, (~halves[0], ~halves[1])):
        cut = list(zip(samples, weights, parts, strict=True))
        train, test = [x[~part] for x, _, part in cut], [x[p] for x, _, p in cut]
        positive = [positive_weights(x[~p], w[~p], seed) for x, w, p in cut]
        # Each sample weighs the same, so that their sizes carry no information.
        w = np.concatenate([w / w.sum() for w in positive])
        label = np.repeat([0, 1], [len(x) for x in train])
        seen = (np.concatenate(train), label, w * (len(w) / 2))
        scores = score(*seen, np.concatenate(test), seed=seed)
        found = np.split(scores, [len(test[0])])
        auc, error = weighted_auc(*found, *(w[part] for _, w, part in cut))
        aucs.append(auc)
        errors.append(error)
    return float(np.mean(aucs)), float(np.hypot(errors[0], errors[1]) / 2)
