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
  (`pidgan.training.families.cramer`) that sees the coordinates and, if asked for,
  energies and moments of the shower. A critic of the total and a constrainer may join
  (`pidgan.training.families.shower_games`).

In each, phase `play` adds the critic to what likelihood has taught.
"""

import dataclasses
from typing import Any, Literal

from pidgan.errors import PidganError
from pidgan.training.backend import keras, tf
from pidgan.training.families import cramer
from pidgan.training.families.settings import Span
from pidgan.training.families.shower_games import Constrainer, TotalGame
from pidgan.training.networks import draws
from pidgan.training.networks.energies_and_shape import (
    ConvolutionalStandard,
    FlowPart,
    LatentPart,
    Part,
    Standard,
)
from pidgan.training.networks.perceptrons import Residual, Shape, Take, residual_network
from pidgan.training.networks.shower_critic import Observables, constraint, standardise
from pidgan.training.networks.updates import kernel_score, minus_distance
from pidgan.training.phases import Batch, Descent, Family, Optimizer, Phase, Update

# Context, losses of rows and imputed coordinates of a part.
Completed = tuple[tf.Tensor, dict[str, Any], tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowerFlow:
    """Showers by two flows, one of the energies and one of the shape.

    Attributes:
        shape: Model of the shape, "flow" or "latent".
        network: Network of a latent model, "dense" or "conv".
        encoder: Whether a latent model is a variational autoencoder.
        latent: Number of latent numbers.
        energy_width: Width of the networks in the model of the energies.
        energy_blocks: Number of residual blocks in the model of the energies.
        energy_couplings: Number of couplings in the flow of the energies.
        width: Width of the networks in the model of the shape; narrow, as showers to
            learn from are few.
        blocks: Number of residual blocks in the model of the shape.
        couplings: Number of couplings in the flow of the shape.
        channels: Number of channels in the finest hidden grid of convolutions.
        likelihood: Share of the steps in phase `likelihood`.
        play: Share of the steps in phase `play`.
        batch_size: Number of showers of a step in phase `likelihood`.
        learning_rate: Learning rate at the start of phase `likelihood`.
        weight_decay: Weight decay in phase `likelihood`.
        jitter: Standard deviation of the noise on coordinates of flows, in units of
            their scale: shares of sum 1 have no density without.
        average: Largest momentum of the averaged weights.
        play_batch_size: Number of showers of a step in phase `play`.
        play_learning_rate: Learning rate of the shape at the start of phase `play`.
        critic_learning_rate: Learning rate of the critic at the start of phase `play`.
        critic_width: Width of the critic.
        critic_blocks: Number of residual blocks of the critic.
        critic_output: Number of outputs of the critic h.
        critic_updates: Number of updates of the critic for one of the shape.
        penalty: Factor lambda of the gradient penalty.
        critic_sees: Observables that are shown to the critic: names with commas between
            them, of `total`, `layers`, `centre` and `width`.
        constrain: Observables of which mean and deviation are constrained, by the same
            names.
        constraint: Factor of the constraint.
        energy_critic: Factor of the loss of a second critic, which sees the total
            energy alone; 0 for none. Where the total has a model of its own, this model
            plays too.
        constrainer: Factor of a constraint by a network that finds the conditions of
            showers, as energy and impact point; 0 for none.
        xla: Whether the steps are compiled with XLA.
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
    energy_critic: float = 0.0
    constrainer: float = 0.0
    xla: bool = False

    spans = {  # noqa: RUF012
        "energy_width": Span(8, 32, log=True),
        "energy_couplings": Span(4, 8),
        "width": Span(16, 96, log=True),
        "couplings": Span(2, 6),
        "learning_rate": Span(1e-3, 1e-2, log=True),
        "weight_decay": Span(0.03, 1, log=True),
        "jitter": Span(0.01, 0.05, log=True),
    }

    @property
    def compares_showers(self) -> bool:
        """Whether a loss depends on all showers of a step together.

        Observables are shown in units of their deviation, and constrained, among all.
        """
        return self.play > 0 and bool(self.critic_sees or self.constrain)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowerVae(ShowerFlow):
    """Showers by a flow of the energies and a variational autoencoder of the shape."""

    shape: Literal["flow", "latent"] = "latent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowerGan(ShowerFlow):
    """Showers by a flow of the energies and a Cramér GAN of the shape."""

    shape: Literal["flow", "latent"] = "latent"
    encoder: bool = False
    likelihood: float = 0.3
    play: float = 0.7


def build(settings: ShowerFlow, *, shape: Shape, seed: int) -> Family:
    """Return the generator, the phase of the likelihood, and the game if any."""
    s = settings
    parts = _make_parts(shape, s, seed)
    n_noise = sum(part.n_noise for part in parts)
    generator = _join(parts, shape.n_conditions, n_noise)

    def losses(batch: Batch, seed: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _, rows, _ in _complete(parts, batch, seed):
            found |= {k: tf.reduce_mean(batch["w"] * v) for k, v in rows.items()}
        return found

    def settle() -> None:
        for part in parts:
            part.settle()

    optimizer = Optimizer(
        s.learning_rate, weight_decay=s.weight_decay, clip=10.0, average=s.average
    )
    variables = [v for part in parts for v in part.variables]
    updates = [Update(losses, Descent(variables, optimizer, held_out=losses))]
    size = s.likelihood, s.batch_size
    phases = [Phase("likelihood", *size, updates=updates, settle=settle)]
    observables = [_observables(shape, s.critic_sees), _observables(shape, s.constrain)]
    if s.play:
        phases.append(_play(parts, *observables, s=s, shape=shape, seed=seed))
    return Family(generator=generator, n_noise=n_noise, phases=phases)


def _join(parts: list[Part], n_conditions: int, n_noise: int) -> Any:
    """Return the keras model (conditions, noise) -> coordinates."""
    conditions = keras.Input((n_conditions,), name="conditions")
    noise = keras.Input((n_noise,), name="noise")
    context, made, start = conditions, [], 0
    for part in parts:
        mine = Take(start, start + part.n_noise)(noise)
        made.append(part.generate(mine, context))
        context = keras.layers.Concatenate()([conditions, *made])
        start += part.n_noise
    output = keras.layers.Concatenate()(made) if len(made) > 1 else made[0]
    return keras.Model([conditions, noise], output, name="generator")


def _complete(parts: list[Part], batch: Batch, seed: Any) -> list[Completed]:
    """Return context, losses of rows and imputed coordinates of each part."""
    found: list[Completed] = []
    context, start = batch["x"], 0
    for k, part in enumerate(parts):
        y, free = (batch[name][:, start : start + part.n] for name in ("y", "free"))
        losses, full = part.losses(y, free, context, seed=tf.random.fold_in(seed, k))
        found.append((context, losses, full))
        context = tf.concat([batch["x"], *(f for _, _, f in found)], axis=1)
        start += part.n
    return found


def _play(
    parts: list[Part],
    seen: Observables | None,
    constrained: Observables | None,
    *,
    s: ShowerFlow,
    shape: Shape,
    seed: int,
) -> Phase:
    """Return the game of the model of the shape against a Cramér critic h."""
    part, n = parts[-1], parts[-1].n
    n_seen = seen(tf.zeros((2, shape.n_targets))).shape[1] if seen else 0
    context = shape.n_conditions + shape.n_targets - n
    inputs = {"context": context, "shape": n, "observables": n_seen}
    size = {"width": s.critic_width, "blocks": s.critic_blocks}
    critic = residual_network(inputs, s.critic_output, **size, seed=seed + 1)

    def prepare(batch: Batch, seed: Any) -> Batch:
        """Add the context of the shape, its energies and the imputed real shape."""
        done = _complete(parts, batch, seed)
        context, _, real = done[-1]
        energies = [full for _, _, full in done[:-1]]
        return {**batch, "context": context, "energies": energies, "real": real}

    def whole(batch: Batch, y: tf.Tensor) -> tf.Tensor:
        return tf.concat([*batch["energies"], y], axis=1)

    def h(batch: Batch, *ys: tf.Tensor) -> list[tf.Tensor]:
        """Return h of several sets of shapes, each in the context of the batch."""
        inputs = [tf.tile(batch["context"], (len(ys), 1)), tf.concat(ys, axis=0)]
        if seen:
            shown = standardise(*(seen(whole(batch, y)) for y in ys))
            inputs.append(tf.concat(shown, axis=0))
        return list(tf.split(critic(inputs), len(ys)))

    def generate(batch: Batch, seed: Any) -> list[tf.Tensor]:
        """Return two independent shapes, y_g and y_g', for each row."""
        twice = tf.tile(batch["context"], (2, 1))
        size = (tf.shape(twice)[0], part.n_noise)
        noise = draws.normal(size, seed, copies=2)
        return list(tf.split(part.generate(noise, twice), 2))

    sizes = {"n_conditions": shape.n_conditions}
    total_game = constrainer = None
    if s.energy_critic:
        energies = parts[0] if len(parts) > 1 else None
        total = None if energies else _observables(shape, "total")
        total_game = TotalGame(energies, total, generate, s=s, **sizes, seed=seed + 2)
    if s.constrainer:
        sizes["n"] = shape.n_targets
        constrainer = Constrainer(whole, s=s, **sizes, seed=seed + 3)

    def critic_losses(batch: Batch, seed: Any) -> dict[str, Any]:
        y_r, (y_g, y_g2) = batch["real"], generate(batch, seed)
        known: list[tf.Tensor] = []

        def f_at(y_hat: tf.Tensor) -> tf.Tensor:
            *known[:], h_hat = h(batch, y_r, y_g, y_g2, y_hat)  # all in one pass
            return cramer.f(h_hat, known[2])

        penalty = cramer.gradient_penalty(f_at, y_r, y_g, seed=seed)
        h_r, h_g, h_g2 = known
        critic_loss = cramer.critic_loss(h_r, h_g, h_g2, batch["w"])
        return {"critic": critic_loss, "penalty": penalty}

    def generator_losses(batch: Batch, seed: Any) -> dict[str, Any]:
        y_r, (y_g, y_g2) = batch["real"], generate(batch, seed)
        h_r, h_g, h_g2 = h(batch, y_r, y_g, y_g2)
        losses = {"generator": cramer.generator_loss(h_r, h_g, h_g2, batch["w"])}
        if constrained:
            shown = (constrained(whole(batch, y)) for y in (y_r, y_g))
            losses["constraint"] = s.constraint * constraint(*standardise(*shown))
        if constrainer:
            losses["constrainer"] = constrainer.term(batch, y_r, y_g)
        if total_game and total_game.energies is None:
            losses["total"] = total_game.term(batch, y_r, y_g, y_g2)
        return losses

    def energy_score(batch: Batch, seed: Any) -> dict[str, Any]:
        samples = tf.stack(generate(batch, seed))
        score = kernel_score(minus_distance, batch["real"], samples, batch["w"])
        return {"energy_score": score}

    optimizer = Optimizer(s.play_learning_rate, beta_1=0.5, average=s.average)
    updates = [
        Update(critic_losses, cramer.descent_of(critic, s), times=s.critic_updates),
        Update(
            generator_losses, Descent(part.played, optimizer, held_out=energy_score)
        ),
    ]
    for joins in (constrainer, total_game):
        updates = [*(joins.updates() if joins else ()), *updates]
    return Phase("play", s.play, s.play_batch_size, updates=updates, prepare=prepare)


def _make_parts(shape: Shape, s: ShowerFlow, seed: int) -> list[Part]:
    """Return the model of the energies and that of the shape, if there are any."""
    n_energies, parts = shape.n_energies, list[Part]()
    n, seed_of_shape = shape.n_targets - n_energies, seed + 100
    size = {"width": s.width, "blocks": s.blocks}
    if n_energies:
        part = FlowPart(
            n_energies,
            name="energies",
            couplings=s.energy_couplings,
            jitter=s.jitter,
            seed=seed,
            width=s.energy_width,
            blocks=s.energy_blocks,
        )
        parts.append(part)
    if n and s.shape == "flow":
        flow = {"couplings": s.couplings, **size}
        parts.append(
            FlowPart(n, name="shape", jitter=s.jitter, seed=seed_of_shape, **flow)
        )
    elif n:
        decoder: Any = Standard(n, **size, seed=seed_of_shape)
        if s.network == "conv":
            decoder = _convolutions(n, shape, s, seed_of_shape)
        encoder = Residual(**size, seed=seed_of_shape + 50) if s.encoder else None
        part_of_shape = LatentPart(
            n, name="shape", latent=s.latent, decoder=decoder, encoder=encoder
        )
        parts.append(part_of_shape)
    return parts


def _convolutions(
    n: int, shape: Shape, s: ShowerFlow, seed: int
) -> ConvolutionalStandard:
    if not shape.image:
        raise PidganError(
            f"network 'conv' needs cells that fill one grid; the {n} shares of cells "
            "of this geometry do not: take network 'dense'"
        )
    return ConvolutionalStandard(
        shape.image, channels=s.channels, width=s.width, seed=seed
    )


def _observables(shape: Shape, text: str) -> Observables | None:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or shape.transform is None:
        return None
    return Observables(shape.transform, shape.geometry, names)
