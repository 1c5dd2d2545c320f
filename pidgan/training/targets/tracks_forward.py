"""Targets of tracks mapped to patterns and coordinates, as a formula.

`TargetTransform.forward` does the same with arrays, for the rows of a training. What a
bundle does with targets that it is given has to be a formula. A corrector needs it
(`pidgan.training.correction`); it has no targets on grids and no sums.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.training.targets.tracks import N_KNOTS, TargetTransform

# Steps by which the piece of a table is found; they add up to its last knot.
_STEPS = tuple(2**k for k in reversed(range((N_KNOTS - 1).bit_length())))


class Seen(NamedTuple):
    """Rows as a flow sees them.

    One-hot codes of patterns (n, n_patterns), all zero for a row that fits none; 1
    where a coordinate is continuous, and coordinates (n, n_targets), zero elsewhere.
    """

    codes: Array
    free: Array
    y: Array


def see(
    transform: TargetTransform, targets: Array, sentinels: Sequence[Sequence[float]]
) -> Seen:
    """Return patterns and coordinates of targets (n, n_targets).

    A sentinel that comes in no pattern of its own is no value of a density: its row
    fits none.
    """
    y = f.with_precision(targets, double=False)
    values = _differences(y, transform)
    codes = _codes(transform, values)
    for places, special in _sentinels(sentinels):
        is_special = f.numbers(f.equal(f.take(y, places), special), y)
        at_free = f.matmul(codes, transform.free[:, places])
        wrong = f.total(is_special * at_free, 1)
        codes = codes * (1.0 - f.minimum(wrong, 1.0))
    free = f.matmul(codes, transform.free)
    z = _normal_scores(transform, values, codes)
    return Seen(codes, free, _whitened(transform, z, codes) * free)


def _differences(y: Array, transform: TargetTransform) -> Array:
    """Return the differences of targets; each number is one subtraction."""
    columns = []
    for j, base in enumerate(transform.base.tolist()):
        own = f.columns(y, j, j + 1)
        columns.append(own - f.columns(y, base, base + 1) if base >= 0 else own)
    return f.concatenate(columns)


def _codes(transform: TargetTransform, values: Array) -> Array:
    """Return the code of the pattern that has most of the atoms of each row."""
    order = np.argsort(transform.patterns.sum(axis=1), kind="stable")
    n, masks, needed = transform.n_patterns, [], []
    for j in range(transform.n_targets):
        value = f.columns(values, j, j + 1)
        on_atom = transform.patterns[:, j] == 0
        for atom in np.unique(transform.atoms[on_atom, j]):
            masks.append(f.numbers(f.equal(value, np.array([[atom]], "f4")), values))
            needed.append(on_atom & (transform.atoms[:, j] == atom))
    if not masks:
        # Every row is in the one pattern without atoms.
        first = f.columns(values, 0, 1)
        return f.numbers(f.equal(first, first), first)
    wanted = np.array(needed, dtype=np.float32)[:, order]
    met = f.matmul(f.concatenate(masks), wanted)
    fits = f.numbers(f.at_least(met, wanted.sum(axis=0)[np.newaxis] - 0.5), values)
    before = f.cumulated(fits, exclusive=True)
    first = fits * f.numbers(f.less(before, 0.5), values)
    return f.matmul(first, np.eye(n, dtype=np.float32)[order])


def _sentinels(
    sentinels: Sequence[Sequence[float]],
) -> list[tuple[list[int], FloatArray]]:
    """Return targets with a k-th sentinel, and these values (1, m)."""
    most = max((len(own) for own in sentinels), default=0)
    found = []
    for k in range(most):
        places = [j for j, own in enumerate(sentinels) if len(own) > k]
        special = np.array([[sentinels[j][k] for j in places]], dtype=np.float32)
        found.append((places, special))
    return found


def _normal_scores(transform: TargetTransform, values: Array, codes: Array) -> Array:
    """Return the normal scores of differences, found in their tables by bisection."""
    knots, scores = _rising(transform)
    first = f.matmul(codes, transform.table.astype(np.float32) * N_KNOTS)
    place = first * 0.0
    for step in _STEPS:
        here = f.index(first + place + float(step))
        above = f.at_least(values, f.lookup(knots.ravel(), here))
        place = place + f.numbers(above, values) * float(step)
    place = f.minimum(place, N_KNOTS - 2.0)
    index = f.index(first + place)
    width, rise = (
        np.diff(v, axis=1, append=v[:, -1:]).ravel() for v in (knots, scores)
    )
    slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
    low = f.lookup(knots.ravel(), index)
    inside = f.maximum(values - low, 0.0)
    inside = f.minimum(inside, f.lookup(width, index))
    return f.lookup(scores.ravel(), index) + inside * f.lookup(slope, index)


def _rising(transform: TargetTransform) -> tuple[FloatArray, FloatArray]:
    """Return knots that differ, and the scores there, (n_tables, N_KNOTS) each.

    Of equal knots the middle counts, as in `TargetTransform.normal_scores`. The last
    one fills up.
    """
    target_of = np.zeros(len(transform.knots), dtype=np.int64)
    for j in range(transform.n_targets):
        target_of[transform.table[:, j]] = j
    knots = np.empty((len(transform.knots), N_KNOTS), dtype=np.float32)
    scores = np.empty_like(knots)
    for k, own in enumerate(transform.knots):
        grid = np.linspace(-1, 1, N_KNOTS) * transform.z_max[target_of[k]]
        unique, first = np.unique(own, return_index=True)
        last = np.append(first[1:], N_KNOTS) - 1
        fill = (0, N_KNOTS - len(unique))
        knots[k] = np.pad(unique, fill, mode="edge")
        scores[k] = np.pad(0.5 * (grid[first] + grid[last]), fill, mode="edge")
    return knots, scores


def _whitened(transform: TargetTransform, z: Array, codes: Array) -> Array:
    """Return normal scores without their correlation within a pattern."""
    whitening = np.linalg.pinv(transform.mixing.astype(np.float64))
    whitening = np.where(np.abs(whitening) > 1e-9, whitening, 0.0).astype(np.float32)
    d, (i, j) = transform.n_targets, np.nonzero(whitening.any(axis=0))
    if not len(i):
        return z * 0.0
    factors = f.matmul(codes, whitening[:, i, j])
    # Every product z_i w_ij in a column of its own, then the sums over i.
    each = f.matmul(z, np.eye(d, dtype=np.float32)[:, i]) * factors
    return f.matmul(each, np.eye(d, dtype=np.float32)[j])
