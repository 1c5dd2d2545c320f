"""One file of an application: planned, checked, written, with its manifest.

A `FileJob` is all that another process needs to do the work: paths, numbers and
options, no open file and no generator in memory. An output with a manifest that fits
the request is finished, whenever a run was killed.
"""

import functools
import json
import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pidgan.application import one_track
from pidgan.application.conditions import UNIT_CHECK_ENTRIES, check_units
from pidgan.application.request import (
    Request,
    TrackGenerator,
    open_generators,
    package_version,
)
from pidgan.application.several_tracks import lay_out
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files import copying, tables
from pidgan.files.trees import Addition, BranchType, Source, TreeInfo, is_remote
from pidgan.files.writing import exists_error, refuse_existing, writing_files

SCHEMA = 2
"""Version of the manifest."""

LIBRARIES = ("awkward", "numpy", "onnxruntime", "pyarrow", "uproot")
"""Packages whose versions a manifest records."""

Counts: TypeAlias = dict[str, dict[str, int]]
"""For each track the rows with generated targets, and those with each status bit."""

Progress: TypeAlias = Callable[[int], None]
"""Function that gets the number of entries which are newly done."""

Generators: TypeAlias = Mapping[str, tuple[TrackGenerator, ...]]
"""The generators of each track."""


@dataclass(frozen=True, kw_only=True)
class FileJob:
    """What is to be done with one file.

    `record` is the request as the manifest has it, with the state of the input. Each
    tree has its content and the running number of its first entry. `chunk` is in
    entries.
    """

    request: Request
    record: Mapping[str, Any]
    trees: tuple[tuple[Source, TreeInfo, int], ...]
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
    trees = tuple(
        TreePlan(
            source=source,
            info=info,
            first_entry=first,
            tracks=tuple(
                one_track.plan_track(
                    track, found, job.request, source=source, tree=info
                )
                for track, found in generators.items()
            ),
        )
        for source, info, first in job.trees
    )
    return FilePlan(job=job, trees=trees)


def check_tree(tree: TreePlan, mode: str) -> None:
    """Raise if a tree cannot be processed; nothing is written yet."""
    source = tree.source
    if mode != "friend":
        copying.check_writable(source)
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
        copying.replaced_type(tree.types[name], tree.info.types.get(name), where=where)
    if tree.info.entries == 0:
        warnings.warn(f"{source} has 0 entries", PidganWarning, stacklevel=3)
        return
    head = next(tables.iterate_entries(source, tree.needed, chunk=UNIT_CHECK_ENTRIES))
    for track in tree.tracks:
        rows, _ = lay_out(head, track.needed, track.shape, where=track.label)
        for conditions in track.conditions:
            check_units(conditions, rows, source, track.name)


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
            like={n: t.like for t in tree.tracks if t.like for n in t.types},
        )
        for tree in plan.trees
    ]
    # Without overwrite, the manifest of an output that is gone is replaced too.
    refuse_existing(job.output, overwrite=job.overwrite)
    paths = job.output, manifest_path(job.output)
    with writing_files(paths, overwrite=True) as (output, beside):
        notes = copying.write_copy(
            additions,
            output,
            keep=job.request.mode != "friend",
            chunk=job.chunk,
            chunk_bytes=job.chunk_bytes,
        )
        content = {
            "schema": SCHEMA,
            "output": {"size": output.stat().st_size},
            "request": job.record,
            "mapping": {track.name: track.mapping for track in plan.tracks},
            "bundles": {
                track.name: [one.description() for one in track.generators]
                for track in plan.tracks
            },
            "counts": counts,
            "notes": notes,
            "versions": {
                "python": platform.python_version(),
                **{name: package_version(name) for name in LIBRARIES},
            },
        }
        beside.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return counts, notes


def run_job(job: FileJob) -> tuple[Counts, list[str]]:
    """Do a job in a process that knows nothing else of it."""
    if not job.overwrite and is_finished(job):
        found = read_manifest(job.output)
        return found["counts"], found["notes"]
    request = job.request
    generators = {
        track: _generators(
            track, str(given), request.species_from, tuple(job.record["tracks"][track])
        )
        for track, given in request.tracks.items()
    }
    return write_file(plan_file(job, generators))


def manifest_path(output: Path) -> Path:
    """Return where the manifest of an output lies."""
    return output.with_name(f"{output.name}.json")


def read_manifest(output: Path) -> dict[str, Any]:
    """Return the manifest beside an output, empty if there is none."""
    try:
        content = json.loads(manifest_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "request" in content else {}


def is_finished(job: FileJob) -> bool:
    """Return whether an earlier run did a job; raise if another file is there."""
    output, manifest = job.output, read_manifest(job.output)
    if not manifest and manifest_path(output).exists():
        reason = " and is not the manifest of an output"
        raise exists_error(manifest_path(output), reason)
    if not output.exists():
        return False
    old = {**manifest.get("request", {}), "output": manifest.get("output")}
    new = {**job.record, "output": {"size": output.stat().st_size}}
    differing = sorted(name for name in new if old.get(name) != new[name])
    if differing:
        reason = f" and differs in {', '.join(differing)}" if manifest else ""
        raise exists_error(output, reason)
    return True


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


def _computation(
    tree: TreePlan, threads: int, counts: Counts, progress: Progress | None
) -> Callable[[int, Mapping[str, Any]], dict[str, Any]]:
    """Return the function that makes the new branches of a chunk, and counts."""

    def compute(first: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
        start = tree.first_entry + first
        columns: dict[str, Any] = {}
        for track in tree.tracks:
            fresh, status = one_track.generate_branches(
                track, arrays, start=start, threads=threads
            )
            columns |= fresh
            done = counts[track.name]
            has_targets = (status & one_track.WITHOUT_TARGETS) == 0
            done["generated"] += int(np.count_nonzero(has_targets))
            for name, bit in one_track.STATUS_BITS.items():
                done[name] += int(np.count_nonzero(status & bit))
        if progress is not None:
            progress(len(arrays[tree.needed[0]]))
        return columns

    return compute
