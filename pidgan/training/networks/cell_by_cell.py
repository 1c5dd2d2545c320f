"""Numbers of a shower made one after the other, each given those before it.

The density of n coordinates is a product of n densities of one (an autoregressive
model; Papamakarios et al., arXiv:1912.02762, Sec. 3.1). One number of noise u makes a
coordinate z by a monotonic map that has an inverse in closed form,

    z = 0 of energy where u <= c, else
    z = m + s sinh(t (asinh v + e)),   v = ln(exp(u - c) - 1) - ln(1 + exp(-c)):

the edge c is the normal score of the probability of a zero, and towards it the energy
falls; but in what is generated, within `LEAST_ABOVE` of the edge it stays as it is
there, or the slope, which grows as 1 / (u - c), would multiply rounding. The rest is
the sinh-arcsinh distribution with location, scale, skewness and tails (Jones and
Pewsey, Biometrika 96 (2009) 761, Eq. 2). A small network, the same for all, makes the
five numbers c, m, s, e, t from the context, from the coordinates in its window, from
sums over all earlier ones, from what is left to be shared, and from the place of the
shower.

Coordinates that are not in each other's window are made at once: a *stage*.
"""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle import formulas as tracing
from pidgan.training.backend import keras, tf
from pidgan.training.targets.cells import NO_EDGE

N_OUTPUTS = 5
"""Of a network: edge, location, logarithm of the scale, skewness, tails."""

BOUNDS = np.array([6.0, 30.0, 5.0, 1.5, 0.7], dtype=np.float32)
"""Of the outputs, by b tanh(o / b)."""

FIRST_EDGE = -3.0
LEAST_SCALE = 1e-3
MOST_INNER = 8.0  # of what sinh is taken of, in a likelihood
MOST_V = 12.0
LEAST = -1e3  # coordinate of what holds no energy, up to a few units
NOTHING = -14.0  # logarithm of a share of energy that is seen as nothing
LEVEL = 0.25  # unit of logarithms of shares
LEAST_REST = 3e-2  # share of energy, below which rounding is not to matter
NEAR = 0.1  # square of the distance, in cells, below which a cell holds the axis
SHARPNESS = 6.0  # of the edge of a cell: a thin layer is not much wider than the core
TINY = 1e-6
LEAST_ABOVE = 1e-2  # of u - c where there is energy, in what is generated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """Who comes when, and who sees whom: n coordinates.

    Attributes:
        stages: coordinates that are made at once, in turn.
        window: (n, slots), earlier coordinates that each sees; n for none.
        group: (n,), equal for coordinates whose shares have the sum 1; -1 for others.
        place: (n, dimensions), in cells; no dimension where there is no place.
        depth: (n,), from -1 in the first layer to 1 in the last; zeros for a plane.
        slope, offset: (n,), logarithm of a share, slope z + offset.
        least, most: (n,), between which coordinates lie that hold energy.
        edge: (n,), below which there is no energy; `NO_EDGE` where there always is.
    """

    stages: tuple[IntArray, ...]
    window: IntArray
    group: IntArray
    place: FloatArray
    depth: FloatArray
    slope: FloatArray
    offset: FloatArray
    least: FloatArray
    most: FloatArray
    edge: FloatArray

    @property
    def empties(self) -> BoolArray:
        """(n,), whether there may be no energy at all."""
        return np.asarray(self.edge > NO_EDGE, dtype=np.bool_)

    @property
    def n(self) -> int:
        """Number of coordinates."""
        return len(self.window)

    @property
    def stage(self) -> IntArray:
        """(n,), the number of each coordinate's stage."""
        stage = np.empty(self.n, dtype=np.int64)
        for number, members in enumerate(self.stages):
            stage[members] = number
        return stage

    @property
    def before(self) -> FloatArray:
        """(stages, n), 1 where a coordinate is of an earlier stage."""
        numbers = np.arange(len(self.stages))[:, None]
        return np.asarray(self.stage < numbers, dtype=np.float32)

    @cached_property
    def row(self) -> IntArray:
        """(n,), row of each coordinate's group in `codes`; the last one for none."""
        numbers = np.unique(self.group[self.group >= 0])
        return np.where(
            self.group >= 0, np.searchsorted(numbers, self.group), len(numbers)
        )

    @cached_property
    def codes(self) -> FloatArray:
        """(groups + 1, n), 1 where a coordinate is of a group; the last is empty."""
        codes = np.zeros((len(np.unique(self.group[self.group >= 0])) + 1, self.n))
        codes[self.row, np.arange(self.n)] = self.group >= 0
        return np.asarray(codes, dtype=np.float32)


class Sequence:
    """The network of n coordinates, all with the same hidden layers."""

    def __init__(
        self,
        order: Order,
        *,
        n_context: int,
        width: int,
        memory: int,
        axes: int,
        seed: int,
    ) -> None:
        """Draw the initial weights.

        Args:
            order: of the coordinates.
            n_context: numbers that all coordinates see.
            width: of the hidden layers.
            memory: sums over earlier coordinates that later ones see.
            axes: points from which cells see their distance.
            seed: of the initial weights.
        """
        self.order, self.width = order, width
        n, slots = order.window.shape
        self.dimensions = order.place.shape[1]
        self.axes = axes if self.dimensions else 0
        tilted = bool(order.depth.any())
        seen = slots + 2 + self.axes * (self.dimensions * (1 + tilted) + 1)
        points = self.axes * self.dimensions
        seeds = keras.random.SeedGenerator(seed)

        def draw(*shape: int, scale: float) -> Any:
            normal = keras.initializers.RandomNormal(stddev=scale, seed=seeds)
            return keras.Variable(normal(shape))

        self.weights: dict[str, Any] = {
            "context": draw(n_context, width, scale=n_context**-0.5),
            "context_bias": keras.Variable(tf.zeros(width)),
            "told": draw(width, width, scale=width**-0.5),
            "keep_level": draw(n, memory, scale=n**-0.5),
            "keep_share": draw(n, memory, scale=n**-0.5),
            "memory": draw(memory, width, scale=memory**-0.5),
            "first": draw(seen, width, scale=seen**-0.5),
            "first_bias": draw(n, width, scale=0.1),
            "second": draw(width, width, scale=(2 / width) ** 0.5),
            "last": draw(width, N_OUTPUTS, scale=0.1 * width**-0.5),
            "last_bias": keras.Variable(
                tf.tile([[FIRST_EDGE, 0.0, 0.0, 0.0, 0.0]], (n, 1))
            ),
        }
        if self.axes:
            self.weights["axis"] = draw(n_context, points, scale=0.01)
            self.weights["axis_hidden"] = draw(width, points, scale=0.1 * width**-0.5)
        if self.axes and tilted:
            self.weights["tilt"] = draw(n_context, points, scale=0.01)
            self.weights["tilt_hidden"] = draw(width, points, scale=0.1 * width**-0.5)
        self.variables = list(self.weights.values())

    def loss(
        self, z: tf.Tensor, free: tf.Tensor, context: tf.Tensor, *, blur: Any = 0.0
    ) -> tf.Tensor:
        """Return -log p(z | context) of each row, without its constant.

        Args:
            z: (m, n), coordinates.
            free: (m, n), 1 where there is energy.
            context: (m, n_context).
            blur: (m, n), what is added to the logarithms of shares that are summed up.
                In a sample the sums are not as exact as in the data, where the last
                cell could be told from all others.
        """
        outputs = self._outputs(z, free, context, blur)
        outputs = BOUNDS * tf.tanh(outputs / BOUNDS)
        c, location, log_scale, skew, log_tail = tf.unstack(outputs, axis=2)
        c = tf.where(self.order.empties, c, -BOUNDS[0])
        scale, tail = tf.exp(log_scale) + LEAST_SCALE, tf.exp(log_tail)
        y = (z - location) / scale
        inner = tf.clip_by_value(tf.asinh(y) / tail - skew, -MOST_INNER, MOST_INNER)
        shifted = tf.sinh(inner) + tf.nn.softplus(-c)
        u = tf.nn.softplus(shifted) + c
        found = 0.5 * tf.square(u) + tf.nn.softplus(-shifted) + tf.math.log(scale)
        found += log_tail + 0.5 * tf.math.log(1 + tf.square(y))
        found -= tf.math.log(tf.cosh(inner))
        below = 0.5 * tf.math.erfc(-c * np.float32(np.sqrt(0.5)))
        zero = -tf.math.log(tf.maximum(below, TINY))
        return tf.reduce_sum(tf.where(free > 0, found, zero), axis=1)

    def _outputs(
        self, z: tf.Tensor, free: tf.Tensor, context: tf.Tensor, blur: Any
    ) -> tf.Tensor:
        """Return the outputs (m, n, N_OUTPUTS) of all networks, given all of z."""
        w, order = self.weights, self.order
        log_share = z * order.slope + order.offset
        share = free * tf.exp(log_share + blur)
        level = free * tf.nn.softplus(log_share - NOTHING) * LEVEL
        window = tf.gather(tf.pad(level, [[0, 0], [0, 1]]), order.window, axis=1)
        rest = tf.maximum(1 - self._spent(share), 0.0)[..., tf.newaxis]
        parts = [window, rest, tf.math.log(rest + LEAST_REST)]
        hidden = tf.nn.relu(tf.matmul(context, w["context"]) + w["context_bias"])
        if self.axes:
            distance = order.place[None, :, :, None] - self._axes(
                "axis", context, hidden
            )
            if "tilt" in w:
                depth = order.depth[None, :, None, None]
                distance -= depth * self._axes("tilt", context, hidden)
            square = tf.reduce_sum(tf.square(distance), axis=2)
            bent = tf.unstack(tf.tanh(2 * distance), axis=2)
            parts += [*bent, tf.math.log(square + NEAR)]
            if "tilt" in w:
                beyond = tf.tanh(SHARPNESS * (tf.abs(distance) - 0.5))
                parts += tf.unstack(beyond, axis=2)
        kept = level[..., tf.newaxis] * w["keep_level"]
        kept += share[..., tf.newaxis] * w["keep_share"]
        memory = tf.einsum("sj,bjm->bsm", order.before, kept)
        told = tf.matmul(memory, w["memory"])
        told += tf.matmul(hidden, w["told"])[:, tf.newaxis]
        v = tf.matmul(tf.concat(parts, axis=2), w["first"]) + w["first_bias"]
        v += tf.gather(told, order.stage, axis=1)
        v = tf.nn.relu(tf.matmul(tf.nn.relu(v), w["second"]))
        return tf.matmul(v, w["last"]) + w["last_bias"]

    def _axes(self, name: str, context: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
        """Return a point or a slope of each axis, (m, 1, dimensions, axes)."""
        w = self.weights
        axis = tf.matmul(context, w[name]) + tf.matmul(hidden, w[f"{name}_hidden"])
        return tf.reshape(axis, (-1, 1, self.dimensions, self.axes))

    def _spent(self, share: tf.Tensor) -> tf.Tensor:
        """Return the sum, (m, n), over earlier coordinates of each one's group."""
        order = self.order
        sums = order.before[:, None] * order.codes
        n_rows = sums.shape[1]
        spent = tf.matmul(share, sums.reshape(-1, order.n).T)
        return tf.gather(spent, order.stage * n_rows + order.row, axis=1)

    def generate(self, noise: Any, context: Any) -> Any:
        """Return coordinates (n, m); arrays of numpy, or values of a graph.

        Rows are on the last axis. What holds no energy is around `LEAST`, the
        higher the nearer it came to its edge.

        Args:
            noise: (n, m), standard normal.
            context: (n_context, m).
        """
        t, order = tracing, self.order
        w = {name: v.numpy() for name, v in self.weights.items()}
        hidden = t.relu(t.product(w["context"].T, context) + w["context_bias"][:, None])
        axes, tilts = (
            self._traced_axes(name, hidden, context, w) if name in w else []
            for name in ("axis", "tilt")
        )
        known = t.product(w["told"].T, hidden)
        made, turn = [], np.concatenate(order.stages)
        # Lookups beyond the last coordinate find nothing.
        levels, which = t.pick(noise, [0]) * 0.0, np.array([order.n])
        codes = order.codes
        spent = memory = None
        for number, members in enumerate(order.stages):
            told = known
            if number:
                told = known + t.product(w["memory"].T, memory)
            seen = self._traced_past((levels, which), spent, members)
            seen += _traced_place(
                axes, tilts, order.place[members], order.depth[members]
            )
            v = t.product(w["first"].T, t.stack(seen))
            v = v + w["first_bias"][members][:, :, None]
            v = t.relu(v + t.fold(told, (1, self.width)))
            v = t.relu(t.product(w["second"].T, v))
            v = t.product(w["last"].T / BOUNDS[:, None], v)
            v = t.tanh(v + (w["last_bias"][members] / BOUNDS)[:, :, None])
            outputs = v * BOUNDS[None, :, None]
            u = t.pick(noise, members)
            z, energy, above = _traced_map(outputs, u, order.empties[members])
            least = np.where(order.empties, LEAST, order.least)[members][:, None]
            z = t.maximum(t.minimum(z, order.most[members][:, None]), least)
            # Where all of a layer would be zero, the nearest to its edge is not.
            below = t.minimum(above, 0.0) + order.edge[members][:, None]
            z = energy * z + (1.0 - energy) * (below + LEAST)
            made.append(z)
            if number == len(order.stages) - 1:
                break
            log_share = z * order.slope[members][:, None]
            log_share = log_share + order.offset[members][:, None]
            level = energy * _softplus(log_share - NOTHING) * LEVEL
            share = energy * t.exp(log_share)
            kept = np.concatenate([w["keep_level"][members], w["keep_share"][members]])
            kept = t.product(kept.T, t.stack([level, share]))
            memory = kept if memory is None else memory + kept
            share = t.product(codes[:, members], share)
            spent = share if spent is None else spent + share
            # Only what a later one looks up is kept.
            which = np.concatenate([which, members])
            later = [order.window[m].ravel() for m in order.stages[number + 1 :]]
            needed = np.isin(which, np.append(np.concatenate(later), order.n))
            levels = t.pick(t.stack([levels, level]), np.flatnonzero(needed))
            which = which[needed]
        return t.pick(t.stack(made), np.argsort(turn))

    def _traced_axes(
        self, name: str, hidden: Any, context: Any, w: dict[str, FloatArray]
    ) -> list[Any]:
        """Return the axes' points or slopes in each dimension, (1, axes, m)."""
        t = tracing
        axis = t.product(w[name].T, context)
        axis = axis + t.product(w[f"{name}_hidden"].T, hidden)
        first = np.arange(self.axes)
        return [
            t.fold(t.pick(axis, first + d * self.axes), (1, self.axes))
            for d in range(self.dimensions)
        ]

    def _traced_past(
        self, past: tuple[Any, IntArray], spent: Any, members: IntArray
    ) -> list[Any]:
        """Return what members see of earlier coordinates, and what is left.

        Args:
            past: levels, and which coordinates they are of.
            spent: sums of shares by group; None before the first.
            members: the coordinates.
        """
        t, order = tracing, self.order
        levels, which = past
        k, slots = len(members), order.window.shape[1]
        place = np.zeros(order.n + 1, dtype=np.int64)
        place[which] = np.arange(len(which))
        window = t.pick(levels, place[order.window[members]].ravel())
        if spent is None:
            rest = t.pick(levels, [0] * k) + 1.0
        else:
            rest = t.relu(1.0 - t.pick(spent, order.row[members]))
        rest = t.fold(rest, (k, 1))
        return [t.fold(window, (k, slots)), rest, t.log(rest + LEAST_REST)]


def _traced_place(
    axes: list[Any], tilts: list[Any], place: FloatArray, depth: FloatArray
) -> list[Any]:
    """Return what cells at places (k, dimensions) and depths see of the axes."""
    if not axes:
        return []
    t = tracing
    distances = [place[:, d][:, None, None] - axis for d, axis in enumerate(axes)]
    if tilts:
        distances = [
            distance - tilt * depth[:, None, None]
            for distance, tilt in zip(distances, tilts, strict=True)
        ]
    square = distances[0] * distances[0]
    for distance in distances[1:]:
        square = square + distance * distance
    seen = [*(t.tanh(v * 2.0) for v in distances), t.log(square + NEAR)]
    if tilts:
        seen += [t.tanh((t.absolute(v) - 0.5) * SHARPNESS) for v in distances]
    return seen


def _traced_map(outputs: Any, u: Any, empties: BoolArray) -> tuple[Any, Any, Any]:
    """Return coordinates (k, m), 1 where there is energy, else 0, and u - c."""
    t, k = tracing, len(empties)
    c, location, log_scale, skew, log_tail = (
        t.fold(t.pick(outputs, [i]), (k,)) for i in range(N_OUTPUTS)
    )
    may = empties.astype(np.float32)[:, None]
    c = c if empties.all() else c * may - BOUNDS[0] * (1 - may)
    above = u - c
    none = t.negative(above)
    energy = 1.0 - (none if empties.all() else none * may)
    a = t.maximum(above, LEAST_ABOVE)
    # 1 - exp(-a) = 2 T / (1 + T), T = tanh(a / 2): no rounding where a is small.
    half = t.tanh(a * 0.5)
    v = a + t.log(2.0 * half / (1.0 + half)) - _softplus(-c)
    v = t.maximum(t.minimum(v, MOST_V), -MOST_V)
    size = t.absolute(v)
    asinh = t.log(size + t.sqrt(size * size + 1.0)) * (1.0 - 2.0 * t.negative(v))
    grown = t.exp(t.exp(log_tail) * (asinh + skew))
    scale = (t.exp(log_scale) + LEAST_SCALE) * 0.5
    return location + scale * (grown - 1.0 / grown), energy, above


def _softplus(x: Any) -> Any:
    # Of what is bounded from above.
    return tracing.log(1.0 + tracing.exp(x))
