"""The one training loop: phases, optimizers, checkpoints, resume and history.

A family brings losses and phases; the loop brings rows, optimizers and randomness.
Rows and noise of step i are functions of (seed, i) alone, so that an interrupted
training continues to the same result. A wall-clock budget becomes a number of steps
after a short timing, which the clock corrects on the way (`pidgan.training.pace`).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pidgan.arguments import checked
from pidgan.progress import training_progress
from pidgan.sample.dataset import Dataset
from pidgan.sample.sampling import in_memory
from pidgan.training import families
from pidgan.training.allocator import kept_memory
from pidgan.training.backend import keras, tf
from pidgan.training.budget import Budget, Duration, default_budget, length
from pidgan.training.callbacks import Callbacks, check_callbacks
from pidgan.training.chain import Chain, Length, train_links
from pidgan.training.checkpoint import check_length
from pidgan.training.course import Training
from pidgan.training.feed import WHOLE_ROWS
from pidgan.training.model import Model
from pidgan.training.pace import Pace
from pidgan.training.record import Progress
from pidgan.training.setup import Transforms, choose_family, set_up
from pidgan.training.several import train_in_processes
from pidgan.training.start import most_steps, starts_of
from pidgan.training.together import together

CHECKPOINT = "checkpoint.npz"
# Shortest training that is compiled with XLA, which takes some seconds a phase.
XLA_SECONDS, XLA_STEPS = 60.0, 2000


@checked
def train(
    dataset: Dataset | str | Path,
    *,
    family: Any = None,
    recipe: str | None = None,
    budget: str | float | None = None,
    steps: int | str | None = None,
    seed: int = 1,
    settings: Mapping[str, Any] | str | Path | None = None,
    directory: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | bool | None = True,
    callbacks: Sequence[Any] = (),
    from_model: str | Path | Model | Chain | None = None,
    processes: int | None = None,
) -> Model | Chain:
    """Train a generator on the training part of a dataset.

    Args:
        dataset: Dataset from `build_dataset`, or its folder.
        family: How the generator is learnt: the name of a family or of a published
            recipe, or a value with its settings, such as
            `pidgan.training.families.WganGp(width=64)`. The default is "distilled"; for
            cells "shower_sequence", or "shower_tree" for the voxels of hadrons.
        recipe: Second spelling of `family` for a published recipe, "maevskiy2019".
        budget: Wall-clock time, "10m" or seconds; 10 minutes by default. It is kept
            also where the machine becomes slower or faster. "10m cpu" is time of the
            processor, summed over threads, which other processes do not use up.
        steps: Number of training steps instead of a budget; it repeats a training
            exactly on one machine. A card with a `plan` is of a budget whose number of
            steps was corrected on the way; the text of the plan repeats it. Family
            cramer adds its shares `warm` and `play` on top.
        seed: Seed of weights, batches and noise.
        settings: Settings by name that differ from the family's defaults, texts or
            numbers; or a TOML file of them, which names the family too, as of `tune`.
        directory: Folder of the checkpoints; without it there are none. The links of a
            chain have a folder each in it.
        resume: Whether to continue from the checkpoint in `directory`, if there is one,
            to its own number of steps or what is left of its budget; a `steps` or
            `budget` that differs is an error.
        progress: Whether a bar, or lines of a log, are shown; or a function that is
            called when a phase begins, and after about every second of training.
        callbacks: Callbacks of keras, such as `keras.callbacks.CSVLogger("l.csv")` or
            `TensorBoard`, and functions of a step and its losses by name. They are
            told of the losses whenever these are compared on rows not trained on.
        from_model: Model of a neighbouring sample, or its folder, whose weights the
            training begins with. Family and settings are those of the start, and the
            default budget is a fifth.
        processes: Number of processes on this machine that share the rows of each step.
            The losses are those of one process, up to the order of float32 sums. It
            pays for large batches and networks, such as those of showers.

    Returns:
        The model, with the averaged weights or the last ones, whichever are better on
        rows that are not trained on. Its history holds the losses of these weights, as
        "validation_NAME", beside those of the training. A chain for a sample with
        links, which are trained in turn and share the budget or the steps.

    Raises:
        TrainingError: There are too few rows, the training diverges, or the checkpoint
            belongs to another training.
        PidganError: There is no such family or setting, or a value has another type.
        KeyboardInterrupt: The user interrupts; a checkpoint is written first.

    Example:
        >>> model = train(dataset, budget="20m", seed=1)          # doctest: +SKIP
        >>> model.save("kaon-model")                              # doctest: +SKIP
    """
    given: dict[str, Any]
    place, dataset = dataset, Dataset.open(dataset)
    check_callbacks(callbacks, dataset.sample)
    own: Any = {"seed": seed, "directory": directory, "resume": resume}
    shared = max(processes or 1, together().size)
    if shared > 1:
        if from_model is not None:
            raise ValueError(
                f"give from_model or {shared} processes, not both: a training from a "
                "start is short"
            )
        given = {"family": None, "settings": {}}
        if not dataset.sample.links:
            chosen = choose_family(family, recipe, settings, dataset)
            given["family"] = families.name_of(chosen)
            given["settings"] = dataclasses.asdict(chosen)
        families.check_shared(**given, sample=dataset.sample, processes=shared)
    if shared > together().size:
        given |= {"budget": budget, "steps": steps, "progress": progress, **own}
        return train_in_processes(place, shared, callbacks=callbacks, **given)
    begun = None if from_model is None else starts_of(from_model, dataset.sample)
    with training_progress(progress) as show:
        if dataset.sample.links:
            dataset = in_memory(dataset, WHOLE_ROWS, seed=seed, what="a chain")
            own["directory"] = None if directory is None else Path(directory)
            given = {"family": family, "recipe": recipe, "settings": settings}
            return train_links(
                functools.partial(train, **given),
                dataset,
                length=Length.of(budget, steps, links=len(dataset.sample.links)),
                default=Length(budget=default_budget(from_model)),
                starts=begun,
                progress=show,
                **own,
            )
        duration, pace = length(budget, steps)
        first = None if begun is None else begun[0]
        chosen = choose_family(family, recipe, settings, dataset, start=first)
        lengths: Any = {"budget": duration, "pace": pace, "start": first}
        return run_training(
            dataset, chosen, progress=show, callbacks=callbacks, **lengths, **own
        )


@kept_memory()
def run_training(
    dataset: Dataset,
    chosen: Any,
    *,
    budget: Duration | None,
    pace: Pace | None,
    seed: int,
    directory: str | Path | None,
    resume: bool,
    progress: Callable[[Progress], None] | None,
    begin: Pace | None = None,
    callbacks: Sequence[Any] = (),
    transforms: Transforms | None = None,
    start: Model | None = None,
) -> Model:
    """Train a family, given as a value, as `train` does.

    A training with a budget begins at the pace `begin`, if one is given. Transforms
    that are given are not fitted to the dataset.
    """
    these = together()
    now = these.timed(Budget(budget or default_budget(start)))
    keras.utils.set_random_seed(seed % 2**31)
    tf.config.experimental.enable_op_determinism()
    known: dict[str, Any] = {"transforms": transforms, "start": start}
    training = Training(set_up(dataset, chosen, seed=seed, **known), these)
    now.most = math.inf if start is None else most_steps(training.setup.phases, dataset)
    checkpoint = None if directory is None else Path(directory) / CHECKPOINT
    old = checkpoint if resume and checkpoint and checkpoint.is_file() else None
    if old is not None:
        training.load(old)
    # Before anything that takes long, or that the processes do together.
    these.check(training.facts(now.duration if pace is None else pace))
    if old is not None:
        check_length(old, (training.pace, training.budget), wanted=(pace, budget))
        if training.budget is not None and training.step < training.last_step:
            rest = these.timed(now.after(training.budget))
            training.follow(rest, pace=training.pace)
            training.correct()
    elif pace is not None:
        pace.check(sum(phase.share for phase in training.descents.phases))
        training.choose_xla(pace.steps >= XLA_STEPS)
        training.pace = pace
    else:
        training.choose_xla(now.seconds >= XLA_SECONDS)
        training.follow(now, pace=begin)
    shown = progress if these.leads else None
    training.run(checkpoint, shown, Callbacks(callbacks if these.leads else ()))
    return training.model()
