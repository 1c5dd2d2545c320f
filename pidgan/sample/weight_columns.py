"""Whole columns of a tree, and rows of them in messages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arrays import BoolArray
from pidgan.errors import SampleError
from pidgan.files.tables import Source, iterate_columns
from pidgan.sample.expressions import Expression

Column = npt.NDArray[Any]
_SHOWN = 3


def read_whole(
    source: Source, expressions: Sequence[Expression], entries: int
) -> list[Column]:
    """Return the values (n,) of expressions, in their own types, of a whole tree."""
    names = list(dict.fromkeys(name for one in expressions for name in one.names))
    columns: list[Column] = []
    for first, frame in iterate_columns(source, names):
        try:
            chunk = [one.evaluate(frame) for one in expressions]
        except ValueError as error:
            texts = ", ".join(repr(one.text) for one in expressions)
            raise SampleError(f"{source}: a branch of {texts} {error}") from None
        if not columns:
            columns = [np.empty(entries, dtype=values.dtype) for values in chunk]
        for column, values in zip(columns, chunk, strict=True):
            column[first : first + len(frame)] = values
    return columns


def some_rows(bad: BoolArray, *, first: int = 0, values: Column | None = None) -> str:
    """Return how many rows a mask (n,) marks, and the first of them, for a message.

    `first` is the number of the first row, and `values` (n,) are shown.
    """
    rows = np.flatnonzero(bad)
    shown = [
        f"{row + first}" if values is None else f"{row + first} ({values[row]})"
        for row in rows[:_SHOWN]
    ]
    if len(rows) == 1:
        return f"row {shown[0]}"
    more = ", ..." if len(rows) > _SHOWN else ""
    return f"{len(rows)} rows ({', '.join(shown)}{more})"
