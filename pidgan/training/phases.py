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
    """Time in a training: numbers of the step, and of the ends of its phase."""

    step: Any
    begin: Any
    end: Any
    total: Any  # number of steps that the training was given
    start: Any = 0  # its first step; another one if its pace has changed


Schedule = Callable[[Clock], tf.Tensor]


def over_the_phase(clock: Clock) -> tf.Tensor:
    """Return a share that falls with a cosine while the phase lasts."""
    return cosine(clock.step - clock.begin, clock.end - clock.begin, final=FINAL_RATE)


def over_the_training(clock: Clock) -> tf.Tensor:
    """Return a share that falls with a cosine while the training lasts."""
    return cosine(clock.step - clock.start, clock.total, final=FINAL_RATE)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The choice of an optimizer: Adam (arXiv:1412.6980) or RMSprop.

    `average` is the largest momentum of the averaged weights
    (`pidgan.training.averages`); 0 averages nothing.
    """

    learning_rate: float  # at the start
    _: dataclasses.KW_ONLY
    kind: Literal["adam", "rmsprop"] = "adam"
    schedule: Schedule = over_the_phase  # share of the rate that is left
    beta_1: float = 0.9
    beta_2: float = 0.999
    weight_decay: float | None = None  # decoupled (arXiv:1711.05101)
    clip: float | None = None  # largest norm of the whole gradient
    average: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Descent:
    """Variables that go down the gradient of a sum of losses.

    Factors of losses in the sum, by name, are numbers or functions of time. Losses
    without a factor are only recorded; without any factor, the sum is over all losses.
    `held_out` returns losses that tell on rows not trained on which weights are better,
    by their sum with the same factors: the averaged ones, the last ones or earlier ones
    (`pidgan.training.averages`). These end the phase. Weights that `must_gain` are kept
    only if they are better than earlier ones by more than the error. Without `held_out`
    nothing is averaged, and the phase ends with the last ones. Variables that are
    `started` have weights that were learnt elsewhere: others must be better than these,
    and decay to these.
    """

    variables: Sequence[Any]
    optimizer: Optimizer
    factors: Mapping[str, float | Schedule] = dataclasses.field(default_factory=dict)
    held_out: Losses | None = None
    must_gain: bool = False
    started: bool = False

    def __post_init__(self) -> None:
        if self.optimizer.average and self.held_out is None:
            raise ValueError("an average needs held_out, losses that judge it")


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """One evaluation of losses by name, and the descent, or two, that follow from it.

    The gradient of the other descent is at the same weights. An update may be done
    several `times` a step, with noise of its own; None is once, with the noise of the
    step.
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

    The shares of all phases may sum to more than 1. A phase with share 0 is left out.
    `prepare` adds values to a batch that all updates of a step need; no gradient passes
    through it. `settle` is called at the end, after averaging. Where processes share a
    step, a phase that `sees_whole` gets the rows of all as "whole", beside its own.
    """

    name: str
    share: float  # its steps divided by the steps given to the training
    batch_size: int  # rows of one step
    _: dataclasses.KW_ONLY
    updates: Sequence[Update]
    prepare: Callable[[Batch, Any], Batch] | None = None
    settle: Callable[[], None] | None = None
    sees_whole: bool = False

    @property
    def descents(self) -> list[Descent]:
        """The descents of all updates, in order."""
        return [descent for update in self.updates for descent in update.descents]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A generator, (conditions, pattern, noise) -> coordinates, and its training."""

    generator: Any
    n_noise: int  # standard normal numbers for a row
    phases: Sequence[Phase]
    needs_positive_weights: bool = False  # "positive_w", E[w | x, y], in batches
