"""What a path is, told by names in a folder and by the first bytes of a file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pidgan
from pidgan.application.quantile_map import QuantileMap
from pidgan.bundle.collecting import collect
from pidgan.errors import BundleError, DatasetError, MapError, PidganError, SampleError
from pidgan.files.recognition import KINDS, other_kind, recognise
from pidgan.sample.loading import list_samples, load_sample

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one of each kind, whose name is that of the kind."""
    whole = Path(shutil.copytree(GOLDEN, tmp_path / "files"))
    collect([whole / "kaon.onnx"], whole / "both.toml")
    return whole


def test_kinds_of_golden_files(folder: Path) -> None:
    found = {path.name: recognise(path) for path in folder.iterdir()}
    assert found == {
        "README.md": "",
        "analysis.root": "root",
        "both.toml": "collection",
        "kaon": "dataset",
        "kaon-model": "model",
        "kaon.onnx": "bundle",
        "kaon.reference.parquet": "parquet",
        "kmap.json": "map",
        "kmap.npz": "npz",
        "kmap.root": "root",
        "numbers.json": "json",
        "numbers.npz": "npz",
        "occupancy.json": "quantile map",
        "showers.onnx": "bundle",
    }
    assert set(found.values()) - {""} <= set(KINDS)
    assert recognise(folder) == "bundles"
    assert {recognise(path) for path in list_samples().values()} == {"sample"}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", '{"K": {"P": [3000, 9300]}}', "binning"),
        ("b.json", '{"Turbo18-K": {"tuple_names": {}}}', "pidcalib samples"),
        ("c.json", "[1, 2]", "json"),
        ("d.toml", '[[layers]]\nkind = "grid"\n', "geometry"),
        ("e.toml", "x = 1\n", "toml"),
        ("f.csv", "P,ETA\n1,2\n", "csv"),
        ("g.onnx", "", ""),
        ("h.txt", "nothing", ""),
        ("i.html", "<!doctype html>", "html"),
    ],
)
def test_kinds_of_texts(tmp_path: Path, name: str, content: str, kind: str) -> None:
    (tmp_path / name).write_text(content)
    assert recognise(tmp_path / name) == kind
    assert recognise(tmp_path / "none") == ""


def test_every_opener_names_another_kind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    cases = (
        (pidgan.open_bundle, "kmap.json", BundleError, "an efficiency map"),
        (pidgan.open_bundle, "kaon", BundleError, "a dataset, expected a bundle"),
        (pidgan.Dataset.open, "kaon.onnx", DatasetError, "closest: 'kaon'"),
        (pidgan.EfficiencyMap.open, "kaon.onnx", MapError, "there is 'kmap.json'"),
        (QuantileMap.open, "kmap.json", PidganError, "'occupancy.json'"),
        (load_sample, "analysis.root", SampleError, "a ROOT file, expected a sample"),
        (load_sample, "both.toml", SampleError, "a collection, expected a sample"),
    )
    for opener, name, error, text in cases:
        with pytest.raises(error, match=name) as caught:
            opener(name)
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_expected_or_unknown_is_left_to_its_reader(tmp_path: Path) -> None:
    damaged = tmp_path / "map.json"
    damaged.write_text(json.dumps({"cuts": []}))
    assert other_kind(damaged, "map") == ""
    assert other_kind(tmp_path / "none", "map") == ""
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "a.parquet")
    assert other_kind(tmp_path / "a.npz", "npz", "parquet") == ""
    text = other_kind(tmp_path / "a.npz", "parquet")
    assert text.endswith(
        "is a numpy file, expected a Parquet file; there is 'a.parquet'"
    )
