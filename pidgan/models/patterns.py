"""Probability of each pattern of discrete structure, given the conditions.

The network is trained with the Brier score, E[w sum_k (p_k - 1[c = k])^2] (Brier,
Mon. Weather Rev. 78 (1950) 1). It is a proper score like the log-loss, but bounded,
so that weights may be negative: the minimum stays at the weighted class shares.
"""

from typing import Any

from pidgan.models.backend import keras, tf
from pidgan.models.networks import Shape, residual_network

WIDTH = 64
BLOCKS = 2
LEARNING_RATE = 1e-3


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
        """Do one update and return the Brier score."""
        self.optimizer.learning_rate = LEARNING_RATE * rate
        with tf.GradientTape() as tape:
            loss = self.loss(batch)
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def loss(self, batch: dict[str, Any]) -> tf.Tensor:
        """Return the weighted Brier score of a batch."""
        p = tf.nn.softmax(self.network({"conditions": batch["x"]}))
        distance = tf.reduce_sum(tf.square(p - batch["pattern"]), axis=-1)
        return tf.reduce_mean(batch["w"] * distance)
