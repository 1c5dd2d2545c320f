"""Showers of spots with a known truth, in a small block of layers and cells."""

import numpy as np
import numpy.typing as npt

from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.geometry_file import load_geometry

Array = npt.NDArray[np.float64]
NAMES = ("energy", "theta", "phi", "x0", "y0", "species")
LAYERS, CELLS, THICKNESS, PITCH = 8, 6, 25.0, 15.0

PLANE = {"kind": "rectangular", "cell": [PITCH, PITCH], "nx": CELLS, "ny": CELLS}
STACK = load_geometry(
    {"name": "stack", "layers": [PLANE | {"thickness": THICKNESS, "count": LAYERS}]}
)
BLOCK = load_geometry(
    {
        "name": "block",
        "views": [
            {"name": "image", "layers": [PLANE | {"thickness": THICKNESS * LAYERS}]},
            {
                "name": "profile",
                "layers": [
                    {
                        "kind": "rectangular",
                        "cell": [PITCH * CELLS] * 2,
                        "thickness": THICKNESS,
                        "count": LAYERS,
                    }
                ],
            },
        ],
    }
)


def toy_showers(n: int, *, seed: int, spots: int = 150) -> tuple[Array, Array]:
    """Conditions (n, 6) and cells (n, LAYERS * CELLS^2) of `STACK`, MeV.

    The maximum of the profile moves with the logarithm of the energy and the species;
    the lateral profile has a core and a tail.
    """
    rng = np.random.default_rng(seed)
    energy = np.exp(rng.uniform(np.log(1e3), np.log(1e5), n))
    theta, phi = rng.uniform(0, 0.2, n), rng.uniform(0, 2 * np.pi, n)
    x0, y0 = rng.uniform(-PITCH / 2, PITCH / 2, (2, n))
    species = rng.choice([11.0, 22.0], n)
    u = np.log(energy / 1e4)
    peak = 50 * np.exp(0.15 * u + 0.15 * (species == 22) + 0.1 * rng.normal(size=n))
    shape = 3.0 * np.exp(0.15 * rng.normal(size=n))
    z = rng.gamma(shape[:, None] + 1, (peak / shape)[:, None], (n, spots))
    core = rng.random((n, spots)) < 0.8
    radius = np.where(core, 4.0, 18.0) * np.exp(0.3 * (z / peak[:, None] - 1))
    u_ = rng.random((n, spots))
    r, alpha = radius * np.sqrt(u_ / (1 - u_)), rng.uniform(0, 2 * np.pi, (n, spots))
    slope = np.tan(theta)[:, None] * z
    x = x0[:, None] + slope * np.cos(phi)[:, None] + r * np.cos(alpha)
    y = y0[:, None] + slope * np.sin(phi)[:, None] + r * np.sin(alpha)
    i, j = (np.floor(v / PITCH + CELLS / 2).astype(int) for v in (x, y))
    k = np.floor(z / THICKNESS).astype(int)
    inside = (i >= 0) & (i < CELLS) & (j >= 0) & (j < CELLS) & (k < LAYERS)
    response = 0.98 * (1 + 0.02 * rng.normal(size=n))
    e = rng.exponential(size=(n, spots)) * (response * energy / spots)[:, None]
    size = LAYERS * CELLS**2
    place = np.where(inside, (k * CELLS + j) * CELLS + i, size)
    flat = place + (size + 1) * np.arange(n)[:, None]
    cells = np.bincount(flat.ravel(), e.ravel(), (size + 1) * n)
    conditions = np.stack([energy, theta, phi, x0, y0, species], axis=1)
    return conditions, cells.reshape(n, size + 1)[:, :-1]


def as_block(cells: Array) -> Array:
    """The same showers as image and profile, cells of `BLOCK`."""
    grid = cells.reshape(len(cells), LAYERS, CELLS**2)
    return np.concatenate([grid.sum(axis=1), grid.sum(axis=2)], axis=1)


GEOMETRIES: dict[str, Geometry] = {"stack": STACK, "block": BLOCK}
