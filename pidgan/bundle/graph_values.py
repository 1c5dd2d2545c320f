"""The arm of the formulas that appends operators to an ONNX graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Numbers of types in ONNX' list (TensorProto.FLOAT, TensorProto.DOUBLE ...).
FLOAT_CODE, INT_CODE, DOUBLE_CODE = 1, 7, 11


class Recorder(Protocol):
    """A graph under construction, as `pidgan.training.export` has one.

    Attributes:
        double: whether `precise` values of the graph are in double precision.
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
        """Append a change to the precision that the graph is to have."""
        return self.with_precision(x, x.graph.double)

    def numbers(self, mask: Traced, x: Traced) -> Traced:
        code = DOUBLE_CODE if x.double else FLOAT_CODE
        return mask.like(mask.graph.add("Cast", mask.name, to=code), mask.shape)

    def where(self, mask: Any, x: Any, y: Any) -> Traced:
        value = x if isinstance(x, Traced) else y
        shapes = [value.row_shape(v) for v in (mask, x, y)]
        name = value.graph.add("Where", *(value.name_of(v) for v in (mask, x, y)))
        return value.like(name, np.broadcast_shapes(*shapes))

    def softmax(self, x: Traced) -> Traced:
        return x.like(x.graph.add("Softmax", x.name, axis=len(x.shape)), x.shape)

    def cumulated(self, x: Traced, exclusive: bool) -> Traced:
        options = {"exclusive": 1} if exclusive else {}
        axis = x.ints(len(x.shape))
        return x.like(x.graph.add("CumSum", x.name, axis, **options), x.shape)

    def uniform(self, z: Traced) -> Traced:
        scaled: Traced = z * np.sqrt(0.5)
        return scaled.apply("Erf") * 0.5 + 0.5

    def total(self, x: Traced, axis: int) -> Traced:
        place = axis % (len(x.shape) + 1)
        name = x.graph.add("ReduceSum", x.name, x.ints([place]))
        shape = tuple(1 if i == place - 1 else n for i, n in enumerate(x.shape))
        return x.like(name, shape)

    def largest(self, x: Traced) -> Traced:
        axis = len(x.shape) - 1
        name = x.graph.add("ReduceMax", x.name, axes=[axis], keepdims=0)
        return x.like(name, x.shape[:-1])

    def matmul(self, x: Traced, matrix: Any) -> Traced:
        name = x.graph.add("MatMul", x.name, x.constant(matrix))
        return x.like(name, (*x.shape[:-1], np.shape(matrix)[1]))

    def affine(self, x: Traced, matrix: Any, constant: Any) -> Traced:
        constants = [x.constant(v) for v in (matrix, constant)]
        name = x.graph.add("Gemm", x.name, *constants)
        return x.like(name, (np.shape(matrix)[1],))

    def columns(self, x: Traced, start: int, stop: int) -> Traced:
        bounds = [x.ints([i]) for i in (start, stop, 1)]
        return x.like(x.graph.add("Slice", x.name, *bounds), (stop - start,))

    def reshape(self, x: Traced, shape: Sequence[int]) -> Traced:
        name = x.graph.add("Reshape", x.name, x.ints([0, *shape]))
        return x.like(name, tuple(shape))

    def take(self, x: Traced, places: npt.NDArray[Any], axis: int) -> Traced:
        place = axis % (len(x.shape) + 1)
        name = x.graph.add("Gather", x.name, x.ints(places), axis=place)
        return x.like(name, (*x.shape[: place - 1], len(places), *x.shape[place:]))

    def concatenate(self, parts: Sequence[Traced]) -> Traced:
        return _joined(parts, len(parts[0].shape), lambda shape, n: (*shape[:-1], n))

    def stack(self, parts: Sequence[Traced]) -> Traced:
        axis = len(parts[0].shape) - 1
        return _joined(parts, axis, lambda shape, n: (*shape[:-1], n))

    def turn(self, x: Traced) -> Traced:
        name = x.graph.add("Transpose", x.name, perm=[1, 0])
        return Traced(x.graph, name, x.shape, x.double, not x.rows_last)

    def product(self, matrix: Any, x: Traced) -> Traced:
        name = x.graph.add("MatMul", x.constant(matrix), x.name)
        return x.like(name, (*x.shape[:-1], len(matrix)))

    def pick(self, x: Traced, places: npt.NDArray[Any]) -> Traced:
        axis = len(x.shape) - 1
        name = x.graph.add("Gather", x.name, x.ints(places), axis=axis)
        return x.like(name, (*x.shape[:-1], *np.shape(places)))

    def fold(self, x: Traced, shape: Sequence[int]) -> Traced:
        name = x.graph.add("Reshape", x.name, x.ints([*shape, -1]))
        return x.like(name, tuple(shape))

    def index(self, x: Traced, first: Any) -> Traced:
        x = x + first if isinstance(first, Traced) else x
        name = x.graph.add("Cast", x.name, to=INT_CODE)
        if not isinstance(first, Traced) and np.any(first):
            name = x.graph.add("Add", name, x.ints(first))
        return x.like(name, x.shape)

    def lookup(self, table: Any, index: Traced) -> Traced:
        name = index.graph.add("Gather", index.constant(table), index.name)
        return index.like(name, index.shape)

    def bins(self, v: Traced, edges: Traced) -> Traced:
        above = self.numbers(v.apply("GreaterOrEqual", edges), v)
        name = v.graph.add("ReduceSum", above.name, v.ints([1]), keepdims=1)
        return self.index(v.like(name, (1,)), 0)

    def in_bin(self, values: Traced, bins: Traced, ahead: int) -> Traced:
        index = bins.name
        if ahead:
            index = bins.graph.add("Add", index, bins.ints(ahead))
        name = values.graph.add("GatherElements", values.name, index, axis=1)
        return values.like(name, (1,))


def _joined(
    parts: Sequence[Traced],
    axis: int,
    shape: Callable[[tuple[int, ...], int], tuple[int, ...]],
) -> Traced:
    first = parts[0]
    name = first.graph.add("Concat", *(part.name for part in parts), axis=axis)
    return first.like(name, shape(first.shape, sum(p.shape[-1] for p in parts)))
