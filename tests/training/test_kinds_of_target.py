"""Boolean and categorical targets beside continuous ones, and alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("tensorflow")

import pidgan
from pidgan.bundle.bundle import Bundle
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.training.model import Model
from pidgan.training.setup import choose_family, set_up

N = 6000
DEFINITION: dict[str, Any] = {
    "schema": 1,
    "name": "kinds",
    "title": "Kinds of target",
    "detector": "toy",
    "species": "mu+",
    "source": "none",
    "unweighted": True,
    "conditions": [{"name": "P", "range": (3, 100)}, {"name": "ETA", "range": (1, 6)}],
    "binning": {"P": (3, 20, 100), "ETA": (1, 6)},
}
TARGETS: dict[str, dict[str, Any]] = {
    "DLLmu": {"range": (-150, 150), "sentinels": [-999]},
    "isMuon": {"range": (0, 1)},
    "HASBREM": {"categories": [0, 1]},
    "code": {"categories": [0, 1, 5, 22]},
    "half": {"categories": [0.1, 0.25]},
    "hits": {"range": (0, 60), "integer": True},
}


def columns() -> pd.DataFrame:
    """Booleans stored as bool and int8, and a category that is rare."""
    rng = np.random.default_rng(1)
    dll = rng.normal(0, 10, N)
    muon = rng.random(N) < 1 / (1 + np.exp(-dll / 4))
    dll[:300] = -999
    code = rng.choice([0, 1, 5], p=[0.6, 0.3, 0.1], size=N)
    code[100::2000] = 22
    return pd.DataFrame(
        {
            "P": rng.uniform(3, 100, N),
            "ETA": rng.uniform(1, 6, N),
            "DLLmu": dll,
            "isMuon": muon,
            "HASBREM": (rng.random(N) < 0.3).astype(np.int8),
            "code": code,
            "half": np.where(muon, np.float32(0.1), np.float32(0.25)),
            "hits": rng.poisson(20, N),
        }
    )


def made(folder: Path, *names: str, **more: Any) -> tuple[Dataset, Model, Bundle]:
    targets = [{"name": name} | TARGETS[name] for name in names]
    sample = Sample.model_validate(DEFINITION | {"targets": targets} | more)
    columns().to_parquet(folder / "rows.parquet")
    dataset = pidgan.build_dataset(sample, folder / "rows.parquet")
    settings = choose_family("distilled", None, {}, sample)
    model = set_up(dataset, settings, seed=1).model(settings, steps=0, history={})
    path = pidgan.export_bundle(model, folder / f"{'_'.join(names)}.onnx")
    return dataset, model, pidgan.open_bundle(path)


def test_values_are_those_of_the_closed_list(tmp_path: Path) -> None:
    dataset, model, bundle = made(tmp_path, *TARGETS)
    assert dataset.info["dropped"] == {}
    y = bundle.generate(dataset.frame("train")[["P", "ETA"]], seed=1)
    for name in ("isMuon", "HASBREM"):
        assert set(y[name]) == {0.0, 1.0}
    assert set(y["code"]) <= {0.0, 1.0, 5.0, 22.0}
    assert set(y["half"]) == {np.float32(0.1), np.float32(0.25)}
    assert (y["hits"] == np.rint(y["hits"])).all()
    # None lies between a sentinel and the range, although some combinations are rare.
    continuous = y["DLLmu"][y["DLLmu"] != -999]
    assert continuous.min() >= columns()["DLLmu"][300:].min() - 1e-3
    # A combination that never occurs is never made.
    assert ((y["half"] == np.float32(0.1)) == (y["isMuon"] == 1)).all()
    atoms = {target.name: target.atoms for target in bundle.card.targets}
    assert atoms["code"] == (0.0, 1.0, 5.0, 22.0)
    fits = model.targets.rows(dataset.part("train"), seed=1)[0]
    assert fits.mean() > 0.99


def test_one_boolean_alone(tmp_path: Path) -> None:
    dataset, model, bundle = made(tmp_path, "isMuon", cuts=["isMuon"])
    assert model.targets.n_patterns == 2
    frame = dataset.frame("test")
    assert set(bundle.generate(frame[["P", "ETA"]], seed=1)["isMuon"]) == {0.0, 1.0}
    report = pidgan.validate(bundle, dataset)
    report.save(tmp_path / "report")
    assert "gen - real efficiency, isMuon" in report.summary()
    assert pidgan.run_systematics(bundle, cuts="!isMuon").cuts == ("!isMuon",)
    table = pidgan.efficiency_table(frame, "isMuon", binning={"P": (3, 100)})
    np.testing.assert_allclose(table.efficiency, frame["isMuon"].mean())


def test_categories_alone(tmp_path: Path) -> None:
    dataset, _, bundle = made(tmp_path, "code", cuts=["code == 5"])
    y = bundle.generate(dataset.frame("test")[["P", "ETA"]], seed=1)
    assert set(y["code"]) <= {0.0, 1.0, 5.0, 22.0}
