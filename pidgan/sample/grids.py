"""Grids: values that are whole multiples of a step, and those that stand out there.

Counts take whole numbers, and digitised measurements offset + k step with whole k. The
step is found in the data: values of a grid, stored in single precision, lie closer to
it than by chance. Every value of a grid is frequent; `standing_out` says which of them
is more frequent than its neighbours let expect.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray

# A value on a grid is off by at most this many units of its last place.
TOLERANCE = 2.5
# Width, in units of the last place, that a value by chance on a grid is counted with.
CHANCE = 8.0
# Logarithm of the odds that values lie on a grid by chance, from which they do not.
MIN_EVIDENCE = 30.0
# The step is the smallest distance of two values, or this fraction of it.
MOST_PARTS = 20
# Fewer different values have no step but 1, and none at all if they are not whole.
MIN_VALUES = 8
# Largest whole number whose neighbours single precision tells apart by halves.
MAX_INDEX = 2.0**22
# A grid is too fine if more than this share of rows lies on one with a larger step.
MOST_IN_ONE = 0.9
# Rows that tell whether there is a grid at all, which the others have to lie on too.
ENOUGH = 100_000
# Denominators of the steps and offsets that people choose.
DENOMINATORS = (
    *(1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 100, 128, 200, 256, 500),
    *(1000, 1024, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 1_000_000),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Values offset + k step, with whole k.

    Attributes:
        step: Distance of two neighbours, positive.
        offset: Value of k = 0, from 0 up to the step.
    """

    step: float
    offset: float

    def index(self, values: FloatArray) -> FloatArray:
        """Return the whole numbers k (n,) of values, NaN for a value off the grid."""
        v = np.asarray(values, dtype=np.float64)
        k = np.rint((v - self.offset) / self.step)
        off = np.abs(v - self.values(k)) > TOLERANCE * _last_place(v)
        return np.where(off, np.nan, k)

    def values(self, index: FloatArray) -> FloatArray:
        """Return the values of whole numbers k."""
        return np.asarray(self.offset + index * self.step)


def stated_grid(values: FloatArray, step: float) -> Grid:
    """Return the grid of a stated step, with the offset of most values."""
    v = np.asarray(values, dtype=np.float64)
    zero = Grid(step=step, offset=0.0)
    if len(v) == 0 or np.isfinite(zero.index(v)).mean() > 0.5:
        return zero
    return Grid(step=step, offset=_offset(v, step))


def find_grid(values: FloatArray, *, sentinels: Sequence[float] = ()) -> Grid | None:
    """Return the grid that all values (n,), stored in single precision, lie on.

    Sentinels do not count, nor does a frequent value far from all others. None says
    that values are continuous, or on a grid too fine to be told from rounding.
    """
    single = np.asarray(values, dtype=np.float32)
    some = single[:: len(single) // ENOUGH] if len(single) >= 2 * ENOUGH else single
    if len(some) < len(single) and find_grid(some, sentinels=sentinels) is None:
        return None
    unique, counts = np.unique(single, return_counts=True)
    kept = ~np.isin(unique, np.asarray(sentinels, dtype=np.float32))
    kept &= ~far_values(unique, counts, kept)
    v = unique[kept].astype(np.float64)
    if len(v) < 2 or not np.isfinite(v).all() or np.abs(v).max() >= 2.0**23:
        return None
    if bool(np.all(v == np.rint(v))):
        common = float(np.gcd.reduce(np.diff(v).astype(np.int64)))
        step = common if len(v) >= MIN_VALUES else 1.0
        return Grid(step=step, offset=float(v[0] % step))
    first = np.append(True, np.diff(v) > TOLERANCE * _last_place(v[1:]))
    if len(v) < MIN_VALUES or first.sum() < max(MIN_VALUES, 0.5 * len(v)):
        return None
    return _find_step(v, counts[kept], v[first])


def far_values(unique: FloatArray, counts: IntArray, kept: BoolArray) -> BoolArray:
    """Return which frequent values at an end are further from the others than these.

    Such a value means something else, as -999 beside 0 to 20.
    """
    far = np.zeros(len(unique), dtype=np.bool_)
    least = max(10.0, 2e-3 * counts.sum())
    for _ in range(4):
        places = np.flatnonzero(kept & ~far)
        if len(places) < 4:
            break
        v = unique[places].astype(np.float64)
        for end, gap, span in (
            (0, v[1] - v[0], v[-1] - v[1]),
            (-1, v[-1] - v[-2], v[-2] - v[0]),
        ):
            if gap > span and counts[places[end]] >= least:
                far[places[end]] = True
                break
        else:
            break
    return far


def _last_place(values: FloatArray) -> FloatArray:
    """Return the unit of the last place in single precision."""
    magnitude = np.maximum(np.abs(values), np.finfo(np.float32).tiny)
    return np.spacing(magnitude.astype(np.float32)).astype(np.float64)


def _evidence(values: FloatArray, step: float) -> float:
    """Return the logarithm of the odds against values being on a grid by chance."""
    each = np.log(step / (CHANCE * _last_place(values)))
    return float(np.clip(each, 0, None).sum() - 2 * each.clip(0, None).max())


def _find_step(values: FloatArray, counts: IntArray, apart: FloatArray) -> Grid | None:
    """Return the grid of the largest step that fits all values."""
    gaps, largest = np.diff(apart), np.abs(apart).max()
    closest = int(np.argmin(gaps))
    for parts in range(1, MOST_PARTS + 1):
        step = float(gaps[closest]) / parts
        too_fine = largest > MAX_INDEX * step
        if too_fine or _evidence(apart, step) < MIN_EVIDENCE:
            return None
        refined = _refine(apart - apart[closest], step, _last_place(apart))
        if refined is None:
            continue
        grid = _rounded(values, refined)
        if grid is not None:
            return grid if _is_even(values, counts, grid) else None
    return None


def _refine(x: FloatArray, step: float, last_place: FloatArray) -> float | None:
    """Fit the step to distances x in growing windows; None if some are no multiples."""
    origin = int(np.flatnonzero(x == 0)[0])
    tolerance = 2 * TOLERANCE * np.maximum(last_place, last_place[origin])
    window, widest = 8 * step, np.abs(x).max()
    while True:
        inside = slice(*np.searchsorted(x, (-window, window), side="right"))
        k = np.rint(x[inside] / step)
        if np.count_nonzero(k) < len(k) - 1:
            return None
        step = float((k @ x[inside]) / (k @ k)) if k.any() else step
        if (np.abs(x[inside] - k * step) > tolerance[inside]).any():
            return None
        if window >= widest:
            return step
        window *= 4


def _rounded(values: FloatArray, step: float) -> Grid | None:
    """Return the grid with the roundest step and offset that fit all values."""
    steps = [float(Fraction(step).limit_denominator(d)) for d in DENOMINATORS]
    for chosen in [*dict.fromkeys(steps), step]:
        if abs(chosen - step) > 0.01 * step:
            continue
        offset = _offset(values, chosen)
        offsets = [Fraction(offset).limit_denominator(d) for d in DENOMINATORS]
        for place in dict.fromkeys([0.0, *map(float, offsets), offset]):
            grid = Grid(step=chosen, offset=place % chosen)
            if np.isfinite(grid.index(values)).all():
                return grid
    return None


def _offset(values: FloatArray, step: float) -> float:
    """Return the offset of a grid: the mean of the remainders, as angles."""
    angle = 2 * np.pi * (values / step - np.rint(values / step))
    mean = np.arctan2(np.sin(angle).mean(), np.cos(angle).mean())
    return float(step * (mean / (2 * np.pi) % 1.0))


def _is_even(values: FloatArray, counts: IntArray, grid: Grid) -> bool:
    """Return whether values have one step, and rows use all of the grid.

    Numbers with a short mantissa have a step that grows with the value; and where most
    rows are on a coarser grid, the others are off that.
    """
    k = grid.index(values)
    large = np.abs(values) > 0.5 * np.abs(values).max()
    if large.sum() >= MIN_VALUES and not np.any(np.diff(k[large]) % 2):
        return False
    for parts in range(2, MOST_PARTS + 1):
        rows = np.bincount((k % parts).astype(np.int64), weights=counts)
        if rows.max() > MOST_IN_ONE * rows.sum():
            return False
    return True


# A value stands out by this factor, and by this many standard deviations.
MIN_FACTOR = 1.5
MIN_PULL = 5.0
# Neighbours that it is compared with.
NEIGHBOURS = 6


def standing_out(index: FloatArray, *, least: float) -> FloatArray:
    """Return the whole numbers (m,) of a grid that stand out from their neighbours.

    Those have at least `least` of the rows (n,), and more than MIN_FACTOR times what
    the neighbours let expect: the second largest of the six closest, or a logarithm of
    counts that goes on as theirs, whichever is more.
    """
    unique, counts = np.unique(index, return_counts=True)
    low, high = unique[[0, -1]] if len(unique) else (0, 0)
    k, n = unique[counts >= least], counts[counts >= least]
    if high - low < NEIGHBOURS:
        return np.asarray(k[:0])

    def count(at: FloatArray) -> FloatArray:
        place = np.searchsorted(unique, at).clip(0, len(unique) - 1)
        return np.where(unique[place] == at, counts[place], 0).astype(np.float64)

    def log_count(distance: FloatArray | int) -> FloatArray:
        return np.asarray(np.log(count(k + distance) + 0.5))

    start = np.clip(k - NEIGHBOURS // 2, low, high - NEIGHBOURS)
    around = start[:, None] + np.arange(NEIGHBOURS + 1)
    others = np.where(around == k[:, None], -1.0, count(around))
    *_, second, largest = np.sort(others, axis=1).T
    closer, farther = (log_count(d) + log_count(-d) for d in (1, 2))
    # Of counts that alternate, only every second one goes on smoothly.
    within = np.maximum((4 * closer - farther) / 6, farther / 2)
    inwards = np.where(k - low < high - k, 1, -1)
    beyond = 2 * log_count(inwards) - log_count(2 * inwards)
    at_end = np.minimum(k - low, high - k) < 2
    smooth = np.exp(np.where(at_end, beyond, within))
    expected = np.maximum(second, np.minimum(smooth, 3 * largest))
    stands = n > MIN_FACTOR * expected + MIN_PULL * np.sqrt(expected + 1)
    return np.asarray(k[stands])
