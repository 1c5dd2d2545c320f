"""What the updates of several families share: rates, draws, kernel scores."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pidgan.training.backend import tf
from pidgan.training.networks import draws

Kernel = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Below this squared length the gradient of |v| is damped: sqrt has none at zero.
TINY = 1e-12


def length(v: tf.Tensor) -> tf.Tensor:
    """Return the Euclidean length |v| along the last axis."""
    return tf.sqrt(tf.reduce_sum(tf.square(v), axis=-1) + TINY)


def cosine(done: tf.Tensor, steps: tf.Tensor, *, final: float) -> tf.Tensor:
    """Return a learning rate as a share of its start, 1 falling to a final one."""
    share = tf.minimum(tf.cast(done, tf.float32) / tf.cast(steps, tf.float32), 1.0)
    return final + (1 - final) * 0.5 * (1 + tf.cos(math.pi * share))


def minus_distance(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return -|a - b|, the kernel of the energy score."""
    return -length(a - b)


def named_inputs(batch: dict[str, Any], **others: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the inputs of a network by name; those of size zero have no entry."""
    inputs = {"conditions": batch["x"], "pattern": batch["pattern"], **others}
    return {name: value for name, value in inputs.items() if value.shape[-1]}


def repeat_batch(batch: dict[str, Any], copies: int) -> dict[str, Any]:
    """Return conditions, pattern and free coordinates of a batch, `copies` times."""
    return {k: tf.tile(batch[k], (copies, 1)) for k in ("x", "pattern", "free")}


def draw(
    generator: Any, batch: dict[str, Any], *, n_noise: int, copies: int, seed: Any
) -> tf.Tensor:
    """Return generated coordinates, zero on atoms, (copies, n, n_targets)."""
    rows = repeat_batch(batch, copies)
    n = tf.shape(rows["x"])[0]
    noise = draws.normal((n, n_noise), seed, copies=copies)
    y = rows["free"] * generator(named_inputs(rows, noise=noise))
    return tf.reshape(y, (copies, -1, rows["free"].shape[1]))


def kernel_score(
    kernel: Kernel, y: tf.Tensor, samples: tf.Tensor, w: tf.Tensor
) -> tf.Tensor:
    """Return E[w (k(y_g, y_g') - 2 k(y_g, y))], y_g and y_g' generated at y's x.

    It is least, for a characteristic kernel, where the conditional distributions are
    equal (Gneiting and Raftery, JASA 102 (2007) 359, Eq. 20; with k = -|a - b| the
    energy score, Eq. 22). Real coordinates are (n, d), samples (copies, n, d), two
    copies or more; weights may have either sign.
    """
    first, second = np.triu_indices(samples.shape[0], k=1)
    among = kernel(tf.gather(samples, first), tf.gather(samples, second))
    across = kernel(samples, y[tf.newaxis])
    score = tf.reduce_mean(among, axis=0) - 2 * tf.reduce_mean(across, axis=0)
    return tf.reduce_mean(w * score)


def energy_score(
    generator: Any, batch: dict[str, Any], seed: Any, *, n_noise: int
) -> dict[str, tf.Tensor]:
    """Return the energy score of a generator, which judges it without a critic."""
    samples = draw(generator, batch, n_noise=n_noise, copies=2, seed=seed)
    score = kernel_score(minus_distance, batch["y"], samples, batch["w"])
    return {"energy_score": score}


def assign(variables: Iterable[Any], values: Iterable[Any]) -> None:
    """Give variables their values, one each."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
