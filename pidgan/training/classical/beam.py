"""Conditions of showers, and the features in which parameters are linear."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array
from pidgan.errors import nearest

# Conditions with a meaning. The energy is necessary, the others are optional.
ROLES = ("energy", "theta", "phi", "x0", "y0", "species")


@dataclass(frozen=True, kw_only=True)
class Beam:
    """Names and scales of conditions; a name in `ROLES` has a meaning.

    Energies are in the unit of the cells, angles in rad, the impact point at z = 0 in
    mm, the species is a code; `origin` is the impact point without x0 and y0.
    """

    names: tuple[str, ...]
    energy: float
    species: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    origin: tuple[float, float] = (0.0, 0.0)

    def column(self, conditions: Array, name: str) -> Array:
        """Return the column (n, 1) of a condition."""
        return f.take(conditions, [self.names.index(name)])

    def log_energy(self, conditions: Array) -> Array:
        """Return u = ln E / E_scale, (n, 1)."""
        return f.log(self.column(conditions, "energy") * (1 / self.energy))

    def angle_and_others(self, conditions: Array) -> list[Array]:
        """Return 1 / cos theta - 1 and standardised other conditions, (n, 1) each."""
        parts = []
        if "theta" in self.names:
            parts.append(1.0 / f.cos(self.column(conditions, "theta")) - 1.0)
        others = [name for name in self.names if name not in ROLES]
        for name, centre, scale in zip(others, self.centre, self.scale, strict=True):
            parts.append((self.column(conditions, name) - centre) * (1 / scale))
        return parts

    def features(self, conditions: Array) -> Array:
        """Return the features (n, m) in which parameters are linear.

        They are 1, u and u^2 with u = ln E / E_scale, the same for each further
        species, 1 / cos theta - 1, and every other condition, standardised.
        """
        u = self.log_energy(conditions)
        parts = [u * 0.0 + 1.0, u, u * u]
        if "species" in self.names:
            code = self.column(conditions, "species")
            for value in self.species[1:]:
                is_it = f.near(code, value)
                parts += [is_it, is_it * u, is_it * u * u]
        return f.concatenate(parts + self.angle_and_others(conditions))

    def axis(
        self, conditions: Array, z: Array, shift: Array | None = None
    ) -> tuple[Array, Array]:
        """Return x and y of the axis, moved by (n, 2), at depths z, (n, k) each, mm."""
        zero = self.column(conditions, "energy") * 0.0 + z * 0.0
        x, y = zero + self.origin[0], zero + self.origin[1]
        if "x0" in self.names:
            x = zero + self.column(conditions, "x0")
        if "y0" in self.names:
            y = zero + self.column(conditions, "y0")
        if "theta" in self.names and "phi" in self.names:
            theta = self.column(conditions, "theta")
            phi = self.column(conditions, "phi")
            slope = f.sin(theta) / f.cos(theta)
            x = x + slope * f.cos(phi) * z
            y = y + slope * f.sin(phi) * z
        return (
            (x, y)
            if shift is None
            else (x + f.take(shift, [0]), y + f.take(shift, [1]))
        )


def fit_beam(conditions: FloatArray, names: Sequence[str]) -> Beam:
    """Return the scales of conditions (n, c), or raise a ValueError."""
    if conditions.ndim != 2 or conditions.shape[1] != len(names):
        raise ValueError(
            f"conditions of shape {conditions.shape} for {len(names)} names, "
            f"expected (n, {len(names)})"
        )
    if "energy" not in names:
        raise ValueError(
            f"no condition 'energy' among {', '.join(names)}{nearest('energy', names)}"
        )
    columns = dict(zip(names, conditions.T, strict=True))
    energy = columns["energy"]
    if not np.all(energy > 0):
        raise ValueError(f"energies down to {energy.min():g}, expected above 0")
    # A constant condition has no information: an infinite scale leaves it out.
    others = [columns[name] for name in names if name not in ROLES]
    scales = [float(np.std(values)) or np.inf for values in others]
    return Beam(
        names=tuple(names),
        energy=float(np.exp(np.mean(np.log(energy)))),
        species=tuple(np.unique(columns.get("species", np.zeros(1))).tolist()),
        centre=tuple(float(np.mean(values)) for values in others),
        scale=tuple(scales),
    )
