"""The simulated spectrometer: isMuon, likelihoods, networks, one truth of a track."""

import numpy as np
import pytest

from pidgan.simulation import (
    ANALYSIS_TREE,
    RICH_VARIABLES,
    SENTINEL,
    simulate_dimuons,
    simulate_spectrometer,
    simulate_spectrometer_response,
)
from pidgan.simulation.detector import DATA
from pidgan.simulation.flight import draw_flight
from pidgan.simulation.rich import draw_rings
from pidgan.simulation.spectrometer import COMBINED, NO_CALORIMETER, NO_NETWORK
from pidgan.simulation.stations import (
    DATA_STATIONS,
    NO_MUON,
    _is_muon,
    simulate_stations,
)
from pidgan.simulation.tracks import SPECIES, Tracks

N = 15_000
NETWORKS = ("pi", "k", "p", "mu", "e", "ghost")


def respond(species, p, *, eta=3.3, n_tracks=180, seed=1, n=N, charge=None):
    columns = (np.full(n, value) for value in (p, eta, n_tracks))
    charges = None if charge is None else np.full(n, charge)
    return simulate_spectrometer_response(species, *columns, seed=seed, charge=charges)


def stations(species, p, *, eta=3.3, n_tracks=180, seed=1, n=30_000, charge=None):
    """Return isMuon of tracks in the acceptance, and which of them decayed."""
    rng = np.random.default_rng(seed)
    index = SPECIES[species]
    tracks = Tracks(*(np.full(n, value) for value in (index, p, eta, n_tracks)))
    rings = draw_rings(tracks, DATA, rng)
    flight = draw_flight(
        tracks,
        rings,
        charge=rng.choice([-1.0, 1.0], n) if charge is None else np.full(n, charge),
        phi=rng.uniform(-np.pi, np.pi, n),
        detector=DATA,
        rng=rng,
    )
    found = simulate_stations(tracks, flight, system=DATA_STATIONS, rng=rng)
    inside = found["InMuonAcc"]
    return found["isMuon"][inside], flight.is_decayed[inside]


def misid(species, p, **given):
    return stations(species, p, **given)[0].mean()


@pytest.fixture(scope="module")
def spread():
    """Responses to tracks of each species over all momenta."""
    rng = np.random.default_rng(1)
    p = np.clip(np.exp(rng.normal(np.log(15e3), 0.7, N)), 3e3, 2e5)
    eta = np.clip(rng.normal(3.3, 0.5, N), 1.6, 5.4)
    n_tracks = np.clip(rng.gamma(3.0, 60.0, N), 1, 999)
    return {
        species: simulate_spectrometer_response(species, p, eta, n_tracks, seed=2)
        for species in ("mu+", "pi+", "K+", "p", "e+")
    }


@pytest.mark.parametrize("p", [6.5e3, 9.5e3, 12e3, 30e3, 100e3])
def test_muons_above_6_gev_are_found(p):
    assert misid("mu-", p) > 0.95


def test_slow_muons_are_found_too():
    assert misid("mu+", 3.3e3) > 0.95
    assert misid("mu+", 2.99e3) == 0.0  # isMuon asks for 3 GeV


def test_decays_in_flight_make_the_misid_of_pions_fall_as_1_over_p():
    momenta = np.array([20e3, 40e3, 80e3])
    rates = [np.mean(np.logical_and(*stations("pi+", p, n=100_000))) for p in momenta]
    slope = np.polyfit(np.log(momenta), np.log(rates), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.25)
    # Protons do not decay; what passes are showers that leak through.
    alone = [misid(species, 12e3, n_tracks=0.01) for species in ("p", "pi+")]
    assert 0.0 < alone[0] < 0.25 * alone[1]


def test_misid_is_that_of_lhcb():
    """arXiv:1306.0249: about 1 %, more at low momentum, least for protons."""
    for low, high, species in ((0.02, 0.06, "pi+"), (0.02, 0.07, "K+")):
        assert low < misid(species, 4.5e3) < high
        assert 0.004 < misid(species, 20e3) < 0.015
    assert 0.001 < misid("p", 20e3) < 0.005


def test_misid_rises_with_occupancy():
    rates = [misid("p", 5e3, n_tracks=n) for n in (30, 200, 600)]
    assert rates[0] < rates[1] < rates[2]


def test_is_muon_asks_for_the_stations_of_its_momentum():
    hits = np.array([[(k >> j) & 1 for k in range(16)] for j in range(4)], dtype=bool)
    m2, m3, m4, m5 = hits
    for p, expected in (
        (2.9e3, np.zeros(16, dtype=bool)),
        (4e3, m2 & m3),
        (8e3, m2 & m3 & (m4 | m5)),
        (20e3, m2 & m3 & m4 & m5),
    ):
        np.testing.assert_array_equal(_is_muon(np.full(16, p), hits), expected)


def test_sentinels_are_where_a_detector_saw_nothing(spread):
    for response in spread.values():
        assert not np.any(response["isMuon"] & ~response["InMuonAcc"])
        np.testing.assert_array_equal(
            response["MuonDLL"] == NO_MUON, ~response["isMuon"]
        )
        lost = np.stack([response[f"ProbNN{h}"] == NO_NETWORK for h in NETWORKS])
        assert np.all(lost == lost[0])
        assert 0.0 < lost[0].mean() < 0.02
        for h in NETWORKS:
            inside = response[f"ProbNN{h}"][~lost[0]]
            assert np.all((inside > 0.0) & (inside < 1.0))
        assert 0.0 < np.mean(response["Calo_EoverP"] == NO_CALORIMETER) < 0.1
        for name in (*COMBINED, "TRCHI2NDOF"):
            assert np.all(np.isfinite(response[name]))
            assert np.all(response[name] > -400.0)


def test_outside_of_everything_there_is_nothing():
    response = respond("mu+", 150e3, eta=5.4, n=2000)
    assert not response["InMuonAcc"].any()
    for name in RICH_VARIABLES:
        assert np.all(response[name] == SENTINEL)
    assert np.all(response["Calo_EoverP"] == NO_CALORIMETER)
    assert np.all(response["PIDmu"] == 0.0)
    assert np.all(response["ProbNNmu"] == NO_NETWORK)


@pytest.mark.parametrize(
    ("combined", "alone", "species"),
    [("PIDK", "RichDLLk", "K+"), ("PIDp", "RichDLLp", "p"), ("PIDe", "RichDLLe", "e+")],
)
def test_combined_dlls_follow_the_rich_with_a_width_of_their_own(
    spread, combined, alone, species
):
    response = spread[species]
    seen = response[alone] != SENTINEL
    rich = response[alone][seen].astype(np.float64)
    difference = response[combined][seen] - rich
    assert np.corrcoef(rich, response[combined][seen])[0, 1] > 0.9
    assert 0.3 < difference.std() < 0.5 * rich.std()


def test_the_muon_likelihood_enters_the_combined_one_where_there_is_one(spread):
    for response in spread.values():
        rich = np.where(
            response["RichDLLmu"] == SENTINEL, np.float32(0.0), response["RichDLLmu"]
        )
        rest = response["PIDmu"] - rich
        found = response["isMuon"]
        muon = response["MuonDLL"]
        if found.sum() > 1000:
            assert np.corrcoef(muon[found], rest[found])[0, 1] > 0.5
            added = rest[found] - muon[found]
            assert added.std() < 0.9 * rest[found].std() + 1.0


@pytest.mark.parametrize(
    ("species", "variable"),
    [("mu+", "PIDmu"), ("K+", "PIDK"), ("p", "PIDp"), ("e+", "PIDe")],
)
def test_each_likelihood_favours_its_own_species(spread, species, variable):
    own = np.median(spread[species][variable])
    assert own > np.median(spread["pi+"][variable]) + 3.0


@pytest.mark.parametrize(
    ("species", "variable", "network"),
    [
        ("mu+", "PIDmu", "ProbNNmu"),
        ("K+", "PIDK", "ProbNNk"),
        ("p", "PIDp", "ProbNNp"),
        ("e+", "PIDe", "ProbNNe"),
    ],
)
def test_networks_rise_with_their_likelihood(spread, species, variable, network):
    x = np.concatenate([spread[s][variable] for s in (species, "pi+")])
    y = np.concatenate([spread[s][network] for s in (species, "pi+")])
    computed = y != NO_NETWORK
    x, y = x[computed], y[computed]
    edges = np.quantile(x, [0.02, 0.2, 0.4, 0.6, 0.8, 0.98])
    place = np.digitize(x, edges[1:-1])
    means = [y[place == b].mean() for b in range(5)]
    assert np.all(np.diff(means) > -0.02)
    assert means[-1] > means[0] + 0.2
    own, other = (spread[s][network] for s in (species, "pi+"))
    assert np.median(own) > np.median(other) + 0.3


def test_electrons_and_muons_in_the_calorimeters(spread):
    e_over_p = {s: r["Calo_EoverP"] for s, r in spread.items()}
    electrons = e_over_p["e+"][e_over_p["e+"] > NO_CALORIMETER]
    assert np.median(electrons) == pytest.approx(1.0, abs=0.03)
    muons = e_over_p["mu+"][e_over_p["mu+"] > NO_CALORIMETER]
    assert np.quantile(muons, 0.95) < 0.2


def test_detectors_share_one_truth():
    """A pion that passes isMuon is mostly a muon of a decay in the calorimeters too."""
    response = respond("pi+", 20e3, n=40_000, n_tracks=50)
    inside = response["Calo_EoverP"] != NO_CALORIMETER
    is_muon = response["isMuon"] & inside
    others = inside & ~response["isMuon"]
    small = response["Calo_EoverP"] < 0.06
    assert small[is_muon].mean() > 2.0 * small[others].mean()
    # A worse track has a worse fit, and a network that trusts it less.
    fit, ghost = response["TRCHI2NDOF"], response["ProbNNghost"]
    computed = ghost != NO_NETWORK
    assert np.corrcoef(fit[computed], ghost[computed])[0, 1] > 0.2


def test_the_charge_matters():
    plus, minus = (misid("mu+", 12e3, eta=2.4, charge=q) for q in (1.0, -1.0))
    assert abs(plus - minus) > 0.005
    first, same = (
        respond(name, 12e3, n=500, charge=q)["isMuon"]
        for name, q in (("mu-", None), ("mu+", -1.0))
    )
    np.testing.assert_array_equal(first, same)


def test_a_seed_repeats_the_response_and_another_one_does_not():
    first, again, other = (respond("K+", 20e3, seed=s, n=4000) for s in (1, 1, 2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
    assert np.mean(first["PIDK"] == other["PIDK"]) < 0.1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"species": "muon"}, "unknown species 'muon'"),
        ({"p": [0.5]}, "p has values from 0.5"),
        ({"eta": [-3.0]}, "eta has values"),
        ({"n_tracks": [1.0, 2.0]}, "have shapes"),
        ({"charge": [2.0]}, "charge has values"),
        ({"charge": [0.0]}, "charge has the value 0"),
    ],
)
def test_impossible_tracks_are_refused(change, match):
    given = {"species": "mu+", "p": [2e4], "eta": [3.0], "n_tracks": [100.0], **change}
    with pytest.raises(ValueError, match=match):
        simulate_spectrometer_response(**given, seed=1)


def test_calibration_samples_have_signal_background_and_all_variables():
    trees = simulate_spectrometer("jpsi_mu", 4000, seed=1)
    assert set(trees) == {"Jpsi_MuPTuple/DecayTree", "Jpsi_MuMTuple/DecayTree"}
    assert sum(len(b["Jpsi_M"]) for b in trees.values()) == 4000
    for tree, branches in trees.items():
        assert np.all(branches["probe_trackcharge"] == (1 if "MuP" in tree else -1))
        signal = branches["probe_TRUE_SIGNAL"] == 1
        assert 0.7 < signal.mean() < 0.8
        is_muon = branches["probe_isMuon"]
        assert is_muon[signal].mean() > 3 * is_muon[~signal].mean()
        assert np.all(np.abs(branches["probe_TRUEID"][signal]) == 13)
        names = ("PIDmu", "InMuonAcc", "MuonDLL", "MC15TuneV1_ProbNNmu", "Calo_EoverP")
        assert {f"probe_{name}" for name in names} <= set(branches)
    with pytest.raises(ValueError, match="jpsi_mu"):
        simulate_spectrometer("jpsi_muon", 100)


def test_dimuons_have_the_response_of_simulation_and_of_data():
    branches = simulate_dimuons(6000, seed=2)
    assert ANALYSIS_TREE == "DecayTree"
    for track, sign in (("muplus", 1), ("muminus", -1)):
        ids = branches[f"{track}_TRUEID"]
        muons = np.abs(ids) == 13
        assert 0.85 < muons.mean() < 0.97
        assert np.all(branches[f"{track}_trackcharge"] == sign)
        assert np.all(np.sign(ids[muons]) == -sign)
        found = [branches[f"{track}_{x}"] for x in ("isMuon", "TRUE_isMuon")]
        assert all(f[muons].mean() > 0.85 for f in found)
        assert np.any(found[0] != found[1])
    mass = branches["Jpsi_M"][branches["Jpsi_BKGCAT"] == 0]
    assert np.median(mass) == pytest.approx(3096.9, abs=5.0)
