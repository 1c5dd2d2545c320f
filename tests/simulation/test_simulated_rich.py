"""The simulated RICH: thresholds, exact ties, sentinels and its laws."""

import numpy as np
import pytest

from pidgan.simulation import RICH_VARIABLES, SENTINEL, simulate_response
from pidgan.simulation.detector import HYPOTHESES, MASSES, RICH1, RICH2

N = 4000
CENTRAL_ETA = 3.5  # 60 mrad: well inside both radiators


def respond(species, p, *, eta=CENTRAL_ETA, n_tracks=150, seed=1, n=N):
    return simulate_response(
        species, np.full(n, p), np.full(n, eta), np.full(n, n_tracks), seed=seed
    )


def with_rich(response):
    seen = response["RichDLLk"] != SENTINEL
    return {name: values[seen] for name, values in response.items()}


def with_photons(response):
    some = np.any([response[name] != 0.0 for name in RICH_VARIABLES], axis=0)
    return with_rich({name: values[some] for name, values in response.items()})


@pytest.mark.parametrize(
    ("radiator", "hypothesis", "threshold"),
    [
        (RICH1, "mu", 2.00e3),
        (RICH1, "pi", 2.64e3),
        (RICH1, "k", 9.33e3),
        (RICH1, "p", 17.7e3),
        (RICH2, "mu", 3.34e3),
        (RICH2, "pi", 4.41e3),
        (RICH2, "k", 15.6e3),
        (RICH2, "p", 29.7e3),
    ],
)
def test_thresholds_are_those_of_the_gases(radiator, hypothesis, threshold):
    mass = MASSES[HYPOTHESES.index(hypothesis)]
    assert radiator.threshold(mass) == pytest.approx(threshold, rel=0.005)
    below, above = np.array([0.999, 1.01]) * radiator.threshold(mass)
    assert radiator.yield_fraction(np.array([below]), mass) == 0.0
    assert radiator.yield_fraction(np.array([above]), mass) > 0.0


@pytest.mark.parametrize(("radiator", "angle"), [(RICH1, 52.9e-3), (RICH2, 31.6e-3)])
def test_saturated_angles_are_those_of_the_gases(radiator, angle):
    saturated = radiator.yield_fraction(np.array([1e9]), MASSES[0])
    assert saturated == pytest.approx(1.0)
    assert radiator.angle(saturated) == pytest.approx(angle, rel=1e-2)


@pytest.mark.parametrize("species", ["K+", "pi-", "p", "mu-", "e-"])
@pytest.mark.parametrize(("variable", "index"), [("RichDLLk", 1), ("RichDLLp", 2)])
def test_dlls_tie_exactly_below_every_threshold(species, variable, index):
    threshold = RICH1.threshold(MASSES[index])
    below = with_rich(respond(species, 0.98 * threshold))
    np.testing.assert_array_equal(below[variable], below["RichDLLbt"])
    above = with_photons(respond(species, 1.2 * threshold))
    assert np.mean(above[variable] == above["RichDLLbt"]) < 1e-3


def test_without_rich1_the_thresholds_are_those_of_rich2():
    between = with_rich(respond("pi+", 12e3, eta=4.6))
    np.testing.assert_array_equal(between["RichDLLk"], between["RichDLLbt"])


def test_nothing_ties_at_high_momentum():
    response = with_photons(respond("p", 60e3))
    columns = np.stack([response[name] for name in RICH_VARIABLES])
    for i in range(len(columns)):
        for j in range(i):
            assert np.mean(columns[i] == columns[j]) < 1e-3


@pytest.mark.parametrize("eta", [1.6, 5.3])
def test_outside_the_acceptance_all_five_are_sentinels(eta):
    response = respond("K+", 20e3, eta=eta)
    for name in RICH_VARIABLES:
        assert np.all(response[name] == SENTINEL)
    for name in ("PIDK", "PIDp", "PIDe", "PIDmu", "ProbNNk"):
        assert np.all(np.isfinite(response[name]))
        assert np.all(response[name] > -100.0)


def test_sentinels_come_in_all_five_or_in_none():
    response = respond("pi+", 10e3, n=20000)
    missing = np.stack([response[name] == SENTINEL for name in RICH_VARIABLES])
    assert np.all(missing == missing[0])
    assert 0.0 < missing[0].mean() < 0.01


@pytest.mark.parametrize(("eta", "share"), [(1.893, (1.0, 1.0)), (3.5, (2e-3, 8e-3))])
def test_tracks_without_photons_have_exact_zeros(eta, share):
    response = with_rich(respond("pi+", 20e3, eta=eta, n=20000))
    is_zero = np.stack([response[name] == 0.0 for name in RICH_VARIABLES[:4]])
    assert share[0] <= np.mean(is_zero.all(axis=0)) <= share[1]


@pytest.mark.parametrize("charges", [("K+", "K-"), ("p", "p~"), ("mu-", "mu+")])
def test_the_response_does_not_depend_on_the_charge(charges):
    first, second = (respond(name, 20e3) for name in charges)
    np.testing.assert_array_equal(first["RichDLLk"], second["RichDLLk"])


def test_a_seed_repeats_the_response_and_another_one_does_not():
    first, again, other = (respond("K+", 20e3, seed=seed) for seed in (1, 1, 2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        if name != "RichDLLbt":
            assert np.mean(values == other[name]) < 0.1
    correlation = np.corrcoef(first["PIDK"], other["PIDK"])[0, 1]
    assert abs(correlation) < 5.0 / np.sqrt(N)


@pytest.mark.parametrize("species", ["K+", "pi+"])
def test_pass_rate_falls_with_the_cut(species):
    pid_k = respond(species, 20e3)["PIDK"]
    rates = [np.mean(pid_k > cut) for cut in range(-20, 30, 2)]
    assert np.all(np.diff(rates) <= 0.0)


@pytest.mark.parametrize(
    ("species", "variable"),
    [("K+", "RichDLLk"), ("p", "RichDLLp"), ("e-", "RichDLLe"), ("mu-", "RichDLLmu")],
)
def test_a_hypothesis_is_favoured_by_its_own_species(species, variable):
    p = 4e3 if species == "mu-" else 12e3
    own = with_rich(respond(species, p))[variable]
    pion = with_rich(respond("pi+", p))[variable]
    assert np.median(own) > np.median(pion)


def test_misid_rises_with_occupancy():
    rates = [
        np.mean(respond("pi+", 8e3, n_tracks=n_tracks, n=20000)["PIDK"] > 0.0)
        for n_tracks in (30, 200, 600)
    ]
    assert rates[0] < rates[1] < rates[2]


def test_networks_are_probabilities():
    response = respond("K+", 20e3)
    names = [f"ProbNN{x}" for x in ("k", "pi", "p", "e", "mu", "ghost")]
    total = sum(response[name].astype(np.float64) for name in names)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    for name in names:
        assert np.all((response[name] >= 0.0) & (response[name] <= 1.0))


def test_unknown_species_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown species 'k\+'; closest: 'K\+'"):
        simulate_response("k+", [1e4], [3.0], [100], seed=1)


@pytest.mark.parametrize("p", [[], [1e4, 2e4], [[1e4]]])
def test_unequal_or_empty_columns_are_refused(p):
    with pytest.raises(ValueError, match="p, eta and n_tracks have shapes"):
        simulate_response("K+", p, np.full(len(p) - 1 if p else 0, 3.0), [1], seed=1)


@pytest.mark.parametrize(
    ("p", "n_tracks"), [(0.0, 1), (-5.0, 1), (np.nan, 1), (1e4, -1)]
)
def test_impossible_tracks_are_refused(p, n_tracks):
    with pytest.raises(ValueError, match=r"expected values between [01] and inf"):
        simulate_response("K+", [p], [3.0], [n_tracks], seed=1)


@pytest.mark.parametrize("n_tracks", [0, 5000])
@pytest.mark.parametrize("p", [500.0, 2700.0, 9400.0, 5e6])
def test_extreme_tracks_give_finite_values(p, n_tracks):
    response = respond("pi+", p, n_tracks=n_tracks, n=500)
    for values in response.values():
        assert np.all(np.isfinite(values))
