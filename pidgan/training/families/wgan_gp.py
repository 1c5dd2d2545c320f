"""Conditional Wasserstein GAN with gradient penalty, for weighted samples.

Gulrajani et al., arXiv:1704.00028, Algorithm 1, with conditions x and sWeights w. D is
the critic, y_r a real target, y_g a generated one at the same conditions:

    L_critic    = -E[w (D(y_r) - D(y_g))] + lambda E[(|grad D(y^)| - 1)^2]
    L_generator = -E[w D(y_g)]

with y^ on the line between y_r and y_g. Weights of any sign enter linearly; the
penalty has none, as it bounds the slope of D everywhere.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pidgan.errors import PidganError
from pidgan.training.backend import keras, tf
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.networks.updates import (
    descend,
    draw,
    held_out_losses,
    length,
    named_inputs,
)

# Stream of random numbers for the point y^; those of the updates count from 0.
PENALTY = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class WassersteinSettings:
    """What can be chosen in family `wgan_gp`.

    Attributes:
        n_noise: size of the generator's noise.
        width, blocks: of the generator.
        critic_width, critic_blocks: of D.
        critic_updates: of the critic for one of the generator.
        penalty: lambda.
        batch_size: rows of one update.
        learning_rate, critic_learning_rate: of Adam; they fall with a cosine.
        average: momentum of the averaged generator weights.
        xla: compile the steps with XLA; pays in trainings of more than a few minutes.
    """

    n_noise: int = 16
    width: int = 64
    blocks: int = 3
    critic_width: int = 64
    critic_blocks: int = 2
    critic_updates: int = 3
    penalty: float = 10.0
    batch_size: int = 512
    learning_rate: float = 5e-4
    critic_learning_rate: float = 1e-3
    average: float = 0.999
    xla: bool = False


class WassersteinGAN:
    """Family `wgan_gp`: generator and critic D play against each other."""

    needs_positive_weights = False

    def __init__(
        self, *, shape: Shape, settings: WassersteinSettings, seed: int
    ) -> None:
        """Build the networks and their optimizers.

        Raises:
            PidganError: no update of the critic.
        """
        self.settings = s = settings
        if s.critic_updates < 1:
            raise PidganError(
                f"critic_updates is {s.critic_updates}, expected at least 1"
            )
        self.n_noise = s.n_noise
        conditions = {"conditions": shape.n_conditions, "pattern": shape.n_patterns}
        self.generator = residual_network(
            {**conditions, "noise": s.n_noise},
            n_outputs=shape.n_targets,
            width=s.width,
            blocks=s.blocks,
            seed=seed,
            name="generator",
        )
        self.critic = residual_network(
            {**conditions, "targets": shape.n_targets},
            n_outputs=1,
            width=s.critic_width,
            blocks=s.critic_blocks,
            seed=seed + 1,
            name="critic",
        )
        # Momentum of earlier steps is that of another game: beta_1 = 0 in Algorithm 1.
        self.optimizer = keras.optimizers.Adam(
            s.learning_rate,
            beta_1=0.0,
            beta_2=0.9,
            use_ema=True,
            ema_momentum=s.average,
        )
        self.critic_optimizer = keras.optimizers.Adam(
            s.critic_learning_rate, beta_1=0.0, beta_2=0.9
        )
        self.optimizer.build(self.generator.trainable_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)
        self.phases: Mapping[str, float] = {"play": 1.0}
        self.batch_sizes: Mapping[str, int] = {"play": s.batch_size}

    @property
    def variables(self) -> list[Any]:
        """Return all variables, optimizers' included, in a fixed order."""
        owners = (
            self.generator,
            self.critic,
            self.optimizer,
            self.critic_optimizer,
        )
        return [variable for owner in owners for variable in owner.variables]

    def step(
        self, batch: dict[str, Any], *, phase: str, seed: Any, rate: Any
    ) -> dict[str, Any]:
        """Update the critic some times, then the generator, and return the losses."""
        s = self.settings
        self.optimizer.learning_rate = s.learning_rate * rate
        self.critic_optimizer.learning_rate = s.critic_learning_rate * rate
        for update in range(s.critic_updates):
            with tf.GradientTape() as tape:
                distance, penalty = self._critic_losses(
                    batch, tf.random.fold_in(seed, update)
                )
                loss = s.penalty * penalty - distance
            descend(tape, loss, self.critic_optimizer, self.critic.trainable_variables)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(batch["w"] * self._d(batch, self._y(batch, seed)))
        descend(tape, loss, self.optimizer, self.generator.trainable_variables)
        return {"generator": loss, "distance": distance, "penalty": penalty}

    def losses(self, batch: dict[str, Any], *, seed: Any) -> dict[str, Any]:
        """Return the energy score of the generator."""
        return held_out_losses(self.generator, batch, n_noise=self.n_noise, seed=seed)

    def end(self, phase: str) -> None:
        """Put the averaged weights into the generator."""
        self.optimizer.finalize_variable_values(self.generator.trainable_variables)

    def _y(self, batch: dict[str, Any], seed: Any) -> tf.Tensor:
        """Return a generated target for each row."""
        return draw(self.generator, batch, n_noise=self.n_noise, copies=1, seed=seed)[0]

    def _d(self, batch: dict[str, Any], y: tf.Tensor) -> tf.Tensor:
        """Return D(y) at the conditions of the batch, (n,)."""
        return self.critic(named_inputs(batch, targets=y))[:, 0]

    def _critic_losses(
        self, batch: dict[str, Any], seed: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return E[w (D(y_r) - D(y_g))] and the gradient penalty."""
        y_r, y_g = batch["y"], self._y(batch, seed)
        shape = (tf.shape(y_r)[0], 1)
        share = tf.random.stateless_uniform(shape, tf.random.fold_in(seed, PENALTY))
        y_hat = share * y_r + (1 - share) * y_g
        with tf.GradientTape() as tape:
            tape.watch(y_hat)
            d_hat = self._d(batch, y_hat)
        slope = length(tape.gradient(d_hat, y_hat))
        difference = batch["w"] * (self._d(batch, y_r) - self._d(batch, y_g))
        return tf.reduce_mean(difference), tf.reduce_mean(tf.square(slope - 1))
