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
from collections.abc import Mapping
from typing import Any

from pidgan.training.backend import keras, tf
from pidgan.training.networks.nodes import Graph
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.networks.updates import descend, held_out_losses, named_inputs

# Logarithms of widths stay within these bounds: exp has none.
MAX_LOG_WIDTH = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAESettings:
    """What can be chosen in family `vae`.

    Attributes:
        n_latent: size of z.
        width, blocks: of encoder and decoder.
        beta: weight of the KL term; 1 makes the loss a bound of the likelihood.
        batch_size: rows of one update.
        learning_rate: of Adam; falls with a cosine.
        average: momentum of the averaged weights.
        xla: compile the steps with XLA; pays in trainings of more than a few minutes.
    """

    n_latent: int = 8
    width: int = 64
    blocks: int = 3
    beta: float = 1.0
    batch_size: int = 512
    learning_rate: float = 1e-3
    average: float = 0.999
    xla: bool = False


class Decoder:
    """The generator of a VAE: its decoder network, and the noise around its mean."""

    def __init__(self, network: Any, *, n_latent: int, n_targets: int) -> None:
        """Wrap a network from (conditions, pattern, noise) to (mu, log sigma)."""
        self.network, self.n_latent, self.n_targets = network, n_latent, n_targets
        self.variables: list[Any] = list(network.variables)

    def __call__(self, inputs: dict[str, Any]) -> tf.Tensor:
        """Return mu + sigma e for noise (z, e)."""
        inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
        noise = inputs["noise"]
        z, e = noise[:, : self.n_latent], noise[:, self.n_latent :]
        mean, log_width = self.moments({**inputs, "noise": z})
        return mean + tf.exp(log_width) * e

    def moments(self, inputs: dict[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mu and log sigma, with z as the noise."""
        return split_moments(self.network(inputs))

    def write_onnx(self, graph: Graph, inputs: dict[str, str]) -> str:
        """Append mu + sigma e to a graph."""
        n, d = self.n_latent, self.n_targets
        z = graph.columns(inputs["noise"], 0, n)
        e = graph.columns(inputs["noise"], n, n + d)
        output = graph.network(self.network, {**inputs, "noise": z})
        most = graph.constant(MAX_LOG_WIDTH)
        ratio = graph.add("Div", graph.columns(output, d, 2 * d), most)
        width = graph.add("Exp", graph.add("Mul", graph.add("Tanh", ratio), most))
        mean = graph.columns(output, 0, d)
        return graph.add("Add", mean, graph.add("Mul", width, e))


class VariationalAutoencoder:
    """Family `vae`: encoder and decoder are trained together."""

    needs_positive_weights = True

    def __init__(self, *, shape: Shape, settings: VAESettings, seed: int) -> None:
        """Build the networks and their optimizer."""
        self.settings = s = settings
        self.n_noise = s.n_latent + shape.n_targets
        conditions = {"conditions": shape.n_conditions, "pattern": shape.n_patterns}
        decoder = residual_network(
            {**conditions, "noise": s.n_latent},
            n_outputs=2 * shape.n_targets,
            width=s.width,
            blocks=s.blocks,
            seed=seed,
            name="decoder",
        )
        self.generator = Decoder(
            decoder, n_latent=s.n_latent, n_targets=shape.n_targets
        )
        self.encoder = residual_network(
            {**conditions, "targets": shape.n_targets},
            n_outputs=2 * s.n_latent,
            width=s.width,
            blocks=s.blocks,
            seed=seed + 1,
            name="encoder",
        )
        self.trained = [
            *decoder.trainable_variables,
            *self.encoder.trainable_variables,
        ]
        self.optimizer = keras.optimizers.Adam(
            s.learning_rate, use_ema=True, ema_momentum=s.average
        )
        self.optimizer.build(self.trained)
        self.phases: Mapping[str, float] = {"fit": 1.0}
        self.batch_sizes: Mapping[str, int] = {"fit": s.batch_size}

    @property
    def variables(self) -> list[Any]:
        """Return all variables, the optimizer's included, in a fixed order."""
        return [*self.trained, *self.optimizer.variables]

    def step(
        self, batch: dict[str, Any], *, phase: str, seed: Any, rate: Any
    ) -> dict[str, Any]:
        """Do one update and return both terms of the loss."""
        self.optimizer.learning_rate = self.settings.learning_rate * rate
        w, free = batch["positive_w"], batch["free"]
        with tf.GradientTape() as tape:
            m, log_r = split_moments(
                self.encoder(named_inputs(batch, targets=batch["y"]))
            )
            z = m + tf.exp(log_r) * tf.random.stateless_normal(tf.shape(m), seed)
            mu, log_sigma = self.generator.moments(named_inputs(batch, noise=z))
            pull = (batch["y"] - mu) * tf.exp(-log_sigma)
            each = free * (0.5 * tf.square(pull) + log_sigma)
            likelihood = tf.reduce_mean(w * tf.reduce_sum(each, axis=1))
            each = 0.5 * (tf.square(m) + tf.exp(2 * log_r) - 1) - log_r
            divergence = tf.reduce_mean(w * tf.reduce_sum(each, axis=1))
            loss = likelihood + self.settings.beta * divergence
        descend(tape, loss, self.optimizer, self.trained)
        return {"likelihood": likelihood, "divergence": divergence}

    def losses(self, batch: dict[str, Any], *, seed: Any) -> dict[str, Any]:
        """Return the energy score of the generator."""
        return held_out_losses(self.generator, batch, n_noise=self.n_noise, seed=seed)

    def end(self, phase: str) -> None:
        """Put the averaged weights into the networks."""
        self.optimizer.finalize_variable_values(self.trained)


def split_moments(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return means and bounded logarithms of widths."""
    mean, log_width = tf.split(outputs, 2, axis=-1)
    return mean, MAX_LOG_WIDTH * tf.tanh(log_width / MAX_LOG_WIDTH)
