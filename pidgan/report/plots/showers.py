"""Figures of showers: pictures of cells, profiles, response, spectra."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.report.plots import canvas

DECADES = 4.5  # decades of energy that the colours of a picture span
COLOURS, BINS = "viridis", 40
EMPTY = "#f2f2f2"  # cells without energy, unlike those with little energy


@canvas.style()
def plot_shower(
    outlines: Sequence[ArrayLike],
    rows: Sequence[tuple[str, Sequence[ArrayLike]]],
    *,
    titles: Sequence[str] = (),
    unit: str = "MeV",
) -> Figure:
    """Draw energies of cells, a column for each layer and a line for each sample.

    The outlines of a layer are corners (n_cells, k, 2) in mm. All panels have one scale
    of colours.
    """
    values = [np.asarray(e, dtype=np.float64) for _, layers in rows for e in layers]
    top = max((float(e.max()) for e in values if e.size), default=1.0)
    top = top if top > 0 else 1.0
    norm = LogNorm(vmin=top / 10**DECADES, vmax=top)
    n, m = len(rows), len(outlines)
    figure, axes = canvas.sheet(
        2.6 * m + 1.8, 2.6 * n + 1.0, n, m, sharex="col", sharey="col"
    )
    drawn = None
    for (label, layers), line in zip(rows, axes, strict=True):
        for shape, e, axis in zip(outlines, layers, line, strict=True):
            drawn = _draw_cells(axis, np.asarray(shape), np.asarray(e), norm)
        line[0].set_ylabel(f"{label}\n$y$ [mm]")
    for j, axis in enumerate(axes[-1]):
        axis.set_xlabel("$x$ [mm]")
        axes[0, j].set_title(titles[j] if titles else "")
    if drawn is not None:
        figure.colorbar(drawn, ax=axes, label=f"Energy [{unit}]")
    return figure


@canvas.style()
def plot_curves(
    edges: ArrayLike,
    real: tuple[ArrayLike, ArrayLike],
    generated: tuple[ArrayLike, ArrayLike],
    *,
    name: str,
    unit: str = "1",
    what: str,
    logx: bool = False,
    logy: bool = False,
) -> Figure:
    """Draw means over showers in bins, real and generated, with their ratio.

    `real` and `generated` are values (m,) and errors (m,).
    """
    pair = canvas.real_and_generated(real, generated)
    labels = (what, name, unit)
    return canvas.comparison(
        edges, *pair, labels=labels, zero=True, log=logy, logx=logx
    )[0]


@canvas.style()
def plot_response(
    energy: ArrayLike,
    real: tuple[ArrayLike, ArrayLike],
    generated: tuple[ArrayLike, ArrayLike],
    *,
    what: str,
    unit: str = "GeV",
    curves: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    allowed: ArrayLike | None = None,
    zero: bool = False,
) -> Figure:
    """Draw response or resolution against the incident energy, with the ratio.

    `real` and `generated` are values (m,) and errors (m,), `curves` are energies and
    values of their fits. The ratio is shaded within `allowed` (m,) of 1.
    """
    pair = canvas.real_and_generated(real, generated, kind="points")
    band = np.nan_to_num(np.asarray(0.0 if allowed is None else allowed, np.float64))
    labels, least = (what, "Incident energy", unit), 1.2 * max(float(band.max()), 0.01)
    figure, (top, bottom) = canvas.comparison(
        energy, *pair, labels=labels, logx=True, least=least
    )
    for curve, colour in zip(curves, (canvas.REAL, canvas.GENERATED), strict=False):
        top.plot(*curve, color=colour, linewidth=1.2)
    if allowed is not None:
        look: dict[str, Any] = {"color": canvas.GENERATED, "alpha": 0.12, "lw": 0}
        bottom.fill_between(np.asarray(energy), 1 - band, 1 + band, **look)
    bottom.set_xlim(0.8 * np.nanmin(energy), 1.25 * np.nanmax(energy))
    canvas.number_log_axis(bottom.xaxis)
    for axis in (top.yaxis, bottom.yaxis):
        axis.set_major_formatter(ticker.ScalarFormatter(useOffset=False))
    if zero:
        top.set_ylim(bottom=0.0)
    return figure


@canvas.style()
def plot_observables(
    observables: Sequence[tuple[str, str, ArrayLike, ArrayLike]],
    *,
    log: bool = False,
) -> Figure:
    """Draw distributions of observables: name, unit, real and generated values (n,).

    The axes end at the 0.1 % and 99.9 % quantiles of the real values; with `log`,
    numbers of showers are on a logarithmic axis, for their tails.
    """
    figure, pairs = canvas.ratio_panels(len(observables))
    for (name, unit, *values), panels in zip(observables, pairs, strict=True):
        y, g = (np.asarray(v) for v in values)
        edges, scale = _edges(y, BINS), len(y) / len(g)
        a, b = (np.histogram(v, edges)[0].astype(float) for v in (y, g))
        pair = canvas.real_and_generated(
            (a, np.sqrt(a)), (b * scale, np.sqrt(b) * scale)
        )
        labels = ("Showers", name, unit)
        canvas.draw_comparison(panels, edges, *pair, labels=labels, zero=True, log=log)
    return figure


@canvas.style()
def plot_matrix(real: ArrayLike, generated: ArrayLike) -> Figure:
    """Draw two matrices (d, d) of correlations of layers, and their difference."""
    y, g = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    figure, [axes] = canvas.sheet(12.6, 4.1, 1, 3)
    items = (("real", y), ("generated", g), ("generated $-$ real", g - y))
    for i, (axis, (title, matrix)) in enumerate(zip(axes, items, strict=True)):
        reach = 1.0 if i < 2 else max(0.05, float(np.nanmax(np.abs(matrix))))
        image = axis.imshow(
            matrix, origin="lower", cmap="RdBu_r", vmin=-reach, vmax=reach
        )
        axis.minorticks_off()
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(ticker.MaxNLocator(6, integer=True))
        axis.set(xlabel="layer", ylabel="layer", title=title)
        label = "correlation" if i < 2 else "difference"
        figure.colorbar(image, ax=axis, label=label).ax.minorticks_off()
    return figure


def _draw_cells(
    axis: Axes, outlines: FloatArray, energies: FloatArray, norm: LogNorm
) -> PolyCollection:
    """Cells as polygons; those below the scale have its lowest colour."""
    some = energies > 0
    axis.add_collection(
        PolyCollection(list(outlines[~some]), facecolors=EMPTY, edgecolors="none")
    )
    drawn = PolyCollection(
        list(outlines[some]), cmap=COLOURS, norm=norm, edgecolors="face", linewidths=0.2
    )
    drawn.set_array(np.maximum(energies[some], norm.vmin or 0.0))
    axis.add_collection(drawn)
    low, high = outlines.min(axis=(0, 1)), outlines.max(axis=(0, 1))
    middle, half = (low + high) / 2, 0.5 * float(np.max(high - low))
    (left, below), (right, above) = middle - half, middle + half
    axis.set(xlim=(left, right), ylim=(below, above), aspect="equal")
    # Labels at the corners of neighbouring panels would touch.
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(ticker.MaxNLocator(4, prune="both"))
    axis.minorticks_off()
    return drawn


def _edges(values: FloatArray, bins: int) -> FloatArray:
    """Equal bins of the bulk; of discrete values, as many of them in each."""
    low, high = np.quantile(values, [0.001, 0.999])
    if high <= low:
        half = max(abs(low), 1.0) * 1e-3
        return np.linspace(low - half, low + half, bins + 1)
    kinds = np.unique(values)
    step = float(np.diff(kinds).min()) if len(kinds) > 1 else 1.0
    steps = (high - low) / step
    if len(kinds) > 20 * bins or steps > 20 * bins:
        return np.linspace(low, high, bins + 1)
    width = np.ceil(steps / bins) * step
    count = int(np.ceil((high - low) / width)) + 1
    return np.asarray(low - step / 2 + width * np.arange(count))
