"""The one training loop: phases, optimizers, checkpoints, resume and history.

A family brings losses and phases; the loop brings rows, optimizers and randomness.
Rows and noise of step i are functions of (seed, i) alone, so that an interrupted
training continues to the same result. A wall-clock budget becomes a number of steps
after a short timing, so that `steps` repeats it.
"""

import dataclasses
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.errors import TrainingError
from pidgan.files.seals import SEAL, add_arrays, check_seal, reason, sealed
from pidgan.files.tables import read_arrays
from pidgan.files.writing import writing_file
from pidgan.sample.dataset import Dataset
from pidgan.training.backend import keras, tf
from pidgan.training.budget import TIMED_STEPS, parse_duration, steps_within, time_step
from pidgan.training.chain import Chain, Length, train_links
from pidgan.training.descents import Descents, Steps
from pidgan.training.model import Model
from pidgan.training.networks.updates import assign, held_out_losses
from pidgan.training.phases import Phase
from pidgan.training.setup import Setup, choose_family, set_up

CHECKPOINT = "checkpoint.npz"
DEFAULT_BUDGET = 600.0
# Duration of one call of the compiled loop: the latency of progress and Ctrl-C.
CHUNK_SECONDS = 1.0
CHECKPOINT_SECONDS = 30.0
# Time between two records of losses of the validation part, which take 0.05 s each.
RECORD_SECONDS = 3.0
# Losses are of order one in normal coordinates; above this, a network has diverged.
DIVERGED = 1e4
# Shortest training that is compiled with XLA, which takes some seconds a phase.
XLA_SECONDS, XLA_STEPS = 60.0, 2000
# Largest number of rows for the losses of the validation part, and of numbers in these
# rows, which limits the memory for some hundred cells and more.
VALIDATION_ROWS, VALIDATION_NUMBERS = 1024, 2**19
# Number of times that the best weights are sought on the validation part. The steps are
# fixed, so that the result does not depend on the speed of the machine.
WATCHES = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a training, handed to the callback after each chunk of steps.

    Attributes:
        step: Number of steps done.
        steps: Number of steps of all phases together.
        phase: Name of the running phase.
        losses: Losses by name, averaged over the chunk.
        seconds_left: Estimated time for the remaining steps.
    """

    step: int
    steps: int
    phase: str
    losses: Mapping[str, float]
    seconds_left: float


@checked
def train(
    dataset: Dataset,
    *,
    family: Any = None,
    recipe: str | None = None,
    budget: str | float | None = None,
    steps: int | None = None,
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
    directory: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Model | Chain:
    """Train a generator on the training part of a dataset.

    Args:
        dataset: Dataset from `build_dataset`.
        family: How the generator is learnt: the name of a family or of a published
            recipe, or a value with its settings, such as
            `pidgan.training.families.WganGp(width=64)`. The default is "distilled", and
            "shower_sequence" for the cells of a calorimeter.
        recipe: Second spelling of `family` for a published recipe, "maevskiy2019".
        budget: Wall-clock time, "10m" or seconds; 10 minutes by default.
        steps: Number of training steps instead of a budget; it repeats a training
            exactly on one machine. Family cramer adds its share `play` on top.
        seed: Seed of weights, batches and noise.
        settings: Settings by name that differ from the family's defaults; texts become
            numbers where a number is expected.
        directory: Folder of the checkpoints; without it there are none. The links of a
            chain have a folder each in it.
        resume: Whether to continue from the checkpoint in `directory`, if there is one,
            to its own number of steps; a `steps` or `budget` that differs is an error.
        progress: Function that is called after about every second of training.

    Returns:
        The model, with averaged generator weights; a chain for a sample with links,
        which are trained in turn and share the budget or the steps.

    Raises:
        TrainingError: There are too few rows, the training diverges, or the checkpoint
            belongs to another training.
        PidganError: There is no such family or setting, or a value has another type.
        KeyboardInterrupt: The user interrupts; a checkpoint is written first.
    """
    if budget is not None and steps is not None:
        raise ValueError("give a budget or a number of steps, not both")
    if dataset.sample.links:
        length = Length(steps=steps)
        if budget is not None:
            length = Length(budget=parse_duration(budget))
        return train_links(
            functools.partial(train, family=family, recipe=recipe, settings=settings),
            dataset,
            length=length,
            default=Length(budget=DEFAULT_BUDGET),
            seed=seed,
            directory=None if directory is None else Path(directory),
            resume=resume,
            progress=progress,
        )
    keras.utils.set_random_seed(seed % 2**31)
    tf.config.experimental.enable_op_determinism()
    chosen = choose_family(family, recipe, settings, dataset.sample)
    training = Training(set_up(dataset, chosen, seed=seed))
    checkpoint = None if directory is None else Path(directory) / CHECKPOINT
    seconds = None if budget is None else parse_duration(budget)
    if resume and checkpoint is not None and checkpoint.is_file():
        training.load(checkpoint)
        training.check_length(checkpoint, steps, seconds)
    elif steps is not None:
        training.choose_xla(steps >= XLA_STEPS)
        training.steps = steps
    else:
        training.budget = DEFAULT_BUDGET if seconds is None else seconds
        training.choose_xla(training.budget >= XLA_SECONDS)
        training.time_steps(training.budget)
    training.run(checkpoint, progress)
    return training.model()


class Training:
    """One training: its optimizers, its history, and its steps, done and wanted."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.settings = setup, setup.settings
        self.descents = Descents(setup.phases)
        self.step, self.steps = 0, 0
        self.budget: float | None = None
        self.history: dict[str, list[float]] = {"step": []}
        self._compiled: dict[Phase, Steps] = {}
        self._chunk = TIMED_STEPS
        self._seen: tuple[int, ...] | None = None  # mark of the checkpoint

    @property
    def variables(self) -> list[Any]:
        """All variables that an interrupted training needs, in a fixed order."""
        both = [*self.setup.family.generator.variables, *self.descents.variables]
        return list({id(v): v for v in both}.values())

    def choose_xla(self, pays: bool) -> None:
        """Decide whether steps are compiled with XLA, unless the settings say it."""
        if self.settings.xla is None:
            self.settings = dataclasses.replace(self.settings, xla=pays)

    def time_steps(self, budget: float) -> None:
        """Turn a budget in seconds into a number of steps; weights stay as they are."""
        began = time.perf_counter()
        saved = [v.numpy() for v in self.variables]
        cost = 0.0
        for phase in self.descents.phases:
            cost += phase.share * time_step(self._steps_of(phase))
        assign(self.variables, saved)
        self.steps = steps_within(budget, began=began, cost=cost)

    def run(
        self, checkpoint: Path | None, progress: Callable[[Progress], None] | None
    ) -> None:
        """Do the remaining steps, and write a checkpoint regularly."""
        saved_at, recorded_at = time.perf_counter(), -math.inf
        self._seen = _mark(checkpoint)
        try:
            for phase, begin, end in self._plan():
                while self.step < end:
                    start = time.perf_counter()
                    n = min(self._chunk, end - self.step, self._until_watch())
                    run = self._steps_of(phase)
                    losses = run(self.step, n, begin, end, self.steps)
                    self.step += n
                    self._check(losses, phase, checkpoint)
                    seconds = (time.perf_counter() - start) / n
                    most = int(CHUNK_SECONDS / seconds)
                    self._chunk = max(1, min(most, 4 * self._chunk))
                    now = time.perf_counter()
                    if self.step == end or now - recorded_at > RECORD_SECONDS:
                        self._record(losses)
                        recorded_at = now
                    if self.step == end or self._until_watch() == self._watch_steps:
                        self._watch(phase)
                    if progress is not None:
                        progress(
                            Progress(
                                step=self.step,
                                steps=self._last_step,
                                phase=phase.name,
                                losses=losses,
                                seconds_left=seconds * (self._last_step - self.step),
                            )
                        )
                    if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                        self._save_alone(checkpoint)
                        saved_at = time.perf_counter()
                if begin < end == self.step:
                    self.descents.end(phase)
        except KeyboardInterrupt:
            self._save_alone(checkpoint)
            raise
        self._save_alone(checkpoint)

    def model(self) -> Model:
        """Return the model of the generator as it is now."""
        return self.setup.model(self.settings, steps=self.steps, history=self.history)

    def save(self, checkpoint: Path | None) -> None:
        """Write a checkpoint, if a path is given."""
        if checkpoint is None:
            return
        state = {**self._identity(), "step": self.step, "steps": self.steps}
        state |= {"budget": self.budget, "history": self.history}
        arrays = {f"v{i}": v.numpy() for i, v in enumerate(self.variables)}
        state["arrays"] = _hash(arrays)
        text = json.dumps(sealed(state))
        with writing_file(checkpoint, overwrite=True) as temporary:
            np.savez(temporary, state=np.array(text), **arrays)

    def _save_alone(self, checkpoint: Path | None) -> None:
        """Write a checkpoint; raise if another training wrote one meanwhile."""
        if _mark(checkpoint) != self._seen:
            raise TrainingError(
                f"{checkpoint} was written by another training meanwhile; choose "
                "another folder"
            )
        self.save(checkpoint)
        self._seen = _mark(checkpoint)

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint of the same training."""
        state, arrays = _read(checkpoint)
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
            self.step, self.steps = state["step"], state["steps"]
            self.budget, self.history = state.get("budget", math.nan), state["history"]
        except (KeyError, ValueError, TypeError) as error:
            raise TrainingError(f"{checkpoint} is damaged ({reason(error)})") from error

    def check_length(
        self, checkpoint: Path, steps: int | None, budget: float | None
    ) -> None:
        """Raise if a training that is continued is to have another length.

        Learning rates and phases follow the number of all steps: a training that went
        on to another number would end with a schedule that nobody asked for.
        """
        mine = f"{self.steps} steps"
        if self.budget is not None and math.isnan(self.budget):
            # Version 0.1 did not write it down.
            self.budget = budget
        elif self.budget is not None:
            mine = f"a budget of {self.budget:g} s, which gave {mine}"
        wanted = None
        if steps is not None and steps != self.steps:
            wanted = f"{steps} steps"
        if budget is not None and budget != self.budget:
            wanted = f"a budget of {budget:g} s"
        if wanted is not None:
            raise TrainingError(
                f"{checkpoint} belongs to a training with {mine}, now {wanted}: "
                "continue without a number of steps or a budget, or train anew"
            )

    def _plan(self) -> Iterator[tuple[Phase, int, int]]:
        """Yield each phase with the steps at which it begins and ends."""
        begin, share = 0, 0.0
        for phase in self.descents.phases:
            share += phase.share
            end = round(share * self.steps)
            yield phase, begin, end
            begin = end

    @property
    def _last_step(self) -> int:
        """Step at which the last phase ends; the shares of phases may exceed 1."""
        return max(end for *_, end in self._plan())

    def _steps_of(self, phase: Phase) -> Steps:
        if phase not in self._compiled:
            rows, seed = self.setup.rows, self.setup.seed
            self._compiled[phase] = self.descents.compile(
                phase, rows, seed=seed, xla=bool(self.settings.xla)
            )
        return self._compiled[phase]

    @functools.cached_property
    def _validation_size(self) -> int:
        """Rows for the losses of the validation part; fewer if targets are many."""
        most = VALIDATION_NUMBERS // self.setup.targets.n_targets
        return max(64, min(VALIDATION_ROWS, most))

    @functools.cached_property
    def _validation_seed(self) -> tf.Tensor:
        return tf.constant([self.setup.seed % 2**31, -1])

    @property
    def _watch_steps(self) -> int:
        return max(1, self.steps // WATCHES)

    def _until_watch(self) -> int:
        """Return the number of steps until the best weights are sought again."""
        if not self.descents.watches:
            return self.steps
        return self._watch_steps - self.step % self._watch_steps

    def _watch(self, phase: Phase) -> None:
        if self.descents.watches:
            batch = self.setup.validation.first(self._validation_size)
            self.descents.watch(phase, batch, self._validation_seed)

    def _record(self, losses: Mapping[str, float]) -> None:
        """Append losses, and those of the validation part, to the history."""
        family, seed = self.setup.family, self._validation_seed
        batch = self.setup.validation.batch(seed, self._validation_size)
        if family.losses is not None:
            found = family.losses(batch, seed)
        else:
            n = family.n_noise
            found = held_out_losses(family.generator, batch, n_noise=n, seed=seed)
        now = {**losses, **{f"validation_{k}": float(v) for k, v in found.items()}}
        self.history["step"].append(self.step)
        for key in {*now, *self.history} - {"step"}:
            missing = [math.nan] * (len(self.history["step"]) - 1)
            self.history.setdefault(key, missing).append(now.get(key, math.nan))

    def _check(
        self, losses: Mapping[str, float], phase: Phase, checkpoint: Path | None
    ) -> None:
        # A published recipe has no penalty at first, and recovers from large losses.
        limit = math.inf if self.setup.published else DIVERGED
        for name, value in losses.items():
            if abs(value) < limit:
                continue
            kept = f"; the checkpoint {checkpoint} is from before" if checkpoint else ""
            raise TrainingError(
                f"training diverged in phase '{phase.name}' near step {self.step}: "
                f"loss '{name}' is {value:.3g}; lower the learning rates or raise the "
                f"batch size{kept}"
            )

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a checkpoint to be continued."""
        return {
            "dataset": self.setup.dataset.info["hash"],
            "family": self.setup.name,
            "settings": dataclasses.asdict(self.settings),
            "seed": self.setup.seed,
        }


def _mark(checkpoint: Path | None) -> tuple[int, ...] | None:
    """Return what tells whether a file was replaced, None if there is no file."""
    try:
        found = None if checkpoint is None else checkpoint.stat()
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)


def _read(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return state and arrays of a checkpoint, which are those that it was saved with.

    Version 0.1 wrote no hashes.
    """
    try:
        arrays = read_arrays(checkpoint)
        state = json.loads(str(arrays.pop("state")))
        if {"arrays", SEAL} & set(state):
            check_seal(state)
            if state["arrays"] != _hash(arrays):
                raise ValueError("its arrays are not those of its state")
        is_known = isinstance(state, dict) and isinstance(state.get("settings"), dict)
        if not is_known:
            raise ValueError("no state of a training in it")
    # What is no whole file of arrays may raise whatever there is.
    except Exception as error:
        raise TrainingError(f"{checkpoint} is damaged ({reason(error)})") from error
    return state, arrays


def _hash(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    add_arrays(digest, arrays)
    return digest.hexdigest()
