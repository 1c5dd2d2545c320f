"""What the processes that share a training do together: steps, sums and agreements.

Each process has the networks and takes its part of the rows of a step. The losses of a
step are means over its rows, and their gradients the means of those of equal parts,
which are summed over the processes (TensorFlow's collective operations, a ring on
processors). So all networks stay the same. Rows and noise are drawn for the whole step:
a training with N processes differs from one with a single process only by the order in
which float32 numbers are summed. What depends on the clock, or on rounding, is said by
the first process.

XLA compiles what is before and after a sum, but not the sum itself.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.errors import TrainingError
from pidgan.training.backend import strategy, tf
from pidgan.training.budget import Budget
from pidgan.training.joining import place
from pidgan.training.networks.draws import slice_of_rows
from pidgan.training.phases import Batch, Clock, Phase, Update
from pidgan.training.rows import Rows


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


class Optimizers(Protocol):
    """What `Descents` do in an update."""

    def set_rates(self, update: Update, clock: Clock) -> None:
        """Give the optimizers their learning rates."""

    def gradients(
        self, update: Update, batch: Batch, seed: Any, clock: Clock
    ) -> tuple[dict[str, Any], list[list[Any]]]:
        """Return losses by name, and gradients for each descent."""

    def follow(self, update: Update, gradients: Sequence[Any]) -> None:
        """Go down gradients."""


def shared_step(
    optimizers: Optimizers, phase: Phase, rows: Rows, *, together: Together, xla: bool
) -> Callable[[Any, Any, Clock], dict[str, Any]]:
    """Return a function of two seeds, of rows and of noise, and the time.

    It does one step with the other processes, and returns the losses of all rows.
    """
    if phase.batch_size % together.size:
        raise TrainingError(
            f"phase '{phase.name}' has {phase.batch_size} rows a step, which "
            f"{together.size} processes do not share evenly; choose another number of "
            "processes, or another batch size"
        )

    def begin(stream: Any, seed: Any) -> Batch:
        with slice_of_rows(together.rank, together.size):
            batch = rows.batch(stream, phase.batch_size, whole=phase.sees_whole)
            return phase.prepare(batch, seed) if phase.prepare else batch

    own_batch = _compiled(begin, xla)
    updates = [_shared_update(optimizers, u, together, xla) for u in phase.updates]

    def step(stream: Any, seed: Any, clock: Clock) -> dict[str, Any]:
        batch = own_batch(stream, seed)
        found: dict[str, Any] = {}
        for update, do in zip(phase.updates, updates, strict=True):
            for i in range(1 if update.times is None else update.times):
                noise = seed if update.times is None else tf.random.fold_in(seed, i)
                found |= do(batch, noise, clock)
        return found

    return step


def _shared_update(
    optimizers: Optimizers, update: Update, together: Together, xla: bool
) -> Callable[[Batch, Any, Clock], dict[str, Any]]:
    """Return a function that does an update with the sums of all processes."""
    names: list[str] = []

    def own(batch: Batch, seed: Any, *times: Any) -> Any:
        """Return losses and gradients of the own rows, as one tensor."""
        with slice_of_rows(together.rank, together.size):
            losses, gradients = optimizers.gradients(update, batch, seed, _clock(times))
        names[:] = losses
        parts = [*losses.values(), *(g for one in gradients for g in one)]
        flat = [tf.reshape(tf.convert_to_tensor(part), (-1,)) for part in parts]
        return tf.concat(flat, axis=0) / together.size

    def follow(total: Any, *times: Any) -> dict[str, Any]:
        """Go down the gradients of all rows; return their losses."""
        shapes = [tuple(v.shape) for d in update.descents for v in d.variables]
        sizes = [1] * len(names) + [math.prod(shape) for shape in shapes]
        parts = tf.split(total, sizes)
        flat = iter(
            tf.reshape(part, shape)
            for part, shape in zip(parts[len(names) :], shapes, strict=True)
        )
        optimizers.set_rates(update, _clock(times))
        gradients = [[next(flat) for _ in d.variables] for d in update.descents]
        optimizers.follow(update, gradients)
        return {k: v[0] for k, v in zip(names, parts[: len(names)], strict=True)}

    own_part, go_down = _compiled(own, xla), _compiled(follow, xla)

    def do(batch: Batch, seed: Any, clock: Clock) -> dict[str, Any]:
        times = (clock.step, clock.begin, clock.end, clock.total, clock.start)
        (total,) = together.total([own_part(batch, seed, *times)])
        found: dict[str, Any] = go_down(total, *times)
        return found

    return do


def _clock(times: Sequence[Any]) -> Clock:
    step, begin, end, total, start = times
    return Clock(step=step, begin=begin, end=end, total=total, start=start)


def _compiled(function: Any, xla: bool) -> Any:
    return tf.function(function, jit_compile=xla, autograph=False)
