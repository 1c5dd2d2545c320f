"""The one training loop: phases, optimizers, checkpoints, resume and history.

A family brings losses and phases; the loop brings rows, optimizers and randomness.
Rows and noise of step i are functions of (seed, i) alone, so that an interrupted
training continues to the same result. A wall-clock budget becomes a number of steps
after a short timing, so that `steps` repeats it.
"""

import dataclasses
import functools
import importlib.metadata
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pidgan.bundle.card import Card, describe_variables
from pidgan.errors import PidganError, TrainingError, nearest
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.weights import n_eff
from pidgan.training import families
from pidgan.training.backend import keras, tf
from pidgan.training.budget import (
    TIMED_STEPS,
    parse_duration,
    steps_within,
    time_step,
)
from pidgan.training.checkpoint import (
    CHECKPOINT,
    check_identity,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from pidgan.training.conditions import fit_conditions
from pidgan.training.descents import Descents
from pidgan.training.families.phases import Clock, Phase
from pidgan.training.model import Model
from pidgan.training.networks.updates import held_out_losses
from pidgan.training.patterns import pattern_network, pattern_update
from pidgan.training.rows import device_rows
from pidgan.training.targets import fit_targets, with_images

DEFAULT_BUDGET = 600.0
# Default family for the variables of a track, and for cells.
DEFAULT_FAMILY, DEFAULT_SHOWER_FAMILY = "distilled", "shower_sequence"
# One call of the compiled loop lasts about this long: latency of progress and Ctrl-C.
CHUNK_SECONDS = 1.0
CHECKPOINT_SECONDS = 30.0
# Losses of the validation part, 0.05 s each, are taken about so often.
RECORD_SECONDS = 3.0
# Losses are of order one in normal coordinates; far beyond, a network has diverged.
DIVERGED = 1e4
MIN_TRAINING_ROWS = 50
# From here on compiling with XLA, some seconds a phase, pays.
XLA_SECONDS, XLA_STEPS = 60.0, 2000
# Rows drawn for the losses of the validation part, and numbers in them at most: beyond
# some hundred cells memory counts.
VALIDATION_ROWS, VALIDATION_NUMBERS = 1024, 2**19
# How often in a training the best weights are looked for on the validation part; at
# fixed steps, so that what is kept does not depend on how fast the machine is.
WATCHES = 40
# Stream of random numbers of the noise, apart from that of the batches.
NOISE = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a training, handed to the callback after each chunk of steps.

    Attributes:
        step: Number of steps done.
        steps: Number of steps of the training.
        phase: Name of the running phase.
        losses: Losses by name, averaged over the chunk.
        seconds_left: Estimated time of the steps that are left.
    """

    step: int
    steps: int
    phase: str
    losses: Mapping[str, float]
    seconds_left: float


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
) -> Model:
    """Train a generator on the training part of a dataset.

    Args:
        dataset: Dataset from `build_dataset`.
        family: How the generator is learnt: the name of a family or of a published
            recipe, or a value with its settings, such as
            `pidgan.training.families.WganGp(width=64)`. The default is "distilled", and
            "shower_sequence" for the cells of a calorimeter.
        recipe: Second spelling of `family` for a published recipe, "maevskiy2019".
        budget: Wall-clock time, "10m" or seconds; 10 minutes by default.
        steps: Number of steps instead of a budget; repeats a training exactly on one
            machine.
        seed: Seed of weights, batches and noise.
        settings: Settings by name that differ from the family's defaults; texts become
            numbers where a number is expected.
        directory: Folder of the checkpoints; without it there are none.
        resume: Whether to continue from the checkpoint in `directory`, if there is one.
        progress: Function that is called after about every second of training.

    Returns:
        The model, with averaged generator weights.

    Raises:
        TrainingError: There are too few rows, the training diverges, or the checkpoint
            is of another training.
        PidganError: There is no such family or setting, or a value has another type.
        KeyboardInterrupt: The user interrupts; a checkpoint is written first.
    """
    if budget is not None and steps is not None:
        raise ValueError("give a budget or a number of steps, not both")
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    _make_deterministic(seed)
    chosen = _choose(family, recipe, settings, dataset.sample)
    training = Training(dataset, chosen, seed=seed)
    checkpoint = None if directory is None else Path(directory) / CHECKPOINT
    if resume and checkpoint is not None and checkpoint.is_file():
        training.load(checkpoint)
    elif steps is not None:
        training.choose_xla(steps >= XLA_STEPS)
        training.steps = steps
    else:
        seconds = parse_duration(DEFAULT_BUDGET if budget is None else budget)
        training.choose_xla(seconds >= XLA_SECONDS)
        training.time_steps(seconds)
    training.run(checkpoint, progress)
    return training.finish()


def _choose(
    family: Any, recipe: str | None, settings: Mapping[str, Any] | None, sample: Sample
) -> Any:
    """Return the settings of the family that is asked for, as one value."""
    if recipe is not None:
        if family is not None:
            raise ValueError("give a family or a recipe, not both")
        if recipe not in families.RECIPES:
            raise PidganError(
                f"no recipe {recipe!r}; there is {', '.join(families.RECIPES)}"
                + nearest(recipe, families.RECIPES)
            )
        family = recipe
    if family is None:
        family = DEFAULT_SHOWER_FAMILY if sample.cells else DEFAULT_FAMILY
    if isinstance(family, str):
        return families.parse_settings(family, settings or {})
    if settings:
        raise ValueError(
            "give settings in the value of the family or by name, not both"
        )
    return families.parse_settings(families.name_of(family), dataclasses.asdict(family))


class Training:
    """One training: networks, optimizers, rows on the device, and the step counter.

    Attributes:
        family: Generator and phases.
        descents: Optimizers of the phases that take part.
        step, steps: Number of steps done, and of the whole training.
    """

    def __init__(self, dataset: Dataset, settings: Any, *, seed: int) -> None:
        """Fit the transforms, build the networks and bring the rows to the device.

        Args:
            dataset: Dataset from `build_dataset`.
            settings: Settings of the family, `families.<Name>(...)`.
            seed: Seed of weights, batches and noise.

        Raises:
            TrainingError: There are too few rows, or the family learns other targets.
        """
        self.dataset, self.settings, self.seed = dataset, settings, seed
        self.name = families.name_of(settings)
        self.entry = families.find_entry(self.name)
        self.step, self.steps = 0, 0
        self.loops: dict[Phase, Callable[..., dict[str, tf.Tensor]]] = {}
        self.history: dict[str, list[float]] = {"step": []}
        sample = dataset.sample
        self._check_targets(sample)
        part = dataset.part("train")
        if len(part.weights) < MIN_TRAINING_ROWS:
            raise TrainingError(
                f"the training part has {len(part.weights)} rows, expected at least "
                f"{MIN_TRAINING_ROWS}"
            )
        n_rows = round(n_eff(part.weights))  # mirror images are no rows more
        part = with_images(sample, part)
        self.conditions = fit_conditions(
            part.conditions,
            [variable.transform for variable in sample.conditions],
            categories=[variable.categories for variable in sample.conditions],
        )
        self.targets = fit_targets(
            sample, part, plain=self.entry.published, lines=self.entry.lines
        )
        shape = dataclasses.replace(
            self.targets.shape(sample, n_conditions=self.conditions.n_columns),
            n_rows=n_rows,
        )
        self.family = families.build_family(settings, shape=shape, seed=seed)
        families.warn_outside_ranges(self.name, settings)
        phases = self.family.phases
        self.patterns = None
        if shape.n_patterns:
            self.patterns = pattern_network(shape=shape, seed=seed + 2)
            update = pattern_update(self.patterns)
            phases = tuple(
                dataclasses.replace(phase, updates=(*phase.updates, update))
                for phase in phases
            )
        self.descents = Descents(phases)
        bring = functools.partial(
            device_rows,
            sample=sample,
            conditions=self.conditions,
            targets=self.targets,
            seed=seed,
        )
        self.rows = bring(
            part,
            positive=self.family.needs_positive_weights or bool(shape.n_patterns),
            flatter=not self.entry.published,
        )
        self.validation = bring(dataset.part("validation"))

    @property
    def variables(self) -> list[Any]:
        """All variables that an interrupted training needs, in a fixed order."""
        both = [*self.family.generator.variables, *self.descents.variables]
        return list({id(v): v for v in both}.values())

    def choose_xla(self, pays: bool) -> None:
        """Decide whether steps are compiled with XLA, where the settings leave it."""
        if self.settings.xla is None:
            self.settings = dataclasses.replace(self.settings, xla=pays)

    def time_steps(self, budget: float) -> None:
        """Turn a budget in seconds into a number of steps; weights stay as they are."""
        began = time.perf_counter()
        saved = [v.numpy() for v in self.variables]
        cost = 0.0
        for phase in self.descents.phases:
            loop = self.loops[phase] = self._compile(phase)

            def run(n: int, loop: Callable[..., Any] = loop) -> None:
                _to_floats(loop(*map(tf.constant, (0, n, 0, n, n))))

            cost += phase.share * time_step(run)
        for variable, value in zip(self.variables, saved, strict=True):
            variable.assign(value)
        self.steps = steps_within(budget, began=began, cost=cost)

    def run(
        self, checkpoint: Path | None, progress: Callable[[Progress], None] | None
    ) -> None:
        """Do the steps that are left, with a checkpoint now and then."""
        saved_at, recorded_at = time.perf_counter(), -math.inf
        chunk = TIMED_STEPS
        begin, share = 0, 0.0
        try:
            for phase in self.descents.phases:
                share += phase.share
                end = round(share * self.steps)
                while self.step < end:
                    n = min(chunk, end - self.step, self._until_watch())
                    start = time.perf_counter()
                    losses = self._advance(phase, n, begin, end)
                    self._check(losses, phase, checkpoint)
                    seconds = (time.perf_counter() - start) / n
                    chunk = max(1, min(int(CHUNK_SECONDS / seconds), 4 * chunk))
                    now = time.perf_counter()
                    if self.step == end or now - recorded_at > RECORD_SECONDS:
                        self._record(losses)
                        recorded_at = now
                    if self.step == end or self._until_watch() == self._watch_steps:
                        self._watch(phase)
                    if progress is not None:
                        left = seconds * (self.steps - self.step)
                        progress(
                            Progress(
                                step=self.step,
                                steps=self.steps,
                                phase=phase.name,
                                losses=losses,
                                seconds_left=left,
                            )
                        )
                    if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                        self.save(checkpoint)
                        saved_at = time.perf_counter()
                if begin < end == self.step:
                    self.descents.end(phase)
                begin = end
        except KeyboardInterrupt:
            self.save(checkpoint)
            raise
        self.save(checkpoint)

    def _advance(self, phase: Phase, n: int, begin: int, end: int) -> dict[str, float]:
        """Do some steps of a phase and return the mean losses."""
        if phase not in self.loops:
            self.loops[phase] = self._compile(phase)
        arguments = (self.step, n, begin, end, self.steps)
        losses = _to_floats(self.loops[phase](*map(tf.constant, arguments)))
        self.step += n
        return losses

    def _compile(self, phase: Phase) -> Callable[..., dict[str, tf.Tensor]]:
        """Return a compiled loop over steps of one phase, giving mean losses."""

        # A function of its own is traced once, though the loop below has it twice.
        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def one_step(
            step: tf.Tensor, begin: tf.Tensor, end: tf.Tensor, total: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            seed = tf.stack([tf.constant(self.seed % 2**31), step])
            batch = self.rows.batch(seed, phase.batch_size)
            clock = Clock(step=step, begin=begin, end=end, total=total)
            noise = tf.random.fold_in(seed, NOISE)
            return self.descents.step(phase, batch, noise, clock)

        @tf.function(jit_compile=bool(self.settings.xla))  # type: ignore[untyped-decorator]
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

        compiled: Callable[..., dict[str, tf.Tensor]] = loop
        return compiled

    @property
    def _validation_size(self) -> int:
        """Rows for the losses of the validation part; fewer of what is large."""
        most = VALIDATION_NUMBERS // self.targets.n_targets
        return max(64, min(VALIDATION_ROWS, most))

    @property
    def _watch_steps(self) -> int:
        return max(1, self.steps // WATCHES)

    def _until_watch(self) -> int:
        """Return the steps until the best weights are looked for again."""
        if not self.descents.watches:
            return self.steps
        return self._watch_steps - self.step % self._watch_steps

    def _watch(self, phase: Phase) -> None:
        if self.descents.watches:
            batch = self.validation.first(self._validation_size)
            self.descents.watch(phase, batch, self._validation_seed)

    @property
    def _validation_seed(self) -> tf.Tensor:
        return tf.constant([self.seed % 2**31, -1])

    def _record(self, losses: Mapping[str, float]) -> None:
        """Append losses, and those of the validation part, to the history."""
        seed = self._validation_seed
        batch = self.validation.batch(seed, self._validation_size)
        if self.family.losses is not None:
            found = self.family.losses(batch, seed)
        else:
            found = held_out_losses(
                self.family.generator, batch, n_noise=self.family.n_noise, seed=seed
            )
        now = {**losses, **{f"validation_{k}": float(v) for k, v in found.items()}}
        self.history["step"].append(self.step)
        for key in {*now, *self.history} - {"step"}:
            past = self.history.setdefault(
                key, [math.nan] * (len(self.history["step"]) - 1)
            )
            past.append(now.get(key, math.nan))

    def _check(
        self, losses: Mapping[str, float], phase: Phase, checkpoint: Path | None
    ) -> None:
        # A published recipe, without penalty at the beginning, may come back from afar.
        limit = math.inf if self.entry.published else DIVERGED
        bad = {k: v for k, v in losses.items() if not abs(v) < limit}
        if bad:
            name, value = next(iter(bad.items()))
            kept = f"; the checkpoint {checkpoint} is from before" if checkpoint else ""
            raise TrainingError(
                f"training diverged in phase '{phase.name}' near step {self.step}: "
                f"loss '{name}' is {value:.3g}; lower the learning rates or raise the "
                f"batch size{kept}"
            )

    def _check_targets(self, sample: Sample) -> None:
        """Refuse a family of tracks for showers, and the other way round."""
        kind = "cells" if sample.cells else "variables"
        if self.entry.targets == kind:
            return
        known = [name for name, e in families.TABLE.items() if e.targets == kind]
        raise TrainingError(
            f"sample {sample.name!r} has {kind}, which family {self.name!r} is not "
            f"for; expected one of {', '.join(known)}"
        )

    def save(self, checkpoint: Path | None) -> None:
        """Write a checkpoint, if there is a place for it."""
        state = {**self._identity(), "step": self.step, "steps": self.steps}
        state["history"] = self.history
        save_checkpoint(checkpoint, state, self.variables)

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint of the same training."""
        state, arrays = read_checkpoint(checkpoint)
        self.choose_xla(bool(state.get("settings", {}).get("xla")))
        check_identity(checkpoint, state, self._identity())
        restore(self.variables, arrays)
        self.step, self.steps = state["step"], state["steps"]
        self.history = state["history"]

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a checkpoint to be continued."""
        return {
            "dataset": self.dataset.info["hash"],
            "family": self.name,
            "settings": dataclasses.asdict(self.settings),
            "seed": self.seed,
        }

    def finish(self) -> Model:
        """Return the model of the generator as it is now."""
        sample = self.dataset.sample
        card = Card(
            detector=sample.detector,
            species=sample.species,
            conditions=describe_variables(sample.conditions, self.dataset.conditions),
            targets=describe_variables(sample.targets, self.dataset.targets),
            n_noise=self.family.n_noise + (1 if self.patterns else 0),
            sample=sample,
            dataset=dict(self.dataset.info),
            family=self.name,
            settings=dataclasses.asdict(self.settings),
            seed=self.seed,
            steps=self.steps,
            versions={
                name: importlib.metadata.version(name)
                for name in ("pidgan", "keras", "tensorflow", "numpy")
            },
        )
        return Model(
            card=card,
            conditions=self.conditions,
            targets=self.targets,
            generator=self.family.generator,
            patterns=self.patterns,
            history=self.history,
            held_out=self.dataset.frame("test"),
        )


def _make_deterministic(seed: int) -> None:
    keras.utils.set_random_seed(seed % 2**31)
    tf.config.experimental.enable_op_determinism()


def _to_floats(losses: Mapping[str, tf.Tensor]) -> dict[str, float]:
    return {key: float(value) for key, value in losses.items()}
