"""Kinds of target: maps between physical columns and the coordinates of networks.

- `tracks`: PID variables of a track, with atoms and ties; `structure` finds these and
  `track_fits` fits what is continuous; `tracks_forward` maps them as a formula.
- `sums`: variables of a track that are sums of earlier ones and a rest.
- `grids`: variables of a track on a grid, and in order; `grid_fits` finds these.
- `cells`: energies of the cells of a calorimeter; `cell_fits` fits their quantiles.
- `energies`: energies of the cells of a calorimeter, as they are; `energy_fits` fits
  what else is known of them.
- `clusters`: positions of clusters along the helix of a track.

Everything else in the training world knows the protocol `Targets` only. Which kind a
sample has is decided by `families.kind_of`, and by the functions here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.bundle.card import CardVariable, describe_variables
from pidgan.bundle.formulas import Array
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.targets.cell_fits import fit_cells
from pidgan.training.targets.cells import CellTransform, mirror_images
from pidgan.training.targets.clusters import cluster_transform
from pidgan.training.targets.energies import CellEnergies
from pidgan.training.targets.grid_fits import Stated
from pidgan.training.targets.sums import find_sums
from pidgan.training.targets.track_fits import (
    fit_columns,
    fit_tracks,
    widen_tracks,
)
from pidgan.training.targets.tracks import TargetTransform


class Targets(Protocol):
    """A fitted map between targets in physical units and what networks make.

    Attributes:
        has_signed_weights: Whether rows may have negative weights, for which a
            likelihood needs E[w | x, y].
        has_flatter_rows: Whether rows that are rare in the conditions are drawn more
            often than they come.
    """

    has_signed_weights: ClassVar[bool]
    has_flatter_rows: ClassVar[bool]

    @property
    def n_targets(self) -> int:
        """Number of targets in physical units."""

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates that a generator makes of a row."""

    @property
    def n_patterns(self) -> int:
        """Number of patterns of discrete structure; 1 where there is none."""

    @property
    def free(self) -> FloatArray:
        """(n_patterns, n_coordinates), 1 where a coordinate has a density."""

    def rows(self, part: Part, *, seed: int) -> tuple[BoolArray, dict[str, np.ndarray]]:
        """Return which rows of a part fit the structure, (n,), and arrays of these.

        These are the coordinates "y" (m, n_coordinates), the number of the "pattern"
        (m,) and, where the pattern does not say it, what is "free". The seed is that of
        random numbers, where a kind needs any. A kind that cannot have such weights
        raises a TrainingError.
        """

    def shape(self, sample: Sample, *, n_conditions: int) -> Shape:
        """Return the sizes of the arrays that the networks of a model exchange."""

    def inverse(self, y: Array, codes: Array | None, conditions: Array) -> Array:
        """Map coordinates y (n, n_coordinates) to targets (n, n_targets), as a formula.

        `codes` is the one-hot code (n, n_patterns) of each pattern, None if there is
        one; conditions are in package units.
        """

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as arrays, for `read_targets`."""


def plain_conditions(sample: Sample) -> tuple[int, ...]:
    """Return the conditions that networks also see as they are: those of a helix."""
    return () if sample.clusters is None else cluster_transform(sample).helix


def fit_targets(
    sample: Sample, part: Part, *, plain: bool = False, log_scale: bool = False
) -> Targets:
    """Fit the targets of a sample, on training rows only.

    With `plain`, targets of a track are seen through their quantiles and nothing else;
    with `log_scale`, energies of cells are logarithms in a common unit.
    """
    cells = sample.cells
    if sample.clusters is not None:
        return cluster_transform(sample)
    if cells is None:
        # Categories are a closed list, on a grid or not.
        steps = [None if v.categories else v.grid_step for v in sample.targets]
        stated = Stated(steps=steps, at_most=sample.orders)
        if plain:
            return fit_columns(part.targets, part.weights, stated=stated)
        sentinels = [(*v.sentinels, *v.categories) for v in sample.targets]
        sums, own = find_sums(sample, part), part.targets
        if sums is not None:
            own = sums.rest(own, part.conditions)
        found = fit_tracks(own, part.weights, sentinels=sentinels, stated=stated)
        return dataclasses.replace(found, sums=sums)
    names = sample.condition_names
    incident = -1 if cells.incident is None else names.index(cells.incident)
    return fit_cells(
        part.targets,
        part.conditions,
        cells.layout,
        incident=incident,
        scheme=cells.scheme,
        scale=cells.scale,
        threshold=cells.threshold,
        lines=log_scale,
    )


def widened(known: TargetTransform, part: Part) -> TargetTransform:
    """Return known targets of tracks, with quantiles that reach to the last rows."""
    own = part.targets
    if known.sums is not None:
        own = known.sums.rest(own, part.conditions)
    return widen_tracks(known, own)


def are_alike(one: Targets, other: Targets) -> bool:
    """Return whether the coordinates of two samples are those of the same targets."""
    mine, others = one.to_arrays(), other.to_arrays()
    if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in others.items()}:
        return False
    if isinstance(one, CellTransform) and isinstance(other, CellTransform):
        return np.array_equal(one.place, other.place)
    return True


def fit_common_targets(sample: Sample, part: Part) -> TargetTransform:
    """Fit the targets of a track to rows of several samples, for `tracks_forward`.

    There are no sums, and no target is divided at its quantiles: a row that moved from
    one part to another would lose its rank. The first target is no difference, so that
    it keeps its rank itself.
    """
    steps = [None if v.categories else v.grid_step for v in sample.targets]
    return fit_tracks(
        part.targets,
        part.weights,
        sentinels=[(*v.sentinels, *v.categories) for v in sample.targets],
        stated=Stated(steps=steps, at_most=sample.orders),
        divided=False,
        from_first=True,
    )


def read_targets(sample: Sample, arrays: Mapping[str, Any]) -> Targets:
    """Rebuild the targets of a sample from the arrays of `Targets.to_arrays`."""
    if sample.clusters is not None:
        return cluster_transform(sample)
    if sample.cells is None:
        return TargetTransform.from_arrays(arrays)
    if "energies_n_cells" in arrays:
        return CellEnergies.from_arrays(arrays)
    return CellTransform.from_arrays(arrays)


def describe_targets(
    sample: Sample, targets: Targets, columns: FloatArray
) -> tuple[CardVariable, ...]:
    """Return descriptions of targets (n, n_targets), with all that was found of them.

    Of the variables of a track these are atoms, the step of a grid, and orders.
    """
    described = describe_variables(sample.targets, columns)
    if not isinstance(targets, TargetTransform):
        return described
    found: list[dict[str, Any]] = [
        {"atoms": tuple(map(float, atoms))} for atoms in targets.exact_values()
    ]
    layer = targets.grids
    if layer is not None:
        orders = layer.order_texts(sample.target_names)
        for j, update in enumerate(found):
            step, offset = float(layer.step[j]), float(layer.offset[j])
            if step:
                whole = step.is_integer() and offset.is_integer()
                update |= {"integer": whole, "step": step}
            update["orders"] = orders[j]
    both = zip(described, found, strict=True)
    return tuple(one.model_copy(update=update) for one, update in both)


def with_images(sample: Sample, part: Part) -> Part:
    """Return training rows with their mirror images, where the sample has any."""
    return part if sample.cells is None else mirror_images(sample, part)
