"""Branches that a dataset keeps for denominators of efficiencies."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run

from pidgan.efficiency.dataset_table import dataset_table
from pidgan.errors import CutError, DatasetError, NtupleError, SampleError
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset

DEFINITION = """
schema = 1
title = "Toy kaons"
detector = "toy"
species = "K+"
source = "this test"
weight_branch = "sw"
trees = ["DecayTree"]
conditions = [{name = "P", branch = "K_P", unit = "MeV", range = [3e3, 200e3]}]
targets = [{name = "DLL", branch = "K_DLL", range = [-150, 150]}]
cuts = ["DLL > 0"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.toml").write_text(DEFINITION)
    rng = np.random.default_rng(1)
    polarity = rng.choice(np.array([-1, 1], np.int16), 900)
    columns: dict[str, Any] = {
        "K_P": rng.uniform(5e3, 2.02e5, 900),  # some outside the range
        "K_DLL": rng.normal(1 + polarity, 5, 900).astype(np.float32),
        "sw": rng.choice([1.2, -0.3], 900),
        "Polarity": polarity,
        "run": rng.integers(2**31, 2**33, 900),
        "K_ghost": np.where(rng.random(900) < 0.1, np.nan, rng.random(900)),
        "vertices": rng.random((900, 2)),
        "huge": np.full(900, 2**60),
    }
    write_trees(tmp_path / "calib.root", {"DecayTree": columns})
    return tmp_path


def prepare(folder: Path, *keep: str) -> Dataset:
    return build_dataset(folder / "own.toml", folder / "calib.root", keep=keep)


def test_branches_are_kept_and_stored(folder: Path) -> None:
    dataset = prepare(folder, "Polarity", "run", "K_ghost")
    dataset.save(folder / "kaon")
    opened = Dataset.open(folder / "kaon")
    assert opened.kept_names == ("Polarity", "run", "K_ghost")
    for part in ("train", "validation", "test"):
        frame, found = dataset.frame(part), opened.frame(part)
        np.testing.assert_array_equal(frame.to_numpy(), found.to_numpy())
        assert set(found["Polarity"]) == {-1.0, 1.0}
        assert found["run"].max() > 2**31
    # A NaN in such a branch drops no row.
    plain = prepare(folder)
    assert len(plain) == len(opened)
    assert np.isnan(opened.kept[:, 2]).any()
    assert plain.info["hash"] != opened.info["hash"]
    np.testing.assert_array_equal(plain.targets, opened.targets)
    plain.save(folder / "plain")
    formats = [
        json.loads((folder / name / "dataset.json").read_text())["format"]
        for name in ("plain", "kaon")
    ]
    assert formats == [3, 4]
    assert not (folder / "plain" / "kept.npy").exists()


def test_polarities_are_compared_without_preparing_again(
    folder: Path, run: Run
) -> None:
    dataset = prepare(folder, "Polarity")
    up, down = (
        float(
            dataset_table(dataset, where=f"Polarity == {p}", binning={}).efficiency[0]
        )
        for p in (1, -1)
    )
    whole = np.concatenate(
        [dataset.frame(part) for part in ("train", "validation", "test")]
    )
    names = list(dataset.frame("test"))
    rows = dict(zip(names, whole.T, strict=True))
    for polarity, found in ((1, up), (-1, down)):
        w = rows["weight"] * (rows["Polarity"] == polarity)
        assert found == pytest.approx((w * (rows["DLL"] > 0)).sum() / w.sum())
    dataset.save(folder / "kaon")
    words = ("--where", "Polarity == 1", "--binning", "P=1", "--json")
    done = run("table", str(folder / "kaon"), *words)
    assert json.loads(done.out)[0]["efficiency"] == pytest.approx(up, abs=1e-9)


def test_what_cannot_be_kept(folder: Path) -> None:
    for name in ("P", "DLL", "weight", "weight_signal"):
        with pytest.raises(ValueError, match=f"keep has '{name}', which is a column"):
            prepare(folder, name)
    with pytest.raises(ValueError, match="keep has 'run' twice"):
        prepare(folder, "run", "run")
    with pytest.raises(NtupleError, match=r"'Polarty'.*closest: 'Polarity'"):
        prepare(folder, "Polarty")
    with pytest.raises((NtupleError, SampleError), match="vertices"):
        prepare(folder, "vertices")
    with pytest.raises(SampleError, match="branch 'huge' to keep holds"):
        prepare(folder, "huge")
    with pytest.raises(CutError, match="unknown variable 'Polarity'"):
        dataset_table(prepare(folder), where="Polarity == 1")


def test_a_damaged_dataset_is_refused(folder: Path) -> None:
    prepare(folder, "Polarity").save(folder / "kaon")
    file = folder / "kaon" / "kept.npy"
    array = np.load(file)
    array[0] = 7
    np.save(file, array)
    with pytest.raises(DatasetError, match=r"kept\.npy"):
        Dataset.open(folder / "kaon")
