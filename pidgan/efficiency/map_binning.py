"""Bins of efficiency maps, which cover the range that a generator was trained in."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pidgan.bundle.card import Card
from pidgan.efficiency.binning import Binning, by_condition, choose_edges
from pidgan.errors import MapError

WIDE_END = 4.0
"""Width of an added end bin, relative to its neighbour, from which it is divided ..."""

MAX_END_BINS = 3
"""... into at most this many."""

AUTO_BINS = 4
"""Bins along an axis where the sample has no binning ..."""

MAX_AXES = 3
"""... for its first three conditions."""


def map_edges(
    card: Card, binning: Binning | None, frame: pd.DataFrame
) -> dict[str, tuple[float, ...]]:
    """Return edges by condition; bins of a name or a number cover the trained range.

    Args:
        card: Card of the generator.
        binning: Binning as in `run_systematics`.
        frame: Reference rows, with their "weight".

    Raises:
        MapError: The binning is empty, or has a condition that the generator lacks.
    """
    if binning is None:
        return default_binning(card, frame)
    chosen = by_condition(binning)
    if not chosen:
        raise MapError("the binning is empty, expected edges by condition")
    ranges = {v.name: v.range for v in card.conditions}
    weights = frame["weight"].to_numpy(np.float64)
    try:
        edges = choose_edges(chosen, frame[list(ranges)], weights, ranges=ranges)
    except ValueError as error:
        raise MapError(str(error)) from None
    for name, wanted in chosen.items():
        if isinstance(binning, str) or isinstance(wanted, str):
            edges[name] = _cover(ranges[name], edges[name])
    return edges


def default_binning(
    card: Card, frame: pd.DataFrame | None = None
) -> dict[str, tuple[float, ...]]:
    """Return the edges that are used where none are given.

    Args:
        card: Card of the generator.
        frame: Conditions, for quantiles where the sample has no binning.
    """
    own = card.sample.map_binning or card.sample.binning
    edges: dict[str, tuple[float, ...]] = {}
    for variable in card.conditions:
        name = variable.name
        if name in own:
            edges[name] = _cover(variable.range, own[name])
        elif not own and frame is not None and len(edges) < MAX_AXES:
            values = np.quantile(frame[name], np.linspace(0, 1, AUTO_BINS + 1))
            low, high = variable.range
            inner = [e for e in np.unique(values)[1:-1].tolist() if low < e < high]
            edges[name] = (low, *inner, high)
    return edges


def _cover(range_: tuple[float, float], edges: Sequence[float]) -> tuple[float, ...]:
    """Change the ends of a binning, or add bins, so that it covers the trained range.

    An end much wider than the bin beside it is divided: an analysis fills it
    differently.
    """
    low, high = range_
    inner = [e for e in edges if low < e < high]
    if len(inner) < 2:
        return (low, *inner, high)
    first, last = inner[1] - inner[0], inner[-1] - inner[-2]
    left, right = (
        min(MAX_END_BINS, math.ceil(width / (WIDE_END * beside)))
        for width, beside in ((inner[0] - low, first), (high - inner[-1], last))
    )
    return (
        *np.linspace(low, inner[0], left + 1)[:-1].tolist(),
        *inner,
        *np.linspace(inner[-1], high, right + 1)[1:].tolist(),
    )
