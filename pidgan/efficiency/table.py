"""Tables: efficiencies of several cuts in bins of the conditions, with all sums.

Sums and uncertainties are those of `pidgan.efficiency.sorted_rows`. MisID is the same
quantity for rows of another species.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pidgan import higher
from pidgan.arguments import checked
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency import binning as bins
from pidgan.efficiency import sorted_rows
from pidgan.efficiency.table_files import (
    axis_edges,
    edges_of_frame,
    read_table_frame,
    save_tables,
    weight_histogram,
    weight_sums,
)
from pidgan.efficiency.table_rows import (
    Weights,
    choose_rows,
    parse_cuts,
    passing_rows,
    read_columns,
)
from pidgan.errors import DatasetError, PidganWarning, nearest
from pidgan.files.frames import Rows
from pidgan.files.seals import reason
from pidgan.files.wording import words_of_rows
from pidgan.notebook import Facts, count, listed, shown
from pidgan.sample.events import event_hashes, number_events, usual_key
from pidgan.sample.weights import check_weights, n_eff_of_sums

Content = Literal["efficiency", "passed", "total"]

FILLED, EMPTY, NOT_POSITIVE = 0, 1, 2
"""Values of `EfficiencyTable.status`: usable; no rows; sum of weights <= 0."""

MIN_PASSED = 20.0
"""Effective passing rows below which an efficiency is flagged as `few`: its relative
uncertainty is above 22 %, and its interval is no longer a Gaussian one."""

TABLE_FILES = (".csv", ".parquet", ".pkl")
"""Names of files that are tables rather than maps."""

UNKNOWN_ROWS = -1
"""`n_rows` of a table made from histograms, which hold sums of weights only."""


@shown
@dataclass(frozen=True, kw_only=True)
class EfficiencyTable:
    """Efficiencies of several cuts in the same bins, with all sums behind them.

    Arrays of bins have the shape of the binning, (n_1, ..., n_d); arrays of cuts and
    bins have the cut first. Bins without a positive sum of weights hold NaN. Sums are
    written as in `pidgan.efficiency.sorted_rows`.

    Attributes:
        binning: Edges by condition, in the order of the axes after the cuts.
        variance_name: Formula of the intervals, "wilson" or "pidcalib".
        efficiency: (n_cuts, ...) efficiency, P / S.
        variance: (n_cuts, ...) squared half width of the one-sigma interval, from
            `lower` to `upper`.
        sum_weights: (...) sum of weights, S.
        sum_weights2: (...) sum of squared weights, S2.
        sum_passed: (n_cuts, ...) sum of weights of the rows that pass, P.
        sum_passed2: (n_cuts, ...) sum of their squared weights, P2.
        n_rows: (...) rows in each bin; `UNKNOWN_ROWS` if made from histograms.
        n_eff: (...) effective rows, S^2 / S2; 0 where S <= 0.
        status: (...) `FILLED`, `EMPTY` or `NOT_POSITIVE`.
        rows_outside: Rows outside every bin, left out of all sums.
        sentinel_rows: (n_cuts,) rows inside the binning that fail the cut because a
            variable of it is a sentinel or not finite.
    """

    cuts: tuple[str, ...]
    binning: dict[str, tuple[float, ...]]
    variance_name: sorted_rows.VarianceName
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

    plot = higher.plot

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
        """(n_cuts, ...), effective rows that pass, P^2 / P2; 0 where P <= 0."""
        return n_eff_of_sums(np.maximum(self.sum_passed, 0), self.sum_passed2)

    @property
    def few(self) -> BoolArray:
        """(n_cuts, ...), usable bins with fewer than `MIN_PASSED` effective ones."""
        return np.asarray((self.status == FILLED) & (self.n_eff_passed < MIN_PASSED))

    @property
    def unphysical(self) -> BoolArray:
        """(n_cuts, ...), efficiencies below 0 or above 1, which are not clipped."""
        return sorted_rows.is_unphysical(self.efficiency)

    def frame(self) -> pd.DataFrame:
        """Return one row per cut and bin, with the bin's edges and every sum."""
        n_bins, n_cuts = math.prod(self.shape), len(self.cuts)
        columns: dict[str, Any] = {"cut": np.repeat(np.array(self.cuts), n_bins)}
        columns |= bins.edge_columns(self.binning, n_cuts)
        of_cuts = ("efficiency", "variance", "lower", "upper", "sum_passed")
        for name in (*of_cuts, "n_eff_passed", "few", "unphysical"):
            columns[name] = getattr(self, name).reshape(-1)
        for name in ("sum_weights", "n_rows", "n_eff", "status"):
            columns[name] = np.tile(getattr(self, name).reshape(-1), n_cuts)
        columns["rows_outside"] = self.rows_outside
        return pd.DataFrame(columns)

    @checked
    def to_hist(self, content: Content = "efficiency") -> Any:
        """Return a `hist.Hist`: axis "cut" (not for "total"), then the conditions.

        An "efficiency" has the variances of the table and is NaN in unusable bins;
        "passed" and "total" are the sums of weights with those of w^2.
        """
        arrays = {
            "efficiency": (self.efficiency, self.variance),
            "passed": (self.sum_passed, self.sum_passed2),
            "total": (self.sum_weights, self.sum_weights2),
        }[content]
        cuts = () if content == "total" else self.cuts
        return weight_histogram(self.binning, *arrays, name=content, cuts=cuts)

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the table: .csv or .parquet, which `open` reads, or .root.

        Args:
            path: File; its suffix is the format.
            overwrite: Whether to replace an existing file.
        """
        tables = {"efficiency": self}
        return save_tables(path, self.frame(), tables, overwrite=overwrite)

    @classmethod
    @checked
    def open(cls, path: str | Path) -> Self:
        """Read a table that `save` or `pidgan table DATASET -o` wrote.

        Raises:
            DatasetError: The file is missing, damaged or no table of efficiencies.
        """
        frame = read_table_frame(path)
        cuts = list(dict.fromkeys(map(str, frame["cut"])))
        try:
            binning = edges_of_frame(frame[frame["cut"] == cuts[0]])
            shape = (len(cuts), bins.count_bins(binning))
            arrays = {
                name: frame[name].to_numpy(np.float64).reshape(shape)
                for name in ("sum_weights", "sum_passed", "n_eff", "n_eff_passed")
            }
            n_rows = frame["n_rows"].to_numpy(np.int64).reshape(shape)[0]
            s, p, n, n_p = arrays.values()
            with np.errstate(divide="ignore", invalid="ignore"):
                s2 = np.where(n > 0, s**2 / n, 0.0)[0]
                p2 = np.where(n_p > 0, p**2 / n_p, 0.0)
            found = cls._from_sums(
                cuts,
                binning,
                "wilson",
                sums=(s[0], s2, p, p2, p2),
                n_rows=n_rows,
                is_empty=n_rows == 0,
                rows_outside=int(frame["rows_outside"].iloc[0]),
            )
            # As written: sums of generated shares, or the formula of PIDCalib.
            shape = found.efficiency.shape

            def stored(name: str) -> FloatArray:
                return np.asarray(frame[name].to_numpy(np.float64).reshape(shape))

            return replace(
                found,
                efficiency=stored("efficiency"),
                variance=stored("variance"),
                lower=stored("lower"),
                upper=stored("upper"),
                status=stored("status")[0].astype(np.int8),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise DatasetError(
                f"{path}: damaged table of efficiencies ({reason(error)})"
            ) from None

    @classmethod
    @checked
    def from_hists(
        cls,
        total: Any,
        passed: Mapping[str, Any],
        *,
        variance: sorted_rows.VarianceName = "wilson",
    ) -> Self:
        """Make a table from filled histograms, of `hist` or `boost_histogram`.

        Args:
            total: Histogram of all rows, with storage `Weight`; an axis is named by its
                name, or by "name" of its metadata as in PIDCalib2, else axis_0 ...
            passed: Histograms of the rows that pass, by cut; with the same axes.
            variance: Formula of the intervals, "wilson" or "pidcalib".

        Raises:
            DatasetError: A histogram has no sums of w^2, or other axes.
        """
        edges = axis_edges(total)
        if not passed:
            raise ValueError("no histogram of passing rows given")
        for cut, found in passed.items():
            if axis_edges(found) != edges:
                raise DatasetError(
                    f"histogram of {cut!r} has other axes than the total"
                )
        sum_w, sum_w2 = weight_sums("total", total).reshape(2, -1)
        sums = np.array([weight_sums(cut, found) for cut, found in passed.items()])
        p, p2 = np.swapaxes(sums.reshape(len(passed), 2, -1), 0, 1)
        table = cls._from_sums(
            passed,
            edges,
            variance,
            sums=(sum_w, sum_w2, p, p2, p2),
            n_rows=np.full(sum_w.shape, UNKNOWN_ROWS),
            is_empty=sum_w2 == 0,
        )
        warn_of_table(table)
        return table

    @classmethod
    def from_shares(
        cls,
        shares: NDArray[Any],
        rows: sorted_rows.SortedRows,
        *,
        cuts: Sequence[str],
        edges: bins.ChosenEdges,
        variance: sorted_rows.VarianceName = "wilson",
        sentinel_rows: IntArray | None = None,
    ) -> Self:
        """Make a table of rows (m,) of which shares (n_cuts, m) pass, in bins."""
        w, w2 = rows.weights, rows.weights**2
        n_rows = np.diff(rows.starts)
        p = np.array([rows.total(w * s) for s in shares])
        p1 = p2 = np.array([rows.total(w2 * s) for s in shares])
        if shares.dtype != np.bool_:
            p2 = np.array([rows.total(w2 * s**2) for s in shares])
        return cls._from_sums(
            cuts,
            edges,
            variance,
            sums=(rows.total(w), rows.total(w2), p, p1, p2),
            n_rows=n_rows,
            is_empty=n_rows == 0,
            of_events=rows.added_by_events(shares, p),
            rows_outside=rows.n - len(rows.order),
            sentinel_rows=sentinel_rows,
        )

    @classmethod
    def _from_sums(
        cls,
        cuts: Iterable[str],
        edges: bins.ChosenEdges,
        variance: sorted_rows.VarianceName,
        *,
        sums: Sequence[FloatArray],
        n_rows: IntArray,
        is_empty: BoolArray,
        of_events: FloatArray | float = 0.0,
        rows_outside: int = 0,
        sentinel_rows: IntArray | None = None,
    ) -> Self:
        """Make a table from S, S2, P, sum w^2 s and sum w^2 s^2, with flat bins."""

        def shaped(values: NDArray[Any]) -> NDArray[Any]:
            return values.reshape((*values.shape[:-1], *bins.bin_shape(edges)))

        s, s2, p, p1, p2 = sums
        e, squared, lower, upper = sorted_rows.efficiency_interval(
            p, s, p1, s2, variance=variance, spread=p1 - p2 - of_events
        )
        status = np.where(s <= 0, NOT_POSITIVE, FILLED).astype(np.int8)
        status[is_empty] = EMPTY
        none = np.zeros(len(p), dtype=np.int64)
        return cls(
            cuts=tuple(cuts),
            binning=dict(edges),
            variance_name=variance,
            efficiency=shaped(e),
            variance=shaped(squared),
            lower=shaped(lower),
            upper=shaped(upper),
            sum_weights=shaped(s),
            sum_weights2=shaped(s2),
            sum_passed=shaped(p),
            sum_passed2=shaped(p2),
            n_rows=shaped(n_rows),
            n_eff=shaped(n_eff_of_sums(np.maximum(s, 0), s2)),
            status=shaped(status),
            rows_outside=rows_outside,
            sentinel_rows=none if sentinel_rows is None else sentinel_rows,
        )

    def _facts(self) -> Facts:
        n_bins, total = math.prod(self.shape), self.sum_weights.sum()
        shares = self.sum_passed.reshape(len(self.cuts), -1).sum(axis=1) / total
        of = f" of {listed(list(self.binning))}" if self.binning else ""
        return Facts(
            f"{count(len(self.cuts), 'cuts')} in {count(n_bins, 'bins')}{of}, sum of "
            f"weights {total:,.1f}",
            {
                **{
                    f"{cut}, in all": f"{100 * share:.2f} %"
                    for cut, share in zip(self.cuts, shares, strict=True)
                },
                "bins without a value": np.count_nonzero(self.status != FILLED),
                "rows outside the bins": f"{self.rows_outside:,}",
            },
        )


@checked
@words_of_rows("frame")
def efficiency_table(
    frame: Rows,
    cuts: Sequence[str] | str,
    *,
    where: str | None = None,
    binning: bins.Binning | None = None,
    weights: Weights | None = None,
    variance: sorted_rows.VarianceName = "wilson",
    sentinels: Mapping[str, tuple[float, ...]] | None = None,
    aliases: Mapping[str, str] | None = None,
    key: Sequence[str] = (),
) -> EfficiencyTable:
    """Return the efficiency of each cut in each bin, e = sum_pass w / sum w.

    A row in which a variable of the cut is a sentinel or NaN fails that cut and stays
    in the denominator. Bins that are empty or have sum w <= 0 hold NaN and are
    announced by one `PidganWarning`; so is a cut that all rows or none pass.

    Args:
        frame: Rows with the variables of cuts and binning: a DataFrame, a dict of
            arrays, an awkward array of records, a structured array; or files, of which
            only these branches are read.
        cuts: One cut or several; PIDCalib's `DLLK` is `PIDK`, and so on.
        where: Denominator: only rows that pass this cut are counted. It may name any
            column.
        binning: Name of a binning that ships ("hadrons"); or, by condition, edges, the
            name of a binning, or a number of bins of equal effective population. None
            gives the efficiency of all rows.
        weights: (n,) weights of any sign, or the column of them; None means 1.
        variance: Formula of the intervals, "wilson" or "pidcalib"; see the module's
            text.
        sentinels: Values of a variable that mean "not measured".
        aliases: Further names for columns in cuts; `Sample.aliases` has those of a
            calibration sample.
        key: Columns that identify an event: rows of one event count as one in the
            uncertainty. By default those of usual names, such as runNumber and
            eventNumber, where there are any; none with "pidcalib".

    Returns:
        The table; its first axis is the cut, the others follow the binning.

    Example:
        >>> frame = {"P": np.array([1.0, 2.0, 3.0]), "y": np.array([-1.0, 1.0, 2.0])}
        >>> efficiency_table(frame, "y > 0", binning={"P": (0, 5)}).efficiency.round(3)
        array([[0.667]])
    """
    # PIDCalib counts rows.
    own = None if variance == "pidcalib" and not key else key
    columns, w = read_columns(frame, cuts, where, binning, weights, aliases, own)
    if where is not None:
        columns, w = choose_rows(columns, where, w, sentinels, aliases)
    if own is not None:
        own = own or usual_key(map(str, columns))
    edges, rows = _bins(columns, binning, w, own or ())
    parsed = parse_cuts(columns, cuts, aliases)
    passes, sentinel_rows = passing_rows(columns, parsed, rows, sentinels)
    table = EfficiencyTable.from_shares(
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
    """Say once how many bins have no efficiency or an unphysical one.

    Cuts that say nothing are named.
    """
    kinds = (EMPTY, NOT_POSITIVE)
    empty, negative = (np.count_nonzero(table.status == kind) for kind in kinds)
    if empty or negative:
        warnings.warn(
            f"no efficiency in {empty + negative} of {table.status.size} bins: {empty} "
            f"empty, {negative} with sum of weights <= 0; they hold NaN",
            PidganWarning,
            stacklevel=3,
        )
    if wrong := np.count_nonzero(table.unphysical):
        warnings.warn(
            f"{wrong} of {table.efficiency.size} efficiencies lie outside [0, 1], as "
            "weights of both signs allow; they are flagged, not clipped",
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


@checked
def cut_covariance(
    frame: Rows,
    cuts: Sequence[str] | str,
    *,
    binning: bins.Binning | None = None,
    weights: Weights | None = None,
    sentinels: Mapping[str, tuple[float, ...]] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> FloatArray:
    """Return the covariance of the efficiencies of several cuts in each bin.

    cov_ab = sum w^2 (pass_a - e_a) (pass_b - e_b) / S^2, of which the diagonal is the
    "pidcalib" variance. Different bins share no rows and are uncorrelated.

    Args:
        frame: Rows, as in `efficiency_table`.
        cuts: One cut or several.
        binning: Binning as in `efficiency_table`.
        weights: (n,) weights of any sign, or the column of them; None means 1.
        sentinels: Values of a variable that mean "not measured".
        aliases: Further names for columns in cuts.

    Returns:
        (n_cuts, n_cuts, ...) with the shape of the binning last; NaN where S <= 0.
    """
    columns, w = read_columns(frame, cuts, None, binning, weights, aliases)
    edges, rows = _bins(columns, binning, w)
    parsed = parse_cuts(columns, cuts, aliases)
    passes, _ = passing_rows(columns, parsed, rows, sentinels)
    covariance = sorted_rows.share_covariance(passes, rows)
    return covariance.reshape(len(parsed), len(parsed), *bins.bin_shape(edges))


def _bins(
    frame: bins.Columns,
    binning: bins.Binning | None,
    weights: ArrayLike | None,
    key: Sequence[str] = (),
) -> tuple[dict[str, tuple[float, ...]], sorted_rows.SortedRows]:
    """Edges, and rows sorted by bin with their weights, which must be usable.

    The columns of the key, if any, identify an event.
    """
    n = bins.count_rows(frame)
    if n == 0:
        raise DatasetError("efficiency of no rows: the table is empty")
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (n,):
        raise ValueError(f"weights of shape {w.shape}, expected ({n},)")
    check_weights(w, "weights of a table")
    if w.sum() <= 0:
        raise DatasetError(f"sum of weights is {w.sum():.6g}, expected a positive sum")
    edges = bins.choose_edges(binning, frame, w)
    index = bins.bin_index(frame, edges)
    bins.warn_of_outside(frame, edges, index)
    if strange := [name for name in key if name not in frame]:
        hint = nearest(strange[0], map(str, frame))
        raise DatasetError(f"no column {strange[0]!r} for the key of an event{hint}")
    events = number_events(event_hashes(frame, key)) if key else None
    return edges, sorted_rows.sort_rows(index, w, bins.count_bins(edges), events)
