"""Maps and tables as they are given to `pidgan efficiency`, with shares of periods."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pidgan.cli import options

MAP_OR_TABLE = ("map", "maps", "csv", "parquet")


def look_at_maps(context: click.Context, param: Any, texts: Sequence[str]) -> Any:
    """Look at what lies at MAP.json of TRACK=MAP.json texts, and return the texts."""
    for text, _ in map(split_share, texts):
        path = text if Path(text).exists() else text.partition("=")[2]
        if path:
            kinds = ("map", "maps") if param.name == "maps" else MAP_OR_TABLE
            options.check_kind(path, *kinds, param=param, ctx=context)
    return texts


def split_share(text: str) -> tuple[str, float | None]:
    """Return a text without the share at its end, and the share."""
    start, separator, end = text.rpartition("=")
    if Path(text).exists() or not (start and separator):
        return text, None
    try:
        return start, float(end)
    except ValueError:
        return text, None


def parse_periods(
    tracks: Sequence[str], maps: Sequence[str]
) -> list[tuple[float | None, dict[str, Any]]]:
    """Return the share of each period and its maps by track; None without shares.

    The first map of each track is that of the first period.
    """
    split = [split_share(text) for text in maps]
    alone = [split_share(text) for text in tracks]
    shares = [share for _, share in (*split, *alone)]
    if all(share is None for share in shares):
        return [(None, parse_maps(tracks, maps))]
    if any(share is not None for _, share in alone):
        raise click.UsageError("shares of periods belong to --map, not to --track")
    if bare := [text for text, share in split if share is None]:
        raise click.UsageError(
            f"{bare[0]!r} has no share, expected {bare[0]}=SHARE as for the other maps"
        )
    periods: list[dict[str, tuple[str, float]]] = []
    for text, share in split:
        owner = _owner(text)
        place = next((p for p in periods if owner not in p), None)
        if place is None:
            place = {}
            periods.append(place)
        place[owner] = text, float(share or 0)
    found: list[tuple[float | None, dict[str, Any]]] = []
    for number, own in enumerate(periods, start=1):
        both = {share for _, share in own.values()}
        if len(both) > 1:
            listed = ", ".join(f"{share:g}" for share in sorted(both))
            raise click.UsageError(
                f"the maps of period {number} have the shares {listed}, expected one: "
                "maps of a track belong to periods in the order in which they are given"
            )
        found.append(
            (both.pop(), parse_maps(tracks, [text for text, _ in own.values()]))
        )
    return found


def _owner(text: str) -> str:
    """Return the track of TRACK=MAP.json, empty for MAP.json."""
    is_shared = "=" not in text or Path(text).exists()
    return "" if is_shared else text.partition("=")[0]


def parse_maps(tracks: Sequence[str], maps: Sequence[str]) -> dict[str, Any]:
    """Return the maps of each track, of TRACK=MAP.json or of TRACK and MAP.json."""
    shared = [text for text in maps if "=" not in text or Path(text).exists()]
    alone = [text for text in tracks if "=" not in text]
    pairs: dict[str, Any] = options.parse_pairs(t for t in tracks if "=" in t)
    several: dict[str, list[str]] = {}
    for pair in (text for text in maps if "=" in text):
        ((name, value),) = options.parse_pairs([pair]).items()
        if name in pairs:
            raise click.UsageError(f"{name!r} is given twice")
        several.setdefault(name, []).append(value)
    pairs |= {name: own if len(own) > 1 else own[0] for name, own in several.items()}
    if shared and len(maps) == 1 and alone:
        return dict.fromkeys(alone, shared[0])
    if shared or not pairs:
        raise click.UsageError(
            f"--map {shared[0] if shared else 'is missing'}: expected TRACK=MAP.json "
            "for each track, or one MAP.json and --track TRACK"
        )
    given = [text.partition("=")[0] for text in tracks]
    names = given if alone else list(pairs)
    if sorted(names) != sorted(pairs):
        raise click.UsageError(
            f"tracks are {', '.join(names)}, but maps are given for {', '.join(pairs)}"
        )
    return {name: pairs[name] for name in names}
