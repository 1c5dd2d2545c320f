"""Binned difference of real and generated efficiency, smoothed by a Gaussian model.

**Raw difference.** Row i of the reference has weight w_i (of any sign), r_i = 1 if its
real targets pass the cut, and g_i, the share of K generated draws at its conditions
that pass. In bin b

    d_b = sum_b w (r - g) / sum_b w,    q_b = sum_b w^2 (r - g)^2 / sum_b w^2,

and Var(d_b) = q_b u_b with u_b = sum_b w^2 / (sum_b w)^2. Real and generated share
their rows, so that the spread of conditions inside a bin cancels. (Subtracting d_b in
q_b would change little, and badly where sum w is close to zero.) A bin with few rows
near the cut has a q_b that is badly known, and is zero if all of them agree; q_b is
therefore averaged with its expectation (`regularise_variances`).

**Smoothed difference.** Most bins say little alone. The differences of one cut are
taken as a draw of a Gaussian process on the grid of bins, d ~ N(0, D K D),

    K = t_0^2 1 1^T + sum_j t_j^2 O_j + t_I^2 prod_j O_j + t_R^2 I,

a common shift, a smooth effect of each axis, a smooth interaction, and an independent
rest; O_j = exp(-|i_j - i'_j| / 2) in the bin number along axis j. D is diagonal,
2 sqrt(g (1 - g)): a difference is smaller where the efficiency saturates. A shift of
the logit gives 4 g (1 - g); a loss of tracks that the generator misses gives 1. We take
a value between, as 4 g (1 - g) shrinks the common loss of a few per cent of tracks too
much where g is close to 1. Where the generator is far off, the real efficiency of a
slice of bins counts (`prior_scale`). The t maximise the
marginal likelihood of the raw differences times prod t exp(-t / 0.1): a weak prior
that keeps them off zero, where the uncertainty would be too small (Y. Chung, S.
Rabe-Hesketh, V. Dorie, A. Gelman, J. Liu, Psychometrika 78 (2013) 685). The posterior
(C. E. Rasmussen, C. K. I. Williams, *Gaussian Processes for Machine Learning*, 2006,
Eq. 2.23-2.24) is linear in the raw differences, d = A raw, and covers every bin: an
empty one borrows from its neighbours, and its uncertainty says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # scipy.optimize takes long to load, and comes when it is used
from scipy import linalg, special

from pidgan.arrays import BoolArray, FloatArray
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.efficiency.table import EfficiencyTable
from pidgan.sample.weights import n_eff_of_sums

MIN_N_EFF = 1.0
"""Effective rows below which a bin counts as unmeasured: its sum of weights is then not
known to be positive. Bins just above are harmless, because their variance is large."""

PRIOR_EVENTS = 5.0
"""Number of effective rows that differ as which the expected variance counts."""

CORRELATION_LENGTH = 2.0
"""Correlation length of O_j, in bins. Efficiencies change little from bin to bin."""

SCALE_FLOOR = 0.01
"""Smallest value of 4 g (1 - g) that is used, reached at g = 0.25 % and 99.75 %."""

TYPICAL_AMPLITUDE = 0.1
"""Scale of the prior of t. It only matters where the data do not determine t."""

AMPLITUDE_RANGE = (1e-5, 1.0)
"""Range in which each t is sought."""

MIN_AXIS_AMPLITUDE = 0.06
"""Smallest t of the smooth effect of an axis. Most rows lie where a generator is best,
and few rows test it at the end of an axis, where it may be worse. Where there are many
rows the value does not matter."""

# Value of t from which the maximum is sought.
_START_AMPLITUDE = 0.02


@dataclass(frozen=True, kw_only=True)
class SmoothDifference:
    """The posterior of one cut: mean (n_bins,), covariance, A, ln t of its terms, D.

    Columns of A, the operator (n_bins, n_bins), are zero for unmeasured bins. The scale
    (n_bins,) is the diagonal of D.
    """

    mean: FloatArray
    covariance: FloatArray
    operator: FloatArray
    log_amplitudes: FloatArray
    scale: FloatArray


def raw_difference(real: EfficiencyTable, generated: EfficiencyTable) -> FloatArray:
    """Return real minus generated efficiency, (n_cuts, n_bins); NaN if unmeasured."""
    n_eff = n_eff_of_sums(real.sum_weights, real.sum_weights2).reshape(-1)
    difference = _flat(real.efficiency) - _flat(generated.efficiency)
    return np.where(n_eff >= MIN_N_EFF, difference, np.nan)


def regularise_variances(found: RealVsGenerated, efficiency: FloatArray) -> FloatArray:
    """Return the variance of each raw difference, (n_cuts, n_bins).

    For unweighted rows q is expected to be v = p (1 - p) (1 + 1/K) with p the
    efficiency, here (n p + 1/2) / (n + 1) with n effective rows, so that v > 0. Rows of
    background that weights subtract raise it, the more the closer p is to 0 or 1, by a
    factor that is taken from the neighbourhood of the bin: f_b = sum_b' O_bb' n_b' q_b'
    / sum_b' O_bb' n_b' v_b', at least 1, with O the product of all O_j. A bin with
    F = n f v effective rows that differ gets (F q + 5 f v) / (F + 5).

    The efficiency (n_cuts, n_bins) that is known best should not come from the bin
    alone: where the variance of a bin follows its own fluctuation, the average over
    bins is biased.
    """
    n, n_moment = found.n_eff.reshape(-1), found.n_moment.reshape(-1)
    p = (n * np.clip(efficiency, 0, 1) + 0.5) / (n + 1)
    expected = p * (1 - p) * (1 + 1 / found.repeats)
    squares = np.einsum("ii...->i...", found.moments).reshape(len(expected), -1)
    use = is_measured(found)
    one = np.ones((len(n), len(n)))
    near = np.prod([one, *_smooth_terms(found.real.shape)], axis=0)[use]
    nearby, typical = ((q * n_moment)[:, use] @ near for q in (squares, expected))
    expected = expected * np.maximum(nearby / typical, 1)
    differing = n_moment * expected
    known = (differing * squares + PRIOR_EVENTS * expected) / (differing + PRIOR_EVENTS)
    s = np.where(use, found.real.sum_weights.reshape(-1), np.nan)
    s2 = np.where(use, found.real.sum_weights2.reshape(-1), np.nan)
    return np.asarray(s2 / s**2 * known)


def outcome_correlation(found: RealVsGenerated) -> FloatArray:
    """Return the correlation of r - g of two cuts in all rows, (n_cuts, n_cuts)."""
    moments = np.nan_to_num(found.moments).reshape(*found.moments.shape[:2], -1)
    # Sums of w^2 (r_i - g_i) (r_j - g_j), which are positive definite.
    sums = moments @ np.nan_to_num(found.real.sum_weights2.reshape(-1))
    return _correlation(sums[..., np.newaxis])[..., 0]


def _correlation(products: FloatArray) -> FloatArray:
    """Return correlations (n, n, n_bins) of products; zero where there are none."""
    spread = np.sqrt(np.einsum("iib->ib", products))
    norm = spread[:, np.newaxis] * spread
    use = norm > 0
    result = np.where(use, products / np.where(use, norm, 1.0), 0.0)
    cuts = np.arange(len(spread))
    result[cuts, cuts] = 1.0
    return result


def raw_covariance(found: RealVsGenerated, variances: FloatArray) -> FloatArray:
    """Return the covariance of raw differences, (n_cuts, n_cuts, n_bins).

    It is zero in unmeasured bins. The correlation in a bin is that of r - g, which is
    averaged with the one of all rows as the variances are with their expectation: n Q
    plus 5 times it, with the products Q and their n effective rows.
    """
    moments = np.nan_to_num(found.moments).reshape(*found.moments.shape[:2], -1)
    known = np.nan_to_num(found.n_moment.reshape(-1)) * moments
    typical = outcome_correlation(found)[..., np.newaxis]
    correlation = _correlation(known + PRIOR_EVENTS * typical)
    sigma = np.where(is_measured(found), np.sqrt(variances), 0.0)
    return np.asarray(correlation * sigma[:, np.newaxis] * sigma)


def smooth_cuts(
    found: RealVsGenerated, generated: FloatArray
) -> tuple[list[SmoothDifference], FloatArray]:
    """Smooth each cut, and return the variances of the raw differences.

    This takes two steps, because the variances need the efficiency that it finds.
    """
    shape = found.real.shape
    raw = raw_difference(found.real, found.generated)
    scale = prior_scale(generated, found)
    both = (found.real.efficiency + found.generated.efficiency).reshape(raw.shape)
    variances = regularise_variances(found, both / 2)
    first = [
        smooth_difference(d, v, shape=shape, scale=s)
        for d, v, s in zip(raw, variances, scale, strict=True)
    ]
    corrected = generated + np.array([cut.mean for cut in first])
    variances = regularise_variances(found, corrected)
    second = [
        smooth_difference(d, v, shape=shape, scale=s, start=cut.log_amplitudes)
        for d, v, s, cut in zip(raw, variances, scale, first, strict=True)
    ]
    return second, variances


def smooth_difference(
    difference: FloatArray,
    variance: FloatArray,
    *,
    shape: Sequence[int],
    scale: FloatArray,
    start: FloatArray | None = None,
) -> SmoothDifference:
    """Return the posterior of the raw differences (n_bins,) of one cut.

    They are NaN where unmeasured; the scale is the diagonal of D, `start` that of ln t.
    """
    measured = np.isfinite(difference)
    terms = grid_terms(shape) * (scale[:, np.newaxis] * scale)
    inner = terms[:, measured][:, :, measured]
    raw, noise = difference[measured], variance[measured]
    low, high = np.log(AMPLITUDE_RANGE)
    bounds = [(low, high)] * len(terms)
    axes = sum(n > 1 for n in shape)
    bounds[1 : 1 + axes] = [(np.log(MIN_AXIS_AMPLITUDE), high)] * axes
    if start is None:
        start = np.full(len(terms), np.log(_START_AMPLITUDE))
    found = scipy.optimize.minimize(
        _objective,
        np.clip(start, *np.transpose(bounds)),
        args=(inner, raw, noise),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-6, "maxiter": 100},
    )
    prior = np.tensordot(np.exp(2 * found.x), terms, axes=1)
    seen = prior[measured]
    factor = linalg.cho_factor(seen[:, measured] + np.diag(noise), lower=True)
    operator = np.zeros_like(prior)
    operator[:, measured] = linalg.cho_solve(factor, seen).T
    covariance = prior - operator[:, measured] @ seen
    return SmoothDifference(
        mean=operator[:, measured] @ raw,
        covariance=(covariance + covariance.T) / 2,
        operator=operator,
        log_amplitudes=found.x,
        scale=scale,
    )


def difference_scale(efficiency: FloatArray) -> FloatArray:
    """Return 4 g (1 - g), at least `SCALE_FLOOR`."""
    g = np.clip(efficiency, 0, 1)
    return np.maximum(4 * g * (1 - g), SCALE_FLOOR)


def prior_scale(generated: FloatArray, found: RealVsGenerated) -> FloatArray:
    """Return D, the scale of the differences, (n_cuts, n_bins).

    The root of 4 g (1 - g), with the generated efficiency g or with that which it
    becomes when its logit is shifted until the slice of bins along one axis has the
    real efficiency, whichever is largest. The shifts hardly matter for a good
    generator. One that never makes the tail that a cut selects has g = 0 there, which
    must not be taken for certainty.
    """
    scale = difference_scale(generated)
    weight = np.where(is_measured(found), found.n_eff.reshape(-1), 0.0)
    tables = (found.real, found.generated)
    sums = [weight * np.nan_to_num(_flat(table.efficiency)) for table in tables]
    shape = found.real.shape
    places = np.unravel_index(np.arange(len(weight)), shape)
    for place, n in zip(places, shape, strict=True):
        rows = np.bincount(place, weight, n)
        for cut in range(len(generated)):
            real, made = (np.bincount(place, one[cut], n) for one in sums)
            # Half a row on either side: a slice without rows is not shifted.
            wanted, now = (_logit((e + 0.5) / (rows + 1)) for e in (real, made))
            shift = wanted - now
            shifted = special.expit(_logit(generated[cut]) + shift[place])
            scale[cut] = np.maximum(scale[cut], difference_scale(shifted))
    return np.sqrt(scale)


def is_measured(found: RealVsGenerated) -> BoolArray:
    """Return which bins have efficiencies, (n_bins,), real and generated ones."""
    both = found.real.efficiency[0] + found.generated.efficiency[0]
    return np.asarray(np.isfinite(both)).reshape(-1)


def _flat(efficiency: FloatArray) -> FloatArray:
    """Efficiencies (n_cuts, ...) with the bins in one axis."""
    return efficiency.reshape(len(efficiency), -1)


def _logit(efficiency: FloatArray) -> FloatArray:
    """Logit of an efficiency, which `SCALE_FLOOR` keeps off 0 and 1."""
    edge = SCALE_FLOOR / 4
    return np.asarray(special.logit(np.clip(efficiency, edge, 1 - edge)))


def grid_terms(shape: Sequence[int]) -> FloatArray:
    """Return the matrices of K that a grid tells apart, (n_terms, n_bins, n_bins)."""
    return _terms(tuple(shape))


@lru_cache(maxsize=4)
def _terms(shape: tuple[int, ...]) -> FloatArray:
    """The matrices of K that the grid can tell apart, (n_terms, n_bins, n_bins)."""
    n_bins = int(np.prod(shape, dtype=np.int64))
    smooth = _smooth_terms(shape)
    terms = [np.ones((n_bins, n_bins)), *smooth]
    if len(smooth) > 1:
        terms.append(np.prod(smooth, axis=0))
    if smooth:
        terms.append(np.eye(n_bins))
    return np.array(terms)


def _smooth_terms(shape: Sequence[int]) -> list[FloatArray]:
    """O_j, (n_bins, n_bins), of each axis with more than one bin."""
    places = np.indices(shape).reshape(len(shape), -1)
    return [
        np.exp(-np.abs(place[:, np.newaxis] - place) / CORRELATION_LENGTH)
        for place, n in zip(places, shape, strict=True)
        if n > 1
    ]


def _objective(
    log_t: FloatArray, terms: FloatArray, raw: FloatArray, noise: FloatArray
) -> tuple[float, FloatArray]:
    """Minus the log of marginal likelihood times prior, and its gradient in ln t."""
    t = np.exp(log_t)
    total = np.tensordot(t**2, terms, axes=1)
    total[np.diag_indices_from(total)] += noise
    factor = linalg.cholesky(total, lower=True)
    lower, _ = linalg.lapack.dpotri(factor, lower=1)
    inverse = np.tril(lower) + np.tril(lower, -1).T
    alpha = inverse @ raw
    log_det = 2 * np.log(np.diag(factor)).sum()
    log_prior = (log_t - t / TYPICAL_AMPLITUDE).sum()
    value = 0.5 * (log_det + raw @ alpha) - log_prior
    slopes = np.tensordot(terms, inverse - np.outer(alpha, alpha), axes=2)
    gradient: FloatArray = t**2 * slopes - 1 + t / TYPICAL_AMPLITUDE
    return float(value), gradient
