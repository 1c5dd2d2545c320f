"""The three networks of a shower that is split, what they see, and their losses.

What a split sees is number by number the same formula in a training, where it is
(splits,) of some showers, and in what is generated, where it is (splits, rows).
"""

from typing import Any

import numpy as np

from pidgan.arrays import IntArray
from pidgan.bundle import formulas as f
from pidgan.calorimeter.geometry import View
from pidgan.calorimeter.halving import halve
from pidgan.training.backend import tf
from pidgan.training.networks import draws
from pidgan.training.networks.split_energy import NOTHING, SplitNetwork
from pidgan.training.targets.energies import CellEnergies

LEVEL = 0.25  # unit of logarithms of energies
MEMORY = 6  # earlier layers that a layer sees one by one
NEAR = 0.2  # square of a distance, in cells, that is near the axis
FAR = 6.0  # unit of distances, in cells
NEAR_MIDDLE = 1e-4  # square of a distance from the middle, where it has a slope


class ShowerSplits:
    """Networks of the total, of the layers and of the halves of one view."""

    def __init__(
        self,
        view: View,
        known: CellEnergies,
        *,
        widths: tuple[int, int, int],
        seed: int,
    ) -> None:
        """Draw the initial weights."""
        self.tree, self.known = halve(view), known
        self.n_layers, self.n_told = len(view.layers), len(known.told)
        sizes = np.concatenate([la.plane()[1] for la in view.layers])
        self.pitch = float(np.median(sizes[sizes > 0]))
        places = np.concatenate([la.plane()[0] for la in view.layers])
        self.reach = float(np.abs(places).max()) or 1.0
        n_told = len(known.told) + 2
        self.total = SplitNetwork(
            n_told,
            known.total_edges,
            codes=[1],
            width=widths[0],
            seed=seed,
            is_split=False,
        )
        self.layers: Any = None  # of a single layer there is none
        self.halves: Any = None  # nor of single cells
        if self.n_layers > 1:
            self.layers = SplitNetwork(
                MEMORY + 5 + 1 + n_told,
                known.layer_edges,
                codes=[self.n_layers - 1],
                width=widths[1],
                seed=seed + 1,
            )
        if len(self.tree.parent):
            self.halves = SplitNetwork(
                self.tree.slots.shape[1] + 17 + 1 + self.n_told,
                known.cell_edges,
                codes=[self.tree.n_kinds, self.n_layers],
                width=widths[2],
                seed=seed + 2,
            )

    @property
    def n_noise(self) -> int:
        """Number of splits, and one for the total."""
        return self.n_layers + len(self.tree.parent)

    @property
    def variables(self) -> list[Any]:
        """Return the weights of all networks, in order."""
        networks = (self.total, self.layers, self.halves)
        return [v for network in networks if network for v in network.variables]

    def total_loss(self, x: Any, y: Any, w: Any, *, seed: Any) -> Any:
        """Return the mean of -log p(total / incident energy | conditions)."""
        incident = tf.exp(self.known.log_incident(tf.transpose(x))[0])
        codes = [tf.zeros(tf.shape(x)[0], tf.int32)]
        share = tf.reduce_sum(y, axis=1) / incident
        told = tf.transpose(self._told_to_layers(tf.transpose(x)))
        return tf.reduce_mean(w * self.total.loss(told, codes, share))

    def layer_loss(self, x: Any, y: Any, w: Any, *, seed: Any) -> Any:
        """Return the mean of -log p(layers | total, conditions), a layer."""
        e = self.node_energies(y)[:, : self.n_layers]
        return tf.reduce_mean(self.layer_losses(x, e) * w[:, None])

    def layer_losses(self, x: Any, e: Any) -> Any:
        """Return -log p of all layers e (n, n_layers) but the last, (n, n_layers - 1).

        It is 0 where nothing is left.
        """
        m = self.n_layers - 1
        total = tf.reduce_sum(e, axis=1)
        rest = tf.cumsum(e, axis=1, reverse=True)
        padded = tf.pad(e, [[0, 0], [MEMORY, 0]])
        number = np.arange(m, dtype=np.float32)
        largest = [tf.zeros_like(total)]
        for k in range(m - 1):
            largest.append(tf.maximum(largest[-1], e[:, k]))
        places = np.arange(self.n_layers, dtype=np.float32)
        moments = tf.cumsum(e * places, axis=1, exclusive=True)[:, :m]
        rows = tf.shape(e)[0]
        seen = self._seen_by_layers(
            rest=rest[:, :m],
            total=total[:, tf.newaxis] + 0.0 * rest[:, :m],
            earlier=[
                padded[:, MEMORY - 1 - i : MEMORY - 1 - i + m] for i in range(MEMORY)
            ],
            largest=tf.stack(largest, axis=1),
            moment=moments,
            number=number[None] + 0.0 * rest[:, :m],
        )
        own = tf.stack([tf.reshape(v, (-1,)) for v in seen], axis=1)
        told = tf.transpose(self._told_to_layers(tf.transpose(x)))
        shared = [self._level(total[:, None], layer=True), told]
        told = tf.repeat(tf.concat(shared, axis=1), m, axis=0)
        code = tf.tile(tf.range(m), [rows])
        pair = [tf.reshape(v, (-1,)) for v in (e[:, :m], rest[:, 1:])]
        loss = self.layers.loss(tf.concat([own, told], axis=1), [code], *pair)
        there = pair[0] + pair[1] > NOTHING
        return tf.reshape(tf.where(there, loss, 0.0), (-1, m))

    def half_loss(self, x: Any, y: Any, w: Any, *, seed: Any, splits: int) -> Any:
        """Return the mean of -log p(halves | whole) over some of all splits."""
        e = self.node_energies(y)
        there = tf.where(tf.gather(e, self.tree.parent, axis=1) > 0)
        n = tf.maximum(tf.shape(there)[0], 1)
        draw = draws.integers(splits, seed, below=n)
        row, number = tf.unstack(tf.gather(there, draw), axis=1)
        row, number = (tf.cast(v, tf.int32) for v in (row, number))
        loss = self.half_losses(x, e, row, number)
        return tf.reduce_mean(loss * tf.gather(w, row))

    def half_losses(self, x: Any, e: Any, row: Any, number: Any) -> Any:
        """Return -log p(halves | whole) of splits, given by row and number, (m,) each.

        Energies e (n, n_nodes + 1) are those of all nodes. It is 0 without any energy.
        """
        tree, known = self.tree, self.known
        layers = e[:, : self.n_layers]
        width = e.shape[1]
        flat = tf.reshape(e, (-1,))

        def node(table: IntArray) -> Any:
            place = tf.gather(tf.constant(table, tf.int32), number)
            start = row * width
            return tf.gather(
                flat, place + (start[:, None] if table.ndim > 1 else start)
            )

        layer = tf.gather(tf.constant(tree.layer, tf.int32), number)

        def of_layer(table: Any, step: int = 0) -> Any:
            padded = tf.pad(table, [[0, 0], [1, 1]])
            return tf.gather(
                tf.reshape(padded, (-1,)), row * (self.n_layers + 2) + layer + 1 + step
            )

        position, slope = (tf.transpose(v) for v in known.axis_of(tf.transpose(x)))
        depth = tf.gather(tf.constant(known.depth, tf.float32), layer)[:, None]
        slope = tf.gather(slope, row)
        position = tf.gather(position, row) + depth * slope
        across = tf.gather(tf.constant(tree.across, tf.float32), number)
        edge = tf.gather(tf.constant(tree.edge, tf.float32), number)
        total = tf.reduce_sum(layers, axis=1)
        seen = self._seen_by_halves(
            whole=node(tree.parent),
            own=of_layer(layers),
            around=(of_layer(layers, -1), of_layer(layers, 1)),
            before=of_layer(tf.cumsum(layers, axis=1, exclusive=True)),
            total=tf.gather(total, row),
            away=tf.unstack(edge - position, axis=1),
            slope=tf.unstack(slope, axis=1),
            across=tf.unstack(across, axis=1),
        )
        told = tf.gather(x, known.told, axis=1)
        told = tf.concat([self._level(total[:, None]), told], axis=1)
        features = [self._level(node(tree.slots)), tf.stack(seen, axis=1)]
        features.append(tf.gather(told, row))
        codes = [tf.gather(tf.constant(tree.kind, tf.int32), number), layer]
        halves = node(tree.first), node(tree.second)
        loss = self.halves.loss(tf.concat(features, axis=1), codes, *halves)
        return tf.where(node(tree.parent) > 0, loss, 0.0)

    def generate(self, x: Any, noise: Any) -> Any:
        """Return energies of cells (n_cells, n), from (n_columns, n) and (n_noise, n).

        Arrays are numpy's, or values of a graph.
        """
        energies, total = self._generate_layers(x, noise)
        tree = self.tree
        if self.halves is None:
            return f.pick(energies, tree.leaf)
        w = {name: v.numpy() for name, v in self.halves.weights.items()}
        layers = energies
        numbers = np.arange(self.n_layers)
        strictly = (numbers[:, None] > numbers).astype(np.float64)
        before = f.product(strictly, layers)
        nothing = total * 0.0
        position, slope = self.known.axis_of(x)
        shared = f.stack([self._level(total), f.pick(x, self.known.told)])
        levels = self._level(f.stack([layers, nothing]))
        # Where each node's energy is, among those that are made.
        place = np.full(tree.n_nodes + 1, -1)
        place[numbers], place[-1] = numbers, self.n_layers
        for stage in tree.stages:
            layer = tree.layer[stage]
            k = len(stage)
            depth, edge = self.known.depth[layer][:, None], tree.edge[stage]
            around = f.stack([nothing, layers, nothing])
            whole = f.pick(energies, _made(place, tree.parent[stage], self.n_layers))
            seen = self._seen_by_halves(
                whole=whole,
                own=f.pick(layers, layer),
                around=(f.pick(around, layer), f.pick(around, layer + 2)),
                before=f.pick(before, layer),
                total=f.pick(total, np.zeros(k, np.int64)),
                away=[
                    edge[:, [d]] - f.pick(position, [d]) - depth * f.pick(slope, [d])
                    for d in (0, 1)
                ],
                slope=[f.pick(slope, [d] * k) for d in (0, 1)],
                across=[tree.across[stage][:, [d]] for d in (0, 1)],
            )
            slots = place[tree.slots[stage]]
            window = f.fold(f.pick(levels, slots.ravel()), slots.shape)
            first = self.halves.generate(
                [window, *(f.fold(v, (k, 1)) for v in seen)],
                shared,
                [tree.kind[stage], layer],
                f.pick(noise, self.n_layers + stage),
                whole,
                weights=w,
            )
            made = f.stack([first, whole - first])
            n = levels.shape[0]
            place[tree.first[stage]] = n + np.arange(k)
            place[tree.second[stage]] = n + k + np.arange(k)
            energies = f.stack([energies, made])
            levels = f.stack([levels, self._level(made)])
        return f.pick(energies, _made(place, tree.leaf, self.n_layers))

    def _generate_layers(self, x: Any, noise: Any) -> tuple[Any, Any]:
        """Return energies of the layers (n_layers, n), and their total (1, n)."""
        w = {name: v.numpy() for name, v in self.total.weights.items()}
        zero = [np.zeros(1, np.int64)]
        told = self._told_to_layers(x)
        total = self.total.generate([], told, zero, f.pick(noise, [0]), weights=w)
        total = total * f.exp(self.known.log_incident(x))
        if self.layers is None:
            return total, total
        w = {name: v.numpy() for name, v in self.layers.weights.items()}
        shared = f.stack([self._level(total, layer=True), told])
        rest, nothing = total, total * 0.0
        largest, moment = nothing, nothing
        made: list[Any] = []
        for k in range(self.n_layers - 1):
            earlier = [made[k - 1 - i] if i < k else nothing for i in range(MEMORY)]
            seen = self._seen_by_layers(
                rest=rest,
                total=total,
                earlier=earlier,
                largest=largest,
                moment=moment,
                number=nothing + float(k),
            )
            energy = self.layers.generate(
                [f.fold(v, (1, 1)) for v in seen],
                shared,
                [np.array([k])],
                f.pick(noise, [1 + k]),
                rest,
                weights=w,
            )
            made.append(energy)
            rest = f.maximum(rest - energy, 0.0)
            largest = f.maximum(largest, energy)
            moment = moment + energy * float(k)
        return f.stack([*made, rest]), total

    def _told_to_layers(self, x: Any) -> Any:
        """Return the conditions as total and layers see them, (n_told + 2, n).

        The axis shows how far from the middle it is, and how much it leans.
        """
        seen = [f.pick(x, self.known.told)]
        for vector in self.known.axis_of(x):
            one, two = (f.pick(vector, [d]) * (1 / self.reach) for d in (0, 1))
            seen.append(f.sqrt(one * one + two * two + NEAR_MIDDLE))
        return f.stack(seen)

    def _level(self, energy: Any, *, layer: bool = False) -> Any:
        """Return energies as networks see them: 0 for none, else logarithms."""
        least = float(self.known.least[int(layer)])
        # ln(1 + E / E_0): a bundle has no softplus in double precision.
        return f.log(f.maximum(energy, 0.0) * (1 / least) + 1.0) * LEVEL

    def _seen_by_layers(
        self,
        *,
        rest: Any,
        total: Any,
        earlier: list[Any],
        largest: Any,
        moment: Any,
        number: Any,
    ) -> list[Any]:
        """Return what a layer sees, number by number, all of one shape."""
        per_total = 1 / f.maximum(total, NOTHING)
        held = f.maximum(total - rest, 0.0)
        middle = moment / f.maximum(held, NOTHING)
        return [
            self._level(rest, layer=True),
            rest * per_total,
            *(self._level(e, layer=True) for e in earlier),
            self._level(largest, layer=True),
            largest * per_total,
            (number - middle) * (1 / self.n_layers),
        ]

    def _seen_by_halves(
        self,
        *,
        whole: Any,
        own: Any,
        around: tuple[Any, Any],
        before: Any,
        total: Any,
        away: list[Any],
        slope: list[Any],
        across: list[Any],
    ) -> list[Any]:
        """Return what a split sees beside its slots, number by number."""
        unit = 1 / self.pitch
        along = (away[0] * across[0] + away[1] * across[1]) * unit
        aside = f.absolute(away[1] * across[0] - away[0] * across[1]) * unit
        lean = (slope[0] * across[0] + slope[1] * across[1]) * (unit / self.n_layers)
        square = along * along
        part = f.maximum(whole, NOTHING) / f.maximum(own, NOTHING)
        return [
            self._level(whole),
            self._level(own),
            f.log(f.maximum(part, NOTHING)) * (LEVEL * 1.0),
            self._level(around[0]),
            self._level(around[1]),
            before / f.maximum(total, NOTHING),
            f.tanh(along),
            f.tanh(along * (1 / 3)),
            along * (1 / FAR),
            f.absolute(along) * (1 / FAR),
            f.tanh(aside),
            aside * (1 / FAR),
            f.log(square + aside * aside + NEAR) * 0.5,
            f.log(square + NEAR) * 0.5,
            f.tanh(lean),
            f.absolute(f.tanh(lean)),
            f.tanh(along * 3.0),
        ]

    def node_energies(self, y: Any) -> Any:
        """Return energies (n, n_nodes + 1) of all nodes; the last one is zero."""
        tree = self.tree
        found, place = y, np.full(tree.n_nodes + 1, -1)
        place[tree.leaf] = np.arange(len(tree.leaf))
        for stage in reversed(tree.stages):
            one, two = (place[part[stage]] for part in (tree.first, tree.second))
            both = tf.gather(found, one, axis=1) + tf.gather(found, two, axis=1)
            place[tree.parent[stage]] = found.shape[1] + np.arange(len(stage))
            found = tf.concat([found, both], axis=1)
        place[-1] = found.shape[1]
        return tf.gather(tf.pad(found, [[0, 0], [0, 1]]), place, axis=1)


def _made(place: IntArray, nodes: IntArray, n_layers: int) -> IntArray:
    """Return places among energies, which lack the empty node of the levels."""
    found = place[nodes]
    return np.asarray(np.where(found > n_layers, found - 1, found))
