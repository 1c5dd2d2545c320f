"""Figures of a search for settings: its course, the settings, quality against cost."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pidgan.arrays import FloatArray
from pidgan.report.plots import canvas

SIZE = (6.4, 4.4)  # of a figure of one panel, inches
MARGIN = 0.08  # room around the points, as a share of an axis


@canvas.style()
def plot_search(
    numbers: FloatArray,
    scores: FloatArray,
    errors: FloatArray,
    *,
    given_up: FloatArray,
    label: str,
) -> Figure:
    """Draw scores (n,) of trials by number, the default first, and the best so far.

    Trials that were given up are ticks at the lower edge.
    """
    figure, [[axis]] = canvas.sheet(*SIZE, 1, 1)
    axis.margins(MARGIN)
    axis.errorbar(
        numbers, scores, errors, fmt="o", color=canvas.GENERATED, label="trial"
    )
    best = np.minimum.accumulate(scores)
    axis.step(numbers, best, where="post", color=canvas.SIGNAL, label="best so far")
    if len(scores):
        axis.axhline(scores[0], ls=":", color=canvas.FLOOR, label="default")
    if len(given_up):
        low = axis.get_ylim()[0]
        marks = {"color": canvas.FLOOR, "ls": "", "markersize": 9}
        axis.plot(given_up, np.full(len(given_up), low), "|", label="given up", **marks)
    axis.set_xlabel("trial", loc="right")
    axis.set_ylabel(label, loc="top")
    axis.legend(loc="upper right")
    return figure


@canvas.style()
def plot_settings(
    values: Mapping[str, FloatArray],
    scores: FloatArray,
    *,
    logarithmic: Sequence[str],
    defaults: Mapping[str, float],
    best: Mapping[str, float],
    label: str,
) -> Figure:
    """Draw scores (n,) against the values (n,) of each setting that was searched."""
    columns = min(3, len(values))
    rows = -(-len(values) // columns)
    figure, axes = canvas.sheet(4.2 * columns, 3.2 * rows, rows, columns, sharey=True)
    for axis, (name, xs) in zip(axes.flat, values.items(), strict=False):
        axis.plot(xs, scores, "o", color=canvas.GENERATED, label="trial")
        axis.axvline(defaults[name], ls=":", color=canvas.FLOOR, label="default")
        axis.axvline(best[name], color=canvas.SIGNAL, label="best")
        axis.margins(MARGIN)
        if name in logarithmic:
            axis.set_xscale("log")
            ticks = np.geomspace(xs.min(), xs.max(), 3)
            axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axis.set_xlabel(name.replace("_", " "), loc="right")
        axis.minorticks_off()
    for axis in axes.flat[len(values) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(label, loc="top")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3)
    return figure


@canvas.style()
def plot_front(
    cost: FloatArray,
    scores: FloatArray,
    errors: FloatArray,
    *,
    is_front: FloatArray,
    default: int,
    best: int,
    label: str,
) -> Figure:
    """Draw scores (n,) against operations for a row, and the front of both."""
    figure, [[axis]] = canvas.sheet(*SIZE, 1, 1)
    axis.margins(MARGIN)
    thousands = cost / 1e3
    axis.errorbar(
        thousands, scores, errors, fmt="o", color=canvas.GENERATED, label="trial"
    )
    front = np.flatnonzero(is_front)
    order = front[np.argsort(cost[front])]
    axis.step(
        thousands[order],
        scores[order],
        where="post",
        color=canvas.SIGNAL,
        label="front",
    )
    ring = {"fmt": "s", "markersize": 9, "fillstyle": "none"}
    for place, colour, name in (
        (default, canvas.REAL, "default"),
        (best, canvas.CORRECTED, "best"),
    ):
        at = thousands[place], scores[place]
        axis.errorbar(*at, color=colour, label=name, **ring)
    axis.set_xscale("log")
    axis.set_xlabel("thousand operations for a row", loc="right")
    axis.set_ylabel(label, loc="top")
    axis.legend(loc="best")
    return figure


@canvas.style()
def plot_importance(shares: Mapping[str, float]) -> Figure:
    """Draw the share of the variation of the score that each setting explains."""
    figure, [[axis]] = canvas.sheet(SIZE[0], 0.38 * len(shares) + 1.4, 1, 1)
    names = sorted(shares, key=lambda name: shares[name])
    places = np.arange(len(names))
    axis.barh(places, [shares[n] for n in names], 0.6, color=canvas.GENERATED)
    axis.set_yticks(places, [name.replace("_", " ") for name in names])
    axis.set_xlabel("importance", loc="right")
    axis.minorticks_off()
    return figure
