"""Refine a generator with a ratio: what it makes too often, it makes less often.

The ratio r of the densities of real and generated rows is found from weights of either
sign (`pidgan.training.networks.density_ratio`). The refined generator makes some
candidates y_1 ... y_K at the same conditions and takes one of them, y_k with
probability r(x, y_k) / sum_j r(x, y_j) (sampling-importance resampling, Rubin, J. Am.
Stat. Assoc. 82 (1987) 543): for large K its rows have the density p_generated r =
p_real. Unlike weights, its rows all count alike, and unlike accept-reject it takes the
same time for every row. It becomes a bundle like any other, K times slower.

Which to use when: where a validation shows a difference that more training does not
remove, and generation is not what takes the time.

Showers have too many numbers for a ratio. A network mends the energies of their cells
instead (`pidgan.training.mending`), for little more time, or a parametrisation takes
them to other energies (`pidgan.training.hybrid`).
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.card import Card, card_rows
from pidgan.bundle.formulas import Array
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.errors import TrainingError
from pidgan.notebook import Facts, count, shown
from pidgan.progress import training_progress
from pidgan.sample.dataset import Dataset, Part
from pidgan.sample.sampling import in_memory
from pidgan.sample.weights import positive_weights, with_differences
from pidgan.training import hybrid
from pidgan.training.averages import error_of
from pidgan.training.blocks import BLOCK_ROWS, in_blocks
from pidgan.training.chain import Chain
from pidgan.training.classical.fit import Parametrised
from pidgan.training.corrector import Corrector
from pidgan.training.feed import WHOLE_ROWS
from pidgan.training.hybrid import HybridModel
from pidgan.training.mending import MendedModel, mend
from pidgan.training.model import Model, open_model
from pidgan.training.networks.density_ratio import RatioNetwork, Rows, log_ratio
from pidgan.training.networks.evaluation import evaluate
from pidgan.training.patterns import pick_pattern
from pidgan.training.record import Progress

DEFAULT_CANDIDATES = 8
DEFAULT_STEPS = 1000
BATCH_SIZE = 1024
# Generated rows for each real one, to learn from.
DRAWS = 4


@shown
@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedModel:
    """A model that chooses among candidates of another one.

    Attributes:
        card: Card of the refined generator.
        base: Model that makes the candidates.
        ratio: Keras network from (conditions, pattern, coordinates) to what
            `log_ratio` makes log r of.
        candidates: Number of candidates for each row.
        losses: Losses of the ratio on held-out rows, 0 before training. The least one
            with the other sign is what was gained.
    """

    card: Card
    base: Model
    ratio: Any
    candidates: int
    losses: list[float]

    @checked
    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Return targets (n, n_targets) float32 in package units, see `Model.generate`.

        The noise is that of each candidate, then one number for the choice.
        """
        return in_blocks(self.evaluate, conditions, noise, card=self.card)

    def evaluate(self, conditions: Array, noise: Array) -> Array:
        """Return targets (n, n_targets) in physical units, as a formula."""
        base, n = self.base, self.base.card.n_noise
        x = base.conditions.forward(conditions)
        numbers = range(self.candidates)
        made = [base.draw(x, f.columns(noise, k * n, (k + 1) * n)) for k in numbers]
        log_r = f.concatenate([self._log_ratio(x, y, codes) for y, codes in made])
        last = self.candidates * n
        chosen = pick_pattern(log_r, f.columns(noise, last, last + 1))
        y, codes = made[0]
        for k in numbers[1:]:
            is_chosen = f.greater(f.columns(chosen, k, k + 1), 0.5)
            y = f.where(is_chosen, made[k][0], y)
            codes = None if codes is None else f.where(is_chosen, made[k][1], codes)
        return base.targets.inverse(y, codes, conditions)

    @checked
    def density_ratio(self, conditions: FloatArray, targets: FloatArray) -> FloatArray:
        """Return r = p_real / p_generated of the base model's rows (n,), as weights.

        Conditions and targets are in package units; r is 1 for a row with a combination
        of atoms that has no pattern.
        """
        pattern, y = self.base.track_targets.forward(targets, conditions=conditions)
        x = self.base.conditions.forward(conditions)
        codes = _one_hot(self.base, np.maximum(pattern, 0))
        log_r = self._log_ratio(x, y, codes)[:, 0]
        return np.asarray(np.where(pattern >= 0, np.exp(log_r), 1.0))

    def reference(self) -> pd.DataFrame:
        """Return rows never trained on: conditions, targets and "weight"."""
        return self.base.reference()

    def _log_ratio(self, x: Array, y: Array, codes: Array | None) -> Array:
        """Return log r, (n, 1)."""
        inputs = {"conditions": x, "targets": y}
        if codes is not None:
            inputs["targets"] = y * f.matmul(codes, self.base.targets.free)
            inputs["pattern"] = codes
        return log_ratio(evaluate(self.ratio, inputs))

    def _facts(self) -> Facts:
        return Facts(
            f"{self.card.species} of {self.card.sample.name}: the best of "
            f"{count(self.candidates, 'candidates')}",
            card_rows(self.card),
        )


@checked
def refine(
    model: Model | Parametrised | Chain | str | Path,
    dataset: Dataset | str | Path,
    *,
    candidates: int | None = None,
    ratio_steps: int | None = None,
    extend: bool = False,
    seed: int = 1,
    progress: Callable[[Progress], None] | bool | None = True,
) -> RefinedModel | MendedModel | HybridModel:
    """Find the ratio of real and generated densities, and refine a model with it.

    sWeights enter as they are. The training part teaches, the validation part chooses
    among the weights of the network, where there are none is no gain. Of showers, the
    network mends the energies of the cells; those of the layers stay.

    Args:
        model: Model from `train`, or its folder; of showers also a parametrisation from
            `fit_parametrisation`.
        dataset: Dataset that it was trained on, or its folder.
        candidates: K, 8 by default; showers have no candidates.
        ratio_steps: Number of updates of the network, 1000 by default.
        extend: Whether a parametrisation, fitted to the same showers, takes generated
            ones to energies beyond those of the training part. Nothing else changes,
            and there is no network.
        seed: of the network and of the generated rows.
        progress: Whether a bar, or lines of a log, are shown; or a function that is
            called now and then with the progress of the network.

    Returns:
        The refined model, for `export_bundle` and `validate`.

    Raises:
        TrainingError: the model is of another dataset, or a chain, or makes showers and
            `candidates` are given, or is `extended` and no trained model of showers.

    Example:
        >>> refined = refine(model, dataset, candidates=8)        # doctest: +SKIP
        >>> export_bundle(refined, "kaon-refined.onnx")           # doctest: +SKIP
    """
    base, dataset = _to_refine(model), Dataset.open(dataset)
    dataset = in_memory(dataset, WHOLE_ROWS, seed=seed, what="a refinement")
    if base.card.dataset.get("hash") != dataset.info.get("hash"):
        raise TrainingError(
            f"the model was trained on dataset {base.card.dataset.get('hash')}, "
            f"expected the given one, {dataset.info.get('hash')}: rows that it is "
            "judged by must be new to the classifier"
        )
    is_shower = base.card.sample.cells is not None
    if is_shower and candidates is not None:
        raise TrainingError(
            f"{base.card.sample.name!r} has cells, mended without candidates, "
            f"got {candidates} of them"
        )
    if extend:
        given = {"candidates": candidates, "ratio_steps": ratio_steps}
        for name in (name for name, value in given.items() if value is not None):
            raise ValueError(f"give extend or {name}, not both")
        return hybrid.extend(base, dataset, seed=seed)
    ratio_steps = DEFAULT_STEPS if ratio_steps is None else ratio_steps
    with training_progress(progress) as told:
        show = told and _shown(told, "cells" if is_shower else "ratio", ratio_steps)
        if is_shower:
            return mend(base, dataset, steps=ratio_steps, seed=seed, show=show)
        assert isinstance(base, Model)
        chosen: dict[str, Any] = {"steps": ratio_steps, "seed": seed, "show": show}
        number = DEFAULT_CANDIDATES if candidates is None else candidates
        return _refine_tracks(base, dataset, candidates=number, **chosen)


def _to_refine(model: Any) -> Model | Parametrised:
    """Return the model that is refined, one that makes all its targets at once."""
    if isinstance(model, Parametrised):
        return model
    opened = open_model(model)
    if isinstance(opened, Corrector):
        raise TrainingError(
            f"{opened.card.sample.name!r} is a corrector, which cannot be refined; "
            "expected a generator"
        )
    if isinstance(opened, Chain):
        raise TrainingError(
            f"{opened.card.sample.name!r} is a chain, which cannot be refined; "
            "expected a model of one link"
        )
    return opened


def _shown(
    told: Callable[[Progress], None], name: str, steps: int
) -> Callable[[int, FloatArray], None]:
    """Return what tells of a step and of held-out losses in blocks."""
    began = time.perf_counter()

    def show(step: int, losses: FloatArray) -> None:
        seconds = (time.perf_counter() - began) / step
        now = Progress(
            step=step,
            steps=steps,
            phase=name,
            losses={},
            seconds_left=seconds * (steps - step),
            held_out={name: (float(losses.mean()), error_of(losses))},
        )
        told(now)

    return show


def _refine_tracks(
    model: Model,
    dataset: Dataset,
    *,
    candidates: int,
    steps: int,
    seed: int,
    show: Callable[[int, FloatArray], None] | None,
) -> RefinedModel:
    n_conditions, targets = model.conditions.n_columns, model.track_targets
    shape = targets.shape(model.card.sample, n_conditions=n_conditions)
    network = RatioNetwork(shape=shape, seed=seed)
    parts = dataset.part("train"), dataset.part("validation")
    known, held_out = (_samples(model, part, seed=seed) for part in parts)
    losses = network.fit(
        known, held_out=held_out, steps=steps, batch_size=BATCH_SIZE, show=show
    )
    settings = {**model.card.settings, "candidates": candidates}
    n_noise = candidates * model.card.n_noise + 1
    card = model.card.model_copy(update={"n_noise": n_noise, "settings": settings})
    chosen = {"ratio": network.network, "candidates": candidates, "losses": losses}
    return RefinedModel(card=card, base=model, **chosen)


def _samples(model: Model, part: Part, *, seed: int) -> Rows:
    """Return real rows of a part, each with generated ones at its conditions."""
    pattern, y = model.track_targets.forward(part.targets, conditions=part.conditions)
    fits = pattern >= 0
    conditions, n = part.conditions[fits], np.count_nonzero(fits)
    features = with_differences(conditions, part.targets[fits])
    x = model.conditions.forward(conditions)
    real = _rows(model, y[fits], _one_hot(model, pattern[fits]))
    repeated = np.repeat(x, DRAWS, axis=0)
    keys = entry_keys(seed=seed, track="refine", start=0, stop=len(repeated))
    noise = keyed_normal(keys, n_noise=model.card.n_noise)
    parts = []
    for start in range(0, len(repeated), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        parts.append(_rows(model, *model.draw(repeated[rows], noise[rows])))
    made = {name: np.concatenate([part[name] for part in parts]) for name in real}
    return {
        "x": x,
        **real,
        "w": part.weights[fits],
        "v": positive_weights(features, part.weights[fits], seed),
        **{f"g_{k}": v.reshape(n, DRAWS, v.shape[1]) for k, v in made.items()},
    }


def _one_hot(model: Model, pattern: IntArray) -> FloatArray | None:
    """Return the code of each row's pattern; None where there is one pattern."""
    n = model.targets.n_patterns
    return np.eye(n, dtype=np.float32)[pattern] if n > 1 else None


def _rows(model: Model, y: Array, codes: Array | None) -> Rows:
    """Return rows as networks see them; coordinates on atoms are zero."""
    if codes is None:
        return {"pattern": y[:, :0], "y": y}
    return {"pattern": codes, "y": y * f.matmul(codes, model.targets.free)}
