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
from pidgan.errors import TrainingError
from pidgan.files.writing import refuse_existing
from pidgan.sample.dataset import Dataset

if TYPE_CHECKING:
    from pidgan.bundle.card import Card
    from pidgan.training.chain import Chain
    from pidgan.training.loop import Progress
    from pidgan.training.model import Model

# Difference of the seeds of two members; the networks of one training use the next few.
SEED_STEP = 100
_NAME = re.compile(r"member_(\d+)(\.onnx)?\Z")


@checked
def train_members(
    dataset: Dataset,
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
) -> "list[Model | Chain]":
    """Train and save members with seeds `seed`, `seed` + 100, `seed` + 200, ...

    Args:
        dataset: Dataset from `build_dataset`.
        directory: Folder of the members; each is saved when it is trained.
        members: Number of members.
        family, recipe, settings: Family and settings, see `train`.
        budget: Wall-clock time of the first member; the others do as many steps.
        steps: Number of steps of each member instead of a budget.
        seed: Seed of the first member.
        resume: Whether to keep trained members and to continue an interrupted one; one
            of another training is an error.
        overwrite: Whether to replace members that are there.
        progress: Function that is called with the name of a member and its progress
            after about every second of training.

    Returns:
        The members, in order.

    Raises:
        NtupleError: A member exists and `overwrite` is not set.
        TrainingError: A training fails.
    """
    from pidgan.training.families import name_of
    from pidgan.training.loop import train
    from pidgan.training.model import open_model
    from pidgan.training.setup import choose_family

    chosen = choose_family(family, recipe, settings, dataset.sample)
    folder = Path(directory)
    models: list[Model | Chain] = []
    for number in range(members):
        path = folder / f"member_{number + 1}"
        if resume and (path / "model.json").is_file():
            kept = open_model(path)
            wanted = {name: getattr(chosen, name) for name in settings or ()}
            wanted |= {"family": name_of(chosen), "dataset": dataset.info["hash"]}
            wanted |= {"seed": seed + number * SEED_STEP, "steps": steps}
            _check_member(kept.card, path, wanted)
            models.append(kept)
            continue
        refuse_existing(path / "model.json", overwrite=overwrite)

        show = None if progress is None else functools.partial(progress, path.name)
        options: dict[str, Any] = {
            "family": family,
            "recipe": recipe,
            "settings": settings,
            "seed": seed + number * SEED_STEP,
            "directory": path,
            "resume": resume,
            "progress": show,
        }
        if models:
            model = _train_alike(models[0], dataset, **options)
        else:
            model = train(dataset, budget=budget, steps=steps, **options)
        model.save(path, overwrite=overwrite or resume)
        models.append(model)
    return models


def _train_alike(
    first: "Model | Chain",
    dataset: Dataset,
    *,
    family: Any,
    recipe: str | None,
    settings: Mapping[str, Any] | None,
    **options: Any,
) -> "Model | Chain":
    """Train for as many steps as a first member, in each link of a chain."""
    from pidgan.training.chain import Length, train_links
    from pidgan.training.loop import train

    same = functools.partial(train, family=family, recipe=recipe, settings=settings)
    if not first.card.links:
        return same(dataset, steps=first.card.steps, **options)
    length = Length(each=tuple(link.steps for link in first.card.links))
    return train_links(same, dataset, length=length, default=length, **options)


def _check_member(card: "Card", path: Path, wanted: Mapping[str, Any]) -> None:
    """Raise if a trained member that is kept is not one of this training."""
    found = {**card.settings, "family": card.family, "seed": card.seed}
    found |= {"steps": card.steps, "dataset": card.dataset.get("hash")}
    for name, value in wanted.items():
        if value is not None and value != found.get(name):
            raise TrainingError(
                f"{path} belongs to another training: {name} was {found.get(name)!r}, "
                f"now {value!r}"
            )


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
