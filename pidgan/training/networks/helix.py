"""Coordinates of clusters along a helix: what is left of a position beside the track.

A track of known parameters crosses a pad row at a place that needs no learning. What a
generator learns of a cluster is its distance to that place along the pads and in z, in
mm; the radius is the row's. The formulas are written once, in the operators of ONNX,
and computed either by tensorflow or by the exported graph.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.errors import PidganError
from pidgan.training.backend import tf

COLUMNS = ("pt", "dip", "phi", "z", "charge")
"""Parameters of a helix that starts on the beam axis: transverse momentum in MeV,
tangent of the dip angle, azimuth in rad, z in mm, and charge."""

FEATURES = 3
"""Numbers that `Frame.features` says of a row."""

SENTINEL = -9999.0
"""All three coordinates of a row without a cluster."""

MAX_OFF = 1.0
"""Largest distance of a cluster to the radius of its row, mm."""

LIGHT = 0.299792458
"""Curvature in 1/mm of 1 MeV in 1 T."""

BORDER_SCALE = 20.0
"""mm to the border of a sector that networks see as one; beyond three it is far."""


class Tensors:
    """The operators of `nodes.Graph`, computed at once by tensorflow."""

    OPERATORS: ClassVar[dict[str, Any]] = {
        "Abs": tf.abs,
        "Add": tf.add,
        "Asin": tf.asin,
        "Cos": tf.cos,
        "Div": tf.divide,
        "Erf": tf.math.erf,
        "Exp": tf.exp,
        "Floor": tf.floor,
        "Greater": tf.greater,
        "Min": tf.minimum,
        "Mul": tf.multiply,
        "Sigmoid": tf.sigmoid,
        "Sin": tf.sin,
        "Sqrt": tf.sqrt,
        "Sub": tf.subtract,
        "Tanh": tf.tanh,
        "Where": tf.where,
    }

    def add(self, operator: str, *inputs: Any, axis: int = 1) -> Any:
        """Return the result of an operator."""
        if operator == "Concat":
            return tf.concat(inputs, axis=axis)
        if operator == "Gather":
            return tf.gather(*inputs, axis=axis)
        return self.OPERATORS[operator](*inputs)

    def constant(self, value: Any) -> Any:
        """Return a constant, float32."""
        return tf.constant(np.asarray(value, dtype=np.float32))

    def ints(self, value: Any) -> Any:
        """Return a constant of int64."""
        return tf.constant(np.asarray(value, dtype=np.int64))

    def columns(self, value: Any, start: int, stop: int) -> Any:
        """Return the columns from start to stop of a matrix."""
        return value[:, start:stop]

    def network(self, network: Any, inputs: dict[str, Any]) -> Any:
        """Return the output of a keras network."""
        return network(inputs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """A chamber of pad rows in a field along z.

    Attributes:
        radii: of the rows, mm.
        field: T.
        n_sectors: in azimuth; a border lies at azimuth 0.
        drift_length: largest |z|, mm.
    """

    radii: tuple[float, ...]
    field: float
    n_sectors: int
    drift_length: float

    def cross(self, graph: Any, helix: Any) -> dict[str, Any]:
        """Find where helices cross the rows.

        With h = 0.2998 B r / 2 pt the sine of half of the turning angle, the azimuth is
        phi - charge arcsin h and z = z0 + 2 R dip arcsin h, with R = r / 2h.

        Args:
            graph: `Tensors` or an ONNX graph.
            helix: (n, 5), the parameters of `COLUMNS`.

        Returns:
            "azimuth" in rad, "z" in mm, and "slope", the tangent of the angle to the
            radius in the plane of the pads: (n, n_rows) each.
        """
        add, number = graph.add, graph.constant
        pt, dip, phi, z, charge = (graph.columns(helix, k, k + 1) for k in range(5))
        half_radii = 0.5 * LIGHT * self.field * np.asarray(self.radii)[None]
        sine = add("Div", number(half_radii), pt)
        angle = add("Asin", sine)
        cosine = add("Sqrt", add("Sub", number(1.0), add("Mul", sine, sine)))
        bent = add("Mul", charge, angle)
        diameter = add("Mul", pt, number(2.0 / (LIGHT * self.field)))
        rise = add("Mul", add("Mul", diameter, dip), angle)
        tangent = add("Div", add("Mul", charge, sine), cosine)
        return {
            "azimuth": add("Sub", phi, bent),
            "z": add("Add", z, rise),
            "slope": add("Sub", number(0.0), tangent),
        }

    def features(self, graph: Any, rows: dict[str, Any]) -> Any:
        """Say what matters to a cluster: distance to the border, slope, drift.

        Args:
            graph: as in `cross`.
            rows: from `cross`.

        Returns:
            (n, `FEATURES` n_rows), one feature of all rows after another.
        """
        add, number = graph.add, graph.constant
        width = 2.0 * np.pi / self.n_sectors
        sector = add("Mul", rows["azimuth"], number(1.0 / width))
        nearest = add("Floor", add("Add", sector, number(0.5)))
        apart = add("Abs", add("Sub", sector, nearest))
        arc = width * np.asarray(self.radii)[None] / BORDER_SCALE
        border = add("Min", add("Mul", apart, number(arc)), number(3.0))
        drift = add("Mul", add("Abs", rows["z"]), number(1.0 / self.drift_length))
        return add("Concat", border, rows["slope"], drift, axis=1)

    def place(self, graph: Any, rows: dict[str, Any], clusters: dict[str, Any]) -> Any:
        """Put clusters beside the helix.

        Args:
            graph: as in `cross`.
            rows: from `cross`.
            clusters: distances "along" the pads and in "z", mm, and "flag", positive
                where a cluster is found: (n, n_rows) each.

        Returns:
            (n, 3 n_rows), x, y and z of row after row in mm, or the sentinel.
        """
        add, number = graph.add, graph.constant
        radii = np.asarray(self.radii)[None]
        turned = add("Mul", clusters["along"], number(1.0 / radii))
        azimuth = add("Add", rows["azimuth"], turned)
        is_found = add("Greater", clusters["flag"], number(0.0))
        sentinel = number(SENTINEL)
        planes = [
            add("Where", is_found, plane, sentinel)
            for plane in (
                add("Mul", add("Cos", azimuth), number(radii)),
                add("Mul", add("Sin", azimuth), number(radii)),
                add("Add", rows["z"], clusters["z"]),
            )
        ]
        n = len(self.radii)
        order = np.arange(3 * n).reshape(3, n).T.ravel()
        return add("Gather", add("Concat", *planes, axis=1), graph.ints(order), axis=1)

    def residuals(
        self, positions: FloatArray, helix: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return distances and flags that `place` turns into given positions.

        Args:
            positions: (n, 3 n_rows), mm.
            helix: (n, 5).

        Returns:
            (n, n_rows, 2), distance along the pads and in z, mm, and (n, n_rows), 1
            where there is a cluster; where there is none, both distances are 0.

        Raises:
            PidganError: a cluster does not lie in its row, or its track does not reach
                the row.
        """
        rows = self.cross(Tensors(), tf.constant(np.asarray(helix, dtype=np.float32)))
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
