"""The optimizers of a training: they do what phases say, in compiled steps."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.training.averages import BLOCKS, Average, Blocks, HeldOut, Judge, Kept
from pidgan.training.backend import keras, tf
from pidgan.training.phases import (
    Batch,
    Clock,
    Descent,
    Losses,
    Optimizer,
    Phase,
    Schedule,
    Update,
)
from pidgan.training.rows import Rows
from pidgan.training.together import Together, one_error, shared_step

# Stream of random numbers of the noise, apart from that of the batches.
NOISE = 1

Steps = Callable[[int, int, int, int, int, int], dict[str, float]]
"""Function of the first step, the number of steps, the begin and the end of the phase,
and the start and the number of all steps, which returns the mean losses."""


class Descents:
    """The optimizers of all phases that take part, and the weights to be exported."""

    def __init__(
        self, phases: Iterable[Phase], *, together: Together | None = None
    ) -> None:
        """Build an optimizer for each descent; phases may share a descent."""
        self._together = together or Together()
        self.phases = [phase for phase in phases if phase.share > 0]
        self._optimizers: dict[Descent, Any] = {}
        self._starts: dict[Descent, list[Any]] = {}  # weights that others decay to
        self._averages: dict[Descent, Average] = {}
        self._kept: dict[Descent, Kept] = {}
        self._judges: dict[tuple[Phase, Descent], Judge] = {}
        for descent in [d for phase in self.phases for d in phase.descents]:
            if descent in self._optimizers:
                continue
            variables, choice = list(descent.variables), descent.optimizer
            if descent.started and choice.weight_decay:
                self._starts[descent] = [tf.constant(v.numpy()) for v in variables]
                choice = dataclasses.replace(choice, weight_decay=None)
            self._optimizers[descent] = _make(choice)
            self._optimizers[descent].build(variables)
            if choice.average:
                self._averages[descent] = Average(
                    variables, choice.average, started=descent.started
                )
            if descent.held_out is not None:
                average = self._averages.get(descent)
                self._kept[descent] = Kept(
                    variables,
                    average,
                    must_gain=descent.must_gain,
                    started=descent.started,
                )

    @property
    def variables(self) -> list[Any]:
        """All variables that an interrupted training needs, in a fixed order."""
        trained = [v for descent in self._optimizers for v in descent.variables]
        states = [v for o in self._optimizers.values() for v in o.variables]
        kept = [v for one in self._kept.values() for v in one.state]
        return list({id(v): v for v in [*trained, *states, *kept]}.values())

    def step(self, phase: Phase, batch: Batch, seed: Any, clock: Clock) -> Batch:
        """Do the updates of one step and return the losses by name."""
        if phase.prepare is not None:
            batch = phase.prepare(batch, seed)
        found: dict[str, Any] = {}
        for update in phase.updates:
            for i in range(1 if update.times is None else update.times):
                noise = seed if update.times is None else tf.random.fold_in(seed, i)
                found |= self._update(update, batch, noise, clock)
        return found

    def _update(
        self, update: Update, batch: Batch, seed: Any, clock: Clock
    ) -> dict[str, Any]:
        self.set_rates(update, clock)
        losses, gradients = self.gradients(update, batch, seed, clock)
        self.follow(update, gradients)
        return losses

    def set_rates(self, update: Update, clock: Clock) -> None:
        """Give the optimizers of an update their learning rates."""
        for descent in update.descents:
            choice = descent.optimizer
            rate = choice.learning_rate * choice.schedule(clock)
            self._optimizers[descent].learning_rate = rate

    def gradients(
        self, update: Update, batch: Batch, seed: Any, clock: Clock
    ) -> tuple[dict[str, Any], list[list[Any]]]:
        """Return the losses of an update, and gradients for each of its descents."""
        with tf.GradientTape(persistent=update.other is not None) as tape:
            losses = update.losses(batch, seed)
            sums = [_weighted(losses, d.factors, clock) for d in update.descents]
        return losses, [
            tape.gradient(total, descent.variables, unconnected_gradients="zero")
            for descent, total in zip(update.descents, sums, strict=True)
        ]

    def follow(self, update: Update, gradients: Sequence[Any]) -> None:
        """Let the optimizers of an update go down gradients, and averages follow."""
        for descent, gradient in zip(update.descents, gradients, strict=True):
            optimizer = self._optimizers[descent]
            if descent in self._starts:
                decay = optimizer.learning_rate * descent.optimizer.weight_decay
                for variable, known in zip(
                    descent.variables, self._starts[descent], strict=True
                ):
                    variable.assign_sub(decay * (variable - known))
            optimizer.apply(gradient, list(descent.variables))
            if descent in self._averages:
                self._averages[descent].follow(optimizer.iterations - 1)

    def compile(self, phase: Phase, rows: Rows, *, seed: int, xla: bool) -> Steps:
        """Return a function of steps; rows and noise depend on (seed, step) alone."""
        shared, these = None, self._together
        if these.size > 1:
            # XLA compiles its parts.
            shared = shared_step(self, phase, rows, together=these, xla=xla)
            xla = False

        # A function of its own is traced once, though the loop below has it twice.
        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def one_step(step: Any, *bounds: Any) -> dict[str, Any]:
            stream = tf.stack([tf.constant(seed % 2**31), step])
            begin, end, start, total = bounds
            clock = Clock(step=step, begin=begin, end=end, total=total, start=start)
            if shared is not None:
                return shared(stream, tf.random.fold_in(stream, NOISE), clock)
            batch = rows.batch(stream, phase.batch_size)
            return self.step(phase, batch, tf.random.fold_in(stream, NOISE), clock)

        # AutoGraph does not understand a Python loop here in Python 3.13.
        @tf.function(jit_compile=xla, autograph=False)  # type: ignore[untyped-decorator]
        def loop(
            first: Any, n: Any, begin: Any, end: Any, start: Any, total: Any
        ) -> Any:
            bounds = (begin, end, start, total)

            def more(i: Any, sums: dict[str, Any]) -> Any:
                losses = one_step(first + i, *bounds)
                return i + 1, {key: sums[key] + losses[key] for key in sums}

            begun = (tf.constant(1), one_step(first, *bounds))
            _, sums = tf.while_loop(lambda i, _: i < n, more, begun)
            return {key: value / tf.cast(n, tf.float32) for key, value in sums.items()}

        def run(*numbers: int) -> dict[str, float]:
            with one_error():
                losses = loop(*map(tf.constant, numbers))
                return {key: float(value) for key, value in losses.items()}

        return run

    def watch(self, phase: Phase, held_out: HeldOut) -> Blocks:
        """Judge the weights there are, and keep the better ones.

        Returns the losses, in blocks of rows that are not trained on, of the weights
        that are kept from now on.
        """
        found: Blocks = {}
        for descent in [d for d in phase.descents if d in self._kept]:
            key = (phase, descent)
            if key not in self._judges:
                self._judges[key] = held_out.losses(_judged(phase, descent))
            total = functools.partial(_total, factors=descent.factors)
            found |= self._kept[descent].watch(self._judges[key], total)
        return found

    def end(self, phase: Phase) -> None:
        """Put the kept weights in place of the last ones."""
        later = self.phases[self.phases.index(phase) + 1 :]
        needed = {descent for other in later for descent in other.descents}
        for descent in [d for d in phase.descents if d not in needed]:
            if descent in self._kept:
                self._kept[descent].restore()
        if phase.settle is not None:
            phase.settle()


def _judged(phase: Phase, descent: Descent) -> Losses:
    """Return the losses that judge a descent, of the batches of its phase."""

    def losses(batch: Batch, seed: Any) -> dict[str, Any]:
        if phase.prepare is not None:
            batch = phase.prepare(batch, seed)
        assert descent.held_out is not None
        return descent.held_out(batch, seed)

    return losses


def _total(losses: Blocks, factors: Mapping[str, float | Schedule]) -> FloatArray:
    """Return the sum of losses that a descent goes down, in blocks; zeros of none."""
    known = {k: v for k, v in factors.items() if k in losses}
    return _weighted(losses, known, None) if losses else np.zeros(BLOCKS)


def _make(choice: Optimizer) -> Any:
    options: dict[str, Any] = {"weight_decay": choice.weight_decay}
    options["global_clipnorm"] = choice.clip
    if choice.kind == "rmsprop":
        return keras.optimizers.RMSprop(choice.learning_rate, **options)
    options |= {"beta_1": choice.beta_1, "beta_2": choice.beta_2}
    return keras.optimizers.Adam(choice.learning_rate, **options)


def _weighted(
    losses: Mapping[str, Any], factors: Mapping[str, float | Schedule], clock: Any
) -> Any:
    """Return the sum of losses with their factors; of all losses without any."""
    terms: list[Any] = []
    for name, factor in (factors or dict.fromkeys(losses, 1.0)).items():
        number = factor(clock) if callable(factor) else factor
        is_one = isinstance(number, float) and number == 1
        terms.append(losses[name] if is_one else number * losses[name])
    return sum(terms[1:], start=terms[0])
