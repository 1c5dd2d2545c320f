"""Targets that are clusters along a track: distances to a helix, and what is found."""

import dataclasses
from typing import ClassVar

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.errors import TrainingError
from pidgan.sample.clusters import HELIX
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.training.backend import tf
from pidgan.training.networks.helix import Frame
from pidgan.training.networks.perceptrons import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterTransform:
    """Positions of clusters as distances to the helix of the conditions.

    The coordinates are those of all rows together: the distances along the pads in mm,
    then those in z in mm, then the flags, which are positive where a cluster is found.
    """

    has_signed_weights: ClassVar[bool] = False
    has_flatter_rows: ClassVar[bool] = False
    n_patterns: ClassVar[int] = 1

    frame: Frame
    helix: tuple[int, ...]  # condition of each parameter of the helix

    @property
    def n_targets(self) -> int:
        return 3 * len(self.frame.radii)

    @property
    def n_coordinates(self) -> int:
        return self.n_targets

    @property
    def free(self) -> FloatArray:
        return np.ones((1, self.n_coordinates), dtype=np.float32)

    def rows(
        self, part: Part, *, seed: int = 0
    ) -> tuple[BoolArray, dict[str, np.ndarray]]:
        """Return all tracks; the distances of lost clusters are 0 and not free."""
        if part.weights.min() < 0:
            raise TrainingError(
                "a track has a negative weight, expected none: clusters need a "
                "likelihood"
            )
        conditions = part.conditions[:, list(self.helix)]
        apart, found = self.frame.residuals(part.targets, conditions)
        n = len(found)
        y = np.concatenate([apart[:, :, 0], apart[:, :, 1], found - 0.5], axis=1)
        free = np.concatenate([found, found, np.ones_like(found)], axis=1)
        rows = {"y": y.astype(np.float32), "free": free.astype(np.float32)}
        return np.ones(n, dtype=np.bool_), rows | {"pattern": np.zeros(n, np.int32)}

    def shape(self, sample: Sample, *, n_conditions: int) -> Shape:
        return Shape(
            n_conditions=n_conditions,
            n_patterns=0,
            n_targets=self.n_coordinates,
            transform=self,
        )

    def inverse(self, y: Array, codes: Array | None, conditions: Array) -> Array:
        """Put clusters beside the helix: (n, n_targets), mm or the sentinel."""
        if isinstance(y, np.ndarray):
            # Sines of tensorflow are rounded as those of ONNX Runtime; those of numpy
            # would move a cluster by half a micron.
            x = tf.constant(conditions, dtype=tf.float32)
            return np.asarray(self.inverse(tf.constant(y), codes, x))
        n = len(self.frame.radii)
        x = f.with_precision(conditions, double=False)
        rows = self.frame.cross(f.take(x, np.asarray(self.helix), axis=1))
        names = ("along", "z", "flag")
        clusters = {
            name: f.columns(y, k * n, (k + 1) * n) for k, name in enumerate(names)
        }
        return self.frame.place(rows, clusters)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return nothing: the definition of the sample says it all."""
        return {}


def cluster_transform(sample: Sample) -> ClusterTransform:
    """Return the transform of a sample of clusters; nothing of it is fitted."""
    clusters = sample.clusters
    if clusters is None:
        raise TrainingError(f"sample {sample.name!r} has no clusters")
    frame = Frame(
        radii=clusters.radii,
        field=clusters.field,
        n_sectors=clusters.sectors,
        drift_length=clusters.drift_length,
    )
    index = [sample.condition_names.index(clusters.helix[name]) for name in HELIX]
    return ClusterTransform(frame=frame, helix=tuple(index))
