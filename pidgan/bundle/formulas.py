"""Formulas written once, for numpy and for an ONNX graph.

A parametrisation calls the functions below on arrays (n, ...). Given numpy arrays they
compute; given `Traced` values they append the operators to a graph, so that what is
exported cannot differ from what was fitted. The first axis is that of the rows.

What takes many small steps a row is several times faster with the rows on the *last*
axis: `turn` puts them there and back. On such values work the formulas number by number
and `product`, `stack`, `pick` and `fold`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Numbers of types in ONNX' list (TensorProto.FLOAT, TensorProto.DOUBLE).
FLOAT_CODE, DOUBLE_CODE = 1, 11

Array = Any  # an NDArray or a Traced


class Recorder(Protocol):
    """A graph under construction, as `onnx_export` has one."""

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator with one output and return the output's name."""

    def constant(self, value: Any, dtype: type = ...) -> str:
        """Append a constant and return its name."""


@dataclass(frozen=True, eq=False)
class Traced:
    """A value of a graph: its name, its shape without the rows, and its precision.

    Other operands may be traced values, numbers, or constant arrays whose axis of the
    rows, the first one or the last, has length 1.
    """

    graph: Recorder
    name: str
    shape: tuple[int, ...]
    double: bool = False
    rows_last: bool = False

    # numpy would otherwise take a constant array on the left apart.
    __array_ufunc__ = None

    def apply(self, operator: str, *others: Any, swap: bool = False) -> "Traced":
        """Append an operator on this value and others, number by number."""
        names = [self.name, *(self._name(other) for other in others)]
        shapes = [self.shape, *(self._row_shape(other) for other in others)]
        names = names[::-1] if swap else names
        shape = np.broadcast_shapes(*shapes)
        return self.like(self.graph.add(operator, *names), shape)

    def _name(self, other: Any) -> str:
        if isinstance(other, Traced):
            return other.name
        return self.constant(other)

    def _row_shape(self, other: Any) -> tuple[int, ...]:
        if isinstance(other, Traced):
            return other.shape
        shape: tuple[int, ...] = np.shape(other)
        return shape[:-1] if self.rows_last else shape[1:]

    def like(self, name: str, shape: tuple[int, ...]) -> "Traced":
        """Return another value of the same graph and precision."""
        return Traced(self.graph, name, shape, self.double, self.rows_last)

    def constant(self, value: Any) -> str:
        """Append a constant of this precision."""
        return self.graph.constant(value, np.float64 if self.double else np.float32)

    def __add__(self, other: Any) -> "Traced":
        return self.apply("Add", other)

    def __radd__(self, other: Any) -> "Traced":
        return self.apply("Add", other)

    def __sub__(self, other: Any) -> "Traced":
        return self.apply("Sub", other)

    def __rsub__(self, other: Any) -> "Traced":
        return self.apply("Sub", other, swap=True)

    def __mul__(self, other: Any) -> "Traced":
        return self.apply("Mul", other)

    def __rmul__(self, other: Any) -> "Traced":
        return self.apply("Mul", other)

    def __truediv__(self, other: Any) -> "Traced":
        return self.apply("Div", other)

    def __rtruediv__(self, other: Any) -> "Traced":
        return self.apply("Div", other, swap=True)

    def __neg__(self) -> "Traced":
        return self.apply("Neg")


class Parametrisation(Protocol):
    """A function (conditions, noise) -> cells written with the functions below."""

    @property
    def n_noise(self) -> int:
        """Normal numbers a row needs."""

    def sample(self, conditions: Array, noise: Array) -> Array:
        """Return cells (n, n_cells)."""


def trace(model: Parametrisation, graph: Recorder, n_conditions: int) -> Traced:
    """Append a parametrisation to a graph whose inputs are "conditions" and "noise".

    It computes in double precision: an energy near zero is the difference of what are
    numbers of the size of a spot's, and rounding of single precision would be seen.

    Args:
        model: what to append.
        graph: under construction, of float32.
        n_conditions: columns of "conditions", in the order that the model takes.

    Returns:
        The cells.
    """
    conditions, noise = (
        with_precision(Traced(graph, name, (size,)), double=True)
        for name, size in (("conditions", n_conditions), ("noise", model.n_noise))
    )
    return with_precision(model.sample(conditions, noise), double=False)


def with_precision(x: Traced, *, double: bool) -> Traced:
    """Return the same value in single or double precision."""
    if x.double == double:
        return x
    code = DOUBLE_CODE if double else FLOAT_CODE
    name = x.graph.add("Cast", x.name, to=code)
    return Traced(x.graph, name, x.shape, double, x.rows_last)


def _unary(operator: str, function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    def apply(x: Array) -> Array:
        return x.apply(operator) if isinstance(x, Traced) else function(x)

    apply.__doc__ = f"Return {function.__name__}(x), number by number."
    return apply


exp = _unary("Exp", np.exp)
log = _unary("Log", np.log)
sqrt = _unary("Sqrt", np.sqrt)
sin = _unary("Sin", np.sin)
cos = _unary("Cos", np.cos)
tanh = _unary("Tanh", np.tanh)
absolute = _unary("Abs", np.abs)


def maximum(x: Array, bound: Any) -> Array:
    """Return x where it is above a bound, and the bound elsewhere."""
    return x.apply("Max", bound) if isinstance(x, Traced) else np.maximum(x, bound)


def minimum(x: Array, bound: Any) -> Array:
    """Return x where it is below a bound, and the bound elsewhere."""
    return x.apply("Min", bound) if isinstance(x, Traced) else np.minimum(x, bound)


def relu(x: Array) -> Array:
    """Return x where it is above 0, and 0 elsewhere."""
    return x.apply("Relu") if isinstance(x, Traced) else np.maximum(x, x.dtype.type(0))


def negative(x: Array) -> Array:
    """Return 1 where x < 0 and 0 elsewhere."""
    if not isinstance(x, Traced):
        return (x < 0).astype(x.dtype)
    return _cast(x.apply("Less", 0.0))


def near(x: Array, value: float) -> Array:
    """Return 1 where x is within 1/2 of a value, which codes of species are, else 0."""
    if not isinstance(x, Traced):
        return (np.abs(x - value) < 0.5).astype(x.dtype)
    return _cast((x - value).apply("Abs").apply("Less", 0.5))


def total(x: Array, axis: int) -> Array:
    """Return the sum over an axis other than the first, which stays with length 1."""
    if not isinstance(x, Traced):
        return x.sum(axis=axis, keepdims=True)
    place = axis % (len(x.shape) + 1)
    name = x.graph.add("ReduceSum", x.name, x.graph.constant([place], np.int64))
    shape = tuple(1 if i == place - 1 else n for i, n in enumerate(x.shape))
    return x.like(name, shape)


def matmul(x: Array, matrix: npt.NDArray[Any]) -> Array:
    """Return x (n, ..., k) times a constant matrix (k, m)."""
    if not isinstance(x, Traced):
        return x @ matrix.astype(x.dtype)
    name = x.graph.add("MatMul", x.name, x.constant(matrix))
    return x.like(name, (*x.shape[:-1], matrix.shape[1]))


def affine(x: Array, matrix: npt.NDArray[Any], constant: npt.NDArray[Any]) -> Array:
    """Return x (n, k) times a constant matrix (k, m), plus a constant (m,)."""
    if not isinstance(x, Traced):
        return x @ matrix.astype(x.dtype) + constant.astype(x.dtype)
    constants = [x.constant(v) for v in (matrix, constant)]
    name = x.graph.add("Gemm", x.name, *constants)
    return x.like(name, (matrix.shape[1],))


def columns(x: Array, start: int, stop: int) -> Array:
    """Return neighbouring columns (n, stop - start) of x (n, m)."""
    if not isinstance(x, Traced):
        return x[:, start:stop]
    bounds = [x.graph.constant([i], np.int64) for i in (start, stop, 1)]
    return x.like(x.graph.add("Slice", x.name, *bounds), (stop - start,))


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """Return x with another shape (n, *shape)."""
    if not isinstance(x, Traced):
        return x.reshape(len(x), *shape)
    target = x.graph.constant([0, *shape], np.int64)
    return x.like(x.graph.add("Reshape", x.name, target), tuple(shape))


def take(x: Array, index: npt.ArrayLike, axis: int = -1) -> Array:
    """Return given places along an axis other than the first."""
    places = np.asarray(index, dtype=np.int64)
    if not isinstance(x, Traced):
        return np.take(x, places, axis=axis)
    place = axis % (len(x.shape) + 1)
    indices = x.graph.constant(places, np.int64)
    name = x.graph.add("Gather", x.name, indices, axis=place)
    shape = (*x.shape[: place - 1], len(places), *x.shape[place:])
    return x.like(name, shape)


def concatenate(parts: Sequence[Array]) -> Array:
    """Return values of equal shape but in the last axis joined along it."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if not isinstance(first, Traced):
        return np.concatenate(parts, axis=-1)
    axis = len(first.shape)
    name = first.graph.add("Concat", *(part.name for part in parts), axis=axis)
    width = sum(part.shape[-1] for part in parts)
    return first.like(name, (*first.shape[:-1], width))


def turn(x: Array) -> Array:
    """Return x (n, k) as (k, n), with the rows on the last axis, or the reverse."""
    if not isinstance(x, Traced):
        return np.ascontiguousarray(x.T)
    name = x.graph.add("Transpose", x.name, perm=[1, 0])
    return Traced(x.graph, name, x.shape, x.double, not x.rows_last)


def product(matrix: npt.NDArray[Any], x: Array) -> Array:
    """Return a constant matrix (m, k) times x (..., k, n)."""
    if not isinstance(x, Traced):
        return matrix.astype(x.dtype) @ x
    name = x.graph.add("MatMul", x.constant(matrix), x.name)
    return x.like(name, (*x.shape[:-1], len(matrix)))


def stack(parts: Sequence[Array]) -> Array:
    """Return values (..., k, n) of equal shape but in k joined along it."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if not isinstance(first, Traced):
        return np.concatenate(parts, axis=-2)
    axis = len(first.shape) - 1
    name = first.graph.add("Concat", *(part.name for part in parts), axis=axis)
    return first.like(name, (*first.shape[:-1], sum(part.shape[-1] for part in parts)))


def pick(x: Array, index: npt.ArrayLike) -> Array:
    """Return given places in k of x (..., k, n)."""
    places = np.asarray(index, dtype=np.int64)
    if not isinstance(x, Traced):
        return np.take(x, places, axis=-2)
    axis = len(x.shape) - 1
    name = x.graph.add("Gather", x.name, x.graph.constant(places, np.int64), axis=axis)
    return x.like(name, (*x.shape[:-1], len(places)))


def fold(x: Array, shape: Sequence[int]) -> Array:
    """Return x (..., n) with another shape (*shape, n)."""
    if not isinstance(x, Traced):
        return x.reshape(*shape, x.shape[-1])
    target = x.graph.constant([*shape, -1], np.int64)
    return x.like(x.graph.add("Reshape", x.name, target), tuple(shape))


def _cast(mask: Traced) -> Traced:
    kind = DOUBLE_CODE if mask.double else FLOAT_CODE
    name = mask.graph.add("Cast", mask.name, to=kind)
    return mask.like(name, mask.shape)
