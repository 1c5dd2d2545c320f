"""Showers: an explicit model of the energies, followed by one of the shape.

What makes a calorimeter useful, the total energy and its shares in the layers, are few
numbers: a flow (`pidgan.models.couplings`) learns them by maximum likelihood, given the
conditions. The shape, how each layer's energy is shared by its cells, is learnt given
conditions *and* energies. Scheme `layers` of `pidgan.calorimeter.schemes` makes these
coordinates of a shower, and puts them together again.

A coordinate below its edge is a cell without energy. There, nothing but the edge is
known: location m and scale s of each coordinate are fitted by the likelihood of censored
data (Tobin, Econometrica 26 (1958) 24),

    log N(y; m, s) where y is observed,   log Phi((edge - m) / s) where it is not,

and a flow sees, in place of what is censored, a fresh draw of N(m, s) below the edge.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pidgan.models.backend import keras, tf
from pidgan.models.couplings import CouplingFlow
from pidgan.models.networks import Residual, Shape, Take

# Probabilities below this are rounding.
TINY = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowerFlowSettings:
    """What can be chosen.

    Attributes:
        energy_width, energy_blocks, energy_couplings: of the flow of energies.
        width, blocks, couplings: of the flow of shapes.
        location_width, location_blocks: of the networks of location and scale.
        batch_size, learning_rate: of all networks; the rate falls with a cosine.
        weight_decay: of the flows, as showers to learn from are few.
        jitter: standard deviation of the noise on coordinates, in units of their
            scale: shares of sum 1 have no density without.
        average: momentum of the averaged weights.
        xla: compile the steps with XLA.
    """

    energy_width: int = 64
    energy_blocks: int = 1
    energy_couplings: int = 6
    width: int = 128
    blocks: int = 1
    couplings: int = 6
    location_width: int = 128
    location_blocks: int = 2
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    jitter: float = 0.02
    average: float = 0.999
    xla: bool = False


class Standard:
    """Location and scale of coordinates given a context, for censored data."""

    def __init__(self, n: int, *, width: int, blocks: int, seed: int) -> None:
        """Make the layers; they are built when they are first called."""
        self.body = Residual(width=width, blocks=blocks, seed=seed)
        self.location = keras.layers.Dense(n, kernel_initializer="zeros")
        self.log_scale = keras.layers.Dense(n, kernel_initializer="zeros")

    @property
    def variables(self) -> list[Any]:
        """Return the weights, in order."""
        heads = (self.location, self.log_scale)
        return [
            *self.body.trainable_variables,
            *(v for head in heads for v in head.trainable_variables),
        ]

    def __call__(self, context: Any) -> tuple[Any, Any]:
        """Return location and scale, (m, n) each."""
        hidden = self.body(context)
        scale = keras.layers.Activation("exponential")(self.log_scale(hidden))
        return self.location(hidden), scale

    def apply(self, residual: Any, context: Any) -> Any:
        """Return location + scale * residual; symbols of a keras model."""
        location, scale = self(context)
        return keras.layers.Add()(
            [location, keras.layers.Multiply()([scale, residual])]
        )


def censored_loss(
    y: tf.Tensor, observed: tf.Tensor, location: tf.Tensor, scale: tf.Tensor
) -> tf.Tensor:
    """Return minus the log-likelihood of rows, (n,), see the module.

    Args:
        y: (n, k), coordinates; the edge where they are censored.
        observed: (n, k), 1 or 0.
        location: (n, k).
        scale: (n, k).
    """
    u = (y - location) / scale
    seen = 0.5 * tf.square(u) + tf.math.log(scale)
    below = -tf.math.log(tf.maximum(_phi(u), TINY))
    return tf.reduce_sum(tf.where(observed > 0, seen, below), axis=1)


def impute(
    y: tf.Tensor,
    observed: tf.Tensor,
    location: tf.Tensor,
    scale: tf.Tensor,
    *,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Return coordinates with those that are censored drawn below their edge."""
    top = tf.maximum(_phi((y - location) / scale), TINY)
    uniform = tf.random.stateless_uniform(tf.shape(y), seed)
    drawn = tf.math.ndtri(tf.maximum(uniform * top, TINY / 10))
    drawn = tf.minimum(location + scale * drawn, y)
    return tf.stop_gradient(tf.where(observed > 0, y, drawn))


def _phi(u: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(-u * np.float32(np.sqrt(0.5)))


class ShowerFlow:
    """Family `shower_flow`: flows of energies and of shapes, by maximum likelihood."""

    def __init__(
        self, *, shape: Shape, settings: ShowerFlowSettings, seed: int
    ) -> None:
        """Build the networks and the optimizer."""
        self.settings = s = settings
        self.n_noise = shape.n_targets
        self.n_energies = shape.n_energies
        n_shape = shape.n_targets - shape.n_energies
        sizes = {"energies": shape.n_energies, "shape": n_shape}
        self.sizes = {name: n for name, n in sizes.items() if n}
        self.flows, self.standards = {}, {}
        for k, (name, n) in enumerate(self.sizes.items()):
            energies = name == "energies"
            self.standards[name] = Standard(
                n, width=s.location_width, blocks=s.location_blocks, seed=seed + 100 * k
            )
            self.flows[name] = CouplingFlow(
                n,
                couplings=s.energy_couplings if energies else s.couplings,
                width=s.energy_width if energies else s.width,
                blocks=s.energy_blocks if energies else s.blocks,
                seed=seed + 100 * k + 50,
                name=name,
            )
        self.generator = self._build(shape)
        self.trained = [
            v
            for part in (*self.standards.values(), *self.flows.values())
            for v in part.variables
        ]
        self.optimizer = keras.optimizers.AdamW(
            s.learning_rate,
            weight_decay=s.weight_decay,
            global_clipnorm=10.0,
            use_ema=True,
            ema_momentum=s.average,
        )
        self.optimizer.build(self.trained)
        self.phases: Mapping[str, float] = {"likelihood": 1.0}
        self.batch_sizes: Mapping[str, int] = {"likelihood": s.batch_size}

    @property
    def variables(self) -> list[Any]:
        """Return all variables, the optimizer's included, in a fixed order."""
        return [*self.generator.variables, *self.optimizer.variables]

    def step(
        self, batch: dict[str, Any], *, phase: str, seed: Any, rate: Any
    ) -> dict[str, Any]:
        """Do one update and return the losses."""
        del phase
        self.optimizer.learning_rate = self.settings.learning_rate * rate
        with tf.GradientTape() as tape:
            losses = self._losses(batch, seed)
            loss = tf.add_n(list(losses.values()))
        self.optimizer.apply(tape.gradient(loss, self.trained), self.trained)
        return losses

    def losses(self, batch: dict[str, Any], *, seed: Any) -> dict[str, Any]:
        """Return the losses without an update."""
        return self._losses(batch, seed)

    def end(self, phase: str) -> None:
        """Put the averaged weights into the networks."""
        del phase
        self.optimizer.finalize_variable_values(self.trained)

    def _build(self, shape: Shape) -> Any:
        """Return the keras model (conditions, noise) -> coordinates."""
        conditions = keras.Input((shape.n_conditions,), name="conditions")
        noise = keras.Input((self.n_noise,), name="noise")
        context, made, start = conditions, [], 0
        for name, n in self.sizes.items():
            u = Take(start, start + n)(noise)
            residual = self.flows[name].generate(u, context)
            made.append(self.standards[name].apply(residual, context))
            context = keras.layers.Concatenate()([conditions, made[0]])
            start += n
        output = keras.layers.Concatenate()(made) if len(made) > 1 else made[0]
        return keras.Model([conditions, noise], output, name="generator")

    def _losses(self, batch: dict[str, Any], seed: Any) -> dict[str, Any]:
        found, context, start = {}, batch["x"], 0
        for k, (name, n) in enumerate(self.sizes.items()):
            part = slice(start, start + n)
            y, observed = batch["y"][:, part], batch["free"][:, part]
            location, scale = self.standards[name](context)
            censored = censored_loss(y, observed, location, scale)
            location, scale = tf.stop_gradient(location), tf.stop_gradient(scale)
            stream = tf.random.fold_in(seed, 2 * k)
            full = impute(y, observed, location, scale, seed=stream)
            jitter = tf.random.stateless_normal(
                tf.shape(full), tf.random.fold_in(seed, 2 * k + 1)
            )
            residual = (full - location) / scale + self.settings.jitter * jitter
            density = self.flows[name].loss(residual, context)
            found[f"{name}_scale"] = tf.reduce_mean(batch["w"] * censored) / n
            found[f"{name}_flow"] = tf.reduce_mean(batch["w"] * density) / n
            context = tf.concat([batch["x"], full], axis=1)
            start += n
        return found
