"""Pictures of efficiency maps: efficiencies, corrected and generated, and errors."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.variations import in_quadrature, parts_of_variations
from pidgan.report.binned import Binned, Values, binned
from pidgan.report.drawn_tables import draw_bars, draw_curves, draw_plane
from pidgan.report.plots import Figure
from pidgan.report.plots.efficiencies import plot_breakdown

Draw = Callable[[], Figure]

AVERAGE = "average over the other conditions, by effective rows"


def map_pictures(maps: Sequence[EfficiencyMap], cuts: Sequence[str]) -> dict[str, Draw]:
    """Return pictures of maps, the first of the signal, the others of misIDs.

    A curve against one condition is the mean over the bins of the others, each with its
    effective rows of the calibration sample.
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

    With shares f of the effective rows, the efficiency is f e, and its variance
    f C f + sum (f v)^2 over the variations v.
    """
    whole = binned(given)
    axes = [list(given.binning).index(name) for name in names]
    places = np.arange(len(given.n_eff)).reshape(given.shape)
    shape = tuple(given.shape[axis] for axis in axes)
    groups = np.moveaxis(places, axes, range(len(axes))).reshape(
        int(np.prod(shape)), -1
    )
    value, error, made = np.full((3, len(given.cuts), len(groups)), np.nan)
    for place, inside in enumerate(groups):
        total = given.n_eff[inside].sum()
        if total > 0:
            f = given.n_eff[inside] / total
            value[:, place] = given.nominal[:, inside] @ f
            made[:, place] = given.generated[:, inside] @ f
            error[:, place] = _errors(given, inside, f)
    value, error, made = (a.reshape(-1, *shape) for a in (value, error, made))
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


def _errors(given: EfficiencyMap, inside: IntArray, f: FloatArray) -> FloatArray:
    """Return the uncertainty of the mean of some bins, for each cut."""
    block = given.covariance[:, inside][:, :, inside]
    variance = np.einsum("a,cab,b->c", f, block, f)
    for shift in given.variations.values():
        variance = variance + (shift[:, inside] @ f) ** 2
    return np.asarray(np.sqrt(variance))


def _draw_cut(maps: Sequence[EfficiencyMap], cut: str) -> Figure:
    own = [one for one in maps if cut in one.cuts]
    names = list(own[0].binning)
    if not names:
        return draw_bars([binned(one) for one in own])
    tables = {name: [mean_over(one, [name]) for one in own] for name in names}
    return draw_curves(tables, cut, note=AVERAGE if len(names) > 1 else "")


def _draw_plane(given: EfficiencyMap, cut: str) -> Figure:
    return draw_plane(mean_over(given, list(given.binning)[:2]), cut)


def _draw_parts(given: EfficiencyMap, numbers: Sequence[int]) -> Figure:
    """Draw the parts of the uncertainty of all bins together."""
    f = given.n_eff / given.n_eff.sum()
    rows = list(numbers)
    own = given.propagate(f)
    parts = {"calibration": np.sqrt(np.diag(own))[rows]}
    for name, shifts in parts_of_variations(given.variations).items():
        parts[name] = in_quadrature([shift @ f for shift in shifts])[rows]
    total = _errors(given, np.arange(len(f)), f)[rows]
    cuts = [given.cuts[row] for row in rows]
    title = f"{given.metadata['species']}: all bins, by effective rows"
    return plot_breakdown(cuts, parts, total, title=title)
