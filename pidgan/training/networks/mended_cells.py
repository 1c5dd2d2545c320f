"""Energies of cells, moved to where the spectrum of real cells has them.

A small network, the same for all cells, sees the level v = ln(1 + E / E_0) of a cell,
those of its layer and of the shower, the layer and the conditions, and moves v. An
empty cell stays empty. Afterwards cells below the threshold are empty, and all others
of a layer are multiplied by one factor, so that its energy is what it was; so is the
total (the post-processing network of Buhmann et al., arXiv:2005.05334, Sec. 4.3). A
layer of one cell would not change: such layers keep the energy of their view.

The loss compares several showers with as many real ones at the same conditions: the
levels of all cells of a layer, sorted, number by number. It is the Wasserstein distance
of two spectra, which has no bandwidth to choose, and counts empty cells too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pidgan.arrays import IntArray
from pidgan.bundle import formulas as f
from pidgan.calorimeter.geometry import Geometry
from pidgan.training.backend import keras, tf

WIDTH = 16
# Levels and what is moved are of this unit.
LEVEL = 0.25
MOST_LEVEL = 40.0  # largest ln(1 + E / E_0)
NOTHING = 1e-30
# Share of the squared move in the loss: no cell moves further than it must.
STAY = 1e-3


class MendedCells:
    """The network, and the function of cells and conditions that it makes."""

    def __init__(
        self,
        geometry: Geometry,
        *,
        n_conditions: int,
        least: float,
        threshold: float,
        seed: int,
    ) -> None:
        """Draw the initial weights, with which nothing moves.

        `least` is the energy E_0 that is next to nothing.
        """
        self.least, self.threshold = least, threshold
        self.layer = np.asarray(geometry.layer_index)
        self.keeps = _kept_groups(geometry)
        seeds = keras.random.SeedGenerator(seed)

        def draw(*shape: int, scale: float) -> Any:
            normal = keras.initializers.RandomNormal(stddev=scale, seed=seeds)
            return keras.Variable(normal(shape))

        n_layers, n_shared = int(self.layer.max()) + 1, n_conditions + 1
        self.weights: dict[str, Any] = {
            "own": draw(2, WIDTH, scale=1.0),
            "shared": draw(n_shared, WIDTH, scale=n_shared**-0.5),
            "layer": draw(n_layers, WIDTH, scale=0.3),
            "second": draw(WIDTH, WIDTH, scale=(2 / WIDTH) ** 0.5),
            "second_bias": keras.Variable(tf.zeros(WIDTH)),
            "last": keras.Variable(tf.zeros((WIDTH, 1))),
            "layer_move": keras.Variable(tf.zeros((n_layers, 1))),
        }
        self.variables = list(self.weights.values())

    def numbers(self) -> dict[str, Any]:
        """Return the weights as arrays for `mend`."""
        w = {name: v.numpy() for name, v in self.weights.items()}
        w["layer"] = w["layer"][self.layer][:, :, None]
        w["layer_move"] = w["layer_move"][self.layer]
        return w

    def tensors(self) -> dict[str, Any]:
        """Return the weights as tensors for `mend`, through which gradients pass."""
        w = {name: tf.convert_to_tensor(v) for name, v in self.weights.items()}
        w["layer"] = tf.gather(w["layer"], self.layer)[:, :, tf.newaxis]
        w["layer_move"] = tf.gather(w["layer_move"], self.layer)
        return w

    def mend(self, cells: Any, x: Any, w: Mapping[str, Any]) -> Any:
        """Return cells (n_cells, n) of conditions (n_conditions, n), see the module."""
        n = len(self.layer)
        level = self.level(cells)
        layers = self._spread(self.layer, cells)
        total = f.product(np.ones((1, n)), cells)
        shared = f.stack([x, self.level(total) * LEVEL])
        own = [f.fold(v * LEVEL, (n, 1)) for v in (level, level - self.level(layers))]
        first = f.product(_turned(w["own"]), f.stack(own)) + w["layer"]
        told = f.fold(f.product(_turned(w["shared"]), shared), (1, WIDTH))
        v = f.tanh(first + told)
        inner = f.product(_turned(w["second"]), v) + w["second_bias"][:, None]
        v = v + f.tanh(inner)
        move = f.fold(f.product(_turned(w["last"]), v), (n,)) + w["layer_move"]
        moved = f.minimum(level + move * (1 / LEVEL), MOST_LEVEL)
        energy = f.maximum((f.exp(moved) - 1.0) * self.least, 0.0)
        return self._kept(f.where(f.greater(cells, 0.0), energy, 0.0), cells)

    def _kept(self, energy: Any, cells: Any) -> Any:
        """Return energies (n_cells, n), those of layers as they were in `cells`."""
        wanted = self._spread(self.keeps, cells)
        scale = wanted / f.maximum(self._spread(self.keeps, energy), NOTHING)
        stays = f.both(
            f.at_least(energy * scale, self.threshold), f.greater(energy, 0.0)
        )
        energy = f.where(stays, energy, 0.0)
        left = self._spread(self.keeps, energy)
        scaled = energy * (wanted / f.maximum(left, NOTHING))
        # Where nothing would be left, the cells stay as they were.
        return f.where(f.greater(left, 0.0), scaled, cells)

    def _spread(self, group: IntArray, cells: Any) -> Any:
        """Return for each cell (n_cells, n) the sum over its group."""
        members = np.arange(group.max() + 1)[:, None] == group
        return f.pick(f.product(members.astype(np.float32), cells), group)

    def level(self, energy: Any) -> Any:
        """Return ln(1 + E / E_0)."""
        return f.log(energy * (1 / self.least) + 1.0)

    def loss(self, batch: Mapping[str, Any]) -> Any:
        """Return the mean distance of levels, of "made" cells from "real" ones (n, k).

        They are of the conditions "x".
        """
        made, x = tf.transpose(batch["made"]), tf.transpose(batch["x"])
        mended = self.mend(made, x, self.tensors())
        levels = self.level(mended), self.level(tf.transpose(batch["real"]))
        sizes = np.bincount(self.layer)
        distances = []
        for size in np.unique(sizes):
            layers = np.flatnonzero(sizes == size)
            members = np.stack([np.flatnonzero(self.layer == k) for k in layers])
            one, two = (
                tf.sort(tf.reshape(tf.gather(v, members), (len(layers), -1)), axis=1)
                for v in levels
            )
            distances.append(tf.reduce_sum(tf.abs(one - two)))
        moved = tf.reduce_mean(tf.square(levels[0] - self.level(made)))
        number = tf.cast(tf.size(levels[0]), tf.float32)
        return sum(distances) / number + STAY * moved


def _kept_groups(geometry: Geometry) -> IntArray:
    """Return the group (n_cells,) of cells that share their energy among themselves."""
    layer = np.asarray(geometry.layer_index)
    alone = np.bincount(layer)[layer] == 1
    view = np.empty(len(layer), dtype=np.int64)
    for k, part in enumerate(geometry.view_slices.values()):
        view[part] = k
    group = np.where(alone, layer.max() + 1 + view, layer)
    return np.unique(group, return_inverse=True)[1].ravel()


def _turned(matrix: Any) -> Any:
    return tf.transpose(matrix) if tf.is_tensor(matrix) else matrix.T
