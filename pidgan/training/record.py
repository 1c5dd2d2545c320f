"""The losses of a training: those of its steps, and those on rows not trained on."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pidgan.errors import TrainingError
from pidgan.training.averages import Blocks, HeldOut, error_of
from pidgan.training.descents import Descents
from pidgan.training.networks.updates import energy_score
from pidgan.training.phases import Family, Phase

# Losses are of order one in normal coordinates; above this, a network has diverged.
DIVERGED = 1e4

Shown = dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a training, handed to the callback after each chunk of steps.

    Attributes:
        step: Number of steps done.
        steps: Number of steps of all phases together.
        phase: Name of the running phase.
        losses: Losses by name of the running weights, averaged over the chunk.
        seconds_left: Estimated time for the remaining steps.
        held_out: Losses by name on rows that are not trained on, with their errors, of
            the weights that would be exported now; none before the first comparison.
    """

    step: int
    steps: int
    phase: str
    losses: Mapping[str, float]
    seconds_left: float
    held_out: Mapping[str, tuple[float, float]] = dataclasses.field(
        default_factory=dict
    )


class Record:
    """Losses by name against the step.

    Attributes:
        history: Lists by name, beside "step". "validation_NAME" is the loss of the
            weights that would be exported, "validation_NAME_error" its error.
        shown: The last losses on rows that are not trained on, with their errors.
        watched: Name of the phase that these are of.
    """

    def __init__(self, family: Family, descents: Descents) -> None:
        self.family, self.descents = family, descents
        self.history: dict[str, list[float]] = {"step": []}
        self.shown: Shown = {}
        self.watched = ""
        self._sums: dict[str, float] = {}
        self._steps = 0

    @property
    def state(self) -> dict[str, Any]:
        """What an interrupted training needs, as JSON knows it."""
        names = ("history", "shown", "watched")
        return {name: getattr(self, name) for name in names}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        for name in self.state:
            setattr(self, name, state[name])

    def add(self, losses: Mapping[str, float], steps: int) -> None:
        """Take in the mean losses of some steps."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + steps * value
        self._steps += steps

    def watch(self, phase: Phase, step: int, held_out: HeldOut) -> None:
        """Judge the weights there are, keep the better ones, and note all losses."""
        found = self.descents.watch(phase, held_out) or self._score(phase, held_out)
        new = {k: (float(v.mean()), error_of(v)) for k, v in found.items()}
        before = self.shown if self.watched == phase.name else {}
        self.shown, self.watched = before | new, phase.name
        now = {name: value / self._steps for name, value in self._sums.items()}
        self._sums, self._steps = {}, 0
        for name, (value, error) in self.shown.items():
            now |= {f"validation_{name}": value, f"validation_{name}_error": error}
        self.history["step"].append(step)
        for key in [k for k in {**self.history, **now} if k != "step"]:
            missing = [math.nan] * (len(self.history["step"]) - 1)
            self.history.setdefault(key, missing).append(now.get(key, math.nan))

    def _score(self, phase: Phase, held_out: HeldOut) -> Blocks:
        """Return the energy score where no descent of a phase is judged."""
        if any(descent.held_out for descent in phase.descents):
            return {}
        generator, n_noise = self.family.generator, self.family.n_noise
        score = functools.partial(energy_score, generator, n_noise=n_noise)
        return held_out.losses(score)()


def check_losses(
    losses: Mapping[str, float], limit: float, *, where: str, checkpoint: Path | None
) -> None:
    """Raise a TrainingError if a loss is beyond a limit, or no number."""
    for name, value in losses.items():
        if not abs(value) < limit:
            kept = f"; the checkpoint {checkpoint} is from before" if checkpoint else ""
            raise TrainingError(
                f"training diverged in {where}: loss '{name}' is {value:.3g}; lower "
                f"the learning rates or raise the batch size{kept}"
            )
