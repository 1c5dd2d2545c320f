"""Figures of samples and trainings: targets, mass fits, losses."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.report.plots.canvas import (
    BACKGROUND,
    DPI,
    FLOOR,
    GENERATED,
    MAX_RATIO,
    REAL,
    SIGNAL,
    display_unit,
    draw_band,
    label_axis,
    per_bin,
    ratio_panels,
    style,
)


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
    scale, shown = display_unit(unit)
    with style():
        figure, axes = ratio_panels(len(chosen))
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
            label_axis(bottom, name, shown)
            width = (edges[1] - edges[0]) * scale
            top.set_ylabel(per_bin("Weighted tracks", width, shown))
            bottom.set_ylabel("gen. / real")
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
    with style():
        figure, [(top, bottom)] = ratio_panels(1)
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
        top.set_ylabel(per_bin("Tracks", width, unit))
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
        label_axis(bottom, name, unit)
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
    with style():
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
    draw_band(top, e, m - error, m + error)
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
    draw_band(axis, edges, 1 - of_real, 1 + of_real, colour=FLOOR)
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


def _emptier_side(
    counts: FloatArray,
) -> Literal["upper right", "upper left"]:
    """Corner of the legend: away from the peak."""
    return "upper right" if np.argmax(counts) < 0.5 * len(counts) else "upper left"
