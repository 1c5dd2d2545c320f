"""What `apply` was told about a track, which nobody has to tell again.

The record in a file has the branches, units, scales and quantile maps of conditions,
the branch of the PDG id and the suffix. They are the defaults here. What is given all
the same must not contradict them; `pidgan.efficiency.proof` compares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pidgan.application.conditions import Conditions
from pidgan.application.quantile_map import QuantileMap
from pidgan.application.record import Made

_KINDS = {"branches": "branches", "units": "units", "scales": "scale"}
"""Options of conditions, and their names in a record."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """Options of a track, given or recorded."""

    conditions: Conditions
    species_from: str | None
    suffix: str


def told(
    made: Sequence[Made],
    track: str,
    given: Told,
    *,
    branches: Mapping[str, Any],
) -> Told:
    """Return the options of a track in a tree with these branches.

    Parts of a file that were made with different options tell nothing.
    """
    suffixes = {str(one.request.get("suffix", "")) for one in made}
    suffix = given.suffix
    if not suffix and len(suffixes) == 1:
        (suffix,) = suffixes
    own = [one for one in made if one.request.get("suffix", "") == suffix]
    requests = [one.request for one in own]
    if not requests:
        return given
    first, *others = ({name: r.get(name) for name in _TOLD} for r in requests)
    if any(other != first for other in others):
        return replace(given, suffix=suffix)
    species_from = given.species_from
    recorded = first["species_from"]
    if species_from is None and recorded and f"{track}_{recorded}" in branches:
        species_from = str(recorded)
    return Told(
        conditions=_merged(first, track, given.conditions),
        species_from=species_from,
        suffix=suffix,
    )


_TOLD = (*_KINDS.values(), "quantile_map", "species_from")


def _merged(request: Mapping[str, Any], track: str, given: Conditions) -> Conditions:
    """Return the conditions of a track: those that are given, else those recorded."""
    found: dict[str, Mapping[str, Any]] = {}
    for kind, name in _KINDS.items():
        own = _of_track(getattr(given, kind), track)
        found[kind] = {**_of_track(request[name] or {}, track), **own}
    maps = {
        name: QuantileMap(
            simulation=tuple(map(float, values["simulation"])),
            data=tuple(map(float, values["data"])),
        )
        for name, values in _of_track(request["quantile_map"] or {}, track).items()
    }
    maps |= _of_track(given.opened_maps, track)
    # A scale that is given is meant instead of a recorded map, and the reverse.
    scales, own_maps = (
        _of_track(values, track) for values in (given.scales, given.opened_maps)
    )
    maps = {n: m for n, m in maps.items() if n in own_maps or n not in scales}
    kept = {n: s for n, s in found["scales"].items() if n in scales or n not in maps}
    return Conditions(
        branches=found["branches"],
        units=found["units"],
        scales=kept,
        quantile_maps=maps,
    )


def _of_track(values: Mapping[str, Any], track: str) -> dict[str, Any]:
    """Return the values for one track, by condition."""
    start = f"{track}."
    common = {name: value for name, value in values.items() if "." not in name}
    own = {
        name.removeprefix(start): value
        for name, value in values.items()
        if name.startswith(start)
    }
    return common | own
