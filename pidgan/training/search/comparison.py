"""The end of a search: the default and the best settings on rows it never saw.

Both are trained anew with several seeds that no trial had, on the training part, and
judged on the test part, of which the search has not seen a row. The best of many trials
looks better than it is; this difference does not. With r rows and s seeds,

    d = mean over seeds of (score of the best - score of the default),

the same rows and the same noise for both. Its variance is that of the weighted mean
over rows of the difference, plus that of the mean over seeds (pooled, 2 (s - 1) degrees
of freedom, of Student's t). The best settings are taken only if d is below zero by more
than chance would give in one of 40 searches.

The trainings are a study in the same file, so that all processes share them. If a
search goes on and finds other settings, these are compared too; the chance is then
shared among all comparisons.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.errors import TrainingError
from pidgan.files.writing import writing_file
from pidgan.sample.dataset import Dataset
from pidgan.training import families
from pidgan.training.export import export_bundle
from pidgan.training.loop import run_training
from pidgan.training.members import SEED_STEP
from pidgan.training.pace import Pace
from pidgan.training.record import Progress
from pidgan.training.search.plan import Plan, publish
from pidgan.training.search.scores import (
    judged_part,
    judged_rows,
    mean_with_error,
    row_scores,
    row_weights,
)
from pidgan.training.search.storage import Study

STUDY = FOLDER = "comparison"
SIDES = ("default", "best")
MOST_ROWS = 50_000  # of the test part
# A process that has just begun a comparison needs some seconds to list its trainings.
IDLE_CALLS = 5
# Probability that settings which are not better are taken.
CHANCE = 0.025


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Scores of two settings on the same rows, less is better.

    Attributes:
        default, best: Mean score of each, over rows and seeds.
        difference: Score of the best less that of the default.
        error: Standard deviation of the difference, of rows and of seeds.
        error_rows, error_seeds: Its two parts.
        limit: Difference below which the best settings are taken.
        comparisons: Number of trials of this search that were compared so.
        rows, seeds: Numbers of rows and of seeds.
        by_seed: Mean scores of each seed, by side.
    """

    default: float
    best: float
    difference: float
    error: float
    error_rows: float
    error_seeds: float
    limit: float
    comparisons: int
    rows: int
    seeds: int
    by_seed: Mapping[str, tuple[float, ...]]

    @property
    def is_better(self) -> bool:
        """Whether the best settings are better than the default by more than chance."""
        return self.difference < self.limit


def compare_scores(
    default: FloatArray,
    best: FloatArray,
    weights: FloatArray,
    *,
    comparisons: int = 1,
) -> Difference:
    """Compare scores of rows, (seeds, n) each, with weights (n,) of either sign."""
    from scipy.stats import t

    sides = dict(zip(SIDES, (default, best), strict=True))
    means = {k: v @ weights / weights.sum() for k, v in sides.items()}
    each = best.mean(axis=0) - default.mean(axis=0)
    difference, error_rows = mean_with_error(each, weights)
    seeds = len(default)
    pooled = sum(float(np.var(v, ddof=1)) for v in means.values()) if seeds > 1 else 0.0
    error_seeds = math.sqrt(pooled / seeds)
    error = math.hypot(error_rows, error_seeds)
    freedom = 2 * (seeds - 1) if error_seeds > 0 else 1e6
    return Difference(
        default=float(means["default"].mean()),
        best=float(means["best"].mean()),
        difference=difference,
        error=error,
        error_rows=error_rows,
        error_seeds=error_seeds,
        limit=float(t.ppf(CHANCE / comparisons, freedom) * error),
        comparisons=comparisons,
        rows=len(weights),
        seeds=seeds,
        by_seed={k: tuple(map(float, v)) for k, v in means.items()},
    )


class Comparison:
    """The trainings of the comparison, of which this process does some."""

    def __init__(self, folder: Path, plan: Plan, dataset: Dataset, best: Any) -> None:
        self.folder, self.plan, self.dataset = folder, plan, dataset
        self.number, self.settings = best.number, plan.settings(best.params)
        self.study = Study(folder, f"{STUDY}-{best.number}", seed=plan.seed)
        self._idle = 0  # calls that found nothing to do, and nobody at work
        (folder / FOLDER).mkdir(exist_ok=True)
        if publish(self._of("json"), {"settings": self.settings}):
            self._enqueue()

    def bundle(self, side: str) -> Path:
        """Return the path of the bundle of one side."""
        name = "default" if side == "default" else f"trial-{self.number}"
        return self.folder / FOLDER / f"{name}.onnx"

    def do_next(self, *, progress: Callable[[Progress], None] | None) -> bool:
        """Do the next training that nobody does; return whether there was one."""
        self.study.fail_stale()
        if not self.study.trials("WAITING"):
            self._idle = 0 if self.study.trials("RUNNING") else self._idle + 1
            if self._idle > IDLE_CALLS:
                self._enqueue()
            return False
        trial = self.study.ask()
        side, number = (trial.user_attrs.get(k) for k in ("side", "number"))
        if side is None:  # another process was faster, and this is a new trial
            self.study.tell(trial, None, "FAIL")
            return True
        with self.study.alive(trial):
            self._train(side, number, progress)
        self.study.tell(trial, 0.0)
        return True

    def _enqueue(self) -> None:
        """Put the trainings that are not there onto the list.

        The process that began the comparison may have ended before it did.
        """
        for number in range(self.plan.seeds):
            for side in SIDES:
                if not self._place(side, number).is_file():
                    self.study.enqueue({}, side=side, number=number)

    @property
    def is_done(self) -> bool:
        """Whether all trainings are there."""
        places = (self._place(s, k) for s in SIDES for k in range(self.plan.seeds))
        return all(place.is_file() for place in places)

    def result(self) -> Difference:
        """Compare the scores of all trainings."""
        numbers = range(self.plan.seeds)
        default = np.array([self._read("default", k) for k in numbers])
        best = np.full_like(default, np.nan)
        for k in numbers:
            scores = self._read("best", k)
            if scores.shape == best[k].shape:
                best[k] = scores
        count = sum(name.startswith(f"{STUDY}-") for name in self.study.all_names)
        return compare_scores(
            default[:, 0], best[:, 0], default[0, 1], comparisons=count
        )

    def _train(
        self,
        side: str,
        number: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        plan, place = self.plan, self._place(side, number)
        if place.is_file():  # the default of an earlier comparison
            return
        settings = plan.default if side == "default" else self.settings
        try:
            model = run_training(
                self.dataset,
                families.parse_settings(plan.family, settings),
                budget=None,
                pace=Pace.parse(plan.final_steps),
                seed=plan.seed + (number + 1) * SEED_STEP,
                directory=None,
                resume=False,
                progress=progress,
            )
            rows = judged_rows(model, judged_part(self.dataset, "test", MOST_ROWS))
            found = [row_scores(model, rows, plan.metric), row_weights(rows)]
        except TrainingError:
            if side == "default":
                raise
            found = [np.array([np.nan])] * 2  # such settings are not better
        else:
            if number == 0:
                path = self.bundle(side)
                export_bundle(model, path, overwrite=True, progress=False)
        with writing_file(place, overwrite=True) as file:
            np.save(file, np.array(found))

    def _place(self, side: str, number: int) -> Path:
        if side == "default":
            return self.folder / FOLDER / f"default-seed-{number + 1}.npy"
        return self._of(f"seed-{number + 1}.npy")

    def _of(self, end: str) -> Path:
        """Return the path of a file of the settings that are compared."""
        separator = "." if end == "json" else "-"
        return self.folder / FOLDER / f"trial-{self.number}{separator}{end}"

    def _read(self, side: str, number: int) -> FloatArray:
        array: FloatArray = np.load(self._place(side, number), allow_pickle=False)
        return array
