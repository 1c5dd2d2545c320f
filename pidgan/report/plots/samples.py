"""Figures of samples and trainings: mass fits, losses, families."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.report.plots import canvas

MAX_PULL = 4.8  # half range of the pulls of a mass fit
FEW_LOSSES = 20  # fewer are drawn with markers, as one alone makes no line


@canvas.style()
def plot_mass_fit(
    edges: ArrayLike,
    counts: ArrayLike,
    signal: ArrayLike,
    background: ArrayLike,
    *,
    name: str = "Mass",
    figures: Mapping[str, Any] | None = None,
) -> Figure:
    """Draw a mass fit (MeV) with its components, and pulls (rows - fit) / sqrt(fit).

    `figures` are those of `SweightResult.summary`, of which yields, purity and
    chi-square are written into the figure.
    """
    e, n = np.asarray(edges, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    s, b = np.asarray(signal), np.asarray(background)
    centre, width, model = (e[1:] + e[:-1]) / 2, e[1] - e[0], s + b
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = np.where(model > 0, (n - model) / np.sqrt(model), np.nan)
    figure, [(top, bottom)] = canvas.ratio_panels(1)
    top.plot(centre, model, color=canvas.FIT, label="fit", zorder=5)
    top.plot(centre, s, "--", color=canvas.SIGNAL, label="signal")
    top.fill_between(
        centre, b, color=canvas.BACKGROUND, alpha=0.4, lw=0, label="background"
    )
    canvas.draw_comparison(
        (top, bottom),
        e,
        canvas.series(n, np.sqrt(n), label="data"),
        [],
        labels=(canvas.per_bin("Tracks", width, "MeV"), name, "MeV"),
        zero=True,
        below=[canvas.series(pull, 1.0)],
        about=0.0,
        label="pull",
        least=MAX_PULL,
        most=MAX_PULL,
    )
    bottom.axhspan(-1, 1, color=canvas.FLOOR, alpha=0.3, lw=0)
    if figures:
        peak = "right" if np.argmax(s) < 0.5 * len(s) else "left"
        _write_beside(top, fit_lines(figures), "left" if peak == "right" else "right")
    return figure


def fit_lines(figures: Mapping[str, Any]) -> list[str]:
    """Yields, purity and chi-square of a mass fit as lines of text."""
    (signal, of_s), (background, of_b) = (
        figures["yields"][kind] for kind in ("signal", "background")
    )
    total = signal + background
    purity = 100 * signal / total
    # The sum of both yields is the number of rows: only their share fluctuates.
    error = 100 * of_s / total
    lines = [
        rf"signal {signal:.0f} $\pm$ {of_s:.0f}",
        rf"background {background:.0f} $\pm$ {of_b:.0f}",
        rf"purity ({purity:.2f} $\pm$ {error:.2f}) %",
    ]
    if figures.get("n_dof", 0) > 0:
        lines.append(
            rf"$\chi^2$/ndf = {figures['chi2']:.0f}/{figures['n_dof']}, "
            f"p = {figures['p_value']:.2g}"
        )
    return lines


def _write_beside(
    axis: Any, lines: Sequence[str], side: Literal["left", "right"]
) -> None:
    """Write lines into an upper corner of a panel."""
    x = 0.03 if side == "left" else 0.97
    text = "\n".join(lines)
    axis.text(x, 0.96, text, transform=axis.transAxes, ha=side, va="top", fontsize=11)


@canvas.style()
def plot_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the losses of a training, lists by name, against the list "step".

    A loss "validation_NAME" is drawn with "NAME".
    """
    steps = np.asarray(history["step"], dtype=np.float64)
    drawn = [k for k in history if k != "step" and not k.endswith("_error")]
    names = list(dict.fromkeys(k.removeprefix("validation_") for k in drawn))
    columns = min(3, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure, axes = canvas.sheet(4.6 * columns, 3.4 * rows, rows, columns)
    kinds = (("", "-", canvas.GENERATED), ("validation_", "--", canvas.SIGNAL))
    for axis, name in zip(axes.flat, names, strict=False):
        known = [history[k + name] for k, *_ in kinds if k + name in history]
        mark = "o" if np.isfinite(known[0]).sum() < FEW_LOSSES else ""
        for kind, line, colour in kinds:
            label = kind.rstrip("_") or "train"
            if kind + name in history:
                losses = history[kind + name]
                axis.plot(steps, losses, mark + line, color=colour, label=label)
        if len(known) > 1:
            axis.legend(loc="best")
        axis.set_title(name.replace("_", " "), loc="left")
        axis.set_xlabel("step", loc="right")
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    return figure


PANEL = (3.2, 0.38, 1.6)  # width; height of a line; height of everything else, inches


@canvas.style()
def plot_families(
    names: Sequence[str],
    figures: Mapping[str, tuple[Sequence[float], Sequence[float] | None]],
) -> Figure:
    """Draw a panel for each figure, with values (n,) and floors (n,) or None."""
    width, line, rest = PANEL
    size = (width * len(figures) + 0.8, line * len(names) + rest)
    figure, [axes] = canvas.sheet(*size, 1, len(figures), sharey=True)
    places = np.arange(len(names))[::-1]
    marks = {"color": canvas.FLOOR, "markersize": 12, "label": "floor"}
    for axis, (label, (values, floors)) in zip(axes, figures.items(), strict=True):
        axis.plot(values, places, "o", color=canvas.GENERATED, label="family")
        if floors is not None:
            axis.plot(floors, places, "|", **marks)
        axis.set_xlabel(label, loc="right")
        axis.margins(x=0.15)
        axis.grid(axis="y", alpha=0.3)
        axis.minorticks_off()
    axes[0].set_yticks(places, names)
    axes[0].set_ylim(-0.6, max(len(names), 1) - 0.4)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure
