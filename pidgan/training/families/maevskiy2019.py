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
import functools
import math
from typing import Any

from pidgan.errors import PidganError
from pidgan.training import phases
from pidgan.training.backend import tf
from pidgan.training.families import cramer
from pidgan.training.families.settings import Span
from pidgan.training.networks.perceptrons import Shape, plain_network
from pidgan.training.networks.updates import draw, named_inputs
from pidgan.training.phases import Batch, Descent, Family, Optimizer, Phase, Update

DECAY, DECAY_STEPS = 0.98, 200
PENALTY_STEPS = 1e4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maevskiy2019:
    """The published Cramér GAN for RICH responses, on the targets as they are.

    Attributes:
        n_noise: Number of noise numbers of the generator.
        width: Width of generator and critic.
        layers: Number of hidden layers of generator and critic.
        critic_output: Number of outputs of the critic h.
        first_critic_updates: Number of updates of the critic for one of the generator
            in phase `begin`.
        critic_updates: Number of updates of the critic for one of the generator in
            phase `play`.
        begin: Share of the steps in phase `begin`.
        batch_size: Number of rows of an update; 50,000 in the publication.
        learning_rate: Learning rate of both networks at the start.
        penalty: Limit of the factor lambda(i) of the gradient penalty.
        xla: Whether the steps are compiled with XLA, which pays in trainings of more
            than a few minutes.
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

    spans = {  # noqa: RUF012
        "width": Span(64, 256, log=True),
        "layers": Span(3, 10),
        "critic_updates": Span(1, 8),
        "learning_rate": Span(1e-4, 2e-3, log=True),
        "penalty": Span(5, 100, log=True),
    }


def build(settings: Maevskiy2019, *, shape: Shape, seed: int) -> Family:
    """Return the generator and the two phases of its game against the critic h."""
    s = settings
    if min(s.first_critic_updates, s.critic_updates) < 1 or not 0 <= s.begin <= 1:
        raise PidganError(
            f"first_critic_updates is {s.first_critic_updates}, critic_updates "
            f"{s.critic_updates} and begin {s.begin:g}; expected at least 1, 1 "
            "and a share from 0 to 1"
        )
    size = {"width": s.width, "layers": s.layers}
    inputs = shape.inputs(noise=s.n_noise)
    generator = plain_network(inputs, shape.n_targets, **size, seed=seed)
    seen = shape.inputs(targets=shape.n_targets)
    critic = plain_network(seen, s.critic_output, **size, seed=seed + 1)

    def losses(update: int, batch: Batch, seed: Any) -> dict[str, Any]:
        """Return the losses of both networks; every update has rows of its own."""
        rows = slice(update * s.batch_size, (update + 1) * s.batch_size)
        part = {name: value[rows] for name, value in batch.items()}
        seed = tf.random.fold_in(seed, update)

        def h(y: tf.Tensor) -> tf.Tensor:
            return critic(named_inputs(part, targets=y))

        y_g, y_g2 = tf.unstack(
            draw(generator, part, n_noise=s.n_noise, copies=2, seed=seed), num=2
        )
        h_r, h_g, h_g2 = h(part["y"]), h(y_g), h(y_g2)
        return {
            "generator": cramer.generator_loss(h_r, h_g, h_g2, part["w"]),
            "critic": cramer.critic_loss(h_r, h_g, h_g2, part["w"]),
            "penalty": cramer.gradient_penalty(
                lambda y: cramer.f(h(y), h_g2),
                part["y"],
                y_g,
                seed=seed,
                one_sided=True,
            ),
        }

    def strength(clock: phases.Clock) -> tf.Tensor:
        """Return lambda(i)."""
        i = tf.cast(clock.step, tf.float32)
        return s.penalty * (2 / math.pi) * tf.atan(i / PENALTY_STEPS)

    optimizer = Optimizer(s.learning_rate, kind="rmsprop", schedule=_published_rate)
    generator_descent = Descent(
        generator.trainable_variables, optimizer, {"generator": 1.0}
    )
    critic_descent = Descent(
        critic.trainable_variables, optimizer, {"critic": 1.0, "penalty": strength}
    )

    def phase(name: str, share: float, n: int) -> Phase:
        each = [functools.partial(losses, k) for k in range(n)]
        both = Update(each[0], generator_descent, critic_descent)
        more = [Update(own, critic_descent) for own in each[1:]]
        return Phase(name, share, n * s.batch_size, updates=[both, *more])

    return Family(
        generator=generator,
        n_noise=s.n_noise,
        phases=[
            phase("begin", s.begin, s.first_critic_updates),
            phase("play", 1 - s.begin, s.critic_updates),
        ],
    )


def _published_rate(clock: phases.Clock) -> tf.Tensor:
    """Return the share of the learning rate that is left, 0.98 every 200 steps."""
    return DECAY ** tf.floor(tf.cast(clock.step, tf.float32) / DECAY_STEPS)
