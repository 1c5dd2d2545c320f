"""One training of a search: its settings, whether it goes on, and its score."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from pidgan.errors import TrainingError
from pidgan.training import families
from pidgan.training.allocator import kept_memory
from pidgan.training.backend import keras, tf
from pidgan.training.callbacks import Callbacks
from pidgan.training.course import Training
from pidgan.training.export_cost import operations
from pidgan.training.loop import XLA_STEPS
from pidgan.training.model import Model
from pidgan.training.pace import Pace
from pidgan.training.record import Progress
from pidgan.training.rows import Rows
from pidgan.training.search.plan import Plan
from pidgan.training.search.scores import mean_with_error, row_scores, row_weights
from pidgan.training.search.storage import Study
from pidgan.training.setup import Setup, with_settings

# Parts of a training after which its losses are compared with those of other trials.
PARTS = 20
_JUDGED, _ERROR = "val_", "_error"


class GivenUp(Exception):  # noqa: N818
    """A trial is worse than most others at the same step."""


def suggest(plan: Plan, trial: Any) -> dict[str, Any]:
    """Return the settings that are searched, as the study chooses them."""
    default, chosen = plan.default, {}
    for name, span in plan.spans.items():
        low, high = span.low, span.high
        if isinstance(default[name], int):
            chosen[name] = trial.suggest_int(name, int(low), int(high), log=span.log)
        else:
            chosen[name] = trial.suggest_float(name, low, high, log=span.log)
    return chosen


def run_trial(
    study: Study,
    plan: Plan,
    setup: Setup,
    rows: Rows,
    *,
    progress: Callable[[Progress], None] | None,
) -> Any:
    """Ask for settings, train and score them, and tell the study; return the trial."""
    trial = study.ask()
    with study.alive(trial):
        settings = plan.settings(suggest(plan, trial))
        began = time.perf_counter()
        try:
            model = _train(plan, setup, settings, trial, progress)
        except GivenUp:
            study.tell(trial, None, "PRUNED")
            return trial
        except TrainingError as error:
            trial.set_user_attr("problem", str(error))
            study.tell(trial, None, "PRUNED")
            return trial
        scores = row_scores(model, rows, plan.metric)
        value, statistical = mean_with_error(scores, row_weights(rows))
        trial.set_user_attr("error", statistical)
        trial.set_user_attr("seconds", time.perf_counter() - began)
        trial.set_user_attr("operations", operations(model))
        if math.isfinite(value):
            study.tell(trial, value)
        else:
            trial.set_user_attr("problem", f"its score is {value}")
            study.tell(trial, None, "PRUNED")
    return trial


@kept_memory()
def _train(
    plan: Plan,
    setup: Setup,
    settings: Mapping[str, Any],
    trial: Any,
    progress: Callable[[Progress], None] | None,
) -> Model:
    keras.utils.set_random_seed(plan.seed % 2**31)
    tf.config.experimental.enable_op_determinism()
    chosen = families.parse_settings(plan.family, settings)
    training = Training(with_settings(setup, chosen))
    training.choose_xla(plan.steps >= XLA_STEPS)
    training.pace = Pace.parse(plan.steps)
    training.run(None, progress, Callbacks([Judge(trial, plan.steps)]))
    return training.model()


class Judge:
    """Reports held-out losses of the first phase, and gives up a poor trial.

    Losses of later phases are measured against what an earlier one has made, so that
    they say little of the whole.
    """

    def __init__(self, trial: Any, steps: int) -> None:
        self.trial, self.steps = trial, steps
        self._names: set[str] = set()

    def __call__(self, step: int, losses: Mapping[str, float]) -> None:
        """Take in the losses at a step."""
        judged = {
            name: value
            for name, value in losses.items()
            if name.startswith(_JUDGED) and not name.endswith(_ERROR)
        }
        self._names = self._names or set(judged)
        part = PARTS * step // self.steps
        if not self._names or set(judged) != self._names or part > PARTS:
            return
        self.trial.report(sum(judged.values()), part)
        if self.trial.should_prune():
            raise GivenUp
