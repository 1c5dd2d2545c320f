"""Finds the grids of targets, the orders between them, and what stands out on them.

Use it on training rows only. An order is found where no row breaks it, though many
would if the two targets were independent; of several, the tightest ones become
differences. A target that takes a few values only is a class of each; of others, the
values that stand out from their neighbours are atoms.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.errors import TrainingError
from pidgan.sample.grids import (
    MAX_INDEX,
    Grid,
    far_values,
    find_grid,
    standing_out,
    stated_grid,
)
from pidgan.training.targets.grids import LARGE, SPECIAL, GridLayer, padded

# An atom or tie is structure when this share of rows, and at least this many, has it.
MIN_SHARE = 2e-3
MIN_ROWS = 10
# An order is sought in this many rows at least, and is one if independent targets
# would break it in as many rows as this.
MIN_ORDER_ROWS, MIN_BROKEN = 100, 20
# Steps of two targets in order are whole multiples of one another, up to this.
MAX_RATIO = 16
# A target of at most this many values is a class of each, as long as there are at most
# so many classes of all targets together.
MAX_VALUES, MAX_CLASSES = 8, 48
# Share of the rows at a spike of one target in which another one has one value only.
ONLY = 0.9


def least_rows(n: int, share: float = MIN_SHARE) -> float:
    """Return the number of rows, of n, that make a structure."""
    return max(MIN_ROWS, share * n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stated:
    """What a definition says of targets.

    `steps` has the step of each, None where it is to be found; `at_most` pairs of
    targets of which the first is never above the second.
    """

    steps: Sequence[float | None] = ()
    at_most: Sequence[tuple[int, int]] = ()


def find_layer(
    y: FloatArray,
    declared: Sequence[FloatArray],
    stated: Stated,
    *,
    special: bool = True,
) -> GridLayer | None:
    """Return grids and orders of targets (n, d), None where all are continuous.

    Spikes, atoms and what patterns bring are still to be found. Without `special`,
    no value is apart from the others.
    """
    d = y.shape[1]
    steps = [*stated.steps, *[None] * (d - len(stated.steps))]
    grids = [_grid(y[:, j], declared[j], steps[j]) for j in range(d)]
    for i, j in stated.at_most:
        if (grids[i] is None) != (grids[j] is None):
            raise TrainingError(
                f"target number {i} is at most target number {j}, of which one is on a "
                "grid; expected both or none"
            )
    ordered = {j for pair in stated.at_most for j in pair}
    coded = [grids[j] is not None or j in ordered for j in range(d)]
    if not any(coded):
        return None
    apart = [
        _special(y[:, j], declared[j]) if special and coded[j] else [] for j in range(d)
    ]
    nothing = np.zeros((1, d), dtype=np.int64)
    blank = GridLayer(
        step=np.array([g.step if g else 0.0 for g in grids]),
        offset=np.array([g.offset if g else 0.0 for g in grids]),
        special=padded(apart, np.nan),
        spikes=np.zeros((d, 0)),
        atoms=np.zeros((d, 0)),
        first=np.full(d, -LARGE),
        last=np.full(d, LARGE),
        orders=np.zeros((0, 4)),
        equal=np.zeros((0, 3)),
        absolute=nothing,
        is_special=nothing,
        value=nothing.astype(np.float64),
    )
    places = blank.places(y)
    first, last = blank.first.copy(), blank.last.copy()
    for j in range(d):
        inside = _measured(places[:, j])
        if coded[j] and inside.any():
            first[j], last[j] = places[inside, j].min(), places[inside, j].max()
    ends = dataclasses.replace(blank, first=first, last=last)
    orders, equal = _orders(ends, places, stated.at_most)
    return dataclasses.replace(ends, orders=orders, equal=equal)


def _grid(values: FloatArray, declared: FloatArray, step: float | None) -> Grid | None:
    if step is None:
        return find_grid(values, sentinels=declared.tolist())
    measured = values[~np.isin(values, declared)]
    grid = stated_grid(measured, step)
    steps = np.abs(np.nan_to_num(grid.index(measured))).max(initial=0)
    if steps > MAX_INDEX:
        raise TrainingError(
            f"a target on a grid of step {step:g} has values up to "
            f"{np.abs(measured).max():g}, {steps:.0f} steps; single precision tells "
            f"{MAX_INDEX:.0f} apart"
        )
    return grid


def _special(values: FloatArray, declared: FloatArray) -> list[float]:
    """Return sentinels, and frequent values far from all others."""
    unique, counts = np.unique(values, return_counts=True)
    far = far_values(unique, counts, ~np.isin(unique, declared))
    return [*declared.tolist(), *unique[far].tolist()]


def _measured(places: FloatArray) -> BoolArray:
    """Return which places are neither special nor off the grid."""
    return np.asarray(places > SPECIAL)


def _orders(
    layer: GridLayer, places: FloatArray, at_most: Sequence[tuple[int, int]]
) -> tuple[FloatArray, FloatArray]:
    """Return the orders of targets, stated and found, and which are equal ones."""
    equal: list[tuple[float, ...]] = []
    orders = [_order(layer, places, i, j) for i, j in at_most]
    copies: set[int] = set()
    for i, j in itertools.combinations(np.flatnonzero(layer.on_grid).tolist(), 2):
        known = {i, j} & copies or (i, j) in at_most or (j, i) in at_most
        rows = _measured(places[:, i]) & _measured(places[:, j])
        if known or rows.sum() < MIN_ORDER_ROWS or not _comparable(layer, i, j):
            continue
        low, high = (layer.grid(t).values(places[rows, t]) for t in (i, j))
        apart = places[rows, j] - places[rows, i]
        if (apart == apart[0]).all() and _would_break(low, high):
            equal.append((j, i, float(apart[0])))
            copies.add(j)
        elif _is_below(low, high) and _would_break(low, high):
            orders.append(_order(layer, places, i, j))
        elif _is_below(high, low) and _would_break(high, low):
            orders.append(_order(layer, places, j, i))
    return np.reshape(orders, (-1, 4)), np.reshape(equal, (-1, 3))


def _comparable(layer: GridLayer, i: int, j: int) -> bool:
    """Return whether one of two steps is a small multiple of the other one."""
    ratio = max(layer.step[[i, j]]) / min(layer.step[[i, j]])
    return bool(ratio <= MAX_RATIO and abs(ratio - round(ratio)) < 1e-6)


def _is_below(low: FloatArray, high: FloatArray) -> bool:
    """Return whether an order holds in all rows, but for rounding."""
    return bool((low <= high + 1e-6 * np.abs(high)).all())


def _would_break(low: FloatArray, high: FloatArray) -> bool:
    """Return whether independent targets would break the order low <= high."""
    mixed = np.random.default_rng(len(high)).permutation(high)
    return bool((low > mixed).sum() >= MIN_BROKEN)


def _order(
    layer: GridLayer, places: FloatArray, i: int, j: int
) -> tuple[float, float, float, float]:
    """Return the bound that target j sets to target i, see `GridLayer`."""
    if not layer.on_grid[i]:
        return i, j, 1.0, 0.0
    scale = float(layer.step[j] / layer.step[i])
    shift = float((layer.offset[j] - layer.offset[i]) / layer.step[i])
    rows = _measured(places[:, i]) & _measured(places[:, j])
    if scale != 1:  # half a place more than the bound, against rounding
        return i, j, scale, shift + 0.5 * min(1.0, scale)
    apart = places[rows, j] - places[rows, i]
    return i, j, 1.0, -float(apart.min()) if rows.any() else float(np.floor(shift))


def partners(layer: GridLayer, places: FloatArray) -> FloatArray:
    """Return the costs (d, d) of differences between targets, for a spanning forest.

    A cost is negative, or 0 where there is no reason for a difference. Copies cost
    least, then orders, the tightest ones first, then ties that stand out.
    """
    n, d = places.shape
    costs = np.zeros((d, d))
    for j, i, _ in layer.equal:
        costs[int(i), int(j)] = -4.0 * n
    for i, j in layer.orders[layer.orders[:, 2] == 1, :2].astype(int):
        rows = _measured(places[:, i]) & _measured(places[:, j])
        if rows.any():
            apart = float(np.mean(places[rows, j] - places[rows, i]))
            costs[min(i, j), max(i, j)] = -n * (2 + 1 / (1 + apart))
    at = [standing_out(c[_measured(c)], least=least_rows(n)) for c in places.T]
    for i, j in itertools.combinations(np.flatnonzero(layer.on_grid), 2):
        same = layer.step[i] == layer.step[j] and layer.offset[i] == layer.offset[j]
        rows = _measured(places[:, i]) & ~np.isin(places[:, i], at[i])
        rows &= _measured(places[:, j]) & ~np.isin(places[:, j], at[j])
        if not same or costs[i, j] or not rows.any():
            continue
        apart_of = places[rows, j] - places[rows, i]
        if 0 in standing_out(apart_of, least=least_rows(n)):
            costs[i, j] = -float((apart_of == 0).sum()) - (i * d + j) / d**2
    return costs


def _only_values(
    places: FloatArray, base: FloatArray, at: FloatArray, least: float
) -> list[float]:
    """Return the places that nearly all rows have at a spike of the base.

    Those whose difference to the base is frequent elsewhere too are left out.
    """
    found = []
    for spike in at:
        unique, counts = np.unique(places[base == spike], return_counts=True)
        if counts.sum() >= least and counts.max() >= ONLY * counts.sum():
            value = unique[counts.argmax()]
            elsewhere = (places - base)[base != spike] == value - spike
            if not elsewhere.mean() > 0.5:
                found.append(float(value))
    return found


def with_atoms(layer: GridLayer, places: FloatArray, base: IntArray) -> GridLayer:
    """Return the layer with the spikes and atoms of targets on grids."""
    n, d = places.shape
    least = least_rows(n)
    spikes: list[FloatArray] = [np.zeros(0)] * d
    for j in np.flatnonzero(layer.on_grid & (base >= 0)).tolist():
        b = places[:, base[j]]
        rows = _measured(places[:, j]) & _measured(b)
        at = standing_out(b[_measured(b)], least=least)
        found = standing_out(places[rows & ~np.isin(b, at), j], least=least)
        alone = _only_values(places[rows, j], b[rows], at, least)
        spikes[j] = np.unique([*found, *alone])
    layer = dataclasses.replace(layer, spikes=padded(spikes, np.nan))
    values, absolute = layer.coordinates(places, base)
    atoms: list[FloatArray] = [np.zeros(0)] * d
    classes: dict[int, FloatArray] = {}
    for j in np.flatnonzero(layer.on_grid).tolist():
        free = values[_measured(places[:, j]) & ~absolute[:, j], j]
        if len(free):
            atoms[j] = standing_out(free, least=least)
            unique, counts = np.unique(free, return_counts=True)
            often = counts >= least
            rest = counts[~often].sum()
            if 0 < often.sum() <= MAX_VALUES and rest <= MIN_SHARE * len(free):
                classes[j] = unique[often]
    total = 1
    for j in sorted(classes, key=lambda t: len(classes[t])):
        total *= len(classes[j])
        if total <= MAX_CLASSES:
            atoms[j] = classes[j]
    # A copy of a target is none where one of the two is special.
    special = np.flatnonzero(np.isfinite(layer.special).any(axis=1))
    equal = layer.equal[~np.isin(layer.equal[:, :2], special).any(axis=1)]
    return dataclasses.replace(layer, atoms=padded(atoms, LARGE), equal=equal)


def with_patterns(
    layer: GridLayer, patterns: IntArray, atoms: FloatArray, absolute: BoolArray
) -> GridLayer:
    """Return the layer with what patterns (n_patterns, d) bring."""
    is_special = (patterns == 0) & layer.is_coded & (atoms <= SPECIAL)
    number = np.where(is_special, SPECIAL - atoms, 0).astype(np.int64)
    values = np.pad(layer.special, ((0, 0), (0, 1)))  # a column more, if there is none
    found = values[np.arange(atoms.shape[1]), number]
    return dataclasses.replace(
        layer,
        absolute=absolute.astype(np.int64),
        is_special=is_special.astype(np.int64),
        value=np.where(is_special, found, 0.0),
    )
