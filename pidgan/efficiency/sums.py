"""Sums over the rows of each analysis bin: values, gradients, shifts, covariance.

The formulas are in `pidgan.efficiency.pid_efficiency`. A row with weight w and value v
contributes w (v - mean) / W to the fluctuation of the mean of its bin. The statistical
covariance of two means, also between results of two calls, is the sum of the products
of these contributions over the rows that both have. Where rows belong to events, the
contributions of an event are added first (`pidgan.efficiency.events`).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency.analysis_rows import Rows
from pidgan.efficiency.denominators import denominator_shifts
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.estimates import Origin
from pidgan.efficiency.events import EventSums, event_blocks, in_several, square_sums
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.smoothing import SCALE_FLOOR, difference_scale
from pidgan.efficiency.table import EMPTY, FILLED, NOT_POSITIVE
from pidgan.efficiency.track_maps import Maps, is_table, parts_of
from pidgan.errors import PidganWarning
from pidgan.sample.weights import n_eff_of_sums

MIN_EFFECTIVE, DILUTION = 10.0, 10.0
"""Effective events below which, and events for each of them from which, a bin is
flagged: a few weights, larger than all others, decide its efficiency."""

BLOCK_ROWS = 100_000
"""Number of rows whose values for all selections are in memory at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The bins of an analysis, (n_cells,) each: rows, events, W, W^2 / sum w^2, status.

    `ranges` has the edges of each bin by branch. The weights of an event count as one.
    """

    ranges: Sequence[dict[str, tuple[float, float]]]
    n_rows: IntArray
    n_events: IntArray
    sums: FloatArray
    n_eff: FloatArray
    status: IntArray

    @property
    def is_diluted(self) -> BoolArray:
        """Whether few of many events have nearly all of the weight, (n_cells,)."""
        few = self.n_eff < np.minimum(MIN_EFFECTIVE, self.n_events / DILUTION)
        return np.asarray((self.status == FILLED) & few)

    def share(self, sums: NDArray[Any]) -> FloatArray:
        """Sums (n_cells, ...) over sums of weights; zero where unusable."""
        usable = (self.status == FILLED).reshape(-1, *[1] * (sums.ndim - 1))
        norm = np.where(usable, self.sums.reshape(usable.shape), 1.0)
        return np.where(usable, sums / norm, 0.0)

    def mean(self, rows: Rows, values: FloatArray) -> FloatArray:
        """Weighted mean (n_cells,) of values (n,); zero where unusable."""
        return self.share(np.bincount(rows.cell, rows.weights * values, len(self.sums)))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One selection in all bins, (n_cells,) each.

    `gradients` are sparse (n_cells, n_cuts * n_bins) derivatives by map.
    """

    selection: Selection
    corrected: FloatArray
    generated: FloatArray
    n_passing: IntArray
    outside_fraction: FloatArray
    gradients: Mapping[str, Any]
    shifts: Mapping[Origin, FloatArray]
    few: bool
    is_table: bool = False


def sum_cells(rows: Rows) -> Cells:
    """Return the bins of rows, which all lie in one; warn of bins without a value."""
    pairs = product(*map(pairwise, rows.binning.values()))
    ranges = [dict(zip(rows.binning, one, strict=True)) for one in pairs]
    n_cells = len(ranges)
    sums = np.bincount(rows.cell, rows.weights, n_cells).astype(np.float64)
    squares, n_events = square_sums(rows.weights, rows.cell, n_cells, rows.events)
    n_rows = np.bincount(rows.cell, minlength=n_cells)
    status = np.where(np.isfinite(sums) & (sums > 0), FILLED, NOT_POSITIVE)
    status[n_rows == 0] = EMPTY
    empty, negative = (np.count_nonzero(status == k) for k in (EMPTY, NOT_POSITIVE))
    if 0 < empty + negative < n_cells:
        warnings.warn(
            f"{empty + negative} of {n_cells} bins of the analysis have no "
            f"efficiency: {empty} without rows, {negative} with a sum of weights that "
            "is not positive",
            PidganWarning,
            stacklevel=4,
        )
    n_eff = n_eff_of_sums(sums, squares)
    return Cells(
        ranges=ranges,
        n_rows=n_rows,
        n_events=n_events,
        sums=sums,
        n_eff=n_eff,
        status=status,
    )


def factors_of(
    selection: Selection,
    rows: Rows,
    maps: Maps,
    *,
    correction: bool,
) -> list[FloatArray]:
    """Return v_t (n,) of each track; without the correction, whether it passes."""
    factors: list[FloatArray] = []
    for track, number in selection.cuts.items():
        own = rows.tracks[track]
        values = own.passed[number].astype(np.float64)
        if correction:
            # Outside the map, place is -1: the last element.
            values += np.append(maps[track].discrepancy[number], 0.0)[own.place]
        factors.append(values)
    return factors


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSample:
    """The rows behind estimates, numbered selection by selection, bin by bin.

    `rows` include those in no bin. `means` are the values (n_selections, n_cells), and
    `sums` the sums of weights (n_cells,), zero where a bin has no value.
    """

    rows: Rows
    selections: tuple[Selection, ...]
    maps: Maps
    correction: bool
    means: FloatArray
    sums: FloatArray

    @cached_property
    def covariance(self) -> FloatArray:
        """Covariance (n, n), at least that of half an event on either side."""
        n_selections, n_cells = self.means.shape
        result = self._between_bins()
        for cell, rows in self._rows_of_bins():
            block, squares = self._within_bin(cell, rows)
            n_eff = n_eff_of_sums(self.sums[cell], squares)
            p = 0.5 / (n_eff + 1)
            floor = p * (1 - p) / n_eff
            lift = np.maximum(floor - np.diag(block), 0.0)
            at = np.arange(n_selections) * n_cells + cell
            result[np.ix_(at, at)] = block + np.diag(lift)
        return result

    def shared_covariance(self, other: "RowSample") -> FloatArray | None:
        """Covariance (n, n_other) from rows or events that both have, None without."""
        own, its, n_shared = match_rows(self.rows, other.rows)
        return self._cross(other, own, its, n_shared) if n_shared else None

    def _within_bin(self, cell: int, rows: IntArray) -> tuple[FloatArray, float]:
        """Covariance in a bin, and the sum of the squared weights of its events."""
        n = len(self.selections)
        block, squares = np.zeros((n, n)), 0.0
        for sums in self._contributions(cell, rows):
            block += sums[:n] @ sums[:n].T
            squares += float((sums[n] ** 2).sum())
        return block, squares

    def _contributions(self, cell: int, rows: IntArray) -> Iterator[FloatArray]:
        """Yield influences and, in the last line, weights: of rows or of events."""
        found = self.rows.events
        if found is None:
            for start in range(0, len(rows), BLOCK_ROWS):
                chosen = rows[start : start + BLOCK_ROWS]
                own = self._influence(cell, chosen)
                yield np.concatenate([own, self.rows.weights[np.newaxis, chosen]])
            return
        open_sums = EventSums(len(self.selections) + 1)
        for chosen, number in event_blocks(rows, found, BLOCK_ROWS):
            own = self._influence(cell, chosen)
            both = np.concatenate([own, self.rows.weights[np.newaxis, chosen]])
            yield open_sums.add(both, number)
        yield open_sums.finish()

    def _between_bins(self) -> FloatArray:
        """Covariance (n, n) of different bins, from events with rows in several."""
        n_cells = self.means.shape[1]
        found = self.rows.events
        if found is None or n_cells == 1:
            return np.zeros((self.means.size, self.means.size))
        own = in_several(self.rows.cell, found)
        if not (own >= 0).any():
            return np.zeros((self.means.size, self.means.size))
        result = self._cross(self, own, own, len(found.ids))
        cell = np.arange(self.means.size) % n_cells
        result[np.equal.outer(cell, cell)] = 0.0
        return result

    def _cross(
        self, other: "RowSample", own: IntArray, its: IntArray, n_shared: int
    ) -> FloatArray:
        """Sum over shared rows or events; `own` and `its` number them, -1 for none."""
        total = np.zeros((self.means.size, other.means.size))
        a, b = np.argsort(own, kind="stable"), np.argsort(its, kind="stable")
        steps = own[a][np.count_nonzero(own < 0) :: BLOCK_ROWS]
        for low, high in pairwise(np.unique([0, *steps, n_shared])):
            left, right = (
                sample._spread(order[slice(*places)], number - low, high - low)
                for sample, order, number, places in (
                    (self, a, own, np.searchsorted(own, (low, high), sorter=a)),
                    (other, b, its, np.searchsorted(its, (low, high), sorter=b)),
                )
            )
            total += (left @ right.T).toarray()
        return total

    def _spread(self, chosen: IntArray, number: IntArray, width: int) -> Any:
        """Influence on every estimate of rows that share a number, (n, width)."""
        n_selections, n_cells = self.means.shape
        cells = self.rows.cell[chosen]
        use = (cells >= 0) & (self.sums[cells] > 0)
        cells, chosen = cells[use], chosen[use]
        influence = self._influence(cells, chosen)
        rows = np.arange(n_selections)[:, np.newaxis] * n_cells + cells
        columns = np.broadcast_to(number[chosen], rows.shape)
        # Entries of the same place are added.
        return sparse.csr_array(
            (influence.ravel(), (rows.ravel(), columns.ravel())),
            shape=(self.means.size, width),
        )

    def _rows_of_bins(self) -> Iterator[tuple[int, IntArray]]:
        """Yield each bin that has a value, and its rows."""
        order = np.argsort(self.rows.cell, kind="stable")
        cells = np.arange(self.means.shape[1] + 1)
        limits = np.searchsorted(self.rows.cell, cells, sorter=order)
        for cell in np.flatnonzero(self.sums > 0):
            yield int(cell), order[limits[cell] : limits[cell + 1]]

    def _influence(self, cell: Any, chosen: IntArray) -> FloatArray:
        """Contributions of rows in a bin to fluctuations, (n_selections, n_chosen)."""
        rows = self.rows.take(chosen)
        factors = partial(factors_of, correction=self.correction)
        values = [np.prod(factors(s, rows, self.maps), axis=0) for s in self.selections]
        means = self.means[:, cell]
        means = means if means.ndim == 2 else means[:, np.newaxis]
        return np.asarray((values - means) * (rows.weights / self.sums[cell]))


def match_rows(first: Rows, second: Rows) -> tuple[IntArray, IntArray, int]:
    """Number the events, else the rows of the same files, that two samples share.

    Returns:
        The number of each row of the first, of the second, -1 for none; how many.
    """
    own = np.full(len(first.weights), -1, dtype=np.int64)
    its = np.full(len(second.weights), -1, dtype=np.int64)
    if first.events is not None and second.events is not None:
        ids = (first.events.ids, second.events.ids)
        shared, i, j = np.intersect1d(*ids, assume_unique=True, return_indices=True)
        for rows, events, places in ((own, first.events, i), (its, second.events, j)):
            number = np.full(len(events.ids), -1, dtype=np.int64)
            number[places] = np.arange(len(shared))
            rows[:] = number[events.number]
        return own, its, len(shared)
    n_shared = first_start = 0
    for name, (n_rows, used) in first.origin.items():
        second_start = 0
        for other_name, (other_n, other_used) in second.origin.items():
            if name == other_name and n_rows == other_n:
                _, i, j = np.intersect1d(
                    used, other_used, assume_unique=True, return_indices=True
                )
                numbers = np.arange(n_shared, n_shared + len(i))
                own[i + first_start] = its[j + second_start] = numbers
                n_shared += len(i)
            second_start += len(other_used)
        first_start += len(used)
    return own, its, n_shared


def sum_squares(rows: Rows, maps: Maps, n_cells: int) -> dict[str, FloatArray]:
    """Return, by track, sum w^2 (n_cells, n_bins) in each bin of analysis and map."""
    found = {}
    for track, own in maps.items():
        place, n_bins = rows.tracks[track].place, len(own.n_eff)
        inside = np.flatnonzero(place >= 0)
        events = rows.events.take(inside) if rows.events is not None else None
        flat = rows.cell[inside] * n_bins + place[inside]
        sums, _ = square_sums(rows.weights[inside], flat, n_cells * n_bins, events)
        found[track] = sums.reshape(n_cells, n_bins)
    return found


def integrate(
    selection: Selection,
    rows: Rows,
    maps: Maps,
    *,
    cells: Cells,
    squares: Mapping[str, FloatArray],
    correction: bool,
) -> Part:
    """Return the efficiency of a selection in each bin, with its derivatives.

    `squares` are the results of `sum_squares`.
    """
    flags = factors_of(selection, rows, maps, correction=False)
    factors = factors_of(selection, rows, maps, correction=True)
    passing = np.prod(flags, axis=0)
    gradients: dict[str, Any] = {}
    shifts: dict[Origin, FloatArray] = {}
    outside: dict[Origin, FloatArray] = {}
    is_outside = np.zeros(len(rows.weights), dtype=np.bool_)
    for i, (track, number) in enumerate(selection.cuts.items()):
        own, place = maps[track], rows.tracks[track].place
        out = place < 0
        shape = (len(cells.sums), len(own.n_eff))
        flat = rows.cell[~out] * shape[1] + place[~out]
        in_bins = partial(_in_bins, flat, ~out, shape)
        weights = rows.weights * np.prod(factors[:i] + factors[i + 1 :], axis=0)
        gradient = cells.share(in_bins(weights))
        w = rows.weights
        total, passed = in_bins(w), in_bins(w * flags[i])
        change = _transfer(
            own.generated[number],
            own.discrepancy[number],
            total,
            squares[track],
            passed,
        )
        found: dict[Origin, FloatArray] = {}
        for part in parts_of(own):
            key, k, slopes = part.key, part.numbers[number], gradient[:, part.bins]
            wide = _widen(slopes, k, part.map)
            gradients[key] = gradients[key] + wide if key in gradients else wide
            for name, variation in part.map.variations.items():
                found[key, name] = slopes @ variation[k]
            if part.map.is_table:
                continue
            # An origin of its own: a variation of the map may have the same name.
            moved = (slopes * change[:, part.bins]).sum(axis=1)
            found[(key, "filling"), "transfer"] = moved
        for origin, shift in found.items():
            shifts[origin] = shifts[origin] + shift if origin in shifts else shift
        is_outside |= out
        if out.any():
            # Nothing is known there; only these rows are wrong in the same way.
            outside[(cells, track), "outside"] = _outside_error(
                rows.cell[out], weights[out], flags[i][out], cells
            )
    shifts |= outside
    values = np.prod(factors, axis=0)
    corrected = cells.mean(rows, values)
    shifts |= denominator_shifts(
        {track: maps[track] for track in selection.cuts},
        rows,
        values,
        corrected,
        mean=partial(cells.mean, rows),
        correction=correction,
    )
    generated = cells.mean(rows, passing)
    if not correction:
        own_maps = frozenset(p.key for t in selection.cuts for p in parts_of(maps[t]))
        shifts[own_maps, "uncorrected"] = corrected - generated
    return Part(
        selection=selection,
        corrected=corrected,
        generated=generated,
        n_passing=np.bincount(rows.cell[passing > 0], minlength=len(cells.sums)),
        outside_fraction=np.abs(cells.mean(rows, is_outside.astype(np.float64))),
        gradients=gradients,
        shifts=shifts,
        is_table=any(is_table(maps[t]) for t in selection.cuts),
        few=any(maps[t].cuts[k] in maps[t].flagged for t, k in selection.cuts.items()),
    )


def _in_bins(
    flat: IntArray, inside: BoolArray, shape: tuple[int, int], values: FloatArray
) -> FloatArray:
    """Sums (n_cells, n_bins) of values (n,) in each bin of analysis and map."""
    sums = np.bincount(flat, values[inside], shape[0] * shape[1])
    return np.asarray(sums.reshape(shape), dtype=np.float64)


def _widen(gradient: FloatArray, number: int, efficiency_map: EfficiencyMap) -> Any:
    """Gradient by one cut as a sparse one by all cuts of the map."""
    block = sparse.csr_array(gradient)
    n_cells, n_bins = gradient.shape
    return sparse.csr_array(
        (block.data, block.indices + number * n_bins, block.indptr),
        shape=(n_cells, len(efficiency_map.cuts) * n_bins),
    )


def _transfer(
    generated: FloatArray,
    discrepancy: FloatArray,
    total: FloatArray,
    total2: FloatArray,
    passed: FloatArray,
) -> FloatArray:
    """d_b ([e_b (1 - e_b)] / [g_b (1 - g_b)] - 1), (n_cells, n_bins), from S, S2, P.

    The estimate of e (1 - e) is unbiased for few rows; bins with fewer than two
    effective rows are left out.
    """
    n_eff = n_eff_of_sums(total, total2)
    with np.errstate(divide="ignore", invalid="ignore"):
        e = np.clip(passed / total, 0, 1)
        variance = e * (1 - e) * n_eff / (n_eff - 1)
    use = (total > 0) & (n_eff >= 2)
    slope = np.maximum(4 * np.where(use, variance, 0.0), SCALE_FLOOR)
    change: FloatArray = discrepancy * (slope / difference_scale(generated) - 1) * use
    return change


def _outside_error(
    cell: IntArray, weights: FloatArray, passed: FloatArray, cells: Cells
) -> FloatArray:
    """Error (n_cells,) from rows outside the map, whose efficiency may be anything."""
    n_cells = len(cells.sums)
    total = np.bincount(cell, weights, n_cells)
    with np.errstate(divide="ignore", invalid="ignore"):
        e = np.bincount(cell, weights * passed, n_cells) / total
    e = np.where(total > 0, np.clip(e, 0, 1), 0.5)
    return np.asarray(np.abs(cells.share(total)) * np.maximum(e, 1 - e) / np.sqrt(3))
