"""The denominator of an analysis: for each track, what it must pass to be counted.

What a term of a track names is a target or condition of its map, else a branch of the
track, `{track}_NAME`, else one of the event. Terms that the map was made with must be
there, and only those may name targets: the errors of a generator among some of the
responses are not its errors among all.
"""

import ast
import itertools
from collections.abc import Mapping, Sequence

from pidgan.application.sample_cuts import own_branch
from pidgan.efficiency.among import Denominator, parse_where, spelled
from pidgan.efficiency.selections import owner_of, without_prefix
from pidgan.efficiency.track_maps import Maps, TrackMap
from pidgan.errors import CutError, MapError, NtupleError, nearest
from pidgan.files.tables import TreeInfo
from pidgan.files.trees import Source
from pidgan.sample.cuts import parse_cut, plain_name, terms_of

Wheres = Mapping[str, Denominator]
"""Denominators by track; a track without one is not in it."""


def parse_wheres(where: str | None, maps: Maps) -> dict[str, Denominator]:
    """Return the denominator of each track; a MapError if it is not that of its map."""
    texts: dict[str, list[str]] = {track: [] for track in maps}
    for track, text in itertools.product(maps, () if where is None else (where,)):
        for term in terms_of(parse_cut(text.replace("{track}", track))):
            owners = {owner for name in term.names if (owner := owner_of(name, maps))}
            if len(owners) > 1:
                raise CutError(
                    f"where {where!r}: {term.text!r} is about several tracks, expected "
                    "terms about one track each, joined by &"
                )
            if not owners or track in owners:
                bare = ast.unparse(without_prefix(term.expression, track))
                texts[track].append(f"({bare})")
    found = {}
    for track, own in texts.items():
        given = maps[track]
        denominator = _denominator(" and ".join(own), given) if own else None
        _check(track, denominator, given, where)
        if denominator is not None:
            found[track] = denominator
    return found


def _denominator(text: str, given: TrackMap) -> Denominator:
    """Return a denominator; whatever the map does not know is a branch."""
    targets = [str(v["name"]) for v in given.metadata["targets"]]
    conditions = [str(v["name"]) for v in given.metadata["conditions"]]
    others = []
    for name in parse_cut(text).names:
        try:
            parse_cut(f"{name} > 0", names=given.names, aliases=given.aliases)
        except CutError:
            others.append(name)
    return parse_where(
        text,
        targets=targets,
        conditions=conditions,
        others=others,
        aliases=given.aliases,
    )


def _check(
    track: str, own: Denominator | None, given: TrackMap, where: str | None
) -> None:
    """Raise a MapError unless a denominator is that of a map, and rows besides."""
    terms = own.terms if own else ()
    wanted = [str(term) for term in given.metadata.get("where_terms", ())]
    among = given.metadata.get("where")
    if missing := [term for term in wanted if term not in terms]:
        asked = "without --where" if where is None else f"with --where {where!r}"
        raise MapError(
            f"{track}: the efficiencies of the map are those among {among!r}; got "
            f"{missing[0]!r} not asked for, {asked}; give --where {among!r}, or run "
            "systematics for another denominator"
        )
    on_targets = terms_of(own.targets) if own and own.targets else ()
    if more := [text for t in on_targets if (text := spelled(t)) not in wanted]:
        of = f"those among {among!r}" if among else "those of all tracks"
        raise MapError(
            f"{track}: --where {more[0]!r} names a target, but the efficiencies of the "
            f"map are {of}; run systematics with --where {where!r}"
        )


def find_others(
    track: str, own: Denominator | None, source: Source, tree: TreeInfo
) -> dict[str, str]:
    """Return the branches of columns that a map does not know, by their names."""
    found = {}
    for name in own.others if own else ():
        branch = own_branch(name, track, tree)
        if branch is None:
            wanted = f"{track}_{plain_name(name)}"
            raise NtupleError(
                f"{source}: --where needs {wanted!r} or {name!r} of {track}, and there "
                f"is no such branch{nearest(wanted, tree.branches)}"
            )
        found[name] = branch
    return found


def where_text(wheres: Wheres, n_left: int) -> Sequence[str]:
    """Say among which rows efficiencies are given."""
    texts = dict.fromkeys(" & ".join(own.terms) for own in wheres.values())
    return [f"among {' and '.join(texts)}; other rows, left out: {n_left}"]
