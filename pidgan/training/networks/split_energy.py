"""How an energy is shared by two: probabilities of classes, from a small network.

An energy E is split into that of a first and of a second part. Both may be zero, and
the smaller one, m, has a density in ln m. K bins of ln m with edges b_i, the same for
all splits, make 2 K + 2 classes, in the order of a rising share of the first part:

    the first is zero; it is the smaller one and in bin 1 to K; the second is the
    smaller one and in bin K to 1; the second is zero.

The density is flat within a bin. A bin ends at ln(E / 2), beyond which no smaller one
lies: its probability is that of a density, the width that is left times exp(o), so
that one network serves large energies and small ones. In absolute energies what a
single particle leaves in a cell is at one place, whatever is split.

One number of noise makes a split, by the inverse of its cumulated probability, which is
continuous and rises with the share. A quantity that is not split has the first K + 1
classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.training.backend import keras, tf

LEAST_WIDTH = 1e-6  # share of a bin that is left of it at least
IMPOSSIBLE = -1e9  # output for a bin that lies beyond the half
NOTHING = 1e-30  # energies below are none
# Abramowitz and Stegun, Eq. 26.2.17: Phi to 7.5e-8. Bundles in double precision have
# no error function.
STEP = 0.2316419
POWERS = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)


class SplitNetwork:
    """A residual network of two hidden layers, and the classes of its outputs."""

    def __init__(
        self,
        n_features: int,
        edges: FloatArray,
        *,
        codes: Sequence[int],
        width: int,
        seed: int,
        is_split: bool = True,
    ) -> None:
        """Draw the initial weights; `codes` are the numbers of values of each code."""
        self.edges = np.asarray(edges, dtype=np.float32)
        self.is_split = is_split
        k = len(edges) - 1
        n_classes = 2 * k + 2 if is_split else k + 1
        seeds = keras.random.SeedGenerator(seed)

        def draw(*shape: int, scale: float) -> Any:
            normal = keras.initializers.RandomNormal(stddev=scale, seed=seeds)
            return keras.Variable(normal(shape))

        self.weights: dict[str, Any] = {
            "first": draw(n_features, width, scale=n_features**-0.5),
            "first_bias": keras.Variable(tf.zeros(width)),
            "second": draw(width, width, scale=(2 / width) ** 0.5),
            "second_bias": keras.Variable(tf.zeros(width)),
            "last": draw(width, n_classes, scale=0.1 * width**-0.5),
            "last_bias": keras.Variable(tf.zeros(n_classes)),
        }
        for i, n in enumerate(codes):
            self.weights[f"code_{i}"] = draw(n, width, scale=0.1)
            self.weights[f"code_{i}_bias"] = keras.Variable(tf.zeros((n, n_classes)))
        self.n_codes = len(codes)

    @property
    def variables(self) -> list[Any]:
        """Return the weights, in order."""
        return list(self.weights.values())

    def loss(
        self, features: Any, codes: Sequence[Any], first: Any, second: Any = None
    ) -> Any:
        """Return -log p (m,) of energies of both parts (m,), without its constant.

        Features are (m, n_features) and each code (m,). Their sum is above zero. A
        quantity without a second part may be zero itself.
        """
        w, edges = self.weights, self.edges
        v = tf.matmul(features, w["first"]) + w["first_bias"]
        o = w["last_bias"]
        for i, code in enumerate(codes):
            v += tf.gather(w[f"code_{i}"], code)
            o += tf.gather(w[f"code_{i}_bias"], code)
        v = tf.nn.relu(v)
        v += tf.nn.relu(tf.matmul(v, w["second"]) + w["second_bias"])
        o += tf.matmul(v, w["last"])
        k = len(edges) - 1
        if self.is_split:
            small = tf.minimum(first, second)
            most = tf.math.log((first + second) / 2)[:, tf.newaxis]
        else:
            small, most = first, tf.fill((tf.shape(first)[0], 1), edges[-1])
        size = edges[1:] - edges[:-1]
        left = tf.clip_by_value((most - edges[:-1]) / size, LEAST_WIDTH, 1.0)
        bent = tf.where(most > edges[:-1], tf.math.log(left), IMPOSSIBLE)
        zero = tf.zeros_like(bent[:, :1])
        parts = [zero, bent]
        if self.is_split:
            parts += [bent[:, ::-1], zero]
        log_p = tf.nn.log_softmax(o + tf.concat(parts, axis=1), axis=1)
        log_small = tf.math.log(tf.maximum(small, NOTHING))
        log_small = tf.minimum(log_small, most[:, 0] - LEAST_WIDTH)
        bins = tf.searchsorted(tf.constant(edges), log_small, side="right") - 1
        bins = tf.clip_by_value(bins, 0, k - 1)
        number = 1 + bins
        if self.is_split:
            number = tf.where(first <= second, number, 2 * k - bins)
            number = tf.where(second > 0, number, 2 * k + 1)
        number = tf.where(first > 0, number, 0)
        density = tf.gather(log_p, number, batch_dims=1)
        width = tf.gather(tf.math.log(left * size), bins, batch_dims=1)
        return tf.where(small > 0, width, 0.0) - density

    def generate(
        self,
        features: Sequence[Any],
        shared: Any,
        codes: Sequence[IntArray],
        noise: Any,
        energy: Any = None,
        *,
        weights: Mapping[str, FloatArray],
    ) -> Any:
        """Return energies (k, n) of the first part; that of both is `energy`.

        The features, (k, i, n) with any i, are followed by those that all k share,
        (n_shared, n). Codes are (k,) and noise (k, n), with the rows on the last axis.
        These are arrays of numpy, or values of a graph.
        """
        w, n_bins = weights, len(self.edges) - 1
        n_own = len(w["first"]) - shared.shape[0]
        told = f.product(w["first"][n_own:].T, shared)
        v = f.fold(told, (1, len(w["first_bias"])))
        if features:
            v = v + f.product(w["first"][:n_own].T, f.stack(features))
        v = v + (w["first_bias"] + self._coded(w, codes, ""))[:, :, None]
        v = f.relu(v)
        inner = f.product(w["second"].T, v) + w["second_bias"][:, None]
        v = v + f.relu(inner)
        o = f.product(w["last"].T, v)
        o = o + (w["last_bias"] + self._coded(w, codes, "_bias"))[:, :, None]
        k, n_classes = len(codes[0]), len(w["last_bias"])
        size = (self.edges[1:] - self.edges[:-1]).astype(np.float64)
        order, sign = np.arange(n_bins), np.ones(n_bins)
        if self.is_split:
            order = np.concatenate([order, order[::-1]])
            sign = np.concatenate([sign, -sign])
        log_energy = None
        p = f.exp(o - f.fold(f.largest(o), (k, 1)))
        if self.is_split:
            log_energy = f.log(f.maximum(energy, NOTHING) * 0.5)
            most = f.fold(log_energy, (k, 1))
            left = (most - self.edges[order][:, None]) * (1 / size[order])[:, None]
            left = f.minimum(f.maximum(left, 0.0), 1.0)
            inner = f.pick(p, np.arange(1, n_classes - 1)) * left
            p = f.stack([f.pick(p, [0]), inner, f.pick(p, [n_classes - 1])])
        below = np.tril(np.ones((n_classes, n_classes)), k=-1)
        before = f.product(below, p)
        whole = f.pick(before, [n_classes - 1]) + f.pick(p, [n_classes - 1])
        wanted = f.fold(_uniform(noise), (k, 1)) * whole
        bins = np.arange(1, 1 + len(order))
        inside = f.pick(p, bins)
        share = (wanted - f.pick(before, bins)) / f.maximum(inside, NOTHING)
        share = f.minimum(f.maximum(share, 0.0), 1.0)
        if self.is_split:
            share = share * left
        log_small = f.product((sign * size[order])[None], share) + self.edges[0]
        small = f.exp(f.fold(log_small, (k,)))
        there = 1.0 - f.negative(f.fold(wanted - f.pick(p, [0]), (k,)))
        if not self.is_split:
            return small * there
        small = f.minimum(small, energy * 0.5)
        middle = f.fold(wanted - f.pick(before, [1 + n_bins]), (k,))
        last = f.fold(wanted - f.pick(before, [n_classes - 1]), (k,))
        is_first, is_part = f.negative(middle), f.negative(last)
        first = is_first * small + (1.0 - is_first) * (energy - is_part * small)
        # In C, what leads here is computed only where there is energy.
        return f.where(f.greater(energy, 0.0), there * first, 0.0)

    def _coded(
        self, w: Mapping[str, FloatArray], codes: Sequence[IntArray], name: str
    ) -> FloatArray:
        """Return what codes add, (k, outputs)."""
        sums = sum(w[f"code_{i}{name}"][code] for i, code in enumerate(codes))
        return np.asarray(sums)


def _uniform(z: Any) -> Any:
    """Return Phi(z), which is uniform where z is standard normal."""
    size = f.absolute(z)
    t = 1.0 / (size * STEP + 1.0)
    tail = t * 0.0
    for power in reversed(POWERS):
        tail = (tail + power) * t
    tail = tail * f.exp(size * size * -0.5) * float(1 / np.sqrt(2 * np.pi))
    below = f.negative(z)
    return below * tail + (1.0 - below) * (1.0 - tail)
