"""The canvas of all figures: style, panels, axes and their labels."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pidgan.arrays import FloatArray

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
    with style():
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures; settings are restored afterwards."""
    settings: dict[Any, Any] = {k: v for k, v in _STYLE.items() if k in mpl.rcParams}
    with mpl.rc_context(settings):
        yield


def ratio_panels(n: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
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


def draw_band(
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


def scale_axis(set_scale: Callable[[str], object], edges: FloatArray) -> None:
    """Make an axis logarithmic if its bins are, so that narrow ones are seen."""
    widths = np.diff(edges)
    if edges[0] > 0 and widths.max() >= LOG_WIDTHS * widths.min():
        set_scale("log")


def set_limits(axis: Axes, values: FloatArray, *, room: float) -> None:
    """Vertical limits around efficiencies, with room above for the legend."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    span = max(high - low, 0.02)
    low = 0.0 if low < 0.3 * high else low - 0.1 * span
    axis.set_ylim(low, high + room * (high - low))


def display_unit(unit: str) -> tuple[float, str]:
    """Factor and unit for drawing; MeV becomes GeV."""
    return (1e-3, "GeV") if unit == "MeV" else (1.0, unit)


def label_axis(axis: Axes, name: str, unit: str, *, vertical: bool = False) -> None:
    """Label at the end of the axis, with the unit in brackets."""
    text = name.replace("_", r"\_") if "$" in name else name
    if unit != "1":
        text += f" [{unit}]"
    if vertical:
        axis.set_ylabel(text, loc="top")
    else:
        axis.set_xlabel(text, loc="right")


def per_bin(what: str, width: float, unit: str) -> str:
    """ "Tracks / (2 MeV)", or without unit "Tracks / 0.1"."""
    return f"{what} / {width:.3g}" if unit == "1" else f"{what} / ({width:.3g} {unit})"


def cut_text(cut: str) -> str:
    """A cut as a title."""
    return cut if len(cut) <= 60 else f"{cut[:57]}..."
