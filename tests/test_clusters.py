"""Clusters along tracks: both networks learn, and export as bundles that agree."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("tensorflow")

from pidgan.bundle import open_bundle
from pidgan.errors import PidganError
from pidgan.models.clusters import (
    ClusterSettings,
    cluster_model,
    cluster_sample,
    train_clusters,
)
from pidgan.onnx_export import build_graph, check_parity, export_bundle
from pidgan.preprocessing import ClusterTransform, fit_conditions

ROWS = 5
TRANSFORM = ClusterTransform(n_rows=ROWS)
CONDITIONS = {
    "SLOPE": {"range": (-1, 1)},
    "PHI": {"unit": "rad", "range": (-4, 4), "transform": "angle"},
    "CHARGE": {"categories": (-1, 1)},
}
SAMPLE = cluster_sample(CONDITIONS, ROWS, "a test")
SMALL = {"width": 8, "critic_width": 16, "n_latent": 2, "average": 0.9}


def lines(n: int, seed: int):
    """Draw straight tracks that lose a third of their clusters in the last row."""
    rng = np.random.default_rng(seed)
    slope, phi = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    charge = rng.choice([-1.0, 1.0], n)
    r = np.arange(1, ROWS + 1) / ROWS
    x, y = r * np.cos(phi)[:, None], r * np.sin(phi)[:, None]
    targets = np.stack([x, y, r * slope[:, None]], axis=2)
    targets += 0.01 * rng.standard_normal(targets.shape)
    targets[rng.random(n) < 1 / 3, -1] = TRANSFORM.sentinel
    conditions = np.stack([slope, phi, charge], axis=1).astype(np.float32)
    return conditions, targets.reshape(n, -1).astype(np.float32)


@pytest.fixture(scope="module", params=["recurrent", "convolutional"])
def model(request):
    x, y = lines(2000, 1)
    scaling = fit_conditions(
        x,
        [variable.transform for variable in SAMPLE.conditions],
        categories=[variable.categories for variable in SAMPLE.conditions],
    )
    settings = ClusterSettings(network=request.param, reconstruction=10.0, **SMALL)
    trained = train_clusters(
        scaling.forward(x), y, TRANSFORM, settings=settings, steps=300
    )
    held_out = np.concatenate(lines(400, 2), axis=1)
    names = [*SAMPLE.condition_names, *SAMPLE.target_names]
    return cluster_model(
        trained,
        sample=SAMPLE,
        conditions=scaling,
        transform=TRANSFORM,
        settings=settings,
        held_out=pd.DataFrame(held_out, columns=names).assign(weight=1.0),
        seed=1,
        steps=300,
    )


def test_the_transform_is_invertible():
    _, y = lines(50, 3)
    coordinates, found = TRANSFORM.forward(y)
    assert np.all(coordinates[~np.repeat(found > 0, 3, axis=1)] == 0.0)
    made = np.concatenate([coordinates, found - 0.5], axis=1)
    np.testing.assert_array_equal(TRANSFORM.inverse(np.zeros(50, int), made), y)


def test_a_generator_learns_places_and_losses(model):
    x, y = lines(1500, 4)
    noise = np.random.default_rng(5).standard_normal((1500, model.card.n_noise))
    made = model.generate(x, noise)
    history = model.history["distance"]
    assert history[-1] < 0.7 * history[0]
    missing = made[:, ::3] == TRANSFORM.sentinel
    # All three coordinates of a lost cluster are the sentinel, exactly.
    for axis in (1, 2):
        np.testing.assert_array_equal(made[:, axis::3] == TRANSFORM.sentinel, missing)
    assert missing[:, :-1].mean() < 0.6 * missing[:, -1].mean()
    assert missing[:, -1].mean() == pytest.approx(1 / 3, abs=0.12)
    both = ~np.repeat(missing | (y[:, ::3] == TRANSFORM.sentinel), 3, axis=1)
    assert np.abs(made - y)[both].mean() < 0.5 * np.abs(y)[both].mean()


def test_a_bundle_agrees_with_keras(model, tmp_path):
    bundle = open_bundle(export_bundle(model, tmp_path / "clusters.onnx"))
    found = check_parity(model, bundle, rows=400)
    assert found.differing == 0
    assert bundle.card.settings["network"] == model.card.settings["network"]
    x, _ = lines(300, 6)
    noise = np.random.default_rng(7).standard_normal((300, bundle.card.n_noise))
    np.testing.assert_array_equal(
        bundle.generate(x, noise.astype(np.float32)) == TRANSFORM.sentinel,
        model.generate(x, noise) == TRANSFORM.sentinel,
    )


def test_weights_of_all_steps_of_a_recurrent_network_are_one_constant(model):
    if model.card.settings["network"] != "recurrent":
        pytest.skip("of the recurrent network")
    graph = build_graph(model).graph
    kernels = [node.input[1] for node in graph.node if node.op_type == "Gemm"]
    steps = {name: kernels.count(name) for name in kernels}
    # Three gates and three outputs in every row.
    assert sorted(steps.values())[-6:] == [ROWS] * 6


def test_unknown_networks_and_too_few_tracks():
    x, y = lines(10, 1)
    with pytest.raises(PidganError, match="no network 'dense'"):
        train_clusters(
            x, y, TRANSFORM, settings=ClusterSettings(network="dense"), steps=1
        )
    with pytest.raises(PidganError, match="got 1 tracks"):
        train_clusters(x[:1], y[:1], TRANSFORM, settings=ClusterSettings(), steps=1)
