"""One track of an analysis ntuple: its conditions, generators and new branches."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.application import several_tracks
from pidgan.application.conditions import FoundCondition, check_numbers
from pidgan.application.request import Request, TrackGenerator
from pidgan.application.several_tracks import Counts, Shape
from pidgan.arrays import BoolArray
from pidgan.bundle import noise
from pidgan.bundle.bundle_file import BLOCK_ROWS
from pidgan.bundle.card import Generator
from pidgan.bundle.noise import UInt64Array
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
        widths: Number of values per track, by target: None for a single number, the
            number of cells for a view of showers.
        selection: Cut that a track must pass to get new targets.
        read: Branches to read, with their types.
        shape: Shape of the tracks in an entry: () for one, (None,) for any number.
        like: A branch with the same number of tracks in each entry; None unless their
            number varies.
    """

    name: str
    label: str
    request: Request
    generators: tuple[TrackGenerator, ...]
    conditions: tuple[tuple[FoundCondition, ...], ...]
    widths: Mapping[str, int | None]
    selection: Cut | None
    read: Mapping[str, BranchType] = field(default_factory=dict)
    shape: Shape = ()
    like: str | None = None

    @property
    def truth(self) -> tuple[str, ...]:
        """Branches with the PDG ids of the track and of its mother, if asked for."""
        names = (self.request.species_from, self.request.mother_from)
        return tuple(f"{self.name}_{name}" for name in names if name is not None)

    @property
    def kept(self) -> tuple[str, ...]:
        """Branches whose values stay where the selection fails."""
        is_asked = self.request.elsewhere == "keep"
        return tuple(map(self.branch, self.widths)) if is_asked else ()

    @property
    def identity(self) -> tuple[str, ...]:
        """Branches whose values make the noise key; empty if entries are numbered."""
        key = self.request.key
        own = tuple(name.replace("{track}", self.name) for name in key)
        return own if own != key or not key else _unique(own, self.inputs)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Branches that hold conditions, in the order of their conditions' names."""
        found = {
            (condition.variable.name, name): name
            for conditions in self.conditions
            for condition in conditions
            for name in condition.inputs
        }
        return _unique([found[place] for place in sorted(found)])

    @property
    def own(self) -> tuple[str, ...]:
        """Branches that hold the track itself."""
        return _unique(self.inputs, self.truth)

    @property
    def needed(self) -> tuple[str, ...]:
        """Branches to read."""
        selection = () if self.selection is None else self.selection.names
        return _unique(self.inputs, self.identity, self.truth, selection, self.kept)

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
        return f"{self.name}_{target}{self.request.suffix}"


def plan_track(
    track: str,
    generators: tuple[TrackGenerator, ...],
    request: Request,
    *,
    source: Source,
    tree: TreeInfo,
) -> TrackPlan:
    """Return the plan of a track in one tree; raise if a branch is missing."""
    where = request.where
    plan = TrackPlan(
        name=track,
        label=f"{source}, {track}",
        request=request,
        generators=generators,
        conditions=tuple(
            request.conditions.find(one.generator.card.conditions, track, source, tree)
            for one in generators
        ),
        widths={
            target: None if part is None else part.stop - part.start
            for one in generators
            for target, part in one.outputs.items()
        },
        selection=None
        if where is None
        else parse_cut(where.replace("{track}", track), names=tree.branches),
    )
    check_numbers(plan.needed, tree, source, track)
    types = {name: tree.types[name] for name in plan.needed}
    shape = several_tracks.common_shape(types, own=plan.own, where=plan.label)
    like = next((name for name in plan.own if types[name].shape == (None,)), None)
    plan = replace(plan, read=types, shape=shape, like=like)
    _check_kinds(plan)
    return plan


@dataclass(frozen=True, kw_only=True)
class NewBranches:
    """The new branches of a track for a chunk, in the shape of the track's own.

    `status` has a row for each track, and `outside` by condition the number of rows
    outside the trained range, or without a number, and of all that were judged.
    """

    arrays: dict[str, Any]
    status: npt.NDArray[np.int8]
    outside: dict[str, tuple[int, int]]


def generate_branches(
    track: TrackPlan, columns: Mapping[str, Any], *, start: int, threads: int = 1
) -> NewBranches:
    """Return the new branches of a track for a chunk.

    `start` is the running number of the first entry; the result does not depend on the
    number of threads.
    """
    rows, counts = several_tracks.lay_out(
        columns, track.needed, track.shape, where=track.label
    )
    keys = _keys(track, rows, counts, start)
    selected = np.ones(len(keys), dtype=np.bool_)
    if track.selection is not None:
        selected = track.selection.passes(rows, None)
    status = np.where(selected, np.int8(0), NOT_SELECTED)
    targets = {name: _initial(track, name, rows, selected) for name in track.widths}
    served, outside = ~selected, Counter[str]()
    judged = Counter[str]()
    for one, conditions in zip(track.generators, track.conditions, strict=True):
        chosen = one.serves(rows[track.truth[0]]) if track.truth else selected
        mine = np.flatnonzero(chosen & selected)
        served[mine] = True
        x = np.column_stack([c.evaluate(rows) for c in conditions])[mine]
        usable, flags, numbers = _judge(one.generator, x)
        outside.update(numbers)
        judged.update(dict.fromkeys(numbers, len(mine)))
        status[mine] |= flags
        mine = mine[usable]
        y = _generate(one.generator, x[usable], keys[mine], threads)
        # Where a transform of a condition has no value, such as log P at P <= 0.
        lost = ~np.isfinite(y).all(axis=1)
        y[lost], status[mine[lost]] = np.nan, MISSING
        for i, (target, part) in enumerate(one.outputs.items()):
            targets[target][mine] = y[:, i] if part is None else y[:, part]
    status[~served] |= NO_BUNDLE
    if track.truth:
        flags = _truth_flags(*(rows[name] for name in track.truth))
        status[selected] |= flags[selected]
    flat = {track.branch(target): column for target, column in targets.items()}
    flat[track.branch("pidgan_status")] = status
    nested = {
        name: several_tracks.restore(v, track.shape, counts) for name, v in flat.items()
    }
    return NewBranches(
        arrays=nested,
        status=status,
        outside={name: (outside[name], n) for name, n in judged.items()},
    )


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


def _keys(
    track: TrackPlan, rows: Rows, counts: Counts | None, start: int
) -> UInt64Array:
    """Return the noise key of each row."""
    seed = track.request.seed
    for name in track.identity:
        # A null would make whole numbers floats, in its chunk only.
        if rows[name].dtype.kind != track.read[name].number.kind:
            raise NtupleError(
                f"{track.label}: key branch {name!r} holds a null, expected numbers "
                "only"
            )
    if track.identity:
        return noise.column_keys([rows[name] for name in track.identity], seed=seed)
    entries = len(next(iter(rows.values())) if counts is None else counts)
    keys = noise.entry_keys(
        seed=seed, track=track.name, start=start, stop=start + entries
    )
    return keys if counts is None else noise.position_keys(keys, counts)


def _initial(
    track: TrackPlan, target: str, rows: Rows, selected: BoolArray
) -> npt.NDArray[Any]:
    """Return the column of a target before anything is generated."""
    branch, width = track.branch(target), track.widths[target]
    if branch in track.kept:
        return np.where(selected, rows[branch].dtype.type(np.nan), rows[branch])
    shape = (len(selected),) if width is None else (len(selected), width)
    return np.full(shape, np.nan, dtype=TARGET)


def _generate(
    generator: Generator,
    x: npt.NDArray[np.float32],
    keys: UInt64Array,
    threads: int,
) -> npt.NDArray[np.float32]:
    """Return targets (n, n_targets) of conditions and the keys of their noise."""
    y = np.empty((len(x), len(generator.card.targets)), dtype=np.float32)

    def fill(first: int) -> None:
        block = slice(first, first + BLOCK_ROWS)
        # Made by the thread that uses it, the noise stays in its cache.
        z = noise.keyed_normal(keys[block], n_noise=generator.card.n_noise)
        y[block] = generator.generate(x[block], z)

    starts = range(0, len(x), BLOCK_ROWS)
    if threads == 1 or len(starts) < 2:
        list(map(fill, starts))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, starts))
    return y


def _truth_flags(
    ids: npt.NDArray[Any], mothers: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.int8]:
    """Return the status bits that true identities give."""
    flags = np.where(ids == 0, UNMATCHED, np.int8(0))
    if mothers is not None:
        decayed = np.isin(np.abs(mothers), DECAYS_IN_FLIGHT) & (ids != 0)
        flags[decayed] |= DECAYED
    return flags


def _judge(
    generator: Generator, x: npt.NDArray[np.float32]
) -> tuple[BoolArray, npt.NDArray[np.int8], dict[str, int]]:
    """Return which rows of conditions can be used, and the status bits of all rows.

    The numbers are those of rows in which a condition is outside or cannot be used.
    """
    card, numbers = generator.card, {}
    usable: BoolArray = np.asarray(np.isfinite(x).all(axis=1))
    outside = np.zeros(len(x), dtype=np.bool_)
    for variable, values in zip(card.conditions, x.T, strict=True):
        known = np.isfinite(values)
        if variable.categories:
            known &= np.isin(values, np.array(variable.categories, dtype=np.float32))
            usable &= known
        low, high = np.array(variable.range, dtype=np.float32)
        sentinel = np.isin(values, np.array(variable.sentinels, dtype=np.float32))
        beyond = ((values < low) | (values > high)) & ~sentinel
        outside |= beyond
        numbers[variable.name] = int(np.count_nonzero(beyond | ~known))
    flags = np.zeros(len(x), dtype=np.int8)
    flags[~usable] |= MISSING
    flags[usable & outside] |= OUTSIDE_RANGE
    if card.sample.fiducial:
        cut = parse_cut(card.sample.fiducial, names=card.condition_names)
        columns = dict(zip(card.condition_names, x.T, strict=True))
        flags[usable & ~cut.passes(columns, None)] |= OUTSIDE_FIDUCIAL
    return usable, flags, numbers
