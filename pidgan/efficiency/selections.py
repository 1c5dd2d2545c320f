"""A PID selection of one or several tracks, split into one cut for each.

`Kplus_RichDLLk > 5 & piminus_RichDLLk < 0` is a cut on Kplus and one on piminus. Terms
joined by "and" are sorted by the prefix of the names in them; a term that compares two
tracks, or joins them by "or", is no product of efficiencies and is refused. A cut
without prefixes, `RichDLLk > 0`, is required of every track.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.table import TABLE_FILES, EfficiencyTable
from pidgan.efficiency.table_maps import open_table
from pidgan.efficiency.track_maps import GivenMap, Maps, TrackMap, TrackMaps, join_maps
from pidgan.errors import CutError, MapError, nearest
from pidgan.sample.cuts import Cut, cut_texts, parse_cut, terms_of


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selection, and by track the number of its cut in the map of that track."""

    text: str
    cuts: Mapping[str, int]


def parse_selection(text: str, maps: Maps) -> Selection:
    """Return which cut of its map a selection requires of each track."""
    cut = parse_cut(text)
    owners = {name: owner_of(name, maps) for name in cut.names}
    is_joint = any(owners.values())
    parts = _split(cut, owners) if is_joint else dict.fromkeys(maps, text)
    numbers = {track: _number(part, track, maps) for track, part in parts.items()}
    return Selection(text=text, cuts=numbers)


def parse_selections(cuts: str | Sequence[str] | None, maps: Maps) -> list[Selection]:
    """Return selections that use every track; None stands for all cuts of the maps."""
    texts = _shared_cuts(maps) if cuts is None else cut_texts(cuts)
    if not texts:
        raise ValueError("no cut given")
    selections = [parse_selection(text, maps) for text in texts]
    unused = [t for t in maps if not any(t in s.cuts for s in selections)]
    if unused:
        raise CutError(f"no cut is about {', '.join(unused)}; leave that track out")
    return selections


def open_maps(maps: Mapping[str, GivenMap]) -> dict[str, TrackMap]:
    """Return the efficiency maps by track, each file opened once.

    What is given for a track may be a folder of maps, or several of them.
    """
    if not isinstance(maps, Mapping):
        raise TypeError(
            f"maps is {maps!r}, expected a mapping of track to efficiency map, such as "
            "{'Kplus': 'kaon-map.json'}"
        )
    if not maps:
        raise ValueError("no track given, expected an efficiency map by track")
    opened: dict[str, EfficiencyMap] = {}
    found: dict[str, TrackMap] = {}
    for track, given in maps.items():
        if isinstance(given, TrackMaps):
            found[track] = given
            continue
        if isinstance(given, EfficiencyTable):
            found[track] = opened.setdefault(f"#{id(given)}", open_table(given))
            continue
        if isinstance(given, str | Path) and Path(given).suffix in TABLE_FILES:
            if str(given) not in opened:
                opened[str(given)] = open_table(given)
            found[track] = opened[str(given)]
            continue
        listed: list[Any] = [given]
        if not isinstance(given, str | Path | EfficiencyMap):
            listed = list(given)
        members: list[EfficiencyMap] = []
        for one in listed:
            if isinstance(one, EfficiencyMap):
                members.append(one)
                continue
            for path in _map_files(one):
                if path not in opened:
                    opened[path] = EfficiencyMap.open(path)
                members.append(opened[path])
        found[track] = join_maps(track, members)
    return found


def _map_files(given: str | Path) -> list[str]:
    """Return the file of a map, or those of a folder."""
    if not Path(given).is_dir():
        return [str(given)]
    files = [str(path) for path in sorted(Path(given).glob("*.json"))]
    if not files:
        raise MapError(f"{given} holds no efficiency map (*.json)")
    return files


def _shared_cuts(maps: Maps) -> tuple[str, ...]:
    """All cuts of the maps, which must be the same for every track."""
    (track, own), *others = maps.items()
    for other, found in others:
        if found.cuts != own.cuts:
            raise CutError(
                f"the efficiency map of {other} has other cuts than that of {track}; "
                "say which cuts are meant"
            )
    return own.cuts


def _number(text: str, track: str, maps: Maps) -> int:
    """Return the number of a cut in the map of a track; say which if it has none."""
    try:
        return maps[track].cut_index(text)
    except (MapError, CutError) as error:
        if len(maps) == 1:
            raise
        raise type(error)(f"{track}: {error}") from None


def owner_of(name: str, tracks: Iterable[str]) -> str | None:
    """Return the track whose prefix a name has; the longest, if one begins another."""
    found = [track for track in tracks if name.startswith(f"{track}_")]
    return max(found, key=len, default=None)


def _split(cut: Cut, owners: Mapping[str, str | None]) -> dict[str, str]:
    """Return the text of the cut on each track, without prefixes."""
    tracks = [track for track in owners.values() if track]
    parts: dict[str, list[str]] = {track: [] for track in dict.fromkeys(tracks)}
    for own in terms_of(cut):
        term, names = own.expression, own.names
        bare = next((name for name in names if owners[name] is None), None)
        if bare is not None:
            hints = [f"{track}_{bare}" for track in parts]
            raise CutError(
                f"cut {cut.text!r}: {bare!r} belongs to no track"
                f"{nearest(bare, hints) or f'; expected one of {hints}'}"
            )
        if len({owners[name] for name in names}) != 1:
            raise CutError(
                f"cut {cut.text!r}: {ast.unparse(term)!r} is about several tracks, "
                "expected terms about one track each, joined by &"
            )
        track = str(owners[names[0]])
        bare_text = ast.unparse(without_prefix(term, track))
        parts[track].append(f"({bare_text})" if " or " in bare_text else bare_text)
    return {track: " and ".join(terms) for track, terms in parts.items()}


def without_prefix(term: ast.expr, track: str) -> ast.AST:
    """Return a term with the names that the columns of a track have in a map."""
    stripped: ast.AST = _Stripper(f"{track}_").visit(ast.parse(ast.unparse(term)))
    return stripped


class _Stripper(ast.NodeTransformer):
    """Removes the prefix of a track from names."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(id=node.id.removeprefix(self.prefix), ctx=ast.Load())
