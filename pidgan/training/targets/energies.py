"""Targets that are energies of cells, as they are: a family makes them itself.

What a family has to know of the training rows besides comes with them: edges of bins of
energies, the energy that is next to nothing, and the axis of showers. It is a line

    (x, y)(z) = A phi + B phi z,   phi = 1, conditions and their products in pairs,

that goes through the centres of energy of the layers, so that impact point and angles
need no names.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.errors import TrainingError
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.training.networks.perceptrons import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellEnergies:
    """Energies of the cells of one view, and what is known of them from the rows."""

    has_signed_weights: ClassVar[bool] = False
    has_flatter_rows: ClassVar[bool] = False
    n_patterns: ClassVar[int] = 1

    n_cells: int
    threshold: float  # a cell is zero below
    incident: IntArray  # column that tells the incident energy, and 1 if logarithmic
    unit: FloatArray  # its centre and its scale
    told: IntArray  # columns of the conditions that cells see as they are
    least: FloatArray  # energies next to nothing, of cells and of layers
    cell_edges: FloatArray  # of bins of ln(energy)
    layer_edges: FloatArray
    total_edges: FloatArray  # of ln(total / incident energy)
    axis: FloatArray  # (2, n_phi, 2), A and B
    depth: FloatArray  # (n_layers,), z in which the axis is linear

    @property
    def n_targets(self) -> int:
        return self.n_cells

    @property
    def n_coordinates(self) -> int:
        return self.n_cells

    @property
    def free(self) -> FloatArray:
        return np.ones((1, self.n_cells), dtype=np.float32)

    def rows(
        self, part: Part, *, seed: int = 0
    ) -> tuple[BoolArray, dict[str, np.ndarray]]:
        """Return all rows; the coordinates are the energies themselves."""
        if part.weights.min() < 0:
            raise TrainingError(
                "a shower has a negative weight, expected none: their families need a "
                "likelihood"
            )
        n = len(part.weights)
        return np.ones(n, dtype=np.bool_), {
            "y": np.asarray(part.targets, dtype=np.float32),
            "pattern": np.zeros(n, dtype=np.int32),
            "free": np.zeros((n, 0), dtype=np.float32),
        }

    def shape(self, sample: Sample, *, n_conditions: int) -> Shape:
        return Shape(
            n_conditions=n_conditions,
            n_patterns=0,
            n_targets=self.n_cells,
            transform=self,
            geometry=sample.cells.layout if sample.cells else None,
        )

    def inverse(self, y: Array, codes: Array | None, conditions: Array) -> Array:
        """Return the energies, zero below the threshold."""
        return f.where(f.at_least(y, np.float32(self.threshold)), y, 0.0)

    def log_incident(self, x: Array) -> Array:
        """Return ln of the incident energy, (1, n), of conditions (n_columns, n).

        It is 0 without an incident energy.
        """
        column, is_log = self.incident.tolist()
        centre, scale = self.unit.tolist()
        value = f.pick(x, [max(column, 0)])
        if column < 0:
            return value * 0.0
        if is_log:
            return value * scale + float(np.log(centre))
        return f.log(f.maximum(value * scale + centre, 1e-30))

    def axis_of(self, x: Array) -> tuple[Array, Array]:
        """Return position at z = 0 and slope of the axis, (2, n) each."""
        phi = functions(x)
        return f.product(self.axis[0].T, phi), f.product(self.axis[1].T, phi)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {f"energies_{k}": np.asarray(v) for k, v in vars(self).items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "CellEnergies":
        names = [field.name for field in dataclasses.fields(CellEnergies)]
        found: dict[str, Any] = {name: arrays[f"energies_{name}"] for name in names}
        scalars = {name: v.item() for name, v in found.items() if v.ndim == 0}
        return CellEnergies(**(found | scalars))


def functions(x: Array) -> Array:
    """Return phi, (n_phi, n), of conditions (n_columns, n)."""
    n = x.shape[0]
    one, two = np.triu_indices(n, k=1)
    parts = [f.pick(x, [0]) * 0.0 + 1.0, x]
    if n > 1:
        parts.append(f.pick(x, one) * f.pick(x, two))
    return f.stack(parts)
