"""Geometries read from TOML files, XML files and tables.

Use an XML file of the CaloChallenge or of FastCaloGAN where one exists, and a TOML file
otherwise. A crystal block with a 12 x 12 image and a profile of 24 slices is

    name = "PbWO4 block"

    [[views]]
    name = "cells"
    layers = [{kind = "rectangular", nx = 12, ny = 12, cell = [22, 22]}]

    [[views]]
    name = "profile"
    layers = [{kind = "rectangular", cell = [264, 264], thickness = 10, count = 24}]

A calorimeter with one view has `[[layers]]` alone, without `[[views]]`. A layer has
these keys; lengths are in mm, and the default is in brackets:

- `kind` is "rectangular", "cylindrical" or "list"; `name` is the name of the layer; and
  `count` (1) repeats the layer along z.
- `z` is the position of the front face. Its default is the back of the layer before,
  and 0 for the first layer. Depths are unknown where no layer has a `thickness`.
- A rectangular layer has `x_edges` and `y_edges`, or `nx` (1) times `ny` (1) cells with
  size `cell` around `centre` ([0, 0]). Its `order` is "yx" (x runs fastest, rows have
  the same y) or "xy".
- A cylindrical layer has `n_alpha` (1) sectors that start at `alpha_start` (-pi), and
  `r_edges`, or `n_r` rings up to `r_max`. A regular mesh of (n_r, n_phi, n_z) cells is
  such a layer with `count` = n_z.
- A list has `centres`, one [x, y] for each cell, and either one `cell` size or `sizes`,
  one [dx, dy] for each cell.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from xml.etree import ElementTree

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry, Kind, Layer, View
from pidgan.errors import SampleError, nearest, repeated
from pidgan.files.documents import read_text, read_toml
from pidgan.files.recognition import refuse_other

# Largest number of cells. A file with more has a slip in it: the finest geometry of the
# CaloChallenge has 40,500 cells.
MAX_CELLS = 200_000
_KEYS = {
    "rectangular": {"x_edges", "y_edges", "nx", "ny", "cell", "centre", "order"},
    "cylindrical": {"r_edges", "n_r", "r_max", "n_alpha", "alpha_start"},
    "list": {"centres", "sizes", "cell"},
}


def load_geometry(
    source: str | Path | Mapping[str, Any],
    *,
    particle: str | None = None,
    folder: str | Path = ".",
) -> Geometry:
    """Load a geometry from a TOML file, an XML file or a table.

    XML files are those of the CaloChallenge and of FastCaloGAN. A table has the keys of
    a TOML file, or is {file = "b.xml", particle = "pion"} with the name or PDG code of
    a particle. A SampleError says what cannot be read or is wrong.
    """
    if isinstance(source, Mapping):
        if "file" not in source:
            return _from_table(dict(source), "geometry")
        extra = set(source) - {"file", "particle"}
        if extra:
            raise SampleError(
                f"geometry: keys {', '.join(sorted(map(repr, extra)))} beside 'file', "
                "expected 'file' and 'particle' alone"
            )
        chosen = source.get("particle")
        particle = particle if chosen is None else str(chosen)
        return load_geometry(str(source["file"]), particle=particle, folder=folder)
    if not isinstance(source, str | Path):
        kind = type(source).__name__
        raise SampleError(f"geometry is {kind}, expected a table or the path of a file")
    path = Path(folder, source)
    if path.suffix.lower() == ".xml":
        return _from_xml(read_text(path, error=SampleError), path, particle)
    if particle is not None:
        raise SampleError(f"{path}: particle {particle!r} is for XML files")
    refuse_other(path, "geometry", error=SampleError)
    table = read_toml(path, error=SampleError)
    return _from_table({"name": path.stem} | table, str(path))


Edges = Annotated[tuple[float, ...], Field(min_length=2)]
Pair = tuple[float, float]
_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _LayerTable(BaseModel):
    model_config = _FROZEN

    kind: Kind
    name: str | None = None
    count: int = Field(default=1, ge=1, le=10_000)
    z: float | None = None
    thickness: float | None = Field(default=None, gt=0)
    x_edges: Edges | None = None
    y_edges: Edges | None = None
    nx: int = Field(default=1, ge=1, le=MAX_CELLS)
    ny: int = Field(default=1, ge=1, le=MAX_CELLS)
    cell: Pair | None = None
    centre: Pair = (0.0, 0.0)
    order: Literal["yx", "xy"] = "yx"
    r_edges: Edges | None = None
    n_r: int | None = Field(default=None, ge=1, le=MAX_CELLS)
    r_max: float | None = Field(default=None, gt=0)
    n_alpha: int = Field(default=1, ge=1, le=MAX_CELLS)
    alpha_start: float = -math.pi
    centres: tuple[Pair, ...] | None = Field(default=None, min_length=1)
    sizes: tuple[Pair, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        common = {"kind", "name", "count", "z", "thickness"}
        for key in sorted(self.model_fields_set - common - _KEYS[self.kind]):
            raise ValueError(f"key {key!r} is not for kind {self.kind!r}")
        for key in ("x_edges", "y_edges", "r_edges"):
            edges = getattr(self, key)
            if edges is not None and not all(a < b for a, b in pairwise(edges)):
                raise ValueError(f"{key} do not rise")
        if self.cell is not None and min(self.cell) <= 0:
            raise ValueError(f"cell is {list(self.cell)}, expected sizes above 0")
        getattr(self, f"_check_{self.kind}")()
        return self

    def _check_rectangular(self) -> None:
        given = self.model_fields_set
        if self.x_edges and self.y_edges:
            for key in ("nx", "ny", "cell", "centre"):
                if key in given:
                    raise ValueError(f"key {key!r} beside x_edges and y_edges")
        elif self.x_edges or self.y_edges or self.cell is None:
            raise ValueError("expected x_edges and y_edges, or nx, ny and cell")

    def _check_cylindrical(self) -> None:
        regular = self.n_r is not None and self.r_max is not None
        half = (self.n_r is None) != (self.r_max is None)
        if half or regular == (self.r_edges is not None):
            raise ValueError("expected either r_edges, or n_r and r_max")
        if self.r_edges is not None and self.r_edges[0] < 0:
            raise ValueError(
                f"r_edges start at {self.r_edges[0]:g}, expected 0 or more"
            )

    def _check_list(self) -> None:
        if self.centres is None or (self.cell is None) == (self.sizes is None):
            raise ValueError("expected centres, and either cell or sizes")
        if self.sizes is not None:
            if len(self.sizes) != len(self.centres):
                raise ValueError(
                    f"{len(self.sizes)} sizes for {len(self.centres)} centres"
                )
            if min(map(min, self.sizes)) <= 0:
                raise ValueError("sizes, expected numbers above 0")

    def cells(self) -> dict[str, Any]:
        """Return the fields of `Layer` that describe its cells."""
        if self.kind == "list":
            positions = self.centres or ()
            extents = self.sizes or (self.cell,) * len(positions)
            return {"positions": positions, "extents": extents}
        if self.kind == "cylindrical":
            alpha = np.linspace(0, 2 * np.pi, self.n_alpha + 1) + self.alpha_start
            r = self.r_edges or np.linspace(0, self.r_max or 0, (self.n_r or 0) + 1)
            return {"slow": _floats(alpha), "fast": _floats(r)}
        dx, dy = self.cell or (0.0, 0.0)
        x = self.x_edges or dx * (np.arange(self.nx + 1) - self.nx / 2) + self.centre[0]
        y = self.y_edges or dy * (np.arange(self.ny + 1) - self.ny / 2) + self.centre[1]
        slow, fast = (y, x) if self.order == "yx" else (x, y)
        return {"slow": _floats(slow), "fast": _floats(fast), "order": self.order}


class _ViewTable(BaseModel):
    model_config = _FROZEN

    name: str = Field(min_length=1)
    layers: tuple[_LayerTable, ...] = Field(min_length=1)


class _GeometryTable(BaseModel):
    model_config = _FROZEN

    name: str = "calorimeter"
    views: tuple[_ViewTable, ...] = Field(min_length=1)


def _from_table(table: dict[str, Any], where: str) -> Geometry:
    if ("layers" in table) == ("views" in table):
        raise SampleError(f"{where}: expected either 'layers' or 'views'")
    short = "layers" in table
    if short:
        table["views"] = [{"name": "cells", "layers": table.pop("layers")}]
    try:
        parsed = _GeometryTable.model_validate(table)
    except ValidationError as error:
        problem = _first_problem(error)
        problem = problem.replace("views.0.", "", 1) if short else problem
        raise SampleError(f"{where}: {problem}") from None
    _refuse_twice([view.name for view in parsed.views], f"{where}: view")
    views = [
        View(name=view.name, layers=_stack(view.layers, f"{where}: {view.name}: layer"))
        for view in parsed.views
    ]
    geometry = Geometry(name=parsed.name, views=tuple(views))
    if geometry.n_cells > MAX_CELLS:
        raise SampleError(
            f"{where}: {geometry.n_cells} cells, expected at most {MAX_CELLS}"
        )
    return geometry


def _stack(tables: Iterable[_LayerTable], where: str) -> tuple[Layer, ...]:
    """Repeat layers, number those without a name and put them one after another."""
    layers: list[Layer] = []
    front: float | None = 0.0
    for table in tables:
        cells = table.cells()
        front = front if table.z is None else table.z
        for i in range(table.count):
            name = str(len(layers)) if table.name is None else table.name
            if table.name is not None and table.count > 1:
                name = f"{name}{i}"
            known = None if table.thickness is None and table.z is None else front
            layer = Layer(
                name=name, kind=table.kind, z=known, thickness=table.thickness, **cells
            )
            layers.append(layer)
            # After a layer of unknown thickness nothing is known without a new z.
            front = (
                None
                if front is None or table.thickness is None
                else front + table.thickness
            )
    _refuse_twice([layer.name for layer in layers], where)
    return tuple(layers)


def _from_xml(content: str, path: Path, particle: str | None) -> Geometry:
    """Read a binning; layers without cells (a single edge) are left out."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise SampleError(f"{path} is not valid XML: {error}") from None
    bins = {_label(found, i): found for i, found in enumerate(root.iter("Bin"))}
    if not bins:
        raise SampleError(
            f"{path} has no element <Bin>, expected one for each particle"
        )
    chosen = next(iter(bins)) if particle is None and len(bins) == 1 else particle
    by_pid = {found.get("pid", ""): label for label, found in bins.items()}
    chosen = by_pid.get(str(chosen), chosen)
    if chosen not in bins:
        got = "no particle given" if particle is None else f"no particle {particle!r}"
        hint = nearest(particle or "", bins) or f"; in the file: {', '.join(bins)}"
        raise SampleError(f"{path}: {got}{hint}")
    layers: list[dict[str, Any]] = []
    for element in bins[chosen].iter("Layer"):
        name = element.get("id", str(len(layers)))
        where = f"{path}: {chosen}: layer {name!r}"
        try:
            edges = [float(text) for text in element.attrib["r_edges"].split(",")]
            n_alpha = int(element.attrib["n_bin_alpha"])
        except (KeyError, ValueError) as error:
            raise SampleError(
                f"{where}: {error}; expected r_edges as numbers and n_bin_alpha"
            ) from None
        if len(edges) > 1:
            shape = {"r_edges": edges, "n_alpha": n_alpha}
            layers.append({"kind": "cylindrical", "name": name, **shape})
    table = {"name": f"{path.stem} {chosen}", "layers": layers}
    return _from_table(table, f"{path}: {chosen}")


def _label(element: ElementTree.Element, number: int) -> str:
    return element.get("name") or element.get("pid") or str(number)


def _first_problem(error: ValidationError) -> str:
    """Return the first problem in one line: where, got and expected."""
    detail = error.errors()[0]
    place = [part for part in detail["loc"] if isinstance(part, str | int)]
    where = ".".join(map(str, place))
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        models: dict[int, type[BaseModel]] = {3: _ViewTable, 5: _LayerTable}
        fields = models.get(len(place), _GeometryTable).model_fields
        return f"unknown key {where!r}{nearest(str(place[-1]), fields)}"
    if detail["type"] == "missing":
        return f"key {where!r} is missing"
    if detail["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where} is {detail['input']!r}: {message[:1].lower()}{message[1:]}"


def _refuse_twice(names: list[str], where: str) -> None:
    if twice := repeated(names):
        raise SampleError(f"{where} {twice[0]!r} is there more than once")


def _floats(values: Iterable[float] | FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
