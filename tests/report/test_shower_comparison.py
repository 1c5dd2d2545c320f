"""Families of showers and parametrisations in one table."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("tensorflow")

from pidgan.cli import cli
from pidgan.errors import PidganError
from pidgan.files.tables import write_trees
from pidgan.report.family_comparison import compare_families
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.simulation import SHOWER_TREE, simulate_showers
from pidgan.training.families import parse_settings

DEFINITION = Path(__file__).parents[2] / "examples" / "showers" / "simulated.toml"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("showers") / "showers.root"
    write_trees(path, {SHOWER_TREE: simulate_showers(1500, seed=3)})
    return build_dataset(DEFINITION, [path], seed=1)


def test_fits_stand_beside_families(dataset: Dataset, tmp_path: Path) -> None:
    chosen = ["pca", "shower_tree"]
    found = compare_families(
        dataset, tmp_path / "out", families=chosen, steps=5, progress=False
    )
    fitted, failed = found.families
    # The block has two views, which one of the families is not for.
    assert "one view" in failed.problem
    assert failed.row()["remark"].startswith("failed")
    assert fitted.steps == 0
    assert fitted.row()["steps"] == "fit"
    assert (tmp_path / "out" / "pca.onnx").is_file()
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    figures = written["families"][0]
    assert 0.4 < figures["c2st_high"] <= 1
    assert 0 < figures["separation"] < 1
    assert figures["showers_per_second"] > 0
    lines = found.text().splitlines()
    assert lines[1].split()[:3] == ["family", "C2ST", "high"]
    assert lines[2].startswith("pca")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "gflash and pca were fitted" in page


def test_wrong_families_are_told(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(PidganError, match="no family 'distilled'; there are gflash"):
        compare_families(dataset, tmp_path / "out", families=["distilled"])
    with pytest.raises(PidganError, match="'pca' is fitted, not trained"):
        parse_settings("pca", {})
    folder = tmp_path / "data"
    dataset.save(folder)
    command = ["train", str(folder), "-o", str(tmp_path / "m"), "--family", "gflash"]
    done = CliRunner().invoke(cli, command)
    assert "--families gflash" in f"{done.output}{done.exception}"
