"""What may join the game of showers: a critic of the total, and a constrainer.

- `TotalGame`: a second critic sees the total energy alone, given the conditions (ATLAS,
  ATL-SOFT-PUB-2020-006, Sec. 4). What a critic of thousands of cells sees of their sum
  is little. Where the total has a model of its own, this model plays against it, else
  the model of the shape does.
- `Constrainer`: a network finds the conditions of a shower, such as its energy and its
  impact point, and learns from real ones. It must find those of generated showers as
  well, neither better nor worse: the loss is the difference of the squared errors (CMS,
  Erdmann et al., arXiv:1807.01954, Sec. 3.2).
"""

from collections.abc import Callable
from typing import Any

from pidgan.training.backend import tf
from pidgan.training.families import cramer
from pidgan.training.networks import draws
from pidgan.training.networks.energies_and_shape import Part
from pidgan.training.networks.perceptrons import residual_network
from pidgan.training.networks.shower_critic import standardise
from pidgan.training.networks.updates import kernel_score, minus_distance
from pidgan.training.phases import Batch, Descent, Optimizer, Update

# Stream of random numbers of the energies in a game.
ENERGIES = 2000


class TotalGame:
    """The game of a critic h of the total, (n, 1), at the conditions.

    `energies` is the model of the energies, whose first coordinate is the total.
    Without one, `total_of` is the total of a shape.
    """

    def __init__(
        self,
        energies: Part | None,
        total_of: Callable[[tf.Tensor], tf.Tensor] | None,
        generate: Callable[[Batch, Any], list[tf.Tensor]],
        *,
        s: Any,
        n_conditions: int,
        seed: int,
    ) -> None:
        self.energies, self.total_of, self.generate = energies, total_of, generate
        self.settings = s
        inputs = {"context": n_conditions, "total": 1}
        size = {"width": s.critic_width, "blocks": s.critic_blocks}
        self.network = residual_network(inputs, s.critic_output, **size, seed=seed)

    def updates(self) -> list[Update]:
        """Return the update of the critic, and that of a model of the energies."""
        s = self.settings
        factors = {"total_critic": 1.0, "total_penalty": s.penalty}
        optimizer = Optimizer(s.critic_learning_rate, beta_1=0.5, beta_2=0.9)
        learnt = Descent(self.network.trainable_variables, optimizer, factors)
        found = [Update(self._critic_losses, learnt)]
        if self.energies is not None:
            optimizer = Optimizer(s.play_learning_rate, beta_1=0.5, average=s.average)
            played = Descent(self.energies.played, optimizer, held_out=self._score)
            found.append(Update(self._losses, played))
        return found

    def term(self, batch: Batch, *shapes: tf.Tensor) -> tf.Tensor:
        """Return the loss of a real and two generated shapes without energies."""
        assert self.total_of is not None
        return self._loss(batch, [self.total_of(y) for y in shapes])

    def _loss(self, batch: Batch, totals: list[tf.Tensor]) -> tf.Tensor:
        h_r, h_g, h_g2 = self._h(batch, *standardise(*totals))
        loss = cramer.generator_loss(h_r, h_g, h_g2, batch["w"])
        return self.settings.energy_critic * loss

    def _h(self, batch: Batch, *totals: tf.Tensor) -> list[tf.Tensor]:
        x = tf.tile(batch["x"], (len(totals), 1))
        return list(tf.split(self.network([x, tf.concat(totals, axis=0)]), len(totals)))

    def _totals(self, batch: Batch, seed: Any) -> list[tf.Tensor]:
        """Return real and generated totals."""
        if self.energies is None:
            assert self.total_of is not None
            shapes = [batch["real"], *self.generate(batch, seed)]
            return [self.total_of(y) for y in shapes]
        energies = [batch["energies"][0], *self._generate_energies(batch, seed)]
        return [y[:, :1] for y in energies]

    def _generate_energies(self, batch: Batch, seed: Any) -> list[tf.Tensor]:
        """Return two independent sets of energies for each row."""
        assert self.energies is not None
        twice = tf.tile(batch["x"], (2, 1))
        size = (tf.shape(twice)[0], self.energies.n_noise)
        noise = draws.normal(size, tf.random.fold_in(seed, ENERGIES), copies=2)
        return list(tf.split(self.energies.generate(noise, twice), 2))

    def _critic_losses(self, batch: Batch, seed: Any) -> dict[str, Any]:
        t_r, t_g, t_g2 = standardise(*self._totals(batch, seed))
        h_r, h_g, h_g2 = self._h(batch, t_r, t_g, t_g2)

        def f_at(t_hat: tf.Tensor) -> tf.Tensor:
            return cramer.f(*self._h(batch, t_hat, t_g2))

        return {
            "total_critic": cramer.critic_loss(h_r, h_g, h_g2, batch["w"]),
            "total_penalty": cramer.gradient_penalty(f_at, t_r, t_g, seed=seed),
        }

    def _losses(self, batch: Batch, seed: Any) -> dict[str, Any]:
        return {"total": self._loss(batch, self._totals(batch, seed))}

    def _score(self, batch: Batch, seed: Any) -> dict[str, Any]:
        real, made = batch["energies"][0], self._generate_energies(batch, seed)
        score = kernel_score(minus_distance, real, tf.stack(made), batch["w"])
        return {"energies_score": score}


class Constrainer:
    """Network from coordinates of whole showers (n, k) to their conditions, scaled."""

    def __init__(
        self,
        whole: Callable[[Batch, tf.Tensor], tf.Tensor],
        *,
        s: Any,
        n: int,
        n_conditions: int,
        seed: int,
    ) -> None:
        self.whole, self.settings = whole, s
        size = {"width": s.critic_width, "blocks": s.critic_blocks}
        self.network = residual_network({"shower": n}, n_conditions, **size, seed=seed)

    def updates(self) -> list[Update]:
        """Return the update of the network."""
        optimizer = Optimizer(self.settings.critic_learning_rate, beta_1=0.5)
        learnt = Descent(self.network.trainable_variables, optimizer)
        return [Update(self._losses, learnt)]

    def term(self, batch: Batch, real: tf.Tensor, made: tf.Tensor) -> tf.Tensor:
        """Return the mean difference of the errors of real and generated shapes."""
        known = tf.stop_gradient(self._errors(batch, real))
        difference = tf.abs(self._errors(batch, made) - known)
        return self.settings.constrainer * tf.reduce_mean(difference)

    def _errors(self, batch: Batch, y: tf.Tensor) -> tf.Tensor:
        """Return the mean squared error (n_conditions,) of each condition."""
        square = tf.square(self.network([self.whole(batch, y)]) - batch["x"])
        return tf.reduce_mean(batch["w"][:, tf.newaxis] * square, axis=0)

    def _losses(self, batch: Batch, seed: Any) -> dict[str, Any]:
        return {"conditions": tf.reduce_mean(self._errors(batch, batch["real"]))}
