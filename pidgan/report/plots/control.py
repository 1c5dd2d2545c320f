"""Figures of control channels, and of what sWeights assume."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pidgan.report.plots import canvas


def plot_control(
    edges: ArrayLike,
    control: tuple[ArrayLike, ArrayLike],
    predicted: tuple[ArrayLike, ArrayLike],
    *,
    axis_name: str,
    unit: str = "1",
    cut: str = "",
) -> Figure:
    """Draw the efficiency of a control channel with its prediction, and their ratio.

    Both are values and uncertainties (m,) in bins with edges (m + 1,).
    """
    scale, shown_unit = canvas.display_unit(unit)
    x = np.asarray(edges, dtype=np.float64) * scale
    expected = canvas.series(
        *predicted, label="predicted", colour=canvas.CORRECTED, kind="line"
    )
    points = canvas.series(*control, label="control channel", colour=canvas.REAL)
    figure, (top, _) = canvas.comparison(
        x,
        expected,
        [points],
        labels=("Efficiency", axis_name, shown_unit),
        title=canvas.cut_text(cut),
        logx=canvas.is_log(x),
        label="ratio",
        least=0.02,
        most=2 * canvas.MAX_RATIO,
    )
    top.axhline(1.0, color=canvas.FLOOR, linewidth=0.8, linestyle=":")
    return figure


@canvas.style()
def plot_pulls(pulls: Mapping[str, ArrayLike], *, axis_name: str) -> Figure:
    """Draw the pulls (m,) of each cut against the number of the bin."""
    figure = Figure(figsize=(6.4, 4.0), dpi=canvas.DPI)
    axis = figure.add_axes((0.12, 0.15, 0.84, 0.77))
    for band, shade in ((2.0, "0.93"), (1.0, "0.85")):
        axis.axhspan(-band, band, color=shade, linewidth=0)
    axis.axhline(0.0, color=canvas.FLOOR, linewidth=0.8)
    n = len(pulls)
    largest, most = 3.0, 1
    for i, (cut, given) in enumerate(pulls.items()):
        values = np.asarray(given, dtype=np.float64)
        x = np.arange(1, len(values) + 1) + 0.5 * (i - (n - 1) / 2) / max(n, 2)
        axis.plot(
            x,
            values,
            "o",
            color=canvas.SOURCES[i % len(canvas.SOURCES)],
            label=canvas.cut_text(cut),
        )
        most = max(most, len(values))
        largest = max(largest, float(np.nanmax(np.abs(values), initial=0.0)))
    axis.set_ylim(-1.15 * largest, 1.6 * largest)
    axis.set_xlim(0.4, most + 0.6)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    canvas.label_axis(axis, axis_name, "1")
    canvas.label_axis(axis, "pull: control $-$ predicted", "1", vertical=True)
    canvas.draw_legend(axis, loc="upper right", ncols=2)
    return figure


@canvas.style()
def plot_response(
    mass: ArrayLike,
    share: tuple[ArrayLike, ArrayLike],
    expected: ArrayLike,
    *,
    name: str,
    unit: str,
    cut: str,
) -> Figure:
    """Draw the share of rows that pass in bins of the discriminant, with pulls below.

    `mass` is edges (m + 1,), `share` is values and uncertainties (m,), `expected` is
    what follows from the share of signal if the response does not depend on the mass.
    """
    points = canvas.series(*share, label="rows", colour=canvas.REAL)
    line = canvas.series(
        expected, label="independent", colour=canvas.GENERATED, kind="line"
    )
    pulls = (np.asarray(share[0]) - np.asarray(expected)) / np.asarray(share[1])
    reach = max(3.5, 1.15 * float(np.nanmax(np.abs(pulls), initial=0.0)))
    figure, _ = canvas.comparison(
        mass,
        points,
        [line],
        labels=("Share that passes", name, unit),
        title=canvas.cut_text(cut),
        logx=False,
        below=[canvas.series(pulls, np.ones(len(pulls)), colour=canvas.REAL)],
        about=0.0,
        label="pull",
        least=reach,
        most=reach,
    )
    return figure
