"""The section of a validation that questions sWeights."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from test_validation import toy_dataset
from toy_generator import ToyGenerator, make_card, make_sample

from pidgan.report.page import render_page
from pidgan.report.report import Report
from pidgan.report.validation import validate
from pidgan.report.weights_section import weights_section
from pidgan.sample.dataset import Dataset

MASS = {"branch": "M", "range": (0.0, 100.0), "signal": "gauss"}
SAMPLE = make_sample(unweighted=False, discriminant=MASS, cuts=["DLLk > 3"])
GENERATOR = ToyGenerator(card=make_card())


def with_mass(slope: float) -> Dataset:
    """A dataset with a mass, on which the response of the background may depend."""
    dataset = toy_dataset(16_000, signed=False)
    rng = np.random.default_rng(5)
    n = len(dataset)
    is_signal = rng.random(n) < 0.7
    mass = rng.uniform(0, 100, n)
    mass[is_signal] = np.clip(50 + 6 * rng.normal(size=is_signal.sum()), 0, 100)
    targets = dataset.targets.copy()
    rows = np.flatnonzero(~is_signal)
    passes = rng.random(len(rows)) < 0.3 + slope * (mass[rows] - 50) / 100
    targets[rows, 0] = np.where(passes, 4, 0)
    return dataclasses.replace(
        dataset, sample=SAMPLE, targets=targets, discriminant=mass
    )


def judged(dataset: Dataset) -> Report:
    return validate(GENERATOR, dataset, c2st_rows=1000, progress=False)


@pytest.mark.filterwarnings("ignore")
def test_a_dependence_is_in_the_report() -> None:
    found = judged(with_mass(0.5)).numbers["independence"]
    one = found["cuts"]["DLLk > 3"]
    assert found["tested"]
    assert one["p_value"] < 1e-4
    assert one["pulls"]["slope of the background"] > 4
    page = render_page("t", weights_section({"independence": found}))
    assert "is not chance" in page
    assert "slope of the background" in page


@pytest.mark.filterwarnings("ignore")
def test_independence_is_in_the_report_too(tmp_path: Path) -> None:
    report = judged(with_mass(0.0))
    found = report.numbers["independence"]
    report.save(tmp_path / "report")
    stored = json.loads((tmp_path / "report/report.json").read_text())
    assert stored["independence"] == found
    assert found["cuts"]["DLLk > 3"]["p_value"] > 1e-3
    assert set(found["conditions"]) == {"P", "ETA"}


@pytest.mark.filterwarnings("ignore")
def test_a_report_says_why_nothing_is_tested() -> None:
    whole = with_mass(0.0)
    less = dataclasses.replace(whole, discriminant=np.zeros(0))
    given = dataclasses.replace(
        less, sample=make_sample(unweighted=False, weight_branch="w", cuts=["DLLk > 3"])
    )
    reasons = [judged(one).numbers["independence"]["reason"] for one in (less, given)]
    assert "prepare it again" in reasons[0]
    assert "weights were given" in reasons[1]
    page = render_page(
        "t", weights_section({"independence": {"tested": False, "reason": reasons[0]}})
    )
    assert "not tested" in page
