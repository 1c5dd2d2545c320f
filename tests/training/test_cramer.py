"""The losses of the Cramér GAN paper, and what they are minimal for."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.sample.dataset import Dataset
from pidgan.training.backend import tf
from pidgan.training.course import Training
from pidgan.training.families import Cramer
from pidgan.training.families.cramer import (
    critic_loss,
    generator_loss,
    zero_penalty,
)
from pidgan.training.networks import per_coordinate as student
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.networks.updates import cosine
from pidgan.training.pace import Pace
from pidgan.training.setup import set_up

N = 20_000


def _normal(seed: int, mean: float = 0.0) -> tf.Tensor:
    values = np.random.default_rng(seed).normal(mean, 1, (N, 2))
    return tf.constant(values, dtype=tf.float32)


def _loss(mean: float, weights: np.ndarray | None = None) -> float:
    w = tf.constant(np.ones(N) if weights is None else weights, dtype=tf.float32)
    return float(generator_loss(_normal(1), _normal(2, mean), _normal(3, mean), w))


def test_generator_loss_is_least_for_the_true_distribution() -> None:
    assert _loss(0.0) < _loss(0.3) < _loss(1.0)


def test_generator_loss_follows_the_weights_linearly() -> None:
    once = _loss(0.5)
    assert _loss(0.5, np.full(N, -2.0)) == pytest.approx(-2 * once, rel=1e-5)


def test_critic_loss_vanishes_where_nothing_can_be_told_apart() -> None:
    w = tf.ones(N)
    same = float(critic_loss(_normal(1), _normal(2), _normal(3), w))
    apart = float(critic_loss(_normal(1), _normal(2, 3.0), _normal(3, 3.0), w))
    assert abs(same) < 0.02
    assert apart < -1


def test_losses_equal_the_paper_on_one_row() -> None:
    h_r, h_g, h_g2 = (tf.constant([[v]]) for v in (3.0, 1.0, -2.0))
    w = tf.constant([1.0])
    # |3-1| + |3+2| - |1+2| and -((|3+2| - |3|) - (|1+2| - |1|))
    assert float(generator_loss(h_r, h_g, h_g2, w)) == pytest.approx(4.0, abs=1e-4)
    assert float(critic_loss(h_r, h_g, h_g2, w)) == pytest.approx(0.0, abs=1e-4)


def test_what_is_taught_at_known_coordinates_is_what_is_generated(monkeypatch) -> None:
    monkeypatch.setattr(student, "JITTER", 0.0)
    shape = Shape(
        n_conditions=2, n_patterns=2, n_targets=3, free=((1, 1, 1), (1, 0, 1))
    )
    generator = student.OnePassGenerator(shape=shape, width=8, layers=2, seed=1)
    rng = np.random.default_rng(2)
    for variable in generator.variables:
        variable.assign(rng.normal(size=variable.shape))
    x, noise = rng.normal(size=(50, 2)), rng.normal(size=(50, 3))
    pattern = np.eye(2)[rng.integers(0, 2, 50)]
    rows = {"conditions": x, "pattern": pattern, "noise": noise}
    y = generator(rows)
    batch = {"x": x, "pattern": pattern, "y": y, "free": pattern @ np.array(shape.free)}
    batch = {key: tf.cast(value, tf.float32) for key, value in batch.items()}
    z = tf.constant(noise, dtype=tf.float32)
    taught = generator.respond(batch, z, tf.transpose(z), seed=[1, 2])
    expected = tf.transpose(taught) * batch["free"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_slopes_at_real_and_generated_targets_are_penalised() -> None:
    """f = 2 y_1 + y_2^2 has the squared slope 4 + 4 y_2^2, which is 8 on average."""

    def f_at(y: tf.Tensor) -> tf.Tensor:
        return 2 * y[:, 0] + y[:, 1] ** 2

    found = float(zero_penalty(f_at, _normal(1), _normal(2)))
    assert found == pytest.approx(16, abs=0.3)


SMALL = {"width": 8, "layers": 2, "teacher_width": 8, "teacher_blocks": 1}
GAME = {"critic_width": 8, "critic_output": 8, "batch_size": 64, "xla": False}


@pytest.fixture(scope="module")
def played(kaon_dataset: Dataset) -> tuple[dict[str, list[np.ndarray]], Training]:
    """Return the generator's weights at the end of each phase, and the training."""
    family = Cramer(**SMALL, **GAME, warm=0.4, play=0.4, learning_rate=2e-3)
    training = Training(set_up(kaon_dataset, family, seed=1))
    training.pace = Pace.parse(20)
    weights: dict[str, list[np.ndarray]] = {}
    generator = training.setup.family.generator

    def show(progress) -> None:
        weights[progress.phase] = [v.numpy() for v in generator.variables]

    training.run(None, show)
    return weights, training


def test_the_critic_warms_up_while_the_generator_stands_still(played) -> None:
    weights, _ = played
    assert list(weights) == ["teach", "distil", "warm", "play"]
    for before, after in zip(weights["distil"], weights["warm"], strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_game_changes_the_last_layers_only(played) -> None:
    weights, training = played
    kernels = training.setup.family.generator.networks.kernels
    moved = [
        not np.array_equal(before, after)
        for before, after in zip(weights["warm"], weights["play"], strict=True)
    ]
    expected = [k == len(kernels) - 1 for k in range(len(kernels))]
    assert moved == expected * 2


@pytest.mark.filterwarnings("ignore:setting 'learning_rate'")
def test_steps_of_a_game_that_gain_nothing_are_undone(kaon_dataset: Dataset) -> None:
    """With a rate at which the generator gets lost."""
    family = Cramer(**SMALL, **GAME, warm=0.1, play=0.4, learning_rate=10.0)
    training = Training(set_up(kaon_dataset, family, seed=1))
    training.pace = Pace.parse(20)
    taught = []
    generator = training.setup.family.generator

    def show(progress) -> None:
        if progress.phase == "warm":
            taught[:] = [v.numpy() for v in generator.variables]

    training.run(None, show)
    assert training.record.shown
    for before, after in zip(taught, generator.variables, strict=True):
        np.testing.assert_array_equal(before, after.numpy())


def test_a_rate_stays_at_its_end() -> None:
    """Phases may last longer than the training was given."""
    rates = [float(cosine(done, 100, final=0.01)) for done in (0, 50, 100, 150, 200)]
    assert rates == pytest.approx([1, 0.505, 0.01, 0.01, 0.01])
