"""Figures of targets: real points over the generated histogram, and planes of two."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.arrays import BoolArray, FloatArray
from pidgan.report.plots import bins, canvas
from pidgan.sample.grids import Grid

TAIL_BINS = 50  # of the panel of the whole range
MOST_VALUES = 8  # different values of a target that is drawn as bars
PLANE_BINS = 40  # along each axis of a plane of two targets

Panels = Sequence[tuple[str, ArrayLike]]


@canvas.style()
def plot_target(
    real: ArrayLike,
    generated: ArrayLike,
    *,
    name: str,
    unit: str = "1",
    weights: ArrayLike | None = None,
    sentinels: Sequence[float] = (),
    panels: Panels = (),
    tail: bool = False,
    grid: Grid | None = None,
) -> Figure:
    """Draw a target: real points over the generated histogram, with their ratio.

    Values are (n,), errors sqrt(sum w^2). Sentinels are not drawn; the legend gives
    their shares. `panels` are titles and masks (n,), one pair of panels for each, whose
    bins and ends follow from its own rows. `tail` adds a panel of the whole range on a
    logarithmic axis. Each bin of a target on a `grid` holds as many of its values. A
    target of a few values, such as a flag, has a bar for each.
    """
    y, g = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    absent = np.asarray(list(sentinels), dtype=np.float64)
    kinds = few_values(y[~np.isin(y, absent)], g[~np.isin(g, absent)])
    whole = np.ones(len(y), dtype=np.bool_)
    chosen = [(text, np.asarray(mask, np.bool_), False) for text, mask in panels]
    chosen = chosen or [("", whole, False)]
    if tail and kinds is None:
        chosen.append(("whole range", whole, True))
    tracks = "Tracks" if weights is None else "Weighted tracks"
    figure, axes = canvas.ratio_panels(len(chosen))
    for (title, mask, is_tail), pair in zip(chosen, axes, strict=True):
        rows = [(v[mask], w[mask]) for v in (y, g)]
        if kinds is not None:
            _draw_bars(pair, kinds, rows, name=name, title=title, what=tracks)
            continue
        kept = [(v[~np.isin(v, absent)], u[~np.isin(v, absent)]) for v, u in rows]
        if is_tail:
            both = np.concatenate([v for v, _ in kept])
            edges = bins.edges_of(both, grid=grid, tail=0.0, most=TAIL_BINS)
        else:
            edges = bins.edges_of(*kept[0], grid=grid)
        _draw_histograms(
            pair,
            edges,
            rows,
            absent=absent,
            labels=(tracks, name, unit),
            title=title,
            log=is_tail,
        )
    return figure


def few_values(*samples: ArrayLike) -> FloatArray | None:
    """Return the values of samples if they are only a few, as those of a flag."""
    kinds = np.unique(np.concatenate([np.unique(np.asarray(s)) for s in samples]))
    return kinds.astype(np.float64) if 0 < len(kinds) <= MOST_VALUES else None


@canvas.style()
def plot_two_targets(
    real: tuple[ArrayLike, ArrayLike],
    generated: tuple[ArrayLike, ArrayLike],
    *,
    names: tuple[str, str],
    weights: ArrayLike,
    columns: Sequence[tuple[str, str, BoolArray]],
) -> Figure:
    """Draw two targets (n,) against one another: real above, generated below.

    `columns` are titles of the real and the generated plane, and masks (n,). Ends of
    the axes are the 0.5 and 99.5 % quantiles of all real rows, of which some have more
    than one finite value. NaN is not drawn.
    """
    w = np.asarray(weights, dtype=np.float64)
    edges = []
    for values in real:
        v = np.asarray(values, dtype=np.float64)
        known = np.isfinite(v)
        low, high = bins.quantiles(v[known], w[known], (bins.TAIL, 1 - bins.TAIL))
        edges.append(np.linspace(low, max(high, low + 1e-6), PLANE_BINS + 1))
    width = 3.6 * len(columns) + 1.0
    figure, axes = canvas.sheet(width, 6.8, 2, len(columns), sharex=True, sharey=True)
    drawn = None
    for c, (*titles, mask) in enumerate(columns):
        planes = [
            bins.fill_plane([np.asarray(v)[mask] for v in pair], w[mask], edges)[0]
            for pair in (real, generated)
        ]
        top = max(float(planes[0].max()), 1e-9)
        for axis, plane, title in zip(axes[:, c], planes, titles, strict=True):
            shown = np.where(plane > 0, plane / top, np.nan)
            norm = LogNorm(1e-3, 1.0)
            drawn = axis.pcolormesh(*edges, shown.T, norm=norm, cmap="viridis")
            axis.set_title(title, loc="left", fontsize=11)
            axis.minorticks_off()
    for axis, kind in zip(axes[:, 0], ("real", "generated"), strict=True):
        axis.set_ylabel(f"{kind}: {names[1]}")
    for axis in axes[1]:
        axis.set_xlabel(names[0], loc="right")
    if drawn is not None:
        label = "weighted tracks, of the fullest real cell"
        figure.colorbar(drawn, ax=axes, label=label).ax.minorticks_off()
    return figure


@canvas.style()
def plot_correlation(
    edges: ArrayLike,
    real: ArrayLike,
    generated: ArrayLike,
    error: ArrayLike,
    *,
    condition: str,
    unit: str,
    title: str,
) -> Figure:
    """Draw correlations (m,) in bins of a condition, and their difference."""
    scale, shown = canvas.display_unit(unit)
    x = np.asarray(edges, dtype=np.float64) * scale
    r, g = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    pair = canvas.real_and_generated((r, 0.0 * r), (g, 0.0 * g))
    difference = canvas.series(g - r, error, colour=canvas.GENERATED)
    ends = np.abs([difference.low, difference.high])
    reach = 1.2 * float(np.max(ends, initial=0.0, where=np.isfinite(ends)))
    return canvas.comparison(
        x,
        *pair,
        labels=("rank correlation", condition, shown),
        title=title,
        logx=canvas.is_log(x),
        below=[difference],
        about=0.0,
        label="gen. $-$ real",
        least=max(reach, 1e-3),
        most=max(reach, 1e-3),
    )[0]


def _draw_histograms(
    pair: tuple[Axes, Axes],
    edges: FloatArray,
    rows: Sequence[tuple[FloatArray, FloatArray]],
    *,
    absent: FloatArray,
    labels: tuple[str, str, str],
    title: str,
    log: bool,
) -> None:
    """One pair of panels of a target with many values."""
    tracks, name, unit = labels
    scale, shown = canvas.display_unit(unit)
    texts = [_outside_text(*one, edges, absent) for one in rows]
    counts, errors = bins.fill(*rows[0], edges)
    data = canvas.series(
        np.where(errors > 0, counts, np.nan), errors, label=f"real{texts[0]}"
    )
    made = canvas.series(
        *bins.fill(*rows[1], edges),
        label=f"generated{texts[1]}",
        colour=canvas.GENERATED,
        kind="line",
    )
    width = (edges[1] - edges[0]) * scale
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


def _draw_bars(
    pair: tuple[Axes, Axes],
    kinds: FloatArray,
    rows: Sequence[tuple[FloatArray, FloatArray]],
    *,
    name: str,
    title: str,
    what: str,
) -> None:
    """One pair of panels of a target with a few values, a bar for each."""
    edges = np.arange(len(kinds) + 1.0)
    found = []
    for v, w in rows:
        place = np.where(np.isin(v, kinds), np.searchsorted(kinds, v) + 0.5, np.nan)
        known = np.isfinite(place)
        found.append(bins.fill(place[known], w[known], edges))
    canvas.draw_comparison(
        pair,
        edges,
        *canvas.real_and_generated(*found),
        labels=(what, name, "1"),
        title=title,
        zero=True,
        least=0.02,
    )
    top, bottom = pair
    top.stairs(found[1][0], edges, fill=True, color=canvas.GENERATED, alpha=0.2)
    bottom.set_xticks(edges[:-1] + 0.5, [f"{kind:g}" for kind in kinds])
    for axis in pair:
        axis.tick_params(axis="x", which="both", length=0)
        axis.xaxis.minorticks_off()


def _outside_text(
    values: FloatArray, w: FloatArray, edges: FloatArray, absent: FloatArray
) -> str:
    """Share of the rows that the axis does not show, for the legend."""
    total = w.sum()
    if total <= 0:
        return ""
    missing = np.isin(values, absent)
    beyond = ~missing & ((values < edges[0]) | (values > edges[-1]))
    texts = []
    for text, mask in (("sentinel", missing), ("outside", beyond)):
        share = 100 * w[mask].sum() / total
        if mask.any() and abs(share) >= 0.005:
            texts.append(f"{share:.2f}% {text}")
    return f" ({', '.join(texts)})" if texts else ""
