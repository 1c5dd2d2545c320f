"""Efficiencies of PID cuts in bins of the conditions, from weights of any sign.

With S = sum w, P = sum of w over the rows that pass, S2 and P2 the same sums of w^2,
the efficiency of a bin is e = P / S. Two uncertainties are offered:

- ``wilson`` (default): the score interval of Wilson (J. Am. Stat. Assoc. 22 (1927)
  209) with its binomial term n e (1 - e) replaced by the weighted one; it has a
  finite width at e = 0 and e = 1, and is Wilson's own for unit weights. Use this.
- ``pidcalib``: |(1 - 2e) P2 + e^2 S2| / S^2 (LHCb-PUB-2016-021, Eq. 13), symmetric and
  zero at e = 0 and e = 1, however few the rows. Use it to reproduce tables made with
  PIDCalib.

Neither includes the uncertainty of the mass fit behind sWeights. MisID is the same
quantity for rows of another species.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency.binning import (
    Binning,
    Columns,
    bin_index,
    bin_shape,
    choose_edges,
    count_bins,
    count_rows,
)
from pidgan.errors import DatasetError, PidganWarning
from pidgan.sample.cuts import Cut, cut_texts, parse_cut
from pidgan.sample.weights import n_eff_of_sums

VarianceName = Literal["wilson", "pidcalib"]
Content = Literal["efficiency", "passed", "total"]

Z = 1.0  # intervals are quoted at one standard deviation, 68.27 %

FILLED, EMPTY, NOT_POSITIVE = 0, 1, 2
"""Values of `EfficiencyTable.status`: usable; no rows; sum of weights <= 0."""

MIN_PASSED = 20.0
"""Effective passing rows below which an efficiency is flagged as `few`: its relative
uncertainty is above 22 %, and its interval is no longer a Gaussian one."""

PRODUCT_SIZE = 200_000
"""Multiplications in a matrix product: so few that BLAS starts no threads for it, on
which a busy machine would wait longer than the product takes."""

UNKNOWN_ROWS = -1
"""`n_rows` of a table made from histograms, which hold sums of weights only."""


@dataclass(frozen=True, kw_only=True)
class EfficiencyTable:
    """Efficiencies of several cuts in the same bins, with all sums behind them.

    Arrays of bins have the shape of the binning, (n_1, ..., n_d); arrays of cuts and
    bins have the cut first. Bins without a positive sum of weights hold NaN.

    Attributes:
        cuts: the cuts, in the order of the first axis.
        binning: edges by condition, in the order of the other axes.
        variance_name: how the uncertainty was found.
        efficiency: (n_cuts, ...), P / S.
        variance: (n_cuts, ...), squared half width of the one-sigma interval.
        lower: (n_cuts, ...), lower end of that interval.
        upper: (n_cuts, ...), its upper end.
        sum_weights: (...), S.
        sum_weights2: (...), S2.
        sum_passed: (n_cuts, ...), P.
        sum_passed2: (n_cuts, ...), P2.
        n_rows: (...), rows in each bin; `UNKNOWN_ROWS` if made from histograms.
        n_eff: (...), S^2 / S2.
        status: (...), `FILLED`, `EMPTY` or `NOT_POSITIVE`.
        rows_outside: rows outside every bin, left out of all sums.
        sentinel_rows: (n_cuts,), rows inside the binning that fail the cut because a
            variable of it is a sentinel or not finite.
    """

    cuts: tuple[str, ...]
    binning: dict[str, tuple[float, ...]]
    variance_name: VarianceName
    efficiency: FloatArray
    variance: FloatArray
    lower: FloatArray
    upper: FloatArray
    sum_weights: FloatArray
    sum_weights2: FloatArray
    sum_passed: FloatArray
    sum_passed2: FloatArray
    n_rows: IntArray
    n_eff: FloatArray
    status: NDArray[np.int8]
    rows_outside: int
    sentinel_rows: IntArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Bins along each condition."""
        return self.sum_weights.shape

    @property
    def error(self) -> FloatArray:
        """Square root of the variance, (n_cuts, ...)."""
        return np.sqrt(self.variance)

    @property
    def n_eff_passed(self) -> FloatArray:
        """(n_cuts, ...), P^2 / P2: effective rows that pass; 0 where P <= 0."""
        return n_eff_of_sums(np.maximum(self.sum_passed, 0), self.sum_passed2)

    @property
    def few(self) -> BoolArray:
        """(n_cuts, ...), usable bins with fewer than `MIN_PASSED` of them."""
        few: BoolArray = (self.status == FILLED) & (self.n_eff_passed < MIN_PASSED)
        return few

    def frame(self) -> pd.DataFrame:
        """Return one row per cut and bin, with the bin's edges and every sum."""
        n_bins = int(np.prod(self.shape, dtype=np.int64))
        flat = np.arange(n_bins)
        columns: dict[str, Any] = {"cut": np.repeat(np.array(self.cuts), n_bins)}
        places = np.unravel_index(flat, self.shape) if self.shape else ()
        for (name, edges), place in zip(self.binning.items(), places, strict=True):
            columns[f"{name}_low"] = np.tile(np.array(edges)[place], len(self.cuts))
            columns[f"{name}_high"] = np.tile(
                np.array(edges)[place + 1], len(self.cuts)
            )
        for name in (
            "efficiency",
            "variance",
            "lower",
            "upper",
            "sum_passed",
            "n_eff_passed",
            "few",
        ):
            columns[name] = getattr(self, name).reshape(-1)
        for name in ("sum_weights", "n_rows", "n_eff", "status"):
            columns[name] = np.tile(getattr(self, name).reshape(-1), len(self.cuts))
        return pd.DataFrame(columns)

    def to_hist(self, content: Content = "efficiency") -> Any:
        """Return a `hist.Hist`: axis "cut" (not for "total"), then the conditions.

        Args:
            content: "efficiency", with the variances of the table and NaN in unusable
                bins; "passed" or "total", the sums of weights with those of w^2.
        """
        import hist

        value, variance = {
            "efficiency": (self.efficiency, self.variance),
            "passed": (self.sum_passed, self.sum_passed2),
            "total": (self.sum_weights, self.sum_weights2),
        }[content]
        axes = [hist.axis.StrCategory(list(self.cuts), name="cut")]
        axes += [
            hist.axis.Variable(list(edges), name=name, overflow=False, underflow=False)
            for name, edges in self.binning.items()
        ]
        result = hist.Hist(
            *axes[content == "total" :], storage=hist.storage.Weight(), name=content
        )
        view = result.view(flow=False)
        view["value"], view["variance"] = value, variance
        return result

    @classmethod
    def from_hists(
        cls,
        total: Any,
        passed: Mapping[str, Any],
        *,
        variance: VarianceName = "wilson",
    ) -> Self:
        """Make a table from filled histograms, of `hist` or `boost_histogram`.

        Args:
            total: of all rows, with storage `Weight`; an axis is named by its name, or
                by "name" of its metadata as in PIDCalib2, else axis_0, axis_1 ...
            passed: of the rows that pass, by cut; with the same axes.
            variance: "wilson" or "pidcalib", see the module's text.

        Raises:
            DatasetError: a histogram without sums of w^2, or with other axes.
        """
        edges = _hist_edges(total)
        sum_w, sum_w2 = _hist_sums("total", total)
        if not passed:
            raise ValueError("no histogram of passing rows given")
        for cut, histogram in passed.items():
            if _hist_edges(histogram) != edges:
                raise DatasetError(
                    f"histogram of {cut!r} has other axes than the total"
                )
        sums = [_hist_sums(cut, histogram) for cut, histogram in passed.items()]
        status = np.full(sum_w.shape, FILLED, dtype=np.int8)
        status[sum_w <= 0] = NOT_POSITIVE
        status[sum_w2 == 0] = EMPTY
        p, p2 = np.array([s for s, _ in sums]), np.array([s for _, s in sums])
        efficiency, squared, lower, upper = efficiency_interval(
            p, sum_w, p2, sum_w2, variance=variance
        )
        table = cls(
            cuts=tuple(passed),
            binning=edges,
            variance_name=variance,
            efficiency=efficiency,
            variance=squared,
            lower=lower,
            upper=upper,
            sum_weights=sum_w,
            sum_weights2=sum_w2,
            sum_passed=p,
            sum_passed2=p2,
            n_rows=np.full(sum_w.shape, UNKNOWN_ROWS),
            n_eff=n_eff_of_sums(np.maximum(sum_w, 0), sum_w2),
            status=status,
            rows_outside=0,
            sentinel_rows=np.zeros(len(passed), dtype=np.int64),
        )
        warn_of_table(table)
        return table


def efficiency_table(
    frame: Columns,
    cuts: Sequence[str] | str,
    *,
    binning: Binning | None = None,
    weights: ArrayLike | None = None,
    variance: VarianceName = "wilson",
    sentinels: Mapping[str, tuple[float, ...]] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> EfficiencyTable:
    """Return the efficiency of each cut in each bin, e = sum_pass w / sum w.

    A row in which a variable of the cut is a sentinel or NaN fails that cut and stays
    in the denominator. Bins that are empty or have sum w <= 0 hold NaN and are
    announced by one `PidganWarning`; so is a cut that all rows or none pass.

    Args:
        frame: Named columns of n rows: the variables of cuts and binning.
        cuts: One cut or several; PIDCalib's `DLLK` is `PIDK`, and so on.
        binning: Name of a binning that ships ("hadrons"); or, by condition, edges, the
            name of a binning, or a number of bins of equal effective population. None
            gives the efficiency of all rows.
        weights: (n,) weights of any sign; None means 1.
        variance: Formula of the intervals, "wilson" or "pidcalib"; see the module's
            text.
        sentinels: Values of a variable that mean "not measured".
        aliases: Further names for columns in cuts; `Sample.aliases` has those of a
            calibration sample.

    Returns:
        The table; its first axis is the cut, the others follow the binning.

    Example:
        >>> frame = {"P": np.array([1.0, 2.0, 3.0]), "y": np.array([-1.0, 1.0, 2.0])}
        >>> efficiency_table(frame, "y > 0", binning={"P": (0, 5)}).efficiency.round(3)
        array([[0.667]])
    """
    edges, rows, parsed = _prepare(frame, cuts, binning, weights, aliases)
    passes, sentinel_rows = _passes(frame, parsed, rows, sentinels)
    table = table_of_shares(
        passes,
        rows,
        cuts=[cut.text for cut in parsed],
        edges=edges,
        variance=variance,
        sentinel_rows=sentinel_rows,
    )
    warn_of_table(table)
    return table


def warn_of_table(table: EfficiencyTable) -> None:
    """Say once how many bins have no efficiency, and which cuts say nothing."""
    empty = int(np.count_nonzero(table.status == EMPTY))
    negative = int(np.count_nonzero(table.status == NOT_POSITIVE))
    if empty or negative:
        warnings.warn(
            f"no efficiency in {empty + negative} of {table.status.size} bins: {empty} "
            f"empty, {negative} with sum of weights <= 0; they hold NaN",
            PidganWarning,
            stacklevel=3,
        )
    everything = table.sum_weights2.sum()
    for cut, passed2 in zip(table.cuts, table.sum_passed2, strict=True):
        if passed2.sum() in (0.0, everything):
            word = "none" if passed2.sum() == 0 else "all"
            warnings.warn(
                f"cut {cut!r}: {word} of the rows pass; check name, unit and direction",
                PidganWarning,
                stacklevel=3,
            )


def cut_covariance(
    frame: Columns,
    cuts: Sequence[str] | str,
    *,
    binning: Binning | None = None,
    weights: ArrayLike | None = None,
    sentinels: Mapping[str, tuple[float, ...]] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> FloatArray:
    """Return the covariance of the efficiencies of several cuts in each bin.

    cov_ab = sum w^2 (pass_a - e_a) (pass_b - e_b) / S^2, of which the diagonal is the
    "pidcalib" variance. Different bins share no rows and are uncorrelated.

    Args:
        frame: Named columns of n rows.
        cuts: One cut or several.
        binning: Binning as in `efficiency_table`.
        weights: (n,) weights of any sign; None means 1.
        sentinels: Values of a variable that mean "not measured".
        aliases: Further names for columns in cuts.

    Returns:
        (n_cuts, n_cuts, ...) with the shape of the binning last; NaN where S <= 0.
    """
    edges, rows, parsed = _prepare(frame, cuts, binning, weights, aliases)
    passes, _ = _passes(frame, parsed, rows, sentinels)
    covariance = share_covariance(passes, rows)
    return covariance.reshape(len(parsed), len(parsed), *bin_shape(edges))


@dataclass(frozen=True, kw_only=True)
class SortedRows:
    """Rows ordered by their bin, those outside left out; made by `sort_rows`.

    Attributes:
        order: (m,), number of each row among the n that were sorted.
        index: (m,), its bin, increasing.
        weights: (m,).
        starts: (n_bins + 1,), first row of each bin.
        n: rows before those outside were left out.
    """

    order: IntArray
    index: IntArray
    weights: FloatArray
    starts: IntArray
    n: int

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


def sort_rows(index: IntArray, weights: FloatArray, n_bins: int) -> SortedRows:
    """Order rows by bin, so that sums over a bin read memory once.

    Args:
        index: (n,) bin of each row, -1 outside.
        weights: (n,) of any sign.
        n_bins: number of bins.
    """
    # numpy sorts integers of 16 bits by radix, ten times as fast.
    small = index.astype(np.int16) if n_bins < np.iinfo(np.int16).max else index
    order = np.argsort(small, kind="stable")
    order = order[np.count_nonzero(index < 0) :]
    at = index[order]
    return SortedRows(
        order=order,
        index=at,
        weights=weights[order],
        starts=np.searchsorted(at, np.arange(n_bins + 1)),
        n=len(index),
    )


def table_of_shares(
    shares: NDArray[Any],
    rows: SortedRows,
    *,
    cuts: Sequence[str],
    edges: Mapping[str, tuple[float, ...]],
    variance: VarianceName = "wilson",
    sentinel_rows: IntArray | None = None,
) -> EfficiencyTable:
    """Return the table of rows of which a known share passes.

    With shares s between 0 and 1 (the part of several generated draws that pass),
    V = sum w^2 (s - e)^2 = (1 - 2e) P1 + e^2 S2 - (P1 - P2), where P1 = sum w^2 s and
    P2 = sum w^2 s^2; both are P2 of `efficiency_interval` for s = 0 or 1.

    Args:
        shares: (n_cuts, m), in the order of `rows`.
        rows: from `sort_rows`.
        cuts: their texts.
        edges: of the bins.
        variance: "wilson" or "pidcalib".
        sentinel_rows: (n_cuts,), for the table.
    """
    shape = bin_shape(edges)
    w, w2 = rows.weights, rows.weights**2
    sum_w, sum_w2 = rows.total(w), rows.total(w2)
    n_rows = np.diff(rows.starts)
    p = np.array([rows.total(w * s) for s in shares])
    p1 = np.array([rows.total(w2 * s) for s in shares])
    p2 = p1
    if shares.dtype != np.bool_:
        p2 = np.array([rows.total(w2 * s**2) for s in shares])
    status = np.full(rows.n_bins, FILLED, dtype=np.int8)
    status[sum_w <= 0] = NOT_POSITIVE
    status[n_rows == 0] = EMPTY
    usable = np.where(sum_w > 0, sum_w, np.nan)
    e = p / usable
    v = np.abs((1 - 2 * e) * p1 + e**2 * sum_w2 - (p1 - p2))
    squared, lower, upper = _interval(p, usable, v, sum_w2, variance)
    return EfficiencyTable(
        cuts=tuple(cuts),
        binning=dict(edges),
        variance_name=variance,
        efficiency=e.reshape(len(p), *shape),
        variance=squared.reshape(len(p), *shape),
        lower=lower.reshape(len(p), *shape),
        upper=upper.reshape(len(p), *shape),
        sum_weights=sum_w.reshape(shape),
        sum_weights2=sum_w2.reshape(shape),
        sum_passed=p.reshape(len(p), *shape),
        sum_passed2=p2.reshape(len(p), *shape),
        n_rows=n_rows.reshape(shape),
        n_eff=n_eff_of_sums(np.maximum(sum_w, 0), sum_w2).reshape(shape),
        status=status.reshape(shape),
        rows_outside=rows.n - len(rows.order),
        sentinel_rows=np.zeros(len(p), dtype=np.int64)
        if sentinel_rows is None
        else sentinel_rows,
    )


def share_covariance(shares: NDArray[Any], rows: SortedRows) -> FloatArray:
    """Return sum w^2 (s_a - e_a) (s_b - e_b) / S^2 in each bin.

    Args:
        shares: (n, m), which rows pass, or what share of their draws.
        rows: from `sort_rows`.

    Returns:
        (n, n, n_bins); NaN where S <= 0.
    """
    w, w2 = rows.weights, rows.weights**2
    s, s2 = rows.total(w), rows.total(w2)
    s = np.where(s > 0, s, np.nan)
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


def efficiency_interval(
    passed: ArrayLike,
    total: ArrayLike,
    passed2: ArrayLike,
    total2: ArrayLike,
    *,
    variance: VarianceName = "wilson",
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return e, its variance and the ends of its one-sigma interval from sums.

    V = (1 - 2e) P2 + e^2 S2 = sum w^2 (pass - e)^2 is the weighted n e (1 - e). With
    the effective weight of one row u = S2 / S, Wilson's interval becomes
    (P + z^2 u / 2 -+ z sqrt(V + z^2 u^2 / 4)) / (S + z^2 u).

    Args:
        passed: P, sums of weights of the rows that pass.
        total: S, sums of weights; where S <= 0 the results are NaN.
        passed2: P2, sums of squared weights of the rows that pass.
        total2: S2, sums of squared weights.
        variance: "wilson" or "pidcalib".

    Returns:
        Four arrays of the common shape: e, variance, lower and upper end. The
        variance is the squared half width. Weights of both signs can put e itself
        outside [0, 1]; nothing is clipped.
    """
    p, s, p2, s2 = np.broadcast_arrays(
        *(np.asarray(a, dtype=np.float64) for a in (passed, total, passed2, total2))
    )
    s = np.where(s > 0, s, np.nan)
    e = p / s
    v = np.abs((1 - 2 * e) * p2 + e**2 * s2)
    return e, *_interval(p, s, v, s2, variance)


def _interval(
    p: FloatArray, s: FloatArray, v: FloatArray, s2: FloatArray, variance: VarianceName
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Variance and ends from sums, with V found by the caller."""
    if variance not in ("wilson", "pidcalib"):
        raise ValueError(f"variance {variance!r}: expected 'wilson' or 'pidcalib'")
    if variance == "pidcalib":
        half, centre = np.sqrt(v) / s, p / s
    else:
        u = s2 / s
        norm = s + Z**2 * u
        half = Z * np.sqrt(v + (Z * u / 2) ** 2) / norm
        centre = (p + Z**2 * u / 2) / norm
    return half**2, centre - half, centre + half


def _prepare(
    frame: Columns,
    cuts: str | Sequence[str],
    binning: Binning | None,
    weights: ArrayLike | None,
    aliases: Mapping[str, str] | None,
) -> tuple[dict[str, tuple[float, ...]], SortedRows, list[Cut]]:
    """Edges, rows sorted by bin, and cuts checked against the columns."""
    w = _weights(weights, count_rows(frame))
    edges = choose_edges(binning, frame, w)
    rows = sort_rows(bin_index(frame, edges), w, count_bins(edges))
    texts = cut_texts(cuts)
    if not texts:
        raise ValueError("no cut given")
    names = [str(name) for name in frame]
    return edges, rows, [parse_cut(t, names=names, aliases=aliases) for t in texts]


def _passes(
    frame: Columns,
    cuts: Sequence[Cut],
    rows: SortedRows,
    sentinels: Mapping[str, tuple[float, ...]] | None,
) -> tuple[BoolArray, IntArray]:
    """Which rows pass, (n_cuts, m), and how many have no value for a cut, (n_cuts,).

    Columns are sorted, and their sentinels found, once for all cuts.
    """
    columns: dict[str, FloatArray] = {}
    for name in dict.fromkeys(name for cut in cuts for name in cut.names):
        stored = np.asarray(frame[name])
        values = stored.astype(np.float64)
        for sentinel in (sentinels or {}).get(name, ()):
            # In the stored type, so that -999.9 is found in a float32 column.
            values[stored == stored.dtype.type(sentinel)] = np.nan
        columns[name] = values[rows.order]
    unusable = {name: ~np.isfinite(values) for name, values in columns.items()}
    passes = np.empty((len(cuts), len(rows.order)), dtype=np.bool_)
    missing = np.empty(len(cuts), dtype=np.int64)
    for i, cut in enumerate(cuts):
        passes[i] = cut.passes(columns)
        flags = [unusable[name] for name in cut.names]
        missing[i] = np.count_nonzero(np.logical_or.reduce(flags))
    return passes, missing


def _weights(weights: ArrayLike | None, n: int) -> FloatArray:
    """Weights as floats, ones by default; raises where they cannot be used."""
    if n == 0:
        raise DatasetError("efficiency of no rows: the table is empty")
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (n,):
        raise ValueError(f"weights of shape {w.shape}, expected ({n},)")
    if not np.isfinite(w).all():
        count = np.count_nonzero(~np.isfinite(w))
        raise DatasetError(f"{count} of {n} weights are not finite")
    if w.sum() <= 0:
        raise DatasetError(f"sum of weights is {w.sum():.6g}, expected a positive sum")
    return w


def _hist_edges(histogram: Any) -> dict[str, tuple[float, ...]]:
    """Edges of the axes of a histogram by name."""
    edges = {}
    for i, axis in enumerate(histogram.axes):
        metadata = getattr(axis, "metadata", None)
        named = metadata.get("name") if isinstance(metadata, Mapping) else None
        name = str(getattr(axis, "name", "") or named or f"axis_{i}")
        edges[name] = tuple(map(float, axis.edges))
    return edges


def _hist_sums(name: str, histogram: Any) -> tuple[FloatArray, FloatArray]:
    """Sums of w and of w^2 of a histogram."""
    view = histogram.view(flow=False)
    if view.dtype.names is None or not {"value", "variance"} <= set(view.dtype.names):
        raise DatasetError(
            f"histogram {name!r} has no sums of squared weights, expected the storage "
            "Weight"
        )
    return np.array(view["value"]), np.array(view["variance"])
