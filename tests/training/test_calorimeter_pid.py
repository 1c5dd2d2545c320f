"""Calorimeter observables of tracks through the whole chain, as RICH variables are."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import pidgan
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.sample.cuts import parse_cut
from pidgan.simulation import simulate_calorimeter, simulate_calorimeter_response

CUTS = ("Calo_EoverP > 0.3", "Calo_HadFraction < 0.05", "Calo_Width < 20")
SMALL = {"width": 16, "teacher_width": 16, "teacher_blocks": 1}
TARGETS = ("Calo_EoverP", "Calo_Width", "Calo_Depth", "Calo_HadFraction")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calorimeter")
    write_trees(folder / "pi.root", simulate_calorimeter("pi+", 8000, seed=1))
    dataset = pidgan.build_dataset("sim_calo_pi", [folder / "pi.root"], seed=1)
    model = pidgan.train(dataset, steps=200, settings=SMALL, seed=1)
    return pidgan.export_bundle(model, folder / "pi.onnx")


@pytest.fixture(scope="module")
def applied(bundle, tmp_path_factory):
    """Tracks harder and busier than those of the training."""
    folder = tmp_path_factory.mktemp("applied")
    rng = np.random.default_rng(2)
    n = 4000
    tracks = {
        "h_P": np.exp(rng.uniform(np.log(3e3), np.log(60e3), n)),
        "h_ETA": rng.uniform(-1.2, 1.2, n),
        "nTracks": rng.integers(150, 400, n),
    }
    write_trees(folder / "tracks.root", {"T": tracks})
    output = folder / "out.root"
    pidgan.apply({"h": bundle}, [folder / "tracks.root"], output, seed=3)
    return output, tracks


def test_zeros_and_sentinels_come_out_exact(applied):
    (source,) = find_sources([applied[0]])
    names = [f"h_{name}" for name in TARGETS]
    e_over_p, width, depth, hadronic = read_columns(source, names).to_numpy().T
    no_cluster = width == -999.0
    np.testing.assert_array_equal(no_cluster, depth == -999.0)
    np.testing.assert_array_equal(no_cluster, e_over_p == 0.0)
    assert 0 < no_cluster.mean() < 0.15
    assert np.all((hadronic >= 0.0) & (hadronic <= 1.0))
    assert np.all(width[~no_cluster] > 0.0)


def test_efficiencies_are_quoted_within_their_uncertainty(bundle, applied):
    output, tracks = applied
    found = pidgan.run_systematics(pidgan.open_bundle(bundle), cuts=CUTS, seed=1)
    results = pidgan.pid_efficiency({"h": found}, output, cuts=CUTS)
    truth = simulate_calorimeter_response(
        "pi+", tracks["h_P"], tracks["h_ETA"], tracks["nTracks"], seed=4
    )
    sentinels = {"Calo_Width": (-999.0,), "Calo_Depth": (-999.0,)}
    for result in results:
        expected = parse_cut(result.cut, names=truth).passes(truth, sentinels).mean()
        error = np.hypot(result.total, np.sqrt(expected * (1 - expected) / 4000))
        assert abs(result.value - expected) < 4 * error, result.cut
        assert result.total < 0.1
