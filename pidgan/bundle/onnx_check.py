"""Check a graph before anything runs it: operators, order, types, shapes, sizes."""

import functools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pidgan.bundle.onnx_bytes import DTYPES, Node, OnnxStructure, Port
from pidgan.bundle.onnx_operators import OPERATORS, operations
from pidgan.bundle.onnx_values import Call, Value
from pidgan.errors import nearest

# Names of the standard operator set; operators of other sets are custom ones.
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
OPSETS = range(13, 18)  # versions for which the rules of `onnx_operators` hold

# Largest size of all values of one row together. A generator has some thousands of
# numbers, 3 10^5 to 2 10^6 with some thousand voxels, and 5 10^7 with 40,500.
MAX_ROW_NUMBERS = 2**26
# Largest cost of a row, see `operations`; a generator has 10^5 to 10^7, or 10^8 with
# voxels.
MAX_ROW_OPERATIONS = 2**30
# Largest size of the constants of all operators together: onnxruntime keeps a copy of
# each matrix for each operator. It is that of a file in which each is used once.
MAX_CONSTANTS = 2**26
MAX_NODES = 10_000  # largest number of operators

# Number of graphs that are remembered, and the largest size of whole numbers in one: a
# generator has some hundreds, apart from tables.
_REMEMBERED = 64
_MAX_INTEGERS = 2**16

_ZERO = bytes(8)  # of any real type


def check_graph(
    structure: OnnxStructure,
) -> "tuple[dict[str, Value], int, Skeleton]":
    """Return type and shape of every value of a graph, the cost of a row, and the rest.

    Graphs that differ in real numbers only are checked once: nothing here sees these
    numbers. A ValueError says what is refused.
    """
    if structure.refused:
        found = ", ".join(sorted(structure.refused))
        raise ValueError(f"has {found}, expected operators and constants only")
    constants = {
        name: Value(
            dtype=_DTYPES[a.dtype.char], shape=a.shape, per_row=False, constant=a
        )
        for name, a in structure.constants.items()
    }
    integers = (a.size for a in structure.constants.values() if a.dtype.kind != "f")
    check = _check_once if sum(integers) <= _MAX_INTEGERS else _check_once.__wrapped__
    skeleton = Skeleton(structure, constants)
    computed, cost = check(skeleton)
    skeleton.values = {**skeleton.constants, **computed}
    return {**constants, **computed}, cost, skeleton


_DTYPES = {np.dtype(name).char: name for name in DTYPES.values()}


class Skeleton:
    """A graph without the real numbers of its constants, equal to others like it.

    Attributes:
        nodes: Operators in the order of computation.
        values: Type and shape of each value, once it is checked.
    """

    def __init__(self, structure: OnnxStructure, constants: dict[str, Value]) -> None:
        self.digest = structure.skeleton
        self.nodes = structure.nodes
        self.values: dict[str, Value] = {}
        self.constants = {k: _without_numbers(v) for k, v in constants.items()}
        self.structure = replace(structure, graph=b"", metadata={}, constants={})

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Skeleton) and self.digest == other.digest


def _without_numbers(value: Value) -> Value:
    """Return a constant whose real numbers are all zero, in no memory."""
    found = value.constant
    assert found is not None
    if found.dtype.kind != "f":
        return value
    zeros = np.ndarray(
        found.shape, found.dtype, buffer=_ZERO, strides=(0,) * found.ndim
    )
    return Value(dtype=value.dtype, shape=value.shape, per_row=False, constant=zeros)


@functools.lru_cache(maxsize=_REMEMBERED)
def _check_once(skeleton: Skeleton) -> tuple[dict[str, Value], int]:
    """Return the values that are no constants, and the cost of a row."""
    structure = skeleton.structure
    domains = {*structure.opsets, *(node.domain for node in structure.nodes)}
    custom = sorted(domains - STANDARD_DOMAINS)
    if custom:
        raise ValueError(
            f"has operators of {', '.join(custom)}, expected only the ONNX standard "
            "operator set"
        )
    version = max((structure.opsets.get(d, 0) for d in STANDARD_DOMAINS), default=0)
    if version not in OPSETS or len(structure.opsets) != 1:
        raise ValueError(
            f"uses operator set {version}, expected {OPSETS[0]} to {OPSETS[-1]}"
        )
    if len(structure.nodes) > MAX_NODES:
        raise ValueError(
            f"has {len(structure.nodes)} operators, expected at most {MAX_NODES}"
        )
    values = dict(skeleton.constants)
    for port in structure.inputs:
        _define(values, port.name, _input(port), f"input {port.name!r}")
    _check_order(structure, values)
    numbers = cost = constants = 0
    for number, node in enumerate(structure.nodes):
        where = f"operator {number} ({node.operator})"
        call = _call(node, values, where)
        try:
            value = OPERATORS[node.operator].rule(call)
            if len(node.outputs) != 1:
                raise ValueError(f"has {len(node.outputs)} outputs, expected 1")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        _define(values, node.outputs[0], value, where)
        numbers += value.size
        cost += operations(call, value)
        constants += sum(v.size for v in call.inputs if v and not v.per_row)
        _check_size(numbers, MAX_ROW_NUMBERS, "numbers")
        if constants > MAX_CONSTANTS:
            raise ValueError(
                f"has constants of more than {MAX_CONSTANTS} numbers in its operators"
            )
        _check_size(cost, MAX_ROW_OPERATIONS, "operations")
    for port in structure.outputs:
        if port.name not in values or values[port.name].constant is not None:
            raise ValueError(f"output {port.name!r} is given by no operator")
        _check_output(port, values[port.name])
    return {k: v for k, v in values.items() if k not in skeleton.constants}, cost


def _check_size(count: int, most: int, what: str) -> None:
    if count > most:
        raise ValueError(f"needs {count} {what} a row, expected at most {most}")


def _input(port: Port) -> Value:
    first, *shape = port.shape or (0,)
    if isinstance(first, int) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            f"{port.name} has shape {port.shape}, expected the rows open and the rest "
            "fixed"
        )
    numbers = math.prod(int(n) for n in shape)
    _check_size(numbers, MAX_ROW_NUMBERS, f"numbers for {port.name}")
    return Value(dtype=port.dtype, shape=tuple(int(n) for n in shape))


def _check_output(port: Port, value: Value) -> None:
    shape = (*value.shape, "n") if value.rows_last else ("n", *value.shape)
    fixed = [(a, b) for a, b in zip(port.shape, shape, strict=False) if a != b]
    if (
        port.dtype != value.dtype
        or len(port.shape) != len(shape)
        or any(isinstance(stated, int) for stated, _ in fixed)
    ):
        raise ValueError(
            f"{port.name} is {port.dtype} {port.shape}, but the operators give "
            f"{value.dtype} {shape}"
        )


def _define(values: dict[str, Value], name: str, value: Value, where: str) -> None:
    if not name or name in values:
        raise ValueError(f"{where} gives {name!r}, which is empty or already there")
    values[name] = value


def _check_order(structure: OnnxStructure, values: Mapping[str, Value]) -> None:
    """Raise a ValueError if an operator is unknown, or needs a later value."""
    later = {name for node in structure.nodes for name in node.outputs}
    known = set(values)
    for number, node in enumerate(structure.nodes):
        where = f"operator {number} ({node.operator})"
        if node.operator not in OPERATORS:
            raise ValueError(
                f"{where} is unknown{nearest(node.operator, OPERATORS)}; expected one "
                f"of {len(OPERATORS)} standard operators"
            )
        for name in node.inputs:
            if name and name not in known:
                reason = (
                    "only a later one gives it: a cycle, or out of order"
                    if name in later
                    else "nothing gives it"
                )
                raise ValueError(f"{where} needs {name!r}, but {reason}")
        known |= set(node.outputs)


def _call(node: Node, values: Mapping[str, Value], where: str) -> Call:
    operator = OPERATORS[node.operator]
    unknown = sorted(set(node.attributes) - operator.attributes)
    if unknown:
        raise ValueError(f"{where} has an unknown attribute {unknown[0]!r}")
    if len(node.inputs) > operator.most_inputs:
        raise ValueError(
            f"{where} has {len(node.inputs)} inputs, expected at most "
            f"{operator.most_inputs}"
        )
    call = Call(node, values)
    if not any(value.per_row for value in call.inputs if value is not None):
        raise ValueError(
            f"{where} uses constants only, expected its result as constant"
        )
    rows_last = any(value and value.rows_last for value in call.inputs)
    if rows_last and not operator.rows_last:
        raise ValueError(f"{where}: it mixes rows")
    return call
