"""The losses of the Cramér GAN paper, and what they are minimal for."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.training.backend import tf
from pidgan.training.families.cramer import critic_loss, generator_loss
from pidgan.training.networks import per_coordinate as student
from pidgan.training.networks.perceptrons import Shape

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
