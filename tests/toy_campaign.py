"""A campaign of toy samples: files of a few rows, and tasks that pretend to work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pidgan.campaign import child, process, stages
from pidgan.campaign.records import digest_of
from pidgan.campaign.stages import Made
from pidgan.campaign.tasks import Paths, Task
from pidgan.errors import TrainingError
from pidgan.files.tables import write_trees

DEFINITION = """
schema = 1
title = "Toy particles"
detector = "toy"
species = "{species}"
source = "tests"
weight_branch = "sw"
cuts = ["DLL > 0"]
conditions = [{{name = "P", branch = "P", unit = "MeV", range = [3e3, 200e3]}}]
targets = [{{name = "DLL", branch = "DLL", range = [-150, 150]}}]
"""

CAMPAIGN = """
schema = 1
sample = "{hadron}.toml"
files = "{hadron}_{polarity}.root"

[grid]
hadron = ["kaon", "pion"]
polarity = ["down", "up"]

[train]
steps = 20
settings = {xla = false}
"""


def write_campaign(folder: Path, text: str = CAMPAIGN, *, rows: int = 400) -> Path:
    """Write the files of a campaign of two species and two polarities."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, species, mean) in enumerate(
        (("kaon", "K+", 8.0), ("pion", "pi+", -8.0))
    ):
        (folder / f"{name}.toml").write_text(DEFINITION.format(species=species))
        for polarity in ("down", "up"):
            rng = np.random.default_rng([seed, len(polarity)])
            p = rng.uniform(5e3, 9e4, rows)
            dll = rng.normal(mean - p / 2e4, 5.0, rows)
            weights = rng.choice([1.2, -0.2], rows, p=[0.9, 0.1])
            tree = {"P": p, "DLL": dll, "sw": weights}
            write_trees(folder / f"{name}_{polarity}.root", {"T": tree})
    path = folder / "campaign.toml"
    path.write_text(text)
    return path


class Pretended:
    """Work that writes what it is made of, and counts what was done.

    `fails` has the names of tasks that fail, `kills` those whose process ends without
    a word the first time.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.again: list[str] = []
        self.fails: set[str] = set()
        self.kills: set[str] = set()

    def do_stage(
        self, task: Task, output: Path, digests: Any, *, again: bool, tell: Any
    ) -> Made:
        """Write a file with the settings and what came before."""
        if task.name in self.fails:
            raise TrainingError(f"{task.name} has\nno luck")
        self.done.append(task.name)
        self.again += [task.name] * again
        paths = Paths(output=output, bundle=task.bundle)
        places = {"export": paths.exported, "systematics": paths.map}
        path = places.get(task.stage, output / "made" / task.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{task.settings} {sorted(digests.items())}")
        bundles = len([name for name in task.perhaps if name in digests])
        own = {"bundles": bundles, "of": len(task.perhaps)}
        return Made(files=[path], digest=digest_of([path]), result=own)

    def run_child(self, job: process.Job, digests: dict[str, str]) -> int:
        """Do a task in this process."""
        if job.task.name in self.kills:
            self.kills.remove(job.task.name)
            return -9
        child.do_task(job.task, job.output, job.folder, digests)
        return 0

    def take(self) -> list[str]:
        """Return what was done since the last call."""
        done, self.done, self.again = self.done, [], []
        return done


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """Tasks that only pretend to work, in this process."""
    found = Pretended()
    monkeypatch.setattr(child, "do_stage", found.do_stage)
    monkeypatch.setattr(process, "_run_child", found.run_child)
    monkeypatch.setattr(stages, "do_stage", found.do_stage)
    return found


Write = Callable[..., Path]
