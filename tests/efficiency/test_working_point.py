"""Working points: thresholds of a toy whose efficiencies are formulae."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from toy_generator import ToyGenerator, location, make_card, make_sample

from pidgan.efficiency.working_point import CutScan, scan_cut, working_point
from pidgan.errors import CutError, MapError, PidganWarning

ROWS = 12_000
SHIFT = {"K+": 0.3, "pi+": -3.5}
"""Of the real DLLk; the generators are moved by 0 and by -3.3."""


class Toy:
    """A generator with reference rows, moved against them."""

    def __init__(self, species: str, *, offset: float, rows: int = ROWS) -> None:
        card = make_card(species=species, sample=make_sample(species=species))
        self.generator = ToyGenerator(card=card, offset=offset)
        self.card, self.generate = card, self.generator.generate
        rng = np.random.default_rng(len(species))
        x = np.stack([3e3 + rng.gamma(2, 9e3, rows), rng.normal(3.2, 0.4, rows)], 1)
        self.x = x[(x[:, 0] < 1e5) & (x[:, 1] > 1.5) & (x[:, 1] < 5)]
        self.mean = location(self.x) + SHIFT[species]
        y = self.mean + rng.standard_normal(self.mean.shape)
        self.frame = pd.DataFrame(
            {
                "P": self.x[:, 0],
                "ETA": self.x[:, 1],
                "DLLk": y[:, 0],
                "DLLp": y[:, 1],
                "weight": 1.0,
            }
        )

    def reference(self) -> pd.DataFrame:
        return self.frame

    def truth(self, threshold: float) -> float:
        return float(norm.sf(threshold - self.mean[:, 0]).mean())


KAON, PION = Toy("K+", offset=0.0), Toy("pi+", offset=-3.3)


@pytest.fixture(scope="module")
def scan() -> CutScan:
    return scan_cut(KAON, [PION], cut="DLLk > x", repeats=2)


def test_unphysical_efficiencies_of_a_scan_are_flagged(scan: CutScan) -> None:
    moved = replace(scan, corrected=scan.corrected - 0.05).frame()
    below = moved["corrected"] < 0
    assert 0 < below.sum() < len(moved)
    np.testing.assert_array_equal(moved["unphysical"], below)
    point = working_point(KAON, [PION], cut="DLLk > x", efficiency=0.9, repeats=2)
    assert [one.unphysical for one in point.points] == [False, False]
    wrong = replace(point, points=(replace(point.points[0], unphysical=True),))
    assert "outside [0, 1]" in wrong.text()
    assert json.loads(wrong.to_json())["species"][0]["unphysical"]


def test_scan_is_right_within_its_errors(scan: CutScan) -> None:
    assert scan.species == ("K+", "pi+")
    truth = np.array([[toy.truth(x) for x in scan.thresholds] for toy in (KAON, PION)])
    pulls = ((scan.corrected - truth) / scan.error)[~scan.few]
    assert np.abs(pulls).max() < 3.5
    assert np.mean(np.abs(scan.generated - truth)) > 3 * np.mean(
        np.abs(scan.corrected - truth)
    )
    assert scan.few[1, -1]
    assert np.all(np.linalg.eigvalsh(scan.covariance[0]) > -1e-8)
    assert len(scan.frame()) == 2 * len(scan.thresholds)


def test_a_scan_takes_any_binning(scan: CutScan) -> None:
    one = scan_cut(KAON, cut="DLLk > x", thresholds=[0, 2], repeats=2, binning={"P": 4})
    assert one.species == ("K+",)
    near = np.interp([0, 2], scan.thresholds, scan.corrected[0])
    np.testing.assert_allclose(one.corrected[0], near, atol=0.03)


def test_efficiency_is_reached() -> None:
    found = working_point(KAON, [PION], cut="DLLk > x", efficiency=0.9, repeats=2)
    assert found.cut == f"DLLk > {found.threshold:g}"
    kaon, pion = found.points
    assert kaon.value == pytest.approx(0.9, abs=2e-3)
    assert KAON.truth(found.threshold) == pytest.approx(0.9, abs=3 * kaon.error)
    assert pion.value == pytest.approx(PION.truth(found.threshold), abs=3 * pion.error)
    # An error of the efficiency moves the threshold along the true curve.
    slope = KAON.truth(found.threshold - 0.05) - KAON.truth(found.threshold + 0.05)
    assert found.threshold_error == pytest.approx(kaon.error / (slope / 0.1), rel=0.4)
    content = json.loads(found.to_json())
    assert [one["species"] for one in content["species"]] == ["K+", "pi+"]
    assert "misID pi+" in found.text()


def test_misid_is_reached_for_a_falling_and_a_rising_cut() -> None:
    for cut in ("DLLk > x", "x < DLLk & P > 0"):
        found = working_point(KAON, [PION], cut=cut, max_misid=0.05, repeats=2)
        assert found.points[1].value == pytest.approx(0.05, abs=2e-3)
        assert PION.truth(found.threshold) == pytest.approx(
            0.05, abs=3 * found.points[1].error
        )
    found = working_point(PION, [KAON], cut="DLLk < x", efficiency=0.9, repeats=2)
    assert 1 - PION.truth(found.threshold) == pytest.approx(0.9, abs=0.02)


def test_few_rows_are_told() -> None:
    with pytest.warns(PidganWarning, match=r"pi\+ has fewer than 20 effective rows"):
        found = working_point(KAON, [PION], cut="DLLk > x", efficiency=0.2, repeats=2)
    assert found.points[1].few
    assert "few reference rows" in found.text()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"cut": "DLLk > 3"}, CutError, "'x' alone on one side"),
        ({"cut": "DLLk - x > 3"}, CutError, "'x' alone on one side"),
        ({"cut": "DLLk > x & DLLp < x"}, CutError, "'x' alone on one side"),
        ({"cut": "DLLkk > x"}, CutError, "closest: 'DLLk'"),
        (
            {"thresholds": [8.0, 9.0]},
            MapError,
            r"0\.9 at no threshold: from x = 8 to 9",
        ),
        ({"thresholds": []}, ValueError, "thresholds"),
        ({"efficiency": 1.5}, ValueError, "between 0 and 1"),
        ({"max_misid": 0.1}, ValueError, "give either"),
        (
            {"efficiency": None, "max_misid": 0.1, "rejected": []},
            ValueError,
            "other species",
        ),
    ],
)
def test_bad_input(change: dict, error: type, match: str) -> None:
    arguments = {"cut": "DLLk > x", "efficiency": 0.9, "rejected": [PION], **change}
    with pytest.raises(error, match=match):
        working_point(KAON, arguments.pop("rejected"), repeats=1, **arguments)


def test_report(tmp_path: Path) -> None:
    pytest.importorskip("mplhep")
    pytest.importorskip("jinja2")
    from pidgan.report.map_page import write_working_point_report

    found = working_point(
        KAON, [PION], cut="DLLk > x", efficiency=0.9, thresholds=[0, 1, 2, 4], repeats=1
    )
    page = write_working_point_report(found, tmp_path / "point").read_text()
    assert page.count("data:image/png") == 3
    assert "Efficiency of K+ against the misID of pi+" in page
