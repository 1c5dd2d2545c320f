"""Figures from arrays: nothing here measures anything.

Every function takes arrays and returns a `matplotlib.figure.Figure`; `png` turns it
into bytes. Matplotlib's object interface is used throughout, so that neither a display
nor a global state is needed. Momenta, energies and masses given in MeV are drawn in
GeV (masses of narrow peaks stay in MeV).
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.typing import FloatArray

REAL, GENERATED, FLOOR = "black", "#1f5fbf", "#8a8a8a"
SIGNAL, BACKGROUND = "#c0392b", "#7f8c8d"
CORRECTED = "#c0392b"
SOURCES = ("#1f5fbf", "#e08e0b", "#2e8b57", "#7b4fa3", "#c0392b", "#4aa3a3", "#8c6d46")
MAX_RATIO = 0.5  # largest half range of a ratio panel around 1
LOG_WIDTHS = 8.0  # ratio of the widest bin to the narrowest, from which an axis is log
DPI = 100

_STYLE: dict[str, Any] = {
    **{k: v for k, v in mplhep.style.LHCb2.items() if not k.startswith("figure.")},
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "Times New Roman", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 13.0,
    "axes.labelsize": 14.0,
    "axes.titlesize": 12.0,
    "axes.linewidth": 1.0,
    "xtick.labelsize": 12.0,
    "ytick.labelsize": 12.0,
    "xtick.major.size": 6.0,
    "ytick.major.size": 6.0,
    "xtick.minor.size": 3.0,
    "ytick.minor.size": 3.0,
    "xtick.major.width": 1.0,
    "ytick.major.width": 1.0,
    "xtick.minor.width": 0.8,
    "ytick.minor.width": 0.8,
    "xtick.major.pad": 5.0,
    "ytick.major.pad": 5.0,
    "legend.fontsize": 11.0,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "errorbar.capsize": 0.0,
    "axes.titley": 1.0,  # fixed: finding a free place costs a quarter of the drawing
}


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with _style():
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def plot_target(
    real: ArrayLike,
    generated: ArrayLike,
    *,
    name: str,
    unit: str = "1",
    weights: ArrayLike | None = None,
    sentinels: Sequence[float] = (),
    panels: Sequence[tuple[str, ArrayLike]] = (),
    bins: int = 40,
    log: bool = False,
) -> Figure:
    """Draw a target: real points over the generated histogram, with their ratio.

    Args:
        real: (n,) values of real rows.
        generated: (n,) values of generated rows.
        name: of the target.
        unit: of the target.
        weights: (n,) of both, of either sign; none means 1. Errors are sqrt(sum w^2).
        sentinels: values kept out of the axis; their shares go into the legend.
        panels: label and mask (n,) of each panel, such as kinematic bins; none means
            one panel of all rows.
        bins: number of bins.
        log: logarithmic vertical axis.

    Returns:
        A figure with one pair of panels for each of `panels`.
    """
    y, g = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    chosen = list(panels) or [("", np.ones(len(y), dtype=np.bool_))]
    edges = _target_edges(y[~np.isin(y, list(sentinels))], bins)
    scale, shown = _display(unit)
    with _style():
        figure, axes = _ratio_panels(len(chosen))
        for (label, mask), (top, bottom) in zip(chosen, axes, strict=True):
            inside = np.asarray(mask, dtype=np.bool_)
            _draw_target(
                top,
                bottom,
                (y[inside], g[inside], w[inside]),
                edges,
                scale=scale,
                sentinels=sentinels,
                log=log,
            )
            top.set_title(label, loc="right")
            _axis_label(bottom, name, shown)
            width = (edges[1] - edges[0]) * scale
            top.set_ylabel(_per_bin("Weighted tracks", width, shown))
            bottom.set_ylabel("gen. / real")
    return figure


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
    scale, shown = _display(unit)
    e = np.asarray(edges, dtype=np.float64) * scale
    centre, half = (e[1:] + e[:-1]) / 2, np.diff(e) / 2
    with _style():
        figure, [(top, bottom)] = _ratio_panels(1)
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
        _limits(top, np.concatenate(drawn), room=0.25)
        top.axhline(1.0, color=FLOOR, linewidth=0.8, linestyle=":")
        top.set_ylabel(label)
        top.set_title(_cut_text(cut), loc="left")
        top.legend(loc="upper right", ncols=2)
        d, error = np.asarray(difference), np.asarray(difference_error)
        bottom.errorbar(centre, d, yerr=error, xerr=half, fmt="s", color=GENERATED)
        bottom.axhline(0.0, color=REAL, linewidth=0.8)
        largest = np.nanmax(np.abs(d) + error) if np.isfinite(d).any() else 0.01
        bottom.set_ylim(-1.15 * largest, 1.15 * largest)
        bottom.set_ylabel("gen. $-$ real")
        bottom.set_xlim(e[0], e[-1])
        _axis_label(bottom, condition, shown)
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
    scale, shown = _display(unit)
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
    with _style():
        figure, [(top, bottom)] = _ratio_panels(1)
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
            _limits(top, drawn, room=0.3)
        top.axhline(1.0, color=FLOOR, linewidth=0.8, linestyle=":")
        top.set_ylabel(label)
        top.set_title(_cut_text(cut), loc="left")
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
            _scale_of_edges(bottom.set_xscale, x)
        bottom.set_xlim(x[0], x[-1])
        _axis_label(bottom, axis_name, shown)
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
    with _style():
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
        axis.set_title(_cut_text(cut), loc="left")
        axis.legend(loc="lower right")
        _axis_label(axis, f"MisID of {species[1]}", "1")
        _axis_label(axis, f"Efficiency of {species[0]}", "1", vertical=True)
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
    with _style():
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
    with _style():
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
    scales, shown = zip(*map(_display, units), strict=True)
    x = np.asarray(edges_x, dtype=np.float64) * scales[0]
    y = np.asarray(edges_y, dtype=np.float64) * scales[1]
    with _style():
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
            _scale_of_edges(axis.set_xscale, x)
            _scale_of_edges(axis.set_yscale, y)
            bar = figure.colorbar(mesh, ax=axis, label=label)
            bar.ax.minorticks_off()
            axis.set_title(_cut_text(cut), loc="left")
            _axis_label(axis, names[0], shown[0])
            _axis_label(axis, names[1], shown[1], vertical=True)
        if not np.isfinite(d).all():
            note = "hatched: too few rows"
            axis.set_title(note, loc="right", fontsize=10)
    return figure


def plot_mass_fit(
    edges: ArrayLike,
    counts: ArrayLike,
    signal: ArrayLike,
    background: ArrayLike,
    *,
    name: str = "Mass",
    unit: str = "MeV",
    title: str = "",
) -> Figure:
    """Draw a mass fit with its components, and the pulls of the bins.

    Args:
        edges: (m + 1,) of the bins.
        counts: (m,) rows.
        signal: (m,) fitted signal.
        background: (m,) fitted background.
        name: of the discriminant.
        unit: of the discriminant.
        title: written above the figure.

    Returns:
        A figure with pulls (rows - fit) / sqrt(fit) in a second panel.
    """
    e, n = np.asarray(edges, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    s, b = np.asarray(signal), np.asarray(background)
    centre, width = (e[1:] + e[:-1]) / 2, e[1] - e[0]
    model = s + b
    with _style():
        figure, [(top, bottom)] = _ratio_panels(1)
        top.errorbar(
            centre, n, yerr=np.sqrt(n), fmt="o", color=REAL, label="data", zorder=4
        )
        top.plot(centre, model, color=GENERATED, label="fit", zorder=3)
        top.plot(centre, s, "--", color=SIGNAL, label="signal")
        top.fill_between(centre, b, color=BACKGROUND, alpha=0.4, label="background")
        top.set_ylim(0, 1.25 * max(n.max(), model.max()))
        handles, labels = top.get_legend_handles_labels()
        handles, labels = [handles[-1], *handles[:-1]], [labels[-1], *labels[:-1]]
        top.legend(handles, labels, loc=_emptier_side(n))
        top.set_ylabel(_per_bin("Tracks", width, unit))
        top.set_title(title, loc="left")
        with np.errstate(divide="ignore", invalid="ignore"):
            pull = np.where(model > 0, (n - model) / np.sqrt(model), np.nan)
        bottom.bar(centre, pull, width=width, color=GENERATED, alpha=0.7)
        for level in (-3, 3):
            bottom.axhline(level, color=SIGNAL, linewidth=0.8, linestyle=":")
        bottom.axhline(0, color=REAL, linewidth=0.8)
        bottom.set_ylim(-4.8, 4.8)
        bottom.set_ylabel("pull")
        bottom.set_xlim(e[0], e[-1])
        _axis_label(bottom, name, unit)
    return figure


def plot_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the losses of a training against its steps.

    Args:
        history: "step" and any number of losses, lists of the same length; a loss
            "validation_NAME" is drawn with "NAME".

    Returns:
        A figure with one panel per loss.
    """
    steps = np.asarray(history["step"], dtype=np.float64)
    names = [k for k in history if k != "step" and not k.startswith("validation_")]
    names = names or [k for k in history if k != "step"]
    with _style():
        columns = min(3, max(1, len(names)))
        rows = -(-max(1, len(names)) // columns)
        figure = Figure(figsize=(4.6 * columns, 3.4 * rows), dpi=DPI)
        figure.subplots_adjust(
            left=0.65 / (4.6 * columns),
            right=0.98,
            bottom=0.6 / (3.4 * rows),
            top=1 - 0.35 / (3.4 * rows),
            wspace=0.2,
            hspace=0.35,
        )
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, name in zip(axes, names, strict=False):
            held = history.get(f"validation_{name}")
            axis.plot(steps, history[name], color=GENERATED, label="train")
            if held is not None:
                axis.plot(steps, held, color=SIGNAL, label="validation", linestyle="--")
                axis.legend(loc="best")
            axis.set_title(name.replace("_", " "), loc="left")
            axis.set_xlabel("step", loc="right")
        for axis in axes[len(names) :]:
            axis.set_visible(False)
    return figure


def _draw_target(
    top: Axes,
    bottom: Axes,
    rows: tuple[FloatArray, FloatArray, FloatArray],
    edges: FloatArray,
    *,
    scale: float,
    sentinels: Sequence[float],
    log: bool,
) -> None:
    """One pair of panels: histogram and ratio."""
    y, g, w = rows
    e = edges * scale
    centre, half = (e[1:] + e[:-1]) / 2, np.diff(e) / 2
    n, n2 = _histogram(y, w, edges)
    m, m2 = _histogram(g, w, edges)
    top.stairs(
        m,
        e,
        color=GENERATED,
        label="generated" + _outside_text(g, w, edges, sentinels),
    )
    error = np.sqrt(m2)
    _band(top, e, m - error, m + error)
    filled = n2 > 0
    top.errorbar(
        centre[filled],
        n[filled],
        yerr=np.sqrt(n2[filled]),
        fmt="o",
        color=REAL,
        label="real" + _outside_text(y, w, edges, sentinels),
    )
    highest = float(np.max(np.maximum(m, n + np.sqrt(n2)))) or 1.0
    positive = np.concatenate([n[n > 0], m[m > 0]])
    if log and len(positive):
        lowest = positive.min()
        top.set_yscale("log")
        # Room above the data for the legend: a third of the decades drawn.
        lowest = max(lowest, 1e-5 * highest) / 2
        top.set_ylim(lowest, highest * (highest / lowest) ** 0.45)
    else:
        lowest = min(0.0, float(np.min(n - np.sqrt(n2))))
        top.set_ylim(1.1 * lowest, 1.55 * highest)
    if np.any(n < 0) or np.any(m < 0):
        top.axhline(0.0, color=FLOOR, linewidth=0.8, zorder=0)
    top.legend(loc=_emptier_side(n), handlelength=1.2)
    _draw_ratio(bottom, centre, half, (n, n2, m, m2))
    bottom.set_xlim(e[0], e[-1])


def _draw_ratio(
    axis: Axes,
    centre: FloatArray,
    half: FloatArray,
    sums: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
) -> None:
    """Generated over real with both errors; arrows where it leaves the axis."""
    n, n2, m, m2 = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(n > 0, m / n, np.nan)
        of_real = np.where(n > 0, np.sqrt(n2) / n, np.nan)
        of_generated = np.where(n > 0, np.sqrt(m2) / n, np.nan)
    well = np.isfinite(ratio) & (of_real < MAX_RATIO)
    largest = np.abs(ratio[well] - 1).max() if well.any() else MAX_RATIO
    largest = float(np.clip(1.3 * largest, 0.1, MAX_RATIO))
    edges = np.append(centre - half, centre[-1] + half[-1])
    _band(axis, edges, 1 - of_real, 1 + of_real, colour=FLOOR)
    axis.errorbar(
        centre, ratio, yerr=of_generated, fmt="s", color=GENERATED, markersize=3
    )
    axis.axhline(1.0, color=REAL, linewidth=0.8)
    for out, place, marker in (
        (ratio > 1 + largest, 1 + 0.88 * largest, "^"),
        (ratio < 1 - largest, 1 - 0.88 * largest, "v"),
    ):
        at = np.full(int(np.count_nonzero(out)), place)
        axis.plot(centre[out], at, marker, color=GENERATED, markersize=5)
    axis.set_ylim(1 - largest, 1 + largest)


def _band(
    axis: Axes,
    edges: FloatArray,
    low: FloatArray,
    high: FloatArray,
    *,
    colour: str = GENERATED,
) -> None:
    """Shade between two step functions; NaN bins stay empty."""
    axis.stairs(
        np.nan_to_num(high, nan=1.0),
        edges,
        baseline=np.nan_to_num(low, nan=1.0),
        fill=True,
        color=colour,
        alpha=0.3,
        linewidth=0,
    )


def _scale_of_edges(set_scale: Callable[[str], object], edges: FloatArray) -> None:
    """Make an axis logarithmic if its bins are, so that narrow ones are seen."""
    widths = np.diff(edges)
    if edges[0] > 0 and widths.max() >= LOG_WIDTHS * widths.min():
        set_scale("log")


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


def _histogram(
    values: FloatArray, w: FloatArray, edges: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Sums of w and of w^2 per bin."""
    counts, _ = np.histogram(values, edges, weights=w)
    squares, _ = np.histogram(values, edges, weights=w * w)
    return counts, squares


def _target_edges(values: FloatArray, bins: int) -> FloatArray:
    """Equal bins over the range that holds all but the outermost rows."""
    if len(values) == 0:
        return np.linspace(0.0, 1.0, bins + 1)
    low, high = np.quantile(values, [0.001, 0.999])
    whole = values.min(), values.max()
    # A compact variable (a probability) is drawn whole.
    if whole[1] - whole[0] < 1.3 * (high - low):
        low, high = whole
    if high <= low:
        low, high = low - 0.5, high + 0.5
    width = _round_up((high - low) / bins)
    first, last = np.floor(low / width + 1e-9), np.ceil(high / width - 1e-9)
    return np.asarray(width * np.arange(first, max(last, first + 1) + 1))


def _round_up(width: float) -> float:
    """The next round bin width: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(width))
    steps = (1.0, 2.0, 2.5, 5.0, 10.0)
    return float(power * next(s for s in steps if s * power >= width * (1 - 1e-9)))


def _outside_text(
    values: FloatArray, w: FloatArray, edges: FloatArray, sentinels: Sequence[float]
) -> str:
    """Share of the rows that the axis does not show, for the legend."""
    total = w.sum()
    if total <= 0:
        return ""
    missing = np.isin(values, list(sentinels))
    beyond = ~missing & ((values < edges[0]) | (values > edges[-1]))
    texts = []
    for text, mask in (("sentinel", missing), ("outside", beyond)):
        share = 100 * w[mask].sum() / total
        if mask.any() and abs(share) >= 0.005:
            texts.append(f"{share:.2f}% {text}")
    return f" ({', '.join(texts)})" if texts else ""


def _ratio_panels(n: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of n pairs of panels, the upper three times as high."""
    columns = min(3, n)
    rows = -(-n // columns)
    cell = (6.4, 5.2) if n == 1 else (5.0, 4.5)
    left, right, below, above = 0.95, 0.2, 0.65, 0.35
    width, height = cell[0] - left - right, cell[1] - below - above
    figure = Figure(figsize=(columns * cell[0], rows * cell[1]), dpi=DPI)
    size = figure.get_size_inches()
    pairs = []
    for i in range(n):
        x = (i % columns) * cell[0] + left
        y = (rows - 1 - i // columns) * cell[1] + below
        low = np.array([x, y, width, 0.24 * height]) / [*size, *size]
        high = np.array([x, y + 0.27 * height, width, 0.73 * height]) / [*size, *size]
        bottom = figure.add_axes((low[0], low[1], low[2], low[3]))
        top = figure.add_axes((high[0], high[1], high[2], high[3]), sharex=bottom)
        top.tick_params(labelbottom=False)
        for axis in (top, bottom):
            axis.yaxis.set_label_coords(-0.62 / width, 0.5)
            if n > 1:
                axis.minorticks_off()  # they are half of the drawing time
        pairs.append((top, bottom))
    return figure, pairs


def _limits(axis: Axes, values: FloatArray, *, room: float) -> None:
    """Vertical limits around efficiencies, with room above for the legend."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    span = max(high - low, 0.02)
    low = 0.0 if low < 0.3 * high else low - 0.1 * span
    axis.set_ylim(low, high + room * (high - low))


def _emptier_side(
    counts: FloatArray,
) -> Literal["upper right", "upper left"]:
    """Corner of the legend: away from the peak."""
    return "upper right" if np.argmax(counts) < 0.5 * len(counts) else "upper left"


def _display(unit: str) -> tuple[float, str]:
    """Factor and unit for drawing; MeV becomes GeV."""
    return (1e-3, "GeV") if unit == "MeV" else (1.0, unit)


def _axis_label(axis: Axes, name: str, unit: str, *, vertical: bool = False) -> None:
    """Label at the end of the axis, with the unit in brackets."""
    text = name.replace("_", r"\_") if "$" in name else name
    if unit != "1":
        text += f" [{unit}]"
    if vertical:
        axis.set_ylabel(text, loc="top")
    else:
        axis.set_xlabel(text, loc="right")


def _per_bin(what: str, width: float, unit: str) -> str:
    """ "Tracks / (2 MeV)", or without unit "Tracks / 0.1"."""
    return f"{what} / {width:.3g}" if unit == "1" else f"{what} / ({width:.3g} {unit})"


def _cut_text(cut: str) -> str:
    """A cut as a title."""
    return cut if len(cut) <= 60 else f"{cut[:57]}..."


@contextmanager
def _style() -> Iterator[None]:
    """The look of all figures; settings are restored afterwards."""
    settings: dict[Any, Any] = {k: v for k, v in _STYLE.items() if k in mpl.rcParams}
    with mpl.rc_context(settings):
        yield
