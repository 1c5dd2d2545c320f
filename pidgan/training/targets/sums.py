"""Targets that are sums of earlier ones and a rest, which is what is learnt.

Combined likelihoods are sums of those of single detectors. Where targets of earlier
links, which are conditions, explain most of the spread of a target, or equal it in a
finite share of rows, it is replaced by its difference to them: a narrow rest is learnt
much better than a sharp edge in a wide target, and equality becomes an atom at zero.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.sample.grids import find_grid
from pidgan.sample.variables import Variable
from pidgan.training.targets.grid_fits import least_rows

# A term of a sum makes the spread of the rest smaller by this factor at least.
MAX_FACTOR = 0.7
# Largest number of terms of a sum.
MOST_TERMS = 3
# Rows that tell whether a target is a sum.
ENOUGH = 200_000
# Bound of a target that is no sum, and a value that none has.
LARGE = 3e38


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sums:
    """Which conditions are terms of which targets.

    Targets are y = r + sum of c, with the rest r and conditions c, of which `special`
    values count as zero. Values of y that are `kept` have no terms; others are within
    the bounds of the training rows.
    """

    terms: FloatArray  # (n_conditions, n_targets), 1 for a term and 0 elsewhere
    special: FloatArray  # (n_conditions, k), LARGE where there is none
    kept: FloatArray  # (n_targets, k), LARGE where there is none
    low: FloatArray  # (n_targets,)
    high: FloatArray  # (n_targets,)

    @property
    def is_sum(self) -> BoolArray:
        """Targets (n_targets,) that have a term."""
        return np.asarray(self.terms.any(axis=0))

    def rest(self, targets: FloatArray, conditions: FloatArray) -> FloatArray:
        """Return the rest of targets (n, n_targets) at conditions (n, n_conditions)."""
        y = targets.astype(np.float32)
        return np.where(self._is_kept(y), y, y - self._total(conditions))

    def whole(self, rest: Array, conditions: Array) -> Array:
        """Return the targets of a rest (n, n_targets), as a formula."""
        whole = f.maximum(rest + self._total(conditions), self.low)
        return f.where(self._is_kept(rest), rest, f.minimum(whole, self.high))

    def _total(self, conditions: Array) -> Array:
        """Return the sums (n, n_targets) of the terms."""
        used = np.flatnonzero(self.terms.any(axis=1))
        c = f.take(f.with_precision(conditions, double=False), used)
        for values in self.special[used].T:
            c = f.where(f.equal(c, values), 0.0, c)
        return f.matmul(c, self.terms[used])

    def _is_kept(self, y: Array) -> Array:
        """Return a mask of values that have no terms, or none."""
        kept = f.equal(y, self.kept[:, 0])
        for values in self.kept[:, 1:].T:
            kept = f.either(kept, f.equal(y, values))
        return kept

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {f"sum_{k}": np.asarray(v) for k, v in vars(self).items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "Sums":
        names = [field.name for field in dataclasses.fields(Sums)]
        return Sums(**{name: arrays[f"sum_{name}"] for name in names})


def find_sums(sample: Sample, part: Part) -> Sums | None:
    """Return which earlier targets are terms of targets, None if none is."""
    earlier = [
        k
        for k, variable in enumerate(sample.conditions)
        if variable.transform == "quantiles" and not variable.categories
    ]
    if not earlier:
        return None
    step = max(1, len(part.targets) // ENOUGH)
    y, c = part.targets[::step], part.conditions[::step]
    ordered = {j for pair in sample.orders for j in pair}
    terms = np.zeros((c.shape[1], y.shape[1]), dtype=np.float32)
    for j, target in enumerate(sample.targets):
        if j not in ordered and _is_continuous(y[:, j], target):
            same = [k for k in earlier if sample.conditions[k].unit == target.unit]
            terms[_terms(y[:, j], target, c, sample.conditions, same), j] = 1
    if not terms.any():
        return None
    kept = _padded([target.sentinels for target in sample.targets])
    regular = ~_is_any(part.targets, kept)
    is_sum = terms.any(axis=0)
    low, high = (
        np.array(
            [function(v[r]) for v, r in zip(part.targets.T, regular.T, strict=True)]
        )
        for function in (np.min, np.max)
    )
    return Sums(
        terms=terms,
        special=_padded([variable.sentinels for variable in sample.conditions]),
        kept=kept,
        low=np.where(is_sum, low, -LARGE).astype(np.float32),
        high=np.where(is_sum, high, LARGE).astype(np.float32),
    )


def _is_continuous(values: FloatArray, target: Variable) -> bool:
    """Return whether a target has no closed list of values."""
    if target.categories or target.grid_step is not None:
        return False
    return find_grid(values, sentinels=target.sentinels) is None


def _terms(
    values: FloatArray,
    target: Variable,
    conditions: FloatArray,
    variables: Sequence[Variable],
    candidates: Sequence[int],
) -> list[int]:
    """Return the conditions that make the rest of a target narrow, one by one."""
    rows = ~_is_any(values[:, None], _padded([target.sentinels]))[:, 0]
    if not rows.any():
        return []
    rest, found = values[rows], list[int]()
    columns = {
        k: np.where(
            _is_any(conditions[rows, k : k + 1], _padded([variables[k].sentinels])),
            np.float32(0),
            conditions[rows, k : k + 1],
        )[:, 0]
        for k in candidates
    }
    while len(found) < MOST_TERMS:
        left = {k: rest - c for k, c in columns.items() if k not in found}
        if not left:
            break
        # Rows without the condition keep what they are, which makes no tie.
        ties = {k: int(((r == 0) & (columns[k] != 0)).sum()) for k, r in left.items()}
        width = _width(rest)
        narrow = {k: _width(r) / width if width > 0 else 1.0 for k, r in left.items()}
        best = max(ties, key=lambda k: (ties[k], -narrow[k]))
        if found or ties[best] < least_rows(len(rest)):
            best = min(narrow, key=lambda k: narrow[k])
            if narrow[best] >= MAX_FACTOR:
                break
        rest = left[best]
        found.append(best)
    return found


def _width(values: FloatArray) -> float:
    """Return the width of the middle two thirds of the rows."""
    low, high = np.quantile(values, (1 / 6, 5 / 6))
    return float(high - low)


def _is_any(values: FloatArray, lists: FloatArray) -> BoolArray:
    """Return which values (n, d) are in the list (d, k) of their column."""
    return np.asarray((values[:, :, None] == lists).any(axis=2))


def _padded(lists: Sequence[Sequence[float]]) -> FloatArray:
    """Return lists as rows of one array, filled up with what no value is."""
    width = max(1, *(len(values) for values in lists))
    rows = [[*values, *[LARGE] * (width - len(values))] for values in lists]
    return np.array(rows, dtype=np.float32)
