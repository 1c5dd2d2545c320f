"""Clusters along tracks: both networks learn, and export as bundles that agree."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import open_bundle
from pidgan.cli import cli
from pidgan.errors import PidganError
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.simulation.tpc_clusters import Helices, helix_points
from pidgan.training.conditions import fit_conditions
from pidgan.training.export import check_parity, export_bundle
from pidgan.training.families.clusters import (
    ClusterSettings,
    cluster_model,
    cluster_sample,
    train_clusters,
    with_helix,
)
from pidgan.training.networks.helix import SENTINEL, Frame

RADII = (200.0, 400.0, 600.0, 800.0)
FRAME = Frame(radii=RADII, field=0.5, n_sectors=6, drift_length=1000.0)
ROWS = len(RADII)
CONDITIONS = {
    "PT": {"unit": "MeV", "range": (300, 2000), "transform": "log"},
    "DIP": {"range": (-1, 1)},
    "PHI": {"unit": "rad", "range": (-4, 4), "transform": "angle"},
    "Z": {"unit": "mm", "range": (-200, 200)},
    "CHARGE": {"categories": (-1, 1)},
}
SAMPLE = cluster_sample(CONDITIONS, ROWS, "a test")
HELIX = (0, 1, 2, 3, 4)
STEPS = 300
WIDTHS = (0.5, 2.0)
LOST = 1 / 3


def tracks(n: int, seed: int):
    """Draw helices whose clusters are smeared, a third of the last row's lost."""
    rng = np.random.default_rng(seed)
    helices = Helices(
        pt=np.exp(rng.uniform(np.log(300), np.log(2000), n)),
        dip=rng.uniform(-1, 1, n),
        phi=rng.uniform(-np.pi, np.pi, n),
        z=rng.uniform(-200, 200, n),
        charge=rng.choice([-1.0, 1.0], n),
        species=np.zeros(n),
    )
    points = helix_points(helices, RADII)
    azimuth = np.arctan2(points[:, :, 1], points[:, :, 0])
    smear = rng.standard_normal((2, n, ROWS)) * np.array(WIDTHS)[:, None, None]
    azimuth += smear[0] / RADII
    x, y = np.cos(azimuth) * RADII, np.sin(azimuth) * RADII
    targets = np.stack([x, y, points[:, :, 2] + smear[1]], axis=2)
    targets[rng.random(n) < LOST, -1] = SENTINEL
    conditions = helices.table()[:, :5].astype(np.float32)
    return conditions, targets.reshape(n, -1).astype(np.float32)


def scaling(x):
    found = fit_conditions(
        x,
        [variable.transform for variable in SAMPLE.conditions],
        categories=[variable.categories for variable in SAMPLE.conditions],
    )
    return with_helix(found, HELIX)


@pytest.fixture(
    scope="module",
    # The recurrent one is only taught, the other one plays from the start.
    params=[("recurrent", 1.0, 1.0), ("convolutional", 5.0, 0.0)],
    ids=["recurrent", "convolutional"],
)
def model(request):
    x, y = tracks(4000, 1)
    conditions = scaling(x)
    network, reconstruction, taught = request.param
    settings = ClusterSettings(
        network=network,
        reconstruction=reconstruction,
        taught=taught,
        width=8,
        critic_width=8,
        critic_output=8,
        n_latent=2,
        average=0.9,
        learning_rate=1e-2,
    )
    trained = train_clusters(
        conditions.forward(x), y, FRAME, settings=settings, steps=STEPS
    )
    held_out = np.concatenate(tracks(400, 2), axis=1)
    names = [*SAMPLE.condition_names, *SAMPLE.target_names]
    return cluster_model(
        trained,
        sample=SAMPLE,
        conditions=conditions,
        settings=settings,
        held_out=pd.DataFrame(held_out, columns=names).assign(weight=1.0),
        seed=1,
        steps=STEPS,
    )


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    return open_bundle(
        export_bundle(model, tmp_path_factory.mktemp("clusters") / "clusters.onnx")
    )


def test_the_frame_finds_the_helix_and_what_is_left_beside_it():
    x, y = tracks(500, 3)
    pt, dip, phi, z, charge = x.T.astype(np.float64)
    helices = Helices(pt=pt, dip=dip, phi=phi, z=z, charge=charge, species=0 * pt)
    points = helix_points(helices, RADII).reshape(len(x), -1)
    # Single precision: 1e-7 of a metre.
    np.testing.assert_allclose(FRAME.residuals(points, x)[0], 0.0, atol=2e-3)
    residuals, found = FRAME.residuals(y, x)
    np.testing.assert_array_equal(found, y[:, ::3] != SENTINEL)
    np.testing.assert_allclose(residuals[found > 0].std(axis=0), WIDTHS, rtol=0.1)


def test_distances_and_flags_are_put_back_where_they_were():
    x, y = tracks(200, 3)
    residuals, found = FRAME.residuals(y, x)
    clusters = {
        "along": residuals[:, :, 0],
        "z": residuals[:, :, 1],
        "flag": found - 0.5,
    }
    again = FRAME.place(FRAME.cross(x), clusters)
    np.testing.assert_array_equal(again == SENTINEL, y == SENTINEL)
    np.testing.assert_allclose(again, y, atol=2e-3)


def test_a_generator_learns_widths_and_losses(model):
    x, _ = tracks(3000, 4)
    noise = np.random.default_rng(5).standard_normal((3000, model.card.n_noise))
    made = model.generate(x, noise)
    missing = made[:, ::3] == SENTINEL
    # All three coordinates of a lost cluster are the sentinel, exactly.
    for axis in (1, 2):
        np.testing.assert_array_equal(made[:, axis::3] == SENTINEL, missing)
    share = missing.mean(axis=0)
    assert share[:-1].max() < 0.05
    assert share[-1] == pytest.approx(LOST, abs=0.07)
    residuals, found = FRAME.residuals(made, x)
    residuals = residuals[found > 0]
    # The network starts with 1 mm for both.
    np.testing.assert_allclose(residuals.std(axis=0), WIDTHS, rtol=0.3)
    np.testing.assert_allclose(residuals.mean(axis=0), 0.0, atol=0.5)


def test_a_bundle_agrees_with_keras(model, bundle):
    found = check_parity(model, bundle, rows=400)
    assert found.differing == 0
    assert bundle.card.settings["network"] == model.card.settings["network"]
    x, _ = tracks(300, 6)
    noise = np.random.default_rng(7).standard_normal((300, bundle.card.n_noise))
    expected, got = model.generate(x, noise), bundle.generate(x, noise.astype("f4"))
    np.testing.assert_array_equal(got == SENTINEL, expected == SENTINEL)
    # A hundredth of the resolution.
    np.testing.assert_allclose(got, expected, atol=0.01)


def test_clusters_are_written_beside_tracks(bundle, tmp_path):
    x, _ = tracks(400, 8)
    names = [f"h_{name}" for name in bundle.card.condition_names]
    columns = dict(zip(names, x.T, strict=True))
    write_trees(tmp_path / "in.root", {"T": columns})
    paths = [str(tmp_path / name) for name in ("in.root", "out.root")]
    arguments = ["apply", "--track", f"h={bundle.path}", paths[0], "-o", paths[1]]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    (source,) = find_sources([paths[1]])
    made = read_columns(source, [f"h_{name}" for name in bundle.card.target_names])
    residuals, found = FRAME.residuals(made.to_numpy(), x)
    assert 0.5 < found[:, -1].mean() < 0.8
    assert np.abs(residuals).max() < 8 * max(WIDTHS)


def test_unknown_networks_too_few_tracks_and_rows_that_do_not_fit():
    x, y = tracks(10, 1)
    x = scaling(x).forward(x)
    dense = ClusterSettings(network="dense")
    with pytest.raises(PidganError, match="no network 'dense'"):
        train_clusters(x, y, FRAME, settings=dense, steps=1)
    with pytest.raises(PidganError, match="got 1 tracks"):
        train_clusters(x[:1], y[:1], FRAME, settings=ClusterSettings(), steps=1)
    with pytest.raises(PidganError, match="got 9 targets, expected 3 for each of 4"):
        train_clusters(x, y[:, :9], FRAME, settings=ClusterSettings(), steps=1)
    with pytest.raises(PidganError, match=r"row 3 is 799 mm off .* in mm"):
        train_clusters(x, 1e-3 * y, FRAME, settings=ClusterSettings(), steps=1)
    x[:, -5] = 10.0  # MeV
    with pytest.raises(PidganError, match="do not reach"):
        train_clusters(x, y, FRAME, settings=ClusterSettings(), steps=1)
