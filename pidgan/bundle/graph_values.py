"""The arm of the formulas that appends operators to an ONNX graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Numbers of types in ONNX' list (TensorProto.FLOAT, TensorProto.DOUBLE ...).
FLOAT_CODE, INT_CODE, DOUBLE_CODE = 1, 7, 11


class Recorder(Protocol):
    """A graph under construction, as `pidgan.training.export` has one.

    Attributes:
        double: Whether `precise` values of the graph are in double precision.
    """

    double: bool

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator with one output and return the output's name."""

    def constant(self, value: Any, dtype: type = ...) -> str:
        """Append a constant and return its name."""

    def network(self, network: Any, inputs: dict[str, Any]) -> Any:
        """Append a network of layers and return its output."""


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
        names = [self.name, *(self.name_of(other) for other in others)]
        shapes = [self.shape, *(self.row_shape(other) for other in others)]
        names = names[::-1] if swap else names
        shape = np.broadcast_shapes(*shapes)
        return self.like(self.graph.add(operator, *names), shape)

    def name_of(self, other: Any) -> str:
        """Return the name of another operand, which may be a constant."""
        return other.name if isinstance(other, Traced) else self.constant(other)

    def row_shape(self, other: Any) -> tuple[int, ...]:
        """Return the shape of another operand without the rows."""
        if isinstance(other, Traced):
            return other.shape
        shape: tuple[int, ...] = np.shape(other)
        return shape[:-1] if self.rows_last else shape[1:]

    def like(self, name: str, shape: tuple[int, ...]) -> "Traced":
        """Return another value of the same graph and precision."""
        return Traced(self.graph, name, shape, self.double, self.rows_last)

    def then(
        self, operator: str, shape: tuple[int, ...], *names: str, **attributes: Any
    ) -> "Traced":
        """Append an operator whose first input is this value."""
        return self.like(
            self.graph.add(operator, self.name, *names, **attributes), shape
        )

    def constant(self, value: Any) -> str:
        """Append a constant of this precision, or a mask."""
        if np.asarray(value).dtype == np.bool_:
            return self.graph.constant(value, np.bool_)
        return self.graph.constant(value, np.float64 if self.double else np.float32)

    def ints(self, value: Any) -> str:
        """Append a constant of int64."""
        return self.graph.constant(value, np.int64)

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


class GraphArm:
    """The words of `pidgan.bundle.formulas`, see there, on values of a graph."""

    def apply(self, operator: str, x: Traced, *others: Any) -> Traced:
        return x.apply(operator, *others)

    def like(self, x: Traced, value: Any) -> Any:
        return np.asarray(value, dtype=np.float64 if x.double else np.float32)

    def with_precision(self, x: Traced, double: bool) -> Traced:
        if x.double == double:
            return x
        name = x.graph.add("Cast", x.name, to=DOUBLE_CODE if double else FLOAT_CODE)
        return Traced(x.graph, name, x.shape, double, x.rows_last)

    def precise(self, x: Traced) -> Traced:
        return self.with_precision(x, x.graph.double)

    def numbers(self, mask: Traced, x: Traced) -> Traced:
        code = DOUBLE_CODE if x.double else FLOAT_CODE
        return mask.then("Cast", mask.shape, to=code)

    def where(self, mask: Any, x: Any, y: Any) -> Traced:
        value = x if isinstance(x, Traced) else y
        shapes = [value.row_shape(v) for v in (mask, x, y)]
        name = value.graph.add("Where", *(value.name_of(v) for v in (mask, x, y)))
        return value.like(name, np.broadcast_shapes(*shapes))

    def softmax(self, x: Traced) -> Traced:
        return x.then("Softmax", x.shape, axis=len(x.shape))

    def cumulated(self, x: Traced, exclusive: bool) -> Traced:
        options = {"exclusive": 1} if exclusive else {}
        return x.then("CumSum", x.shape, x.ints(len(x.shape)), **options)

    def uniform(self, z: Traced) -> Traced:
        scaled: Traced = z * np.sqrt(0.5)
        return scaled.apply("Erf") * 0.5 + 0.5

    def total(self, x: Traced, axis: int) -> Traced:
        place = axis % (len(x.shape) + 1)
        shape = tuple(1 if i == place - 1 else n for i, n in enumerate(x.shape))
        return x.then("ReduceSum", shape, x.ints([place]))

    def largest(self, x: Traced) -> Traced:
        return x.then("ReduceMax", x.shape[:-1], axes=[len(x.shape) - 1], keepdims=0)

    def matmul(self, x: Traced, matrix: Any) -> Traced:
        shape = (*x.shape[:-1], np.shape(matrix)[1])
        return x.then("MatMul", shape, x.constant(matrix))

    def affine(self, x: Traced, matrix: Any, constant: Any) -> Traced:
        constants = [x.constant(v) for v in (matrix, constant)]
        return x.then("Gemm", (np.shape(matrix)[1],), *constants)

    def columns(self, x: Traced, start: int, stop: int) -> Traced:
        bounds = [x.ints([i]) for i in (start, stop, 1)]
        return x.then("Slice", (stop - start,), *bounds)

    def reshape(self, x: Traced, shape: Sequence[int]) -> Traced:
        return x.then("Reshape", tuple(shape), x.ints([0, *shape]))

    def fold(self, x: Traced, shape: Sequence[int]) -> Traced:
        return x.then("Reshape", tuple(shape), x.ints([*shape, -1]))

    def take(self, x: Traced, places: npt.NDArray[Any], axis: int) -> Traced:
        place = axis % (len(x.shape) + 1)
        shape = (*x.shape[: place - 1], *places.shape, *x.shape[place:])
        return x.then("Gather", shape, x.ints(places), axis=place)

    def pick(self, x: Traced, places: npt.NDArray[Any]) -> Traced:
        axis = len(x.shape) - 1
        shape = (*x.shape[:-1], *places.shape)
        return x.then("Gather", shape, x.ints(places), axis=axis)

    def concatenate(self, parts: Sequence[Traced]) -> Traced:
        return _joined(parts, axis=len(parts[0].shape))

    def stack(self, parts: Sequence[Traced]) -> Traced:
        return _joined(parts, axis=len(parts[0].shape) - 1)

    def turn(self, x: Traced) -> Traced:
        name = x.graph.add("Transpose", x.name, perm=[1, 0])
        return Traced(x.graph, name, x.shape, x.double, not x.rows_last)

    def product(self, matrix: Any, x: Traced) -> Traced:
        name = x.graph.add("MatMul", x.constant(matrix), x.name)
        return x.like(name, (*x.shape[:-1], len(matrix)))

    def index(self, x: Traced, first: Any) -> Traced:
        x = x + first if isinstance(first, Traced) else x
        whole = x.then("Cast", x.shape, to=INT_CODE)
        if isinstance(first, Traced) or not np.any(first):
            return whole
        return whole.then("Add", x.shape, x.ints(first))

    def lookup(self, table: Any, index: Traced) -> Traced:
        name = index.graph.add("Gather", index.constant(table), index.name)
        return index.like(name, index.shape)

    def bins(self, v: Traced, edges: Traced) -> Traced:
        above = self.numbers(v.apply("GreaterOrEqual", edges), v)
        return self.index(self.total(above, 1), 0)

    def in_bin(self, values: Traced, bins: Traced, ahead: int) -> Traced:
        index = bins.then("Add", bins.shape, bins.ints(ahead)) if ahead else bins
        return values.then("GatherElements", (1,), index.name, axis=1)


def _joined(parts: Sequence[Traced], *, axis: int) -> Traced:
    first, width = parts[0], sum(part.shape[-1] for part in parts)
    names = [part.name for part in parts[1:]]
    return first.then("Concat", (*first.shape[:-1], width), *names, axis=axis)
