"""Datasets keep the variable that their sWeights are fitted in."""

import json
from pathlib import Path

import numpy as np
import pytest

from pidgan.bundle import reference
from pidgan.bundle.reference import reference_frame
from pidgan.errors import DatasetError, PidganWarning, SampleError
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.loading import load_sample
from pidgan.sample.variables import DISCRIMINANT
from pidgan.simulation.calibration import simulate_calibration


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("calib") / "calib.root"
    write_trees(path, simulate_calibration("dstar_k", 5000, seed=3))
    return build_dataset("sim_dstar_k", path)


def test_the_discriminant_gives_the_weights_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    dataset.save(tmp_path / "kaon")
    opened = Dataset.open(tmp_path / "kaon")
    np.testing.assert_array_equal(opened.discriminant, dataset.discriminant)
    content = json.loads((tmp_path / "kaon" / "dataset.json").read_text())
    assert content["format"] == 5
    low, high = load_sample("sim_dstar_k").discriminant.range  # type: ignore[union-attr]
    frame = opened.frame("test")
    mass, weight = (frame[n].to_numpy() for n in (DISCRIMINANT, "weight"))
    assert ((mass >= low) & (mass <= high)).all()
    # The weight is a function of the discriminant alone.
    order = np.argsort(mass)
    assert np.abs(np.diff(weight[order])).max() < 0.25
    assert weight[np.abs(mass - np.median(mass)) < 3].min() > 0.5


def test_a_dataset_without_it_says_so(dataset: Dataset, tmp_path: Path) -> None:
    from dataclasses import replace

    plain = replace(dataset, discriminant=np.zeros(0))
    assert plain.info["hash"] == dataset.info["hash"]
    plain.save(tmp_path / "plain")
    opened = Dataset.open(tmp_path / "plain")
    assert not opened.has_discriminant
    assert DISCRIMINANT not in opened.frame("test")
    assert np.isnan(opened.part("test").discriminant).all()
    np.testing.assert_array_equal(opened.weights, dataset.weights)


def test_a_damaged_discriminant_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "kaon")
    path = tmp_path / "kaon" / "discriminant.npy"
    np.save(path, np.load(path) + 1)
    with pytest.raises(DatasetError, match="discriminant"):
        Dataset.open(tmp_path / "kaon")


def test_its_name_is_reserved(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        'schema = 1\ntitle = "t"\ndetector = "d"\nspecies = "K+"\nsource = "s"\n'
        "unweighted = true\n"
        f'conditions = [{{name = "{DISCRIMINANT}", range = [0, 1]}}]\n'
        'targets = [{name = "y", range = [0, 1]}]\n'
    )
    with pytest.raises(SampleError, match="is reserved"):
        load_sample(tmp_path / "own.toml")


def test_the_reference_has_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Source:
        card = type(
            "Card",
            (),
            {
                "condition_names": dataset.sample.condition_names,
                "target_names": dataset.sample.target_names,
            },
        )

    frame = reference_frame(Source(), dataset)  # type: ignore[arg-type]
    assert DISCRIMINANT in frame
    n = len(dataset.part("test").weights)
    assert len(frame) == n
    monkeypatch.setattr(reference, "MOST_ROWS", 100)
    with pytest.warns(PidganWarning, match=rf"random rows of the {n:,} of the test"):
        fewer = reference_frame(Source(), dataset)  # type: ignore[arg-type]
    assert len(fewer) == pytest.approx(100, abs=1)
    assert len(fewer.merge(frame)) == len(fewer)
