"""Coordinates of clusters along a helix: what is left of a position beside the track.

A track of known parameters crosses a pad row at a place that needs no learning. What a
generator learns of a cluster is its distance to that place along the pads and in z, in
mm; the radius is the row's.
"""

import dataclasses

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.errors import PidganError
from pidgan.sample.clusters import SENTINEL
from pidgan.training.backend import tf

FEATURES = 3
"""Numbers that `Frame.features` says of a row."""

MAX_OFF = 1.0
"""Largest distance of a cluster to the radius of its row, mm."""

LIGHT = 0.299792458
"""Curvature in 1/mm of 1 MeV in 1 T."""

BORDER_SCALE = 20.0
"""mm to the border of a sector that networks see as one; beyond three it is far."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """A chamber of pad rows in a field along z.

    Attributes:
        radii: Radii of the rows, mm.
        field: Magnetic field, T.
        n_sectors: Number of sectors in azimuth; a border lies at azimuth 0.
        drift_length: Largest |z|, mm.
    """

    radii: tuple[float, ...]
    field: float
    n_sectors: int
    drift_length: float

    def cross(self, helix: Array) -> dict[str, Array]:
        """Return where helices (n, 5), see `HELIX`, cross the rows: (n, n_rows) each.

        The sine of half of the turning angle is h = 0.2998 B r / 2 pt; the azimuth is
        phi - charge arcsin h and z = z0 + 2 R dip arcsin h, with R = r / 2h. The slope
        is the tangent of the angle to the radius in the plane of the pads.
        """
        pt, dip, phi, z, charge = (f.columns(helix, k, k + 1) for k in range(5))
        sine = f.like(pt, 0.5 * LIGHT * self.field * self._radii) / pt
        angle = f.arcsin(sine)
        cosine = f.sqrt(1.0 - sine * sine)
        diameter = pt * (2.0 / (LIGHT * self.field))
        return {
            "azimuth": phi - charge * angle,
            "z": z + diameter * dip * angle,
            "slope": 0.0 - charge * sine / cosine,
        }

    def features(self, rows: dict[str, Array]) -> Array:
        """Return distance to the border, slope and drift of what `cross` returned.

        They are (n, `FEATURES` n_rows), one feature of all rows after another.
        """
        width = 2.0 * np.pi / self.n_sectors
        sector = rows["azimuth"] * (1.0 / width)
        apart = f.absolute(sector - f.floor(sector + 0.5))
        arc = f.like(sector, width * self._radii / BORDER_SCALE)
        border = f.minimum(apart * arc, 3.0)
        drift = f.absolute(rows["z"]) * (1.0 / self.drift_length)
        return f.concatenate([border, rows["slope"], drift])

    def place(self, rows: dict[str, Array], clusters: dict[str, Array]) -> Array:
        """Return x, y and z of row after row (n, 3 n_rows), mm, or the sentinel.

        Clusters have distances "along" the pads and in "z", mm, to what `cross`
        returned, and a "flag", positive where one is found: (n, n_rows) each.
        """
        along, n = clusters["along"], len(self.radii)
        azimuth = rows["azimuth"] + along * f.like(along, 1.0 / self._radii)
        radii = f.like(along, self._radii)
        planes = (
            f.cos(azimuth) * radii,
            f.sin(azimuth) * radii,
            rows["z"] + clusters["z"],
        )
        is_found = f.greater(clusters["flag"], 0.0)
        placed = f.concatenate([f.where(is_found, v, SENTINEL) for v in planes])
        return f.take(placed, np.arange(3 * n).reshape(3, n).T.ravel())

    @property
    def _radii(self) -> FloatArray:
        return np.asarray(self.radii)[None]

    def residuals(
        self, positions: FloatArray, helix: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return distances (n, n_rows, 2) and flags that `place` turns into positions.

        Distances are along the pads and in z, mm, 0 without a cluster; helix has five
        columns. A PidganError tells of clusters that do not lie in their row, or whose
        track does not reach it.
        """
        rows = self.cross(tf.constant(np.asarray(helix, dtype=np.float32)))
        x, y, z = np.moveaxis(positions.reshape(len(positions), -1, 3), 2, 0)
        found = x != SENTINEL
        off = np.where(found, np.abs(np.hypot(x, y) - self.radii), 0.0)
        if off.max() > MAX_OFF:
            worst = np.unravel_index(off.argmax(), off.shape)
            raise PidganError(
                f"the cluster of track {worst[0]} in row {worst[1]} is "
                f"{off.max():.3g} mm off the row, expected x, y and z in mm"
            )
        turned = np.arctan2(y, x) - rows["azimuth"].numpy()
        turned -= 2.0 * np.pi * np.round(turned / (2.0 * np.pi))
        apart = np.stack([turned * self.radii, z - rows["z"].numpy()], axis=2)
        apart = np.where(found[:, :, None], apart, 0.0)
        if not np.isfinite(apart).all():
            raise PidganError("tracks have clusters in rows that they do not reach")
        return apart.astype(np.float32), found.astype(np.float32)
