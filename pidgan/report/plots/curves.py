"""Figures of efficiencies in bins: curves beside each other, planes, ROC curves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.report.plots import bins, canvas

PLANE_POINTS = 300.0
"""Width and height of a plane, in points."""

SMALLEST_NUMBER, LARGEST_NUMBER = 5.5, 10.0
"""Sizes of the numbers in the cells of a plane, in points."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Efficiencies in bins of one condition, and what stands below them."""

    condition: str
    edges: FloatArray
    series: Sequence[canvas.Series]
    unit: str = "1"
    below: Sequence[canvas.Series] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Values (m, k) in bins of two conditions: shares, differences, errors or pulls."""

    values: FloatArray
    label: str
    kind: Literal["share", "error", "difference", "pull"] = "share"
    errors: FloatArray | None = field(default=None, repr=False)


def curve(
    values: ArrayLike,
    interval: tuple[ArrayLike, ArrayLike],
    label: str,
    colour: str = canvas.REAL,
    **style: Any,
) -> canvas.Series:
    """Return a series with the ends (m,) of its intervals."""
    v, low, high = (np.asarray(a, dtype=np.float64) for a in (values, *interval))
    return canvas.Series(
        values=v, low=low, high=high, label=label, colour=colour, **style
    )


@canvas.style()
def plot_curves(
    panels: Sequence[Curves],
    *,
    title: str = "",
    label: str = "Efficiency",
    below: str = "gen. $-$ real",
    about: float = 0.0,
) -> Figure:
    """Draw efficiencies and misIDs in bins, a panel for each condition.

    The lower panels show the series `below` about a value, if any panel has some.
    """
    has_below = any(panel.below for panel in panels)
    head = 0.75
    if has_below:
        figure, pairs = canvas.ratio_panels(len(panels), head=head)
    else:
        figure, singles = canvas.single_panels(len(panels), head=head)
        pairs = [(axis, axis) for axis in singles]
    limits = _limits(panels)
    reach = _reach(panels, about)
    for panel, (top, bottom) in zip(panels, pairs, strict=True):
        scale, unit = canvas.display_unit(panel.unit)
        x = np.asarray(panel.edges, dtype=np.float64) * scale
        if canvas.is_log(x):
            bottom.set_xscale("log")
        for one in panel.series:
            canvas.draw_series(top, x, one)
        top.set_ylim(*limits)
        for end in (0.0, 1.0):
            if limits[0] < end < limits[1]:
                top.axhline(end, color=canvas.FLOOR, linewidth=0.8, linestyle=":")
        top.set_ylabel(label)
        if has_below:
            bottom.axhline(about, color=canvas.REAL, linewidth=0.8)
            for one in panel.below:
                canvas.draw_series(bottom, x, one)
            bottom.set_ylim(about - reach, about + reach)
            bottom.yaxis.set_major_locator(ticker.MaxNLocator(4, prune="both"))
            bottom.set_ylabel(below)
        bottom.set_xlim(x[0], x[-1])
        if canvas.is_log(x):
            canvas.number_log_axis(bottom.xaxis)
        else:
            bins.number_axis(bottom.xaxis)
        canvas.label_axis(bottom, panel.condition, unit)
        top.set_title(panel.note, loc="left", fontsize=10)
    canvas.draw_head(figure, title, [top for top, _ in pairs])
    return figure


def _limits(panels: Sequence[Curves]) -> tuple[float, float]:
    """One vertical range for all panels, which holds the ends of the intervals."""
    ends = [end for p in panels for s in p.series for end in (s.values, s.low, s.high)]
    drawn = np.concatenate([np.ravel(end) for end in ends]) if ends else np.zeros(1)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) == 0:
        return 0.0, 1.05
    low, high = float(drawn.min()), float(drawn.max())
    span = max(high - low, 1e-3)
    if low < 0.35:  # an axis that nearly reaches zero may as well begin there
        low = min(0.0, low - 0.03 * span)
    else:
        low -= 0.08 * span
    top = high + 0.08 * max(high - low, span)
    return low, max(top, min(1.02, high + 0.5 * span)) if high <= 1 else top


def _reach(panels: Sequence[Curves], about: float) -> float:
    """Half range of the lower panels: that of well measured bins."""
    ends = []
    for series in (s for panel in panels for s in panel.below):
        size = np.abs([series.low - about, series.high - about]).max(axis=0)
        width = series.high - series.low
        usual = 4 * np.nanmedian(width) if np.isfinite(width).any() else 0.0
        with np.errstate(invalid="ignore"):
            ends.append(size[width <= usual])
    drawn = np.concatenate(ends) if ends else np.zeros(0)
    drawn = drawn[np.isfinite(drawn)]
    return 1.15 * max(float(drawn.max(initial=0.0)), 1e-4)


@canvas.style()
def plot_bars(labels: Sequence[str], series: Sequence[canvas.Series]) -> Figure:
    """Draw values (n,) in per cent with their intervals, a line for each label."""
    figure, axis, line = canvas.labelled_lines(labels, inches=0.28 + 0.14 * len(series))
    step = 0.6 / max(len(series), 1)
    for i, one in enumerate(series):
        v, low, high = (100 * np.ravel(a) for a in (one.values, one.low, one.high))
        axis.errorbar(
            v,
            line + 0.3 - (i + 0.5) * step,
            xerr=np.maximum([v - low, high - v], 0),
            fmt="s" if one.hollow else "o",
            mfc="white" if one.hollow else one.colour,
            color=one.colour,
            label=one.label,
        )
    axis.set_xlabel("Efficiency [%]", loc="right")
    axis.grid(axis="x", alpha=0.3)
    if len(series) > 1:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@canvas.style()
def plot_planes(
    edges: tuple[ArrayLike, ArrayLike],
    planes: Sequence[Plane],
    *,
    names: tuple[str, str],
    units: tuple[str, str] = ("1", "1"),
    title: str = "",
    empty: str = "hatched: too few rows",
) -> Figure:
    """Draw values in bins of two conditions, with numbers where there is room."""
    scales, shown = zip(*map(canvas.display_unit, units), strict=True)
    x, y = (
        np.asarray(e, dtype=np.float64) * s for e, s in zip(edges, scales, strict=True)
    )
    figure, axes = canvas.sheet(
        6.6 * min(2, len(planes)),
        5.0 * -(-len(planes) // 2),
        -(-len(planes) // 2),
        min(2, len(planes)),
    )
    shares = [np.ravel(p.values) for p in planes if p.kind == "share"]
    drawn = np.concatenate([*shares, np.zeros(0)])
    drawn = drawn[np.isfinite(drawn)]
    ends = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 1.0)
    for axis, plane in zip(axes.flat, planes, strict=False):
        mesh = _draw_plane(axis, x, y, plane, ends)
        bar = figure.colorbar(mesh, ax=axis, label=plane.label)
        bar.ax.minorticks_off()
        canvas.label_axis(axis, names[0], shown[0])
        canvas.label_axis(axis, names[1], shown[1], vertical=True)
        if not np.isfinite(plane.values).all():
            axis.set_title(empty, loc="right", fontsize=10)
    for axis in axes.flat[len(planes) :]:
        axis.set_visible(False)
    figure.suptitle(title, x=0.02, ha="left", fontsize=13)
    return figure


def _draw_plane(
    axis: Axes,
    x: FloatArray,
    y: FloatArray,
    plane: Plane,
    ends: tuple[float, float],
) -> Any:
    """Cells of one plane, and their numbers; `ends` are the range of all shares."""
    values = np.asarray(plane.values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if plane.kind in ("difference", "pull"):
        least = 3.0 if plane.kind == "pull" else 1e-3
        most = max(least, float(np.abs(finite).max(initial=0.0)))
        style: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    elif plane.kind == "error":
        most = max(float(finite.max(initial=0.0)), 1e-4)
        style = {"cmap": "magma_r", "vmin": 0.0, "vmax": most}
    else:
        high = max(ends[1], ends[0] + 1e-3)
        style = {"cmap": "viridis", "vmin": ends[0], "vmax": high}
    axis.set_facecolor("0.92")
    axis.patch.set(hatch="////", edgecolor="0.7")
    mesh = axis.pcolormesh(x, y, values.T, **style)
    axis.set_xlim(x[0], x[-1])
    axis.set_ylim(y[0], y[-1])
    if canvas.is_log(x):
        axis.set_xscale("log")
        canvas.number_log_axis(axis.xaxis)
    if canvas.is_log(y):
        axis.set_yscale("log")
        canvas.number_log_axis(axis.yaxis)
    axis.minorticks_off()
    _write_numbers(axis, x, y, plane, mesh)
    return mesh


def _write_numbers(
    axis: Axes, x: FloatArray, y: FloatArray, plane: Plane, mesh: Any
) -> None:
    """Write the value of each cell into it: shares in per cent, pulls as they are."""
    values = np.asarray(plane.values, dtype=np.float64)
    factor = 1.0 if plane.kind == "pull" else 100.0
    centres, room = [], []
    for edges, scale in ((x, axis.get_xscale()), (y, axis.get_yscale())):
        ends = np.log(edges) if scale == "log" else edges
        middle = (ends[:-1] + ends[1:]) / 2
        centres.append(np.exp(middle) if scale == "log" else middle)
        room.append(PLANE_POINTS * float(np.diff(ends).min() / (ends[-1] - ends[0])))
    # A number of four characters, or two lines of them, must fit into each cell.
    size = float(min(room[0] / 2.6, room[1] / 1.2, LARGEST_NUMBER))
    if size < SMALLEST_NUMBER:
        return
    both = plane.errors is not None and min(room[0] / 3.0, room[1] / 2.6) >= size
    for (i, j), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        text = f"{factor * value:.1f}"
        if both and plane.errors is not None:
            text += f"\n$\\pm${factor * plane.errors[i, j]:.1f}"
        red, green, blue, _ = mesh.cmap(mesh.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
        colour = "white" if dark else "black"
        x_, y_ = float(centres[0][i]), float(centres[1][j])
        axis.text(x_, y_, text, ha="center", va="center", fontsize=size, color=colour)
