"""Members: generators of one sample that differ in the seed of their training only.

Their spread is what the training itself leaves open; `run_systematics` takes the others
beside the first as variations "training_1", ... A folder of members holds model
directories `member_1`, `member_2`, ..., or bundles `member_1.onnx`, ...
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pidgan.arguments import checked
from pidgan.errors import TrainingError
from pidgan.files.writing import refuse_existing
from pidgan.progress import training_progress
from pidgan.sample.dataset import Dataset
from pidgan.training.families.settings_file import read_settings_file

if TYPE_CHECKING:
    from pidgan.bundle.card import Card
    from pidgan.training.chain import Chain
    from pidgan.training.model import Model
    from pidgan.training.record import Progress

# Difference of the seeds of two members; the networks of one training use the next few.
SEED_STEP = 100
_NAME = re.compile(r"member_(\d+)(\.onnx)?\Z")


@checked
def train_members(
    dataset: Dataset | str | Path,
    directory: str | Path,
    *,
    members: int,
    family: Any = None,
    recipe: str | None = None,
    budget: str | float | None = None,
    steps: int | str | None = None,
    seed: int = 1,
    settings: Mapping[str, Any] | str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: "Callable[[str, Progress], None] | bool | None" = True,
    from_model: "str | Path | Model | Chain | None" = None,
) -> "list[Model | Chain]":
    """Train and save members with seeds `seed`, `seed` + 100, `seed` + 200, ...

    Args:
        dataset: Dataset from `build_dataset`, or its folder.
        directory: Folder of the members; each is saved when it is trained.
        members: Number of members.
        family, recipe, settings: Family and settings, see `train`.
        budget: Wall-clock time of each member. The others begin with the number of
            steps of the first, which the clock corrects as it does for the first.
        steps: Number of steps of each member instead of a budget.
        seed: Seed of the first member.
        resume: Whether to keep trained members and to continue an interrupted one; one
            of another training is an error.
        overwrite: Whether to replace members that are there.
        progress: Whether bars, or lines of a log, are shown; or a function that is
            called with the name of a member and its progress after about every second
            of training.
        from_model: Model, or its folder, that each member starts from, see `train`.

    Returns:
        The members, in order.

    Raises:
        NtupleError: A member exists and `overwrite` is not set.
        TrainingError: A training fails.

    Example:
        >>> models = train_members(dataset, "kaon-members", members=5)  # doctest: +SKIP
    """
    from pidgan.training.budget import length
    from pidgan.training.corrector import Corrector
    from pidgan.training.families import name_of
    from pidgan.training.loop import run_training, train
    from pidgan.training.model import open_model
    from pidgan.training.pace import Pace
    from pidgan.training.setup import choose_family
    from pidgan.training.start import record_of, starts_of

    dataset = Dataset.open(dataset)
    links = dataset.sample.links
    duration, pace = length(budget, None if links else steps)
    starts = None
    if from_model is not None:
        starts = starts_of(from_model, dataset.sample)
    first = starts[0] if starts else None
    chosen = choose_family(family, recipe, settings, dataset, start=first)
    folder = Path(directory)
    models: list[Model | Chain] = []
    with training_progress(progress, named=True) as told:
        for number in range(members):
            path = folder / f"member_{number + 1}"
            if resume and (path / "model.json").is_file():
                kept = open_model(path)
                wanted = {name: getattr(chosen, name) for name in _names(settings)}
                wanted |= {"family": name_of(chosen), "dataset": dataset.info["hash"]}
                wanted |= {"seed": seed + number * SEED_STEP}
                wanted |= {"steps": pace.steps if pace else None}
                if not links:
                    wanted |= {"start": record_of(first)["model"] if first else ""}
                _check_member(kept.card, path, wanted)
                if isinstance(kept, Corrector):
                    raise TrainingError(f"{path} is a corrector, expected a member")
                models.append(kept)
                continue
            refuse_existing(path / "model.json", overwrite=overwrite)

            show = told and functools.partial(told, path.name)
            options: dict[str, Any] = {
                "seed": seed + number * SEED_STEP,
                "directory": path,
                "resume": resume,
                "progress": show,
            }
            if links:
                own: dict[str, Any] = {"recipe": recipe, "settings": settings}
                own |= {"from_model": from_model} if not models else {}
                same = functools.partial(train, family=family, **own)
                options["starts"] = starts
                model = _train_chain(same, dataset, models, budget, steps, **options)
            else:
                begin = Pace.parse(models[0].card.steps) if models else None
                lengths: dict[str, Any] = {
                    "budget": duration,
                    "pace": pace,
                    "begin": begin,
                    "start": first,
                }
                model = run_training(dataset, chosen, **lengths, **options)
            model.save(path, overwrite=overwrite or resume)
            models.append(model)
    return models


def _names(settings: Mapping[str, Any] | str | Path | None) -> Iterable[str]:
    """Return the names of the settings that were chosen."""
    if isinstance(settings, str | Path):
        return read_settings_file(settings).settings
    return settings or ()


def _train_chain(
    train: Callable[..., Any],
    dataset: Dataset,
    models: Sequence[Any],
    budget: str | float | None,
    steps: int | str | None,
    starts: Sequence[Any] | None,
    **options: Any,
) -> Any:
    """Train a member that is a chain, each link for the steps of the first member's."""
    from pidgan.training.chain import Length, train_links

    if not models:
        return train(dataset, budget=budget, steps=steps, **options)
    length = Length(each=tuple(link.steps for link in models[0].card.links))
    lengths: dict[str, Any] = {"length": length, "default": length}
    return train_links(train, dataset, **lengths, starts=starts, **options)


def _check_member(card: "Card", path: Path, wanted: Mapping[str, Any]) -> None:
    """Raise if a trained member that is kept is not one of this training."""
    found = {**card.settings, "family": card.family, "seed": card.seed}
    found |= {"steps": card.steps, "dataset": card.dataset.get("hash")}
    found |= {"start": card.start.get("model", "")}
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
