"""Fits a network whose weights without training are already of use."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.training.averages import Average, better_of
from pidgan.training.backend import keras, tf
from pidgan.training.networks.updates import assign

# Steps between two looks at the held-out loss.
LOOK_STEPS = 100


def fit_best(
    variables: Sequence[Any],
    loss_of: Callable[[Any], Any],
    *,
    draw: Callable[[Any], Any],
    held_out: Sequence[Any],
    steps: int,
    learning_rate: float,
    average: float,
    first: float | None = None,
    show: Callable[[int, FloatArray], None] | None = None,
) -> list[float]:
    """Train, keep the weights of the least held-out loss, and return the losses.

    Args:
        variables: Weights that are trained.
        loss_of: Loss of a batch.
        draw: Batch of a step, of which the number is given.
        held_out: Batches that are not trained on.
        steps: Number of updates.
        learning_rate: Learning rate at the start; it falls with a cosine.
        average: Largest momentum of the averaged weights.
        first: Held-out loss before the training, if it is known. These weights are kept
            if no others have less.
        show: Called with the number of steps done and the losses of batches.
    """
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(variables)
    mean = Average(variables, average)
    judged = tf.function(loss_of, autograph=False)
    sum_of = operator.itemgetter("loss")

    def judge() -> dict[str, FloatArray]:
        return {"loss": np.array([float(judged(block)) for block in held_out])}

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def update(step: Any, rate: Any) -> Any:
        optimizer.learning_rate = learning_rate * rate
        batch = draw(step)
        with tf.GradientTape() as tape:
            loss = loss_of(batch)
        optimizer.apply(tape.gradient(loss, variables), variables)
        mean.follow(optimizer.iterations - 1)
        return loss

    losses = [float(judge()["loss"].mean()) if first is None else first]
    best = [v.numpy() for v in variables]
    for step in range(steps):
        rate = 0.5 * (1 + np.cos(np.pi * step / steps))
        update(tf.constant(step), tf.constant(rate, tf.float32))
        if (step + 1) % LOOK_STEPS == 0 or step + 1 == steps:
            found, weights = better_of(variables, mean, judge, sum_of)
            if show is not None:
                show(step + 1, sum_of(found))
            loss = float(sum_of(found).mean())
            if loss < min(losses):
                best = weights
            losses.append(loss)
    assign(variables, best)
    return losses
