"""Limits where no reference row passes a cut, or none fails.

Where the generator always gives the same outcome, the smoothed difference of an
efficiency map is nearly certain: the bins around say that the generator is good. A few
rows that agree do not know that much. If all n effective rows of a region pass, or
fail, the efficiency may differ from 1, or from 0, by Wilson's one-sigma limit
1 / (n + 1), with weighted sums instead of counts where weights have both signs.

Regions are the bins of a slice along one axis that have an efficiency of 0 or 1, if the
whole slice has. A bin belongs to the region with the largest limit.
"""

from collections.abc import Iterator

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.efficiency.sorted_rows import ROUNDING, efficiency_interval
from pidgan.sample.weights import n_eff_of_sums

EDGE = 0.02
"""Distance from 0 or 1 up to which an efficiency counts as such."""

LARGEST = 1 / np.sqrt(3)
"""Limit without rows: the standard deviation of a uniform efficiency about its end."""

MOST_REGIONS = 5
"""Regions of a cut with a limit of their own; the others have a common one."""


def limit_shifts(
    found: RealVsGenerated, nominal: FloatArray, covariance: FloatArray
) -> FloatArray:
    """Return shifts (k, n_cuts, n_bins) that raise errors of regions to their limits.

    `nominal` and `covariance` are those of the map. There are no shifts, k = 0, if the
    errors are as large without them.
    """
    shifts = np.zeros((MOST_REGIONS, *nominal.shape))
    sizes = np.maximum(np.nan_to_num(found.real.sum_weights.reshape(-1)), 0.0)
    for cut, (values, block) in enumerate(zip(nominal, covariance, strict=True)):
        regions = []
        for sign in (1, -1):
            ends = values <= EDGE if sign > 0 else values >= 1 - EDGE
            for inside in _regions(ends, values, sizes, found.real.shape):
                limit = _limit(found, cut, inside, sign=sign)
                if limit is not None:
                    regions.append((limit, sign, inside))
        free = np.ones(len(values), dtype=np.bool_)
        number = 0
        for limit, sign, inside in sorted(regions, key=lambda one: -one[0]):
            own = inside & free
            free &= ~inside
            size = np.where(own, sizes, 0.0)
            size = size if size.sum() > 0 else own.astype(np.float64)
            if not own.any():
                continue
            f = size / size.sum()
            missing = limit**2 - f @ block @ f
            if missing > 0:
                shifts[min(number, MOST_REGIONS - 1), cut, own] = sign * missing**0.5
                number += 1
    return np.asarray(shifts[np.abs(shifts).max(axis=(1, 2)) > 0])


def _regions(
    ends: BoolArray, values: FloatArray, sizes: FloatArray, shape: tuple[int, ...]
) -> Iterator[BoolArray]:
    """Yield the bins (n_bins,) at an end in each slice that is at this end."""
    for axis, place in enumerate(np.unravel_index(np.arange(len(ends)), shape)):
        for step in range(shape[axis]):
            slab = place == step
            total = sizes[slab].sum()
            # A slice without rows is at an end if most of its bins are.
            if total > 0:
                mean = sizes[slab] @ values[slab] / total
                is_end = _is_end(mean, values[slab & ends])
            else:
                is_end = ends[slab].mean() > 0.5
            if is_end:
                yield slab & ends


def _is_end(mean: float, values: FloatArray) -> bool:
    """Return whether the mean of a slice is at the end of some of its bins."""
    if len(values) == 0:
        return False
    return bool(mean <= EDGE if values.mean() < 0.5 else mean >= 1 - EDGE)


def _limit(
    found: RealVsGenerated, cut: int, inside: BoolArray, *, sign: int
) -> float | None:
    """Return how far the efficiency of a region may be from its end.

    None if rows of the region have both outcomes.
    """
    table = found.real
    s, s2 = (
        a.reshape(-1)[inside].sum() for a in (table.sum_weights, table.sum_weights2)
    )
    p, p2 = (
        a[cut].reshape(-1)[inside].sum() for a in (table.sum_passed, table.sum_passed2)
    )
    n = float(n_eff_of_sums(max(s, 0.0), s2))
    limit = min(1 / (n + 1), LARGEST)
    if not s > 0:
        return float(limit)
    e, _, low, high = efficiency_interval(p, s, p2, s2)
    if ROUNDING < e < 1 - ROUNDING or (e > 0.5) != (sign < 0):
        return None
    return float(max(limit, high if sign > 0 else 1 - low))
