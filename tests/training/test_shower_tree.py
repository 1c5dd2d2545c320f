"""Showers by splitting energies: densities, the order of making, export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from pidgan.errors import PidganError
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample

pytest.importorskip("tensorflow")

LAYERS, SIDE, N = 5, 4, 400
SMALL = {"layer_width": 8, "width": 8, "batch_size": 32, "splits": 256}


def hadrons(n: int, seed: int) -> dict[str, np.ndarray]:
    """Showers that start in any layer and move along a line; many cells are empty."""
    rng = np.random.default_rng(seed)
    energy = np.exp(rng.uniform(np.log(2.0), np.log(100.0), n))
    x0 = rng.uniform(-1, 1, n)
    start = rng.integers(0, LAYERS + 1, n)
    depth = np.arange(LAYERS)[None] - start[:, None]
    profile = np.where(depth >= 0, np.exp(-0.5 * depth), 0.01)
    layers = profile * rng.gamma(4.0, 0.25, (n, LAYERS)) * energy[:, None] * 0.03
    at = np.arange(SIDE) - (SIDE - 1) / 2
    near = np.exp(-((at[None] - x0[:, None]) ** 2))
    share = near[:, None, :] * np.exp(-(at**2))[None, :, None]
    share = share[:, None] * rng.gamma(0.4, 1.0, (n, LAYERS, SIDE, SIDE))
    share[share < 0.02] = 0
    share[:, :, 1, 1] += 1e-3
    share /= share.sum(axis=(2, 3), keepdims=True)
    cells = share * layers[:, :, None, None]
    return {"energy": energy, "x0": x0, "cells": cells.astype(np.float32)}


def definition(**changes: Any) -> Sample:
    layer = {"kind": "rectangular", "nx": SIDE, "ny": SIDE, "cell": [10, 10]}
    content: dict[str, Any] = {
        "schema": 1,
        "name": "hadrons",
        "title": "Hadrons",
        "detector": "sandwich",
        "species": "pi+",
        "source": "tests",
        "unweighted": True,
        "conditions": [
            {"name": "energy", "unit": "GeV", "range": [1, 1e6], "transform": "log"},
            {"name": "x0", "unit": "cm", "range": [-99, 99]},
        ],
        "cells": {
            "unit": "GeV",
            "incident": "energy",
            "arrays": {"cells": "cells"},
            "geometry": {
                "name": "sandwich",
                "views": [
                    {
                        "name": "cells",
                        "layers": [{**layer, "thickness": 20, "count": LAYERS}],
                    }
                ],
            },
        },
    }
    return Sample.model_validate(content | changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: Any) -> Dataset:
    path = tmp_path_factory.mktemp("hadrons") / "hadrons.npz"
    np.savez(path, **hadrons(N, 3))
    return build_dataset(definition(), path, seed=2)


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Any:
    """Return a model after some steps."""
    from pidgan.training.loop import train

    return train(
        dataset, family="shower_tree", steps=20, settings=SMALL, progress=False
    )


def network(*, is_split: bool) -> Any:
    """Return a network with weights of a size that makes uneven densities."""
    from pidgan.training.networks.split_energy import SplitNetwork

    edges = np.array([-4.0, -2.5, -2.0, -1.0, 0.5])
    made = SplitNetwork(3, edges, codes=[2], width=6, seed=4, is_split=is_split)
    rng = np.random.default_rng(5)
    for variable in made.variables:
        variable.assign(rng.normal(size=variable.shape) * 0.7)
    return made


def split(made: Any, features: Any, code: int, u: Any, energy: Any) -> Any:
    """Return the first part for probabilities u of each row."""
    weights = {name: v.numpy().astype(float) for name, v in made.weights.items()}
    shared = np.repeat(features[:, None], len(u), axis=1)
    noise = scipy.stats.norm.ppf(u)[None]
    whole = None if energy is None else np.full((1, len(u)), energy)
    return made.generate([], shared, [np.array([code])], noise, whole, weights=weights)[
        0
    ]


@pytest.mark.parametrize("energy", [1e-2, 0.15, 0.7, 2.0, 40.0])
def test_density_of_a_split_is_that_of_its_samples(energy: float) -> None:
    from pidgan.training.backend import tf

    made, features = network(is_split=True), np.array([0.3, -1.0, 0.5])
    u = np.linspace(0, 1, 200_001)[1:-1]
    first = split(made, features, 1, u, energy)
    assert (np.diff(first) >= -1e-9 * energy).all()
    assert first.min() >= 0
    assert first.max() <= energy
    # Its density in ln(smaller part), from how fast it grows with u.
    places = np.linspace(100, len(u) - 101, 60).astype(int)
    places = places[(first[places] > 0) & (first[places] < energy)]
    small = np.minimum(first, energy - first)
    slope = (np.log(small[places + 40]) - np.log(small[places - 40])) / (
        u[places + 40] - u[places - 40]
    )
    tensor = [np.repeat(features[None], len(places), 0), first[places]]
    tensor.append(energy - first[places])
    x, one, two = (tf.constant(v, tf.float32) for v in tensor)
    code = tf.ones(len(places), tf.int32)
    loss = made.loss(x, [code], one, two).numpy()
    # Where an edge of a bin lies between the two, it is neither density.
    agree = np.isclose(np.exp(-loss), 1 / np.abs(slope), rtol=0.02)
    assert agree.all() if energy < 0.1 else agree.mean() > 0.8
    # What is not a density is the probability of nothing on either side.
    x, code = tf.constant(features[None], tf.float32), tf.ones(1, tf.int32)
    for part, share in ((first == 0, (0.0, energy)), (first >= energy, (energy, 0.0))):
        pair = (tf.constant([v], tf.float32) for v in share)
        p = np.exp(-made.loss(x, [code], *pair).numpy()[0])
        assert part.mean() == pytest.approx(p, abs=1e-4)


def test_density_of_a_total_is_that_of_its_samples() -> None:
    from pidgan.training.backend import tf

    made, features = network(is_split=False), np.array([0.3, -1.0, 0.5])
    u = np.linspace(0, 1, 100_001)[1:-1]
    total = split(made, features, 0, u, None)
    x, code = tf.constant(features[None], tf.float32), tf.zeros(1, tf.int32)
    p = np.exp(-made.loss(x, [code], tf.zeros(1)).numpy()[0])
    assert (total == 0).mean() == pytest.approx(p, abs=1e-4)
    logs = np.log(total[total > 0])
    for low, high in zip(made.edges[:-1], made.edges[1:], strict=True):
        middle = tf.constant([np.exp((low + high) / 2)], tf.float32)
        density = np.exp(-made.loss(x, [code], middle).numpy()[0])
        share = ((logs > low) & (logs <= high)).sum() / len(u)
        assert share == pytest.approx(density * (high - low), abs=1e-4)


def test_what_is_made_has_the_density_that_is_learnt(model: Any) -> None:
    """Each energy follows its noise as the losses say, given those made before."""
    from pidgan.training.backend import tf

    splits = model.generator.model
    tree, rng = splits.tree, np.random.default_rng(8)
    x = rng.normal(size=(2, 3)) * 0.5
    step = 1e-5
    for stage in (tree.stages[0], tree.stages[len(tree.stages) // 2], tree.stages[-1]):
        noise = rng.normal(size=(splits.n_noise, 3)) * 0.7
        moved = noise.copy()
        moved[splits.n_layers + stage] += step
        cells, other = (splits.generate(x, z).T for z in (noise, moved))
        e, e_moved = (
            splits.node_energies(tf.constant(v, tf.float64)).numpy()
            for v in (cells, other)
        )
        row, number = np.meshgrid(np.arange(3), stage, indexing="ij")
        row, number = row.ravel(), number.ravel()
        first, second = e[row, tree.first[number]], e[row, tree.second[number]]
        both = (first > 1e-6) & (second > 1e-6)
        assert both.sum() > 3
        row, number = row[both], number[both]
        pair = [
            np.minimum(v[row, tree.first[number]], v[row, tree.second[number]])
            for v in (e, e_moved)
        ]
        slope = np.abs(np.log(pair[1] / pair[0])) / step
        expected = scipy.stats.norm.pdf(noise[splits.n_layers + number, row]) / slope
        loss = splits.half_losses(
            tf.constant(x.T, tf.float32),
            tf.constant(e, tf.float32),
            tf.constant(row, tf.int32),
            tf.constant(number, tf.int32),
        ).numpy()
        np.testing.assert_allclose(np.exp(-loss), expected, rtol=0.01)


def test_showers_add_up(model: Any, dataset: Dataset) -> None:
    part = dataset.part("test")
    noise = np.random.default_rng(1).normal(
        size=(len(part.weights), model.card.n_noise)
    )
    made = model.generate(part.conditions, noise.astype(np.float32))
    assert made.shape == part.targets.shape
    assert np.isfinite(made).all()
    assert (made >= 0).all()
    assert 0.2 < (made == 0).mean() < 0.95
    # A shower does not depend on its neighbours in a batch.
    alone = model.generate(part.conditions[3:5], noise[3:5].astype(np.float32))
    np.testing.assert_allclose(alone, made[3:5], rtol=1e-5, atol=1e-9)


def test_keras_equals_onnx_and_a_saved_model(
    model: Any, dataset: Dataset, tmp_path: Path
) -> None:
    from pidgan.bundle.bundle import open_bundle
    from pidgan.bundle.c_file import export_c
    from pidgan.training.export import check_parity, export_bundle
    from pidgan.training.model import open_model

    bundle = open_bundle(export_bundle(model, tmp_path / "shower.onnx"))
    assert not any(v.dtype == "float64" for v in bundle.graph.values.values())
    export_c(bundle, tmp_path / "shower.c")
    assert "dense_" in (tmp_path / "shower.c").read_text()
    assert check_parity(model, bundle).differing <= 1
    model.save(tmp_path / "m")
    x = dataset.part("test").conditions[:20]
    noise = np.random.default_rng(1).normal(size=(20, model.card.n_noise))
    noise = noise.astype(np.float32)
    np.testing.assert_array_equal(
        open_model(tmp_path / "m").generate(x, noise), model.generate(x, noise)
    )


def test_the_default_follows_the_calorimeter(dataset: Dataset, tmp_path: Path) -> None:
    from pidgan.training.families.default import default_name

    assert default_name(dataset) == "shower_tree"
    # A block that holds all of a shower, and sees all of it.
    showers = hadrons(N, 4)
    total = showers["cells"].sum(axis=(1, 2, 3))
    whole = showers["energy"] * np.random.default_rng(1).normal(0.9, 0.005, N)
    showers["cells"] *= (whole / total)[:, None, None, None]
    np.savez(tmp_path / "block.npz", **showers)
    block = build_dataset(definition(), tmp_path / "block.npz", seed=2)
    assert default_name(block) == "shower_sequence"


def test_two_views_are_refused(tmp_path: Path) -> None:
    from pidgan.simulation import simulate_showers
    from pidgan.simulation.calorimeter import GEOMETRY
    from pidgan.training.loop import train

    np.savez(tmp_path / "two.npz", **simulate_showers(200, seed=3))
    cells = {"geometry": GEOMETRY, "incident": "energy"}
    cells["arrays"] = {"cells": "cells", "profile": "profile"}
    conditions = [{"name": "energy", "unit": "MeV", "range": [1, 1e6]}]
    sample = definition(cells=cells, conditions=conditions)
    dataset = build_dataset(sample, tmp_path / "two.npz", seed=1)
    with pytest.raises(PidganError, match="one view, got 2 views"):
        train(dataset, family="shower_tree", steps=1, progress=False)
