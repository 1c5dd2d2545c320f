"""The analysis ntuple: columns, truth, and a response that is wrong on purpose."""

import numpy as np
import pytest

from pidgan.simulation import (
    RICH_VARIABLES,
    SENTINEL,
    Jagged,
    simulate_analysis,
    simulate_calibration,
)

N = 12_000


@pytest.fixture(scope="module")
def candidates():
    return simulate_analysis(N, seed=1)


def test_branches_have_their_types(candidates):
    types = {"nTracks": "i4", "nSPDhits": "i4", "nPVs": "i4", "runNumber": "u4"}
    types |= {"eventNumber": "u8", "D0_M": "f8", "D0_PT": "f8", "D0_BKGCAT": "i2"}
    types["D0_FDCHI2_OWNPV"] = "f4"
    for track in ("Kplus", "piminus"):
        types |= {f"{track}_{x}": "f8" for x in ("P", "PT", "PX", "PY", "PZ", "ETA")}
        types |= {f"{track}_TRUEID": "i4", f"{track}_isMuon": "?"}
        for name in (*RICH_VARIABLES, "PIDK", "PIDp"):
            types |= {f"{track}_{name}": "f4", f"{track}_TRUE_{name}": "f4"}
    for name, dtype in types.items():
        assert candidates[name].dtype == np.dtype(dtype), name
        assert candidates[name].shape == (N,), name
    rest = set(candidates) - set(types)
    assert rest == {"D0_ENDVERTEX_COV", "PVZ"}


def test_the_covariance_is_one(candidates):
    covariance = candidates["D0_ENDVERTEX_COV"]
    assert covariance.dtype == np.float32
    assert covariance.shape == (N, 3, 3)
    np.testing.assert_array_equal(covariance, covariance.transpose(0, 2, 1))
    assert np.all(np.linalg.eigvalsh(covariance.astype(np.float64)) > 0.0)


def test_the_jagged_branch_counts_the_vertices(candidates):
    pv_z = candidates["PVZ"]
    assert isinstance(pv_z, Jagged)
    assert pv_z.content.dtype == np.float32
    np.testing.assert_array_equal(pv_z.counts, candidates["nPVs"])
    assert len(pv_z.content) == candidates["nPVs"].sum()


def test_kinematics_are_consistent(candidates):
    for track in ("Kplus", "piminus"):
        momentum = np.stack([candidates[f"{track}_P{c}"] for c in "XYZ"])
        p = np.linalg.norm(momentum, axis=0)
        np.testing.assert_allclose(p, candidates[f"{track}_P"])
        eta = np.arcsinh(momentum[2] / candidates[f"{track}_PT"])
        np.testing.assert_allclose(eta, candidates[f"{track}_ETA"], atol=1e-9)
        assert np.all((p > 3e3) & (p < 200e3))
        assert np.all((eta > 2.0) & (eta < 5.0))
    signal = candidates["D0_BKGCAT"] == 0
    assert np.mean(candidates["D0_M"][signal]) == pytest.approx(1864.8, abs=1.0)
    assert 3.0 < np.std(candidates["D0_M"][signal]) < 40.0


def test_true_identities_are_mixed(candidates):
    shares = {
        abs_id: np.mean(np.abs(candidates["Kplus_TRUEID"]) == abs_id)
        for abs_id in (321, 211, 2212)
    }
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares[321] > 0.9
    assert 0.01 < shares[211] < 0.1
    assert 0.005 < shares[2212] < 0.05
    product = candidates["Kplus_TRUEID"] * candidates["piminus_TRUEID"].astype(np.int64)
    assert np.all(product < 0)


def test_tracks_are_harder_and_events_busier_than_in_calibration(candidates):
    trees = simulate_calibration("dstar_k", N, seed=1)
    tracks = np.concatenate([tree["nTracks"] for tree in trees.values()])
    p = np.concatenate([tree["probe_P"] for tree in trees.values()])
    assert 1.1 < candidates["nTracks"].mean() / tracks.mean() < 1.4
    assert np.median(candidates["Kplus_P"]) > 1.3 * np.median(p)


def test_simulated_response_is_too_good(candidates):
    kaon = np.abs(candidates["Kplus_TRUEID"]) == 321
    pion = np.abs(candidates["piminus_TRUEID"]) == 211
    for prefix, rows, sign in (("Kplus", kaon, 1), ("piminus", pion, -1)):
        simulated, truth = (
            np.mean(sign * candidates[f"{prefix}_{name}"][rows] > sign * 2.0)
            for name in ("PIDK", "TRUE_PIDK")
        )
        assert simulated > truth + 0.02


def test_ties_and_sentinels_survive_in_both_responses(candidates):
    for prefix in ("Kplus_", "Kplus_TRUE_"):
        k, bt = (candidates[f"{prefix}RichDLL{x}"] for x in ("k", "bt"))
        low = (candidates["Kplus_P"] < 9.2e3) & (k != SENTINEL)
        np.testing.assert_array_equal(k[low], bt[low])
        assert 0.0 < np.mean(k == SENTINEL) < 0.06


def test_a_seed_repeats_the_ntuple():
    first, again = (simulate_analysis(300, seed=5) for _ in range(2))
    for name, branch in first.items():
        other = again[name]
        if isinstance(branch, Jagged):
            np.testing.assert_array_equal(branch.content, other.content)
        else:
            np.testing.assert_array_equal(branch, other)


@pytest.mark.parametrize("n", [0, -1])
def test_sizes_must_be_positive(n):
    with pytest.raises(ValueError, match=f"n is {n}, expected at least 1"):
        simulate_analysis(n)
