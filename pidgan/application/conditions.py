"""Which branches of an analysis ntuple hold the conditions of a generator.

A branch is one that the user names, else the first of the condition's patterns that is
there, else it is derived from others by the closed list of
`pidgan.sample.variables.DERIVATIONS`. The names of momenta and angles may be in lower
case, as in NanoAOD.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pidgan.application.names import of_track, own_name, with_track
from pidgan.application.quantile_map import QuantileMap
from pidgan.arguments import check_fields
from pidgan.bundle.card import CardVariable
from pidgan.errors import NtupleError, nearest
from pidgan.files.trees import Source, TreeInfo
from pidgan.sample.cuts import Columns
from pidgan.sample.pidcalib_names import CHARGES as CHARGE_PATTERNS
from pidgan.sample.variables import DERIVATIONS, PACKAGE_UNITS, UNIT_FACTORS

_T = TypeVar("_T")

CHARGES = ("CHARGE", "trackcharge")
"""Names of the charge in Run 3, and before."""

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
    **dict.fromkeys(CHARGES, (("charge_from_pdg_id", ("ID",)),)),
}
"""Derivations of a condition without a branch, from {track}_NAME branches."""

OF_THE_TRACK = {"ID"}
"""Parts whose branch has the name of the track; a column "id" is something else."""

KINEMATIC = {*DERIVED, *(part for d in DERIVED.values() for _, p in d for part in p)}
KINEMATIC -= OF_THE_TRACK
"""Names whose branches may be in lower case."""

MEMBERS_NAMED = 5
"""Members of an object that a message names."""

UNIT_CHECK_ENTRIES = 10_000
"""Entries whose median is compared with the trained range."""


@dataclass(frozen=True, kw_only=True)
class FoundCondition:
    """A condition and where an ntuple holds it.

    Attributes:
        inputs: The branches to read.
        derive: Name of the derivation from these branches, None for a branch itself.
        unit: Unit of the stored or derived values.
        scale: Known ratio of data to simulation, by which values are multiplied.
        quantile_map: Map from simulation to data, instead of a factor.
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
        if self.quantile_map is None:
            return origin
        return f"quantile map {self.quantile_map.mark} of {origin}"

    def evaluate(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return the values (n,) in package units; a sentinel keeps its value."""
        arrays = [np.asarray(columns[n], dtype=np.float64) for n in self.inputs]
        if self.derive is not None:
            with np.errstate(all="ignore"):
                values = DERIVATIONS[self.derive][1](*arrays)
        else:
            values = arrays[0]
        factor = UNIT_FACTORS[self.unit]
        is_shifted = self.scale != 1.0 or self.quantile_map is not None
        if factor != 1.0 or is_shifted:
            shifted = values * factor * self.scale
            if self.quantile_map is not None:
                shifted = self.quantile_map.evaluate(shifted)
            if is_shifted and self.variable.integer:
                shifted = np.rint(shifted)
            kept = np.isin(values, self.variable.sentinels)
            values = np.where(kept, values, shifted)
        with np.errstate(over="ignore"):
            return np.asarray(values, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Where an ntuple holds the conditions of tracks, and how their values are changed.

    Keys are CONDITION for every track, or TRACK.CONDITION for one. What is not given
    here has its default.

    Attributes:
        branches: Branch that holds a condition, or a part from which a condition is
            derived, such as PT for P; `{track}` in it is replaced.
        units: Unit of the stored values, "MeV" or "GeV".
        scales: Factor for the values in package units, such as the ratio of data to
            simulation for `nTracks`. Whole numbers stay whole.
        quantile_maps: Map made by `make_quantile_map`, or its file, which is opened.

    Raises:
        NtupleError: The file of a quantile map cannot be opened.

    Example:
        >>> found = Conditions(units={"P": "GeV"}, scales={"Kplus.nTracks": 1.15})
    """

    branches: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    quantile_maps: Mapping[str, QuantileMap | str | Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        opened = {n: QuantileMap.open(given) for n, given in self.quantile_maps.items()}
        object.__setattr__(self, "quantile_maps", opened)

    @property
    def opened_maps(self) -> dict[str, QuantileMap]:
        """The quantile maps, all open."""
        maps = self.quantile_maps.items()
        return {name: found for name, found in maps if isinstance(found, QuantileMap)}

    def record(self) -> dict[str, dict[str, Any]]:
        """Return what a manifest says of them, ready for JSON."""
        return {
            "branches": dict(self.branches),
            "units": dict(self.units),
            "scale": dict(self.scales),
            "quantile_map": {
                name: {"simulation": list(found.simulation), "data": list(found.data)}
                for name, found in self.opened_maps.items()
            },
        }

    def check(self, names: Mapping[str, set[str]]) -> None:
        """Raise if a key is no condition of a track, or a scale is not positive."""
        parts = {t: {*found, *_parts(found)} for t, found in names.items()}
        kinds: dict[str, Mapping[str, Any]] = {
            "branch": self.branches,
            "unit": self.units,
            "scale": self.scales,
            "quantile map": dict.fromkeys(self.quantile_maps, "..."),
        }
        for kind, given in kinds.items():
            allowed = parts if kind == "branch" else names
            known = {name for found in allowed.values() for name in found}
            known |= {f"{t}.{name}" for t, found in allowed.items() for name in found}
            for name, value in given.items():
                if name not in known:
                    raise NtupleError(
                        f"{kind} {name}={value}: no such condition; expected one of "
                        f"{', '.join(sorted(known))}{nearest(name, known)}"
                    )
        for name, scale in self.scales.items():
            if not (math.isfinite(scale) and scale > 0):
                raise NtupleError(f"scale {name}={scale:g}: expected a positive number")

    def find(
        self,
        variables: Sequence[CardVariable],
        track: str,
        source: Source,
        tree: TreeInfo,
        *,
        others: AbstractSet[str] = frozenset(),
    ) -> tuple[FoundCondition, ...]:
        """Return where a tree holds conditions.

        `others` are the names of conditions that are not looked for. An NtupleError
        tells which condition has no branch, an unknown unit, or a scale and a quantile
        map, or which branch is named and not used.
        """
        found = []
        names = {variable.name for variable in variables}
        parts = _parts(names) - others
        named = self._named(names | parts, _parts(names), track, source, tree)
        for variable in variables:
            name = variable.name
            scale = _given(self.scales, track, name) or 1.0
            quantile_map = _given(self.opened_maps, track, name)
            if scale != 1.0 and quantile_map is not None:
                raise NtupleError(
                    f"{name}{of_track(track)} has a scale and a quantile map; give one"
                )
            unit = _given(self.units, track, name) or variable.unit
            aliases = (u for u, own in PACKAGE_UNITS.items() if own == variable.unit)
            allowed = (variable.unit, *aliases)
            if unit not in allowed:
                raise NtupleError(
                    f"unit of {name}{of_track(track)} is {unit!r}, expected "
                    f"{' or '.join(allowed)}"
                )
            inputs, derive = _origin(variable, named, track, source, tree)
            found.append(
                FoundCondition(
                    variable=variable,
                    inputs=inputs,
                    derive=derive,
                    unit=unit,
                    scale=scale,
                    quantile_map=quantile_map,
                )
            )
        used = {branch for condition in found for branch in condition.inputs}
        for part in named.keys() & parts:
            if named[part] not in used:
                raise NtupleError(
                    f"{source}: {source.branch} {part}={named[part]}, named for "
                    f"{track or part}, is not used: no condition without a "
                    f"{source.branch} can be derived from it, got "
                    f"{'; '.join(f'{c.variable.name} = {c}' for c in found)}"
                )
        return tuple(found)

    def _named(
        self,
        wanted: AbstractSet[str],
        possible: AbstractSet[str],
        track: str,
        source: Source,
        tree: TreeInfo,
    ) -> dict[str, str]:
        """Return branches that the user names; those that are wanted must be there."""
        named = {}
        for name in sorted(wanted | possible):
            given = _given(self.branches, track, name)
            if given is None:
                continue
            branch = with_track(given, track)
            if branch not in tree.branches and name not in wanted:
                continue
            if branch not in tree.branches:
                raise NtupleError(
                    f"{source} has no {source.branch} {branch!r}, named for condition "
                    f"{name}{of_track(track)}{nearest(branch, tree.types)}"
                )
            named[name] = branch
        return named


def check_numbers(
    branches: Sequence[str], tree: TreeInfo, source: Source, track: str
) -> None:
    """Raise if a branch that a track needs is missing or holds no numbers."""
    for_track = f" for {track}" if track else ""
    for name in branches:
        if name not in tree.branches:
            raise NtupleError(
                f"{source} has no {source.branch} {name!r}, needed"
                f"{for_track}{nearest(name, tree.types)}"
            )
        if name not in tree.types:
            members = (n for n in tree.types if n.startswith((f"{name}.", f"{name}/")))
            listed = ", ".join(map(repr, itertools.islice(members, MEMBERS_NAMED)))
            raise NtupleError(
                f"{source}, {source.branch} {name!r}, needed{for_track}, is of type "
                f"{tree.branches[name]}, expected one number or an array of numbers "
                f"per entry{'; in it: ' if listed else ''}{listed}"
            )


_LOOKS_LIKE = {
    (False, 1e3): "GeV",
    (True, 1e-3): "MeV",
    (False, 1e-3): "keV",
    (True, 1e3): "TeV",
}
"""Unit of a momentum by whether it is taken as GeV, and the factor that it lacks."""


def check_units(
    conditions: Sequence[FoundCondition], columns: Columns, source: Source, track: str
) -> None:
    """Raise if the median of a condition says that its unit is not the one assumed.

    The columns are the first `UNIT_CHECK_ENTRIES` rows of the branches.
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
        for factor in (1e3, 1e-3):
            if not low <= median <= high and low <= median * factor <= high:
                is_large = UNIT_FACTORS[condition.unit] > 1
                got = _LOOKS_LIKE[is_large, factor]
                fix = f"multiply it by {factor:g} first"
                if got in ("MeV", "GeV"):
                    fix = f"give {_unit_hint(source, variable.name, got)}"
                raise NtupleError(
                    f"{source}: {', '.join(map(repr, condition.inputs))} for condition "
                    f"{variable.name}{of_track(track)} looks like {got} where "
                    f"{condition.unit} is expected: median {median:.4g} MeV, trained "
                    f"range {low:g} to {high:g} MeV; {fix}"
                )


def _origin(
    variable: CardVariable,
    named: Mapping[str, str],
    track: str,
    source: Source,
    tree: TreeInfo,
) -> tuple[tuple[str, ...], str | None]:
    """Return the branches of a condition in a tree, and their derivation.

    The user may have named the branches of conditions and of parts of derivations.
    """
    name = variable.name
    if name in named:
        return (named[name],), None
    others = CHARGE_PATTERNS if name in CHARGES else ()
    patterns = [*variable.patterns, f"{{track}}_{name}", *others, name]
    tried = [with_track(pattern, track) for pattern in patterns]
    branch = _first(tried, tree.branches)
    if branch is not None:
        return (branch,), None
    present = tree.branches

    def own(part: str) -> str:
        return own_name(track, part)

    for spellings in ((own,), (own, lambda n: own(n.lower())), (str, str.lower)):
        branch = _first([spell(name) for spell in spellings], present)
        if branch is not None and name in KINEMATIC:
            return (branch,), None
        for derive, parts in DERIVED.get(name, ()):
            inputs = [
                named.get(part)
                or _first(
                    [
                        spell(part)
                        for spell in (spellings if part in KINEMATIC else (own,))
                    ],
                    present,
                )
                for part in parts
            ]
            if all(inputs):
                return tuple(filter(None, inputs)), derive
    raise NtupleError(
        f"{source} has no {source.branch} for condition {name}{of_track(track)}: tried "
        f"{', '.join(dict.fromkeys(tried))}{nearest(tried[0], tree.types)}; "
        f"{_name_hint(source, name, tree)}"
    )


def _name_hint(source: Source, name: str, tree: TreeInfo) -> str:
    """Return how to name the branch of a condition, on the command line or in Python.

    Rows in memory may hold the condition of a track with a prefix.
    """
    if source.table is None:
        return f"name it with --branch {name}=BRANCH"
    end = f"_{name}"
    tracks = [n.removesuffix(end) for n in tree.types if n.endswith(end)]
    prefix = f"give track={tracks[0]!r}, or " if any(tracks[:1]) else ""
    return f"{prefix}name it, columns={{{name!r}: COLUMN}}"


def _unit_hint(source: Source, name: str, unit: str) -> str:
    """Return how to give the unit of a condition."""
    if source.table is None:
        return f"--unit {name}={unit}"
    return f"units={{{name!r}: {unit!r}}}"


def _parts(names: AbstractSet[str]) -> set[str]:
    """Return the quantities from which some conditions are derived."""
    derived = {part for n in names for _, parts in DERIVED.get(n, ()) for part in parts}
    return derived - names


def _first(branches: Sequence[str], present: Mapping[str, str]) -> str | None:
    """Return the first branch that is present."""
    return next((branch for branch in branches if branch in present), None)


def _given(values: Mapping[str, _T], track: str, name: str) -> _T | None:
    """Return the value for a condition of a track, or of every track."""
    return values.get(f"{track}.{name}", values.get(name))
