"""One track of an analysis ntuple: its branches, conditions and generators."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.application import several_tracks
from pidgan.application.conditions import FoundCondition, check_numbers
from pidgan.application.generators import TrackGenerator, TrackGenerators
from pidgan.application.names import labelled, own_name, with_track
from pidgan.application.request import Request
from pidgan.application.sample_cuts import SampleCut, find_sample_cuts
from pidgan.application.several_tracks import Shape
from pidgan.bundle.when import SPECIES
from pidgan.errors import NtupleError
from pidgan.files.trees import BranchType, Source, TreeInfo
from pidgan.sample.cuts import Cut, parse_cut

Rows = Mapping[str, npt.NDArray[Any]]
"""Columns with one row for each track."""

# Bits of the status. Tracks with a bit of WITHOUT_TARGETS get no generated targets.
OUTSIDE_RANGE = np.int8(1)  # a condition lies outside the trained range
MISSING = np.int8(2)  # a condition is no number, category or physical value
NO_BUNDLE = np.int8(4)  # there is no bundle for the species
OUTSIDE_FIDUCIAL = np.int8(8)  # the fiducial cut of the sample fails
NOT_SELECTED = np.int8(16)  # the selection fails; old values may stay
UNMATCHED = np.int8(32)  # the PDG id is 0: a track without a true particle
DECAYED = np.int8(64)  # the true particle comes from a decay in flight

STATUS_BITS = {
    "outside_range": OUTSIDE_RANGE,
    "missing_condition": MISSING,
    "no_bundle": NO_BUNDLE,
    "outside_fiducial": OUTSIDE_FIDUCIAL,
    "not_selected": NOT_SELECTED,
    "unmatched": UNMATCHED,
    "decayed_in_flight": DECAYED,
}

WITHOUT_TARGETS = MISSING | NO_BUNDLE | NOT_SELECTED

DECAYS_IN_FLIGHT = (211, 321, 13)
"""PDG ids of charged particles that reach the detector and decay in it: c tau of 7.8,
3.7 and 659 m (Particle Data Group)."""

TARGET = np.dtype(np.float32)
STATUS = np.dtype(np.int8)
"""Types of the new branches."""


@dataclass(frozen=True, kw_only=True)
class TrackPlan:
    """A track in one tree: its generators with their conditions there.

    Attributes:
        label: Tree and track, for messages.
        used: Generators that are planned, by their numbers in `all_generators`.
        widths: Number of values per track, by target: None for a single number, the
            number of cells for a view of showers.
        selection: Cut that a track must pass to get new targets.
        read: Branches to read, with their types.
        shape: Shape of the tracks in an entry: () for one, (None,) for any number.
        like: A branch with the same number of tracks in each entry; None unless their
            number varies.
        sample_cuts: Cuts on the probe of the calibration sample of each generator.
    """

    name: str
    label: str
    request: Request
    all_generators: TrackGenerators
    used: tuple[int, ...]
    conditions: tuple[tuple[FoundCondition, ...], ...]
    widths: Mapping[str, int | None]
    selection: Cut | None
    read: Mapping[str, BranchType] = field(default_factory=dict)
    shape: Shape = ()
    like: str | None = None
    sample_cuts: tuple[tuple[SampleCut, ...], ...] = ()

    @property
    def generators(self) -> tuple[TrackGenerator, ...]:
        """The generators that are planned."""
        return tuple(self.all_generators.members[k] for k in self.used)

    @property
    def truth(self) -> tuple[str, ...]:
        """Branches with the PDG ids of the track and of its mother, if asked for."""
        species, mother = self.choosing.get(SPECIES), self.request.mother_from
        own = () if species is None else (species,)
        return own if mother is None else (*own, own_name(self.name, mother))

    @property
    def choosing(self) -> Mapping[str, str]:
        """Branches whose values choose a generator, by column."""
        return self.all_generators.branches

    @property
    def kept(self) -> tuple[str, ...]:
        """Branches whose values stay where the selection fails."""
        is_asked = self.request.elsewhere == "keep"
        return tuple(map(self.branch, self.widths)) if is_asked else ()

    @property
    def kept_status(self) -> tuple[str, ...]:
        """The status that stays with these values, if an earlier pass wrote one."""
        status = self.branch("pidgan_status")
        return (status,) if self.kept and status in self.read else ()

    @property
    def identity(self) -> tuple[str, ...]:
        """Branches whose values make the noise key; empty if entries are numbered."""
        key = self.request.key
        own = tuple(with_track(name, self.name) for name in key)
        return own if own != key or not key else _unique(own, self.inputs)

    @property
    def identities(self) -> tuple[tuple[str, ...], ...]:
        """The same for each generator, of whose conditions only it depends."""
        key = self.request.key
        own = tuple(with_track(name, self.name) for name in key)
        is_track = own != key or not key
        return tuple(
            own if is_track else _unique(own, _inputs([conditions]))
            for conditions in self.conditions
        )

    def own_of(self, place: int) -> tuple[str, ...]:
        """Return the branches that one generator needs."""
        inputs = _inputs([self.conditions[place]])
        return _unique(inputs, self.identities[place] if self.request.key else ())

    @property
    def inputs(self) -> tuple[str, ...]:
        """Branches that hold conditions, in the order of their conditions' names."""
        return _inputs(self.conditions)

    @property
    def own(self) -> tuple[str, ...]:
        """Branches that hold the track itself."""
        of_track = (
            branch
            for name, branch in self.choosing.items()
            if self.read[branch].shape or name == SPECIES
        )
        return _unique(self.inputs, self.truth, of_track)

    @property
    def needed(self) -> tuple[str, ...]:
        """Branches to read."""
        selection = () if self.selection is None else self.selection.names
        chosen = self.choosing.values()
        kept = (*self.kept, *self.kept_status)
        parts = (self.inputs, self.identity, self.truth, chosen, selection, kept)
        cuts = (cut.inputs for own in self.sample_cuts for cut in own)
        return _unique(*parts, *cuts)

    @property
    def types(self) -> dict[str, BranchType]:
        """The new branches with their types, the status last."""
        types = {}
        for target, width in self.widths.items():
            branch = self.branch(target)
            number = self.read[branch].number if branch in self.kept else TARGET
            shape = self.shape if width is None else (width,)
            types[branch] = BranchType(number, shape)
        return types | {self.branch("pidgan_status"): BranchType(STATUS, self.shape)}

    @property
    def mapping(self) -> dict[str, str]:
        """Where each condition is found, for a reader."""
        return {c.variable.name: str(c) for found in self.conditions for c in found}

    def branch(self, target: str) -> str:
        """Return the name of the branch of a target."""
        return f"{own_name(self.name, target)}{self.request.suffix}"


def plan_track(
    track: str,
    generators: TrackGenerators,
    request: Request,
    *,
    source: Source,
    tree: TreeInfo,
    used: Sequence[int] | None = None,
) -> TrackPlan:
    """Return the plan of a track in one tree; raise if a branch is missing.

    Only generators that are `used` need their conditions there; None stands for those
    whose conditions are there, of which one must be.
    """
    where = request.where
    found = _find_conditions(track, generators, request, source, tree, used)
    plan = TrackPlan(
        name=track,
        label=labelled(source, track),
        request=request,
        all_generators=generators,
        used=tuple(found),
        conditions=tuple(found.values()),
        widths={
            target: None if part is None else part.stop - part.start
            for one in generators.members
            for target, part in one.outputs.items()
        },
        selection=None
        if where is None
        else parse_cut(with_track(where, track), names=tree.branches),
    )
    check_numbers(plan.needed, tree, source, track)
    types = {name: tree.types[name] for name in plan.needed}
    plan = replace(plan, read=types)
    shape = several_tracks.common_shape(types, own=plan.own, where=plan.label)
    like = next((name for name in plan.own if types[name].shape == (None,)), None)
    plan = replace(plan, shape=shape, like=like)
    _check_kinds(plan)
    cuts = tuple(
        find_sample_cuts(
            one.generator.card,
            track,
            own,
            request.conditions,
            source=source,
            tree=tree,
            shape=shape,
        )
        for one, own in zip(plan.generators, plan.conditions, strict=True)
    )
    plan = replace(plan, sample_cuts=cuts)
    needed = list(plan.needed)
    status = plan.branch("pidgan_status")
    if plan.kept and tree.types.get(status) == BranchType(STATUS, shape):
        needed.append(status)
    return replace(plan, read={name: tree.types[name] for name in needed})


def _find_conditions(
    track: str,
    generators: TrackGenerators,
    request: Request,
    source: Source,
    tree: TreeInfo,
    used: Sequence[int] | None,
) -> dict[int, tuple[FoundCondition, ...]]:
    """Return where a tree holds the conditions of generators, by their number."""
    found: dict[int, tuple[FoundCondition, ...]] = {}
    problems: list[NtupleError] = []
    for number in range(len(generators.members)) if used is None else used:
        card = generators.members[number].generator.card
        try:
            where = request.conditions.find(card.inputs, track, source, tree)
        except NtupleError as error:
            if used is not None:
                raise
            problems.append(error)
        else:
            found[number] = where
    if not found and problems:
        raise problems[0]
    return found


def _unique(*parts: Iterable[str]) -> tuple[str, ...]:
    """Return the names of all parts, each once."""
    return tuple(dict.fromkeys(itertools.chain(*parts)))


def _check_kinds(plan: TrackPlan) -> None:
    """Raise if old values cannot stay, or if showers do not fit the branches."""
    for name in plan.kept:
        kind = plan.read[name]
        if kind.shape != plan.shape or kind.number.kind != "f":
            raise NtupleError(
                f"{plan.label}: {name!r} is of type {kind}, expected "
                f"{BranchType(TARGET, plan.shape)} to keep its values"
            )
    are_showers = any(width is not None for width in plan.widths.values())
    if are_showers and (plan.shape or plan.kept):
        raise NtupleError(
            f"{plan.label}: showers need one particle per entry (scalar branches) and "
            f"do not work with --elsewhere keep; got branches of shape {plan.shape}"
        )


def _inputs(conditions: Iterable[Iterable[FoundCondition]]) -> tuple[str, ...]:
    """Return the branches that hold conditions, in the order of these."""
    found = {
        (condition.variable.name, name): name
        for own in conditions
        for condition in own
        for name in condition.inputs
    }
    return _unique([found[place] for place in sorted(found)])
