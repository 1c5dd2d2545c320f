"""The cells of a calorimeter as data: views, layers, flat index, positions, grids.

A *view* is one complete account of the visible energy of a shower; a crystal block may
have two, an image in the plane and a profile in depth. A view is a sequence of layers,
and a layer has cells at one depth. The flat index runs over views, then over layers;
within a layer the slow coordinate runs before the fast one, alpha before r as in the
CaloChallenge (its `XMLHandler.fill_r_a_lists`).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray, IntArray
from pidgan.errors import nearest

Kind = Literal["rectangular", "cylindrical", "list"]

ARC_STEPS = 60  # number of straight lines that stand for a full circle in a drawing


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Cells at one depth; lengths in mm, angles in rad, None where unknown.

    Cells lie between edges of the `slow` and of the `fast` coordinate: alpha and r of a
    cylindrical layer, y and x of a rectangular one, x and y if its `order` is "xy".
    Those of kind "list" have centres `positions` and sizes `extents` instead. `z` is
    the front.
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
        """Number of cells in the slow and in the fast coordinate; (1, n) for a list."""
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

        A cylindrical cell is at the middle of r and of alpha, with sizes along the
        radius and along the arc there. The middle of a full ring is at alpha = 0, so
        that its distance to the axis is right.
        """
        if self.kind == "list":
            return np.array(self.positions), np.array(self.extents)
        edges = np.array(self.slow), np.array(self.fast)
        middles = np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges), indexing="ij")
        widths = np.meshgrid(*map(np.diff, edges), indexing="ij")
        a, b, da, db = (values.ravel() for values in (*middles, *widths))
        if self.kind == "cylindrical":
            at = np.stack([b * np.cos(a), b * np.sin(a)], axis=1)
            return at, np.stack([db, b * da], axis=1)
        if self.order == "yx":
            a, b, da, db = b, a, db, da
        return np.stack([a, b], axis=1), np.stack([da, db], axis=1)

    def outlines(self, *, steps: int = ARC_STEPS) -> FloatArray:
        """Return the corners of each cell for drawing, (n_cells, k, 2), mm."""
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
        """Return the table from which `load_geometry` makes this layer."""
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
        depth = {"z": self.z, "thickness": self.thickness}
        return table | {name: v for name, v in depth.items() if v is not None}


@dataclass(frozen=True, kw_only=True)
class View:
    """One complete account of the visible energy of a shower: a name and layers."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return sum(layer.n_cells for layer in self.layers)

    @cached_property
    def layer_slices(self) -> tuple[slice, ...]:
        """The part of the cells of the view that belongs to each layer."""
        ends = np.cumsum([0, *(layer.n_cells for layer in self.layers)]).tolist()
        return tuple(slice(*span) for span in pairwise(ends))

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Number of layers, and largest number of slow and of fast cells in one."""
        slow, fast = zip(*(layer.shape for layer in self.layers), strict=True)
        return len(self.layers), max(slow), max(fast)

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
    """The cells of a calorimeter, in the order of the flat index."""

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
        """Number of each cell's layer (n_cells,), counted through all views."""
        sizes = [layer.n_cells for layer in self.layers]
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def centres(self) -> FloatArray:
        """Middle x, y, z of each cell (n_cells, 3), mm; z is NaN if unknown."""
        return np.concatenate(
            [_with_column(layer.plane()[0], layer.middle) for layer in self.layers]
        )

    @cached_property
    def sizes(self) -> FloatArray:
        """Sizes dx, dy (dr, r dalpha) and dz of each cell (n_cells, 3), mm."""
        depths = [
            math.nan if la.thickness is None else la.thickness for la in self.layers
        ]
        pairs = zip(self.layers, depths, strict=True)
        return np.concatenate([_with_column(la.plane()[1], dz) for la, dz in pairs])

    def view(self, name: str) -> View:
        """Return the view with a name, or raise a ValueError."""
        views = {view.name: view for view in self.views}
        if name not in views:
            hint = nearest(name, views) or f"; views: {', '.join(views)}"
            raise ValueError(f"{self.name} has no view {name!r}{hint}")
        return views[name]

    def grid_index(self, view: str) -> IntArray:
        """Return the cell of a view at each place (layers, slow, fast), -1 without one.

        Rectangular layers smaller than the grid lie in its middle, so that the axis of
        a shower is at one place. Rings start at the first column, and fewer sectors
        than rows are spread evenly over the rows.
        """
        found = self.view(view)
        index = np.full(found.grid_shape, -1)
        parts = zip(index, found.layers, found.layer_slices, strict=True)
        for grid, layer, part in parts:
            n, m = layer.shape
            rows = np.arange(n) + (len(grid) - n) // 2
            columns = np.arange(m) + (grid.shape[1] - m) // 2
            if layer.kind != "rectangular":
                rows, columns = np.arange(n) * len(grid) // n, np.arange(m)
            grid[np.ix_(rows, columns)] = np.r_[part].reshape(n, m)
        return index

    def to_grid(self, cells: ArrayLike, view: str) -> FloatArray:
        """Return a view as a grid (n, layers, slow, fast), 0 where there is no cell.

        The energies (n, n_cells) are those of all views, or of this view alone.
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
        """Return the cells (n, k) of a view on a grid: the inverse of `to_grid`."""
        e = np.asarray(grid)
        shape = self.view(view).grid_shape
        if e.shape[1:] != shape:
            raise ValueError(f"grid of shape {e.shape}, expected (n, *{shape})")
        index = self.grid_index(view)
        places = np.argsort(index, axis=None)[index.size - self.view(view).n_cells :]
        return np.asarray(e.reshape(len(e), -1)[:, places])

    def to_dict(self) -> dict[str, Any]:
        """Return the table from which `load_geometry` makes this geometry."""
        views = [
            {"name": view.name, "layers": [layer.to_dict() for layer in view.layers]}
            for view in self.views
        ]
        return {"name": self.name, "views": views}


def _with_column(plane: FloatArray, value: float) -> FloatArray:
    return np.concatenate([plane, np.full((len(plane), 1), value)], axis=1)
