"""Where a tree holds the tracks, maps and cuts of an efficiency, with its proof."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pidgan.application.conditions import Conditions, FoundCondition, check_numbers
from pidgan.application.names import own_name
from pidgan.application.several_tracks import Shape, common_shape
from pidgan.bundle.card import CardVariable
from pidgan.efficiency.binning import Binning, by_condition
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.made_by import MadeBy, MadeInPasses, find_made_by
from pidgan.efficiency.proof import Proof
from pidgan.efficiency.recorded import Told, told
from pidgan.efficiency.track_maps import (
    MapPart,
    Maps,
    TrackMap,
    as_track_maps,
    is_table,
    parts_of,
)
from pidgan.efficiency.track_where import Wheres, find_others
from pidgan.errors import MapError, NtupleError
from pidgan.files import tables
from pidgan.sample.cuts import Cut, parse_cut


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `pid_efficiency` reads; `cuts` are their numbers in the map, by track.

    `key` are the branches that identify an event, if not those of the record, and
    `where` the denominators.
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
    trust: bool = False
    where: Wheres = field(default_factory=dict)
    progress: bool = False

    @property
    def told(self) -> dict[str, Any]:
        """Options that the record of a file may have."""
        return {name: getattr(self, name) for name in Told.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class MapPlan:
    """Where a tree holds what one map of a track needs."""

    part: MapPart
    cuts: Mapping[int, Cut]
    targets: Mapping[str, str]
    conditions: tuple[FoundCondition, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Branches of targets and conditions."""
        inputs = [name for condition in self.conditions for name in condition.inputs]
        return tuple(dict.fromkeys([*self.targets.values(), *inputs]))


@dataclass(frozen=True, kw_only=True)
class TrackPlan:
    """Where a tree holds a track: `own` are its branches, `needed` those to read.

    `made_by` says which map serves which row; None if one serves all. `others` are the
    branches of columns of the denominator that no map knows.
    """

    track: str
    maps: Sequence[MapPlan]
    made_by: MadeBy | MadeInPasses | None
    status: str | None
    species: str | None
    own: Sequence[str]
    needed: Sequence[str]
    shape: Shape
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def conditions(self) -> tuple[FoundCondition, ...]:
        """The conditions of all maps."""
        return tuple(c for one in self.maps for c in one.conditions)

    @property
    def targets(self) -> tuple[str, ...]:
        """Branches of the targets of all maps."""
        return tuple(dict.fromkeys(b for m in self.maps for b in m.targets.values()))


@dataclass(frozen=True, kw_only=True)
class TreePlan:
    """A tree, the tracks in it, the branches to read, and the proof of its columns.

    `key` are the branches that identify an event.
    """

    source: tables.Source
    tracks: Sequence[TrackPlan]
    shape: Shape
    branches: Sequence[str]
    key: Sequence[str]
    proof: Proof


def check_conditions(conditions: Conditions, maps: Maps) -> None:
    """Raise if something is given for a condition that no track's map has."""
    conditions.check(
        {
            track: {
                variable["name"]
                for one in as_track_maps(own).maps
                for variable in one.metadata["conditions"]
            }
            for track, own in maps.items()
        }
    )


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
    return conditions.find(variables, track, source, tree, others=others)


def _plan(track: str, proof: Proof, request: Request) -> TrackPlan:
    """Return where a tree holds a track; raise if it does not."""
    source, tree, given = proof.source, proof.info, request.maps[track]
    own = told_of(proof, track, Told(**request.told))
    request = replace(request, **vars(own))
    maps = [
        _plan_map(track, part, request.cuts[track], proof, request)
        for part in parts_of(given)
    ]
    status = f"{own_name(track, 'pidgan_status')}{request.suffix}"
    has_status = status in tree.branches and not is_table(given)
    asked = request.species_from
    species = own_name(track, asked) if asked else None
    inputs = [name for one in maps for name in one.inputs]
    plan = TrackPlan(
        track=track,
        maps=maps,
        made_by=None,
        status=status if has_status else None,
        species=species,
        own=[*inputs, *([status] if has_status else [])],
        needed=[],
        shape=(),
    )
    check_numbers(plan.own, tree, source, track)
    made_by = _prove(plan, given, proof, request)
    others = find_others(track, request.where.get(track), source, tree)
    chosen = [*(made_by.branches.values() if made_by else ()), *others.values()]
    needed = list(dict.fromkeys([*plan.own, *([species] if species else []), *chosen]))
    check_numbers(needed, tree, source, track)
    types = {name: tree.types[name] for name in needed}
    shape = common_shape(types, own=plan.own, where=f"{source}, {track}")
    return replace(plan, made_by=made_by, needed=needed, shape=shape, others=others)


def told_of(proof: Proof, track: str, given: Told) -> Told:
    """Return the options of a track in a tree, those of its record included."""
    made = proof.made.get(track, [])
    suffixes = sorted({str(one.request.get("suffix", "")) for one in made})
    if not given.suffix and len(suffixes) > 1 and "" not in suffixes:
        raise MapError(
            f"{proof.source}: columns of {track} were generated with several suffixes, "
            f"{', '.join(suffixes)}; give one, --suffix {suffixes[0]}"
        )
    return told(made, track, given, branches=proof.info.branches)


def _plan_map(
    track: str, part: MapPart, cuts: Sequence[int], proof: Proof, request: Request
) -> MapPlan:
    """Return where a tree holds what a map needs for cuts of the track."""
    found = part.map
    parse = partial(parse_cut, names=found.names, aliases=found.aliases)
    # Responses do not matter for a table.
    wanted = () if found.is_table else cuts
    parsed = {number: parse(found.cuts[part.numbers[number]]) for number in wanted}
    named = {name for cut in parsed.values() for name in cut.names}
    if own := request.where.get(track):
        terms = (*own.rows, *([own.targets] if own.targets else ()))
        named |= {n for term in terms for n in term.names}.difference(own.others)
    return MapPlan(
        part=part,
        cuts=parsed,
        targets={
            v["name"]: f"{own_name(track, v['name'])}{request.suffix}"
            for v in found.metadata["targets"]
            if v["name"] in named
        },
        conditions=find_track_conditions(
            track,
            found,
            proof.source,
            proof.info,
            needed=[*named, *found.binning],
            conditions=request.conditions,
        ),
    )


def _prove(
    plan: TrackPlan, given: TrackMap, proof: Proof, request: Request
) -> MadeBy | MadeInPasses | None:
    """Add what a track needs to the proof; return which map serves which rows."""
    if is_table(given):
        return None
    proof.require(
        plan.track,
        given,
        [*plan.targets, *([plan.status] if plan.status else [])],
        conditions=plan.conditions,
        species_from=request.species_from,
    )
    proof.check(trust=request.trust)
    return find_made_by(f"{proof.source}, {plan.track}", proof.own[plan.track], given)


def plan_tree(proof: Proof, request: Request, key: Sequence[str]) -> TreePlan:
    """Return where a tree holds what is asked for; raise if something is missing."""
    source, tree = proof.source, proof.info
    plans = [_plan(track, proof, request) for track in request.maps]
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
    return TreePlan(
        source=source,
        tracks=plans,
        shape=shape,
        branches=branches,
        key=key,
        proof=proof,
    )


def _one_shape(plans: Sequence[TrackPlan], source: tables.Source) -> Shape:
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
