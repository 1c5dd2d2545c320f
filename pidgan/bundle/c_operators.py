"""Operators of a graph as loops in C99, over a block of rows or over a single row."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from pidgan.bundle.c_writer import (
    C_TYPES,
    Step,
    number_text,
    position,
    strides,
    write_product,
)
from pidgan.bundle.onnx_operators import cumsum_axis, reduced_axes, slices


def _each(expression: str) -> Callable[[Step], None]:
    """Return the translation of an operator on numbers {0}, {1}, ... of its inputs."""

    def write(step: Step) -> None:
        value = step.output
        inputs = step.call.inputs
        flat = all(v and (v.shape == value.shape or v.size == 1) for v in inputs)
        if flat and len(value.shape) > 1 and not step.writer.region:
            operands = [_flat(step, i) for i in range(len(inputs))]
            target = f"{step.target()}[{step.writer.at('i0')}]"
            sizes: tuple[int, ...] = (value.size,)
        else:
            operands = [step.operand(i, value.shape) for i in range(len(inputs))]
            target = step.result(step.writer.indices(len(value.shape)))
            sizes = value.shape
        step.writer.loop(sizes, [f"{target} = {expression.format(*operands)};"])

    return write


def _flat(step: Step, index: int) -> str:
    """Return the C expression of an input inside a loop over all numbers."""
    value = step.call.value(index)
    place = "0" if value.size == 1 else "i0"
    place = step.writer.at(place) if value.per_row else place
    return f"{step.place(index)}[{place}]"


def _fold(function: str) -> Callable[[Step], None]:
    """Return the translation of an operator with any number of inputs."""

    def write(step: Step) -> None:
        suffix = "" if step.output.dtype == "float32" else "_integer"
        expression = "{0}"
        for index in range(1, len(step.call.inputs)):
            expression = f"{function}{suffix}({expression}, {{{index}}})"
        _each(expression)(step)

    return write


def _arithmetic(operator: str) -> Callable[[Step], None]:
    """Return the translation of sums and products; integers wrap around."""

    def write(step: Step) -> None:
        if step.output.dtype == "float32":
            _each(f"{{0}} {operator} {{1}}")(step)
        else:
            as_unsigned = "(unsigned long long){}"
            left, right = as_unsigned.format("{0}"), as_unsigned.format("{1}")
            _each(f"(long long)({left} {operator} {right})")(step)

    return write


def _flatly(step: Step, expression: str) -> None:
    """Write an expression of the first input {0} in a loop over all numbers."""
    if step.writer.region:
        # An entry is a list of numbers, whatever its shape.
        shape = (step.writer.region.size, step.output.size // step.writer.region.size)
        indices = step.writer.indices(2)
        operand = expression.format(step.element(0, indices, shape))
        step.writer.loop(shape, [f"{step.result(indices, shape)} = {operand};"])
        return
    target = f"{step.target()}[{step.writer.at('i0')}]"
    operand = expression.format(_flat(step, 0))
    step.writer.loop((step.output.size,), [f"{target} = {operand};"])


def _clip(step: Step) -> None:
    expression = "{0}"
    for index, function in ((1, "larger"), (2, "smaller")):
        bound = step.call.numbers(index)
        if bound is not None:
            expression = f"{function}({expression}, {number_text(bound.ravel()[0])})"
    _flatly(step, expression)


def _cast(step: Step) -> None:
    before, after = step.call.value(0).dtype, step.output.dtype
    if after == "bool":
        expression = "{0} != 0"
    elif (before, after) == ("float32", "int64"):
        expression = "to_integer({0})"
    else:
        expression = f"({C_TYPES[after]}){{0}}"
    _each(expression)(step)


def _move(
    step: Step,
    source: int,
    taken: Sequence[str],
    *,
    given: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
) -> None:
    """Copy numbers at indices `taken` of an input to indices `given` of the output."""
    shape = step.output.shape
    given = step.writer.indices(len(shape)) if given is None else given
    left, right = step.result(given), step.element(source, taken)
    step.writer.loop(shape if sizes is None else sizes, [f"{left} = {right};"])


def _slice(step: Step) -> None:
    taken, axes = [], slices(step.call)
    for name, axis in zip(step.writer.indices(len(axes)), axes, strict=True):
        place = name if axis.step == 1 else f"{name} * ({axis.step})"
        taken.append(f"{place} + {axis.start}" if axis.start else place)
    _move(step, 0, taken)


def _concat(step: Step) -> None:
    axis = step.call.axis(0, step.call.value(0))
    before = 0
    for index in range(len(step.call.inputs)):
        shape = step.call.value(index).shape
        taken = step.writer.indices(len(shape))
        given = list(taken)
        given[axis] += f" + {before}" if before else ""
        _move(step, index, taken, given=given, sizes=shape)
        before += shape[axis]


def _transpose(step: Step) -> None:
    """Write a Transpose; the place of the rows makes no difference in C."""
    value = step.call.value(0)
    order = step.node.attributes["perm"]
    rows = value.rank - 1 if value.rows_last else 0
    assert isinstance(order, list)
    axes = [axis - (rows == 0) for axis in order if axis != rows]
    given = step.writer.indices(len(axes))
    _move(step, 0, [given[axes.index(axis)] for axis in range(len(axes))])


def _gather(step: Step) -> None:
    data, index = step.call.value(0), step.call.value(1)
    at, given = step.writer.at, step.writer.indices(len(step.output.shape))
    n = len(index.shape)
    if index.per_row:
        number = f"{step.place(1)}[{at(position(given[:n], index.shape))}]"
        entry = f"within({number}, {data.shape[0]})"
        place = position([entry, *given[n:]], data.shape)
        left = f"{step.target()}[{at(position(given, step.output.shape))}]"
        step.writer.loop(step.output.shape, [f"{left} = {step.place(0)}[{place}];"])
        return
    axis = step.call.axes([step.call.integer("axis", 0)], data)[0]
    fixed = index.constant
    assert fixed is not None
    table = step.writer.constants.add(np.asarray(fixed % data.shape[axis]))
    entry = f"{table}[{position(given[axis : axis + n], index.shape)}]"
    _move(step, 0, [*given[:axis], entry, *given[axis + n :]])


def _gather_elements(step: Step) -> None:
    data, shape = step.call.value(0), step.output.shape
    axis = step.call.axis(0, data)
    taken = step.writer.indices(len(shape))
    number = f"{step.place(1)}[{step.writer.at(position(taken, shape))}]"
    taken[axis] = f"within({number}, {data.shape[axis]})"
    _move(step, 0, taken)


def _along(step: Step, axis: int) -> tuple[list[int], Callable[[str, str], str]]:
    """Return sizes of the other axes, and the place of a number k along an axis."""
    shape = step.call.value(0).shape
    others = [size for place, size in enumerate(shape) if place != axis]

    def element(array: str, k: str) -> str:
        indices = step.writer.indices(len(others))
        indices.insert(axis, k)
        return f"{array}[{step.writer.at(position(indices, shape))}]"

    return others, element


def _softmax(step: Step) -> None:
    value = step.call.value(0)
    axis = step.call.axis(-1, value)
    others, element = _along(step, axis)
    x, y = element(step.place(0), "k"), element(step.target(), "k")
    loop = f"for (int k = 0; k < {value.shape[axis]}; ++k)"
    step.writer.loop(
        others,
        [
            f"float most = {element(step.place(0), '0')}, sum = 0;",
            f"{loop} most = larger({x}, most);",
            f"{loop} sum += {y} = expf({x} - most);",
            f"{loop} {y} /= sum;",
        ],
    )


def _cumsum(step: Step) -> None:
    axis = cumsum_axis(step.call)
    others, element = _along(step, axis)
    loop = f"for (int k = 0; k < {step.call.value(0).shape[axis]}; ++k)"
    add, give = f"sum += {element(step.place(0), 'k')};", element(step.target(), "k")
    give += " = sum;"
    both = f"{give} {add}" if step.call.integer("exclusive", 0) else f"{add} {give}"
    step.writer.loop(others, ["float sum = 0;", f"{loop} {{ {both} }}"])


def _reduce(first: str, add: str) -> Callable[[Step], None]:
    """Return the translation of a reduction: y = first, then y = add(y, x)."""

    def write(step: Step) -> None:
        value, axes = step.call.value(0), reduced_axes(step.call)
        kept = [place for place in range(len(value.shape)) if place not in axes]
        sizes = [value.shape[place] for place in kept]
        reduced = [value.shape[place] for place in axes]
        indices = [""] * len(value.shape)
        names = step.writer.indices(len(kept))
        for name, place in zip(names, kept, strict=True):
            indices[place] = name
        k = strides(reduced)
        for number, place in enumerate(axes):
            indices[place] = f"k / {k[number]} % {reduced[number]}"
        x, y = step.element(0, indices), step.result(names, sizes)
        count = math.prod(reduced)
        step.writer.loop(
            sizes,
            [
                f"float y = {first};",
                f"for (int k = 0; k < {count}; ++k) y = {add.replace('X', x)};",
                f"{y} = y;",
            ],
        )

    return write


_FUNCTIONS = ("Exp", "Log", "Sqrt", "Floor", "Erf", "Tanh", "Sin", "Cos", "Asin")
_SIGNS = {
    **{"Div": "/", "Equal": "==", "And": "&", "Or": "|"},
    **{"Greater": ">", "GreaterOrEqual": ">=", "Less": "<", "LessOrEqual": "<="},
}

# Translations of `onnx_operators.OPERATORS`, except for convolutions: generators for
# tracks have none.
TRANSLATIONS: dict[str, Callable[[Step], None]] = {
    **{name: _each(f"{name.lower()}f({{0}})") for name in _FUNCTIONS},
    "Abs": _each("fabsf({0})"),
    "Neg": _each("-{0}"),
    "Sigmoid": _each("1.0f / (1.0f + expf(-{0}))"),
    "Relu": _each("larger({0}, 0.0f)"),
    "Softplus": _each("larger({0}, 0.0f) + log1pf(expf(-fabsf({0})))"),
    "Add": _arithmetic("+"),
    "Sub": _arithmetic("-"),
    "Mul": _arithmetic("*"),
    "Min": _fold("smaller"),
    "Max": _fold("larger"),
    **{name: _each(f"{{0}} {sign} {{1}}") for name, sign in _SIGNS.items()},
    "Where": _each("{0} ? {1} : {2}"),
    "Clip": _clip,
    "Cast": _cast,
    **dict.fromkeys(("Identity", "Reshape"), lambda step: _flatly(step, "{0}")),
    "Concat": _concat,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Transpose": _transpose,
    **dict.fromkeys(("Gemm", "MatMul"), write_product),
    "Softmax": _softmax,
    "CumSum": _cumsum,
    "ReduceSum": _reduce("0", "y + X"),
    "ReduceMax": _reduce("-INFINITY", "larger(X, y)"),
}


_STAYS = "A first argument that is no number stays."
_TWO = "long long a, long long b"
HELPERS = {
    "larger": (_STAYS, "float", "float a, float b", "return a < b ? b : a"),
    "smaller": (_STAYS, "float", "float a, float b", "return a > b ? b : a"),
    "larger_integer": ("The larger one.", "long long", _TWO, "return a > b ? a : b"),
    "smaller_integer": ("The smaller one.", "long long", _TWO, "return a < b ? a : b"),
    "to_integer": (
        "Towards zero; 0 for what is too large, or NaN.",
        *("long long", "float v", "return fabsf(v) < 9e18f ? (long long)v : 0"),
    ),
    "within": (
        "An index into a table; negative ones count from the end.",
        *("long long", "long long i, long long size"),
        "i = i < 0 ? i + size : i;\n    i = i < 0 ? 0 : i;\n"
        "    return i < size ? i : size - 1",
    ),
}
