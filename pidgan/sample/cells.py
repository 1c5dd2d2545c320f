"""The cells of a calorimeter: the targets of a calibration sample of showers."""

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, model_validator

from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.errors import SampleError
from pidgan.sample.variables import FROZEN, PACKAGE_UNITS, WEIGHT, Unit, Variable

#: No cell ever holds more energy, in package units.
_MOST_ENERGY = 1e12


class Symmetry(BaseModel):
    """Mirrors that leave a calorimeter unchanged, to learn from mirror images too.

    "x" and "y" change the sign of a coordinate, "swap" exchanges the two. `x`, `y` and
    `phi` name the conditions that hold the position and the azimuth of the particle.
    """

    model_config = FROZEN

    mirrors: Annotated[tuple[Literal["x", "y", "swap"], ...], Field(min_length=1)]
    x: str | None = None
    y: str | None = None
    phi: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Condition by coordinate: "x", "y" and "phi" where they are given."""
        given = {"x": self.x, "y": self.y, "phi": self.phi}
        return {key: name for key, name in given.items() if name is not None}


class Cells(BaseModel):
    """The energies of calorimeter cells, which are the targets of a shower sample.

        [cells]
        geometry = "block.toml"
        arrays = {cells = "cells_GeV", profile = "profile_GeV"}
        unit = "GeV"
        incident = "energy"

    `geometry` is a file beside the definition, or a table, for `load_geometry`.
    `arrays` has the branch of each view, an array of fixed size in each entry, or
    branches with a group of layers each, ["layer_0", "layer_1"], with energies in
    `unit`, "1" for counts of an ADC. `incident` names the condition with
    the incident energy. An energy below `threshold`, in package units, counts as zero.
    `scheme` says which quantities a generator learns, see
    `pidgan.training.targets.cells`: "layers" for the total energy, the shares of the
    layers and the shares of the cells in each layer; "cells" for every cell by itself.
    They are learnt on `scale`.
    """

    model_config = FROZEN

    geometry: dict[str, Any]
    arrays: dict[str, str | Annotated[tuple[str, ...], Field(min_length=1)]]
    unit: Unit = "MeV"
    incident: str | None = None
    threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    scheme: Literal["layers", "cells"] = "layers"
    scale: Literal["log", "logit"] = "log"
    symmetry: Symmetry | None = None

    @cached_property
    def layout(self) -> Geometry:
        """Geometry of the calorimeter, from its table."""
        return load_geometry(self.geometry)

    def variables(self) -> tuple[Variable, ...]:
        """Return one variable for each cell, named by view and index, as `cells_7`."""
        unit: Any = PACKAGE_UNITS.get(self.unit, self.unit)
        return tuple(
            Variable(name=f"{view.name}_{i}", unit=unit, range=(0.0, _MOST_ENERGY))
            for view in self.layout.views
            for i in range(view.n_cells)
        )

    def branches(self, view: str) -> tuple[str, ...]:
        """Return the branches with the cells of a view, in the order of its layers."""
        given = self.arrays[view]
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="before")
    @classmethod
    def _read_geometry(cls, content: Any, info: ValidationInfo) -> Any:
        """Replace the name of a geometry file by its content."""
        if not isinstance(content, dict) or "geometry" not in content:
            return content
        if not isinstance(content["geometry"], str | dict):
            raise ValueError(
                f"geometry is {str(content['geometry'])[:40]!r}, expected the name of "
                "a file or a table"
            )
        try:
            folder = (info.context or {}).get("folder", ".")
            geometry = load_geometry(content["geometry"], folder=folder)
        except SampleError as error:
            raise ValueError(str(error)) from None
        return content | {"geometry": geometry.to_dict()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        views = [view.name for view in self.layout.views]
        if WEIGHT in views:
            raise ValueError(
                f"a view is called {WEIGHT!r}, which is reserved for weights of rows"
            )
        if sorted(self.arrays) != sorted(views):
            raise ValueError(
                f"arrays are given for {', '.join(self.arrays) or 'no view'}, expected "
                f"one for each view of the geometry: {', '.join(views)}"
            )
        return self
