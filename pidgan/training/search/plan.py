"""What all processes of a search agree on: the file `study.json` in its folder.

The first process writes it, once and for all; whoever comes later, joins. Two that
begin at once both try, and one of them wins: a file gets its name by a link, which
fails if the name is taken, on network file systems too.
"""

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pidgan.errors import PidganError
from pidgan.files.documents import read_json
from pidgan.files.leftovers import remove, temporary_name
from pidgan.files.seals import check_seal, sealed
from pidgan.sample.dataset import Dataset
from pidgan.training import families
from pidgan.training.families.settings import Span
from pidgan.training.search.scores import Metric

NAME = "study.json"
FORMAT = 1

# A budget holds so many whole trials beside the comparison at the end. Trainings of the
# comparison are longer than trials, so that settings which only begin faster lose.
FULL_TRIALS = 20
LONGER = 2
DEFAULT_BUDGET = 1800.0
LEAST_STEPS = 20  # of a trial


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A search: on what, by what, and how long its trainings are.

    Attributes:
        sample, dataset: Name and hash of the dataset.
        family: Name of the family.
        metric: What is compared.
        fixed: Settings that are not the defaults, and are not searched.
        seed: Seed of all trials.
        seeds: Number of seeds of the comparison.
        steps: Number of steps of a trial.
        version: Version of the package.
    """

    sample: str
    dataset: str
    family: str
    metric: Metric
    fixed: Mapping[str, Any]
    seed: int
    seeds: int
    steps: int
    version: str

    @property
    def final_steps(self) -> int:
        """Number of steps of a training of the comparison."""
        return LONGER * self.steps

    @property
    def default(self) -> dict[str, Any]:
        """The settings that the search has to beat."""
        return dict(
            dataclasses.asdict(families.parse_settings(self.family, self.fixed))
        )

    @property
    def spans(self) -> dict[str, Span]:
        """Settings that are searched, and how far."""
        return searched(self.family, self.fixed)

    def settings(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings with values of those that are searched."""
        found = self.default
        for name, span in self.spans.items():
            if name in chosen:
                found[name] = chosen[name]
                found |= {span.rest: 1 - chosen[name]} if span.rest else {}
        return families.check_settings(self.family, found)


def searched(family: str, fixed: Mapping[str, Any]) -> dict[str, Span]:
    """Return the settings of a family that are searched if some are fixed."""
    found = {
        name: span
        for name, span in families.spans_of(family).items()
        if name not in fixed and span.rest not in fixed
    }
    if not found:
        raise PidganError(
            f"all settings of family {family!r} that a search changes are given"
        )
    return found


def make_plan(
    dataset: Dataset,
    *,
    family: str,
    metric: Metric,
    fixed: Mapping[str, Any],
    seed: int,
    seeds: int,
    steps: int,
) -> Plan:
    """Return the plan of a new search."""
    fixed = families.check_settings(family, fixed)
    return Plan(
        sample=dataset.sample.name,
        dataset=dataset.info["hash"],
        family=family,
        metric=metric,
        fixed=fixed,
        seed=seed,
        seeds=seeds,
        steps=steps,
        version=importlib.metadata.version("pidgan"),
    )


def read_plan(folder: Path) -> Plan | None:
    """Return the plan of the search in a folder, None if there is none."""
    path = folder / NAME
    if not path.is_file():
        return None
    content = read_json(path, error=PidganError)
    try:
        check_seal(content)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT}")
        return Plan(**content["plan"])
    except (KeyError, TypeError, ValueError) as error:
        raise PidganError(f"{path} is no search of this package: {error}") from error


def join(folder: Path, wanted: Mapping[str, Any], make: Callable[[], Plan]) -> Plan:
    """Return the plan of a folder, which is made if there is none.

    What is wanted, and is not None, must be in a plan that is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = read_plan(folder)
    if plan is None:
        publish(folder / NAME, {"format": FORMAT, "plan": dataclasses.asdict(make())})
        plan = read_plan(folder)
        assert plan is not None
    for name, value in wanted.items():
        found = getattr(plan, name)
        if value is not None and value != found:
            raise PidganError(
                f"{folder} holds another search: {name} was {found!r}, now {value!r}; "
                "choose another folder, or leave it as it was"
            )
    return plan


def publish(path: Path, content: Mapping[str, Any]) -> bool:
    """Write a JSON file unless it is there; return whether it is this one now."""
    temporary = temporary_name(path)
    temporary.write_text(json.dumps(sealed(content), indent=1), encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        remove(temporary)
    return True
