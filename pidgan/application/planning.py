"""What each tree gets, planned before anything is generated, and what is said after it.

Files and rows in memory are planned alike: their branches, the bundles that serve their
rows, the checks that need no generation.
"""

import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pidgan.application import one_file
from pidgan.application.choosing import (
    Scan,
    check_gaps,
    needs_scan,
    scan_track,
    warn_texts,
)
from pidgan.application.finished import Outside
from pidgan.application.generators import (
    Generators,
    TrackGenerators,
    open_generators,
)
from pidgan.application.names import of_track
from pidgan.application.one_file import FileJob, FilePlan, Progress
from pidgan.application.request import Request
from pidgan.application.sample_cuts import SampleCuts, sample_cut_text
from pidgan.arguments import brief
from pidgan.errors import NtupleError, PidganWarning

CHUNK_ENTRIES = 200_000
"""Largest default number of entries of a chunk; more are not faster."""

MANY_CHUNK_ENTRIES = 250_000
"""The same where several bundles share the rows: each fills its last block of rows."""

OUTSIDE_SHARE = 0.05
"""Share of rows with a condition outside the trained range, above which a warning says
so. Samples that differ a little from the calibration sample stay below it."""


def plan_files(
    jobs: Sequence[FileJob], generators: Generators, skipped: Container[str]
) -> list[FilePlan]:
    """Return what each tree gets; raise if a branch or a bundle is missing for it.

    Of trees that are not finished, the columns that choose bundles are read.
    """
    scans: dict[str, Scan] = {
        track: Scan() for track, found in generators.items() if needs_scan(found)
    }
    plans = []
    for job in jobs:
        unknown = {t: None if t in scans else _all(g) for t, g in generators.items()}
        plan = one_file.plan_file(
            replace(job, used=(unknown,) * len(job.trees)), generators
        )
        if scans and str(job.output) not in skipped:
            used = []
            for tree in plan.trees:
                found = dict(unknown)
                for track in tree.tracks:
                    if track.name in scans:
                        own = generators[track.name]
                        scan = scan_track(track, own, tree.source, tree.info)
                        scans[track.name].add(scan)
                        found[track.name] = tuple(sorted(scan.served)) or None
                used.append(found)
            plan = one_file.plan_file(replace(job, used=tuple(used)), generators)
        plans.append(plan)
    for name, total in scans.items():
        check_gaps(name, total, generators[name])
        for text in warn_texts(name, total, generators[name]):
            warnings.warn(text, PidganWarning, stacklevel=4)
    return plans


def largest_chunk(generators: Generators) -> int:
    """Return the default for the largest number of entries of a chunk."""
    is_shared = any(len(found.members) > 1 for found in generators.values())
    return MANY_CHUNK_ENTRIES if is_shared else CHUNK_ENTRIES


def open_tracks(request: Request) -> tuple[Generators, dict[str, Any]]:
    """Open the generators of all tracks; return them, and the request for a record."""
    generators = {
        track: open_generators(track, given, request.species_from, request.gaps)
        for track, given in request.tracks.items()
    }
    for track, found in generators.items():
        check_kind(track, found, corrects=request.corrects)
    hashes = {track: found.hashes for track, found in generators.items()}
    rules = {t: found.rules for t, found in generators.items() if found.rules}
    request.conditions.check(
        {
            track: {
                name for one in found.members for name in one.generator.card.input_names
            }
            for track, found in generators.items()
        }
    )
    return generators, request.record(hashes, rules)


def check_kind(track: str, generators: TrackGenerators, *, corrects: bool) -> None:
    """Raise an NtupleError for a corrector where one generates, and the reverse."""
    for one in generators.members:
        if one.generator.card.is_corrector and not corrects:
            raise NtupleError(
                f"{track}: {one.where} is a corrector, which needs the simulated "
                "targets and does not generate any; use `pidgan correct` (pidgan."
                "correct)"
            )
        if corrects and not one.generator.card.is_corrector:
            raise NtupleError(
                f"{track}: {one.where} is a generator, which replaces targets and does "
                "not correct simulated ones; use `pidgan apply` (pidgan.apply), or "
                "train a corrector, `pidgan train-corrector`"
            )


def _all(generators: TrackGenerators) -> tuple[int, ...]:
    """Return the numbers of all generators."""
    return tuple(range(len(generators.members)))


def final_texts(
    outside: Outside, sample_cuts: SampleCuts, generators: Generators
) -> Iterator[str]:
    """Yield warnings of what was counted in all rows."""
    yield from _outside_texts(outside, generators)
    texts = (sample_cut_text(*own) for own in sample_cuts.items())
    yield from filter(None, texts)


def _outside_texts(outside: Outside, generators: Generators) -> Iterator[str]:
    """Yield warnings of conditions that are outside the trained range in many rows."""
    for track, found in outside.items():
        cards = [one.generator.card for one in generators[track].members]
        for name, (n, of) in found.items():
            if n <= OUTSIDE_SHARE * of:
                continue
            variables = [v for card in cards for v in card.inputs if v.name == name]
            ranges = dict.fromkeys("{:g} to {:g}".format(*v.range) for v in variables)
            which = f"{name}{of_track(track)} is outside the trained range "
            which += f"({' or '.join(ranges)}) or no number"
            if n == of:
                yield (
                    f"{which} in ALL {of} rows, 100 %: the branch is empty, in another "
                    "unit or another quantity; do not use the generated values"
                )
            else:
                yield (
                    f"{which} in {n} of {of} rows, {100 * n / of:.1f} %: their values "
                    "are extrapolated or NaN, and no uncertainty covers them; the "
                    "status tells which rows they are"
                )


def check_memory(**given: Any) -> None:
    """Raise a ValueError for an argument that has no meaning for rows in memory."""
    for name, value in given.items():
        if value:
            raise ValueError(
                f"{name} is {brief(value)}, which is for files; rows in memory are "
                "given back with the new columns"
            )


def reporter(
    progress: Callable[[int, int], None] | None, total: int, pending: int
) -> Progress | None:
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
