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

Before it plays, the generator is taught. Phase `teach` fits a normalising flow
(`pidgan.models.flow`), slow but found by maximum likelihood; in phase `distil` the
generator learns to make, in one pass, what the flow makes of the *same* noise.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pidgan.errors import PidganError
from pidgan.models.backend import keras, tf
from pidgan.models.flow import SplineFlow
from pidgan.models.networks import Shape, residual_network

# Below this squared length the gradient of |v| is damped: sqrt has none at zero.
TINY = 1e-12
# Stream of random numbers for the point y^; those of the updates count from 0.
PENALTY = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class CramerSettings:
    """What can be chosen; the defaults are what docs/explanation/recipe reports.

    Attributes:
        n_noise: size of the generator's noise; None is as many as there are targets,
            which is also the least that `distil` can do with.
        width, blocks: of the generator.
        teach, distil, play: share of the steps of each phase.
        batch_size: rows of one update in `play`.
        learning_rate, critic_learning_rate: in `play`. All rates fall with a cosine.
        average: momentum of the averaged generator weights in `play`.
        critic_width, critic_blocks, critic_output: of h.
        critic_updates: of the critic for one of the generator.
        penalty: lambda.
        teacher_width, teacher_blocks, teacher_bins: of the flow.
        teach_batch_size, teach_learning_rate: in `teach`.
        distil_batch_size, distil_learning_rate: in `distil`.
        xla: compile the steps with XLA; pays in trainings of more than a few minutes.
    """

    n_noise: int | None = None
    width: int = 64
    blocks: int = 3
    teach: float = 0.45
    distil: float = 0.45
    play: float = 0.1
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
    teach_learning_rate: float = 2e-3
    distil_batch_size: int = 1024
    distil_learning_rate: float = 2e-3
    xla: bool = False


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
    """Family `cramer`: a generator is taught, then plays against the critic h."""

    def __init__(self, *, shape: Shape, settings: CramerSettings, seed: int) -> None:
        """Build the networks and their optimizers.

        Raises:
            PidganError: too little noise to distil the teacher.
        """
        self.settings = s = settings
        self.needs_positive_weights = s.teach > 0
        self.n_targets = shape.n_targets
        self.n_noise = shape.n_targets if s.n_noise is None else s.n_noise
        if s.distil and self.n_noise < shape.n_targets:
            raise PidganError(
                f"n_noise is {self.n_noise}; phase 'distil' needs at least one number "
                f"for each of the {shape.n_targets} targets"
            )
        conditions = {"conditions": shape.n_conditions, "pattern": shape.n_patterns}
        self.generator = residual_network(
            {**conditions, "noise": self.n_noise},
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
        self.teacher = SplineFlow(
            shape=shape,
            width=s.teacher_width,
            blocks=s.teacher_blocks,
            bins=s.teacher_bins,
            seed=seed + 3,
        )
        self.teach_optimizer = keras.optimizers.Adam(s.teach_learning_rate)
        self.distil_optimizer = keras.optimizers.Adam(s.distil_learning_rate)
        self.optimizer = keras.optimizers.Adam(
            s.learning_rate, beta_1=0.5, use_ema=True, ema_momentum=s.average
        )
        self.critic_optimizer = keras.optimizers.Adam(
            s.critic_learning_rate, beta_1=0.5, beta_2=0.9
        )
        self._trained = (
            (self.teach_optimizer, self.teacher.variables),
            (self.distil_optimizer, self.generator.trainable_variables),
            (self.optimizer, self.generator.trainable_variables),
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
        """Return the energy score of the generator, a measure that no phase changes.

        It is L_generator with h = identity (Gneiting and Raftery, JASA 102 (2007) 359,
        Eq. 22).
        """
        y_g, y_g2 = self._generate(batch, seed)
        return {"energy_score": generator_loss(batch["y"], y_g, y_g2, batch["w"])}

    def end(self, phase: str) -> None:
        """Put the averaged weights into the generator once it has played."""
        if phase == "play":
            self.optimizer.finalize_variable_values(self.generator.trainable_variables)

    def _teach(self, batch: dict[str, Any], seed: Any, rate: Any) -> dict[str, Any]:
        """Update the teacher by maximum likelihood."""
        self.teach_optimizer.learning_rate = self.settings.teach_learning_rate * rate
        with tf.GradientTape() as tape:
            loss = self.teacher.loss(batch)
        _descend(tape, loss, self.teach_optimizer, self.teacher.variables)
        return {"likelihood": loss}

    def _distil(self, batch: dict[str, Any], seed: Any, rate: Any) -> dict[str, Any]:
        """Update the generator towards what the teacher makes of the same noise."""
        self.distil_optimizer.learning_rate = self.settings.distil_learning_rate * rate
        noise = tf.random.stateless_normal(
            (tf.shape(batch["x"])[0], self.n_noise), seed
        )
        y_t = self.teacher.generate(batch, noise[:, : self.n_targets])
        with tf.GradientTape() as tape:
            y_g = self._generator(batch["x"], batch["pattern"], batch["free"], noise)
            loss = tf.reduce_mean(tf.reduce_sum(tf.abs(y_g - y_t), axis=1))
        _descend(tape, loss, self.distil_optimizer, self.generator.trainable_variables)
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
            _descend(tape, loss, self.critic_optimizer, self.critic.trainable_variables)
        with tf.GradientTape() as tape:
            y_g, y_g2 = self._generate(batch, seed)
            h_r, h_g, h_g2 = self._h(batch, batch["y"], y_g, y_g2)
            loss = generator_loss(h_r, h_g, h_g2, batch["w"])
        _descend(tape, loss, self.optimizer, self.generator.trainable_variables)
        return {"generator": loss, "critic": surrogate, "penalty": penalty}

    def _h(self, batch: dict[str, Any], *ys: tf.Tensor) -> list[tf.Tensor]:
        """Return h of several sets of targets, each at the conditions of the batch."""
        x, pattern = (tf.tile(batch[k], (len(ys), 1)) for k in ("x", "pattern"))
        h = self.critic(_present([x, pattern, tf.concat(ys, axis=0)]))
        return list(tf.split(h, len(ys)))

    def _generate(self, batch: dict[str, Any], seed: Any) -> list[tf.Tensor]:
        """Return two independent generated targets for each row."""
        x, pattern, free = (tf.tile(batch[k], (2, 1)) for k in ("x", "pattern", "free"))
        noise = tf.random.stateless_normal((tf.shape(x)[0], self.n_noise), seed)
        return list(tf.split(self._generator(x, pattern, free, noise), 2))

    def _generator(
        self, x: tf.Tensor, pattern: tf.Tensor, free: tf.Tensor, noise: tf.Tensor
    ) -> tf.Tensor:
        """Return the coordinates that the generator makes, zero on atoms."""
        y: tf.Tensor = free * self.generator(_present([x, pattern, noise]))
        return y

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
            f_hat = norm(h_hat - h_g2) - norm(h_hat)
        gradient = norm(tape.gradient(f_hat, y_hat))
        surrogate = critic_loss(h_r, h_g, h_g2, batch["w"])
        return surrogate, tf.reduce_mean(tf.square(gradient - 1))


def _descend(
    tape: tf.GradientTape, loss: tf.Tensor, optimizer: Any, variables: list[Any]
) -> None:
    optimizer.apply(tape.gradient(loss, variables), variables)


def _present(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Leave out inputs of size zero, for which a network has no entry."""
    kept = [v for v in inputs if v.shape[-1]]
    return kept if len(kept) > 1 else kept[0]
