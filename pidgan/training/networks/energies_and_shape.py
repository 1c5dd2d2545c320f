"""Parts of a shower model: each makes some coordinates from noise, given a context.

- `FlowPart`: a flow of what is left after location and scale. Learns from few showers
  what the others do not see; for up to some hundred coordinates.
- `LatentPart`: a few latent numbers, a network that makes location and scale of every
  coordinate from them, and independent noise. With an encoder it is a variational
  autoencoder (Kingma and Welling, arXiv:1312.6114, Eq. 3); without, the generator of a
  GAN. Its network may be one of convolutions, for images and for voxels.

A cell without energy is a coordinate below its edge (`pidgan.training.targets.cells`),
and nothing else is known of it. Location m and scale s of each coordinate are fitted by
the likelihood of censored data (Tobin, Econometrica 26 (1958) 24),

    log N(y; m, s) where y is observed,   log Phi((edge - m) / s) where it is not.

A flow or a critic needs a number everywhere: `impute` draws from N(m, s) below the edge
wherever a coordinate is censored.
"""

import functools
import math
from typing import Any, Protocol

import numpy as np

from pidgan.training.backend import keras, tf
from pidgan.training.networks import draws
from pidgan.training.networks.couplings import CouplingFlow
from pidgan.training.networks.perceptrons import Residual, Take, weights_of

# Probabilities below this are rounding.
TINY = 1e-6


class Standard:
    """Location and scale of coordinates given a context."""

    def __init__(self, n: int, *, width: int, blocks: int, seed: int) -> None:
        self.body = Residual(width=width, blocks=blocks, seed=seed)
        self.location = keras.layers.Dense(n, kernel_initializer="zeros")
        self.log_scale = keras.layers.Dense(n, kernel_initializer="zeros")

    @property
    def variables(self) -> list[Any]:
        """Return the weights, in order."""
        return weights_of(self.body, self.location, self.log_scale)

    def __call__(self, context: Any) -> tuple[Any, Any]:
        """Return location and scale, (m, n) each."""
        hidden = self.body(context)
        scale = keras.layers.Activation("exponential")(self.log_scale(hidden))
        return self.location(hidden), scale


def spread(location: Any, scale: Any, residual: Any) -> Any:
    """Return location + scale * residual."""
    return keras.layers.Add()([location, keras.layers.Multiply()([scale, residual])])


def censored_loss(
    y: tf.Tensor, observed: tf.Tensor, location: tf.Tensor, scale: tf.Tensor
) -> tf.Tensor:
    """Return -log likelihood of rows (n,); y (n, k) is the edge where censored."""
    u = (y - location) / scale
    seen = 0.5 * tf.square(u) + tf.math.log(scale)
    below = -tf.math.log(tf.maximum(_phi(u), TINY))
    return tf.reduce_sum(tf.where(observed > 0, seen, below), axis=1)


def impute(y: Any, observed: Any, location: Any, scale: Any, *, seed: Any) -> tf.Tensor:
    """Return coordinates with those that are censored drawn below their edge."""
    top = tf.maximum(_phi((y - location) / scale), TINY)
    uniform = draws.uniform(tf.shape(y), seed)
    drawn = tf.math.ndtri(tf.maximum(uniform * top, TINY / 10))
    drawn = tf.minimum(location + scale * drawn, y)
    return tf.stop_gradient(tf.where(observed > 0, y, drawn))


def _phi(u: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(-u * np.float32(np.sqrt(0.5)))


# Bound of the logarithm of a scale, which starts at 0.
MAX_LOG_SCALE = 3.0


class Part(Protocol):
    """A model of n coordinates given a context, from `n_noise` numbers of noise."""

    n: int
    n_noise: int

    @property
    def variables(self) -> list[Any]:
        """Return all weights that are trained."""

    @property
    def played(self) -> list[Any]:
        """Return the weights that a critic may change."""

    def settle(self) -> None:
        """Take what was learnt by its inverse into `generate`."""

    def generate(self, noise: Any, context: Any) -> Any:
        """Return coordinates (m, n): tensors, or symbols of a keras model."""

    def losses(
        self, y: tf.Tensor, observed: tf.Tensor, context: tf.Tensor, *, seed: Any
    ) -> tuple[dict[str, Any], tf.Tensor]:
        """Return losses of rows, (m,) each by name, and coordinates, imputed."""


class FlowPart:
    """Coordinates by a flow of what is left after location and scale."""

    def __init__(
        self,
        n: int,
        *,
        name: str,
        couplings: int,
        jitter: float,
        seed: int,
        **size: int,
    ) -> None:
        """Make networks of a size, which are built when they are first called."""
        self.n = self.n_noise = n
        self.name, self.jitter = name, jitter
        self.standard = Standard(n, **size, seed=seed)
        self.flow = CouplingFlow(
            n, couplings=couplings, **size, seed=seed + 50, name=name
        )

    @property
    def variables(self) -> list[Any]:
        return [*self.standard.variables, *self.flow.variables]

    @property
    def played(self) -> list[Any]:
        return [v for v in self.variables if v is not self.flow.whitening]

    def settle(self) -> None:
        self.flow.settle()

    def generate(self, noise: Any, context: Any) -> Any:
        return spread(*self.standard(context), self.flow.generate(noise, context))

    def losses(
        self, y: tf.Tensor, observed: tf.Tensor, context: tf.Tensor, *, seed: Any
    ) -> tuple[dict[str, Any], tf.Tensor]:
        location, scale = self.standard(context)
        censored = censored_loss(y, observed, location, scale)
        location, scale = tf.stop_gradient(location), tf.stop_gradient(scale)
        full = impute(y, observed, location, scale, seed=tf.random.fold_in(seed, 0))
        jitter = draws.normal(tf.shape(full), tf.random.fold_in(seed, 1))
        residual = (full - location) / scale + self.jitter * jitter
        density = self.flow.loss(residual, context)
        losses = {f"{self.name}_scale": censored, f"{self.name}_flow": density}
        return {key: loss / self.n for key, loss in losses.items()}, full


class LatentPart:
    """Coordinates by location and scale that few latent numbers decide."""

    def __init__(
        self, n: int, *, name: str, latent: int, decoder: Any, encoder: Residual | None
    ) -> None:
        """Join networks that are built when they are first called.

        The decoder goes from latent numbers and context to location and scale, the
        encoder from coordinates and context to latent numbers.
        """
        self.n, self.n_noise = n, latent + n
        self.name, self.latent = name, latent
        self.decoder, self.encoder = decoder, encoder
        self.heads = [
            keras.layers.Dense(latent, kernel_initializer="zeros") for _ in range(2)
        ]

    @property
    def variables(self) -> list[Any]:
        encoding = [self.encoder, *self.heads] if self.encoder else []
        return [*self.played, *weights_of(*encoding)]

    @property
    def played(self) -> list[Any]:
        return list(self.decoder.variables)

    def settle(self) -> None:
        """Do nothing: what was learnt is what generates."""

    def generate(self, noise: Any, context: Any) -> Any:
        """Return coordinates (m, n) from noise (m, latent + n)."""
        latent = Take(0, self.latent)(noise)
        each = Take(self.latent, self.latent + self.n)(noise)
        return spread(*self._decode(latent, context), each)

    def losses(
        self, y: tf.Tensor, observed: tf.Tensor, context: tf.Tensor, *, seed: Any
    ) -> tuple[dict[str, Any], tf.Tensor]:
        shape = (tf.shape(y)[0], self.latent)
        latent = draws.normal(shape, tf.random.fold_in(seed, 0))
        losses = {}
        if self.encoder is not None:
            seen = tf.concat([y * observed, observed, context], axis=1)
            hidden = self.encoder(seen)
            mean, log_scale = (head(hidden) for head in self.heads)
            log_scale = MAX_LOG_SCALE * tf.tanh(log_scale / MAX_LOG_SCALE)
            latent = mean + tf.exp(log_scale) * latent
            # Kingma and Welling, Appendix B.
            each = 0.5 * (tf.square(mean) + tf.exp(2 * log_scale) - 1) - log_scale
            losses[f"{self.name}_divergence"] = tf.reduce_sum(each, axis=1)
        location, scale = self._decode(latent, context)
        losses[f"{self.name}_scale"] = censored_loss(y, observed, location, scale)
        location, scale = tf.stop_gradient(location), tf.stop_gradient(scale)
        full = impute(y, observed, location, scale, seed=tf.random.fold_in(seed, 1))
        return {key: loss / self.n for key, loss in losses.items()}, full

    def _decode(self, latent: Any, context: Any) -> tuple[Any, Any]:
        joined = keras.layers.Concatenate()([latent, context])
        decoded: tuple[Any, Any] = self.decoder(joined)
        return decoded


class ConvolutionalStandard:
    """Location and scale of the cells of a grid, by transposed convolutions.

    A coarse grid is repeated to twice its size and convolved, once or twice (Odena,
    Dumoulin and Olah, Distill 2016, 10.23915/distill.00003).
    """

    def __init__(
        self, image: tuple[int, ...], *, channels: int, width: int, seed: int
    ) -> None:
        """Make the layers for a grid of layers, rows, columns; one layer is an image.

        The finest hidden grid has `channels`, coarser ones have twice as many.
        """
        grid = image[1:] if image[0] == 1 else image
        doublings = [_halvings(n) for n in grid]
        rounds = max(doublings)
        coarse = [n // 2**k for n, k in zip(grid, doublings, strict=True)]
        seeds = keras.random.SeedGenerator(seed)
        kinds = {
            2: (keras.layers.Conv2D, keras.layers.UpSampling2D),
            3: (keras.layers.Conv3D, keras.layers.UpSampling3D),
        }
        convolution, self.upsampling = kinds[len(grid)]
        self.body = Residual(width=width, blocks=1, seed=seed)
        most = channels * 2**rounds
        self.start = keras.layers.Dense(
            most * math.prod(coarse), kernel_initializer=_initializer(seeds)
        )
        self.coarse = (*coarse, most)
        self.factors = [
            tuple(2 if k > i else 1 for k in doublings) for i in range(rounds)
        ]
        same = functools.partial(convolution, kernel_size=3, padding="same")
        self.convolutions = [
            same(most // 2 ** (i + 1), kernel_initializer=_initializer(seeds))
            for i in range(rounds)
        ]
        zeros = {"kernel_initializer": "zeros"}
        self.heads = [same(1, **zeros) for _ in range(2)]
        cells = math.prod(grid)
        self.skips = [keras.layers.Dense(cells, **zeros) for _ in range(2)]

    @property
    def variables(self) -> list[Any]:
        """Return the weights, in order."""
        layers = [self.body, self.start, *self.convolutions, *self.heads, *self.skips]
        return weights_of(*layers)

    def __call__(self, context: Any) -> tuple[Any, Any]:
        """Return location and scale, (m, n) each."""
        hidden = self.body(context)
        grid = keras.layers.Activation("relu")(self.start(hidden))
        grid = keras.layers.Reshape(self.coarse)(grid)
        for factor, convolution in zip(self.factors, self.convolutions, strict=True):
            grid = convolution(self.upsampling(factor)(grid))
            grid = keras.layers.Activation("relu")(grid)
        # A dense layer beside tells cells apart, which a convolution cannot.
        location, log_scale = (
            keras.layers.Add()([keras.layers.Flatten()(head(grid)), skip(hidden)])
            for head, skip in zip(self.heads, self.skips, strict=True)
        )
        return location, keras.layers.Activation("exponential")(log_scale)


def _halvings(n: int) -> int:
    """Return how often, at most twice, n can be divided by 2."""
    return 2 if n % 4 == 0 else int(n % 2 == 0)


def _initializer(seeds: Any) -> Any:
    return keras.initializers.VarianceScaling(scale=2.0, seed=seeds)
