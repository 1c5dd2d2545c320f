"""The weights that a training exports: averages over its steps, judged on other rows.

The average follows the running weights v_t,

    a_t = a_(t-1) + c_t (v_t - a_(t-1)),   c_t = max(1 - momentum, 1 / (1 + t / 10)),

with t = 0 in the first step: c_0 is 1, and nothing of the weights before the training
is left in it. It reaches back over a tenth of the steps done, and never further than
the momentum says. A fixed momentum without this would export mostly the first weights
of a short training.

Now and then the running weights, the averaged ones and the best ones so far are
compared on rows that are not trained on (`HeldOut`). A difference counts if it is
larger than its error, which is found from the differences in `BLOCKS` blocks of these
rows, with the same noise for both. Where it is not, averaged weights are taken before
running ones, and later ones before earlier ones.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.training.backend import keras, tf
from pidgan.training.networks.updates import assign
from pidgan.training.phases import Batch, Losses
from pidgan.training.rows import Rows
from pidgan.training.together import Together

# The average reaches back over one in so many of the steps done.
REACH = 10
BLOCKS = 8
# Rows on which weights are compared cost this share of a training, if a row that is
# learnt from costs three times as much (with XLA hardly more); they are compared so
# often.
COST = 0.01
LEAST_WATCHES, MOST_WATCHES = 8, 20
# Fewer rows in a block say nothing.
LEAST_ROWS = 16

Blocks = dict[str, FloatArray]
"""Losses by name, in each of `BLOCKS` blocks of rows that are not trained on."""

Judge = Callable[[], Blocks]
Total = Callable[[Blocks], FloatArray]


class Average:
    """The average of weights over the steps of a training."""

    def __init__(
        self, variables: Sequence[Any], momentum: float, *, started: bool = False
    ) -> None:
        self.variables, self.momentum = list(variables), momentum
        self.means = _copies(variables)
        if started:
            assign(self.means, variables)

    def follow(self, updates: Any) -> None:
        """Take in the weights after an update, of which there were so many before."""
        done = tf.cast(updates, tf.float32)
        change = tf.maximum(1.0 - self.momentum, 1 / (1 + done / REACH))
        for mean, variable in zip(self.means, self.variables, strict=True):
            mean.assign_add(change * (variable - mean))


class Kept:
    """The weights of a descent that would be exported now."""

    def __init__(
        self,
        variables: Sequence[Any],
        average: Average | None,
        *,
        must_gain: bool = False,
        started: bool = False,
    ) -> None:
        self.variables, self.average = list(variables), average
        self.must_gain = must_gain
        self.weights = _copies(variables)
        # Losses, in blocks, of the best weights so far; no number before the first.
        self.least = _no_losses()
        # Those of the weights that a training started from.
        self.first = _no_losses() if started else None

    @property
    def state(self) -> list[Any]:
        """All variables that an interrupted training needs, in a fixed order."""
        means = self.average.means if self.average else []
        first = [] if self.first is None else [self.first]
        return [*means, *self.weights, self.least, *first]

    def watch(self, judge: Judge, total: Total) -> Blocks:
        """Compare the weights there are; return losses of those that are new and kept.

        `total` is the sum of the losses that the descent goes down. Nothing is returned
        if earlier weights stay.
        """
        found, chosen = better_of(self.variables, self.average, judge, total)
        blocks, least = total(found), self.least.numpy()
        if self.must_gain and not is_worse(least, blocks):
            return {}
        if self.first is not None and not self._gains(blocks):
            return {}
        if np.mean(blocks) < np.mean(least):
            self.least.assign(blocks)
        if is_worse(blocks, least):
            return {}
        assign(self.weights, chosen)
        return found

    def _gains(self, blocks: FloatArray) -> bool:
        """Return whether weights are better than those of the start, or these."""
        assert self.first is not None
        first = self.first.numpy()
        if np.isfinite(first).all():
            return is_worse(first, blocks)
        self.first.assign(blocks)
        return True

    def restore(self) -> None:
        """Put the kept weights in place of the running ones, if there are any."""
        if np.isfinite(self.least.numpy()).all():
            assign(self.variables, self.weights)


def better_of(
    variables: Sequence[Any], average: Average | None, judge: Judge, total: Total
) -> tuple[Blocks, list[FloatArray]]:
    """Return the losses and the values of the averaged weights, or the running ones.

    The latter are taken if the averaged ones are worse. The variables stay as they are.
    """
    running = [v.numpy() for v in variables]
    found = judge()
    if average is None:
        return found, running
    averaged = [v.numpy() for v in average.means]
    try:
        assign(variables, averaged)
        other = judge()
    finally:  # also where the user interrupts
        assign(variables, running)
    if is_worse(total(other), total(found)):
        return found, running
    return other, averaged


def is_worse(blocks: FloatArray, other: FloatArray) -> bool:
    """Return whether losses are larger than other ones by more than the error.

    Both are losses in the same blocks of rows; the error is that of their difference.
    """
    if not np.isfinite(other).all():
        return False
    if not np.isfinite(blocks).all():
        return True
    return bool(np.mean(blocks - other) > error_of(blocks - other))


def error_of(blocks: FloatArray) -> float:
    """Return the standard deviation of the mean of blocks."""
    return float(np.std(blocks, ddof=1) / math.sqrt(len(blocks)))


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Rows that are not trained on, in blocks, with a seed for the noise of each.

    Weights of any sign are those of the sample, also where a likelihood is trained with
    weights that are not negative: a mean over rows needs no such weights.
    """

    rows: Rows
    block_rows: int  # number of rows of each block, 0 if there are none
    watches: int  # number of times that weights are compared
    seed: int
    together: Together = dataclasses.field(default_factory=Together)

    @classmethod
    def of(
        cls,
        rows: Rows,
        *,
        trained: float,
        batch_size: int,
        seed: int,
        together: Together | None = None,
    ) -> "HeldOut":
        """Choose as many rows as a training of so many rows can afford."""
        n = int(rows.arrays["w"].shape[0])
        affordable = int(COST * 3 * trained / (2 * LEAST_WATCHES * BLOCKS))
        size = min(n // BLOCKS, batch_size, max(LEAST_ROWS, affordable))
        size = max(size, min(n, 1))
        often = COST * 3 * trained / (2 * BLOCKS * max(size, 1))
        watches = min(max(int(often), LEAST_WATCHES), MOST_WATCHES)
        return cls(rows, size, watches, seed, together or Together())

    @functools.cached_property
    def blocks(self) -> list[tuple[Batch, Any]]:
        """Batches of rows, each with a seed; the first rows again where there are few.

        Without any row there is no block.
        """
        if not self.block_rows:
            return []
        n = self.rows.arrays["w"].shape[0]
        found = []
        for k in range(BLOCKS):
            index = (tf.range(self.block_rows) + k * self.block_rows) % n
            batch = self.rows.take(index)
            batch.setdefault("positive_w", batch["w"])
            found.append((batch, tf.constant([self.seed % 2**31, -1 - k])))
        return found

    def losses(self, of: Losses) -> Judge:
        """Return the function that evaluates losses block by block.

        Processes that share a training share the blocks, and all get the same losses.
        """
        compiled = tf.function(of, autograph=False)
        these = self.together

        def judge() -> Blocks:
            if not self.blocks:
                return {}
            # A process without a block of its own learns the names from the first one.
            mine = range(these.rank, len(self.blocks), these.size)
            each = {k: compiled(*self.blocks[k]) for k in mine or range(1)}
            names = list(next(iter(each.values()), ()))
            own = np.zeros((len(names), len(self.blocks)))
            for k in mine:
                own[:, k] = [float(each[k][name]) for name in names]
            return dict(zip(names, these.sums(own), strict=True))

        return judge


def _no_losses() -> Any:
    return keras.Variable(np.full(BLOCKS, np.inf), trainable=False)


def _copies(variables: Sequence[Any]) -> list[Any]:
    return [keras.Variable(tf.zeros_like(v), trainable=False) for v in variables]
