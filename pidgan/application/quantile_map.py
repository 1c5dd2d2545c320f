"""A map from a variable of simulation to the distribution that it has in data.

Simulation seldom has the occupancy of data. Where a factor is not enough, x of
simulation becomes F_data^-1(F_simulation(x)) with the two distribution functions F, so
that mapped values are distributed as in data (G. Monge's transport in one dimension;
"quantile mapping" elsewhere). `make_quantile_map` makes a map, a JSON file keeps it,
and `pidgan.apply` applies it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pidgan.arguments import check_path, checked
from pidgan.arrays import FloatArray
from pidgan.errors import NtupleError
from pidgan.files.documents import read_json
from pidgan.files.recognition import refuse_other
from pidgan.files.seals import SEAL, check_seal, reason, sealed
from pidgan.files.writing import writing_file
from pidgan.notebook import Facts, shown
from pidgan.sample.weights import n_eff_of_sums

SCHEMA = 2

UNSEALED = 1
"""Schema without a seal, which version 0.1 of this package wrote."""

KNOTS = 201
"""Quantiles in steps of half a per cent: what lies between two is interpolated."""

MIN_EFFECTIVE = 100
"""Fewest effective rows: quantiles of fewer are mostly noise."""

MARK_DIGITS = 8
"""Hexadecimal digits of the mark of a map."""


@shown
@dataclass(frozen=True, kw_only=True)
class QuantileMap:
    """A piecewise linear, never falling function through pairs of quantiles.

    Attributes:
        simulation: Strictly rising values of simulation, (n,).
        data: Never falling values of data, (n,).
    """

    simulation: tuple[float, ...]
    data: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y = np.array(self.simulation), np.array(self.data)
        if len(x) != len(y) or len(x) < 2:
            raise NtupleError(
                f"a quantile map has {len(x)} values of simulation and {len(y)} of "
                "data, expected as many of both, at least 2"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise NtupleError("a quantile map holds a value that is not finite")
        if (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
            raise NtupleError(
                "a quantile map must rise in simulation and never fall in data"
            )

    @property
    def mark(self) -> str:
        """First digits of a hash of the values, by which two maps are told apart."""
        text = json.dumps([self.simulation, self.data])
        return hashlib.sha256(text.encode()).hexdigest()[:MARK_DIGITS]

    @checked
    def evaluate(self, values: FloatArray) -> npt.NDArray[np.float64]:
        """Return the mapped values (n,); beyond an end, all are shifted like the end.

        Args:
            values: Values of simulation, (n,); NaN stays NaN.
        """
        x = np.asarray(values, dtype=np.float64)
        inside = np.clip(x, self.simulation[0], self.simulation[-1])
        mapped = np.interp(inside, self.simulation, self.data)
        return np.asarray(mapped + (x - inside))

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the map as JSON."""
        content = {"schema": SCHEMA, "simulation": self.simulation, "data": self.data}
        with writing_file(path, overwrite=overwrite) as temporary:
            temporary.write_text(json.dumps(sealed(content)), encoding="utf-8")

    @classmethod
    @checked
    def open(cls, path: "str | Path | QuantileMap") -> "QuantileMap":
        """Read a map that `save` wrote; one that is open is returned.

        Raises:
            NtupleError: The file is missing, damaged or of a newer schema.
        """
        if isinstance(path, QuantileMap):
            return path
        check_path("open", path)
        refuse_other(path, "quantile map", error=NtupleError)
        content = read_json(path, error=NtupleError)
        try:
            schema = content["schema"]
            if schema == SCHEMA or SEAL in content:
                check_seal(content)
            simulation, data = (
                tuple(map(float, content[name])) for name in ("simulation", "data")
            )
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise NtupleError(
                f"{path}: not a quantile map ({reason(error)}); make one with "
                "`pidgan quantile-map`"
            ) from error
        if type(schema) is not int or schema not in (SCHEMA, UNSEALED):
            raise NtupleError(f"{path}: schema {schema!r}, expected {SCHEMA}")
        return cls(simulation=simulation, data=data)

    def _facts(self) -> Facts:
        x, y = self.simulation, self.data
        return Facts(
            f"{len(x)} quantiles, simulation {x[0]:.4g} to {x[-1]:.4g}, data "
            f"{y[0]:.4g} to {y[-1]:.4g}",
            {"mark": self.mark},
        )


@checked
def make_quantile_map(
    simulation: FloatArray,
    data: FloatArray,
    *,
    simulation_weights: FloatArray | None = None,
    data_weights: FloatArray | None = None,
) -> QuantileMap:
    """Return the map that gives simulation the distribution of data.

    Args:
        simulation: Values in simulation, (n,).
        data: Values in data, (m,).
        simulation_weights: Weights of any sign, (n,); 1 if None.
        data_weights: Weights of any sign, such as sWeights, (m,); 1 if None.

    Raises:
        NtupleError: A value is not finite, or there are fewer than `MIN_EFFECTIVE`
            effective rows.

    Example:
        >>> x = np.linspace(0, 100, 1001)
        >>> found = make_quantile_map(x, 2 * x + 5)
        >>> found.evaluate(np.array([10.0, 50.0])).round(2).tolist()
        [25.0, 105.0]
    """
    grid = np.linspace(0, 1, KNOTS)
    x = _quantiles(simulation, simulation_weights, grid, "simulation")
    y = _quantiles(data, data_weights, grid, "data")
    # A value that many rows share is several quantiles: the middle one stands for it.
    rising, first = np.unique(x, return_index=True)
    last = np.append(first[1:], len(x)) - 1
    matched = 0.5 * (y[first] + y[last])
    return QuantileMap(simulation=tuple(rising.tolist()), data=tuple(matched.tolist()))


def _quantiles(
    values: FloatArray, weights: FloatArray | None, grid: FloatArray, what: str
) -> npt.NDArray[np.float64]:
    """Return weighted quantiles at the probabilities of a grid."""
    x = np.asarray(values, dtype=np.float64)
    w = np.ones(x.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"{what} has shape {x.shape}, expected (n,)")
    if w.shape != x.shape:
        raise ValueError(f"{what}_weights has shape {w.shape}, expected {x.shape}")
    if not (np.isfinite(x).all() and np.isfinite(w).all()):
        raise NtupleError(f"{what}: a value or weight is not finite")
    total = float(w.sum())
    effective = float(n_eff_of_sums(max(total, 0.0), (w**2).sum()))
    if effective < MIN_EFFECTIVE:
        raise NtupleError(
            f"{what}: got {effective:.0f} effective rows of {len(x)}, expected at "
            f"least {MIN_EFFECTIVE}"
        )
    distinct, place = np.unique(x, return_inverse=True)
    mass = np.bincount(place, w)
    if len(distinct) < 2:
        raise NtupleError(f"{what}: all values are {distinct[0]:g}")
    # With signed weights the distribution function may fall: its running maximum,
    # within [0, 1], is the closest one that does not.
    above = np.maximum.accumulate(np.clip(np.cumsum(mass) / total, 0, 1))
    # Half of the mass of a value lies below it, so that equal discrete
    # distributions are mapped to themselves.
    middle = above - 0.5 * np.diff(above, prepend=0.0)
    return np.asarray(np.interp(grid, middle, distinct))
