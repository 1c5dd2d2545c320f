"""Validation of a dataset of showers: one function and report for both kinds."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_validation import pictures_of
from toy_generator import ToyGenerator, make_card

from pidgan.errors import DatasetError, NtupleError
from pidgan.files.tables import write_trees
from pidgan.report.report import Report
from pidgan.report.shower_page import ShowerData
from pidgan.report.validation import validate
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.simulation import SHOWER_TREE, simulate_showers
from pidgan.training.classical.fit import Parametrised, fit_parametrisation

DEFINITION = Path(__file__).parents[2] / "examples" / "showers" / "simulated.toml"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("showers") / "showers.root"
    write_trees(path, {SHOWER_TREE: simulate_showers(1500, seed=3)})
    return build_dataset(DEFINITION, [path], seed=1)


@pytest.fixture(scope="module")
def generator(dataset: Dataset) -> Parametrised:
    return fit_parametrisation(dataset, "pca")


@pytest.fixture(scope="module")
def report(generator: Parametrised, dataset: Dataset) -> Report:
    return validate(generator, dataset)


def test_showers_are_judged_by_the_function_of_tracks(
    report: Report, dataset: Dataset
) -> None:
    assert isinstance(report.data, ShowerData)
    assert report.numbers["showers"] == len(dataset.part("test").weights)
    assert report.headline() == report.numbers
    assert "mean separation power" in report.summary()
    for label, figure in report.main:
        assert np.isfinite([figure["value"], figure["floor"]]).all(), label


def test_pictures_of_showers_have_names(report: Report) -> None:
    assert {"linearity, all", "resolution, all", "observables 1"} <= set(report.figures)
    shown = pictures_of(report.draw(report.numbers, report.data))
    assert [picture.name for picture in shown] == list(report.figures)


def test_the_report_of_showers_saves_itself(report: Report, tmp_path: Path) -> None:
    page = report.save(tmp_path / "out")
    assert "Linearity, resolution and tails" in page.read_text()
    written = (tmp_path / "out" / "report.json").read_text()
    assert json.loads(written) == report.numbers
    with pytest.raises(NtupleError, match="out exists"):
        report.save(tmp_path / "out")
    page.write_text("old")
    assert "Linearity" in report.save(tmp_path / "out", overwrite=True).read_text()


def test_what_is_for_tracks_is_refused(
    generator: Parametrised, dataset: Dataset
) -> None:
    with pytest.raises(DatasetError, match="showers; cuts, where, binning and misid"):
        validate(generator, dataset, cuts="energy > 0")
    with pytest.raises(DatasetError, match="the generator's condition_names are P, ET"):
        validate(ToyGenerator(card=make_card()), dataset)
