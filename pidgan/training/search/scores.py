"""How well a generator describes rows, row by row: less is better.

- `likelihood`: -log p(y | x) of the coordinates that networks see, natural logarithms,
  with the probability of the pattern of atoms and ties. It sees everything, narrow
  structures and tails too. A flow knows its density. A one-pass generator makes one
  coordinate after the other, each a function y_j(z_j) of one more number of noise. Its
  density is that of this function, evaluated on a grid of noise and linear in between:

      p(y_j | x, y_<j) = sum over k with y_j in step k of phi(z) |dz / dy|_k.

  So it is the generator that is judged, not the flow that taught it. A small part
  `FLOOR` of a wide normal distribution keeps single rows from deciding.
- `energy`: the energy score, 2 E|y_g - y| - E|y_g - y_g'|, for every family. Without a
  constant that all generators share, its mean is the energy distance between generated
  and real conditional distributions (Gneiting and Raftery, JASA 102 (2007) 359).

Coordinates depend on the sample and on the kind of the family only, so that scores of
different settings can be compared. Weights of any sign are those of the sample.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.errors import PidganError
from pidgan.sample.dataset import Dataset, Part, PartName
from pidgan.sample.sampling import spread_rows
from pidgan.training.backend import tf
from pidgan.training.model import Model
from pidgan.training.networks.autoregressive import FlowGenerator
from pidgan.training.networks.per_coordinate import OnePassGenerator
from pidgan.training.networks.updates import draw, minus_distance, named_inputs
from pidgan.training.rows import Rows, device_rows

Metric = Literal["likelihood", "energy"]

HAVE_LIKELIHOOD = ("distilled", "cramer", "flow")
"""Families whose generator has a density."""

# Noise of the grid; beyond it the function goes on as a line.
GRID = np.linspace(-6.0, 6.0, 61, dtype=np.float32)
FLOOR, WIDE = 1e-3, 3.0
MOST_VALUES, LEAST_ROWS = 300_000, 1000  # targets of the rows that are judged
COPIES = 8  # generated samples of a row
BLOCK_ROWS = 128  # on a grid of noise these stay in the cache
# Seed of the rows and of the noise of all generators that are compared.
SEED = 20_251
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def choose_metric(metric: str | None, family: str) -> Metric:
    """Return the metric that is asked for, or the default one of a family."""
    if metric == "likelihood" and family not in HAVE_LIKELIHOOD:
        raise PidganError(
            f"the generator of family {family!r} has no likelihood, which those of "
            f"{', '.join(HAVE_LIKELIHOOD)} have; expected metric 'energy'"
        )
    if metric is None:
        return "likelihood" if family in HAVE_LIKELIHOOD else "energy"
    return "energy" if metric == "energy" else "likelihood"


def judged_rows(model: Model, part: Part) -> Rows:
    """Return the rows of a part as networks see them, the same for all settings."""
    return device_rows(
        part,
        sample=model.card.sample,
        conditions=model.conditions,
        targets=model.targets,
        seed=SEED,
    )


def judged_part(dataset: Dataset, name: PartName, most: int) -> Part:
    """Return at most so many rows of a part, spread over all of it.

    Of showers, whose rows are long, there are fewer.
    """
    values = dataset.targets.shape[1]
    return spread_rows(dataset, name, min(most, max(LEAST_ROWS, MOST_VALUES // values)))


def row_scores(model: Model, rows: Rows, metric: Metric) -> FloatArray:
    """Return the score of each row (n,)."""
    score = _likelihood if metric == "likelihood" else _energy
    n = rows.arrays["w"].shape[0]

    def block(first: Any) -> Any:
        return score(model, rows.take((tf.range(BLOCK_ROWS) + first) % n), first)

    if metric == "likelihood":  # generators of showers are no graphs of tensorflow
        block = tf.function(block, autograph=False)
    found = [np.asarray(block(tf.constant(i))) for i in range(0, n, BLOCK_ROWS)]
    return np.concatenate(found)[:n].astype(np.float64)


def row_weights(rows: Rows) -> FloatArray:
    """Return the weight of each row (n,), of either sign."""
    return np.asarray(rows.arrays["w"], dtype=np.float64)


def mean_with_error(scores: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Return the weighted mean of scores (n,), and its statistical error."""
    total = weights.sum()
    mean = float(np.sum(weights * scores) / total)
    error = math.sqrt(float(np.sum((weights * (scores - mean)) ** 2))) / abs(total)
    return mean, float(error)


def _energy(model: Model, batch: dict[str, Any], first: int) -> Any:
    n_noise = model.card.n_noise - (1 if model.patterns is not None else 0)
    seed = tf.stack([tf.constant(SEED), first])
    generator = model.generator
    samples = draw(generator, batch, n_noise=n_noise, copies=COPIES, seed=seed)
    one, other = np.triu_indices(COPIES, k=1)
    among = minus_distance(tf.gather(samples, one), tf.gather(samples, other))
    across = minus_distance(samples, batch["y"][tf.newaxis])
    return tf.reduce_mean(among, axis=0) - 2 * tf.reduce_mean(across, axis=0)


def _likelihood(model: Model, batch: dict[str, Any], _: int) -> Any:
    density = _density_of(model.generator)
    each = -density(batch) * batch["free"]
    score = tf.reduce_sum(each, axis=1)
    if model.patterns is not None:
        logits = model.patterns({"conditions": batch["x"]})
        score += tf.nn.softmax_cross_entropy_with_logits(batch["pattern"], logits)
    return score


def _density_of(generator: Any) -> Callable[[dict[str, Any]], Any]:
    """Return the function that gives log p of each coordinate (n, n_targets)."""
    if isinstance(generator, FlowGenerator):
        return lambda batch: _of_flow(generator, batch)
    assert isinstance(generator, OnePassGenerator)
    return lambda batch: _of_one_pass(generator, batch)


def _of_flow(generator: FlowGenerator, batch: dict[str, Any]) -> Any:
    log_p = -generator.flow.loss_of_each(batch) - HALF_LOG_TWO_PI
    return _floored(tf.transpose(log_p), batch["y"])


def _of_one_pass(generator: OnePassGenerator, batch: dict[str, Any]) -> Any:
    inputs = named_inputs(batch)
    n, steps = batch["y"].shape[0], len(GRID)
    known = [tf.repeat(inputs[k], steps, axis=0) for k in inputs]
    grid = tf.tile(tf.constant(GRID)[:, tf.newaxis], (n, 1))
    noise: list[Any] = []
    found = []
    for j in range(batch["y"].shape[1]):
        y = batch["y"][:, j : j + 1]
        earlier = [tf.repeat(z, steps, axis=0) for z in noise]
        made = generator.coordinate(j, known, earlier, grid)
        log_p, z = _invert(tf.reshape(made, (n, steps)), y)
        found.append(log_p)
        noise.append(z * batch["free"][:, j : j + 1])
        known = [*known, tf.repeat(y, steps, axis=0)]
    return _floored(tf.concat(found, axis=1), batch["y"])


def _invert(made: Any, y: Any) -> tuple[Any, Any]:
    """Return log p (n, 1) of y, and the noise of it, from y on the grid of noise."""
    step = float(GRID[1] - GRID[0])
    low, change = made[:, :-1], made[:, 1:] - made[:, :-1]
    safe = tf.where(tf.abs(change) > 1e-9, change, tf.fill(tf.shape(change), 1e-9))
    share = (y - low) / safe
    last = safe.shape[1] - 1
    place = np.arange(last + 1)
    inside = (share >= 0) & (share < 1)
    inside |= (place == 0) & (share < 0) | (place == last) & (share >= 1)
    z = tf.constant(GRID[:-1]) + step * share
    density = tf.exp(-0.5 * z**2 - HALF_LOG_TWO_PI) * step / tf.abs(safe)
    density = tf.where(inside, density, tf.zeros_like(density))
    best = tf.argmax(density, axis=1, output_type=tf.int32)
    chosen = tf.gather(z, best, axis=1, batch_dims=1)[:, tf.newaxis]
    total = tf.reduce_sum(density, axis=1, keepdims=True)
    return tf.math.log(total + 1e-30), tf.clip_by_value(chosen, -6.0, 6.0)


def _floored(log_p: Any, y: Any) -> Any:
    wide = -0.5 * (y / WIDE) ** 2 - HALF_LOG_TWO_PI - math.log(WIDE)
    both = tf.stack([log_p + math.log(1 - FLOOR), wide + math.log(FLOOR)])
    return tf.reduce_logsumexp(both, axis=0)
