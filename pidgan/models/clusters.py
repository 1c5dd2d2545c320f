"""Generators of clusters along a track: convolutional or recurrent.

Both make, row by row, the position of a cluster and whether it is found. Which to use
when: `recurrent` steps from row to row as a track does, needs fewest weights and is
slow to train; `convolutional` makes all rows at once from a coarse picture of the
track and is faster in training. They play against a critic as a Cramér GAN
(`models.adversarial`, arXiv:1705.10743); with `reconstruction` the generator is also
pulled to the true clusters, as the "+" models of ALICE are (K. Deja, T. Trzcinski,
L. Graczykowski, EPJ Web Conf. 214 (2019) 06003).

With mu, s and a functions of conditions and a few latent numbers, and independent
standard normal z, z', a position is mu + s z, and its cluster is found if a + z' > 0.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from pidgan.card import Card, CardVariable
from pidgan.errors import PidganError
from pidgan.models.adversarial import critic_loss, generator_loss
from pidgan.models.backend import keras, tf
from pidgan.models.model import Model
from pidgan.models.networks import residual_network
from pidgan.models.updates import length
from pidgan.preprocessing import ClusterTransform, ConditionTransform
from pidgan.sample import Sample, Variable
from pidgan.typing import FloatArray

Network = Literal["recurrent", "convolutional"]

#: Layers of the convolutional network that double its rows.
DOUBLINGS = 3
#: Losses by name: of generator, flags and distance, of the critic and its penalty.
LOSSES = ("game", "flags", "distance", "critic", "penalty")
#: Smallest share of the learning rate, at the end.
FINAL_RATE = 0.02
#: ln s to begin with, of 1 cm in units of a metre.
INITIAL_SCALE = -4.6
#: Normal score of the share of found clusters to begin with, 93 %.
INITIAL_FLAG = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """What can be chosen.

    Attributes:
        network: "recurrent" or "convolutional".
        reconstruction: factor of the mean distance to the true clusters in m; 0 leaves
            it out.
        n_latent: latent numbers of a track.
        width: of the state, or channels of the last convolutions.
        batch_size, learning_rate, critic_learning_rate, average: of the training.
        critic_width, critic_output, penalty: of the critic.
    """

    network: Network = "recurrent"
    reconstruction: float = 0.0
    n_latent: int = 8
    width: int = 32
    batch_size: int = 128
    learning_rate: float = 2e-3
    critic_learning_rate: float = 1e-3
    average: float = 0.99
    critic_width: int = 128
    critic_output: int = 64
    penalty: float = 10.0


@keras.saving.register_keras_serializable(package="pidgan")
class Rows(keras.layers.Layer):  # type: ignore[misc]
    """Pick fixed places along the first axis behind the batch's."""

    def __init__(self, rows: Any, **kwargs: Any) -> None:
        """Keep the places to pick."""
        super().__init__(**kwargs)
        self.rows = [int(row) for row in rows]

    def call(self, v: Any) -> Any:
        """Return v[:, rows]."""
        return tf.gather(v, self.rows, axis=1)


def cluster_network(
    n_conditions: int, n_rows: int, settings: ClusterSettings, *, seed: int
) -> keras.Model:
    """Build a generator: (conditions, noise) -> 3 coordinates and a flag for each row.

    The noise has `n_latent` + 4 `n_rows` numbers, the output 3 `n_rows` coordinates,
    row after row, and `n_rows` numbers that are positive where the cluster is found.
    """
    latent, rows = settings.n_latent, n_rows
    conditions = keras.Input((n_conditions,), name="conditions")
    noise = keras.Input((latent + 4 * rows,), name="noise")
    seeds = keras.random.SeedGenerator(seed)

    def dense(units: int, *, bias: float = 0.0, scale: float = 1.0) -> Any:
        return keras.layers.Dense(
            units,
            kernel_initializer=keras.initializers.VarianceScaling(scale, seed=seeds),
            bias_initializer=keras.initializers.Constant(bias),
        )

    z = Rows(range(latent))(noise)
    start = keras.layers.Concatenate()([conditions, z])
    body = _recurrent if settings.network == "recurrent" else _convolutional
    mean, log_scale, found = body(start, rows, settings.width, dense)
    scale = keras.layers.Activation("exponential")(log_scale)
    smear = keras.layers.Multiply()(
        [scale, Rows(range(latent, latent + 3 * rows))(noise)]
    )
    position = keras.layers.Add()([mean, smear])
    chance = Rows(range(latent + 3 * rows, latent + 4 * rows))(noise)
    found = keras.layers.Add()([found, chance])
    output = keras.layers.Concatenate()([position, found])
    return keras.Model([conditions, noise], output, name="generator")


def _recurrent(start: Any, n_rows: int, width: int, dense: Any) -> tuple[Any, Any, Any]:
    """Unroll a gated recurrent unit (Cho et al., arXiv:1406.1078) along the rows.

    What goes in is the same in each row, so that its part is computed once.
    """
    layers = keras.layers
    e = layers.Activation("relu")(dense(width)(start))
    e = layers.Activation("relu")(dense(width, scale=2.0)(e))
    state = layers.Activation("tanh")(dense(width)(e))
    entries = {gate: dense(width)(e) for gate in ("update", "reset", "new")}
    steps = {gate: dense(width) for gate in entries}
    move, spread, found = (
        dense(3, scale=0.1),
        dense(3, bias=INITIAL_SCALE),
        dense(1, bias=INITIAL_FLAG),
    )
    place = dense(3)(e)
    outputs: list[tuple[Any, Any, Any]] = []
    for _ in range(n_rows):
        update, reset = (
            layers.Activation("sigmoid")(
                layers.Add()([entries[gate], steps[gate](state)])
            )
            for gate in ("update", "reset")
        )
        kept = layers.Multiply()([reset, state])
        new = layers.Activation("tanh")(
            layers.Add()([entries["new"], steps["new"](kept)])
        )
        change = layers.Multiply()([update, layers.Subtract()([new, state])])
        state = layers.Add()([state, change])
        place = layers.Add()([place, move(state)])
        outputs.append((place, spread(state), found(state)))
    mean, scale, flag = (
        layers.Concatenate()(list(v)) for v in zip(*outputs, strict=True)
    )
    return mean, scale, flag


def _convolutional(
    start: Any, n_rows: int, width: int, dense: Any
) -> tuple[Any, Any, Any]:
    """Grow a coarse row of channels by doubling and convolving (arXiv:1511.06434).

    A convolution of three taps is a dense layer on a row and its two neighbours; at
    the ends the outermost row is its own neighbour.
    """
    layers = keras.layers
    n = -(-n_rows // 2**DOUBLINGS)
    channels = width * 2 ** (DOUBLINGS - 1)
    v = layers.Activation("relu")(dense(2 * width)(start))
    v = layers.Reshape((n, channels))(dense(n * channels, scale=2.0)(v))
    for _ in range(DOUBLINGS):
        v = layers.Activation("relu")(v)
        n, channels = 2 * n, max(channels // 2, width // 2)
        neighbours = [
            Rows(np.clip(np.arange(n) + shift, 0, n - 1) // 2)(v)
            for shift in (-1, 0, 1)
        ]
        v = dense(channels, scale=2.0)(layers.Concatenate()(neighbours))
    v = Rows(range(n_rows))(layers.Activation("relu")(v))
    # Rows keep an output layer of their own: a global picture sharpens the local one.
    flat = layers.Reshape((n_rows * channels,))(v)
    coarse = dense(3 * n_rows, scale=0.1)(flat)
    fine, scale = dense(3)(v), dense(3, bias=INITIAL_SCALE)(v)
    mean = layers.Add()([coarse, layers.Reshape((3 * n_rows,))(fine)])
    scale = layers.Reshape((3 * n_rows,))(scale)
    return mean, scale, dense(n_rows, bias=INITIAL_FLAG, scale=0.1)(flat)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedClusters:
    """A trained generator.

    Attributes:
        generator: keras network of scaled conditions and noise.
        n_noise: numbers of noise for a track.
        history: mean of each loss in every tenth of the training, and "seconds".
    """

    generator: Any
    n_noise: int
    history: dict[str, list[float]]


def train_clusters(
    conditions: FloatArray,
    targets: FloatArray,
    transform: ClusterTransform,
    *,
    settings: ClusterSettings,
    steps: int,
    seed: int = 1,
) -> TrainedClusters:
    """Train a generator of clusters.

    Args:
        conditions: (n, n_conditions), scaled.
        targets: (n, 3 n_rows), positions in m, `transform.sentinel` where missing.
        transform: of the targets.
        settings: what can be chosen.
        steps: updates.
        seed: of weights and batches.

    Raises:
        PidganError: an unknown network, or no tracks.
    """
    if settings.network not in ("recurrent", "convolutional"):
        raise PidganError(
            f"no network {settings.network!r}; there are recurrent and convolutional"
        )
    if len(conditions) < 2:
        raise PidganError(f"got {len(conditions)} tracks to train on, expected more")
    keras.utils.set_random_seed(seed % 2**31)
    play = _Play(conditions, targets, transform, settings=settings, seed=seed)
    began, history = time.perf_counter(), dict[str, list[float]]()
    chunk = max(1, steps // 10)
    for first in range(0, steps, chunk):
        n = min(chunk, steps - first)
        losses = play.run(*map(tf.constant, (first, n, steps)))
        for key, value in losses.items():
            history.setdefault(key, []).append(float(value))
            if not np.isfinite(history[key][-1]):
                raise PidganError(f"training diverged: loss {key!r} is not finite")
    play.optimizer.finalize_variable_values(play.generator.trainable_variables)
    history["seconds"] = [time.perf_counter() - began]
    return TrainedClusters(
        generator=play.generator, n_noise=play.n_noise, history=history
    )


class _Play:
    """Networks, data and one update of both."""

    def __init__(
        self,
        conditions: FloatArray,
        targets: FloatArray,
        transform: ClusterTransform,
        *,
        settings: ClusterSettings,
        seed: int,
    ) -> None:
        self.settings = s = settings
        self.seed = seed
        y, found = transform.forward(targets)
        self.data = tuple(
            tf.constant(v, dtype=tf.float32) for v in (conditions, y, found)
        )
        n_conditions, self.n_rows = conditions.shape[1], found.shape[1]
        self.n_noise = s.n_latent + 4 * self.n_rows
        self.generator = cluster_network(n_conditions, self.n_rows, s, seed=seed)
        self.critic = residual_network(
            {"conditions": n_conditions, "targets": 4 * self.n_rows},
            n_outputs=s.critic_output,
            width=s.critic_width,
            blocks=2,
            seed=seed + 1,
            name="critic",
        )
        self.optimizer = keras.optimizers.Adam(
            s.learning_rate, beta_1=0.5, use_ema=True, ema_momentum=s.average
        )
        self.critic_optimizer = keras.optimizers.Adam(
            s.critic_learning_rate, beta_1=0.5, beta_2=0.9
        )
        self.optimizer.build(self.generator.trainable_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)

    @tf.function  # type: ignore[untyped-decorator]
    def run(self, first: Any, n: Any, steps: Any) -> Mapping[str, Any]:
        """Do n updates and return the mean losses."""
        sums = {key: tf.constant(0.0) for key in LOSSES}
        for i in tf.range(n):
            losses = self._update(first + i, steps)
            sums = {key: sums[key] + losses[key] for key in LOSSES}
        return {key: value / tf.cast(n, tf.float32) for key, value in sums.items()}

    def _update(self, step: Any, steps: Any) -> dict[str, Any]:
        s = self.settings
        seed = tf.stack([tf.constant(self.seed % 2**31), step])
        share = tf.cast(step, tf.float32) / tf.cast(steps, tf.float32)
        rate = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + tf.cos(np.pi * share))
        self.optimizer.learning_rate = s.learning_rate * rate
        self.critic_optimizer.learning_rate = s.critic_learning_rate * rate
        index = tf.random.stateless_uniform(
            (s.batch_size,), seed, maxval=self.data[0].shape[0], dtype=tf.int32
        )
        x, y, found = (tf.gather(v, index) for v in self.data)
        mask = tf.repeat(found, 3, axis=1)
        noise = tf.random.stateless_normal(
            (2 * s.batch_size, self.n_noise), tf.random.fold_in(seed, 1)
        )
        # A probability needs no noise: the flag without it is the normal score of it.
        noise *= tf.constant([1.0] * (self.n_noise - self.n_rows) + [0.0] * self.n_rows)
        with tf.GradientTape(persistent=True) as tape:
            made = self.generator([tf.tile(x, (2, 1)), noise])
            positions, score = made[:, : 3 * self.n_rows], made[:, 3 * self.n_rows :]
            y_g, y_g2 = (mask * v for v in tf.split(positions, 2))
            h_r, h_g, h_g2 = self._h(x, found, y, y_g, y_g2)
            game = generator_loss(h_r, h_g, h_g2, tf.ones(s.batch_size))
            sign = tf.tile(2.0 * found - 1.0, (2, 1))
            chance = 0.5 * tf.math.erfc(-sign * score / np.sqrt(2.0))
            flags = -tf.reduce_mean(tf.math.log(chance + 1e-6))
            apart = tf.reshape(y_g - y, (s.batch_size, self.n_rows, 3))
            distance = tf.reduce_sum(found * length(apart)) / tf.reduce_sum(found)
            loss = game + flags + s.reconstruction * distance
            surrogate = critic_loss(h_r, h_g, h_g2, tf.ones(s.batch_size))
            penalty = self._penalty(x, found, (y, y_g, y_g2), seed)
            critic = surrogate + s.penalty * penalty
        for optimizer, network, value in (
            (self.critic_optimizer, self.critic, critic),
            (self.optimizer, self.generator, loss),
        ):
            variables = network.trainable_variables
            optimizer.apply(tape.gradient(value, variables), variables)
        found_losses = (game, flags, distance, surrogate, penalty)
        return dict(zip(LOSSES, found_losses, strict=True))

    def _h(self, x: Any, found: Any, *ys: Any) -> list[Any]:
        """Return the critic's transformation of several sets of positions."""
        k = len(ys)
        flags = tf.tile(found, (k, 1))
        y = tf.concat([tf.concat(ys, axis=0), flags], axis=1)
        return list(tf.split(self.critic([tf.tile(x, (k, 1)), y]), k))

    def _penalty(self, x: Any, found: Any, ys: tuple[Any, ...], seed: Any) -> Any:
        """Return (|grad f| - 1)^2 between real and generated positions."""
        y, y_g, y_g2 = ys[0], tf.stop_gradient(ys[1]), tf.stop_gradient(ys[2])
        share = tf.random.stateless_uniform(
            (y.shape[0] or self.settings.batch_size, 1), tf.random.fold_in(seed, 2)
        )
        y_hat = share * y + (1 - share) * y_g
        with tf.GradientTape() as tape:
            tape.watch(y_hat)
            h_hat, h_g2 = self._h(x, found, y_hat, y_g2)
            f_hat = length(h_hat - h_g2) - length(h_hat)
        gradient = length(tape.gradient(f_hat, y_hat))
        return tf.reduce_mean(tf.square(gradient - 1))


def cluster_sample(conditions: Mapping[str, Any], n_rows: int, source: str) -> Sample:
    """Return the definition of a sample of clusters in a fixed number of rows.

    Args:
        conditions: keys of `pidgan.sample.Variable` by the name of the condition.
        n_rows: places that a track may have a cluster at.
        source: where the sample is from.
    """
    transform = ClusterTransform(n_rows=n_rows)
    targets = [
        {
            "name": f"{axis}_{row}",
            "range": (-10.0, 10.0),
            "sentinels": (transform.sentinel,),
        }
        for row in range(n_rows)
        for axis in "xyz"
    ]
    return Sample.model_validate(
        {
            "schema": 1,
            "name": "clusters",
            "title": "Clusters along tracks",
            "detector": "time projection chamber",
            "species": "pi+",
            "source": source,
            "unweighted": True,
            "conditions": [{"name": k, **v} for k, v in conditions.items()],
            "targets": targets,
        }
    )


def cluster_model(
    trained: TrainedClusters,
    *,
    sample: Sample,
    conditions: ConditionTransform,
    transform: ClusterTransform,
    settings: ClusterSettings,
    held_out: pd.DataFrame,
    seed: int,
    steps: int,
) -> Model:
    """Join a generator and its transforms to a model, which can be exported.

    Args:
        trained: from `train_clusters`.
        sample: from `cluster_sample`.
        conditions: scaling of the conditions.
        transform: of the targets.
        settings: of the training.
        held_out: tracks never trained on: conditions, targets and "weight".
        seed: of the training.
        steps: of the training.
    """

    def describe(variable: Variable) -> CardVariable:
        column = held_out[variable.name].to_numpy()
        valid = column[~np.isin(column, variable.sentinels)]
        return CardVariable(
            name=variable.name,
            unit=variable.package_unit,
            range=(float(valid.min()), float(valid.max())),
            integer=variable.integer,
            sentinels=variable.sentinels,
            patterns=variable.patterns,
        )

    card = Card(
        detector=sample.detector,
        species=sample.species,
        conditions=tuple(map(describe, sample.conditions)),
        targets=tuple(map(describe, sample.targets)),
        n_noise=trained.n_noise,
        sample=sample,
        family="clusters",
        settings=dataclasses.asdict(settings),
        seed=seed,
        steps=steps,
    )
    return Model(
        card=card,
        conditions=conditions,
        targets=transform,
        generator=trained.generator,
        patterns=None,
        history=trained.history,
        held_out=held_out,
    )
