"""Rows of a dataset on the device, as networks see them, and batches of these rows.

A generator learns the targets *given* the conditions. The optimum of its losses does
not depend on how often a condition occurs: it stays the same if every weight is
multiplied by a function of the conditions. The precision that a training reaches does
depend on it. Rows are therefore drawn with a frequency in proportion to

    density(x)^(-FLATTENING), at most MOST_OFTEN times the mean.

A region with few tracks, where analyses need an efficiency too, is seen more often. The
density is that of the conditions as networks see them. It is found from the distance to
the k-th nearest row (Loftsgaarden and Quesenberry, Ann. Math. Statist. 36 (1965) 1049).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.spatial

from pidgan.arrays import FloatArray, IntArray
from pidgan.sample.dataset import Dataset, Part
from pidgan.sample.definition import Sample
from pidgan.sample.weights import (
    WeightRegression,
    positive_weights,
    with_differences,
)
from pidgan.training.backend import tf
from pidgan.training.conditions import ConditionTransform
from pidgan.training.feed import Feed
from pidgan.training.networks.draws import is_sliced, mine
from pidgan.training.targets import Targets

# Stream of the uniform numbers that smear conditions of whole numbers.
SMEAR = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows on the device.

    Arrays are scaled conditions "x", coordinates "y", weights "w" of mean 1, number of
    the "pattern"; "free" where the pattern does not say it; "positive_w", E[w | x, y]
    of mean 1, where a likelihood needs it.
    """

    arrays: dict[str, tf.Tensor]
    targets: Targets
    draws: "tf.Tensor | None" = None  # as often as drawn; None: all alike
    feed: Feed | None = None  # moves the arrays over more rows than they hold

    def batch(
        self, seed: tf.Tensor, size: int, *, whole: bool = False
    ) -> dict[str, Any]:
        """Draw rows with replacement; where processes share them, return the own ones.

        All are then in the entry "whole", if these are asked for.
        """
        n = (self.arrays["w"] if self.draws is None else self.draws).shape[0]
        index = tf.random.stateless_uniform((size,), seed, maxval=n, dtype=tf.int32)
        if self.draws is not None:
            index = tf.gather(self.draws, index)
        batch = self.take(mine(index))
        if whole and is_sliced():
            batch["whole"] = self.take(index)
        return batch

    def first(self, size: int) -> dict[str, Any]:
        """Return the first rows."""
        return self.take(tf.range(min(size, self.arrays["w"].shape[0])))

    def take(self, index: tf.Tensor) -> dict[str, Any]:
        """Return some rows, with one-hot codes of patterns if there are several."""
        batch = {key: tf.gather(value, index) for key, value in self.arrays.items()}
        if "free" not in batch:
            batch["free"] = tf.gather(tf.constant(self.targets.free), batch["pattern"])
        one_hot = tf.one_hot(batch["pattern"], self.targets.n_patterns)
        several = self.targets.n_patterns > 1
        batch["pattern"] = one_hot if several else one_hot[:, :0]
        return batch


def device_rows(
    part: Part,
    *,
    sample: Sample,
    conditions: ConditionTransform,
    targets: Targets,
    seed: int,
    positive: bool = False,
    flatter: bool = False,
) -> Rows:
    """Bring the rows of a part to the device; those that fit no pattern are left out.

    Where weights have both signs, "positive_w" is made if it is asked for; `flatter`
    draws rare rows more often where that makes sense.
    """
    regress = positive_weights if positive and targets.has_signed_weights else None
    made = host_rows(
        part,
        sample=sample,
        conditions=conditions,
        targets=targets,
        seed=seed,
        regress=regress and functools.partial(regress, seed=seed),
    )
    draws = None
    if flatter and targets.has_flatter_rows:
        own = made["x"][:, conditions.is_own]
        draws = tf.constant(flatter_draws(own, conditions.dimension))
    arrays = {name: tf.constant(values) for name, values in made.items()}
    return Rows(arrays=arrays, targets=targets, draws=draws)


def host_rows(
    part: Part,
    *,
    sample: Sample,
    conditions: ConditionTransform,
    targets: Targets,
    seed: int,
    regress: Callable[[FloatArray, FloatArray], FloatArray] | None = None,
    mean: float | None = None,
) -> dict[str, FloatArray]:
    """Return the arrays of rows, without those that fit no pattern.

    `regress` makes positive weights of features and weights. All weights are divided by
    `mean`, or by their own mean.
    """
    kept, found = targets.rows(part, seed=seed)
    weights = part.weights[kept]
    x = conditions.forward(_smeared(part.conditions[kept], sample, seed))
    arrays = {"x": x, "w": _scaled(weights, mean), **found}
    if regress is not None:
        features = with_differences(part.conditions[kept], part.targets[kept])
        arrays["positive_w"] = _scaled(regress(features, weights), mean)
    return arrays


def feed_rows(
    dataset: Dataset,
    fitted: Part,
    *,
    conditions: ConditionTransform,
    targets: Targets,
    seed: int,
    mean: float,
    positive: bool,
    flatter: bool,
) -> Rows:
    """Return rows that move over a training part which is larger than memory.

    Positive weights are learnt from the rows that are `fitted`; `mean` is that of all
    weights.
    """
    regress = None
    if positive and targets.has_signed_weights:
        features = with_differences(fitted.conditions, fitted.targets)
        regress = WeightRegression(features, fitted.weights, seed).of

    def make(part: Part, seed: int) -> dict[str, FloatArray]:
        own: Any = {"conditions": conditions, "targets": targets, "regress": regress}
        return host_rows(part, sample=dataset.sample, seed=seed, mean=mean, **own)

    def often(x: FloatArray) -> IntArray:
        return flatter_draws(x[:, conditions.is_own], conditions.dimension)

    feed = Feed(
        dataset,
        make,
        often if flatter and targets.has_flatter_rows else None,
        seed=seed,
    )
    return Rows(arrays=feed.arrays, targets=targets, draws=feed.draws, feed=feed)


def _scaled(weights: FloatArray, mean: float | None) -> FloatArray:
    scaled = weights / (weights.mean() if mean is None else mean)
    return np.asarray(scaled, dtype=np.float32)


def _smeared(conditions: FloatArray, sample: Sample, seed: int) -> FloatArray:
    smeared = [variable.smear for variable in sample.conditions]
    x = conditions.copy()
    rng = np.random.default_rng([seed, SMEAR])
    x[:, smeared] += rng.uniform(-0.5, 0.5, (len(x), sum(smeared)))
    return x


FLATTENING = 0.25
MOST_OFTEN = 10.0
# Number of rows from which the density is found; more would not improve it.
REFERENCE_ROWS = 20_000
NEIGHBOURS = 10
# Mean number of times that a row is in the list. Frequencies are rounded to it.
REPEATS = 8


def draw_frequencies(x: FloatArray, dimension: int) -> FloatArray:
    """Return how often each row is drawn (n,), mean 1, at conditions (n, c).

    All are 1 if most rows share their conditions with others, as the density then has
    no meaning. `dimension` is the number of continuous conditions.
    """
    rows = np.asarray(x, dtype=np.float64)
    known = rows[:: max(1, len(rows) // REFERENCE_ROWS)]
    neighbour = min(NEIGHBOURS, len(known))
    tree = scipy.spatial.cKDTree(known)
    distance = np.ravel(tree.query(rows, k=[neighbour], workers=-1)[0])
    middle = np.median(distance)
    if not middle > 0:
        return np.ones(len(rows))
    often = (distance / middle) ** (FLATTENING * dimension)
    often = np.minimum(often, MOST_OFTEN * often.mean())
    return np.asarray(often / often.mean())


def flatter_draws(x: FloatArray, dimension: int) -> IntArray:
    """Return row numbers (REPEATS n,), each as often as the row is to be drawn."""
    often = np.cumsum(draw_frequencies(x, dimension))
    n = REPEATS * len(often)
    places = (np.arange(n) + 0.5) / n * often[-1]
    return np.asarray(np.searchsorted(often, places), dtype=np.int32)
