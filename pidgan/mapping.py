"""Which branches of an analysis ntuple hold the conditions of a generator.

A condition has a canonical name and default branch patterns; in this order a branch is
taken from the user's override, from the patterns, or derived from others by the closed
list of `pidgan.sample.DERIVATIONS`. `check_units` compares what is in the file with the
range that the generator was trained on, and refuses GeV where MeV is meant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.card import CardVariable
from pidgan.errors import NtupleError, nearest
from pidgan.ntuple import Source
from pidgan.sample import DERIVATIONS, UNIT_FACTORS

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
class Condition:
    """A condition and where an ntuple holds it.

    Attributes:
        variable: the condition, as the generator knows it.
        inputs: the branches to read.
        derive: a derivation of them, if not the branch itself.
        unit: unit of what is stored or derived.
    """

    variable: CardVariable
    inputs: tuple[str, ...]
    derive: str | None
    unit: str

    def __str__(self) -> str:
        inputs = ", ".join(self.inputs)
        origin = inputs if self.derive is None else f"{self.derive}({inputs})"
        return origin if self.unit == "1" else f"{origin} [{self.unit}]"

    def evaluate(self, columns: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Return the values (n,) in package units; a sentinel keeps its value."""
        arrays = [columns[name].to_numpy(dtype=np.float64) for name in self.inputs]
        if self.derive is not None:
            with np.errstate(all="ignore"):
                values = DERIVATIONS[self.derive][1](*arrays)
        else:
            values = arrays[0]
        factor = UNIT_FACTORS[self.unit]
        if factor != 1.0:
            kept = np.isin(values, self.variable.sentinels)
            values = np.where(kept, values, values * factor)
        with np.errstate(over="ignore"):
            return np.asarray(values, dtype=np.float32)


def find_conditions(
    variables: Sequence[CardVariable],
    track: str,
    source: Source,
    present: Mapping[str, str],
    *,
    branches: Mapping[str, str],
    units: Mapping[str, str],
) -> tuple[Condition, ...]:
    """Return where a tree holds each condition of a generator.

    Args:
        variables: the conditions, as the generator's card describes them.
        track: prefix of the track's branches.
        source: the tree, for messages.
        present: its branches.
        branches: overrides, CONDITION or TRACK.CONDITION to a branch (in which
            `{track}` is replaced).
        units: likewise, to the unit of what is stored.

    Raises:
        NtupleError: a condition has no branch, or its unit makes no sense.
    """
    return tuple(
        _find(variable, track, source, present, branches=branches, units=units)
        for variable in variables
    )


def check_overrides(
    overrides: Mapping[str, str], conditions: Mapping[str, set[str]], *, option: str
) -> None:
    """Raise if an override addresses a track or condition that does not exist.

    Args:
        overrides: CONDITION or TRACK.CONDITION to whatever.
        conditions: names of the conditions of each track.
        option: name of the argument, for messages.
    """
    known = {name for names in conditions.values() for name in names}
    known |= {
        f"{track}.{name}" for track, names in conditions.items() for name in names
    }
    for name in overrides:
        if name not in known:
            raise NtupleError(
                f"{option} {name}={overrides[name]}: no such condition; expected one "
                f"of {', '.join(sorted(known))}{nearest(name, known)}"
            )


def check_units(
    conditions: tuple[Condition, ...], frame: pd.DataFrame, source: Source, track: str
) -> None:
    """Raise if the median of a condition says that its unit is not the one assumed.

    Args:
        conditions: of one generator.
        frame: the first `UNIT_CHECK_ENTRIES` entries of their branches.
        source: the tree, for messages.
        track: prefix of the track's branches, for messages.
    """
    for condition in conditions:
        variable = condition.variable
        if variable.unit != "MeV":
            continue
        values = condition.evaluate(frame)
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
    *,
    branches: Mapping[str, str],
    units: Mapping[str, str],
) -> Condition:
    """Return where a tree holds one condition."""
    name = variable.name
    unit = _override(units, track, name) or variable.unit
    allowed = ("MeV", "GeV") if variable.unit == "MeV" else (variable.unit,)
    if unit not in allowed:
        raise NtupleError(
            f"unit of {name} of {track} is {unit!r}, expected {' or '.join(allowed)}"
        )
    given = _override(branches, track, name)
    if given is not None:
        given = given.replace("{track}", track)
        if given not in present:
            raise NtupleError(
                f"{source} has no branch {given!r}, named for condition {name} of "
                f"{track}{nearest(given, present)}"
            )
        return Condition(variable=variable, inputs=(given,), derive=None, unit=unit)
    patterns = [*variable.patterns, f"{{track}}_{name}", name]
    tried = [pattern.replace("{track}", track) for pattern in patterns]
    for branch in tried:
        if branch in present:
            return Condition(
                variable=variable, inputs=(branch,), derive=None, unit=unit
            )
    for derive, parts in DERIVED.get(name, ()):
        inputs = tuple(f"{track}_{part}" for part in parts)
        if all(branch in present for branch in inputs):
            return Condition(variable=variable, inputs=inputs, derive=derive, unit=unit)
    raise NtupleError(
        f"{source} has no branch for condition {name} of {track}: tried "
        f"{', '.join(dict.fromkeys(tried))}{nearest(tried[0], present)}; name it with "
        f"--branch {name}=BRANCH"
    )


def _override(overrides: Mapping[str, str], track: str, name: str) -> str | None:
    """Return what is given for a condition of a track, or of every track."""
    return overrides.get(f"{track}.{name}", overrides.get(name))
