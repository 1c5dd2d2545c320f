"""Probability of each pattern of discrete structure, given the conditions.

The network is trained with the log-loss, -E[w log p_c(x)], c the row's pattern. It is
unbounded where weights are negative; w is therefore E[w | x, y], which is not
(arXiv:1905.11719). The Brier score would take weights of any sign, but it hardly
notices a pattern that is rare, and its gradient vanishes where a rare one is missed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.training.backend import keras, tf
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.phases import (
    Batch,
    Descent,
    Optimizer,
    Phase,
    Update,
    over_the_training,
)

WIDTH = 32
BLOCKS = 2
LEARNING_RATE = 1e-2


def pick_pattern(logits: Array, noise: Array) -> Array:
    """Turn one standard normal number a row, (n, 1), into a draw from softmax(logits).

    The draw is the one-hot code, (n, n_patterns), of the number of upper edges of the
    cumulated probabilities that lie below Phi(noise).
    """
    n = logits.shape[-1]
    edges = f.columns(f.cumulated(f.softmax(logits)), 0, n - 1)
    above = f.numbers(f.greater(f.uniform(noise), edges), noise)
    # above is 1...1 0...0; pattern k has k ones: column k is above[k-1] - above[k].
    difference = np.eye(n - 1, n, k=1) - np.eye(n - 1, n)
    return f.affine(above, difference, np.eye(n)[0])


def pattern_network(*, shape: Shape, seed: int) -> keras.Model:
    """Build the network from scaled conditions to the logits of the patterns."""
    size = {"width": WIDTH, "blocks": BLOCKS}
    inputs = {"conditions": shape.n_conditions}
    return residual_network(inputs, shape.n_patterns, **size, seed=seed)


def with_patterns(
    phases: Sequence[Phase], network: keras.Model | None, *, judged: bool = False
) -> list[Phase]:
    """Return phases in which the network of the patterns is learnt too, if any.

    Where it is `judged`, rows that are not trained on choose its weights.
    """
    if network is None:
        return list(phases)
    learnt = _update(network, judged=judged)
    return [dataclasses.replace(p, updates=[*p.updates, learnt]) for p in phases]


def _update(network: keras.Model, *, judged: bool) -> Update:

    def log_loss(batch: Batch, seed: Any) -> dict[str, Any]:
        logits = network({"conditions": batch["x"]})
        each = tf.nn.softmax_cross_entropy_with_logits(batch["pattern"], logits)
        return {"patterns": tf.reduce_mean(batch["positive_w"] * each)}

    optimizer = Optimizer(LEARNING_RATE, schedule=over_the_training)
    held_out = log_loss if judged else None
    descent = Descent(network.trainable_variables, optimizer, held_out=held_out)
    return Update(log_loss, descent)
