"""The steps of a phase as one compiled function of their numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from pidgan.training.backend import tf
from pidgan.training.descents import Descents
from pidgan.training.families.phases import Clock, Phase
from pidgan.training.rows import Rows

# Stream of random numbers of the noise, apart from that of the batches.
NOISE = 1

Steps = Callable[[int, int, int, int, int], dict[str, float]]
"""Function of the first step, the number of steps, the begin and the end of the phase
and the number of all steps, which returns the mean losses."""


def compile_steps(
    phase: Phase, *, descents: Descents, rows: Rows, seed: int, xla: bool
) -> Steps:
    """Return a function that does some steps of a phase.

    Rows and noise of step i are functions of (seed, i) alone.

    Args:
        phase: Phase of the training.
        descents: Optimizers of the training.
        rows: Training rows.
        seed: Seed of batches and noise.
        xla: Whether the steps are compiled with XLA.
    """

    # A function of its own is traced once, though the loop below has it twice.
    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def one_step(
        step: tf.Tensor, begin: tf.Tensor, end: tf.Tensor, total: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        stream = tf.stack([tf.constant(seed % 2**31), step])
        batch = rows.batch(stream, phase.batch_size)
        clock = Clock(step=step, begin=begin, end=end, total=total)
        noise = tf.random.fold_in(stream, NOISE)
        return descents.step(phase, batch, noise, clock)

    @tf.function(jit_compile=xla)  # type: ignore[untyped-decorator]
    def loop(
        first: tf.Tensor,
        n: tf.Tensor,
        begin: tf.Tensor,
        end: tf.Tensor,
        total: tf.Tensor,
    ) -> Any:
        sums = one_step(first, begin, end, total)
        i = tf.constant(1)
        while i < n:
            losses = one_step(first + i, begin, end, total)
            sums = {key: sums[key] + losses[key] for key in sums}
            i += 1
        return {key: value / tf.cast(n, tf.float32) for key, value in sums.items()}

    def run(first: int, n: int, begin: int, end: int, total: int) -> dict[str, float]:
        losses: Mapping[str, tf.Tensor] = loop(
            *map(tf.constant, (first, n, begin, end, total))
        )
        return {key: float(value) for key, value in losses.items()}

    return run
