"""Halvings of layers: a tree from the energy of a layer down to that of each cell.

Every layer is cut in two, across its longer side, and so is each half, until what is
left are cells. A *node* is a part of a layer, a *split* a node with its two halves. The
energy of a node is the sum of those of its halves, so that a shower is known from the
energies of its layers and the share of the first half in each split.

All layers are cut in step: first every other layer, then those between (a *stage*). A
split sees other nodes (its *slots*): those around it in its layer as they are before
the stage, and those at the same place in layers before and behind, of which every
other one is cut already.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.calorimeter.geometry import Layer, View

# Layers before and behind in which a split sees all nodes around, and its halves only.
NEAR_LAYERS, FAR_LAYERS = (-1, 1), (-2, 2)
BEYOND = 0.5  # a neighbour is looked up so far beyond an edge, in cells
FURTHER = 1.0  # the next but one is, in sizes of a half

Box = tuple[int, int, int, int]
"""First and last but one row, first and last but one column."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halvings:
    """The tree of a view with L layers, N nodes and m splits, in arrays (m,).

    Attributes:
        n_nodes: Number of nodes N; the layers are the first ones.
        layer: Layer of each split.
        parent: Node that is split.
        first: Its half of smaller rows or columns.
        second: Its other half.
        kind: Number of the shape that a split has, equal for equal shapes.
        slots: Nodes that are seen (m, slots), N where there is none.
        edge: Middle of the cut (m, 2), mm.
        across: Direction from the first to the second half (m, 2), a unit vector.
        stages: Splits that are made at once, in turn.
        leaf: Node of each cell of the view (n_cells,).
    """

    n_nodes: int
    layer: IntArray
    parent: IntArray
    first: IntArray
    second: IntArray
    kind: IntArray
    slots: IntArray
    edge: FloatArray
    across: FloatArray
    stages: tuple[IntArray, ...]
    leaf: IntArray

    @property
    def n_kinds(self) -> int:
        """Number of shapes that splits have."""
        return int(self.kind.max(initial=0)) + 1


@dataclasses.dataclass
class _Growing:
    """A tree that is being cut: boxes of all nodes, and the node of each cell."""

    layers: Sequence[Layer]
    boxes: list[Box]
    at: list[IntArray]  # of each layer, (rows, columns)

    def look(self, layer: int, place: FloatArray, *, seen_from: int) -> int:
        """Return the node of a layer at a place in rows and columns of another one."""
        if not 0 <= layer < len(self.layers):
            return -1
        mine, own = self.layers[layer].shape, self.layers[seen_from].shape
        i, j = (
            int(np.floor(p * m / n)) for p, m, n in zip(place, mine, own, strict=True)
        )
        if self.layers[layer].kind == "cylindrical":
            i %= mine[0]
        if not (0 <= i < mine[0] and 0 <= j < mine[1]):
            return -1
        return int(self.at[layer][i, j])


def halve(view: View) -> Halvings:
    """Return the tree of the layers of a view."""
    layers = view.layers
    tree = _Growing(
        layers=layers,
        boxes=[(0, la.shape[0], 0, la.shape[1]) for la in layers],
        at=[np.full(la.shape, k) for k, la in enumerate(layers)],
    )
    splits: list[tuple[int, int, int, int]] = []
    stages: list[IntArray] = []
    slots, shapes = [], []
    while axes := _next_axes(tree):
        for parity in (0, 1):
            start = len(splits)
            for k, axis in axes.items():
                if k % 2 != parity:
                    continue
                for node in np.unique(tree.at[k]).tolist():
                    halves = _cut(tree.boxes[node], axis)
                    if halves is None:
                        continue
                    slots.append(_look_around(tree, k, axis, halves))
                    shapes.append((axis, *map(_sizes, halves)))
                    children = [len(tree.boxes), len(tree.boxes) + 1]
                    tree.boxes += halves
                    splits.append((k, node, *children))
            for k, _, *children in splits[start:]:
                for node in children:
                    a, b, c, d = tree.boxes[node]
                    tree.at[k][a:b, c:d] = node
            if len(splits) > start:
                stages.append(np.arange(start, len(splits)))
    return _finish(view, tree, splits, stages, slots, shapes)


def node_energies(tree: Halvings, cells: FloatArray) -> FloatArray:
    """Return the energies (n, n_nodes) of all nodes, from cells (n, n_cells)."""
    found = np.zeros((len(cells), tree.n_nodes), dtype=cells.dtype)
    found[:, tree.leaf] = cells
    for stage in reversed(tree.stages):
        both = found[:, tree.first[stage]] + found[:, tree.second[stage]]
        found[:, tree.parent[stage]] = both
    return found


def _next_axes(tree: _Growing) -> dict[int, int]:
    """Return the axis along which each layer is cut next; none for single cells."""
    found = {}
    for k, at in enumerate(tree.at):
        boxes = np.array([tree.boxes[node] for node in np.unique(at)])
        rows, columns = (boxes[:, 1::2] - boxes[:, ::2]).max(axis=0).tolist()
        if max(rows, columns) > 1:
            found[k] = int(columns >= rows)
    return found


def _sizes(box: Box) -> tuple[int, int]:
    return box[1] - box[0], box[3] - box[2]


def _cut(box: Box, axis: int) -> tuple[Box, Box] | None:
    """Return the halves of a box, the first the larger one; None if it is one cell."""
    start, stop = box[2 * axis : 2 * axis + 2]
    if stop - start < 2:
        return None
    middle = start + (stop - start + 1) // 2
    if axis:
        return (*box[:2], start, middle), (*box[:2], middle, stop)
    return (start, middle, *box[2:]), (middle, stop, *box[2:])


def _look_around(
    tree: _Growing, layer: int, axis: int, halves: tuple[Box, Box]
) -> list[int]:
    """Return the nodes that a split sees, -1 where there is none."""
    first, second = (np.array([b[:2], b[2:]], dtype=np.float64) for b in halves)
    middles = first.mean(axis=1), second.mean(axis=1)
    along, sideways = np.eye(2)[axis], np.eye(2)[1 - axis]
    sizes = [float(np.ptp(half[axis])) for half in (first, second)]
    width = float(np.ptp(first[1 - axis]))

    def beyond(reach: float, unit: float) -> tuple[FloatArray, FloatArray]:
        a, b = (reach + size * unit for size in sizes)
        return middles[0] - along * a, middles[1] + along * b

    before, behind = beyond(BEYOND, 0.5)
    row = (before, *middles, behind)
    side = sideways * (width / 2 + BEYOND)
    wanted = [(0, before), (0, behind)]
    wanted += [(0, p + q * side) for q in (-1, 1) for p in row]
    wanted += [(d, p + q * side) for d in NEAR_LAYERS for q in (0, -1, 1) for p in row]
    wanted += [(d, p) for d in FAR_LAYERS for p in middles]
    wanted += [(0, p) for p in beyond(FURTHER, 1.0)]
    middle = (middles[0] + middles[1]) / 2
    further = sideways * (width + FURTHER)
    wanted += [(0, middle - further), (0, middle + further)]
    return [tree.look(layer + d, p, seen_from=layer) for d, p in wanted]


def _finish(
    view: View,
    tree: _Growing,
    splits: list[tuple[int, int, int, int]],
    stages: list[IntArray],
    slots: list[list[int]],
    shapes: list[tuple[object, ...]],
) -> Halvings:
    """Return the arrays of a tree."""
    n = len(tree.boxes)
    layer, parent, first, second = np.array(splits, dtype=np.int64).reshape(-1, 4).T
    kinds = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
    seen = np.array(slots, dtype=np.int64).reshape(len(splits), -1)
    middle, inner = _places(view, tree.boxes, (layer, first, second))
    across = middle[1] - middle[0]
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return Halvings(
        n_nodes=n,
        layer=layer,
        parent=parent,
        first=first,
        second=second,
        kind=np.array([kinds[shape] for shape in shapes], dtype=np.int64),
        slots=np.where(seen < 0, n, seen),
        edge=inner,
        across=across,
        stages=tuple(stages),
        leaf=np.concatenate([at.ravel() for at in tree.at]),
    )


def _places(
    view: View, boxes: list[Box], splits: tuple[IntArray, IntArray, IntArray]
) -> tuple[tuple[FloatArray, FloatArray], FloatArray]:
    """Return the middles of both halves, and those of the cuts, (m, 2) each, mm."""
    planes = [la.plane()[0].reshape(*la.shape, 2) for la in view.layers]
    found = np.empty((3, len(splits[0]), 2))
    for number, (k, one, two) in enumerate(zip(*splits, strict=True)):
        halves = [boxes[one], boxes[two]]
        parts = [planes[k][a:b, c:d] for a, b, c, d in halves]
        cut_rows = halves[0][2:] == halves[1][2:]
        near = (parts[0][-1:], parts[1][:1])
        if not cut_rows:
            near = (parts[0][:, -1:], parts[1][:, :1])
        found[:2, number] = [part.mean(axis=(0, 1)) for part in parts]
        found[2, number] = np.mean([p.mean(axis=(0, 1)) for p in near], axis=0)
    return (found[0], found[1]), found[2]
