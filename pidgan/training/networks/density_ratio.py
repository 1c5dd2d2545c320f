"""Ratio of the real to the generated density, from a classifier.

A classifier trained to tell real from generated rows, each sample of the same total
weight, with the log-loss

    L = -E_real[w log s(f)] - E_generated[w log(1 - s(f))],  s(f) = 1 / (1 + exp(-f)),

has f = log p_real / p_generated at its minimum (Andreassen and Nachman, DCTR,
arXiv:1907.08209; for generators Diefenbacher et al., arXiv:2009.03796). The weights
must not be negative: the log-loss has no bound there.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.training.averages import BLOCKS as HELD_OUT_BLOCKS
from pidgan.training.averages import Average, better_of, is_worse
from pidgan.training.backend import keras, tf
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.networks.updates import assign, named_inputs

Rows = dict[str, Any]

WIDTH = 64
BLOCKS = 2
LEARNING_RATE = 1e-3
AVERAGE = 0.99
# Steps between two looks at the held-out loss.
LOOK_STEPS = 100


class RatioNetwork:
    """Network from (conditions, pattern, targets), as networks see them, to f."""

    def __init__(self, *, shape: Shape, seed: int) -> None:
        size = {"width": WIDTH, "blocks": BLOCKS}
        inputs = shape.inputs(targets=shape.n_targets)
        self.network = residual_network(inputs, 1, **size, seed=seed, output_scale=0.01)
        self.seed = seed

    def log_ratio(self, rows: Rows) -> Any:
        """Return f of rows with "x", "pattern" (one-hot) and "y", (n,)."""
        return self.network(named_inputs(rows, targets=rows["y"]))[:, 0]

    def fit(
        self,
        real: Rows,
        generated: Rows,
        *,
        held_out: tuple[Rows, Rows],
        steps: int,
        batch_size: int,
        show: Callable[[int, FloatArray], None] | None = None,
    ) -> list[float]:
        """Train, keep the weights of the least held-out loss, and return these losses.

        Rows have "x", "pattern", "y" and weights "w" >= 0; an update takes `batch_size`
        of each sample. The first loss is from before the training. Weights are kept if
        their loss is less than the least before by more than the error of the
        difference (`pidgan.training.averages`). `show` is called with the number of
        steps done and these losses, in blocks of rows.
        """
        optimizer = keras.optimizers.Adam(LEARNING_RATE)
        variables = self.network.trainable_variables
        optimizer.build(variables)
        average = Average(variables, AVERAGE)
        samples = [_normalised(rows) for rows in (real, generated)]
        judges = [_normalised(rows) for rows in held_out]
        blocks = [[_block(rows, k) for rows in judges] for k in range(HELD_OUT_BLOCKS)]
        loss_of = tf.function(self._loss, autograph=False)
        sum_of = operator.itemgetter("loss")

        def judge() -> dict[str, FloatArray]:
            return {"loss": np.array([float(loss_of(*block)) for block in blocks])}

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def update(step: Any, rate: Any) -> Any:
            optimizer.learning_rate = LEARNING_RATE * rate
            batches = [
                _draw(rows, batch_size, tf.stack([self.seed + number, step]))
                for number, rows in enumerate(samples)
            ]
            with tf.GradientTape() as tape:
                loss = self._loss(*batches)
            optimizer.apply(tape.gradient(loss, variables), variables)
            average.follow(optimizer.iterations - 1)
            return loss

        least = sum_of(judge())
        losses, best = [float(least.mean())], [v.numpy() for v in variables]
        for step in range(steps):
            rate = 0.5 * (1 + np.cos(np.pi * step / steps))
            update(tf.constant(step), tf.constant(rate, tf.float32))
            if (step + 1) % LOOK_STEPS == 0 or step + 1 == steps:
                found, weights = better_of(variables, average, judge, sum_of)
                losses.append(float(sum_of(found).mean()))
                if show is not None:
                    show(step + 1, sum_of(found))
                if is_worse(least, sum_of(found)):
                    least, best = sum_of(found), weights
        assign(variables, best)
        return losses

    def _loss(self, real: Rows, generated: Rows) -> Any:
        first = tf.nn.softplus(-self.log_ratio(real))
        second = tf.nn.softplus(self.log_ratio(generated))
        return tf.reduce_mean(real["w"] * first) + tf.reduce_mean(
            generated["w"] * second
        )


def _normalised(rows: Rows) -> Rows:
    """Return rows on the device, their weights of mean 1."""
    tensors = {name: tf.constant(v, tf.float32) for name, v in rows.items()}
    tensors["w"] /= tf.reduce_mean(tensors["w"])
    return tensors


def _block(rows: Rows, k: int) -> Rows:
    """Return one in `HELD_OUT_BLOCKS` of the rows, starting from row k."""
    n = rows["w"].shape[0]
    index = tf.range(k, max(n, HELD_OUT_BLOCKS), HELD_OUT_BLOCKS) % n
    return {name: tf.gather(values, index) for name, values in rows.items()}


def _draw(rows: Rows, size: int, seed: Any) -> Rows:
    n = rows["w"].shape[0]
    index = tf.random.stateless_uniform((size,), seed, maxval=n, dtype=tf.int32)
    return {name: tf.gather(values, index) for name, values in rows.items()}
