"""Conditional variational autoencoder, for weighted samples.

Kingma and Welling, arXiv:1312.6114; conditional: Sohn, Lee and Yan, NIPS 28 (2015)
3483. An encoder gives q(z | x, y) = N(m, diag(r^2)), a decoder p(y | x, z) =
N(mu, diag(sigma^2)), both networks, and

    L = E[w (-log p(y | x, z) + beta KL(q(z | x, y) || N(0, 1)))],  z ~ q,
    KL = sum (m^2 + r^2 - 1) / 2 - log r.

What is exported is the decoder with its noise: y = mu(x, z) + sigma(x, z) e, where z
and e are standard normal. A likelihood has no bound where weights are negative: w is
E[w | x, y] here (arXiv:1905.11719).
"""

import dataclasses
from typing import Any

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.training.backend import tf
from pidgan.training.families.settings import Span
from pidgan.training.networks.evaluation import evaluate
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.networks.updates import named_inputs
from pidgan.training.phases import Batch, Descent, Family, Optimizer, Phase, Update


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vae:
    """A conditional variational autoencoder.

    Attributes:
        n_latent: Number of latent numbers z.
        width: Width of encoder and decoder.
        blocks: Number of residual blocks of encoder and decoder.
        beta: Weight of the KL term; 1 makes the loss a bound of the likelihood.
        batch_size: Number of rows of a step.
        learning_rate: Learning rate at the start.
        average: Largest momentum of the averaged weights.
        xla: Whether the steps are compiled with XLA, which pays in trainings of more
            than a few minutes.
    """

    n_latent: int = 8
    width: int = 64
    blocks: int = 3
    beta: float = 1.0
    batch_size: int = 512
    learning_rate: float = 1e-3
    average: float = 0.999
    xla: bool = False

    spans = {  # noqa: RUF012
        "n_latent": Span(4, 16, log=True),
        "width": Span(32, 128, log=True),
        "blocks": Span(2, 4),
        "beta": Span(0.3, 3, log=True),
        "learning_rate": Span(2e-4, 2e-3, log=True),
    }


def build(settings: Vae, *, shape: Shape, seed: int) -> Family:
    """Return the decoder, and the phase that trains it together with an encoder."""
    s = settings
    size = {"width": s.width, "blocks": s.blocks}
    inputs = shape.inputs(noise=s.n_latent)
    decoder = residual_network(inputs, 2 * shape.n_targets, **size, seed=seed)
    generator = Decoder(decoder, n_latent=s.n_latent, n_targets=shape.n_targets)
    seen = shape.inputs(targets=shape.n_targets)
    encoder = residual_network(seen, 2 * s.n_latent, **size, seed=seed + 1)

    def losses(batch: Batch, seed: Any) -> dict[str, Any]:
        w, free = batch["positive_w"], batch["free"]
        m, log_r = moments(encoder(named_inputs(batch, targets=batch["y"])))
        z = m + tf.exp(log_r) * tf.random.stateless_normal(tf.shape(m), seed)
        mu, log_sigma = generator.moments(named_inputs(batch, noise=z))
        pull = (batch["y"] - mu) * tf.exp(-log_sigma)
        likelihood = free * (0.5 * tf.square(pull) + log_sigma)
        divergence = 0.5 * (tf.square(m) + tf.exp(2 * log_r) - 1) - log_r
        return {
            "likelihood": tf.reduce_mean(w * tf.reduce_sum(likelihood, axis=1)),
            "divergence": tf.reduce_mean(w * tf.reduce_sum(divergence, axis=1)),
        }

    descent = Descent(
        [*decoder.trainable_variables, *encoder.trainable_variables],
        Optimizer(s.learning_rate, average=s.average),
        {"likelihood": 1.0, "divergence": s.beta},
        held_out=losses,
    )
    fit = Phase("fit", 1.0, s.batch_size, updates=[Update(losses, descent)])
    return Family(
        generator=generator,
        n_noise=s.n_latent + shape.n_targets,
        phases=[fit],
        needs_positive_weights=True,
    )


# Logarithms of widths stay within these bounds: exp has none.
MAX_LOG_WIDTH = 4.0


class Decoder:
    """The generator of a variational autoencoder."""

    def __init__(self, network: Any, *, n_latent: int, n_targets: int) -> None:
        """Wrap a network from (conditions, pattern, noise) to (mu, log sigma)."""
        self.network, self.n_latent, self.n_targets = network, n_latent, n_targets
        self.variables: list[Any] = list(network.variables)

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """Return mu + sigma e for noise (z, e)."""
        noise, n = inputs["noise"], self.n_latent
        z, e = f.columns(noise, 0, n), f.columns(noise, n, n + self.n_targets)
        mean, log_width = self.moments({**inputs, "noise": z})
        return mean + f.exp(log_width) * e

    def moments(self, inputs: dict[str, Array]) -> tuple[Array, Array]:
        """Return mu and log sigma, with z as the noise."""
        return moments(evaluate(self.network, inputs))


def moments(outputs: Array) -> tuple[Array, Array]:
    """Return means and bounded logarithms of widths, half of the outputs each."""
    n = outputs.shape[-1] // 2
    mean, log_width = f.columns(outputs, 0, n), f.columns(outputs, n, 2 * n)
    return mean, f.tanh(log_width / MAX_LOG_WIDTH) * MAX_LOG_WIDTH
