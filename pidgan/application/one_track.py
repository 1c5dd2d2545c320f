"""One track of an analysis ntuple: its generators, conditions and new branches.

`open_generators` finds the bundles of a track, `plan_track` the branches that hold
their conditions in one tree, and `generate_branches` turns a chunk of these into the
targets and the status of the track. Files are the business of
`pidgan.application.apply`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pidgan.application.conditions import (
    Conditions,
    FoundCondition,
    check_numbers,
)
from pidgan.application.several_tracks import (
    Counts,
    Shape,
    common_shape,
    lay_out,
    restore,
)
from pidgan.bundle.bundle import BLOCK_ROWS, open_bundle
from pidgan.bundle.card import Card, Generator
from pidgan.bundle.noise import (
    UInt64Array,
    column_keys,
    entry_keys,
    keyed_normal,
    position_keys,
)
from pidgan.errors import NtupleError
from pidgan.files.tables import BranchType, Source, TreeInfo
from pidgan.sample.cuts import Cut, parse_cut
from pidgan.sample.species import pdg_id

Track: TypeAlias = str | Path | Generator
"""A bundle, a directory of bundles, or an open generator."""

OUTSIDE_RANGE = np.int8(1)
"""Status bit: a condition lies outside the trained range; targets are generated."""

MISSING = np.int8(2)
"""Status bit: a condition is NaN, infinite or no known category; targets are NaN."""

NO_BUNDLE = np.int8(4)
"""Status bit: there is no bundle for the species; targets are NaN."""

OUTSIDE_FIDUCIAL = np.int8(8)
"""Status bit: the fiducial cut of the sample fails; targets are generated."""

NOT_SELECTED = np.int8(16)
"""Status bit: the selection fails; targets are NaN, or what they were before."""

UNMATCHED = np.int8(32)
"""Status bit: the PDG id is 0, a track without a true particle; targets are NaN."""

DECAYED = np.int8(64)
"""Status bit: the true particle comes from a decay in flight; targets are generated."""

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
"""Status bits of entries without generated targets."""

DECAYS_IN_FLIGHT = (211, 321, 13)
"""PDG ids of charged particles that reach the detector and decay in it: c tau of 7.8,
3.7 and 659 m (Particle Data Group)."""

Elsewhere: TypeAlias = Literal["nan", "keep"]


@dataclass(frozen=True, kw_only=True)
class Option:
    """A generator of a track, and the PDG id whose entries it serves."""

    generator: Generator
    pdg_id: int
    where: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """How tracks are processed; the fields are arguments of `apply`."""

    conditions: Conditions = field(default_factory=Conditions)
    species_from: str | None = None
    mother_from: str | None = None
    key: tuple[str, ...] = ()
    suffix: str = ""
    where: str | None = None
    elsewhere: Elsewhere = "nan"


@dataclass(frozen=True, kw_only=True)
class TrackPlan:
    """A track in one tree: its generators with their conditions there.

    Attributes:
        name: prefix of the track.
        label: tree and track, for messages.
        options: its generators.
        conditions: of each generator.
        species: branch with PDG ids, if they choose.
        mother: branch with PDG ids of mothers, if decays in flight are flagged.
        targets: names of all targets; of showers, of the views of their cells.
        widths: cells of those that are views.
        key: branches that key the noise.
        suffix: end of the new names.
        where: the selection, if there is one.
        kept: branches whose values stay where the selection fails.
        read: the branches to read, with their types.
        shape: shape of the track in an entry.
        like: a branch with the same number of tracks in each entry, if they vary.
    """

    name: str
    label: str
    options: tuple[Option, ...]
    conditions: tuple[tuple[FoundCondition, ...], ...]
    species: str | None
    mother: str | None
    targets: tuple[str, ...]
    key: tuple[str, ...]
    suffix: str
    where: Cut | None
    kept: Mapping[str, BranchType]
    widths: Mapping[str, int] = field(default_factory=dict)
    read: Mapping[str, BranchType] = field(default_factory=dict)
    shape: Shape = ()
    like: str | None = None

    @property
    def status(self) -> str:
        """Name of the status branch."""
        return f"{self.name}_pidgan_status{self.suffix}"

    @property
    def identity(self) -> tuple[str, ...]:
        """Branches whose values make the noise key; empty if entries are numbered."""
        if not self.key:
            return ()
        own = [key.replace("{track}", self.name) for key in self.key]
        if own != list(self.key):
            return tuple(own)
        return tuple(dict.fromkeys([*own, *self.inputs]))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Branches that hold conditions, in the order of their conditions' names."""
        found = {
            (condition.variable.name, name): name
            for conditions in self.conditions
            for condition in conditions
            for name in condition.inputs
        }
        return tuple(dict.fromkeys(found[place] for place in sorted(found)))

    @property
    def types(self) -> dict[str, BranchType]:
        """The new branches with their types, the status last."""
        types: dict[str, np.dtype[Any]] = {
            self.branch(target): np.dtype(np.float32) for target in self.targets
        }
        types |= {name: kind.number for name, kind in self.kept.items()}
        types |= {self.status: np.dtype(np.int8)}
        found = {name: BranchType(kind, self.shape) for name, kind in types.items()}
        for target, width in self.widths.items():
            found[self.branch(target)] = BranchType(np.dtype(np.float32), (width,))
        return found

    @property
    def mapping(self) -> dict[str, str]:
        """Where each condition is found, to be read."""
        return {c.variable.name: str(c) for found in self.conditions for c in found}

    @property
    def needed(self) -> tuple[str, ...]:
        """Branches to read."""
        extra = [name for name in (self.species, self.mother) if name is not None]
        selection = () if self.where is None else self.where.names
        names = [*self.inputs, *self.identity, *extra, *selection, *self.kept]
        return tuple(dict.fromkeys(names))

    def branch(self, target: str) -> str:
        """Return the name of the branch of a target."""
        return f"{self.name}_{target}{self.suffix}"


def open_generators(
    track: str, given: Track, species_from: str | None
) -> tuple[Option, ...]:
    """Open the generators of a track.

    Args:
        track: its prefix, for messages.
        given: what `apply` was given for it.
        species_from: as for `apply`; a directory of bundles needs it.
    """
    if not isinstance(given, str | Path):
        return (_described(given, getattr(given, "path", type(given).__name__)),)
    path = Path(given)
    if not path.is_dir():
        return (_described(open_bundle(path), path),)
    if species_from is None:
        raise NtupleError(
            f"{track}: {path} is a directory of bundles; say which branch holds the "
            "PDG id, --species-from TRUEID, or name one bundle"
        )
    paths = sorted(path.glob("*.onnx"))
    if not paths:
        raise NtupleError(f"{track}: {path} holds no bundle (*.onnx)")
    options = tuple(_described(open_bundle(file), file) for file in paths)
    _check_unambiguous(track, options)
    return options


def plan_track(
    track: str,
    options: tuple[Option, ...],
    source: Source,
    tree: TreeInfo,
    *,
    settings: TrackOptions,
) -> TrackPlan:
    """Return what a track gets in one tree.

    Args:
        track: its prefix.
        options: its generators.
        source: the tree, for messages.
        tree: what it holds.
        settings: what `apply` was asked for.

    Raises:
        NtupleError: a branch that is needed is missing, or holds no numbers.
    """
    conditions = tuple(
        settings.conditions.find(
            option.generator.card.conditions, track, source, tree.branches
        )
        for option in options
    )
    outputs = {k: v for o in options for k, v in _outputs(o.generator.card).items()}
    species, mother = settings.species_from, settings.mother_from
    plan = TrackPlan(
        name=track,
        label=f"{source}, {track}",
        options=options,
        conditions=conditions,
        species=None if species is None else f"{track}_{species}",
        mother=None if mother is None else f"{track}_{mother}",
        targets=tuple(outputs),
        widths={k: v.stop - v.start for k, v in outputs.items() if v is not None},
        key=settings.key,
        suffix=settings.suffix,
        where=_selection(settings.where, track, tree),
        kept={},
    )
    if settings.elsewhere == "keep":
        names = [plan.branch(target) for target in plan.targets]
        check_numbers(names, tree, source, track)
        plan = replace(plan, kept={name: tree.types[name] for name in names})
    check_numbers(plan.needed, tree, source, track)
    types = {name: tree.types[name] for name in plan.needed}
    own = [name for name in (*plan.inputs, plan.species, plan.mother) if name]
    shape = common_shape(types, own=own, where=plan.label)
    for name, kind in plan.kept.items():
        if kind.shape != shape or kind.number.kind != "f":
            raise NtupleError(
                f"{plan.label}: {name!r} is of type {kind}, expected "
                f"{BranchType(np.dtype(np.float32), shape)} to keep its values"
            )
    if plan.widths and (shape or plan.kept):
        raise NtupleError(
            f"{plan.label}: showers are generated for entries that hold one particle, "
            f"as numbers, and anew (--elsewhere nan); got branches of shape {shape}"
        )
    like = next((name for name in own if types[name].shape == (None,)), None)
    return replace(plan, read=types, shape=shape, like=like)


def generate_branches(
    track: TrackPlan,
    columns: Mapping[str, Any],
    *,
    seed: int,
    start: int,
    threads: int = 1,
) -> tuple[dict[str, Any], npt.NDArray[np.int8]]:
    """Return the new branches of a track for a chunk, and the status of its rows.

    Args:
        track: the plan.
        columns: arrays of the branches that it needs.
        seed: of the noise.
        start: running number of the first entry.
        threads: at most so many at a time; the result does not depend on it.

    Returns:
        Arrays in the shape of the track's branches, and (rows,) status bits.
    """
    rows, counts = lay_out(columns, track.needed, track.shape, where=track.label)
    entries = len(columns[track.needed[0]])
    keys = _keys(track, rows, counts, seed=seed, start=start, entries=entries)
    selected = np.ones(len(keys), dtype=np.bool_)
    if track.where is not None:
        selected = track.where.passes(rows, None)
    status = np.where(selected, np.int8(0), NOT_SELECTED)
    targets = {
        target: _initial(track, target, rows, selected) for target in track.targets
    }
    served = ~selected
    for option, conditions in zip(track.options, track.conditions, strict=True):
        mine = _rows_of(option, track, rows, selected)
        served[mine] = True
        x = np.column_stack([c.evaluate(rows) for c in conditions])[mine]
        usable, flags = _judge(option.generator, x)
        status[mine] |= flags
        mine = mine[usable]
        y = _generate(option.generator, x[usable], keys[mine], threads)
        for i, (target, part) in enumerate(_outputs(option.generator.card).items()):
            targets[target][mine] = y[:, i] if part is None else y[:, part]
    status[~served] |= NO_BUNDLE
    if track.species is not None:
        status[selected] |= _truth_flags(rows, track.species, track.mother)[selected]
    flat = {track.branch(target): column for target, column in targets.items()}
    flat[track.status] = status
    nested = {name: restore(v, track.shape, counts) for name, v in flat.items()}
    return nested, status


def _selection(text: str | None, track: str, tree: TreeInfo) -> Cut | None:
    """Return the selection of a track."""
    if text is None:
        return None
    return parse_cut(text.replace("{track}", track), names=tree.branches)


def _keys(
    track: TrackPlan,
    rows: Mapping[str, npt.NDArray[Any]],
    counts: Counts | None,
    *,
    seed: int,
    start: int,
    entries: int,
) -> UInt64Array:
    """Return the noise key of each row."""
    if track.identity:
        for name in track.identity:
            # A null would make whole numbers floats, in its chunk only.
            if rows[name].dtype.kind != track.read[name].number.kind:
                raise NtupleError(
                    f"{track.label}: key branch {name!r} holds a null, expected "
                    "numbers only"
                )
        return column_keys([rows[name] for name in track.identity], seed=seed)
    keys = entry_keys(seed=seed, track=track.name, start=start, stop=start + entries)
    return keys if counts is None else position_keys(keys, counts)


def _initial(
    track: TrackPlan,
    target: str,
    rows: Mapping[str, npt.NDArray[Any]],
    selected: npt.NDArray[np.bool_],
) -> npt.NDArray[Any]:
    """Return the column of a target before anything is generated."""
    branch = track.branch(target)
    if target in track.widths:
        shape = (len(selected), track.widths[target])
        return np.full(shape, np.nan, dtype=np.float32)
    if branch not in track.kept:
        return np.full(len(selected), np.nan, dtype=np.float32)
    column = rows[branch].copy()
    column[selected] = np.nan
    return column


def _generate(
    generator: Generator,
    x: npt.NDArray[np.float32],
    keys: UInt64Array,
    threads: int,
) -> npt.NDArray[np.float32]:
    """Return targets (n, n_targets) of conditions and the keys of their noise.

    The noise of a block is made by the thread that uses it: there is never more of it
    in memory than the threads work on, and it stays in their cache.
    """
    y = np.empty((len(x), len(generator.card.targets)), dtype=np.float32)

    def fill(first: int) -> None:
        block = slice(first, first + BLOCK_ROWS)
        noise = keyed_normal(keys[block], n_noise=generator.card.n_noise)
        y[block] = generator.generate(x[block], noise)

    starts = range(0, len(x), BLOCK_ROWS)
    if threads == 1 or len(starts) < 2:
        for first in starts:
            fill(first)
        return y
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, starts):
            pass
    return y


def _outputs(card: Card) -> dict[str, slice | None]:
    """Return what becomes a branch: a target, or some of them, a view's cells."""
    if card.sample.cells is None:
        return dict.fromkeys(card.target_names)
    return dict(card.sample.cells.layout.view_slices)


def _truth_flags(
    rows: Mapping[str, npt.NDArray[Any]], species: str, mother: str | None
) -> npt.NDArray[np.int8]:
    """Return the status bits that true identities give."""
    ids = rows[species]
    flags = np.where(ids == 0, UNMATCHED, np.int8(0))
    if mother is not None:
        mothers = np.abs(rows[mother])
        decayed = np.isin(mothers, DECAYS_IN_FLIGHT) & (ids != 0)
        flags[decayed] |= DECAYED
    return flags


def _described(generator: Generator, where: str | Path) -> Option:
    """Return a generator with its species and hash."""
    text = generator.card.to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Option(
        generator=generator,
        pdg_id=pdg_id(generator.card.species),
        where=str(where),
        sha256=getattr(generator, "sha256", digest),
    )


def _check_unambiguous(track: str, options: Sequence[Option]) -> None:
    """Raise if several bundles of a directory serve the same species."""
    by_species: dict[int, list[Option]] = {}
    for option in options:
        by_species.setdefault(abs(option.pdg_id), []).append(option)
    for found in by_species.values():
        signs = {option.pdg_id for option in found}
        if len(found) > 1 and len(signs) < len(found):
            listed = "; ".join(
                f"{option.where} {option.generator.card.sample.data_taking}"
                for option in found
            )
            raise NtupleError(
                f"{track}: several bundles for {found[0].generator.card.species}, "
                f"expected one: {listed}; name one bundle, or put those of one period, "
                "polarity and tuning in a directory of their own"
            )


def _rows_of(
    option: Option,
    track: TrackPlan,
    rows: Mapping[str, npt.NDArray[Any]],
    selected: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Return the selected rows that a generator serves."""
    if track.species is None:
        return np.flatnonzero(selected)
    ids = rows[track.species]
    both_signs = sum(abs(o.pdg_id) == abs(option.pdg_id) for o in track.options) > 1
    chosen = ids == option.pdg_id if both_signs else np.abs(ids) == abs(option.pdg_id)
    return np.flatnonzero(chosen & selected)


def _judge(
    generator: Generator, x: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
    """Return which rows of conditions can be used, and the status bits of all rows."""
    card = generator.card
    usable: npt.NDArray[np.bool_] = np.asarray(np.isfinite(x).all(axis=1))
    for variable, values in zip(card.conditions, x.T, strict=True):
        if variable.categories:
            known = np.array(variable.categories, dtype=np.float32)
            usable &= np.isin(values, known)
    flags = np.zeros(len(x), dtype=np.int8)
    flags[~usable] |= MISSING
    outside = np.zeros(len(x), dtype=np.bool_)
    for variable, values in zip(card.conditions, x.T, strict=True):
        low, high = np.array(variable.range, dtype=np.float32)
        sentinel = np.isin(values, np.array(variable.sentinels, dtype=np.float32))
        outside |= ((values < low) | (values > high)) & ~sentinel
    flags[usable & outside] |= OUTSIDE_RANGE
    if card.sample.fiducial:
        cut = parse_cut(card.sample.fiducial, names=card.condition_names)
        columns = dict(zip(card.condition_names, x.T, strict=True))
        flags[usable & ~cut.passes(columns, None)] |= OUTSIDE_FIDUCIAL
    return usable, flags
