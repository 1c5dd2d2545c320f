"""Showers: a model of the energies, followed by a model of the shape.

What makes a calorimeter useful, the total energy and its shares in the layers, are few
numbers: a flow learns them by maximum likelihood, given the conditions. The shape, how
each layer's energy is shared by its cells, is learnt given conditions *and* energies.
Scheme `layers` of `pidgan.training.targets.cells` makes these coordinates of a shower,
and puts them together again; with scheme `cells`, everything is shape.

The families differ in their model of the shape
(`pidgan.training.networks.energies_and_shape`) and in how it is learnt:

- `shower_flow`: a flow, by likelihood. For up to some hundred cells.
- `shower_vae`: a variational autoencoder; `network = "conv"` for images and voxels.
- `shower_gan`: the decoder alone, against a Cramér critic
  (`pidgan.training.families.cramer`)
  that sees the coordinates and, if asked for, energies and moments of the shower.

In each, phase `play` adds the critic to what likelihood has taught.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pidgan.errors import PidganError
from pidgan.training.backend import keras, tf
from pidgan.training.families.cramer import critic_loss, generator_loss
from pidgan.training.networks.censored import Standard
from pidgan.training.networks.couplings import CouplingFlow
from pidgan.training.networks.energies_and_shape import (
    ConvolutionalStandard,
    FlowPart,
    LatentPart,
    Part,
)
from pidgan.training.networks.perceptrons import Residual, Shape, Take, residual_network
from pidgan.training.networks.shower_critic import Observables, constraint, standardise
from pidgan.training.networks.updates import length

# Stream of random numbers for the point y^ of the gradient penalty.
PENALTY = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowerSettings:
    """What can be chosen.

    Attributes:
        shape: model of the shape, "flow" or "latent".
        network: of a latent model, "dense" or "conv".
        encoder: whether a latent model is a variational autoencoder.
        latent: latent numbers.
        energy_width, energy_blocks, energy_couplings: of the model of energies.
        width, blocks, couplings: of the model of the shape; narrow, as showers to
            learn from are few.
        channels: of the finest hidden grid of convolutions.
        likelihood, play: share of the steps of each phase.
        batch_size, learning_rate: in `likelihood`; rates fall with a cosine.
        weight_decay: in `likelihood`.
        jitter: standard deviation of the noise on coordinates of flows, in units of
            their scale: shares of sum 1 have no density without.
        average: momentum of the averaged weights.
        play_batch_size, play_learning_rate, critic_learning_rate: in `play`.
        critic_width, critic_blocks, critic_output: of the critic.
        critic_updates: of the critic for one of the generator.
        penalty: lambda of the Cramér GAN.
        critic_sees: observables shown to the critic, names with commas between
            (`shower_critic.OBSERVABLES`).
        constrain: observables whose mean and deviation are constrained, likewise.
        constraint: factor of that term.
        xla: compile the steps with XLA.
    """

    shape: Literal["flow", "latent"] = "flow"
    network: Literal["dense", "conv"] = "dense"
    encoder: bool = True
    latent: int = 32
    energy_width: int = 16
    energy_blocks: int = 1
    energy_couplings: int = 6
    width: int = 32
    blocks: int = 1
    couplings: int = 4
    channels: int = 4
    likelihood: float = 1.0
    play: float = 0.0
    batch_size: int = 512
    learning_rate: float = 5e-3
    weight_decay: float = 0.3
    jitter: float = 0.02
    average: float = 0.99
    play_batch_size: int = 128
    play_learning_rate: float = 1e-4
    critic_learning_rate: float = 5e-4
    critic_width: int = 128
    critic_blocks: int = 2
    critic_output: int = 64
    critic_updates: int = 1
    penalty: float = 10.0
    critic_sees: str = "centre,width"
    constrain: str = ""
    constraint: float = 0.1
    xla: bool = False


class ShowerModel:
    """Families `shower_...`: a model of the energies and one of the shape."""

    # Weights of showers are never negative.
    needs_positive_weights = False

    def __init__(self, *, shape: Shape, settings: ShowerSettings, seed: int) -> None:
        """Build the networks and their optimizers.

        Raises:
            PidganError: convolutions, but cells that fill no grid; a mode that there
                is not.
        """
        self.settings = s = settings
        self.parts = _make_parts(shape, s, seed)
        self.n_noise = sum(part.n_noise for _, part in self.parts)
        self.generator = self._build(shape)
        self.taught = [v for _, part in self.parts for v in part.variables]
        self.played = self.parts[-1][1].played
        self.optimizer = keras.optimizers.AdamW(
            s.learning_rate,
            weight_decay=s.weight_decay,
            global_clipnorm=10.0,
            use_ema=True,
            ema_momentum=s.average,
        )
        self.optimizer.build(self.taught)
        self.phases: Mapping[str, float] = {"likelihood": s.likelihood, "play": s.play}
        self.batch_sizes: Mapping[str, int] = {
            "likelihood": s.batch_size,
            "play": s.play_batch_size,
        }
        self.seen, self.constrained = (
            _observables(shape, text) for text in (s.critic_sees, s.constrain)
        )
        self._optimizers = [self.optimizer]
        if s.play:
            self._add_critic(shape, seed)

    @property
    def variables(self) -> list[Any]:
        """Return all variables, optimizers' included, in a fixed order."""
        learnt = {id(v): v for v in [*self.generator.variables, *self.taught]}
        critic = self.critic.variables if self.settings.play else []
        states = [v for optimizer in self._optimizers for v in optimizer.variables]
        return [*learnt.values(), *critic, *states]

    def step(
        self, batch: dict[str, Any], *, phase: str, seed: Any, rate: Any
    ) -> dict[str, Any]:
        """Do one update of a phase and return its losses."""
        if phase == "play":
            return self._play(batch, seed, rate)
        self.optimizer.learning_rate = self.settings.learning_rate * rate
        with tf.GradientTape() as tape:
            losses = self.losses(batch, seed=seed)
            loss = tf.add_n(list(losses.values()))
        self.optimizer.apply(tape.gradient(loss, self.taught), self.taught)
        return losses

    def losses(self, batch: dict[str, Any], *, seed: Any) -> dict[str, Any]:
        """Return the losses of `likelihood` without an update."""
        found: dict[str, Any] = {}
        for _, losses, _ in self._complete(batch, seed):
            found |= {k: tf.reduce_mean(batch["w"] * v) for k, v in losses.items()}
        return found

    def end(self, phase: str) -> None:
        """Put the averaged weights into the networks."""
        if phase == "play":
            self.player.finalize_variable_values(self.played)
        else:
            self.optimizer.finalize_variable_values(self.taught)
            for _, part in self.parts:
                part.settle()

    def _build(self, shape: Shape) -> Any:
        """Return the keras model (conditions, noise) -> coordinates."""
        conditions = keras.Input((shape.n_conditions,), name="conditions")
        noise = keras.Input((self.n_noise,), name="noise")
        context, made, start = conditions, [], 0
        for _, part in self.parts:
            mine = Take(start, start + part.n_noise)(noise)
            made.append(part.generate(mine, context))
            context = keras.layers.Concatenate()([conditions, *made])
            start += part.n_noise
        output = keras.layers.Concatenate()(made) if len(made) > 1 else made[0]
        return keras.Model([conditions, noise], output, name="generator")

    def _complete(
        self, batch: dict[str, Any], seed: Any
    ) -> list[tuple[tf.Tensor, dict[str, Any], tf.Tensor]]:
        """Return context, losses of rows and imputed coordinates of each part."""
        found: list[tuple[tf.Tensor, dict[str, Any], tf.Tensor]] = []
        context, start = batch["x"], 0
        for k, (n, part) in enumerate(self.parts):
            mine = slice(start, start + n)
            losses, full = part.losses(
                batch["y"][:, mine],
                batch["free"][:, mine],
                context,
                seed=tf.random.fold_in(seed, k),
            )
            found.append((context, losses, full))
            context = tf.concat([batch["x"], *(f for _, _, f in found)], axis=1)
            start += n
        return found

    def _add_critic(self, shape: Shape, seed: int) -> None:
        """Build the critic h and the optimizers of phase `play`."""
        s = self.settings
        n = self.parts[-1][0]
        n_seen = self.seen(tf.zeros((2, shape.n_targets))).shape[1] if self.seen else 0
        context = shape.n_conditions + shape.n_targets - n
        self.critic = residual_network(
            {"context": context, "shape": n, "observables": n_seen},
            n_outputs=s.critic_output,
            width=s.critic_width,
            blocks=s.critic_blocks,
            seed=seed + 1,
            name="critic",
        )
        self.player = keras.optimizers.Adam(
            s.play_learning_rate, beta_1=0.5, use_ema=True, ema_momentum=s.average
        )
        self.critic_optimizer = keras.optimizers.Adam(
            s.critic_learning_rate, beta_1=0.5, beta_2=0.9
        )
        self.player.build(self.played)
        self.critic_optimizer.build(self.critic.trainable_variables)
        self._optimizers += [self.player, self.critic_optimizer]

    def _play(self, batch: dict[str, Any], seed: Any, rate: Any) -> dict[str, Any]:
        """Update the critic, once or more, and the model of the shape."""
        s = self.settings
        self.player.learning_rate = s.play_learning_rate * rate
        self.critic_optimizer.learning_rate = s.critic_learning_rate * rate
        done = self._complete(batch, seed)
        context, _, real = done[-1]
        energies = [full for _, _, full in done[:-1]]
        for update in range(s.critic_updates):
            stream = tf.random.fold_in(seed, update)
            with tf.GradientTape() as tape:
                surrogate, penalty = self._critic_losses(
                    real, context, energies, batch["w"], stream
                )
                loss = surrogate + s.penalty * penalty
            variables = self.critic.trainable_variables
            self.critic_optimizer.apply(tape.gradient(loss, variables), variables)
        with tf.GradientTape() as tape:
            fakes = self._generate(context, seed)
            h = self._h(context, energies, real, *fakes)
            losses = {"generator": generator_loss(h[0], h[1], h[2], batch["w"])}
            if self.constrained:
                shown = standardise(
                    *(
                        self.constrained(tf.concat([*energies, y], axis=1))
                        for y in (real, fakes[0])
                    )
                )
                losses["constraint"] = s.constraint * constraint(*shown)
            loss = tf.add_n(list(losses.values()))
        self.player.apply(tape.gradient(loss, self.played), self.played)
        return losses | {"critic": surrogate, "penalty": penalty}

    def _generate(self, context: tf.Tensor, seed: Any) -> list[tf.Tensor]:
        """Return two independent shapes for each row."""
        part, twice = self.parts[-1][1], tf.tile(context, (2, 1))
        noise = tf.random.stateless_normal((tf.shape(twice)[0], part.n_noise), seed)
        return list(tf.split(part.generate(noise, twice), 2))

    def _h(
        self, context: tf.Tensor, energies: list[tf.Tensor], *shapes: tf.Tensor
    ) -> list[tf.Tensor]:
        """Return h of several sets of shapes, each in the context of the batch."""
        inputs = [tf.tile(context, (len(shapes), 1)), tf.concat(shapes, axis=0)]
        if self.seen:
            whole = [tf.concat([*energies, y], axis=1) for y in shapes]
            shown = standardise(*(self.seen(z) for z in whole))
            inputs.append(tf.concat(shown, axis=0))
        return list(tf.split(self.critic(inputs), len(shapes)))

    def _critic_losses(
        self,
        real: tf.Tensor,
        context: tf.Tensor,
        energies: list[tf.Tensor],
        w: tf.Tensor,
        seed: Any,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the surrogate loss and the gradient penalty of one update."""
        fake, fake2 = self._generate(context, seed)
        share = tf.random.stateless_uniform(
            (tf.shape(real)[0], 1), tf.random.fold_in(seed, PENALTY)
        )
        between = share * real + (1 - share) * fake
        with tf.GradientTape() as tape:
            tape.watch(between)
            h_r, h_g, h_g2, h_hat = self._h(
                context, energies, real, fake, fake2, between
            )
            f_hat = length(h_hat - h_g2) - length(h_hat)
        gradient = length(tape.gradient(f_hat, between))
        penalty = tf.reduce_mean(tf.square(gradient - 1))
        return critic_loss(h_r, h_g, h_g2, w), penalty


def _make_parts(shape: Shape, s: ShowerSettings, seed: int) -> list[tuple[int, Part]]:
    """Return how many coordinates each part makes, and the part."""
    n_shape = shape.n_targets - shape.n_energies
    parts: list[tuple[int, Part]] = []
    if shape.n_energies:
        flow = {
            "couplings": s.energy_couplings,
            "width": s.energy_width,
            "blocks": s.energy_blocks,
        }
        parts.append(
            (shape.n_energies, _flow_part("energies", shape.n_energies, s, flow, seed))
        )
    if not n_shape:
        return parts
    if s.shape == "flow":
        flow = {"couplings": s.couplings, "width": s.width, "blocks": s.blocks}
        parts.append((n_shape, _flow_part("shape", n_shape, s, flow, seed + 100)))
    elif s.shape == "latent":
        parts.append((n_shape, _latent_part(n_shape, shape, s, seed + 100)))
    else:
        raise PidganError(f"shape is {s.shape!r}, expected flow or latent")
    return parts


def _flow_part(
    name: str, n: int, s: ShowerSettings, flow: dict[str, int], seed: int
) -> FlowPart:
    return FlowPart(
        n,
        name=name,
        standard=Standard(n, width=flow["width"], blocks=flow["blocks"], seed=seed),
        flow=CouplingFlow(n, **flow, seed=seed + 50, name=name),
        jitter=s.jitter,
    )


def _latent_part(n: int, shape: Shape, s: ShowerSettings, seed: int) -> LatentPart:
    if s.network not in ("dense", "conv"):
        raise PidganError(f"network is {s.network!r}, expected dense or conv")
    if s.network == "conv" and not shape.image:
        raise PidganError(
            f"network 'conv' needs cells that fill one grid; the {n} shares of cells "
            "of this geometry do not: take network 'dense'"
        )
    decoder: Any = Standard(n, width=s.width, blocks=s.blocks, seed=seed)
    if s.network == "conv":
        decoder = ConvolutionalStandard(
            shape.image, channels=s.channels, width=s.width, seed=seed
        )
    return LatentPart(
        n,
        name="shape",
        latent=s.latent,
        decoder=decoder,
        encoder=Residual(width=s.width, blocks=s.blocks, seed=seed + 50)
        if s.encoder
        else None,
    )


def _observables(shape: Shape, text: str) -> Observables | None:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or shape.transform is None:
        return None
    return Observables(shape.transform, shape.geometry, names)
