"""Texts of C functions: constant and local arrays, loops, indices, products.

Number i of row r in a block lies at `i * ROWS + r`, so that a compiler turns the loops
over r into vector instructions without a new order of sums; number i of a single row
lies at `i`. An array is used again as soon as nobody needs its value any more. Arrays
are local ones of a function, or, where they are too large for a stack, parts of memory
that the caller gives. In a region of a graph (`pidgan.bundle.c_regions`), which is one
of a single row, entry `at[l]` is in lane l: its number i lies at `i * LANES + l`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.bundle.c_regions import LANES, Region
from pidgan.bundle.onnx_bytes import Node
from pidgan.bundle.onnx_values import Call, Value

C_TYPES = {"float32": "float", "int64": "long long", "bool": "int"}
_BYTES = {"float": 4, "long long": 8, "int": 4}
_PREFIXES = {"float": "v", "long long": "n", "int": "t"}

LINE = 64
"""Bytes of a line of the cache, at which arrays in memory of the caller begin."""

# Number of columns of a product at a time. Their sums stay in registers and hide the
# latency of an addition.
TILE = 8


class Constants:
    """The constant arrays of a file, each written once."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, bytes], str] = {}
        self._texts: list[str] = []

    def add(self, values: npt.NDArray[Any]) -> str:
        """Return the name of the array with these numbers."""
        key = (str(values.dtype), values.tobytes())
        if key not in self._names:
            name = f"c{len(self._names)}"
            self._names[key] = name
            self._texts.append(array_text(name, values))
        return self._names[key]

    def text(self) -> str:
        """Return the definitions of all arrays."""
        return "\n".join(self._texts)


@dataclass(kw_only=True)
class _Slot:
    """An array of a C function, which holds one value after another."""

    name: str
    size: int


@dataclass(kw_only=True)
class Writer:
    """A C function under construction."""

    rows: int
    constants: Constants
    lines: list[str] = field(default_factory=list)
    slots: dict[str, list[_Slot]] = field(default_factory=dict)
    free: dict[str, list[_Slot]] = field(default_factory=dict)
    held: dict[str, _Slot] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    region: Region | None = None

    def allocate(self, name: str, value: Value) -> str:
        """Return the C array for a value: the smallest free one that it fits into."""
        kind, size = C_TYPES[value.dtype], value.size
        if self.is_in_lanes(name):
            size = LANES * math.prod(value.shape[1:])
        slots, free = (found.setdefault(kind, []) for found in (self.slots, self.free))
        if not free:
            free.append(_Slot(name=f"{_PREFIXES[kind]}{len(slots)}", size=0))
            slots += free
        free.sort(key=lambda slot: slot.size)
        slot = next((slot for slot in free if slot.size >= size), free[-1])
        free.remove(slot)
        slot.size = max(slot.size, size)
        self.held[name] = slot
        self.places[name] = slot.name
        return slot.name

    def n_bytes(self) -> int:
        """Return the size of all arrays in bytes, each at a place of its own line."""
        return sum(size for _, _, size in self._arrays())

    def local_arrays(self) -> str:
        """Return the declarations of the arrays, as local ones."""
        rows = " * ROWS" if self.rows > 1 else ""
        return "\n".join(
            f"    {kind} {slot.name}[{slot.size}{rows}];"
            for kind, slot, _ in self._arrays()
        )

    def arrays_in_scratch(self, text: str) -> str:
        """Return the declarations of the arrays that a text names, in `scratch`."""
        named, place, lines = set(re.findall(r"\b[vnt]\d+\b", text)), 0, []
        for kind, slot, size in self._arrays():
            if slot.name in named:
                lines.append(
                    f"    {kind} *restrict const {slot.name} = "
                    f"({kind} *)(scratch + {place});"
                )
            place += size
        return "\n".join(lines)

    def _arrays(self) -> Iterator[tuple[str, _Slot, int]]:
        """Yield type, array and bytes, a multiple of `LINE`."""
        for kind, slots in self.slots.items():
            for slot in slots:
                size = slot.size * _BYTES[kind] * self.rows
                yield kind, slot, -(-size // LINE) * LINE

    def release(self, name: str, dtype: str) -> None:
        """Free the array of a value that nobody needs any more."""
        slot = self.held.pop(name, None)
        if slot is not None:
            self.free[C_TYPES[dtype]].append(slot)

    def at(self, index: str) -> str:
        """Return the place of number `index` of the current row in a computed value."""
        return index if self.rows == 1 else f"{_factor(index)} * ROWS + r"

    def is_in_lanes(self, name: str) -> bool:
        """Whether a value belongs to the region that is being written."""
        return self.region is not None and name in self.region.names

    def indices(self, rank: int) -> list[str]:
        """Return the indices of the current number inside loops."""
        first = ["at[l]" if self.region else "i0"]
        return (first + [f"i{axis}" for axis in range(1, rank)])[:rank]

    def loop(self, sizes: Sequence[int], statements: Sequence[str]) -> None:
        """Write statements inside loops over i0, i1, ... and over rows r or lanes l."""
        indent = "    "
        loops = [(f"i{axis}", str(size)) for axis, size in enumerate(sizes)]
        loops += [("r", "ROWS")] if self.rows > 1 else []
        if self.region:
            loops = [*loops[1:], ("l", "LANES")]
        for v, size in loops:
            self.lines.append(f"{indent}for (int {v} = 0; {v} < {size}; ++{v})")
            indent += "    "
        if len(statements) == 1:
            self.lines.append(indent + statements[0])
            return
        if loops:
            self.lines[-1] += " {"
            indent = indent[4:]
        else:
            self.lines.append(f"{indent}{{")
        self.lines += [f"{indent}    {statement}" for statement in statements]
        self.lines.append(f"{indent}}}")


class Step:
    """A node under translation: its call, and the C arrays of inputs and output."""

    def __init__(self, writer: Writer, node: Node, values: Mapping[str, Value]) -> None:
        self.writer = writer
        self.node = node
        self.call = Call(node, values)
        self.output = values[node.outputs[0]]

    def place(self, index: int) -> str:
        """Return the C array of an input."""
        constant = self.call.value(index).constant
        if constant is None:
            return self.writer.places[self.node.inputs[index]]
        return self.writer.constants.add(constant)

    def target(self) -> str:
        """Return the C array of the output."""
        return self.writer.places[self.node.outputs[0]]

    def element(
        self, index: int, indices: Sequence[str], shape: Sequence[int] | None = None
    ) -> str:
        """Return the C expression of a number of a computed input, of some shape."""
        shape = self.call.value(index).shape if shape is None else shape
        return self._number(self.node.inputs[index], self.place(index), indices, shape)

    def result(self, indices: Sequence[str], shape: Sequence[int] | None = None) -> str:
        """Return the C expression of a number of the output, perhaps reshaped."""
        shape = self.output.shape if shape is None else shape
        return self._number(self.node.outputs[0], self.target(), indices, shape)

    def _number(
        self, name: str, array: str, indices: Sequence[str], shape: Sequence[int]
    ) -> str:
        if self.writer.is_in_lanes(name):
            place = position(indices[1:], shape[1:])
            return f"{array}[{_factor(place)} * LANES + l]"
        return f"{array}[{self.writer.at(position(indices, shape))}]"

    def operand(self, index: int, sizes: Sequence[int]) -> str:
        """Return the C expression of an input inside loops over sizes."""
        value = self.call.value(index)
        if self.writer.is_in_lanes(self.node.inputs[index]):
            within = zip(self.writer.indices(len(sizes)), value.shape, strict=True)
            return self.element(index, ["0" if n == 1 else i for i, n in within])
        shape = value.shape
        if value.constant is not None and self.output.rows_last:
            shape = shape[:-1]  # the last axis, 1, stands for the rows
        # Further leading axes of a constant have size 1.
        shape = shape[len(shape) - len(sizes) :] if len(shape) > len(sizes) else shape
        names = self.writer.indices(len(sizes))[len(sizes) - len(shape) :]
        terms = [
            f"{_factor(name)} * {stride}" if stride > 1 else name
            for name, stride, n in zip(names, strides(shape), shape, strict=True)
            if n > 1
        ]
        place = " + ".join(terms) or "0"
        place = self.writer.at(place) if value.per_row else place
        return f"{self.place(index)}[{place}]"


def strides(shape: Sequence[int]) -> list[int]:
    """Return the distance between neighbours along each axis."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _factor(expression: str) -> str:
    """Return a C expression that can be a factor."""
    return expression if expression.isalnum() else f"({expression})"


def position(indices: Sequence[str], shape: Sequence[int]) -> str:
    """Return the C expression of a place in an array."""
    terms = [
        f"{_factor(index)} * {stride}" if stride > 1 else index
        for index, stride in zip(indices, strides(shape), strict=True)
    ]
    return " + ".join(terms) or "0"


def number_text(value: Any) -> str:
    """Return a number as text from which C reads it exactly."""
    if isinstance(value, np.bool_ | np.integer):
        number = int(value)
        # C has no literal for -2^63.
        return f"(-{2**63 - 1}LL - 1)" if number == -(2**63) else str(number)
    if not np.isfinite(value):
        return "NAN" if np.isnan(value) else "-INFINITY" if value < 0 else "INFINITY"
    mantissa, _, exponent = float(value).hex().partition("p")
    digits = mantissa.rstrip("0") if "." in mantissa else mantissa
    digits += "0" if digits.endswith(".") else ""
    return f"{digits}p{exponent}f"


def array_text(name: str, values: npt.NDArray[Any]) -> str:
    """Return the definition of a constant array of the file."""
    kind = C_TYPES[str(values.dtype)]
    return f"static const {kind} {name}[{values.size}] = {numbers_text(values)};"


def numbers_text(values: npt.NDArray[Any]) -> str:
    """Return numbers in braces."""
    numbers = [number_text(value) for value in values.ravel()]
    rows = [", ".join(numbers[at : at + 6]) for at in range(0, len(numbers), 6)]
    text = ",\n".join(f"    {row}" for row in rows)
    return f"{{\n{text}\n}}"


def write_product(step: Step) -> None:
    """Write the product of rows with a constant matrix, with or without a bias."""
    call = step.call
    source = 0
    weights = call.value(1).constant
    if weights is None:
        # The matrix comes first if rows are on the last axis.
        source, weights = 1, call.value(0).constant
        weights = None if weights is None else weights.T
    assert weights is not None
    inputs, outputs = weights.shape
    bias = np.zeros(outputs, dtype=np.float32)
    given = call.numbers(2)
    if given is not None:
        bias += given.reshape(-1)
    w = step.writer.constants.add(np.ascontiguousarray(weights))
    b = step.writer.constants.add(bias)
    rows = step.writer.rows
    if step.writer.region:
        function = f"dense_{inputs}_{outputs}_lanes"
        text = _dense_block(function, inputs, outputs).replace("ROWS", "LANES")
        step.writer.functions[function] = text
        y, x = step.target(), step.place(source)
        step.writer.lines.append(f"    {function}({y}, {x}, {w}, {b});")
        return
    function = f"dense_{inputs}_{outputs}_{'row' if rows == 1 else 'block'}"
    write = _dense_row if rows == 1 else _dense_block
    step.writer.functions[function] = write(function, inputs, outputs)
    for i in range(call.value(source).size // inputs):
        y, x = step.target(), step.place(source)
        if i > 0:
            y += f" + {i * outputs * rows}"
            x += f" + {i * inputs * rows}"
        step.writer.lines.append(f"    {function}({y}, {x}, {w}, {b});")


_DENSE_HEAD = """\
static void {}(float *restrict y, const float *restrict x,
               const float *restrict w, const float *restrict b)
{{"""


def _dense_block(name: str, inputs: int, outputs: int) -> str:
    """Return y = w x + b for a block; constant sizes let compilers make vectors."""
    rest = outputs % TILE
    lines = [_DENSE_HEAD.format(name)]
    if outputs >= TILE:
        lines += [
            f"    for (size_t j = 0; j < {outputs - rest}; j += {TILE})",
            *_tile(TILE, "j", inputs, outputs, indent=" " * 8),
        ]
    if rest:
        lines += _tile(rest, str(outputs - rest), inputs, outputs, indent=" " * 4)
    return "\n".join([*lines, "}\n"])


def _tile(width: int, j: str, inputs: int, outputs: int, *, indent: str) -> list[str]:
    """Return the loop over rows that computes columns j to j + width - 1."""
    sums = list(enumerate(f"s{n}" for n in range(width)))
    lines = [
        "for (size_t r = 0; r < ROWS; ++r) {",
        *(f"    float {s} = b[{j} + {n}];" for n, s in sums),
        f"    for (size_t k = 0; k < {inputs}; ++k) {{",
        f"        const float *u = w + k * {outputs} + {j};",
        "        const float v = x[k * ROWS + r];",
        *(f"        {s} = MULTIPLY_ADD(v, u[{n}], {s});" for n, s in sums),
        "    }",
        *(f"    y[({j} + {n}) * ROWS + r] = {s};" for n, s in sums),
        "}",
    ]
    return [indent + line for line in lines]


def _dense_row(name: str, inputs: int, outputs: int) -> str:
    """Return the function y = w x + b for one row, with the same sums as a block."""
    return f"""\
{_DENSE_HEAD.format(name)}
    for (size_t j = 0; j < {outputs}; ++j)
        y[j] = b[j];
    for (size_t k = 0; k < {inputs}; ++k)
        for (size_t j = 0; j < {outputs}; ++j)
            y[j] = MULTIPLY_ADD(x[k], w[k * {outputs} + j], y[j]);
}}
"""
