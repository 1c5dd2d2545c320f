"""Conditions as the columns that networks see.

Conditions are scaled, after a logarithm where the sample definition asks for one;
angles, positions in pads and categories become several columns each.

Use `fit_conditions` on training rows only.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.errors import DatasetError

# What a column of the scaled conditions holds, see `ConditionTransform`.
LINEAR, LOG, SIN, COS, WHOLE, FRACTION, EQUAL = range(7)
TRANSFORMS: dict[str, tuple[int, ...]] = {
    "linear": (LINEAR,),
    "log": (LOG,),
    "angle": (SIN, COS),
    "fraction": (WHOLE, FRACTION),
}


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
    """

    source: IntArray  # condition of each column, (n_columns,)
    code: IntArray  # one of the above
    centre: FloatArray  # in the units of the condition
    scale: FloatArray  # positive

    @property
    def n_columns(self) -> int:
        """Number of columns that the networks see."""
        return len(self.source)

    @property
    def dimension(self) -> int:
        """Number of conditions that are continuous."""
        return len(set(self.source[self.code != EQUAL]))

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
        return value / self.scale

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
        return {f"condition_{k}": np.asarray(v) for k, v in vars(self).items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "ConditionTransform":
        names = [field.name for field in dataclasses.fields(ConditionTransform)]
        found = {name: arrays[f"condition_{name}"] for name in names}
        return ConditionTransform(**found)


def fit_conditions(
    conditions: FloatArray,
    transforms: Sequence[str],
    *,
    categories: Sequence[Sequence[float]] = (),
    plain: Sequence[int] = (),
) -> ConditionTransform:
    """Fit the scaling of conditions (n, n_conditions); weights play no role in it.

    Each condition has a key of `TRANSFORMS`; one with `categories` is one-hot coded,
    whatever its transform. Conditions that are `plain` are seen as they are too, in
    columns at the end; the transform then has no `inverse`. A DatasetError tells which
    condition is constant, or not positive under a logarithm.
    """
    values = conditions.astype(np.float64)
    constant = np.flatnonzero(values.min(axis=0) == values.max(axis=0)).tolist()
    if constant:
        raise DatasetError(f"conditions number {constant} are constant; leave them out")
    found: list[tuple[int, int, float, float]] = []
    for j, name in enumerate(transforms):
        x = values[:, j]
        if j < len(categories) and categories[j]:
            found += [(j, EQUAL, float(value), 1.0) for value in categories[j]]
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
    return ConditionTransform(
        source=columns[0],
        code=columns[1],
        centre=columns[2].astype(np.float32),
        scale=columns[3].astype(np.float32),
    )


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
