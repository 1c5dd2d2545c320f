"""What the processes that share a training do together: sums, and agreements.

Each process has the networks and takes its part of the rows of a step. The gradients of
all parts are summed (TensorFlow's collective operations, a ring on processors), so that
all networks stay the same. What depends on the clock, or on rounding, is said by the
first process.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.errors import TrainingError
from pidgan.sample.definition import Sample
from pidgan.training.backend import strategy, tf
from pidgan.training.budget import Budget
from pidgan.training.joining import place


@dataclasses.dataclass(frozen=True)
class Together:
    """The processes of a training, of which this is the one with number `rank`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process decides, and writes."""
        return self.rank == 0

    def total(self, tensors: Sequence[Any]) -> list[Any]:
        """Return the sums of tensors over all processes, in a compiled function."""
        if self.size == 1:
            return list(tensors)

        def inside(*own: Any) -> Any:
            context = tf.distribute.get_replica_context()
            # A copy lies on a device, which the sum asks for.
            copies = [tf.identity(one) for one in own]
            return context.all_reduce(tf.distribute.ReduceOp.SUM, copies)

        return list(strategy.run(inside, args=tuple(tensors)))

    def sums(self, numbers: Any) -> FloatArray:
        """Return the sums of numbers over all processes."""
        own = np.asarray(numbers, dtype=np.float64)
        if self.size == 1:
            return own
        with one_error():
            (found,) = _summing(self)(tf.constant(own.ravel()))
        return np.asarray(found.numpy()).reshape(own.shape)

    def agree(self, numbers: Any) -> FloatArray:
        """Return the numbers that the first process has."""
        own = np.asarray(numbers, dtype=np.float64)
        return self.sums(own if self.leads else np.zeros_like(own))

    def clock(self, own: Callable[[], float]) -> Callable[[], float]:
        """Return the clock of the first process, which all read at the same time."""
        if self.size == 1:
            return own
        return lambda: float(self.agree(own()))

    def timed(self, budget: Budget) -> Budget:
        """Return a budget by the clock of the first process."""
        if self.size == 1:
            return budget
        spent, clock = float(self.agree(budget.spent)), budget.duration.clock
        found = Budget(budget.duration, spent=spent, clock=self.clock(clock))
        found.most = budget.most
        return found

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise a TrainingError in all processes unless all have the same facts."""
        if self.size == 1:
            return
        marks = np.array([_mark(value) for value in facts.values()])
        differ = np.any(self.sums(marks != self.agree(marks)), axis=1).tolist()
        wrong = [name for name, bad in zip(facts, differ, strict=True) if bad]
        if wrong:
            first = wrong[0]
            raise TrainingError(
                f"the processes of this training differ in {', '.join(wrong)}; process "
                f"{self.rank} has {first} {facts[first]!r}"
            )


@functools.cache
def _summing(these: Together) -> Any:
    return tf.function(lambda v: these.total([v]), autograph=False)


def together() -> Together:
    """Return the processes that this one has joined, perhaps only itself."""
    found = place()
    return Together(found.rank, len(found.addresses)) if found else Together()


def check_one_process(sample: Sample, start: object) -> None:
    """Raise a TrainingError if this process shares what cannot be shared."""
    if (size := together().size) == 1:
        return
    if sample.links:
        raise TrainingError(
            f"{sample.name!r} is a chain, whose links are trained one by one, which "
            f"{size} processes do not share; train it with one process"
        )
    if start is not None:
        raise TrainingError(
            f"a training from a start is short, which {size} processes do not share; "
            "train with one process"
        )


@contextmanager
def one_error() -> Iterator[None]:
    """Turn the end of another process into one error."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise TrainingError(_ended(error)) from error
    except tf.errors.OpError as error:
        if "ollective" not in str(error) and "peer" not in str(error):
            raise
        raise TrainingError(_ended(error)) from error


def _ended(error: Exception) -> str:
    lines = str(error).splitlines()
    found = [line for line in lines if "ollective ops is aborted" in line]
    reason = (found or lines or [""])[0].strip()
    return (
        f"another process of this training has ended ({reason}); start all of them "
        "again, with --resume for the last checkpoint"
    )


def _mark(value: Any) -> list[float]:
    """Return numbers that tell values apart."""
    text = json.dumps(value, sort_keys=True, default=str).encode()
    return [float(byte) for byte in hashlib.sha256(text).digest()]
