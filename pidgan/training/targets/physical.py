"""Targets that a generator makes as they are, in physical units."""

import dataclasses
from typing import ClassVar

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.bundle.formulas import Array
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.training.networks.perceptrons import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhysicalTransform:
    """Targets that a generator makes as they are, in physical units.

    Attributes:
        n_targets: how many.
    """

    has_signed_weights: ClassVar[bool] = False
    has_flatter_rows: ClassVar[bool] = False

    n_targets: int

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates that a generator makes of a row."""
        return self.n_targets

    @property
    def free(self) -> FloatArray:
        """(1, n_coordinates), ones."""
        return np.ones((1, self.n_targets), dtype=np.float32)

    def rows(self, part: Part) -> tuple[BoolArray, dict[str, np.ndarray]]:
        """Return all rows as they are."""
        n = len(part.targets)
        y = part.targets.astype(np.float32)
        return np.ones(n, dtype=np.bool_), {"y": y, "pattern": np.zeros(n, np.int32)}

    def shape(self, sample: Sample, *, n_conditions: int) -> Shape:
        """Return the sizes of the arrays that the networks of a model exchange."""
        return Shape(n_conditions=n_conditions, n_patterns=0, n_targets=self.n_targets)

    @property
    def n_patterns(self) -> int:
        """Number of patterns of atoms and ties."""
        return 1

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as arrays."""
        return {"physical_targets": np.asarray(self.n_targets)}

    def inverse(self, y: Array, codes: Array | None, conditions: Array) -> Array:
        """Return what a generator makes, (n, n_targets)."""
        return y
