"""Rows of analysis ntuples: where each track lies in its map, and which cuts it passes.

A row is an entry, or a track of a collection. With several tracks, a row is used if
every one of them has targets and, where species are asked for, is of its species.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.application.conditions import (
    UNIT_CHECK_ENTRIES,
    Conditions,
    FoundCondition,
    check_numbers,
    check_units,
)
from pidgan.application.several_tracks import Shape, common_shape, lay_out
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.card import CardVariable
from pidgan.bundle.noise import UInt64Array, entry_keys
from pidgan.efficiency.binning import Binning, bin_index, by_condition, choose_edges
from pidgan.efficiency.efficiency_map import EfficiencyMap, Maps
from pidgan.efficiency.events import Events, event_keys, find_events, find_keys
from pidgan.errors import MapError, NtupleError, PidganWarning
from pidgan.files import tables
from pidgan.sample.cuts import Cut, parse_cut

INVALID_STATUS = 2 | 4 | 16
"""Bits of the status column: a condition is missing; no bundle for the species; the
selection of `apply` fails."""


@dataclass(frozen=True, kw_only=True)
class TrackRows:
    """A track in each row (n,).

    `place` is the bin of its map, -1 outside; `passed` whether it passes a cut, by the
    number of the cut in the map.
    """

    place: IntArray
    passed: Mapping[int, BoolArray]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The n rows that are used, each in a bin `cell` of the analysis, -1 outside.

    `n_invalid` rows have no targets and are left out; `origin` says, by file and tree,
    how many rows it has and the numbers of those used. `events` has the event of each
    row, None if each row is one, by the branches `key` if these are known.
    """

    tracks: Mapping[str, TrackRows]
    weights: FloatArray
    cell: IntArray
    binning: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    n_invalid: int = 0
    origin: Mapping[str, tuple[int, IntArray]] = field(default_factory=dict)
    events: Events | None = None
    key: tuple[str, ...] = ()

    def take(self, chosen: IntArray) -> "Rows":
        """Return some of the rows, without where they come from."""
        tracks = {
            track: TrackRows(
                place=own.place[chosen],
                passed={k: flags[chosen] for k, flags in own.passed.items()},
            )
            for track, own in self.tracks.items()
        }
        return Rows(
            tracks=tracks,
            weights=self.weights[chosen],
            cell=self.cell[chosen],
            binning=self.binning,
            events=None if self.events is None else self.events.take(chosen),
            key=self.key,
        )


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `pid_efficiency` reads; `cuts` are their numbers in the map, by track.

    `key` are the branches that identify an event, if not those of the record.
    """

    maps: Maps
    cuts: Mapping[str, Sequence[int]]
    suffix: str
    species_from: str | None
    weights: str | None
    binning: Binning
    conditions: Conditions
    chunk: int
    key: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Where a tree holds a track: `own` are its branches, `needed` those to read."""

    track: str
    efficiency_map: EfficiencyMap
    cuts: Mapping[int, Cut]
    targets: Mapping[str, str]
    conditions: tuple[FoundCondition, ...]
    status: str | None
    species: str | None
    own: Sequence[str]
    needed: Sequence[str]
    shape: Shape


def read_rows(files: str | Path | Sequence[str | Path], request: Request) -> Rows:
    """Return the rows of all files; raise if none can be used."""
    check_conditions(request.conditions, request.maps)
    sources = tables.find_sources(files)
    for path in dict.fromkeys(source.path for source in sources):
        check_bundles(path, request.maps, request.suffix)
    keys = find_keys(sources, request.maps, request.key)
    by_source = {
        _identity(s): list(_read_source(s, request, key))
        for s, key in zip(sources, keys, strict=True)
    }
    parts = [part for found in by_source.values() for part in found]
    n_invalid = sum(part.n_invalid for part in parts)
    if not any(len(part.kept) for part in parts):
        species = {t: own.metadata["species"] for t, own in request.maps.items()}
        ids = [f"{t}_{request.species_from} = {own}" for t, own in species.items()]
        which = f" with {' and '.join(ids)}" if request.species_from else ""
        raise MapError(
            f"{', '.join(map(str, sources))}: no usable row for {', '.join(species)}"
            f"{which} ({n_invalid} without targets)"
        )
    joined = {
        name: np.concatenate([part.arrays[name] for part in parts])
        for name in parts[0].arrays
    }
    origin = {name: _origin(found) for name, found in by_source.items()}
    weights = joined["", "weight"]
    columns = {name: joined[None, name] for name in by_condition(request.binning)}
    edges = choose_edges(request.binning, columns, weights)
    if n_invalid:
        warnings.warn(
            f"{n_invalid} of {n_invalid + len(weights)} rows have no generated targets "
            f"for {' and '.join(request.maps)} and are left out",
            PidganWarning,
            stacklevel=3,
        )
    return Rows(
        tracks={
            track: TrackRows(
                place=joined[track, "place"],
                passed={number: joined[track, number] for number in numbers},
            )
            for track, numbers in request.cuts.items()
        },
        weights=weights,
        cell=bin_index(columns, edges) if edges else np.zeros(len(weights), np.int64),
        binning=edges,
        n_invalid=n_invalid,
        origin=origin,
        events=_events(by_source, origin),
        key=keys[0] if len(set(keys)) == 1 else (),
    )


def check_bundles(path: str, maps: Maps, suffix: str = "") -> None:
    """Raise if the manifest of a file says that a track has another species.

    A file without a manifest, or with columns of another suffix, is not judged.
    """
    try:
        content = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        bundles, own = content["bundles"], content["request"]["suffix"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for track, efficiency_map in maps.items():
        wanted = efficiency_map.metadata.get("bundle_sha256")
        found = bundles.get(track, []) if own == suffix else []
        if not found or wanted is None or wanted in [b["sha256"] for b in found]:
            continue
        species = efficiency_map.metadata["species"]
        names = [str(bundle["species"]) for bundle in found]
        made = ", ".join(f"{b['path']} ({b['species']})" for b in found)
        if species not in names:
            raise MapError(
                f"{path}: {track} was generated by {made}, but its efficiency map is "
                f"for {species}; give the map of {' or '.join(dict.fromkeys(names))}"
            )
        warnings.warn(
            f"{path}: {track} was generated by {made}, but its efficiency map was "
            "measured for another bundle; run systematics for this one",
            PidganWarning,
            stacklevel=4,
        )


def check_places(rows: Rows, maps: Maps, *, refuse: bool) -> None:
    """Warn of rows outside the maps, or refuse them."""
    for track, efficiency_map in maps.items():
        n_outside = np.count_nonzero(rows.tracks[track].place < 0)
        if not n_outside:
            continue
        edges = efficiency_map.binning.items()
        limits = ", ".join(f"{name} {e[0]:g} to {e[-1]:g}" for name, e in edges)
        which = f" of {track}" if len(maps) > 1 else ""
        message = (
            f"{n_outside} of {len(rows.weights)} rows lie outside the efficiency "
            f"map{which} ({limits})"
        )
        if refuse:
            raise MapError(message)
        warnings.warn(
            f"{message}; they are not corrected, and the uncertainty grows",
            PidganWarning,
            stacklevel=4,
        )


def check_conditions(conditions: Conditions, maps: Maps) -> None:
    """Raise if something is given for a condition that no track's map has."""
    known = {track: own.metadata["conditions"] for track, own in maps.items()}
    conditions.check({t: {v["name"] for v in found} for t, found in known.items()})


def find_track_conditions(
    track: str,
    efficiency_map: EfficiencyMap,
    source: tables.Source,
    tree: tables.TreeInfo,
    *,
    needed: Sequence[str],
    conditions: Conditions,
) -> tuple[FoundCondition, ...]:
    """Return where a tree holds the needed conditions of a map for a track."""
    written = efficiency_map.metadata["conditions"]
    known = {v.name: v for v in map(CardVariable.model_validate, written)}
    variables = [variable for name, variable in known.items() if name in needed]
    others = known.keys() - set(needed)
    return conditions.find(variables, track, source, tree.branches, others=others)


def _identity(source: tables.Source) -> str:
    """Name of a tree that does not depend on how its path is spelled."""
    path = source.path if "://" in source.path else os.path.realpath(source.path)
    return f"{path}:{source.tree}"


def _origin(parts: Sequence["_Part"]) -> tuple[int, IntArray]:
    """Return the rows of a tree, and the numbers of those that are used."""
    starts = np.cumsum([0, *(part.n_read for part in parts)])
    used = [part.kept + start for part, start in zip(parts, starts, strict=False)]
    return int(starts[-1]), np.concatenate(used)


def _events(
    by_source: Mapping[str, Sequence["_Part"]],
    origin: Mapping[str, tuple[int, IntArray]],
) -> Events | None:
    """Return the events of the used rows; None if every row of every tree is one."""
    if all(part.event is None for found in by_source.values() for part in found):
        return None
    keys = []
    for name, found in by_source.items():
        known = [part.event for part in found if part.event is not None]
        n, used = origin[name]
        own = known or [entry_keys(seed=0, track=name, start=0, stop=n)[used]]
        keys += own
    return find_events(np.concatenate(keys))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Arrays of the used rows of a chunk, `kept` of those that were read.

    `event` has a hash of the event of each, None if each entry is a row and an event.
    """

    arrays: Mapping[tuple[str | None, str | int], npt.NDArray[Any]]
    event: UInt64Array | None
    kept: IntArray
    n_read: int
    n_invalid: int


def _plan(
    track: str, source: tables.Source, tree: tables.TreeInfo, request: Request
) -> _Plan:
    """Return where a tree holds a track; raise if it does not."""
    found = request.maps[track]
    parse = partial(parse_cut, names=found.names, aliases=found.aliases)
    cuts = {number: parse(found.cuts[number]) for number in request.cuts[track]}
    named = {name for cut in cuts.values() for name in cut.names}
    targets = {
        v["name"]: f"{track}_{v['name']}{request.suffix}"
        for v in found.metadata["targets"]
        if v["name"] in named
    }
    conditions = find_track_conditions(
        track,
        found,
        source,
        tree,
        needed=[*named, *found.binning],
        conditions=request.conditions,
    )
    status = f"{track}_pidgan_status{request.suffix}"
    has_status = status in tree.branches
    species = f"{track}_{request.species_from}" if request.species_from else None
    inputs = [name for condition in conditions for name in condition.inputs]
    own = [*targets.values(), *inputs, *([status] if has_status else [])]
    needed = [*own, *([species] if species else [])]
    check_numbers(needed, tree, source, track)
    types = {name: tree.types[name] for name in needed}
    return _Plan(
        track=track,
        efficiency_map=found,
        cuts=cuts,
        targets=targets,
        conditions=conditions,
        status=status if has_status else None,
        species=species,
        own=own,
        needed=needed,
        shape=common_shape(types, own=own, where=f"{source}, {track}"),
    )


def _read_source(
    source: tables.Source, request: Request, key: Sequence[str]
) -> Iterator[_Part]:
    """Read one tree in chunks; `key` are the branches that identify an event."""
    tree = tables.describe_tree(source)
    plans = [_plan(track, source, tree, request) for track in request.maps]
    shape = _one_shape(plans, source)
    names = ", ".join(request.maps)
    extra = list(by_condition(request.binning))
    extra += [request.weights] if request.weights else []
    extra += key
    check_numbers(extra, tree, source, names)
    needed = [name for plan in plans for name in plan.needed]
    branches = list(dict.fromkeys([*needed, *extra]))
    where = f"{source}, {names}"
    types = {name: tree.types[name] for name in branches}
    common_shape(types, own=[n for plan in plans for n in plan.own], where=where)
    chunks = tables.iterate_entries(source, branches, chunk=request.chunk)
    first = 0
    for number, arrays in enumerate(chunks):
        rows, counts = lay_out(arrays, branches, shape, where=where)
        head = {name: v[:UNIT_CHECK_ENTRIES] for name, v in rows.items()}
        for plan in plans if number == 0 else ():
            check_units(plan.conditions, head, source, plan.track)
        event = event_keys(key, rows) if key else None
        if not key and counts is not None:
            stop, name = first + len(counts), _identity(source)
            entries = entry_keys(seed=0, track=name, start=first, stop=stop)
            event, first = np.repeat(entries, counts), stop
        yield _read_chunk(rows, plans, request, event)


def _one_shape(plans: Sequence[_Plan], source: tables.Source) -> Shape:
    """Return the shape of all tracks, which must agree."""
    first, *others = plans
    for plan in others:
        if plan.shape != first.shape:
            raise NtupleError(
                f"{source}: {first.track} holds {_described(first.shape)} and "
                f"{plan.track} {_described(plan.shape)}; expected the same of both for "
                "a joint selection"
            )
    return first.shape


def _described(shape: Shape) -> str:
    if shape == ():
        return "one track an entry"
    return f"{'any number of' if shape[0] is None else shape[0]} tracks an entry"


def _read_chunk(
    rows: Mapping[str, npt.NDArray[Any]],
    plans: Sequence[_Plan],
    request: Request,
    event: UInt64Array | None,
) -> _Part:
    """Return the rows of a chunk that are used."""
    n = len(next(iter(rows.values())))
    chosen, valid = np.ones(n, dtype=np.bool_), np.ones(n, dtype=np.bool_)
    arrays: dict[tuple[str | None, str | int], npt.NDArray[Any]] = {}
    for plan in plans:
        columns = {name: rows[branch] for name, branch in plan.targets.items()}
        columns |= {c.variable.name: c.evaluate(rows) for c in plan.conditions}
        if plan.species:
            ids = rows[plan.species].astype(np.float64)
            chosen &= np.abs(ids) == abs(plan.efficiency_map.metadata["pdgid"])
        for values in columns.values():
            valid &= ~np.isnan(np.asarray(values, dtype=np.float64))
        if plan.status:
            valid &= (rows[plan.status].astype(np.int64) & INVALID_STATUS) == 0
        targets = plan.efficiency_map.metadata["targets"]
        sentinels = {v["name"]: tuple(v["sentinels"]) for v in targets}
        arrays[plan.track, "place"] = bin_index(columns, plan.efficiency_map.binning)
        for number, cut in plan.cuts.items():
            arrays[plan.track, number] = cut.passes(columns, sentinels)
    keep = chosen & valid
    weights = rows[request.weights] if request.weights else np.ones(n)
    arrays |= {(None, name): rows[name] for name in by_condition(request.binning)}
    arrays["", "weight"] = np.asarray(weights, dtype=np.float64)
    return _Part(
        arrays={key: values[keep] for key, values in arrays.items()},
        event=None if event is None else event[keep],
        kept=np.flatnonzero(keep),
        n_read=n,
        n_invalid=int(np.count_nonzero(chosen & ~valid)),
    )
