"""The report of showers flags faults, and a perfect generator hardly ever."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pidgan.report.shower_tests import (
    code_pull,
    correlation_pull,
    correlation_shares,
    histogram_pull,
    mean_pull,
    share_pull,
    width_pull,
    worst_figure,
)
from pidgan.report.verdict import CHANCE, flagged

ROOT = Path(__file__).parents[2]
PIONS = ROOT.parent / "shared" / "data" / "fe_scint_pions.npz"
TOYS = int(os.environ.get("PIDGAN_TOYS", "0"))
sys.path.insert(0, str(ROOT / "docs" / "studies"))

import shower_faults  # noqa: E402


def pulls_of_equal_samples(test: str, repetitions: int = 400) -> np.ndarray:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(repetitions):
        # The response of hadrons: a peak, a tail, and the same energy for both.
        energy = rng.uniform(0.8, 1.2, 600)
        a, b = energy * (1 - 0.2 * rng.exponential(size=(2, 600)) ** 1.5)
        if test == "mean":
            found.append(mean_pull(a, b))
        elif test == "histogram":
            found.append(histogram_pull(a, b))
        elif test == "width":
            found.append(width_pull(a, b))
        elif test == "share":
            found.append(share_pull(a < 0.5, b < 0.5))
        else:
            found.append(code_pull(*(np.floor(10 * v**2).clip(0) for v in (a, b))))
    return np.array(found)


@pytest.mark.parametrize("test", ["mean", "histogram", "width", "share", "code"])
def test_pulls_of_equal_samples_are_those_of_chance(test: str) -> None:
    pulls = pulls_of_equal_samples(test)
    for level in (0.3, 0.1, 0.02):
        expected = level * len(pulls)
        above = np.sum(pulls > stats.norm.isf(level))
        # Counts of a share are discrete, so that their test may be rarer.
        least = 0 if test in ("share", "width") else expected - 4 * np.sqrt(expected)
        assert least <= above <= expected + 4 * np.sqrt(expected), (test, level)


def test_partners_that_are_equal_have_no_pull() -> None:
    a = np.random.default_rng(2).normal(size=500)
    assert mean_pull(a, a) == 0
    assert histogram_pull(a, a) == 0
    assert share_pull(a > 1, a > 1) < 0
    assert code_pull((a > 0).astype(int), (a > 0).astype(int)) == 0
    assert correlation_pull(a.reshape(-1, 5), a.reshape(-1, 5), seed=1) == 0
    # The law of exchange: which of the two is real does not matter.
    b = np.random.default_rng(3).normal(size=500)
    assert mean_pull(a, b) == pytest.approx(mean_pull(b, a))
    assert histogram_pull(a, b) == pytest.approx(histogram_pull(b, a))


def test_a_rare_property_is_counted_exactly() -> None:
    none, some = np.zeros(3000, dtype=bool), np.arange(3000) < 30
    assert share_pull(none, some) == pytest.approx(stats.norm.isf(2 * 0.5**30))
    assert share_pull(some, none) == share_pull(none, some)
    few = np.arange(3000) < 3
    assert share_pull(none, few) == pytest.approx(stats.norm.isf(0.25))


def test_correlations_of_columns() -> None:
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(5, 5))
    # Columns with long tails, as the shares of the last layers.
    x, y = rng.exponential(size=(2, 3000, 5)) ** 2 @ mix
    assert correlation_pull(x, y, seed=1) < 3
    shares = correlation_shares(x, y)
    assert shares["within_2"] is not None
    assert shares["within_2"] >= 0.7
    other = y.copy()
    other[:, 0] = rng.permutation(other[:, 0])
    assert correlation_pull(x, other, seed=1) > 5
    empty = np.zeros((100, 3))
    assert correlation_pull(empty, empty, seed=1) == 0
    assert correlation_shares(empty, empty)["within_1"] is None


def test_the_worst_bin_has_the_floor_of_the_worst() -> None:
    rng = np.random.default_rng(5)
    null = 0.01 * rng.normal(size=(200, 6))
    values = np.array([0.01, -0.02, np.nan, 0.005, 0.0, 0.0])
    found = worst_figure(values, np.full(6, 0.01), null, [0.5, 2.0, None])
    assert found["value"] == pytest.approx(0.02)
    largest = np.abs(null[:, [0, 1, 3, 4, 5]]).max(axis=1)
    assert found["floor"] == pytest.approx(largest.mean())
    # The larger of two is as large in two cases.
    p = 1 - (1 - stats.norm.sf(2.0)) ** 2
    assert found["pull"] == pytest.approx(stats.norm.isf(p))
    nothing = worst_figure(np.full(2, np.nan), values, null, [])
    assert nothing["value"] is None
    assert nothing["pull"] is None


def test_flags_account_for_the_number_of_figures() -> None:
    rng = np.random.default_rng(6)
    count = 0
    for _ in range(400):
        pulls = rng.normal(size=120).tolist()
        count += bool(flagged([(str(i), p) for i, p in enumerate(pulls)]))
    expected = CHANCE * 400
    assert abs(count - expected) < 4 * np.sqrt(expected)
    assert flagged([("a", 9.0), ("b", None), ("c", 1.0)]) == [
        {"figure": "a", "pull": 9.0}
    ]
    assert flagged([("a", None)]) == []


def test_faults_of_toys_are_flagged() -> None:
    pool = shower_faults.toy_pions(1500, seed=1)
    found = shower_faults.count(pool, 1, 1500, first=12)
    assert found == dict.fromkeys(shower_faults.FAULTS, 1) | {"none": 0}


@pytest.mark.skipif(not TOYS, reason="a minute for ten toys: set PIDGAN_TOYS")
@pytest.mark.skipif(not PIONS.exists(), reason="the showers of the study are not there")
def test_faults_of_pions_are_flagged() -> None:
    found = shower_faults.count(shower_faults.read_pions(str(PIONS)), TOYS, 3000)
    assert found.pop("none") <= max(1, 0.1 * TOYS)
    assert min(found.values()) >= 0.9 * TOYS, found
