"""Random numbers of the rows of a step, of which this process may have a part only.

Where several processes share a step, each draws the numbers of all its rows and takes
those of its own: the numbers of a row do not depend on the number of processes.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from pidgan.errors import TrainingError
from pidgan.training.backend import tf


@dataclasses.dataclass(frozen=True)
class Slice:
    """One of equal parts of the rows of a step, the one with a number."""

    number: int
    parts: int


_slice: ContextVar[Slice | None] = ContextVar("slice", default=None)


@contextlib.contextmanager
def slice_of_rows(number: int, parts: int) -> Iterator[None]:
    """Draw, in this block, numbers for one of several parts of the rows."""
    token = _slice.set(Slice(number, parts) if parts > 1 else None)
    try:
        yield
    finally:
        _slice.reset(token)


def normal(
    shape: Any, seed: Any, *, axis: int = 0, copies: int = 1, stddev: float = 1.0
) -> tf.Tensor:
    """Return standard normal numbers, times `stddev`.

    Rows of this process lie along an axis of the shape, all of them `copies` times.
    """

    def draw(sizes: Any) -> tf.Tensor:
        return tf.random.stateless_normal(sizes, seed, stddev=stddev)

    return _mine(draw, shape, axis, copies)


def uniform(shape: Any, seed: Any, *, axis: int = 0) -> tf.Tensor:
    """Return numbers uniform from 0 to 1; rows lie along an axis of the shape."""
    return _mine(lambda s: tf.random.stateless_uniform(s, seed), shape, axis, 1)


def integers(n: Any, seed: Any, *, below: Any) -> tf.Tensor:
    """Return the part of this process of n integers from 0 to below a number."""
    return mine(tf.random.stateless_uniform((n,), seed, maxval=below, dtype=tf.int32))


def mine(numbers: tf.Tensor) -> tf.Tensor:
    """Return the part of this process of numbers for all rows."""
    part = _slice.get()
    if part is None:
        return numbers
    if numbers.shape[0] % part.parts:
        raise TrainingError(
            f"{numbers.shape[0]} draws in a step are not shared evenly by {part.parts} "
            "processes; choose another number"
        )
    return tf.reshape(numbers, (part.parts, -1))[part.number]


def is_sliced() -> bool:
    """Return whether this process has a part of the rows only."""
    return _slice.get() is not None


def _mine(
    draw: Callable[[Any], tf.Tensor], shape: Any, axis: int, copies: int
) -> tf.Tensor:
    part = _slice.get()
    if part is None:
        return draw(shape)
    sizes = list(shape) if isinstance(shape, tuple) else tf.unstack(shape)
    rows = sizes[axis] // copies
    whole = draw([*sizes[:axis], sizes[axis] * part.parts, *sizes[axis + 1 :]])
    split = [*sizes[:axis], copies, part.parts, rows, *sizes[axis + 1 :]]
    own = tf.gather(tf.reshape(whole, split), part.number, axis=axis + 1)
    return tf.reshape(own, sizes)
