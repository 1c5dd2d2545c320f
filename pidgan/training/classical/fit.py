"""Classical parametrisations of showers, in place of a trained model: the baseline.

`gflash` has few parameters and needs few showers; `pca` follows a sample more closely.
"""

import dataclasses
import importlib.metadata
from typing import Literal

import numpy as np
import pandas as pd

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.card import Card, describe_variables
from pidgan.bundle.formulas import Array
from pidgan.errors import TrainingError
from pidgan.sample.dataset import Dataset
from pidgan.training.blocks import in_blocks
from pidgan.training.classical.gflash import GFlash
from pidgan.training.classical.gflash_fit import fit_gflash
from pidgan.training.classical.principal_components import PCA
from pidgan.training.classical.principal_components_fit import fit_pca

BLOCK_ROWS = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parametrised:
    """A parametrisation tuned to a dataset; `held_out` are rows outside the fit."""

    card: Card
    formula: GFlash | PCA
    held_out: pd.DataFrame

    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Return energies (n, n_cells) float32, NaN where a condition is not finite."""
        return in_blocks(
            self.evaluate, conditions, noise, card=self.card, size=BLOCK_ROWS
        )

    def evaluate(self, conditions: Array, noise: Array) -> Array:
        """Return energies (n, n_cells) by formulas in double precision.

        Energies near zero are differences, in which single precision is visible.
        """
        x, z = (f.with_precision(v, double=True) for v in (conditions, noise))
        made = f.with_precision(self.formula.sample(x, z), double=False)
        cells = self.card.sample.cells
        threshold = np.float32(cells.threshold if cells else 0)
        return f.where(f.at_least(made, threshold), made, 0.0)

    def reference(self) -> pd.DataFrame:
        """Return rows outside the fit: conditions, targets and "weight"."""
        return self.held_out


def fit_parametrisation(
    dataset: Dataset, family: Literal["gflash", "pca"], *, seed: int = 1
) -> Parametrised:
    """Tune a parametrisation to the train part of a dataset of showers.

    A TrainingError says that cells or an incident energy are missing, a DatasetError
    that there are too few showers.
    """
    sample, cells = dataset.sample, dataset.sample.cells
    if cells is None or cells.incident is None:
        raise TrainingError(
            f"dataset {sample.name!r} has no cells with an incident energy, which "
            f"family {family!r} needs"
        )
    names = [
        "energy" if name == cells.incident else name for name in sample.condition_names
    ]
    part = dataset.part("train")
    fit = fit_gflash if family == "gflash" else fit_pca
    formula: GFlash | PCA = fit(
        part.targets, part.conditions, cells.layout, names=names, seed=seed
    )
    card = Card(
        detector=sample.detector,
        species=sample.species,
        conditions=describe_variables(sample.conditions, dataset.conditions),
        targets=describe_variables(sample.targets, dataset.targets),
        n_noise=formula.n_noise,
        sample=sample,
        dataset=dict(dataset.info),
        family=family,
        seed=seed,
        steps=0,
        versions={
            name: importlib.metadata.version(name) for name in ("pidgan", "numpy")
        },
    )
    return Parametrised(card=card, formula=formula, held_out=dataset.frame("test"))
