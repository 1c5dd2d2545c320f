"""Calibration samples: columns, mass shapes, independence, published efficiencies."""

import itertools

import numpy as np
import pytest

from pidgan.simulation import MODES, RICH_MODES, SENTINEL, simulate_calibration
from pidgan.simulation.calibration import draw_mass
from pidgan.simulation.tracks import SPECTRA, draw_p_eta

N_LARGE = 70_000
P_BINS = [
    (3e3, 9.3e3),
    (9.3e3, 15.6e3),
    (19e3, 24.4e3),
    (46e3, 51.4e3),
    (73e3, 78.4e3),
    (94.6e3, 100e3),
]
MOST_PROBABLE_P = {
    "dstar_pi": 3.5e3,
    "jpsi_mu": 7e3,
    "dstar_k": 9e3,
    "lambda_p": 12e3,
}
FLOATS = ["P", "PT", "ETA", "PX", "PY", "PZ"]
TARGETS = [
    *[f"Brunel_RichDLL{x}" for x in ("k", "p", "mu", "e", "bt")],
    *[f"PID{x}" for x in ("K", "p", "e", "mu")],
    *[f"MC15TuneV1_ProbNN{x}" for x in ("k", "pi", "p", "e", "mu", "ghost")],
]


def merge(trees):
    names = next(iter(trees.values()))
    return {name: np.concatenate([t[name] for t in trees.values()]) for name in names}


@pytest.fixture(scope="module")
def kaons():
    return merge(simulate_calibration("dstar_k", N_LARGE, seed=1))


@pytest.fixture(scope="module")
def pions():
    return merge(simulate_calibration("dstar_pi", N_LARGE, seed=2))


def of_signal(sample, name):
    return sample[name][sample["probe_TRUE_SIGNAL"] == 1]


def ks_distance(x, y):
    grid = np.concatenate([x, y])
    cumulative = [np.searchsorted(np.sort(s), grid, "right") / len(s) for s in (x, y)]
    return np.max(np.abs(cumulative[0] - cumulative[1]))


@pytest.mark.parametrize("mode", RICH_MODES)
def test_trees_have_the_branches_of_run_2(mode):
    trees = simulate_calibration(mode, 3000, seed=1)
    assert tuple(trees) == MODES[mode].trees
    assert sum(len(tree["nTracks"]) for tree in trees.values()) == 3000
    types = {
        **{f"probe_{name}": "f8" for name in FLOATS},
        **{f"probe_{name}": "f4" for name in TARGETS},
        **{"nTracks": "i4", "nSPDhits": "i4", "probe_trackcharge": "i4"},
        **{"probe_TRUEID": "i4", "probe_TRUE_SIGNAL": "i1"},
        **{"runNumber": "u4", "eventNumber": "u8", MODES[mode].mass.branch: "f8"},
    }
    for tree, charge in zip(trees.values(), (1, -1), strict=True):
        for name, dtype in types.items():
            assert tree[name].dtype == np.dtype(dtype), name
            assert tree[name].shape == tree["nTracks"].shape
            assert np.all(np.isfinite(tree[name])), name
        assert np.all(tree["probe_trackcharge"] == charge)
        assert np.all((tree["nTracks"] > 0) & (tree["nTracks"] < 1000))
        assert np.all((tree["probe_P"] >= 3e3) & (tree["probe_P"] <= 200e3))
        assert np.all((tree["probe_ETA"] >= 1.5) & (tree["probe_ETA"] <= 5.5))
        momentum = np.stack([tree[f"probe_P{c}"] for c in "XYZ"])
        np.testing.assert_allclose(np.linalg.norm(momentum, axis=0), tree["probe_P"])


def test_true_identities_carry_the_charge():
    for mode, sign in (("dstar_k", 1), ("jpsi_mu", -1)):
        trees = simulate_calibration(mode, 2000, seed=1)
        for tree in trees.values():
            ids = of_signal(tree, "probe_TRUEID")
            charges = of_signal(tree, "probe_trackcharge")
            assert len(np.unique(np.abs(ids))) == 1
            assert np.all(np.sign(ids) == sign * charges)


@pytest.mark.parametrize("mode", RICH_MODES)
def test_a_seed_repeats_the_sample_and_another_one_does_not(mode):
    first, again, other = (
        merge(simulate_calibration(mode, 500, seed=seed)) for seed in (3, 3, 4)
    )
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
    assert not np.any(np.isin(first["eventNumber"], other["eventNumber"]))


@pytest.mark.parametrize(("mode", "expected"), MOST_PROBABLE_P.items())
def test_most_probable_momenta_are_those_of_2016(mode, expected):
    p, eta = draw_p_eta(SPECTRA[mode], 200_000, rng=np.random.default_rng(1))
    counts, edges = np.histogram(p, np.arange(3e3, 60e3, 1e3))
    assert edges[counts.argmax()] + 500.0 == pytest.approx(expected, abs=1.6e3)
    assert np.mean(p > 100e3) > 1e-3
    assert 0.3 < np.corrcoef(np.log(p), eta)[0, 1] < 0.8


@pytest.mark.parametrize("mode", RICH_MODES)
def test_weights_have_the_dilution_of_data(mode):
    shape = MODES[mode].mass
    rng = np.random.default_rng(1)
    x = np.linspace(*shape.window, 4001)
    step = x[1] - x[0]
    pulls = [(x - shape.mean) / width for width in shape.widths]
    core, tail = (
        np.exp(-0.5 * z**2) / w for z, w in zip(pulls, shape.widths, strict=True)
    )
    signal = shape.core_fraction * core + (1.0 - shape.core_fraction) * tail
    background = np.exp(-(x - shape.window[0]) / shape.slope)
    density = np.stack([signal / signal.sum(), background / background.sum()]) / step
    fractions = np.array([shape.signal_fraction, 1.0 - shape.signal_fraction])
    total = fractions @ density
    inverse = (density[:, None] * density[None] / total).sum(axis=2) * step
    weight = np.linalg.inv(inverse)[0] @ density / total
    dilution = (weight**2 * total).sum() / (weight * total).sum()
    assert 1.25 < dilution < 1.45
    # The same shape, drawn: its cumulative distribution follows the density.
    mass = draw_mass(shape, rng.random(40_000) < shape.signal_fraction, rng=rng)
    drawn = np.searchsorted(np.sort(mass), x) / len(mass)
    assert np.max(np.abs(drawn - np.cumsum(total) * step)) < 1.63 / np.sqrt(len(mass))


@pytest.mark.parametrize("is_signal", [True, False])
def test_mass_is_independent_within_each_component(kaons, is_signal):
    rows = (kaons["probe_TRUE_SIGNAL"] == 1) == is_signal
    mass = kaons["D0_M"][rows]
    for name in ("probe_P", "probe_ETA", "nTracks", "probe_PIDK", "probe_TRUEID"):
        other = kaons[name][rows]
        low = other <= np.median(other)
        sizes = np.array([low.sum(), (~low).sum()])
        if sizes.min() == 0:
            continue
        limit = 1.95 * np.sqrt((1.0 / sizes).sum())
        assert ks_distance(mass[low], mass[~low]) < limit, name


def test_charges_have_the_same_signal_fraction(kaons):
    positive = kaons["probe_trackcharge"] > 0
    rates = [kaons["probe_TRUE_SIGNAL"][rows].mean() for rows in (positive, ~positive)]
    assert rates[0] == pytest.approx(rates[1], abs=4.0 * np.sqrt(0.75 / N_LARGE))
    assert 0.70 < kaons["probe_TRUE_SIGNAL"].mean() < 0.85


@pytest.mark.parametrize(
    ("p_bin", "published"),
    list(zip(P_BINS, [0.971, 0.989, 0.992, 0.957, 0.870, 0.792], strict=True)),
)
def test_kaon_efficiency_follows_data(kaons, p_bin, published):
    p, pid_k = (of_signal(kaons, name) for name in ("probe_P", "probe_PIDK"))
    inside = (p > p_bin[0]) & (p < p_bin[1])
    error = np.sqrt(published * (1.0 - published) / inside.sum())
    measured = np.mean(pid_k[inside] > 0.0)
    assert measured == pytest.approx(published, abs=0.02 + 2.0 * error)


@pytest.mark.parametrize(
    ("p_bin", "published"),
    list(zip(P_BINS, [0.058, 0.046, 0.016, 0.084, 0.195, 0.339], strict=True)),
)
def test_pion_misid_follows_data(pions, p_bin, published):
    p, pid_k = (of_signal(pions, name) for name in ("probe_P", "probe_PIDK"))
    inside = (p > p_bin[0]) & (p < p_bin[1])
    error = np.sqrt((1.0 - published) / published / inside.sum())
    measured = np.mean(pid_k[inside] > 0.0)
    assert abs(np.log(measured / published)) < np.log(1.4) + 2.0 * error


def test_overall_rates_follow_data(kaons, pions):
    assert np.mean(of_signal(kaons, "probe_PIDK") > 0) == pytest.approx(0.963, abs=0.01)
    assert np.mean(of_signal(pions, "probe_PIDK") > 0) == pytest.approx(0.0675, rel=0.2)
    dll = "probe_Brunel_RichDLLk"
    assert np.mean(of_signal(kaons, dll) > 0) == pytest.approx(0.95, abs=0.02)
    assert np.mean(of_signal(kaons, dll) > 5) == pytest.approx(0.85, abs=0.03)
    assert np.mean(of_signal(pions, dll) > 5) == pytest.approx(0.03, abs=0.015)


def test_kaon_efficiency_falls_with_occupancy_as_in_data(kaons):
    n_tracks, pid_k = (of_signal(kaons, name) for name in ("nTracks", "probe_PIDK"))
    edges = [0, 50, 200, 300, 1000]
    rates = [
        np.mean(pid_k[(n_tracks > low) & (n_tracks <= high)] > 4.0)
        for low, high in itertools.pairwise(edges)
    ]
    assert rates[0] == pytest.approx(0.915, abs=0.03)
    assert rates[1] == pytest.approx(0.895, abs=0.03)
    assert np.all(np.diff(rates) < 0.0)


def test_ties_and_sentinels_have_their_shares(kaons):
    columns = {
        x: of_signal(kaons, f"probe_Brunel_RichDLL{x}") for x in ("k", "p", "bt")
    }
    missing = columns["bt"] == SENTINEL
    assert 0.003 < missing.mean() < 0.015
    k, p, bt = (column[~missing] for column in columns.values())
    assert np.mean(k == bt) == pytest.approx(0.17, abs=0.04)
    assert np.mean(p == bt) == pytest.approx(0.44, abs=0.06)
    assert np.all(p[k == bt] == bt[k == bt])
    assert 0.001 < np.mean((k == 0.0) & (bt == 0.0)) < 0.01


def test_networks_pile_up_at_both_ends(kaons):
    network = kaons["probe_MC15TuneV1_ProbNNk"]
    counts, _ = np.histogram(network, np.linspace(0.0, 1.0, 11))
    assert counts[0] > 2 * counts[5]
    assert counts[-1] > 2 * counts[5]


def test_unknown_mode_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown decay 'dstar_kk'; closest: 'dstar_k'"
    ):
        simulate_calibration("dstar_kk", 10)


@pytest.mark.parametrize("n", [0, -5])
def test_sample_sizes_must_be_positive(n):
    with pytest.raises(ValueError, match=f"n is {n}, expected at least 1"):
        simulate_calibration("dstar_k", n)


def test_one_candidate_is_enough():
    trees = simulate_calibration("lambda_p", 1, seed=1)
    assert sorted(len(tree["Lam0_M"]) for tree in trees.values()) == [0, 1]
