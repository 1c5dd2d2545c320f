"""Generators of clusters along a track: convolutional or recurrent.

Both make, row by row, the distance of a cluster to the helix that the conditions
describe (`models.helix`), and whether it is found. Which to use when: `convolutional`
knows of the neighbours of a row and is faster in training; `recurrent` steps from row
to row as a track does, and carries on what happened before.

- Whether a cluster is found is a probability of its own, trained by its log-loss. As
  a by-product of a game it is learnt late or not at all.
- The distances play against a critic as a Cramér GAN (`models.adversarial`,
  arXiv:1705.10743), which sees the rows that are found in the real track.
- With `reconstruction` the generator is also pulled to the true clusters, as the "+"
  models of ALICE are (K. Deja, T. Trzcinski, L. Graczykowski, EPJ Web Conf. 214 (2019)
  06003). The squared error that they add leaves no width to a generator; here each
  error counts in units of a width that is learnt with it, a Gaussian likelihood.

With m, the triangular matrix S and b functions of the conditions and a few latent
numbers, and standard normal noise u and v, the two distances are m + S (u + b(u)), and
a cluster is found if Phi(v) is below its probability.
"""

import dataclasses
import itertools
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.card import Card, CardVariable
from pidgan.bundle.formulas import Array
from pidgan.errors import PidganError
from pidgan.sample.definition import Sample
from pidgan.sample.variables import Variable
from pidgan.training.backend import keras, tf
from pidgan.training.conditions import LINEAR, ConditionTransform
from pidgan.training.families.cramer import critic_loss, generator_loss
from pidgan.training.model import Model
from pidgan.training.networks.evaluation import evaluate
from pidgan.training.networks.helix import COLUMNS, FEATURES, SENTINEL, Frame
from pidgan.training.networks.updates import cosine, length
from pidgan.training.targets.physical import PhysicalTransform

Network = Literal["recurrent", "convolutional"]

#: Losses by name: of generator, flags and likelihood, of the critic and its penalty.
LOSSES = ("game", "flags", "likelihood", "critic", "penalty")
#: Smallest share of the learning rate, at the end.
FINAL_RATE = 0.02
#: Largest |ln| of the width in mm.
MAX_LOG_WIDTH = 4.0
#: Logit of the share of found clusters to begin with.
INITIAL_FLAG = 2.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """What can be chosen.

    Attributes:
        network: "recurrent" or "convolutional".
        reconstruction: factor of the likelihood of the true clusters; 0 leaves it out.
        taught: with `reconstruction`, share of the updates before the game begins.
        n_latent: latent numbers of a track.
        width: channels of each layer.
        batch_size, learning_rate, critic_learning_rate, average: of the training.
        critic_width, critic_output, penalty: of the critic.
    """

    network: Network = "recurrent"
    reconstruction: float = 0.0
    taught: float = 0.5
    n_latent: int = 4
    width: int = 16
    batch_size: int = 128
    learning_rate: float = 3e-3
    critic_learning_rate: float = 1e-3
    average: float = 0.99
    critic_width: int = 32
    critic_output: int = 32
    penalty: float = 10.0


class ClusterGenerator:
    """A generator: (conditions, noise) -> positions.

    The conditions are the columns that networks see, followed by the helix. The noise
    has `n_latent` numbers of the track, then one of each row for its distance along the
    pads, for that in z, and for being found. The output has the 3 coordinates of row
    after row in mm, or the sentinel.
    """

    def __init__(
        self, frame: Frame, n_conditions: int, settings: ClusterSettings, *, seed: int
    ) -> None:
        """Build the network.

        Args:
            frame: chamber.
            n_conditions: columns, the helix not counted.
            settings: what can be chosen.
            seed: of the initial weights.
        """
        self.frame, self.n_conditions = frame, n_conditions
        self.n_rows, self.n_latent = len(frame.radii), settings.n_latent
        self.n_noise = settings.n_latent + 3 * self.n_rows
        self.network = _network(n_conditions, self.n_rows, settings, seed=seed)
        self.variables: list[Any] = list(self.network.trainable_variables)

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """Return positions, (n, 3 n_rows)."""
        x, noise = inputs["conditions"], inputs["noise"]
        rows = self._cross(x)
        parts = self._parts(rows, x, noise)
        first = self.n_latent + 2 * self.n_rows
        drawn = f.uniform(f.columns(noise, first, first + self.n_rows))
        flag = f.sigmoid(parts["logit"]) - drawn
        return self.frame.place(rows, {**parts, "flag": flag})

    def distances(self, x: Any, noise: Any) -> dict[str, Any]:
        """Return distances and what they are made of, for the training.

        Args:
            x: (n, n_conditions + 5).
            noise: (n, n_noise).

        Returns:
            "y": (n, n_rows, 2), mm; "m", (n, n_rows, 2); "log_width", (n, n_rows, 2);
            "slant", (n, n_rows), S_21; "logit", (n, n_rows).
        """
        parts = self._parts(self._cross(x), x, noise)
        pairs = {
            "y": ("along", "z"),
            "m": ("m_along", "m_z"),
            "log_width": ("log_along", "log_z"),
        }
        stacked = {k: tf.stack([parts[v] for v in p], axis=2) for k, p in pairs.items()}
        return {"slant": parts["slant"], "logit": parts["logit"], **stacked}

    def features(self, x: Any) -> Any:
        """Return what the frame says of the rows, (n, n_rows, FEATURES)."""
        found = self.frame.features(self._cross(x))
        planes = tf.reshape(found, (-1, FEATURES, self.n_rows))
        return tf.transpose(planes, (0, 2, 1))

    def _cross(self, x: Array) -> dict[str, Array]:
        n = self.n_conditions
        return self.frame.cross(f.columns(x, n, n + len(COLUMNS)))

    def _parts(
        self, rows: dict[str, Array], x: Array, noise: Array
    ) -> dict[str, Array]:
        """Evaluate the network and smear: (n, n_rows) each."""
        n, latent = self.n_rows, self.n_latent
        each = f.columns(noise, latent, latent + 2 * n)
        inputs = {
            "conditions": f.columns(x, 0, self.n_conditions),
            "latent": f.columns(noise, 0, latent),
            "features": self.frame.features(rows),
            "noise": each,
        }
        out = evaluate(self.network, inputs)
        m_along, m_z, *logs, b_along, b_z, logit = (
            f.columns(out, k * n, (k + 1) * n) for k in range(8)
        )
        log_along, slant, log_z = logs
        log_along, log_z = (
            f.tanh(log / MAX_LOG_WIDTH) * MAX_LOG_WIDTH for log in (log_along, log_z)
        )
        u = f.columns(each, 0, n) + b_along
        v = f.columns(each, n, 2 * n) + b_z
        return {
            "along": m_along + f.exp(log_along) * u,
            "z": m_z + (slant * u + f.exp(log_z) * v),
            "m_along": m_along,
            "m_z": m_z,
            "log_along": log_along,
            "log_z": log_z,
            "slant": slant,
            "logit": logit,
        }


class FromPlanes(keras.layers.Layer):  # type: ignore[misc]
    """One channel of all rows after another, (n, channels n_rows): (n, rows, channels).

    Attributes:
        planes: (channels, rows).
    """

    def __init__(self, planes: tuple[int, int], **kwargs: Any) -> None:
        """Keep the sizes."""
        super().__init__(**kwargs)
        self.planes = planes

    def call(self, v: Any) -> Any:
        """Return (n, rows, channels)."""
        return tf.transpose(tf.reshape(v, (-1, *self.planes)), (0, 2, 1))


class ToPlanes(keras.layers.Layer):  # type: ignore[misc]
    """The way back of `FromPlanes`."""

    planes = (-1,)

    def call(self, v: Any) -> Any:
        """Return (n, channels rows)."""
        size = v.shape[1] * v.shape[2]
        return tf.reshape(tf.transpose(v, (0, 2, 1)), (-1, size))


def _network(
    n_conditions: int, n_rows: int, settings: ClusterSettings, *, seed: int
) -> keras.Model:
    """Build the network: all rows' m, then their ln S_11, S_21, ln S_22, b, logit."""
    layers, width = keras.layers, settings.width
    seeds = keras.random.SeedGenerator(seed)

    def kernel(scale: float) -> Any:
        return keras.initializers.VarianceScaling(scale, seed=seeds)

    def convolution(
        units: int, v: Any, *, taps: int = 1, scale: float = 2.0, bias: float = 0.0
    ) -> Any:
        return layers.Conv1D(
            units,
            taps,
            padding="same",
            kernel_initializer=kernel(scale) if scale else "zeros",
            bias_initializer=keras.initializers.Constant(bias),
        )(v)

    def relu(v: Any) -> Any:
        return layers.Activation("relu")(v)

    sizes = {
        "conditions": n_conditions,
        "latent": settings.n_latent,
        "features": FEATURES * n_rows,
        "noise": 2 * n_rows,
    }
    entries = {name: keras.Input((size,), name=name) for name, size in sizes.items()}
    track = layers.Concatenate()([entries["conditions"], entries["latent"]])
    track = layers.Dense(n_rows * width, kernel_initializer=kernel(1.0))(track)
    local = convolution(width, FromPlanes((FEATURES, n_rows))(entries["features"]))
    start = relu(layers.Add()([FromPlanes((width, n_rows))(track), local]))
    if settings.network == "recurrent":
        context = layers.GRU(
            width,
            return_sequences=True,
            unroll=True,
            kernel_initializer=kernel(1.0),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seeds),
        )(start)
    else:
        context = relu(convolution(width, start, taps=3))
        context = relu(convolution(width, context, taps=3))
    hidden = relu(convolution(width, layers.Add()([start, context])))
    moments = convolution(5, hidden, scale=0.1)
    noise = convolution(width, FromPlanes((2, n_rows))(entries["noise"]))
    bend = relu(layers.Add()([convolution(width, hidden), noise]))
    bend = convolution(2, bend, scale=0.0)
    both = layers.Add()([convolution(width, start), convolution(width, context)])
    flag = convolution(1, relu(both), scale=0.1, bias=INITIAL_FLAG)
    output = ToPlanes()(layers.Concatenate()([moments, bend, flag]))
    return keras.Model(entries, output, name="generator")


def _critic(
    n_conditions: int, n_rows: int, settings: ClusterSettings, *, seed: int
) -> keras.Model:
    """Build h: conditions and rows (features, two distances, flag) to R^k."""
    layers, width = keras.layers, settings.critic_width
    seeds = keras.random.SeedGenerator(seed)

    def kernel(scale: float) -> Any:
        return keras.initializers.VarianceScaling(scale, seed=seeds)

    conditions = keras.Input((n_conditions,), name="conditions")
    rows = keras.Input((n_rows, FEATURES + 3), name="rows")
    track = layers.Dense(n_rows * width, kernel_initializer=kernel(1.0))(conditions)
    v = layers.Conv1D(width, 1, kernel_initializer=kernel(2.0))(rows)
    v = layers.Add()([v, layers.Reshape((n_rows, width))(track)])
    for _ in range(2):
        v = layers.Conv1D(width, 3, padding="same", kernel_initializer=kernel(2.0))(
            layers.Activation("relu")(v)
        )
    v = layers.GlobalAveragePooling1D()(layers.Activation("relu")(v))
    h = layers.Dense(settings.critic_output, kernel_initializer=kernel(n_rows))(v)
    return keras.Model({"conditions": conditions, "rows": rows}, h, name="critic")


def with_helix(
    conditions: ConditionTransform, columns: tuple[int, ...]
) -> ConditionTransform:
    """Append the helix, as it is, to the columns that networks see.

    What comes of it has no `inverse`: some conditions are there twice.

    Args:
        conditions: fitted scaling.
        columns: which conditions pt, dip, phi, z and charge are.
    """
    k = len(columns)
    return ConditionTransform(
        source=np.concatenate([conditions.source, columns]),
        code=np.concatenate([conditions.code, np.full(k, LINEAR)]),
        centre=np.concatenate([conditions.centre, np.zeros(k, np.float32)]),
        scale=np.concatenate([conditions.scale, np.ones(k, np.float32)]),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedClusters:
    """A trained generator.

    Attributes:
        generator: `ClusterGenerator`.
        n_noise: numbers of noise for a track.
        history: mean of each loss in parts of the training, about a tenth each, and
            "seconds".
    """

    generator: Any
    n_noise: int
    history: dict[str, list[float]]


def train_clusters(
    conditions: FloatArray,
    targets: FloatArray,
    frame: Frame,
    *,
    settings: ClusterSettings,
    steps: int,
    seed: int = 1,
) -> TrainedClusters:
    """Train a generator of clusters.

    Args:
        conditions: (n, n_columns), scaled, the last five as of `with_helix`.
        targets: (n, 3 n_rows), positions in mm, the sentinel where missing.
        frame: chamber.
        settings: what can be chosen.
        steps: updates.
        seed: of weights and batches.

    Raises:
        PidganError: an unknown network, too few tracks, positions that are not in the
            rows of the frame (`Frame.residuals`), or a loss that is not finite.
    """
    if settings.network not in ("recurrent", "convolutional"):
        raise PidganError(
            f"no network {settings.network!r}; there are recurrent and convolutional"
        )
    if len(conditions) < 2:
        raise PidganError(f"got {len(conditions)} tracks to train on, expected more")
    if targets.shape[1] != 3 * len(frame.radii):
        raise PidganError(
            f"got {targets.shape[1]} targets, expected 3 for each of "
            f"{len(frame.radii)} rows"
        )
    keras.utils.set_random_seed(seed % 2**31)
    play = _Play(conditions, targets, frame, settings=settings, seed=seed)
    taught = round(steps * settings.taught) if settings.reconstruction else 0
    began, history = time.perf_counter(), dict[str, list[float]]()
    edges = {0, taught, *(round(steps * k / 10) for k in range(11))}
    for first, end in itertools.pairwise(sorted(edges)):
        bounds = map(tf.constant, (first, end, steps))
        losses = play.run(*bounds, playing=first >= taught)
        for key, value in losses.items():
            history.setdefault(key, []).append(float(value))
            if not np.isfinite(history[key][-1]):
                raise PidganError(f"training diverged: loss {key!r} is not finite")
    play.optimizer.finalize_variable_values(play.generator.variables)
    history["seconds"] = [time.perf_counter() - began]
    generator = play.generator
    return TrainedClusters(
        generator=generator, n_noise=generator.n_noise, history=history
    )


class _Play:
    """Networks, data and one update of both."""

    def __init__(
        self,
        conditions: FloatArray,
        targets: FloatArray,
        frame: Frame,
        *,
        settings: ClusterSettings,
        seed: int,
    ) -> None:
        self.settings = s = settings
        self.seed = seed
        self.n_rows = n_rows = len(frame.radii)
        n_conditions = conditions.shape[1] - len(COLUMNS)
        self.generator = ClusterGenerator(frame, n_conditions, s, seed=seed)
        y, found = frame.residuals(targets, conditions[:, n_conditions:])
        self.data = tuple(
            tf.constant(v, dtype=tf.float32) for v in (conditions, y, found)
        )
        self.critic = _critic(n_conditions, n_rows, s, seed=seed + 1)
        self.optimizer = keras.optimizers.Adam(
            s.learning_rate, beta_1=0.5, use_ema=True, ema_momentum=s.average
        )
        self.critic_optimizer = keras.optimizers.Adam(
            s.critic_learning_rate, beta_1=0.5, beta_2=0.9
        )
        self.optimizer.build(self.generator.variables)
        self.critic_optimizer.build(self.critic.trainable_variables)

    @tf.function  # type: ignore[untyped-decorator]
    def run(self, first: Any, end: Any, steps: Any, *, playing: bool) -> Any:
        """Do updates from the first to before the end and return the mean losses."""
        sums = {key: tf.constant(0.0) for key in LOSSES}
        for step in tf.range(first, end):
            losses = self._update(step, steps, playing=playing)
            sums = {key: sums[key] + losses[key] for key in LOSSES}
        return {k: v / tf.cast(end - first, tf.float32) for k, v in sums.items()}

    def _update(self, step: Any, steps: Any, *, playing: bool) -> dict[str, Any]:
        s = self.settings
        seed = tf.stack([tf.constant(self.seed % 2**31), step])
        rate = cosine(step, steps, final=FINAL_RATE)
        self.optimizer.learning_rate = s.learning_rate * rate
        self.critic_optimizer.learning_rate = s.critic_learning_rate * rate
        index = tf.random.stateless_uniform(
            (s.batch_size,), seed, maxval=self.data[0].shape[0], dtype=tf.int32
        )
        x, y, found = (tf.gather(v, index) for v in self.data)
        copies = 2 if playing else 1
        noise = tf.random.stateless_normal(
            (copies * s.batch_size, self.generator.n_noise),
            tf.random.fold_in(seed, 1),
        )
        zero = tf.constant(0.0)
        game, critic, penalty = zero, zero, zero
        with tf.GradientTape(persistent=True) as tape:
            made = self.generator.distances(tf.tile(x, (copies, 1)), noise)
            once = {key: value[: s.batch_size] for key, value in made.items()}
            flags = _log_loss(once["logit"], found)
            likelihood = _likelihood(once, y, found)
            loss = flags + s.reconstruction * likelihood
            if playing:
                y_g, y_g2 = tf.split(made["y"], 2)
                h_r, h_g, h_g2 = self._h(x, found, y, y_g, y_g2)
                ones = tf.ones(s.batch_size)
                game = generator_loss(h_r, h_g, h_g2, ones)
                loss += game
                critic = critic_loss(h_r, h_g, h_g2, ones)
                penalty = self._penalty(x, found, (y, y_g, y_g2), seed)
                total = critic + s.penalty * penalty
        if playing:
            variables = self.critic.trainable_variables
            self.critic_optimizer.apply(tape.gradient(total, variables), variables)
        variables = self.generator.variables
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        self.optimizer.apply(gradients, variables)
        losses = (game, flags, likelihood, critic, penalty)
        return dict(zip(LOSSES, losses, strict=True))

    def _h(self, x: Any, found: Any, *ys: Any) -> list[Any]:
        """Return the critic's transformation of several sets of distances."""
        k = len(ys)
        flags = tf.tile(found[:, :, None], (k, 1, 1))
        features = tf.tile(self.generator.features(x), (k, 1, 1))
        y = flags * tf.concat(ys, axis=0)
        conditions = tf.tile(x[:, : self.generator.n_conditions], (k, 1))
        rows = tf.concat([features, y, flags], axis=2)
        return list(tf.split(self.critic({"conditions": conditions, "rows": rows}), k))

    def _penalty(self, x: Any, found: Any, ys: tuple[Any, ...], seed: Any) -> Any:
        """Return (|grad f| - 1)^2 between real and generated distances."""
        y, y_g, y_g2 = ys[0], tf.stop_gradient(ys[1]), tf.stop_gradient(ys[2])
        share = tf.random.stateless_uniform(
            (self.settings.batch_size, 1, 1), tf.random.fold_in(seed, 2)
        )
        y_hat = share * y + (1 - share) * y_g
        with tf.GradientTape() as tape:
            tape.watch(y_hat)
            h_hat, h_g2 = self._h(x, found, y_hat, y_g2)
            f_hat = length(h_hat - h_g2) - length(h_hat)
        gradient = tf.reshape(tape.gradient(f_hat, y_hat), (y_hat.shape[0], -1))
        return tf.reduce_mean(tf.square(length(gradient) - 1))


def _log_loss(logit: Any, found: Any) -> Any:
    """Return the mean log-loss of the flags."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=found, logits=logit)
    return tf.reduce_mean(losses)


def _likelihood(made: dict[str, Any], y: Any, found: Any) -> Any:
    """Return -log of the normal density N(m, S S^T) of a found cluster, on average."""
    apart = (y - made["m"]) * tf.exp(-made["log_width"])
    u = apart[:, :, 0]
    v = apart[:, :, 1] - made["slant"] * u * tf.exp(-made["log_width"][:, :, 1])
    losses = 0.5 * (u**2 + v**2) + tf.reduce_sum(made["log_width"], axis=2)
    return tf.reduce_sum(found * losses) / tf.reduce_sum(found)


def cluster_sample(conditions: Mapping[str, Any], n_rows: int, source: str) -> Sample:
    """Return the definition of a sample of clusters in a fixed number of rows.

    Args:
        conditions: keys of `pidgan.sample.variables.Variable` by the name of the
            condition.
        n_rows: places that a track may have a cluster at.
        source: where the sample is from.
    """
    targets = [
        {
            "name": f"{axis}_{row}",
            "unit": "mm",
            "range": (-5000.0, 5000.0),
            "sentinels": (SENTINEL,),
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
    settings: ClusterSettings,
    held_out: pd.DataFrame,
    seed: int,
    steps: int,
) -> Model:
    """Join a generator and its transforms to a model, which can be exported.

    `open_model` knows families of `train` only: it does not read such a model.

    Args:
        trained: from `train_clusters`.
        sample: from `cluster_sample`.
        conditions: scaling of the conditions.
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
        targets=PhysicalTransform(n_targets=len(sample.targets)),
        generator=trained.generator,
        patterns=None,
        history=trained.history,
        held_out=held_out,
    )
