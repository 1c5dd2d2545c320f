"""Tasks of a campaign: which there are, what each depends on, and what it writes.

A task is one stage of one bundle, and one at the end is that of the collection. What it
depends on is written into a record: its settings, the sizes and times of its input
files, the version of this package, and a digest of what the tasks before it made. A
task whose record is that of now is not done again.
"""

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pidgan.application.request import package_version
from pidgan.campaign.definition import Campaign
from pidgan.campaign.grid import Planned
from pidgan.files.tables import find_files
from pidgan.files.trees import file_stamp, is_remote
from pidgan.sample.definition import Sample

SCHEMA = 1
"""Version of the records. Another one makes every task run again."""

ALL = "all"
"""What stands for the bundle in the name of the task for all of them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stage of a bundle.

    Attributes:
        bundle: Name of the bundle, or `ALL`.
        stage: Name of the stage.
        threads: Number of threads, on which results depend by rounding.
        settings: What it is asked for, in values that JSON knows.
        files: Patterns of its input files, as seen from the folder of the campaign.
        after: Names of the tasks that must be done before.
        perhaps: Names of tasks whose results it uses if they are done.
    """

    bundle: str
    stage: str
    threads: int
    settings: Mapping[str, Any]
    files: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the task, "kaon-2018.train"."""
        return task_name(self.bundle, self.stage)

    @property
    def before(self) -> tuple[str, ...]:
        """Names of all tasks that it waits for."""
        return self.after + self.perhaps

    def content(self) -> dict[str, Any]:
        """Return the task in values that JSON knows."""
        return asdict(self)


def task_name(bundle: str, stage: str) -> str:
    """Return the name of a task."""
    return f"{bundle}.{stage}"


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where the files of a bundle lie, in the folder that a campaign writes."""

    output: Path
    bundle: str

    @property
    def dataset(self) -> Path:
        """Folder of the dataset."""
        return self.output / "datasets" / self.bundle

    @property
    def model(self) -> Path:
        """Folder of the model and of the checkpoints of its training."""
        return self.output / "models" / self.bundle

    @property
    def report(self) -> Path:
        """Folder of the report of the validation."""
        return self.output / "reports" / self.bundle / "validation"

    @property
    def map_report(self) -> Path:
        """Folder of the report of the efficiency map."""
        return self.output / "reports" / self.bundle / "systematics"

    @property
    def exported(self) -> Path:
        """The bundle."""
        return self.output / "bundles" / f"{self.bundle}.onnx"

    @property
    def map(self) -> Path:
        """The efficiency map."""
        return self.output / "maps" / f"{self.bundle}.json"

    @property
    def collection(self) -> Path:
        """The collection of all bundles."""
        return self.output / "collection.toml"


def plan_tasks(
    campaign: Campaign, bundles: Sequence[Planned], samples: Mapping[str, Sample]
) -> list[Task]:
    """Return the tasks of a campaign, each after those that it depends on.

    Those of the first bundle come first, so that it is ready early.
    """
    stages, threads = campaign.head.stages, campaign.head.threads
    found = []
    for one in bundles:
        earlier: dict[str, str] = {}
        for stage in stages:
            if stage == "collect":
                continue
            found.append(
                Task(
                    bundle=one.name,
                    stage=stage,
                    threads=threads,
                    settings=_settings(one, stage, samples[one.name]),
                    files=one.options.files if stage == "prepare" else (),
                    after=_after(stage, earlier),
                    perhaps=_rivals(one, bundles) if stage == "validate" else (),
                )
            )
            earlier[stage] = found[-1].name
    if "collect" in stages:
        found.append(
            Task(
                bundle=ALL,
                stage="collect",
                threads=threads,
                settings=campaign.head.collect.model_dump()
                | {"title": campaign.head.collect.title or campaign.head.title},
                perhaps=tuple(task_name(one.name, "export") for one in bundles),
            )
        )
    return _ordered(found)


def _ordered(tasks: Sequence[Task]) -> list[Task]:
    """Return tasks in their order, but each after those that it waits for."""
    left, done, found = list(tasks), set[str](), list[Task]()
    while left:
        ready = next(task for task in left if done.issuperset(task.before))
        left.remove(ready)
        done.add(ready.name)
        found.append(ready)
    return found


def _after(stage: str, earlier: Mapping[str, str]) -> tuple[str, ...]:
    needs = {
        "train": ("prepare",),
        "validate": ("prepare", "train"),
        "export": ("train", "validate"),
        "systematics": ("export",),
    }
    return tuple(earlier[name] for name in needs.get(stage, ()) if name in earlier)


def rivals_of(one: Planned, bundles: Iterable[Planned]) -> list[str]:
    """Return the bundles that differ along the axis of `misid` alone."""
    axis = one.options.validation.misid
    if axis is None:
        return []

    def others(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name != axis}

    mine = others(one.values)
    return [b.name for b in bundles if others(b.values) == mine and b != one]


def _rivals(one: Planned, bundles: Sequence[Planned]) -> tuple[str, ...]:
    names = rivals_of(one, bundles)
    return tuple(task_name(n, stage) for n in names for stage in ("prepare", "train"))


def _settings(one: Planned, stage: str, sample: Sample) -> dict[str, Any]:
    """Return what a stage of a bundle is asked for."""
    options = one.options
    judged: dict[str, Any] = {
        "seed": options.seed,
        "cuts": options.cuts,
        "where": options.where,
    }
    # One process leaves no trace, so that records of before are those of now.
    alone = {"processes"} if options.train.processes == 1 else None
    own: dict[str, dict[str, Any]] = {
        "prepare": {
            "sample": sample.model_dump(mode="json", by_alias=True),
            "seed": options.seed,
            **options.prepare.model_dump(),
        },
        "train": {"seed": options.seed, **options.train.model_dump(exclude=alone)},
        "validate": judged,
        "export": {},
        "systematics": judged | options.systematics.model_dump(),
    }
    return own[stage]


def inputs_of(task: Task, digests: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Return what the result of a task depends on, in values that JSON knows.

    `digests` has those of the tasks before it that are done.
    """
    return {
        "schema": SCHEMA,
        "version": package_version("pidgan"),
        "threads": task.threads,
        "settings": dict(task.settings),
        "files": _stamps(task.files, folder),
        "after": {n: digests[n] for n in task.before if n in digests},
    }


def _stamps(patterns: Iterable[str], folder: Path) -> dict[str, Any]:
    """Return size and time of each file; those of an address are not looked at."""
    found: dict[str, Any] = {}
    for path in find_files(patterns_in(patterns, folder)):
        if is_remote(path):
            found[path] = None
        else:
            found[os.path.relpath(path, folder)] = file_stamp(path)
    return found


def patterns_in(patterns: Iterable[str], folder: Path) -> list[str]:
    """Return patterns as seen from anywhere."""
    found = []
    for one in patterns:
        if is_remote(one) or os.path.isabs(one):
            found.append(one)
            continue
        has_magic = glob.has_magic(one) and not (folder / one).exists()
        start = glob.escape(str(folder)) if has_magic else str(folder)
        found.append(os.path.join(start, one))
    return found
