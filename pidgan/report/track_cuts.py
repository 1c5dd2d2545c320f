"""Efficiencies of cuts on tracks, real and generated, with the floor of their pulls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.efficiency import real_vs_generated
from pidgan.efficiency.binning import (
    Binning,
    bin_index,
    choose_edges,
    warn_of_outside,
)
from pidgan.efficiency.real_vs_generated import MIN_BIN_EFF, RealVsGenerated
from pidgan.report.report import Measured, measured, missing
from pidgan.report.track_figures import Edges, TrackRows, share_figures
from pidgan.sample.dataset import Part
from pidgan.sample.weights import n_eff

END_ROWS, MOST_END_BINS = 100.0, 3  # effective rows of a bin beyond a binning, and bins
DEFAULT_BINS = 8  # quantile bins of a condition for which the sample has no binning


@dataclass(frozen=True, kw_only=True)
class CutComparison:
    """Efficiencies of cuts against each condition and in the plane of the first two.

    `drawn` are those against each condition over all of its range, which the binning of
    a sample need not cover. The figures are by cut.
    """

    against: tuple[RealVsGenerated, ...]
    plane: RealVsGenerated
    drawn: tuple[RealVsGenerated, ...]
    figures: dict[str, Any]


def compare_cuts(
    rows: TrackRows, cuts: Sequence[str], binning: Binning | None = None
) -> CutComparison:
    """Compare efficiencies against each condition and in bins of the first two."""
    sample, columns = rows.sample, rows.columns(rows.real)
    chosen = choose_edges(binning, columns, rows.real.weights, default=sample.binning)
    for name, edges in chosen.items() if binning is not None else ():
        own = {name: edges}
        warn_of_outside(columns, own, bin_index(columns, own), what=" of the test part")
    binnings: list[Edges] = [
        {name: chosen.get(name) or quantile_edges(values, DEFAULT_BINS)}
        for name, values in columns.items()
    ]
    plane = {name: e for binning in binnings[:2] for name, e in binning.items()}
    passing = partial(rows.passing, cuts=cuts)
    outcomes = rows.outcomes(cuts, passing)
    floors = [rows.outcomes(cuts, passing, floor=floor) for floor in rows.floors]
    *against, both, overall = (
        outcomes.in_bins(edges).measured() for edges in (*binnings, plane, {})
    )
    drawn = [
        outcomes.in_bins(_whole_range(edges, columns, rows.real.weights)).measured()
        for edges in binnings
    ]
    figures: dict[str, Any] = {}
    for i, cut in enumerate(cuts):
        share = share_figures(rows, partial(_passes, rows=rows, cut=cut))
        half = float(overall.real.upper[i] - overall.real.lower[i]) / 2
        figures[cut] = {
            "overall": {**share, "real_error": half},
            "pull_rms": _pull_figure(rows, both, floors, i),
            "against": {
                name: found.figures(i)
                for name, found in zip(sample.condition_names, against, strict=True)
            },
            "map": both.figures(i),
        }
    return CutComparison(
        against=tuple(against), plane=both, drawn=tuple(drawn), figures=figures
    )


def _whole_range(
    edges: Edges, columns: Mapping[str, FloatArray], weights: FloatArray
) -> Edges:
    """Edges of one condition, with bins beyond both ends for the rows there."""
    ((name, own),) = edges.items()
    x = columns[name].astype(np.float64)
    below, above = x < own[0], x >= own[-1]
    left: tuple[float, ...] = ()
    right: tuple[float, ...] = ()
    if n_eff(weights[below]) >= MIN_BIN_EFF:
        left = quantile_edges(x[below], _end_bins(weights[below]))[:-1]
    if n_eff(weights[above]) >= MIN_BIN_EFF:
        right = quantile_edges(x[above], _end_bins(weights[above]))[1:]
    return {name: (*left, *own, *right)}


def _end_bins(weights: FloatArray) -> int:
    return int(np.clip(n_eff(weights) / END_ROWS, 1, MOST_END_BINS))


def _passes(part: Part, *, rows: TrackRows, cut: str) -> BoolArray:
    return np.asarray(rows.passing(part, [cut])[0])


def _pull_figure(
    rows: TrackRows,
    found: RealVsGenerated,
    floors: Sequence[real_vs_generated.ComparedRows],
    cut: int,
) -> Measured:
    """Rms of the pulls over bins, and that of the floor's rows."""
    pull = found.pull[cut][np.isfinite(found.pull[cut])]
    if len(pull) == 0:
        return missing(f"no bin has {MIN_BIN_EFF:g} effective rows")
    real, half = found.real.efficiency[cut], _half_interval(found, cut)
    of_floors = []
    for floor in floors:
        other = floor.in_bins(found.binning).measured()
        difference = other.real.efficiency[cut] - real
        pulls = difference / np.hypot(half, _half_interval(other, cut))
        pulls = pulls[np.isfinite(pulls)]
        if len(pulls):
            of_floors.append(float(np.sqrt(np.mean(pulls**2))))
    rms = float(np.sqrt(np.mean(pull**2)))
    error = rms / math.sqrt(2 * len(pull))
    return {
        **measured(rms, error, of_floors, n_eff(rows.real.weights)),
        "bins": len(pull),
        "bins_left_out": int(found.pull[cut].size - len(pull)),
    }


def _half_interval(found: RealVsGenerated, cut: int) -> FloatArray:
    return np.asarray((found.real.upper[cut] - found.real.lower[cut]) / 2)


def quantile_edges(values: FloatArray, n: int) -> tuple[float, ...]:
    """Return edges of bins with equally many rows; fewer bins where values repeat.

    A condition of few values, such as a charge, has a bin for each of them.
    """
    single = np.unique(values.astype(np.float64))
    if 1 < len(single) <= n:
        inner = (single[1:] + single[:-1]) / 2
        ends = 2 * single[0] - inner[0], 2 * single[-1] - inner[-1]
        return (float(ends[0]), *map(float, inner), float(ends[1]))
    edges = np.unique(np.quantile(values.astype(np.float64), np.linspace(0, 1, n + 1)))
    # A bin does not contain its upper edge; the largest value must be inside.
    last = float(np.nextafter(np.float32(edges[-1]), np.float32(np.inf)))
    inner = edges[:-1] if len(edges) > 1 else edges
    return (*map(float, inner), last)


def median_cuts(rows: TrackRows) -> tuple[str, ...]:
    """Return one cut per target at its median, for a sample without standard cuts."""
    found = []
    for variable, values in zip(rows.sample.targets, rows.real.targets.T, strict=True):
        values = values[~np.isin(values, variable.sentinels)]
        if len(values):
            found.append(f"{variable.name} > {float(np.median(values)):.3g}")
    return tuple(found)
