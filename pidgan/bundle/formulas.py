"""One language of formulas, for numpy arrays, tensors and ONNX graphs.

A formula calls the functions below on values (n, ...). Given arrays or tensors they
compute; given `Traced` values they append the operators to a graph, so that what is
exported cannot differ from what was fitted. The first axis is that of the rows.

What takes many small steps a row is several times faster with the rows on the *last*
axis: `turn` puts them there and back. On such values work the formulas number by number
and `product`, `stack`, `pick`, `fold` and `largest`.

What a function does on a kind of value is in the *arm* of that kind: `ArrayArm` below,
`pidgan.bundle.graph_values.GraphArm`, and one of tensors that `pidgan.training.backend`
registers, as only that room knows tensorflow.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from pidgan.bundle.graph_values import GraphArm, Traced

Array = Any
"""An array, a tensor or a `Traced` value."""

Constant = Any
"""An array, or a weight of a network, that is the same in all rows."""


_OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "And": np.logical_and,
    "Asin": np.arcsin,
    "Clip": np.clip,
    "Cos": np.cos,
    "Equal": np.equal,
    "Erf": scipy.special.erf,
    "Exp": np.exp,
    "Floor": np.floor,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Or": np.logical_or,
    "Relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "Sigmoid": scipy.special.expit,
    "Sin": np.sin,
    "Softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
}


class ArrayArm:
    """The words on numpy arrays."""

    def apply(self, operator: str, x: Any, *others: Any) -> Any:
        return _OPERATORS[operator](x, *others)

    def like(self, x: Any, value: Constant) -> Any:
        return np.asarray(value, dtype=x.dtype)

    def with_precision(self, x: Any, double: bool) -> Any:
        return x.astype(np.float64 if double else np.float32, copy=False)

    def precise(self, x: Any) -> Any:
        return x.astype(np.float64, copy=False)

    def numbers(self, mask: Any, x: Any) -> Any:
        return mask.astype(x.dtype)

    def where(self, mask: Any, x: Any, y: Any) -> Any:
        return np.where(mask, x, y)

    def softmax(self, x: Any) -> Any:
        return scipy.special.softmax(x, axis=-1)

    def cumulated(self, x: Any, exclusive: bool) -> Any:
        sums = np.cumsum(x, axis=-1)
        return sums - x if exclusive else sums

    def uniform(self, z: Any) -> Any:
        return scipy.special.ndtr(z)

    def total(self, x: Any, axis: int) -> Any:
        return x.sum(axis=axis, keepdims=True)

    def largest(self, x: Any) -> Any:
        return x.max(axis=-2)

    def matmul(self, x: Any, matrix: Constant) -> Any:
        return x @ self.like(x, matrix)

    def affine(self, x: Any, matrix: Constant, constant: Constant) -> Any:
        return x @ self.like(x, matrix) + self.like(x, constant)

    def columns(self, x: Any, start: int, stop: int) -> Any:
        return x[..., start:stop]

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return x.reshape(len(x), *shape)

    def take(self, x: Any, places: npt.NDArray[Any], axis: int) -> Any:
        return np.take(x, places, axis=axis)

    def concatenate(self, parts: Sequence[Any]) -> Any:
        return np.concatenate(parts, axis=-1)

    def stack(self, parts: Sequence[Any]) -> Any:
        return np.concatenate(parts, axis=-2)

    def turn(self, x: Any) -> Any:
        return np.ascontiguousarray(x.T)

    def product(self, matrix: Constant, x: Any) -> Any:
        return self.like(x, matrix) @ x

    def pick(self, x: Any, places: npt.NDArray[Any]) -> Any:
        return np.take(x, places, axis=-2)

    def fold(self, x: Any, shape: Sequence[int]) -> Any:
        return x.reshape(*shape, x.shape[-1])

    def index(self, x: Any, first: Any) -> Any:
        return x.astype(np.int64) + np.asarray(first, dtype=np.int64)

    def lookup(self, table: Constant, index: Any) -> Any:
        return table[index]

    def bins(self, v: Any, edges: Any) -> Any:
        return (v >= edges).sum(axis=-1, keepdims=True)

    def in_bin(self, values: Any, bins: Any, ahead: int) -> Any:
        return np.take_along_axis(values, bins + ahead, axis=-1)


_ARMS: dict[type, Any] = {np.ndarray: ArrayArm(), Traced: GraphArm()}


def register(kind: type, arm: Any) -> None:
    """Make the words work on values of a type and of its subclasses."""
    _ARMS[kind] = arm


def _arm(x: Array) -> Any:
    """Return the arm of a value; numbers have that of arrays."""
    kind = type(x)
    if kind not in _ARMS:
        known = (base for base in kind.__mro__ if base in _ARMS)
        _ARMS[kind] = _ARMS[next(known, np.ndarray)]
    return _ARMS[kind]


def _word(operator: str, meaning: str) -> Callable[[Array], Array]:
    def apply(x: Array) -> Array:
        return _arm(x).apply(operator, x)

    apply.__doc__ = f"Return {meaning}, number by number."
    return apply


def _comparison(operator: str, meaning: str) -> Callable[[Array, Any], Array]:
    def apply(x: Array, other: Any) -> Array:
        return _arm(x).apply(operator, x, other)

    apply.__doc__ = f"Return {meaning}, number by number."
    return apply


exp = _word("Exp", "exp(x)")
log = _word("Log", "log(x)")
sqrt = _word("Sqrt", "the square root of x")
sin = _word("Sin", "sin(x)")
cos = _word("Cos", "cos(x)")
arcsin = _word("Asin", "arcsin(x)")
tanh = _word("Tanh", "tanh(x)")
absolute = _word("Abs", "|x|")
floor = _word("Floor", "the largest whole number that is not above x")
sigmoid = _word("Sigmoid", "1 / (1 + exp(-x))")
softplus = _word("Softplus", "log(1 + exp(x))")
relu = _word("Relu", "x where it is above 0, and 0 elsewhere")
maximum = _comparison("Max", "x where it is above a bound, and the bound elsewhere")
minimum = _comparison("Min", "x where it is below a bound, and the bound elsewhere")
less = _comparison("Less", "a mask of where x is below another")
at_most = _comparison("LessOrEqual", "a mask of where x is not above another")
greater = _comparison("Greater", "a mask of where x is above another")
at_least = _comparison("GreaterOrEqual", "a mask of where x is not below another")
equal = _comparison("Equal", "a mask of where x is another")
both = _comparison("And", "a mask of where two masks are true")
either = _comparison("Or", "a mask of where one of two masks is true")


def clip(x: Array, low: float, high: float) -> Array:
    """Return x between two bounds."""
    return _arm(x).apply("Clip", x, low, high)


def where(mask: Any, x: Array, y: Array) -> Array:
    """Return x where a mask is true and y elsewhere.

    The mask or one of x and y may be a constant.
    """
    known = (_arm(v) for v in (x, y, mask) if not isinstance(v, (np.ndarray, float)))
    return next(known, _ARMS[np.ndarray]).where(mask, x, y)


def like(x: Array, value: Constant) -> Any:
    """Return a constant in the precision of x."""
    return _arm(x).like(x, value)


def numbers(mask: Array, x: Array) -> Array:
    """Return 1 where a mask is true and 0 elsewhere, in the precision of x."""
    return _arm(mask).numbers(mask, x)


def negative(x: Array) -> Array:
    """Return 1 where x < 0 and 0 elsewhere."""
    return numbers(less(x, 0.0), x)


def near(x: Array, value: float) -> Array:
    """Return 1 where x is within 1/2 of a value, which codes of species are, else 0."""
    return numbers(less(absolute(x - value), 0.5), x)


def with_precision(x: Array, *, double: bool) -> Array:
    """Return the same value in single or double precision."""
    return _arm(x).with_precision(x, double)


def precise(x: Array) -> Array:
    """Return x in double precision, in a graph only where that asks for it.

    For formulas whose rounding grows: what they compute is the reference of a graph.
    """
    return _arm(x).precise(x)


def softmax(x: Array) -> Array:
    """Return exp(x) over its sum along the last axis."""
    return _arm(x).softmax(x)


def cumulated(x: Array, *, exclusive: bool = False) -> Array:
    """Return sums over all numbers up to each, or before it, along the last axis."""
    return _arm(x).cumulated(x, exclusive)


def uniform(z: Array) -> Array:
    """Return Phi(z), which is uniform where z is standard normal."""
    return _arm(z).uniform(z)


def total(x: Array, axis: int) -> Array:
    """Return the sum over an axis other than the first, which stays with length 1."""
    return _arm(x).total(x, axis)


def largest(x: Array) -> Array:
    """Return the largest numbers (..., n) over k of x (..., k, n)."""
    return _arm(x).largest(x)


def matmul(x: Array, matrix: Constant) -> Array:
    """Return x (n, ..., k) times a constant matrix (k, m)."""
    return _arm(x).matmul(x, matrix)


def affine(x: Array, matrix: Constant, constant: Constant) -> Array:
    """Return x (n, k) times a constant matrix (k, m), plus a constant (m,)."""
    return _arm(x).affine(x, matrix, constant)


def columns(x: Array, start: int, stop: int) -> Array:
    """Return neighbouring columns (n, ..., stop - start) of x (n, ..., m)."""
    return _arm(x).columns(x, start, stop)


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """Return x with another shape (n, *shape)."""
    return _arm(x).reshape(x, shape)


def take(x: Array, index: npt.ArrayLike, axis: int = -1) -> Array:
    """Return given places along an axis other than the first."""
    return _arm(x).take(x, np.asarray(index, dtype=np.int64), axis)


def concatenate(parts: Sequence[Array]) -> Array:
    """Return values of equal shape but in the last axis joined along it."""
    return parts[0] if len(parts) == 1 else _arm(parts[0]).concatenate(parts)


def turn(x: Array) -> Array:
    """Return x (n, k) as (k, n), with the rows on the last axis, or the reverse."""
    return _arm(x).turn(x)


def product(matrix: Constant, x: Array) -> Array:
    """Return a constant matrix (m, k) times x (..., k, n)."""
    return _arm(x).product(matrix, x)


def stack(parts: Sequence[Array]) -> Array:
    """Return values (..., k, n) of equal shape but in k joined along it."""
    return parts[0] if len(parts) == 1 else _arm(parts[0]).stack(parts)


def pick(x: Array, index: npt.ArrayLike) -> Array:
    """Return given places in k of x (..., k, n)."""
    return _arm(x).pick(x, np.asarray(index, dtype=np.int64))


def fold(x: Array, shape: Sequence[int]) -> Array:
    """Return x (..., n) with another shape (*shape, n)."""
    return _arm(x).fold(x, shape)


def index(x: Array, first: Any = 0) -> Array:
    """Return x >= 0 as whole numbers, places in a table for `lookup`.

    Args:
        x: values without a fraction.
        first: what to add, the places where tables begin: constant whole numbers, or
            values as x.
    """
    return _arm(x).index(x, first)


def lookup(table: Constant, index: Array) -> Array:
    """Return the numbers at given places of a constant table (k,)."""
    return _arm(index).lookup(table, index)


def bins(v: Array, edges: Array) -> Array:
    """Return the bin that each value lies in, for `in_bin`.

    Args:
        v: (..., 1).
        edges: (..., k - 1), inner edges of k bins, rising.
    """
    return _arm(v).bins(v, edges)


def in_bin(values: Array, bins: Array, *, ahead: int = 0) -> Array:
    """Return the number (..., 1) of a bin.

    Args:
        values: (..., k), or (..., k + 1) of edges.
        bins: from `bins`.
        ahead: 0 for the bin itself or its lower edge, 1 for its upper edge.
    """
    return _arm(values).in_bin(values, bins, ahead)
