"""The canvas of all figures: style, panels, series, axes and their labels."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.errors import NtupleError
from pidgan.sample.species import pdg_id

# One colour for one thing in all figures, told apart by every kind of colour vision:
# M. Okabe, K. Ito, Color universal design (2008).
REAL, GENERATED, CORRECTED, FLOOR = "black", "#0072b2", "#d55e00", "#8a8a8a"
ANALYSIS, ALL, OTHER = "#009e73", "#8a8a8a", "#cc79a7"
FIT, SIGNAL, BACKGROUND = "#332288", "#e69f00", "#7f8c8d"
SOURCES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d46")
LEAST_RATIO, MAX_RATIO = 0.05, 0.5  # half ranges of a ratio panel around 1
SMALLEST = 1e-5  # smallest value of a logarithmic axis, relative to the largest one
WIDE_BINS = 30  # number of bins up to which horizontal bars show their width
LOG_WIDTHS = 8.0  # ratio of the widest bin to the narrowest, from which an axis is log
LOG_RANGE = 10.0  # ratio of the ends of an axis, below which it stays linear
FIRST = ("real", "data", "cali")  # words that begin the first line of a legend
DPI = 100

_TICKS = {
    "labelsize": 12.0,
    "major.size": 6.0,
    "minor.size": 3.0,
    "major.width": 1.0,
    "minor.width": 0.8,
    "major.pad": 5.0,
}
_STYLE: dict[str, Any] = {
    **{k: v for k, v in mplhep.style.LHCb2.items() if not k.startswith("figure.")},
    **{f"{axis}tick.{key}": value for axis in "xy" for key, value in _TICKS.items()},
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "Times New Roman", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 13.0,
    "axes.labelsize": 14.0,
    "axes.titlesize": 12.0,
    "axes.linewidth": 1.0,
    "legend.fontsize": 11.0,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "errorbar.capsize": 0.0,
    "savefig.bbox": "standard",  # fitting the margins is a second drawing
    "axes.titley": 1.0,  # fixed: finding a free place costs a quarter of the drawing
}


def png(figure: Figure, *, dpi: float = DPI) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with style():
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures; settings are restored afterwards."""
    settings: dict[Any, Any] = {k: v for k, v in _STYLE.items() if k in mpl.rcParams}
    with mpl.rc_context(settings):
        yield


def ratio_panels(
    n: int, *, head: float = 0.0
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of n pairs of panels, the upper three times as high.

    `head` is room above all of them, in inches.
    """
    columns, rows = shape_of(n)
    cell = (6.4, 5.2) if n == 1 else (5.0, 4.5)
    left, right, below, above = 0.95, 0.2, 0.65, 0.35
    width, height = cell[0] - left - right, cell[1] - below - above
    figure = Figure(figsize=(columns * cell[0], rows * cell[1] + head), dpi=DPI)
    size = figure.get_size_inches()
    pairs = []
    for i in range(n):
        x = (i % columns) * cell[0] + left
        y = (rows - 1 - i // columns) * cell[1] + below
        low = np.array([x, y, width, 0.24 * height]) / [*size, *size]
        high = np.array([x, y + 0.27 * height, width, 0.73 * height]) / [*size, *size]
        bottom = figure.add_axes((low[0], low[1], low[2], low[3]))
        top = figure.add_axes((high[0], high[1], high[2], high[3]), sharex=bottom)
        top.tick_params(which="both", labelbottom=False)
        for axis in (top, bottom):
            axis.yaxis.set_label_coords(-0.62 / width, 0.5)
            if n > 1:
                axis.minorticks_off()  # they are half of the drawing time
        pairs.append((top, bottom))
    return figure, pairs


def shape_of(n: int) -> tuple[int, int]:
    """Columns and lines of n panels: as few empty places as possible."""
    columns = 2 if n == 4 else min(3, n)
    return columns, -(-n // columns)


def single_panels(n: int, *, head: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure of n panels of the same size, with room above in inches."""
    columns, rows = shape_of(n)
    cell = (6.4, 4.6) if n == 1 else (5.0, 3.8)
    left, right, below, above = 0.95, 0.2, 0.65, 0.35
    figure = Figure(figsize=(columns * cell[0], rows * cell[1] + head), dpi=DPI)
    size = figure.get_size_inches()
    axes = []
    for i in range(n):
        x = (i % columns) * cell[0] + left
        y = (rows - 1 - i // columns) * cell[1] + below
        ends = (x, y, cell[0] - left - right, cell[1] - below - above)
        axis = figure.add_axes(tuple(np.array(ends) / [*size, *size]))
        axis.yaxis.set_label_coords(-0.62 / ends[2], 0.5)
        if n > 1:
            axis.minorticks_off()
        axes.append(axis)
    return figure, axes


def draw_head(figure: Figure, title: str, axes: Sequence[Axes]) -> None:
    """A title and one legend of the series of all panels, above them."""
    height = float(figure.get_size_inches()[1])
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels = sorted(found, key=lambda label: label[:4] not in FIRST)
    left = 0.95 / float(figure.get_size_inches()[0])
    figure.text(left, 1 - 0.1 / height, title, va="top", fontsize=13)
    if len(labels) > 1 or (labels and labels[0] not in FIRST):
        figure.legend(
            [found[label] for label in labels],
            labels,
            loc="upper left",
            bbox_to_anchor=(
                left - 0.05 / height,
                1 - (0.38 if title else 0.05) / height,
            ),
            ncols=len(labels),
            borderaxespad=0.0,
            columnspacing=1.4,
            handletextpad=0.5,
        )


def sheet(
    width: float, height: float, lines: int = 1, columns: int = 1, **shared: Any
) -> tuple[Figure, Any]:
    """A figure of equal panels with room for their labels; axes (lines, columns)."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(lines, columns, squeeze=False, **shared)


def labelled_lines(
    labels: Sequence[str], *, inches: float
) -> tuple[Figure, Axes, FloatArray]:
    """A figure with one horizontal line for each label, and the places of the lines."""
    places = np.arange(len(labels))[::-1].astype(np.float64)
    figure, [[axis]] = sheet(8, 1.4 + inches * len(labels))
    axis.set_ylim(-0.6, len(labels) - 0.4)
    axis.set_yticks(places, labels)
    axis.tick_params(axis="y", which="both", right=False, left=False)
    axis.minorticks_off()
    return figure, axis, places


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values (m,) in bins or at points with ends of their intervals; NaN is a gap.

    A "line" is drawn as steps in bins and has a band. Without a label it is not listed
    in the legend. Points of a species to reject are `hollow`.
    """

    values: FloatArray
    low: FloatArray
    high: FloatArray
    label: str = ""
    colour: str = REAL
    kind: Literal["points", "line", "band"] = "points"
    dashed: bool = False
    hollow: bool = False


def series(values: ArrayLike, error: ArrayLike = 0.0, **style: Any) -> Series:
    """Return a series with symmetric errors; `style` are attributes of `Series`."""
    v, e = np.asarray(values, dtype=np.float64), np.asarray(error, dtype=np.float64)
    return Series(values=v, low=v - e, high=v + e, **style)


def draw_series(axis: Axes, x: FloatArray, shown: Series) -> None:
    """Draw one series against (m + 1,) edges of bins or (m,) points."""
    v, low, high = shown.values, shown.low, shown.high
    colour, binned = shown.colour, len(x) > len(v)
    if shown.kind == "points":
        centre = _centres(axis, x) if binned else x
        # The width of many narrow bins is plain to see without bars.
        bars = binned and len(v) <= WIDE_BINS
        axis.errorbar(
            centre,
            v,
            yerr=np.maximum([v - low, high - v], 0),
            xerr=[centre - x[:-1], x[1:] - centre] if bars else None,
            fmt="s" if shown.hollow else "o",
            mfc="white" if shown.hollow else colour,
            ms=3 if len(v) > WIDE_BINS else 4,
            color=colour,
            label=shown.label or None,
            zorder=4 if colour == REAL else 3,
        )
        return
    if shown.kind == "line":
        dash = "--" if shown.dashed else "-"
        style: dict[str, Any] = {"color": colour, "linestyle": dash, "lw": 1.4}
        if binned:
            axis.stairs(v, x, baseline=None, label=shown.label, **style)
        else:
            axis.plot(x, v, label=shown.label or "_nolegend_", **style)
    if binned:
        x, low, high = np.repeat(x, 2)[1:-1], np.repeat(low, 2), np.repeat(high, 2)
    if np.any(high > low):
        axis.fill_between(x, low, high, color=colour, alpha=0.28, lw=0)


def comparison(
    x: ArrayLike, real: Series, others: Sequence[Series], **options: Any
) -> tuple[Figure, tuple[Axes, Axes]]:
    """A figure of one pair of panels; `options` are those of `draw_comparison`."""
    figure, [panels] = ratio_panels(1)
    edges = np.asarray(x, dtype=np.float64)
    draw_comparison(panels, edges, real, others, **options)
    return figure, panels


def real_and_generated(
    real: tuple[ArrayLike, ArrayLike],
    generated: tuple[ArrayLike, ArrayLike],
    *,
    kind: Literal["points", "line"] = "line",
) -> tuple[Series, list[Series]]:
    """Real points and the generated series, of values (m,) and errors (m,)."""
    made = series(*generated, label="generated", colour=GENERATED, kind=kind)
    return series(*real, label="real"), [made]


def draw_comparison(
    panels: tuple[Axes, Axes],
    x: FloatArray,
    real: Series,
    others: Sequence[Series],
    *,
    labels: tuple[str, str, str],
    title: str = "",
    zero: bool = False,
    log: bool = False,
    logx: bool = False,
    below: Sequence[Series] = (),
    about: float = 1.0,
    label: str = "gen. / real",
    least: float = LEAST_RATIO,
    most: float = MAX_RATIO,
    legend: bool = True,
) -> None:
    """Draw series in the upper panel, and how they differ in the lower one.

    `labels` are the text of the vertical axis, name and unit of the horizontal one.
    The lower panel shows the series `below` about the value `about`, else ratios to
    the real series, whose interval is a grey band. Arrows point to values outside its
    half range, which lies between `least` and `most`. mplhep's own panels compare
    counts with independent errors; efficiencies of the same rows are neither.
    """
    top, bottom = panels
    if logx:
        bottom.set_xscale("log")
    for one in (real, *others):
        draw_series(top, x, one)
    ends = [(s.values,) if log else (s.low, s.high, s.values) for s in (real, *others)]
    drawn = np.concatenate([end for three in ends for end in three])
    beside = not (zero or log)
    room = (0.3 if beside else 0.4) if legend else 0.12
    set_limits(top, drawn, room=room, zero=zero, log=log)
    corner = "upper right" if beside else emptier_side(real.values)
    if real.label and legend:
        draw_legend(top, loc=corner, ncols=1 + len(others) if beside else 1)
    shown, known = list(below), np.ones(len(real.values), dtype=np.bool_)
    if not shown:
        shown = _ratios(real, others)
        # Ratios to a badly known value do not set the range.
        known = shown[0].high - 1 < MAX_RATIO / 2
    sizes = [one.high if one.kind == "band" else one.values for one in shown]
    distances = np.abs(np.concatenate([size[known] for size in sizes]) - about)
    distances = distances[np.isfinite(distances)]
    # A few of many bins may lie outside, where arrows show them.
    share = 1.0 if len(real.values) <= WIDE_BINS else 0.95
    reach = 1.3 * float(np.quantile(distances, share)) if len(distances) else most
    reach = float(np.clip(reach, least, most))
    bottom.axhline(about, color=REAL, linewidth=0.8)
    for one in shown:
        draw_series(bottom, x, one)
        if one.kind == "points":
            _draw_arrows(bottom, x, one, about, reach)
    bottom.set_ylim(about - reach, about + reach)
    # A number at the upper end would touch the one of the panel above.
    bottom.yaxis.set_major_locator(ticker.MaxNLocator(4, prune="both"))
    bottom.set_xlim(x[0], x[-1])
    if logx:
        number_log_axis(bottom.xaxis)
    top.set_ylabel(labels[0])
    top.set_title(title, loc="left")
    bottom.set_ylabel(label)
    label_axis(bottom, *labels[1:])


def _ratios(real: Series, others: Sequence[Series]) -> list[Series]:
    """The real interval as a band, and ratios; of one other series as points."""
    whole = np.where(real.values > 0, real.values, np.nan)

    def over(one: Series, **changes: Any) -> Series:
        parts = {name: getattr(one, name) / whole for name in ("values", "low", "high")}
        return replace(one, label="", **parts, **changes)

    alone = {"kind": "points"} if len(others) == 1 else {}
    band = over(real, kind="band", colour=FLOOR)
    return [band, *(over(one, **alone) for one in others)]


def _draw_arrows(
    axis: Axes, x: FloatArray, shown: Series, about: float, reach: float
) -> None:
    """Arrows at the border for points outside the panel."""
    centre = _centres(axis, x) if len(x) > len(shown.values) else x
    for sign, marker in ((1, "^"), (-1, "v")):
        at = centre[sign * (shown.values - about) > reach]
        height = np.full(len(at), about + 0.88 * sign * reach)
        axis.plot(at, height, marker, color=shown.colour, markersize=5)


def _centres(axis: Axes, edges: FloatArray) -> FloatArray:
    """Centres of bins, as seen on the axis."""
    if axis.get_xscale() == "log":
        return np.asarray(np.sqrt(edges[1:] * edges[:-1]))
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def is_log(edges: FloatArray) -> bool:
    """Return whether bins widen so much that only a logarithmic axis shows them."""
    widths = np.diff(edges)
    wide = edges[0] > 0 and edges[-1] >= LOG_RANGE * edges[0]
    return bool(wide and widths.max() >= LOG_WIDTHS * widths.min())


def number_log_axis(axis: Any) -> None:
    """Label an axis of a few decades at 1, 2 and 5, without powers of ten."""
    low, high = axis.get_view_interval()
    if low > 0 and high < 1e4 * low:
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda t, _: f"{t:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def set_limits(
    axis: Axes,
    values: FloatArray,
    *,
    room: float,
    zero: bool = False,
    log: bool = False,
) -> None:
    """Set vertical limits around values, with room above them for the legend."""
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    if log and len(positive):
        high = float(positive.max())
        low = max(float(positive.min()), SMALLEST * high) / 2
        axis.set_yscale("log")
        axis.set_ylim(low, high * (high / low) ** (1.5 * room))
        return
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    span = max(high - low, 0.02 * abs(high), 1e-6)
    if zero or (0 < low < 0.3 * high):
        low = min(0.0, 1.1 * low)
    else:
        low -= 0.1 * span
    axis.set_ylim(low, high + room * max(high - low, span))


def draw_legend(axis: Axes, **options: Any) -> None:
    """Draw a legend whose first line is the points of the real rows."""
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i][:4] not in FIRST)
    axis.legend([handles[i] for i in order], [labels[i] for i in order], **options)


def emptier_side(counts: FloatArray) -> Literal["upper right", "upper left"]:
    """Corner for the legend: away from the peak of a histogram."""
    peak = np.argmax(np.nan_to_num(counts))
    return "upper right" if peak < 0.5 * len(counts) else "upper left"


def display_unit(unit: str) -> tuple[float, str]:
    """Factor and unit for drawing; MeV becomes GeV."""
    return (1e-3, "GeV") if unit == "MeV" else (1.0, unit)


def label_axis(axis: Axes, name: str, unit: str, *, vertical: bool = False) -> None:
    """Label at the end of the axis, with the unit in brackets."""
    text = name if unit == "1" else f"{name} [{unit}]"
    if vertical:
        axis.set_ylabel(text, loc="top")
    else:
        axis.set_xlabel(text, loc="right")


def per_bin(what: str, width: float, unit: str) -> str:
    """ "Tracks / (2 MeV)", or without unit "Tracks / 0.1"."""
    return f"{what} / {width:.3g}" if unit == "1" else f"{what} / ({width:.3g} {unit})"


def species_text(species: str) -> str:
    """The symbol of a species; its name if it is no particle."""
    try:
        from particle import Particle

        symbol = Particle.from_pdgid(pdg_id(species)).latex_name
    except NtupleError:  # a name of its own
        return species
    return f"${symbol}$"


def cut_text(cut: str) -> str:
    """A cut as a title."""
    return cut if len(cut) <= 60 else f"{cut[:57]}..."
