"""The one training loop: batches, phases, checkpoints, resume and history.

A family brings the updates; the loop brings the rows and the randomness. Rows and
noise of step i are functions of (seed, i) alone, so that an interrupted training
continues to the same result. A wall-clock budget becomes a number of steps after a
short timing, so that `steps` repeats it.
"""

import dataclasses
import importlib.metadata
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.bundle.card import Card, describe_variables
from pidgan.errors import PidganError, PidganWarning, TrainingError, nearest
from pidgan.files.tables import read_arrays
from pidgan.files.writing import writing_file
from pidgan.sample.dataset import Dataset, Part
from pidgan.sample.definition import Sample
from pidgan.sample.weights import n_eff, positive_weights, with_differences
from pidgan.training.backend import keras, tf
from pidgan.training.budget import parse_duration
from pidgan.training.conditions import ConditionTransform, fit_conditions
from pidgan.training.families import (
    FAMILIES,
    RECIPES,
    SEQUENCES,
    SHOWER_FAMILIES,
    Family,
    Watchful,
    make_family,
)
from pidgan.training.model import Model
from pidgan.training.networks.updates import cosine
from pidgan.training.patterns import PatternClassifier
from pidgan.training.row_choice import flatter_draws
from pidgan.training.targets import Targets, fit_targets, with_images

DEFAULT_BUDGET = 600.0
DEFAULT_FAMILY, DEFAULT_SHOWER_FAMILY = "cramer", "shower_sequence"
# The rate falls to this share of its start, so that the averaged weights settle.
FINAL_RATE = 0.01
# One call of the compiled loop lasts about this long: latency of progress and Ctrl-C.
CHUNK_SECONDS = 1.0
TIMED_STEPS = 20
# A budget that leaves fewer steps than these is worth a warning.
FEW_STEPS = 100
TIMED_SECONDS = 1.5
CHECKPOINT_SECONDS = 30.0
# Losses of the validation part, 0.05 s each, are taken about so often.
RECORD_SECONDS = 3.0
# Losses are of order one in normal coordinates; far beyond, a network has diverged.
DIVERGED = 1e4
MIN_TRAINING_ROWS = 50
# From here on compiling with XLA, some seconds a phase, pays.
XLA_SECONDS, XLA_STEPS = 60.0, 2000
# Rows drawn for the losses of the validation part.
VALIDATION_ROWS = 1024
# And as many numbers in them: beyond some hundred cells memory counts.
VALIDATION_NUMBERS = 2**19
# How often in a training a family that wants to is shown that part; at fixed steps, so
# that what it keeps does not depend on how fast the machine is.
WATCHES = 40
# Stream of random numbers of the noise, apart from that of the batches.
NOISE = 1
# Stream of the uniform numbers that smear conditions of whole numbers.
SMEAR = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a training, handed to the callback after each chunk of steps.

    Attributes:
        step, steps: done and wanted.
        phase: name of the running phase.
        losses: by name, averaged over the chunk.
        seconds_left: estimate for the rest.
    """

    step: int
    steps: int
    phase: str
    losses: Mapping[str, float]
    seconds_left: float


def train(
    dataset: Dataset,
    *,
    family: str | None = None,
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
        dataset: from `build_dataset`.
        family: how the generator is learnt, see `pidgan.training.families`; "cramer" by
            default, "shower_sequence" for the cells of a calorimeter.
        recipe: a published way instead of a family, "maevskiy2019".
        budget: wall-clock time, "10m" or seconds; 10 minutes by default.
        steps: number of updates instead of a budget; repeats a training exactly on
            one machine.
        seed: of weights, batches and noise.
        settings: overrides of the family's settings.
        directory: where checkpoints go; without it there are none.
        resume: continue from the checkpoint in `directory`, if there is one.
        progress: called after about every second of training.

    Returns:
        The model, with averaged generator weights.

    Raises:
        TrainingError: too few rows, divergence, or a checkpoint of another training.
        KeyboardInterrupt: as given by the user; a checkpoint is written first.
    """
    if budget is not None and steps is not None:
        raise ValueError("give a budget or a number of steps, not both")
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    _make_deterministic(seed)
    name = _family_name(family, recipe, dataset.sample)
    run = _Run(dataset, family=name, settings=settings or {}, seed=seed)
    checkpoint = None if directory is None else Path(directory) / "checkpoint.npz"
    if resume and checkpoint is not None and checkpoint.is_file():
        run.load(checkpoint)
    elif steps is not None:
        run.choose_xla(steps >= XLA_STEPS)
        run.steps = steps
    else:
        seconds = parse_duration(DEFAULT_BUDGET if budget is None else budget)
        run.choose_xla(seconds >= XLA_SECONDS)
        run.time_steps(seconds)
    run.play(checkpoint, progress)
    return run.finish()


def _family_name(family: str | None, recipe: str | None, sample: Sample) -> str:
    """Return what `make_family` takes for a family or a recipe."""
    if recipe is None:
        default = DEFAULT_SHOWER_FAMILY if sample.cells else DEFAULT_FAMILY
        chosen = default if family is None else family
        if chosen in RECIPES:
            raise PidganError(f"{chosen!r} is a recipe, not a family")
        return chosen
    if family is not None:
        raise ValueError("give a family or a recipe, not both")
    if recipe not in RECIPES:
        raise PidganError(
            f"no recipe {recipe!r}; there is {', '.join(RECIPES)}"
            + nearest(recipe, RECIPES)
        )
    return recipe


class _Run:
    """One training: data on the device, networks, and the step counter."""

    def __init__(
        self, dataset: Dataset, *, family: str, settings: Mapping[str, Any], seed: int
    ) -> None:
        self.dataset, self.seed, self.family_name = dataset, seed, family
        self.step, self.steps = 0, 0
        self.loops: dict[str, Callable[..., dict[str, tf.Tensor]]] = {}
        self.history: dict[str, list[float]] = {"step": []}
        _check_family(family, dataset.sample)
        train_part = dataset.part("train")
        n_rows = round(n_eff(train_part.weights))
        train_part = with_images(dataset.sample, train_part)
        self.conditions, self.targets = _fit_transforms(
            dataset.sample,
            train_part,
            only_columns=family in RECIPES,
            lines=family in SEQUENCES,
        )
        shape = dataclasses.replace(
            self.targets.shape(dataset.sample, n_conditions=self.conditions.n_columns),
            n_rows=n_rows,
        )
        self.family: Family = make_family(
            family, shape=shape, settings=settings, seed=seed
        )
        self.classifier = (
            PatternClassifier(shape=shape, seed=seed + 2) if shape.n_patterns else None
        )
        self.settings = dataclasses.asdict(self.family.settings)
        self.rows = self._to_device(train_part)
        needed = self.family.needs_positive_weights or self.classifier
        if needed and self.targets.has_signed_weights:
            positive = self._positive_weights(train_part)
            self.rows["positive_w"] = positive
        self.draws = None
        if self.targets.has_flatter_rows and family not in RECIPES:
            draws = flatter_draws(self.rows["x"].numpy(), self.conditions.dimension)
            self.draws = tf.constant(draws)
        self.validation_rows = self._to_device(dataset.part("validation"))

    @property
    def variables(self) -> list[Any]:
        extra = self.classifier.variables if self.classifier else []
        return [*self.family.variables, *extra]

    def _to_device(self, part: Part) -> dict[str, tf.Tensor]:
        """Return the rows of a part in network coordinates."""
        kept, found = self.targets.rows(part)
        weights = part.weights[kept]
        return {
            "x": tf.constant(self._columns(part.conditions[kept])),
            "w": tf.constant(weights / weights.mean(), dtype=tf.float32),
            **{name: tf.constant(values) for name, values in found.items()},
        }

    def _columns(self, conditions: np.ndarray) -> np.ndarray:
        """Return the conditions as networks see them, smeared where asked for."""
        smeared = [variable.smear for variable in self.dataset.sample.conditions]
        x = conditions.copy()
        rng = np.random.default_rng([self.seed, SMEAR])
        x[:, smeared] += rng.uniform(-0.5, 0.5, (len(x), sum(smeared)))
        return self.conditions.forward(x)

    def _positive_weights(self, part: Part) -> tf.Tensor:
        """Return E[w | x, y] >= 0 of the rows, of mean 1: a likelihood needs it."""
        fits, _ = self.targets.rows(part)
        features = with_differences(part.conditions[fits], part.targets[fits])
        weights = positive_weights(features, part.weights[fits], self.seed)
        return tf.constant(weights / weights.mean(), dtype=tf.float32)

    def _batch(
        self,
        rows: dict[str, tf.Tensor],
        seed: tf.Tensor,
        size: int,
        draws: Any = None,
    ) -> dict[str, Any]:
        """Draw rows with replacement; patterns become one-hot codes."""
        n = (rows["w"] if draws is None else draws).shape[0]
        index = tf.random.stateless_uniform((size,), seed, maxval=n, dtype=tf.int32)
        if draws is not None:
            index = tf.gather(draws, index)
        batch = {key: tf.gather(value, index) for key, value in rows.items()}
        n_patterns = self.targets.n_patterns
        if "free" not in batch:
            free = tf.constant(self.targets.free)
            batch["free"] = tf.gather(free, batch["pattern"])
        one_hot = tf.one_hot(batch["pattern"], n_patterns)
        batch["pattern"] = one_hot if n_patterns > 1 else one_hot[:, :0]
        return batch

    def _compile(self, phase: str) -> Callable[..., dict[str, tf.Tensor]]:
        """Return a compiled loop over steps of one phase, giving mean losses."""

        size = self.family.batch_sizes[phase]

        # A function of its own is traced once, though the loop below has it twice.
        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def one_step(
            step: tf.Tensor, begin: tf.Tensor, end: tf.Tensor, total: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            seed = tf.stack([tf.constant(self.seed % 2**31), step])
            batch = self._batch(self.rows, seed, size, self.draws)
            rate = cosine(step - begin, end - begin, final=FINAL_RATE)
            noise = tf.random.fold_in(seed, NOISE)
            losses = self.family.step(batch, phase=phase, seed=noise, rate=rate)
            if self.classifier:
                losses["patterns"] = self.classifier.step(
                    batch, rate=cosine(step, total, final=FINAL_RATE)
                )
            return losses

        @tf.function(jit_compile=bool(self.settings["xla"]))  # type: ignore[untyped-decorator]
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

    def _phases(self) -> list[tuple[str, int]]:
        """Return each phase that takes part, with the step at which it ends."""
        ends, share = [], 0.0
        for phase, part in self.family.phases.items():
            share += part
            if part > 0:
                ends.append((phase, round(share * self.steps)))
        return ends

    def choose_xla(self, pays: bool) -> None:
        """Decide whether steps are compiled with XLA, where the settings leave it."""
        if self.settings["xla"] is None:
            self.settings["xla"] = pays

    def time_steps(self, budget: float) -> None:
        """Turn a budget into a number of steps; the weights stay as they are."""
        began = time.perf_counter()
        saved = [v.numpy() for v in self.variables]
        cost = 0.0
        for phase, share in self.family.phases.items():
            if share > 0:
                loop = self.loops[phase] = self._compile(phase)
                _time(loop, TIMED_STEPS)  # traces and compiles
                seconds = _time(loop, TIMED_STEPS)
                cost += share * _time(loop, max(1, int(TIMED_SECONDS / seconds)))
        for variable, value in zip(self.variables, saved, strict=True):
            variable.assign(value)
        left = budget - (time.perf_counter() - began)
        self.steps = max(1, int(left / cost))
        if self.steps < FEW_STEPS:
            warnings.warn(
                f"the budget of {budget:.0f} s leaves {self.steps} steps after "
                f"compiling, which took {budget - left:.0f} s: the generator will be "
                "poor; give a longer budget",
                PidganWarning,
                stacklevel=3,
            )

    def play(
        self, checkpoint: Path | None, progress: Callable[[Progress], None] | None
    ) -> None:
        """Do the steps that are left, with a checkpoint now and then."""
        saved_at = time.perf_counter()
        recorded_at = -math.inf
        chunk = TIMED_STEPS
        begin = 0
        try:
            for phase, end in self._phases():
                while self.step < end:
                    if phase not in self.loops:
                        self.loops[phase] = self._compile(phase)
                    loop = self.loops[phase]
                    n = min(chunk, end - self.step, self._until_watch())
                    start = time.perf_counter()
                    arguments = (self.step, n, begin, end, self.steps)
                    losses = _to_floats(loop(*map(tf.constant, arguments)))
                    self._check(losses, phase, checkpoint)
                    self.step += n
                    seconds = (time.perf_counter() - start) / n
                    chunk = max(1, min(int(CHUNK_SECONDS / seconds), 4 * chunk))
                    now = time.perf_counter()
                    if self.step == end or now - recorded_at > RECORD_SECONDS:
                        self._record(losses)
                        recorded_at = now
                    if self.step == end or self._until_watch() == self._watch_steps:
                        self._watch()
                    if progress is not None:
                        left = seconds * (self.steps - self.step)
                        progress(
                            Progress(
                                step=self.step,
                                steps=self.steps,
                                phase=phase,
                                losses=losses,
                                seconds_left=left,
                            )
                        )
                    if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                        self.save(checkpoint)
                        saved_at = time.perf_counter()
                if begin < end == self.step:
                    self.family.end(phase)
                begin = end
        except KeyboardInterrupt:
            self.save(checkpoint)
            raise
        self.save(checkpoint)

    @property
    def _validation_size(self) -> int:
        """Rows for the losses of the validation part; fewer of what is large."""
        return max(
            64, min(VALIDATION_ROWS, VALIDATION_NUMBERS // self.targets.n_targets)
        )

    @property
    def _watch_steps(self) -> int:
        return max(1, self.steps // WATCHES)

    def _until_watch(self) -> int:
        """Return the steps until the family is shown the validation part again."""
        if not isinstance(self.family, Watchful):
            return self.steps
        return self._watch_steps - self.step % self._watch_steps

    def _watch(self) -> None:
        if isinstance(self.family, Watchful):
            rows = self.validation_rows.items()
            batch = {key: value[: self._validation_size] for key, value in rows}
            self.family.watch(batch, seed=tf.constant([self.seed % 2**31, -1]))

    def _record(self, losses: Mapping[str, float]) -> None:
        """Append losses, and those of the validation part, to the history."""
        seed = tf.constant([self.seed % 2**31, -1])
        batch = self._batch(self.validation_rows, seed, self._validation_size)
        validation = self.family.losses(batch, seed=seed)
        now = {**losses, **{f"validation_{k}": float(v) for k, v in validation.items()}}
        self.history["step"].append(self.step)
        for key in {*now, *self.history} - {"step"}:
            past = self.history.setdefault(
                key, [math.nan] * (len(self.history["step"]) - 1)
            )
            past.append(now.get(key, math.nan))

    def _check(
        self, losses: Mapping[str, float], phase: str, checkpoint: Path | None
    ) -> None:
        # A published recipe, without penalty at the beginning, may come back from afar.
        limit = math.inf if self.family_name in RECIPES else DIVERGED
        bad = {k: v for k, v in losses.items() if not abs(v) < limit}
        if bad:
            name, value = next(iter(bad.items()))
            kept = f"; the checkpoint {checkpoint} is from before" if checkpoint else ""
            raise TrainingError(
                f"training diverged in phase '{phase}' near step {self.step}: loss "
                f"'{name}' is {value:.3g}; lower the learning rates or raise the "
                f"batch size{kept}"
            )

    def save(self, checkpoint: Path | None) -> None:
        """Write a checkpoint, replacing the last one in one step."""
        if checkpoint is None:
            return
        arrays = {f"v{i}": v.numpy() for i, v in enumerate(self.variables)}
        state = {**self._identity(), "step": self.step, "steps": self.steps}
        state["history"] = self.history
        with writing_file(checkpoint, overwrite=True) as temporary:
            np.savez(temporary, state=np.array(json.dumps(state)), **arrays)

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint of the same training."""
        try:
            arrays = read_arrays(checkpoint)
            state = json.loads(str(arrays.pop("state")))
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{checkpoint} is damaged ({error})") from error
        self.choose_xla(bool(state.get("settings", {}).get("xla")))
        for key, mine in self._identity().items():
            if state.get(key) != mine:
                raise TrainingError(
                    f"{checkpoint} is of another training: {key} was "
                    f"{state.get(key)!r}, now {mine!r}"
                )
        for i, variable in enumerate(self.variables):
            variable.assign(arrays[f"v{i}"])
        self.step, self.steps = state["step"], state["steps"]
        self.history = state["history"]

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a checkpoint to be continued."""
        return {
            "dataset": self.dataset.info["hash"],
            "family": self.family_name,
            "settings": self.settings,
            "seed": self.seed,
        }

    def finish(self) -> Model:
        """Take the averaged weights and return the model."""
        n_noise = self.family.n_noise + (1 if self.classifier else 0)
        sample = self.dataset.sample
        held_out = self.dataset.frame("test")
        card = Card(
            detector=sample.detector,
            species=sample.species,
            conditions=describe_variables(sample.conditions, self.dataset.conditions),
            targets=describe_variables(sample.targets, self.dataset.targets),
            n_noise=n_noise,
            sample=sample,
            dataset=dict(self.dataset.info),
            family=self.family_name,
            settings=self.settings,
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
            patterns=self.classifier.network if self.classifier else None,
            history=self.history,
            held_out=held_out,
        )


def _make_deterministic(seed: int) -> None:
    keras.utils.set_random_seed(seed % 2**31)
    tf.config.experimental.enable_op_determinism()


def _check_family(family: str, sample: Sample) -> None:
    """Refuse a family of tracks for showers, and the other way round."""
    if bool(sample.cells) == (family in SHOWER_FAMILIES):
        return
    kind, known = "targets", (*FAMILIES, *RECIPES)
    if sample.cells:
        kind, known = "cells", SHOWER_FAMILIES
    if family in (*FAMILIES, *RECIPES, *SHOWER_FAMILIES):
        raise TrainingError(
            f"sample {sample.name!r} has {kind}, which family {family!r} is not for; "
            f"expected one of {', '.join(known)}"
        )


def _fit_transforms(
    sample: Sample, part: Part, *, only_columns: bool, lines: bool
) -> tuple[ConditionTransform, Targets]:
    if len(part.weights) < MIN_TRAINING_ROWS:
        raise TrainingError(
            f"the training part has {len(part.weights)} rows, expected at least "
            f"{MIN_TRAINING_ROWS}"
        )
    conditions = fit_conditions(
        part.conditions,
        [variable.transform for variable in sample.conditions],
        categories=[variable.categories for variable in sample.conditions],
    )
    targets = fit_targets(sample, part, plain=only_columns, lines=lines)
    return conditions, targets


def _time(loop: Callable[..., dict[str, tf.Tensor]], steps: int) -> float:
    """Return the seconds that one of some steps takes."""
    start = time.perf_counter()
    _to_floats(loop(*map(tf.constant, (0, steps, 0, steps, steps))))
    return (time.perf_counter() - start) / steps


def _to_floats(losses: Mapping[str, tf.Tensor]) -> dict[str, float]:
    return {key: float(value) for key, value in losses.items()}
