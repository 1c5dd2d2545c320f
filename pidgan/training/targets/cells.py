"""Targets that are energies of cells: normal scores of totals and shares.

Which to use when: `layers` for showers. It splits what a network finds hard, the sum
of many cells, from their shares: the total over the incident energy, for each view the
share of each layer, and in each layer the share of each cell (Krause and Shih,
CaloFlow, arXiv:2106.05285, Sec. 3; Ernst et al., CaloINN, arXiv:2312.09290, Eq. 5). On
the way back the shares of a layer, and those of the layers, are divided by their sum.
`cells`, each cell over the incident energy, where there is no total to speak of.

Such a *quantity* q >= 0 has its logarithm (or logit) mapped to a standard normal
distribution by its quantiles over the training rows, in which rows of q = 0, a share p
of all, lie below the *edge* Phi^-1(p). So zeros are the censored part of a normal
variable, and what is generated below the edge is exactly zero; but the largest share
of a layer never is. A quantity that is never zero has no edge.

The coordinates of the total and of the layers come first: `n_energies` of them.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.special

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.calorimeter.mirrors import mirror_showers
from pidgan.errors import TrainingError
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.targets.tracks import interpolate

N_KNOTS = 64
"""Knots of a quantile transform, at normal scores equidistant above the edge."""

NO_EDGE = -30.0
"""Edge of quantities that are never zero: no normal score lies below."""

SMALLEST = 1e-12
"""Shares below this are zero: sums of single precision know nothing of them."""

LOGIT_BOUND = 1e-6
"""Logits are taken of shares up to one minus this."""

ONE, ZERO = -1, -2
"""Places of quantities that are always one, as the share of the only cell of a layer,
or always zero: they have no coordinate."""

ALONE = -1
"""Group of a quantity that is not divided by a sum."""

ROWS_PER_BLOCK = 8192
"""Rows mapped at a time: bounds the memory that double precision takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellTransform:
    """Energies of cells as normal scores of quantities.

    All quantities are, in this order, the total, the share of each layer in its view
    and the share of each cell in its layer; with scheme `cells` the cells alone. Arrays
    from `edge` on have one entry for each coordinate.
    """

    has_signed_weights: ClassVar[bool] = False
    has_flatter_rows: ClassVar[bool] = False
    n_patterns: ClassVar[int] = 1  # zeros are no classes, but coordinates below an edge

    incident: int  # condition that is the incident energy; -1 for none
    layer_of: IntArray  # (n_cells,); empty for scheme `cells`
    view_of: IntArray  # (n_layers,)
    place: IntArray  # coordinate of each quantity, or `ONE` or `ZERO`
    logit: bool  # whether shares are seen through logits, not logarithms
    edge: FloatArray  # normal score below which a quantity is zero
    z_min: FloatArray  # normal score of the first knot, above the edge
    z_max: FloatArray  # normal score of the last knot
    knots: FloatArray  # (n, N_KNOTS), logarithms or logits, not falling
    threshold: float  # a cell is zero below, in the unit of the cells

    @property
    def n_targets(self) -> int:
        return len(self.layer_of) or len(self.place)

    @property
    def n_coordinates(self) -> int:
        return len(self.edge)

    @property
    def free(self) -> FloatArray:
        """(1, n_coordinates): all have a density, above their edge."""
        return np.ones((1, self.n_coordinates), dtype=np.float32)

    @property
    def n_energies(self) -> int:
        """Number of leading coordinates that are the total or a layer's share."""
        if not len(self.layer_of):
            return 0
        return int((self.place[: 1 + len(self.view_of)] >= 0).sum())

    @property
    def group(self) -> IntArray:
        """(n_coordinates,), equal for quantities whose sum is 1; `ALONE` for others."""
        if not len(self.layer_of):
            return np.full(self.n_coordinates, ALONE)
        found = groups(self.layer_of, self.view_of)[self.place >= 0]
        return np.where(found < 0, ALONE, np.unique(found, return_inverse=True)[1] - 1)

    @property
    def factors(self) -> IntArray:
        """(n_factors, n_cells), coordinates that a cell is the product of.

        `n_coordinates` stands for 1, `n_coordinates` + 1 for 0.
        """
        n = self.n_coordinates
        places = np.where(self.place < 0, n - 1 - self.place, self.place)
        if not len(self.layer_of):
            return places[None]
        layers = places[1 : 1 + len(self.view_of)]
        cells = places[1 + len(self.view_of) :]
        return np.stack([np.zeros_like(cells), layers[self.layer_of], cells])

    @property
    def steps(self) -> FloatArray:
        """(n_coordinates,), knots in a unit of the normal score."""
        return np.asarray((N_KNOTS - 1) / (self.z_max - self.z_min), dtype=np.float32)

    @property
    def members(self) -> IntArray:
        """(n_groups, largest group), coordinates; small groups repeat their first."""
        group = self.group
        groups = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
        size = max((len(found) for found in groups), default=0)
        rows = [np.append(g, np.repeat(g[0], size - len(g))) for g in groups]
        return np.array(rows, dtype=np.int64).reshape(len(groups), size)

    @property
    def indicator(self) -> FloatArray:
        """(n_coordinates, n_groups), 1 where a quantity is of a group."""
        is_member = self.group[:, None] == np.arange(self.group.max() + 1)
        return np.asarray(is_member, dtype=np.float32)

    def forward(self, cells: FloatArray, conditions: FloatArray) -> FloatArray:
        """Map cells (n, n_cells) to coordinates, float32; zeros lie at the edge."""
        z = np.empty((len(cells), self.n_coordinates), dtype=np.float32)
        for start in range(0, len(cells), ROWS_PER_BLOCK):
            rows = slice(start, start + ROWS_PER_BLOCK)
            quantity = quantities(
                cells[rows],
                incident_energies(conditions[rows], self.incident),
                layer_of=self.layer_of,
                view_of=self.view_of,
            )[:, self.place >= 0]
            scale = to_scale(quantity, self.has_logit)
            for j, knots in enumerate(self.knots):
                grid = np.linspace(self.z_min[j], self.z_max[j], N_KNOTS)
                z[rows, j] = np.interp(scale[:, j], knots, grid)
            z[rows] = np.where(np.isneginf(scale), self.edge, z[rows])
        return z

    def is_zero(self, z: FloatArray) -> FloatArray:
        """Return which coordinates (n, n_coordinates) stand for a zero."""
        return np.asarray(z <= self.edge, dtype=np.bool_)

    def rows(
        self, part: Part, *, seed: int = 0
    ) -> tuple[BoolArray, dict[str, np.ndarray]]:
        """Return all rows; what is not "free" lies at its edge."""
        if part.weights.min() < 0:
            raise TrainingError(
                "a shower has a negative weight, expected none: their families need a "
                "likelihood"
            )
        y = self.forward(part.targets, part.conditions)
        return np.ones(len(y), dtype=np.bool_), {
            "y": y,
            "pattern": np.zeros(len(y), dtype=np.int32),
            "free": np.logical_not(self.is_zero(y)).astype(np.float32),
        }

    def shape(self, sample: Sample, *, n_conditions: int) -> Shape:
        image: tuple[int, ...] = ()
        views = sample.cells.layout.views if sample.cells else ()
        shapes = [view.grid_shape for view in views if view.has_plane]
        n_cells = self.n_coordinates - self.n_energies
        if len(shapes) == 1 and math.prod(shapes[0]) == n_cells:
            image = shapes[0]
        return Shape(
            n_conditions=n_conditions,
            n_patterns=0,
            n_targets=self.n_coordinates,
            n_energies=self.n_energies,
            image=image,
            transform=self,
            geometry=sample.cells.layout if sample.cells else None,
        )

    def inverse(self, z: Array, codes: Array | None, conditions: Array) -> Array:
        """Map coordinates to cells, see `Targets.inverse`.

        The rows are on the last axis: looking up a column then copies one piece of
        memory.
        """
        z = f.turn(z)
        quantity = self.quantities(z)
        margin = z - self.edge[:, None]
        zero = f.at_most(margin, 0.0)
        alone = (self.group == ALONE)[:, None]
        if not alone.all():
            # The share nearest to its edge stays where all would be zero.
            largest = f.largest(f.pick(margin, self.members))
            smaller = f.less(margin, f.pick(largest, np.maximum(self.group, 0)))
            zero = f.both(zero, f.either(smaller, alone))
        quantity = f.where(zero, 0.0, quantity)
        if not alone.all():
            quantity = quantity / self.sums(quantity)
        cells = self.products(quantity)
        if self.incident >= 0:
            cells = cells * f.turn(f.take(conditions, [self.incident], axis=1))
        kept = f.at_least(cells, self.threshold)
        return f.turn(f.where(kept, cells, 0.0))

    def quantities(self, z: Array) -> Array:
        """Return quantities of coordinates (n_coordinates, n), as if none were zero."""
        position = (z - self.z_min[:, None]) * self.steps[:, None]
        start = np.arange(self.n_coordinates)[:, None] * N_KNOTS
        value = interpolate(self.knots, position, start)
        if not self.has_logit.any():
            return f.exp(value)
        return f.where(self.has_logit[:, None], f.sigmoid(value), f.exp(value))

    def sums(self, quantity: Array) -> Array:
        """Return what quantities (n_coordinates, n) are divided by: sums of groups."""
        sums = f.product(self.indicator, f.product(self.indicator.T, quantity))
        return sums + f.like(quantity, (self.group == ALONE)[:, None])

    def products(self, quantity: Array) -> Array:
        """Return cells (n_cells, n) over the incident energy, products of shares."""
        n = self.n_coordinates
        found = []
        for factor in self.factors:
            # 1 and 0, beyond the coordinates, are put in place after the lookup.
            values = f.pick(quantity, factor % n)
            if (factor >= n).any():
                constant = f.like(quantity, (factor == n)[:, None])
                values = f.where((factor < n)[:, None], values, constant)
            found.append(values)
        return math.prod(found[1:], start=found[0])

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {f"cells_{k}": np.asarray(v) for k, v in vars(self).items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "CellTransform":
        names = [field.name for field in dataclasses.fields(CellTransform)]
        found: dict[str, Any] = {name: arrays[f"cells_{name}"] for name in names}
        scalars = {name: v.item() for name, v in found.items() if v.ndim == 0}
        return CellTransform(**(found | scalars))

    @property
    def has_logit(self) -> BoolArray:
        """(n_coordinates,), whether a quantity is seen through its logit."""
        return np.asarray((self.group != ALONE) & self.logit)


def mirror_images(sample: Sample, part: Part) -> Part:
    """Return showers with their mirror images, where the sample has a symmetry."""
    cells = sample.cells
    if cells is None or cells.symmetry is None:
        return part
    names = sample.condition_names
    targets, conditions = mirror_showers(
        part.targets,
        part.conditions,
        cells.layout,
        mirrors=cells.symmetry.mirrors,
        columns={k: names.index(v) for k, v in cells.symmetry.columns.items()},
    )
    times = len(targets) // max(1, len(part.targets))
    return Part(
        conditions=conditions,
        targets=targets,
        weights=np.tile(part.weights, times),
        alternatives=np.tile(part.alternatives, (times, 1)),
    )


def groups(layer_of: IntArray, view_of: IntArray) -> IntArray:
    """Return the group of each quantity: `ALONE`, then views, then layers."""
    n_views = int(view_of.max()) + 1
    return np.concatenate([[ALONE], view_of, n_views + layer_of])


def incident_energies(conditions: FloatArray, number: int) -> FloatArray:
    """Return the incident energies (n, 1), or 1."""
    if number < 0:
        return np.ones((len(conditions), 1))
    return conditions[:, [number]].astype(np.float64)


def quantities(
    cells: FloatArray, incident: FloatArray, *, layer_of: IntArray, view_of: IntArray
) -> FloatArray:
    """Return all quantities (n, n_quantities), double precision."""
    e = cells.astype(np.float64)
    if not len(layer_of):
        return np.asarray(e / incident)
    starts = np.flatnonzero(np.diff(layer_of, prepend=-1))
    layers = np.add.reduceat(e, starts, axis=1)
    first_layers = np.flatnonzero(np.diff(view_of, prepend=-1))
    views = np.add.reduceat(layers, first_layers, axis=1)
    # A share is 0 where there is nothing to divide.
    shares = [
        part / np.where(whole > 0, whole, 1)
        for part, whole in ((layers, views[:, view_of]), (e, layers[:, layer_of]))
    ]
    return np.concatenate([views[:, :1] / incident, *shares], axis=1)


def to_scale(quantity: FloatArray, has_logit: BoolArray) -> FloatArray:
    """Return logarithms, or logits where asked for; -inf for zero."""
    positive = quantity > SMALLEST
    safe = np.where(positive, quantity, 1.0)
    bounded = np.clip(safe, SMALLEST, 1 - LOGIT_BOUND)
    scale = np.where(has_logit, scipy.special.logit(bounded), np.log(safe))
    return np.asarray(np.where(positive, scale, -np.inf))
