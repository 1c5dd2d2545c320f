"""A budget is kept on a machine that changes, and what it did can be repeated."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.bundle.card import sample_targets
from pidgan.errors import PidganWarning, TrainingError
from pidgan.sample.dataset import Dataset
from pidgan.training import families, loop
from pidgan.training.budget import Budget, Duration
from pidgan.training.course import Training
from pidgan.training.loop import train
from pidgan.training.pace import Pace
from pidgan.training.record import Progress
from pidgan.training.setup import set_up

SMALL = families.Distilled(
    width=8, layers=1, teacher_width=8, teacher_blocks=1, teacher_bins=4, xla=False
)


class Machine:
    """A machine whose time passes only in steps; `slower` is a function of the time."""

    def __init__(self, slower: Callable[[float], float]) -> None:
        self.now, self.slower = 0.0, slower
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    def clock(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds * self.slower(self.now)


@pytest.fixture
def on(kaon_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that trains on a machine, and returns the training."""
    costs = {"teach": 0.02, "distil": 0.01}

    def run(
        machine: Machine,
        budget: float,
        *,
        spent: float = 0.0,
        begin: Pace | None = None,
    ) -> Training:
        def steps_of(_: Training, phase: Any) -> Any:
            def steps(first: int, n: int, *bounds: int) -> dict[str, float]:
                machine.calls.append((phase.name, (first, n, *bounds)))
                for _ in range(n):
                    machine.work(costs[phase.name])
                return {"loss": 1.0}

            return steps

        def watch(*_: Any) -> dict[str, Any]:
            machine.work(0.1)
            return {"loss": np.ones(8)}

        monkeypatch.setattr(Training, "_steps_of", steps_of)
        monkeypatch.setattr("pidgan.training.descents.Descents.watch", watch)
        training = Training(set_up(kaon_dataset, SMALL, seed=1))
        clock = Budget(Duration(budget), spent=spent, clock=machine.clock)
        training.follow(clock, pace=begin)
        machine.calls.clear()
        training.run(None, None)
        return training

    return run


SPEEDS: dict[str, Callable[[float], float]] = {
    "the same": lambda now: 1.0,
    "half the speed from the middle on": lambda now: 1.0 if now < 300 else 2.0,
    "twice the speed from the middle on": lambda now: 1.0 if now < 300 else 0.5,
    "a fifth of the speed for a while": lambda now: 5.0 if 100 < now < 200 else 1.0,
    "busy at first": lambda now: 3.0 if now < 60 else 1.0,
    "busy at the end": lambda now: 1.0 if now < 560 else 2.0,
}


@pytest.mark.parametrize("slower", SPEEDS.values(), ids=SPEEDS)
def test_a_budget_is_kept_with_a_whole_schedule(on: Any, slower: Any) -> None:
    machine = Machine(slower)
    training = on(machine, 600.0)
    assert machine.now == pytest.approx(600, rel=0.15)
    # Both phases have their shares, up to one step of each change of the pace.
    changes = training.pace.changes
    name, (first, n, _, end, start, pace) = machine.calls[-1]
    assert name == "distil"
    assert first + n == end == start + pace == training.pace.steps == training.step
    done = [
        (first - start) / pace for _, (first, _, _, _, start, pace) in machine.calls
    ]
    assert all(a < b for a, b in itertools.pairwise(done))
    assert max(np.diff(done)) < 0.06
    of_teach = [
        d for d, (name, _) in zip(done, machine.calls, strict=True) if name == "teach"
    ]
    assert max(of_teach) < 0.4 <= min(d for d in done if d not in of_teach) + 0.01
    assert (len(changes) == 1) == (slower is SPEEDS["the same"])
    assert len(changes) < 12
    assert Pace.parse(training.pace.text) == training.pace


def test_members_begin_with_the_steps_of_the_first(on: Any) -> None:
    first = on(Machine(lambda now: 1.0), 600.0)
    begin = Pace.parse(first.pace.steps)
    assert on(Machine(lambda now: 1.02), 600.0, begin=begin).pace == begin
    slow = Machine(lambda now: 2.0)
    second = on(slow, 600.0, begin=begin)
    assert second.pace.first == begin.first > 1.8 * second.step
    assert slow.now == pytest.approx(600, rel=0.15)


def test_what_is_left_of_a_budget_is_kept(on: Any) -> None:
    machine = Machine(lambda now: 1.0)
    on(machine, 600.0, spent=450.0)
    assert machine.now == pytest.approx(150, rel=0.15)


@pytest.mark.filterwarnings("ignore:the budget of")
def test_a_plan_repeats_a_training(kaon_dataset: Dataset) -> None:
    seen: list[Progress] = []
    plan = "40,10:24,20:31"
    model = train(kaon_dataset, family=SMALL, steps=plan, progress=seen.append)
    assert (model.card.plan, model.card.steps) == (plan, Pace.parse(plan).steps)
    assert seen[-1].step == seen[-1].steps == model.card.steps

    class Plan(Budget):
        """A budget that changes the pace as a plan says, after any of the steps."""

        def correct(self, pace: int, *, left: float, least: int) -> int:
            return next(steps)

        def expect(self, seconds: float) -> bool:
            return training.step in (10, 20)

    training = Training(set_up(kaon_dataset, SMALL, seed=1))
    steps, training.budget = iter([24, 31]), Plan(Duration(600.0))
    training.pace = Pace.parse(40)
    training._costs = dict.fromkeys(training.descents.phases, 1.0)
    training._next = lambda k, own=training._next: (  # type: ignore[method-assign]
        min(own(k)[0], 10 - training.step % 10),
        own(k)[0] <= 10 - training.step % 10 and own(k)[1],
    )
    loop.keras.utils.set_random_seed(1)
    training.run(None, None)
    assert training.model().card.plan == plan
    x = kaon_dataset.part("test").conditions[:500]
    np.testing.assert_array_equal(
        *(sample_targets(m, x, seed=1) for m in (model, training.model()))
    )


@pytest.mark.parametrize("text", ["", "0", "1,0:3", "5,3:2,3:4", "9,4:0", "a", "1,"])
def test_what_is_no_plan(kaon_dataset: Dataset, text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a number from 1 to .* the plan of"):
        train(kaon_dataset, steps=text)
    with pytest.raises(ValueError, match="no step is left at step 20"):
        train(kaon_dataset, family=SMALL, steps="40,10:12,20:31")


@pytest.mark.parametrize("shares", [(0.4, 1.0), (0.5, 0.9, 1.2)])
def test_a_pace_goes_on_from_where_it_was(shares: tuple[float, ...]) -> None:
    pace = Pace.parse("1000,300:2000,901:77")
    for step, _ in pace.changes[1:]:
        before, after = pace.at(step - 1), pace.at(step)
        coarse = 1 / min(before.pace, after.pace)
        assert after.share_at(step) == pytest.approx(before.share_at(step), abs=coarse)
        assert pace.until_change(step - 1) == 1
    for share in shares:
        place = pace.at(10**6)
        assert place.share_at(place.step_at(share)) == pytest.approx(share, abs=1 / 77)


def test_parts_of_a_schedule_end_one_after_the_other() -> None:
    place = Pace.parse("1000,300:37").at(300)
    step, ends = 300, []
    while step < place.step_at(1.0):
        step = place.next_of(20, step)
        ends.append(step)
    assert ends[-1] == place.step_at(1.0)
    assert len(ends) in (14, 15)  # 0.7 of 20 parts were left, up to a step


def test_a_budget_that_is_used_up_has_a_step_of_each_phase(on: Any) -> None:
    machine = Machine(lambda now: 1.0)
    with pytest.warns(PidganWarning, match="leaves 3 steps after preparing"):
        training = on(machine, 0.01)
    assert training.step == training.last_step <= 3
    assert [name for name, _ in machine.calls] == ["teach", "distil"]


@pytest.mark.parametrize("text", ["90", "1.5h", "10m cpu", "0.1s cpu", " 3 m  cpu "])
def test_a_stored_duration_is_the_same(text: str) -> None:
    found = Duration.parse(text)
    assert found.cpu == ("cpu" in text)
    for part in (found, found.part(1 / 3)):
        assert Duration.parse(json.loads(json.dumps(part.stored))) == part


@pytest.mark.parametrize("text", ["cpu", "10mcpu", "10 cpu m", "10m gpu", "0 cpu"])
def test_what_is_no_time_of_the_processor(text: str) -> None:
    with pytest.raises(ValueError, match="'10m cpu' for the time of the processor"):
        Duration.parse(text)


def test_other_processes_do_not_use_up_the_time_of_the_processor() -> None:
    wall, cpu = (Budget(Duration(5.0, cpu=cpu)) for cpu in (False, True))
    time.sleep(0.3)  # as where another process has the processor
    assert wall.spent >= 0.3
    assert cpu.spent < 0.2
    assert cpu.wait > 5  # the time left is told as time on the wall
    assert wall.after(cpu).spent < wall.spent
    assert Budget(Duration(1.0)).after(cpu).duration == cpu.duration


@pytest.mark.filterwarnings("ignore:the budget of")
def test_a_training_keeps_a_budget_of_the_processor(
    kaon_dataset: Dataset, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"family": SMALL, "directory": tmp_path}
    model = train(kaon_dataset, budget="0.5s cpu", **given)
    assert model.card.steps >= 1
    with pytest.raises(TrainingError, match=r"a budget of 0\.5 s of the processor, wh"):
        train(kaon_dataset, budget=0.5, resume=True, **given)
    again = train(kaon_dataset, budget="0.5s cpu", resume=True, **given)
    assert again.card.steps == model.card.steps
