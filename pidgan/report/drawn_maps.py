"""Pictures of efficiency maps: efficiencies, corrected and generated, and errors."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.map_averages import REFERENCE, average, map_sizes
from pidgan.report.binned import Binned, Values, binned
from pidgan.report.drawn_tables import draw_bars, draw_curves, draw_plane
from pidgan.report.plots import Figure
from pidgan.report.plots.efficiencies import plot_breakdown

Draw = Callable[[], Figure]


def map_pictures(maps: Sequence[EfficiencyMap], cuts: Sequence[str]) -> dict[str, Draw]:
    """Return pictures of maps, the first of the signal, the others of misIDs.

    A curve against one condition is the mean over the bins of the others, with the
    shares of the reference rows, as in the report of the map.
    """
    first = maps[0]
    numbers = [first.cut_index(cut) for cut in cuts] or range(len(first.cuts))
    found: dict[str, Draw] = {}
    for number in numbers:
        cut = first.cuts[number]
        found[f"efficiency {cut}"] = partial(_draw_cut, maps, cut)
        for one in maps if len(first.binning) > 1 else ():
            which = f" of {one.metadata['species']}" if len(maps) > 1 else ""
            found[f"plane {cut}{which}"] = partial(_draw_plane, one, cut)
    for one in maps:
        which = f" of {one.metadata['species']}" if len(maps) > 1 else ""
        found[f"uncertainty{which}"] = partial(_draw_parts, one, list(numbers))
    return found


def mean_over(given: EfficiencyMap, names: Sequence[str]) -> Binned:
    """Return a map in bins of some conditions, averaged over the others.

    The shares are those of the reference rows; see `pidgan.efficiency.map_averages`.
    """
    whole = binned(given)
    axes = [list(given.binning).index(name) for name in names]
    places = np.arange(len(given.n_eff)).reshape(given.shape)
    shape = tuple(given.shape[axis] for axis in axes)
    groups = np.moveaxis(places, axes, range(len(axes))).reshape(
        int(np.prod(shape)), -1
    )
    sizes = map_sizes(given)
    found = [average(given, sizes, inside) for inside in groups]
    value, error, made = (
        np.array(arrays).T.reshape(-1, *shape)
        for arrays in zip(
            *((one.corrected, one.error, one.generated) for one in found), strict=True
        )
    )
    return Binned(
        cuts=given.cuts,
        edges={name: given.binning[name] for name in names},
        units=tuple(whole.units[axis] for axis in axes),
        kinds={
            "corrected": Values(value=value, low=value - error, high=value + error),
            "generated": Values(value=made, low=made, high=made),
        },
        species=whole.species,
    )


def _draw_cut(maps: Sequence[EfficiencyMap], cut: str) -> Figure:
    own = [one for one in maps if cut in one.cuts]
    names = list(own[0].binning)
    if not names:
        return draw_bars([binned(one) for one in own])
    tables = {name: [mean_over(one, [name]) for one in own] for name in names}
    note = f"average over the other conditions, {shares_text(own[0])}"
    return draw_curves(tables, cut, note=note if len(names) > 1 else "")


def _draw_plane(given: EfficiencyMap, cut: str) -> Figure:
    return draw_plane(mean_over(given, list(given.binning)[:2]), cut)


def _draw_parts(given: EfficiencyMap, numbers: Sequence[int]) -> Figure:
    """Draw the parts of the uncertainty of all bins together."""
    rows = list(numbers)
    found = average(given, map_sizes(given))
    parts = {name: part[rows] for name, part in found.parts.items()}
    cuts = [given.cuts[row] for row in rows]
    title = f"{given.metadata['species']}: all bins, {shares_text(given)}"
    return plot_breakdown(cuts, parts, found.error[rows], title=title)


def shares_text(given: EfficiencyMap) -> str:
    """Say with which shares bins are averaged."""
    is_known = "shares" in given.metadata.get(REFERENCE, {})
    return "by weights of the reference" if is_known else "by effective rows"
