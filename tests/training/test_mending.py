"""Mending: the spectrum of cells becomes the real one, layers keep their energy."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_showers import toy_showers

from pidgan.bundle import formulas as f
from pidgan.errors import TrainingError
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import open_bundle
from pidgan.training.classical.fit import fit_parametrisation
from pidgan.training.export import check_parity, export_bundle
from pidgan.training.mending import MendedModel
from pidgan.training.refinement import refine

N, LAYERS, CELLS = 300, 4, 9
THRESHOLD = 0.5
STEPS = 100


def definition() -> Sample:
    plane = {"kind": "rectangular", "nx": 3, "ny": 3, "cell": [30, 30]}
    view = {"name": "cells", "layers": [{**plane, "thickness": 50, "count": LAYERS}]}
    return Sample.model_validate(
        {
            "schema": 1,
            "name": "stack",
            "title": "Stack",
            "detector": "stack",
            "species": "gamma",
            "source": "tests",
            "unweighted": True,
            "conditions": [
                {"name": "energy", "unit": "MeV", "range": [1e2, 1e6]},
                {"name": "x0", "unit": "mm", "range": [-99, 99]},
            ],
            "cells": {
                "unit": "MeV",
                "incident": "energy",
                "arrays": {"cells": "cells"},
                "threshold": THRESHOLD,
                "geometry": {"name": "stack", "views": [view]},
            },
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: Any) -> Dataset:
    conditions, cells = toy_showers(N, seed=3)
    path = tmp_path_factory.mktemp("stack") / "stack.npz"
    cells = cells.reshape(N, LAYERS, 2, 3, 2, 3, 2).sum(axis=(2, 4, 6)).reshape(N, -1)
    cells = np.where(cells < THRESHOLD, 0, cells).astype(np.float32)
    np.savez(path, energy=conditions[:, 0], x0=conditions[:, 3], cells=cells)
    return build_dataset(definition(), path, seed=2)


@dataclasses.dataclass(frozen=True)
class Steep:
    """A parametrisation in whose layers large cells take too much."""

    formula: Any

    @property
    def n_noise(self) -> int:
        return int(self.formula.n_noise)

    def sample(self, conditions: Any, noise: Any) -> Any:
        cells = f.maximum(self.formula.sample(conditions, noise), 0.0)
        square = cells * cells
        member = np.repeat(np.eye(LAYERS), CELLS, axis=0)
        layer, square_layer = f.matmul(cells, member), f.matmul(square, member)
        return square * f.matmul(layer / (square_layer + 1e-9), member.T)


@pytest.fixture(scope="module")
def mended(dataset: Dataset) -> MendedModel:
    base = fit_parametrisation(dataset, "pca", seed=1)
    base = dataclasses.replace(base, formula=Steep(base.formula))  # type: ignore[arg-type]
    found = refine(base, dataset, ratio_steps=STEPS, progress=False)
    assert isinstance(found, MendedModel)
    return found


def noise(model: Any, n: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    return rng.normal(size=(n, model.card.n_noise)).astype(np.float32)


def distance(one: np.ndarray, two: np.ndarray) -> float:
    """Return the mean distance of the sorted logarithms of cells."""
    levels = [np.sort(np.log1p(v.ravel() / THRESHOLD)) for v in (one, two)]
    return float(np.abs(levels[0] - levels[1]).mean())


def test_the_spectrum_is_mended_and_the_energy_of_each_layer_stays(
    dataset: Dataset, mended: MendedModel
) -> None:
    part = dataset.part("test")
    z = noise(mended, len(part.weights))
    before, after = (m.generate(part.conditions, z) for m in (mended.base, mended))
    assert distance(after, part.targets) < 0.5 * distance(before, part.targets)
    layers = [v.reshape(-1, LAYERS, CELLS).sum(axis=2) for v in (before, after)]
    np.testing.assert_allclose(*layers, rtol=1e-5)
    assert (after[before == 0] == 0).all()
    assert ((after == 0) | (after >= THRESHOLD * (1 - 1e-6))).all()
    assert min(mended.losses) < mended.losses[0]


def test_nothing_moves_without_training(dataset: Dataset, mended: MendedModel) -> None:
    part = dataset.part("test")
    untouched = refine(mended.base, dataset, ratio_steps=1, progress=False)
    for variable in untouched.cells.variables[-2:]:
        variable.assign(np.zeros(variable.shape))
    z = noise(mended, len(part.weights))
    before, after = (m.generate(part.conditions, z) for m in (mended.base, untouched))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def test_it_is_a_bundle(mended: MendedModel, tmp_path: Path) -> None:
    path = export_bundle(mended, tmp_path / "mended.onnx", progress=False)
    found = check_parity(mended, open_bundle(path), rows=200)
    assert found.differing == 0
    assert open_bundle(path).card.settings["mending_steps"] == STEPS


def test_candidates_are_refused(dataset: Dataset, mended: MendedModel) -> None:
    with pytest.raises(TrainingError, match="without candidates"):
        refine(mended.base, dataset, candidates=4)
