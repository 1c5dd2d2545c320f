"""Figures of efficiencies and misIDs: curves, maps, parts of their uncertainty."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.report.plots.canvas import (
    CORRECTED,
    DPI,
    FLOOR,
    GENERATED,
    MAX_RATIO,
    REAL,
    SOURCES,
    cut_text,
    display_unit,
    label_axis,
    ratio_panels,
    scale_axis,
    set_limits,
    style,
)


def plot_efficiency(
    edges: ArrayLike,
    real: ArrayLike,
    real_interval: ArrayLike,
    generated: ArrayLike,
    generated_interval: ArrayLike,
    *,
    difference: ArrayLike,
    difference_error: ArrayLike,
    condition: str,
    unit: str = "1",
    cut: str = "",
    label: str = "Efficiency",
) -> Figure:
    """Draw real and generated efficiency (or misID) against a condition.

    Args:
        edges: (m + 1,) of the bins.
        real: (m,) efficiency of real rows; NaN bins are not drawn.
        real_interval: (2, m) ends of its interval.
        generated: (m,) efficiency of generated rows.
        generated_interval: (2, m) ends of its interval.
        difference: (m,) generated minus real.
        difference_error: (m,) its error.
        condition: name of the condition.
        unit: its unit.
        cut: written above the figure.
        label: of the vertical axis, such as "MisID of pi+".

    Returns:
        A figure with the difference in a second panel.
    """
    scale, shown = display_unit(unit)
    e = np.asarray(edges, dtype=np.float64) * scale
    centre, half = (e[1:] + e[:-1]) / 2, np.diff(e) / 2
    with style():
        figure, [(top, bottom)] = ratio_panels(1)
        drawn = []
        for values, interval, colour, marker, text in (
            (generated, generated_interval, GENERATED, "s", "generated"),
            (real, real_interval, REAL, "o", "real"),
        ):
            v, (low, high) = np.asarray(values), np.asarray(interval)
            errors = np.stack([np.maximum(v - low, 0), np.maximum(high - v, 0)])
            top.errorbar(
                centre,
                v,
                yerr=errors,
                xerr=half,
                fmt=marker,
                color=colour,
                label=text,
                markerfacecolor="white" if marker == "s" else colour,
            )
            drawn += [low, high, v]
        set_limits(top, np.concatenate(drawn), room=0.25)
        top.axhline(1.0, color=FLOOR, linewidth=0.8, linestyle=":")
        top.set_ylabel(label)
        top.set_title(cut_text(cut), loc="left")
        top.legend(loc="upper right", ncols=2)
        d, error = np.asarray(difference), np.asarray(difference_error)
        bottom.errorbar(centre, d, yerr=error, xerr=half, fmt="s", color=GENERATED)
        bottom.axhline(0.0, color=REAL, linewidth=0.8)
        largest = np.nanmax(np.abs(d) + error) if np.isfinite(d).any() else 0.01
        bottom.set_ylim(-1.15 * largest, 1.15 * largest)
        bottom.set_ylabel("gen. $-$ real")
        bottom.set_xlim(e[0], e[-1])
        label_axis(bottom, condition, shown)
    return figure


def plot_corrected(
    positions: ArrayLike,
    real: ArrayLike,
    real_interval: ArrayLike,
    *,
    generated: ArrayLike,
    corrected: ArrayLike,
    corrected_error: ArrayLike,
    axis_name: str,
    unit: str = "1",
    cut: str = "",
    label: str = "Efficiency",
    log: bool = False,
) -> Figure:
    """Draw real, generated and corrected efficiency (or misID), with their ratio.

    Args:
        positions: (m + 1,) edges of the bins of a condition, or (m,) thresholds.
        real: (m,) efficiency of real rows; NaN bins are not drawn.
        real_interval: (2, m) ends of its interval.
        generated: (m,) efficiency of generated rows.
        corrected: (m,) generated + discrepancy.
        corrected_error: (m,) its uncertainty.
        axis_name: name of the condition, or of what the threshold cuts on.
        unit: its unit.
        cut: written above the figure.
        label: of the vertical axis, such as "MisID of pi+".
        log: logarithmic vertical axis.

    Returns:
        A figure whose second panel has the ratios to the real efficiency, with the
        uncertainty of the latter as a grey band.
    """
    scale, shown = display_unit(unit)
    x = np.asarray(positions, dtype=np.float64) * scale
    r, (low, high) = np.asarray(real), np.asarray(real_interval)
    g, c, error = (np.asarray(a) for a in (generated, corrected, corrected_error))
    binned = len(x) == len(r) + 1
    centre = (x[1:] + x[:-1]) / 2 if binned else x
    half = np.diff(x) / 2 if binned else None
    errors = np.stack([np.maximum(r - low, 0), np.maximum(high - r, 0)])
    with np.errstate(divide="ignore", invalid="ignore"):
        usable = np.where(r > 0, r, np.nan)
        relative = (high - low) / 2 / usable
    with style():
        figure, [(top, bottom)] = ratio_panels(1)
        _curve_with_band(top, x, c, error, colour=CORRECTED, label="corrected")
        _line(top, x, g, colour=GENERATED, label="generated", style="--")
        top.errorbar(
            centre, r, yerr=errors, xerr=half, fmt="o", color=REAL, label="real"
        )
        drawn = np.concatenate([low, high, c - error, c + error, g])
        if log and np.any(r > 0):
            least = max(float(r[r > 0].min()), 1e-5 * float(np.nanmax(r))) / 2
            top.set_yscale("log")
            top.set_ylim(least, 10 * float(np.nanmax(drawn)))
        else:
            set_limits(top, drawn, room=0.3)
        top.axhline(1.0, color=FLOOR, linewidth=0.8, linestyle=":")
        top.set_ylabel(label)
        top.set_title(cut_text(cut), loc="left")
        handles, labels = top.get_legend_handles_labels()
        order = np.argsort(
            [("real", "generated", "corrected").index(t) for t in labels]
        )
        top.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="upper right",
            ncols=3,
        )
        _curve_with_band(bottom, x, np.ones(len(r)), relative, colour=FLOOR, line=False)
        _curve_with_band(bottom, x, c / usable, error / usable, colour=CORRECTED)
        _line(bottom, x, g / usable, colour=GENERATED, style="--")
        bottom.axhline(1.0, color=REAL, linewidth=0.8)
        # Ratios to a badly known efficiency do not set the scale.
        known = np.isfinite(relative) & (relative < MAX_RATIO)
        sizes = np.concatenate(
            [np.abs(g / usable - 1), np.abs(c / usable - 1) + error / usable, relative]
        )[np.tile(known, 3)]
        largest = 1.15 * float(np.nanmax(sizes)) if np.isfinite(sizes).any() else 0.0
        largest = float(np.clip(largest, 0.01, 2 * MAX_RATIO))
        bottom.set_ylim(1 - largest, 1 + largest)
        bottom.set_ylabel("ratio to real")
        if binned:
            scale_axis(bottom.set_xscale, x)
        bottom.set_xlim(x[0], x[-1])
        label_axis(bottom, axis_name, shown)
    return figure


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

    The band around the corrected curve is the uncertainty of the efficiency at a given
    misID: that of the efficiency, and that of the misID times the generated slope.
    Thresholds whose misID is not known to `MAX_RATIO` are not drawn.

    Args:
        efficiency: (n,) "real", "generated" and "corrected" efficiencies at n
            thresholds.
        misid: (n,) the same for the misID.
        errors: (n,) uncertainties of efficiency and misID, "real" and "corrected".
        species: names of the two.
        cut: written above the figure.
        point: a working point: misID, efficiency, and the errors of both.

    Returns:
        A figure; the misID is on a logarithmic axis.
    """
    e, m = ({k: np.asarray(v) for k, v in d.items()} for d in (efficiency, misid))
    known = {
        kind: (m[kind] > 0) & (np.asarray(of_m) < MAX_RATIO * m[kind])
        for kind, (_, of_m) in errors.items()
    }
    with style():
        figure = Figure(figsize=(6.4, 5.2), dpi=DPI)
        axis = figure.add_axes((0.14, 0.125, 0.83, 0.81))
        use = known["corrected"] & (m["generated"] > 0)
        x, y = m["corrected"][use], e["corrected"][use]
        of_e, of_m = (np.asarray(a)[use] for a in errors["corrected"])
        if len(x) > 1:
            # The generated curve does not fluctuate, and so has a slope.
            with np.errstate(divide="ignore", invalid="ignore"):
                slope = np.gradient(e["generated"][use], np.log(m["generated"][use]))
            band = np.hypot(of_e, slope * of_m / x)
            band[~np.isfinite(band)] = np.nan
            axis.fill_between(x, y - band, y + band, color=CORRECTED, alpha=0.25, lw=0)
        inside = known["real"]
        axis.errorbar(
            m["real"][inside],
            e["real"][inside],
            xerr=np.asarray(errors["real"][1])[inside],
            yerr=np.asarray(errors["real"][0])[inside],
            fmt="o",
            color=REAL,
            label="real",
        )
        made = m["generated"] > 0
        axis.plot(
            m["generated"][made],
            e["generated"][made],
            "--",
            color=GENERATED,
            label="generated",
        )
        axis.plot(x, y, color=CORRECTED, label="corrected")
        if point is not None:
            axis.errorbar(
                point[0],
                point[1],
                xerr=point[2],
                yerr=point[3],
                fmt="*",
                color=SOURCES[2],
                markersize=13,
                zorder=5,
                label="working point",
            )
        axis.set_xscale("log")
        shown = np.concatenate([x, m["real"][inside], [1.0]])
        axis.set_xlim(shown.min() / 1.5, 1.0)
        axis.set_ylim(0, 1.05)
        axis.axhline(1.0, color=FLOOR, linewidth=0.8, linestyle=":")
        axis.set_title(cut_text(cut), loc="left")
        axis.legend(loc="lower right")
        label_axis(axis, f"MisID of {species[1]}", "1")
        label_axis(axis, f"Efficiency of {species[0]}", "1", vertical=True)
    return figure


def plot_breakdown(
    labels: Sequence[str],
    sources: Mapping[str, ArrayLike],
    total: ArrayLike,
    *,
    title: str = "",
) -> Figure:
    """Draw the parts of an uncertainty, one group of bars for each cut.

    Args:
        labels: (n,) of the groups.
        sources: (n,) size of each part by name.
        total: (n,) all of them in quadrature.
        title: written above the figure.

    Returns:
        A figure; sizes are in per cent.
    """
    n = len(sources)
    line = np.arange(len(labels))[::-1].astype(np.float64)
    width = 0.8 / max(n, 1)
    with style():
        height = 1.5 + (0.35 + 0.17 * n) * len(labels)
        figure = Figure(figsize=(8, height), dpi=DPI, layout="constrained")
        axis = figure.add_subplot()
        for i, (name, size) in enumerate(sources.items()):
            axis.barh(
                line + 0.4 - (i + 0.5) * width,
                100 * np.abs(np.asarray(size, dtype=np.float64)),
                height=0.9 * width,
                color=SOURCES[i % len(SOURCES)],
                label=name,
            )
        ends = 100 * np.asarray(total, dtype=np.float64)
        axis.vlines(ends, line - 0.42, line + 0.42, color=REAL, label="total", lw=2)
        axis.set_xlim(0, 1.15 * max(float(ends.max()), 1e-3))
        axis.set_ylim(-0.7, len(labels) - 0.3)
        axis.set_yticks(line, labels)
        axis.tick_params(axis="y", which="both", right=False, left=False)
        axis.minorticks_off()
        axis.set_xlabel("uncertainty of the efficiency, absolute [%]", loc="right")
        axis.set_title(title, loc="left")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def plot_comparison(
    labels: Sequence[str],
    values: Sequence[float],
    errors: Sequence[float],
    *,
    reference: Sequence[float],
) -> Figure:
    """Draw quoted efficiencies minus reference ones, one line for each.

    Args:
        labels: (n,) of the lines.
        values: (n,) quoted efficiencies.
        errors: (n,) their total uncertainties.
        reference: (n,) efficiencies to compare with.

    Returns:
        A figure; differences are in per cent.
    """
    difference = 100 * (np.asarray(values) - np.asarray(reference))
    error = 100 * np.asarray(errors)
    line = np.arange(len(labels))[::-1]
    with style():
        figure = Figure(figsize=(8, 1.4 + 0.45 * len(labels)), layout="constrained")
        axis = figure.add_subplot()
        axis.errorbar(difference, line, xerr=error, fmt="o", color=REAL)
        axis.axvline(0.0, color=FLOOR, linewidth=0.8)
        largest = float(np.max(np.abs(difference) + error))
        axis.set_xlim(-1.15 * largest, 1.15 * largest)
        axis.set_ylim(-0.6, len(labels) - 0.4)
        axis.set_yticks(line, labels)
        axis.tick_params(axis="y", which="both", right=False, left=False)
        axis.minorticks_off()
        axis.set_xlabel("quoted $-$ true efficiency [%]")
    return figure


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
    """Draw generated minus real efficiency in two conditions, and its pull.

    Args:
        edges_x: (m + 1,) of the first condition.
        edges_y: (k + 1,) of the second.
        difference: (m, k) generated minus real; NaN bins are hatched.
        difference_error: (m, k) its error.
        names: of the two conditions.
        units: of the two conditions.
        cut: written above the figure.

    Returns:
        A figure of two maps with colour scales symmetric about zero.
    """
    d = np.asarray(difference, dtype=np.float64)
    pull = d / np.asarray(difference_error, dtype=np.float64)
    scales, shown = zip(*map(display_unit, units), strict=True)
    x = np.asarray(edges_x, dtype=np.float64) * scales[0]
    y = np.asarray(edges_y, dtype=np.float64) * scales[1]
    with style():
        figure = Figure(figsize=(12.0, 4.5), dpi=DPI)
        figure.subplots_adjust(left=0.07, right=0.96, bottom=0.14, top=0.92, wspace=0.2)
        for axis, values, label, least in zip(
            figure.subplots(1, 2),
            (d, pull),
            ("Efficiency, gen. $-$ real", "Pull, (gen. $-$ real) / error"),
            (1e-3, 3.0),
            strict=True,
        ):
            finite = np.abs(values[np.isfinite(values)])
            largest = max(least, float(finite.max())) if len(finite) else least
            axis.set_facecolor("0.9")
            axis.patch.set(hatch="////", edgecolor="0.7")
            mesh = axis.pcolormesh(
                x, y, values.T, cmap="RdBu_r", vmin=-largest, vmax=largest
            )
            scale_axis(axis.set_xscale, x)
            scale_axis(axis.set_yscale, y)
            bar = figure.colorbar(mesh, ax=axis, label=label)
            bar.ax.minorticks_off()
            axis.set_title(cut_text(cut), loc="left")
            label_axis(axis, names[0], shown[0])
            label_axis(axis, names[1], shown[1], vertical=True)
        if not np.isfinite(d).all():
            note = "hatched: too few rows"
            axis.set_title(note, loc="right", fontsize=10)
    return figure


def _curve_with_band(
    axis: Axes,
    x: FloatArray,
    values: FloatArray,
    error: FloatArray,
    *,
    colour: str,
    label: str = "",
    line: bool = True,
) -> None:
    """A curve with its uncertainty: steps for bins, a line for thresholds."""
    if line:
        _line(axis, x, values, colour=colour, label=label)
    low, high = values - error, values + error
    if len(x) == len(values):
        axis.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        return
    for i in np.flatnonzero(np.isfinite(low + high)):
        axis.fill_between(
            x[i : i + 2], [low[i]] * 2, [high[i]] * 2, color=colour, alpha=0.25, lw=0
        )


def _line(
    axis: Axes,
    x: FloatArray,
    values: FloatArray,
    *,
    colour: str,
    label: str = "",
    style: str = "-",
) -> None:
    """Steps between edges, or a line between points; NaN leaves a gap."""
    text = label or "_nolegend_"
    if len(x) == len(values):
        axis.plot(x, values, color=colour, label=text, linestyle=style)
    else:
        axis.stairs(
            values, x, baseline=None, color=colour, label=text, linestyle=style, lw=1.4
        )
