"""Finds the discrete structure of the targets of tracks: atoms, ties and patterns.

Atoms are values that a finite share of rows takes exactly; on a grid, those that stand
out from their neighbours. Ties are atoms of differences. Patterns are combinations of
atoms that occur.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csgraph

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.sample.grids import standing_out
from pidgan.training.targets.grid_fits import (
    Stated,
    find_layer,
    least_rows,
    partners,
    with_atoms,
    with_patterns,
)
from pidgan.training.targets.grids import LARGE, SPECIAL, Coordinates, GridLayer
from pidgan.training.targets.tracks import (
    ABSOLUTE,
    CONTINUOUS,
    N_KNOTS,
    TargetTransform,
    differences,
)

# A pattern is learnt when it has this share of rows, and at least as many: the atoms
# that it is made of are known to be none by chance.
MIN_PATTERN_SHARE = 3e-5
# More values than these that repeat are those of a grid that some rows are off.
MAX_ATOMS = 32


def find_structure(
    y: FloatArray,
    declared: Sequence[FloatArray],
    stated: Stated,
    *,
    from_first: bool = False,
) -> tuple[TargetTransform, Coordinates]:
    """Return a transform of targets (n, d) to be fitted, and their coordinates.

    Weights do not count here; declared values are atoms, however rare they are. A
    target of which all values are declared is continuous in no pattern. Of tied targets
    the one with most ties is no difference, or the first one with `from_first`.
    """
    layer = find_layer(y, declared, stated)
    if layer is None:
        base = _find_ties(y, declared, from_first=from_first)
        coordinates = Coordinates(differences(y, base), np.zeros(y.shape, np.bool_))
    else:
        places = layer.places(y)
        base = _find_ties(y, declared, layer=layer, costs=partners(layer, places))
        layer = with_atoms(layer, places, base)
        coordinates = layer.coordinates(places, base)
    found = [_atoms(coordinates, declared, base, layer, j) for j in range(y.shape[1])]
    codes = [_codes(coordinates, atoms, j) for j, atoms in enumerate(found)]
    closed = any(np.isin(v, d).all() for v, d in zip(y.T, declared, strict=True))
    patterns = _frequent_patterns(np.stack(codes, axis=1), found, layer)
    kept = patterns[~(patterns == CONTINUOUS).all(axis=1)] if closed else patterns
    blank = blank_transform(base, (kept < 0).astype(np.int64), _atoms_of(kept, found))
    if layer is not None:
        blank = _with_layer(blank, layer, kept, found)
    return blank, coordinates


class _Atoms(NamedTuple):
    """Atoms (m,) of a coordinate, and which are absolute, and which are sentinels."""

    values: FloatArray
    absolute: BoolArray
    sentinel: BoolArray


def _atoms(
    coordinates: Coordinates,
    declared: Sequence[FloatArray],
    base: IntArray,
    layer: GridLayer | None,
    j: int,
) -> _Atoms:
    """Return the atoms of coordinate j."""
    values, absolute = coordinates.values[:, j], coordinates.absolute[:, j]
    if layer is None or not layer.is_coded[j]:
        sentinels = declared[j] if base[j] < 0 else declared[j][:0]
        atoms = find_atoms(values, sentinels)
        return _Atoms(atoms, np.zeros(len(atoms), np.bool_), np.isin(atoms, sentinels))
    special = np.unique(values[values <= SPECIAL])
    regular = layer.atoms[j][layer.atoms[j] < LARGE].astype(np.float32)
    if not layer.on_grid[j]:
        regular = find_atoms(values[~absolute & (values > SPECIAL)], declared[j][:0])
    spikes = np.unique(values[absolute & np.isin(values, layer.spikes[j])])
    atoms = np.concatenate([special, spikes, regular])
    is_difference = base[j] < 0 or np.arange(len(atoms)) >= len(special) + len(spikes)
    return _Atoms(
        atoms,
        ~np.broadcast_to(np.asarray(is_difference), atoms.shape),
        np.arange(len(atoms)) < len(special),
    )


def _codes(coordinates: Coordinates, atoms: _Atoms, j: int) -> IntArray:
    """Return the number of each row's atom; negative where there is none."""
    values, absolute = coordinates.values[:, j], coordinates.absolute[:, j]
    codes = np.where(absolute, ABSOLUTE, CONTINUOUS)
    for a, (atom, flag) in enumerate(zip(atoms.values, atoms.absolute, strict=True)):
        codes[(values == atom) & (absolute == flag)] = a
    return codes


def _atoms_of(kept: IntArray, found: Sequence[_Atoms]) -> FloatArray:
    """Return the atoms of patterns, 0 where a coordinate is continuous."""
    atoms_of = np.zeros(kept.shape, dtype=np.float32)
    for j, atoms in enumerate(found):
        on_atom = kept[:, j] >= 0
        atoms_of[on_atom, j] = atoms.values[kept[on_atom, j]]
    return atoms_of


def _with_layer(
    blank: TargetTransform, layer: GridLayer, kept: IntArray, found: Sequence[_Atoms]
) -> TargetTransform:
    """Return a transform with a layer of grids, and tables for what is absolute."""
    absolute = kept == ABSOLUTE
    table, n_tables = blank.table.copy(), blank.n_targets
    for j in np.flatnonzero(absolute.any(axis=0)).tolist():
        table[absolute[:, j], j] = n_tables
        n_tables += 1
    low = blank.low.copy()
    low[:, layer.is_coded] = 0.5 * SPECIAL
    for j, atoms in enumerate(found):
        on_atom = kept[:, j] >= 0
        absolute[on_atom, j] = atoms.absolute[kept[on_atom, j]]
    return dataclasses.replace(
        blank,
        low=low,
        table=table,
        knots=np.zeros((n_tables, N_KNOTS), dtype=np.float32),
        grids=with_patterns(layer, blank.patterns, blank.atoms, absolute),
    )


def blank_transform(
    base: IntArray, patterns: IntArray, atoms: FloatArray
) -> TargetTransform:
    """Return a transform whose quantiles and mixing are still to be fitted."""
    n, d = patterns.shape
    return TargetTransform(
        base=base,
        patterns=patterns,
        atoms=atoms,
        low=np.full((n, d), -np.inf, dtype=np.float32),
        high=np.full((n, d), np.inf, dtype=np.float32),
        table=np.tile(np.arange(d), (n, 1)),
        z_max=np.ones(d, dtype=np.float32),
        knots=np.zeros((d, N_KNOTS), dtype=np.float32),
        mixing=np.zeros((n, d, d), dtype=np.float32),
    )


def find_atoms(
    values: FloatArray, declared: FloatArray, *, most: int = MAX_ATOMS
) -> FloatArray:
    """Return the values that repeat in a finite share of rows, and sentinels.

    Of more such values than `most`, only those that stand out from the next ones count.
    """
    unique, counts = np.unique(values, return_counts=True)
    least = least_rows(len(values))
    is_sentinel = np.isin(unique, declared)
    is_atom = counts >= least
    if is_atom.sum() > most:
        frequent = np.flatnonzero(is_atom & ~is_sentinel)
        place = np.repeat(np.arange(float(len(frequent))), counts[frequent])
        is_atom[:] = False
        is_atom[frequent[standing_out(place, least=least).astype(int)]] = True
    return unique[is_atom | is_sentinel]


def _find_ties(
    y: FloatArray,
    declared: Sequence[FloatArray],
    *,
    layer: GridLayer | None = None,
    costs: FloatArray | None = None,
    from_first: bool = False,
) -> IntArray:
    """Return for each target its base in a maximum spanning forest of tie shares.

    Costs of other differences (d, d) are those of `grid_fits.partners`.
    """
    n, d = y.shape
    on_atom = np.stack(
        [np.isin(y[:, j], find_atoms(y[:, j], declared[j])) for j in range(d)], axis=1
    )
    # Costs for a minimum spanning forest; of equal ties the later pair comes first.
    costs = np.zeros((d, d)) if costs is None else costs
    for i in range(d):
        for j in range(i + 1, d):
            if layer is not None and (costs[i, j] or layer.on_grid[[i, j]].any()):
                continue
            tied = (y[:, i] == y[:, j]) & ~on_atom[:, i] & ~on_atom[:, j]
            if tied.sum() >= least_rows(n):
                costs[i, j] = -tied.sum() - (i * d + j) / d**2
    tree = csgraph.minimum_spanning_tree(costs).toarray()
    degree = ((tree + tree.T) != 0).sum(axis=1)
    base, seen = np.full(d, -1), np.zeros(d, dtype=bool)
    # What is below others is a difference of these.
    below = np.zeros(d, dtype=bool)
    if layer is not None:
        below[layer.orders[:, 0].astype(int)] = True
    rank = np.arange(d) if from_first else -degree
    for root in sorted(range(d), key=lambda t: (below[t], rank[t])):
        if not seen[root]:
            found, before = csgraph.breadth_first_order(tree, root, directed=False)
            seen[found] = True
            base[found[1:]] = before[found[1:]]
    return base


def _frequent_patterns(
    codes: IntArray, found: Sequence[_Atoms], layer: GridLayer | None
) -> IntArray:
    """Return the patterns to learn; one without atoms is there for the rare rest."""
    patterns, counts = np.unique(codes, axis=0, return_counts=True)
    has_sentinel = np.zeros(len(patterns), dtype=bool)
    for j, atoms in enumerate(found):
        has_sentinel |= np.append(atoms.sentinel, [False, False])[patterns[:, j]]
    # A sentinel that comes with no pattern of its own would land in a quantile knot.
    least = least_rows(len(codes), MIN_PATTERN_SHARE)
    kept = patterns[(counts >= least) | (has_sentinel & (counts > 1))]
    rest = np.full((1, codes.shape[1]), CONTINUOUS)
    # On a grid, the place of an atom is none of a continuous coordinate.
    is_gap = np.zeros(patterns.shape, dtype=bool)
    if layer is not None:
        is_gap = (layer.on_grid & (patterns >= 0)) | (patterns == ABSOLUTE)
    fits = [
        ((patterns == p) | ((p == CONTINUOUS) & ~is_gap)).all(axis=1)
        for p in (*kept, *rest)
    ]
    if counts[fits[-1] & ~np.any(fits[:-1], axis=0)].sum() > 0:
        return np.unique(np.vstack([kept, rest]), axis=0)
    return kept
