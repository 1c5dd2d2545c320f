"""Probability of each pattern of discrete structure, given the conditions.

The network is trained with the log-loss, -E[w log p_c(x)], c the row's pattern. It is
unbounded where weights are negative; w is therefore E[w | x, y], which is not
(arXiv:1905.11719). The Brier score would take weights of any sign, but it hardly
notices a pattern that is rare, and its gradient vanishes where a rare one is missed.
"""

from typing import Any

from pidgan.training.backend import keras, tf
from pidgan.training.networks.perceptrons import Shape, residual_network

WIDTH = 32
BLOCKS = 2
LEARNING_RATE = 1e-2


class PatternClassifier:
    """Network from scaled conditions to the logits of the patterns."""

    def __init__(self, *, shape: Shape, seed: int) -> None:
        """Build the network and its optimizer."""
        self.network = residual_network(
            {"conditions": shape.n_conditions},
            n_outputs=shape.n_patterns,
            width=WIDTH,
            blocks=BLOCKS,
            seed=seed,
            name="patterns",
        )
        self.optimizer = keras.optimizers.Adam(LEARNING_RATE)
        self.optimizer.build(self.network.trainable_variables)

    @property
    def variables(self) -> list[Any]:
        """Return all variables, the optimizer's included, in a fixed order."""
        return [*self.network.variables, *self.optimizer.variables]

    def step(self, batch: dict[str, Any], *, rate: Any) -> tf.Tensor:
        """Do one update and return the log-loss."""
        self.optimizer.learning_rate = LEARNING_RATE * rate
        with tf.GradientTape() as tape:
            loss = self.loss(batch)
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def loss(self, batch: dict[str, Any]) -> tf.Tensor:
        """Return the weighted log-loss of a batch."""
        logits = self.network({"conditions": batch["x"]})
        each = tf.nn.softmax_cross_entropy_with_logits(batch["pattern"], logits)
        return tf.reduce_mean(batch["positive_w"] * each)
