"""Members: generators of one sample that differ in the seed of their training only.

Their spread is what the training itself leaves open; `run_systematics` takes the others
beside the first as variations "training_1", ... A folder of members holds model
directories `member_1`, `member_2`, ..., or bundles `member_1.onnx`, ...
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pidgan.arguments import checked
from pidgan.files.writing import refuse_existing

if TYPE_CHECKING:
    from pidgan.sample.dataset import Dataset
    from pidgan.training.loop import Progress
    from pidgan.training.model import Model

# Difference of the seeds of two members; the networks of one training use the next few.
SEED_STEP = 100
_NAME = re.compile(r"member_(\d+)(\.onnx)?\Z")


@checked
def train_members(
    dataset: "Dataset",
    directory: str | Path,
    *,
    members: int,
    family: Any = None,
    recipe: str | None = None,
    budget: str | float | None = None,
    steps: int | None = None,
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: "Callable[[str, Progress], None] | None" = None,
) -> "list[Model]":
    """Train and save members with seeds `seed`, `seed` + 100, `seed` + 200, ...

    Args:
        dataset: Dataset from `build_dataset`.
        directory: Folder of the members; each is saved when it is trained.
        members: Number of members.
        family, recipe, settings: Family and settings, see `train`.
        budget: Wall-clock time of the first member; the others do as many steps.
        steps: Number of steps of each member instead of a budget.
        seed: Seed of the first member.
        resume: Whether to keep trained members and to continue an interrupted one.
        overwrite: Whether to replace members that are there.
        progress: Function that is called with the name of a member and its progress
            after about every second of training.

    Returns:
        The members, in order.

    Raises:
        NtupleError: A member exists and `overwrite` is not set.
        TrainingError: A training fails.
    """
    from pidgan.training.loop import train
    from pidgan.training.model import open_model

    if members < 1:
        raise ValueError(f"members is {members}, expected at least 1")
    folder = Path(directory)
    models: list[Model] = []
    for number in range(members):
        path = folder / f"member_{number + 1}"
        if resume and (path / "model.json").is_file():
            models.append(open_model(path))
            continue
        refuse_existing(path / "model.json", overwrite=overwrite)

        show = None if progress is None else functools.partial(progress, path.name)
        model = train(
            dataset,
            family=family,
            recipe=recipe,
            budget=None if models else budget,
            steps=models[0].card.steps if models else steps,
            seed=seed + number * SEED_STEP,
            settings=settings,
            directory=path,
            resume=resume,
            progress=show,
        )
        model.save(path, overwrite=overwrite or resume)
        models.append(model)
    return models


@checked
def member_paths(path: str | Path) -> list[Path]:
    """Return models or bundles of a folder of members, by number; none elsewhere."""
    folder = Path(path)
    found = {}
    for entry in folder.glob("member_*"):
        match = _NAME.match(entry.name)
        if match and (match[2] or (entry / "model.json").is_file()):
            found[int(match[1])] = entry
    return [found[number] for number in sorted(found)]
