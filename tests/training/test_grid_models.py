"""A model of targets on a grid, from a file to its bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("tensorflow")

import pidgan
from pidgan.bundle.bundle import Bundle
from pidgan.sample.definition import Sample
from pidgan.training.export import compare
from pidgan.training.model import Model, open_model
from pidgan.training.setup import choose_family, set_up

N = 6000
TARGETS: list[dict[str, Any]] = [
    {"name": "nRows", "range": (0, 160)},
    {"name": "nClusters", "range": (0, 160)},
    {"name": "dEdx", "range": (0, 1000), "sentinels": [0]},
    {"name": "hasTof", "range": (0, 1)},
    {"name": "DLL", "range": (-100, 100)},
]
DEFINITION: dict[str, Any] = {
    "schema": 1,
    "name": "clusters",
    "title": "Clusters",
    "detector": "toy",
    "species": "pi+",
    "source": "none",
    "unweighted": True,
    "conditions": [{"name": "P", "range": (1, 10)}, {"name": "ETA", "range": (-1, 1)}],
    "targets": TARGETS,
    "cuts": ["nClusters > 120"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> tuple[Model, Bundle]:
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("grid")
    fewer = rng.gamma(1.6, 9, N) * (rng.random(N) > 0.2)
    rows = np.minimum(159, np.round(159 - fewer)).clip(20)
    found = rng.binomial(rows.astype(int), 0.9)
    mean = 60 * (1 + rng.normal(size=N) * 0.55 / np.sqrt(found))
    mean = np.where(rng.random(N) < 0.01, 0, np.round(mean / 0.04) * 0.04)
    columns = {"P": rng.uniform(1, 10, N), "ETA": rng.uniform(-1, 1, N)}
    columns |= {"nRows": rows, "nClusters": found, "dEdx": mean}
    columns |= {"hasTof": rng.random(N) < 0.3, "DLL": rng.normal(size=N)}
    pd.DataFrame(columns).to_parquet(folder / "clusters.parquet")
    sample = Sample.model_validate(DEFINITION)
    dataset = pidgan.build_dataset(sample, folder / "clusters.parquet")
    settings = choose_family("distilled", None, {}, sample)
    model = set_up(dataset, settings, seed=1).model(settings, steps=0, history={})
    model.save(folder / "model")
    path = pidgan.export_bundle(open_model(folder / "model"), folder / "clusters.onnx")
    return model, pidgan.open_bundle(path)


def test_generated_targets_are_on_the_grid_and_in_order(made: Any) -> None:
    _, bundle = made
    rng = np.random.default_rng(2)
    x = pd.DataFrame(
        {"P": rng.uniform(1, 10, 20_000), "ETA": rng.uniform(-1, 1, 20_000)}
    )
    y = bundle.generate(x, seed=1)
    for name in ("nRows", "nClusters", "hasTof"):
        assert (y[name] == np.rint(y[name])).all()
    assert (y["nClusters"] <= y["nRows"]).all()
    assert set(y["hasTof"]) == {0.0, 1.0}
    assert y["nRows"].max() == 159
    grid = (np.arange(25_000) * 0.04).astype(np.float32)
    assert np.isin(y["dEdx"], grid).mean() > 0.999
    k = y["dEdx"].to_numpy(np.float64) / 0.04
    assert np.abs(k - np.rint(k)).max() < 1e-3
    assert (y["dEdx"] == 0).any()
    assert len(np.unique(y["DLL"])) > 19_000


def test_card_says_what_was_found(made: Any) -> None:
    model, bundle = made
    rows, clusters, mean, tof, dll = bundle.card.targets
    assert rows.integer
    assert rows.atoms == (159.0,)
    assert (clusters.step, clusters.orders) == (1.0, ("< nRows",))
    assert mean.step == pytest.approx(0.04)
    assert mean.atoms == (0.0,)
    assert not mean.integer
    assert tof.atoms == (0.0, 1.0)
    assert dll.step is None
    assert dll.atoms == dll.orders == ()
    assert bundle.card.targets == model.card.targets
    text = bundle.text()
    assert "nClusters: trained" in text
    assert "whole numbers, < nRows" in text
    assert "in steps of 0.04, exactly 0 in a share of rows" in text
    assert model.targets.n_patterns <= 12


def test_a_saved_model_generates_the_same(made: Any, tmp_path: Path) -> None:
    model, _ = made
    model.save(tmp_path / "model")
    again = open_model(tmp_path / "model")
    rng = np.random.default_rng(3)
    x = rng.uniform(1, 2, (100, 2)).astype(np.float32)
    z = rng.normal(size=(100, model.card.n_noise)).astype(np.float32)
    np.testing.assert_array_equal(again.generate(x, z), model.generate(x, z))


def test_an_atom_of_the_report_stands_out(made: Any) -> None:
    from pidgan.report.track_figures import TrackRows, target_figures
    from pidgan.sample.dataset import Part

    model, _ = made
    frame = model.reference()
    names = model.card.condition_names, model.card.target_names
    x, y = (frame[list(n)].to_numpy(np.float32) for n in names)
    part = Part(
        conditions=x,
        targets=y,
        weights=np.ones(len(x)),
        alternatives=np.empty((len(x), 0)),
    )
    rows = TrackRows(sample=model.card.sample, real=part, generated=part, floors=())
    found = target_figures(rows, {"P": (1.0, 10.0)}, seed=1)
    atoms = {name: [a["value"] for a in f["atoms"]] for name, f in found.items()}
    assert atoms["nRows"] == [159]
    assert atoms["nClusters"] == []
    assert atoms["dEdx"] == [0]


def test_one_step_of_a_fine_grid_is_no_difference_to_keras() -> None:
    expected = np.array([[60.04, 45.0], [60.04, 45.0], [60.04, 45.0]], np.float32)
    got = expected + np.array([[0.04, 0], [0.09, 0], [0, 1]], np.float32)
    assert compare(expected, got, [0.04, 1.0]).differing == 2
    assert compare(expected, got).differing == 3
