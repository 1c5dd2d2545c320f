"""Apply generators to analysis ntuples: new files with generated PID branches.

`apply` finds the files, decides what each of them gets and has them processed. Nothing
depends on chunks, threads, processes or machines: the noise of an entry is keyed by
seed, track and running entry number, or by branches that identify it. Each output
holds a record of how it was made; a rerun with the same request skips what is finished.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pidgan import higher
from pidgan.application import one_file
from pidgan.application.conditions import Conditions
from pidgan.application.finished import (
    Outcome,
    Outside,
    find_outcome,
)
from pidgan.application.in_memory import apply_to_frame
from pidgan.application.one_file import FileJob
from pidgan.application.planning import (
    check_memory,
    final_texts,
    largest_chunk,
    open_tracks,
    plan_files,
    reporter,
)
from pidgan.application.request import Elsewhere, Mode, Request, Track
from pidgan.application.sample_cuts import SampleCuts, add_numbers, unjudged_texts
from pidgan.application.summary import ApplySummary
from pidgan.application.workers import do_files
from pidgan.arguments import checked
from pidgan.bundle.collection import Gaps
from pidgan.bundle.shipped import shipped_path
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.copying import CHUNK_BYTES, Schema
from pidgan.files.frames import Rows, is_frame
from pidgan.files.places import check_output
from pidgan.files.tables import describe_tree, find_outputs, find_sources
from pidgan.files.trees import Source, file_stamp
from pidgan.files.wording import words_of_rows
from pidgan.progress import CountProgress, entries_progress


@checked
@words_of_rows("files")
def apply(
    tracks: Mapping[str, Track],
    files: Rows,
    output: str | Path | None = None,
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
    gaps: Gaps | None = None,
    files_part: tuple[int, int] | None = None,
    chunk: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    client: Any = None,
    server: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: CountProgress = True,
) -> Any:
    """Write copies of analysis ntuples with generated PID branches.

    Rows in memory are given back with the new columns instead.

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
        tracks: Prefix of each track, with its bundle, an open generator, a directory of
            bundles from which `species_from` chooses, or a collection
            (`pidgan.bundle.collection`), which chooses by columns.
        files: Files, `FILE:TREE`, patterns or addresses; or rows in memory: a
            DataFrame, a dict of arrays, an awkward array of records, or a structured
            array of numpy, alone and without `output`.
        output: A file, if there is one input file and the name ends as that of a known
            format; else a directory, where files keep their names.
        mode: "append" adds branches; "replace" replaces those that exist; "friend"
            writes trees that hold the new branches only.
        seed: Seed of the noise.
        species_from: NAME of the branches `{track}_NAME` that hold a PDG id. Entries of
            another species than the bundles' get NaN.
        mother_from: NAME of the branches `{track}_NAME` that hold the PDG id of the
            true mother; a charged pion, kaon or muon there means a decay in flight.
        where: Cut on branches (in whose names `{track}` is replaced); only tracks that
            pass get generated targets.
        elsewhere: Value for the other tracks: "nan", or "keep" for the value that they
            have, if the branches exist.
        conditions: Branches, units, scales and quantile maps of conditions, where they
            are not the default.
        suffix: End of the new names.
        key: Branches that identify an event, such as ("runNumber", "eventNumber"). The
            noise is then a hash of them and of the values of the track's conditions (or
            of a branch with `{track}` in its name, if there is one), not of the entry
            number: equal in skims, merges and re-orderings.
        gaps: What rows get that no bundle of a collection serves: "error" raises before
            anything is written, "nan" gives NaN and status bit 4; by default what the
            collection says. Another species than those of the bundles always gets NaN.
        files_part: (i, n) to do part i of n of the list of files, counted from 1; all
            parts together do exactly what one call does.
        chunk: Largest number of entries of a chunk; by default up to 200000, fewer if a
            tree is wide or memory is small. The result does not depend on it.
        threads: Number of threads that generate; by default the cores of this process,
            shared by the workers. The result does not depend on it.
        workers: Number of processes among which the files are divided. None takes as
            many as files and cores suggest, but only one in a script without
            `if __name__ == "__main__":`, or where a generator is no file.
        client: A `dask.distributed.Client` whose workers process the files,
            instead of this machine. They must see the paths; each file takes `threads`,
            by default one.
        server: Address of a server (`pidgan.service`), which generates instead of
            this machine. `tracks` then has the name of a model, or of a collection, on
            the server for each prefix.
        overwrite: Whether existing outputs are replaced.
        dry_run: Whether to find out only what would be done.
        progress: Whether a bar, or a line of a log, is shown; or a function of entries
            done and entries in all, whose first call tells what was done before.

    Returns:
        The `ApplySummary`; each output holds its record, and beside it lies the same as
        a manifest, `<output>.json`. For rows in memory a DataFrame with the index of
        the rows, or an awkward array for an awkward array; its `attrs` hold the record.
        Rows are numbered from 0.

    Raises:
        NtupleError: A file, branch, unit or output is not as needed.
        BundleError: A bundle is refused.

    Example:
        >>> apply({"Kplus": "kaon.onnx"}, "d2kpi.root:DecayTree", "out.root")
        ... # doctest: +SKIP
    """
    if server is not None:
        tracks = higher.function("service.client", "open_tracks")(server, tracks)
    request = Request(
        tracks=tracks,
        mode=mode,
        seed=seed,
        species_from=species_from,
        mother_from=mother_from,
        where=where,
        elsewhere=elsewhere,
        conditions=conditions or Conditions(),
        suffix=suffix,
        key=tuple(key),
        gaps=gaps,
    )
    return carry_out(
        request,
        files,
        output,
        files_part=files_part,
        chunk=chunk,
        threads=threads,
        workers=workers,
        client=client,
        overwrite=overwrite,
        dry_run=dry_run,
        progress=progress,
    )


def carry_out(
    request: Request,
    files: Rows,
    output: str | Path | None,
    *,
    files_part: tuple[int, int] | None,
    chunk: int | None,
    threads: int | None,
    workers: int | None,
    client: Any,
    overwrite: bool,
    dry_run: bool,
    progress: CountProgress,
) -> Any:
    """Do what is asked for; the arguments are those of `apply`."""
    if files_part is not None and not 1 <= files_part[0] <= files_part[1]:
        shown = f"files_part is {files_part[0]}/{files_part[1]}"
        raise ValueError(f"{shown}, expected 1/n to n/n")
    is_memory = is_frame(files)
    if is_memory:
        check_memory(
            output=output,
            files_part=files_part,
            workers=workers,
            client=client,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    elif output is None:
        raise TypeError(
            f"{request.verb}: output is missing, expected a path for the new files"
        )
    else:
        check_output(output)
    tracks = {track: _placed(given) for track, given in request.tracks.items()}
    request = replace(request, tracks=tracks)
    if is_memory:
        with entries_progress(progress, request.verb) as told:
            return apply_to_frame(
                request, files, chunk=chunk, threads=threads, progress=told
            )
    generators, asked = open_tracks(request)
    job = FileJob(
        request=request,
        record=asked,
        trees=(),
        output=Path(str(output)),
        overwrite=overwrite,
        chunk=chunk or largest_chunk(generators),
        chunk_bytes=CHUNK_BYTES,
        threads=threads or 1,
    )
    sources = find_sources(files)
    if any(source.table is not None for source in sources):
        raise TypeError(
            f"{request.verb}: files holds rows in memory, expected them alone"
        )
    jobs = _jobs(job, sources, files_part)
    skipped = {} if overwrite else _find_finished(jobs, restore=not dry_run)
    plans = plan_files(jobs, generators, skipped)
    pending = [plan for plan in plans if str(plan.job.output) not in skipped]
    one_file.run_self_tests(pending, generators)
    tried: set[Schema] = set()
    for plan in pending:
        for tree in plan.trees:
            one_file.check_tree(tree, request.mode, tried)
    by_path = {} if dry_run else dict(skipped)
    total = sum(plan.entries for plan in plans)
    if not dry_run:
        with entries_progress(progress, request.verb) as told:
            written = do_files(
                pending,
                workers=workers,
                threads=threads,
                client=client,
                progress=reporter(told, total, sum(p.entries for p in pending)),
            )
            for plan, done in written:
                by_path[str(plan.job.output)] = done
                if done.notes:
                    text = f"{plan.job.output}: {'; '.join(done.notes)}"
                    warnings.warn(text, PidganWarning, stacklevel=2)
    first = plans[0].tracks if plans else ()
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    outside: Outside = {}
    sample_cuts: SampleCuts = {}
    for part in by_path.values():
        for track, numbers in part.counts.items():
            counts[track].update(numbers)
        add_numbers(outside, part.outside)
        add_numbers(sample_cuts, part.sample_cuts)
    in_files = {path: part.sample_cuts for path, part in by_path.items()}
    texts = [*final_texts(outside, sample_cuts, generators), *unjudged_texts(in_files)]
    for text in texts:
        warnings.warn(text, PidganWarning, stacklevel=2)
    return ApplySummary(
        outputs=tuple(str(plan.job.output) for plan in plans),
        skipped=tuple(skipped),
        entries=total,
        bundles={
            track: [one.description() for one in found.members]
            for track, found in generators.items()
        },
        mapping={track.name: track.mapping for track in first},
        targets={track.name: list(track.types) for track in first},
        counts={track: dict(numbers) for track, numbers in counts.items()},
        outside=outside,
        sample_cuts=sample_cuts,
        dry_run=dry_run,
        corrects=request.corrects,
    )


def _placed(given: Track) -> Track:
    """Return the path of a bundle that ships, where its name is given."""
    return shipped_path(given, ".onnx") if isinstance(given, str | Path) else given


def _find_finished(jobs: Sequence[FileJob], *, restore: bool) -> dict[str, Outcome]:
    """Return what earlier runs did of the same request, by output."""
    found = {}
    for job in jobs:
        done = find_outcome(job.output, job.record, job.tree_names, restore=restore)
        if done is not None:
            found[str(job.output)] = done
    return found


def _jobs(
    job: FileJob, sources: Sequence[Source], part: tuple[int, int] | None
) -> list[FileJob]:
    """Return what is to be done with each file, in the order of their entries."""
    by_path: dict[str, list[Source]] = {}
    for source in sources:
        by_path.setdefault(source.path, []).append(source)
    outputs = find_outputs(list(by_path), job.output)
    jobs = []
    entry = 0
    for number, (path, found) in enumerate(by_path.items()):
        is_mine = part is None or number * part[1] // len(by_path) == part[0] - 1
        # With a key nothing depends on the files that come before.
        if not is_mine and job.request.key:
            continue
        trees = []
        for source in found:
            info = describe_tree(source)
            trees.append((source, info, 0 if job.request.key else entry))
            entry += info.entries
        if is_mine:
            stamp = {
                "file": path,
                "trees": [[s.tree, first, info.entries] for s, info, first in trees],
                **file_stamp(path),
            }
            mine = replace(
                job,
                trees=tuple(trees),
                output=outputs[path],
                record={**job.record, "input": stamp},
            )
            jobs.append(mine)
    # A part of the files may hold nothing; all of them should not.
    if part is None and not any(info.entries for j in jobs for _, info, _ in j.trees):
        named = ", ".join(map(str, sources))
        raise NtupleError(f"{named}: got 0 entries, expected at least 1")
    return jobs
