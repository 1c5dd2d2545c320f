"""One file of an application: planned, checked, written, with its manifest.

A `FileJob` is all that another process needs to do the work: paths, numbers and
options, no open file and no generator in memory. `plan_file` looks at the file,
`check_file` refuses what cannot work, `write_file` writes the copy and its manifest,
and `run_job` does all of it in a process that knows only the job.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pidgan.application import manifest, one_track
from pidgan.application.conditions import UNIT_CHECK_ENTRIES, check_units
from pidgan.application.generators import TrackGenerator, open_generators
from pidgan.application.one_track import TrackPlan, generate_branches, plan_track
from pidgan.application.request import Request, Track, bundle_path
from pidgan.application.several_tracks import lay_out
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.copying import check_writable, replaced_type, write_copy
from pidgan.files.tables import (
    BranchType,
    Source,
    TreeInfo,
    describe_tree,
    iterate_entries,
)
from pidgan.files.trees import Addition, is_remote
from pidgan.files.writing import refuse_existing, writing_files

Counts: TypeAlias = dict[str, dict[str, int]]
"""For each track the rows with generated targets, and those with each status bit."""

Progress: TypeAlias = Callable[[int], None]
"""Function that gets the number of entries which are newly done."""

Generators: TypeAlias = Mapping[str, tuple[TrackGenerator, ...]]
"""The generators of each track."""


@dataclass(frozen=True, kw_only=True)
class FileJob:
    """What is to be done with one file.

    Attributes:
        record: The request as the manifest records it, with the state of the input.
        trees: The trees, each with the running number of its first entry.
        chunk: Largest number of entries of a chunk.
        chunk_bytes: Largest size of a chunk.
    """

    request: Request
    record: Mapping[str, Any]
    trees: tuple[tuple[Source, int], ...]
    output: Path
    overwrite: bool
    chunk: int
    chunk_bytes: int
    threads: int

    def portable(self, *, absolute: bool) -> "FileJob":
        """Return the job for another process, or for another machine (`absolute`)."""

        def path(given: str | Path) -> str:
            is_relative = absolute and not is_remote(given)
            return str(Path(given).absolute()) if is_relative else str(given)

        tracks: dict[str, Track] = {}
        for track, given in self.request.tracks.items():
            where = bundle_path(given)
            if where is None:
                raise NtupleError(
                    f"{track}: several processes need the path of a bundle, got a "
                    f"{type(given).__name__}"
                )
            tracks[track] = path(where)
        return replace(
            self,
            request=replace(self.request, tracks=tracks),
            trees=tuple((Source(path(s.path), s.tree), n) for s, n in self.trees),
            output=Path(path(self.output)),
        )


@dataclass(frozen=True, kw_only=True)
class TreePlan:
    """An input tree, what it gets, and the running number of its first entry."""

    source: Source
    info: TreeInfo
    first_entry: int
    tracks: tuple[TrackPlan, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """Branches to read."""
        return tuple(dict.fromkeys(n for track in self.tracks for n in track.needed))

    @property
    def types(self) -> dict[str, BranchType]:
        """The new branches with their types."""
        return {n: kind for t in self.tracks for n, kind in t.types.items()}

    @property
    def like(self) -> dict[str, str]:
        """The new branches of variable length, with a branch of the same lengths."""
        return {n: t.like for t in self.tracks if t.like for n in t.types}


@dataclass(frozen=True, kw_only=True)
class FilePlan:
    """A job, and what each tree of its file gets."""

    job: FileJob
    trees: tuple[TreePlan, ...]

    def with_share(self, threads: int, chunk_bytes: int) -> "FilePlan":
        """Return the plan with a share of the machine."""
        job = replace(self.job, threads=threads, chunk_bytes=chunk_bytes)
        return replace(self, job=job)

    @property
    def tracks(self) -> tuple[TrackPlan, ...]:
        """The tracks of the first tree."""
        return self.trees[0].tracks

    @property
    def entries(self) -> int:
        """Entries of all trees."""
        return sum(tree.info.entries for tree in self.trees)


def plan_file(
    job: FileJob, generators: Generators, infos: Sequence[TreeInfo]
) -> FilePlan:
    """Return what each tree of a file gets; raise if a branch is missing."""
    trees = tuple(
        TreePlan(
            source=source,
            info=info,
            first_entry=first,
            tracks=tuple(
                plan_track(track, found, job.request, source=source, tree=info)
                for track, found in generators.items()
            ),
        )
        for (source, first), info in zip(job.trees, infos, strict=True)
    )
    return FilePlan(job=job, trees=trees)


def check_file(plan: FilePlan) -> None:
    """Raise if a file cannot be processed; nothing is written yet."""
    for tree in plan.trees:
        _check_tree(tree, plan.job.request.mode)


def write_file(
    plan: FilePlan, progress: Progress | None = None
) -> tuple[Counts, list[str]]:
    """Write a copy and its manifest; return counts, and notes on what it lacks."""
    job = plan.job
    names = ["generated", *one_track.STATUS_BITS]
    counts = {track.name: dict.fromkeys(names, 0) for track in plan.tracks}
    additions = [
        Addition(
            source=tree.source,
            needed=tree.needed,
            types=tree.types,
            compute=_computation(tree, job.threads, counts, progress),
            like=tree.like,
        )
        for tree in plan.trees
    ]
    # Without --overwrite, the manifest of an output that is gone is replaced too.
    refuse_existing(job.output, overwrite=job.overwrite)
    paths = job.output, manifest.path_of(job.output)
    with writing_files(paths, overwrite=True) as (output, beside):
        notes = write_copy(
            additions,
            output,
            keep=job.request.mode != "friend",
            chunk=job.chunk,
            chunk_bytes=job.chunk_bytes,
        )
        content = {
            "request": job.record,
            "mapping": {track.name: track.mapping for track in plan.tracks},
            "bundles": {
                track.name: [one.description() for one in track.generators]
                for track in plan.tracks
            },
            "counts": counts,
            "notes": notes,
        }
        beside.write_text(manifest.text(output, content), encoding="utf-8")
    return counts, notes


def run_job(job: FileJob) -> tuple[Counts, list[str]]:
    """Do a job in a process that knows nothing else of it."""
    if not job.overwrite and manifest.is_finished(job.output, job.record):
        found = manifest.read(job.output)
        return found["counts"], found["notes"]
    request = job.request
    generators = {
        track: _generators(
            track, str(given), request.species_from, tuple(job.record["tracks"][track])
        )
        for track, given in request.tracks.items()
    }
    infos = [describe_tree(source) for source, _ in job.trees]
    return write_file(plan_file(job, generators, infos))


@functools.lru_cache(maxsize=8)
def _generators(
    track: str, path: str, species_from: str | None, hashes: tuple[str, ...]
) -> tuple[TrackGenerator, ...]:
    """Open the generators of a track once for all files of a process."""
    opened = open_generators(track, path, species_from)
    found = tuple(one.sha256 for one in opened)
    if found != hashes:
        raise NtupleError(
            f"{path}, given for {track}, has changed: sha256 is {', '.join(found)}, "
            f"expected {', '.join(hashes)}"
        )
    return opened


def _check_tree(tree: TreePlan, mode: str) -> None:
    """Raise if a tree cannot be processed."""
    source = tree.source
    if mode != "friend":
        check_writable(source)
    fresh = [name for track in tree.tracks for name in track.types]
    repeated = sorted({name for name in fresh if fresh.count(name) > 1})
    if repeated:
        raise NtupleError(f"two targets make the same branch {repeated[0]!r}")
    existing = [name for name in fresh if name in tree.info.branches]
    if mode == "append" and existing:
        raise NtupleError(
            f"{source} has branches {', '.join(map(repr, existing))} already; use "
            "--mode replace, --mode friend or --suffix"
        )
    for name in existing if mode == "replace" else ():
        where = f"{source}, branch {name!r}"
        replaced_type(tree.types[name], tree.info.types.get(name), where=where)
    if tree.info.entries == 0:
        warnings.warn(f"{source} has 0 entries", PidganWarning, stacklevel=4)
        return
    head = next(iterate_entries(source, tree.needed, chunk=UNIT_CHECK_ENTRIES))
    for track in tree.tracks:
        rows, _ = lay_out(head, track.needed, track.shape, where=track.label)
        for conditions in track.conditions:
            check_units(conditions, rows, source, track.name)


def _computation(
    tree: TreePlan, threads: int, counts: Counts, progress: Progress | None
) -> Callable[[int, Mapping[str, Any]], dict[str, Any]]:
    """Return the function that makes the new branches of a chunk, and counts."""

    def compute(first: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
        start = tree.first_entry + first
        columns: dict[str, Any] = {}
        for track in tree.tracks:
            fresh, status = generate_branches(
                track, arrays, start=start, threads=threads
            )
            _count(counts[track.name], status)
            columns |= fresh
        if progress is not None:
            progress(len(arrays[tree.needed[0]]))
        return columns

    return compute


def _count(counts: dict[str, int], status: npt.NDArray[np.int8]) -> None:
    """Add the rows of a chunk to the counts of a track."""
    counts["generated"] += int(
        np.count_nonzero((status & one_track.WITHOUT_TARGETS) == 0)
    )
    for name, bit in one_track.STATUS_BITS.items():
        counts[name] += int(np.count_nonzero(status & bit))
