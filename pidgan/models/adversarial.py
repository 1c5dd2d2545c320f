"""Conditional Cramér GAN for weighted samples.

Bellemare et al., arXiv:1705.10743, Algorithm 1, with conditions x and sWeights w as
in Maevskiy et al., arXiv:1905.11825. In the symbols of the papers: h is the critic's
transformation to R^k, y_r a real target, y_g and y_g' two independent generated ones
at the same conditions x as the real one, and

    f(y)        = |h(y) - h(y_g')| - |h(y)|
    L_critic    = - w [f(y_r) - f(y_g)] + lambda (|grad f(y^)| - 1)^2
    L_generator =   w [|h(y_r) - h(y_g)| + |h(y_r) - h(y_g')| - |h(y_g) - h(y_g')|]

with y^ on the line between y_r and y_g. Weights of any sign enter linearly; they are
normalised to mean 1 over the training sample, never over a batch. The gradient of the
penalty passes through h(y_g') too: stopping it there makes the critic diverge.

The play with the learnt h starts from a generator that knows h = identity already
(phase `start`), for which L_generator is the energy score of Gneiting and Raftery,
JASA 102 (2007) 359, Eq. 22.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pidgan.models.backend import keras, tf
from pidgan.models.networks import Shape, residual_network

# Below this squared length the gradient of |v| is damped: sqrt has none at zero.
TINY = 1e-12
# Stream of random numbers for the point y^; those of the updates count from 0.
PENALTY = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class CramerSettings:
    """What can be chosen; the defaults are what docs/explanation/recipe reports.

    Attributes:
        n_noise: size of the generator's noise.
        width, blocks: of the generator.
        critic_width, critic_blocks, critic_output: of h.
        penalty: lambda.
        critic_updates: of the critic for one of the generator.
        batch_size: rows of one update.
        learning_rate, critic_learning_rate: at the start; both fall with a cosine.
        start: share of the steps in which h = identity.
        start_samples: generated rows for one real row while h = identity.
        average: momentum of the averaged generator weights.
    """

    n_noise: int = 16
    width: int = 64
    blocks: int = 3
    critic_width: int = 64
    critic_blocks: int = 2
    critic_output: int = 64
    penalty: float = 10.0
    critic_updates: int = 1
    batch_size: int = 256
    learning_rate: float = 3e-3
    critic_learning_rate: float = 5e-4
    start: float = 0.7
    start_samples: int = 4
    average: float = 0.999


def norm(v: tf.Tensor) -> tf.Tensor:
    """Return the Euclidean length |v| along the last axis."""
    return tf.sqrt(tf.reduce_sum(tf.square(v), axis=-1) + TINY)


def critic_loss(
    h_r: tf.Tensor, h_g: tf.Tensor, h_g2: tf.Tensor, w: tf.Tensor
) -> tf.Tensor:
    """Return -E[w (f(y_r) - f(y_g))] (Algorithm 1, the surrogate loss)."""
    f_r = norm(h_r - h_g2) - norm(h_r)
    f_g = norm(h_g - h_g2) - norm(h_g)
    return -tf.reduce_mean(w * (f_r - f_g))


def generator_loss(
    h_r: tf.Tensor, h_g: tf.Tensor, h_g2: tf.Tensor, w: tf.Tensor
) -> tf.Tensor:
    """Return E[w (|h_r - h_g| + |h_r - h_g'| - |h_g - h_g'|)] (Algorithm 1, L_g)."""
    return tf.reduce_mean(w * (norm(h_r - h_g) + norm(h_r - h_g2) - norm(h_g - h_g2)))


class CramerGAN:
    """Family `cramer`: generator and critic h play on weighted rows."""

    def __init__(self, *, shape: Shape, settings: CramerSettings, seed: int) -> None:
        """Build both networks and their optimizers."""
        self.settings = s = settings
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
            n_outputs=s.critic_output,
            width=s.critic_width,
            blocks=s.critic_blocks,
            seed=seed + 1,
            name="critic",
        )
        self.optimizer = keras.optimizers.Adam(
            s.learning_rate, beta_1=0.5, use_ema=True, ema_momentum=s.average
        )
        self.critic_optimizer = keras.optimizers.Adam(
            s.critic_learning_rate, beta_1=0.5, beta_2=0.9
        )
        self.optimizer.build(self.generator.trainable_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)
        self.phases: Mapping[str, float] = {"start": s.start, "play": 1 - s.start}

    @property
    def variables(self) -> list[Any]:
        """Return all variables, optimizers' included, in a fixed order."""
        return [
            *self.generator.variables,
            *self.critic.variables,
            *self.optimizer.variables,
            *self.critic_optimizer.variables,
        ]

    def step(
        self, batch: dict[str, Any], *, phase: str, seed: Any, rate: Any
    ) -> dict[str, Any]:
        """Do one update of the generator, after those of the critic in `play`."""
        losses = {}
        self.optimizer.learning_rate = self.settings.learning_rate * rate
        if phase == "start":
            with tf.GradientTape() as tape:
                loss = self._energy_score(batch, seed)
            self._descend(tape, loss, self.optimizer, self.generator)
            return {"generator": loss}
        self.critic_optimizer.learning_rate = self.settings.critic_learning_rate * rate
        for update in range(self.settings.critic_updates):
            with tf.GradientTape() as tape:
                surrogate, penalty = self._critic_losses(
                    batch, tf.random.fold_in(seed, update)
                )
                loss = surrogate + self.settings.penalty * penalty
            self._descend(tape, loss, self.critic_optimizer, self.critic)
            losses = {"critic": surrogate, "penalty": penalty}
        with tf.GradientTape() as tape:
            y_g, y_g2 = self._generate(batch, seed, 2)
            h_r, h_g, h_g2 = self._h(batch, batch["y"], y_g, y_g2)
            loss = generator_loss(h_r, h_g, h_g2, batch["w"])
        self._descend(tape, loss, self.optimizer, self.generator)
        return {"generator": loss, **losses}

    def losses(self, batch: dict[str, Any], *, seed: Any) -> dict[str, Any]:
        """Return the energy score, which all phases share as a measure of progress."""
        return {"energy_score": self._energy_score(batch, seed)}

    def finish(self) -> None:
        """Put the averaged weights into the generator."""
        self.optimizer.finalize_variable_values(self.generator.trainable_variables)

    def _h(self, batch: dict[str, Any], *ys: tf.Tensor) -> list[tf.Tensor]:
        """Return h of several sets of targets, each at the conditions of the batch."""
        x, pattern = (tf.tile(batch[k], (len(ys), 1)) for k in ("x", "pattern"))
        h = self.critic(_present([x, pattern, tf.concat(ys, axis=0)]))
        return list(tf.split(h, len(ys)))

    def _generate(self, batch: dict[str, Any], seed: Any, n: int) -> list[tf.Tensor]:
        """Return n independent generated targets for each row, in the loss metric."""
        x, pattern = (tf.tile(batch[k], (n, 1)) for k in ("x", "pattern"))
        shape = (tf.shape(x)[0], self.settings.n_noise)
        z = tf.random.stateless_normal(shape, seed)
        coordinates = self.generator(_present([x, pattern, z]))
        metric = tf.tile(batch["metric"], (n, 1, 1))
        return list(tf.split(tf.einsum("ni,nij->nj", coordinates, metric), n))

    def _energy_score(self, batch: dict[str, Any], seed: Any) -> tf.Tensor:
        """Return L_generator with h = identity, averaged over all pairs of samples."""
        m = self.settings.start_samples
        samples = self._generate(batch, seed, m)
        pairs = [(i, j) for i in range(m) for j in range(i)]
        losses = [
            generator_loss(batch["y"], samples[i], samples[j], batch["w"])
            for i, j in pairs
        ]
        return tf.add_n(losses) / len(pairs)

    def _critic_losses(
        self, batch: dict[str, Any], seed: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the surrogate loss and the gradient penalty of one update."""
        y_r = batch["y"]
        y_g, y_g2 = self._generate(batch, seed, 2)
        shape = (tf.shape(y_r)[0], 1)
        share = tf.random.stateless_uniform(shape, tf.random.fold_in(seed, PENALTY))
        y_hat = share * y_r + (1 - share) * y_g
        h_r, h_g, h_g2 = self._h(batch, y_r, y_g, y_g2)
        with tf.GradientTape() as tape:
            tape.watch(y_hat)
            (h_hat,) = self._h(batch, y_hat)
            f_hat = norm(h_hat - h_g2) - norm(h_hat)
        gradient = norm(tape.gradient(f_hat, y_hat))
        surrogate = critic_loss(h_r, h_g, h_g2, batch["w"])
        return surrogate, tf.reduce_mean(tf.square(gradient - 1))

    @staticmethod
    def _descend(
        tape: tf.GradientTape, loss: tf.Tensor, optimizer: Any, network: Any
    ) -> None:
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)


def _present(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Leave out inputs of size zero, for which a network has no entry."""
    kept = [v for v in inputs if v.shape[-1]]
    return kept if len(kept) > 1 else kept[0]
