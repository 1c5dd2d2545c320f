"""The study of a search, in a file that any number of processes share.

The file is a journal of Optuna, to which processes append. It needs no database and no
locks of the file system, and may lie on a network file system. A process that runs a
trial gives signs of life; a trial whose process has ended, or has given none for
`SILENCE` seconds, is failed by whoever sees it, and done again.
"""

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.errors import PidganError
from pidgan.files.beats import beating
from pidgan.files.leftovers import has_ended, this_run

JOURNAL = "study.journal"
BEAT_SECONDS, SILENCE = 15.0, 180.0
# Random trials at first, besides the default; then those of a model of what is good.
RANDOM_TRIALS = 8
# A trial is given up in the worst part, compared with others at the same step.
WORST_PERCENT, TRIALS_BEFORE_PRUNING, STEPS_BEFORE_PRUNING = 25.0, 5, 8
_RUN = "run"  # attribute of a trial: the run of its process


def optuna() -> Any:
    """Return the module optuna, which only warns."""
    try:
        import optuna as module
    except ModuleNotFoundError:
        raise PidganError(
            'a search needs optuna: pip install ".[tune]" in the source tree'
        ) from None
    module.logging.set_verbosity(module.logging.ERROR)
    return module


class Study:
    """A named study of a folder, as one process sees it."""

    def __init__(self, folder: Path, name: str, *, seed: int) -> None:
        self.folder, self.name = folder, name
        self.optuna = optuna()
        journal = self.optuna.storages.journal
        backend = journal.JournalFileBackend(str(folder / JOURNAL))
        self.storage = self.optuna.storages.JournalStorage(backend)
        pruner = self.optuna.pruners.PercentilePruner(
            100 - WORST_PERCENT,
            n_startup_trials=TRIALS_BEFORE_PRUNING,
            n_warmup_steps=STEPS_BEFORE_PRUNING,
        )
        self.study = self.optuna.create_study(
            storage=self.storage,
            study_name=name,
            sampler=_sampler(self.optuna, seed),
            pruner=pruner,
            load_if_exists=True,
        )
        self.beats = folder / "beats"
        self.beats.mkdir(exist_ok=True)

    def trials(self, *states: str) -> list[Any]:
        """Return all trials, or those of some states."""
        known = [self.optuna.trial.TrialState[name] for name in states]
        found = self.study.get_trials(deepcopy=False)
        return [t for t in found if not states or t.state in known]

    @property
    def all_names(self) -> list[str]:
        """Names of all studies in the folder."""
        found: list[str] = self.optuna.get_all_study_names(self.storage)
        return found

    @property
    def begun(self) -> int:
        """Number of trials that are done, given up, or running."""
        return len(self.trials("COMPLETE", "PRUNED", "RUNNING"))

    @property
    def best(self) -> Any:
        """The best trial that is done; the earlier one of equal ones."""
        return min(self.trials("COMPLETE"), key=lambda t: (t.value, t.number))

    def enqueue(self, params: Mapping[str, Any], **attributes: Any) -> None:
        """Put a trial on the list, to be done next."""
        with _without_warnings():
            self.study.enqueue_trial(dict(params), user_attrs=attributes)

    def ask(self) -> Any:
        """Return a trial to run, the next one on the list or a new one."""
        with _without_warnings():
            trial = self.study.ask()
        trial.set_user_attr(_RUN, this_run())
        return trial

    def tell(self, trial: Any, value: float | None, state: str = "COMPLETE") -> None:
        """Say how a trial ended."""
        with _without_warnings(), contextlib.suppress(ValueError):
            # Another process may have taken it for dead, and done it again.
            self.study.tell(trial, value, state=self.optuna.trial.TrialState[state])

    @contextlib.contextmanager
    def alive(self, trial: Any) -> Iterator[None]:
        """Give signs of life of a trial while a block lasts."""
        place = self._beat(trial.number)
        place.touch()

        def beat() -> None:
            with contextlib.suppress(OSError):
                place.touch()

        try:
            with beating(beat, BEAT_SECONDS):
                yield
        finally:
            with contextlib.suppress(OSError):
                place.unlink()

    def fail_stale(self) -> list[int]:
        """Fail trials whose process is gone, put them on the list, return them."""
        found = []
        for trial in self.trials("RUNNING"):
            if not self._is_stale(trial):
                continue
            try:
                fail = self.optuna.trial.TrialState.FAIL
                self.storage.set_trial_state_values(trial._trial_id, state=fail)
            except self.optuna.exceptions.UpdateFinishedTrialError:
                continue
            with contextlib.suppress(OSError):
                self._beat(trial.number).unlink()
            attributes = {k: v for k, v in trial.user_attrs.items() if k != _RUN}
            params = trial.params or trial.system_attrs.get("fixed_params", {})
            self.enqueue(params, **{**attributes, "again": trial.number})
            found.append(trial.number)
        return found

    def _is_stale(self, trial: Any) -> bool:
        run = trial.user_attrs.get(_RUN)
        if run == this_run():
            return False
        if run is not None and has_ended(run):
            return True
        now = self._now()
        try:
            last = self._beat(trial.number).stat().st_mtime
        except OSError:
            last = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            now = time.time()
        return now - last > SILENCE

    def _now(self) -> float:
        """Return the time of the file system, which may not be that of the machine."""
        place = self.beats / f"{self.name}-now"
        place.touch()
        return place.stat().st_mtime

    def _beat(self, number: int) -> Path:
        return self.beats / f"{self.name}-{number}"


def _sampler(optuna: Any, seed: int) -> Any:
    """Return a sampler whose trials follow from the seed, their number and the others.

    So a search that is interrupted and continued has the trials of one that is not.
    """

    class ByNumber(optuna.samplers.BaseSampler):  # type: ignore[misc]
        def __init__(self) -> None:
            self._known: dict[int, Any] = {}

        def _of(self, trial: Any) -> Any:
            if trial.number not in self._known:
                own = np.random.SeedSequence([seed, trial.number]).generate_state(1)[0]
                with _without_warnings():
                    self._known = {
                        trial.number: optuna.samplers.TPESampler(
                            seed=int(own),
                            multivariate=True,
                            constant_liar=True,
                            n_startup_trials=1 + RANDOM_TRIALS,
                        )
                    }
            return self._known[trial.number]

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self._of(trial).infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, space: Any) -> Any:
            return self._of(trial).sample_relative(study, trial, space)

        def sample_independent(self, study: Any, trial: Any, *given: Any) -> Any:
            return self._of(trial).sample_independent(study, trial, *given)

    return ByNumber()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence what optuna says of features that are new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
