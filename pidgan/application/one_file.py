"""One file of an application: planned, checked, written, with its record.

A `FileJob` is all that another process needs to do the work: paths, numbers and
options, no open file and no generator in memory. An output whose record fits the
request is finished, whenever a run was killed. The manifest beside it says the same for
those who do not want to open the file.
"""

import functools
import json
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pidgan.application import finished, generating, one_track, record
from pidgan.application.conditions import UNIT_CHECK_ENTRIES, check_units
from pidgan.application.fingerprints import MOST_PAIRED, Fingerprints
from pidgan.application.finished import Outcome, Outside
from pidgan.application.generators import Generators, TrackGenerators, open_generators
from pidgan.application.request import Request, package_version
from pidgan.application.sample_cuts import SampleCuts, add_numbers
from pidgan.application.several_tracks import lay_out
from pidgan.bundle.devices import use_device
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files import copying, tables
from pidgan.files.trees import Addition, BranchType, Source, TreeInfo, is_remote
from pidgan.files.writing import writing_file

LIBRARIES = ("awkward", "numpy", "onnxruntime", "pyarrow", "uproot")
"""Packages whose versions a record has."""

Progress: TypeAlias = Callable[[int], None]
"""Function that gets the number of entries which are newly done."""

Used: TypeAlias = Mapping[str, tuple[int, ...] | None]
"""By track, the numbers of its generators with rows in a tree; None if not known."""


@dataclass(frozen=True, kw_only=True)
class FileJob:
    """What is to be done with one file.

    `record` is the request as the manifest has it, with the state of the input. Each
    tree has its content, the running number of its first entry, and in `used` which
    generators have rows in it. `chunk` is in entries.
    """

    request: Request
    record: Mapping[str, Any]
    trees: tuple[tuple[Source, TreeInfo, int], ...]
    output: Path
    overwrite: bool
    chunk: int
    chunk_bytes: int
    threads: int
    used: tuple[Used, ...] = ()

    @property
    def tree_names(self) -> list[str | None]:
        """The trees as records name them."""
        return [record.tree_name(source) for source, _, _ in self.trees]

    def portable(self, *, absolute: bool) -> "FileJob":
        """Return the job for another process, or for another machine (`absolute`)."""

        def path(given: str | Path) -> str:
            is_relative = absolute and not is_remote(given)
            return str(Path(given).absolute()) if is_relative else str(given)

        tracks = {}
        for track, where in self.request.paths.items():
            if where is None:
                raise NtupleError(
                    f"{track}: several processes need the path of a bundle, got a "
                    f"{type(self.request.tracks[track]).__name__}"
                )
            tracks[track] = path(where)
        return replace(
            self,
            request=replace(self.request, tracks=tracks),
            trees=tuple(
                (replace(source, path=path(source.path)), info, first)
                for source, info, first in self.trees
            ),
            output=Path(path(self.output)),
        )


@dataclass(frozen=True, kw_only=True)
class TreePlan:
    """An input tree, what it gets, and the running number of its first entry."""

    source: Source
    info: TreeInfo
    first_entry: int
    tracks: tuple[one_track.TrackPlan, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """Branches to read."""
        return tuple(dict.fromkeys(n for track in self.tracks for n in track.needed))

    @property
    def types(self) -> dict[str, BranchType]:
        """The new branches with their types."""
        return {n: kind for t in self.tracks for n, kind in t.types.items()}

    @functools.cached_property
    def written(self) -> dict[str, BranchType]:
        """The new branches with the types they have in the output."""
        is_replaced = bool(self.tracks) and self.tracks[0].request.mode == "replace"
        old = self.info.types if is_replaced else {}
        return {
            name: copying.replaced_type(kind, old[name], where=f"branch {name!r}")
            if name in old
            else kind
            for name, kind in self.types.items()
        }


@dataclass(frozen=True, kw_only=True)
class FilePlan:
    """A job, and what each tree of its file gets."""

    job: FileJob
    trees: tuple[TreePlan, ...]

    @property
    def tracks(self) -> tuple[one_track.TrackPlan, ...]:
        """The tracks of the first tree."""
        return self.trees[0].tracks

    @property
    def entries(self) -> int:
        """Entries of all trees."""
        return sum(tree.info.entries for tree in self.trees)


def plan_file(job: FileJob, generators: Generators) -> FilePlan:
    """Return what each tree of a file gets; raise if a branch is missing."""
    none: Used = dict.fromkeys(generators)
    by_tree = job.used or [none] * len(job.trees)
    trees = tuple(
        TreePlan(
            source=source,
            info=info,
            first_entry=first,
            tracks=tuple(
                one_track.plan_track(
                    track,
                    found,
                    job.request,
                    source=source,
                    tree=info,
                    used=used[track],
                )
                for track, found in generators.items()
            ),
        )
        for (source, info, first), used in zip(job.trees, by_tree, strict=True)
    )
    return FilePlan(job=job, trees=trees)


def check_tree(tree: TreePlan, mode: str, tried: set[copying.Schema]) -> None:
    """Raise if a tree cannot be processed; nothing is written yet.

    Trees whose branches have the same types as others are `tried` once.
    """
    source = tree.source
    if mode != "friend":
        if source.table is None:
            copying.check_writable(source, tried=tried)
        record.read_lines(source)
    fresh = [name for track in tree.tracks for name in track.types]
    repeated = sorted({name for name in fresh if fresh.count(name) > 1})
    if repeated:
        raise NtupleError(f"two targets make the same branch {repeated[0]!r}")
    existing = [name for name in fresh if name in tree.info.branches]
    if mode == "append" and existing:
        kinds = "branches" if source.table is None else "columns"
        raise NtupleError(
            f"{source} has {kinds} {', '.join(map(repr, existing))} already; use "
            "--mode replace, --mode friend or --suffix"
        )
    for name in existing if mode == "replace" else ():
        where = f"{source}, {source.branch} {name!r}"
        copying.replaced_type(tree.types[name], tree.info.types.get(name), where=where)
    if tree.info.entries == 0:
        if source.table is None:  # A selection in memory may well be empty.
            warnings.warn(f"{source} has 0 entries", PidganWarning, stacklevel=3)
        return
    head = next(tables.iterate_entries(source, tree.needed, chunk=UNIT_CHECK_ENTRIES))
    for track in tree.tracks:
        rows, _ = lay_out(head, track.needed, track.shape, where=track.label)
        for conditions in track.conditions:
            check_units(conditions, rows, source, track.name)


def write_file(plan: FilePlan, progress: Progress | None = None) -> Outcome:
    """Write a copy with its record, then its manifest."""
    job, keep = plan.job, plan.job.request.mode != "friend"
    lines: list[dict[str, Any]] = []
    tallies = [Tally(tree) for tree in plan.trees]
    additions = [
        Addition(
            source=tree.source,
            needed=tree.needed,
            types=tree.types,
            compute=computation(tree, job.threads, tally, progress),
            like={n: t.like for t in tree.tracks if t.like for n in t.types},
        )
        for tree, tally in zip(plan.trees, tallies, strict=True)
    ]

    def describe(old: list[str], notes: list[str]) -> list[str]:
        before = record.parse_lines(old, plan.trees[0].source.path)
        lines[:] = [
            record.add_passes(tally.line(job, notes), before) for tally in tallies
        ]
        return record_lines(plan, lines, old)

    with writing_file(job.output, overwrite=job.overwrite) as output:
        notes = copying.write_copy(
            additions,
            output,
            keep=keep,
            chunk=job.chunk,
            chunk_bytes=job.chunk_bytes,
            record=describe,
        )
    finished.write_manifest(job.output, lines)
    return finished.outcome(lines, notes)


def record_lines(
    plan: FilePlan, lines: Sequence[Mapping[str, Any]], old: Sequence[str]
) -> list[str]:
    """Return the record of an output: new lines, after what is still true of old ones.

    Branches that are replaced are no longer those of the old lines.
    """
    names = {record.tree_name(t.source): set(t.types) for t in plan.trees}
    older = record.without(record.parse_lines(old, plan.trees[0].source.path), names)
    return [json.dumps(line) for line in (*older, *lines)]


def run_job(job: FileJob) -> Outcome:
    """Do a job in a process that knows nothing else of it."""
    if (
        not job.overwrite
        and (done := finished.find_outcome(job.output, job.record, job.tree_names))
        is not None
    ):
        return done
    # That of whoever planned the job, perhaps on another machine.
    use_device(job.record.get("device", "cpu"))
    request = job.request
    generators = {
        track: _generators(track, str(given), request.species_from, request.gaps)
        for track, given in request.tracks.items()
    }
    for track, found in generators.items():
        _check_same(track, found, job)
    plan = plan_file(job, generators)
    run_self_tests([plan], generators)
    return write_file(plan)


def run_self_tests(plans: Iterable[FilePlan], generators: Generators) -> None:
    """Run the self-tests of the bundles that files need."""
    tracks = [track for plan in plans for tree in plan.trees for track in tree.tracks]
    for name, found in generators.items():
        found.run_self_tests(k for t in tracks if t.name == name for k in t.used)


@functools.lru_cache(maxsize=8)
def _generators(
    track: str, path: str, species_from: str | None, gaps: str | None
) -> TrackGenerators:
    """Open the generators of a track once for all files of a process."""
    return open_generators(track, path, species_from, gaps)


def _check_same(track: str, found: TrackGenerators, job: FileJob) -> None:
    """Raise if generators are not those with which the job was planned."""
    path, expected = job.request.tracks[track], job.record["tracks"][track]
    if found.hashes != expected:
        raise NtupleError(
            f"{path}, given for {track}, has changed: sha256 is "
            f"{', '.join(found.hashes)}, expected {', '.join(expected)}"
        )
    if found.rules != job.record.get("collections", {}).get(track):
        raise NtupleError(f"{path}, given for {track}, has changed: it chooses others")


class Tally:
    """What is counted while the chunks of a tree are made, and its line of a record."""

    def __init__(self, tree: TreePlan) -> None:
        self.tree = tree
        names = ["generated", *one_track.STATUS_BITS]
        self.counts = {t.name: dict.fromkeys(names, 0) for t in tree.tracks}
        self.outside: Outside = {t.name: {} for t in tree.tracks}
        self.sample_cuts: SampleCuts = {}
        self.rows = {t.name: Counter[int]() for t in tree.tracks}
        # A branch that is replaced no longer says what a condition was.
        self.inputs = {
            track.name: [n for n in track.inputs if n not in tree.types]
            for track in tree.tracks
        }
        self.made = Fingerprints(
            {*tree.types, *(name for own in self.inputs.values() for name in own)},
            [
                (made, read)
                for track in tree.tracks
                for made in track.types
                for read in self.inputs[track.name][:MOST_PAIRED]
            ],
        )

    def add(self, track: str, new: generating.NewBranches) -> None:
        """Count the status of a chunk."""
        done, status = self.counts[track], new.status
        has_targets = (status & one_track.WITHOUT_TARGETS) == 0
        done["generated"] += int(np.count_nonzero(has_targets))
        for name, bit in one_track.STATUS_BITS.items():
            done[name] += int(np.count_nonzero(status & bit))
        add_numbers(self.outside, {track: new.outside})
        add_numbers(self.sample_cuts, {track: new.sample_cuts})
        self.rows[track].update(new.made)

    def _bundles(self, track: one_track.TrackPlan) -> dict[str, Any]:
        """Return the bundles of a track, and if there are several what chose them."""
        found = track.all_generators
        if not found.choice.columns:
            return {"bundles": [one.description() for one in found.members]}
        bundles = [
            {
                **one.description(),
                "when": {k: one.when[k] for k in found.choice.columns if k in one.when},
                "rows": self.rows[track.name][number],
            }
            for number, one in enumerate(found.members)
        ]
        return {"bundles": bundles, "choose": dict(found.branches)}

    def _cuts(self, track: one_track.TrackPlan) -> dict[str, tuple[int, int]]:
        """Return the cuts of the calibration sample, those of empty trees included."""
        none = {c.term.brief: (0, 0) for own in track.sample_cuts for c in own}
        return none | self.sample_cuts.get(track.name, {})

    def line(self, job: FileJob, notes: list[str]) -> dict[str, Any]:
        """Return the line of the tree in the record."""
        return {
            "schema": record.SCHEMA,
            "tree": record.tree_name(self.tree.source),
            "entries": self.tree.info.entries,
            "request": job.record,
            "tracks": {
                track.name: {
                    **self._bundles(track),
                    "mapping": track.mapping,
                    "branches": self.made.texts(track.types),
                    "inputs": self.made.texts(self.inputs[track.name]),
                    "pairs": self.made.pair_texts(track.types),
                    "counts": self.counts[track.name],
                    "outside": self.outside[track.name],
                    **({"sample_cuts": cuts} if (cuts := self._cuts(track)) else {}),
                }
                for track in self.tree.tracks
            },
            "notes": notes,
            "versions": {
                "python": platform.python_version(),
                **{name: package_version(name) for name in LIBRARIES},
            },
        }


def computation(
    tree: TreePlan, threads: int, tally: Tally, progress: Progress | None
) -> Callable[[int, Mapping[str, Any]], dict[str, Any]]:
    """Return the function that makes the new branches of a chunk, and counts."""

    def compute(first: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
        start = tree.first_entry + first
        columns: dict[str, Any] = {}
        for track in tree.tracks:
            new = generating.generate_branches(
                track, arrays, start=start, threads=threads
            )
            tally.add(track.name, new)
            columns |= new.arrays
        # As they are written: a branch that is replaced keeps its type.
        columns = {n: copying.cast(v, tree.written[n]) for n, v in columns.items()}
        tally.made.add({**arrays, **columns})
        if progress is not None:
            progress(len(arrays[tree.needed[0]]))
        return columns

    return compute
