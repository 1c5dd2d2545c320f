"""Rows outside an efficiency map: how many there are, of which condition, what weight.

Nothing is known of the generator there. Such a row keeps its generated outcome, without
correction, and the uncertainty of the efficiency grows.
"""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency.binning import Edges, bin_index
from pidgan.efficiency.track_maps import Maps
from pidgan.errors import MapError, PidganWarning
from pidgan.sample.cuts import Columns


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Rows that lie outside a map by one condition.

    Attributes:
        low: Lower edge of the map.
        high: Upper edge of the map.
        rows: Number of rows that are not between the two.
        weights: Sum of their weights.
        share: Their share of the sum of all weights; NaN if that is not positive.
    """

    low: float
    high: float
    rows: int
    weights: float
    share: float = math.nan


OutsideByTrack = Mapping[str, Mapping[str, Outside]]
"""For each track, by condition of its map."""


def sum_outside(
    columns: Columns, binning: Edges, place: IntArray, weights: FloatArray
) -> dict[str, Outside]:
    """Return, by condition of a map, the rows (n,) outside; -1 in `place`."""
    lost = np.flatnonzero(place < 0)
    found = {}
    for name, edges in binning.items():
        own = np.asarray(columns[name])[lost]
        beyond: BoolArray = bin_index({name: own}, {name: edges}) < 0
        found[name] = Outside(
            low=float(edges[0]),
            high=float(edges[-1]),
            rows=int(np.count_nonzero(beyond)),
            weights=float(weights[lost][beyond].sum()),
        )
    return found


def add_outside(
    parts: Iterable[OutsideByTrack], *, total: float
) -> dict[str, dict[str, Outside]]:
    """Return the sums over parts of the rows, whose weights have this sum in all."""
    sums: dict[str, dict[str, Outside]] = {}
    for part in parts:
        for track, found in part.items():
            mine = sums.setdefault(track, {})
            for name, more in found.items():
                old = mine.get(name)
                rows = more.rows + (old.rows if old else 0)
                weights = more.weights + (old.weights if old else 0.0)
                share = weights / total if total > 0 else math.nan
                mine[name] = replace(more, rows=rows, weights=weights, share=share)
    return sums


def outside_texts(found: Mapping[str, Outside]) -> list[str]:
    """Say of each condition by which rows lie outside how many there are."""
    return [
        f"{name} not in {own.low:g} to {own.high:g}: {own.rows} rows, "
        f"{100 * own.share:.2f} % of the weight"
        for name, own in found.items()
        if own.rows
    ]


def check_places(
    places: Mapping[str, IntArray],
    weights: FloatArray,
    maps: Maps,
    *,
    outside: OutsideByTrack,
    refuse: bool,
) -> None:
    """Warn of rows (n,) outside the maps of tracks, or refuse them."""
    for track, place in places.items():
        n_outside = np.count_nonzero(place < 0)
        if not n_outside:
            continue
        edges = maps[track].binning
        limits = ", ".join(f"{name} {e[0]:g} to {e[-1]:g}" for name, e in edges.items())
        which = f" of {track}" if len(maps) > 1 else ""
        message = (
            f"{n_outside} of {len(weights)} rows lie outside the efficiency map{which} "
            f"({limits})"
        )
        if causes := outside_texts(outside.get(track, {})):
            message += f": {'; '.join(causes)}"
        if refuse:
            raise MapError(message)
        warnings.warn(
            f"{message}; they keep their generated outcome, are not corrected, and the "
            "uncertainty grows",
            PidganWarning,
            stacklevel=4,
        )
