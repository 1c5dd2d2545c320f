"""The optimizers of a training: they do what the phases of a family say."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.training.backend import keras, tf
from pidgan.training.families.phases import (
    Batch,
    Clock,
    Descent,
    Optimizer,
    Phase,
    Schedule,
    Update,
)


class Descents:
    """The optimizers of all phases that take part, and the best weights so far.

    Attributes:
        phases: Phases of which the share is not zero.
    """

    def __init__(self, phases: Iterable[Phase]) -> None:
        """Build an optimizer for each descent; phases may share a descent."""
        self.phases = [phase for phase in phases if phase.share > 0]
        self._optimizers: dict[Descent, Any] = {}
        self._best: dict[Descent, _Best] = {}
        for descent in [d for phase in self.phases for d in _descents(phase)]:
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
        with tf.GradientTape(persistent=len(update.descents) > 1) as tape:
            losses = update.losses(batch, seed)
            sums = [_weighted(losses, d.factors, clock) for d in update.descents]
        gradients = [
            tape.gradient(total, descent.variables, unconnected_gradients="zero")
            for descent, total in zip(update.descents, sums, strict=True)
        ]
        for descent, gradient in zip(update.descents, gradients, strict=True):
            self._optimizers[descent].apply(gradient, list(descent.variables))
        return losses

    def watch(self, phase: Phase, batch: Batch, seed: Any) -> None:
        """Keep averaged weights where their loss on a validation batch is the least."""
        for update in phase.updates:
            for descent in update.descents:
                if descent not in self._best:
                    continue
                now = [v.numpy() for v in descent.variables]
                self._average(descent)
                losses = update.losses(batch, seed)
                loss = _weighted(losses, descent.factors, None)
                self._best[descent].keep(loss, descent.variables)
                _assign(descent.variables, now)

    def end(self, phase: Phase) -> None:
        """Put the averaged weights, or the best, in place of the last ones."""
        later = self.phases[self.phases.index(phase) + 1 :]
        needed = {d for other in later for d in _descents(other)}
        for descent in _descents(phase):
            if descent in needed:
                continue
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
            _assign(self.weights, variables)

    def restore(self, variables: Sequence[Any]) -> None:
        if np.isfinite(self.least.numpy()):
            _assign(variables, self.weights)


def _make(choice: Optimizer) -> Any:
    averaged = {"use_ema": True, "ema_momentum": choice.average}
    options: dict[str, Any] = {
        "weight_decay": choice.weight_decay,
        "global_clipnorm": choice.clip,
        **(averaged if choice.average else {}),
    }
    if choice.kind == "rmsprop":
        return keras.optimizers.RMSprop(choice.learning_rate, **options)
    return keras.optimizers.Adam(
        choice.learning_rate, beta_1=choice.beta_1, beta_2=choice.beta_2, **options
    )


def _descents(phase: Phase) -> list[Descent]:
    return [descent for update in phase.updates for descent in update.descents]


def _weighted(
    losses: Mapping[str, Any], factors: Mapping[str, float | Schedule], clock: Any
) -> Any:
    """Return the sum of losses with their factors; of all losses without any."""
    terms = []
    for name, factor in (factors or dict.fromkeys(losses, 1.0)).items():
        loss = losses[name]
        if callable(factor):
            terms.append(factor(clock) * loss)
        else:
            terms.append(loss if factor == 1 else factor * loss)
    return sum(terms[1:], start=terms[0])


def _assign(variables: Iterable[Any], values: Iterable[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
