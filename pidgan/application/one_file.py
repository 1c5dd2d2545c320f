"""One file of an application: planned, checked, written, with its manifest.

A `FileJob` is all that another process needs to do the work: paths, numbers and
options, no open file and no generator in memory. `plan_file` looks at the file,
`write_file` writes the copy and then its manifest, `run_job` does both. The manifest
is written when the copy is complete under its temporary name, and the copy gets its
name last: an output with a manifest that fits is finished, whenever a run was killed.
"""

import functools
import json
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pidgan.application.conditions import UNIT_CHECK_ENTRIES, check_units
from pidgan.application.one_track import (
    STATUS_BITS,
    WITHOUT_TARGETS,
    Option,
    Track,
    TrackOptions,
    TrackPlan,
    generate_branches,
    open_generators,
    plan_track,
)
from pidgan.application.several_tracks import lay_out
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.copying import Addition, check_writable, replaced_type, write_copy
from pidgan.files.tables import (
    BranchType,
    Source,
    TreeInfo,
    describe_tree,
    iterate_entries,
)
from pidgan.files.writing import exists_error, refuse_existing, writing_files

Mode: TypeAlias = Literal["append", "replace", "friend"]

Counts: TypeAlias = dict[str, dict[str, int]]
"""For each track the rows with generated targets, and those with each status bit."""

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of entries that are newly done."""

MANIFEST_SCHEMA = 2


@dataclass(frozen=True, kw_only=True)
class FileJob:
    """What is to be done with one file.

    Attributes:
        tracks: bundle or directory of bundles of each track, or an open generator.
        settings: how tracks are processed.
        mode: as for `apply`.
        seed: of the noise.
        trees: the trees, each with the running number of its first entry.
        output: where the copy goes.
        request: what the manifest says was asked for.
        overwrite: replace an existing output.
        chunk: most entries at a time.
        chunk_bytes: most bytes of a chunk.
        threads: threads that generate.
    """

    tracks: Mapping[str, Track]
    settings: TrackOptions
    mode: Mode
    seed: int
    trees: tuple[tuple[Source, int], ...]
    output: Path
    request: Mapping[str, Any]
    overwrite: bool
    chunk: int
    chunk_bytes: int
    threads: int


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


def plan_file(
    job: FileJob,
    options: Mapping[str, tuple[Option, ...]],
    infos: Sequence[TreeInfo] | None = None,
) -> tuple[TreePlan, ...]:
    """Return what each tree of a file gets.

    Args:
        job: what is to be done.
        options: the generators of each track.
        infos: what the trees hold, where it is known.

    Raises:
        NtupleError: a branch that is needed is missing or of the wrong type.
    """
    if infos is None:
        infos = [describe_tree(source) for source, _ in job.trees]
    return tuple(
        TreePlan(
            source=source,
            info=info,
            first_entry=first,
            tracks=tuple(
                plan_track(track, found, source, info, settings=job.settings)
                for track, found in options.items()
            ),
        )
        for (source, first), info in zip(job.trees, infos, strict=True)
    )


def check_tree(tree: TreePlan, mode: Mode) -> None:
    """Raise if a tree cannot be processed; nothing is written yet."""
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
        warnings.warn(f"{source} has 0 entries", PidganWarning, stacklevel=3)
        return
    head = next(iterate_entries(source, tree.needed, chunk=UNIT_CHECK_ENTRIES))
    for track in tree.tracks:
        rows, _ = lay_out(head, track.needed, track.shape, where=track.label)
        for conditions in track.conditions:
            check_units(conditions, rows, source, track.name)


def write_file(
    job: FileJob, trees: Sequence[TreePlan], progress: Progress | None = None
) -> tuple[Counts, list[str]]:
    """Write the copy of a file, then its manifest.

    Returns:
        The counts of each track, and notes on what the copy does not hold.
    """
    tracks = trees[0].tracks
    names = ["generated", *STATUS_BITS]
    counts = {track.name: dict.fromkeys(names, 0) for track in tracks}
    additions = [
        Addition(
            source=tree.source,
            needed=tree.needed,
            types=tree.types,
            compute=_computation(tree, job, counts, progress),
            like=tree.like,
        )
        for tree in trees
    ]
    # Without --overwrite, the manifest of an output that is gone is replaced too.
    refuse_existing(job.output, overwrite=job.overwrite)
    paths = job.output, manifest_path(job.output)
    with writing_files(paths, overwrite=True) as (temporary, manifest):
        notes = write_copy(
            additions,
            temporary,
            keep=job.mode != "friend",
            chunk=job.chunk,
            chunk_bytes=job.chunk_bytes,
        )
        content = {
            "schema": MANIFEST_SCHEMA,
            "request": job.request,
            "output": {"size": temporary.stat().st_size},
            "mapping": {track.name: track.mapping for track in tracks},
            "bundles": {
                track.name: describe_bundles(track.options) for track in tracks
            },
            "counts": counts,
            "notes": notes,
            "versions": _versions(),
        }
        manifest.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return counts, notes


def run_job(job: FileJob) -> tuple[Counts, list[str]]:
    """Do what a job says, in a process that knows nothing of it.

    Raises:
        NtupleError: also if a bundle is no longer the one that was asked for.
    """
    if not job.overwrite and is_finished(job.output, job.request):
        manifest = read_manifest(job.output)
        return manifest["counts"], manifest["notes"]
    options = {
        track: _generators(
            track,
            str(given),
            job.settings.species_from,
            tuple(job.request["tracks"][track]),
        )
        for track, given in job.tracks.items()
    }
    return write_file(job, plan_file(job, options))


@functools.lru_cache(maxsize=8)
def _generators(
    track: str, path: str, species_from: str | None, hashes: tuple[str, ...]
) -> tuple[Option, ...]:
    """Open the generators of a track once for all files of a process."""
    options = open_generators(track, path, species_from)
    found = tuple(option.sha256 for option in options)
    if found != hashes:
        raise NtupleError(
            f"{path}, given for {track}, has changed: sha256 is {', '.join(found)}, "
            f"expected {', '.join(hashes)}"
        )
    return options


def is_finished(output: Path, request: Mapping[str, Any]) -> bool:
    """Return whether an earlier run wrote this output; raise if another is there."""
    manifest = read_manifest(output)
    if not manifest and manifest_path(output).exists():
        reason = " and is not the manifest of an output"
        raise exists_error(manifest_path(output), reason)
    if not output.exists():
        return False
    old = {**manifest.get("request", {}), "output": manifest.get("output")}
    new = {**request, "output": {"size": output.stat().st_size}}
    differing = sorted(name for name in new if old.get(name) != new[name])
    if not differing:
        return True
    reason = f" and differs in {', '.join(differing)}" if manifest else ""
    raise exists_error(output, reason)


def read_manifest(output: Path) -> dict[str, Any]:
    """Return the manifest beside an output, empty if there is none."""
    try:
        content = json.loads(manifest_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "request" in content else {}


def manifest_path(output: Path) -> Path:
    """Return where the manifest of an output lies."""
    return output.with_name(f"{output.name}.json")


def describe_bundles(options: Iterable[Option]) -> list[dict[str, str]]:
    """Return what a summary says of the generators of a track."""
    return [
        {"path": o.where, "species": o.generator.card.species, "sha256": o.sha256}
        for o in options
    ]


def package_version(name: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _computation(
    tree: TreePlan, job: FileJob, counts: Counts, progress: Progress | None
) -> Callable[[int, Mapping[str, Any]], dict[str, Any]]:
    """Return the function that makes the new branches of a chunk, and counts."""

    def compute(first: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
        start = tree.first_entry + first
        columns: dict[str, Any] = {}
        for track in tree.tracks:
            fresh, status = generate_branches(
                track, arrays, seed=job.seed, start=start, threads=job.threads
            )
            _count(counts[track.name], status)
            columns |= fresh
        if progress is not None:
            progress(len(arrays[tree.needed[0]]))
        return columns

    return compute


def _count(counts: dict[str, int], status: npt.NDArray[np.int8]) -> None:
    """Add the rows of a chunk to the counts of a track."""
    counts["generated"] += int(np.count_nonzero((status & WITHOUT_TARGETS) == 0))
    for name, bit in STATUS_BITS.items():
        counts[name] += int(np.count_nonzero(status & bit))


def _versions() -> dict[str, str]:
    """Return the versions that a manifest records."""
    names = ("awkward", "numpy", "onnxruntime", "pyarrow", "uproot")
    return {"python": platform.python_version()} | {
        name: package_version(name) for name in names
    }
