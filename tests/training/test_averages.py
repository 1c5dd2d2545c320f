"""Averages have no start in them, and the better weights are exported."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.sample.dataset import Dataset
from pidgan.training import families
from pidgan.training.averages import BLOCKS, REACH, Average, HeldOut, Kept, is_worse
from pidgan.training.backend import keras, tf
from pidgan.training.course import Training
from pidgan.training.pace import Pace
from pidgan.training.phases import Descent, Optimizer
from pidgan.training.setup import set_up

LARGE = 0.999999


def followed(values: list[float], *, start: float, momentum: float) -> float:
    """Return the average of weights that had these values after each update."""
    weight = keras.Variable(start)
    average = Average([weight], momentum)
    for done, value in enumerate(values):
        weight.assign(value)
        average.follow(tf.constant(done))
    return float(average.means[0].numpy())


def test_an_average_forgets_the_start() -> None:
    values = [3.0, -1.0, 2.0]
    found = {followed(values, start=s, momentum=LARGE) for s in (0.0, 1e6)}
    assert len(found) == 1
    assert followed(values[:1], start=7.0, momentum=LARGE) == values[0]
    assert min(values) < found.pop() < max(values)


@pytest.mark.parametrize("steps", [30, 300])
def test_an_average_reaches_back_over_a_share_of_the_steps(steps: int) -> None:
    ages = [float(steps - 1 - step) for step in range(steps)]
    mean = followed(ages, start=0.0, momentum=LARGE)
    assert mean == pytest.approx(steps / (REACH + 1), rel=0.1)


def test_a_long_average_has_its_momentum() -> None:
    ages = [float(999 - step) for step in range(1000)]
    mean = followed(ages, start=0.0, momentum=0.98)
    assert mean == pytest.approx(0.98 / 0.02, rel=0.01)


def test_a_difference_within_its_error_does_not_count() -> None:
    rng = np.random.default_rng(1)
    common = 5 * rng.normal(size=BLOCKS)  # of the rows, and the same for both
    noise = rng.normal(size=(400, 2, BLOCKS))
    worse = [is_worse(common + a, common + b) for a, b in noise]
    assert 0.1 < np.mean(worse) < 0.25  # one standard error, with 7 degrees of freedom
    assert all(is_worse(common + a + 9, common + b) for a, b in noise)
    assert not any(is_worse(common + a - 9, common + b) for a, b in noise)
    nothing, nan = np.full(BLOCKS, np.inf), np.full(BLOCKS, np.nan)
    assert not is_worse(common, nothing)
    assert is_worse(nan, common)
    assert not is_worse(nan, nothing)


def exported(kept: Kept, running: float, averaged: float, losses: list) -> float:
    """Judge two values of a weight, of given losses; return what would be exported."""
    (weight,), average = kept.variables, kept.average
    assert average is not None
    weight.assign(running)
    average.means[0].assign(averaged)
    known = dict(zip((running, averaged), losses, strict=True))
    kept.watch(
        lambda: {"loss": known[float(weight.numpy())]}, lambda found: found["loss"]
    )
    assert float(weight.numpy()) == running
    kept.restore()
    found = float(weight.numpy())
    weight.assign(running)
    return found


def one_weight() -> Kept:
    weight = keras.Variable(0.0)
    return Kept([weight], Average([weight], 0.9))


def around(mean: float, seed: int) -> np.ndarray:
    """Return losses in blocks, of a mean with an error of 1 / sqrt(BLOCKS)."""
    noise = np.random.default_rng(seed).normal(size=BLOCKS)
    return mean + (noise - noise.mean()) / noise.std(ddof=1)


def test_averaged_later_and_better_weights_are_taken() -> None:
    kept = one_weight()
    # Nearly equal: the average. It is worse: the last. Both are: those of before.
    assert exported(kept, 2, 1, [around(5, 1), around(5.05, 2)]) == 1
    assert exported(kept, 3, 4, [around(4, 3), around(6, 4)]) == 3
    assert exported(kept, 5, 6, [around(9, 5), around(9, 6)]) == 3
    assert exported(kept, 7, 8, [around(4, 7), around(4.05, 8)]) == 8
    assert exported(kept, 9, 10, [np.full(BLOCKS, np.nan)] * 2) == 8


def test_weights_that_must_gain_are_better_by_more_than_the_error() -> None:
    weight = keras.Variable(0.0)
    kept = Kept([weight], Average([weight], 0.9), must_gain=True)
    assert exported(kept, 1, 2, [around(5, 1), around(9, 2)]) == 1
    # Better by less than the error, worse, and better by more than that.
    assert exported(kept, 3, 4, [around(4.9, 3), around(4.9, 4)]) == 1
    assert exported(kept, 5, 6, [around(6, 5), around(6, 6)]) == 1
    assert exported(kept, 7, 8, [np.full(BLOCKS, np.nan)] * 2) == 1
    assert exported(kept, 9, 10, [around(3, 7), around(9, 8)]) == 9
    assert exported(kept, 11, 12, [around(3, 7), around(9, 8)]) == 9


def test_many_small_steps_to_the_worse_are_one_large_one() -> None:
    kept = one_weight()
    found = [
        exported(kept, k, 100 + k, [around(0.1 * k, k), around(99, 0)])
        for k in range(40)
    ]
    # Each is worse than the one before by 0.1, with an error of 0.5 or less.
    assert found[:2] == [0, 1]
    assert 2 <= found[-1] < 15


def test_an_average_needs_a_judge() -> None:
    with pytest.raises(ValueError, match="an average needs held_out"):
        Descent([], Optimizer(1e-3, average=0.9))


def test_recorded_losses_are_those_of_the_exported_weights(
    kaon_dataset: Dataset,
) -> None:
    energy = families.Energy(width=8, blocks=1, samples=2, batch_size=64)
    training = Training(set_up(kaon_dataset, energy, seed=1))
    training.pace = Pace.parse(12)
    training.run(None, None)
    (descent, _) = training.descents.phases[0].descents
    assert descent.held_out is not None
    again = training.held_out.losses(descent.held_out)()
    value, error = training.record.shown["score"]
    assert again["score"].mean() == pytest.approx(value, rel=1e-5)
    history = training.model().history
    assert history["validation_score"][-1] == value
    assert history["validation_score_error"][-1] == error > 0
    assert value < history["validation_score"][0]


@pytest.mark.parametrize(
    ("rows", "trained", "block_rows"),
    [(8000, 1e9, 512), (8000, 1e5, 23), (150, 1e9, 18), (150, 1e2, 16), (5, 1e9, 1)],
)
def test_rows_that_judge_are_those_that_a_training_affords(
    rows: int, trained: float, block_rows: int
) -> None:
    class Some:
        arrays = {"w": tf.ones(rows)}  # noqa: RUF012

    found = HeldOut.of(Some(), trained=trained, batch_size=512, seed=1)  # type: ignore[arg-type]
    assert found.block_rows == block_rows
    assert 8 <= found.watches <= 20
