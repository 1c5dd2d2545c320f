"""Probability of each pattern of discrete structure, given the conditions.

The network is trained with the log-loss, -E[w log p_c(x)], c the row's pattern. It is
unbounded where weights are negative; w is therefore E[w | x, y], which is not
(arXiv:1905.11719). The Brier score would take weights of any sign, but it hardly
notices a pattern that is rare, and its gradient vanishes where a rare one is missed.
"""

from typing import Any

from pidgan.training.backend import keras, tf
from pidgan.training.families.phases import (
    Batch,
    Descent,
    Optimizer,
    Update,
    over_the_training,
)
from pidgan.training.networks.perceptrons import Shape, residual_network

WIDTH = 32
BLOCKS = 2
LEARNING_RATE = 1e-2


def pattern_network(*, shape: Shape, seed: int) -> keras.Model:
    """Build the network from scaled conditions to the logits of the patterns."""
    return residual_network(
        {"conditions": shape.n_conditions},
        n_outputs=shape.n_patterns,
        width=WIDTH,
        blocks=BLOCKS,
        seed=seed,
        name="patterns",
    )


def pattern_update(network: keras.Model) -> Update:
    """Return the update that every phase of a training does beside its own."""

    def log_loss(batch: Batch, seed: Any) -> dict[str, Any]:
        logits = network({"conditions": batch["x"]})
        each = tf.nn.softmax_cross_entropy_with_logits(batch["pattern"], logits)
        return {"patterns": tf.reduce_mean(batch["positive_w"] * each)}

    descent = Descent(
        variables=network.trainable_variables,
        optimizer=Optimizer(learning_rate=LEARNING_RATE, schedule=over_the_training),
    )
    return Update(losses=log_loss, descents=(descent,))
