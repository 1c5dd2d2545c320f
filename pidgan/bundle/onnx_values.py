"""Types and shapes of the values of a graph, and the inputs of an operator."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.bundle.onnx_bytes import Node

# Types of real numbers. Networks use the first; formulas may use the second.
REAL = ("float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Value:
    """Type and shape of a value, without the axis of the rows, first or last.

    A value without rows is a constant and has numbers.
    """

    dtype: str
    shape: tuple[int, ...]
    per_row: bool = True
    rows_last: bool = False
    constant: npt.NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Number of numbers in one row, or in the constant."""
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        """Number of axes with the one of the rows."""
        return len(self.shape) + self.per_row


class Call:
    """A node and the values of its inputs."""

    def __init__(self, node: Node, values: Mapping[str, Value]) -> None:
        self.node = node
        self.inputs = [values[name] if name else None for name in node.inputs]

    def value(self, index: int) -> Value:
        """Return an input, or raise a ValueError if it is missing."""
        found = self.optional(index)
        if found is None:
            raise ValueError(f"input {index} is missing")
        return found

    def optional(self, index: int) -> Value | None:
        """Return an input, None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def numbers(self, index: int) -> npt.NDArray[Any] | None:
        """Return the numbers of a constant input, None if it is left out."""
        found = self.optional(index)
        if found is None:
            return None
        if found.constant is None:
            raise ValueError(f"input {index} is computed, expected a constant")
        return found.constant

    def integers(self, index: int) -> list[int] | None:
        """Return the integers of a constant input, None if it is left out."""
        found = self.numbers(index)
        if found is None:
            return None
        if found.dtype != np.int64 or found.ndim > 1:
            raise ValueError(
                f"input {index} is {found.dtype}, expected a list of int64"
            )
        return [int(number) for number in found.ravel()]

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        found = self.node.attributes.get(name, default)
        found = 0 if found is None else found
        if not isinstance(found, int):
            raise ValueError(f"attribute {name} is {found!r}, expected an integer")
        return found

    def axes(self, given: Sequence[int], value: Value) -> list[int]:
        """Return axes as indices into the shape of a value, without the rows' axis."""
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
        """Return an input with one of some types, or raise a ValueError."""
        found = self.value(index)
        if found.dtype not in dtypes:
            raise ValueError(
                f"input {index} is {found.dtype}, expected {' or '.join(dtypes)}"
            )
        return found


def broadcast(values: Sequence[Value]) -> Value:
    """Return type and shape of a combination of values, number by number."""
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
