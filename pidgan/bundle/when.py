"""Values of columns that a bundle serves: read from a file, and written as text."""

import json
from collections.abc import Mapping
from typing import Any

from pidgan.arguments import brief
from pidgan.bundle.card import Card
from pidgan.bundle.choice import Ranges, When
from pidgan.errors import NtupleError
from pidgan.sample.species import charge_pair, pdg_id, species_name

SPECIES = "species"
"""Column with the PDG id of a track, whose values have names."""

MOST_VALUE = 2**53
"""Largest whole number that every type of column holds exactly."""

_SIGNS = {"+": 1, "1": 1, "+1": 1, "plus": 1, "up": 1}
_SIGNS |= {"-": -1, "-1": -1, "minus": -1, "down": -1}
"""What cards say of charges, and of polarities without "mag": LHCb's branch `Polarity`
is 1 for MagUp."""


def _number(column: str, value: Any) -> int:
    """Return a value of a column as a number, by its name if it is a particle's."""
    if column == SPECIES and isinstance(value, str):
        try:
            return pdg_id(value)
        except NtupleError as error:
            raise ValueError(str(error)) from None
    if type(value) is not int or abs(value) > MOST_VALUE:
        named = " or the name of a particle" if column == SPECIES else ""
        raise ValueError(
            f"{column} is {brief(value)}, expected a whole number{named}, or a list of "
            "numbers and ranges [first, last]"
        )
    return value


def _ranges(column: str, value: Any) -> Ranges:
    """Return the values of a column that a bundle serves as ranges."""
    found = []
    for one in value if isinstance(value, list | tuple) else [value]:
        pair = list(one) if isinstance(one, list | tuple) else [one, one]
        if len(pair) != 2:
            raise ValueError(
                f"{column} has a range {brief(one)}, expected [first, last]"
            )
        first, last = (_number(column, end) for end in pair)
        if first > last:
            raise ValueError(
                f"{column} has a range {brief(one)}, expected first <= last"
            )
        found.append((first, last))
    if not found:
        raise ValueError(f"{column} is an empty list, expected at least one value")
    return tuple(found)


def parse_when(content: Any) -> Any:
    """Return `when` with ranges for the values of each column."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{brief(content)}, expected columns and their values")
    return {name: _ranges(name, value) for name, value in content.items()}


def values_text(ranges: Ranges) -> str:
    """Return values as they are written in the file."""
    parts = [str(a) if a == b else f"[{a}, {b}]" for a, b in ranges]
    is_single = len(parts) == 1 and ranges[0][0] == ranges[0][1]
    return parts[0] if is_single else f"[{', '.join(parts)}]"


def species_text(ranges: Ranges) -> str:
    """Return species as they are written in the file, by name where there is one."""
    parts = [
        json.dumps(name) if a == b and _is_name(name := species_name(a), a) else pair
        for a, b in ranges
        for pair in [str(a) if a == b else f"[{a}, {b}]"]
    ]
    is_single = len(parts) == 1 and ranges[0][0] == ranges[0][1]
    return parts[0] if is_single else f"[{', '.join(parts)}]"


def _is_name(name: str, pdg: int) -> bool:
    """Return whether a name stands for a PDG id, and for no other one."""
    try:
        return pdg_id(name) == pdg
    except NtupleError:
        return False


def when_text(when: When) -> str:
    """Return the values that a bundle serves as they are written in the file."""
    return ", ".join(
        f"{name} = {(species_text if name == SPECIES else values_text)(ranges)}"
        for name, ranges in when.items()
    )


def card_values(card: Card) -> dict[str, Ranges]:
    """Return what a card says of the rows that its bundle serves."""
    return sample_values(card.species, card.sample.data_taking)


def sample_values(species: str, said: Mapping[str, str]) -> dict[str, Ranges]:
    """Return the rows that a bundle of a species, trained on such data, serves.

    Without a charge, the species has both.
    """
    own = pdg_id(species)
    sign, pair = _SIGNS.get(said.get("charge", "").lower()), charge_pair(own)
    ids = pair if sign is None else pair[:1] if sign > 0 else pair[-1:]
    found: dict[str, Ranges] = {SPECIES: tuple((i, i) for i in ids)}
    polarity = _SIGNS.get(said.get("polarity", "").lower().removeprefix("mag"))
    if polarity is not None:
        found["polarity"] = ((polarity, polarity),)
    for name in ("year", "block"):
        if (text := said.get(name, "")).isdecimal():
            found[name] = ((int(text), int(text)),)
    return found


def is_within(inner: Ranges, outer: Ranges) -> bool:
    """Return whether every range of one lies in a range of the other."""
    return all(any(c <= a and b <= d for c, d in outer) for a, b in inner)
