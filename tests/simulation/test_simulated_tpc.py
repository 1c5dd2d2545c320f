"""Time projection chamber: ionisation, published resolutions, losses."""

import numpy as np
import pytest

from pidgan.sample.loading import load_sample
from pidgan.simulation import TPC_SPECIES, simulate_tpc, simulate_tpc_response, tpc
from pidgan.simulation.tpc import (
    MIP_SIGNAL,
    N_INNER,
    NO_MEASUREMENT,
    TPC_TREE,
    bethe_bloch,
    expected_dedx,
    n_sigma,
)

N = 1500


def respond(species="pi+", p=500.0, eta=0.3, n_clusters=159, n_tracks=10, n=N, seed=1):
    columns = (np.full(n, v) for v in (p, eta, n_clusters, n_tracks))
    return simulate_tpc_response(species, *columns, seed=seed)


def test_the_mean_ionisation_follows_bethe_and_bloch():
    bg = np.geomspace(0.1, 1e4, 400)
    f = bethe_bloch(bg)
    assert f.min() == pytest.approx(1.0, abs=1e-3)
    assert 3.0 < bg[f.argmin()] < 4.5
    slow = bg < 0.4
    power = np.polyfit(np.log(bg[slow] / np.hypot(1.0, bg[slow])), np.log(f[slow]), 1)
    # The rule of thumb of the Particle Data Group: beta^(-5/3).
    assert power[0] == pytest.approx(-5 / 3, abs=0.15)
    # Relativistic rise and Fermi plateau of a gas of neon.
    assert np.all(np.diff(f[bg > 4.0]) > -1e-9)
    assert 1.4 < f[-1] < 1.8


def test_electrons_of_a_row_have_the_moments_of_a_compound_poisson_process():
    rng = np.random.default_rng(1)
    low, high = tpc.COLLISION_ENERGIES
    u, power = (np.arange(10**6) + 0.5) / 10**6, 1.0 - tpc.SPECTRUM_EXPONENT
    energy = low * (1.0 - u * (1.0 - (high / low) ** power)) ** (1.0 / power)
    single = np.floor((energy - low) / tpc.PAIR_ENERGY) + 1.0
    for mean in (11.0, 90.0):
        drawn = tpc._draw_electrons(np.full(200_000, mean, dtype=np.float32), rng)
        assert drawn.mean() == pytest.approx(mean * single.mean(), rel=0.01)
        variance = mean * np.mean(single**2)
        assert drawn.var() == pytest.approx(variance, rel=0.05)
        # Landau-like: the median lies below the mean, the tail above.
        assert np.median(drawn) < 0.97 * drawn.mean()


@pytest.mark.parametrize("species", TPC_SPECIES)
@pytest.mark.parametrize("p", [400.0, 1500.0, 10e3])
def test_n_sigma_of_the_true_species_is_standard(species, p):
    found = respond(species, p, n_clusters=140, n_tracks=500, n=600)
    name = dict(zip(TPC_SPECIES, ("e", "mu", "pi", "k", "p"), strict=True))[species]
    values = found[f"TPC_NSigma{name}"]
    assert abs(values.mean()) < 0.35
    assert 0.6 < values.std() < 1.2


def test_resolutions_are_those_of_alice():
    # arXiv:1402.4476: 5.2 % for isolated tracks, 6.5 % in central Pb-Pb collisions.
    isolated = respond(n_tracks=10)["TPC_dEdx"]
    central = respond(n_tracks=9000)["TPC_dEdx"]
    assert isolated.std() / isolated.mean() == pytest.approx(0.052, abs=0.004)
    assert central.std() / central.mean() == pytest.approx(0.065, abs=0.006)
    assert isolated.mean() == pytest.approx(MIP_SIGNAL, rel=0.03)


def test_resolution_improves_with_clusters():
    widths = [respond(n_clusters=n)["TPC_dEdx"].std() for n in (30, 75, 159)]
    assert widths[0] > widths[1] > widths[2]


def test_a_large_signal_saturates():
    slow = respond("p", 320.0)["TPC_dEdx"]
    clusters = tpc.SATURATION / (tpc.MIP_CHARGE * tpc.ROW_HEIGHTS.min())
    assert slow.max() < 1.3 * MIP_SIGNAL * clusters
    assert slow.mean() > 3 * MIP_SIGNAL


def test_tracks_without_inner_clusters_have_no_inner_measurement():
    few = respond(n_clusters=tpc.N_ROWS - N_INNER, n=4000)["TPC_dEdxInner"]
    many = respond(n_clusters=tpc.N_ROWS - N_INNER + 1, n=4000)["TPC_dEdxInner"]
    share = np.mean(few == NO_MEASUREMENT)
    assert share == pytest.approx(tpc.INNER_OFF, abs=0.015)
    assert np.all(many > 0.0)


def test_hypotheses_are_functions_of_each_other():
    p, n_clusters = np.full(5, 700.0), np.full(5, 120)
    dedx = np.linspace(40.0, 120.0, 5)
    kaon = n_sigma(dedx, p, n_clusters, species="K+")
    a, b = tpc.RESOLUTION
    width = np.sqrt(a**2 + b**2 / n_clusters)
    back = expected_dedx(p, "K+") * (1.0 + kaon * width)
    np.testing.assert_allclose(back, dedx)


def test_a_seed_repeats_the_response_and_another_does_not():
    first, again, other = (respond(n=50, seed=seed) for seed in (3, 3, 4))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert not np.array_equal(values, other[name])


@pytest.mark.parametrize("species", TPC_SPECIES)
def test_samples_fit_their_definitions(species):
    branches = simulate_tpc(species, 400, seed=2)[TPC_TREE]
    short = {"e+": "e", "mu+": "mu", "pi+": "pi", "K+": "k", "p": "p"}[species]
    sample = load_sample(f"sim_tpc_{short}")
    assert sample.species == species
    assert sample.trees == (TPC_TREE,)
    for variable in (*sample.conditions, *sample.targets):
        values = variable.evaluate(branches)
        kept = ~variable.is_sentinel(branches)
        assert np.all(values[kept] >= variable.range[0]), variable.name
        assert np.all(values[kept] <= variable.range[1]), variable.name
    assert np.all(np.sign(branches["probe_trackcharge"]) != 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": "kaon"}, "unknown species 'kaon'"),
        ({"p": np.nan}, "p has values from nan"),
        ({"eta": 1.2}, "eta .* expected values between -0.9 and 0.9"),
        ({"n_clusters": 160}, "n_clusters .* expected values between 1 and 159"),
        ({"n": 0}, "at least one track"),
    ],
)
def test_impossible_input(change, message):
    with pytest.raises(ValueError, match=message):
        respond(**change)
    with pytest.raises(ValueError, match="n is 0, expected at least 1"):
        simulate_tpc("K+", 0)
    with pytest.raises(ValueError, match="unknown species 'k'"):
        simulate_tpc("k", 10)
