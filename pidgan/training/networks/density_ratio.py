"""Ratio of the real to the generated density, from weights of either sign.

The ratio r(x, y) of the densities of targets y at the same conditions x has the least

    L(r) = 1/2 E[v (r(x, y_g) - 1)^2] - E[w (r(x, y_r) - r(x, y_g))],

where y_r is a real row's target with sWeight w, y_g a generated one at the conditions
of this row, and v >= 0 the weight of these conditions: least-squares importance fitting
(Kanamori, Hido and Sugiyama, J. Mach. Learn. Res. 10 (2009) 1391), centred at r = 1.
The loss is convex in r. It is linear in w and bounded below for weights of any sign,
where a log-loss is not. -L on rows that are not trained on is an unbiased estimate of
what is gained, and 0 for r = 1. No v moves the place where r = 1; E[v | x] = E[w | x]
makes r the ratio elsewhere too.

r = exp(LOG_BOUND tanh(f / LOG_BOUND)) is bounded, so that no row counts too much.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.training.averages import BLOCKS as HELD_OUT_BLOCKS
from pidgan.training.backend import tf
from pidgan.training.networks.fitting import fit_best
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.networks.updates import assign, named_inputs

Rows = dict[str, Any]
"""Conditions "x" (n, c), "pattern" (n, k) as one-hot codes and "y" (n, d), as networks
see them, of real rows, with weights "w" and "v" (n,); "g_pattern" (n, m, k) and "g_y"
(n, m, d) of m generated ones at the same conditions."""

WIDTH = 64
BLOCKS = 2
LEARNING_RATE = 1e-3
AVERAGE = 0.99
LOG_BOUND = 3.0


class RatioNetwork:
    """Network from (conditions, pattern, targets), as networks see them, to f."""

    def __init__(self, *, shape: Shape, seed: int) -> None:
        size = {"width": WIDTH, "blocks": BLOCKS}
        inputs = shape.inputs(targets=shape.n_targets)
        self.network = residual_network(inputs, 1, **size, seed=seed)
        last = self.network.layers[-1]
        assign(last.variables, [np.zeros(v.shape) for v in last.variables])  # r = 1
        self.seed = seed

    def ratio(self, x: Any, pattern: Any, y: Any) -> Any:
        """Return r of tensors, (n,)."""
        rows = {"x": x, "pattern": pattern}
        return tf.exp(log_ratio(self.network(named_inputs(rows, targets=y)))[:, 0])

    def loss(self, rows: Rows) -> Any:
        """Return L(r) of tensors."""
        copies = rows["g_y"].shape[1]
        x = tf.repeat(rows["x"], copies, axis=0)
        pattern, y = (_flat(rows[name]) for name in ("g_pattern", "g_y"))
        r_r = self.ratio(rows["x"], rows["pattern"], rows["y"])
        r_g = tf.reshape(self.ratio(x, pattern, y), (-1, copies))
        squared = 0.5 * tf.reduce_mean(tf.square(r_g - 1), axis=1)
        linear = r_r - tf.reduce_mean(r_g, axis=1)
        return tf.reduce_mean(rows["v"] * squared - rows["w"] * linear)

    def fit(
        self,
        rows: Rows,
        *,
        held_out: Rows,
        steps: int,
        batch_size: int,
        show: Callable[[int, FloatArray], None] | None = None,
    ) -> list[float]:
        """Train, keep the weights of the largest gain, and return the held-out losses.

        An update takes `batch_size` real rows and what is generated at their
        conditions. The first loss is 0, that of r = 1, which is kept if no other one is
        less. `show` is called with the number of steps done and the losses in blocks of
        rows.
        """
        known, judging = _normalised(rows), _normalised(held_out)
        return fit_best(
            self.network.trainable_variables,
            self.loss,
            draw=lambda step: _draw(known, batch_size, tf.stack([self.seed, step])),
            held_out=[_block(judging, k) for k in range(HELD_OUT_BLOCKS)],
            steps=steps,
            learning_rate=LEARNING_RATE,
            average=AVERAGE,
            first=0.0,
            show=show,
        )


def log_ratio(outputs: Any) -> Any:
    """Return log r of what the network returns."""
    return LOG_BOUND * f.tanh(outputs * (1 / LOG_BOUND))


def _normalised(rows: Rows) -> Rows:
    """Return rows on the device, their weights of mean 1."""
    tensors = {name: tf.constant(v, tf.float32) for name, v in rows.items()}
    return tensors | {k: tensors[k] / tf.reduce_mean(tensors[k]) for k in ("v", "w")}


def _block(rows: Rows, k: int) -> Rows:
    """Return one in `HELD_OUT_BLOCKS` of the rows, starting from row k."""
    n = rows["w"].shape[0]
    index = tf.range(k, max(n, HELD_OUT_BLOCKS), HELD_OUT_BLOCKS) % n
    return {name: tf.gather(values, index) for name, values in rows.items()}


def _draw(rows: Rows, size: int, seed: Any) -> Rows:
    n = rows["w"].shape[0]
    index = tf.random.stateless_uniform((size,), seed, maxval=n, dtype=tf.int32)
    return {name: tf.gather(values, index) for name, values in rows.items()}


def _flat(values: Any) -> Any:
    """Return (n m, d) of (n, m, d)."""
    return tf.reshape(values, (-1, values.shape[2]))
