"""The outcome of a search for settings: what won, by how much, and the page of it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.notebook import Facts, shown
from pidgan.report.index_page import refresh_index
from pidgan.report.page import Picture, Section, Table, with_error, write_page
from pidgan.report.plots.tuning import (
    plot_front,
    plot_importance,
    plot_search,
    plot_settings,
)
from pidgan.report.report import plain
from pidgan.training.families.settings_file import SettingsFile
from pidgan.training.search.comparison import Difference
from pidgan.training.search.plan import Plan

JSON_NAME, SETTINGS_NAME, FRONT = "tuning.json", "settings.toml", "front"
WORDS = {"likelihood": "-log likelihood of a row", "energy": "energy score of a row"}
LEAST_PANELS = 3  # trials from which figures say something


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        number: Number of the trial; the first one is the default.
        state: "complete", "pruned" where it was given up, "failed" or "running".
        score: Mean score on the validation part, less is better.
        error: Statistical error of the score.
        operations: Number of operations with which the bundle makes a row.
        seconds: Time of the trial.
        settings: Values of the settings that are searched.
        is_default: Whether these are the default ones.
        problem: Reason why there is no score, if the training diverged.
    """

    number: int
    state: str
    score: float = math.nan
    error: float = math.nan
    operations: int = 0
    seconds: float = math.nan
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_default: bool = False
    problem: str = ""


@shown
@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The outcome of a search.

    Attributes:
        plan: What was searched, on what.
        trials: All trials, in order.
        best: Number of the best trial.
        chosen: All settings that were chosen.
        is_better: Whether these are better than the default; else they are the default.
        difference: Comparison on rows that the search never saw; none if no trial was
            better than the default.
        speeds: Rows per second of "default" and "best", and their "ratio" with its
            "error", measured in turns; empty without a comparison.
        importance: Share of the variation of the score by setting.
    """

    plan: Plan
    trials: tuple[TrialRecord, ...]
    best: int
    chosen: Mapping[str, Any]
    is_better: bool
    difference: Difference | None
    speeds: Mapping[str, float]
    importance: Mapping[str, float]

    @property
    def complete(self) -> list[TrialRecord]:
        """Trials with a score, in order."""
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def front(self) -> list[TrialRecord]:
        """Trials to which no other is better both in score and in operations."""
        found: list[TrialRecord] = []
        for trial in sorted(self.complete, key=lambda t: (t.operations, t.score)):
            if not found or trial.score < found[-1].score:
                found.append(trial)
        return found

    def verdict(self) -> str:
        """Return the result in one or two sentences."""
        plan, d = self.plan, self.difference
        if d is None:
            return (
                f"The default is as good: none of {len(self.trials)} trials has a "
                "better score."
            )
        value = with_error(d.difference, d.error)
        where = (
            f"{d.rows} rows that the search never saw, {d.seeds} seeds, trainings of "
            f"{plan.final_steps} steps"
        )
        if not math.isfinite(d.difference):
            return f"The default is kept: trial {self.best} does not always train."
        if self.is_better:
            return (
                f"Trial {self.best} is better than the default: its "
                f"{WORDS[plan.metric]} differs by {value} ({where})."
            )
        return (
            f"The default is as good: the {WORDS[plan.metric]} of trial {self.best}, "
            f"the best of {len(self.trials)}, differs by {value} ({where}); a "
            f"difference below {d.limit:.4f} would count."
        )

    def text(self) -> str:
        """Return the result and the settings that were chosen."""
        default = self.plan.default
        lines = [self.verdict()]
        if self.is_better:
            for name, value in self.chosen.items():
                if value != default[name]:
                    was = _short(default[name])
                    lines.append(f"  {name} = {_short(value)}, by default {was}")
        if self.speeds:
            ratio = with_error(self.speeds["ratio"], self.speeds["error"])
            lines.append(f"  generates {ratio} times as many rows/s as the default")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return all figures as JSON; a missing number is null."""
        found = {**asdict(self), "verdict": self.verdict()}
        found["front"] = [trial.number for trial in self.front]
        return json.dumps(plain(found), indent=1, allow_nan=False)

    def settings_file(self) -> SettingsFile:
        """Return the file of the settings that were chosen, with their provenance."""
        plan, d = self.plan, self.difference
        provenance = self._provenance(self.verdict(), steps=plan.final_steps)
        provenance |= {"trial": self.best if self.is_better else 0}
        if d is not None and math.isfinite(d.difference):
            names = ("difference", "error", "limit", "comparisons", "rows", "seeds")
            table = {name: getattr(d, name) for name in names}
            provenance["comparison"] = {"default": d.default, "best": d.best, **table}
        if self.speeds:
            provenance["rows_per_second"] = dict(self.speeds)
        return SettingsFile(
            family=plan.family, settings=self.chosen, provenance=provenance
        )

    def front_file(self, trial: TrialRecord) -> SettingsFile:
        """Return the file of the settings of one trial, with their provenance."""
        result = f"trial {trial.number} of a search, not compared on rows apart"
        own = {"trial": trial.number, "score": trial.score, "error": trial.error}
        own |= {"operations": trial.operations}
        return SettingsFile(
            family=self.plan.family,
            settings=self.plan.settings(trial.settings),
            provenance=self._provenance(result, steps=self.plan.steps) | own,
        )

    def _provenance(self, result: str, *, steps: int) -> dict[str, Any]:
        plan = self.plan
        return {
            "result": result,
            "metric": plan.metric,
            "sample": plan.sample,
            "dataset": plan.dataset,
            "trials": len(self.trials),
            "seed": plan.seed,
            "steps": steps,
            "version": plan.version,
        }

    @checked
    def save(self, directory: str | Path) -> Path:
        """Write settings.toml, tuning.json, report.html and the front; replace them."""
        folder = Path(directory)
        self.settings_file().save(folder / SETTINGS_NAME, overwrite=True)
        for trial in self.front:
            place = folder / FRONT / f"trial-{trial.number}.toml"
            self.front_file(trial).save(place, overwrite=True)
        path = write_page(
            folder,
            f"Settings of {self.plan.family} on {self.plan.sample}",
            self._sections(),
            lead=self.verdict(),
            beside={JSON_NAME: self.to_json()},
            overwrite=True,
        )
        refresh_index(path)
        return path

    def _sections(self) -> list[Section]:
        label = WORDS[self.plan.metric]
        sections = [
            Section(title="Result", text=RESULT, tables=[Table(self._result_rows())]),
            Section(title="Settings", tables=[Table(self._setting_rows())]),
        ]
        if len(self.complete) < LEAST_PANELS:
            return sections
        drawn = {
            "course": Picture(partial(self._draw_search, label), COURSE),
            "front": Picture(partial(self._draw_front, label), FRONT_CAPTION),
            "settings": Picture(partial(self._draw_settings, label), PANELS),
        }
        pictures = [drawn["course"]]
        if self.importance:
            pictures.append(Picture(partial(plot_importance, self.importance), SHARES))
        return [
            *sections,
            Section(
                title="Quality and speed",
                text=SPEED,
                tables=[Table(self._front_rows())],
                pictures=[drawn["front"]],
            ),
            Section(title="Search", text=SEARCH, pictures=pictures),
            Section(title="Score by setting", pictures=[drawn["settings"]]),
        ]

    def _result_rows(self) -> list[dict[str, Any]]:
        d, rows = self.difference, []
        for side in ("default", "best"):
            number = 0 if side == "default" else self.best
            trial = next((t for t in self.complete if t.number == number), None)
            if trial is None:
                continue
            row: dict[str, Any] = {"": side, "trial": str(number)}
            row["score in the search"] = with_error(trial.score, trial.error)
            if d is not None:
                row["score on rows apart"] = f"{getattr(d, side):.4f}"
                by_seed = [f"{value:.3f}" for value in d.by_seed[side]]
                row["by seed"] = ", ".join(by_seed)
            row["operations"] = f"{trial.operations:,}"
            if self.speeds:
                row["rows/s"] = f"{self.speeds[side] / 1e6:.2f}M"
            rows.append(row)
        if d is not None:
            rows.append(
                {
                    "": "difference",
                    "score on rows apart": with_error(d.difference, d.error),
                    "by seed": f"± {d.error_rows:.4f} rows ± {d.error_seeds:.4f} seeds",
                }
            )
        return rows

    def _setting_rows(self) -> list[dict[str, Any]]:
        best = next(t for t in self.trials if t.number == self.best)
        values, default = self.plan.settings(best.settings), self.plan.default
        return [
            {
                "setting": name,
                "default": _short(default[name]),
                f"trial {self.best}": _short(values[name]),
                "chosen": _short(self.chosen[name]),
                "searched": f"{_short(span.low)} to {_short(span.high)}",
            }
            for name, span in self.plan.spans.items()
        ]

    def _front_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "trial": f"{trial.number}",
                "score": with_error(trial.score, trial.error),
                "operations": f"{trial.operations:,}",
                "file": f"{FRONT}/trial-{trial.number}.toml",
            }
            for trial in self.front
        ]

    def _arrays(self) -> tuple[Any, Any]:
        scores = np.array([t.score for t in self.complete])
        return scores, np.array([t.error for t in self.complete])

    def _place(self, number: int) -> int:
        return [trial.number for trial in self.complete].index(number)

    def _draw_search(self, label: str) -> Any:
        scores, errors = self._arrays()
        numbers = np.array([t.number for t in self.complete])
        pruned = [t.number for t in self.trials if t.state == "pruned"]
        given_up = np.array(pruned, dtype=np.float64)
        return plot_search(numbers, scores, errors, given_up=given_up, label=label)

    def _draw_front(self, label: str) -> Any:
        scores, errors = self._arrays()
        front = {trial.number for trial in self.front}
        default = next(t.number for t in self.complete if t.is_default)
        return plot_front(
            np.array([t.operations for t in self.complete], dtype=np.float64),
            scores,
            errors,
            is_front=np.array([t.number in front for t in self.complete]),
            default=self._place(default),
            best=self._place(self.best),
            label=label,
        )

    def _draw_settings(self, label: str) -> Any:
        names = self.plan.spans
        best = next(t for t in self.trials if t.number == self.best)
        return plot_settings(
            {n: np.array([t.settings[n] for t in self.complete]) for n in names},
            self._arrays()[0],
            logarithmic=[name for name, span in names.items() if span.log],
            defaults=self.plan.default,
            best=best.settings,
            label=label,
        )

    def _facts(self) -> Facts:
        return Facts(
            f"{self.plan.sample}, family {self.plan.family}, {len(self.trials)} trials",
            {
                "result": self.verdict(),
                "score": WORDS[self.plan.metric],
                **{name: _short(value) for name, value in self.chosen.items()},
            },
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


RESULT = (
    "The search compares trainings on the validation part. The default and the best "
    "trial are then trained anew with other seeds, on the training part, and compared "
    "on the test part, of which the search has not seen a row. Less is better. The "
    "best settings are chosen only where they are better by more than chance would "
    "give in one of 40 searches; else the default is chosen."
)
SPEED = (
    "Operations are counted in the exported graph, for one row, and do not depend on "
    "the machine. Rows per second of the best trial are measured in turns with those "
    "of the default. Settings of the front have a file each; they were compared in the "
    "search only."
)
SEARCH = (
    "Each trial is one training with one seed. Poor trials are given up early. The "
    "statistical errors are common to all trials, as they are judged on the same rows."
)
COURSE = "Score of each trial on the validation part, and the best one so far."
FRONT_CAPTION = "Score against cost; to trials on the front none is better in both."
PANELS = "Score of the trials against each setting that was searched."
SHARES = "Share of the variation of the score that each setting explains (PED-ANOVA)."
