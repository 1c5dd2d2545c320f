"""Hybrid: beyond the trained energies showers follow the parametrisation."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_showers import CELLS, LAYERS, toy_showers

from pidgan.errors import TrainingError
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import open_bundle
from pidgan.training.classical.fit import fit_parametrisation
from pidgan.training.export import check_parity, export_bundle
from pidgan.training.families import parse_settings
from pidgan.training.hybrid import HybridModel
from pidgan.training.loop import Training
from pidgan.training.refinement import refine
from pidgan.training.setup import set_up

N, TOP = 900, 3e4


def as_rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Conditions and cells, 3 x 3 in each layer: energy, impact point, species."""
    conditions, cells = toy_showers(n, seed=seed)
    shape = (n, LAYERS, CELLS // 2, 2, CELLS // 2, 2)
    cells = cells.reshape(shape).sum(axis=(3, 5)).reshape(n, -1)
    return conditions.astype(np.float32), cells.astype(np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: Any) -> Dataset:
    conditions, cells = as_rows(N, 3)
    path = tmp_path_factory.mktemp("stack") / "stack.npz"
    names = ("energy", "theta", "phi", "x0", "y0", "species")
    np.savez(path, cells=cells, **dict(zip(names, conditions.T, strict=True)))
    plane = {"kind": "rectangular", "nx": 3, "ny": 3, "cell": [30, 30]}
    view = {"name": "cells", "layers": [{**plane, "thickness": 25, "count": LAYERS}]}
    sample = Sample.model_validate(
        {
            "schema": 1,
            "name": "stack",
            "title": "Stack",
            "detector": "stack",
            "species": "gamma",
            "source": "tests",
            "unweighted": True,
            "exclude": {"energy": [[TOP, 1e6]]},
            "conditions": [
                {"name": "energy", "unit": "MeV", "range": [1e2, 1e6]},
                {"name": "theta", "unit": "rad", "range": [0, 1]},
                {"name": "phi", "unit": "rad", "range": [0, 7]},
                {"name": "x0", "unit": "mm", "range": [-99, 99]},
                {"name": "y0", "unit": "mm", "range": [-99, 99]},
                {"name": "species", "categories": [11, 22]},
            ],
            "cells": {
                "unit": "MeV",
                "incident": "energy",
                "arrays": {"cells": "cells"},
                "geometry": {"name": "stack", "views": [view]},
            },
        }
    )
    return build_dataset(sample, path, seed=2)


@pytest.fixture(scope="module")
def hybrid(dataset: Dataset) -> HybridModel:
    small = {"energy_width": 8, "width": 8, "energy_couplings": 2, "couplings": 2}
    setup = set_up(dataset, parse_settings("shower_flow", small), seed=1)
    found = refine(Training(setup).model(), dataset, extend=True, progress=False)
    assert isinstance(found, HybridModel)
    return found


def noise(model: Any, n: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    return rng.normal(size=(n, model.card.n_noise)).astype(np.float32)


def test_trained_energies_stay_as_they_are(hybrid: HybridModel) -> None:
    low, high = hybrid.energies
    assert low >= 1e3
    assert high < TOP
    x, _ = as_rows(200, 5)
    z = noise(hybrid, len(x))
    inside = (x[:, 0] >= low) & (x[:, 0] <= high)
    both = [m.generate(x, z) for m in (hybrid, hybrid.base)]
    np.testing.assert_array_equal(both[0][inside], both[1][inside])
    assert (both[0][~inside] != both[1][~inside]).any(axis=1).all()


@dataclasses.dataclass(frozen=True)
class RealAtTheEdge:
    """A model that makes real showers of the largest trained energy."""

    card: Any
    cells: np.ndarray

    def evaluate(self, conditions: Any, noise: Any) -> Any:
        return self.cells[: len(conditions)]


def depth_and_response(cells: np.ndarray, energy: Any) -> tuple[float, float]:
    layers = cells.reshape(len(cells), LAYERS, -1).sum(axis=2)
    total = layers.sum(axis=1)
    depth = (layers * np.arange(LAYERS)).sum(axis=1) / total
    return float(depth.mean()), float((total / energy).mean())


def test_real_showers_are_taken_to_a_larger_energy(hybrid: HybridModel) -> None:
    conditions, cells = as_rows(8000, 7)
    _, high = hybrid.energies
    near = np.abs(np.log(conditions[:, 0] / high)) < 0.1
    far = conditions[:, 0] > 0.8e5
    n = min(near.sum(), far.sum())
    base = RealAtTheEdge(hybrid.card, cells[near][:n])
    moved = dataclasses.replace(hybrid, base=base)  # type: ignore[arg-type]
    x = conditions[far][:n]
    made = moved.evaluate(x, None)
    before, wanted, found = (
        depth_and_response(*pair)
        for pair in (
            (cells[near][:n], conditions[near, 0][:n]),
            (cells[far][:n], x[:, 0]),
            (made, x[:, 0]),
        )
    )
    assert wanted[0] - before[0] > 0.2
    assert found[0] == pytest.approx(wanted[0], abs=0.25 * (wanted[0] - before[0]))
    assert abs(found[1] - wanted[1]) < abs(before[1] - wanted[1])


def test_it_is_a_bundle(hybrid: HybridModel, tmp_path: Path) -> None:
    path = export_bundle(hybrid, tmp_path / "hybrid.onnx", progress=False)
    assert check_parity(hybrid, open_bundle(path), rows=500).differing == 0


def test_what_cannot_be_extended_is_refused(
    dataset: Dataset, hybrid: HybridModel
) -> None:
    with pytest.raises(ValueError, match="extend or ratio_steps"):
        refine(hybrid.base, dataset, extend=True, ratio_steps=5)
    fitted = fit_parametrisation(dataset, "pca")
    with pytest.raises(TrainingError, match="cannot be extended"):
        refine(fitted, dataset, extend=True)
