"""Figures of distributions: several samples of one variable in a panel each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from pidgan.arrays import BoolArray, FloatArray
from pidgan.report.plots import bins, canvas
from pidgan.sample.grids import find_grid

LEAST_SHARE = 5e-5
"""Share of the rows off the axis, or of sentinels, from which it is told."""


MOST_RATIO, ALL_RATIOS = 8.0, 1e9
"""Largest ratio on a logarithmic axis, and a limit that no ratio reaches."""

COVERED = ListedColormap(["0.86"])
"""Colour of the cells that the calibration sample covers."""

GREENS, REDS = (
    ListedColormap(colormaps[name](np.linspace(low, 1.0, 100)))
    for name, low in (("BuGn", 0.25), ("OrRd", 0.5))
)
"""Colours of analysis tracks, covered and not, none of which is nearly white."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Values (n,) of one sample, with weights of any sign, and how they look."""

    values: ArrayLike
    weights: ArrayLike | None = None
    label: str = "rows"
    colour: str = canvas.REAL
    kind: Literal["points", "line"] = "points"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One variable of several samples.

    Attributes:
        samples: Samples, of which the first is the denominator of the ratio.
        sentinels: Values that are no measurement and are not drawn.
        span: Range to mark, such as that of the training.
        note: Line of text above the panel.
        edges: Edges of the bins, if they are not to follow from the samples.
    """

    name: str
    samples: Sequence[Drawn]
    unit: str = "1"
    sentinels: Sequence[float] = ()
    span: tuple[float, float] | None = None
    note: str = ""
    edges: FloatArray | None = field(default=None, repr=False)


def with_and_without(
    values: ArrayLike, weights: ArrayLike, *, label: str
) -> list[Drawn]:
    """Return all rows of a sample, and the same rows with weights."""
    return [
        Drawn(values=values, label="all rows", colour=canvas.ALL, kind="line"),
        Drawn(values=values, weights=weights, label=label),
    ]


@canvas.style()
def plot_variables(
    panels: Sequence[Panel],
    *,
    ratio: str = "",
    below: Literal["ratio", "fraction", "log ratio"] = "ratio",
    title: str = "",
    what: str = "Rows",
    normalised: bool = False,
    log: bool = False,
    tail: float = bins.TAIL,
) -> Figure:
    """Draw a panel for each variable, with sums of weights and sqrt(sum w^2).

    The widths of bins follow from the effective rows of the first sample. With `ratio`,
    its label, the ratios to the first sample stand below: around 1, as a fraction from
    0 to 1, or on a logarithmic axis. `normalised` distributions have the integral 1.
    """
    head = 0.75
    if ratio:
        figure, pairs = canvas.ratio_panels(len(panels), head=head)
    else:
        figure, singles = canvas.single_panels(len(panels), head=head)
        pairs = [(axis, axis) for axis in singles]
    for panel, pair in zip(panels, pairs, strict=True):
        edges = _edges(panel, tail)
        _draw(
            panel,
            pair,
            edges,
            ratio=ratio,
            below=below,
            what=what,
            unity=normalised,
            log=log,
        )
    canvas.draw_head(figure, title, [top for top, _ in pairs])
    return figure


def _edges(panel: Panel, tail: float) -> FloatArray:
    if panel.edges is not None:
        return panel.edges
    values, rows = [], []
    for sample in panel.samples:
        v = np.asarray(sample.values)
        measured = np.isfinite(v) & ~np.isin(v, np.asarray(panel.sentinels, v.dtype))
        values.append(v[measured])
        w = sample.weights
        rows.append(np.ones(len(values[-1])) if w is None else np.asarray(w)[measured])
    grid = find_grid(values[0], sentinels=panel.sentinels) if len(values[0]) else None
    return bins.edges_of(values[0], rows[0], grid=grid, tail=tail)


def _below(panel: Panel, edges: FloatArray, *, unity: bool) -> canvas.Series:
    """The second sample over the first, with the errors of the second."""
    first, second = (_series(one, edges, unity=unity) for one in panel.samples[:2])
    whole = np.where(first.values > 0, first.values, np.nan)
    ends = (getattr(second, name) / whole for name in ("values", "low", "high"))
    values, low, high = ends
    return canvas.Series(values=values, low=low, high=high, colour=second.colour)


def _set_fraction(axis: Axes) -> None:
    """Show a share from 0 to 1, and what weights of both signs do beyond."""
    axis.axhline(0.0, color=canvas.FLOOR, linewidth=0.8, linestyle=":")
    axis.set_ylim(-0.15, 1.2)
    axis.set_yticks([0.0, 0.5, 1.0])


def _set_log_ratio(axis: Axes, x: FloatArray, drawn: canvas.Series) -> None:
    """Show ratios from 1/8 to 8; arrows point to others."""
    axis.set_yscale("log")
    axis.set_ylim(1 / MOST_RATIO, MOST_RATIO)
    axis.set_yticks([0.2, 1.0, 5.0], ["0.2", "1", "5"])
    axis.minorticks_off()
    centre = (x[1:] + x[:-1]) / 2
    for at, marker, height in (
        (drawn.values > MOST_RATIO, "^", 0.8 * MOST_RATIO),
        (drawn.values < 1 / MOST_RATIO, "v", 1.25 / MOST_RATIO),
    ):
        heights = np.full(int(at.sum()), height)
        axis.plot(centre[at], heights, marker, color=drawn.colour, markersize=5)


def draw_panel(panel: Panel, axis: Axes, *, unity: bool = False) -> None:
    """Draw one variable into a panel of another figure, without ratios."""
    edges = _edges(panel, bins.TAIL)
    no_ratio = {"ratio": "", "below": "ratio", "what": "Tracks"}
    _draw(panel, (axis, axis), edges, **no_ratio, unity=unity, log=False)


def _draw(
    panel: Panel,
    pair: tuple[Axes, Axes],
    edges: FloatArray,
    *,
    ratio: str,
    below: str,
    what: str,
    unity: bool,
    log: bool,
) -> None:
    """One variable in a pair of panels, or in a single one given twice."""
    scale, unit = canvas.display_unit(panel.unit)
    width = (edges[1] - edges[0]) * scale
    drawn = [_series(one, edges, unity=unity) for one in panel.samples]
    text = "Share" if unity else what
    labels = (canvas.per_bin(text, width, unit), panel.name, unit)
    top, bottom = pair
    if ratio:
        share = _below(panel, edges, unity=unity)
        x = edges * scale
        canvas.draw_comparison(
            pair,
            x,
            drawn[0],
            drawn[1:],
            labels=labels,
            zero=True,
            log=log,
            label=ratio,
            least=0.1 if below == "ratio" else ALL_RATIOS,
            most=canvas.MAX_RATIO if below == "ratio" else ALL_RATIOS,
            below=() if below == "ratio" else [share],
            legend=False,
        )
        if below == "fraction":
            _set_fraction(bottom)
        elif below == "log ratio":
            _set_log_ratio(bottom, x, share)
    else:
        for one in drawn:
            canvas.draw_series(top, edges * scale, one)
        ends = [(s.values,) if log else (s.low, s.high) for s in drawn]
        shown = np.concatenate([end for pair_ in ends for end in pair_])
        canvas.set_limits(top, shown, room=0.2, zero=True, log=log)
        top.set_xlim(edges[0] * scale, edges[-1] * scale)
        top.set_ylabel(labels[0])
        canvas.label_axis(top, *labels[1:])
    bins.number_axis(bottom.xaxis)
    if not log:
        top.axhline(0.0, color=canvas.FLOOR, linewidth=0.8, zorder=0)
    if panel.span is not None:
        for axis in {top, bottom}:
            for end in panel.span:
                axis.axvline(
                    end * scale, color=canvas.REAL, linewidth=0.9, linestyle=":"
                )
    notes = (panel.note, _left_out(panel, edges))
    top.set_title("; ".join(filter(None, notes)), loc="left", fontsize=10)


def _series(sample: Drawn, edges: FloatArray, *, unity: bool) -> canvas.Series:
    counts, errors = bins.fill(sample.values, sample.weights, edges)
    w = sample.weights
    total = float(len(np.asarray(sample.values)) if w is None else np.sum(w))
    norm = total if unity and total > 0 else 1.0
    if sample.kind == "points":
        counts = np.where(errors > 0, counts, np.nan)
    return canvas.series(
        counts / norm,
        errors / norm,
        label=sample.label,
        colour=sample.colour,
        kind=sample.kind,
    )


def _left_out(panel: Panel, edges: FloatArray) -> str:
    """Say which share of each sample the panel does not show, in their order."""
    absent, beyond = [], []
    for sample in panel.samples:
        v = np.asarray(sample.values)
        w = np.ones(len(v)) if sample.weights is None else np.asarray(sample.weights)
        total = float(w.sum())
        if not total > 0:
            return "no rows"
        none = np.isin(v, np.asarray(panel.sentinels, v.dtype)) | ~np.isfinite(v)
        off = ~none & ((v < edges[0]) | (v > edges[-1]))
        absent.append(100 * float(w[none].sum()) / total)
        beyond.append(100 * float(w[off].sum()) / total)
    texts = []
    for text, shares in (("no value", absent), ("off the axis", beyond)):
        if max(map(abs, shares)) >= 100 * LEAST_SHARE:
            listed = " / ".join(f"{share:.2f}" for share in shares)
            texts.append(f"{text}: {listed} %")
    return ", ".join(texts)


@canvas.style()
def plot_coverage_planes(
    planes: Sequence[
        tuple[
            tuple[str, str],
            tuple[str, str],
            Sequence[FloatArray],
            BoolArray,
            FloatArray,
            str,
        ]
    ],
) -> Figure:
    """Draw the share of analysis tracks in planes, over the cells that are covered.

    A plane has names and units of two conditions, edges, which cells (m, k) are
    covered, shares of the tracks (m, k), and a note.
    """
    columns, lines = canvas.shape_of(len(planes))
    figure, axes = canvas.sheet(5.6 * columns, 4.6 * lines, lines, columns)
    for axis, plane in zip(axes.flat, planes, strict=False):
        names, units, edges, covered, tracks, note = plane
        scales, shown = zip(*map(canvas.display_unit, units), strict=True)
        x, y = (e * s for e, s in zip(edges, scales, strict=True))
        area = np.where(covered, 1.0, np.nan).T
        axis.pcolormesh(x, y, area, cmap=COVERED, vmin=0, vmax=1)
        share = np.where(tracks > 0, 100 * tracks, np.nan)
        for inside, cmap in ((covered, GREENS), (~covered, REDS)):
            most = max(float(np.nanmax(share, initial=0.0)), 1e-6)
            norm = LogNorm(most / 1e3, most)
            mesh = axis.pcolormesh(
                x, y, np.where(inside, share, np.nan).T, cmap=cmap, norm=norm
            )
            if inside is covered:
                drawn = mesh
        figure.colorbar(drawn, ax=axis, label="tracks per cell [%]").ax.minorticks_off()
        axis.minorticks_off()
        canvas.label_axis(axis, names[0], shown[0])
        canvas.label_axis(axis, names[1], shown[1], vertical=True)
        axis.set_title(note, loc="left", fontsize=11)
    for axis in axes.flat[len(planes) :]:
        axis.set_visible(False)
    handles = [
        Patch(color=COVERED(1.0), label="calibration sample"),
        Patch(color="#238b45", label="analysis tracks, covered"),
        Patch(color="#d7301f", label="analysis tracks, not covered"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure
