"""Efficiencies in bins: laws, the formulae, and bins that cannot be used."""

import itertools
import warnings

import hist
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from pidgan.efficiency.binning import bin_index, choose_edges, equal_population
from pidgan.efficiency.sorted_rows import (
    efficiency_interval,
    is_unphysical,
    share_covariance,
    sort_rows,
)
from pidgan.efficiency.table import (
    EMPTY,
    NOT_POSITIVE,
    EfficiencyTable,
    cut_covariance,
    efficiency_table,
)
from pidgan.errors import CutError, DatasetError, PidganWarning, SampleError

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
    [(0.0, 0), (10.0, 1), (99.9, 2), (100.0, 2), (100.1, -1), (-0.1, -1), (np.nan, -1)],
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
    with pytest.warns(PidganWarning, match=r"1 of 3 .* left out: P 0 to 10: 1"):
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


def test_histograms_make_the_table_that_they_came_from() -> None:
    frame, w = tracks()
    cuts = ["PIDK > 0", "PIDK > 4"]
    table = efficiency_table(frame, cuts, binning=BINNING, weights=w)
    passed = table.to_hist("passed")
    back = EfficiencyTable.from_hists(
        table.to_hist("total"), {cut: passed[cut, :, :] for cut in cuts}
    )
    assert (back.cuts, back.binning) == (table.cuts, table.binning)
    for name in ("efficiency", "variance", "lower", "upper", "n_eff", "n_eff_passed"):
        found, expected = getattr(back, name), getattr(table, name)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.all(back.n_rows == -1)


def test_histograms_filled_by_hist_agree() -> None:
    frame, w = tracks()
    table = efficiency_table(frame, "PIDK > 4", binning=BINNING, weights=w)
    total = hist.Hist(
        *(hist.axis.Variable(edges, name=name) for name, edges in BINNING.items()),
        storage=hist.storage.Weight(),
    )
    passed, accept = total.copy(), frame["PIDK"].to_numpy() > 4
    total.fill(frame["P"], frame["ETA"], weight=w)
    passed.fill(frame["P"][accept], frame["ETA"][accept], weight=w[accept])
    found = EfficiencyTable.from_hists(total, {"PIDK > 4": passed})
    np.testing.assert_allclose(found.efficiency, table.efficiency)
    np.testing.assert_allclose(found.variance, table.variance)
    axes = {axis.name: axis for axis in total.axes}
    again = efficiency_table(frame, "PIDK > 4", binning=axes, weights=w)
    np.testing.assert_array_equal(again.efficiency, table.efficiency)


def test_histograms_that_cannot_make_a_table() -> None:
    frame, w = tracks()
    table = efficiency_table(frame, "PIDK > 4", binning=BINNING, weights=w)
    total = table.to_hist("total")
    with pytest.raises(DatasetError, match=r"'y > 1' has other axes"):
        EfficiencyTable.from_hists(total, {"y > 1": total[:, sum]})
    plain = hist.Hist(*total.axes)
    with pytest.raises(DatasetError, match="squared weights"):
        EfficiencyTable.from_hists(plain, {"y > 1": plain})


def test_automatic_bins_have_the_same_population() -> None:
    frame, w = tracks(50_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = efficiency_table(frame, "PIDK > 4", binning={"P": 8}, weights=w)
    assert table.rows_outside == 0
    assert table.shape == (8,)
    assert table.n_eff.min() > 0.9 * table.n_eff.mean()


def test_automatic_bins_follow_the_weights_and_not_the_rows() -> None:
    # Most rows lie above 10 and are background that the weights remove.
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.uniform(0, 10, 4000), rng.uniform(10, 20, 36_000)])
    w = np.where(x < 10, 1.0, rng.choice([-1.0, 1.0], len(x)))
    of_rows = np.quantile(x, [0, 0.25, 0.5, 0.75, 1])
    found = [
        np.array([w[inside].sum() ** 2 / (w[inside] ** 2).sum() for inside in bins])
        for bins in (
            [(x >= low) & (x <= high) for low, high in itertools.pairwise(edges)]
            for edges in (equal_population(x, 4, weights=w), of_rows)
        )
    ]
    assert found[0].min() > 50
    assert found[1].min() < 5


def test_automatic_bins_do_not_split_integers() -> None:
    rng = np.random.default_rng(5)
    x = rng.poisson(2.0, 10_000)
    edges = equal_population(x, 3)
    assert np.all(edges[:-1] == np.round(edges[:-1]))
    assert edges[-1] == np.nextafter(x.max(), np.inf)


def test_too_many_automatic_bins_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"'P'.*3 different values.*4 bins"):
        choose_edges({"P": 4}, {"P": np.array([1.0, 2.0, 3.0, 3.0])})
    with pytest.raises(DatasetError, match="no finite value"):
        choose_edges({"P": 4}, {"P": np.full(3, np.nan)})


def test_binnings_by_name() -> None:
    frame, w = tracks()
    frame["P"] *= 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PidganWarning)
        table = efficiency_table(frame, "DLLK > 4", binning="hadrons", weights=w)
    assert table.shape == (18, 4, 4)
    one = efficiency_table(frame, "DLLK > 4", binning={"ETA": "hadrons"}, weights=w)
    assert one.binning == {"ETA": (1.5, 2.375, 3.25, 4.125, 5.0)}
    with pytest.raises(ValueError, match="'hadrons' has no 'nPVs'"):
        efficiency_table(frame.assign(nPVs=1), "DLLK > 4", binning={"nPVs": "hadrons"})


def test_real_and_generated_of_the_same_rows_are_correlated() -> None:
    # Shares of draws that follow the same conditions as the real rows.
    rng = np.random.default_rng(2)
    p, w = rng.uniform(0.1, 0.9, 4000), rng.normal(0.7, 1.0, 4000)
    real = rng.random(4000) < p
    share = rng.binomial(8, p) / 8
    rows = sort_rows(np.zeros(4000, dtype=np.int64), w, 1)
    both = np.stack([real[rows.order], share[rows.order]])
    covariance = share_covariance(both, rows)[:, :, 0]
    table = EfficiencyTable.from_shares(
        both, rows, cuts=("real", "generated"), edges={}, variance="pidcalib"
    )
    np.testing.assert_allclose(np.diag(covariance), table.variance)
    step = real - share
    d = w @ step / w.sum()
    expected = w**2 @ (step - d) ** 2 / w.sum() ** 2
    found = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert found == pytest.approx(expected)
    assert covariance[0, 1] > 0.2 * covariance[1, 1]


@pytest.mark.parametrize(
    ("cut", "word"), [("PIDK > 900", "none"), ("PIDK < 900", "all")]
)
def test_cut_that_nothing_or_everything_passes_is_told(cut: str, word: str) -> None:
    frame, _ = tracks(500)
    with pytest.warns(PidganWarning, match=f"{word} of the rows pass"):
        table = efficiency_table(frame, cut, binning={})
    assert table.efficiency[0] == (word == "all")
    assert 0 < table.error[0] < 0.01
    assert table.lower[0] >= -1e-12
    assert table.upper[0] <= 1 + 1e-12
    assert table.few[0] == (word == "none")


def test_few_passing_rows_are_flagged() -> None:
    frame = {"y": np.arange(100.0)}
    table = efficiency_table(frame, ["y >= 81", "y >= 80"], binning={})
    assert table.n_eff_passed.tolist() == [19.0, 20.0]
    assert table.few.tolist() == [True, False]


def test_unphysical_efficiencies_are_flagged_and_not_clipped() -> None:
    """Weights of both signs can put an efficiency outside [0, 1]; nothing hides it."""
    frame = {"P": np.repeat([1.0, 11.0, 21.0], 3), "y": np.tile([1.0, 1.0, -1.0], 3)}
    weights = [2.0, 1.0, -0.5, -1.0, 0.5, 2.0, 1.0, 1.0, 1.0]
    binning = {"P": (0, 10, 20, 30)}
    with pytest.warns(PidganWarning, match=r"2 of 3 efficiencies lie outside \[0, 1\]"):
        table = efficiency_table(frame, "y > 0", binning=binning, weights=weights)
    np.testing.assert_allclose(table.efficiency[0], [3 / 2.5, -0.5 / 1.5, 2 / 3])
    assert table.unphysical.tolist() == [[True, True, False]]
    assert table.frame()["unphysical"].tolist() == [True, True, False]
    # All rows, or none, with weights whose sums round differently.
    rng = np.random.default_rng(1)
    e, *_ = efficiency_interval([0.1 * 3, 0.0], [0.3, 1.0], [1.0, 0.0], [1.0, 1.0])
    assert not is_unphysical([*e, np.nan, *rng.random(5)]).any()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"binning": {"p": (0, 1)}}, ValueError, "not a column; closest: 'P'"),
        ({"binning": {"P": (1, 1)}}, ValueError, "increasing"),
        ({"binning": "hadron"}, SampleError, "closest: 'hadrons'"),
        ({"binning": {"P": 0}}, ValueError, "n_bins is 0"),
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


def test_one_cut_is_a_list_of_one_and_no_binning_is_one_bin() -> None:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"P": rng.uniform(0, 1, 200), "y": rng.normal(0, 1, 200)})
    one, several = (efficiency_table(frame, cuts) for cuts in ("y > 0", ["y > 0"]))
    np.testing.assert_array_equal(one.efficiency, several.efficiency)
    assert one.efficiency.shape == (1,)
    covariance = cut_covariance(frame, "y > 0")
    np.testing.assert_array_equal(covariance, cut_covariance(frame, ["y > 0"]))
    assert covariance.shape == (1, 1)
    edges = choose_edges(None, frame, default={"P": 2}, ranges={"P": (-1.0, 0.5)})
    assert edges["P"][0] == -1.0
    assert edges["P"][-1] > frame["P"].max()
