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
from pidgan.bundle import formulas as f
from pidgan.training.backend import keras, tf
from pidgan.training.targets.cells import NO_EDGE

N_OUTPUTS = 5
"""Outputs of a network: edge, location, logarithm of the scale, skewness, tails."""

BOUNDS = np.array([6.0, 30.0, 5.0, 1.5, 0.7], dtype=np.float32)
"""Bounds b of the outputs o, by b tanh(o / b)."""

FIRST_EDGE = -3.0
LEAST_SCALE = 1e-3
MOST_INNER = 8.0  # largest argument of sinh in a likelihood
MOST_V = 12.0
LEAST = -1e3  # coordinate of a cell without energy, up to a few units
NOTHING = -14.0  # logarithm of a share of energy that is seen as nothing
LEVEL = 0.25  # unit of logarithms of shares
LEAST_REST = 3e-2  # share of energy, below which rounding is not to matter
NEAR = 0.1  # square of the distance, in cells, below which a cell holds the axis
SHARPNESS = 6.0  # how steep a cell ends: a thin layer is hardly wider than the core
TINY = 1e-6
LEAST_ABOVE = 1e-2  # least u - c of a generated coordinate with energy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """The order of n coordinates, and which earlier ones each sees, in arrays (n,)."""

    stages: tuple[IntArray, ...]  # coordinates made at once, in turn
    window: IntArray  # (n, slots), earlier coordinates seen, n for none
    group: IntArray  # equal where shares have the sum 1, -1 for others
    place: FloatArray  # (n, dimensions), in cells; may have none
    depth: FloatArray  # -1 in the first layer to 1 in the last; 0 in a plane
    slope: FloatArray  # the logarithm of a share is slope z + offset
    offset: FloatArray
    least: FloatArray  # least coordinate that holds energy
    most: FloatArray  # largest coordinate
    edge: FloatArray  # no energy below, or `NO_EDGE`

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
        found = np.searchsorted(numbers, self.group)
        return np.where(self.group >= 0, found, len(numbers))

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
        """Draw the initial weights; `n_context` numbers are seen by all coordinates.

        Later coordinates see `memory` sums over earlier ones, and cells see their
        distance from `axes` points.
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
        """Return -log p(z | context) of each row without its constant; z is (m, n).

        `free` is 1 where there is energy. `blur` is noise on the logarithms of shares
        that are summed up: sums of generated cells are not as exact as in the data,
        where the last cell could be told from all others.
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
            axis = self._axes("axis", context, hidden)
            distance = order.place[None, :, :, None] - axis
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
        """Return coordinates (n, m) from standard normal noise (n, m); rows come last.

        Context (n_context, m) and noise are arrays of numpy, or values of a graph. A
        coordinate without energy is around `LEAST`, the higher the nearer it came to
        its edge.
        """
        order = self.order
        w = {name: v.numpy() for name, v in self.weights.items()}
        hidden = f.relu(f.product(w["context"].T, context) + w["context_bias"][:, None])
        axes, tilts = (
            self._axes_of(name, hidden, context, w) if name in w else []
            for name in ("axis", "tilt")
        )
        known = f.product(w["told"].T, hidden)
        made, turn = [], np.concatenate(order.stages)
        # Lookups beyond the last coordinate find nothing.
        levels, which = f.pick(noise, [0]) * 0.0, np.array([order.n])
        codes = order.codes
        spent = memory = None
        for number, members in enumerate(order.stages):
            told = known
            if number:
                told = known + f.product(w["memory"].T, memory)
            seen = self._past((levels, which), spent, members)
            seen += _place(axes, tilts, order.place[members], order.depth[members])
            v = f.product(w["first"].T, f.stack(seen))
            v = v + w["first_bias"][members][:, :, None]
            v = f.relu(v + f.fold(told, (1, self.width)))
            v = f.relu(f.product(w["second"].T, v))
            v = f.product(w["last"].T / BOUNDS[:, None], v)
            v = f.tanh(v + (w["last_bias"][members] / BOUNDS)[:, :, None])
            outputs = v * BOUNDS[None, :, None]
            u = f.pick(noise, members)
            z, energy, above = _map(outputs, u, order.empties[members])
            least = np.where(order.empties, LEAST, order.least)[members][:, None]
            z = f.maximum(f.minimum(z, order.most[members][:, None]), least)
            # Where all of a layer would be zero, the nearest to its edge is not.
            below = f.minimum(above, 0.0) + order.edge[members][:, None]
            z = energy * z + (1.0 - energy) * (below + LEAST)
            made.append(z)
            if number == len(order.stages) - 1:
                break
            log_share = z * order.slope[members][:, None]
            log_share = log_share + order.offset[members][:, None]
            level = energy * _softplus(log_share - NOTHING) * LEVEL
            share = energy * f.exp(log_share)
            kept = np.concatenate([w["keep_level"][members], w["keep_share"][members]])
            kept = f.product(kept.T, f.stack([level, share]))
            memory = kept if memory is None else memory + kept
            share = f.product(codes[:, members], share)
            spent = share if spent is None else spent + share
            # Only what a later one looks up is kept.
            which = np.concatenate([which, members])
            later = [order.window[m].ravel() for m in order.stages[number + 1 :]]
            needed = np.isin(which, np.append(np.concatenate(later), order.n))
            levels = f.pick(f.stack([levels, level]), np.flatnonzero(needed))
            which = which[needed]
        return f.pick(f.stack(made), np.argsort(turn))

    def _axes_of(
        self, name: str, hidden: Any, context: Any, w: dict[str, FloatArray]
    ) -> list[Any]:
        """Return the axes' points or slopes in each dimension, (1, axes, m)."""
        axis = f.product(w[name].T, context)
        axis = axis + f.product(w[f"{name}_hidden"].T, hidden)
        first = np.arange(self.axes)
        return [
            f.fold(f.pick(axis, first + d * self.axes), (1, self.axes))
            for d in range(self.dimensions)
        ]

    def _past(
        self, past: tuple[Any, IntArray], spent: Any, members: IntArray
    ) -> list[Any]:
        """Return the numbers that members see of earlier coordinates and the rest."""
        order = self.order
        levels, which = past
        k, slots = len(members), order.window.shape[1]
        place = np.zeros(order.n + 1, dtype=np.int64)
        place[which] = np.arange(len(which))
        window = f.pick(levels, place[order.window[members]].ravel())
        if spent is None:
            rest = f.pick(levels, [0] * k) + 1.0
        else:
            rest = f.relu(1.0 - f.pick(spent, order.row[members]))
        rest = f.fold(rest, (k, 1))
        return [f.fold(window, (k, slots)), rest, f.log(rest + LEAST_REST)]


def _place(
    axes: list[Any], tilts: list[Any], place: FloatArray, depth: FloatArray
) -> list[Any]:
    """Return the numbers that cells at some places see of the axes."""
    if not axes:
        return []
    distances = [place[:, d][:, None, None] - axis for d, axis in enumerate(axes)]
    for d, tilt in enumerate(tilts):
        distances[d] = distances[d] - tilt * depth[:, None, None]
    square = distances[0] * distances[0]
    for distance in distances[1:]:
        square = square + distance * distance
    seen = [*(f.tanh(v * 2.0) for v in distances), f.log(square + NEAR)]
    if tilts:
        seen += [f.tanh((f.absolute(v) - 0.5) * SHARPNESS) for v in distances]
    return seen


def _map(outputs: Any, u: Any, empties: BoolArray) -> tuple[Any, Any, Any]:
    """Return coordinates (k, m), 1 where there is energy, else 0, and u - c."""
    k = len(empties)
    c, location, log_scale, skew, log_tail = (
        f.fold(f.pick(outputs, [i]), (k,)) for i in range(N_OUTPUTS)
    )
    may = empties.astype(np.float32)[:, None]
    c = c if empties.all() else c * may - BOUNDS[0] * (1 - may)
    above = u - c
    none = f.negative(above)
    energy = 1.0 - (none if empties.all() else none * may)
    a = f.maximum(above, LEAST_ABOVE)
    # 1 - exp(-a) = 2 T / (1 + T), T = tanh(a / 2): no rounding where a is small.
    half = f.tanh(a * 0.5)
    v = a + f.log(2.0 * half / (1.0 + half)) - _softplus(-c)
    v = f.maximum(f.minimum(v, MOST_V), -MOST_V)
    size = f.absolute(v)
    asinh = f.log(size + f.sqrt(size * size + 1.0)) * (1.0 - 2.0 * f.negative(v))
    grown = f.exp(f.exp(log_tail) * (asinh + skew))
    scale = (f.exp(log_scale) + LEAST_SCALE) * 0.5
    return location + scale * (grown - 1.0 / grown), energy, above


def _softplus(x: Any) -> Any:
    # Its argument is bounded from above.
    return f.log(1.0 + f.exp(x))
