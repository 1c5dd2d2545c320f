"""Paths are taken where models, bundles, datasets and maps are, and these for paths."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pidgan
from pidgan.errors import BundleError, DatasetError, TrainingError
from pidgan.sample.dataset import Dataset

pytest.importorskip("tensorflow")

GOLDEN = Path(__file__).parents[1] / "golden"
CUT = "RichDLLk > 0"
FAST: dict[str, Any] = {"cuts": CUT, "binning": {"P": 2}, "repeats": 1}


def test_what_is_open_is_returned() -> None:
    from pidgan.application.quantile_map import QuantileMap
    from pidgan.training.model import open_model

    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    assert pidgan.open_bundle(bundle) is bundle
    dataset = Dataset.open(GOLDEN / "kaon")
    assert Dataset.open(dataset) is dataset
    found = pidgan.EfficiencyMap.open(GOLDEN / "kmap.json")
    assert pidgan.EfficiencyMap.open(found) is found
    model = open_model(GOLDEN / "kaon-model")
    assert open_model(model) is model
    occupancy = QuantileMap.open(GOLDEN / "occupancy.json")
    assert QuantileMap.open(occupancy) is occupancy


@pytest.mark.filterwarnings("ignore:cut 'RichDLLk > 0'. the reference has fewer")
def test_a_map_of_paths_is_that_of_objects() -> None:
    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    expected = pidgan.run_systematics(bundle, **FAST)
    reference = GOLDEN / "kaon.reference.parquet"
    rows = pd.read_parquet(reference)
    dicts = {name: values.to_numpy() for name, values in rows.items()}
    for generator in (str(bundle.path), bundle.path):
        for given in (None, str(reference), rows, dicts):
            found = pidgan.run_systematics(generator, given, **FAST)
            np.testing.assert_array_equal(found.nominal, expected.nominal)
    of_model = pidgan.run_systematics(str(GOLDEN / "kaon-model"), **FAST)
    np.testing.assert_allclose(of_model.nominal, expected.nominal, atol=0.02)
    data = GOLDEN / "kaon"
    of_path = pidgan.run_systematics(bundle, str(data), others=[bundle.path], **FAST)
    of_object = pidgan.run_systematics(
        bundle, Dataset.open(data), others=[bundle], **FAST
    )
    np.testing.assert_array_equal(of_path.nominal, of_object.nominal)
    assert of_path.variations.keys() == of_object.variations.keys()


def test_a_model_and_a_dataset_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pidgan.training import loop

    data = str(GOLDEN / "kaon")
    monkeypatch.setattr(loop, "run_training", lambda dataset, *_, **__: dataset)
    found = pidgan.train(data, steps=2)
    assert isinstance(found, Dataset)
    assert found.info["hash"] == Dataset.open(data).info["hash"]
    path = pidgan.export_bundle(str(GOLDEN / "kaon-model"), tmp_path / "kaon.onnx")
    assert (
        pidgan.open_bundle(path).card.seed
        == pidgan.open_bundle(GOLDEN / "kaon.onnx").card.seed
    )


def test_wrong_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none: no such file or folder, expected a"):
        pidgan.train("none")
    with pytest.raises(TrainingError, match="is a directory, expected a model folder"):
        pidgan.run_systematics(tmp_path)
    with pytest.raises(BundleError, match=r"none\.onnx"):
        pidgan.validate("none.onnx", GOLDEN / "kaon")
    with pytest.raises(DatasetError, match="expected a dataset"):
        pidgan.validate(GOLDEN / "kaon.onnx", tmp_path)
    with pytest.raises(TypeError, match="train: dataset is 5"):
        pidgan.train(5)
