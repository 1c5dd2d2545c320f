"""Showers in the chain: schemes, families, export, application."""

import dataclasses
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pidgan.bundle.card import sample_targets
from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.calorimeter.mirrors import mirror_showers
from pidgan.errors import (
    BundleError,
    NtupleError,
    PidganWarning,
    SampleError,
)
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.loading import load_sample
from pidgan.simulation import SHOWER_TREE, simulate_showers
from pidgan.simulation.calorimeter import GEOMETRY
from pidgan.training.families import SHOWER_FAMILIES
from pidgan.training.targets.cell_fits import fit_cells
from pidgan.training.targets.cells import NO_EDGE, CellTransform

DEFINITIONS = Path(__file__).parents[2] / "examples/showers"
N = 1200

SMALL = {
    "energy_width": 8,
    "energy_couplings": 2,
    "width": 8,
    "couplings": 2,
    "latent": 4,
    "channels": 2,
    "batch_size": 32,
    "play_batch_size": 16,
    "critic_width": 8,
}

SMALL_SEQUENCE = {"energy_width": 8, "energy_memory": 2, "width": 8, "memory": 3}
SMALL_SEQUENCE |= {"axes": 2, "batch_size": 32}


def definition(**changes: Any) -> Sample:
    """The simulated block, as `examples/showers/simulated.toml` has it."""
    cells = {
        "geometry": GEOMETRY,
        "arrays": {"cells": "cells", "profile": "profile"},
        "incident": "energy",
        **changes.pop("cells", {}),
    }
    content = {
        "schema": 1,
        "name": "simulated",
        "title": "Simulated showers",
        "detector": "block",
        "species": "gamma",
        "source": "tests",
        "unweighted": True,
        "conditions": [
            {"name": "energy", "unit": "MeV", "range": [1e3, 1e5], "transform": "log"},
            {"name": "phi", "unit": "rad", "range": [0, 6.3], "transform": "angle"},
            {"name": "x0", "unit": "mm", "range": [-22, 22]},
            {"name": "species", "categories": [11, 22]},
        ],
        "cells": cells,
    }
    return Sample.model_validate(content | changes)


@pytest.fixture(scope="module")
def showers() -> dict[str, np.ndarray]:
    return simulate_showers(N, seed=3)


@pytest.fixture(scope="module")
def npz(showers: dict[str, np.ndarray], tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("showers") / "showers.npz"
    np.savez(path, **showers)
    return Path(path)


@pytest.fixture(scope="module")
def dataset(npz: Path) -> Dataset:
    return build_dataset(definition(), npz, seed=2)


@pytest.fixture(scope="module")
def models(dataset: Dataset) -> dict[str, Any]:
    pytest.importorskip("tensorflow")
    settings: dict[str, dict[str, Any]] = {
        "shower_flow": {},
        "shower_vae": {"network": "conv"},
        "shower_gan": {
            "constrain": "total,layers",
            "energy_critic": 1.0,
            "constrainer": 1.0,
        },
    }
    made = {
        family: take_a_step(dataset, family, {**SMALL, **own})
        for family, own in settings.items()
    }
    made["shower_sequence"] = take_a_step(dataset, "shower_sequence", SMALL_SEQUENCE)
    return made


def take_a_step(dataset: Dataset, family: str, settings: dict[str, Any]) -> Any:
    """Do one step of each phase, without the time that compiling the loop takes."""
    from pidgan.training.backend import tf
    from pidgan.training.course import Training
    from pidgan.training.families import parse_settings
    from pidgan.training.setup import set_up

    setup = set_up(dataset, parse_settings(family, settings), seed=1)
    training = Training(setup)
    for phase in training.descents.phases:
        seed = tf.constant([1, 2])
        batch = setup.rows.batch(seed, phase.batch_size)
        losses = training.descents.step(phase, batch, seed, start())
        assert all(np.isfinite(float(loss)) for loss in losses.values())
        training.descents.end(phase)
    return training.model()


def start() -> Any:
    """The time of the first step, at which rates are at their start."""
    from pidgan.training.backend import tf
    from pidgan.training.phases import Clock

    first, last = tf.constant(0), tf.constant(1)
    return Clock(step=first, begin=first, end=last, total=last)


def transforms(dataset: Dataset, **options: Any) -> CellTransform:
    part = dataset.part("train")
    layout = dataset.sample.cells.layout if dataset.sample.cells else None
    assert layout is not None
    return fit_cells(part.targets, part.conditions, layout, incident=0, **options)


# --- the simulation ---


def test_a_shower_is_never_more_than_its_energy(showers: dict[str, Any]) -> None:
    total = showers["cells"].sum(axis=1)
    np.testing.assert_allclose(total, showers["profile"].sum(axis=1), rtol=1e-5)
    assert (total <= showers["energy"] * 1.0001).all()
    assert (showers["cells"] == 0).any()


def test_showers_are_deeper_at_higher_energies() -> None:
    found = simulate_showers(4000, seed=5)
    share = found["profile"] / found["profile"].sum(axis=1, keepdims=True)
    depth = share @ np.arange(share.shape[1])
    high, low = found["energy"] > 3e4, found["energy"] < 3e3
    assert depth[high].mean() > depth[low].mean() + 0.5
    photon = found["species"] == 22
    # A photon converts first: about one radiation length, half a slice, later.
    assert depth[photon].mean() > depth[~photon].mean() + 0.1


# --- the definition and the dataset ---


def test_same_showers_from_every_format(
    showers: dict[str, Any], npz: Path, dataset: Dataset, tmp_path: Path
) -> None:
    for name in ("showers.root", "showers.parquet"):
        write_trees(tmp_path / name, {SHOWER_TREE: showers})
        other = build_dataset(definition(), tmp_path / name, seed=2)
        np.testing.assert_array_equal(other.targets, dataset.targets)
        np.testing.assert_array_equal(other.conditions, dataset.conditions)


def test_elements_of_an_array_are_columns(tmp_path: Path, npz: Path) -> None:
    with np.load(npz) as found:
        arrays = dict(found)
    columns = [arrays.pop(name) for name in ("energy", "phi", "x0")]
    np.savez(tmp_path / "a.npz", truth=np.stack(columns, axis=1) / 1e3, **arrays)
    conditions = [
        {"name": "energy", "branch": "truth[0]", "unit": "GeV", "range": [1e3, 1e5]},
        {"name": "species", "categories": [11, 22]},
    ]
    data = build_dataset(definition(conditions=conditions), tmp_path / "a.npz")
    np.testing.assert_allclose(np.sort(data.conditions[:, 0]), np.sort(columns[0]))
    conditions[0]["branch"] = "truth[3]"
    with pytest.raises(NtupleError, match=r"element 3, counted from 0.* 3 numbers"):
        build_dataset(definition(conditions=conditions), tmp_path / "a.npz")


@pytest.mark.parametrize("branch", ["profile", "pairs"])
def test_a_condition_that_is_an_array_is_named(
    branch: str, showers: dict[str, Any], tmp_path: Path
) -> None:
    pairs = np.stack([showers["energy"]] * 2, axis=1)
    np.savez(tmp_path / "a.npz", **showers, pairs=pairs)
    energy = {"name": "energy", "branch": branch, "range": [1e3, 1e5]}
    sample = definition(
        conditions=[energy, {"name": "species", "categories": [11, 22]}]
    )
    with pytest.raises(SampleError, match=rf"a.npz: '{branch}' has \d+ numbers per en"):
        build_dataset(sample, tmp_path / "a.npz")


def test_a_dataset_of_showers_is_saved(dataset: Dataset, tmp_path: Path) -> None:
    opened = Dataset.open(dataset.save(tmp_path / "d"))
    assert opened.sample == dataset.sample
    np.testing.assert_array_equal(opened.targets, dataset.targets)


def test_mistakes_are_named(showers: dict[str, Any], npz: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one for each view of the geometry: cells, p"):
        definition(cells={"arrays": {"cells": "cells"}})
    with pytest.raises(ValueError, match="incident names 'P', which is not a cond"):
        definition(cells={"incident": "P"})
    with pytest.raises(ValueError, match="two or more different"):
        definition(conditions=[{"name": "species", "categories": [11]}])
    swapped = {"arrays": {"cells": "profile", "profile": "cells"}}
    with pytest.raises(SampleError, match="has 12 cells, the geometry 36"):
        build_dataset(definition(cells=swapped), npz)
    with pytest.raises(SampleError, match=r"hold 9\d\d times the incident"):
        build_dataset(definition(cells={"unit": "GeV"}), npz)
    arrays = {"cells": "cell", "profile": "profile"}
    with pytest.raises(NtupleError, match="no branch 'cell'; closest: 'cells'"):
        build_dataset(definition(cells={"arrays": arrays}), npz)
    write_trees(tmp_path / "showers.root", {SHOWER_TREE: showers})
    with pytest.raises(NtupleError, match="no branch 'cell'; closest: 'cells'"):
        build_dataset(definition(cells={"arrays": arrays}), tmp_path / "showers.root")


def test_a_constant_condition_is_left_out(showers: Any, tmp_path: Path) -> None:
    arrays = {**showers, "x0": np.full(N, 3.0), "energy": showers["energy"]}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.warns(PidganWarning, match="constant conditions are left out: x0 = 3"):
        data = build_dataset(definition(), tmp_path / "a.npz")
    assert data.sample.condition_names == ("energy", "phi", "species")


def test_nothing_is_trained_in_an_excluded_interval(npz: Path) -> None:
    data = build_dataset(definition(exclude={"energy": [[8e3, 2e4]]}), npz)
    inside = (data.conditions[:, 0] >= 8e3) & (data.conditions[:, 0] <= 2e4)
    assert inside.any()
    np.testing.assert_array_equal(data.split == 3, inside)
    assert len(data.part("excluded").weights) == inside.sum()


@pytest.mark.parametrize(
    "path", sorted(DEFINITIONS.glob("*.toml")), ids=lambda p: p.stem
)
def test_definitions_of_the_examples(path: Path) -> None:
    sample = load_sample(path)
    assert sample.cells is not None
    assert len(sample.targets) == sample.cells.layout.n_cells


# --- schemes ---


@pytest.mark.parametrize(
    ("scheme", "scale"), list(itertools.product(["layers", "cells"], ["log", "logit"]))
)
@pytest.mark.parametrize("lines", [False, True])
def test_schemes_come_back(
    dataset: Dataset, scheme: str, scale: str, lines: bool
) -> None:
    part = dataset.part("train")
    transform = transforms(dataset, scheme=scheme, scale=scale, lines=lines)
    z = transform.forward(part.targets, part.conditions)
    cells = transform.inverse(z, None, part.conditions)
    # 1e-4: the precision of a normal score, in steep pieces of a distribution.
    np.testing.assert_allclose(cells, part.targets, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(cells == 0, part.targets == 0)
    rebuilt = CellTransform.from_arrays(transform.to_arrays())
    np.testing.assert_array_equal(rebuilt.inverse(z, None, part.conditions), cells)


def test_layers_are_normalised_exactly(dataset: Dataset) -> None:
    transform = transforms(dataset)
    conditions = dataset.part("test").conditions
    rng = np.random.default_rng(1)
    z = rng.standard_normal((len(conditions), transform.n_coordinates))
    cells = transform.inverse(z, None, conditions).astype(np.float64)
    np.testing.assert_allclose(
        cells[:, :36].sum(axis=1), cells[:, 36:].sum(axis=1), rtol=1e-5
    )
    total = transform.inverse(
        np.concatenate([z[:, :1], 3 + 0 * z[:, 1:]], 1), None, conditions
    )
    np.testing.assert_allclose(
        total[:, :36].sum(axis=1), cells[:, :36].sum(axis=1), rtol=1e-5
    )
    # Where every share lies below its edge, the nearest to it stays.
    dark = transform.inverse(0 * z - 8, None, conditions)
    assert (dark[:, :36].sum(axis=1) > 0).all()


def test_threshold_is_exact(dataset: Dataset) -> None:
    transform = transforms(dataset, threshold=5.0)
    part = dataset.part("test")
    shape = (len(part.conditions), transform.n_coordinates)
    z = np.random.default_rng(1).standard_normal(shape)
    cells = transform.inverse(z, None, part.conditions)
    assert ((cells == 0) | (cells >= 5)).all()
    assert (cells == 0).any()


def test_mirror_images_are_showers(showers: dict[str, Any]) -> None:
    geometry = load_geometry(GEOMETRY)
    cells = np.concatenate([showers["cells"], showers["profile"]], axis=1)
    truth = np.stack([showers[k] for k in ("x0", "y0", "phi")], axis=1)
    images, conditions = mirror_showers(
        cells,
        truth,
        geometry,
        mirrors=["x", "swap"],
        columns={"x": 0, "y": 1, "phi": 2},
    )
    assert len(images) == 4 * N
    np.testing.assert_array_equal(images[:N], cells)
    at = geometry.centres[:36, :2]
    mean = (images[:, :36] @ at) / images[:, :36].sum(axis=1, keepdims=True)
    original, swapped, mirrored, both = np.split(mean, 4)
    np.testing.assert_allclose(swapped, original[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(mirrored, original * [-1, 1], atol=1e-4)
    np.testing.assert_allclose(both, (original * [-1, 1])[:, ::-1], atol=1e-4)
    before, _, after, _ = np.split(conditions, 4)
    np.testing.assert_array_equal(after[:, :2], before[:, :2] * [-1, 1])
    np.testing.assert_allclose(np.cos(after[:, 2]), -np.cos(before[:, 2]), atol=1e-5)
    np.testing.assert_allclose(np.sin(after[:, 2]), np.sin(before[:, 2]), atol=1e-5)
    askew = load_geometry(
        {"layers": [{"kind": "rectangular", "x_edges": [0, 1, 3], "y_edges": [0, 1]}]}
    )
    with pytest.raises(SampleError, match="not symmetric"):
        mirror_showers(cells[:, :2], truth, askew, mirrors=["x"], columns={})


# --- families ---


# `shower_tree` makes one view: tests/training/test_shower_tree.py.
@pytest.mark.parametrize("family", sorted({*SHOWER_FAMILIES} - {"shower_tree"}))
def test_keras_equals_onnx(
    models: dict[str, Any], dataset: Dataset, family: str, tmp_path: Path
) -> None:
    from pidgan.bundle.bundle import open_bundle
    from pidgan.training.export import check_parity, export_bundle

    bundle = open_bundle(export_bundle(models[family], tmp_path / "shower.onnx"))
    parity = check_parity(models[family], bundle)
    assert parity.differing <= 1
    conditions = dataset.part("test").conditions
    cells = sample_targets(bundle, conditions, seed=1)
    assert cells.shape == (len(conditions), 48)
    assert (cells >= 0).all()
    assert (cells == 0).any()
    np.testing.assert_allclose(
        cells[:, :36].sum(axis=1), cells[:, 36:].sum(axis=1), rtol=1e-4
    )


def test_what_single_precision_spoils_is_written_in_double(
    models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pidgan.training.export as export
    from pidgan.bundle.bundle import open_bundle

    model = models["shower_sequence"]
    single = open_bundle(export.export_bundle(model, tmp_path / "single.onnx"))
    tolerance = export.check_parity(model, single).largest / 4
    monkeypatch.setattr(export, "TOLERANCE", tolerance)
    with pytest.warns(PidganWarning, match="written in double precision"):
        path = export.export_bundle(model, tmp_path / "double.onnx")
    assert export.check_parity(model, open_bundle(path)).differing <= 1


@pytest.mark.parametrize("family", ["shower_flow", "shower_sequence"])
def test_a_shower_model_is_saved(
    models: Any, dataset: Dataset, family: str, tmp_path: Path
) -> None:
    from pidgan.training.model import open_model

    conditions = dataset.part("test").conditions
    models[family].save(tmp_path / "m")
    np.testing.assert_array_equal(
        sample_targets(open_model(tmp_path / "m"), conditions, seed=1),
        sample_targets(models[family], conditions, seed=1),
    )


@pytest.mark.parametrize("family", ["gflash", "pca"])
def test_a_parametrisation_is_a_bundle(
    dataset: Dataset, family: Any, tmp_path: Path
) -> None:
    from pidgan.bundle.bundle import open_bundle
    from pidgan.bundle.c_file import c_source
    from pidgan.training.classical.fit import fit_parametrisation
    from pidgan.training.export import check_parity, export_bundle

    model = fit_parametrisation(dataset, family)
    bundle = open_bundle(export_bundle(model, tmp_path / "shower.onnx"))
    assert bundle.card.family == family
    with pytest.raises(BundleError, match="double precision"):
        c_source(bundle, "shower")
    assert check_parity(model, bundle).differing <= 1
    conditions = dataset.part("test").conditions
    np.testing.assert_allclose(
        sample_targets(bundle, conditions, seed=1),
        sample_targets(model, conditions, seed=1),
        rtol=1e-4,
        atol=1e-4 * dataset.targets.max(),
    )


def test_parametrisations_need_an_incident_energy(npz: Path) -> None:
    from pidgan.errors import TrainingError
    from pidgan.training.classical.fit import fit_parametrisation

    dataset = build_dataset(definition(cells={"incident": None}), npz, seed=2)
    with pytest.raises(TrainingError, match="no cells with an incident energy"):
        fit_parametrisation(dataset, "pca")


@pytest.mark.parametrize("n", [1, 5])
def test_density_of_a_flow_is_that_of_its_samples(n: int) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.backend import tf
    from pidgan.training.networks.couplings import CouplingFlow

    flow = CouplingFlow(n, couplings=3, width=8, blocks=1, seed=1, name="f")
    u, context = (tf.random.stateless_normal((1, k), (1, k)) for k in (n, 2))
    flow.generate(u, context)
    rng = np.random.default_rng(1)
    for v in flow.variables:
        v.assign(v + 0.3 * rng.standard_normal(v.shape).astype(np.float32))
    flow.settle()
    with tf.GradientTape() as tape:
        tape.watch(u)
        y = flow.generate(u, context)
    jacobian = tape.jacobian(y, u)[0, :, 0].numpy()
    expected = 0.5 * np.sum(u.numpy() ** 2) + np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(flow.loss(y, context).numpy(), [expected], rtol=1e-5)


def test_a_total_far_below_all_others_is_not_zero(dataset: Dataset) -> None:
    # One of n values lies at most (n - 1)^1/2 standard deviations away.
    rows = np.arange(1500) % len(dataset)
    cells, conditions = dataset.targets[rows].copy(), dataset.conditions[rows]
    energy = conditions[:, [0]]
    narrow = 0.2 + 2e-4 * np.random.default_rng(1).standard_normal((len(rows), 1))
    narrow[7] = 0.1
    # Both views hold the same energy.
    whole = cells[:, :36].sum(axis=1, keepdims=True)
    cells *= energy * narrow / whole
    layout = dataset.sample.cells.layout  # type: ignore[union-attr]
    found = fit_cells(cells, conditions, layout, incident=0, lines=True)
    z = found.forward(cells, conditions)
    assert z[7, 0] < -30
    assert not found.is_zero(z)[:, 0].any()
    np.testing.assert_allclose(
        found.inverse(z, None, conditions), cells, rtol=1e-3, atol=1e-3 * cells.max()
    )


def test_what_is_missing_in_a_total_is_seen(dataset: Dataset) -> None:
    energy = dataset.conditions[:, [0]].astype(np.float64)
    rng = np.random.default_rng(1)
    missing = 4e-3 * np.exp(0.5 * rng.standard_normal((len(dataset), 1)))
    whole = dataset.targets[:, :36].sum(axis=1, keepdims=True)
    cells = dataset.targets * energy * (1 - missing) / whole
    layout = dataset.sample.cells.layout  # type: ignore[union-attr]
    found = fit_cells(cells, dataset.conditions, layout, incident=0, lines=True)
    z = found.forward(cells, dataset.conditions)[:, 0]
    # Nearly normal, while the total itself has a long tail.
    skewness = [np.mean((v - v.mean()) ** 3) / v.std() ** 3 for v in (z, -missing)]
    assert abs(skewness[0]) < 0.4
    assert skewness[1] < -1.5
    highest = found.inverse(np.full((1, found.n_coordinates), 9.0), None, energy[:1])
    assert highest[0, :36].sum() < 1.001 * energy[0, 0]


def test_a_sequence_forgets_steps_that_made_it_worse(dataset: Dataset) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.averages import HeldOut
    from pidgan.training.backend import tf
    from pidgan.training.descents import Descents
    from pidgan.training.families import ShowerSequence
    from pidgan.training.setup import set_up

    settings = ShowerSequence(**SMALL_SEQUENCE, average=0.0, learning_rate=3e-3)
    setup = set_up(dataset, settings, seed=1)
    family, descents = setup.family, Descents(setup.phases)
    (phase,) = family.phases
    seed = tf.constant([1, 2])
    held_out = HeldOut(setup.validation, block_rows=8, watches=1, seed=1)
    batch = setup.validation.take(tf.range(64))
    for _ in range(3):
        descents.step(phase, batch, seed, start())
    before = descents.watch(phase, held_out)
    good = [v.numpy() for v in family.generator.variables]
    # Another optimizer of the same variables, with a rate that is too high.
    wild = Descents([with_rate(phase, 1.0)])
    wild.step(wild.phases[0], batch, seed, start())
    after = {k: v for u in phase.updates for k, v in u.losses(batch, seed).items()}
    assert all(float(after[name]) > before[name].mean() for name in before)
    assert descents.watch(phase, held_out) == {}
    descents.end(phase)
    for expected, variable in zip(good, family.generator.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected)


def with_rate(phase: Any, rate: float) -> Any:
    """A phase of which all descents have another learning rate."""
    replace = dataclasses.replace
    updates = []
    for update in phase.updates:
        optimizer = replace(update.descent.optimizer, learning_rate=rate)
        descent = replace(update.descent, optimizer=optimizer)
        updates.append(replace(update, descent=descent))
    return replace(phase, updates=updates)


def test_few_showers_have_more_weight_decay(dataset: Dataset) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.families import ShowerSequence
    from pidgan.training.setup import set_up

    settings = ShowerSequence(**SMALL_SEQUENCE, weight_decay=0.02)
    family = set_up(dataset, settings, seed=1).family
    # Mirror images are no showers more.
    n = len(dataset.part("train").weights)
    (descent,) = family.phases[0].updates[-1].descents  # of the cells
    assert descent.optimizer.weight_decay == pytest.approx(0.02 * 7600 / n)


def test_density_of_a_sequence_is_that_of_its_samples() -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.backend import tf
    from pidgan.training.networks.cell_by_cell import LEAST, Order, Sequence

    n = 5
    stages = [[3], [0, 4], [1], [2]]
    order = Order(
        stages=tuple(np.array(stage) for stage in stages),
        window=np.array([[3, 5], [0, 4], [1, 0], [5, 5], [3, 5]]),
        group=np.array([0, 0, 0, 0, -1]),
        place=np.array([[0, 0], [1, 0], [1, 1], [0, 1], [2, 1]], dtype=np.float32),
        depth=np.array([-1, 0, 1, -1, 1], dtype=np.float32),
        slope=np.full(n, 0.5),
        offset=np.full(n, -3.0),
        least=np.full(n, -9.0),
        most=np.full(n, 9.0),
        edge=np.array([-9.5, NO_EDGE, -9.5, -9.5, -9.5]),
    )
    model = Sequence(order, n_context=2, width=6, memory=3, axes=2, seed=1)
    rng = np.random.default_rng(1)
    for v in model.variables:
        v.assign(v + 0.2 * rng.standard_normal(v.shape).astype(np.float32))
    u, context = rng.uniform(-1, 1, (1, n)), rng.standard_normal((1, 2))
    step = 1e-6 * np.eye(n)

    def generate(u: np.ndarray) -> np.ndarray:
        made: np.ndarray = model.generate(u.T, context.T).T
        return made

    z = generate(u)
    assert z.min() > -10
    jacobian = np.stack([(generate(u + d) - generate(u - d))[0] / 2e-6 for d in step])
    expected = 0.5 * np.sum(u**2) + np.linalg.slogdet(jacobian)[1]
    found = model.loss(*(tf.constant(v, tf.float32) for v in (z, 1 + 0 * z, context)))
    np.testing.assert_allclose(found.numpy(), [expected], rtol=1e-4, atol=1e-4)
    # Far below: nothing anywhere, but for what is never empty.
    nothing = generate(u - 20) < LEAST / 2
    np.testing.assert_array_equal(nothing[0], order.empties)


def test_layers_of_a_volume_take_no_turns() -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.families.shower_sequence import _neighbours

    def order(n_layers: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        place = np.stack(np.meshgrid(*map(np.arange, (n_layers, 4, 4)), indexing="ij"))
        place = place.reshape(3, -1).T[:, [1, 2, 0]].astype(np.float32)
        ring = -((place[:, :2] - 1.5) ** 2).sum(axis=1)
        return place, *_neighbours(place, ring, place[:, 2].astype(int), 1.05)

    place, window, stages = order(7)
    assert len(stages) == len(order(20)[2])
    assert np.array_equal(np.sort(np.concatenate(stages)), np.arange(len(place)))
    stage = np.empty(len(place) + 1)
    stage[-1] = -1
    for number, members in enumerate(stages):
        stage[members] = number
    # What is looked up is there already, and near.
    assert (stage[window] < stage[:-1, None]).all()
    cells, slots = np.nonzero(window < len(place))
    distance = place[cells] - place[window[cells, slots]]
    assert (np.abs(distance).sum(axis=1) == 1).all()
    # A cell between two layers of its ring has seen both.
    assert ((np.abs(distance[:, 2]) == 1).sum()) == 16 * 6


def test_a_sequence_of_voxels(showers: dict[str, np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.bundle.bundle import open_bundle
    from pidgan.training.export import check_parity, export_bundle

    n, n_layers = 300, 6
    depth = showers["profile"][:n].reshape(n, n_layers, 2).sum(axis=2)
    share = showers["cells"][:n].reshape(n, 1, 36) / depth.sum(axis=1)[:, None, None]
    voxels = (depth[:, :, None] * share).astype(np.float32)
    columns = {k: v[:n] for k, v in showers.items() if k not in ("cells", "profile")}
    np.savez(tmp_path / "voxels.npz", voxels=voxels, **columns)
    layer = {"kind": "rectangular", "nx": 6, "ny": 6, "cell": [22, 22], "order": "xy"}
    layers = [{**layer, "thickness": 40, "count": n_layers}]
    geometry = {"name": "voxels", "views": [{"name": "voxels", "layers": layers}]}
    sample = definition(cells={"geometry": geometry, "arrays": {"voxels": "voxels"}})
    dataset = build_dataset(sample, tmp_path / "voxels.npz", seed=2)
    settings = {**SMALL_SEQUENCE, "reach": 1.05}
    model = take_a_step(dataset, "shower_sequence", settings)
    assert "tilt" in model.generator.parts[-1].model.weights
    bundle = open_bundle(export_bundle(model, tmp_path / "voxels.onnx"))
    assert check_parity(model, bundle, rows=2000).differing <= 1
    cells = sample_targets(bundle, dataset.part("test").conditions, seed=1)
    assert (cells >= 0).all()
    # Each layer is normalised to its energy, which is never larger than the total.
    assert (cells.sum(axis=1) < 1.2 * dataset.part("test").conditions[:, 0]).all()
    # Where all cells of a layer would be zero, one keeps its energy: mirror images,
    # whose edges are equal, do not share it.
    bias = model.generator.parts[-1].model.weights["last_bias"]
    bias.assign(bias + np.array([20.0, 0, 0, 0, 0], dtype=np.float32))
    cells = sample_targets(model, dataset.part("test").conditions, seed=1)
    filled = (cells.reshape(-1, n_layers, 36) > 0).sum(axis=2)
    assert filled.max() == 1
    assert filled.mean() > 0.9


def test_imputed_values_lie_below_the_edge() -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.backend import tf
    from pidgan.training.networks.energies_and_shape import censored_loss, impute

    y = tf.constant([[-1.0, 0.5]] * 4000)
    observed = tf.constant([[0.0, 1.0]] * 4000)
    location, scale = tf.zeros_like(y), tf.ones_like(y)
    full = impute(y, observed, location, scale, seed=tf.constant([1, 2])).numpy()
    assert (full[:, 0] <= -1).all()
    assert (full[:, 1] == 0.5).all()
    # Mean of a normal distribution cut at -1: -phi(1) / Phi(-1) = -1.525.
    assert abs(full[:, 0].mean() + 1.525) < 0.03
    loss = censored_loss(y[:1], observed[:1], location[:1], scale[:1]).numpy()
    np.testing.assert_allclose(loss, [-np.log(0.158655) + 0.125], rtol=1e-4)


def test_observables_of_coordinates_are_those_of_cells(dataset: Dataset) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.networks.shower_critic import Observables

    transform, part = transforms(dataset), dataset.part("train")
    assert dataset.sample.cells is not None
    layout = dataset.sample.cells.layout
    seen = Observables(transform, layout, ("total", "centre"))
    z = transform.forward(part.targets, part.conditions)
    cells = np.asarray(seen.cells(z)) * part.conditions[:, :1]
    np.testing.assert_allclose(cells, part.targets, rtol=1e-3, atol=0.01)
    assert np.isfinite(seen(z).numpy()).all()


def test_a_sequence_of_cells_alone(dataset: Dataset) -> None:
    pytest.importorskip("tensorflow")
    sample = definition(cells={"scheme": "cells"})
    other = Dataset(**{**vars(dataset), "sample": sample})
    model = take_a_step(other, "shower_sequence", SMALL_SEQUENCE)
    cells = sample_targets(model, dataset.part("test").conditions, seed=1)
    assert np.isfinite(cells).all()
    assert (cells >= 0).all()


def test_a_sequence_of_too_many_cells(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.errors import PidganError
    from pidgan.training.families import shower_sequence

    monkeypatch.setattr(shower_sequence, "MOST_CELLS", 35)
    with pytest.raises(PidganError, match=r"36 cells.*at most 35.*shower_vae"):
        take_a_step(dataset, "shower_sequence", SMALL_SEQUENCE)


def test_convolutions_need_a_grid(dataset: Dataset) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.errors import PidganError
    from pidgan.training.loop import train

    sample = definition(cells={"scheme": "cells"})
    other = Dataset(**{**vars(dataset), "sample": sample})
    settings = {**SMALL, "network": "conv"}
    with pytest.raises(PidganError, match="cells that fill one grid"):
        train(other, family="shower_vae", steps=1, settings=settings)


def test_showers_are_applied(models: Any, tmp_path: Path) -> None:
    from pidgan.application.apply import apply
    from pidgan.training.export import export_bundle

    bundle = export_bundle(models["shower_flow"], tmp_path / "shower.onnx")
    truth = simulate_showers(50, seed=9)
    branches = {f"gamma_{k}": truth[k] for k in ("energy", "phi", "x0", "species")}
    branches["gamma_species"][:3] = 13
    write_trees(tmp_path / "in.parquet", {"T": branches})
    given, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    with pytest.warns(PidganWarning, match="species of gamma .* in 3 of 50 rows"):
        summary = apply({"gamma": bundle}, given, output, seed=1)
    assert summary.targets["gamma"] == [
        "gamma_cells",
        "gamma_profile",
        "gamma_pidgan_status",
    ]
    frame = pd.read_parquet(tmp_path / "out.parquet")
    cells = np.stack(frame["gamma_cells"])
    assert cells.shape == (50, 36)
    assert np.isnan(cells[:3]).all()
    assert np.isfinite(cells[3:]).all()
    assert (frame["gamma_pidgan_status"][:3] == 2).all()


def test_the_how_to_works(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("tensorflow")
    from click.testing import CliRunner

    from pidgan.cli import cli

    page = DEFINITIONS.parents[1] / "docs/how-to/calorimeter/your-calorimeter.md"
    if not page.is_file():
        pytest.skip("the documentation is not part of a wheel")
    text = page.read_text(encoding="utf-8")
    (definition_text,) = re.findall(r"```toml\n# block.toml\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("block.toml").write_text(definition_text, encoding="utf-8")
    truth = simulate_showers(20, seed=9)
    particles = {
        f"gamma_{k}": v for k, v in truth.items() if k not in ("cells", "profile")
    }
    write_trees("particles.root", {"T": particles})
    smaller = [f"--set {name}={value}" for name, value in SMALL_SEQUENCE.items()]
    quicker = {"-n 8000": "-n 1100", "--budget 10m": f"--steps 2 {' '.join(smaller)}"}
    commands = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    for line in commands:
        if "--part excluded" in line:
            continue  # of another definition
        for slow, quick in quicker.items():
            line = line.replace(slow, quick)
        result = CliRunner().invoke(cli, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
    assert Path("block-report/report.html").is_file()
    assert Path("out.root").is_file()


def test_categories_that_are_no_numbers_of_the_data(npz: Path) -> None:
    conditions = [
        {"name": "energy", "unit": "MeV", "range": [1e3, 1e5]},
        {"name": "species", "categories": [11, 13]},
    ]
    with pytest.warns(PidganWarning) as found:
        data = build_dataset(definition(conditions=conditions[::-1]), npz)
    assert data.sample.condition_names == ("energy",)
    messages = [str(warning.message) for warning in found]
    assert any("rows dropped: species unknown" in text for text in messages)


def test_empty_file_of_showers(showers: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{k: v[:0] for k, v in showers.items()})
    with pytest.raises(NtupleError, match="is empty: got 0 entries"):
        build_dataset(definition(), tmp_path / "a.npz")
