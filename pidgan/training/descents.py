"""The optimizers of a training: they do what phases say, in compiled steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.training.backend import keras, tf
from pidgan.training.networks.updates import assign
from pidgan.training.phases import (
    Batch,
    Clock,
    Descent,
    Optimizer,
    Phase,
    Schedule,
    Update,
)
from pidgan.training.rows import Rows

# Stream of random numbers of the noise, apart from that of the batches.
NOISE = 1

Steps = Callable[[int, int, int, int, int], dict[str, float]]
"""Function of the first step, the number of steps, the begin and the end of the phase
and the number of all steps, which returns the mean losses."""


class Descents:
    """The optimizers of all phases that take part, and the best weights so far."""

    def __init__(self, phases: Iterable[Phase]) -> None:
        """Build an optimizer for each descent; phases may share a descent."""
        self.phases = [phase for phase in phases if phase.share > 0]
        self._optimizers: dict[Descent, Any] = {}
        self._best: dict[Descent, _Best] = {}
        for descent in [d for phase in self.phases for d in phase.descents]:
            if descent not in self._optimizers:
                optimizer = _make(descent.optimizer)
                optimizer.build(list(descent.variables))
                self._optimizers[descent] = optimizer
                if descent.keeps_best:
                    self._best[descent] = _Best(descent.variables)

    @property
    def variables(self) -> list[Any]:
        """All variables that an interrupted training needs, in a fixed order."""
        trained = [v for descent in self._optimizers for v in descent.variables]
        states = [v for o in self._optimizers.values() for v in o.variables]
        best = [v for kept in self._best.values() for v in (kept.least, *kept.weights)]
        return list({id(v): v for v in [*trained, *states, *best]}.values())

    @property
    def watches(self) -> bool:
        """Whether any descent is to be shown the validation part now and then."""
        return bool(self._best)

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
        for descent in update.descents:
            choice = descent.optimizer
            rate = choice.learning_rate * choice.schedule(clock)
            self._optimizers[descent].learning_rate = rate
        with tf.GradientTape(persistent=update.other is not None) as tape:
            losses = update.losses(batch, seed)
            sums = [_weighted(losses, d.factors, clock) for d in update.descents]
        gradients = [
            tape.gradient(total, descent.variables, unconnected_gradients="zero")
            for descent, total in zip(update.descents, sums, strict=True)
        ]
        for descent, gradient in zip(update.descents, gradients, strict=True):
            self._optimizers[descent].apply(gradient, list(descent.variables))
        return losses

    def compile(self, phase: Phase, rows: Rows, *, seed: int, xla: bool) -> Steps:
        """Return a function of steps; rows and noise depend on (seed, step) alone."""

        # A function of its own is traced once, though the loop below has it twice.
        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def one_step(step: Any, begin: Any, end: Any, total: Any) -> dict[str, Any]:
            stream = tf.stack([tf.constant(seed % 2**31), step])
            batch = rows.batch(stream, phase.batch_size)
            clock = Clock(step=step, begin=begin, end=end, total=total)
            return self.step(phase, batch, tf.random.fold_in(stream, NOISE), clock)

        @tf.function(jit_compile=xla)  # type: ignore[untyped-decorator]
        def loop(first: Any, n: Any, begin: Any, end: Any, total: Any) -> Any:
            sums = one_step(first, begin, end, total)
            i = tf.constant(1)
            while i < n:
                losses = one_step(first + i, begin, end, total)
                sums = {key: sums[key] + losses[key] for key in sums}
                i += 1
            return {key: value / tf.cast(n, tf.float32) for key, value in sums.items()}

        def run(*numbers: int) -> dict[str, float]:
            losses = loop(*map(tf.constant, numbers))
            return {key: float(value) for key, value in losses.items()}

        return run

    def watch(self, phase: Phase, batch: Batch, seed: Any) -> None:
        """Keep averaged weights where their loss on a validation batch is the least."""
        for update in phase.updates:
            for descent in [d for d in update.descents if d in self._best]:
                now = [v.numpy() for v in descent.variables]
                self._average(descent)
                loss = _weighted(update.losses(batch, seed), descent.factors, None)
                self._best[descent].keep(loss, descent.variables)
                assign(descent.variables, now)

    def end(self, phase: Phase) -> None:
        """Put the averaged weights, or the best, in place of the last ones."""
        later = self.phases[self.phases.index(phase) + 1 :]
        needed = {descent for other in later for descent in other.descents}
        for descent in [d for d in phase.descents if d not in needed]:
            if descent in self._best:
                self._best[descent].restore(descent.variables)
            else:
                self._average(descent)
        if phase.settle is not None:
            phase.settle()

    def _average(self, descent: Descent) -> None:
        if descent.optimizer.average:
            variables = list(descent.variables)
            self._optimizers[descent].finalize_variable_values(variables)


class _Best:
    """The least loss of a descent on the validation part, and its weights then."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self.least = keras.Variable(np.inf, trainable=False)
        self.weights = [
            keras.Variable(tf.zeros_like(v), trainable=False) for v in variables
        ]

    def keep(self, loss: Any, variables: Sequence[Any]) -> None:
        if loss < self.least:
            self.least.assign(loss)
            assign(self.weights, variables)

    def restore(self, variables: Sequence[Any]) -> None:
        if np.isfinite(self.least.numpy()):
            assign(variables, self.weights)


def _make(choice: Optimizer) -> Any:
    options: dict[str, Any] = {"weight_decay": choice.weight_decay}
    options["global_clipnorm"] = choice.clip
    if choice.average:
        options |= {"use_ema": True, "ema_momentum": choice.average}
    if choice.kind == "rmsprop":
        return keras.optimizers.RMSprop(choice.learning_rate, **options)
    options |= {"beta_1": choice.beta_1, "beta_2": choice.beta_2}
    return keras.optimizers.Adam(choice.learning_rate, **options)


def _weighted(
    losses: Mapping[str, Any], factors: Mapping[str, float | Schedule], clock: Any
) -> Any:
    """Return the sum of losses with their factors; of all losses without any."""
    terms = []
    for name, factor in (factors or dict.fromkeys(losses, 1.0)).items():
        number = factor(clock) if callable(factor) else factor
        is_one = isinstance(number, float) and number == 1
        terms.append(losses[name] if is_one else number * losses[name])
    return sum(terms[1:], start=terms[0])
