"""How an analysis fills the bins of a map, for efficiencies without generated columns.

A bin of a map has one efficiency, the mean over the reference rows in it. Where tracks
of an analysis lie elsewhere in the bin, their efficiency is another one. With the mean
position m_jb of the reference in bin b along axis j, and the slope s_jb of the
efficiency from bin to bin there, a row at x in bin b is off by about

    sum_j s_jb (x_j - m_jb).

Its mean over the rows of an analysis is what the filling of bins may change. Generated
columns know the conditions of each track and have no such error; `transfer` of
`pid_efficiency` is what is left of it. Maps of versions before 0.2 have no m, and
nothing is added.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency import binning as bins
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.map_averages import REFERENCE

NAME = "filling"
"""Name of this part of the uncertainty, and of its column."""

CENTRES = "centres"
"""Where the metadata of a map have the mean conditions of the reference in each bin."""

ROUNDING = 1e-9
"""Share of the width of a bin by which a mean may be outside."""


def centres_of(
    columns: Mapping[str, FloatArray], weights: FloatArray, edges: bins.ChosenEdges
) -> dict[str, list[float]]:
    """Return the mean (n_bins,) of each condition of a map in its bins.

    It is the middle of a bin where the weights give no mean inside.
    """
    place = bins.bin_index(columns, edges)
    inside, n = place >= 0, bins.count_bins(edges)
    at, w = place[inside], weights[inside]
    norm = np.bincount(at, w, n)
    steps = np.indices(bins.bin_shape(edges)).reshape(len(edges), -1)
    found = {}
    for (name, ends), step in zip(edges.items(), steps, strict=True):
        low, high = np.asarray(ends)[step], np.asarray(ends)[step + 1]
        total = np.bincount(at, w * columns[name][inside], n)
        mean = np.divide(total, norm, out=np.full(n, np.nan), where=norm > 0)
        # A mean of values that are all at an edge, such as a charge, is rounded.
        margin = ROUNDING * (high - low)
        usable = (mean >= low - margin) & (mean <= high + margin)
        middle = np.where(usable, np.clip(mean, low, high), (low + high) / 2)
        found[name] = middle.tolist()
    return found


def has_centres(efficiency_map: EfficiencyMap) -> bool:
    """Return whether a map tells where the reference lies in its bins."""
    return bool(_centres(efficiency_map))


def _centres(efficiency_map: EfficiencyMap) -> dict[str, FloatArray]:
    """Return the mean conditions in bins; empty in a map of an older version."""
    known = efficiency_map.metadata.get(REFERENCE, {}).get(CENTRES, {})
    if set(known) != set(efficiency_map.binning):
        return {}
    return {name: np.asarray(known[name]) for name in efficiency_map.binning}


def slopes_of(efficiency_map: EfficiencyMap, cut: int) -> FloatArray:
    """Return derivatives (n_axes, n_bins) of the efficiency of a cut.

    They are differences between the bins on both sides; zero without such bins, and in
    a map of an older version.
    """
    edges = efficiency_map.binning
    centres, shape = _centres(efficiency_map), bins.bin_shape(edges)
    nominal = efficiency_map.nominal[cut].reshape(shape)
    found = np.zeros((len(edges), nominal.size))
    for axis, (name, n) in enumerate(zip(edges, shape, strict=True)):
        if not centres or n < 2:
            continue
        up, down = np.minimum(np.arange(n) + 1, n - 1), np.maximum(np.arange(n) - 1, 0)
        rise, width = (
            np.take(values, up, axis) - np.take(values, down, axis)
            for values in (nominal, centres[name].reshape(shape))
        )
        slope = np.divide(rise, width, out=np.zeros(shape), where=width > 0)
        found[axis] = np.nan_to_num(slope).ravel()
    return found


def offsets_of(
    efficiency_map: EfficiencyMap, columns: Mapping[str, Any], place: IntArray
) -> FloatArray:
    """Return distances (n_axes, n) of rows from the mean of the reference in their bin.

    They are zero outside the map, and with a map of an older version.
    """
    centres, inside = _centres(efficiency_map), place >= 0
    found = np.zeros((len(efficiency_map.binning), len(place)))
    for axis, name in enumerate(centres):
        mean = centres[name][place[inside]]
        found[axis, inside] = np.asarray(columns[name])[inside] - mean
    return found
