"""Bins of the conditions: edges that are given, named, or found from the data.

Which to use when: edges that an analysis has chosen; the name of a binning that ships,
such as "hadrons", to compare with PIDCalib; a number of bins where neither is known,
which gives bins that the rows measure equally well.
"""

import itertools
import math
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pidgan.arguments import checked
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.card import Card
from pidgan.errors import DatasetError, MapError, PidganWarning, nearest
from pidgan.sample.loading import load_binning
from pidgan.sample.weights import n_eff

Columns = pd.DataFrame | Mapping[str, NDArray[Any]]
Binning = str | Mapping[str, Sequence[float] | FloatArray | int | str]
Edges = Mapping[str, Sequence[float] | FloatArray]
ChosenEdges = Mapping[str, tuple[float, ...]]
FoundEdges = dict[str, tuple[float, ...]]
Counts = dict[str, dict[str, int]]

CELLS = 2000
"""Steps among which the edges of bins of equal population are sought: 0.05 % of the
rows, finer than any bin that has an efficiency."""

# The sought population is halved so often that its error is far below one row.
_HALVINGS = 40

WIDE_END = 4.0
"""Width of an added end bin, relative to its neighbour, from which it is divided."""

MAX_END_BINS = 3
"""Largest number of bins into which an added end bin is divided."""

AUTO_BINS = 4
"""Number of bins along an axis where the sample has no binning."""

MAX_AXES = 3
"""Number of conditions, the first ones, that have bins in such a sample."""

MIN_BIN_ROWS = 10.0
"""Effective rows of the reference in a bin of a map, on average, below which bins that
nobody asked for are merged. A bin of few rows has a ratio of two sums that hardly
measures; with 3 rows on average the uncertainty of a whole sample is 1.5 times that of
its rows, with 10 it is theirs (`docs/studies/coverage_fits.py`)."""

LEAST_BINS = 4
"""Number of bins along an axis that are not merged."""


@checked
def choose_edges(
    binning: Binning | None,
    columns: Columns,
    weights: ArrayLike | None = None,
    *,
    default: Binning | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, tuple[float, ...]]:
    """Return the edges of each condition.

    Args:
        binning: Name of a binning that ships; or, by condition, edges (or an axis of
            `hist`), the name of a binning, or a number of bins of equal population.
        columns: Named columns of n rows, from which a number of bins is found.
        weights: (n,) weights of any sign; None means 1.
        default: Binning that None stands for; without one, all rows are one bin.
        ranges: Range of a condition, which a number of bins covers at least.

    Returns:
        Increasing edges by condition.

    Raises:
        SampleError: No binning has that name.
        ValueError: Edges do not rise, or a condition is no column.

    Example:
        >>> choose_edges({"P": 2}, {"P": np.array([1.0, 2.0, 3.0, 4.0])})["P"][1]
        3.0
    """
    result = {}
    edges: FloatArray
    chosen = default if binning is None else binning
    for name, wanted in by_condition(chosen or {}).items():
        values = _column(columns, name)
        if isinstance(wanted, str):
            edges = np.array(_named(name, wanted))
        elif isinstance(wanted, int | np.integer):
            try:
                edges = equal_population(values, int(wanted), weights=weights)
            except DatasetError as error:
                raise DatasetError(f"binning in {name!r}: {error}") from None
            low, high = (ranges or {}).get(name, (np.inf, -np.inf))
            edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
        else:
            edges = check_edges(name, getattr(wanted, "edges", wanted))
        result[name] = tuple(map(float, edges))
    return result


def by_condition(binning: Binning) -> Mapping[str, Any]:
    """Return a binning by condition, that of a name with its edges."""
    return load_binning(binning) if isinstance(binning, str) else binning


def map_edges(card: Card, binning: Binning | None, frame: pd.DataFrame) -> FoundEdges:
    """Return the edges of an efficiency map, as in `run_systematics`.

    Where none are asked for, a reference of few rows has fewer bins than its sample.
    """
    if binning is None:
        named = {v.name for v in card.conditions if v.categories}
        size = n_eff(frame["weight"].to_numpy(np.float64))
        return merge_bins(default_binning(card, frame), size, keep=named)
    chosen = by_condition(binning)
    if not chosen:
        raise MapError("the binning is empty, expected edges by condition")
    ranges = {v.name: v.range for v in card.conditions}
    weights = frame["weight"].to_numpy(np.float64)
    try:
        edges = choose_edges(chosen, frame[list(ranges)], weights, ranges=ranges)
    except ValueError as error:
        raise MapError(str(error)) from None
    for name, wanted in chosen.items():
        if isinstance(binning, str) or isinstance(wanted, str):
            edges[name] = _cover(ranges[name], edges[name])
    return edges


def merge_bins(
    edges: Mapping[str, Sequence[float]], size: float, *, keep: Container[str] = ()
) -> FoundEdges:
    """Return edges for a reference of `size` effective rows: few rows, fewer bins.

    The bins of the axis that has most are merged two by two until a bin has
    `MIN_BIN_ROWS` on average, or no axis has more than `LEAST_BINS`. Most bins of a
    small sample would hold no measurement, so that much of it were lost. Axes of
    categories are kept.
    """
    found = {name: tuple(map(float, values)) for name, values in edges.items()}
    while size < MIN_BIN_ROWS * count_bins(found):
        bins = {n: len(e) - 1 for n, e in found.items() if n not in keep}
        name = max(bins, key=lambda n: bins[n], default="")
        if not name or bins[name] <= LEAST_BINS:
            break
        found[name] = (*found[name][:-1:2], found[name][-1])
    return found


def default_binning(card: Card, frame: pd.DataFrame | None = None) -> FoundEdges:
    """Return the edges of a map where none are given; quantiles if there are rows."""
    own = card.sample.map_binning or card.sample.binning
    edges: FoundEdges = {}
    for variable in card.conditions:
        name = variable.name
        if name in own:
            edges[name] = _cover(variable.range, own[name])
        elif not own and frame is not None and len(edges) < MAX_AXES:
            low, high = variable.range
            if variable.categories:
                # One bin for each, the last of which contains its upper edge.
                known = sorted(variable.categories)
                inner = [(a + b) / 2 for a, b in itertools.pairwise(known)]
            else:
                values = np.quantile(frame[name], np.linspace(0, 1, AUTO_BINS + 1))
                inner = [e for e in np.unique(values)[1:-1].tolist() if low < e < high]
            edges[name] = (low, *inner, high)
    return edges


def _cover(range_: tuple[float, float], edges: Sequence[float]) -> tuple[float, ...]:
    """Edges that cover the trained range, with new ones at an end that is wide."""
    low, high = range_
    inner = [e for e in edges if low < e < high]
    if len(inner) < 2:
        return (low, *inner, high)
    first, last = inner[1] - inner[0], inner[-1] - inner[-2]

    def new(start: float, stop: float, beside: float) -> list[float]:
        n = min(MAX_END_BINS, math.ceil((stop - start) / (WIDE_END * beside)))
        return [float(edge) for edge in np.linspace(start, stop, n + 1)]

    left, right = new(low, inner[0], first), new(inner[-1], high, last)
    return (*left[:-1], *inner, *right[1:])


@checked
def equal_population(
    values: ArrayLike, n_bins: int, *, weights: ArrayLike | None = None
) -> FloatArray:
    """Return edges of bins with nearly the same effective number of rows.

    The effective number of a bin is (sum w)^2 / sum w^2, and none if sum w <= 0; the
    least of all bins is made as large as possible. The last edge is just above the
    largest value, so that every row has a bin.

    Args:
        values: (n,) values of a condition.
        n_bins: Number of bins.
        weights: (n,) weights of any sign; None means 1.

    Returns:
        (n_bins + 1,) edges.

    Raises:
        DatasetError: The values do not allow so many bins.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"values has shape {x.shape}, expected (n,)")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != x.shape:
        raise ValueError(f"weights has shape {w.shape}, expected {x.shape}")
    finite = np.isfinite(x)
    x, w = x[finite], w[finite]
    if len(x) == 0:
        raise DatasetError("no finite value, so that bins cannot be found")
    # Steps at values that exist: integers are not split.
    cells = np.unique(np.quantile(x, np.linspace(0, 1, CELLS + 1), method="lower"))
    end = np.nextafter(cells[-1], np.inf)
    place = np.searchsorted(cells, x, side="right") - 1
    s = np.append(0.0, np.cumsum(np.bincount(place, w, len(cells))))
    s2 = np.append(0.0, np.cumsum(np.bincount(place, w**2, len(cells))))
    chosen = _largest_population(s, s2, n_bins)
    if chosen is None:
        raise DatasetError(
            f"{len(x)} rows with {len(cells)} different values and an effective number "
            f"of {max(s[-1], 0.0) ** 2 / s2[-1]:.0f} do not allow {n_bins} bins; "
            "expected fewer"
        )
    return np.append(cells, end)[[0, *chosen, len(cells)]]


def check_edges(name: str, given: Any) -> FloatArray:
    """Return edges as an array, checked to increase."""
    edges = np.asarray(given, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(
            f"edges of {name!r} must be two or more increasing numbers, got {given!r}"
        )
    return edges


def bin_index(columns: Columns, binning: Edges) -> IntArray:
    """Return the flat bin (n,) of each row in C order, or -1 outside; NaN is outside.

    A bin contains its lower edge and not its upper one; the last bin contains both, as
    in numpy, and in boost-histogram where an axis has no overflow. Charges of -1 and 1
    therefore lie in the bin of edges (-1, 1). Empty edges give one bin of everything.

    Example:
        >>> x = np.array([5.0, 15.0, 20.0, 99.0])
        >>> bin_index({"P": x}, {"P": (0.0, 10.0, 20.0)})
        array([ 0,  1,  1, -1])
    """
    index, inside = _places(columns, binning)
    for own in inside.values():
        index[~own] = -1
    return index


def count_outside(columns: Columns, binning: Edges) -> dict[str, int]:
    """Return how many rows lie outside the bins, by condition; NaN is outside."""
    _, inside = _places(columns, binning)
    return {name: int(np.count_nonzero(~own)) for name, own in inside.items()}


def add_counts(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> Counts:
    """Return the sums of counts by name, then by what is counted."""
    total: Counts = {}
    for part in parts:
        for name, own in part.items():
            sums = total.setdefault(name, {})
            for what, n in own.items():
                sums[what] = sums.get(what, 0) + n
    return total


def outside_text(counts: Mapping[str, int], binning: Edges) -> str:
    """Say of which conditions rows are outside, such as `nTracks 0 to 500: 12`."""
    parts = [
        f"{name} {binning[name][0]:g} to {binning[name][-1]:g}: {count}"
        for name, count in counts.items()
        if count
    ]
    return ", ".join(parts)


def warn_of_outside(
    columns: Columns, binning: Edges, index: IntArray, *, what: str = ""
) -> None:
    """Warn of rows (n,) that have no bin, -1 in `index`, and say why they have none."""
    n_outside = np.count_nonzero(index < 0)
    if n_outside:
        causes = outside_text(count_outside(columns, binning), binning)
        warnings.warn(
            f"{n_outside} of {len(index)} rows{what} ({n_outside / len(index):.2%}) "
            f"lie outside the bins and are left out: {causes}",
            PidganWarning,
            stacklevel=4,
        )


def _places(columns: Columns, binning: Edges) -> tuple[IntArray, dict[str, BoolArray]]:
    """Return the flat bin (n,) of each row, and which rows each condition has inside.

    The number of a row that is outside means nothing.
    """
    index = np.zeros(count_rows(columns), dtype=np.int64)
    inside = {}
    for name, given in binning.items():
        edges, values = check_edges(name, given), _column(columns, name)
        place = np.searchsorted(edges, values, side="right") - 1
        n_bins = len(edges) - 1
        place[values == edges[-1]] = n_bins - 1
        inside[name] = (place >= 0) & (place < n_bins)
        index *= n_bins
        index += place
    return index, inside


def _column(columns: Columns, name: str) -> NDArray[Any]:
    if name not in columns:
        hint = nearest(name, map(str, columns))
        raise ValueError(f"binning in {name!r}, which is not a column{hint}")
    values = np.asarray(columns[name])
    if values.dtype.kind not in "biuf":
        raise ValueError(f"column {name!r} holds {values.dtype}, expected numbers")
    return values


def bin_shape(binning: Edges) -> tuple[int, ...]:
    """Return the bins along each condition."""
    return tuple(len(edges) - 1 for edges in binning.values())


def count_bins(binning: Edges) -> int:
    """Return the product of the bins along each condition."""
    return math.prod(bin_shape(binning))


def edge_columns(binning: Edges, times: int) -> dict[str, FloatArray]:
    """Return NAME_low and NAME_high of all bins in C order, repeated `times` times."""
    shape = bin_shape(binning)
    places = np.unravel_index(np.arange(math.prod(shape)), shape) if shape else ()
    columns = {}
    for (name, given), place in zip(binning.items(), places, strict=True):
        edges = np.array(given)
        columns[f"{name}_low"] = np.tile(edges[place], times)
        columns[f"{name}_high"] = np.tile(edges[place + 1], times)
    return columns


def count_rows(columns: Columns) -> int:
    """Return the rows of the columns, all of which must have the same number."""
    if isinstance(columns, pd.DataFrame):
        return len(columns)
    lengths = {str(name): len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of different lengths: {lengths}")
    if not lengths:
        raise ValueError("no columns given")
    return next(iter(lengths.values()))


def _named(condition: str, name: str) -> tuple[float, ...]:
    """Edges of one condition in a binning that ships."""
    known = load_binning(name)
    if condition not in known:
        raise ValueError(
            f"binning {name!r} has no {condition!r}{nearest(condition, known)}; it has "
            f"{', '.join(known)}"
        )
    return known[condition]


def _largest_population(s: FloatArray, s2: FloatArray, n_bins: int) -> list[int] | None:
    """Inner edges, as numbers of cells, from sums of w and w^2 of all cells before."""
    low, high, best = 0.0, max(s[-1], 0.0) ** 2 / s2[-1] if s2[-1] > 0 else 0.0, None
    if n_bins == 1:
        return [] if high > 0 else None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (found := _fill(s, s2, n_bins, middle)) is None:
            high = middle
        else:
            low, best = middle, found
    return best


def _fill(s: FloatArray, s2: FloatArray, n_bins: int, least: float) -> list[int] | None:
    """Close each bin as soon as it has the population; the last one takes the rest."""
    inner: list[int] = []
    first = 0
    for _ in range(n_bins - 1):
        sums, squares = s[first + 1 :] - s[first], s2[first + 1 :] - s2[first]
        enough = (sums > 0) & (sums**2 >= least * squares)
        if not enough.any():
            return None
        first += int(np.argmax(enough)) + 1
        inner.append(first)
    rest, rest2 = s[-1] - s[first], s2[-1] - s2[first]
    return inner if rest > 0 and rest**2 >= least * rest2 else None
