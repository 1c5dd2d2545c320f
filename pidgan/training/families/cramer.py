"""The Cramér GAN: its losses in the symbols of the paper, and family `cramer`.

Bellemare et al., arXiv:1705.10743, Algorithm 1, with conditions x and sWeights w as
in Maevskiy et al., arXiv:1905.11825. The sample is x in Algorithm 1 and y here, where
x are the conditions. h is the critic's transformation to R^k, y_r a real target, y_g
and y_g' two independent generated ones at the same conditions x as the real one, and

    f(y)     = |h(y) - h(y_g')| - |h(y)|
    L_critic = - w [f(y_r) - f(y_g)] + lambda (|grad f(y^)| - 1)^2
    L_g      =   w [|h(y_r) - h(y_g)| + |h(y_r) - h(y_g')| - |h(y_g) - h(y_g')|]

with y^ on the line between y_r and y_g. Weights of any sign enter linearly; they are
normalised to mean 1 over the training sample, never over a batch. The penalty has no
weight. Its gradient passes through h(y_g') too: stopping it there makes the critic
diverge. All updates of a step share the real rows, where Algorithm 1 draws new ones.

Before the generator plays against the critic, it is taught, see
`pidgan.training.families.distilled`. The signed weights w enter in phases `warm`, in
which the critic learns alone, and `play`; phases `teach` and `distil` use the positive
weights E[w | x, y].
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from pidgan.training.backend import tf
from pidgan.training.families.distilled import Distilled, taught_generator
from pidgan.training.families.settings import Span
from pidgan.training.networks import draws
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.networks.updates import (
    draw,
    energy_score,
    length,
    named_inputs,
    repeat_batch,
)
from pidgan.training.phases import (
    Batch,
    Clock,
    Descent,
    Family,
    Optimizer,
    Phase,
    Update,
)

# Stream of random numbers for the point y^; those of the updates count from 0.
PENALTY = 1000


def f(h_y: tf.Tensor, h_g2: tf.Tensor) -> tf.Tensor:
    """Return f(y) = |h(y) - h(y_g')| - |h(y)|."""
    return length(h_y - h_g2) - length(h_y)


def critic_loss(
    h_r: tf.Tensor, h_g: tf.Tensor, h_g2: tf.Tensor, w: tf.Tensor
) -> tf.Tensor:
    """Return -E[w (f(y_r) - f(y_g))] (Algorithm 1, the surrogate loss)."""
    return -tf.reduce_mean(w * (f(h_r, h_g2) - f(h_g, h_g2)))


def generator_loss(
    h_r: tf.Tensor, h_g: tf.Tensor, h_g2: tf.Tensor, w: tf.Tensor
) -> tf.Tensor:
    """Return E[w (|h_r - h_g| + |h_r - h_g'| - |h_g - h_g'|)] (Algorithm 1, L_g)."""
    return tf.reduce_mean(
        w * (length(h_r - h_g) + length(h_r - h_g2) - length(h_g - h_g2))
    )


def gradient_penalty(
    f_at: Callable[[tf.Tensor], tf.Tensor],
    y_r: tf.Tensor,
    y_g: tf.Tensor,
    *,
    seed: Any,
    one_sided: bool = False,
) -> tf.Tensor:
    """Return E[(|grad f(y^)| - 1)^2], y^ = u y_r + (1 - u) y_g, u uniform from 0 to 1.

    Gulrajani et al., arXiv:1704.00028, Eq. 3. `f_at` returns f(y^), (n,), for targets
    (n, ...); with `one_sided`, slopes below 1 are left alone.
    """
    n = tf.shape(y_r)[0]
    size = (n, *(1 for _ in y_r.shape[1:]))
    u = draws.uniform(size, tf.random.fold_in(seed, PENALTY))
    y_hat = u * y_r + (1 - u) * y_g
    with tf.GradientTape() as tape:
        tape.watch(y_hat)
        f_hat = f_at(y_hat)
    slope = length(tf.reshape(tape.gradient(f_hat, y_hat), (n, -1)))
    excess = tf.nn.relu(slope - 1) if one_sided else slope - 1
    return tf.reduce_mean(tf.square(excess))


def zero_penalty(f_at: Callable[[tf.Tensor], tf.Tensor], *ys: tf.Tensor) -> tf.Tensor:
    """Return the sum of E[|grad f(y)|^2] over sets of targets (n, d).

    With real and generated targets these are R1 + R2 (Mescheder et al.,
    arXiv:1801.04406; Huang et al., arXiv:2501.05441).
    """
    terms = []
    for y in ys:
        with tf.GradientTape() as tape:
            tape.watch(y)
            f_y = f_at(y)
        terms.append(tf.reduce_mean(tf.square(length(tape.gradient(f_y, y)))))
    return tf.add_n(terms)


def descent_of(critic: Any, s: Any) -> Descent:
    """Return how a critic learns from its losses "critic" and "penalty"."""
    optimizer = Optimizer(s.critic_learning_rate, beta_1=0.5, beta_2=0.9)
    factors = {"critic": 1.0, "penalty": s.penalty}
    return Descent(critic.trainable_variables, optimizer, factors)


# Range of each output of h: no row can count without end, whatever its weight.
BOUND = 3.0
# Adam without momentum: a critic that lags behind makes a game oscillate
# (arXiv:2405.14867).
BETAS: dict[str, Any] = {"beta_1": 0.0, "beta_2": 0.99}


def steady(clock: Clock) -> tf.Tensor:
    """Return the share 1 of a rate: a critic must follow until the end."""
    return tf.constant(1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cramer(Distilled):
    """A generator that is taught, and then plays against the critic of a Cramér GAN.

    Attributes:
        warm: Steps of phase `warm`, in which the critic learns alone, divided by the
            steps given to the training; there are none where no phase has taught.
        play: Steps of phase `play` divided by the steps given to the training.
        play_layers: Number of last layers of each network of the generator that phase
            `play` changes; it changes all where no phase has taught.
        batch_size: Number of rows of a step in phases `warm` and `play`.
        learning_rate: Learning rate of the generator at the start of phase `play`.
        critic_learning_rate: Learning rate of the critic.
        average: Largest momentum of the averaged weights of the generator in phase
            `play`.
        critic_width: Width of the critic.
        critic_blocks: Number of residual blocks of the critic.
        critic_output: Number k of outputs of the critic h.
        critic_updates: Number of updates of the critic for one of the generator.
        penalty: Factor lambda of the gradient penalty.
        zero_penalty: Factor of the penalty of slopes at real and generated targets.
    """

    warm: float = 0.02
    play: float = 0.05
    play_layers: int = 1
    batch_size: int = 2048
    learning_rate: float = 1e-4
    critic_learning_rate: float = 5e-4
    average: float = 0.999
    critic_width: int = 64
    critic_blocks: int = 2
    critic_output: int = 64
    critic_updates: int = 2
    penalty: float = 10.0
    zero_penalty: float = 1.0

    spans = {  # noqa: RUF012
        **Distilled.spans,
        "learning_rate": Span(2e-5, 1e-3, log=True),
        "critic_learning_rate": Span(1e-4, 1e-3, log=True),
        "penalty": Span(1, 100, log=True),
    }


def build(settings: Cramer, *, shape: Shape, seed: int) -> Family:
    """Return the generator, the phases that teach it, and the game."""
    s = settings
    generator, taught = taught_generator(s, shape=shape, seed=seed)
    size = {"width": s.critic_width, "blocks": s.critic_blocks}
    seen = shape.inputs(targets=shape.n_targets)
    critic = residual_network(seen, s.critic_output, **size, seed=seed + 1)

    def h(batch: Batch, *ys: tf.Tensor) -> list[tf.Tensor]:
        """Return h of several sets of targets, each at the conditions of the batch."""
        rows = repeat_batch(batch, len(ys))
        h_all = critic(named_inputs(rows, targets=tf.concat(ys, axis=0)))
        return list(tf.split(BOUND * tf.tanh(h_all / BOUND), len(ys)))

    def generate(batch: Batch, seed: Any) -> Any:
        """Return two independent generated targets, y_g and y_g', of each row."""
        samples = draw(generator, batch, n_noise=shape.n_targets, copies=2, seed=seed)
        return tf.unstack(samples)

    def critic_losses(batch: Batch, seed: Any) -> dict[str, Any]:
        y_r = batch["y"]
        y_g, y_g2 = generate(batch, seed)
        h_r, h_g, h_g2 = h(batch, y_r, y_g, y_g2)

        def f_at(y: tf.Tensor) -> tf.Tensor:
            return f(h(batch, y)[0], h_g2)

        return {
            "critic": critic_loss(h_r, h_g, h_g2, batch["w"]),
            "penalty": gradient_penalty(f_at, y_r, y_g, seed=seed),
            "zero_penalty": zero_penalty(f_at, y_r, y_g),
        }

    def generator_losses(batch: Batch, seed: Any) -> dict[str, Any]:
        y_g, y_g2 = generate(batch, seed)
        h_r, h_g, h_g2 = h(batch, batch["y"], y_g, y_g2)
        return {"generator": generator_loss(h_r, h_g, h_g2, batch["w"])}

    has_taught = s.play > 0 and (s.teach > 0 or s.distil > 0)
    networks, first = generator.networks, -s.play_layers if has_taught else 0
    generator_descent = Descent(
        [*networks.kernels[first:], *networks.biases[first:]],
        Optimizer(s.learning_rate, average=s.average, **BETAS),
        held_out=functools.partial(energy_score, generator, n_noise=shape.n_targets),
        must_gain=has_taught,
    )
    critic_descent = Descent(
        critic.trainable_variables,
        Optimizer(s.critic_learning_rate, schedule=steady, **BETAS),
        {"critic": 1.0, "penalty": s.penalty, "zero_penalty": s.zero_penalty},
    )
    learnt = [Update(critic_losses, critic_descent)]
    updates = [
        Update(critic_losses, critic_descent, times=s.critic_updates),
        Update(generator_losses, generator_descent),
    ]
    return Family(
        generator=generator,
        n_noise=shape.n_targets,
        phases=[
            *taught,
            Phase("warm", s.warm if has_taught else 0, s.batch_size, updates=learnt),
            Phase("play", s.play, s.batch_size, updates=updates),
        ],
        needs_positive_weights=s.teach > 0 or s.distil > 0,
    )
