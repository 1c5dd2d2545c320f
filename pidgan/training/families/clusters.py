"""Family `clusters`: clusters along a track, by convolutional or recurrent networks.

Row by row, a generator makes the distance of a cluster to the helix that the conditions
describe (`pidgan.training.networks.helix`), and whether the cluster is found. Which
network to use when: `convolutional` knows of the neighbours of a row and trains faster;
`recurrent` steps from row to row as a track does, and remembers what happened before.

- Whether a cluster is found has a probability of its own, which is trained with its
  log-loss. It is learnt late or not at all as a by-product of a game.
- The distances play against the critic of a Cramér GAN
  (`pidgan.training.families.cramer`), which sees the rows that are found in the real
  track.
- With `reconstruction` the generator is also pulled to the true clusters, as the "+"
  models of ALICE are (K. Deja, T. Trzcinski, L. Graczykowski, EPJ Web Conf. 214 (2019)
  06003). The squared error that these models add leaves no width to a generator; here
  each error counts in units of a width that is learnt with it, a Gaussian likelihood.

With m, the triangular matrix S and b functions of the conditions and a few latent
numbers, and standard normal noise u and v, the two distances are m + S (u + b(u)), and
a cluster is found if Phi(v) is below its probability.
"""

import dataclasses
import functools
from typing import Any, Literal

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.sample.clusters import HELIX
from pidgan.training import phases
from pidgan.training.backend import keras, tf
from pidgan.training.families import cramer
from pidgan.training.families.settings import Span
from pidgan.training.networks.evaluation import evaluate
from pidgan.training.networks.helix import FEATURES, Frame
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.networks.updates import kernel_score, minus_distance
from pidgan.training.phases import Batch, Descent, Family, Optimizer, Phase, Update

#: Largest |ln| of the width in mm.
MAX_LOG_WIDTH = 4.0
#: Logit of the share of found clusters to begin with.
INITIAL_FLAG = 2.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clusters:
    """Clusters along a track, by a game and, if asked for, a likelihood.

    Attributes:
        network: Network of the generator, "recurrent" or "convolutional".
        reconstruction: Factor of the likelihood of the true clusters; 0 leaves it out.
        taught: Share of the steps before the game begins, if there is a likelihood.
        n_latent: Number of latent numbers of a track.
        width: Number of channels of each layer of the generator.
        batch_size: Number of tracks of a step.
        learning_rate: Learning rate of the generator at the start.
        critic_learning_rate: Learning rate of the critic at the start.
        average: Largest momentum of the averaged weights of the generator.
        critic_width: Number of channels of each layer of the critic.
        critic_output: Number of outputs of the critic h.
        penalty: Factor lambda of the gradient penalty.
        xla: Whether the steps are compiled with XLA.
    """

    network: Literal["recurrent", "convolutional"] = "recurrent"
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
    xla: bool = False

    spans = {  # noqa: RUF012
        "n_latent": Span(2, 8),
        "width": Span(8, 32, log=True),
        "learning_rate": Span(1e-3, 6e-3, log=True),
        "critic_learning_rate": Span(3e-4, 3e-3, log=True),
        "critic_width": Span(16, 64, log=True),
    }


class ClusterGenerator:
    """A generator: (conditions, noise) -> distances to the helix and flags.

    The conditions end with the helix. The noise has `n_latent` numbers of the track,
    then one of each row for its distance along the pads, for that in z, and for being
    found. The output has all distances along the pads, those in z, and the flags,
    positive where a cluster is found.
    """

    def __init__(
        self, frame: Frame, n_conditions: int, settings: Clusters, *, seed: int
    ) -> None:
        self.frame, self.n_conditions = frame, n_conditions
        self.n_rows, self.n_latent = len(frame.radii), settings.n_latent
        self.n_noise = settings.n_latent + 3 * self.n_rows
        self.network = _network(n_conditions, self.n_rows, settings, seed=seed)
        self.variables: list[Any] = list(self.network.trainable_variables)

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """Return the coordinates, (n, 3 n_rows)."""
        x, noise = inputs["conditions"], inputs["noise"]
        parts = self._parts(self._cross(x), x, noise)
        first = self.n_latent + 2 * self.n_rows
        drawn = f.uniform(f.columns(noise, first, first + self.n_rows))
        flag = f.sigmoid(parts["logit"]) - drawn
        return f.concatenate([parts["along"], parts["z"], flag])

    def distances(self, x: Any, noise: Any) -> dict[str, Any]:
        """Return distances y = m + S (...), mm, and what they are made of, by name."""
        parts = self._parts(self._cross(x), x, noise)
        for name, start in (("y", ""), ("m", "m_"), ("log_width", "log_")):
            pair = parts.pop(f"{start}along"), parts.pop(f"{start}z")
            parts[name] = tf.stack(pair, axis=2)
        return parts

    def features(self, x: Any) -> Any:
        """Return what the frame says of the rows, (n, n_rows, FEATURES)."""
        found = self.frame.features(self._cross(x))
        planes = tf.reshape(found, (-1, FEATURES, self.n_rows))
        return tf.transpose(planes, (0, 2, 1))

    def _cross(self, x: Array) -> dict[str, Array]:
        n = self.n_conditions
        return self.frame.cross(f.columns(x, n, n + len(HELIX)))

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
        names = ["m_along", "m_z", "log_along", "slant", "log_z"]
        names += ["b_along", "b_z", "logit"]
        p = {name: f.columns(out, k * n, (k + 1) * n) for k, name in enumerate(names)}
        for name in ("log_along", "log_z"):
            p[name] = f.tanh(p[name] / MAX_LOG_WIDTH) * MAX_LOG_WIDTH
        u = f.columns(each, 0, n) + p.pop("b_along")
        v = f.columns(each, n, 2 * n) + p.pop("b_z")
        p["along"] = p["m_along"] + f.exp(p["log_along"]) * u
        p["z"] = p["m_z"] + (p["slant"] * u + f.exp(p["log_z"]) * v)
        return p


class FromPlanes(keras.layers.Layer):  # type: ignore[misc]
    """From (n, channels rows), a channel after another, to (n, rows, channels)."""

    def __init__(self, planes: tuple[int, int], **kwargs: Any) -> None:
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
    n_conditions: int, n_rows: int, settings: Clusters, *, seed: int
) -> keras.Model:
    """Build the network: all rows' m, then their ln S_11, S_21, ln S_22, b, logit."""
    layers, width = keras.layers, settings.width
    seeds = keras.random.SeedGenerator(seed)
    kernel = functools.partial(keras.initializers.VarianceScaling, seed=seeds)

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
    n_conditions: int, n_rows: int, settings: Clusters, *, seed: int
) -> keras.Model:
    """Build h: conditions and rows (features, two distances, flag) to R^k."""
    layers, width = keras.layers, settings.critic_width
    seeds = keras.random.SeedGenerator(seed)
    kernel = functools.partial(keras.initializers.VarianceScaling, seed=seeds)

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


def build(settings: Clusters, *, shape: Shape, seed: int) -> Family:
    """Return the generator, a phase that teaches it if asked for, and the game."""
    s = settings
    frame: Frame = shape.transform.frame
    n_rows, n_conditions = len(frame.radii), shape.n_conditions - len(HELIX)
    generator = ClusterGenerator(frame, n_conditions, s, seed=seed)
    critic = _critic(n_conditions, n_rows, s, seed=seed + 1)

    def make(batch: Batch, seed: Any, copies: int) -> dict[str, Any]:
        x = tf.tile(batch["x"], (copies, 1))
        size = (tf.shape(x)[0], generator.n_noise)
        return generator.distances(x, tf.random.stateless_normal(size, seed))

    def h(batch: Batch, *ys: tf.Tensor) -> list[tf.Tensor]:
        """Return h of several sets of distances; lost clusters are not seen."""
        k, found = len(ys), _truth(batch)[1]
        flags = tf.tile(found[:, :, None], (k, 1, 1))
        features = tf.tile(generator.features(batch["x"]), (k, 1, 1))
        rows = tf.concat([features, flags * tf.concat(ys, axis=0), flags], axis=2)
        conditions = tf.tile(batch["x"][:, :n_conditions], (k, 1))
        return list(tf.split(critic({"conditions": conditions, "rows": rows}), k))

    def taught_losses(batch: Batch, seed: Any) -> dict[str, Any]:
        return _log_losses(make(batch, seed, 1), batch)

    def game_losses(batch: Batch, seed: Any) -> dict[str, Any]:
        made, (y_r, _) = make(batch, seed, 2), _truth(batch)
        y_g, y_g2 = tf.split(made["y"], 2)
        h_r, h_g, h_g2 = h(batch, y_r, y_g, y_g2)
        fixed, fixed2 = tf.stop_gradient(y_g), tf.stop_gradient(y_g2)

        def f_at(y_hat: tf.Tensor) -> tf.Tensor:
            return cramer.f(*h(batch, y_hat, fixed2))

        w = batch["w"]
        once = {name: tf.split(value, 2)[0] for name, value in made.items()}
        return {
            "game": cramer.generator_loss(h_r, h_g, h_g2, w),
            **_log_losses(once, batch),
            "critic": cramer.critic_loss(h_r, h_g, h_g2, w),
            "penalty": cramer.gradient_penalty(f_at, y_r, fixed, seed=seed),
        }

    def held_out(batch: Batch, seed: Any) -> dict[str, Any]:
        """Return the energy score of found clusters, in place of the critic's view."""
        made, (y_r, found) = make(batch, seed, 2), _truth(batch)
        y_r, *y_g = (
            tf.reshape(found[:, :, None] * y, (-1, 2 * n_rows))
            for y in (y_r, *tf.split(made["y"], 2))
        )
        score = kernel_score(minus_distance, y_r, tf.stack(y_g), batch["w"])
        once = {name: tf.split(value, 2)[0] for name, value in made.items()}
        return {"game": score, **_log_losses(once, batch)}

    known = {"flags": 1.0, "likelihood": s.reconstruction}
    adam = functools.partial(Optimizer, schedule=phases.over_the_training, beta_1=0.5)
    optimizer = adam(s.learning_rate, average=s.average)
    critic_descent = Descent(
        critic.trainable_variables,
        adam(s.critic_learning_rate, beta_2=0.9),
        {"critic": 1.0, "penalty": s.penalty},
    )
    taught = Update(
        taught_losses, Descent(generator.variables, optimizer, known, taught_losses)
    )
    generator_descent = Descent(
        generator.variables, optimizer, {"game": 1.0, **known}, held_out
    )
    game = Update(game_losses, generator_descent, critic_descent)
    share = s.taught if s.reconstruction else 0.0
    return Family(
        generator=generator,
        n_noise=generator.n_noise,
        phases=[
            Phase("teach", share, s.batch_size, updates=[taught]),
            Phase("play", 1 - share, s.batch_size, updates=[game]),
        ],
    )


def _truth(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Return true distances (n, n_rows, 2), and 1 where a cluster is found."""
    along, z, flag = tf.split(batch["y"], 3, axis=1)
    return tf.stack([along, z], axis=2), tf.cast(flag > 0, tf.float32)


def _log_losses(made: dict[str, Any], batch: Batch) -> dict[str, Any]:
    """Return log-losses of flags, and of found clusters under N(m, S S^T)."""
    (y, found), w = _truth(batch), batch["w"][:, None]
    flags = tf.nn.sigmoid_cross_entropy_with_logits(labels=found, logits=made["logit"])
    apart = (y - made["m"]) * tf.exp(-made["log_width"])
    u = apart[:, :, 0]
    v = apart[:, :, 1] - made["slant"] * u * tf.exp(-made["log_width"][:, :, 1])
    each = 0.5 * (u**2 + v**2) + tf.reduce_sum(made["log_width"], axis=2)
    likelihood = tf.reduce_sum(w * found * each) / tf.reduce_sum(found)
    return {"flags": tf.reduce_mean(w * flags), "likelihood": likelihood}
