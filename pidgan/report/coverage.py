"""Does a calibration sample cover the tracks of an analysis? Shares, and pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from pidgan.arrays import BoolArray, FloatArray
from pidgan.bundle.card import CardVariable
from pidgan.report.plots import Figure, bins, canvas
from pidgan.report.plots.variables import (
    Drawn,
    Panel,
    plot_coverage_planes,
    plot_variables,
)
from pidgan.sample.grids import find_grid
from pidgan.sample.variables import WEIGHT

Draw = Callable[[], Figure]

LEAST_ROWS = 5.0
"""Effective rows of the calibration sample below which a cell is not covered."""

PLANE_BINS = 20
"""Bins along each condition of a plane."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Conditions of a calibration sample and of the tracks of an analysis.

    Attributes:
        variables: Conditions, with their trained range.
        calibration: Conditions and "weight" of the calibration sample.
        analysis: Conditions and "weight" of the tracks; NaN is no value.
    """

    variables: tuple[CardVariable, ...]
    calibration: pd.DataFrame
    analysis: pd.DataFrame
    track: str = ""

    def outside(self, name: str) -> BoolArray:
        """Return which tracks (n,) are outside the trained range, or have no value."""
        (variable,) = (v for v in self.variables if v.name == name)
        low, high = variable.range
        x = self.analysis[name].to_numpy(np.float64)
        return np.asarray(~((x >= low) & (x <= high)))

    def share(self, chosen: BoolArray) -> float:
        """Return the share of the sum of weights of some tracks."""
        w = self.analysis[WEIGHT].to_numpy(np.float64)
        return float(w[chosen].sum() / w.sum())

    def shares(self) -> dict[str, float]:
        """Return the share of tracks outside, by condition, and by any of them."""
        masks = {v.name: self.outside(v.name) for v in self.variables}
        found = {name: self.share(mask) for name, mask in masks.items()}
        found["any"] = self.share(np.any(list(masks.values()), axis=0))
        return found

    def text(self) -> str:
        """Say which share of the tracks is outside, a line for each condition."""
        n = len(self.analysis)
        lines = []
        for variable in self.variables:
            low, high = variable.range
            scale, unit = canvas.display_unit(variable.unit)
            ends = f"{low * scale:.4g} to {high * scale:.4g}"
            unit = "" if unit == "1" else f" {unit}"
            share = self.share(self.outside(variable.name))
            lines.append(
                f"{variable.name}: {share:.2%} of {n} tracks outside {ends}{unit}"
            )
        for first, second in combinations([v.name for v in self.variables], 2):
            *_, share = self.plane(first, second)
            lines.append(
                f"{first} and {second}: {share:.2%} where the calibration sample has "
                f"fewer than {LEAST_ROWS:g} effective rows"
            )
        return "\n".join(lines)

    def plane(
        self, first: str, second: str
    ) -> tuple[list[FloatArray], FloatArray, FloatArray, float]:
        """Return edges, sums of both samples in a plane, and the share not covered.

        The share is that of tracks in cells of fewer than `LEAST_ROWS` effective rows
        of the calibration sample, those outside included.
        """
        edges = []
        for name in (first, second):
            x = self.analysis[name].to_numpy(np.float64)
            both = np.concatenate([x, self.calibration[name].to_numpy(np.float64)])
            both = both[np.isfinite(both)]
            low, high = np.quantile(both, [0.0005, 0.9995])
            (variable,) = (v for v in self.variables if v.name == name)
            count = PLANE_BINS
            if variable.integer or len(np.unique(both[:1000])) <= 2:
                count = int(min(PLANE_BINS, max(2.0, np.ceil(high - low + 1))))
            high = high if high > low else low + 1
            edges.append(np.linspace(low, np.nextafter(high, np.inf), count + 1))
        samples = []
        for frame in (self.calibration, self.analysis):
            columns = [frame[name].to_numpy(np.float64) for name in (first, second)]
            samples.append(
                bins.fill_plane(columns, frame[WEIGHT].to_numpy(np.float64), edges)
            )
        (s, s2), (a, _) = samples
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.where((s2 > 0) & (s > 0), s**2 / s2, 0.0)
        total = float(self.analysis[WEIGHT].sum())
        covered = float(a[size >= LEAST_ROWS].sum() / total)
        return edges, size, a / total, 1.0 - covered


def coverage_pictures(found: Coverage) -> dict[str, Draw]:
    """Return the conditions of both samples, one by one and in planes of two."""
    pictures: dict[str, Draw] = {"coverage": partial(draw_coverage, found)}
    if len(found.variables) > 1:
        pictures["coverage in planes"] = partial(draw_planes, found)
    return pictures


def draw_coverage(found: Coverage) -> Figure:
    """Draw each condition of both samples with the integral 1, and their ratio."""
    panels = []
    for variable in found.variables:
        name = variable.name
        share = found.share(found.outside(name))
        x, w = (
            [f[n].to_numpy(np.float64) for f in (found.calibration, found.analysis)]
            for n in (name, WEIGHT)
        )
        label = f"analysis {found.track}".strip()
        samples = [
            Drawn(values=x[0], weights=w[0], label="calibration"),
            Drawn(
                values=x[1],
                weights=w[1],
                label=label,
                colour=canvas.ANALYSIS,
                kind="line",
            ),
        ]
        panels.append(
            Panel(
                name=name,
                unit=variable.unit,
                samples=samples,
                span=variable.range,
                note=f"{100 * share:.2g} % outside the trained range",
                edges=_edges(found, variable),
            )
        )
    return plot_variables(
        panels,
        ratio="analysis / calib.",
        below="log ratio",
        title="Conditions of the calibration sample and of the analysis",
        normalised=True,
    )


def _edges(found: Coverage, variable: CardVariable) -> FloatArray:
    """Return bins that show the bulk of both samples."""
    name = variable.name
    values = [f[name].to_numpy(np.float64) for f in (found.analysis, found.calibration)]
    smaller = min(len(v) for v in values)
    rng = np.random.default_rng(1)
    picked = [v if len(v) == smaller else rng.choice(v, smaller) for v in values]
    both = np.concatenate(picked)
    grid = find_grid(both[np.isfinite(both)]) if variable.integer else None
    return bins.edges_of(both, grid=grid, tail=0.002, most=bins.MOST // 2)


def draw_planes(found: Coverage) -> Figure:
    """Draw the tracks in planes of two conditions over the cells that are covered."""
    units = {v.name: v.unit for v in found.variables}
    planes = []
    for pair in list(combinations([v.name for v in found.variables], 2))[:6]:
        edges, size, tracks, share = found.plane(*pair)
        note = f"{100 * share:.2g} % not covered"
        both = (units[pair[0]], units[pair[1]])
        planes.append((pair, both, edges, size >= LEAST_ROWS, tracks, note))
    return plot_coverage_planes(planes)
