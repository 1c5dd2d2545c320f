"""Classical parametrisations of showers, in place of a trained model.

`fit_parametrisation` tunes one to the train part of a dataset. What it returns is
exported, opened, judged and applied as any generator: the baseline that a learnt one
has to beat. Which to use: `gflash` (`pidgan.training.classical.gflash`) has few
parameters and needs few showers; `pca`
(`pidgan.training.classical.principal_components`) follows a sample more closely.
"""

import dataclasses
import importlib.metadata
from typing import Any, Literal

import numpy as np
import pandas as pd

from pidgan.arrays import FloatArray
from pidgan.bundle.card import Card, describe_variables
from pidgan.bundle.formulas import trace
from pidgan.errors import TrainingError
from pidgan.sample.dataset import Dataset
from pidgan.training.classical.gflash import GFlash
from pidgan.training.classical.gflash_fit import fit_gflash
from pidgan.training.classical.principal_components import PCA
from pidgan.training.classical.principal_components_fit import fit_pca

BLOCK_ROWS = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parametrised:
    """A parametrisation tuned to a dataset.

    Attributes:
        card: what it is and what it was tuned to.
        formula: the parametrisation, a function of conditions and noise.
        held_out: rows it was not tuned to: conditions, targets and "weight".
    """

    card: Card
    formula: GFlash | PCA
    held_out: pd.DataFrame

    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Generate cells for given conditions and noise.

        Args:
            conditions: (n, n_conditions), package units.
            noise: (n, n_noise), standard normal.

        Returns:
            (n, n_cells) float32, energies; NaN where a condition is not finite.
        """
        cells = np.full((len(conditions), len(self.card.targets)), np.nan, np.float32)
        finite = np.flatnonzero(np.isfinite(conditions).all(axis=1))
        for start in range(0, len(finite), BLOCK_ROWS):
            rows = finite[start : start + BLOCK_ROWS]
            x, z = (v[rows].astype(np.float64) for v in (conditions, noise))
            made = np.asarray(self.formula.sample(x, z), dtype=np.float32)
            cells[rows] = np.where(made >= self._threshold, made, 0)
        return cells

    def reference(self) -> pd.DataFrame:
        """Return rows it was not tuned to: conditions, targets and "weight"."""
        return self.held_out

    def write_onnx(self, graph: Any, inputs: dict[str, str]) -> str:
        """Append the operators of `generate` to a graph and return the output."""
        made = trace(self.formula, graph, len(self.card.conditions)).name
        kept = graph.add("GreaterOrEqual", made, graph.constant(self._threshold))
        name: str = graph.add("Where", kept, made, graph.constant(0.0))
        return name

    @property
    def _threshold(self) -> np.float32:
        cells = self.card.sample.cells
        return np.float32(cells.threshold if cells else 0)


def fit_parametrisation(
    dataset: Dataset, family: Literal["gflash", "pca"], *, seed: int = 1
) -> Parametrised:
    """Tune a parametrisation to the train part of a dataset of showers.

    Args:
        dataset: from `build_dataset`, with cells and an incident energy.
        family: which one.
        seed: of the choice of showers for the lateral fit.

    Raises:
        TrainingError: the dataset has no cells, or no incident energy.
        DatasetError: too few showers.
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
