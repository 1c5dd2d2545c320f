"""A last step for showers: a network that mends the spectrum of the cells.

Whatever made the showers, a family or a parametrisation, its cells are moved by
`pidgan.training.networks.mended_cells`, which keeps the energies of the layers. It
learns from generated showers at the conditions of the training part, and is judged on
those of the validation part, where there are none on the last tenth of the training
part.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.card import Card, card_rows
from pidgan.bundle.formulas import Array
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.notebook import Facts, shown
from pidgan.sample.dataset import Dataset, Part
from pidgan.training.averages import BLOCKS
from pidgan.training.backend import tf
from pidgan.training.blocks import in_blocks
from pidgan.training.classical.fit import Parametrised
from pidgan.training.conditions import ConditionTransform
from pidgan.training.model import Model
from pidgan.training.networks.fitting import fit_best
from pidgan.training.networks.mended_cells import MendedCells
from pidgan.training.setup import fit_sample_conditions

LEARNING_RATE = 5e-3
AVERAGE = 0.99
# Numbers of cells of a step, of all showers that are learnt from, and of a block.
STEP_CELLS, MOST_CELLS, BLOCK_CELLS = 2**17, 2**25, 2**20
LEAST_SHOWERS, MOST_SHOWERS = 8, 256
# Share of the cells with energy that lie below E_0.
NEXT_TO_NOTHING = 1e-3


@shown
@dataclasses.dataclass(frozen=True, kw_only=True)
class MendedModel:
    """Showers of another model, with the energies of their cells mended.

    Attributes:
        card: Card of the mended generator.
        base: Model that makes the showers.
        conditions: Scaling of the conditions that the network sees.
        cells: Network that moves the cells.
        losses: Distances of the spectra on held-out showers, first without mending.
    """

    card: Card
    base: Model | Parametrised
    conditions: ConditionTransform
    cells: MendedCells
    losses: list[float]

    @checked
    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Return cells (n, n_cells) float32, see `Model.generate`."""
        size = max(1, BLOCK_CELLS // len(self.card.targets))
        return in_blocks(self.evaluate, conditions, noise, card=self.card, size=size)

    def evaluate(self, conditions: Array, noise: Array) -> Array:
        """Return cells (n, n_cells) in physical units, as a formula."""
        made = f.turn(as_rows(self.base.evaluate(conditions, noise)))
        x = f.turn(as_rows(self.conditions.forward(conditions)))
        return f.turn(self.cells.mend(made, x, self.cells.numbers()))

    def reference(self) -> pd.DataFrame:
        """Return rows never trained on: conditions, targets and "weight"."""
        return self.base.reference()

    def _facts(self) -> Facts:
        return Facts(
            f"{self.card.species} of {self.card.sample.name}: cells mended",
            card_rows(self.card),
        )


def as_rows(value: Array) -> Array:
    """Return a value that keras may have made as an array, or as it is."""
    return value.numpy() if tf.is_tensor(value) else value


def mend(
    model: Model | Parametrised,
    dataset: Dataset,
    *,
    steps: int,
    seed: int,
    show: Callable[[int, FloatArray], None] | None,
) -> MendedModel:
    """Fit the network that mends the cells of a model of showers."""
    sample = model.card.sample
    assert sample.cells is not None
    train = dataset.part("train")
    conditions = (
        model.conditions
        if isinstance(model, Model)
        else fit_sample_conditions(sample, train)
    )
    held_out = dataset.part("validation")
    if len(held_out.weights) < BLOCKS:
        n = len(train.weights) - max(BLOCKS, len(train.weights) // 10)
        train, held_out = _rows(train, slice(0, n)), _rows(train, slice(n, None))
    positive = train.targets[train.targets > 0]
    network = MendedCells(
        sample.cells.layout,
        n_conditions=conditions.n_columns,
        least=float(np.quantile(positive, NEXT_TO_NOTHING)) if len(positive) else 1.0,
        threshold=float(sample.cells.threshold),
        seed=seed,
    )
    size = min(
        max(STEP_CELLS // len(network.layer), LEAST_SHOWERS),
        MOST_SHOWERS,
        len(train.weights),
    )
    known, judging = (
        _samples(model, conditions, part, seed=seed + k)
        for k, part in enumerate((train, held_out))
    )
    n = known["made"].shape[0]

    def draw(step: Any) -> dict[str, Any]:
        """Return neighbours in energy: their spectra are alike."""
        numbers = tf.stack([tf.constant(seed % 2**31), step])
        start = tf.random.stateless_uniform(
            (), numbers, maxval=n - size + 1, dtype=tf.int32
        )
        return {name: v[start : start + size] for name, v in known.items()}

    losses = fit_best(
        network.variables,
        network.loss,
        draw=draw,
        held_out=[_block(judging, k) for k in range(BLOCKS)],
        steps=steps,
        learning_rate=LEARNING_RATE,
        average=AVERAGE,
        show=show,
    )
    settings = {**model.card.settings, "mending_steps": steps}
    return MendedModel(
        card=model.card.model_copy(update={"settings": settings}),
        base=model,
        conditions=conditions,
        cells=network,
        losses=losses,
    )


def _rows(part: Part, rows: Any) -> Part:
    return Part(**{name: value[rows] for name, value in vars(part).items()})


def _samples(
    model: Model | Parametrised,
    conditions: ConditionTransform,
    part: Part,
    *,
    seed: int,
) -> dict[str, Any]:
    """Return real showers in the order of their energy, and generated ones of these."""
    rng = np.random.default_rng(seed)
    n, most = len(part.weights), max(BLOCKS, MOST_CELLS // part.targets.shape[1])
    index = np.arange(n)
    if n > most or np.ptp(part.weights) > 0:
        share = np.maximum(part.weights, 0).astype(np.float64)
        index = rng.choice(n, min(n, most), p=share / share.sum())
    cells = model.card.sample.cells
    names = model.card.sample.condition_names
    energy = (
        part.targets.sum(axis=1)
        if cells is None or cells.incident is None
        else part.conditions[:, names.index(cells.incident)]
    )
    index = index[np.argsort(energy[index], kind="stable")]
    rows = part.conditions[index]
    keys = entry_keys(seed=seed, track="mend", start=0, stop=len(rows))
    made = []
    step = max(1, BLOCK_CELLS // part.targets.shape[1])
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        noise = keyed_normal(keys[some], n_noise=model.card.n_noise)
        made.append(model.generate(rows[some], noise))
    x = as_rows(conditions.forward(rows))
    found = {"x": x, "real": part.targets[index], "made": np.concatenate(made)}
    return {name: tf.constant(v, tf.float32) for name, v in found.items()}


def _block(rows: dict[str, Any], k: int) -> dict[str, Any]:
    """Return one in `BLOCKS` of the showers: neighbours in energy."""
    n = rows["x"].shape[0]
    some = slice(k * n // BLOCKS, (k + 1) * n // BLOCKS)
    return {name: values[some] for name, values in rows.items()}
