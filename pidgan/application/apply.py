"""Apply generators to analysis ntuples: new files with generated PID branches.

`apply` finds the files, decides what each of them gets and where it is processed
(`pidgan.application.workers`); one file is the business of
`pidgan.application.one_file`. Nothing depends on chunks, threads, processes or
machines: the noise of an entry is keyed by seed, track and running entry number, or by
branches that identify it. Beside each output lies a manifest; a rerun with the same
request skips what is finished.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pidgan.application.conditions import Conditions
from pidgan.application.one_file import (
    Counts,
    FileJob,
    Mode,
    TreePlan,
    check_tree,
    describe_bundles,
    is_finished,
    package_version,
    plan_file,
    read_manifest,
    write_file,
)
from pidgan.application.one_track import (
    Elsewhere,
    Option,
    Track,
    TrackOptions,
    open_generators,
)
from pidgan.application.workers import in_processes, on_dask
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.copying import CHUNK_BYTES
from pidgan.files.machine import available_cores, available_memory
from pidgan.files.tables import (
    Source,
    TreeInfo,
    describe_tree,
    find_outputs,
    find_sources,
)
from pidgan.files.trees import file_stamp, is_remote

CHUNK_ENTRIES = 200_000
"""Most entries of a chunk by default: more are not faster."""

MEMORY_SHARE = 20
"""A chunk takes at most this part of the memory: some five are alive at a time, each
with its compressed, uncompressed and computed arrays."""

CORES_PER_PROCESS = 4
"""Cores that a process uses well: one reads, one writes, the others generate."""


@dataclass(frozen=True, kw_only=True)
class ApplySummary:
    """What `apply` did, or would do.

    Attributes:
        outputs: the files written, or that would be.
        skipped: those of them that were finished before.
        entries: entries of all input trees.
        bundles: for each track its bundles: path, species, sha256.
        mapping: for each track, where each condition is found in the first tree.
        targets: for each track the names of the new branches, status included.
        counts: for each track the entries with generated targets, and those with each
            status bit; empty for a dry run.
        dry_run: whether nothing was written.
    """

    outputs: tuple[str, ...]
    skipped: tuple[str, ...]
    entries: int
    bundles: dict[str, list[dict[str, str]]]
    mapping: dict[str, dict[str, str]]
    targets: dict[str, list[str]]
    counts: dict[str, dict[str, int]]
    dry_run: bool

    def to_json(self) -> str:
        """Return the summary as JSON."""
        return json.dumps(asdict(self), indent=2)

    def text(self) -> str:
        """Return the summary as lines to read."""
        verb = "would write" if self.dry_run else "wrote"
        lines = [f"{self.entries} entries"]
        for track, mapping in self.mapping.items():
            species = ", ".join(b["species"] for b in self.bundles[track])
            lines.append(f"{track} ({species}): {', '.join(self.targets[track])}")
            lines += [f"  {name} = {origin}" for name, origin in mapping.items()]
            counts = self.counts.get(track, {})
            lines += [f"  {name}: {count}" for name, count in counts.items()]
        for path in self.outputs:
            done = path in self.skipped
            lines.append(f"{'skipped, finished before:' if done else verb} {path}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _File:
    """An input file: what its trees hold and get, and the job."""

    job: FileJob
    trees: tuple[TreePlan, ...]

    @property
    def output(self) -> Path:
        """Where the copy goes."""
        return self.job.output

    @property
    def entries(self) -> int:
        """Entries of all its trees."""
        return sum(tree.info.entries for tree in self.trees)


def apply(
    tracks: Mapping[str, Track],
    files: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    mode: Mode = "append",
    seed: int = 1,
    species_from: str | None = None,
    mother_from: str | None = None,
    where: str | None = None,
    elsewhere: Elsewhere = "nan",
    conditions: Conditions | None = None,
    suffix: str = "",
    key: Sequence[str] = (),
    part: tuple[int, int] | None = None,
    chunk: int | None = None,
    threads: int | None = None,
    workers: int | None = 1,
    client: Any = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ApplySummary:
    """Write copies of analysis ntuples with generated PID branches.

    Every track gets a branch `{track}_{target}{suffix}` (float32) for each target and
    `{track}_pidgan_status{suffix}` (int8) with bits 1: a condition outside the trained
    range, 2: a condition missing or no known category (targets NaN), 4: no bundle for
    the species (targets NaN), 8: outside the fiducial cut, 16: not selected, 32: no
    true particle (targets NaN), 64: decayed in flight. Where the branches of a track
    hold an array per entry, of fixed or variable length, so do the new ones. Showers
    have a branch, an array of fixed size, for each view of their cells. Inputs are
    never changed. All checks that need no generation come before the first file is
    written.

    Args:
        tracks: prefix of each track, with its bundle, an open generator, or a directory
            of bundles from which `species_from` chooses.
        files: as for `find_sources`: FILE, FILE:TREE, globs, addresses, Parquet.
        output: a file, if there is one input file and the name ends in .root or
            .parquet; else a directory, where files keep their names.
        mode: "append" adds branches; "replace" replaces those that exist; "friend"
            writes trees that hold the new branches only.
        seed: seed of the noise.
        species_from: NAME of the branches `{track}_NAME` that hold a PDG id; entries of
            another species than the bundles' get NaN.
        mother_from: NAME of the branches `{track}_NAME` that hold the PDG id of the
            true mother; a charged pion, kaon or muon there means a decay in flight.
        where: cut on branches (in whose names `{track}` is replaced); only tracks that
            pass get generated targets.
        elsewhere: what the others get: "nan", or "keep" for the value that they have,
            if the branches exist.
        conditions: Branches, units, scales and quantile maps of conditions, where they
            are not the default.
        suffix: end of the new names.
        key: branches that identify an event, such as ("runNumber", "eventNumber"). The
            noise is then a hash of them and of the values of the track's conditions (or
            of a branch with `{track}` in its name, if there is one), not of the entry
            number: equal in skims, merges and re-orderings.
        part: (i, n) does the i-th of n parts of the list of files, from 1; all parts
            together do exactly what one call does.
        chunk: most entries in memory at a time; by default up to 200000, fewer if a
            tree is wide or memory is small. The result does not depend on it.
        threads: threads that generate; by default the cores of this process, shared by
            the workers. The result does not depend on it.
        workers: processes among which the files are divided; None takes as many as
            files and cores suggest. A script that uses them needs the usual
            `if __name__ == "__main__":`.
        client: a `dask.distributed.Client` whose workers do the files, instead of
            this machine. They must see the paths; each file takes `threads`, by
            default one.
        overwrite: replace existing outputs.
        dry_run: only find out what would be done.
        progress: called with entries done and entries in all; first with those that
            were done before.

    Returns:
        The summary; each output also gets one, `<output>.json`.

    Raises:
        NtupleError: a file, branch, unit or output is not as needed.
        BundleError: a bundle is refused.

    Example:
        >>> apply({"Kplus": "kaon.onnx"}, "d2kpi.root:DecayTree", "out.root")
        ... # doctest: +SKIP
    """
    _check_arguments(mode, elsewhere, part=part, chunk=chunk)
    if not tracks:
        raise ValueError("tracks is empty, expected at least one")
    _check_selection(where, elsewhere, mode)
    if mother_from is not None and species_from is None:
        raise NtupleError("decays in flight are flagged only with --species-from")
    settings = TrackOptions(
        conditions=conditions or Conditions(),
        species_from=species_from,
        mother_from=mother_from,
        key=tuple(key),
        suffix=suffix,
        where=where,
        elsewhere=elsewhere,
    )
    options = {
        track: open_generators(track, given, species_from)
        for track, given in tracks.items()
    }
    names = {track: _condition_names(found) for track, found in options.items()}
    settings.conditions.check(names)
    job = FileJob(
        tracks=dict(tracks),
        settings=settings,
        mode=mode,
        seed=seed,
        trees=(),
        output=Path(output),
        request=_request(settings, options, mode=mode, seed=seed),
        overwrite=overwrite,
        chunk=chunk or CHUNK_ENTRIES,
        chunk_bytes=CHUNK_BYTES,
        threads=threads or 1,
    )
    plans = _plan(job, options, find_sources(files), part)
    total = sum(plan.entries for plan in plans)
    # A part of the files may hold nothing; all of them should not.
    if total == 0 and part is None:
        trees = ", ".join(str(tree.source) for plan in plans for tree in plan.trees)
        raise NtupleError(f"{trees}: got 0 entries, expected at least 1")
    finished = {
        str(plan.output): read_manifest(plan.output)["counts"]
        for plan in plans
        if not overwrite and is_finished(plan.output, plan.job.request)
    }
    pending = [plan for plan in plans if str(plan.output) not in finished]
    for plan in pending:
        for tree in plan.trees:
            check_tree(tree, mode)
    counts: dict[str, Counts] = {}
    if not dry_run:
        shared = _share(len(pending), workers=workers, threads=threads, client=client)
        report = _reporter(progress, total, sum(p.entries for p in pending))
        counts = finished | _process(pending, shared, client, report)
    first = plans[0].trees[0].tracks if plans else ()
    return ApplySummary(
        outputs=tuple(str(plan.output) for plan in plans),
        skipped=tuple(finished),
        entries=total,
        bundles={track: describe_bundles(found) for track, found in options.items()},
        mapping={track.name: track.mapping for track in first},
        targets={track.name: list(track.types) for track in first},
        counts=_added(counts.values()),
        dry_run=dry_run,
    )


def _check_arguments(
    mode: Mode,
    elsewhere: Elsewhere,
    *,
    part: tuple[int, int] | None,
    chunk: int | None,
) -> None:
    """Raise if an argument is none that there is."""
    if mode not in ("append", "replace", "friend"):
        raise ValueError(f"mode is {mode!r}, expected append, replace or friend")
    if elsewhere not in ("nan", "keep"):
        raise ValueError(f"elsewhere is {elsewhere!r}, expected nan or keep")
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ValueError(f"part is {part[0]}/{part[1]}, expected 1/n to n/n")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")


def _check_selection(where: str | None, elsewhere: Elsewhere, mode: Mode) -> None:
    """Raise if a selection contradicts the rest of the request."""
    if elsewhere == "nan":
        return
    if where is None:
        raise NtupleError("--elsewhere keep needs a selection, --where")
    if mode == "append":
        raise NtupleError(
            "--elsewhere keep needs values to keep: --mode replace, or --mode friend"
        )


def _request(
    settings: TrackOptions,
    options: Mapping[str, tuple[Option, ...]],
    *,
    mode: Mode,
    seed: int,
) -> dict[str, Any]:
    """Return what a manifest says was asked for."""
    return {
        "mode": mode,
        "seed": seed,
        "species_from": settings.species_from,
        "mother_from": settings.mother_from,
        "where": settings.where,
        "elsewhere": settings.elsewhere,
        **settings.conditions.record(),
        "suffix": settings.suffix,
        "key": list(settings.key),
        "tracks": {t: [o.sha256 for o in found] for t, found in options.items()},
        "pidgan": package_version("pidgan"),
    }


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """How the resources of this machine are shared."""

    workers: int
    threads: int
    chunk_bytes: int


def _share(
    files: int, *, workers: int | None, threads: int | None, client: Any
) -> _Shared:
    """Return processes, threads of each, and bytes of a chunk.

    Args:
        files: how many are to be done.
        workers: as for `apply`.
        threads: as for `apply`.
        client: as for `apply`.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if client is not None:
        return _Shared(workers=1, threads=threads or 1, chunk_bytes=CHUNK_BYTES)
    cores = available_cores()
    if workers is None:
        workers = cores // CORES_PER_PROCESS
    workers = max(1, min(workers, files))
    memory = available_memory() // (MEMORY_SHARE * workers)
    return _Shared(
        workers=workers,
        threads=threads or max(1, cores // workers),
        chunk_bytes=min(CHUNK_BYTES, memory),
    )


def _process(
    plans: Sequence[_File],
    shared: _Shared,
    client: Any,
    report: Callable[[int], None] | None,
) -> dict[str, Counts]:
    """Write all files; return the counts of each track by output."""
    jobs = [
        replace(plan.job, threads=shared.threads, chunk_bytes=shared.chunk_bytes)
        for plan in plans
    ]
    found: dict[str, Counts] = {}
    if client is None and shared.workers == 1:
        for plan, job in zip(plans, jobs, strict=True):
            counts, notes = write_file(job, plan.trees, report)
            found[str(plan.output)] = counts
            _announce(plan.output, notes)
        return found
    jobs = [_portable(job, absolute=client is not None) for job in jobs]
    results = (
        in_processes(jobs, workers=shared.workers)
        if client is None
        else on_dask(jobs, client)
    )
    for number, counts, notes in results:
        plan = plans[number]
        found[str(plan.output)] = counts
        _announce(plan.output, notes)
        if report is not None:
            report(plan.entries)
    return found


def _portable(job: FileJob, *, absolute: bool) -> FileJob:
    """Return a job that another process can do.

    Args:
        job: the job.
        absolute: whether paths must not depend on the current directory.
    """

    def path(given: str | Path) -> str:
        local = absolute and not is_remote(given)
        return str(Path(given).absolute()) if local else str(given)

    tracks: dict[str, Track] = {}
    for track, given in job.tracks.items():
        where = given if isinstance(given, str | Path) else getattr(given, "path", None)
        if where is None:
            raise NtupleError(
                f"{track}: several processes need the path of a bundle, got a "
                f"{type(given).__name__}"
            )
        tracks[track] = path(where)
    trees = tuple((Source(path(s.path), s.tree), first) for s, first in job.trees)
    return replace(job, tracks=tracks, trees=trees, output=Path(path(job.output)))


def _announce(output: Path, notes: Sequence[str]) -> None:
    """Warn of what a copy does not hold."""
    if notes:
        warnings.warn(f"{output}: {'; '.join(notes)}", PidganWarning, stacklevel=4)


def _reporter(
    progress: Callable[[int, int], None] | None, total: int, pending: int
) -> Callable[[int], None] | None:
    """Return a function of newly done entries that calls `progress` with sums."""
    if progress is None:
        return None
    done = total - pending
    progress(done, total)

    def report(entries: int) -> None:
        nonlocal done
        done += entries
        progress(done, total)

    return report


def _added(parts: Iterable[Counts]) -> Counts:
    """Return the sums of the counts of several files."""
    sums: Counts = {}
    for counts in parts:
        for track, numbers in counts.items():
            old = sums.get(track, {})
            sums[track] = {n: old.get(n, 0) + m for n, m in numbers.items()}
    return sums


def _condition_names(options: Iterable[Option]) -> set[str]:
    return {name for o in options for name in o.generator.card.condition_names}


def _plan(
    job: FileJob,
    options: Mapping[str, tuple[Option, ...]],
    sources: Sequence[Source],
    part: tuple[int, int] | None,
) -> list[_File]:
    """Return what is to be done with each file, in the order of their entries.

    Args:
        job: what all files have in common.
        options: the generators of each track.
        sources: the trees, in order.
        part: as for `apply`.
    """
    by_path: dict[str, list[Source]] = {}
    for source in sources:
        by_path.setdefault(source.path, []).append(source)
    outputs = find_outputs(list(by_path), job.output)
    plans = []
    entry = 0
    for number, (path, found) in enumerate(by_path.items()):
        is_mine = part is None or number * part[1] // len(by_path) == part[0] - 1
        if not is_mine and job.settings.key:
            continue
        infos = [describe_tree(source) for source in found]
        starts = []
        for info in infos:
            # With a key nothing depends on the files that come before.
            starts.append(0 if job.settings.key else entry)
            entry += info.entries
        if is_mine:
            trees = tuple(zip(found, starts, strict=True))
            stamp = _stamp(path, trees, infos)
            mine = replace(
                job,
                trees=trees,
                output=outputs[path],
                request={**job.request, "input": stamp},
            )
            plans.append(_File(job=mine, trees=plan_file(mine, options, infos)))
    return plans


def _stamp(
    path: str, trees: Sequence[tuple[Source, int]], infos: Sequence[TreeInfo]
) -> dict[str, Any]:
    """Return what identifies an input: trees, size and time of change."""
    return {
        "file": path,
        "trees": [
            [source.tree, first, info.entries]
            for (source, first), info in zip(trees, infos, strict=True)
        ],
        **file_stamp(path),
    }
