"""A calorimeter's cells as data: views, layers, flat index, positions, grids.

Which to use when: an XML file of the CaloChallenge or FastCaloGAN, where one exists;
otherwise TOML. A crystal block with a 12 x 12 image and a profile of 24 slices:

    name = "PbWO4 block"

    [[views]]
    name = "cells"
    layers = [{kind = "rectangular", nx = 12, ny = 12, cell = [22, 22]}]

    [[views]]
    name = "profile"
    layers = [{kind = "rectangular", cell = [264, 264], thickness = 10, count = 24}]

A *view* is one complete account of the visible energy: most calorimeters have one, and
then `[[layers]]` stands alone, without `[[views]]`. Keys of a layer, lengths in mm:

- `kind`: "rectangular", "cylindrical" or "list"; `name`; `count` equal layers in a row.
- `z`: front face, without it that of the layer before plus its `thickness`, 0 for the
  first. Without any thickness the depth is unknown.
- rectangular: `x_edges` and `y_edges`, or `nx`, `ny` (1 if left out) cells of size
  `cell` around `centre` ([0, 0]); `order` "yx" (x runs fastest, rows are y) or "xy".
- cylindrical: `n_alpha` sectors (1) from `alpha_start` (-pi), and `r_edges`, or `n_r`
  rings up to `r_max`. A regular mesh (n_r, n_phi, n_z) is `count` = n_z of those.
- list: `centres`, one [x, y] a cell, and `cell`, or `sizes`, one [dx, dy] a cell.

The flat index runs over views, layers, and in a layer the slow coordinate before the
fast one. In a cylindrical layer alpha is slow and r fast, as in the CaloChallenge
(its `XMLHandler.fill_r_a_lists`); a file of 45 layers reshapes to (45, n_alpha, n_r).
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pidgan.arrays import FloatArray, IntArray
from pidgan.errors import SampleError, nearest

Kind = Literal["rectangular", "cylindrical", "list"]
MAX_CELLS = 1_000_000
"""More cells than this are a slip in the file: the finest geometry of the CaloChallenge
has 40,500."""

ARC_STEPS = 60  # straight lines in the picture of a circle

_KEYS: dict[str, frozenset[str]] = {
    "rectangular": frozenset(
        ("x_edges", "y_edges", "nx", "ny", "cell", "centre", "order")
    ),
    "cylindrical": frozenset(("r_edges", "n_r", "r_max", "n_alpha", "alpha_start")),
    "list": frozenset(("centres", "sizes", "cell")),
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Cells at one depth.

    Attributes:
        name: unique in its view.
        kind: what `slow` and `fast` are.
        slow: edges of the coordinate that runs slowly in the flat index: alpha (rad)
            of cylindrical layers, y (x, if `order` is "xy") of rectangular ones, mm.
        fast: edges of the other: r, or x (y). Both are empty for kind "list".
        order: "yx" or "xy", of rectangular layers.
        positions: ((x, y), ...) of the cells of kind "list", mm.
        extents: ((dx, dy), ...) of these, mm.
        z: front face, mm; None if unknown.
        thickness: mm; None if unknown.
    """

    name: str
    kind: Kind
    slow: tuple[float, ...] = ()
    fast: tuple[float, ...] = ()
    order: Literal["yx", "xy"] = "yx"
    positions: tuple[tuple[float, float], ...] = ()
    extents: tuple[tuple[float, float], ...] = ()
    z: float | None = None
    thickness: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells in the slow and in the fast coordinate; (1, n) of a list."""
        if self.kind == "list":
            return 1, len(self.positions)
        return len(self.slow) - 1, len(self.fast) - 1

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.shape[0] * self.shape[1]

    @property
    def middle(self) -> float:
        """Depth of the middle, or `z` without a thickness, mm; NaN if unknown."""
        return math.nan if self.z is None else self.z + (self.thickness or 0) / 2

    def plane(self) -> tuple[FloatArray, FloatArray]:
        """Return positions and sizes in the plane, each (n_cells, 2), mm.

        The position of a cylindrical cell is at the middle of r and of alpha, and its
        sizes are radial and along the arc there. Of a full ring the middle is at
        alpha = 0, so that the distance to the axis is right for every cell.
        """
        if self.kind == "list":
            return np.array(self.positions), np.array(self.extents)
        slow, fast = np.array(self.slow), np.array(self.fast)
        grid = np.meshgrid(_middles(slow), _middles(fast), indexing="ij")
        a, b = (values.ravel() for values in grid)
        grid = np.meshgrid(np.diff(slow), np.diff(fast), indexing="ij")
        da, db = (values.ravel() for values in grid)
        if self.kind == "cylindrical":
            at = np.stack([b * np.cos(a), b * np.sin(a)], axis=1)
            return at, np.stack([db, b * da], axis=1)
        if self.order == "yx":
            a, b, da, db = b, a, db, da
        return np.stack([a, b], axis=1), np.stack([da, db], axis=1)

    def outlines(self, *, steps: int = ARC_STEPS) -> FloatArray:
        """Return the corners of each cell for drawing, (n_cells, k, 2), mm.

        Args:
            steps: straight lines that stand for a full circle.
        """
        if self.kind == "list":
            at, size = self.plane()
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
            return np.asarray(at[:, None] + size[:, None] * corners)
        slow, fast = np.array(self.slow), np.array(self.fast)
        i, j = (grid.ravel() for grid in np.indices(self.shape))
        if self.kind == "rectangular":
            a = slow[i[:, None] + [0, 0, 1, 1]]
            b = fast[j[:, None] + [0, 1, 1, 0]]
            pair = (b, a) if self.order == "yx" else (a, b)
            return np.stack(pair, axis=2)
        n = max(1, steps // self.shape[0])
        way = np.linspace(0, 1, n + 1)
        alpha = slow[i, None] + (slow[i + 1] - slow[i])[:, None] * way
        alpha = np.concatenate([alpha, alpha[:, ::-1]], axis=1)
        r = np.repeat(np.stack([fast[j + 1], fast[j]], axis=1), n + 1, axis=1)
        return np.stack([r * np.cos(alpha), r * np.sin(alpha)], axis=2)

    def to_dict(self) -> dict[str, Any]:
        """Return the table that `load_geometry` reads as this layer."""
        table: dict[str, Any] = {"kind": self.kind, "name": self.name}
        if self.kind == "cylindrical":
            table["n_alpha"] = len(self.slow) - 1
            table["alpha_start"] = self.slow[0]
            table["r_edges"] = list(self.fast)
        elif self.kind == "rectangular":
            x, y = (self.fast, self.slow)[:: 1 if self.order == "yx" else -1]
            table |= {"x_edges": list(x), "y_edges": list(y), "order": self.order}
        else:
            table["centres"] = [list(at) for at in self.positions]
            table["sizes"] = [list(size) for size in self.extents]
        if self.z is not None:
            table["z"] = self.z
        if self.thickness is not None:
            table["thickness"] = self.thickness
        return table


@dataclass(frozen=True, kw_only=True)
class View:
    """One complete account of the visible energy of a shower: a name and layers."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return sum(layer.n_cells for layer in self.layers)

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Layers, most cells in the slow and most in the fast coordinate."""
        shapes = [layer.shape for layer in self.layers]
        return (
            len(shapes),
            max(slow for slow, _ in shapes),
            max(fast for _, fast in shapes),
        )

    @property
    def has_depth(self) -> bool:
        """Whether there is more than one layer."""
        return len(self.layers) > 1

    @property
    def has_plane(self) -> bool:
        """Whether any layer has more than one cell."""
        return any(layer.n_cells > 1 for layer in self.layers)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The cells of a calorimeter, in the order of the flat index.

    Example:
        >>> cube = {"layers": [{"kind": "rectangular", "nx": 2, "cell": [5, 5]}]}
        >>> load_geometry(cube).centres[:, :2].tolist()
        [[-2.5, 0.0], [2.5, 0.0]]
    """

    name: str
    views: tuple[View, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells of all views together."""
        return sum(view.n_cells for view in self.views)

    @cached_property
    def view_slices(self) -> dict[str, slice]:
        """The part of the flat index that belongs to each view."""
        ends = np.cumsum([0, *(view.n_cells for view in self.views)]).tolist()
        spans = pairwise(ends)
        return {v.name: slice(*span) for v, span in zip(self.views, spans, strict=True)}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of all views, in order."""
        return tuple(layer for view in self.views for layer in view.layers)

    @cached_property
    def layer_index(self) -> IntArray:
        """(n_cells,) number of each cell's layer, counted through all views."""
        sizes = [layer.n_cells for layer in self.layers]
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def centres(self) -> FloatArray:
        """(n_cells, 3) x, y, z of the middle of each cell, mm; z NaN if unknown."""
        return np.concatenate(
            [_with_column(layer.plane()[0], layer.middle) for layer in self.layers]
        )

    @cached_property
    def sizes(self) -> FloatArray:
        """(n_cells, 3) dx, dy (dr, r dalpha) and thickness of each cell, mm."""
        depths = [
            math.nan if la.thickness is None else la.thickness for la in self.layers
        ]
        pairs = zip(self.layers, depths, strict=True)
        return np.concatenate([_with_column(la.plane()[1], dz) for la, dz in pairs])

    def view(self, name: str) -> View:
        """Return the view of that name.

        Raises:
            ValueError: there is none.
        """
        for view in self.views:
            if view.name == name:
                return view
        names = [view.name for view in self.views]
        hint = nearest(name, names) or f"; views: {', '.join(names)}"
        raise ValueError(f"{self.name} has no view {name!r}{hint}")

    def grid_shape(self, view: str) -> tuple[int, int, int]:
        """Return the shape of the regular grid that holds a view."""
        return self.view(view).grid_shape

    def grid_index(self, view: str) -> IntArray:
        """Return the cell, counted within the view, at each place of its grid.

        Rectangular layers smaller than the grid lie in its middle, so that the axis of
        a shower is at one place; rings start at the first column, where the axis is,
        and fewer sectors are spread evenly over the rows.

        Returns:
            (layers, slow, fast), -1 where there is no cell.
        """
        found = self.view(view)
        index = np.full(found.grid_shape, -1)
        first = 0
        for grid, layer in zip(index, found.layers, strict=True):
            n, m = layer.shape
            rows = np.arange(n) + (len(grid) - n) // 2
            columns = np.arange(m) + (grid.shape[1] - m) // 2
            if layer.kind != "rectangular":
                rows, columns = np.arange(n) * len(grid) // n, np.arange(m)
            grid[np.ix_(rows, columns)] = first + np.arange(n * m).reshape(n, m)
            first += n * m
        return index

    def to_grid(self, cells: ArrayLike, view: str) -> FloatArray:
        """Embed the layers of a view in a regular grid, 0 where there is no cell.

        Args:
            cells: (n, n_cells) of all views, or of this view alone.
            view: its name.

        Returns:
            (n, layers, slow, fast).

        Example:
            >>> g = load_geometry({"layers": [{"kind": "cylindrical", "n_alpha": 4,
            ...                                "r_edges": [0, 1, 2]}]})
            >>> g.to_grid(np.ones((7, 8)), "cells").shape
            (7, 1, 4, 2)
        """
        e = np.asarray(cells)
        n_cells = self.view(view).n_cells
        if e.ndim == 2 and e.shape[1] == self.n_cells:
            e = e[:, self.view_slices[view]]
        if e.ndim != 2 or e.shape[1] != n_cells:
            raise ValueError(
                f"cells of shape {e.shape}; expected (n, {self.n_cells}), "
                f"or (n, {n_cells}) for view {view!r}"
            )
        index = self.grid_index(view)
        grid = e[:, np.maximum(index, 0)]
        grid[:, index < 0] = 0
        return np.asarray(grid)

    def from_grid(self, grid: ArrayLike, view: str) -> FloatArray:
        """Return the cells (n, cells of the view) of a grid: the inverse of `to_grid`.

        What a grid holds where there is no cell is left out.
        """
        e = np.asarray(grid)
        shape = self.grid_shape(view)
        if e.shape[1:] != shape:
            raise ValueError(f"grid of shape {e.shape}, expected (n, *{shape})")
        index = self.grid_index(view)
        places = np.argsort(index, axis=None)[index.size - self.view(view).n_cells :]
        return np.asarray(e.reshape(len(e), -1)[:, places])

    def to_dict(self) -> dict[str, Any]:
        """Return the table that `load_geometry` reads as this geometry, for a card."""
        views = [
            {"name": view.name, "layers": [layer.to_dict() for layer in view.layers]}
            for view in self.views
        ]
        return {"name": self.name, "views": views}


def load_geometry(
    source: str | Path | Mapping[str, Any],
    *,
    particle: str | None = None,
    folder: str | Path = ".",
) -> Geometry:
    """Load the geometry of a calorimeter.

    Args:
        source: a TOML file, an XML file of the CaloChallenge or FastCaloGAN, or a table
            with the keys of the TOML file. {file = "b.xml", particle = "pion"} stands
            for these two.
        particle: name or PDG code of the binning, where an XML file has several.
        folder: what relative paths are relative to.

    Raises:
        SampleError: no such file, or a definition that is wrong; one line says where.

    Example:
        >>> mesh = {"kind": "cylindrical", "n_r": 18, "r_max": 42.0, "n_alpha": 50,
        ...         "count": 45, "thickness": 3.4}
        >>> load_geometry({"name": "mesh", "layers": [mesh]}).n_cells
        40500
    """
    if isinstance(source, Mapping):
        if "file" not in source:
            return _from_table(dict(source), "geometry")
        extra = set(source) - {"file", "particle"}
        if extra:
            raise SampleError(
                f"geometry: keys {', '.join(sorted(map(repr, extra)))} beside 'file'; "
                "expected 'file' and 'particle' alone"
            )
        chosen = source.get("particle")
        particle = particle if chosen is None else str(chosen)
        return load_geometry(str(source["file"]), particle=particle, folder=folder)
    path = Path(folder, source)
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SampleError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SampleError(f"{path} is not a text file in UTF-8") from None
    if path.suffix.lower() == ".xml":
        return _from_xml(content, path, particle)
    if particle is not None:
        raise SampleError(f"{path}: particle {particle!r} is for XML files")
    try:
        table = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise SampleError(f"{path} is not valid TOML: {error}") from None
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
        {
            "rectangular": self._check_rectangular,
            "cylindrical": self._check_cylindrical,
            "list": self._check_list,
        }[self.kind]()
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
        """The fields of `Layer` that say what the cells are."""
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
        raise SampleError(f"{path} has no element <Bin>, expected one a particle")
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
    """Say where, got and expected of the first problem in one line."""
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
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SampleError(f"{where} {twice[0]!r} is there more than once")


def _middles(edges: FloatArray) -> FloatArray:
    return (edges[1:] + edges[:-1]) / 2


def _with_column(plane: FloatArray, value: float) -> FloatArray:
    return np.concatenate([plane, np.full((len(plane), 1), value)], axis=1)


def _floats(values: Iterable[float] | FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
