"""Efficiencies and misIDs of PID cuts: generated against real rows, with floors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.efficiency.binning import Binning, choose_edges
from pidgan.efficiency.real_vs_generated import (
    MIN_BIN_EFF,
    ComparedRows,
    RealVsGenerated,
)
from pidgan.report.report import Measured, measured, missing
from pidgan.report.track_figures import share_figures
from pidgan.report.track_rows import TrackRows
from pidgan.sample.dataset import Part
from pidgan.sample.weights import n_eff

DEFAULT_BINS = 8
"""Number of quantile bins of a condition for which the sample has no binning."""


@dataclass(frozen=True, kw_only=True)
class CutComparison:
    """Real and generated efficiencies of several cuts for one species.

    Attributes:
        against: Efficiencies against each condition.
        plane: Efficiencies in bins of the first two conditions.
        figures: Numbers by cut.
    """

    against: tuple[RealVsGenerated, ...]
    plane: RealVsGenerated
    figures: dict[str, Any]


def compare_cuts(
    rows: TrackRows, cuts: Sequence[str], binning: Binning | None = None
) -> CutComparison:
    """Compare efficiencies against each condition and in bins of the first two."""
    sample, columns = rows.sample, rows.columns(rows.real)
    chosen = choose_edges(binning, columns, rows.real.weights, default=sample.binning)
    binnings: list[dict[str, tuple[float, ...]]] = []
    for name, values in columns.items():
        edges = chosen.get(name) or quantile_edges(values, DEFAULT_BINS)
        binnings.append({name: edges})
    plane = {name: e for binning in binnings[:2] for name, e in binning.items()}
    passing = partial(rows.passing, cuts=cuts)
    outcomes = rows.outcomes(cuts, passing)
    floors = [rows.outcomes(cuts, passing, floor=floor) for floor in rows.floors]
    *against, both, overall = (
        outcomes.in_bins(edges).measured() for edges in (*binnings, plane, {})
    )
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
    return CutComparison(against=tuple(against), plane=both, figures=figures)


def _passes(part: Part, *, rows: TrackRows, cut: str) -> BoolArray:
    return np.asarray(rows.passing(part, [cut])[0])


def _pull_figure(
    rows: TrackRows, found: RealVsGenerated, floors: Sequence[ComparedRows], cut: int
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
    """Return edges of bins with equally many rows; fewer bins where values repeat."""
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
