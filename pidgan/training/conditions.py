"""Conditions as the columns that networks see.

Conditions are scaled, after a logarithm where the sample definition asks for one;
angles, positions in pads and categories become several columns each. So do the targets
of earlier links of a chain, which are seen through their quantiles.

Use `fit_conditions` on training rows only.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.errors import DatasetError
from pidgan.training.targets.structure import find_atoms

# What a column of the scaled conditions holds, see `ConditionTransform`.
LINEAR, LOG, SIN, COS, WHOLE, FRACTION, EQUAL, SCORE = range(8)
TRANSFORMS: dict[str, tuple[int, ...]] = {
    "linear": (LINEAR,),
    "log": (LOG,),
    "angle": (SIN, COS),
    "fraction": (WHOLE, FRACTION),
}
QUANTILES = "quantiles"
# Pieces of the straight lines that are a normal score, and the score at their ends.
PIECES, LAST_SCORE = 32, 3.0
# Of more frequent values than these, only those that stand out have a column.
MOST_VALUES = 8


def _no_scores() -> FloatArray:
    return np.zeros((0, PIECES + 1), dtype=np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionTransform:
    """Conditions as the columns that networks see, one or several a condition.

    A column is (v - centre) / scale with v a function of a condition x, by its code:

    - `LINEAR`: x; `LOG`: log(x / c) / scale, with `centre` c. The division inside the
      logarithm keeps it near zero, where single precision is finest: networks are
      steep in momentum near thresholds.
    - `SIN`, `COS`: sine and cosine of an angle, which together have no edge at a full
      turn.
    - `WHOLE`, `FRACTION`: floor(x) and x - floor(x) of a position in units of pads.
    - `EQUAL`: 1 where x is the category `centre`, 0 elsewhere.
    - `SCORE`: the normal score of x, on straight lines between quantiles, and that of
      the last one beyond it; `centre` where x is a value with a column `EQUAL`.
    """

    source: IntArray  # condition of each column, (n_columns,)
    code: IntArray  # one of the above
    centre: FloatArray  # in the units of the condition
    scale: FloatArray  # positive
    # Conditions that are seen through quantiles; and of the columns SCORE the ends of
    # the pieces, (n_scores, PIECES + 1), and the score there.
    earlier: IntArray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    ends: FloatArray = dataclasses.field(default_factory=_no_scores)
    scores: FloatArray = dataclasses.field(default_factory=_no_scores)

    @property
    def n_columns(self) -> int:
        """Number of columns that the networks see."""
        return len(self.source)

    @property
    def dimension(self) -> int:
        """Number of conditions that are continuous, earlier targets left out."""
        return len(set(self.source[self.is_own & (self.code != EQUAL)]))

    @property
    def is_own(self) -> BoolArray:
        """Columns (n_columns,) of conditions that are not seen through quantiles."""
        return np.asarray(~np.isin(self.source, self.earlier))

    def forward(self, conditions: Array) -> Array:
        """Map conditions, (n, n_conditions) in package units, to columns, float32."""
        x = f.with_precision(conditions, double=False)
        if not np.array_equal(self.source, np.arange(x.shape[-1])):
            x = f.take(x, self.source, axis=1)
        value = _functions(x, self.code) - self.centre
        is_log, is_category = self.code == LOG, self.code == EQUAL
        if is_log.any():
            # Columns without logarithm may be <= 0: they pass through it as 1.
            ratio = x / np.where(is_log, self.centre, np.float32(1))
            value = f.where(is_log, f.log(f.where(is_log, ratio, 1.0)), value)
        if is_category.any():
            same = f.numbers(f.equal(x, self.centre), x)
            value = f.where(is_category, same, value)
        if len(self.ends):
            value = f.where(self.code == SCORE, self._normal_scores(x, value), value)
        return value / self.scale

    def _normal_scores(self, x: Array, value: Array) -> Array:
        """Return normal scores in the columns SCORE, from x (n, n_columns).

        They are zero where a `value` of a column EQUAL is 1, and in other columns.
        """
        columns, n_scores = np.flatnonzero(self.code == SCORE), len(self.ends)
        width, rise = (np.diff(v, axis=1).ravel() for v in (self.ends, self.scores))
        width = np.where(width > 0, width, np.float32(1))
        inside = f.take(x, np.repeat(columns, PIECES)) - self.ends[:, :-1].ravel()
        part = f.clip(inside / width, 0.0, 1.0) * rise
        sums = f.total(f.reshape(part, (n_scores, PIECES)), 2)
        score = f.reshape(sums, (n_scores,)) + self.scores[:, 0]
        same = self.source[:, np.newaxis] == self.source[columns]
        is_value = (self.code == EQUAL)[:, np.newaxis] & same
        if is_value.any():
            score = score * (1.0 - f.matmul(value, is_value.astype(np.float32)))
        return f.matmul(score, np.eye(self.n_columns, dtype=np.float32)[columns])

    def inverse(self, columns: FloatArray) -> FloatArray:
        """Map columns back to conditions in package units, angles from -pi to pi."""
        values = columns * self.scale
        found = np.zeros((len(columns), int(self.source.max()) + 1))
        sines = np.zeros_like(found)
        for k, (j, code) in enumerate(zip(self.source, self.code, strict=True)):
            v, centre = values[:, k].astype(np.float64), float(self.centre[k])
            if code == LOG:
                found[:, j] = centre * np.exp(v)
            elif code == SIN:
                sines[:, j] = v + centre
            elif code == COS:
                found[:, j] = np.arctan2(sines[:, j], v + centre)
            elif code == EQUAL:
                found[:, j] += centre * (v > 0.5)
            else:  # WHOLE and FRACTION add up
                found[:, j] += v + centre
        return found.astype(np.float32)

    def to_arrays(self) -> dict[str, np.ndarray]:
        kept = {k: v for k, v in vars(self).items() if np.size(v)}
        return {f"condition_{k}": np.asarray(v) for k, v in kept.items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "ConditionTransform":
        names = [field.name for field in dataclasses.fields(ConditionTransform)]
        keys = {name: f"condition_{name}" for name in names}
        return ConditionTransform(
            **{n: arrays[k] for n, k in keys.items() if k in arrays}
        )


def fit_conditions(
    conditions: FloatArray,
    transforms: Sequence[str],
    *,
    categories: Sequence[Sequence[float]] = (),
    sentinels: Sequence[Sequence[float]] = (),
    plain: Sequence[int] = (),
) -> ConditionTransform:
    """Fit the scaling of conditions (n, n_conditions); weights play no role in it.

    Each condition has a key of `TRANSFORMS`, or is seen through its `QUANTILES`, with
    columns of its own for `sentinels` and frequent values; one with `categories` is
    one-hot coded, whatever its transform. Conditions that are `plain` are seen as they
    are too, in columns at the end; the transform then has no `inverse`, nor with
    quantiles. A DatasetError tells which condition is constant, or not positive under a
    logarithm.
    """
    values = conditions.astype(np.float64)
    earlier = np.array([name == QUANTILES for name in transforms])
    same = values.min(axis=0) == values.max(axis=0)
    constant = np.flatnonzero(same & ~earlier).tolist()
    if constant:
        raise DatasetError(f"conditions number {constant} are constant; leave them out")
    found: list[tuple[int, int, float, float]] = []
    scores: list[tuple[FloatArray, FloatArray]] = []
    for j, name in enumerate(transforms):
        x = values[:, j]
        if j < len(categories) and categories[j]:
            found += [(j, EQUAL, float(value), 1.0) for value in categories[j]]
            continue
        if name == QUANTILES:
            declared = sentinels[j] if j < len(sentinels) else ()
            apart, rest = _frequent_values(conditions[:, j], declared)
            # Of two values that all rows have, one tells which.
            first = 1 if len(apart) == 2 and not len(rest) else 0
            found += [(j, EQUAL, float(value), 1.0) for value in apart[first:]]
            if len(rest):
                found.append((j, SCORE, 0.0, 1.0))
                scores.append(_quantiles(rest))
            continue
        if name == "log" and (x <= 0).any():
            raise DatasetError("a condition with transform 'log' has values <= 0")
        for code in TRANSFORMS[name]:
            column = _functions(values[:, [j]], np.array([code]))[:, 0]
            column = np.log(x) if code == LOG else column
            centre, scale = float(column.mean()), float(column.std())
            if scale == 0:  # such as the fraction of whole numbers
                continue
            found.append((j, code, np.exp(centre) if code == LOG else centre, scale))
    found += [(j, LINEAR, 0.0, 1.0) for j in plain]
    columns = [np.array(column) for column in zip(*found, strict=True)]
    ends, heights = zip(*scores, strict=True) if scores else [_no_scores()] * 2
    return ConditionTransform(
        source=columns[0],
        code=columns[1],
        centre=columns[2].astype(np.float32),
        scale=columns[3].astype(np.float32),
        earlier=np.flatnonzero(earlier),
        ends=np.array(ends, dtype=np.float32),
        scores=np.array(heights, dtype=np.float32),
    )


def _frequent_values(
    values: FloatArray, sentinels: Sequence[float]
) -> tuple[FloatArray, FloatArray]:
    """Return sentinels and values that many rows have, and all other values (m,)."""
    declared = np.asarray(sentinels, dtype=values.dtype)
    found = find_atoms(values, declared, most=MOST_VALUES)
    apart = found[np.isin(found, values)]
    return apart, values[~np.isin(values, apart)]


def _quantiles(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the ends (PIECES + 1,) of straight lines, and the normal scores there."""
    z = np.linspace(-LAST_SCORE, LAST_SCORE, PIECES + 1)
    ends = np.quantile(values.astype(np.float64), scipy.special.ndtr(z))
    ends[0], ends[-1] = values.min(), values.max()
    unique, first = np.unique(ends.astype(np.float32), return_index=True)
    last = np.append(first[1:], len(z)) - 1  # a flat piece has the score of its middle
    middle = 0.5 * (z[first] + z[last])
    missing = (0, PIECES + 1 - len(unique))
    return np.pad(unique, missing, mode="edge"), np.pad(middle, missing, mode="edge")


def _functions(x: Array, code: IntArray) -> Array:
    """Return what columns (n, n_columns) are centred of, logarithms left out."""
    value = x
    for trigonometric, function in ((SIN, f.sin), (COS, f.cos)):
        if (code == trigonometric).any():
            value = f.where(code == trigonometric, function(x), value)
    if np.isin(code, (WHOLE, FRACTION)).any():
        whole = f.floor(x)
        value = f.where(code == WHOLE, whole, value)
        value = f.where(code == FRACTION, x - whole, value)
    return value
