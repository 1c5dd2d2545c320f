"""A generator that adds normal noise to a mean, both given by a network.

y = mu(x, z) + sigma(x, z) e,   z and e standard normal.
"""

from typing import Any

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.training.networks.evaluation import evaluate

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
