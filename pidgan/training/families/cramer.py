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

Before it plays, the generator is taught. Phase `teach` fits a normalising flow T
(`pidgan.training.networks.autoregressive`), slow but found by maximum likelihood; in
phase `distil` the generator G (`pidgan.training.networks.one_pass`) learns to make of
the *same* noise what the flow makes, one coordinate at a time, at the earlier ones of
real rows:

    L_distil = sum_j E[|G_j(z_j) - T_j(z_j)| / (dT_j / dz_j + epsilon)]

The derivative is the local scale of the density: a distance is counted in units of the
noise, so that narrow structures are learnt as well as wide ones. The noise z is twice
as wide as when the generator is used: otherwise jumps of T, where noise is rare, are
pushed outwards, and too little is made beyond them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pidgan.training.backend import keras, tf
from pidgan.training.networks.autoregressive import SplineFlow, make_optimizer
from pidgan.training.networks.one_pass import OnePassGenerator
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.networks.updates import (
    descend,
    draw,
    held_out_losses,
    length,
    named_inputs,
    repeat_batch,
)

# Scale below which a distance in `distil` is not counted in units of the noise.
EPSILON = 0.5
# Standard deviation of the noise in `distil`: what is rare has to be learnt too.
SPREAD = 2.0
# Streams of random numbers for the point y^ and for the shifts of known coordinates;
# those of the updates count from 0.
PENALTY, SHIFT = 1000, 1001


@dataclasses.dataclass(frozen=True, kw_only=True)
class CramerSettings:
    """What can be chosen; the defaults are what docs/explanation/recipe reports.

    Attributes:
        width, layers: of each network of the generator, one for each target.
        teach, distil, play: share of the steps of each phase.
        batch_size: rows of one update in `play`.
        learning_rate, critic_learning_rate: in `play`. All rates fall with a cosine.
        average: momentum of the averaged generator weights in `play`.
        critic_width, critic_blocks, critic_output: of h.
        critic_updates: of the critic for one of the generator.
        penalty: lambda.
        teacher_width, teacher_blocks, teacher_bins: of the flow.
        teach_batch_size, teach_learning_rate: in `teach`.
        teach_weight_decay: in `teach`, for 300,000 effective rows; of fewer it is
            larger (`flow.make_optimizer`).
        distil_batch_size, distil_learning_rate: in `distil`.
        xla: compile the steps with XLA, which takes some seconds and then halves their
            time; None does so in trainings of a minute or 2000 steps and more.
    """

    width: int = 48
    layers: int = 3
    teach: float = 0.4
    distil: float = 0.6
    play: float = 0.0
    batch_size: int = 256
    learning_rate: float = 1e-4
    critic_learning_rate: float = 5e-4
    average: float = 0.999
    critic_width: int = 64
    critic_blocks: int = 2
    critic_output: int = 64
    critic_updates: int = 1
    penalty: float = 10.0
    teacher_width: int = 64
    teacher_blocks: int = 2
    teacher_bins: int = 16
    teach_batch_size: int = 1024
    teach_learning_rate: float = 5e-3
    teach_weight_decay: float = 0.05
    distil_batch_size: int = 1024
    distil_learning_rate: float = 1e-2
    xla: bool | None = None


def critic_loss(
    h_r: tf.Tensor, h_g: tf.Tensor, h_g2: tf.Tensor, w: tf.Tensor
) -> tf.Tensor:
    """Return -E[w (f(y_r) - f(y_g))] (Algorithm 1, the surrogate loss)."""
    f_r = length(h_r - h_g2) - length(h_r)
    f_g = length(h_g - h_g2) - length(h_g)
    return -tf.reduce_mean(w * (f_r - f_g))


def generator_loss(
    h_r: tf.Tensor, h_g: tf.Tensor, h_g2: tf.Tensor, w: tf.Tensor
) -> tf.Tensor:
    """Return E[w (|h_r - h_g| + |h_r - h_g'| - |h_g - h_g'|)] (Algorithm 1, L_g)."""
    return tf.reduce_mean(
        w * (length(h_r - h_g) + length(h_r - h_g2) - length(h_g - h_g2))
    )


class CramerGAN:
    """Family `cramer`: a generator is taught, then plays against the critic h."""

    def __init__(self, *, shape: Shape, settings: CramerSettings, seed: int) -> None:
        """Build the networks and their optimizers."""
        self.settings = s = settings
        self.needs_positive_weights = s.teach > 0 or s.distil > 0
        self.n_targets = self.n_noise = shape.n_targets
        conditions = {"conditions": shape.n_conditions, "pattern": shape.n_patterns}
        self.generator = OnePassGenerator(
            shape=shape, width=s.width, layers=s.layers, seed=seed
        )
        self.critic = residual_network(
            {**conditions, "targets": shape.n_targets},
            n_outputs=s.critic_output,
            width=s.critic_width,
            blocks=s.critic_blocks,
            seed=seed + 1,
            name="critic",
        )
        self.teacher = SplineFlow(
            shape=shape,
            width=s.teacher_width,
            blocks=s.teacher_blocks,
            bins=s.teacher_bins,
            seed=seed + 3,
        )
        self.teach_optimizer = make_optimizer(
            s.teach_learning_rate,
            weight_decay=s.teach_weight_decay,
            n_rows=shape.n_rows,
        )
        self.distil_optimizer = keras.optimizers.Adam(s.distil_learning_rate)
        self.optimizer = keras.optimizers.Adam(
            s.learning_rate, beta_1=0.5, use_ema=True, ema_momentum=s.average
        )
        self.critic_optimizer = keras.optimizers.Adam(
            s.critic_learning_rate, beta_1=0.5, beta_2=0.9
        )
        self._trained = (
            (self.teach_optimizer, self.teacher.variables),
            (self.distil_optimizer, self.generator.variables),
            (self.optimizer, self.generator.variables),
            (self.critic_optimizer, self.critic.trainable_variables),
        )
        for optimizer, variables in self._trained:
            optimizer.build(variables)
        steps = {"teach": self._teach, "distil": self._distil, "play": self._play}
        self._steps: Mapping[str, Callable[..., dict[str, Any]]] = steps
        self.phases: Mapping[str, float] = {name: getattr(s, name) for name in steps}
        self.batch_sizes: Mapping[str, int] = {
            "teach": s.teach_batch_size,
            "distil": s.distil_batch_size,
            "play": s.batch_size,
        }

    @property
    def variables(self) -> list[Any]:
        """Return all variables, optimizers' included, in a fixed order."""
        optimizers = [v for optimizer, _ in self._trained for v in optimizer.variables]
        networks = [self.teacher, self.generator, self.critic]
        return [*(v for network in networks for v in network.variables), *optimizers]

    def step(
        self, batch: dict[str, Any], *, phase: str, seed: Any, rate: Any
    ) -> dict[str, Any]:
        """Do one update of a phase and return its losses."""
        return self._steps[phase](batch, seed, rate)

    def losses(self, batch: dict[str, Any], *, seed: Any) -> dict[str, Any]:
        """Return the energy score of the generator, a measure that no phase changes."""
        return held_out_losses(self.generator, batch, n_noise=self.n_noise, seed=seed)

    def end(self, phase: str) -> None:
        """Put the averaged weights into the generator once it has played."""
        if phase == "play":
            self.optimizer.finalize_variable_values(self.generator.variables)

    def _teach(self, batch: dict[str, Any], seed: Any, rate: Any) -> dict[str, Any]:
        """Update the teacher by maximum likelihood."""
        self.teach_optimizer.learning_rate = self.settings.teach_learning_rate * rate
        with tf.GradientTape() as tape:
            loss = self.teacher.loss(batch)
        descend(tape, loss, self.teach_optimizer, self.teacher.variables)
        return {"likelihood": loss}

    def _distil(self, batch: dict[str, Any], seed: Any, rate: Any) -> dict[str, Any]:
        """Update the generator towards what the teacher makes of the same noise."""
        self.distil_optimizer.learning_rate = self.settings.distil_learning_rate * rate
        shape = (self.n_targets, tf.shape(batch["x"])[0])
        noise = tf.random.stateless_normal(shape, seed, stddev=SPREAD)
        y_t, slope, earlier = self.teacher.respond(batch, noise)
        weight = batch["positive_w"] * tf.transpose(batch["free"]) / (slope + EPSILON)
        with tf.GradientTape() as tape:
            y_g = self.generator.respond(
                batch, earlier, noise, tf.random.fold_in(seed, SHIFT)
            )
            loss = tf.reduce_mean(tf.reduce_sum(weight * tf.abs(y_g - y_t), axis=0))
        descend(tape, loss, self.distil_optimizer, self.generator.variables)
        return {"distance": loss}

    def _play(self, batch: dict[str, Any], seed: Any, rate: Any) -> dict[str, Any]:
        """Update the critic, once or more, and the generator."""
        self.optimizer.learning_rate = self.settings.learning_rate * rate
        self.critic_optimizer.learning_rate = self.settings.critic_learning_rate * rate
        for update in range(self.settings.critic_updates):
            with tf.GradientTape() as tape:
                surrogate, penalty = self._critic_losses(
                    batch, tf.random.fold_in(seed, update)
                )
                loss = surrogate + self.settings.penalty * penalty
            descend(tape, loss, self.critic_optimizer, self.critic.trainable_variables)
        with tf.GradientTape() as tape:
            y_g, y_g2 = self._generate(batch, seed)
            h_r, h_g, h_g2 = self._h(batch, batch["y"], y_g, y_g2)
            loss = generator_loss(h_r, h_g, h_g2, batch["w"])
        descend(tape, loss, self.optimizer, self.generator.variables)
        return {"generator": loss, "critic": surrogate, "penalty": penalty}

    def _h(self, batch: dict[str, Any], *ys: tf.Tensor) -> list[tf.Tensor]:
        """Return h of several sets of targets, each at the conditions of the batch."""
        rows = repeat_batch(batch, len(ys))
        h = self.critic(named_inputs(rows, targets=tf.concat(ys, axis=0)))
        return list(tf.split(h, len(ys)))

    def _generate(self, batch: dict[str, Any], seed: Any) -> Any:
        """Return two independent generated targets for each row."""
        samples = draw(self.generator, batch, n_noise=self.n_noise, copies=2, seed=seed)
        return tf.unstack(samples)

    def _critic_losses(
        self, batch: dict[str, Any], seed: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the surrogate loss and the gradient penalty of one update."""
        y_r = batch["y"]
        y_g, y_g2 = self._generate(batch, seed)
        shape = (tf.shape(y_r)[0], 1)
        share = tf.random.stateless_uniform(shape, tf.random.fold_in(seed, PENALTY))
        y_hat = share * y_r + (1 - share) * y_g
        h_r, h_g, h_g2 = self._h(batch, y_r, y_g, y_g2)
        with tf.GradientTape() as tape:
            tape.watch(y_hat)
            (h_hat,) = self._h(batch, y_hat)
            f_hat = length(h_hat - h_g2) - length(h_hat)
        gradient = length(tape.gradient(f_hat, y_hat))
        surrogate = critic_loss(h_r, h_g, h_g2, batch["w"])
        return surrogate, tf.reduce_mean(tf.square(gradient - 1))
