"""Calorimeters: what electrons, photons, hadrons and muons leave in them."""

import numpy as np
import pytest

from pidgan.sample.loading import load_sample
from pidgan.simulation import (
    CALORIMETER_SPECIES,
    simulate_calorimeter,
    simulate_calorimeter_response,
)
from pidgan.simulation.calorimeter_pid import (
    CALORIMETER_TREE,
    NO_CLUSTER,
    THRESHOLDS,
    _gamma_cdf,
)

N = 4000


def respond(species, p=10e3, eta=0.5, n_tracks=100, n=N, seed=1):
    columns = (np.full(n, v) for v in (p, eta, n_tracks))
    return simulate_calorimeter_response(species, *columns, seed=seed)


@pytest.fixture(scope="module")
def responses():
    return {species: respond(species) for species in CALORIMETER_SPECIES}


def test_incomplete_gamma_function():
    special = pytest.importorskip("scipy.special")
    a, x = np.array([0.7, 1.3, 2.4]), np.array([[0.0, 0.1, 1.0, 5.0, 20.0]] * 3)
    expected = special.gammainc(a[:, None], x)
    np.testing.assert_allclose(_gamma_cdf(a, x), expected, rtol=1e-5, atol=1e-9)


def test_e_over_p(responses):
    electrons, photons = (
        responses["e+"]["Calo_EoverP"],
        responses["gamma"]["Calo_EoverP"],
    )
    assert np.median(electrons) == pytest.approx(1.0, abs=0.03)
    assert np.median(photons) == pytest.approx(1.0, abs=0.03)
    # Bremsstrahlung lowers the momentum more than the energy: a tail above 1.
    assert np.quantile(electrons, 0.95) - 1 > 1.5 * (1 - np.quantile(electrons, 0.05))
    for hadron in ("pi+", "K+", "p"):
        assert np.mean(responses[hadron]["Calo_EoverP"] > 0.8) < 0.05
    muons = responses["mu+"]["Calo_EoverP"]
    assert np.quantile(muons, 0.99) < 0.1


def test_mesons_shower_electromagnetically_more_often_than_protons(responses):
    large = [np.mean(responses[h]["Calo_EoverP"] > 0.7) for h in ("pi+", "p")]
    assert large[0] > 2 * large[1]


def test_photons_shower_later_than_electrons_and_higher_energies_deeper(responses):
    depth = {s: responses[s]["Calo_Depth"].mean() for s in ("e+", "gamma")}
    assert 0.5 < depth["gamma"] - depth["e+"] < 1.8
    # The centre moves with ln E: about one radiation length for a factor e.
    high = respond("e+", p=80e3)["Calo_Depth"].mean()
    assert (high - depth["e+"]) / np.log(8.0) == pytest.approx(1.0, abs=0.25)


def test_resolution_improves_with_energy():
    widths = []
    for p in (2e3, 10e3, 50e3):
        low, high = np.quantile(respond("gamma", p=p)["Calo_EoverP"], [0.16, 0.84])
        widths.append(0.5 * (high - low))
    assert widths[0] > 1.8 * widths[1] > 1.8 * widths[2]


def test_hadronic_fraction_is_exactly_zero_without_hadronic_energy(responses):
    fractions = {s: r["Calo_HadFraction"] for s, r in responses.items()}
    assert np.mean(fractions["e+"] == 0.0) > 0.5
    assert np.median(fractions["pi+"]) > 0.5
    least = THRESHOLDS[1] / (THRESHOLDS[1] + 1.3 * 10e3)
    positive = fractions["e+"][fractions["e+"] > 0.0]
    assert positive.min() > 0.5 * least
    for values in fractions.values():
        assert np.all((values >= 0.0) & (values <= 1.0))


def test_tracks_without_cluster(responses):
    muons = responses["mu+"]
    none = muons["Calo_EoverP"] == 0.0
    assert 0.005 < none.mean() < 0.3
    for name in ("Calo_Width", "Calo_Depth"):
        np.testing.assert_array_equal(muons[name] == NO_CLUSTER, none)


def test_other_tracks_widen_clusters():
    quiet, busy = (respond("e+", p=2e3, n_tracks=n)["Calo_Width"] for n in (10, 800))
    assert busy.mean() > 1.05 * quiet.mean()


@pytest.mark.parametrize("species", CALORIMETER_SPECIES)
def test_samples_fit_their_definitions(species):
    branches = simulate_calorimeter(species, 1000, seed=2)[CALORIMETER_TREE]
    names = {"e+": "e", "mu+": "mu", "pi+": "pi", "K+": "k", "p": "p", "gamma": "gamma"}
    sample = load_sample(f"sim_calo_{names[species]}")
    assert sample.species == species
    assert sample.trees == (CALORIMETER_TREE,)
    for variable in (*sample.conditions, *sample.targets):
        values = variable.evaluate(branches)
        kept = ~variable.is_sentinel(branches)
        assert np.all(np.isfinite(values))
        assert np.all(values[kept] >= variable.range[0]), variable.name
        assert np.all(values[kept] <= variable.range[1]), variable.name
    again = simulate_calorimeter(species, 1000, seed=2)[CALORIMETER_TREE]
    for name, values in branches.items():
        np.testing.assert_array_equal(values, again[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": "pi"}, "unknown species 'pi'"),
        ({"p": 10.0}, "p has values from 10 to 10, expected values between 500"),
        ({"eta": np.nan}, "eta has values from nan"),
        ({"n_tracks": -1}, "n_tracks has values from -1"),
        ({"n": 0}, "at least one track"),
    ],
)
def test_impossible_input(change, message):
    with pytest.raises(ValueError, match=message):
        respond(**({"species": "e+"} | change))
    with pytest.raises(ValueError, match="n is 0, expected at least 1"):
        simulate_calorimeter("e+", 0)
