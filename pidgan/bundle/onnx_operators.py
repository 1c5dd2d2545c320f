"""The operators that a bundle may have, each with a rule for types and shapes.

A closed list: each operator has a rule that gives the type and shape of what comes out,
so that the memory a graph needs is known before it is asked for, and so that every row
is seen to be computed on its own. `c_operators` translates the same list to C, but for
convolutions.

What the operators mean: https://onnx.ai/onnx/operators, operator sets 13 to 17.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.bundle.onnx_bytes import Node

REAL = ("float32", "float64")
"""Types of real numbers. Networks are of the first; formulas may be of the second."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """Type and shape of a value.

    Attributes:
        dtype: "float32", "float64", "int64" or "bool".
        shape: without the axis of the rows.
        per_row: whether an axis not in `shape`, the first one, is that of the rows; if
            not, the value is a constant.
        rows_last: whether that axis is the last one instead.
        constant: its numbers.
    """

    dtype: str
    shape: tuple[int, ...]
    per_row: bool = True
    rows_last: bool = False
    constant: npt.NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Numbers of one row, or of the constant."""
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        """Number of axes, that of the rows included."""
        return len(self.shape) + self.per_row


class Call:
    """A node with the values that go in; what the rules below work on."""

    def __init__(self, node: Node, values: Mapping[str, Value]) -> None:
        self.node = node
        self.inputs = [values[name] if name else None for name in node.inputs]

    def value(self, index: int) -> Value:
        """Return an input that has to be there."""
        found = self.optional(index)
        if found is None:
            raise ValueError(f"input {index} is missing")
        return found

    def optional(self, index: int) -> Value | None:
        """Return an input, None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def numbers(self, index: int) -> npt.NDArray[Any] | None:
        """Return an input that has to be constant, None if it is left out."""
        found = self.optional(index)
        if found is None:
            return None
        if found.constant is None:
            raise ValueError(f"input {index} is computed, expected a constant")
        return found.constant

    def integers(self, index: int) -> list[int] | None:
        """Return a constant list of integers, None if it is left out."""
        found = self.numbers(index)
        if found is None:
            return None
        if found.dtype != np.int64 or found.ndim > 1:
            raise ValueError(
                f"input {index} is {found.dtype}, expected a list of int64"
            )
        return [int(number) for number in found.ravel()]

    def integer(self, name: str, default: int) -> int:
        """Return an attribute."""
        found = self.node.attributes.get(name, default)
        found = 0 if found is None else found
        if not isinstance(found, int):
            raise ValueError(f"attribute {name} is {found!r}, expected an integer")
        return found

    def real(self, name: str, default: float) -> float:
        """Return an attribute."""
        found = self.node.attributes.get(name, default)
        found = 0.0 if found is None else found
        if not isinstance(found, float) or not math.isfinite(found):
            raise ValueError(f"attribute {name} is {found!r}, expected a finite number")
        return found

    def axes(self, given: Sequence[int], value: Value) -> list[int]:
        """Return axes as indices into the shape of a value; the rows' is refused."""
        found = []
        for axis in given:
            if not -value.rank <= axis < value.rank:
                raise ValueError(f"axis {axis} of a value with {value.rank} axes")
            index = axis % value.rank - (value.per_row and not value.rows_last)
            if index not in range(len(value.shape)):
                raise ValueError("it mixes rows")
            if index in found:
                raise ValueError(f"axis {axis} is given twice")
            found.append(index)
        return found

    def axis(self, default: int, value: Value) -> int:
        """Return the attribute `axis` as an index into the shape of a value."""
        return self.axes([self.integer("axis", default)], value)[0]

    def of_type(self, index: int, *dtypes: str) -> Value:
        """Return an input that has to be there and of some type."""
        found = self.value(index)
        if found.dtype not in dtypes:
            raise ValueError(
                f"input {index} is {found.dtype}, expected {' or '.join(dtypes)}"
            )
        return found


Rule = Callable[[Call], list[Value]]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator: what it accepts and the rule for what it gives."""

    rule: Rule
    most_inputs: int
    attributes: frozenset[str] = frozenset()


def broadcast(values: Sequence[Value]) -> Value:
    """Return type and shape of values of one type combined number by number."""
    rank = max(value.rank for value in values)
    rows_last = any(value.rows_last for value in values)
    rows = rank - 1 if rows_last else 0
    columns: list[set[int | str]] = [set() for _ in range(rank)]
    for value in values:
        dims: tuple[int | str, ...] = value.shape
        if value.per_row:
            dims = (*dims, "n") if value.rows_last else ("n", *dims)
        for column, size in zip(columns[rank - len(dims) :], dims, strict=True):
            column.add(size)
    sizes = [column - {1} or {1} for column in columns]
    at_rows = sizes.pop(rows)
    if any(len(size) > 1 or "n" in size for size in sizes) or len(at_rows) > 1:
        shapes = ", ".join(str(("n",) * v.per_row + v.shape) for v in values)
        raise ValueError(f"shapes {shapes} do not fit")
    if at_rows != {"n"}:
        raise ValueError("it mixes rows")
    shape = tuple(int(next(iter(size))) for size in sizes)
    return Value(dtype=values[0].dtype, shape=shape, rows_last=rows_last)


def _elementwise(*accepted: str, gives: str | None = None, least: int = 1) -> Rule:
    """Return the rule of operators that work number by number on equal types."""

    def rule(call: Call) -> list[Value]:
        count = max(len(call.inputs), least)
        first = call.of_type(0, *accepted)
        values = [call.of_type(i, first.dtype) for i in range(count)]
        found = broadcast(values)
        return [dataclasses.replace(found, dtype=gives or first.dtype)]

    return rule


def _where(call: Call) -> list[Value]:
    values = [call.of_type(0, "bool"), call.of_type(1, "float32", "int64")]
    values.append(call.of_type(2, values[1].dtype))
    return [dataclasses.replace(broadcast(values), dtype=values[1].dtype)]


def _clip(call: Call) -> list[Value]:
    first = call.of_type(0, "float32")
    for index in (1, 2):
        bound = call.numbers(index)
        if bound is not None and (bound.size != 1 or bound.dtype != np.float32):
            raise ValueError(f"input {index} is not one number of float32")
    return [first]


def _cast(call: Call) -> list[Value]:
    kinds = {1: "float32", 7: "int64", 9: "bool", 11: "float64"}
    to = call.integer("to", 0)
    if to not in kinds:
        raise ValueError(f"casts to type {to}, expected one of {list(kinds)}")
    return [dataclasses.replace(call.value(0), dtype=kinds[to])]


def _identity(call: Call) -> list[Value]:
    return [call.value(0)]


def _concat(call: Call) -> list[Value]:
    first = call.value(0)
    parts = [call.of_type(i, first.dtype) for i in range(len(call.inputs))]
    if not all(part.per_row for part in parts):
        raise ValueError("it joins rows with a constant")
    if any(part.rows_last != first.rows_last for part in parts):
        raise ValueError("it mixes rows")
    axis = call.axis(0, first)
    for part in parts:
        rest = list(part.shape)
        if len(rest) != len(first.shape):
            raise ValueError("it joins values of different rank")
        rest[axis] = first.shape[axis]
        if tuple(rest) != first.shape:
            raise ValueError(f"shapes {first.shape} and {part.shape} do not fit")
    shape = list(first.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return [dataclasses.replace(first, shape=tuple(shape))]


def slices(call: Call) -> list[range]:
    """Return which indices of each axis, without the rows', a Slice takes."""
    value = call.value(0)
    starts, stops = call.integers(1), call.integers(2)
    if starts is None or stops is None:
        raise ValueError("starts or ends are missing")
    given = call.integers(3)
    axes = call.axes(range(len(starts)) if given is None else given, value)
    steps = call.integers(4) or [1] * len(starts)
    if not len(starts) == len(stops) == len(axes) == len(steps) or 0 in steps:
        raise ValueError("starts, ends, axes and steps do not fit")
    taken = [range(size) for size in value.shape]
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        taken[axis] = range(value.shape[axis])[start:stop:step]
        if not taken[axis]:
            raise ValueError("it takes nothing")
    return taken


def _slice(call: Call) -> list[Value]:
    shape = tuple(len(indices) for indices in slices(call))
    return [Value(dtype=call.value(0).dtype, shape=shape)]


def _split(call: Call) -> list[Value]:
    value = call.value(0)
    axis = call.axis(0, value)
    size, outputs = value.shape[axis], len(call.node.outputs)
    sizes = call.integers(1)
    if sizes is None:
        if not outputs or size % outputs:
            raise ValueError(f"{size} numbers cannot be split into {outputs}")
        sizes = [size // outputs] * outputs
    if sum(sizes) != size or min(sizes, default=0) < 1:
        raise ValueError(f"{size} numbers cannot be split into {sizes}")
    shapes = [(*value.shape[:axis], n, *value.shape[axis + 1 :]) for n in sizes]
    return [Value(dtype=value.dtype, shape=shape) for shape in shapes]


def _gather(call: Call) -> list[Value]:
    """Rows of a constant table for each row, or fixed columns of each row."""
    data, index = call.value(0), call.of_type(1, "int64")
    if data.per_row and index.per_row:
        raise ValueError("table and indices are both computed; use GatherElements")
    axis = call.integer("axis", 0)
    if index.per_row:
        if axis not in (0, -data.rank) or not data.shape:
            raise ValueError(f"axis is {axis}, expected 0 for computed indices")
        if index.rows_last and len(data.shape) > 1:
            raise ValueError("it mixes rows")
        return [
            dataclasses.replace(
                index, dtype=data.dtype, shape=index.shape + data.shape[1:]
            )
        ]
    place = call.axes([axis], data)[0]
    fixed, size = index.constant, data.shape[place]
    assert fixed is not None
    if fixed.min() < -size or fixed.max() >= size:
        raise ValueError(f"an index lies beyond {size} numbers")
    shape = data.shape[:place] + index.shape + data.shape[place + 1 :]
    return [dataclasses.replace(data, shape=shape)]


def _gather_elements(call: Call) -> list[Value]:
    data, index = call.value(0), call.of_type(1, "int64")
    if not (data.per_row and index.per_row) or data.rank != index.rank:
        raise ValueError("table and indices are not both computed and of one rank")
    axis = call.axis(0, data)
    for place, (n, m) in enumerate(zip(data.shape, index.shape, strict=True)):
        if place != axis and m > n:
            raise ValueError(f"indices {index.shape} do not fit {data.shape}")
    return [Value(dtype=data.dtype, shape=index.shape)]


def _reshape(call: Call) -> list[Value]:
    value, sizes = call.value(0), call.integers(1)
    if call.integer("allowzero", 0) or not sizes:
        raise ValueError("allowzero is set, or the new shape is missing")
    if value.rows_last:
        # The rows are what is left: all other numbers are said, and as many as before.
        *shape, rows = sizes
        if rows != -1 or min(shape, default=1) < 1 or math.prod(shape) != value.size:
            raise ValueError(f"({value.shape}, n) cannot become {sizes}")
        return [dataclasses.replace(value, shape=tuple(shape))]
    if not value.per_row or sizes[0] not in (0, -1) or sizes.count(-1) > 1:
        raise ValueError(f"new shape {sizes} does not begin with the rows, 0 or -1")
    shape = list(sizes[1:])
    for place, size in enumerate(shape):
        if size == 0 and place < len(value.shape):
            shape[place] = value.shape[place]
    known = math.prod(size for size in shape if size != -1)
    if -1 in shape and known > 0:
        shape[shape.index(-1)] = value.size // known
    if min(shape, default=1) < 1 or math.prod(shape) != value.size:
        raise ValueError(f"{value.shape} cannot become {sizes}")
    return [Value(dtype=value.dtype, shape=tuple(shape))]


def _squeeze(call: Call) -> list[Value]:
    value, given = call.value(0), call.integers(1)
    if given is None:
        raise ValueError("the axes are missing")
    axes = call.axes(given, value)
    if any(value.shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes {given} of shape {value.shape} are not all of size 1")
    shape = [n for axis, n in enumerate(value.shape) if axis not in axes]
    return [Value(dtype=value.dtype, shape=tuple(shape))]


def _unsqueeze(call: Call) -> list[Value]:
    value, given = call.value(0), call.integers(1)
    if given is None or len(given) > 8:
        raise ValueError("the axes are missing, or too many")
    larger = Value(dtype=value.dtype, shape=(*value.shape, *(1 for _ in given)))
    axes = call.axes(given, larger)
    rest = iter(value.shape)
    shape = [1 if a in axes else next(rest) for a in range(len(larger.shape))]
    return [Value(dtype=value.dtype, shape=tuple(shape))]


def _gemm(call: Call) -> list[Value]:
    x = call.of_type(0, *REAL)
    w = call.of_type(1, x.dtype)
    call.real("alpha", 1.0)
    call.real("beta", 1.0)
    transposed = call.integer("transB", 0)
    if call.integer("transA", 0) or not x.per_row or w.constant is None:
        raise ValueError("it is no product of rows with a constant matrix")
    if len(x.shape) != 1 or len(w.shape) != 2 or transposed not in (0, 1):
        raise ValueError(f"shapes {x.shape} and {w.shape} do not fit")
    inputs, outputs = reversed(w.shape) if transposed else w.shape
    if inputs != x.shape[0]:
        raise ValueError(f"shapes {x.shape} and {w.shape} do not fit")
    result = Value(dtype=x.dtype, shape=(outputs,))
    bias = call.numbers(2)
    if bias is not None:
        given = call.of_type(2, x.dtype)
        if broadcast([result, given]).shape != result.shape:
            raise ValueError(f"shape {given.shape} does not fit {outputs} outputs")
    return [result]


def _transpose(call: Call) -> list[Value]:
    value, order = call.value(0), call.node.attributes.get("perm")
    if not isinstance(order, list) or sorted(order) != list(range(value.rank)):
        raise ValueError(f"perm is {order!r}, expected an order of {value.rank} axes")
    if not value.per_row:
        raise ValueError("it mixes rows")
    place = order.index(value.rank - 1 if value.rows_last else 0)
    if place not in (0, value.rank - 1):
        raise ValueError("it mixes rows")
    axes = [axis - (not value.rows_last) for axis in order]
    del axes[place]
    shape = tuple(value.shape[axis] for axis in axes)
    return [Value(dtype=value.dtype, shape=shape, rows_last=place > 0)]


def _conv(call: Call) -> list[Value]:
    """A convolution of (channels, ...) with a constant kernel, one group, no holes."""
    x, w = call.of_type(0, "float32"), call.of_type(1, "float32")
    given = call.node.attributes
    if not x.per_row or w.constant is None:
        raise ValueError("it is no convolution of rows with a constant kernel")
    size, kernel = x.shape[1:], w.shape[2:]
    if not 1 <= len(size) == len(kernel) <= 3 or w.shape[1] != x.shape[0]:
        raise ValueError(f"shapes {x.shape} and {w.shape} do not fit")
    one = [1] * len(size)
    for name, expected in (("dilations", one), ("kernel_shape", list(kernel))):
        if given.get(name, expected) != expected:
            raise ValueError(f"{name} is {given[name]}, expected {expected}")
    if call.integer("group", 1) != 1:
        raise ValueError("it has groups")
    strides, pads = given.get("strides", one), given.get("pads", [0] * 2 * len(size))
    for name, found, length in (
        ("strides", strides, len(size)),
        ("pads", pads, 2 * len(size)),
    ):
        if (
            not isinstance(found, list)
            or len(found) != length
            or not all(isinstance(n, int) and 0 <= n <= max(kernel) for n in found)
            or (name == "strides" and 0 in found)
        ):
            raise ValueError(f"{name} is {found!r}, expected {length} small integers")
    padded = [
        n + int(pads[i]) + int(pads[i + len(size)]) - kernel[i]
        for i, n in enumerate(size)
    ]
    if min(padded) < 0:
        raise ValueError(f"shapes {x.shape} and {w.shape} do not fit")
    bias = call.numbers(2)
    if bias is not None and bias.shape != (w.shape[0],):
        raise ValueError(f"bias {bias.shape} does not fit {w.shape[0]} channels")
    places = [n // int(strides[i]) + 1 for i, n in enumerate(padded)]
    return [Value(dtype="float32", shape=(w.shape[0], *places))]


def products(call: Call, output: Value) -> int:
    """Return how many multiplications of a row an operator takes; 0 if few."""
    if call.node.operator in ("Gemm", "MatMul"):
        return output.size * call.value(0).shape[-1]
    if call.node.operator == "Conv":
        return output.size * math.prod(call.value(1).shape[1:])
    return 0


def _matmul(call: Call) -> list[Value]:
    """Rows times a constant matrix; with rows on the last axis, the reverse."""
    x = call.of_type(0, *REAL)
    w = call.of_type(1, x.dtype)
    if w.rows_last and x.constant is not None:
        x, w = w, x
        if not x.shape or len(w.shape) != 2 or x.shape[-1] != w.shape[1]:
            raise ValueError(f"shapes {w.shape} and {x.shape} do not fit")
        shape = (*x.shape[:-1], w.shape[0])
        return [dataclasses.replace(x, shape=shape)]
    if not x.per_row or x.rows_last or w.constant is None:
        raise ValueError("it is no product of rows with a constant matrix")
    if not x.shape or len(w.shape) != 2 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"shapes {x.shape} and {w.shape} do not fit")
    return [Value(dtype=x.dtype, shape=(*x.shape[:-1], w.shape[1]))]


def _softmax(call: Call) -> list[Value]:
    value = call.of_type(0, "float32")
    call.axis(-1, value)
    return [value]


def cumsum_axis(call: Call) -> int:
    """Return the axis along which a CumSum runs."""
    axes = call.integers(1)
    if axes is None or len(axes) != 1:
        raise ValueError("the axis is missing")
    return call.axes(axes, call.value(0))[0]


def _cumsum(call: Call) -> list[Value]:
    value = call.of_type(0, "float32")
    cumsum_axis(call)
    return [value]


def reduced_axes(call: Call) -> list[int]:
    """Return the axes over which a reduction runs."""
    value = call.value(0)
    given = call.node.attributes.get("axes")
    if call.node.operator == "ReduceSum":
        given = call.integers(1)
    if call.node.operator == "ArgMax":
        given = [call.integer("axis", 0)]
    if not isinstance(given, list) or not given:
        raise ValueError("the axes are missing")
    if not all(isinstance(axis, int) for axis in given):
        raise ValueError(f"axes {given} are not integers")
    return call.axes(given, value)


def _reduce(call: Call) -> list[Value]:
    value = call.of_type(0, *REAL)
    axes = reduced_axes(call)
    if call.integer("keepdims", 1):
        shape = [1 if axis in axes else n for axis, n in enumerate(value.shape)]
    else:
        shape = [n for axis, n in enumerate(value.shape) if axis not in axes]
    if call.integer("select_last_index", 0) or call.integer("noop_with_empty_axes", 0):
        raise ValueError("select_last_index or noop_with_empty_axes is set")
    dtype = "int64" if call.node.operator == "ArgMax" else value.dtype
    return [dataclasses.replace(value, dtype=dtype, shape=tuple(shape))]


def _table() -> dict[str, Operator]:
    real, number, truth = REAL, (*REAL, "int64"), ("bool",)
    many = 1000
    unary = (
        *("Abs", "Neg", "Reciprocal", "Exp", "Log", "Sqrt", "Floor", "Ceil"),
        *("Erf", "Tanh", "Sigmoid", "Relu", "Softplus", "Sin", "Cos", "Asin"),
    )
    comparisons = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
    rules: dict[str, tuple[Rule, int, str]] = {
        name: (_elementwise(*real), 1, "") for name in unary
    }
    rules |= {name: (_elementwise(*real), 1, "alpha") for name in ("LeakyRelu", "Elu")}
    rules |= {
        name: (_elementwise(*number, least=2), 2, "") for name in ("Add", "Sub", "Mul")
    }
    # An integer divided by zero would end the process.
    rules |= {name: (_elementwise(*real, least=2), 2, "") for name in ("Div", "Pow")}
    rules |= {name: (_elementwise(*number), many, "") for name in ("Min", "Max")}
    rules |= {
        name: (_elementwise(*number, gives="bool", least=2), 2, "")
        for name in comparisons
    }
    rules |= {name: (_elementwise(*truth, least=2), 2, "") for name in ("And", "Or")}
    rules |= {
        "Not": (_elementwise(*truth), 1, ""),
        "Where": (_where, 3, ""),
        "Clip": (_clip, 3, ""),
        "Cast": (_cast, 1, "to"),
        "Identity": (_identity, 1, ""),
        "Concat": (_concat, many, "axis"),
        "Slice": (_slice, 5, ""),
        "Split": (_split, 2, "axis"),
        "Gather": (_gather, 2, "axis"),
        "GatherElements": (_gather_elements, 2, "axis"),
        "Reshape": (_reshape, 2, "allowzero"),
        "Squeeze": (_squeeze, 2, ""),
        "Unsqueeze": (_unsqueeze, 2, ""),
        "Gemm": (_gemm, 3, "alpha beta transA transB"),
        "MatMul": (_matmul, 2, ""),
        "Transpose": (_transpose, 1, "perm"),
        "Conv": (_conv, 3, "dilations group kernel_shape pads strides"),
        "Softmax": (_softmax, 1, "axis"),
        "CumSum": (_cumsum, 2, "exclusive reverse"),
        "ReduceSum": (_reduce, 2, "keepdims noop_with_empty_axes"),
        "ReduceMean": (_reduce, 1, "axes keepdims"),
        "ReduceMax": (_reduce, 1, "axes keepdims"),
        "ReduceMin": (_reduce, 1, "axes keepdims"),
        "ArgMax": (_reduce, 1, "axis keepdims select_last_index"),
    }
    return {
        name: Operator(rule=rule, most_inputs=most, attributes=frozenset(words.split()))
        for name, (rule, most, words) in rules.items()
    }


ROWS_LAST = {
    *("Abs", "Neg", "Reciprocal", "Exp", "Log", "Sqrt", "Floor", "Ceil", "Erf", "Tanh"),
    *("Sigmoid", "Relu", "Softplus", "Sin", "Cos", "Asin", "Add", "Sub", "Mul", "Div"),
    *("Pow", "Min", "Max", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"),
    *("And", "Or", "Not", "Where", "Clip", "Cast", "Identity", "Concat", "Gather"),
    *("Reshape", "MatMul", "Transpose", "ReduceMax"),
}
"""Operators that may have the rows on the last axis."""

OPERATORS = _table()
"""The operators that a bundle may have, by name."""
