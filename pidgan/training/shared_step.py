"""A step that several processes share: each has a part of its rows.

The losses of a step are means over its rows. Their gradients are the means of those of
equal parts, which are summed over the processes. Rows and noise are drawn for the whole
step: a training with N processes differs from one with a single process only by the
order in which float32 numbers are summed.

XLA compiles what is before and after a sum, but not the sum itself.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pidgan.errors import TrainingError
from pidgan.training.backend import tf
from pidgan.training.networks.draws import slice_of_rows
from pidgan.training.phases import Batch, Clock, Phase, Update
from pidgan.training.rows import Rows
from pidgan.training.together import Together


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
