"""A search for settings: spans, scores, the shared study, and the honest end of it."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pidgan.files.leftovers import has_ended, this_run
from pidgan.training.families import RANGES, TABLE, describe_family, spans_of


@pytest.mark.parametrize("name", TABLE)
def test_every_default_is_inside_its_span(name: str) -> None:
    spans = spans_of(name)
    defaults = {s.name: s.default for s in describe_family(name).settings}
    assert 3 <= len(spans) <= 12
    for setting, span in spans.items():
        assert span.low < span.high
        assert span.low <= defaults[setting] <= span.high
        assert span.low > 0 or not span.log
        if span.rest:
            assert defaults[setting] + defaults[span.rest] == pytest.approx(1)
        if TABLE[name].targets == "variables":
            least, most = RANGES[setting]
            assert least <= span.low < span.high <= most


def test_a_run_knows_whether_another_one_has_ended() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from pidgan.files.leftovers import this_run; print(this_run())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert has_ended(done.stdout.strip())
    assert not has_ended(this_run())
    assert not has_ended("elsewhere-17-12345678-99")
    assert not has_ended("")


# Scores


def _batch(y: np.ndarray, n_targets: int = 1):
    from pidgan.training.backend import tf

    n = len(y)
    x = np.zeros((n, 2), dtype=np.float32)
    free, pattern = np.ones((n, n_targets)), np.zeros((n, 0))
    arrays = {"x": x, "y": y, "free": free, "pattern": pattern}
    return {k: tf.constant(v, dtype=tf.float32) for k, v in arrays.items()}


@pytest.mark.parametrize("family", ["distilled", "flow"])
def test_the_likelihood_is_that_of_a_density(family: str) -> None:
    """Its integral is 1, and of generated rows it is that of a histogram."""
    pytest.importorskip("tensorflow")
    from pidgan.training.backend import tf
    from pidgan.training.families import build_family, parse_settings
    from pidgan.training.networks.perceptrons import Shape
    from pidgan.training.search import scores

    shape = Shape(n_conditions=2, n_patterns=0, n_targets=1)
    generator = build_family(parse_settings(family, {}), shape=shape, seed=1).generator
    for variable in generator.variables:  # a shape that is no normal distribution
        noise = tf.random.stateless_normal(variable.shape, seed=(3, 4)) * 0.04
        variable.assign_add(noise)
    y = np.linspace(-12, 12, 3001, dtype=np.float32)[:, None]
    density = np.exp(np.asarray(scores._density_of(generator)(_batch(y))))[:, 0]
    assert np.trapezoid(density, y[:, 0]) == pytest.approx(1, abs=0.01)
    n = 40_000
    noise = tf.random.stateless_normal((n, 1), seed=(1, 2))
    made = generator({"conditions": tf.zeros((n, 2)), "noise": noise})
    counts, edges = np.histogram(np.asarray(made)[:, 0], 30, range=(-3, 3))
    below = np.cumsum(density) * (y[1, 0] - y[0, 0])
    expected = np.diff(np.interp(edges, y[:, 0], below)) * n
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected + 1) + 0.02 * counts)


@pytest.mark.parametrize("difference", [0.0, -0.2])
def test_the_best_settings_are_taken_only_if_they_are_better(difference: float) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.search.comparison import compare_scores

    rng = np.random.default_rng(5)
    n, seeds, searches = 400, 3, 300
    weights = np.where(rng.uniform(size=n) < 0.3, -0.5, 1.2)
    taken, pulls = 0, []
    for _ in range(searches):
        rows = rng.normal(size=n)  # common to both
        each = [rng.normal(0, 0.02, (seeds, 1)) for _ in range(2)]
        own = [rng.normal(0, 0.3, (seeds, n)) for _ in range(2)]
        default, best = (rows + s + o for s, o in zip(each, own, strict=True))
        found = compare_scores(default, best + difference, weights)
        taken += found.is_better
        pulls.append((found.difference - difference) / found.error)
    assert found.rows == n
    assert found.seeds == seeds
    assert (taken > 0.95 * searches) if difference else (taken < 0.05 * searches)
    assert 0.6 < np.std(pulls) < 1.15  # the error is not too small


def test_settings_that_do_not_train_are_not_better() -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.search.comparison import compare_scores

    scores, weights = np.zeros((2, 50)), np.ones(50)
    assert not compare_scores(scores, np.full((2, 50), np.nan), weights).is_better
    assert not compare_scores(scores, scores, weights).is_better


def test_a_second_comparison_has_to_be_better_by_more() -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.search.comparison import compare_scores

    default, best = np.random.default_rng(1).normal(size=(2, 3, 500))
    first, second = (
        compare_scores(default, best, np.ones(500), comparisons=n) for n in (1, 2)
    )
    assert second.limit < first.limit < 0
    assert second.error == first.error


def test_operations_are_those_of_the_networks(kaon_model) -> None:
    from pidgan.training.export_cost import operations

    kernels = [np.prod(k.shape[1:]) for k in kaon_model.generator.networks.kernels]
    d = kaon_model.generator.shape.n_targets
    most = 2 * d * sum(kernels)
    found = operations(kaon_model)
    assert 0.5 * most < found < 2 * most
    assert operations(kaon_model) == found


# The study


@pytest.fixture
def study(tmp_path: Path):
    pytest.importorskip("optuna")
    from pidgan.training.search.storage import Study

    def opened(name: str = "search", seed: int = 1) -> Study:
        return Study(tmp_path, name, seed=seed)

    return opened


def _try(study) -> None:
    trial = study.ask()
    with study.alive(trial):
        x, n = trial.suggest_float("x", 1e-3, 1, log=True), trial.suggest_int("n", 1, 9)
        study.tell(trial, (np.log(x) + 3) ** 2 + n)


def test_a_search_that_is_continued_has_the_same_trials(study, tmp_path) -> None:
    whole = study("whole")
    for _ in range(14):
        _try(whole)
    for _ in range(7):
        part = study("part")  # as another process that comes later
        _try(part)
        _try(part)
    params = [[t.params for t in s.trials()] for s in (whole, part)]
    assert params[0] == params[1]
    assert len({tuple(p.values()) for p in params[0]}) > 7
    assert study("whole").best.value == min(t.value for t in whole.trials())
    other = study("other", seed=2)
    _try(other)
    assert other.trials()[0].params != params[0][0]


def test_a_trial_of_a_dead_process_is_done_again(study) -> None:
    mine = study()
    mine.enqueue({"x": 0.5, "n": 3}, default=True)
    alive = mine.ask()
    alive.suggest_float("x", 1e-3, 1, log=True)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from pathlib import Path\n"
            "from pidgan.training.search.storage import Study\n"
            f"study = Study(Path({str(mine.folder)!r}), 'search', seed=1)\n"
            "trial = study.ask()\n"
            "trial.suggest_float('x', 1e-3, 1, log=True); print(trial.number)\n"
            "with study.alive(trial):\n"
            "    sys.stdout.flush(); os._exit(9)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    dead = int(done.stdout)
    assert len(mine.trials("RUNNING")) == 2
    assert mine.fail_stale() == [dead]
    assert mine.fail_stale() == []
    assert [t.number for t in mine.trials("RUNNING")] == [alive.number]
    again = mine.ask()
    assert again.user_attrs["again"] == dead
    assert (
        again.suggest_float("x", 1e-3, 1, log=True) == mine.trials()[dead].params["x"]
    )
    mine.tell(alive, 1.0)
    mine.tell(again, 2.0)
    mine.tell(again, 3.0)  # told twice, the first counts
    assert [t.value for t in mine.trials("COMPLETE")] == [1.0, 2.0]


def test_a_silent_process_elsewhere_loses_its_trial(study, monkeypatch) -> None:
    from pidgan.training.search import storage

    mine = study()
    trial = mine.ask()
    trial.set_user_attr("run", "elsewhere-17-12345678-99")
    with mine.alive(trial):
        assert mine.fail_stale() == []
        monkeypatch.setattr(storage, "SILENCE", -1.0)
        assert mine.fail_stale() == [trial.number]


def test_a_poor_trial_is_given_up(study) -> None:
    from pidgan.training.search.trials import GivenUp, Judge

    mine = study()

    def run(level: float) -> int:
        trial = mine.ask()
        trial.suggest_float("x", 0, 1)
        judge = Judge(trial, 100)
        for step in range(0, 60, 5):
            judge(step, {"val_likelihood": level - step, "likelihood": 9.0})
        judge(80, {"val_distance": 1e9})  # of another phase
        mine.tell(trial, level)
        return step

    for level in (5.0, 4.0, 3.0, 2.0, 1.0, 0.0):
        assert run(level) == 55
    with pytest.raises(GivenUp):
        run(100.0)
    assert run(1.5) == 55


def test_processes_share_a_study(study) -> None:
    mine = study()
    code = (
        "from pathlib import Path; from pidgan.training.search.storage import Study\n"
        f"study = Study(Path({str(mine.folder)!r}), 'search', seed=1)\n"
        "for _ in range(5):\n"
        "    trial = study.ask(); trial.suggest_float('x', 0, 1)\n"
        "    study.tell(trial, 1.0)\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    trials = mine.trials("COMPLETE")
    assert sorted(t.number for t in trials) == list(range(10))
    assert len({t.params["x"] for t in trials}) == 10


def test_a_comparison_that_was_begun_and_left_is_done(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.search import comparison
    from pidgan.training.search.storage import Study

    plan: Any = SimpleNamespace(seed=1, seeds=2, settings=dict, default={}, metric="")

    def began(number: int) -> comparison.Comparison:
        best = SimpleNamespace(number=number, params={"width": 8})
        return comparison.Comparison(tmp_path, plan, None, best)  # type: ignore[arg-type]

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Study, "enqueue", end)
        with pytest.raises(KeyboardInterrupt):
            began(3)
    done = []

    def train(self: Any, side: str, number: int, _: object) -> None:
        done.append((side, number))
        np.save(self._place(side, number), np.array([[1.0, 2.0], [1.0, 1.0]]))

    monkeypatch.setattr(comparison.Comparison, "_train", train)
    again = began(3)
    calls = [again.do_next(progress=None) for _ in range(comparison.IDLE_CALLS + 5)]
    assert again.is_done
    assert calls.count(True) == len(done) == len(set(done)) == 4
    assert again.result().comparisons == 1
    other = began(12)  # the trainings of the default are there
    while not other.is_done:
        assert other.do_next(progress=None)
    assert done[4:] == [("best", 0), ("best", 1)]
    assert other.result().comparisons == 2


def test_a_plan_is_written_once(tmp_path: Path) -> None:
    from pidgan.training.search.plan import publish

    assert publish(tmp_path / "a.json", {"x": 1})
    assert not publish(tmp_path / "a.json", {"x": 2})
    assert '"x": 1' in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_shares_sum_to_one_in_every_trial() -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.search.plan import make_plan

    dataset = SimpleNamespace(
        sample=SimpleNamespace(name="toy"), info={"hash": "0" * 64}
    )
    own = {"family": "distilled", "metric": "likelihood", "seed": 1, "seeds": 2}
    plan = make_plan(dataset, fixed={}, steps=10, **own)
    found = plan.settings({"teach": 0.25, "width": 30})
    assert (found["teach"], found["distil"], found["width"]) == (0.25, 0.75, 30)
    fixed = make_plan(dataset, fixed={"distil": 0.5}, steps=10, **own)
    assert "teach" not in fixed.spans
    assert dataclasses.asdict(plan)["seeds"] == 2
