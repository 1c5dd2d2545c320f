"""A search for the settings of a family that describe a sample best."""

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pidgan.arguments import checked
from pidgan.bundle.bundle import open_bundle
from pidgan.errors import DatasetError, PidganError, TrainingError
from pidgan.files.documents import read_json
from pidgan.files.places import check_folder_name, check_output
from pidgan.progress import training_progress
from pidgan.report.family_comparison import measure_speed
from pidgan.report.tuned import TrialRecord, Tuning
from pidgan.sample.dataset import Dataset, PartName
from pidgan.sample.sampling import count_rows
from pidgan.training import families
from pidgan.training.budget import Budget, Duration
from pidgan.training.course import Training
from pidgan.training.families.default import default_name
from pidgan.training.loop import XLA_SECONDS
from pidgan.training.record import Progress
from pidgan.training.search.comparison import SIDES, Comparison
from pidgan.training.search.plan import (
    DEFAULT_BUDGET,
    FULL_TRIALS,
    LEAST_STEPS,
    LONGER,
    Plan,
    join,
    make_plan,
    publish,
    searched,
)
from pidgan.training.search.scores import choose_metric, judged_part, judged_rows
from pidgan.training.search.storage import Study, optuna
from pidgan.training.search.trials import run_trial
from pidgan.training.setup import Setup, set_up

STUDY = "search"
MOST_ROWS = 10_000  # of the validation part, by which trials are compared
LEAST_ROWS = 100  # of the validation and of the test part
POLL_SECONDS, BEGIN_POLLS = 2.0, 5
SPEED_TURNS = 5
LEAST_IMPORTANCE = 10  # trials from which the importance of settings is found

Show = Callable[[str, Progress], None] | None


@checked
def tune(
    dataset: Dataset | str | Path,
    directory: str | Path,
    *,
    family: str | None = None,
    metric: Literal["likelihood", "energy"] | None = None,
    budget: str | float | None = None,
    trials: int | None = None,
    trial_budget: str | float | None = None,
    trial_steps: int | None = None,
    seeds: int = 3,
    settings: Mapping[str, Any] | None = None,
    seed: int = 1,
    progress: Callable[[str, Progress], None] | bool | None = True,
) -> Tuning:
    """Search the settings of a family, and compare the best ones with the default.

    Trials are trainings on the training part, the first one with the default settings.
    They are compared on the validation part, and poor ones are given up early. At the
    end, the default and the best settings are trained anew with other seeds, twice as
    long, and compared on the test part, of which the search has not seen a row. The
    best settings are chosen where they are better by more than chance would give;
    otherwise the default is.

    Any number of processes, jobs or Dask workers that call this with the same folder
    share one search: a call joins what is there, and continues what was interrupted.

    Args:
        dataset: Dataset from `build_dataset`, or its folder.
        directory: Folder of the search, which is made, joined or continued.
        family: Name of the family; the one that `train` takes by default.
        metric: "likelihood" of the generator on rows not trained on, the default for
            families that have one, or "energy", the energy score.
        budget: Wall-clock time of this process for everything; "30m" if neither this
            nor `trials` is given.
        trials: Number of trials of the search, of all processes together.
        trial_budget: Time of a trial with the default settings, which becomes its
            number of steps; by default the 32nd part of the budget.
        trial_steps: Number of steps of a trial instead. With one process, it and the
            seed repeat a search.
        seeds: Number of seeds of the comparison at the end.
        settings: Settings by name that are not searched, with their values.
        seed: Seed of the search and of its trials.
        progress: Whether bars, or lines of a log, are shown; or a function that is
            called with the name of a training and its progress.

    Returns:
        The outcome, which is also written to the folder: settings.toml for
        `train(settings=...)`, tuning.json, report.html, bundles of the default and of
        the best settings, and the settings on the front of quality and speed.

    Raises:
        PidganError: The folder holds another search, the family has no such setting or
            metric, or no trial ends.
        DatasetError: There are too few rows to compare.

    Example:
        >>> found = tune("kaon", "kaon-tuning", budget="1h")        # doctest: +SKIP
        >>> train("kaon", settings="kaon-tuning/settings.toml")     # doctest: +SKIP
    """
    optuna()
    folder, began = Path(directory), time.perf_counter()
    if trial_budget is not None and trial_steps is not None:
        raise ValueError("give trial_budget or trial_steps, not both")
    duration = None if budget is None else Duration.parse(budget)
    each = None if trial_budget is None else Duration.parse(trial_budget)
    for time_given in (duration, each):
        if time_given is not None and time_given.cpu:
            raise ValueError(f"{time_given.text()}: expected wall-clock time")
    if duration is None and trials is None:
        duration = Duration(DEFAULT_BUDGET)
    opened = Dataset.open(dataset)
    name = _check(opened, family)
    kind = choose_metric(metric, name)
    fixed = families.check_settings(name, settings or {})
    searched(name, fixed)
    check_output(folder)
    check_folder_name(folder)
    default = families.parse_settings(name, fixed)
    wanted = {"dataset": opened.info["hash"], "family": name, "metric": kind}
    wanted |= {"fixed": fixed, "seed": seed, "seeds": seeds, "steps": trial_steps}

    with training_progress(progress, named=True) as told:
        setup = set_up(opened, default, seed=seed)

        def make() -> Plan:
            whole = duration or Duration(DEFAULT_BUDGET)
            parts = (trials or FULL_TRIALS) + 2 * seeds * LONGER
            steps = trial_steps or _steps_of(setup, each or whole.part(1 / parts))
            own: Any = {"fixed": fixed, "seed": seed, "seeds": seeds}
            return make_plan(opened, family=name, metric=kind, steps=steps, **own)

        plan = join(folder, wanted, make)
        clock = _Clock(began, duration)
        study = Study(folder, STUDY, seed=seed)
        _search(study, plan, setup, most=trials, clock=clock, told=told)
        found = _compare(folder, plan, opened, study, told)
    found.save(folder)
    return found


def _check(dataset: Dataset, family: str | None) -> str:
    """Return the name of the family, or raise what stands in the way of a search."""
    if dataset.sample.links:
        raise TrainingError(
            f"{dataset.sample.name!r} is a chain, whose links have settings of their "
            "own; a search is for one of its links"
        )
    parts: tuple[PartName, ...] = ("validation", "test")
    for part in parts:
        n = count_rows(dataset, part)
        if n < LEAST_ROWS:
            raise DatasetError(
                f"the {part} part has {n} rows, and a search expects at least "
                f"{LEAST_ROWS}; prepare the dataset with other shares"
            )
    name = family or default_name(dataset)
    return families.choose_name(name, None, dataset.sample)


class _Clock:
    """The time of this process; no new trial begins that would not leave enough."""

    def __init__(self, began: float, duration: Duration | None) -> None:
        self._began, self._duration = began, duration
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        """Take in the time of a trial."""
        self._longest = max(self._longest, seconds)

    def has_time(self, seeds: int) -> bool:
        """Return whether a trial, and the comparison after it, would end in time."""
        if self._duration is None:
            return True
        needed = self._longest * (1 + 2 * seeds * LONGER)
        return time.perf_counter() - self._began + needed <= self._duration.seconds


def _steps_of(setup: Setup, duration: Duration) -> int:
    """Return the number of steps of the default settings that fit into a time."""
    training = Training(setup)
    training.choose_xla(duration.seconds >= XLA_SECONDS)
    with warnings.catch_warnings():
        # That the generator of a short training is poor is not what matters here.
        warnings.simplefilter("ignore")
        training.follow(Budget(duration), pace=None)
    return max(LEAST_STEPS, training.pace.steps)


def _search(
    study: Study,
    plan: Plan,
    setup: Setup,
    *,
    most: int | None,
    clock: _Clock,
    told: Show,
) -> None:
    """Run trials until there are enough or no time; wait for other processes."""
    rows = None
    _begin(study, plan)
    while True:
        study.fail_stale()
        waits = bool(study.trials("WAITING"))
        enough = most is not None and study.begun >= most
        if waits or not (enough or not clock.has_time(plan.seeds)):
            name = f"trial {len(study.trials()) - waits}"
            show = told and partial(told, name)
            start = time.perf_counter()
            if rows is None:
                model = setup.model(setup.settings, steps=0, history={})
                part = judged_part(setup.dataset, "validation", MOST_ROWS)
                rows = judged_rows(model, part)
            run_trial(study, plan, setup, rows, progress=show)
            clock.add(time.perf_counter() - start)
        elif study.trials("RUNNING"):
            time.sleep(POLL_SECONDS)
        else:
            break
    if not study.trials("COMPLETE"):
        problems = [t.user_attrs.get("problem") for t in study.trials("PRUNED")]
        why = next((p for p in problems if p), "all were interrupted")
        raise PidganError(f"{study.folder}: no trial ended; {why}")


def _begin(study: Study, plan: Plan) -> None:
    """Make the default the first trial, once."""
    mine = publish(study.folder / "default.json", {"settings": plan.default})
    for _ in range(0 if mine else BEGIN_POLLS):
        if any(trial.user_attrs.get("default") for trial in study.trials()):
            return
        time.sleep(POLL_SECONDS)  # the process that made the file is about to do it
    study.enqueue({k: plan.default[k] for k in plan.spans}, default=True)


def _compare(
    folder: Path, plan: Plan, dataset: Dataset, study: Study, told: Show
) -> Tuning:
    """Compare the best trial with the default, and return the outcome."""
    best = study.best
    records = tuple(map(_record, study.trials()))
    facts: dict[str, Any] = {"plan": plan, "trials": records, "best": best.number}
    facts["importance"] = _importance(study, plan)
    if best.user_attrs.get("default"):
        own: dict[str, Any] = {"difference": None, "speeds": {}}
        return Tuning(chosen=plan.default, is_better=False, **own, **facts)
    comparison = Comparison(folder, plan, dataset, best)
    show = told and partial(told, "comparison")
    while not comparison.is_done:
        if not comparison.do_next(progress=show):
            time.sleep(POLL_SECONDS)
    difference = comparison.result()
    better = difference.is_better
    return Tuning(
        chosen=comparison.settings if better else plan.default,
        is_better=better,
        difference=difference,
        speeds=_speeds(comparison),
        **facts,
    )


def _record(trial: Any) -> TrialRecord:
    known = trial.user_attrs
    state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
    own: dict[str, Any] = {}
    if state == "complete":
        names = ("error", "seconds", "operations")
        own = {"score": trial.value, **{name: known[name] for name in names}}
    return TrialRecord(
        number=trial.number,
        state=state,
        settings=dict(trial.params),
        is_default=bool(known.get("default")),
        problem=str(known.get("problem", "")),
        **own,
    )


def _importance(study: Study, plan: Plan) -> dict[str, float]:
    """Return the share of each setting in the variation of the score, if known."""
    if len(study.trials("COMPLETE")) < LEAST_IMPORTANCE:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = study.optuna.importance.PedAnovaImportanceEvaluator()
        found = study.optuna.importance.get_param_importances(
            study.study, evaluator=evaluator
        )
    return {name: float(value) for name, value in found.items() if name in plan.spans}


def _speeds(comparison: Comparison) -> dict[str, float]:
    """Return rows per second of both bundles, measured in turns, once and for all."""
    paths = [comparison.bundle(side) for side in SIDES]
    if not all(path.is_file() for path in paths):
        return {}
    path = paths[1].with_name(f"{paths[1].stem}-speed.json")
    if not path.is_file():
        bundles = [open_bundle(path) for path in paths]
        turns = [[measure_speed(b) for b in bundles] for _ in range(SPEED_TURNS)]
        default, best = np.array(turns).T
        ratios = best / default
        found = dict(zip(SIDES, (np.median(default), np.median(best)), strict=True))
        found |= {"ratio": np.median(ratios), "error": _error_of_median(ratios)}
        publish(path, {"speeds": {k: float(v) for k, v in found.items()}})
    speeds: dict[str, float] = read_json(path, error=PidganError)["speeds"]
    return speeds


def _error_of_median(values: Any) -> float:
    """Return the error of the median of a few values, as of normal ones."""
    return float(1.2533 * np.std(values, ddof=1) / np.sqrt(len(values)))
