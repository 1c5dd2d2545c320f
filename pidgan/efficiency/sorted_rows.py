"""Efficiencies in bins from weights of any sign, with their uncertainties.

With S = sum w, P = sum of w over the rows that pass, S2 and P2 the same sums of w^2,
the efficiency is e = P / S. Two uncertainties are offered:

- ``wilson`` (default): the score interval of Wilson (J. Am. Stat. Assoc. 22 (1927)
  209) with its binomial term n e (1 - e) replaced by the weighted one; it has a
  finite width at e = 0 and e = 1, and is Wilson's own for unit weights. Use this.
- ``pidcalib``: |(1 - 2e) P2 + e^2 S2| / S^2 (LHCb-PUB-2016-021, Eq. 13), symmetric and
  zero at e = 0 and e = 1, however few the rows. Use it to reproduce tables made with
  PIDCalib.

Neither includes the uncertainty of the mass fit behind sWeights.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.sample.weights import n_eff_of_sums

VarianceName = Literal["wilson", "pidcalib"]

Z = 1.0  # intervals are quoted at one standard deviation, 68.27 %

ROUNDING = 1e-9
"""Distance from [0, 1] from which an efficiency counts as unphysical."""

PRODUCT_SIZE = 200_000
"""Multiplications in a matrix product: so few that BLAS starts no threads for it, on
which a busy machine would wait longer than the product takes."""


@dataclass(frozen=True, kw_only=True)
class SortedRows:
    """The m of n rows that have a bin, ordered by it; made by `sort_rows`.

    `order` (m,) numbers them among the n, `starts` (n_bins + 1,) has the first row of
    each bin. Where events have several rows, those of an event in a bin lie side by
    side, and `groups` has the first row of each.
    """

    order: IntArray
    weights: FloatArray
    starts: IntArray
    n: int
    groups: IntArray | None = None

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.starts) - 1

    @cached_property
    def _sums(self) -> Any:
        # Five times as fast as bincount, and the same order of additions.
        ones, places = np.ones(len(self.order)), np.arange(len(self.order))
        return sparse.csr_array((ones, places, self.starts), (self.n_bins, len(ones)))

    def total(self, values: FloatArray) -> FloatArray:
        """Sum (m,) values in each bin."""
        return np.asarray(self._sums @ values)

    @cached_property
    def _group_sums(self) -> Any:
        groups = np.asarray(self.groups)
        ones, places = np.ones(len(groups)), np.arange(len(groups))
        starts = np.searchsorted(groups, self.starts)
        return sparse.csr_array((ones, places, starts), (self.n_bins, len(ones)))

    def total_product(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Sum products of fluctuations (m,) in each bin, those of an event together."""
        if self.groups is None:
            return self.total(first * second)
        if not len(self.groups):
            return np.zeros(self.n_bins)
        a, b = (np.add.reduceat(values, self.groups) for values in (first, second))
        return np.asarray(self._group_sums @ (a * b))

    def added_by_events(
        self, shares: NDArray[Any], passed: FloatArray
    ) -> FloatArray | float:
        """What events add to sum w^2 (s - e)^2, (n_cuts, n_bins): shares (n_cuts, m).

        `passed` (n_cuts, n_bins) are the sums of w s.
        """
        if self.groups is None:
            return 0.0
        sums, found = self.total(self.weights), np.zeros_like(passed)
        for cut, share in enumerate(shares):
            e = np.divide(passed[cut], sums, out=np.zeros_like(sums), where=sums > 0)
            residual = self.weights * (share - np.repeat(e, np.diff(self.starts)))
            found[cut] = self.total_product(residual, residual)
            found[cut] -= self.total(residual**2)
        return found


def sort_rows(
    index: IntArray, weights: FloatArray, n_bins: int, events: IntArray | None = None
) -> SortedRows:
    """Order rows by their bin (n,), -1 outside, so that sums read memory once.

    The rows of an event (n,) fluctuate together.
    """
    if events is not None:
        order = np.lexsort((events, index))[np.count_nonzero(index < 0) :]
        place, number = index[order], events[order]
        is_first = np.ones(len(order), dtype=np.bool_)
        is_first[1:] = (np.diff(place) != 0) | (np.diff(number) != 0)
        return SortedRows(
            order=order,
            weights=weights[order],
            starts=np.searchsorted(place, np.arange(n_bins + 1)),
            n=len(index),
            groups=np.flatnonzero(is_first),
        )
    # numpy sorts integers of 16 bits by radix, ten times as fast.
    small = index.astype(np.int16) if n_bins < np.iinfo(np.int16).max else index
    order = np.argsort(small, kind="stable")
    order = order[np.count_nonzero(index < 0) :]
    return SortedRows(
        order=order,
        weights=weights[order],
        starts=np.searchsorted(index[order], np.arange(n_bins + 1)),
        n=len(index),
    )


def share_covariance(shares: NDArray[Any], rows: SortedRows) -> FloatArray:
    """Return sum w^2 (s_a - e_a) (s_b - e_b) / S^2, (n, n, n_bins), of shares (n, m).

    A share is whether a row passes, or the part of its draws that do.
    """
    w, w2 = rows.weights, rows.weights**2
    s, s2 = rows.total(w), rows.total(w2)
    s = np.where(s > 0, s, np.nan)
    if rows.groups is not None:
        return _grouped_covariance(shares, rows, s)
    products = np.zeros((rows.n_bins, len(shares), len(shares)))
    passed, passed2 = np.zeros((2, len(shares), rows.n_bins))
    step = max(PRODUCT_SIZE // len(shares) ** 2, 1)
    for b in np.flatnonzero(np.diff(rows.starts)):
        for first in range(rows.starts[b], rows.starts[b + 1], step):
            block = slice(first, min(first + step, rows.starts[b + 1]))
            inside = shares[:, block].astype(np.float64)
            scaled = inside * w2[block]
            products[b] += scaled @ inside.T
            passed[:, b] += inside @ w[block]
            passed2[:, b] += scaled.sum(axis=1)
    e = passed / s
    mixed = e[:, np.newaxis] * passed2
    value = np.moveaxis(products, 0, -1) - mixed - np.swapaxes(mixed, 0, 1)
    return np.asarray((value + e[:, np.newaxis] * e * s2) / s**2)


def _grouped_covariance(
    shares: NDArray[Any], rows: SortedRows, sums: FloatArray
) -> FloatArray:
    """Return the covariance (n, n, n_bins) of shares (n, m) from sums of events."""
    w, n = rows.weights, len(shares)
    residuals = []
    for share in shares:
        e = np.repeat(rows.total(w * share) / sums, np.diff(rows.starts))
        residuals.append(w * (share - e))
    result = np.empty((n, n, rows.n_bins))
    for i, first in enumerate(residuals):
        for j, second in enumerate(residuals[: i + 1]):
            result[i, j] = result[j, i] = rows.total_product(first, second)
    return np.asarray(result / sums**2)


def efficiency_interval(
    passed: ArrayLike,
    total: ArrayLike,
    passed2: ArrayLike,
    total2: ArrayLike,
    *,
    variance: VarianceName = "wilson",
    spread: ArrayLike = 0.0,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return e, its variance and the ends of its one-sigma interval from sums.

    V = (1 - 2e) P2 + e^2 S2 = sum w^2 (pass - e)^2 is the weighted n e (1 - e). With
    the effective weight of one row u = S2 / S, Wilson's interval becomes
    (P + z^2 u / 2 -+ z sqrt(V + z^2 u^2 / 4)) / (S + z^2 u).

    Rows of which a share s passes (the part of several generated draws) count with
    P = sum w s and P2 = sum w^2 s; V = sum w^2 (s - e)^2 is then smaller by
    sum w^2 s (1 - s).

    The variance is the squared half width; all are NaN where S <= 0. Weights of both
    signs can put e itself outside [0, 1]; nothing is clipped.
    """
    if variance not in ("wilson", "pidcalib"):
        raise ValueError(f"variance {variance!r}: expected 'wilson' or 'pidcalib'")
    p, s, p2, s2 = np.broadcast_arrays(
        *(np.asarray(a, dtype=np.float64) for a in (passed, total, passed2, total2))
    )
    s = np.where(s > 0, s, np.nan)
    e = p / s
    v = np.abs((1 - 2 * e) * p2 + e**2 * s2 - spread)
    if variance == "pidcalib":
        half, centre = np.sqrt(v) / s, e
    else:
        u = s2 / s
        norm = s + Z**2 * u
        half = Z * np.sqrt(v + (Z * u / 2) ** 2) / norm
        centre = (p + Z**2 * u / 2) / norm
    return e, half**2, centre - half, centre + half


def is_unphysical(efficiency: ArrayLike) -> BoolArray:
    """Return which efficiencies are below 0 or above 1, by more than rounding."""
    distance = np.abs(np.asarray(efficiency, dtype=np.float64) - 0.5)
    return np.asarray(distance > 0.5 + ROUNDING)


def moments(
    real: BoolArray, generated: FloatArray, rows: SortedRows
) -> tuple[FloatArray, FloatArray]:
    """Mean products of r - g, (n_cuts, n_cuts, n_bins), and their effective rows."""
    w2 = rows.weights * rows.weights
    s2, s4 = rows.total(w2), rows.total(w2 * w2)
    norm = np.where(rows.total(rows.weights) > 0, s2, np.nan)
    residual = rows.weights * (real.astype(np.float64) - generated)
    if rows.groups is not None:
        # Together, the rows of an event would count the mean several times.
        mean = residual.sum(axis=1) / rows.weights.sum()
        residual -= rows.weights * mean[:, np.newaxis]
        s2, s4 = rows.total(w2), rows.total_product(w2, w2)
    found = np.empty((len(residual), len(residual), rows.n_bins))
    for i, first in enumerate(residual):
        for j, second in enumerate(residual[: i + 1]):
            found[i, j] = found[j, i] = rows.total_product(first, second) / norm
    return found, n_eff_of_sums(s2, s4)
