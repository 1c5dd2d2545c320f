"""Conditional Wasserstein GAN with gradient penalty, for weighted samples.

Gulrajani et al., arXiv:1704.00028, Algorithm 1, with conditions x and sWeights w. D is
the critic, y_r a real target, y_g a generated one at the same conditions:

    L_critic    = -E[w (D(y_r) - D(y_g))] + lambda E[(|grad D(y^)| - 1)^2]
    L_generator = -E[w D(y_g)]

with y^ on the line between y_r and y_g. Weights of any sign enter linearly; the
penalty has none, as it bounds the slope of D everywhere.
"""

import dataclasses
import functools
from typing import Any

from pidgan.errors import PidganError
from pidgan.training.backend import tf
from pidgan.training.families.cramer import gradient_penalty
from pidgan.training.families.settings import OneNetwork, Span
from pidgan.training.networks.perceptrons import Shape, one_network, residual_network
from pidgan.training.networks.updates import draw, energy_score, named_inputs
from pidgan.training.phases import Batch, Descent, Family, Optimizer, Phase, Update


@dataclasses.dataclass(frozen=True, kw_only=True)
class WganGp(OneNetwork):
    """A Wasserstein GAN with gradient penalty, for weighted samples.

    Attributes:
        critic_width: Width of the critic D.
        critic_blocks: Number of residual blocks of the critic.
        critic_updates: Number of updates of the critic for one of the generator.
        penalty: Factor lambda of the gradient penalty.
        critic_learning_rate: Learning rate of the critic at the start.
    """

    critic_width: int = 64
    critic_blocks: int = 2
    critic_updates: int = 3
    penalty: float = 10.0
    learning_rate: float = 5e-4
    critic_learning_rate: float = 1e-3

    spans = {  # noqa: RUF012
        **OneNetwork.spans,
        "critic_width": Span(32, 128, log=True),
        "critic_updates": Span(1, 5),
        "penalty": Span(1, 100, log=True),
        "critic_learning_rate": Span(2e-4, 1e-3, log=True),
    }


def build(settings: WganGp, *, shape: Shape, seed: int) -> Family:
    """Return the generator and its game against the critic D."""
    s = settings
    if s.critic_updates < 1:
        raise PidganError(f"critic_updates is {s.critic_updates}, expected at least 1")
    generator = one_network(s, shape=shape, seed=seed)
    size = {"width": s.critic_width, "blocks": s.critic_blocks}
    seen = shape.inputs(targets=shape.n_targets)
    critic = residual_network(seen, 1, **size, seed=seed + 1)

    def d(batch: Batch, y: tf.Tensor) -> tf.Tensor:
        """Return D(y) at the conditions of the batch, (n,)."""
        return critic(named_inputs(batch, targets=y))[:, 0]

    def generate(batch: Batch, seed: Any) -> tf.Tensor:
        return draw(generator, batch, n_noise=s.n_noise, copies=1, seed=seed)[0]

    def critic_losses(batch: Batch, seed: Any) -> dict[str, Any]:
        y_r, y_g = batch["y"], generate(batch, seed)
        penalty = gradient_penalty(lambda y: d(batch, y), y_r, y_g, seed=seed)
        difference = batch["w"] * (d(batch, y_r) - d(batch, y_g))
        return {"distance": tf.reduce_mean(difference), "penalty": penalty}

    def generator_losses(batch: Batch, seed: Any) -> dict[str, Any]:
        y_g = generate(batch, seed)
        return {"generator": -tf.reduce_mean(batch["w"] * d(batch, y_g))}

    # Momentum of earlier steps is that of another game: beta_1 = 0 in Algorithm 1.
    critic_descent = Descent(
        critic.trainable_variables,
        Optimizer(s.critic_learning_rate, beta_1=0.0, beta_2=0.9),
        {"penalty": s.penalty, "distance": -1.0},
    )
    generator_descent = Descent(
        generator.trainable_variables,
        Optimizer(s.learning_rate, beta_1=0.0, beta_2=0.9, average=s.average),
        held_out=functools.partial(energy_score, generator, n_noise=s.n_noise),
    )
    updates = [
        Update(critic_losses, critic_descent, times=s.critic_updates),
        Update(generator_losses, generator_descent),
    ]
    play = Phase("play", 1.0, s.batch_size, updates=updates)
    return Family(generator=generator, n_noise=s.n_noise, phases=[play])
