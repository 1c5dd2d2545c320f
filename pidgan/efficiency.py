"""Efficiencies of PID cuts in bins of the conditions, from weights of any sign.

With S = sum w, P = sum of w over the rows that pass, S2 and P2 the same sums of w^2,
the efficiency of a bin is e = P / S. Two uncertainties are offered:

- ``wilson`` (default): the score interval of Wilson (J. Am. Stat. Assoc. 22 (1927)
  209) with its binomial term n e (1 - e) replaced by the weighted one; it has a
  finite width at e = 0 and e = 1, and is Wilson's own for unit weights. Use this.
- ``pidcalib``: |(1 - 2e) P2 + e^2 S2| / S^2 (LHCb-PUB-2016-021, Eq. 13), symmetric and
  zero at e = 0 and e = 1. Use it to reproduce tables made with PIDCalib.

Neither includes the uncertainty of the mass fit behind sWeights. MisID is the same
quantity for rows of another species.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pidgan.cuts import parse_cut
from pidgan.errors import DatasetError, PidganWarning, nearest
from pidgan.typing import BoolArray, FloatArray, IntArray

Columns = pd.DataFrame | Mapping[str, NDArray[Any]]
VarianceName = Literal["wilson", "pidcalib"]

Z = 1.0  # intervals are quoted at one standard deviation, 68.27 %

FILLED, EMPTY, NOT_POSITIVE = 0, 1, 2
"""Values of `EfficiencyTable.status`: usable; no rows; sum of weights <= 0."""


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
        n_rows: (...), rows in each bin.
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
        for name in ("efficiency", "variance", "lower", "upper", "sum_passed"):
            columns[name] = getattr(self, name).reshape(-1)
        for name in ("sum_weights", "n_rows", "n_eff", "status"):
            columns[name] = np.tile(getattr(self, name).reshape(-1), len(self.cuts))
        return pd.DataFrame(columns)

    def to_hist(self) -> Any:
        """Return a `hist.Hist`: axis "cut", then one axis per condition.

        Values are efficiencies and variances those of the table; unusable bins are NaN.
        """
        import hist

        axes = [hist.axis.StrCategory(list(self.cuts), name="cut")]
        axes += [
            hist.axis.Variable(list(edges), name=name, overflow=False, underflow=False)
            for name, edges in self.binning.items()
        ]
        result = hist.Hist(*axes, storage=hist.storage.Weight())
        content = result.view(flow=False)
        content["value"] = self.efficiency
        content["variance"] = self.variance
        return result


def bin_index(
    columns: Columns, binning: Mapping[str, Sequence[float] | FloatArray]
) -> IntArray:
    """Return the flat bin of each row, in C order, or -1 outside the binning.

    A bin contains its lower edge and not its upper one, as in ROOT and
    boost-histogram. NaN is outside.

    Args:
        columns: named columns of n rows; more than the binning needs is fine.
        binning: increasing edges by column name; empty gives one bin of everything.

    Returns:
        (n,) flat index in [0, product of bin numbers), or -1.

    Example:
        >>> bin_index({"P": np.array([5.0, 15.0, 99.0])}, {"P": (0.0, 10.0, 20.0)})
        array([ 0,  1, -1])
    """
    index = np.zeros(_row_count(columns), dtype=np.int64)
    inside = np.ones(len(index), dtype=np.bool_)
    for name, given in binning.items():
        edges = _edges(name, given)
        if name not in columns:
            raise ValueError(
                f"binning in {name!r}, which is not a column"
                f"{nearest(name, map(str, columns))}"
            )
        values = np.asarray(columns[name])
        place = np.searchsorted(edges, values, side="right") - 1
        inside &= (place >= 0) & (place < len(edges) - 1)
        index *= len(edges) - 1
        index += place
    index[~inside] = -1
    return index


def efficiency_table(
    frame: Columns,
    cuts: Sequence[str] | str,
    *,
    binning: Mapping[str, Sequence[float] | FloatArray],
    weights: ArrayLike | None = None,
    variance: VarianceName = "wilson",
    sentinels: Mapping[str, tuple[float, ...]] | None = None,
) -> EfficiencyTable:
    """Return the efficiency of each cut in each bin, e = sum_pass w / sum w.

    A row in which a variable of the cut is a sentinel or NaN fails that cut and stays
    in the denominator. Bins that are empty or have sum w <= 0 hold NaN and are
    announced by one `PidganWarning`.

    Args:
        frame: named columns of n rows: the variables of cuts and binning.
        cuts: one or several cut expressions.
        binning: edges by condition; ``{}`` gives the efficiency of all rows.
        weights: (n,) weights of any sign; none means 1.
        variance: "wilson" or "pidcalib", see the module's text.
        sentinels: values of a variable that mean "not measured".

    Returns:
        The table; its first axis is the cut, the others follow the binning.

    Example:
        >>> frame = {"P": np.array([1.0, 2.0, 3.0]), "y": np.array([-1.0, 1.0, 2.0])}
        >>> efficiency_table(frame, "y > 0", binning={"P": (0, 5)}).efficiency.round(3)
        array([[0.667]])
    """
    if variance not in ("wilson", "pidcalib"):
        raise ValueError(f"variance {variance!r}: expected 'wilson' or 'pidcalib'")
    names = [str(name) for name in frame]
    texts = (cuts,) if isinstance(cuts, str) else tuple(cuts)
    if not texts:
        raise ValueError("no cut given")
    parsed = [parse_cut(text, names=names) for text in texts]
    w = _weights(weights, _row_count(frame))
    index = bin_index(frame, binning)
    edges = {name: tuple(map(float, _edges(name, e))) for name, e in binning.items()}
    shape = tuple(len(e) - 1 for e in edges.values())
    n_bins = int(np.prod(shape, dtype=np.int64))

    inside = index >= 0
    if not inside.all():
        index, w = index[inside], w[inside]
    w2 = w * w
    n_rows = np.bincount(index, minlength=n_bins)
    sum_w = np.bincount(index, w, n_bins).astype(np.float64)
    sum_w2 = np.bincount(index, w2, n_bins).astype(np.float64)
    passed = np.empty((len(parsed), n_bins))
    passed2 = np.empty((len(parsed), n_bins))
    sentinel_rows = np.zeros(len(parsed), dtype=np.int64)
    for i, cut in enumerate(parsed):
        accept = cut.passes(_select(frame, cut.names), sentinels)[inside]
        passed[i] = np.bincount(index[accept], w[accept], n_bins)
        passed2[i] = np.bincount(index[accept], w2[accept], n_bins)
        sentinel_rows[i] = _sentinel_rows(frame, cut.names, sentinels, inside)

    status = np.full(n_bins, FILLED, dtype=np.int8)
    status[sum_w <= 0] = NOT_POSITIVE
    status[n_rows == 0] = EMPTY
    _warn_of_bins(status, n_bins)
    efficiency, squared, lower, upper = efficiency_interval(
        passed, sum_w, passed2, sum_w2, variance=variance
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        n_eff = np.where(sum_w2 > 0, sum_w**2 / sum_w2, 0.0)
    return EfficiencyTable(
        cuts=texts,
        binning=edges,
        variance_name=variance,
        efficiency=efficiency.reshape(len(parsed), *shape),
        variance=squared.reshape(len(parsed), *shape),
        lower=lower.reshape(len(parsed), *shape),
        upper=upper.reshape(len(parsed), *shape),
        sum_weights=sum_w.reshape(shape),
        sum_weights2=sum_w2.reshape(shape),
        sum_passed=passed.reshape(len(parsed), *shape),
        sum_passed2=passed2.reshape(len(parsed), *shape),
        n_rows=n_rows.reshape(shape),
        n_eff=n_eff.reshape(shape),
        status=status.reshape(shape),
        rows_outside=int(np.count_nonzero(~inside)),
        sentinel_rows=sentinel_rows,
    )


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
    if variance == "pidcalib":
        half, centre = np.sqrt(v) / s, e
    else:
        u = s2 / s
        norm = s + Z**2 * u
        half = Z * np.sqrt(v + (Z * u / 2) ** 2) / norm
        centre = (p + Z**2 * u / 2) / norm
    return e, half**2, centre - half, centre + half


def cut_covariance(
    frame: Columns,
    cuts: Sequence[str],
    *,
    binning: Mapping[str, Sequence[float] | FloatArray],
    weights: ArrayLike | None = None,
    sentinels: Mapping[str, tuple[float, ...]] | None = None,
) -> FloatArray:
    """Return the covariance of the efficiencies of several cuts in each bin.

    cov_ab = sum w^2 (pass_a - e_a) (pass_b - e_b) / S^2, of which the diagonal is the
    "pidcalib" variance. Different bins share no rows and are uncorrelated.

    Args:
        frame: named columns of n rows.
        cuts: the cut expressions.
        binning: edges by condition.
        weights: (n,) weights of any sign; none means 1.
        sentinels: values of a variable that mean "not measured".

    Returns:
        (n_cuts, n_cuts, ...) with the shape of the binning last; NaN where S <= 0.
    """
    names = [str(name) for name in frame]
    w = _weights(weights, _row_count(frame))
    index = bin_index(frame, binning)
    shape = tuple(len(_edges(name, e)) - 1 for name, e in binning.items())
    n_bins = int(np.prod(shape, dtype=np.int64))
    inside = index >= 0
    index, w = index[inside], w[inside]
    parsed = [parse_cut(text, names=names) for text in cuts]
    accepts = [
        cut.passes(_select(frame, cut.names), sentinels)[inside] for cut in parsed
    ]
    s = np.bincount(index, w, n_bins)
    s = np.where(s > 0, s, np.nan)
    s2 = np.bincount(index, w**2, n_bins)
    e = [np.bincount(index[a], w[a], n_bins) / s for a in accepts]
    p2 = [np.bincount(index[a], w[a] ** 2, n_bins) for a in accepts]
    result = np.empty((len(accepts), len(accepts), n_bins))
    for i, a in enumerate(accepts):
        for j in range(i, len(accepts)):
            both = a & accepts[j]
            p2_both = np.bincount(index[both], w[both] ** 2, n_bins)
            value = p2_both - e[j] * p2[i] - e[i] * p2[j] + e[i] * e[j] * s2
            result[i, j] = result[j, i] = value / s**2
    return result.reshape(len(accepts), len(accepts), *shape)


def _row_count(columns: Columns) -> int:
    """Rows of the columns, all of which must have the same number."""
    if isinstance(columns, pd.DataFrame):
        return len(columns)
    lengths = {str(name): len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of different lengths: {lengths}")
    if not lengths:
        raise ValueError("no columns given")
    return next(iter(lengths.values()))


def _select(columns: Columns, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The named columns as arrays."""
    return {name: np.asarray(columns[name]) for name in names}


def _edges(name: str, given: Sequence[float] | FloatArray) -> FloatArray:
    """Edges as an array, checked to increase."""
    edges = np.asarray(given, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(
            f"edges of {name!r} must be two or more increasing numbers, got {given!r}"
        )
    return edges


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


def _sentinel_rows(
    frame: Columns,
    names: tuple[str, ...],
    sentinels: Mapping[str, tuple[float, ...]] | None,
    inside: BoolArray,
) -> int:
    """Rows inside the binning where a variable of the cut is a sentinel or NaN."""
    missing = np.zeros(len(inside), dtype=np.bool_)
    for name in names:
        values = np.asarray(frame[name])
        missing |= ~np.isfinite(values)
        for sentinel in (sentinels or {}).get(name, ()):
            # In the stored type, so that -999.9 is found in a float32 column.
            missing |= values == values.dtype.type(sentinel)
    return int(np.count_nonzero(missing & inside))


def _warn_of_bins(status: NDArray[np.int8], n_bins: int) -> None:
    """Say once how many bins have no efficiency."""
    empty = int(np.count_nonzero(status == EMPTY))
    negative = int(np.count_nonzero(status == NOT_POSITIVE))
    if empty or negative:
        warnings.warn(
            f"no efficiency in {empty + negative} of {n_bins} bins: {empty} empty, "
            f"{negative} with sum of weights <= 0; they hold NaN",
            PidganWarning,
            stacklevel=3,
        )
