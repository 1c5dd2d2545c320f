"""The new branches of a track for a chunk: each row by the generator that serves it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.application import several_tracks
from pidgan.application.one_track import (
    DECAYED,
    DECAYS_IN_FLIGHT,
    MISSING,
    NO_BUNDLE,
    NOT_SELECTED,
    OUTSIDE_FIDUCIAL,
    OUTSIDE_RANGE,
    STATUS,
    TARGET,
    UNMATCHED,
    TrackPlan,
)
from pidgan.application.sample_cuts import SampleCuts, add_numbers
from pidgan.application.several_tracks import Counts
from pidgan.arrays import BoolArray, IntArray
from pidgan.bundle import noise
from pidgan.bundle.bundle_file import BLOCK_ROWS
from pidgan.bundle.card import FarGenerator, Generator
from pidgan.bundle.choice import NOBODY
from pidgan.bundle.noise import UInt64Array
from pidgan.errors import NtupleError
from pidgan.sample.cuts import parse_cut

Rows = Mapping[str, npt.NDArray[Any]]
"""Columns with one row for each track."""


@dataclass(frozen=True, kw_only=True)
class NewBranches:
    """The new branches of a track for a chunk, in the shape of the track's own.

    `status` has a row for each track, `outside` by condition the number of rows outside
    the trained range, or without a number, and of all that were judged, `made` the
    number of rows that each generator got, and `sample_cuts` by cut of the calibration
    sample the rows that fail it, and all.
    """

    arrays: dict[str, Any]
    status: npt.NDArray[np.int8]
    outside: dict[str, tuple[int, int]]
    made: dict[int, int]
    sample_cuts: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The rows that a generator fills: their numbers, conditions, keys and targets."""

    generator: Generator
    outputs: Mapping[str, slice | None]
    rows: IntArray
    x: npt.NDArray[np.float32]
    keys: UInt64Array
    y: npt.NDArray[np.float32]


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
    _check_keys(track, rows)
    n = len(next(iter(rows.values())))
    selected = np.ones(n, dtype=np.bool_)
    if track.selection is not None:
        selected = track.selection.passes(rows, None)
    status = np.where(selected, np.int8(0), NOT_SELECTED)
    served, made, parts = ~selected, {}, []
    outside, judged = Counter[str](), Counter[str]()
    cuts: SampleCuts = {}
    numbered = None if track.request.key else _entry_keys(track, rows, counts, start)
    for place, mine in enumerate(_rows_of_generators(track, rows, selected)):
        one = track.generators[place]
        served[mine] = True
        made[track.used[place]] = len(mine)
        own = rows
        if len(mine) < n:
            own = {name: rows[name][mine] for name in track.own_of(place)}
        x = np.column_stack([c.evaluate(own) for c in track.conditions[place]])
        for cut in track.sample_cuts[place]:
            read = {k: rows[k] if len(mine) == n else rows[k][mine] for k in cut.inputs}
            judgement = cut.count(read, len(mine))
            add_numbers(cuts, {track.name: {cut.term.brief: judgement}})
        usable, flags, numbers = judge(one.generator, x)
        outside.update(numbers)
        judged.update(dict.fromkeys(numbers, len(mine)))
        status[mine] |= flags
        if numbered is not None:
            keys = numbered[mine]
        else:
            names = track.identities[place]
            keys = noise.column_keys([own[k] for k in names], seed=track.request.seed)
        if not usable.all():
            mine, x, keys = mine[usable], x[usable], keys[usable]
        parts.append(
            _Part(
                generator=one.generator,
                outputs=one.outputs,
                rows=mine,
                x=x,
                keys=keys,
                y=_empty(one.generator, len(mine)),
            )
        )
    _generate(parts, threads)
    targets = {name: _initial(track, name, rows, selected) for name in track.widths}
    for part in parts:
        # Where a transform of a condition has no value, such as log P at P <= 0.
        lost = ~np.isfinite(part.y).all(axis=1)
        part.y[lost], status[part.rows[lost]] = np.nan, MISSING
        for i, (target, cells) in enumerate(part.outputs.items()):
            targets[target][part.rows] = part.y[:, i if cells is None else cells]
    status[~served] |= NO_BUNDLE
    if track.truth:
        flags = _truth_flags(*(rows[name] for name in track.truth))
        status[selected] |= flags[selected]
    flat = {track.branch(target): column for target, column in targets.items()}
    counted = status
    for name in track.kept_status:
        status = np.where(selected, status, rows[name].astype(STATUS))
    flat[track.branch("pidgan_status")] = status
    nested = {
        name: several_tracks.restore(v, track.shape, counts) for name, v in flat.items()
    }
    return NewBranches(
        arrays=nested,
        status=counted,
        outside={name: (outside[name], k) for name, k in judged.items()},
        made=made,
        sample_cuts=cuts.get(track.name, {}),
    )


def _rows_of_generators(
    track: TrackPlan, rows: Rows, selected: BoolArray
) -> Iterator[IntArray]:
    """Yield the numbers of the selected rows that each generator serves."""
    choice = track.all_generators.choice
    if not choice.columns:
        yield np.flatnonzero(selected)
        return
    number = choice.find({name: rows[b] for name, b in track.choosing.items()})
    # Integers of 16 bits are sorted fast.
    number = np.where(selected, number, np.int16(NOBODY))
    order = np.argsort(number, kind="stable")
    sizes = np.bincount(number - NOBODY, minlength=len(choice.when) + 1)
    ends = np.cumsum(sizes)
    for found in np.flatnonzero(sizes[1:]):
        if found not in track.used:
            where = track.all_generators.members[found].where
            raise NtupleError(
                f"{track.label}: rows are served by {where}, but were not before: the "
                "file has changed meanwhile"
            )
    for place in track.used:
        yield order[ends[place] : ends[place + 1]]


def _check_keys(track: TrackPlan, rows: Rows) -> None:
    """Raise if a branch of the noise key holds a null."""
    for name in track.identity:
        # A null would make whole numbers floats, in its chunk only.
        if rows[name].dtype.kind != track.read[name].number.kind:
            raise NtupleError(
                f"{track.label}: key branch {name!r} holds a null, expected numbers "
                "only"
            )


def _entry_keys(
    track: TrackPlan, rows: Rows, counts: Counts | None, start: int
) -> UInt64Array:
    """Return the noise key of each row by the number of its entry."""
    entries = len(next(iter(rows.values())) if counts is None else counts)
    keys = noise.entry_keys(
        seed=track.request.seed, track=track.name, start=start, stop=start + entries
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


def _empty(generator: Generator, rows: int) -> npt.NDArray[np.float32]:
    return np.empty((rows, len(generator.card.targets)), dtype=np.float32)


def _generate(parts: Sequence[_Part], threads: int) -> None:
    """Fill the targets of all parts, in blocks that threads share."""

    def fill(work: tuple[_Part, slice]) -> None:
        part, block = work
        if isinstance(part.generator, FarGenerator):
            keys = part.keys[block]
            part.y[block] = part.generator.generate_keyed(part.x[block], keys)
            return
        # Made by the thread that uses it, the noise stays in its cache.
        n_noise = part.generator.card.n_noise
        z = noise.keyed_normal(part.keys[block], n_noise=n_noise)
        part.y[block] = part.generator.generate(part.x[block], z)

    blocks = [(part, block) for part in parts for block in _blocks(part)]
    if threads == 1 or len(blocks) < 2:
        _run_all(map(fill, blocks))
    else:
        with ThreadPoolExecutor(threads) as pool:
            _run_all(pool.map(fill, blocks))


def _blocks(part: _Part) -> Iterator[slice]:
    """Yield the rows of a part that are generated in one call."""
    one = part.generator
    rows = one.call_rows if isinstance(one, FarGenerator) else BLOCK_ROWS
    for first in range(0, len(part.x), rows):
        yield slice(first, first + rows)


def _run_all(results: Iterable[None]) -> None:
    for _ in results:
        pass


def _truth_flags(
    ids: npt.NDArray[Any], mothers: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.int8]:
    """Return the status bits that true identities give."""
    flags = np.where(ids == 0, UNMATCHED, np.int8(0))
    if mothers is not None:
        decayed = np.isin(np.abs(mothers), DECAYS_IN_FLIGHT) & (ids != 0)
        flags[decayed] |= DECAYED
    return flags


def judge(
    generator: Generator, x: npt.NDArray[np.float32]
) -> tuple[BoolArray, npt.NDArray[np.int8], dict[str, int]]:
    """Return which rows of conditions can be used, and the status bits of all rows.

    The numbers are those of rows in which a condition is outside or cannot be used.
    """
    card, numbers = generator.card, {}
    usable: BoolArray = np.asarray(np.isfinite(x).all(axis=1))
    outside = np.zeros(len(x), dtype=np.bool_)
    for variable, values in zip(card.inputs, x.T, strict=True):
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
        columns = dict(zip(card.input_names, x.T, strict=True))
        flags[usable & ~cut.passes(columns, None)] |= OUTSIDE_FIDUCIAL
    return usable, flags, numbers
