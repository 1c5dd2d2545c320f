"""Real against generated efficiencies among the rows that pass a cut on targets.

Row i counts in the real efficiency if its real targets pass this cut, m_i = 0 or 1, and
in the generated one with the share h_i of its K draws that do. With r_i = 1 if its real
targets pass both cuts, and g_i the share of the draws that pass both,

    e_r = sum w r / M,   M = sum w m,      e_g = sum w g / H,   H = sum w h.

The influence of a row on them is w (r - e_r m) / M and w (g - e_g h) / H. Covariances
are the sums of products of influences, so that what real and generated rows share
cancels in the difference.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency import binning as bins
from pidgan.efficiency import sorted_rows
from pidgan.efficiency.table import EfficiencyTable
from pidgan.sample.weights import n_eff_of_sums

Arrays = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]


def conditional_tables(
    index: IntArray,
    weights: FloatArray,
    *,
    real: BoolArray,
    generated: FloatArray,
    among: BoolArray,
    generated_among: FloatArray,
    cuts: Sequence[str],
    edges: bins.ChosenEdges,
    events: IntArray | None = None,
    variance: sorted_rows.VarianceName = "wilson",
) -> tuple[EfficiencyTable, EfficiencyTable]:
    """Return real and generated efficiencies of rows (n,) with a bin in `index`.

    Passing (n_cuts, n) is that of both cuts, `among` (n,) that of the denominator;
    generated ones are shares of draws.
    """
    tables, n_bins = [], bins.count_bins(edges)
    for shares, part in ((real, among), (generated, generated_among)):
        rows = sorted_rows.sort_rows(
            np.where(part > 0, index, -1), weights * part, n_bins, events
        )
        share = shares[:, rows.order]
        if share.dtype != np.bool_:
            share = share / part[rows.order]
        table = EfficiencyTable.from_shares(
            share, rows, cuts=cuts, edges=edges, variance=variance
        )
        lost = int(np.count_nonzero((part > 0) & (index < 0)))
        tables.append(replace(table, rows_outside=lost))
    return tables[0], tables[1]


def conditional_arrays(
    index: IntArray,
    weights: FloatArray,
    *,
    real: BoolArray,
    generated: FloatArray,
    among: BoolArray,
    generated_among: FloatArray,
    n_bins: int,
    events: IntArray | None = None,
    variance: sorted_rows.VarianceName = "wilson",
) -> Arrays:
    """Return what a record has of the same rows, bins last.

    They are the covariance (2 n_cuts, 2 n_cuts, n_bins), the difference and its error
    (n_cuts, n_bins), the moments (n_cuts, n_cuts, n_bins) and their effective rows.
    """
    rows = sorted_rows.sort_rows(index, weights, n_bins, events)
    w, sizes = rows.weights, np.diff(rows.starts)
    influences, efficiencies, totals = [], [], []
    for shares, part in ((real, among), (generated, generated_among)):
        inside = part[rows.order].astype(np.float64)
        total = rows.total(w * inside)
        total = np.where(total > 0, total, np.nan)
        for share in shares[:, rows.order].astype(np.float64):
            e = rows.total(w * share) / total
            residual = w * (share - np.repeat(e, sizes) * inside)
            influences.append(residual / np.repeat(total, sizes))
            efficiencies.append(e)
        totals.append(total)
    n, m = len(real), among[rows.order].astype(np.float64)
    covariance = _products(influences, rows)
    difference = np.array(efficiencies[n:]) - np.array(efficiencies[:n])
    steps = [g - r for r, g in zip(influences[:n], influences[n:], strict=True)]
    squares = [rows.total_product(step, step) for step in steps]
    spreads = np.array(squares) * totals[0] ** 2
    # As without a denominator, moments are those about a common efficiency.
    counted = [
        np.repeat(half / total, sizes) * (w * part[rows.order].astype(np.float64))
        for half in difference / 2
        for part, total in zip((among, generated_among), totals, strict=True)
    ]
    pairs = zip(steps, counted[::2], counted[1::2], strict=True)
    products = _products([s + r + g for s, r, g in pairs], rows) * totals[0] ** 2
    s2, s4 = rows.total(w**2 * m), rows.total_product(w**2 * m, w**2 * m)
    if variance == "wilson":
        u = s2 / totals[0]
        error = np.sqrt(spreads + u**2 / 2) / (totals[0] + u)
    else:
        error = np.sqrt(spreads) / totals[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        moments = products / np.where(s2 > 0, s2, np.nan)
    return covariance, difference, error, moments, n_eff_of_sums(s2, s4)


def _products(values: Sequence[FloatArray], rows: sorted_rows.SortedRows) -> FloatArray:
    """Return the sums (n, n, n_bins) of products of n times (m,) values."""
    n = len(values)
    result = np.empty((n, n, rows.n_bins))
    for i, first in enumerate(values):
        for j, second in enumerate(values[: i + 1]):
            result[i, j] = result[j, i] = rows.total_product(first, second)
    return result
