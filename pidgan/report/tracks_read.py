"""Conditions of the tracks of ntuples and tables, read as `apply` reads them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pidgan.application.conditions import (
    KINEMATIC,
    UNIT_CHECK_ENTRIES,
    Conditions,
    FoundCondition,
    check_numbers,
    check_units,
)
from pidgan.application.record import find_made
from pidgan.application.several_tracks import common_shape, lay_out
from pidgan.bundle.card import CardVariable
from pidgan.errors import NtupleError
from pidgan.files import tables
from pidgan.files.trees import Source, TreeInfo
from pidgan.sample.variables import WEIGHT

SHOWN_TRACKS = 8
"""Tracks that a message lists."""


def read_tracks(
    sources: Sequence[Source],
    variables: Sequence[CardVariable],
    *,
    track: str = "",
    species: str = "",
    conditions: Conditions | None = None,
    weights: str | None = None,
) -> tuple[str, pd.DataFrame]:
    """Return a track, and the conditions and "weight" of its rows in ntuples.

    Without a track, the only one that has generated columns of the species is taken,
    or the only one with all conditions.
    """
    where, chosen = conditions or Conditions(), track
    frames: list[pd.DataFrame] = []
    for source in sources:
        info = tables.describe_tree(source)
        if not chosen:
            chosen = _only_track(source, info, variables, where, _made(source, species))
        wanted = _branches(source, info, variables, chosen, where, weights)[1]
        chunks = tables.iterate_entries(source, wanted)
        frames += _read(chunks, source, info, variables, chosen, where, weights)
    return chosen, pd.concat(frames, ignore_index=True)


def _branches(
    source: Source,
    info: TreeInfo,
    variables: Sequence[CardVariable],
    track: str,
    conditions: Conditions,
    weights: str | None,
) -> tuple[tuple[FoundCondition, ...], list[str]]:
    """Return where a tree holds the conditions of a track, and all that is read."""
    conditions.check({track: {v.name for v in variables}})
    found = conditions.find(variables, track, source, info)
    own = [name for condition in found for name in condition.inputs]
    names = list(dict.fromkeys([*own, *([weights] if weights else [])]))
    check_numbers(names, info, source, track or "the track")
    return found, names


def _read(
    chunks: Iterator[dict[str, Any]],
    source: Source,
    info: TreeInfo,
    variables: Sequence[CardVariable],
    track: str,
    conditions: Conditions,
    weights: str | None,
) -> Iterator[pd.DataFrame]:
    """Yield conditions and weights of chunks of a tree."""
    found, names = _branches(source, info, variables, track, conditions, weights)
    own = [name for condition in found for name in condition.inputs]
    where = f"{source}, {track}"
    types = {name: info.types[name] for name in names}
    shape = common_shape(types, own=own, where=where)
    for number, arrays in enumerate(chunks):
        rows, _ = lay_out(arrays, names, shape, where=where)
        if number == 0:
            head = {name: values[:UNIT_CHECK_ENTRIES] for name, values in rows.items()}
            check_units(found, head, source, track)
        columns: dict[str, Any] = {c.variable.name: c.evaluate(rows) for c in found}
        n = len(next(iter(rows.values())))
        w = np.asarray(rows[weights], np.float64) if weights else np.ones(n)
        yield pd.DataFrame({**columns, WEIGHT: w})


def _made(source: Source, species: str) -> list[str]:
    """Return the tracks with generated columns of a species, as the record says."""
    return [
        track
        for track, parts in find_made(source).items()
        if any(one.get("species") == species for part in parts for one in part.bundles)
    ]


def _only_track(
    source: Source,
    info: TreeInfo,
    variables: Sequence[CardVariable],
    conditions: Conditions,
    made: Sequence[str],
) -> str:
    """Return the only track of a tree that has all conditions, or is recorded."""
    if len(made) == 1:
        return made[0]
    parts = {v.name for v in variables} | KINEMATIC
    parts |= {p.lower() for p in KINEMATIC}
    prefixes = [""]
    for name in info.branches:
        prefix, _, last = name.rpartition("_")
        if prefix and last in parts and prefix not in prefixes:
            prefixes.append(prefix)
    found, problem = [], None
    for prefix in prefixes:
        try:
            conditions.find(variables, prefix, source, info)
        except NtupleError as error:
            problem = problem or error
        else:
            found.append(prefix)
    if len(found) == 1:
        return found[0]
    if not found:
        names = ", ".join(v.name for v in variables)
        raise NtupleError(
            f"{source}: no track has all conditions, {names}; name one with --track "
            f"({problem})"
        )
    listed = ", ".join(found[:SHOWN_TRACKS])
    raise NtupleError(
        f"{source} has {len(found)} tracks with all conditions: {listed}; name one "
        "with --track"
    )
