"""Pictures of efficiencies in bins: curves, slices, planes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pidgan.report.binned import Binned, Values
from pidgan.report.plots import Figure, canvas
from pidgan.report.plots.curves import (
    Curves,
    Plane,
    curve,
    plot_bars,
    plot_curves,
    plot_planes,
)

Draw = Callable[[], Figure]

MOST_PANELS = 12
"""Panels of one picture; further slices are on pictures of their own."""

COLOURS = {
    "real": canvas.REAL,
    "efficiency": canvas.REAL,
    "generated": canvas.GENERATED,
    "corrected": canvas.CORRECTED,
}


def table_pictures(tables: Sequence[Binned]) -> dict[str, Draw]:
    """Return the pictures of tables of the same cuts, the first of the signal.

    The others are misIDs. Curves of tables in several conditions are slices.
    """
    first = tables[0]
    found: dict[str, Draw] = {}
    if not first.edges:
        found["efficiency"] = partial(draw_bars, tables)
        return found
    for cut in first.cuts:
        rejected = [one for one in tables[1:] if cut in one.cuts]
        both = [first, *rejected]
        pages = _pages(first)
        for number, places in enumerate(pages, start=1):
            more = f" ({number} of {len(pages)})" if len(pages) > 1 else ""
            name = f"efficiency {cut}{more}"
            found[name] = partial(draw_slices, both, cut, places)
        if len(first.edges) == 2:
            for one in both:
                which = f" of {one.species}" if len(both) > 1 else ""
                found[f"plane {cut}{which}"] = partial(draw_plane, one, cut)
    return found


def draw_curves(
    tables: Mapping[str, Sequence[Binned]], cut: str, *, note: str = ""
) -> Figure:
    """Draw efficiencies of a cut against conditions: tables of species by condition."""
    panels = [panel_of(species, cut, (), note=note) for species in tables.values()]
    every = next(iter(tables.values()))
    return _plot(panels, every, cut)


def draw_slices(
    tables: Sequence[Binned], cut: str, places: Sequence[tuple[tuple[int, ...], str]]
) -> Figure:
    """Draw efficiencies of a cut against the first condition, in bins of the others."""
    panels = [panel_of(tables, cut, place, note=text) for place, text in places]
    return _plot(panels, tables, cut)


def _plot(panels: Sequence[Curves], tables: Sequence[Binned], cut: str) -> Figure:
    has_misid = len(tables) > 1
    label = "Efficiency, misID" if has_misid else "Efficiency"
    if not has_misid and tables[0].species:
        label = f"Efficiency of {canvas.species_text(tables[0].species)}"
    is_map = "corrected" in tables[0].kinds
    below = "corr. $-$ gen." if is_map else "gen. $-$ real"
    return plot_curves(panels, title=canvas.cut_text(cut), label=label, below=below)


def panel_of(
    tables: Sequence[Binned], cut: str, place: tuple[int, ...], *, note: str = ""
) -> Curves:
    """Return the curves of a cut against the first condition of tables."""
    first = tables[0]
    (name, edges), unit = next(iter(first.edges.items())), first.units[0]
    series, below = [], []
    for number, table in enumerate(tables):
        row = table.cuts.index(cut)
        whose = canvas.species_text(table.species) if len(tables) > 1 else ""
        at: Any = (row, slice(None), *place)
        for kind, values in table.kinds.items():
            series.append(_series(kind, values.of(*at), whose, hollow=number > 0))
        difference = _difference(table)
        if difference is not None:
            v = difference.of(*at)
            is_map = "corrected" in table.kinds
            style: dict[str, Any] = {"hollow": number > 0}
            colour = COLOURS["corrected" if is_map else "generated"]
            below.append(curve(v.value, (v.low, v.high), "", colour, **style))
    return Curves(
        condition=name,
        unit=unit,
        edges=np.asarray(edges),
        series=series,
        below=below,
        note=note,
    )


def _series(kind: str, v: Values, whose: str, *, hollow: bool) -> canvas.Series:
    text = f"{kind} {whose}".strip()
    is_line = kind == "generated"
    style: dict[str, Any] = {"kind": "line", "dashed": hollow} if is_line else {}
    return curve(v.value, (v.low, v.high), text, COLOURS[kind], hollow=hollow, **style)


def _difference(table: Binned) -> Values | None:
    """Return what stands below: generated minus real, or the correction of a map."""
    if table.difference is not None:
        return table.difference
    if {"corrected", "generated"} <= set(table.kinds):
        corrected, made = table.kinds["corrected"], table.kinds["generated"].value
        return Values(
            value=corrected.value - made,
            low=corrected.low - made,
            high=corrected.high - made,
        )
    return None


def draw_plane(table: Binned, cut: str) -> Figure:
    """Draw efficiencies of a cut in the plane of two conditions, and what differs."""
    row = table.cuts.index(cut)
    planes = []
    names = {
        "real": "real efficiency",
        "generated": "generated efficiency",
        "efficiency": "efficiency",
        "corrected": "corrected efficiency",
    }
    for kind, values in table.kinds.items():
        v = values.of(row)
        errors = None if kind == "generated" else v.error
        planes.append(Plane(values=v.value, label=names[kind], errors=errors))
    difference = _difference(table)
    if difference is not None and "corrected" not in table.kinds:
        v = difference.of(row)
        with np.errstate(divide="ignore", invalid="ignore"):
            pull = v.value / v.error
        label = "gen. $-$ real"
        planes.append(
            Plane(values=v.value, label=label, kind="difference", errors=v.error)
        )
        planes.append(Plane(values=pull, label="pull of gen. $-$ real", kind="pull"))
    elif difference is not None:
        v = difference.of(row)
        label = "corrected $-$ generated"
        planes.append(Plane(values=v.value, label=label, kind="difference"))
        planes.append(Plane(values=v.error, label="uncertainty", kind="error"))
    else:
        (v,) = (values.of(row) for values in table.kinds.values())
        planes.append(Plane(values=v.error, label="uncertainty", kind="error"))
    (x, y), units = table.edges.items(), table.units
    whose = f", {canvas.species_text(table.species)}" if table.species else ""
    return plot_planes(
        (x[1], y[1]),
        planes,
        names=(x[0], y[0]),
        units=(units[0], units[1]),
        title=f"{canvas.cut_text(cut)}{whose}",
    )


def draw_bars(tables: Sequence[Binned]) -> Figure:
    """Draw efficiencies of all rows, a line for each cut."""
    first = tables[0]
    series = []
    for number, table in enumerate(tables):
        whose = canvas.species_text(table.species) if len(tables) > 1 else ""
        for kind, v in table.kinds.items():
            own = _series(kind, v, whose, hollow=number > 0)
            series.append(own)
    return plot_bars(first.cuts, series)


def _pages(table: Binned) -> list[list[tuple[tuple[int, ...], str]]]:
    """Return the slices of each picture; those of a third condition stay together."""
    slices = list(table.slices())
    each = table.shape[1] if len(table.shape) > 2 else len(slices)
    if len(table.shape) > 2:
        # The second condition varies within a page.
        slices.sort(key=lambda one: (one[0][1:], one[0][0]))
    size = min(max(each, 1), MOST_PANELS)
    groups = [slices[i : i + each] for i in range(0, len(slices), max(each, 1))]
    return [group[i : i + size] for group in groups for i in range(0, len(group), size)]
