"""Numbers of a shower made one after the other, each given those before it.

The density of n coordinates is a product of n densities of one (an autoregressive
model; Papamakarios et al., arXiv:1912.02762, Sec. 3.1). One number of noise u makes a
coordinate z by a monotonic map that has an inverse in closed form,

    z = 0 of energy where u <= c, else
    z = m + s sinh(t (asinh v + e)),   v = ln(exp(u - c) - 1) - ln(1 + exp(-c)):

the edge c is the normal score of the probability of a zero, and towards it the energy
falls to nothing, so that rounding cannot make a cell appear. The rest is the
sinh-arcsinh distribution with location, scale, skewness and tails (Jones and Pewsey,
Biometrika 96 (2009) 761, Eq. 2). A small network makes the five numbers c, m, s, e, t
from the context, from the coordinates in its window, from a sum over all earlier ones
and from the place of the shower.

Cells that are not in each other's window are made at once: a *stage*.
"""

import dataclasses
from typing import Any

import numpy as np

from pidgan.calorimeter import tracing
from pidgan.models.backend import keras, tf
from pidgan.typing import FloatArray, IntArray

N_OUTPUTS = 5
"""Of a network: edge, location, logarithm of the scale, skewness, tails."""

N_FEATURES = 2
"""Numbers in which an earlier coordinate is seen."""

NOTHING = -14.0
"""Logarithm of a share of energy that is seen as nothing."""

MOST_V = 12.0
MOST_LOG_TAIL = 0.7
MOST_SKEW = 1.5
MOST_EDGE = 6.0
FIRST_EDGE = -3.0
LEAST_SCALE = 1e-3
MOST_LOG_SCALE = 5.0
LEAST = -30.0  # coordinate of what holds no energy
LEAST_REST = 3e-3
NEAR = 0.1  # square of the distance, in cells, below which a cell holds the axis
TINY = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """Who comes when, and who sees whom: n coordinates.

    Attributes:
        stages: coordinates that are made at once, in turn.
        window: (n, slots), earlier coordinates that each sees; n for none.
        group: (n,), equal for coordinates whose shares have the sum 1; -1 for others.
        place: (n, dimensions), in cells; no dimension where there is no place.
        slope, offset: (n,), logarithm of a share, slope z + offset.
        most: (n,), largest coordinate.
    """

    stages: tuple[IntArray, ...]
    window: IntArray
    group: IntArray
    place: FloatArray
    slope: FloatArray
    offset: FloatArray
    most: FloatArray

    @property
    def n(self) -> int:
        """Number of coordinates."""
        return len(self.window)

    @property
    def earlier(self) -> FloatArray:
        """(n, n), 1 where the column is of an earlier stage than the row."""
        stage = np.empty(self.n)
        for number, members in enumerate(self.stages):
            stage[members] = number
        return np.asarray(stage[:, None] > stage[None], dtype=np.float32)

    @property
    def spent(self) -> FloatArray:
        """(n, n), 1 where the column is earlier and shares a sum with the row."""
        same = (self.group[:, None] == self.group[None]) & (self.group >= 0)
        return np.asarray(self.earlier * same, dtype=np.float32)


class Sequence:
    """The networks of n coordinates."""

    def __init__(
        self,
        order: Order,
        *,
        n_context: int,
        width: int,
        memory: int,
        axes: int,
        shared: bool,
        seed: int,
    ) -> None:
        """Draw the initial weights.

        Args:
            order: of the coordinates.
            n_context: numbers that all coordinates see.
            width: of the hidden layers.
            memory: sums over earlier coordinates that later ones see.
            axes: points from which cells see their distance.
            shared: whether all coordinates have the same hidden layers.
            seed: of the initial weights.
        """
        self.order, self.width, self.shared, self.axes = order, width, shared, axes
        n, slots = order.window.shape
        self.dimensions = order.place.shape[1]
        self.axes = axes if self.dimensions else 0
        seeds = keras.random.SeedGenerator(seed)
        copies = 1 if shared else n
        seen = slots * N_FEATURES + memory + 2
        seen += self.axes * (2 * self.dimensions + 1)

        def draw(*shape: int, scale: float) -> Any:
            normal = keras.initializers.RandomNormal(stddev=scale, seed=seeds)
            return keras.Variable(normal(shape))

        self.context_1 = draw(n_context, width, scale=n_context**-0.5)
        self.context_b = keras.Variable(tf.zeros(width))
        self.context_2 = draw(copies, width, width, scale=width**-0.5)
        self.axis = draw(width, self.axes * self.dimensions, scale=0.1 * width**-0.5)
        self.axis_x = draw(n_context, self.axes * self.dimensions, scale=0.01)
        self.remember = draw(n, N_FEATURES, memory, scale=n**-0.5)
        self.first = draw(copies, seen, width, scale=seen**-0.5)
        self.first_b = draw(n, width, scale=0.1)
        self.second = draw(copies, width, width, scale=(2 / width) ** 0.5)
        self.second_b = keras.Variable(tf.zeros((copies, width)))
        self.last = draw(copies, width, N_OUTPUTS, scale=0.1 * width**-0.5)
        start = np.tile(np.array([FIRST_EDGE, 0, 0, 0, 0], np.float32), (n, 1))
        self.last_b = keras.Variable(start)
        self.variables = [getattr(self, name) for name in WEIGHTS]

    def loss(self, z: tf.Tensor, free: tf.Tensor, context: tf.Tensor) -> tf.Tensor:
        """Return -log p(z | context) of each row, without its constant.

        Args:
            z: (m, n), coordinates.
            free: (m, n), 1 where there is energy.
            context: (m, n_context).
        """
        share, seen = self._features(z, free)
        outputs = self._outputs(share, seen, context)
        c, location, scale, skew, tail = _settle(outputs)
        y = (z - location) / scale
        inner = tf.asinh(y) / tail - skew
        v = tf.sinh(tf.clip_by_value(inner, -8.0, 8.0))
        shifted = v + tf.nn.softplus(-c)
        u = tf.nn.softplus(shifted) + c
        found = 0.5 * tf.square(u) + tf.math.log(scale * tail)
        found += 0.5 * tf.math.log(1 + tf.square(y)) - tf.math.log(tf.cosh(
            tf.clip_by_value(inner, -8.0, 8.0)
        ))
        found += tf.nn.softplus(-shifted)
        zero = -tf.math.log(
            tf.maximum(0.5 * tf.math.erfc(-c * np.float32(np.sqrt(0.5))), TINY)
        )
        return tf.reduce_sum(tf.where(free > 0, found, zero), axis=1)

    def _features(self, z: tf.Tensor, free: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return shares (m, n) and what is seen of each, (m, n, N_FEATURES)."""
        log_share = z * self.order.slope + self.order.offset
        share = free * tf.exp(log_share)
        level = free * tf.nn.softplus(log_share - NOTHING) / 4
        return share, tf.stack([level, share], axis=2)

    def _outputs(
        self, share: tf.Tensor, seen: tf.Tensor, context: tf.Tensor
    ) -> tf.Tensor:
        """Return the outputs (m, n, N_OUTPUTS) of all networks."""
        order, n = self.order, self.order.n
        padded = tf.pad(seen, [[0, 0], [0, 1], [0, 0]])
        window = tf.gather(padded, order.window, axis=1)
        # All slots of one feature come before those of the next.
        window = tf.reshape(tf.transpose(window, (0, 1, 3, 2)), (-1, n, window.shape[2] * N_FEATURES))
        kept = tf.einsum("bnf,nfm->bnm", seen, self.remember)
        memory = tf.matmul(tf.tile(order.earlier[None], (tf.shape(kept)[0], 1, 1)), kept)
        rest = 1 - tf.matmul(share, order.spent.T)
        parts = [window, memory, *_of_rest(rest[..., None])]
        hidden = tf.nn.relu(tf.matmul(context, self.context_1) + self.context_b)
        if self.axes:
            axis = tf.matmul(hidden, self.axis) + tf.matmul(context, self.axis_x)
            axis = tf.reshape(axis, (-1, 1, self.axes, self.dimensions))
            parts += _of_place(order.place[None, :, None] - axis, n)
        x = tf.concat(parts, axis=2)
        v = self._dense(x, self.first) + self.first_b
        told = self._dense(tf.tile(hidden[:, None], (1, 1 if self.shared else n, 1)), self.context_2)
        v = v + told
        v = v + self._dense(tf.nn.relu(v), self.second) + self.second_b
        return self._dense(tf.nn.relu(v), self.last) + self.last_b

    def _dense(self, x: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Return x (m, n, k) times the kernel of each coordinate."""
        if self.shared:
            return tf.einsum("bnk,kl->bnl", x, kernel[0])
        return tf.einsum("bnk,nkl->bnl", x, kernel)

    def generate(self, noise: Any, context: Any) -> Any:
        """Return coordinates (m, n); arrays of numpy, or values of a graph.

        What holds no energy lies far below every edge.
        """
        t, order = tracing, self.order
        w = {name: getattr(self, name).numpy() for name in WEIGHTS}
        hidden = t.maximum(t.matmul(context, w["context_1"]) + w["context_b"][None], 0.0)
        axis = None
        if self.axes:
            axis = t.matmul(hidden, w["axis"]) + t.matmul(context, w["axis_x"])
            axis = t.reshape(axis, (1, self.axes, self.dimensions))
        told = t.matmul(hidden, w["context_2"][0]) if self.shared else None
        nothing = t.take(noise, [0]) * 0.0
        made, levels, shares = [], nothing, nothing
        memory, where = None, np.full(order.n + 1, 0)
        count = 1
        for members in order.stages:
            k = len(members)
            index = where[order.window[members]].ravel()
            slots = order.window.shape[1]
            parts = [
                t.reshape(t.take(values, index), (k, slots))
                for values in (levels, shares)
            ]
            n_memory = w["remember"].shape[2]
            if memory is None:
                memory = t.take(nothing, np.zeros(n_memory, dtype=int))
            every = np.zeros(k, dtype=int)
            parts.append(t.take(t.reshape(memory, (1, n_memory)), every, axis=1))
            spent = np.zeros((count, k), dtype=np.float32)
            for j, member in enumerate(members):
                spent[where[np.flatnonzero(order.spent[member])], j] = 1
            rest = 1.0 - t.matmul(shares, spent)
            parts += _traced_rest(t.reshape(rest, (k, 1)))
            if axis is not None:
                parts += _traced_place(order.place[members], axis)
            x = t.concatenate(parts)
            one = 0 if self.shared else int(members[0])
            mine = told if self.shared else t.matmul(hidden, w["context_2"][one])
            v = t.matmul(x, w["first"][one]) + w["first_b"][members][None]
            v = v + t.reshape(mine, (1, self.width))
            inner = t.matmul(t.maximum(v, 0.0), w["second"][one])
            v = v + inner + w["second_b"][one][None, None]
            outputs = t.matmul(t.maximum(v, 0.0), w["last"][one])
            outputs = outputs + w["last_b"][members][None]
            numbers = [t.reshape(t.take(outputs, [i]), (k,)) for i in range(N_OUTPUTS)]
            z, energy = _traced_map(numbers, t.take(noise, members))
            most = order.most[members][None]
            # Far below every edge where there is no energy.
            z = energy * _least(z - LEAST, most - LEAST) + LEAST
            log_share = z * order.slope[members][None] + order.offset[members][None]
            level = energy * _softplus(log_share - NOTHING) * 0.25
            share = energy * t.exp(log_share)
            made.append(z)
            levels = t.concatenate([levels, level])
            shares = t.concatenate([shares, share])
            kept = t.concatenate([level, share])
            table = np.concatenate([w["remember"][members, f] for f in range(N_FEATURES)])
            memory = memory + t.matmul(kept, table)
            where[members] = np.arange(count, count + k)
            count += k
        all_made = t.concatenate(made)
        return t.take(all_made, where[:-1] - 1)


WEIGHTS = (
    "context_1",
    "context_b",
    "context_2",
    "axis",
    "axis_x",
    "remember",
    "first",
    "first_b",
    "second",
    "second_b",
    "last",
    "last_b",
)


def _settle(outputs: tf.Tensor) -> list[tf.Tensor]:
    """Return edge, location, scale, skewness and tails, bounded."""
    c, location, log_scale, skew, tail = tf.unstack(outputs, axis=-1)
    return [
        MOST_EDGE * tf.tanh(c / MOST_EDGE),
        location,
        tf.exp(MOST_LOG_SCALE * tf.tanh(log_scale / MOST_LOG_SCALE)) + LEAST_SCALE,
        MOST_SKEW * tf.tanh(skew / MOST_SKEW),
        tf.exp(MOST_LOG_TAIL * tf.tanh(tail / MOST_LOG_TAIL)),
    ]


def _traced_map(outputs: list[Any], u: Any) -> tuple[Any, Any]:
    """Return coordinates and whether there is energy, 1 or 0."""
    t = tracing
    c, location, log_scale, skew, tail = outputs
    c = t.tanh(c * (1 / MOST_EDGE)) * MOST_EDGE
    skew = t.tanh(skew * (1 / MOST_SKEW)) * MOST_SKEW
    tail = t.exp(t.tanh(tail * (1 / MOST_LOG_TAIL)) * MOST_LOG_TAIL)
    log_scale = t.tanh(log_scale * (1 / MOST_LOG_SCALE)) * MOST_LOG_SCALE
    scale = t.exp(log_scale) + LEAST_SCALE
    above = u - c
    energy = 1.0 - t.negative(above)
    above = t.maximum(above, TINY)
    v = above + t.log(1.0 - t.exp(-above) + TINY) - _softplus(-c)
    v = t.maximum(t.minimum(v, MOST_V), -MOST_V)
    size = t.absolute(v)
    asinh = t.log(size + t.sqrt(size * size + 1.0)) * (1.0 - 2.0 * t.negative(v))
    inner = t.exp(tail * (asinh + skew))
    return location + scale * 0.5 * (inner - 1.0 / inner), energy


def _least(x: Any, most: FloatArray) -> Any:
    """Return x >= 0 or 0, and at most `most`."""
    x = tracing.maximum(x, 0.0)
    return x - tracing.maximum(x - most, 0.0)


def _softplus(x: Any) -> Any:
    t = tracing
    return t.maximum(x, 0.0) + t.log(1.0 + t.exp(-t.absolute(x)))


def _of_rest(rest: tf.Tensor) -> list[tf.Tensor]:
    rest = tf.maximum(rest, 0.0)
    return [rest, tf.math.log(rest + LEAST_REST)]


def _traced_rest(rest: Any) -> list[Any]:
    rest = tracing.maximum(rest, 0.0)
    return [rest, tracing.log(rest + LEAST_REST)]


def _of_place(distance: tf.Tensor, n: int) -> list[tf.Tensor]:
    """What is seen of distances (m, n, axes, dimensions) to points, in cells."""
    square = tf.reduce_sum(tf.square(distance), axis=3)
    size = distance.shape[2] * distance.shape[3]
    flat = tf.reshape(distance, (-1, n, size))
    return [0.3 * flat, tf.tanh(2 * flat), tf.math.log(square + NEAR)]


def _traced_place(place: FloatArray, axis: Any) -> list[Any]:
    t = tracing
    (k, dimensions), axes = place.shape, axis.shape[-2]
    distance = place[None, :, None] - axis  # (m, k, axes, dimensions)
    square = t.reshape(t.total(distance * distance, -1), (k, axes))
    flat = t.reshape(distance, (k, axes * dimensions))
    return [flat * 0.3, t.tanh(flat * 2.0), t.log(square + NEAR)]
