"""The operators that a bundle may have, each with a rule for types and shapes.

The list is closed: it has the operators that an exporter of this package writes. Rules
give types and shapes of outputs, so that the memory for a graph is known before it is
run, and that no operator mixes rows. Definitions: https://onnx.ai/onnx/operators,
operator sets 13 to 17.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pidgan.bundle.onnx_values import REAL, Call, Value, broadcast

MOVED = 16  # multiplications within a product that take as long as one number moved
FUNCTIONS = {
    **dict.fromkeys(("Asin", "Cos", "Erf", "Exp", "Log", "Sin", "Tanh"), 128),
    **{"Sigmoid": 128, "Softmax": 128, "Softplus": 512},
}
"""Multiplications that take as long as one value of a function."""
MANY_INPUTS = 1000  # largest number of inputs of an operator that takes any number

Rule = Callable[[Call], Value]


@dataclass(frozen=True)
class Operator:
    """An operator: its rule, and the inputs, attributes and rows that it may have."""

    rule: Rule
    most_inputs: int
    attributes: frozenset[str]
    rows_last: bool


def _elementwise(*accepted: str, gives: str | None = None, least: int = 1) -> Rule:
    """Return the rule of operators on numbers of equal types."""

    def rule(call: Call) -> Value:
        count = max(len(call.inputs), least)
        first = call.of_type(0, *accepted)
        values = [call.of_type(i, first.dtype) for i in range(count)]
        found = broadcast(values)
        return dataclasses.replace(found, dtype=gives or first.dtype)

    return rule


def _where(call: Call) -> Value:
    values = [call.of_type(0, "bool"), call.of_type(1, *REAL, "int64")]
    values.append(call.of_type(2, values[1].dtype))
    return dataclasses.replace(broadcast(values), dtype=values[1].dtype)


def _clip(call: Call) -> Value:
    first = call.of_type(0, "float32")
    for index in (1, 2):
        bound = call.numbers(index)
        if bound is not None and (bound.size != 1 or bound.dtype != np.float32):
            raise ValueError(f"input {index} is not one number of float32")
    return first


def _cast(call: Call) -> Value:
    kinds = {1: "float32", 7: "int64", 9: "bool", 11: "float64"}
    to = call.integer("to", 0)
    if to not in kinds:
        raise ValueError(f"casts to type {to}, expected one of {list(kinds)}")
    return dataclasses.replace(call.value(0), dtype=kinds[to])


def _concat(call: Call) -> Value:
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
    return dataclasses.replace(first, shape=tuple(shape))


def slices(call: Call) -> list[range]:
    """Return the indices that a Slice takes along each axis but the rows'."""
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


def _slice(call: Call) -> Value:
    shape = tuple(len(indices) for indices in slices(call))
    return Value(dtype=call.value(0).dtype, shape=shape)


def _gather(call: Call) -> Value:
    """Entries of a constant table for each row, or fixed columns of each row."""
    data, index = call.value(0), call.of_type(1, "int64")
    if data.per_row and index.per_row:
        raise ValueError("table and indices are both computed; use GatherElements")
    axis = call.integer("axis", 0)
    if index.per_row:
        if axis not in (0, -data.rank) or not data.shape:
            raise ValueError(f"axis is {axis}, expected 0 for computed indices")
        if index.rows_last and len(data.shape) > 1:
            raise ValueError("it mixes rows")
        shape = index.shape + data.shape[1:]
        return dataclasses.replace(index, dtype=data.dtype, shape=shape)
    place = call.axes([axis], data)[0]
    fixed, size = index.constant, data.shape[place]
    assert fixed is not None
    if fixed.min() < -size or fixed.max() >= size:
        raise ValueError(f"an index lies beyond {size} numbers")
    shape = data.shape[:place] + index.shape + data.shape[place + 1 :]
    return dataclasses.replace(data, shape=shape)


def _gather_elements(call: Call) -> Value:
    data, index = call.value(0), call.of_type(1, "int64")
    if not (data.per_row and index.per_row) or data.rank != index.rank:
        raise ValueError("table and indices are not both computed and of one rank")
    axis = call.axis(0, data)
    for place, (n, m) in enumerate(zip(data.shape, index.shape, strict=True)):
        if place != axis and m > n:
            raise ValueError(f"indices {index.shape} do not fit {data.shape}")
    return Value(dtype=data.dtype, shape=index.shape)


def _reshape(call: Call) -> Value:
    value, sizes = call.value(0), call.integers(1)
    if call.integer("allowzero", 0) or not sizes:
        raise ValueError("allowzero is set, or the new shape is missing")
    if value.rows_last:
        # All sizes but the number of rows are given, and their product is the same.
        *shape, rows = sizes
        if rows != -1 or min(shape, default=1) < 1 or math.prod(shape) != value.size:
            raise ValueError(f"({value.shape}, n) cannot become {sizes}")
        return dataclasses.replace(value, shape=tuple(shape))
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
    return Value(dtype=value.dtype, shape=tuple(shape))


def _gemm(call: Call) -> Value:
    """Rows times a constant matrix, with or without a constant bias."""
    x = call.of_type(0, *REAL)
    w = call.of_type(1, x.dtype)
    if not x.per_row or w.constant is None:
        raise ValueError("it is no product of rows with a constant matrix")
    if len(x.shape) != 1 or len(w.shape) != 2 or w.shape[0] != x.shape[0]:
        raise ValueError(f"shapes {x.shape} and {w.shape} do not fit")
    result = Value(dtype=x.dtype, shape=(w.shape[1],))
    if call.numbers(2) is not None:
        bias = call.of_type(2, x.dtype)
        if broadcast([result, bias]).shape != result.shape:
            raise ValueError(f"shape {bias.shape} does not fit {w.shape[1]} outputs")
    return result


def _transpose(call: Call) -> Value:
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
    return Value(dtype=value.dtype, shape=shape, rows_last=place > 0)


def _conv(call: Call) -> Value:
    """A convolution of (channels, ...) with a constant kernel, in one group, dense."""
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
    for name, found, length, least in (
        ("strides", strides, len(size), 1),
        ("pads", pads, 2 * len(size), 0),
    ):
        if (
            not isinstance(found, list)
            or len(found) != length
            or not all(isinstance(n, int) and least <= n <= max(kernel) for n in found)
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
    return Value(dtype="float32", shape=(w.shape[0], *places))


def operations(call: Call, output: Value) -> int:
    """Return what an operator costs for a row, in units of a multiplication.

    A number that is read or written counts as `MOVED`, and a function as `FUNCTIONS`.
    """
    computed = [value.size for value in call.inputs if value and value.per_row]
    moved = MOVED * (sum(computed) + output.size * len(call.inputs))
    moved += output.size * FUNCTIONS.get(call.node.operator, 0)
    if call.node.operator in ("Gemm", "MatMul"):
        return moved + output.size * call.value(0).shape[-1]
    if call.node.operator == "Conv":
        return moved + output.size * math.prod(call.value(1).shape[1:])
    return moved


def _matmul(call: Call) -> Value:
    """Rows times a constant matrix, or the matrix times rows on the last axis."""
    x = call.of_type(0, *REAL)
    w = call.of_type(1, x.dtype)
    if w.rows_last and x.constant is not None:
        x, w = w, x
        if not x.shape or len(w.shape) != 2 or x.shape[-1] != w.shape[1]:
            raise ValueError(f"shapes {w.shape} and {x.shape} do not fit")
        shape = (*x.shape[:-1], w.shape[0])
        return dataclasses.replace(x, shape=shape)
    if not x.per_row or x.rows_last or w.constant is None:
        raise ValueError("it is no product of rows with a constant matrix")
    if not x.shape or len(w.shape) != 2 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"shapes {x.shape} and {w.shape} do not fit")
    return Value(dtype=x.dtype, shape=(*x.shape[:-1], w.shape[1]))


def _softmax(call: Call) -> Value:
    value = call.of_type(0, "float32")
    call.axis(-1, value)
    return value


def cumsum_axis(call: Call) -> int:
    """Return the axis along which a CumSum runs."""
    axes = call.integers(1)
    if axes is None or len(axes) != 1:
        raise ValueError("the axis is missing")
    return call.axes(axes, call.value(0))[0]


def _cumsum(call: Call) -> Value:
    value = call.of_type(0, "float32")
    cumsum_axis(call)
    return value


def reduced_axes(call: Call) -> list[int]:
    """Return the axes over which a reduction runs."""
    given = call.node.attributes.get("axes")
    if call.node.operator == "ReduceSum":
        given = call.integers(1)
    if not isinstance(given, list) or not given:
        raise ValueError("the axes are missing")
    if not all(isinstance(axis, int) for axis in given):
        raise ValueError(f"axes {given} are not integers")
    return call.axes(given, call.value(0))


def _reduce(call: Call) -> Value:
    value = call.of_type(0, *REAL)
    axes = reduced_axes(call)
    keep, sizes = call.integer("keepdims", 1), enumerate(value.shape)
    shape = [1 if at in axes else n for at, n in sizes if keep or at not in axes]
    return dataclasses.replace(value, shape=tuple(shape))


_UNARY = "Abs Asin Cos Erf Exp Floor Log Neg Relu Sigmoid Sin Softplus Sqrt Tanh"
_COMPARISONS = "Equal Greater GreaterOrEqual Less LessOrEqual"
_NUMBER = (*REAL, "int64")

# Names; rule; most inputs; attributes; whether rows may be on the last axis.
_TABLE: tuple[tuple[str, Rule, int, str, bool], ...] = (
    (_UNARY, _elementwise(*REAL), 1, "", True),
    ("Add Mul Sub", _elementwise(*_NUMBER, least=2), 2, "", True),
    # An integer divided by zero would end the process.
    ("Div", _elementwise(*REAL, least=2), 2, "", True),
    ("Max Min", _elementwise(*_NUMBER), MANY_INPUTS, "", True),
    (_COMPARISONS, _elementwise(*_NUMBER, gives="bool", least=2), 2, "", True),
    ("And Or", _elementwise("bool", least=2), 2, "", True),
    ("Where", _where, 3, "", True),
    ("Clip", _clip, 3, "", True),
    ("Cast", _cast, 1, "to", True),
    ("Identity", lambda call: call.value(0), 1, "", True),
    ("Concat", _concat, MANY_INPUTS, "axis", True),
    ("Slice", _slice, 5, "", False),
    ("Gather", _gather, 2, "axis", True),
    ("GatherElements", _gather_elements, 2, "axis", False),
    ("Reshape", _reshape, 2, "allowzero", True),
    ("Transpose", _transpose, 1, "perm", True),
    ("Gemm", _gemm, 3, "", False),
    ("MatMul", _matmul, 2, "", True),
    ("Conv", _conv, 3, "dilations group kernel_shape pads strides", False),
    ("Softmax", _softmax, 1, "axis", False),
    ("CumSum", _cumsum, 2, "exclusive", False),
    ("ReduceSum", _reduce, 2, "keepdims", False),
    ("ReduceMax", _reduce, 1, "axes keepdims", True),
)

# The operators that a bundle may have, by name.
OPERATORS = {
    name: Operator(rule, most, frozenset(attributes.split()), rows_last)
    for names, rule, most, attributes, rows_last in _TABLE
    for name in names.split()
}
