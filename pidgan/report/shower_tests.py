"""Tests of generated showers against the real ones of the same conditions.

Real and generated shower i have the same conditions. If the generator is perfect, the
two can be exchanged: the difference d_i of any quantity is as likely as -d_i, whatever
its distribution. Sums D = sum d_i of differences d_i (k,) then have mean 0 and
covariance V = sum d_i d_i^T, and D^T V^-1 D is a chi-squared of as many degrees of
freedom as V has dimensions. Source: R. A. Fisher, The Design of Experiments (1935),
Sec. 21, with the covariance of all changes of sign.

A quantity may be a number, an indicator (an empty shower), or a histogram with one
entry a shower. Results are pulls: the number of standard deviations of a normal
distribution that has the p-value above it. They serve many tests at once, of which
`pidgan.report.verdict` takes account.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pidgan.arrays import FloatArray
from pidgan.report.shower_metrics import ONE_SIGMA
from pidgan.report.verdict import MOST_SIGMAS, chi2_pull, sigmas

TEST_BINS, BIN_ENTRIES = 20, 30  # most bins of a histogram, fewest entries of a bin
REPLICAS = 200  # pairs of samples that show what chance gives
RANK = 1e-9  # smallest relative eigenvalue of a covariance that counts
LEAST_PULL = -3.0  # of samples that are more alike than chance lets them be


def mean_pull(real: ArrayLike, generated: ArrayLike) -> float | None:
    """Return the pull of means of one quantity (n,), or of several at once (n, k)."""
    d = np.asarray(real, dtype=np.float64) - np.asarray(generated, dtype=np.float64)
    d = d.reshape(len(d), -1)
    sums, covariance = d.sum(axis=0), d.T @ d
    scale = np.sqrt(np.diag(covariance))
    some = scale > 0
    if not some.any():
        return 0.0
    sums, covariance = sums[some] / scale[some], covariance[np.ix_(some, some)]
    covariance /= np.outer(scale[some], scale[some])
    size, axes = np.linalg.eigh(covariance)
    known = size > RANK * size[-1]
    chi2 = float(np.sum((axes.T @ sums)[known] ** 2 / size[known]))
    return _bounded(chi2_pull(chi2, int(known.sum())))


def share_pull(real: ArrayLike, generated: ArrayLike) -> float:
    """Return the pull of the shares of showers that have a property, (n,) of bool.

    Only showers that differ from their partner count; their number on one side is
    binomial.
    """
    a, b = (np.asarray(v, dtype=np.bool_) for v in (real, generated))
    one, two = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p = 2 * stats.binom.cdf(min(one, two), one + two, 0.5)
    return _bounded(float(stats.norm.isf(min(p, 1.0)))) or 0.0


def histogram_pull(real: ArrayLike, generated: ArrayLike) -> float | None:
    """Return the pull of the distributions of one quantity, (n,) each.

    Bins have about equal numbers of real and generated showers together.
    """
    y, g = (np.asarray(v, dtype=np.float64) for v in (real, generated))
    both = np.concatenate([y, g])
    bins = min(TEST_BINS, len(both) // BIN_ENTRIES)
    if bins < 2:
        return None
    edges = np.unique(np.quantile(both, np.arange(1, bins) / bins))
    codes = [np.searchsorted(edges, v, side="left") for v in (y, g)]
    return code_pull(codes[0], codes[1])


def code_pull(real: ArrayLike, generated: ArrayLike) -> float | None:
    """Return the pull of the distributions of a number of a class, (n,) each.

    Neighbouring classes are joined until each has enough showers.
    """
    a, b = (np.asarray(v, dtype=np.int64) for v in (real, generated))
    counts = np.bincount(np.concatenate([a, b]))
    joined, have = np.zeros(len(counts), dtype=np.int64), 0
    for i, count in enumerate(counts):
        joined[i] = joined[i - 1] + (have >= BIN_ENTRIES) if i else 0
        have = count if have >= BIN_ENTRIES else have + count
    if have < BIN_ENTRIES and joined[-1] > 0:
        joined[joined == joined[-1]] -= 1
    classes = np.eye(joined[-1] + 1)
    return mean_pull(classes[joined[a]], classes[joined[b]])


def correlation_pull(real: FloatArray, generated: FloatArray, *, seed: int) -> float:
    """Return the pull of the largest difference of correlations of columns (n, d).

    A correlation r of standardised columns x and y changes by x y - r (x^2 + y^2) / 2
    with a shower, so that differences are sums over showers, and signs show by chance
    how large the largest of them is, in units of its error.
    """
    changes = [_correlation_changes(v) for v in (real, generated)]
    d = (changes[1] - changes[0]).astype(np.float32)
    error = np.sqrt((d**2).sum(axis=0))
    d = d[:, error > 0] / error[error > 0]
    if not d.size:
        return 0.0
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1, 1], dtype=np.float32), (REPLICAS, len(d)))
    null = np.abs(signs @ d).max(axis=1)
    found = sigmas(float(np.abs(d.sum(axis=0)).max()), null)
    return _bounded(found) or 0.0


def correlation_shares(
    real: FloatArray, generated: FloatArray
) -> dict[str, float | None]:
    """Return the shares of pairs of columns within one and two errors of each other."""
    changes = [_correlation_changes(v) for v in (real, generated)]
    d = changes[1] - changes[0]
    error = np.sqrt((d**2).sum(axis=0))
    size = np.abs(d.sum(axis=0)[error > 0]) / error[error > 0]
    if not len(size):
        return {"within_1": None, "within_2": None}
    return {f"within_{k}": float(np.mean(size <= k)) for k in (1, 2)}


def chance_of_response(
    visible: FloatArray, incident: FloatArray, edges: FloatArray, *, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return by chance differences (REPLICAS, bins) of the mean and the resolution.

    They are those of two samples drawn from the real showers of each bin, which are as
    many: generated / real - 1. Bins without showers have NaN.
    """
    rng = np.random.default_rng(seed)
    bins = len(edges) - 1
    found = np.full((2, REPLICAS, bins), np.nan)
    place = np.searchsorted(edges, incident, side="right") - 1
    for i in range(bins):
        r = visible[place == i] / incident[place == i]
        if len(r) < 2:
            continue
        draws = np.sort(r[rng.integers(len(r), size=(2, REPLICAS, len(r)))], axis=-1)
        mean = draws.mean(axis=-1)
        width = _widths(draws)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[0, :, i] = mean[1] / mean[0] - 1
            found[1, :, i] = width[1] / width[0] - 1
    return found[0], found[1]


def width_pull(real: ArrayLike, generated: ArrayLike) -> float:
    """Return the pull of the widths of one quantity, (n,) each.

    It is that of the shares outside of the central 68.3 % of both together.
    """
    y, g = (np.asarray(v, dtype=np.float64) for v in (real, generated))
    low, high = np.quantile(np.concatenate([y, g]), [ONE_SIGMA, 1 - ONE_SIGMA])
    return share_pull((y < low) | (y > high), (g < low) | (g > high))


def largest_pull(pulls: Sequence[float | None]) -> float | None:
    """Return the pull of the largest of several, of which one is large by chance."""
    known = [pull for pull in pulls if pull is not None]
    if not known:
        return None
    p = -np.expm1(len(known) * np.log1p(-stats.norm.sf(max(known))))
    return _bounded(float(stats.norm.isf(p)))


def worst_figure(
    values: FloatArray,
    errors: FloatArray,
    null: FloatArray,
    pulls: Sequence[float | None],
) -> dict[str, float | None]:
    """Return the largest absolute value of bins (m,) beside what chance gives.

    The floor is the mean largest value of pairs of real samples, `null` (r, m), and
    `pulls` are those of the bins.
    """
    if not np.isfinite(values).any():
        return dict.fromkeys(("value", "error", "floor", "floor_error", "pull"))
    known = np.isfinite(null).any(axis=0) & np.isfinite(values)
    worst = int(np.nanargmax(np.abs(values)))
    largest = np.nanmax(np.abs(null[:, known]), axis=1) if known.any() else np.zeros(1)
    return {
        "value": float(np.abs(values[worst])),
        "error": float(errors[worst]),
        "floor": float(largest.mean()),
        "floor_error": float(largest.std()),
        "pull": largest_pull(pulls),
    }


def _widths(sorted_values: FloatArray) -> FloatArray:
    """Half of the central 68.3 % over the median of sorted values (..., n)."""
    n = sorted_values.shape[-1]
    at = np.array([ONE_SIGMA, 0.5, 1 - ONE_SIGMA]) * (n - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, n - 1)
    q = sorted_values[..., low] * (1 - at + low) + sorted_values[..., high] * (at - low)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((q[..., 2] - q[..., 0]) / 2 / q[..., 1])


def _correlation_changes(columns: FloatArray) -> FloatArray:
    """Correlations of pairs of columns, as sums (n, pairs) over showers."""
    n = len(columns)
    size = columns.std(axis=0)
    x = (columns - columns.mean(axis=0)) / np.where(size > 0, size, 1.0)
    i, j = _pairs_of(columns.shape[1])
    r = np.mean(x[:, i] * x[:, j], axis=0)
    change = x[:, i] * x[:, j] - r / 2 * (x[:, i] ** 2 + x[:, j] ** 2)
    return np.asarray((change + r) / n)


def _pairs_of(d: int) -> tuple[Any, Any]:
    i, j = np.triu_indices(d, k=1)
    return i, j


def _bounded(pull: float | None) -> float | None:
    """A pull that JSON knows; that of p = 1 would be minus infinity."""
    return None if pull is None else float(np.clip(pull, LEAST_PULL, MOST_SIGMAS))
