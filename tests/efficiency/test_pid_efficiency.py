"""The arithmetic of efficiencies, on toys whose truth and covariance are known."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_map import (
    CUTS,
    DISCREPANCY,
    GENERATED,
    IN_SECOND_CELL,
    SAME_BIN,
    SHARES,
    TRUTH,
    draw_rows,
    make_map,
)

from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.estimates import Estimates, map_covariance, stack
from pidgan.efficiency.pid_efficiency import PidEfficiencies, combine
from pidgan.efficiency.quoted import latex_number
from pidgan.efficiency.selections import (
    Selection,
    open_maps,
    parse_selection,
    parse_selections,
)
from pidgan.errors import CutError, MapError, PidganWarning

BINS = {"x": (0.0, 1.0, 2.0)}
SELECTIONS = [
    Selection(text="a0", cuts={"a": 0}),
    Selection(text="a1", cuts={"a": 1}),
    Selection(text="b0", cuts={"b": 0}),
    Selection(text="a1 & b0", cuts={"a": 1, "b": 0}),
    Selection(text="a0 & b0 & c0", cuts={"a": 0, "b": 0, "c": 0}),
]


def true_efficiencies() -> np.ndarray:
    """Of each selection in each bin, from the joint distribution of the tracks."""
    result = np.empty((len(SELECTIONS), 2))
    for cell, p_cell in enumerate((1 - IN_SECOND_CELL, IN_SECOND_CELL)):
        first = SHARES * p_cell / (SHARES @ p_cell)
        both = first[:, np.newaxis] * (
            SAME_BIN * np.eye(3) + (1 - SAME_BIN) * SHARES[np.newaxis]
        )
        for k, selection in enumerate(SELECTIONS):
            a, b, c = (
                TRUTH[selection.cuts[t]] if t in selection.cuts else np.ones(3)
                for t in "abc"
            )
            result[k, cell] = (a @ both @ b) * (SHARES @ c)
    return result


def experiment(seed: int, *, n: int = 1000, weighted: bool = False) -> PidEfficiencies:
    one, other = make_map(seed=seed), make_map(seed=10_000 + seed)
    return combined(
        SELECTIONS,
        draw_rows(20_000 + seed, n, weighted=weighted),
        {"a": one, "b": one, "c": other},
        bins=BINS,
    )


def combined(
    selections: Sequence[Selection],
    rows: Rows,
    maps: Mapping[str, EfficiencyMap],
    *,
    bins: Mapping[str, Sequence[float]],
    **options: Any,
) -> PidEfficiencies:
    """Combine rows whose cells number bins with these edges."""
    edges = {name: tuple(map(float, values)) for name, values in bins.items()}
    return combine(selections, replace(rows, binning=edges), maps, **options)


def covariance_of(found: Estimates) -> np.ndarray:
    """All but the transfer: the bins of these toys are filled like the reference."""
    without: np.ndarray = found.covariance - found.systematics["transfer"]
    return without


def check_covariance(deviations: np.ndarray, covariances: np.ndarray) -> None:
    """Deviations (experiments, n) are as large, and as correlated, as was said."""
    n_experiments, n = deviations.shape
    factor = np.linalg.cholesky(covariances.mean(axis=0))
    white = np.linalg.solve(factor, deviations.T)
    assert np.abs(white.mean(axis=1)).max() < 4 / np.sqrt(n_experiments)
    # Eigenvalues of the covariance of white noise, with room for finite statistics.
    edge = (np.sqrt(n) + 1.5) / np.sqrt(n_experiments)
    eigenvalues = np.linalg.eigvalsh(white @ white.T / n_experiments)
    assert (1 - edge) ** 2 < eigenvalues.min()
    assert eigenvalues.max() < (1 + edge) ** 2


@pytest.fixture(scope="module")
def experiments() -> list[PidEfficiencies]:
    return [experiment(seed) for seed in range(200)]


@pytest.mark.parametrize("weighted", [False, True])
def test_covariance_is_that_of_replicas(
    experiments: list[PidEfficiencies], weighted: bool
) -> None:
    """Joint selections, cuts, tracks of one map and of two, and bins, all together."""
    truth = true_efficiencies().ravel()
    if weighted:
        experiments = [experiment(seed, weighted=True) for seed in range(200)]
    check_covariance(
        np.array([found.estimates.values - truth for found in experiments]),
        np.array([covariance_of(found.estimates) for found in experiments]),
    )


def test_replicas_would_show_a_missing_correlation(
    experiments: list[PidEfficiencies],
) -> None:
    truth = true_efficiencies().ravel()
    deviations = np.array([f.estimates.values - truth for f in experiments])
    diagonal = [np.diag(np.diag(f.covariance)) for f in experiments]
    with pytest.raises(AssertionError):
        check_covariance(deviations, np.array(diagonal))


@pytest.mark.parametrize(
    "function",
    [
        lambda e: e[1] / e[0],  # the same cut, two bins
        lambda e: e[2] / e[0],  # two cuts
        lambda e: e[6] / (e[0] * e[4]),  # how far tracks are from independent
        lambda e: stack([e[8] - e[6], e[4] * e[3], e[0] + e[5] * 2.0]),
    ],
)
def test_uncertainty_of_functions_is_that_of_replicas(
    experiments: list[PidEfficiencies], function: Callable[[Estimates], Estimates]
) -> None:
    truth = experiments[0].estimates
    exact = Estimates(
        labels=truth.labels,
        values=true_efficiencies().ravel(),
        samples={},
        gradients={},
        shifts={},
        maps={},
    )
    found = [function(one.estimates) for one in experiments]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = function(exact).values
    check_covariance(
        np.array([one.values - expected for one in found]),
        np.array([covariance_of(one) for one in found]),
    )


def test_the_map_cancels_in_the_ratio_of_two_ntuples() -> None:
    """The ratio of two ntuples with the same map is much better than either."""
    truth = true_efficiencies().ravel()
    deviations, covariances = [], []
    for seed in range(120):
        one, other = make_map(seed=seed), make_map(seed=10_000 + seed)
        maps = {"a": one, "b": one, "c": other}
        signal, control = (
            combined(SELECTIONS, draw_rows(s, 1000), maps, bins=BINS)
            for s in (30_000 + seed, 40_000 + seed)
        )
        ratio = signal / control
        deviations.append(ratio.values - truth / truth)
        covariances.append(covariance_of(ratio))
        calibration = np.sqrt(np.diag(ratio.systematics["calibration"]))
        own = np.sqrt(np.diag(signal.covariances["calibration"]))
        assert (calibration < 0.4 * own / signal.estimates.values).all()
        stat = (
            np.diag(signal.estimates.stat) / signal.estimates.values**2
            + np.diag(control.estimates.stat) / control.estimates.values**2
        )
        np.testing.assert_allclose(np.diag(ratio.stat) / ratio.values**2, stat)
    check_covariance(np.array(deviations), np.array(covariances))


def test_bins_add_up_to_the_whole() -> None:
    rows = draw_rows(1, 3000, weighted=True)
    maps = dict.fromkeys("abc", make_map(seed=3))
    parts = combined(SELECTIONS, rows, maps, bins=BINS)
    whole = combined(SELECTIONS, _in_one_cell(rows), maps, bins={})
    share = np.bincount(rows.cell, rows.weights) / rows.weights.sum()
    added = parts.estimates.linear(
        np.kron(np.eye(len(SELECTIONS)), share), labels=[s.text for s in SELECTIONS]
    )
    np.testing.assert_allclose(added.values, whole.estimates.values, rtol=1e-12)
    for name in ("calibration", "binning"):
        np.testing.assert_allclose(
            added.systematics[name], whole.covariances[name], rtol=1e-9
        )
    # The spread between bins is part of the whole's fluctuations only.
    assert (np.diag(added.stat) < np.diag(whole.estimates.stat)).all()


def _in_one_cell(rows: Rows) -> Rows:
    return Rows(
        tracks=rows.tracks,
        weights=rows.weights,
        cell=np.zeros(len(rows.weights), dtype=np.int64),
    )


def test_joint_value_is_the_mean_product() -> None:
    rows, efficiency_map = _in_one_cell(draw_rows(1, 500, weighted=True)), make_map()
    (one,) = combined(
        [SELECTIONS[3]], rows, dict.fromkeys("abc", efficiency_map), bins={}
    )
    a, b = rows.tracks["a"], rows.tracks["b"]
    v = (a.passed[1] + DISCREPANCY[1][a.place]) * (
        b.passed[0] + DISCREPANCY[0][b.place]
    )
    assert one.value == pytest.approx(np.average(v, weights=rows.weights), rel=1e-12)
    both = a.passed[1] & b.passed[0]
    assert one.generated == pytest.approx(np.average(both, weights=rows.weights))
    influence = rows.weights * (v - one.value) / rows.weights.sum()
    assert one.stat == pytest.approx(np.sqrt(influence @ influence), rel=1e-12)


def test_gradient_is_the_derivative() -> None:
    """A change of one discrepancy changes the joint value as the gradient says."""
    rows = draw_rows(1, 400)
    found = combined(SELECTIONS, rows, dict.fromkeys("abc", make_map()), bins=BINS)
    (gradient,) = found.estimates.gradients.values()
    for number in range(6):
        step = np.zeros(6)
        step[number] = 1e-6
        up, down = (
            combined(
                SELECTIONS,
                rows,
                dict.fromkeys(
                    "abc",
                    make_map(discrepancy=DISCREPANCY + sign * step.reshape(2, 3)),
                ),
                bins=BINS,
            )
            for sign in (1, -1)
        )
        slope = (up.estimates.values - down.estimates.values) / 2e-6
        np.testing.assert_allclose(gradient.toarray()[:, number], slope, atol=1e-8)


def test_map_covariance_is_that_of_the_joint_matrix() -> None:
    efficiency_map = make_map()
    joint = np.block(
        [[efficiency_map.joint_covariance(i, j) for j in (0, 1)] for i in (0, 1)]
    )
    from scipy import sparse

    gradient = np.random.default_rng(1).normal(size=(5, 6))
    gradient[0, :3] = gradient[1, 3:] = 0
    np.testing.assert_allclose(
        map_covariance(efficiency_map, sparse.csr_array(gradient)),
        gradient @ joint @ gradient.T,
    )


def test_tracks_of_one_map_share_its_error() -> None:
    rows = _in_one_cell(draw_rows(1, 2000))
    same = combined(SELECTIONS[:3], rows, dict.fromkeys("abc", make_map()), bins={})
    # Another object with the same content is the same map ...
    again = combined(
        SELECTIONS[:3],
        rows,
        {"a": make_map(), "b": make_map(), "c": make_map()},
        bins={},
    )
    np.testing.assert_array_equal(again.covariance, same.covariance)
    # ... and one with another content is not.
    different = combined(
        SELECTIONS[:3],
        rows,
        {"a": make_map(), "b": make_map(seed=1), "c": make_map()},
        bins={},
    )
    assert (
        same.covariances["calibration"][0, 2]
        > 0.5 * (same.covariances["calibration"][0, 0])
    )
    assert different.covariances["calibration"][0, 2] == 0


def test_maps_of_one_bundle_are_not_independent() -> None:
    rows = _in_one_cell(draw_rows(1, 100))
    maps = {
        t: make_map(seed=i, metadata=make_map().metadata | {"bundle_sha256": "same"})
        for i, t in enumerate("abc")
    }
    with pytest.warns(PidganWarning, match="two efficiency maps of the same bundle"):
        combined(SELECTIONS, rows, maps, bins={})


def test_rows_that_two_results_share_are_not_independent() -> None:
    """The rows of one result are a part of those of the other."""
    rows, maps = _in_one_cell(draw_rows(1, 2000)), dict.fromkeys("abc", make_map())
    chosen = np.flatnonzero(np.random.default_rng(2).random(2000) < 0.5)
    numbers = np.arange(2000)

    def part(used: np.ndarray, name: str = "f.root:T") -> PidEfficiencies:
        own = Rows(
            tracks={
                t: TrackRows(
                    place=r.place[used],
                    passed={k: v[used] for k, v in r.passed.items()},
                )
                for t, r in rows.tracks.items()
            },
            weights=rows.weights[used],
            cell=rows.cell[used],
            origin={name: (2000, numbers[used])},
        )
        return combined(SELECTIONS, own, maps, bins={})

    def influence(found: PidEfficiencies, used: np.ndarray) -> np.ndarray:
        """What each row contributes to the fluctuation of each value."""
        result = np.zeros((len(SELECTIONS), 2000))
        for k, selection in enumerate(SELECTIONS):
            v = np.ones(2000)
            for t, cut in selection.cuts.items():
                r = rows.tracks[t]
                v *= r.passed[cut] + DISCREPANCY[cut][r.place]
            result[k, used] = (v[used] - found[k].value) / len(used)
        return result

    whole, half = part(numbers), part(chosen)
    rest = part(np.delete(numbers, chosen))
    for one, used in ((half, chosen), (rest, np.delete(numbers, chosen))):
        phi = influence(one, used) - influence(whole, numbers)
        difference = one.estimates - whole.estimates
        np.testing.assert_allclose(difference.stat, phi @ phi.T, atol=1e-12)
        own = influence(one, used)
        np.testing.assert_allclose(one.estimates.stat, own @ own.T, atol=1e-12)
    apart = (half.estimates - rest.estimates).stat
    np.testing.assert_allclose(apart, half.estimates.stat + rest.estimates.stat)
    same = (whole / part(numbers)).stat
    np.testing.assert_allclose(same, 0, atol=1e-15)
    other = (whole.estimates - part(numbers, "g.root:T").estimates).stat
    np.testing.assert_allclose(other, 2 * whole.estimates.stat)


def test_a_variation_may_have_the_name_of_the_transfer() -> None:
    rows = _in_one_cell(draw_rows(1, 2000))
    shift = np.full((2, 3), 0.01)
    (plain,) = combined(SELECTIONS[:1], rows, dict.fromkeys("abc", make_map()), bins={})
    (both,) = combined(
        SELECTIONS[:1],
        rows,
        dict.fromkeys("abc", make_map(variations={"transfer": shift})),
        bins={},
    )
    assert both.syst["transfer"] == pytest.approx(
        np.hypot(plain.syst["transfer"], 0.01)
    )


# Flags


def test_bins_without_an_efficiency_are_flagged() -> None:
    rows = draw_rows(1, 1000)
    cell = np.where(rows.cell == 1, 3, rows.cell)
    cell[:20] = 1
    weights = np.where(cell == 1, -1.0, 1.0)
    rows = Rows(tracks=rows.tracks, weights=weights, cell=cell)
    with pytest.warns(
        PidganWarning, match="2 of 4 bins of the analysis have no efficiency: 1 without"
    ):
        found = combined(
            SELECTIONS,
            rows,
            dict.fromkeys("abc", make_map()),
            bins={"x": (0, 1, 2), "y": (0, 1, 2)},
        )
    assert [one.flags for one in found.results[:4]] == [
        (),
        ("sum of weights not positive",),
        ("empty",),
        (),
    ]
    assert found[3].bin == {"x": (1.0, 2.0), "y": (1.0, 2.0)}
    lost = np.tile([False, True, True, False], len(SELECTIONS))
    assert np.array_equal(np.isnan(found.estimates.values), lost)
    assert np.array_equal(np.isnan(found.covariance), lost[:, np.newaxis] | lost)
    for one in found.results:
        assert np.isnan(one.total) == np.isnan(one.value) == bool(one.flags)
    content = json.loads(found.to_json())
    assert content["results"][1]["value"] is None
    assert content["covariance"][0][1] is None
    assert "x" in found.text()
    assert "empty" in found.text()
    assert r"--" in found.latex()
    ratio = found.estimates[[0, 1, 3]] / found.estimates[[3, 3, 2]]
    assert np.isnan(ratio.values).tolist() == [False, True, True]
    assert np.isfinite(ratio.covariance[0, 0])


def test_cuts_that_pass_nothing_or_everything_are_flagged() -> None:
    n = 100
    flags = {0: np.ones(n, dtype=bool), 1: np.zeros(n, dtype=bool)}
    rows = Rows(
        tracks={"a": TrackRows(place=np.zeros(n, dtype=int), passed=flags)},
        weights=np.ones(n),
        cell=np.zeros(n, dtype=int),
    )
    with pytest.warns(PidganWarning, match=r"1 of 2 efficiencies .* outside \[0, 1\]"):
        found = combined(SELECTIONS[:2], rows, {"a": make_map()}, bins={})
    everything, nothing = found
    assert everything.flags == ("everything passes",)
    # The correction takes 2 % from nothing, and the value says so.
    assert nothing.value == pytest.approx(-0.02)
    assert nothing.flags == ("nothing passes", "below 0")
    assert "a1: nothing passes, below 0" in found.text()
    assert found.frame()["flags"].tolist()[1] == "nothing passes, below 0"
    assert "below 0" in json.loads(found.to_json())["results"][1]["flags"]
    for one in (everything, nothing):
        assert np.isfinite(one.value)
        assert one.stat > 0


def test_an_efficiency_above_one_is_flagged_in_its_bin() -> None:
    rows = draw_rows(1, 1000)
    shift = np.array([[0.3, 0.1, 0.0], [0.0, 0.0, 0.0]])
    high = make_map(discrepancy=DISCREPANCY + shift)
    with pytest.warns(PidganWarning, match=r"1 of 4 efficiencies .* outside \[0, 1\]"):
        found = combined(SELECTIONS[:2], rows, dict.fromkeys("abc", high), bins=BINS)
    assert [one.value > 1 for one in found] == [True, False, False, False]
    assert [one.flags for one in found] == [("above 1",), (), (), ()]


def test_a_bin_that_few_weights_decide_is_flagged() -> None:
    rows = draw_rows(1, 2000)
    weights = np.where(rows.cell == 0, 1e-4, 1.0)
    weights[np.flatnonzero(rows.cell == 0)[0]] = 1.0
    maps = dict.fromkeys("abc", make_map())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PidganWarning)
        first, second = combined(
            SELECTIONS[:1], replace(rows, weights=weights), maps, bins=BINS
        )
    assert "few effective events" in first.flags
    assert first.n_eff == pytest.approx(1.0, abs=0.3)
    assert second.flags == ()
    # Few rows with weights of the same size are no surprise.
    few = combined(SELECTIONS[:1], draw_rows(2, 12), maps, bins=BINS)
    assert not any("few effective events" in one.flags for one in few)


def test_few_reference_rows_flag_a_joint_selection() -> None:
    rows, few = _in_one_cell(draw_rows(1, 200)), make_map(passing=np.array([1e3, 5.0]))
    found = combined(SELECTIONS, rows, dict.fromkeys("abc", few), bins={})
    assert [one.few_events for one in found] == [False, True, False, True, False]
    assert "few reference rows" in found[3].flags
    assert "few reference rows on one side of: a1, a1 & b0" in found.text()


def test_no_usable_bin_is_refused() -> None:
    rows = draw_rows(1, 50)
    outside = Rows(tracks=rows.tracks, weights=rows.weights, cell=rows.cell * 0 - 1)
    with pytest.raises(MapError, match="0 rows in the bins of the analysis"):
        combined(SELECTIONS, outside, dict.fromkeys("abc", make_map()), bins=BINS)


def test_too_many_bins_are_refused() -> None:
    with pytest.raises(
        MapError, match="5 selections in 1001 bins of the analysis: got"
    ):
        combined(
            SELECTIONS,
            draw_rows(1, 50),
            dict.fromkeys("abc", make_map()),
            bins={"x": range(1002)},
        )


def test_a_denominator_near_zero_is_announced() -> None:
    rows = _in_one_cell(draw_rows(1, 500))
    found = combined(SELECTIONS, rows, dict.fromkeys("abc", make_map()), bins={})
    e = found.estimates
    with pytest.warns(PidganWarning, match="uncertainties of zero, too close"):
        ratio = e[0] / (e[0] - e[2])
    with pytest.warns(PidganWarning, match="within 3 uncertainties of zero"):
        ratio = e[0] / (e[0] - e[0])
    assert np.isnan(ratio.values).all()
    assert np.isnan(ratio.covariance).all()
    with pytest.raises(ValueError, match="5 and 2 estimates"):
        _ = e - e[:2]


def test_rows_outside_the_map_of_a_track() -> None:
    rows = _in_one_cell(draw_rows(1, 1000))
    place = rows.tracks["b"].place.copy()
    place[:100] = -1
    b = TrackRows(place=place, passed=rows.tracks["b"].passed)
    rows = Rows(tracks={**rows.tracks, "b": b}, weights=rows.weights, cell=rows.cell)
    maps = dict.fromkeys("abc", make_map())
    with pytest.warns(PidganWarning, match="100 of 1000 rows lie outside .* map of b"):
        found = combined(SELECTIONS, rows, maps, bins={})
    a, _, single, joint, _ = found
    assert a.syst["outside"] == 0
    assert a.outside_fraction == 0
    # Track b may be anything in a tenth of the rows; the joint one, where a passes.
    assert single.outside_fraction == joint.outside_fraction == pytest.approx(0.1)
    assert 0.05 < single.syst["outside"] / 0.1 < 0.578
    expected = single.syst["outside"] * TRUTH[1] @ SHARES
    assert joint.syst["outside"] == pytest.approx(expected, rel=0.25)
    with pytest.raises(MapError, match="outside the efficiency map of b"):
        combined(SELECTIONS, rows, maps, bins={}, outside="refuse")


def test_without_correction() -> None:
    rows, maps = _in_one_cell(draw_rows(1, 1000)), dict.fromkeys("abc", make_map())
    found = combined(SELECTIONS, rows, maps, bins={})
    bare = combined(SELECTIONS, rows, maps, bins={}, correction=False)
    for one, other in zip(found, bare, strict=True):
        assert other.value == other.generated == one.generated
        assert other.correction == pytest.approx(one.value - one.generated)
        assert other.syst["uncorrected"] == pytest.approx(abs(one.correction))
        assert other.total > one.syst["calibration"]


# Selections


@pytest.fixture
def maps() -> dict[str, EfficiencyMap]:
    cuts = ("DLLk > 0", "DLLk > 5 & DLLp < 3", "DLLk > 1 | DLLp < 0")
    wide = np.zeros((3, 3))
    counts = dict.fromkeys(("passing", "failing"), np.full(3, 1e3))
    efficiency_map = make_map(
        cuts=cuts, discrepancy=wide, generated=wide + 0.5, **counts
    )
    return {"K": efficiency_map, "K_2": efficiency_map}


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("DLLk > 0", {"K": 0, "K_2": 0}),
        ("K_DLLk > 0", {"K": 0}),
        ("K_2_DLLk>0", {"K_2": 0}),
        ("K_DLLk > 0 & K_2_DLLk > 0", {"K": 0, "K_2": 0}),
        ("K_DLLk > 5 && K_2_DLLk > 0 && K_DLLp < 3", {"K": 1, "K_2": 0}),
        ("(K_DLLk > 5 & K_2_DLLk > 0) & (K_DLLp < 3)", {"K": 1, "K_2": 0}),
        ("(K_DLLk > 1 | K_DLLp < 0) & K_2_DLLk > 0", {"K": 2, "K_2": 0}),
    ],
)
def test_selections_are_split_by_track(
    maps: dict[str, EfficiencyMap], text: str, cuts: dict[str, int]
) -> None:
    assert dict(parse_selection(text, maps).cuts) == cuts


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("K_DLLk > 0 | K_2_DLLk > 0", CutError, "about several tracks"),
        ("K_DLLk - K_2_DLLk > 0", CutError, "about several tracks"),
        ("K_DLLk > 0 & DLLk > 0", CutError, "'DLLk' belongs to no track; closest"),
        ("K_DLLk > 7", MapError, "K: the efficiency map has no cut 'DLLk > 7.0'"),
        ("K_DLLq > 0", CutError, "K: cut 'DLLq > 0.0' names an unknown variable"),
        ("pi_DLLk > 0", CutError, "unknown variable 'pi_DLLk'"),
        ("K_DLLk", MapError, "K: the efficiency map has no cut 'DLLk == 1.0'"),
    ],
)
def test_bad_selections(
    maps: dict[str, EfficiencyMap], text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        parse_selection(text, maps)


def test_tracks_and_maps_must_fit(maps: dict[str, EfficiencyMap]) -> None:
    with pytest.raises(CutError, match="no cut is about K_2; leave that track out"):
        parse_selections("K_DLLk > 0", maps)
    with pytest.raises(ValueError, match="no cut given"):
        parse_selections([], maps)
    one = maps["K"]
    with pytest.raises(ValueError, match="no track given"):
        open_maps({})
    with pytest.raises(TypeError, match="expected a mapping of track to efficiency ma"):
        open_maps(one)  # type: ignore[arg-type]
    other = make_map(cuts=("DLLk > 1", "DLLk > 2"))
    assert [s.text for s in parse_selections(None, {"K": one})] == list(one.cuts)
    with pytest.raises(CutError, match="map of pi has other cuts than that of K"):
        parse_selections(None, {"K": one, "pi": other})


def test_a_map_of_two_tracks_is_opened_once(tmp_path: Path) -> None:
    path, *_ = make_map().save(tmp_path / "map.json")
    opened = open_maps({"K": path, "pi": str(path)})
    assert list(opened) == ["K", "pi"]
    assert opened["K"] is opened["pi"]


# Tables


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((92.93, 0.117, 0.35), r"$92.9 \pm 0.1 \pm 0.3$"),
        ((92.93, 0.117, 0.21), r"$92.93 \pm 0.12 \pm 0.21$"),
        ((2.687, 0.080, 0.316), r"$2.69 \pm 0.08 \pm 0.32$"),
        ((0.5, 0.004, 0.6), r"$0.500 \pm 0.004 \pm 0.600$"),
        ((42.0, 1e-9, 0.2), r"$42.00 \pm 0.00 \pm 0.20$"),
        ((42.0, 12.0, 34.0), r"$42 \pm 12 \pm 34$"),
        ((1.0, 0.0, 0.0), r"$1 \pm 0 \pm 0$"),
        ((float("nan"), 1.0, 1.0), "--"),
    ],
)
def test_latex_numbers(numbers: tuple[float, float, float], text: str) -> None:
    assert latex_number(*numbers) == text


def test_latex_tables() -> None:
    found = combined(
        SELECTIONS, draw_rows(1, 1000), dict.fromkeys("abc", make_map()), bins=BINS
    )
    lines = found.latex().splitlines()
    assert lines[0] == r"\begin{tabular}{llr}"
    assert lines[2] == r"Selection & x & Efficiency [\%] \\"
    assert len(lines) == 6 + len(found)
    assert lines[10].startswith(r"a1 \& b0 & $0$--$1$ & $")
    ratio = (found.estimates[0] / found.estimates[1]).latex()
    assert r"(a0, 0 $\leq$ x $<$ 1) / (a0, 1 $\leq$ x $<$ 2) & $" in ratio
    assert found.latex().count(" & ") == 2 * (len(found) + 1)


def test_bins_may_reach_to_infinity() -> None:
    found = combined(
        SELECTIONS[:1],
        draw_rows(1, 1000),
        dict.fromkeys("abc", make_map()),
        bins={"x": (0.0, 1.0, np.inf)},
    )
    assert json.loads(found.to_json())["results"][1]["bin"] == {"x": [1.0, None]}
    assert r"$1$--$\infty$" in found.latex()


def test_results_hold_everything() -> None:
    found = combined(
        SELECTIONS, draw_rows(1, 1000), dict.fromkeys("abc", make_map()), bins=BINS
    )
    content = json.loads(found.to_json())
    parts = content["covariance_parts"]
    assert list(parts) == ["stat", "calibration", "binning", "transfer"]
    total = sum(np.array(part) for part in parts.values())
    np.testing.assert_allclose(total, content["covariance"])
    np.testing.assert_allclose(total, found.covariance)
    for i, (one, row) in enumerate(zip(found, content["results"], strict=True)):
        assert row["value"] == one.value
        assert one.total == pytest.approx(np.sqrt(total[i, i]))
        assert row["bin"] == {"x": list(one.bin["x"])}
    assert found.n_outside_bins == 0
    frame = found.frame()
    np.testing.assert_array_equal(frame["value"], found.estimates.values)
    np.testing.assert_array_equal(frame["x_low"], [0.0, 1.0] * len(SELECTIONS))
    np.testing.assert_array_equal(frame["n_rows"], [one.n_rows for one in found])
    squares = frame[["stat", "calibration", "binning", "transfer"]] ** 2
    np.testing.assert_allclose(squares.sum(axis=1), frame["total"] ** 2)
    assert len(found.text().splitlines()) == 2 * len(found) + 5


def test_generated_efficiencies_of_the_toy_are_those_of_its_map() -> None:
    """The toy is what the laws above need: d is real minus generated, in every bin."""
    rows = draw_rows(5, 200_000)
    for k in range(len(CUTS)):
        a = rows.tracks["a"]
        found = np.bincount(a.place, a.passed[k]) / np.bincount(a.place)
        np.testing.assert_allclose(found, GENERATED[k], atol=0.01)
