"""Electromagnetic showers in a block of lead tungstate, as spots of energy.

The depth of spots follows the gamma profile of E. Longo and I. Sestili (Nucl. Instrum.
Meth. 128 (1975) 283), whose two parameters fluctuate. Their distance from the axis
follows the core and tail of G. Grindhammer and S. Peters (arXiv:hep-ex/0001020,
Eq. 22), 2 r R^2 / (r^2 + R^2)^2 each. Spots outside the block are lost, some energy
leaves through the front face, and a cell without a spot is exactly zero. Constants of
the material are from the Review of Particle Physics, sizes of the fluctuations from
GEANT showers in the same block.
"""

from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import AnyArray, FloatArray, IntArray

SHOWER_TREE = "Showers"  # name of the tree of simulated showers
RADIATION_LENGTH = 8.9  # radiation length of PbWO4, mm
CRITICAL_ENERGY = 9.64  # critical energy of PbWO4, MeV
MOLIERE_RADIUS = 19.6  # Moliere radius of PbWO4, mm
CELL = 22.0  # width of a crystal, mm
N_CELLS = 6  # number of crystals along x and along y, around the origin
SLICE = 20.0  # thickness of a slice of the longitudinal profile, mm
N_SLICES = 12  # number of slices of the longitudinal profile
ENERGY_RANGE = (1e3, 1e5)  # incident energies, MeV, with uniform logarithm
MAX_ANGLE = 0.26  # largest angle between particle and normal, rad

_CELLS = {"nx": N_CELLS, "ny": N_CELLS, "cell": [CELL, CELL], "order": "xy"}
_WHOLE = {"cell": [N_CELLS * CELL, N_CELLS * CELL], "count": N_SLICES}
_DEPTHS = {"cells": (_CELLS, N_SLICES * SLICE), "profile": (_WHOLE, SLICE)}
# The block as a table of a sample definition.
GEOMETRY: dict[str, Any] = {
    "name": "simulated block",
    "views": [
        {"name": name, "layers": [{"kind": "rectangular", **layer, "thickness": depth}]}
        for name, (layer, depth) in _DEPTHS.items()
    ],
}
_SPOTS_PER_SQRT_GEV = 60.0
_MOST_SPOTS = 600
_DEPTH_SPREAD = 0.12
_SHAPE_SPREAD = 0.15
_CORE_RADIUS, _TAIL_RADIUS, _TAIL_SHARE = 0.25, 1.2, 0.15
_ESCAPED = 0.003  # mean share of a GeV that leaves through the front face
_ROWS = 2000


@checked
def simulate_showers(n: int, *, seed: int) -> dict[str, AnyArray]:
    """Simulate showers of electrons and photons.

    Args:
        n: Number of showers.
        seed: Seed of the random generator.

    Returns:
        Arrays by branch: `species` (n,), 11 or 22; `energy` (n,), MeV; `theta` and
        `phi` (n,), rad; the impact point `x0` and `y0` (n,), mm; energies of crystals
        `cells` (n, 36), x slowest, and of slices in depth `profile` (n, 12), MeV.

    Example:
        >>> showers = simulate_showers(100, seed=1)
        >>> bool((showers["cells"].sum(axis=1) < showers["energy"]).all())
        True
    """
    rng = np.random.default_rng(seed)
    low, high = np.log(ENERGY_RANGE)
    truth = {
        "species": rng.choice([11, 22], n),
        "energy": np.exp(rng.uniform(low, high, n)),
        "theta": np.arccos(rng.uniform(np.cos(MAX_ANGLE), 1, n)),
        "phi": rng.uniform(0, 2 * np.pi, n),
        "x0": rng.uniform(-CELL, CELL, n),
        "y0": rng.uniform(-CELL, CELL, n),
    }
    blocks = [
        _deposits({k: v[i : i + _ROWS] for k, v in truth.items()}, rng)
        for i in range(0, n, _ROWS)
    ]
    cells, profile = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return {
        name: values.astype(np.int32 if name == "species" else np.float32)
        for name, values in {**truth, "cells": cells, "profile": profile}.items()
    }


def _deposits(
    truth: dict[str, FloatArray], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return energies of crystals (n, 36) and slices (n, 12)."""
    n, energy = len(truth["energy"]), truth["energy"]
    x, y, z, weight = _spots(truth, rng)
    i = np.floor(x / CELL + N_CELLS / 2).astype(np.int64)
    j = np.floor(y / CELL + N_CELLS / 2).astype(np.int64)
    k = np.floor(z / SLICE).astype(np.int64)
    inside = (i >= 0) & (i < N_CELLS) & (j >= 0) & (j < N_CELLS)
    inside &= (k >= 0) & (k < N_SLICES)
    escaped = _ESCAPED * rng.standard_exponential(n) / np.sqrt(energy / 1e3)
    deposit = np.where(inside, weight, 0) * (energy * (1 - escaped))[:, None]
    row = np.arange(n)[:, None]
    cell = np.where(inside, row * N_CELLS**2 + i * N_CELLS + j, 0)
    layer = np.where(inside, row * N_SLICES + k, 0)
    return _add(cell, deposit, n, N_CELLS**2), _add(layer, deposit, n, N_SLICES)


def _add(place: IntArray, deposit: FloatArray, n: int, size: int) -> FloatArray:
    flat = np.bincount(place.ravel(), deposit.ravel(), minlength=n * size)
    return np.asarray(flat, dtype=np.float64).reshape(n, size)


def _spots(
    truth: dict[str, FloatArray], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return positions (n, spots), mm, and shares of the energy with sum 1."""
    n, energy = len(truth["energy"]), truth["energy"]
    # The maximum is at ln(E / E_c) -+ 0.5 radiation lengths (Longo and Sestili); its
    # logarithm and the one of alpha fluctuate (Grindhammer and Peters, Eq. 6-8).
    shift = np.where(truth["species"] == 11, -0.5, 0.5)
    maximum = np.log(energy / CRITICAL_ENERGY) + shift
    maximum *= np.exp(_DEPTH_SPREAD * rng.standard_normal(n))
    alpha = 0.5 * maximum + 1
    alpha = 1 + (alpha - 1) * np.exp(_SHAPE_SPREAD * rng.standard_normal(n))
    scale = maximum / (alpha - 1) * RADIATION_LENGTH
    count = _SPOTS_PER_SQRT_GEV * np.sqrt(energy / 1e3)
    used = np.arange(_MOST_SPOTS) < np.minimum(count, _MOST_SPOTS)[:, None]
    weight = rng.standard_exponential((n, _MOST_SPOTS)) * used
    weight /= weight.sum(axis=1, keepdims=True)
    depth = rng.standard_gamma(np.repeat(alpha[:, None], _MOST_SPOTS, axis=1))
    depth *= scale[:, None]
    tail = rng.random((n, _MOST_SPOTS)) < _TAIL_SHARE
    radius = np.where(tail, _TAIL_RADIUS, _CORE_RADIUS) * MOLIERE_RADIUS
    u = rng.random((n, _MOST_SPOTS))
    # The integral of Eq. 22 up to r is r^2 / (r^2 + R^2).
    distance = radius * np.sqrt(u / (1 - u))
    angle = rng.uniform(0, 2 * np.pi, (n, _MOST_SPOTS))
    slope = np.tan(truth["theta"])[:, None] * depth
    phi = truth["phi"][:, None]
    x = truth["x0"][:, None] + slope * np.cos(phi) + distance * np.cos(angle)
    y = truth["y0"][:, None] + slope * np.sin(phi) + distance * np.sin(angle)
    return x, y, depth, weight
