"""The teacher: splines that can be undone, and a density that integrates to one."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.training.backend import keras, tf
from pidgan.training.networks.autoregressive import (
    DECAY_ROWS,
    FlowGenerator,
    SplineFlow,
    decay_of_few,
)
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.networks.splines import n_parameters, spline

BINS = 8


def _parameters(n: int, seed: int = 1) -> tf.Tensor:
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=(n, n_parameters(BINS))), tf.float32)


def test_a_spline_is_undone_and_knows_its_derivative() -> None:
    v = tf.constant(np.linspace(-8, 8, 4001), tf.float32)
    parameters = _parameters(4001)
    with tf.GradientTape() as tape:
        tape.watch(v)
        u, log_derivative = spline(v, parameters)
    back, same = spline(u, parameters, inverse=True)
    # Where a spline is flat, one bit of u is many of v: the error is judged in u.
    np.testing.assert_allclose(spline(back, parameters)[0], u, atol=1e-5)
    np.testing.assert_allclose(back, v, atol=2e-3)
    np.testing.assert_allclose(same, log_derivative, atol=2e-3)
    np.testing.assert_allclose(np.log(tape.gradient(u, v)), log_derivative, atol=2e-3)


def test_a_steep_spline_has_a_derivative_everywhere() -> None:
    # Rounding puts some of these beyond the bin that they are in.
    rng = np.random.default_rng(0)
    v = tf.constant(rng.uniform(-5.2, 5.2, 400_000), tf.float32)
    parameters = rng.normal(scale=10, size=(len(v), n_parameters(16)))
    for inverse in (False, True):
        found = spline(v, tf.constant(parameters, tf.float32), inverse=inverse)
        assert np.isfinite(found).all()


def test_a_spline_is_monotonic_and_the_identity_outside() -> None:
    v = tf.constant(np.linspace(-8, 8, 4001), tf.float32)
    one = tf.tile(_parameters(1), (4001, 1))
    u, _ = spline(v, one)
    assert (np.diff(u) > 0).all()
    outside = np.abs(v) > 6
    np.testing.assert_array_equal(u[outside], v[outside])
    np.testing.assert_allclose(spline(v, 0 * one)[0], v, atol=1e-6)


@pytest.fixture
def flow() -> SplineFlow:
    free = ((1, 1), (1, 0))
    shape = Shape(n_conditions=1, n_patterns=2, n_targets=2, free=free)
    flow = SplineFlow(shape=shape, width=16, blocks=1, bins=BINS, seed=1)
    rng = np.random.default_rng(1)
    for kernel in flow.networks.kernels:
        kernel.assign(rng.normal(size=kernel.shape) * 0.4)
    return flow


def _batch(y: np.ndarray) -> dict[str, tf.Tensor]:
    n = len(y)
    return {
        "x": tf.fill((n, 1), 0.3),
        "pattern": tf.tile([[1.0, 0.0]], (n, 1)),
        "free": tf.ones((n, 2)),
        "positive_w": tf.ones(n),
        "y": tf.constant(y, tf.float32),
    }


def _generated(flow: SplineFlow, batch: dict[str, tf.Tensor], u: tf.Tensor) -> Any:
    inputs = {"conditions": batch["x"], "noise": u}
    if batch["pattern"].shape[1]:
        inputs["pattern"] = batch["pattern"]
    return FlowGenerator(flow, flow.networks.shape)(inputs).numpy()


def test_the_density_is_that_of_the_generated_rows(flow: SplineFlow) -> None:
    """E[1 / p] over generated rows in a box, times the density, is its area."""
    rng = np.random.default_rng(2)
    u = tf.constant(rng.normal(size=(40_000, 2)), tf.float32)
    y = _generated(flow, _batch(np.zeros((40_000, 2))), u)
    low, high = np.quantile(y, [0.3, 0.7], axis=0)
    inside = y[((y > low) & (y < high)).all(axis=1)]
    log_p = [
        -float(flow.loss(_batch(row[np.newaxis]))) - np.log(2 * np.pi)
        for row in inside[:400]
    ]
    share = len(inside) / len(y)
    area = share * np.mean(np.exp(-np.array(log_p)))
    assert area == pytest.approx(np.prod(high - low), rel=0.1)


def test_coordinates_on_atoms_take_no_part(flow: SplineFlow) -> None:
    batch = _batch(np.array([[0.2, 0.0]]))
    batch["free"] = tf.constant([[1.0, 0.0]])
    batch["pattern"] = tf.constant([[0.0, 1.0]])
    assert np.isfinite(float(flow.loss(batch)))
    y = _generated(flow, batch, tf.constant([[0.5, 1.5]]))
    assert float(y[0, 1]) == 0
    alone = float(flow.loss(batch))
    flow.networks.biases[-1].assign_add(
        np.concatenate([np.zeros((1, 1, 25)), np.ones((1, 1, 25))])
    )
    assert float(flow.loss(batch)) == alone


def test_the_likelihood_finds_a_conditional_width() -> None:
    """y ~ N(0, exp(x)^2): the generated spread follows x after a short fit."""
    shape = Shape(n_conditions=1, n_patterns=0, n_targets=1)
    flow = SplineFlow(shape=shape, width=16, blocks=1, bins=BINS, seed=3)
    optimizer = keras.optimizers.Adam(5e-3)
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, size=(4096, 1))
    y = rng.normal(size=(4096, 1)) * np.exp(x)
    batch = {
        "x": tf.constant(x, tf.float32),
        "pattern": tf.zeros((4096, 0)),
        "free": tf.ones((4096, 1)),
        "positive_w": tf.ones(4096),
        "y": tf.constant(y, tf.float32),
    }

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = flow.loss(batch)
        variables = flow.variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    for _ in range(150):
        step()
    u = tf.constant(rng.normal(size=(4096, 1)), tf.float32)
    generated = _generated(flow, batch, u)
    for low, high in ((-1, -0.5), (0.5, 1)):
        rows = (x > low) & (x < high)
        assert generated[rows].std() == pytest.approx(y[rows].std(), rel=0.1)


def test_few_rows_have_more_weight_decay() -> None:
    assert decay_of_few(DECAY_ROWS) == pytest.approx(1)
    assert decay_of_few(DECAY_ROWS // 16) == pytest.approx(8, rel=1e-4)
    assert decay_of_few(0) == 1


def test_weight_decay_keeps_a_flow_from_learning_its_rows_by_heart() -> None:
    shape = Shape(n_conditions=1, n_patterns=0, n_targets=2)
    rng = np.random.default_rng(6)

    def rows(n: int) -> dict[str, tf.Tensor]:
        x = rng.uniform(-1, 1, size=(n, 1))
        return {
            "x": tf.constant(x, tf.float32),
            "pattern": tf.zeros((n, 0)),
            "free": tf.ones((n, 2)),
            "positive_w": tf.ones(n),
            "y": tf.constant(rng.normal(size=(n, 2)) * np.exp(x), tf.float32),
        }

    known, fresh = rows(500), rows(20_000)
    losses = []
    for decay in (0.0, 0.05):
        flow = SplineFlow(shape=shape, width=32, blocks=1, bins=BINS, seed=3)
        decay *= decay_of_few(500)
        optimizer = keras.optimizers.AdamW(5e-3, weight_decay=decay)

        @tf.function
        def step(flow=flow, optimizer=optimizer) -> None:
            with tf.GradientTape() as tape:
                loss = flow.loss(known)
            optimizer.apply(tape.gradient(loss, flow.variables), flow.variables)

        for _ in range(400):
            step()
        losses.append((float(flow.loss(known)), float(flow.loss(fresh))))
    (by_heart, worse), (learnt, better) = losses
    assert by_heart < learnt
    # The scale exp(x) leaves 2 (1/2 + E[x]) = 1; a standard normal would have 1.8.
    assert 1 < better < 1.2
    assert worse > better + 0.2
