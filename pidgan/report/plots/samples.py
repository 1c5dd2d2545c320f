"""Figures of samples and trainings: targets, mass fits, losses, families."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.report.plots import canvas
from pidgan.sample.grids import Grid

MAX_PULL = 4.8  # half range of the pulls of a mass fit
FEW_LOSSES = 20  # fewer are drawn with markers, as one alone makes no line
FEW_CELLS = 10  # of a grid in a bin, any number of which is as good as a round one


@canvas.style()
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
    grid: Grid | None = None,
) -> Figure:
    """Draw a target: real points over the generated histogram, with their ratio.

    Values are (n,), errors sqrt(sum w^2). Sentinels are not drawn; the legend gives
    their shares. `panels` are titles and masks (n,), one pair of panels for each. Each
    bin of a target on a `grid` holds as many of its values.
    """
    y, g = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    chosen = list(panels) or [("", np.ones(len(y), dtype=np.bool_))]
    edges = _target_edges(y[~np.isin(y, list(sentinels))], bins, grid)
    scale, shown = canvas.display_unit(unit)
    tracks = "Tracks" if weights is None else "Weighted tracks"
    width = (edges[1] - edges[0]) * scale
    figure, axes = canvas.ratio_panels(len(chosen))
    for (title, mask), pair in zip(chosen, axes, strict=True):
        inside = np.asarray(mask, dtype=np.bool_)
        rows = [(v[inside], w[inside], edges) for v in (y, g)]
        texts = [_outside_text(*one, sentinels) for one in rows]
        data = _histogram(*rows[0], label=f"real{texts[0]}")
        made = _histogram(
            *rows[1], label=f"generated{texts[1]}", colour=canvas.GENERATED, kind="line"
        )
        canvas.draw_comparison(
            pair,
            edges * scale,
            data,
            [made],
            labels=(canvas.per_bin(tracks, width, shown), name, shown),
            title=title,
            zero=True,
            log=log,
            least=0.1,
        )
        pair[0].axhline(0.0, color=canvas.FLOOR, linewidth=0.8, zorder=0)
    return figure


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


def _histogram(
    values: FloatArray, w: FloatArray, edges: FloatArray, **style: Any
) -> canvas.Series:
    """Sums of w per bin with errors sqrt(sum w^2); empty bins have no point."""
    counts, _ = np.histogram(values, edges, weights=w)
    squares, _ = np.histogram(values, edges, weights=w * w)
    if style.get("kind") != "line":
        counts = np.where(squares > 0, counts, np.nan)
    return canvas.series(counts, np.sqrt(squares), **style)


def _target_edges(values: FloatArray, bins: int, grid: Grid | None) -> FloatArray:
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
    if grid is not None:
        cells = max(1.0, np.ceil((high - low) / bins / grid.step - 1e-6))
        cells = cells if cells < FEW_CELLS else _round_up(cells)
        width, edge = cells * grid.step, grid.offset - 0.5 * grid.step
        first = np.floor((low - edge) / width + 1e-6)
        last = np.ceil((high - edge) / width - 1e-6)
        return np.asarray(edge + width * np.arange(first, max(last, first + 1) + 1))
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
