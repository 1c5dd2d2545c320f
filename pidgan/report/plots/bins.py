"""Bins of a variable that is drawn, and the weights in them."""

from collections.abc import Sequence
from typing import Any

import hist
import numpy as np
from matplotlib import ticker
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.sample.grids import Grid
from pidgan.sample.weights import n_eff

FINENESS = 0.6
"""Bins over the root of the effective rows: 110 for 33,000 rows, 27 for 2,000."""

FEWEST, MOST = 12, 120
"""Bins of a panel; more are narrower than a point."""

TAIL = 0.005
"""Share of the rows on either side that the axis leaves out."""

FEW_CELLS = 10
"""Values of a grid in a bin, any number of which is as good as a round one."""

WIDTHS = (1.0, 2.0, 2.5, 5.0, 10.0)


def edges_of(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    grid: Grid | None = None,
    tail: float = TAIL,
    most: int = MOST,
) -> FloatArray:
    """Return edges of equal bins of a round width, as many as the rows can fill.

    A variable without long tails, such as a probability, is drawn whole. Each bin of a
    variable on a grid holds as many of its values.
    """
    v = np.asarray(values, dtype=np.float64)
    w = np.ones(len(v)) if weights is None else np.asarray(weights, dtype=np.float64)
    v, w = v[np.isfinite(v)], w[np.isfinite(v)]
    if len(v) == 0:
        return np.linspace(0.0, 1.0, FEWEST + 1)
    bins = int(np.clip(FINENESS * np.sqrt(n_eff(w)), FEWEST, most))
    low, high = quantiles(v, w, (tail, 1 - tail))
    whole = float(v.min()), float(v.max())
    if whole[1] - whole[0] < 1.3 * (high - low):
        low, high = whole
    if high <= low:
        low, high = low - 0.5, high + 0.5
    if grid is not None:
        cells = max(1.0, np.ceil((high - low) / bins / grid.step - 1e-6))
        cells = cells if cells < FEW_CELLS else round_width(cells)
        width, edge = cells * grid.step, grid.offset - 0.5 * grid.step
    else:
        width, edge = round_width((high - low) / bins), 0.0
    first = np.floor((low - edge) / width + 1e-6)
    last = np.ceil((high - edge) / width - 1e-6)
    return np.asarray(edge + width * np.arange(first, max(last, first + 1) + 1))


def quantiles(
    values: FloatArray, weights: FloatArray, shares: Sequence[float]
) -> FloatArray:
    """Return weighted quantiles; where weights are negative, the least that is sure."""
    if not weights.sum() > 0:
        return np.quantile(values, shares)
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order]) / weights.sum()
    rising = np.maximum.accumulate(sums)
    places = np.searchsorted(rising, np.asarray(shares) - 1e-12)
    return np.asarray(values[order][np.minimum(places, len(order) - 1)])


def round_width(width: float) -> float:
    """The next round width: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(width))
    return float(power * next(s for s in WIDTHS if s * power >= width * (1 - 1e-9)))


def fill(
    values: ArrayLike, weights: ArrayLike | None, edges: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return sum w and sqrt(sum w^2) of each bin; the last one has its upper edge."""
    ends = np.asarray(edges, dtype=np.float64)
    v = np.asarray(values, dtype=np.float64)
    v = np.where(v == ends[-1], np.nextafter(ends[-1], ends[0]), v)
    found: Any = hist.Hist(
        hist.axis.Variable(ends, underflow=False, overflow=False),
        storage=hist.storage.Weight(),
    )
    found.fill(v, weight=None if weights is None else np.asarray(weights, np.float64))
    return np.asarray(found.values()), np.sqrt(np.asarray(found.variances()))


def fill_plane(
    columns: Sequence[ArrayLike],
    weights: ArrayLike | None,
    edges: Sequence[FloatArray],
) -> tuple[FloatArray, FloatArray]:
    """Return sum w and sum w^2 in the plane of two variables."""
    axes = [hist.axis.Variable(e, underflow=False, overflow=False) for e in edges]
    found: Any = hist.Hist(*axes, storage=hist.storage.Weight())
    w = None if weights is None else np.asarray(weights, dtype=np.float64)
    found.fill(*(np.asarray(c, dtype=np.float64) for c in columns), weight=w)
    return np.asarray(found.values()), np.asarray(found.variances())


def outside(values: ArrayLike, weights: ArrayLike | None, edges: FloatArray) -> float:
    """Return the share of the sum of weights that lies beyond the edges."""
    v = np.asarray(values, dtype=np.float64)
    w = np.ones(len(v)) if weights is None else np.asarray(weights, dtype=np.float64)
    beyond = (v < edges[0]) | (v > edges[-1])
    total = w.sum()
    return float(w[beyond].sum() / total) if total > 0 else 0.0


def number_axis(axis: Any) -> None:
    """Label a linear axis at a few round numbers, which have room beside each other."""
    axis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
