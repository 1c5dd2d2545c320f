"""Refine a generator with a classifier: what it makes too often, it makes less often.

A classifier of real against generated rows gives the ratio r of their densities
(`pidgan.training.networks.density_ratio`). The refined generator makes some candidates
y_1 ... y_K at the same conditions and takes one of them, y_k with probability r(x, y_k)
/ sum_j r(x, y_j) (sampling-importance resampling, Rubin, J. Am. Stat. Assoc. 82 (1987)
543): for large K its rows have the density p_generated r = p_real. Unlike weights, its
rows all count alike, and unlike accept-reject it takes the same time for every row. It
becomes a bundle like any other, K times slower.

Which to use when: where a validation shows a difference that more training does not
remove, and generation is not what takes the time.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arrays import FloatArray
from pidgan.bundle.card import Card
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.errors import TrainingError
from pidgan.sample.dataset import Dataset, Part
from pidgan.sample.weights import positive_weights, with_differences
from pidgan.training.model import Model, pick_pattern
from pidgan.training.networks.density_ratio import RatioNetwork, Rows

DEFAULT_CANDIDATES = 8
DEFAULT_STEPS = 2000
BATCH_SIZE = 1024
# Generated rows for each real one, to learn from.
DRAWS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedModel:
    """A model that chooses among candidates of another one.

    Attributes:
        card: of the refined generator.
        base: what makes the candidates.
        ratio: keras network from (conditions, pattern, coordinates) to log r.
        candidates: how many there are for each row.
        losses: of the classifier on held-out rows, the first before training; 2 log 2
            where nothing can be told apart.
    """

    card: Card
    base: Model
    ratio: Any
    candidates: int
    losses: list[float]

    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Generate targets for given conditions and noise.

        Args:
            conditions: (n, n_conditions), package units, finite.
            noise: (n, n_noise), standard normal: that of each candidate, then one
                number for the choice.

        Returns:
            (n, n_targets) float32, physical values.
        """
        n = self.base.card.n_noise
        made = [
            self.base.coordinates(conditions, noise[:, k * n : (k + 1) * n])
            for k in range(self.candidates)
        ]
        log_r = [self._log_ratio(conditions, *candidate) for candidate in made]
        chosen = pick_pattern(np.stack(log_r, axis=1), noise[:, -1])
        row = np.arange(len(chosen))
        pattern = np.stack([p for p, _ in made])[chosen, row]
        y = np.stack([y for _, y in made])[chosen, row]
        targets = self.base.track_targets
        codes = np.eye(targets.n_patterns, dtype=np.float32)[pattern]
        return targets.inverse(y, codes)

    def density_ratio(self, conditions: FloatArray, targets: FloatArray) -> FloatArray:
        """Return r = p_real / p_generated of the base model's rows, as weights.

        Args:
            conditions: (n, n_conditions), package units.
            targets: (n, n_targets), physical values.

        Returns:
            (n,), positive; 1 for a row with a combination of atoms that has no pattern.
        """
        pattern, y = self.base.track_targets.forward(targets)
        log_r = self._log_ratio(conditions, np.maximum(pattern, 0), y)
        return np.asarray(np.where(pattern >= 0, np.exp(log_r), 1.0))

    def reference(self) -> pd.DataFrame:
        """Return rows never trained on: conditions, targets and "weight"."""
        return self.base.reference()

    def _log_ratio(
        self, conditions: FloatArray, pattern: Any, y: FloatArray
    ) -> FloatArray:
        rows = _rows(self.base, conditions, pattern, y)
        inputs = {"conditions": rows["x"], "targets": rows["y"]}
        if rows["pattern"].shape[1]:
            inputs["pattern"] = rows["pattern"]
        return np.asarray(self.ratio(inputs))[:, 0]


def refine(
    model: Model,
    dataset: Dataset,
    *,
    candidates: int = DEFAULT_CANDIDATES,
    steps: int = DEFAULT_STEPS,
    seed: int = 1,
) -> RefinedModel:
    """Train a classifier of real against generated rows, and refine a model with it.

    Real rows have the weights E[w | x, y] >= 0 (arXiv:1905.11719), generated ones those
    of the real row whose conditions they have. The training part teaches, the
    validation part chooses among the weights of the classifier.

    Args:
        model: from `train`.
        dataset: the one it was trained on.
        candidates: K.
        steps: number of updates of the classifier.
        seed: of the classifier and of the generated rows.

    Returns:
        The refined model, for `export_bundle` and `validate`.

    Raises:
        TrainingError: the model is of another dataset.
    """
    if candidates < 2 or steps < 1:
        raise ValueError(
            f"candidates is {candidates} and steps {steps}, expected at least 2 and 1"
        )
    if model.card.dataset.get("hash") != dataset.info.get("hash"):
        raise TrainingError(
            f"the model was trained on dataset {model.card.dataset.get('hash')}, "
            f"expected the given one, {dataset.info.get('hash')}: rows that it is "
            "judged by must be new to the classifier"
        )
    network = RatioNetwork(
        shape=model.track_targets.shape(
            model.card.sample, n_conditions=model.conditions.n_columns
        ),
        seed=seed,
    )
    pairs = [
        _samples(model, dataset.part(name), seed=seed)
        for name in ("train", "validation")
    ]
    losses = network.fit(
        *pairs[0], held_out=pairs[1], steps=steps, batch_size=BATCH_SIZE
    )
    card = model.card.model_copy(
        update={
            "n_noise": candidates * model.card.n_noise + 1,
            "settings": {**model.card.settings, "candidates": candidates},
        }
    )
    return RefinedModel(
        card=card,
        base=model,
        ratio=network.network,
        candidates=candidates,
        losses=losses,
    )


def _samples(model: Model, part: Part, *, seed: int) -> tuple[Rows, Rows]:
    """Return real rows of a part, and generated rows at their conditions."""
    pattern, y = model.track_targets.forward(part.targets)
    fits = pattern >= 0
    conditions = part.conditions[fits]
    features = with_differences(conditions, part.targets[fits])
    weights = positive_weights(features, part.weights[fits], seed)
    real = _rows(model, conditions, pattern[fits], y[fits]) | {"w": weights}
    repeated = np.tile(conditions, (DRAWS, 1))
    keys = entry_keys(seed=seed, track="refine", start=0, stop=len(repeated))
    noise = keyed_normal(keys, n_noise=model.card.n_noise)
    made = _rows(model, repeated, *model.coordinates(repeated, noise))
    return real, made | {"w": np.tile(weights, DRAWS)}


def _rows(model: Model, conditions: FloatArray, pattern: Any, y: FloatArray) -> Rows:
    """Return rows as networks see them; coordinates on atoms are zero."""
    n_patterns = model.track_targets.n_patterns
    one_hot = np.eye(n_patterns, dtype=np.float32)[pattern]
    return {
        "x": model.conditions.forward(conditions),
        "pattern": one_hot if n_patterns > 1 else one_hot[:, :0],
        "y": (y * model.track_targets.patterns[pattern]).astype(np.float32),
    }
