"""The bundles of a campaign: every combination of the values of its axes."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pidgan.bundle.collection import MOST_BUNDLES
from pidgan.campaign.definition import Campaign, Options, listed, parsed
from pidgan.errors import CampaignError, nearest

DATA_TAKING = ("year", "polarity", "charge", "block", "tuning")
"""Axes that a sample definition knows as conditions of the data taking."""

NAMED = ("sample", "files", "prepare.sweights_from")
"""Texts in which `{axis}` is replaced, beside the names of bundles."""

_PLACE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A bundle that a campaign makes.

    Attributes:
        name: Name of all that belongs to it.
        values: Its value of each axis.
        options: How it is made, with the values in place of `{axis}`.
    """

    name: str
    values: Mapping[str, str | int]
    options: Options

    @property
    def data_taking(self) -> dict[str, str]:
        """Conditions of the data taking that the axes state."""
        return {n: str(v) for n, v in self.values.items() if n in DATA_TAKING}


def planned_bundles(campaign: Campaign) -> list[Planned]:
    """Return the bundles of a campaign, in the order of its axes.

    Raises:
        CampaignError: The grid is empty, a name is impossible or is there twice, or a
            change is for no bundle.
    """
    _check_grid(campaign)
    found = list(_bundles(campaign))
    where = campaign.path
    if not found:
        raise CampaignError(f"{where}: every bundle is left out")
    seen: dict[str, Planned] = {}
    for one in found:
        if not _NAME.fullmatch(one.name):
            raise CampaignError(
                f"{where}: name {one.name!r} of a bundle, expected at most 100 "
                "letters, digits, '_' and '-'; give `name`, a text with {axis}"
            )
        # File systems may know no case.
        other = seen.setdefault(one.name.lower(), one)
        if other is not one:
            raise CampaignError(
                f"{where}: two bundles have the name {one.name!r}, that of "
                f"{_values_text(other.values)} and that of {_values_text(one.values)}; "
                "`name` needs all axes"
            )
    return found


def _check_grid(campaign: Campaign) -> None:
    where, grid = campaign.path, campaign.head.grid
    if not grid:
        raise CampaignError(
            f"{where}: the grid is empty, expected an axis, such as "
            'sample = ["run2_dstar_k"]'
        )
    total = 1
    for name, values in grid.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise CampaignError(f"{where}: grid has {name!r}, which is no name")
        if not values:
            raise CampaignError(f"{where}: grid.{name} is an empty list")
        if len({str(value) for value in values}) < len(values):
            raise CampaignError(
                f"{where}: grid.{name} has a value twice: {listed(values)}"
            )
        total *= len(values)
    if total > MOST_BUNDLES:
        raise CampaignError(
            f"{where}: the grid has {total} bundles, expected at most {MOST_BUNDLES}"
        )
    for number, change in enumerate(campaign.head.change, 1):
        for name, wanted in change.when.items():
            here = f"{where}: change {number}: when"
            if name not in grid:
                raise CampaignError(
                    f"{here} has the axis {name!r}, which the grid lacks"
                    f"{nearest(name, grid)}"
                )
            known = {str(value) for value in grid[name]}
            for value in wanted:
                if str(value) not in known:
                    raise CampaignError(
                        f"{here}.{name} has {value!r}, which grid.{name} lacks"
                        f"{nearest(str(value), known)}"
                    )


def _bundles(campaign: Campaign) -> Iterator[Planned]:
    """Yield the bundles that are not left out."""
    grid = campaign.head.grid
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        content, is_left_out = dict(campaign.options), False
        for change in campaign.head.change:
            if all(
                str(values[name]) in map(str, wanted)
                for name, wanted in change.when.items()
            ):
                content = _merged(content, change.options)
                is_left_out = is_left_out or change.leave_out
        if is_left_out:
            continue
        if "sample" in values:
            content.setdefault("sample", str(values["sample"]))
        name = _name(campaign, values)
        where = f"{campaign.path}: bundle {name}"
        options = parsed(Options, content, where)
        texts: dict[str, Any] = {
            "sample": _filled(options.sample, values, f"{where}: sample"),
            "files": tuple(
                _filled(one, values, f"{where}: files") for one in options.files
            ),
        }
        prepare = options.prepare
        if prepare.sweights_from is not None:
            place = f"{where}: prepare.sweights_from"
            own = {"sweights_from": _filled(prepare.sweights_from, values, place)}
            texts["prepare"] = prepare.model_copy(update=own)
        yield Planned(
            name=name, values=values, options=options.model_copy(update=texts)
        )


def _name(campaign: Campaign, values: Mapping[str, str | int]) -> str:
    """Return the name of a bundle: the one asked for, or its values."""
    plain = {axis: _plain(str(value)) for axis, value in values.items()}
    if campaign.head.name:
        return _filled(campaign.head.name, plain, f"{campaign.path}: name")
    # An axis with one value tells nothing apart.
    telling = [n for n in values if len(campaign.head.grid[n]) > 1] or list(values)[:1]
    return "-".join(plain[name] for name in telling)


def _plain(text: str) -> str:
    """Return a value as a part of the name of a file: "Kplus", "pi0"."""
    stem = text.rpartition("/")[2].removesuffix(".toml")
    named = stem.replace("+", "plus").replace("~", "bar")
    named = re.sub(r"-(?=$|_)", "minus", named)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", named).strip("_")


def _filled(text: str, values: Mapping[str, Any], where: str) -> str:
    """Return a text with the value of an axis in place of each `{axis}`."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise CampaignError(
                f"{where}: {{{name}}} in {text!r} is no axis of the grid"
                f"{nearest(name, values)}"
            )
        return str(values[name])

    return _PLACE.sub(value, text)


def _merged(content: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables with the values of a change; tables within are merged too."""
    merged = dict(content)
    for name, value in change.items():
        old = merged.get(name)
        is_table = isinstance(old, dict) and isinstance(value, dict)
        merged[name] = _merged(old or {}, value) if is_table else value
        if name == "train" and isinstance(value, dict):
            # A length of the training takes the place of the other one.
            for one, other in (("steps", "budget"), ("budget", "steps")):
                if one in value and other not in value:
                    merged[name].pop(other, None)
    return merged


def _values_text(values: Mapping[str, str | int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())
