"""Which branches of an analysis ntuple hold the conditions of a generator.

A condition has a canonical name and default branch patterns; in this order a branch is
taken from the user's override, from the patterns, or derived from others by the closed
list of `pidgan.sample.variables.DERIVATIONS`. `check_units` compares what is in the
file with the range that the generator was trained on, and refuses GeV where MeV is
meant.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pidgan.application.quantile_map import QuantileMap, open_maps
from pidgan.arrays import FloatArray
from pidgan.bundle.card import CardVariable
from pidgan.errors import NtupleError, nearest
from pidgan.files.tables import Source, TreeInfo
from pidgan.sample.cuts import Columns
from pidgan.sample.variables import DERIVATIONS, PACKAGE_UNITS, UNIT_FACTORS

_T = TypeVar("_T")

DERIVED: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "P": (
        ("p_from_px_py_pz", ("PX", "PY", "PZ")),
        ("p_from_pt_eta", ("PT", "ETA")),
    ),
    "PT": (("pt_from_px_py", ("PX", "PY")),),
    "ETA": (
        ("eta_from_px_py_pz", ("PX", "PY", "PZ")),
        ("eta_from_p_pt", ("P", "PT")),
    ),
}
"""Derivations of a condition without a branch, from {track}_NAME branches."""

UNIT_CHECK_ENTRIES = 10_000
"""Entries whose median is compared with the trained range."""


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a user says of conditions: CONDITION or TRACK.CONDITION to a value.

    Attributes:
        branches: the branch that holds it (in which `{track}` is replaced).
        units: unit of what is stored.
        scales: factor by which the values in package units are multiplied.
        quantile_maps: map through which they go.
    """

    branches: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    quantile_maps: Mapping[str, QuantileMap] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (name of the option, what is given)."""
        yield "branch", self.branches
        yield "unit", self.units
        yield "scale", self.scales
        yield "quantile map", self.quantile_maps


def read_overrides(
    *,
    branches: Mapping[str, str] | None,
    units: Mapping[str, str] | None,
    scale: Mapping[str, float] | None,
    quantile_map: Mapping[str, str | Path | QuantileMap] | None,
) -> Overrides:
    """Return what the arguments of `apply` say of conditions, maps opened."""
    return Overrides(
        branches=dict(branches or {}),
        units=dict(units or {}),
        scales=dict(scale or {}),
        quantile_maps=open_maps(quantile_map or {}),
    )


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition and where an ntuple holds it.

    Attributes:
        variable: the condition, as the generator knows it.
        inputs: the branches to read.
        derive: a derivation of them, if not the branch itself.
        unit: unit of what is stored or derived.
        scale: known ratio of data to simulation, by which values are multiplied.
        quantile_map: map from simulation to data instead of a factor.
    """

    variable: CardVariable
    inputs: tuple[str, ...]
    derive: str | None
    unit: str
    scale: float = 1.0
    quantile_map: QuantileMap | None = None

    def __str__(self) -> str:
        inputs = ", ".join(self.inputs)
        origin = inputs if self.derive is None else f"{self.derive}({inputs})"
        if self.unit != "1":
            origin = f"{origin} [{self.unit}]"
        if self.scale != 1.0:
            return f"{origin} times {self.scale:g}"
        return origin if self.quantile_map is None else f"quantile map of {origin}"

    def evaluate(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return the values (n,) in package units; a sentinel keeps its value."""
        arrays = [np.asarray(columns[n], dtype=np.float64) for n in self.inputs]
        if self.derive is not None:
            with np.errstate(all="ignore"):
                values = DERIVATIONS[self.derive][1](*arrays)
        else:
            values = arrays[0]
        factor = UNIT_FACTORS[self.unit]
        if factor != 1.0 or self.is_shifted:
            kept = np.isin(values, self.variable.sentinels)
            values = np.where(kept, values, self._shifted(values * factor))
        with np.errstate(over="ignore"):
            return np.asarray(values, dtype=np.float32)

    @property
    def is_shifted(self) -> bool:
        """Whether values are altered beyond their unit."""
        return self.scale != 1.0 or self.quantile_map is not None

    def _shifted(self, values: FloatArray) -> FloatArray:
        """Return values with the known difference of data to simulation put in."""
        if not self.is_shifted:
            return values
        shifted = values * self.scale
        if self.quantile_map is not None:
            shifted = self.quantile_map.evaluate(shifted)
        return np.rint(shifted) if self.variable.integer else shifted


def find_conditions(
    variables: Sequence[CardVariable],
    track: str,
    source: Source,
    present: Mapping[str, str],
    *,
    overrides: Overrides,
) -> tuple[Condition, ...]:
    """Return where a tree holds each condition of a generator.

    Args:
        variables: the conditions, as the generator's card describes them.
        track: prefix of the track's branches.
        source: the tree, for messages.
        present: its branches.
        overrides: what the user says of them.

    Raises:
        NtupleError: a condition has no branch, or its unit makes no sense.
    """
    return tuple(
        _find(variable, track, source, present, overrides) for variable in variables
    )


def check_overrides(overrides: Overrides, conditions: Mapping[str, set[str]]) -> None:
    """Raise if an override addresses what does not exist, or makes no sense.

    Args:
        overrides: what the user says of conditions.
        conditions: names of the conditions of each track.
    """
    known = {name for names in conditions.values() for name in names}
    known |= {
        f"{track}.{name}" for track, names in conditions.items() for name in names
    }
    for option, given in overrides:
        for name, value in given.items():
            if name not in known:
                shown = "..." if isinstance(value, QuantileMap) else value
                raise NtupleError(
                    f"{option} {name}={shown}: no such condition; expected one of "
                    f"{', '.join(sorted(known))}{nearest(name, known)}"
                )
    for name, scale in overrides.scales.items():
        if not (math.isfinite(scale) and scale > 0):
            raise NtupleError(f"scale {name}={scale:g}: expected a positive number")


def check_numbers(
    branches: Sequence[str], tree: TreeInfo, source: Source, track: str
) -> None:
    """Raise if a branch is missing or holds no numbers.

    Args:
        branches: names of branches that a track needs.
        tree: what the tree holds.
        source: the tree, for messages.
        track: prefix of the track's branches, for messages.
    """
    for name in branches:
        if name not in tree.branches:
            raise NtupleError(
                f"{source} has no branch {name!r}, needed for {track}"
                f"{nearest(name, tree.branches)}"
            )
        if name not in tree.types:
            raise NtupleError(
                f"{source}, branch {name!r}, needed for {track}, is of type "
                f"{tree.branches[name]}, expected one number or an array of numbers "
                "per entry"
            )


def check_units(
    conditions: tuple[Condition, ...], columns: Columns, source: Source, track: str
) -> None:
    """Raise if the median of a condition says that its unit is not the one assumed.

    Args:
        conditions: of one generator.
        columns: the first `UNIT_CHECK_ENTRIES` rows of their branches.
        source: the tree, for messages.
        track: prefix of the track's branches, for messages.
    """
    for condition in conditions:
        variable = condition.variable
        if variable.unit != "MeV":
            continue
        values = condition.evaluate(columns)
        usable = np.isfinite(values) & ~np.isin(values, variable.sentinels)
        if not usable.any():
            continue
        median = float(np.median(values[usable]))
        low, high = variable.range
        for factor, got, fix in ((1e3, "GeV", "GeV"), (1e-3, "MeV", "MeV")):
            if not low <= median <= high and low <= median * factor <= high:
                raise NtupleError(
                    f"{source}: {', '.join(map(repr, condition.inputs))} for condition "
                    f"{variable.name} of {track} looks like {got} where "
                    f"{condition.unit} is expected: median {median:.4g} MeV, trained "
                    f"range {low:g} to {high:g} MeV; give --unit {variable.name}={fix}"
                )


def _find(
    variable: CardVariable,
    track: str,
    source: Source,
    present: Mapping[str, str],
    overrides: Overrides,
) -> Condition:
    """Return where a tree holds one condition."""
    name = variable.name
    scale = _override(overrides.scales, track, name) or 1.0
    quantile_map = _override(overrides.quantile_maps, track, name)
    if scale != 1.0 and quantile_map is not None:
        raise NtupleError(f"{name} of {track} has a scale and a quantile map; give one")
    inputs, derive, unit = _origin(variable, track, source, present, overrides)
    return Condition(
        variable=variable,
        inputs=inputs,
        derive=derive,
        unit=unit,
        scale=scale,
        quantile_map=quantile_map,
    )


def _origin(
    variable: CardVariable,
    track: str,
    source: Source,
    present: Mapping[str, str],
    overrides: Overrides,
) -> tuple[tuple[str, ...], str | None, str]:
    """Return branches, derivation and unit of a condition in a tree."""
    name = variable.name
    unit = _override(overrides.units, track, name) or variable.unit
    others = [given for given, unit in PACKAGE_UNITS.items() if unit == variable.unit]
    allowed = (variable.unit, *others)
    if unit not in allowed:
        raise NtupleError(
            f"unit of {name} of {track} is {unit!r}, expected {' or '.join(allowed)}"
        )
    given = _override(overrides.branches, track, name)
    if given is not None:
        given = given.replace("{track}", track)
        if given not in present:
            raise NtupleError(
                f"{source} has no branch {given!r}, named for condition {name} of "
                f"{track}{nearest(given, present)}"
            )
        return (given,), None, unit
    patterns = [*variable.patterns, f"{{track}}_{name}", name]
    tried = [pattern.replace("{track}", track) for pattern in patterns]
    for branch in tried:
        if branch in present:
            return (branch,), None, unit
    for derive, parts in DERIVED.get(name, ()):
        inputs = tuple(f"{track}_{part}" for part in parts)
        if all(branch in present for branch in inputs):
            return inputs, derive, unit
    raise NtupleError(
        f"{source} has no branch for condition {name} of {track}: tried "
        f"{', '.join(dict.fromkeys(tried))}{nearest(tried[0], present)}; name it with "
        f"--branch {name}=BRANCH"
    )


def _override(overrides: Mapping[str, _T], track: str, name: str) -> _T | None:
    """Return what is given for a condition of a track, or of every track."""
    return overrides.get(f"{track}.{name}", overrides.get(name))
