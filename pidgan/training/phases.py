"""The language in which a family says how its generator is learnt.

A family is a generator and a list of phases. A phase is data: which losses are computed
on a batch, and which variables follow the gradient of their sum, with which optimizer.
The training loop owns all that moves: the keras optimizers, the learning rates, the
averages of weights and the order in which phases run.

Example, a generator that minimises one loss:
    >>> descent = Descent([], Optimizer(1e-3))
    >>> update = Update(lambda batch, seed: {"score": 0.0}, descent)
    >>> Phase("fit", 1.0, 512, updates=[update]).batch_size
    512
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pidgan.training.backend import tf
from pidgan.training.networks.updates import cosine

Batch = dict[str, Any]
Losses = Callable[[Batch, Any], dict[str, Any]]

# Rates fall to this share of their start, so that the averaged weights settle.
FINAL_RATE = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clock:
    """The number of a step, of those at which its phase begins and ends, and of all."""

    step: Any
    begin: Any
    end: Any
    total: Any


Schedule = Callable[[Clock], tf.Tensor]


def over_the_phase(clock: Clock) -> tf.Tensor:
    """Return a share that falls with a cosine while the phase lasts."""
    return cosine(clock.step - clock.begin, clock.end - clock.begin, final=FINAL_RATE)


def over_the_training(clock: Clock) -> tf.Tensor:
    """Return a share that falls with a cosine while the training lasts."""
    return cosine(clock.step, clock.total, final=FINAL_RATE)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The choice of an optimizer: Adam (arXiv:1412.6980) or RMSprop.

    Attributes:
        learning_rate: Learning rate at the start.
        schedule: Share of the learning rate that is left at a given time.
        beta_1, beta_2: Decay rates of the two moments of Adam.
        weight_decay: Decoupled weight decay (arXiv:1711.05101).
        clip: Largest norm of the gradient of all variables together.
        average: Momentum of the averaged weights, which replace the last ones when the
            phase ends; 0 keeps the last ones.
    """

    learning_rate: float
    _: dataclasses.KW_ONLY
    kind: Literal["adam", "rmsprop"] = "adam"
    schedule: Schedule = over_the_phase
    beta_1: float = 0.9
    beta_2: float = 0.999
    weight_decay: float | None = None
    clip: float | None = None
    average: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Descent:
    """Variables that go down the gradient of a sum of losses.

    Attributes:
        factors: Factor of each loss in the sum, by the name of the loss: a number, or a
            function of time. Losses without a factor are only recorded; without any
            factor, the sum is over all losses.
        keeps_best: Whether the phase ends with the averaged weights that had the least
            loss on the validation part (early stopping), instead of the last ones.
    """

    variables: Sequence[Any]
    optimizer: Optimizer
    factors: Mapping[str, float | Schedule] = dataclasses.field(default_factory=dict)
    keeps_best: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """One evaluation of losses by name, and the descent, or two, that follow from it.

    Attributes:
        losses: Function of a batch and of a seed of noise.
        other: Another descent, whose gradient is at the same weights.
        times: Number of times that the update is done in each step, each time with
            noise of its own; None does it once, with the noise of the step.
    """

    losses: Losses
    descent: Descent
    other: Descent | None = None
    _: dataclasses.KW_ONLY
    times: int | None = None

    @property
    def descents(self) -> tuple[Descent, ...]:
        """The descents, in order."""
        return (self.descent,) if self.other is None else (self.descent, self.other)


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """A part of a training in which every step does the same updates, in turn.

    Attributes:
        share: Share of the steps of the training; a phase with share 0 is left out.
        batch_size: Number of rows of one step.
        prepare: Function of a batch and of a seed that returns the batch with what all
            updates of a step need; no gradient passes through it.
        settle: Function that is called when the phase has ended, after averaging.
    """

    name: str
    share: float
    batch_size: int
    _: dataclasses.KW_ONLY
    updates: Sequence[Update]
    prepare: Callable[[Batch, Any], Batch] | None = None
    settle: Callable[[], None] | None = None

    @property
    def descents(self) -> list[Descent]:
        """The descents of all updates, in order."""
        return [descent for update in self.updates for descent in update.descents]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A generator and how it is learnt.

    Attributes:
        generator: Function of (conditions, pattern, noise) that returns coordinates.
        n_noise: Number of standard normal numbers that the generator takes for a row.
        losses: Losses on rows that are not trained on; None for the energy score.
        needs_positive_weights: Whether batches must have "positive_w", E[w | x, y].
    """

    generator: Any
    n_noise: int
    phases: Sequence[Phase]
    losses: Losses | None = None
    needs_positive_weights: bool = False
