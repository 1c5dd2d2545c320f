"""Figures of efficiencies and misIDs: curves, maps, parts of their uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.report.plots import canvas


def plot_efficiency(
    edges: ArrayLike,
    real: tuple[ArrayLike, ArrayLike],
    generated: tuple[ArrayLike, ArrayLike],
    difference: tuple[ArrayLike, ArrayLike],
    *,
    condition: str,
    unit: str = "1",
    cut: str = "",
    label: str = "Efficiency",
) -> Figure:
    """Draw real and generated efficiency (or misID) in bins, and their difference.

    `real` and `generated` are values (m,) and ends of their intervals (2, m),
    `difference` is generated minus real (m,) and its uncertainty (m,).
    """
    below = canvas.series(*difference, colour=canvas.GENERATED)
    largest = np.abs([below.low, below.high])
    reach = 1.15 * float(np.max(largest, where=np.isfinite(largest), initial=1e-3))
    return _plot_efficiencies(
        edges,
        _with_interval(*real, label="real"),
        [_with_interval(*generated, label="generated", colour=canvas.GENERATED)],
        labels=(label, condition, unit),
        cut=cut,
        below=[below],
        about=0.0,
        label="gen. $-$ real",
        least=reach,
        most=reach,
    )


def plot_corrected(
    positions: ArrayLike,
    real: tuple[ArrayLike, ArrayLike],
    *,
    generated: ArrayLike,
    corrected: tuple[ArrayLike, ArrayLike],
    axis_name: str,
    unit: str = "1",
    cut: str = "",
    label: str = "Efficiency",
    log: bool = False,
) -> Figure:
    """Draw real, generated and corrected efficiency (or misID), with ratios to real.

    `positions` are edges (m + 1,) of a condition or thresholds (m,), `real` is values
    and ends of their intervals (2, m), `corrected` is values and uncertainties.
    """
    made = canvas.series(
        generated, label="generated", colour=canvas.GENERATED, kind="line", dashed=True
    )
    line = canvas.series(
        *corrected, label="corrected", colour=canvas.CORRECTED, kind="line"
    )
    return _plot_efficiencies(
        positions,
        _with_interval(*real, label="real"),
        [made, line],
        labels=(label, axis_name, unit),
        cut=cut,
        log=log,
        label="ratio to real",
        least=0.01,
        most=2 * canvas.MAX_RATIO,
    )


@canvas.style()
def plot_roc(
    efficiency: Mapping[str, ArrayLike],
    misid: Mapping[str, ArrayLike],
    *,
    errors: Mapping[str, tuple[ArrayLike, ArrayLike]],
    species: tuple[str, str],
    cut: str = "",
    point: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Draw the efficiency of one species against the misID of another.

    Kinds are "real", "generated" and "corrected". The band around a curve is the
    uncertainty of the efficiency at a given misID: that of the efficiency, and that of
    the misID times the generated slope. Thresholds whose misID is not known to
    `MAX_RATIO` are not drawn. The misID is on a logarithmic axis.
    """
    e, m = ({k: np.asarray(v) for k, v in d.items()} for d in (efficiency, misid))
    known = {
        kind: (m[kind] > 0) & (np.asarray(of_m) < canvas.MAX_RATIO * m[kind])
        for kind, (_, of_m) in errors.items()
    }
    figure = Figure(figsize=(6.4, 5.2), dpi=canvas.DPI)
    axis = figure.add_axes((0.14, 0.125, 0.83, 0.81))
    shown = [np.ones(1)]
    if "corrected" in e:
        use = known["corrected"] & (m["generated"] > 0)
        x, y = m["corrected"][use], e["corrected"][use]
        of_e, of_m = (np.asarray(a)[use] for a in errors["corrected"])
        if len(x) > 1:
            # The generated curve does not fluctuate, and so has a slope.
            with np.errstate(divide="ignore", invalid="ignore"):
                slope = np.gradient(e["generated"][use], np.log(m["generated"][use]))
            band = np.hypot(of_e, slope * of_m / x)
            band[~np.isfinite(band)] = np.nan
            style: dict[str, Any] = {"color": canvas.CORRECTED, "alpha": 0.25, "lw": 0}
            axis.fill_between(x, y - band, y + band, **style)
        axis.plot(x, y, color=canvas.CORRECTED, label="corrected")
        shown.append(x)
    inside = known["real"]
    up, right = (np.asarray(a)[inside] for a in errors["real"])
    points = (m["real"][inside], e["real"][inside], up, right)
    axis.errorbar(*points, fmt="o", color=canvas.REAL, label="real")
    shown.append(points[0])
    if "generated" in e:
        made = m["generated"] > 0
        dash = "--" if "corrected" in e else "-"
        curve = (m["generated"][made], e["generated"][made], dash)
        axis.plot(*curve, color=canvas.GENERATED, label="generated")
    if point is not None:
        star: dict[str, Any] = {
            "color": canvas.SOURCES[2],
            "markersize": 13,
            "zorder": 5,
        }
        x_error, y_error = point[2:]
        axis.errorbar(
            *point[:2], y_error, x_error, fmt="*", label="working point", **star
        )
    least = float(np.concatenate(shown).min())
    axis.set(xscale="log", xlim=(least / 1.5, 1.0), ylim=(0, 1.05))
    canvas.number_log_axis(axis.xaxis)
    axis.axhline(1.0, color=canvas.FLOOR, linewidth=0.8, linestyle=":")
    axis.set_title(canvas.cut_text(cut), loc="left")
    canvas.draw_legend(axis, loc="lower right")
    canvas.label_axis(axis, f"MisID of {species[1]}", "1")
    canvas.label_axis(axis, f"Efficiency of {species[0]}", "1", vertical=True)
    return figure


@canvas.style()
def plot_breakdown(
    labels: Sequence[str],
    sources: Mapping[str, ArrayLike],
    total: ArrayLike,
    *,
    title: str = "",
) -> Figure:
    """Draw the parts (n,) of the uncertainties of n cuts, and their totals, in %."""
    n = len(sources)
    width = 0.8 / max(n, 1)
    figure, axis, line = canvas.labelled_lines(labels, inches=0.35 + 0.17 * n)
    for i, (name, size) in enumerate(sources.items()):
        axis.barh(
            line + 0.4 - (i + 0.5) * width,
            100 * np.abs(np.asarray(size, dtype=np.float64)),
            height=0.9 * width,
            color=canvas.SOURCES[i % len(canvas.SOURCES)],
            label=name,
        )
    ends = 100 * np.asarray(total, dtype=np.float64)
    axis.vlines(ends, line - 0.42, line + 0.42, color=canvas.REAL, label="total", lw=2)
    longest = max(100 * float(np.nanmax(np.abs(size))) for size in sources.values())
    axis.set_xlim(0, 1.15 * max(float(ends.max()), longest, 1e-3))
    axis.set_xlabel("absolute uncertainty [%]", loc="right")
    axis.set_title(title, loc="left")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@canvas.style()
def plot_comparison(
    labels: Sequence[str],
    values: Sequence[float],
    errors: Sequence[float],
    *,
    reference: Sequence[float],
) -> Figure:
    """Draw quoted minus reference efficiencies (n,) in per cent, one line for each."""
    difference = 100 * (np.asarray(values) - np.asarray(reference))
    error = 100 * np.asarray(errors)
    figure, axis, line = canvas.labelled_lines(labels, inches=0.45)
    axis.errorbar(difference, line, xerr=error, fmt="o", color=canvas.REAL)
    axis.axvline(0.0, color=canvas.FLOOR, linewidth=0.8)
    largest = float(np.max(np.abs(difference) + error))
    axis.set_xlim(-1.15 * largest, 1.15 * largest)
    axis.set_xlabel("quoted $-$ true efficiency [%]")
    return figure


@canvas.style()
def plot_map(
    edges_x: ArrayLike,
    edges_y: ArrayLike,
    difference: ArrayLike,
    difference_error: ArrayLike,
    *,
    names: tuple[str, str],
    units: tuple[str, str] = ("1", "1"),
    cut: str = "",
) -> Figure:
    """Draw generated minus real efficiency (m, k) in two conditions, and its pull."""
    d = np.asarray(difference, dtype=np.float64)
    pull = d / np.asarray(difference_error, dtype=np.float64)
    scales, shown = zip(*map(canvas.display_unit, units), strict=True)
    x = np.asarray(edges_x, dtype=np.float64) * scales[0]
    y = np.asarray(edges_y, dtype=np.float64) * scales[1]
    figure = Figure(figsize=(12.0, 4.5), dpi=canvas.DPI)
    figure.subplots_adjust(left=0.07, right=0.96, bottom=0.14, top=0.92, wspace=0.2)
    shown_values = (
        (d, "Efficiency, gen. $-$ real", 1e-3),
        (pull, "Pull, (gen. $-$ real) / error", 3.0),
    )
    axes = figure.subplots(1, 2)
    for axis, (values, label, least) in zip(axes, shown_values, strict=True):
        finite = np.abs(values[np.isfinite(values)])
        largest = max(least, float(finite.max())) if len(finite) else least
        axis.set_facecolor("0.9")
        axis.patch.set(hatch="////", edgecolor="0.7")
        mesh = axis.pcolormesh(
            x, y, values.T, cmap="RdBu_r", vmin=-largest, vmax=largest
        )
        axis.set_xscale("log" if canvas.is_log(x) else "linear")
        axis.set_yscale("log" if canvas.is_log(y) else "linear")
        for edges, scale in ((x, axis.xaxis), (y, axis.yaxis)):
            if canvas.is_log(edges):
                canvas.number_log_axis(scale)
        figure.colorbar(mesh, ax=axis, label=label).ax.minorticks_off()
        axis.set_title(canvas.cut_text(cut), loc="left")
        canvas.label_axis(axis, names[0], shown[0])
        canvas.label_axis(axis, names[1], shown[1], vertical=True)
    if not np.isfinite(d).all():
        axis.set_title("hatched: too few rows", loc="right", fontsize=10)
    return figure


@canvas.style()
def _plot_efficiencies(
    positions: ArrayLike,
    real: canvas.Series,
    others: list[canvas.Series],
    *,
    labels: tuple[str, str, str],
    cut: str,
    **options: Any,
) -> Figure:
    """A pair of panels against a condition or a threshold."""
    scale, unit = canvas.display_unit(labels[2])
    x = np.asarray(positions, dtype=np.float64) * scale
    options["logx"] = len(x) > len(real.values) and canvas.is_log(x)
    options |= {"labels": (*labels[:2], unit), "title": canvas.cut_text(cut)}
    figure, (top, _) = canvas.comparison(x, real, others, **options)
    top.axhline(1.0, color=canvas.FLOOR, linewidth=0.8, linestyle=":")
    return figure


def _with_interval(
    values: ArrayLike, interval: ArrayLike, **style: Any
) -> canvas.Series:
    """Series of efficiencies with intervals (2, m)."""
    low, high = np.asarray(interval, dtype=np.float64)
    return replace(canvas.series(values, **style), low=low, high=high)
