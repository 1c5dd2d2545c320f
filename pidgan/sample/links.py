"""Links of a chain: which targets are generated together, given those before them.

A chain is a sample whose targets are generated in several steps, as detectors make
them: those of a link are generated given the conditions of the sample and the targets
of all earlier links.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from pidgan.errors import repeated
from pidgan.sample.variables import FROZEN, Variable

#: Links of a chain; the networks of each have a seed of their own.
MAX_LINKS = 10


#: Keys that each link has for itself; others are those of the first link.
OWN_KEYS = ("name", "title", "source", "targets", "binning", "map_binning")
#: Keys of which a link adds something to those of the links before.
ADDED_KEYS = ("cuts", "data_taking")
_CELLS = ("cells", "clusters")


class Link(BaseModel):
    """One link of a chain: its name, and the names of its targets, in order."""

    model_config = FROZEN

    name: str = Field(min_length=1)
    targets: tuple[str, ...] = Field(min_length=1)


def check_links(links: Sequence[Link], targets: Sequence[Variable]) -> None:
    """Raise a ValueError unless links have all targets once, in their order."""
    if not 2 <= len(links) <= MAX_LINKS:
        raise ValueError(f"a chain has 2 to {MAX_LINKS} links, got {len(links)}")
    if twice := repeated([link.name for link in links]):
        raise ValueError(f"links named more than once: {', '.join(twice)}")
    listed = [name for link in links for name in link.targets]
    names = [variable.name for variable in targets]
    if listed != names:
        raise ValueError(
            f"links have the targets {', '.join(listed)}; expected {', '.join(names)}, "
            "each once and in this order"
        )
    home = {name: link.name for link in links for name in link.targets}
    for variable in targets:
        for other in variable.at_most:
            if home[other] != home[variable.name]:
                raise ValueError(
                    f"at_most of {variable.name!r} names {other!r} of link "
                    f"{home[other]!r}; expected a target of its own link, "
                    f"{home[variable.name]!r}"
                )


def as_condition(target: Variable) -> Variable:
    """Return a target as a condition of the links after its own.

    Networks see its quantiles, and its frequent values apart, see
    `pidgan.training.conditions`.
    """
    update = {"transform": "quantiles", "step": None, "at_most": (), "patterns": ()}
    return target.model_copy(update=update)


def joined(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a definition, with that of all links if it has an `after`.

    A ValueError says what is not that of the links before: all links of a chain are
    rows of one sample.
    """
    own = dict(content)
    earlier = own.pop("after", None)
    if earlier is None:
        return own
    whole = joined(earlier)
    before, name = whole["name"], own["name"]
    for key in _CELLS:
        if key in whole or key in own:
            where = before if key in whole else name
            raise ValueError(
                f"after {before!r}: {where!r} has {key}; links of a chain have targets"
            )
    for key, value in own.items():
        if key not in (*OWN_KEYS, *ADDED_KEYS) and whole.get(key) != value:
            got, expected = (repr(v)[:60] for v in (value, whole.get(key)))
            raise ValueError(
                f"after {before!r}: {key} is {got}, expected {expected} as there: all "
                f"links are rows of one sample; leave {key!r} out"
            )
    targets, mine = list(whole["targets"]), own.get("targets")
    if not isinstance(mine, list) or not all(isinstance(t, dict) for t in mine):
        raise ValueError(f"after {before!r}: expected a list of 'targets', got {mine}")
    links = whole.get("links") or [{"name": before, "targets": _names(targets)}]
    _refuse_known(mine, whole, links)
    for key in ADDED_KEYS:
        own[key] = _added(key, whole.get(key), own.get(key), before)
    links = [*links, {"name": name, "targets": _names(mine)}]
    return whole | own | {"targets": targets + mine, "links": links}


def _names(targets: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [target.get("name") for target in targets]


def _refuse_known(
    targets: Sequence[Mapping[str, Any]],
    whole: Mapping[str, Any],
    links: Sequence[Mapping[str, Any]],
) -> None:
    """Raise a ValueError for a target that an earlier link has, or a condition."""
    for name in _names(targets):
        home = [link["name"] for link in links if name in link["targets"]]
        if home:
            raise ValueError(f"target {name!r} is one of link {home[0]!r} already")
        if name in _names(whole["conditions"]):
            raise ValueError(f"target {name!r} is a condition of the chain")


def _added(key: str, before: Any, mine: Any, name: str) -> Any:
    """Return cuts of all links, or what all know of the data."""
    if key == "cuts":
        return [*(before or []), *(mine or [])]
    both, new = before or {}, mine or {}
    for what in both.keys() & new.keys():
        if both[what] != new[what]:
            raise ValueError(
                f"after {name!r}: {key}.{what} is {new[what]!r}, expected "
                f"{both[what]!r} as there"
            )
    return both | new
