"""A control channel beside its prediction, and its factor as a part of a map."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_generator import ToyGenerator, make_card
from toy_map import CUTS, EDGES, TRUTH, draw_rows
from toy_map import make_map as make_bare_map

import pidgan
from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.control import closure
from pidgan.efficiency.control_result import ControlClosure
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.map_averages import REFERENCE
from pidgan.efficiency.pid_efficiency import PidEfficiencies, combine
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.shared_rows import sketch_of
from pidgan.efficiency.transfer import transfer
from pidgan.errors import FitError, MapError, NtupleError, PidganWarning
from pidgan.sample.definition import Discriminant


def make_map(**given: Any) -> EfficiencyMap:
    """A map that knows its reference rows, which are others than those of controls."""
    found = make_bare_map(**given)
    other = {name: np.random.default_rng(99).random(100) for name in found.binning}
    known = sketch_of(other, list(found.binning))
    return replace(found, metadata={**found.metadata, REFERENCE: known})


MASS = Discriminant(branch="B_M", range=(5200.0, 5360.0), signal="gauss")
GIVEN: dict[str, Any] = {"species": "K-", "track": "K", "weights": "w"}


def control(
    seed: int, n: int = 20_000, *, factor: float = 1.0, slope: float = 0.0
) -> dict[str, np.ndarray]:
    """Tracks whose efficiency is that of the toy map times a factor, with background.

    The factor may depend on the bin.
    """
    rng = np.random.default_rng(seed)
    place = rng.choice(3, n, p=[0.3, 0.4, 0.3])
    is_signal = rng.random(n) < 0.8
    low, high = np.array(EDGES[:-1])[place], np.array(EDGES[1:])[place]
    u = rng.random(n)
    e = TRUTH[:, place] * (factor + slope * (place - 1))
    y = np.full(n, -1.0)
    y[u < e[0]] = 2.0
    y[u < e[1]] = 7.0
    y[~is_signal] = rng.choice([-1.0, 2.0, 7.0], np.count_nonzero(~is_signal))
    mass = rng.uniform(5200, 5360, n)
    mass[is_signal] = np.clip(rng.normal(5280, 15, is_signal.sum()), 5200, 5360)
    return {
        "K_P": low + (high - low) * rng.random(n),
        "K_ETA": rng.uniform(1.5, 5, n),
        "K_DLLk": y,
        "K_DLLp": np.zeros(n),
        "pT": rng.exponential(1e3, n),
        "B_M": mass,
        # Background that these weights subtract.
        "w": np.where(is_signal, 1.0, rng.choice([1.0, -1.0], n)),
    }


EXACT = make_map(covariance=np.zeros((2, 3, 3)), variations={})


@pytest.mark.parametrize("how", ["weights", "mass"])
def test_a_control_channel_like_the_map_agrees(how: str) -> None:
    p_values, pulls = [], []
    given = {**GIVEN, "weights": "w" if how == "weights" else None}
    given["mass"] = MASS if how == "mass" else None
    n = 30 if how == "weights" else 3
    for seed in range(n):
        found = closure(EXACT, control(seed), binning={"P": 3, "pT": 2}, **given)
        p_values += [one.p_value for one in found]
        pulls += [(one.factor - 1) / one.factor_error for one in found]
        assert all(one.n_dof == 6 for one in found)
    assert 0.15 < np.mean(p_values) < 0.85
    assert abs(np.mean(pulls)) < 4 / np.sqrt(n)
    assert how == "mass" or 0.6 < np.std(pulls) < 1.5


def test_the_factor_is_found() -> None:
    found = closure(EXACT, control(1, factor=0.9), cuts=CUTS[0], **GIVEN)
    (one,) = found
    assert abs(one.factor - 0.9) < 4 * one.factor_error
    assert one.p_value < 1e-6
    assert one.constant_p_value > 1e-3
    frame = found.frame()
    assert len(frame) == 5
    np.testing.assert_allclose(
        frame["ratio"], frame["control"] / frame["predicted"], rtol=1e-12
    )


def test_the_uncertainty_of_the_map_enters_chi2() -> None:
    rows = control(2, factor=1.03)
    tight = closure(EXACT, rows, cuts=CUTS[0], **GIVEN)[0]
    wide = closure(make_map(), rows, cuts=CUTS[0], **GIVEN)[0]
    assert wide.predicted_error > 0
    assert wide.factor_error > tight.factor_error
    assert wide.chi2 < tight.chi2
    assert wide.control == tight.control


def test_a_factor_that_is_not_constant_is_flagged_and_scaled() -> None:
    whole = closure(EXACT, control(3, slope=0.1), cuts=CUTS[1], **GIVEN)
    one = whole[0]
    assert "not constant" in one.flags
    assert one.scale > 1
    hint = "the map alone gives all rows of one of its bins"
    assert hint in whole.text()
    flat = closure(EXACT, control(3), cuts=CUTS[1], binning={"P": 3}, **GIVEN)
    assert flat[0].scale == 1.0
    assert hint not in flat.text()


def analysis(
    efficiency_map: Any, seed: int, n: int = 5000, cut: int = 0
) -> PidEfficiencies:
    drawn = draw_rows(seed, n)
    own = drawn.tracks["a"]
    rows = Rows(
        tracks={"a": TrackRows(place=own.place, passed=own.passed)},
        weights=np.ones(n),
        cell=np.zeros(n, np.int64),
    )
    number = efficiency_map.cut_index(CUTS[cut])
    return combine(
        [Selection(text=CUTS[cut], cuts={"a": number})], rows, {"a": efficiency_map}
    )


def test_the_factor_is_a_part_of_the_quoted_uncertainty() -> None:
    known = make_map()
    found = closure(known, control(4, factor=0.93), binning={"P": 3}, **GIVEN)
    moved = transfer(known, found)
    before, after = analysis(known, 1), analysis(moved, 1)
    assert "control" in after.text()
    assert after[0].value == pytest.approx(before[0].value * found[0].factor, abs=0.01)
    # What the map has wrong for both cancels: of the calibration, little is left.
    assert after[0].syst["calibration"] < before[0].syst["calibration"]
    relative = after[0].syst["control"] / after[0].value
    assert relative == pytest.approx(found[0].control_error / found[0].control, rel=0.1)


def test_the_uncertainty_after_a_transfer_is_the_spread() -> None:
    truth = 0.93 * TRUTH[0] @ np.array([0.5, 0.3, 0.2])
    pulls = []
    for seed in range(40):
        known = make_map(seed=seed)
        found = closure(known, control(seed, 6000, factor=0.93), **GIVEN)
        one = analysis(transfer(known, found), 1000 + seed)[0]
        pulls.append((one.value - truth) / one.total)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(40)
    assert 0.7 < np.std(pulls) < 1.3


def test_several_cuts_share_the_control_sample() -> None:
    known = make_map()
    found = closure(known, control(5), **GIVEN)
    moved = transfer(known, found)
    joint = np.array(found.covariance)
    shifts = [s for name, s in moved.variations.items() if name.startswith("control")]
    e = known.nominal / [[one.predicted] for one in found]
    for i in range(2):
        for j in range(2):
            both = sum(np.outer(s[i], s[j]) for s in shifts)
            np.testing.assert_allclose(
                both, joint[i, j] * np.outer(e[i], e[j]), atol=1e-9
            )


def test_it_is_stored(tmp_path: Path) -> None:
    found = closure(make_map(), control(6), **GIVEN)
    opened = ControlClosure.open(found.save(tmp_path / "control.json"))
    assert opened.content() == found.content()
    text = (tmp_path / "control.json").read_text()
    (tmp_path / "control.json").write_text(text.replace('"K-"', '"K+"'))
    with pytest.raises(MapError, match=r"damaged control channel .changed after"):
        ControlClosure.open(tmp_path / "control.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(MapError, match="not the comparison with a control channel"):
        ControlClosure.open(tmp_path / "other.json")


def test_the_generator_predicts_within_bins() -> None:
    generator = ToyGenerator(card=make_card())
    rng = np.random.default_rng(7)

    def sample() -> dict[str, np.ndarray]:
        x = np.stack([rng.uniform(3e3, 1e5, 8000), rng.uniform(1.5, 5, 8000)], axis=1)
        y = generator.generate(x, rng.standard_normal((8000, 3)))
        return {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}

    reference, frame = {**sample(), "weight": np.ones(8000)}, sample()
    known = pidgan.run_systematics(
        generator, reference, cuts="DLLk > 2", binning={"P": (3e3, 1e5)}
    )
    given: dict[str, Any] = {"species": "K+", "unweighted": True}
    bins = {"P": (3e3, 3e4, 6e4, 1e5)}
    coarse = closure(known, frame, binning=bins, **given)[0]
    fine = closure(known, frame, binning=bins, generator=generator, **given)[0]
    assert coarse.p_value < 1e-6
    assert fine.p_value > 1e-3


def wrong_columns(changes: dict[str, Any]) -> dict[str, np.ndarray]:
    return {**control(8, 2000), **changes}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"species": "pi+"}, MapError, "a control sample of pi.*map is of K"),
        ({"species": None}, ValueError, "species is missing"),
        ({"weights": None}, ValueError, "exactly one of weights, mass"),
        ({"unweighted": True}, ValueError, "got weights and unweighted"),
        ({"weights": "nothing"}, NtupleError, "no .* 'nothing'"),
        ({"cuts": "DLLk > 3"}, MapError, "has no cut"),
        ({"track": "Kp"}, NtupleError, "Kp_P"),
        ({"targets": {"DLLx": "a"}}, MapError, "'DLLx' is none of the map"),
        ({"binning": {"q": 3}}, NtupleError, "no .* 'q'"),
    ],
)
def test_wrong_arguments_are_named(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        closure(EXACT, control(8, 2000), **{**GIVEN, **given})


def test_a_fit_that_fails_is_an_error() -> None:
    rows = control(9, 4000)
    rows["B_M"] = np.random.default_rng(1).uniform(5200, 5360, 4000)
    with pytest.raises(FitError, match="no signal"):
        closure(EXACT, rows, **{**GIVEN, "weights": None, "mass": MASS})


def test_a_factor_of_3_is_not_believed() -> None:
    low = replace(EXACT, discrepancy=EXACT.discrepancy - 0.6)
    found = closure(low, control(10), cuts=CUTS[0], **GIVEN)
    assert "far from 1" in found[0].flags
    assert found[0].factor > 2
    with pytest.raises(MapError, match="another species, cut or selection"):
        transfer(low, found)
    with (
        pytest.warns(PidganWarning, match="another species"),
        pytest.warns(PidganWarning, match="leaves them out"),
    ):
        transfer(low, found, trust=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: replace(m, binning={"P": (*EDGES[:-1], 2e5)}), "other bins"),
        (
            lambda m: replace(m, metadata={**m.metadata, "bundle_sha256": "a"}),
            "another bundle",
        ),
    ],
)
def test_the_factor_belongs_to_its_map(
    change: Callable[[Any], Any], message: str
) -> None:
    known = make_map()
    found = closure(known, control(11, 3000), **GIVEN)
    with pytest.raises(MapError, match=message):
        transfer(change(known), found)
    with pytest.raises(MapError, match="already"):
        transfer(transfer(known, found), found)


BINS = {"P": (EDGES[0], EDGES[1], EDGES[3])}


def test_a_factor_in_bins_brings_the_map_to_the_control_channel() -> None:
    known = make_map()
    rows = control(21, slope=0.2)
    found = closure(known, rows, binning=BINS, **GIVEN)
    moved = transfer(known, found, in_bins=True)
    again = closure(moved, rows, binning=BINS, **GIVEN)
    for one, before in zip(again, found, strict=True):
        bins = one.bins
        np.testing.assert_allclose(bins["predicted"], bins["control"], rtol=1e-9)
        account = moved.metadata["control"]["factors_in_bins"][one.cut]
        ratio = np.divide(before.bins["control"], before.bins["predicted"])
        np.testing.assert_allclose(account["factor"], ratio)
        # Each bin has the error of the control sample there, and nothing of the map.
        errors = before.bins["control_error"]
        np.testing.assert_allclose(bins["predicted_error"], errors, rtol=1e-6)
    assert np.ptp(ratio) > 0.05


def test_one_bin_of_all_is_the_whole_factor() -> None:
    known = make_map()
    found = closure(known, control(22), binning={"P": (EDGES[0], EDGES[3])}, **GIVEN)
    one, whole = transfer(known, found, in_bins=True), transfer(known, found)
    for name in ("nominal", "covariance"):
        np.testing.assert_allclose(getattr(one, name), getattr(whole, name), rtol=1e-9)
    total = [
        sum(v[:, :, None] * v[:, None, :] for n, v in m.variations.items())
        for m in (one, whole)
    ]
    np.testing.assert_allclose(total[0], total[1], rtol=1e-6)


def test_factors_in_bins_are_right_as_often_as_they_say() -> None:
    """The truth is the toy map times 1 or times 1.1, by bin."""
    known, pulls = EXACT, []
    for seed in range(40):
        rows = control(300 + seed, 6000, slope=0.0)
        found = closure(known, rows, cuts=CUTS[0], binning=BINS, **GIVEN)
        with pytest.warns(PidganWarning, match="leaves them out"):
            moved = transfer(known, found, in_bins=True)
        error = np.sqrt(sum(v[0] ** 2 for v in moved.variations.values()))
        pulls.append((moved.nominal[0] - TRUTH[0]) / error)
    assert 0.75 < np.std(pulls) < 1.25


@pytest.mark.parametrize(
    ("binning", "message"),
    [
        ({"pT": 2}, "in bins of 'pT', which is none of P"),
        ({"P": 2}, "not made of bins of the map"),
        ({"P": EDGES[:3]}, "the first and the last one"),
    ],
)
def test_bins_that_are_not_those_of_the_map_have_no_factor(
    binning: dict[str, Any], message: str
) -> None:
    known = make_map()
    found = closure(known, control(23), binning=binning, **GIVEN)
    with pytest.raises(MapError, match=message):
        transfer(known, found, in_bins=True)
