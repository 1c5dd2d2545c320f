"""Clusters of a track in pad rows: the targets of a time projection chamber."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pidgan.sample.variables import FROZEN, Variable

HELIX = ("pt", "dip", "phi", "z", "charge")
"""Parameters of a helix that starts on the beam axis: transverse momentum in MeV,
tangent of the dip angle, azimuth in rad, z in mm, and charge."""

SENTINEL = -9999.0
"""Value of all three coordinates in a row without a cluster."""

#: No cluster lies further from the centre of a chamber, mm.
_MOST_DISTANCE = 5000.0

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Clusters(BaseModel):
    """The pad rows of a chamber, with x, y and z of one cluster in each as targets.

        [clusters]
        radii = [852.25, 859.75, 867.25]
        field = 0.5
        sectors = 18
        drift_length = 2500.0
        helix = {pt = "PT", dip = "DIP", phi = "PHI", z = "Z", charge = "CHARGE"}

    The targets are called `x_0`, `y_0`, `z_0`, `x_1` and so on, with -9999 where the
    cluster of a row is lost.

    Attributes:
        radii: Radii of the rows, mm.
        field: Magnetic field along z, T.
        sectors: Number of sectors in azimuth; a border lies at azimuth 0.
        drift_length: Largest distance to the middle of the chamber along z, mm.
        helix: Condition that holds each parameter of the track, see `HELIX`.
        branches: Branch of each coordinate, to which "_0", "_1" and so on are appended.
    """

    model_config = FROZEN

    radii: Annotated[tuple[Positive, ...], Field(min_length=1)]
    field: Positive
    sectors: int = Field(ge=1)
    drift_length: Positive
    helix: dict[str, str]
    branches: dict[Literal["x", "y", "z"], str] = Field(default_factory=dict)

    def variables(self) -> tuple[Variable, ...]:
        """Return three variables for each row."""
        return tuple(
            Variable(
                name=f"{axis}_{row}",
                branch=f"{self.branches.get(axis, axis)}_{row}",
                unit="mm",
                range=(-_MOST_DISTANCE, _MOST_DISTANCE),
                sentinels=(SENTINEL,),
            )
            for row in range(len(self.radii))
            for axis in ("x", "y", "z")
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sorted(self.helix) != sorted(HELIX):
            raise ValueError(
                f"helix has {', '.join(self.helix) or 'nothing'}, expected a condition "
                f"for each of {', '.join(HELIX)}"
            )
        return self
