"""Mirror images of showers: more rows to learn from, where a calorimeter is symmetric.

The shower of a particle at (-x, y) with azimuth pi - phi is the mirror image of the
shower of a particle at (x, y) with azimuth phi. Two mirrors and the exchange of x and y
make eight showers of one.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.calorimeter.geometry import Geometry
from pidgan.errors import SampleError

# Matrix that maps (x, y) to its mirror image, by the name of the mirror.
MIRRORS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "x": ((-1, 0), (0, 1)),
    "y": ((1, 0), (0, -1)),
    "swap": ((0, 1), (1, 0)),
}
TOLERANCE = 1e-6  # distance of mirrored cells from cells, in cell sizes


def mirror_showers(
    cells: FloatArray,
    conditions: FloatArray,
    geometry: Geometry,
    *,
    mirrors: Sequence[str],
    columns: Mapping[str, int],
) -> tuple[FloatArray, FloatArray]:
    """Return showers with all their mirror images, the originals first.

    Energies (n, n_cells) and conditions (n, n_conditions) become (m n, ...) with m =
    2^(number of mirrors). `columns` tells the conditions that are the impact point "x",
    "y" or the azimuth "phi". A SampleError says that the geometry is not symmetric.
    """
    images = []
    for chosen in product((False, True), repeat=len(mirrors)):
        matrix = np.eye(2)
        for mirror, used in zip(mirrors, chosen, strict=True):
            matrix = np.array(MIRRORS[mirror]) @ matrix if used else matrix
        order = _mirrored_cells(geometry, matrix)
        images.append((cells[:, order], _mirrored(conditions, matrix, columns)))
    return (
        np.concatenate([image for image, _ in images]),
        np.concatenate([image for _, image in images]),
    )


def _mirrored_cells(geometry: Geometry, matrix: FloatArray) -> IntArray:
    """Return the original cell of each cell of a mirror image."""
    at, sizes = np.asarray(geometry.centres)[:, :2], np.asarray(geometry.sizes)[:, :2]
    layer = np.asarray(geometry.layer_index)
    order = np.empty(len(at), dtype=np.int64)
    # The inverse of an orthogonal matrix is its transpose.
    origin = at @ matrix
    for j in np.unique(layer):
        mine = np.flatnonzero(layer == j)
        distance = np.abs(origin[mine][:, None] - at[mine][None]).max(axis=2)
        nearest = distance.argmin(axis=1)
        if distance.min(axis=1).max() > TOLERANCE * sizes[mine].min():
            name = geometry.layers[int(j)].name
            raise SampleError(
                f"geometry {geometry.name!r} is not symmetric: in layer {name!r} the "
                "mirror image of a cell is no cell; leave out cells.symmetry"
            )
        order[mine] = mine[nearest]
    return order


def _mirrored(
    conditions: FloatArray, matrix: FloatArray, columns: Mapping[str, int]
) -> FloatArray:
    """Return the conditions of a mirror image."""
    found = conditions.copy()
    position = [columns.get("x"), columns.get("y")]
    values = [0.0 if j is None else conditions[:, j] for j in position]
    for k, j in enumerate(position):
        if j is not None:
            found[:, j] = matrix[k, 0] * values[0] + matrix[k, 1] * values[1]
    if "phi" in columns:
        phi = conditions[:, columns["phi"]].astype(np.float64)
        direction = matrix @ np.stack([np.cos(phi), np.sin(phi)])
        turned = np.arctan2(direction[1], direction[0])
        found[:, columns["phi"]] = np.mod(turned, 2 * np.pi)
    return found
