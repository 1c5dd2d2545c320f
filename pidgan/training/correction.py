"""Training of a corrector from a dataset of data and one of simulation.

Both are built by `build_dataset` with the same conditions and targets. Simulation needs
no sWeights; where weights of either are negative, E[w | x, y] takes their place, as a
likelihood has no bound otherwise (arXiv:1905.11719).
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.bundle.card import SIMULATED, describe_variables
from pidgan.errors import TrainingError, nearest
from pidgan.progress import training_progress
from pidgan.sample.dataset import Dataset, Part
from pidgan.sample.sampling import in_memory
from pidgan.training import targets as kinds
from pidgan.training.budget import default_budget, length
from pidgan.training.corrector import Corrector
from pidgan.training.families import parse_settings
from pidgan.training.feed import WHOLE_ROWS
from pidgan.training.loop import run_training
from pidgan.training.record import Progress
from pidgan.training.setup import MIN_TRAINING_ROWS, Transforms, fit_sample_conditions

FAMILY = "flow"
"""Family of both models: a density that can be followed in both directions."""

# Difference of the seeds of the two trainings.
SEED_STEP = 10


@checked
def train_corrector(
    dataset: Dataset | str | Path,
    simulated: Dataset | str | Path,
    *,
    budget: str | float | None = None,
    steps: int | None = None,
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
    directory: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | bool | None = True,
) -> Corrector:
    """Train a corrector of simulated targets on a dataset of each.

    Args:
        dataset: Dataset of data, or its folder.
        simulated: Dataset of simulation with the same conditions and targets, in the
            same order, or its folder. It needs no background and no sWeights.
        budget: Wall-clock time, "10m" or seconds, of which each training gets half; 10
            minutes by default.
        steps: Number of steps of each training, instead of a budget; it repeats a
            training exactly on one machine.
        seed: Seed of weights and batches.
        settings: Settings of family "flow" by name that differ from its defaults.
        directory: Folder of the checkpoints; without it there are none.
        resume: Whether to continue from the checkpoints in `directory`.
        progress: Whether a bar, or lines of a log, are shown; or a function that is
            called with the progress.

    Returns:
        The corrector, for `export_bundle`.

    Raises:
        TrainingError: The datasets do not fit together, have too few rows, or targets
            that cannot be corrected; or a training diverges.
        PidganError: There is no such setting.

    Example:
        >>> model = train_corrector("kaon", "kaon-mc", budget="20m")  # doctest: +SKIP
        >>> export_bundle(model, "kaon-corrector.onnx")               # doctest: +SKIP
    """
    data, simulation = Dataset.open(dataset), Dataset.open(simulated)
    check_pair(data, simulation)
    data, simulation = (
        in_memory(one, WHOLE_ROWS, seed=seed, what="a corrector")
        for one in (data, simulation)
    )
    whole, pace = length(budget, steps)
    chosen = parse_settings(FAMILY, settings or {})
    parts = {"simulation": simulation, "data": data}
    transforms = fit_transforms(data, simulation)
    half = None if pace else (whole or default_budget(None)).part(1 / 2)
    models = {}
    with training_progress(progress) as show:
        for k, (name, dataset) in enumerate(parts.items()):
            folder = None if directory is None else Path(directory) / f"{name}-training"
            models[name] = run_training(
                dataset,
                chosen,
                budget=half,
                pace=pace,
                seed=seed + k * SEED_STEP,
                directory=folder,
                resume=resume,
                progress=_named(show, name),
                transforms=transforms,
            )
    return join(data, simulation, models["data"], models["simulation"])


def check_pair(data: Dataset, simulation: Dataset) -> None:
    """Raise a TrainingError unless two datasets are of the same quantities."""
    if data.info["hash"] == simulation.info["hash"]:
        raise TrainingError(
            "data and simulation are the same dataset: there is nothing to correct"
        )
    own, other = data.sample, simulation.sample
    for sample in (own, other):
        if sample.cells is not None or sample.clusters is not None:
            raise TrainingError(
                f"sample {sample.name!r} has cells or clusters, expected PID variables "
                "of a track to correct"
            )
        if sample.links:
            raise TrainingError(
                f"sample {sample.name!r} is a chain, which has no corrector; train one "
                "for a definition without `after`"
            )
    for kind in ("detector", "species"):
        mine, its = getattr(own, kind), getattr(other, kind)
        if mine != its:
            raise TrainingError(
                f"the simulation {other.name!r} has {kind} {its!r}, expected {mine!r} "
                f"as the data {own.name!r}"
            )
    for kind in ("conditions", "targets"):
        mine, its = ({v.name: v for v in getattr(s, kind)} for s in (own, other))
        for name in mine:
            if name not in its:
                raise TrainingError(
                    f"the simulation {other.name!r} has none of the {kind} {name!r}, "
                    f"which the data {own.name!r} have{nearest(name, its)}"
                )
        if list(mine) != list(its):
            raise TrainingError(
                f"the simulation {other.name!r} has the {kind} {', '.join(its)}, "
                f"expected {', '.join(mine)} as the data {own.name!r}, in this order"
            )
        for name, variable in mine.items():
            for key in ("package_unit", "sentinels", "categories", "transform"):
                wanted, got = getattr(variable, key), getattr(its[name], key)
                if wanted != got:
                    raise TrainingError(
                        f"{name} has {key} {got!r} in the simulation {other.name!r}, "
                        f"expected {wanted!r} as in the data {own.name!r}"
                    )
    for dataset in (data, simulation):
        n = len(dataset.part("train").weights)
        if n < MIN_TRAINING_ROWS:
            raise TrainingError(
                f"the training part of {dataset.sample.name!r} has {n} rows, expected "
                f"at least {MIN_TRAINING_ROWS}"
            )


def fit_transforms(data: Dataset, simulation: Dataset) -> Transforms:
    """Fit conditions and targets to the training rows of both, each with half a say."""
    sample = data.sample
    parts = [dataset.part("train") for dataset in (data, simulation)]
    # Shares of atoms and quantiles are those of the mean of both.
    weights = [part.weights / part.weights.sum() for part in parts]
    names = ("conditions", "targets")
    both = {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
    joined = Part(
        **both,
        weights=np.concatenate(weights) * len(both["targets"]),
        alternatives=np.zeros((len(both["targets"]), 0)),
    )
    targets = kinds.fit_common_targets(sample, joined)
    if targets.grids is not None:
        on_grid = targets.grids.is_coded
        listed = [n for n, g in zip(sample.target_names, on_grid, strict=True) if g]
        raise TrainingError(
            f"targets on a grid cannot be corrected: {', '.join(listed)}; leave them "
            "out, or declare their values as `categories`"
        )
    conditions = fit_sample_conditions(sample, joined)
    return Transforms(conditions=conditions, targets=targets)


def join(
    data: Dataset, simulation: Dataset, of_data: Any, of_simulation: Any
) -> Corrector:
    """Return the corrector of two models with the same transforms."""
    transform = of_data.track_targets
    pattern = transform.match(transform.coordinates(data.part("train").targets))
    counts = np.bincount(pattern[pattern >= 0], minlength=transform.n_patterns)
    card, its = of_data.card, of_simulation.card
    described = describe_variables(simulation.sample.targets, simulation.targets)
    ranges = describe_variables(simulation.sample.conditions, simulation.conditions)
    conditions = tuple(
        mine.model_copy(update={"range": _common(mine.range, other.range)})
        for mine, other in zip(card.conditions, ranges, strict=True)
    )
    update = {
        "conditions": conditions,
        "simulated": described,
        "n_noise": len(card.targets) + (transform.n_patterns > 1),
        "steps": card.steps + its.steps,
        "plan": "+".join(filter(None, (its.plan, card.plan))),
        "dataset": {**card.dataset, "simulation": dict(its.dataset)},
    }
    return Corrector(
        card=card.model_copy(update=update),
        simulation=of_simulation,
        data=of_data,
        known=(counts > 0).astype(np.float32),
        held_out=_reference(data, simulation),
    )


def _common(first: tuple[float, float], second: tuple[float, float]) -> Any:
    """Return the part of two ranges that is in both; else the first one."""
    low, high = max(first[0], second[0]), min(first[1], second[1])
    return (low, high) if low < high else first


def _reference(data: Dataset, simulation: Dataset) -> pd.DataFrame:
    """Return the test rows of both, with a column that tells which is which."""
    frames = [data.frame("test"), simulation.frame("test")]
    columns = [*data.sample.condition_names, *data.sample.target_names, "weight"]
    frames[1] = frames[1][columns]
    marked = [frame.assign(**{SIMULATED: np.int8(k)}) for k, frame in enumerate(frames)]
    both = pd.concat(marked, ignore_index=True)
    # Weights of other mass fits are those of data alone.
    return both.fillna(0.0)


def _named(
    show: Callable[[Progress], None] | None, name: str
) -> Callable[[Progress], None] | None:
    """Return a function of progress that says which of the two trainings it is of."""
    if show is None:
        return None
    return lambda done: show(dataclasses.replace(done, phase=f"{name}: {done.phase}"))
