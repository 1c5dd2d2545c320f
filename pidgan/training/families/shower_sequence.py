"""Showers, one number after the other: layers, then the total, then cells.

The same two steps as in `pidgan.training.families.showers`, a model of the energies
followed by one of the shape, but each coordinate is made given those before it
(`pidgan.training.networks.cell_by_cell`): layers in depth, the total given all layers,
as what leaks behind them is missing in it, and cells from the rim of the calorimeter to
its middle. What is small comes before what is large: what is left to be shared is then
never the small difference of large numbers. All layers have the same hidden layers, and
so have all cells: a shower is then as many examples, and a rare one is not learnt by
heart. The network of the cells sees a cell's neighbours and its distance from the axis
of the shower, which is a function of conditions and energies that is learnt: a point of
a plane, a line in a volume. In a volume every other layer of a ring is made at once,
then those between, which see both.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.errors import PidganError
from pidgan.training.backend import tf
from pidgan.training.families.settings import Span
from pidgan.training.networks import draws
from pidgan.training.networks.cell_by_cell import Order, Sequence
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.phases import (
    Batch,
    Descent,
    Family,
    Losses,
    Optimizer,
    Phase,
    Update,
)
from pidgan.training.precise import in_double_precision
from pidgan.training.targets.cells import CellTransform

# Weight decays are those for so many showers. A prior weighs as much as some showers:
# fewer of them need more of it.
DECAY_SHOWERS = 7600
# Each has its own bias, and waits for its neighbours.
MOST_CELLS = 4000
# Coordinates beyond are seen as these: a layer without energy is not far away.
MOST_SEEN = 4.0
# Rows generated at a time by numpy: they stay in the cache.
BLOCK_ROWS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowerSequence:
    """Showers, one coordinate after the other, by maximum likelihood.

    Attributes:
        energy_width: Width of the networks of layers and total.
        energy_memory: Number of sums over earlier layers that later ones see.
        energy_window: Number of earlier layers that each layer sees.
        width: Width of the network of the cells.
        memory: Number of sums over earlier cells that later ones see.
        axes: Number of axes from which cells see their distance: points of a plane,
            lines in depth.
        reach: Distance, in cells, up to which cells see others; 1.05 suits thousands of
            them.
        batch_size: Number of showers of a step.
        learning_rate: Learning rate at the start.
        energy_weight_decay: Weight decay of the model of the layers for 7600 showers;
            other numbers of showers change each weight decay in inverse proportion.
        total_weight_decay: Weight decay of the model of the total for 7600 showers: a
            shower is one example of a total, but many of a layer.
        weight_decay: Weight decay of the model of the cells for 7600 showers.
        blur: Standard deviation of the noise on the sums over what was made before.
        average: Largest momentum of the averaged weights.
        xla: Whether the steps are compiled with XLA; None compiles trainings of a
            minute or 2000 steps and more.
    """

    energy_width: int = 48
    energy_memory: int = 8
    energy_window: int = 4
    width: int = 48
    memory: int = 16
    axes: int = 3
    reach: float = 2.05
    batch_size: int = 128
    learning_rate: float = 3e-3
    energy_weight_decay: float = 0.03
    total_weight_decay: float = 1.0
    weight_decay: float = 0.01
    blur: float = 0.02
    average: float = 0.998
    xla: bool | None = None

    spans = {  # noqa: RUF012
        "energy_width": Span(24, 96, log=True),
        "width": Span(24, 96, log=True),
        "memory": Span(8, 32, log=True),
        "learning_rate": Span(1e-3, 6e-3, log=True),
        "energy_weight_decay": Span(0.005, 0.2, log=True),
        "weight_decay": Span(0.002, 0.05, log=True),
        "blur": Span(0.005, 0.05, log=True),
    }


@dataclasses.dataclass(frozen=True)
class Part:
    """A model of some coordinates, which sees others that were made before."""

    name: str
    makes: slice
    sees: slice
    model: Sequence
    weight_decay: float


def build(settings: ShowerSequence, *, shape: Shape, seed: int) -> Family:
    """Return the generator and the one phase in which its models are fitted.

    Small samples are learnt by heart: each model is judged by itself.
    """
    s = settings
    parts = _make_parts(shape, s, seed)
    # Each model has a stream of random numbers of its own.
    losses_of = [
        functools.partial(_losses, part, k, s.blur) for k, part in enumerate(parts)
    ]

    def update(own: Losses, part: Part) -> Update:
        decay, average = part.weight_decay, s.average
        optimizer = Optimizer(
            s.learning_rate, weight_decay=decay, clip=10.0, average=average
        )
        return Update(own, Descent(part.model.variables, optimizer, held_out=own))

    updates = [update(*both) for both in zip(losses_of, parts, strict=True)]
    return Family(
        generator=SequenceGenerator(parts),
        n_noise=shape.n_targets,
        phases=[Phase("likelihood", 1.0, s.batch_size, updates=updates)],
    )


def _losses(
    part: Part, k: int, blur: float, batch: Batch, seed: Any
) -> dict[str, tf.Tensor]:
    """Return the loss, a coordinate, of one model."""
    z, free = batch["y"], batch["free"]
    context = tf.concat([batch["x"], _seen(z[:, part.sees])], axis=1)
    n = part.model.order.n
    normal = draws.normal((tf.shape(z)[0], n), tf.random.fold_in(seed, k))
    loss = part.model.loss(
        z[:, part.makes], free[:, part.makes], context, blur=blur * normal
    )
    return {part.name: tf.reduce_mean(batch["w"] * loss) / n}


class SequenceGenerator:
    """Function of conditions and one noise number for each coordinate."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.variables: list[Any] = [v for p in parts for v in p.model.variables]

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """Return the coordinates, (n, n_targets), made in double precision."""
        return in_double_precision(self._generate, inputs, size=BLOCK_ROWS)

    def _generate(self, x: Any, noise: Any) -> Any:
        made: list[tuple[slice, Any]] = []
        for part in self.parts:
            sees = range(part.sees.start, part.sees.stop)
            seen = [_seen(z) for place, z in made if place.start in sees]
            numbers = f.pick(noise, np.arange(part.makes.start, part.makes.stop))
            z = part.model.generate(numbers, f.stack([x, *seen]))
            made.append((part.makes, z))
            made.sort(key=lambda item: item[0].start)
        return f.stack([z for _, z in made])


def _make_parts(shape: Shape, s: ShowerSequence, seed: int) -> list[Part]:
    """Return the models in the order in which they come."""
    n, n_cells = shape.n_energies, shape.n_targets - shape.n_energies
    if n_cells > MOST_CELLS:
        raise PidganError(
            f"{n_cells} cells, expected at most {MOST_CELLS} in family "
            "'shower_sequence'; take 'shower_vae'"
        )
    nothing, total, layers = slice(0, 0), slice(0, min(n, 1)), slice(1, n)
    energies, cells = slice(0, n), slice(n, shape.n_targets)
    decay_scale = DECAY_SHOWERS / shape.n_rows if shape.n_rows else 1.0
    parts: list[Part] = []
    for name, makes, sees in (
        ("layers", layers, nothing),
        ("total", total, layers),
        ("shape", cells, energies),
    ):
        if makes.start >= makes.stop:
            continue
        is_shape = name == "shape"
        sees = sees if sees.stop > sees.start else nothing
        order = make_order(
            shape, makes, window=0 if is_shape else s.energy_window, reach=s.reach
        )
        model = Sequence(
            order,
            n_context=shape.n_conditions + sees.stop - sees.start,
            width=s.width if is_shape else s.energy_width,
            memory=s.memory if is_shape else s.energy_memory,
            axes=s.axes if is_shape else 0,
            seed=seed + len(parts),
        )
        decays = {"layers": s.energy_weight_decay, "total": s.total_weight_decay}
        decay = decay_scale * decays.get(name, s.weight_decay)
        parts.append(Part(name, makes, sees, model, decay))
    return parts


def make_order(
    shape: Shape, makes: slice, *, window: int = 0, reach: float = 0.0
) -> Order:
    """Return the order of some coordinates, as they come or as cells lie.

    Each sees a `window` of earlier ones; with 0, all up to `reach` cells away.
    """
    transform = shape.transform
    slope = (transform.knots[:, -1] - transform.knots[:, 0]) / (
        transform.z_max - transform.z_min
    )
    offset = transform.knots[:, 0] - slope * transform.z_min
    if window:
        n = makes.stop - makes.start
        before = np.arange(n)[:, None] - 1 - np.arange(min(window, max(n - 1, 1)))
        before = np.where(before < 0, n, before)
        place, depth = np.zeros((n, 0), dtype=np.float32), np.zeros(n, np.float32)
        stages = tuple(np.arange(n)[:, None])
    else:
        place, depth, before, stages = _order_of_cells(transform, shape.geometry, reach)
    return Order(
        stages=stages,
        window=before,
        group=np.asarray(transform.group)[makes],
        place=place,
        depth=depth,
        slope=slope[makes],
        offset=offset[makes],
        least=transform.z_min[makes],
        most=transform.z_max[makes],
        edge=transform.edge[makes],
    )


def _order_of_cells(
    transform: CellTransform, geometry: Any, reach: float
) -> tuple[FloatArray, FloatArray, IntArray, tuple[IntArray, ...]]:
    """Return place, depth, neighbours and stages of cells, from the rim inwards."""
    first = len(transform.place) - transform.n_targets
    cells = np.flatnonzero(transform.place[first:] >= 0)
    at = np.nan_to_num(np.asarray(geometry.centres))[cells]
    size = np.nan_to_num(np.asarray(geometry.sizes))[cells]
    varies = np.ptp(at, axis=0) > 0
    place = at[:, varies] / np.median(size[:, varies], axis=0)
    place = np.asarray(place - (place.max(axis=0) + place.min(axis=0)) / 2, np.float32)
    across = int(varies[:2].sum())
    ring = -np.round((place[:, :across] ** 2).sum(axis=1), 3)
    layer = np.unique(place[:, across:], axis=0, return_inverse=True)[1].ravel()
    depth = np.asarray(2 * layer / max(1, layer.max()) - (layer.max() > 0), np.float32)
    return place[:, :across], depth, *_neighbours(place, ring, layer, reach)


def _neighbours(
    place: FloatArray, ring: FloatArray, layer: IntArray, reach: float
) -> tuple[IntArray, tuple[IntArray, ...]]:
    """Return earlier cells near each (less `ring`), a slot a direction, and stages."""
    n, half = len(place), layer % 2
    turn = np.lexsort((half, ring))
    rank = np.empty(n, dtype=np.int64)
    rank[turn] = np.arange(n)
    slots: dict[tuple[int, ...], int] = {}
    pairs = []
    for i in range(n):
        step = place - place[i]
        near = ((step**2).sum(axis=1) <= reach**2) & (rank < rank[i])
        near &= (layer == layer[i]) | (ring < ring[i]) | (half < half[i])
        for j in np.flatnonzero(near):
            direction = tuple(np.round(step[j]).astype(int).tolist())
            pairs.append((i, int(j), slots.setdefault(direction, len(slots))))
    window = np.full((n, max(1, len(slots))), n)
    for cell, seen, slot in pairs:
        window[cell, slot] = seen
    stage = [0] * n
    for i in turn:
        stage[i] = 1 + max((stage[j] for j in window[i] if j < n), default=-1)
    found = np.array(stage)
    return window, tuple(np.flatnonzero(found == k) for k in range(found.max() + 1))


def _seen(z: Array) -> Array:
    """Return the energies as the cells see them."""
    return f.maximum(f.minimum(z, MOST_SEEN), -MOST_SEEN) * 0.5
