"""Clusters along tracks: both networks learn, and export as bundles that agree."""

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import open_bundle
from pidgan.cli import cli
from pidgan.errors import DatasetError, PidganError, SampleError, TrainingError
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.report.validation import validate
from pidgan.sample.building import build_dataset
from pidgan.sample.clusters import SENTINEL
from pidgan.sample.dataset import Dataset
from pidgan.sample.loading import load_sample
from pidgan.simulation.tpc_clusters import Helices, helix_points
from pidgan.training import families
from pidgan.training.export import check_parity, export_bundle
from pidgan.training.loop import train
from pidgan.training.model import open_model
from pidgan.training.networks.helix import Frame

RADII = (200.0, 400.0, 600.0, 800.0)
FRAME = Frame(radii=RADII, field=0.5, n_sectors=6, drift_length=1000.0)
ROWS = len(RADII)
DEFINITION = """
schema = 1
title = "Clusters along tracks"
detector = "chamber"
species = "pi+"
source = "a test"
unweighted = true
conditions = [
    {name = "PT", unit = "MeV", range = [300, 2000], transform = "log"},
    {name = "DIP", range = [-1, 1]},
    {name = "PHI", unit = "rad", range = [-4, 4], transform = "angle"},
    {name = "Z", unit = "mm", range = [-200, 200]},
    {name = "CHARGE", categories = [-1, 1]},
]

[clusters]
radii = [200, 400, 600, 800]
field = 0.5
sectors = 6
drift_length = 1000
helix = {pt = "PT", dip = "DIP", phi = "PHI", z = "Z", charge = "CHARGE"}
"""
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


def columns(sample, x, y):
    names = [*sample.condition_names, *sample.target_names]
    return dict(zip(names, np.concatenate([x, y], axis=1).T, strict=True))


@pytest.fixture(scope="module")
def definition(tmp_path_factory):
    path = tmp_path_factory.mktemp("definition") / "chamber.toml"
    path.write_text(DEFINITION)
    return path


@pytest.fixture(scope="module")
def dataset(definition, tmp_path_factory) -> Dataset:
    path = tmp_path_factory.mktemp("tracks") / "tracks.npz"
    sample = load_sample(definition)
    np.savez(path, **columns(sample, *tracks(5000, 1)))
    return build_dataset(sample, path, shares=(0.8, 0.1, 0.1))


SMALL = families.Clusters(
    width=8,
    critic_width=8,
    critic_output=8,
    n_latent=2,
    average=0.9,
    learning_rate=1e-2,
)


@pytest.fixture(
    scope="module",
    # The recurrent one is only taught, the other one plays from the start.
    params=[("recurrent", 1.0, 1.0), ("convolutional", 5.0, 0.0)],
    ids=["recurrent", "convolutional"],
)
def model(request, dataset):
    names = ("network", "reconstruction", "taught")
    chosen = dict(zip(names, request.param, strict=True))
    family = dataclasses.replace(SMALL, **chosen)
    return train(dataset, family=family, steps=STEPS)


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


def test_the_command_line_knows_clusters(definition, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sample = load_sample(definition)
    write_trees("tracks.root", {"T": columns(sample, *tracks(300, 9))})
    small = [
        ("width", 4),
        ("critic_width", 4),
        ("n_latent", 2),
        ("network", "recurrent"),
    ]
    chosen = [word for name, value in small for word in ("--set", f"{name}={value}")]
    for command in (
        ["prepare", str(definition), "tracks.root", "-o", "data"],
        ["train", "data", "--steps", "2", "-o", "model", *chosen],
        ["export", "model", "-o", "chamber.onnx"],
    ):
        result = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    x = Dataset.open("data").part("test").conditions
    model = open_model("model")
    noise = np.random.default_rng(1).standard_normal((len(x), model.card.n_noise))
    made = open_bundle("chamber.onnx").generate(x, noise.astype("f4"))
    expected = model.generate(x, noise)
    np.testing.assert_array_equal(made == SENTINEL, expected == SENTINEL)
    np.testing.assert_allclose(made, expected, atol=0.01)


def test_clusters_are_not_judged_as_tracks(model, dataset) -> None:
    with pytest.raises(DatasetError, match="has clusters along tracks"):
        validate(model, dataset)


def test_an_interrupted_training_continues(dataset, tmp_path) -> None:
    def interrupt(_) -> None:
        raise KeyboardInterrupt

    options = {"family": SMALL, "directory": tmp_path}
    whole = train(dataset, family=SMALL, steps=30)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, steps=30, progress=interrupt, **options)
    resumed = train(dataset, resume=True, **options)
    for one, other in zip(
        whole.generator.variables, resumed.generator.variables, strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_definitions_that_do_not_fit_are_named(definition, tmp_path) -> None:
    cases = (
        ('pt = "PT"', 'pt = "P"', "clusters.helix names 'P', which is not a condition"),
        ('pt = "PT", ', "", "expected a condition for each of pt"),
        ("field = 0.5", "field = -1", "clusters.field is -1"),
        ("field = 0.5", "feld = 0.5", "unknown key 'clusters.feld'; closest: 'field'"),
    )
    for old, new, message in cases:
        path = tmp_path / "wrong.toml"
        path.write_text(DEFINITION.replace(old, new))
        with pytest.raises(SampleError, match=message):
            load_sample(path)


def test_targets_that_do_not_fit_are_named(definition, dataset) -> None:
    with pytest.raises(TrainingError, match="expected one of clusters"):
        train(dataset, family="energy", steps=1)
    with pytest.raises(PidganError, match=r"'network' .* is 'dense'"):
        train(dataset, family="clusters", settings={"network": "dense"}, steps=1)
    wrong = dataclasses.replace(dataset, targets=1e-3 * dataset.targets)
    with pytest.raises(PidganError, match=r"mm off .* in mm"):
        train(wrong, family=SMALL, steps=1)
    x = dataset.conditions.copy()
    x[:, 0] = np.linspace(10, 11, len(x))  # MeV
    with pytest.raises(PidganError, match="do not reach"):
        train(dataclasses.replace(dataset, conditions=x), family=SMALL, steps=1)
