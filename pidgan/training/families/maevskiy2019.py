"""Recipe `maevskiy2019`: the published conditional Cramér GAN for RICH responses.

Maevskiy et al., arXiv:1905.11825, with the settings of its authors' code: generator
and critic are ten layers of 128 ReLU units, latent size 64, critic output 256; RMSprop
with rate 1e-3, falling by 0.98 every 200 updates of the generator; 15 updates of the
critic for one of the generator at the beginning, then 5; the penalty is one-sided,

    lambda(i) E[max(0, |grad f(y^)| - 1)^2],  lambda(i) = 20 (2 / pi) atan(i / 10^4),

in update i of the generator. The losses are those of `pidgan.training.families.cramer`.
Targets are mapped to normal scores column by column; there are neither differences of
targets, nor patterns of ties and atoms, nor decorrelation, nor averaged weights.

Different here: batches have 1,000 rows unless `batch_size` says otherwise (published:
50,000 on a GPU), the quantile transforms have 256 knots (published: 10^5), and an
update of the generator shares its rows, its draws and their h with the first update of
the critic that follows.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from pidgan.errors import PidganError
from pidgan.training.backend import keras, tf
from pidgan.training.families.cramer import critic_loss, generator_loss
from pidgan.training.networks.perceptrons import Shape, plain_network
from pidgan.training.networks.updates import (
    descend,
    draw,
    held_out_losses,
    length,
    named_inputs,
)

# Stream of random numbers for the point y^; those of the updates count from 0.
PENALTY = 1000
DECAY, DECAY_STEPS = 0.98, 200
PENALTY_STEPS = 1e4


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedSettings:
    """What can be chosen in recipe `maevskiy2019`.

    Attributes:
        n_noise: size of the generator's noise.
        width, layers: of generator and critic.
        critic_output: of h.
        first_critic_updates: of the critic for one of the generator in phase `begin`.
        critic_updates: the same in phase `play`.
        begin: share of the steps of the first phase.
        batch_size: rows of one update; 50,000 in the publication.
        learning_rate: of RMSprop, for both networks, at the beginning.
        penalty: the limit of lambda(i).
        xla: compile the steps with XLA; pays in trainings of more than a few minutes.
    """

    n_noise: int = 64
    width: int = 128
    layers: int = 10
    critic_output: int = 256
    first_critic_updates: int = 15
    critic_updates: int = 5
    begin: float = 0.1
    batch_size: int = 1000
    learning_rate: float = 1e-3
    penalty: float = 20.0
    xla: bool = False


class PublishedGAN:
    """Recipe `maevskiy2019`: generator and critic h play against each other."""

    needs_positive_weights = False

    def __init__(self, *, shape: Shape, settings: PublishedSettings, seed: int) -> None:
        """Build the networks and their optimizers.

        Raises:
            PidganError: no update of the critic, or a share that is none.
        """
        self.settings = s = settings
        if min(s.first_critic_updates, s.critic_updates) < 1 or not 0 <= s.begin <= 1:
            raise PidganError(
                f"first_critic_updates is {s.first_critic_updates}, critic_updates "
                f"{s.critic_updates} and begin {s.begin:g}; expected at least 1, 1 "
                "and a share from 0 to 1"
            )
        self.n_noise = s.n_noise
        conditions = {"conditions": shape.n_conditions, "pattern": shape.n_patterns}
        self.generator = plain_network(
            {**conditions, "noise": s.n_noise},
            n_outputs=shape.n_targets,
            width=s.width,
            layers=s.layers,
            seed=seed,
            name="generator",
        )
        self.critic = plain_network(
            {**conditions, "targets": shape.n_targets},
            n_outputs=s.critic_output,
            width=s.width,
            layers=s.layers,
            seed=seed + 1,
            name="critic",
        )
        self.optimizer = keras.optimizers.RMSprop(s.learning_rate)
        self.critic_optimizer = keras.optimizers.RMSprop(s.learning_rate)
        self.optimizer.build(self.generator.trainable_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)
        self.updates = {"begin": s.first_critic_updates, "play": s.critic_updates}
        self.phases: Mapping[str, float] = {"begin": s.begin, "play": 1 - s.begin}
        # Every update of the critic has rows of its own.
        self.batch_sizes: Mapping[str, int] = {
            phase: n * s.batch_size for phase, n in self.updates.items()
        }

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
        """Update the generator, then the critic some times, and return the losses.

        The rate is that of the publication, whatever `rate` says.
        """
        s = self.settings
        done = tf.cast(self.optimizer.iterations, tf.float32)
        fall = DECAY ** tf.floor(done / DECAY_STEPS)
        self.optimizer.learning_rate = s.learning_rate * fall
        self.critic_optimizer.learning_rate = s.learning_rate * fall
        strength = s.penalty * (2 / math.pi) * tf.atan(done / PENALTY_STEPS)
        for update in range(self.updates[phase]):
            rows = slice(update * s.batch_size, (update + 1) * s.batch_size)
            part = {name: value[rows] for name, value in batch.items()}
            noise = tf.random.fold_in(seed, update)
            with tf.GradientTape(persistent=True) as tape:
                y_g, y_g2 = self._generate(part, noise)
                h_r, h_g, h_g2 = (self._h(part, y) for y in (part["y"], y_g, y_g2))
                of_generator = generator_loss(h_r, h_g, h_g2, part["w"])
                surrogate = critic_loss(h_r, h_g, h_g2, part["w"])
                penalty = self._penalty(part, y_g, h_g2, noise)
                of_critic = surrogate + strength * penalty
            if update == 0:
                variables = self.generator.trainable_variables
                descend(tape, of_generator, self.optimizer, variables)
            variables = self.critic.trainable_variables
            descend(tape, of_critic, self.critic_optimizer, variables)
        return {"generator": of_generator, "critic": surrogate, "penalty": penalty}

    def losses(self, batch: dict[str, Any], *, seed: Any) -> dict[str, Any]:
        """Return the energy score of the generator."""
        return held_out_losses(self.generator, batch, n_noise=self.n_noise, seed=seed)

    def end(self, phase: str) -> None:
        """Do nothing: the weights of the last step are the ones that are kept."""

    def _generate(self, batch: dict[str, Any], seed: Any) -> list[tf.Tensor]:
        """Return two independent generated targets for each row."""
        y = draw(self.generator, batch, n_noise=self.n_noise, copies=2, seed=seed)
        return list(tf.unstack(y, num=2))

    def _h(self, batch: dict[str, Any], y: tf.Tensor) -> tf.Tensor:
        return self.critic(named_inputs(batch, targets=y))

    def _penalty(
        self, batch: dict[str, Any], y_g: tf.Tensor, h_g2: tf.Tensor, seed: Any
    ) -> tf.Tensor:
        """Return the one-sided gradient penalty between real and generated targets."""
        y_r = batch["y"]
        shape = (tf.shape(y_r)[0], 1)
        share = tf.random.stateless_uniform(shape, tf.random.fold_in(seed, PENALTY))
        y_hat = share * y_r + (1 - share) * y_g
        with tf.GradientTape() as tape:
            tape.watch(y_hat)
            h_hat = self._h(batch, y_hat)
            f_hat = length(h_hat - h_g2) - length(h_hat)
        slope = length(tape.gradient(f_hat, y_hat))
        return tf.reduce_mean(tf.square(tf.nn.relu(slope - 1)))
