"""Efficiencies of selections in bins of an analysis, from rows and maps.

For rows i of an analysis bin, with weights w and W = sum w, and for the tracks t of a
selection, pass_t = 0 or 1, and the discrepancy d_t of the map in the row's bin b_t(i),

    value = sum_i w_i v_i / W,      v_i = prod_t v_ti,    v_ti = pass_ti + d_t(b_t(i)).

Given the conditions the responses of the tracks are independent, in data as among the
generated draws; then E[v_i] is the product of the corrected efficiencies. Uncertainties
are linear in what is uncertain:

    stat: cov_kl = sum_i w_i^2 (v_ki - value_k) (v_li - value_l) / W^2,
    calibration, and every variation of the map: by the gradient
    G_tb = sum_{i: b_t(i) = b} w_i prod_{s != t} v_si / W,
    transfer = sum_tb G_tb d_tb (e_tb (1 - e_tb) / g_tb (1 - g_tb) - 1),

with g and e the generated efficiency in a bin for the rows of the map and for those of
the analysis. The transfer is how much the correction would change if the error of the
generator in a bin were a constant shift of the logit of the efficiency: it matters
where the analysis fills a wide bin differently. Gradients by the same map, of several
tracks, add up: their errors are the same error.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pidgan.discrepancy import SCALE_FLOOR, difference_scale
from pidgan.efficiency_map import EfficiencyMap
from pidgan.errors import MapError, PidganWarning
from pidgan.propagation import tables
from pidgan.propagation.estimates import (
    Estimates,
    Origin,
    finite,
    warn_of_relatives,
)
from pidgan.propagation.rows import Rows, TrackRows
from pidgan.propagation.selection import Selection
from pidgan.typing import BoolArray, FloatArray, IntArray

Outside = Literal["grow", "refuse"]

BLOCK_ROWS = 100_000
"""Rows whose values for all selections are in memory at a time."""

USABLE, EMPTY, NOT_POSITIVE = 0, 1, 2
"""Values of `_Cells.status`."""

_FLAGS = ("", "empty", "sum of weights not positive")


@dataclass(frozen=True, kw_only=True)
class PidEfficiency:
    """Efficiency of one selection on an analysis ntuple, or in one bin of it.

    Attributes:
        cut: the selection.
        value: efficiency, corrected unless asked otherwise; never clipped; NaN in a
            bin that is flagged as empty or without a positive sum of weights.
        stat: statistical uncertainty of the analysis ntuple.
        syst: systematic uncertainties by name: "calibration", the variations of the
            map, "transfer"; "outside" if rows lie outside the map; "uncorrected"
            without the correction.
        total: all of them in quadrature.
        generated: efficiency of the generated targets.
        correction: what the map adds to it, whether or not it was added.
        n_rows: rows used.
        n_eff: their effective number, (sum w)^2 / sum w^2.
        outside_fraction: share of the sum of weights outside the map.
        n_invalid: rows of the ntuple left out, without targets.
        few_events: whether a reference has few rows on one side of a cut.
        bin: edges by branch, if the efficiency is that of an analysis bin.
        flags: what to beware of: "empty", "sum of weights not positive", "nothing
            passes", "everything passes", "few reference rows".
    """

    cut: str
    value: float
    stat: float
    syst: dict[str, float]
    total: float
    generated: float
    correction: float
    n_rows: int
    n_eff: float
    outside_fraction: float
    n_invalid: int
    few_events: bool
    bin: dict[str, tuple[float, float]]
    flags: tuple[str, ...]

    @property
    def label(self) -> str:
        """The selection and the bin."""
        return _label(self.cut, self.bin)


@dataclass(frozen=True, kw_only=True, eq=False)
class PidEfficiencies:
    """Efficiencies of several selections, in several bins, on the same rows.

    The first selection in all bins comes first. Ratios are those of `estimates`:
    `found.estimates[1] / found.estimates[0]`, or `found / other` for all.

    Attributes:
        results: one per selection and bin.
        estimates: the same with all derivatives, for ratios and sums.
        bins: edges of the analysis bins by branch; empty without.
        n_outside_bins: rows outside these bins, left out.
    """

    results: tuple[PidEfficiency, ...]
    estimates: Estimates
    bins: dict[str, tuple[float, ...]]
    n_outside_bins: int

    def __iter__(self) -> Iterator[PidEfficiency]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, number: int) -> PidEfficiency:
        return self.results[number]

    def __truediv__(self, other: "PidEfficiencies") -> Estimates:
        return self.estimates / other.estimates

    @property
    def covariance(self) -> FloatArray:
        """(n, n), of the values; the diagonal is total^2; NaN without a value."""
        return self.estimates.covariance

    @property
    def covariances(self) -> dict[str, FloatArray]:
        """Parts of `covariance` by name: "stat", then those of `syst`."""
        return {"stat": self.estimates.stat, **self.estimates.systematics}

    def content(self) -> dict[str, Any]:
        """Return everything for JSON; a value that does not exist is null."""
        results = []
        for one in self.results:
            content = asdict(one)
            for name in ("value", "stat", "total", "generated", "correction"):
                content[name] = finite(content[name])
            content["syst"] = {k: finite(v) for k, v in one.syst.items()}
            results.append(content)
        return {
            "results": results,
            "bins": self.bins,
            "n_outside_bins": self.n_outside_bins,
            **self.estimates.covariances(),
        }

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.content(), indent=2, allow_nan=False)

    def text(self) -> str:
        """Return a table: value and uncertainties in per cent."""
        return tables.efficiency_text(self)

    def latex(self) -> str:
        """Return a LaTeX table: value +- statistical +- systematic, in per cent."""
        return tables.efficiency_latex(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sample:
    """The rows behind estimates, numbered selection by selection, bin by bin."""

    rows: Rows
    selections: tuple[Selection, ...]
    maps: Mapping[str, EfficiencyMap]
    correction: bool
    means: FloatArray
    sums: FloatArray

    @cached_property
    def covariance(self) -> FloatArray:
        """(n, n), never below that of half a row on either side."""
        n_selections, n_cells = self.means.shape
        blocks = np.zeros((n_cells, n_selections, n_selections))
        squares = np.zeros(n_cells)
        for one, chosen in self._blocks():
            influence = self._influence(one, chosen)
            blocks[one] += influence @ influence.T
            squares[one] += (self.rows.weights[chosen] ** 2).sum()
        result = np.zeros((self.means.size, self.means.size))
        for cell in np.flatnonzero(squares > 0):
            n_eff = self.sums[cell] ** 2 / squares[cell]
            p = 0.5 / (n_eff + 1)
            floor = p * (1 - p) / n_eff
            block = blocks[cell]
            lift = np.maximum(floor - np.diag(block), 0.0)
            at = np.arange(n_selections) * n_cells + cell
            result[np.ix_(at, at)] = block + np.diag(lift)
        return result

    def shared_covariance(self, other: "_Sample") -> FloatArray | None:
        """(n, n_other), due to rows that both have; None if there are none."""
        result = None
        first_start = 0
        for name, (n_rows, used) in self.rows.origin.items():
            second_start = 0
            for other_name, (other_n, other_used) in other.rows.origin.items():
                if name == other_name and n_rows == other_n:
                    _, i, j = np.intersect1d(
                        used, other_used, assume_unique=True, return_indices=True
                    )
                    cross = self._cross(other, i + first_start, j + second_start)
                    result = cross if result is None else result + cross
                second_start += len(other_used)
            first_start += len(used)
        return result

    def _cross(self, other: "_Sample", i: IntArray, j: IntArray) -> FloatArray:
        """Sum over rows i of this sample, which are rows j of the other."""
        total = np.zeros((self.means.size, other.means.size))
        for start in range(0, len(i), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            first, second = (
                s._spread(rows) for s, rows in ((self, i[block]), (other, j[block]))
            )
            total += (first @ second.T).toarray()
        return total

    def _spread(self, chosen: IntArray) -> Any:
        """(n, n_chosen) sparse, influence of rows on every estimate."""
        n_selections, n_cells = self.means.shape
        cells = self.rows.cell[chosen]
        at = np.flatnonzero((cells >= 0) & (self.sums[cells] > 0))
        cells = cells[at]
        influence = self._influence(cells, chosen[at])
        rows = np.arange(n_selections)[:, np.newaxis] * n_cells + cells
        columns = np.broadcast_to(at, rows.shape)
        return sparse.csr_array(
            (influence.ravel(), (rows.ravel(), columns.ravel())),
            shape=(self.means.size, len(chosen)),
        )

    def _blocks(self) -> Iterator[tuple[int, IntArray]]:
        """Yield (bin, rows), never many rows at a time."""
        order = np.argsort(self.rows.cell, kind="stable")
        limits = np.searchsorted(
            self.rows.cell[order], np.arange(self.means.shape[1] + 1)
        )
        for cell in np.flatnonzero(self.sums > 0):
            rows = order[limits[cell] : limits[cell + 1]]
            for start in range(0, len(rows), BLOCK_ROWS):
                yield int(cell), rows[start : start + BLOCK_ROWS]

    def _influence(self, cell: Any, chosen: IntArray) -> FloatArray:
        """(n_selections, n_chosen), what rows in a bin contribute to fluctuations."""
        rows = _take(self.rows, chosen)
        values = np.array(
            [
                np.prod(
                    _factors(s, rows, self.maps, correction=self.correction), axis=0
                )
                for s in self.selections
            ]
        )
        means = self.means[:, cell]
        means = means if means.ndim == 2 else means[:, np.newaxis]
        return np.asarray((values - means) * (rows.weights / self.sums[cell]))


def combine(
    selections: Sequence[Selection],
    rows: Rows,
    maps: Mapping[str, EfficiencyMap],
    *,
    bins: Mapping[str, Sequence[float]],
    correction: bool = True,
    outside: Outside = "grow",
) -> PidEfficiencies:
    """Return the efficiencies of selections; `pid_efficiency` reads the rows.

    Args:
        selections: what is required.
        rows: the rows, with their weights, of any sign.
        maps: the map of each track.
        bins: edges of the analysis bins; `rows.cell` numbers them in C order.
        correction: as for `pid_efficiency`.
        outside: as for `pid_efficiency`.

    Raises:
        MapError: no sum of weights is positive.
    """
    if outside not in ("grow", "refuse"):
        raise ValueError(f"outside is {outside!r}, expected 'grow' or 'refuse'")
    edges = {name: tuple(map(float, values)) for name, values in bins.items()}
    n_cells = int(np.prod([len(e) - 1 for e in edges.values()], dtype=np.int64))
    inside = rows.cell >= 0
    n_outside_bins = int(np.count_nonzero(~inside))
    used = _take(rows, np.flatnonzero(inside)) if n_outside_bins else rows
    _check_places(used, maps, outside)
    cells = _sum_cells(used, n_cells)
    if not (cells.status == USABLE).any():
        where = " in the bins of the analysis" if edges else ""
        raise MapError(
            f"{len(used.weights)} rows{where} with a sum of weights of "
            f"{used.weights.sum():.6g}, expected a positive sum"
        )
    _warn_of_cells(cells)
    keys = {track: map_key(efficiency_map) for track, efficiency_map in maps.items()}
    warn_of_relatives({keys[track]: maps[track] for track in maps})
    parts = [
        _integrate(selection, used, maps, keys, cells=cells) for selection in selections
    ]
    sample = _Sample(
        rows=rows,
        selections=tuple(selections),
        maps=maps,
        correction=correction,
        means=np.array([part.values(correction) for part in parts]),
        sums=np.where(cells.status == USABLE, cells.sums, 0.0),
    )
    estimates = _estimates(parts, sample, maps, keys, cells=cells, edges=edges)
    return PidEfficiencies(
        results=tuple(
            _describe(parts, estimates, cells, edges, n_invalid=rows.n_invalid)
        ),
        estimates=estimates,
        bins=edges,
        n_outside_bins=n_outside_bins,
    )


def map_key(efficiency_map: EfficiencyMap) -> str:
    """Return what tells a map from others, however it was opened."""
    digest = hashlib.sha256()
    for array in (
        efficiency_map.discrepancy,
        efficiency_map.raw_covariance,
        *efficiency_map.variations.values(),
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    head = [efficiency_map.cuts, efficiency_map.binning, efficiency_map.metadata]
    digest.update(json.dumps(head, sort_keys=True, default=str).encode())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """The bins of an analysis, (n_cells,) each."""

    n_rows: IntArray
    sums: FloatArray
    n_eff: FloatArray
    status: IntArray

    def share(self, sums: NDArray[Any]) -> FloatArray:
        """Sums (n_cells, ...) divided by those of the weights; zero where unusable."""
        usable = (self.status == USABLE).reshape(-1, *[1] * (sums.ndim - 1))
        norm = np.where(usable, self.sums.reshape(usable.shape), 1.0)
        return np.where(usable, sums / norm, 0.0)

    def mean(self, rows: Rows, values: FloatArray) -> FloatArray:
        """(n_cells,), weighted mean of values (n,); zero where unusable."""
        return self.share(np.bincount(rows.cell, rows.weights * values, len(self.sums)))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One selection in all bins: (n_cells,), gradients (n_cells, n_cuts * n_bins)."""

    selection: Selection
    corrected: FloatArray
    generated: FloatArray
    n_passing: IntArray
    outside_fraction: FloatArray
    gradients: Mapping[str, Any]
    shifts: Mapping[Origin, FloatArray]
    outside: Mapping[str, FloatArray]
    few: bool

    def values(self, correction: bool) -> FloatArray:
        """(n_cells,), with or without the correction."""
        return self.corrected if correction else self.generated


def _take(rows: Rows, chosen: IntArray) -> Rows:
    """Return some of the rows."""
    return Rows(
        tracks={
            track: TrackRows(
                place=own.place[chosen],
                passed={k: flags[chosen] for k, flags in own.passed.items()},
            )
            for track, own in rows.tracks.items()
        },
        weights=rows.weights[chosen],
        cell=rows.cell[chosen],
    )


def _sum_cells(rows: Rows, n_cells: int) -> _Cells:
    """Sum the weights in each bin."""
    sums = np.bincount(rows.cell, rows.weights, n_cells).astype(np.float64)
    squares = np.bincount(rows.cell, rows.weights**2, n_cells)
    n_rows = np.bincount(rows.cell, minlength=n_cells)
    status = np.where(np.isfinite(sums) & (sums > 0), USABLE, NOT_POSITIVE)
    status[n_rows == 0] = EMPTY
    with np.errstate(divide="ignore", invalid="ignore"):
        n_eff = np.where(squares > 0, sums**2 / squares, 0.0)
    return _Cells(n_rows=n_rows, sums=sums, n_eff=n_eff, status=status)


def _factors(
    selection: Selection,
    rows: Rows,
    maps: Mapping[str, EfficiencyMap],
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


def _integrate(
    selection: Selection,
    rows: Rows,
    maps: Mapping[str, EfficiencyMap],
    keys: Mapping[str, str],
    *,
    cells: _Cells,
) -> _Part:
    """Sum the rows of each bin."""
    flags = _factors(selection, rows, maps, correction=False)
    factors = _factors(selection, rows, maps, correction=True)
    passing = np.prod(flags, axis=0)
    gradients: dict[str, Any] = {}
    shifts: dict[Origin, FloatArray] = {}
    outside = {}
    is_outside = np.zeros(len(rows.weights), dtype=np.bool_)
    for i, (track, number) in enumerate(selection.cuts.items()):
        own, key, efficiency_map = rows.tracks[track], keys[track], maps[track]
        weights = rows.weights * np.prod(factors[:i] + factors[i + 1 :], axis=0)
        gradient = _gradient(own, weights, rows, efficiency_map, cells=cells)
        wide = _widen(gradient, number, efficiency_map)
        gradients[key] = gradients[key] + wide if key in gradients else wide
        found: dict[Origin, FloatArray] = {
            (key, name): gradient @ variation[number]
            for name, variation in efficiency_map.variations.items()
        }
        # An origin of its own: a variation of the map may have the same name.
        found[(key, "filling"), "transfer"] = _transfer(
            own, number, rows, efficiency_map, gradient=gradient
        )
        for origin, shift in found.items():
            shifts[origin] = shifts[origin] + shift if origin in shifts else shift
        out = own.place < 0
        is_outside |= out
        if out.any():
            outside[track] = _outside_error(
                rows.cell[out], weights[out], flags[i][out], cells
            )
    return _Part(
        selection=selection,
        corrected=cells.mean(rows, np.prod(factors, axis=0)),
        generated=cells.mean(rows, passing),
        n_passing=np.bincount(rows.cell[passing > 0], minlength=len(cells.sums)),
        outside_fraction=np.abs(cells.mean(rows, is_outside.astype(np.float64))),
        gradients=gradients,
        shifts=shifts,
        outside=outside,
        few=any(maps[t].cuts[k] in maps[t].flagged for t, k in selection.cuts.items()),
    )


def _gradient(
    own: TrackRows,
    weights: FloatArray,
    rows: Rows,
    efficiency_map: EfficiencyMap,
    *,
    cells: _Cells,
) -> FloatArray:
    """(n_cells, n_bins), sums of weights in each bin of analysis and map, over W."""
    inside, flat, shape = _flat(own, rows, efficiency_map, n_cells=len(cells.sums))
    sums = np.bincount(flat, weights[inside], shape[0] * shape[1])
    return cells.share(sums.reshape(shape))


def _flat(
    own: TrackRows, rows: Rows, efficiency_map: EfficiencyMap, *, n_cells: int
) -> tuple[BoolArray, IntArray, tuple[int, int]]:
    """Return which rows lie in the map, their bins of analysis and map, the shape."""
    n_bins = len(efficiency_map.n_eff)
    inside = own.place >= 0
    flat = rows.cell[inside] * n_bins + own.place[inside]
    return inside, flat, (n_cells, n_bins)


def _widen(gradient: FloatArray, number: int, efficiency_map: EfficiencyMap) -> Any:
    """Return a gradient by one cut as a sparse one by all cuts of the map."""
    block = sparse.csr_array(gradient)
    n_cells, n_bins = gradient.shape
    return sparse.csr_array(
        (block.data, block.indices + number * n_bins, block.indptr),
        shape=(n_cells, len(efficiency_map.cuts) * n_bins),
    )


def _transfer(
    own: TrackRows,
    number: int,
    rows: Rows,
    efficiency_map: EfficiencyMap,
    *,
    gradient: FloatArray,
) -> FloatArray:
    """Return sum_b G_b d_b (e_b (1 - e_b) / g_b (1 - g_b) - 1), e_b of the analysis.

    The estimate of e (1 - e) is unbiased for few rows; bins with fewer than two
    effective rows do not tell, and are left out.
    """
    n_cells = len(gradient)
    inside, flat, shape = _flat(own, rows, efficiency_map, n_cells=n_cells)
    w, passed = rows.weights[inside], own.passed[number][inside]
    size = shape[0] * shape[1]
    total, total2 = np.bincount(flat, w, size), np.bincount(flat, w**2, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        n_eff = total**2 / total2
        e = np.clip(np.bincount(flat, w * passed, size) / total, 0, 1)
        own_variance = e * (1 - e) * n_eff / (n_eff - 1)
    use = (total > 0) & (n_eff >= 2)
    slope = np.maximum(4 * np.where(use, own_variance, 0.0), SCALE_FLOOR).reshape(shape)
    ratio = slope / difference_scale(efficiency_map.generated[number])
    change = efficiency_map.discrepancy[number] * (ratio - 1) * use.reshape(shape)
    return np.asarray((gradient * change).sum(axis=1))


def _outside_error(
    cell: IntArray, weights: FloatArray, passed: FloatArray, cells: _Cells
) -> FloatArray:
    """(n_cells,), for rows outside the map, whose efficiency may be anything."""
    n_cells = len(cells.sums)
    total = np.bincount(cell, weights, n_cells)
    with np.errstate(divide="ignore", invalid="ignore"):
        e = np.bincount(cell, weights * passed, n_cells) / total
    e = np.where(total > 0, np.clip(e, 0, 1), 0.5)
    return np.asarray(np.abs(cells.share(total)) * np.maximum(e, 1 - e) / np.sqrt(3))


def _estimates(
    parts: Sequence[_Part],
    sample: _Sample,
    maps: Mapping[str, EfficiencyMap],
    keys: Mapping[str, str],
    *,
    cells: _Cells,
    edges: Mapping[str, Sequence[float]],
) -> Estimates:
    """Return the values of all selections in all bins, with their derivatives."""
    n_cells = len(cells.sums)
    columns: list[dict[Origin, FloatArray]] = []
    for part in parts:
        shifts = dict(part.shifts)
        for track, error in part.outside.items():
            # Nothing is known there; only these rows are wrong in the same way.
            shifts[(sample, track), "outside"] = error
        if not sample.correction:
            own = tuple(keys[track] for track in part.selection.cuts)
            shifts[own, "uncorrected"] = part.corrected - part.generated
        columns.append(shifts)
    origins = list(dict.fromkeys(origin for shifts in columns for origin in shifts))
    by_key = {keys[track]: efficiency_map for track, efficiency_map in maps.items()}
    gradients = {}
    for key, efficiency_map in by_key.items():
        shape = (n_cells, efficiency_map.discrepancy.size)
        empty = sparse.csr_array(shape)
        blocks = [part.gradients.get(key, empty) for part in parts]
        gradients[key] = sparse.vstack(blocks, format="csr")
    usable = np.tile(cells.status == USABLE, len(parts))
    values = np.where(usable, sample.means.ravel(), np.nan)
    ranges = _ranges(edges)
    return Estimates(
        labels=tuple(_label(p.selection.text, r) for p in parts for r in ranges),
        values=values,
        samples={sample: sparse.eye_array(len(values), format="csr")},
        gradients=gradients,
        shifts={
            origin: np.concatenate(
                [shifts.get(origin, np.zeros(n_cells)) for shifts in columns]
            )
            for origin in origins
        },
        maps=by_key,
    )


def _describe(
    parts: Sequence[_Part],
    estimates: Estimates,
    cells: _Cells,
    edges: Mapping[str, Sequence[float]],
    *,
    n_invalid: int,
) -> Iterator[PidEfficiency]:
    """Yield the result of each selection in each bin."""
    ranges = _ranges(edges)
    places = [(part, cell) for part in parts for cell in range(len(cells.sums))]
    for (part, cell), one in zip(places, estimates, strict=True):
        usable = cells.status[cell] == USABLE
        generated = part.generated[cell] if usable else np.nan
        flags = [_FLAGS[cells.status[cell]]]
        if usable and part.n_passing[cell] == 0:
            flags.append("nothing passes")
        if usable and part.n_passing[cell] == cells.n_rows[cell]:
            flags.append("everything passes")
        if part.few:
            flags.append("few reference rows")
        yield PidEfficiency(
            cut=part.selection.text,
            value=one.value,
            stat=one.stat,
            syst=one.syst,
            total=one.total,
            generated=float(generated),
            correction=float(part.corrected[cell] - generated),
            n_rows=int(cells.n_rows[cell]),
            n_eff=float(cells.n_eff[cell]),
            outside_fraction=float(part.outside_fraction[cell]),
            n_invalid=n_invalid,
            few_events=part.few,
            bin=ranges[cell],
            flags=tuple(flag for flag in flags if flag),
        )


def _ranges(
    edges: Mapping[str, Sequence[float]],
) -> list[dict[str, tuple[float, float]]]:
    """Return the edges of each bin, in C order."""
    pairs = [
        [(name, (low, high)) for low, high in pairwise(values)]
        for name, values in edges.items()
    ]
    return [dict(one) for one in product(*pairs)]


def _label(text: str, ranges: Mapping[str, tuple[float, float]]) -> str:
    """Name a selection in a bin."""
    parts = [f"{low:g} <= {name} < {high:g}" for name, (low, high) in ranges.items()]
    return ", ".join([text, *parts])


def _check_places(
    rows: Rows, maps: Mapping[str, EfficiencyMap], outside: Outside
) -> None:
    """Warn of rows outside the maps, or refuse them."""
    for track, efficiency_map in maps.items():
        n_outside = int(np.count_nonzero(rows.tracks[track].place < 0))
        if not n_outside:
            continue
        limits = ", ".join(
            f"{name} {edges[0]:g} to {edges[-1]:g}"
            for name, edges in efficiency_map.binning.items()
        )
        which = f" of {track}" if len(maps) > 1 else ""
        message = (
            f"{n_outside} of {len(rows.weights)} rows lie outside the efficiency "
            f"map{which} ({limits})"
        )
        if outside == "refuse":
            raise MapError(message)
        warnings.warn(
            f"{message}; they are not corrected, and the uncertainty grows",
            PidganWarning,
            stacklevel=4,
        )


def warn_of_invalid(rows: Rows, tracks: Sequence[str]) -> None:
    """Warn of rows that were left out because they have no targets."""
    if rows.n_invalid:
        warnings.warn(
            f"{rows.n_invalid} of {rows.n_invalid + len(rows.weights)} rows have no "
            f"generated targets for {' and '.join(tracks)} and are left out",
            PidganWarning,
            stacklevel=3,
        )


def _warn_of_cells(cells: _Cells) -> None:
    """Warn of bins that have no efficiency."""
    empty = int(np.count_nonzero(cells.status == EMPTY))
    negative = int(np.count_nonzero(cells.status == NOT_POSITIVE))
    if empty or negative:
        warnings.warn(
            f"{empty + negative} of {len(cells.sums)} bins of the analysis have no "
            f"efficiency: {empty} without rows, {negative} with a sum of weights that "
            "is not positive",
            PidganWarning,
            stacklevel=4,
        )
