"""One training: its optimizers, its history, and its steps, done and wanted."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pidgan.errors import TrainingError
from pidgan.files.seals import reason
from pidgan.training import interruptions
from pidgan.training.averages import HeldOut
from pidgan.training.budget import Budget, Duration
from pidgan.training.callbacks import Callbacks
from pidgan.training.checkpoint import mark_of, read_checkpoint, write_checkpoint
from pidgan.training.descents import Descents, Steps
from pidgan.training.model import Model
from pidgan.training.networks.updates import assign
from pidgan.training.pace import Pace
from pidgan.training.phases import Phase
from pidgan.training.record import DIVERGED, Progress, Record, check_losses
from pidgan.training.setup import Setup, versions
from pidgan.training.together import Together

# Duration of one call of the compiled loop: the latency of progress and Ctrl-C.
CHUNK_SECONDS = 1.0
CHECKPOINT_SECONDS = 30.0


class Training:
    """One training: its optimizers, its history, and its steps, done and wanted."""

    def __init__(self, setup: Setup, together: Together | None = None) -> None:
        self.setup, self.settings = setup, setup.settings
        self.together = together or Together()
        self.descents = Descents(setup.phases, together=self.together)
        self.step, self.pace = 0, Pace.parse(1)
        self.budget: Budget | None = None
        self.record = Record(setup.family, self.descents)
        self._compiled: dict[Phase, Steps] = {}
        self._costs: dict[Phase, float] = {}  # seconds of a step, as timed
        self._ended = 0  # number of phases that have ended
        self._chunk = 1
        self._held_out: HeldOut | None = None
        self._seen: tuple[int, ...] | None = None  # mark of the checkpoint
        self._spent = 0.0  # of the budget: all processes read its clock at once
        self._is_whole = True  # whether the weights are those after `step` steps

    @property
    def variables(self) -> list[Any]:
        """All variables that an interrupted training needs, in a fixed order."""
        both = [*self.setup.family.generator.variables, *self.descents.variables]
        return list({id(v): v for v in both}.values())

    @property
    def last_step(self) -> int:
        """Step at which the last phase ends; the shares of phases may exceed 1."""
        return self._end(len(self.descents.phases) - 1)

    def choose_xla(self, pays: bool) -> None:
        """Decide whether steps are compiled with XLA, unless the settings say it."""
        if self.settings.xla is None:
            self.settings = dataclasses.replace(self.settings, xla=pays)

    def follow(self, budget: Budget, *, pace: Pace | None) -> None:
        """Time the steps, and choose the pace that keeps a budget if none is given.

        The weights stay as they are.
        """
        self.budget = budget
        saved = [v.numpy() for v in self.variables]
        phases = self.descents.phases[self._ended :]
        for phase in phases:
            self._costs[phase] = budget.time(self._steps_of(phase))
        cost = sum(phase.share * self._costs[phase] for phase in phases)
        self.pace = pace or Pace.parse(max(1, int(budget.left / cost)))
        overhead = sum(self.held_out.watches * self._time_watch(p) for p in phases)
        assign(self.variables, saved)
        least = math.ceil(1 / min(phase.share for phase in phases))
        if pace is None:
            steps = budget.pace(cost, overhead=overhead, least=least)
            self.pace = Pace.parse(steps)
            self._held_out = None  # follows the pace
        budget.look()

    def run(
        self,
        checkpoint: Path | None,
        progress: Callable[[Progress], None] | None,
        callbacks: Callbacks | None = None,
    ) -> None:
        """Do the remaining steps, and write a checkpoint regularly."""
        show = progress or (lambda _: None)
        callbacks = callbacks or Callbacks(())
        clock = self.together.clock(time.perf_counter)
        self._seen, saved_at = mark_of(checkpoint), time.perf_counter()
        self._spent = self.budget.spent if self.budget else 0.0
        callbacks.begin()
        try:
            for k, phase in list(enumerate(self.descents.phases))[self._ended :]:
                if self.step < self._end(k) and self.record.watched != phase.name:
                    with interruptions.later():
                        self.record.watch(phase, self.step, self.held_out)
                    show(self._progress(phase, {}, 0.0))
                while self.step < self._end(k):
                    # Weights, steps and losses change together.
                    with interruptions.later():
                        self._is_whole = False
                        losses, seconds, judged = self._advance(k, clock, checkpoint)
                        self._is_whole = True
                    if judged:
                        callbacks.tell(self.record.history)
                    show(self._progress(phase, losses, seconds))
                    if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                        self._save_alone(checkpoint)
                        saved_at = time.perf_counter()
                with interruptions.later():
                    # A phase of a very short training may have no step.
                    if self.record.watched == phase.name:
                        self.descents.end(phase)
                    self._ended = k + 1
        except KeyboardInterrupt:
            if self._is_whole:
                self._save_alone(checkpoint)
            raise
        finally:
            callbacks.end()
        self._save_alone(checkpoint)

    def _advance(
        self, k: int, clock: Callable[[], float], checkpoint: Path | None
    ) -> tuple[dict[str, float], float, bool]:
        """Do a chunk of steps of phase k, and judge the weights if that is due.

        Return the losses, the seconds of a step, and whether weights were judged.
        """
        start, phase = clock(), self.descents.phases[k]
        n, is_due = self._next(k)
        losses = self._do(k, n)
        # A published recipe has no penalty at first, and recovers.
        limit = math.inf if self.setup.published else DIVERGED
        where = f"phase '{phase.name}' near step {self.step}"
        check_losses(losses, limit, where=where, checkpoint=checkpoint)
        seconds = max(clock() - start, 1e-9) / n
        most = int(CHUNK_SECONDS / seconds)
        self._chunk = max(1, min(most, 4 * self._chunk))
        judged = is_due or self.step >= self._end(k)
        if judged:
            self.record.watch(phase, self.step, self.held_out)
        self._spent = self.budget.spent if self.budget else 0.0
        return losses, seconds, judged

    def model(self) -> Model:
        """Return the model of the generator as it is now."""
        plan = self.pace.text if len(self.pace.changes) > 1 else ""
        lengths: dict[str, Any] = {"steps": self.pace.steps, "plan": plan}
        return self.setup.model(self.settings, history=self.record.history, **lengths)

    def facts(self, length: Duration | Pace) -> dict[str, Any]:
        """Return what all processes that share a training must have alike."""
        own = {"step": self.step, "length": length}
        return {**self._identity(), "versions": versions(), **own}

    def save(self, checkpoint: Path | None) -> None:
        """Write a checkpoint, if a path is given."""
        if checkpoint is None:
            return
        state = self._identity()
        state |= {"step": self.step, "pace": self.pace.text, "ended": self._ended}
        budget = self.budget and [self.budget.duration.stored, self._spent]
        state |= {"budget": budget, **self.record.state}
        arrays = {f"v{i}": v.numpy() for i, v in enumerate(self.variables)}
        write_checkpoint(checkpoint, state, arrays)

    def _save_alone(self, checkpoint: Path | None) -> None:
        """Write a checkpoint; raise if another training wrote one meanwhile."""
        if not self.together.leads:
            return
        if mark_of(checkpoint) != self._seen:
            raise TrainingError(
                f"{checkpoint} was written by another training meanwhile; choose "
                "another folder"
            )
        with interruptions.later():
            self.save(checkpoint)
            self._seen = mark_of(checkpoint)

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint of the same training."""
        state, arrays = read_checkpoint(checkpoint)
        self.choose_xla(bool(state["settings"].get("xla")))
        for key, mine in self._identity().items():
            if state.get(key) != mine:
                raise TrainingError(
                    f"{checkpoint} belongs to another training: {key} was "
                    f"{state.get(key)!r}, now {mine!r}"
                )
        try:
            saved = [arrays[f"v{i}"] for i in range(len(self.variables))]
            assign(self.variables, saved)
            self.step, self.pace = state["step"], Pace.parse(state["pace"])
            if state["budget"] is not None:
                stored, spent = state["budget"]
                self.budget = Budget(Duration.parse(stored), spent=spent)
            self._ended = state["ended"]
            self.record.load(state)
        except (KeyError, ValueError, TypeError) as error:
            raise TrainingError(f"{checkpoint} is damaged ({reason(error)})") from error

    def _end(self, k: int) -> int:
        """Return the step at which phase k ends, at the pace there is now."""
        share = sum(phase.share for phase in self.descents.phases[: k + 1])
        return self.pace.at(self.step).step_at(share)

    def _next(self, k: int) -> tuple[int, bool]:
        """Return how many steps are next, and whether weights are judged after them."""
        watch = self.pace.at(self.step).next_of(self.held_out.watches, self.step)
        most = [self._end(k), watch, self.step + self.pace.until_change(self.step)]
        if (feed := self.setup.rows.feed) is not None:
            most.append(feed.end_of(self.step, self._batch_size))
        end = min(self.step + self._chunk, *most)
        return end - self.step, end == watch

    def _do(self, k: int, n: int) -> dict[str, float]:
        """Do some steps of phase k, and let the budget correct the pace."""
        phase, place = self.descents.phases[k], self.pace.at(self.step)
        bounds = (self._end(k - 1) if k else place.start, self._end(k))
        if (feed := self.setup.rows.feed) is not None:
            feed.follow(self.step, self._batch_size)
        run = self._steps_of(phase)
        losses = run(self.step, n, *bounds, place.start, place.pace)
        self.step += n
        self.record.add(losses, n)
        if self.budget and self.budget.expect(n * self._costs[phase]):
            self.correct()
        return losses

    def correct(self) -> None:
        """Change the pace from this step on, if the budget would not be kept."""
        assert self.budget is not None
        k, phases = self._ended, self.descents.phases
        place = self.pace.at(self.step)
        left = (self._end(k) - self.step) * self._costs[phases[k]]
        left += sum(place.pace * p.share * self._costs[p] for p in phases[k + 1 :])
        shares = [phase.share for phase in phases[k + 1 :]]
        least = math.ceil(1 / min(shares)) if shares else 1
        pace = self.budget.correct(place.pace, left=left, least=least)
        if pace != place.pace:
            self.pace = self.pace.changed(self.step, pace)

    def _time_watch(self, phase: Phase) -> float:
        """Return the share of a phase times the seconds of a comparison of weights."""
        assert self.budget is not None
        self.descents.watch(phase, self.held_out)  # compiles
        start = self.budget.clock()
        self.descents.watch(phase, self.held_out)
        return phase.share * (self.budget.clock() - start)

    def _steps_of(self, phase: Phase) -> Steps:
        if phase not in self._compiled:
            rows, seed = self.setup.rows, self.setup.seed
            self._compiled[phase] = self.descents.compile(
                phase, rows, seed=seed, xla=bool(self.settings.xla)
            )
        return self._compiled[phase]

    @property
    def _batch_size(self) -> int:
        return max(phase.batch_size for phase in self.descents.phases)

    @property
    def held_out(self) -> HeldOut:
        """Rows on which the weights that are to be exported are judged."""
        if self._held_out is None:
            phases = self.descents.phases
            rows = sum(phase.share * phase.batch_size for phase in phases)
            self._held_out = HeldOut.of(
                self.setup.validation,
                trained=self.pace.first * rows,
                batch_size=self._batch_size,
                seed=self.setup.seed,
                together=self.together,
            )
        return self._held_out

    def _progress(
        self, phase: Phase, losses: Mapping[str, float], seconds: float
    ) -> Progress:
        """Return the state now; `seconds` are those of a step, 0 if unknown."""
        left = self.last_step - self.step
        expected = seconds * left if seconds or not left else math.inf
        if self.budget is not None and left and math.isinf(self.budget.most):
            expected = self.budget.wait
        return Progress(
            step=self.step,
            steps=self.last_step,
            phase=phase.name,
            losses=losses,
            seconds_left=expected,
            held_out=self.record.shown,
        )

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a checkpoint to be continued."""
        return {
            "dataset": self.setup.dataset.info["hash"],
            "family": self.setup.name,
            "settings": dataclasses.asdict(self.settings),
            "seed": self.setup.seed,
            "start": self.setup.start.get("model"),
        }
