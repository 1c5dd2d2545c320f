"""One language of formulas, for numpy arrays, tensors and ONNX graphs.

A formula calls the functions below on values (n, ...). Given arrays or tensors they
compute; given `Traced` values they append the operators to a graph, so that what is
exported cannot differ from what was fitted. The first axis is that of the rows.

A formula of many small steps a row is several times faster with the rows on the *last*
axis: `turn` puts them there and back. Words that work number by number, `product`,
`stack`, `pick`, `fold` and `largest` are for such values.

Numpy says what a word means. What it does on another kind of value is in the *arm* of
that kind: `pidgan.bundle.graph_values.GraphArm`, and one of tensors that
`pidgan.training.backend` registers, as only that room knows tensorflow.
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


_ARMS: dict[type, Any] = {np.ndarray: None, Traced: GraphArm()}


def register(kind: type, arm: Any) -> None:
    """Make the words work on values of a type and of its subclasses."""
    _ARMS[kind] = arm


def _arm(x: Array) -> Any:
    """Return what computes on a value; None for arrays and numbers."""
    kind = type(x)
    if kind not in _ARMS:
        _ARMS[kind] = next((_ARMS[k] for k in kind.__mro__ if k in _ARMS), None)
    return _ARMS[kind]


def _word(
    operator: str, function: Callable[..., Any], meaning: str
) -> Callable[..., Array]:
    """Return a word that works number by number, named as in ONNX and as in numpy."""

    def word(x: Array, *others: Any) -> Array:
        arm = _arm(x)
        return arm.apply(operator, x, *others) if arm else function(x, *others)

    word.__doc__ = f"Return {meaning}, number by number."
    return word


exp = _word("Exp", np.exp, "exp(x)")
log = _word("Log", np.log, "log(x)")
sqrt = _word("Sqrt", np.sqrt, "the square root of x")
sin = _word("Sin", np.sin, "sin(x)")
cos = _word("Cos", np.cos, "cos(x)")
arcsin = _word("Asin", np.arcsin, "arcsin(x)")
tanh = _word("Tanh", np.tanh, "tanh(x)")
absolute = _word("Abs", np.abs, "|x|")
floor = _word("Floor", np.floor, "the largest whole number that is not above x")
sigmoid = _word("Sigmoid", scipy.special.expit, "1 / (1 + exp(-x))")
softplus = _word(
    "Softplus", lambda x: np.logaddexp(x, x.dtype.type(0)), "log(1 + exp(x))"
)
relu = _word("Relu", lambda x: np.maximum(x, x.dtype.type(0)), "x above 0, else 0")
maximum = _word("Max", np.maximum, "the larger one of x and a bound")
minimum = _word("Min", np.minimum, "the smaller one of x and a bound")
clip = _word("Clip", np.clip, "x between a lower and an upper bound")
less = _word("Less", np.less, "a mask of where x is below another")
at_most = _word("LessOrEqual", np.less_equal, "a mask of where x is not above another")
greater = _word("Greater", np.greater, "a mask of where x is above another")
at_least = _word("GreaterOrEqual", np.greater_equal, "a mask of where x >= another")
equal = _word("Equal", np.equal, "a mask of where x is another")
both = _word("And", np.logical_and, "a mask of where two masks are true")
either = _word("Or", np.logical_or, "a mask of where one of two masks is true")


def where(mask: Any, x: Array, y: Array) -> Array:
    """Return x where a mask is true and y elsewhere.

    The mask or one of x and y may be a constant.
    """
    arm = next((a for v in (x, y, mask) if (a := _arm(v))), None)
    return arm.where(mask, x, y) if arm else np.where(mask, x, y)


def like(x: Array, value: Constant) -> Any:
    """Return a constant in the precision of x."""
    arm = _arm(x)
    return arm.like(x, value) if arm else np.asarray(value, dtype=x.dtype)


def numbers(mask: Array, x: Array) -> Array:
    """Return 1 where a mask is true and 0 elsewhere, in the precision of x."""
    arm = _arm(mask)
    return arm.numbers(mask, x) if arm else mask.astype(x.dtype)


def negative(x: Array) -> Array:
    """Return 1 where x < 0 and 0 elsewhere."""
    return numbers(less(x, 0.0), x)


def near(x: Array, value: float) -> Array:
    """Return 1 where x is within 1/2 of a value, which codes of species are, else 0."""
    return numbers(less(absolute(x - value), 0.5), x)


def with_precision(x: Array, *, double: bool) -> Array:
    """Return the same value in single or double precision."""
    arm = _arm(x)
    return (
        arm.with_precision(x, double)
        if arm
        else x.astype(np.float64 if double else np.float32, copy=False)
    )


def precise(x: Array) -> Array:
    """Return x in double precision, in a graph only where that asks for it.

    Formulas whose rounding grows use it: what they compute is the reference of a graph.
    """
    arm = _arm(x)
    return arm.precise(x) if arm else x.astype(np.float64, copy=False)


def softmax(x: Array) -> Array:
    """Return exp(x) over its sum along the last axis."""
    arm = _arm(x)
    return arm.softmax(x) if arm else scipy.special.softmax(x, axis=-1)


def cumulated(x: Array, *, exclusive: bool = False) -> Array:
    """Return sums over all numbers up to each, or before it, along the last axis."""
    if arm := _arm(x):
        return arm.cumulated(x, exclusive)
    sums = np.cumsum(x, axis=-1)
    return sums - x if exclusive else sums


def uniform(z: Array) -> Array:
    """Return Phi(z), which is uniform where z is standard normal."""
    arm = _arm(z)
    return arm.uniform(z) if arm else scipy.special.ndtr(z)


def total(x: Array, axis: int) -> Array:
    """Return the sum over an axis other than the first, which stays with length 1."""
    arm = _arm(x)
    return arm.total(x, axis) if arm else x.sum(axis=axis, keepdims=True)


def largest(x: Array) -> Array:
    """Return the largest numbers (..., n) over k of x (..., k, n)."""
    arm = _arm(x)
    return arm.largest(x) if arm else x.max(axis=-2)


def matmul(x: Array, matrix: Constant) -> Array:
    """Return x (n, ..., k) times a constant matrix (k, m)."""
    arm = _arm(x)
    return arm.matmul(x, matrix) if arm else x @ like(x, matrix)


def affine(
    x: Array, matrix: Constant, constant: Constant, offset: Constant = None
) -> Array:
    """Return x (n, k) times a constant matrix (k, m), plus constants (m,).

    A graph adds the offset to the constant beforehand. Arrays and tensors add it last.
    """
    arm = _arm(x)
    if offset is not None and isinstance(x, Traced):
        constant, offset = np.asarray(constant) + offset, None
    if arm:
        made = arm.affine(x, matrix, constant)
    else:
        made = x @ like(x, matrix) + like(x, constant)
    return made if offset is None else made + like(x, offset)


def columns(x: Array, start: int, stop: int) -> Array:
    """Return neighbouring columns (n, ..., stop - start) of x (n, ..., m)."""
    arm = _arm(x)
    return arm.columns(x, start, stop) if arm else x[..., start:stop]


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """Return x with another shape (n, *shape)."""
    arm = _arm(x)
    return arm.reshape(x, shape) if arm else x.reshape(len(x), *shape)


def take(x: Array, index: npt.ArrayLike, axis: int = -1) -> Array:
    """Return given places along an axis other than the first."""
    arm, places = _arm(x), np.asarray(index, dtype=np.int64)
    return arm.take(x, places, axis) if arm else np.take(x, places, axis=axis)


def concatenate(parts: Sequence[Array]) -> Array:
    """Return values of equal shape but in the last axis joined along it."""
    if len(parts) == 1:
        return parts[0]
    arm = _arm(parts[0])
    return arm.concatenate(parts) if arm else np.concatenate(parts, axis=-1)


def turn(x: Array) -> Array:
    """Return x (n, k) as (k, n), with the rows on the last axis, or the reverse."""
    arm = _arm(x)
    return arm.turn(x) if arm else np.ascontiguousarray(x.T)


def product(matrix: Constant, x: Array) -> Array:
    """Return a constant matrix (m, k) times x (..., k, n)."""
    arm = _arm(x)
    return arm.product(matrix, x) if arm else like(x, matrix) @ x


def stack(parts: Sequence[Array]) -> Array:
    """Return values (..., k, n) of equal shape but in k joined along it."""
    if len(parts) == 1:
        return parts[0]
    arm = _arm(parts[0])
    return arm.stack(parts) if arm else np.concatenate(parts, axis=-2)


def pick(x: Array, index: npt.ArrayLike) -> Array:
    """Return given places in k of x (..., k, n)."""
    arm, places = _arm(x), np.asarray(index, dtype=np.int64)
    return arm.pick(x, places) if arm else np.take(x, places, axis=-2)


def fold(x: Array, shape: Sequence[int]) -> Array:
    """Return x (..., n) with another shape (*shape, n)."""
    arm = _arm(x)
    return arm.fold(x, shape) if arm else x.reshape(*shape, x.shape[-1])


def index(x: Array, first: Any = 0) -> Array:
    """Return x >= 0 as whole numbers, places in a table for `lookup`.

    Args:
        x: values without a fraction.
        first: places where tables begin, which are added: constant whole numbers, or
            values as x.
    """
    arm = _arm(x)
    return (
        arm.index(x, first)
        if arm
        else x.astype(np.int64) + np.asarray(first, dtype=np.int64)
    )


def lookup(table: Constant, index: Array) -> Array:
    """Return the numbers at given places of a constant table (k,)."""
    arm = _arm(index)
    return arm.lookup(table, index) if arm else table[index]


def bins(v: Array, edges: Array) -> Array:
    """Return the bin that each value lies in, for `in_bin`.

    Args:
        v: (..., 1).
        edges: (..., k - 1), inner edges of k bins, rising.
    """
    arm = _arm(v)
    return arm.bins(v, edges) if arm else (v >= edges).sum(axis=-1, keepdims=True)


def in_bin(values: Array, bins: Array, *, ahead: int = 0) -> Array:
    """Return the number (..., 1) of a bin.

    Args:
        values: (..., k), or (..., k + 1) of edges.
        bins: what `bins` returned.
        ahead: 0 for the bin itself or its lower edge, 1 for its upper edge.
    """
    arm = _arm(values)
    return (
        arm.in_bin(values, bins, ahead)
        if arm
        else np.take_along_axis(values, bins + ahead, axis=-1)
    )
