"""Comparison of a stored column with numbers, without loss of digits.

A column in single precision is compared in single precision, so that a stored 0.1 is
equal to 0.1. Whole numbers are compared as such, also beyond 2^53, where double
precision skips some. A number that the type of a column cannot hold, such as -999 in a
boolean one, is equal to none of its values.
"""

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arrays import BoolArray, FloatArray

#: Whole numbers up to here are exact in double precision.
EXACT = 2**53

#: Types of pandas that know a missing value besides NaN.
_NULLABLE = frozenset(
    {"boolean", "Float32", "Float64"}
    | {f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
)

Operator = Callable[[Any, Any], Any]
_Column = npt.NDArray[Any]
_MIRRORED: dict[Operator, Operator] = {
    operator.lt: operator.gt,
    operator.gt: operator.lt,
    operator.le: operator.ge,
    operator.ge: operator.le,
    operator.eq: operator.eq,
    operator.ne: operator.ne,
}


def as_column(values: Any) -> _Column:
    """Return values as an array (n,) of numbers; a ValueError says what they are."""
    if hasattr(values, "to_numpy") and str(getattr(values, "dtype", "")) in _NULLABLE:
        if values.isna().any():
            values = values.to_numpy(dtype=np.float64, na_value=np.nan)
        else:  # whole numbers keep their digits
            values = values.to_numpy(dtype=values.dtype.numpy_dtype)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"holds {array.dtype}, expected numbers")
    if array.ndim > 1:
        raise ValueError(f"has shape {array.shape}, expected (n,)")
    return array


def as_double(column: _Column) -> FloatArray:
    """Return a column in double precision; a ValueError if digits would be lost."""
    if column.dtype.kind in "iu" and column.dtype.itemsize == 8 and column.size:
        most = max(abs(int(column.max())), abs(int(column.min())))
        if most > EXACT:
            raise ValueError(
                f"holds {most}, beyond 2^53; such numbers can be compared with whole "
                "numbers and columns of them, but not be computed with"
            )
    return column.astype(np.float64, copy=False)


def equals_any(column: _Column, numbers: Iterable[float]) -> BoolArray:
    """Return which values (n,) are one of the numbers, in the type of the column."""
    found = np.zeros(column.shape, dtype=np.bool_)
    for number in numbers:
        if column.dtype.kind == "f":
            with np.errstate(over="ignore"):
                found |= column == column.dtype.type(number)
        elif column.dtype.kind in "iu" and float(number).is_integer():
            limits = np.iinfo(column.dtype)
            if limits.min <= int(number) <= limits.max:
                found |= column == column.dtype.type(int(number))
        elif column.dtype.kind not in "biu":
            found |= column == number
    return found


def compare(compared: Operator, left: Any, right: Any) -> Any:
    """Compare two columns or numbers; a ValueError if that is not exactly possible."""
    if not isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return compare(_MIRRORED[compared], right, left)
    if not isinstance(left, np.ndarray):
        return compared(left, right)
    if isinstance(right, np.ndarray):
        if left.dtype.kind in "biu" and right.dtype.kind in "biu":
            return compared(left, right)  # exact, also of signed and unsigned
        return compared(as_double(left), as_double(right))
    if left.dtype.kind in "iu":
        return _compare_whole(compared, left, right)
    if _is_rounded(right):
        if left.size:
            raise ValueError(
                f"is compared with {right}, which double precision cannot hold"
            )
        return np.zeros(left.shape, dtype=np.bool_)
    if left.dtype.kind == "f" and left.dtype.itemsize < 8:
        with np.errstate(over="ignore"):
            short = left.dtype.type(right)
        if np.isfinite(short) and (short != 0 or right == 0):
            return compared(left, short)
    return compared(as_double(left), float(right))


def _is_rounded(number: float) -> bool:
    return isinstance(number, int) and int(float(number)) != number


def _compare_whole(compared: Operator, column: _Column, number: float) -> Any:
    """Compare whole numbers with a number, which need not be whole nor in range."""
    if not float(number).is_integer():
        if compared in (operator.eq, operator.ne):
            if column.size:
                raise ValueError(f"holds whole numbers, and is compared with {number}")
            return np.zeros(column.shape, dtype=np.bool_)
        # x > 1.5 and x >= 1.5 are x >= 2, and x < 1.5 and x <= 1.5 are x <= 1.
        upwards = compared in (operator.gt, operator.ge)
        compared = operator.ge if upwards else operator.le
        number = math.ceil(number) if upwards else math.floor(number)
    whole, limits = int(number), np.iinfo(column.dtype)
    if not limits.min <= whole <= limits.max:
        return np.full(column.shape, compared(0, whole), dtype=np.bool_)
    return compared(column, column.dtype.type(whole))
