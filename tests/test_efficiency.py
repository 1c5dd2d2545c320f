"""Efficiencies in bins: laws, the formulae, and bins that cannot be used."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from pidgan.efficiency import (
    EMPTY,
    NOT_POSITIVE,
    bin_index,
    cut_covariance,
    efficiency_interval,
    efficiency_table,
)
from pidgan.errors import CutError, DatasetError, PidganWarning

BINNING = {"P": (0.0, 10.0, 40.0, 100.0), "ETA": (2.0, 3.0, 5.0)}


def tracks(n: int = 5000, seed: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows that fill every bin, with weights of both signs."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "P": rng.uniform(0, 100, n),
            "ETA": rng.uniform(2, 5, n),
            "nTracks": rng.integers(0, 500, n),
            "PIDK": rng.normal(3, 5, n).astype(np.float32),
        }
    )
    return frame, rng.normal(0.7, 1.0, n)


def test_bin_index_matches_histogramdd() -> None:
    frame, _ = tracks()
    index = bin_index(frame, BINNING)
    expected, _ = np.histogramdd(
        frame[["P", "ETA"]].to_numpy(), bins=[BINNING["P"], BINNING["ETA"]]
    )
    np.testing.assert_array_equal(np.bincount(index).reshape(3, 2), expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, 0), (10.0, 1), (99.9, 2), (100.0, -1), (-0.1, -1), (np.nan, -1)],
)
def test_bin_index_edges(value: float, expected: int) -> None:
    assert bin_index({"P": np.array([value])}, {"P": BINNING["P"]})[0] == expected


def test_efficiency_falls_as_the_cut_tightens() -> None:
    frame, _ = tracks()
    cuts = [f"PIDK > {threshold}" for threshold in (-5, 0, 2, 5)]
    table = efficiency_table(frame, cuts, binning=BINNING)
    assert table.efficiency.shape == (4, 3, 2)
    assert np.all(np.diff(table.efficiency, axis=0) <= 0)


def test_unit_weights_give_wilson_interval() -> None:
    frame, _ = tracks(400)
    table = efficiency_table(frame, "PIDK > 8", binning={"P": BINNING["P"]})
    for i in range(3):
        k, n = int(table.sum_passed[0, i]), int(table.n_rows[i])
        expected = binomtest(k, n).proportion_ci(
            confidence_level=0.6826894921370859, method="wilson"
        )
        assert table.lower[0, i] == pytest.approx(expected.low, abs=1e-9)
        assert table.upper[0, i] == pytest.approx(expected.high, abs=1e-9)


def test_unit_weights_give_binomial_variance() -> None:
    e, variance, _, _ = efficiency_interval(30, 100, 30, 100, variance="pidcalib")
    assert e == pytest.approx(0.3)
    assert variance == pytest.approx(0.3 * 0.7 / 100)


def test_pidcalib_variance_golden() -> None:
    # By hand: w = 2, -1, 3 pass, 4, -0.5 fail; S = 7.5, P = 4, S2 = 30.25, P2 = 14.
    frame = {
        "P": np.full(5, 5.0),
        "PIDK": np.array([1.0, 1.0, 1.0, -1.0, -1.0]),
    }
    w = np.array([2.0, -1.0, 3.0, 4.0, -0.5])
    table = efficiency_table(
        frame, "PIDK > 0", binning={"P": (0, 10)}, weights=w, variance="pidcalib"
    )
    e = 4 / 7.5
    assert table.efficiency[0, 0] == pytest.approx(e)
    assert table.variance[0, 0] == pytest.approx(
        ((1 - 2 * e) * 14 + e**2 * 30.25) / 7.5**2
    )
    assert table.variance[0, 0] == pytest.approx(1726 / 12656.25)


@pytest.mark.parametrize("variance", ["wilson", "pidcalib"])
def test_scale_of_weights_cancels(variance: str) -> None:
    frame, w = tracks()
    tables = [
        efficiency_table(
            frame,
            "PIDK > 2",
            binning=BINNING,
            weights=w * scale,
            variance=variance,  # type: ignore[arg-type]
        )
        for scale in (1.0, 7.5)
    ]
    for name in ("efficiency", "lower", "upper", "n_eff"):
        np.testing.assert_allclose(
            getattr(tables[0], name), getattr(tables[1], name), rtol=1e-10
        )


def test_interval_is_finite_at_zero_and_one() -> None:
    _, _, lower, upper = efficiency_interval([0, 50], 50, [0, 50], 50)
    assert lower[0] == pytest.approx(0, abs=1e-12)
    assert upper[1] == pytest.approx(1)
    assert upper[0] == pytest.approx(1 / 51)


def test_interval_covers_with_sweight_like_weights() -> None:
    # Signal weight +1.2 and background +-, background passes half as often: the
    # weighted efficiency must scatter by the quoted error.
    rng = np.random.default_rng(3)
    pulls = []
    for _ in range(300):
        weights = np.concatenate([np.full(800, 1.1), rng.choice([-0.6, 0.6], 600)])
        accept = np.concatenate([rng.random(800) < 0.98, rng.random(600) < 0.4])
        e, variance, _, _ = efficiency_interval(
            weights[accept].sum(),
            weights.sum(),
            (weights[accept] ** 2).sum(),
            (weights**2).sum(),
        )
        pulls.append((e - 0.98) / np.sqrt(variance))
    assert 0.85 < np.std(pulls) < 1.15


def test_bins_without_weight_are_nan_and_announced() -> None:
    frame = pd.DataFrame({"P": [1.0, 2.0, 11.0, 12.0], "PIDK": [1.0, -1.0, 1.0, 1.0]})
    with pytest.warns(PidganWarning, match=r"2 of 3 bins: 1 empty, 1 with sum"):
        table = efficiency_table(
            frame,
            "PIDK > 0",
            binning={"P": (0, 10, 20, 30)},
            weights=[1.0, 2.0, 0.5, -0.6],
        )
    assert table.status.tolist() == [0, NOT_POSITIVE, EMPTY]
    assert np.isnan(table.efficiency[0]).tolist() == [False, True, True]
    assert table.n_rows.tolist() == [2, 2, 0]


def test_sentinels_fail_and_are_counted() -> None:
    frame = pd.DataFrame({"P": [1.0, 2.0, 99.0], "PIDK": [-999.0, -1.0, -999.0]})
    table = efficiency_table(
        frame, "PIDK < 0", binning={"P": (0, 10)}, sentinels={"PIDK": (-999.0,)}
    )
    assert table.efficiency[0, 0] == pytest.approx(0.5)
    assert table.sentinel_rows.tolist() == [1]
    assert table.rows_outside == 1


def test_no_binning_is_the_overall_efficiency() -> None:
    frame, w = tracks()
    table = efficiency_table(frame, "PIDK > 2", binning={}, weights=w)
    accept = frame["PIDK"].to_numpy() > 2
    assert table.efficiency.shape == (1,)
    assert table.efficiency[0] == pytest.approx(w[accept].sum() / w.sum())
    assert len(table.frame()) == 1


def test_covariance_has_the_variance_on_its_diagonal() -> None:
    frame, w = tracks()
    cuts = ["PIDK > 0", "PIDK > 4"]
    table = efficiency_table(
        frame, cuts, binning=BINNING, weights=w, variance="pidcalib"
    )
    covariance = cut_covariance(frame, cuts, binning=BINNING, weights=w)
    assert covariance.shape == (2, 2, 3, 2)
    np.testing.assert_allclose(covariance[0, 0], table.variance[0])
    assert np.all(np.linalg.eigvalsh(covariance[:, :, 0, 0]) > 0)


def test_hist_and_frame_hold_the_table() -> None:
    frame, _ = tracks()
    table = efficiency_table(frame, ["PIDK > 0", "PIDK > 4"], binning=BINNING)
    histogram = table.to_hist()
    np.testing.assert_array_equal(histogram.values(flow=False), table.efficiency)
    np.testing.assert_array_equal(histogram.variances(flow=False), table.variance)
    row = table.frame().query("cut == 'PIDK > 4' and P_low == 10 and ETA_high == 5")
    assert row["efficiency"].item() == table.efficiency[1, 1, 1]


def test_three_dimensions_and_integers() -> None:
    frame, w = tracks()
    binning = {**BINNING, "nTracks": (0, 250, 500)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PidganWarning)
        table = efficiency_table(frame, "PIDK > 0", binning=binning, weights=w)
    assert table.shape == (3, 2, 2)
    assert table.sum_weights.sum() == pytest.approx(w.sum())


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"binning": {"p": (0, 1)}}, ValueError, "not a column; closest: 'P'"),
        ({"binning": {"P": (1, 1)}}, ValueError, "increasing"),
        ({"cuts": "PIDk > 0"}, CutError, "PIDK"),
        ({"cuts": []}, ValueError, "no cut"),
        ({"weights": np.ones(3)}, ValueError, "shape"),
        ({"weights": -np.ones(5000)}, DatasetError, "sum of weights is -5000"),
        ({"weights": np.full(5000, np.nan)}, DatasetError, "not finite"),
        ({"frame": {"P": np.empty(0), "PIDK": np.empty(0)}}, DatasetError, "no rows"),
        ({"variance": "binomial"}, ValueError, "wilson"),
    ],
)
def test_bad_input(change: dict, error: type, match: str) -> None:
    frame, w = tracks()
    arguments = {
        "frame": frame,
        "cuts": "PIDK > 0",
        "binning": {"P": (0, 100)},
        "weights": w,
        **change,
    }
    if "frame" in change:
        arguments["weights"] = None
    with pytest.raises(error, match=match):
        efficiency_table(arguments.pop("frame"), arguments.pop("cuts"), **arguments)
