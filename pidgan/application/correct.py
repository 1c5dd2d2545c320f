"""Correct the simulated PID branches of analysis ntuples, instead of replacing them.

`correct` does what `apply` does, with a corrector: its output is a function of the
simulated targets too, so that they keep what they share with the rest of the event.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pidgan.application.apply import carry_out
from pidgan.application.conditions import Conditions
from pidgan.application.request import Elsewhere, Mode, Request, Track
from pidgan.arguments import checked
from pidgan.files.frames import Rows
from pidgan.progress import CountProgress

SUFFIX = "_corr"
"""End of the names of corrected branches."""


@checked
def correct(
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
    suffix: str = SUFFIX,
    key: Sequence[str] = (),
    files_part: tuple[int, int] | None = None,
    chunk: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    client: Any = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: CountProgress = True,
) -> Any:
    """Write copies of simulated ntuples with corrected PID branches.

    Rows in memory are given back with the new columns instead.

    Every track gets a branch `{track}_{target}{suffix}` for each target, from the
    branches that hold its conditions and its simulated targets, and a status as `apply`
    writes it. Bit 1 also says that a simulated target is outside the trained range, bit
    2 that one is no number, or that atoms and sentinels come in a combination which the
    training had not; the corrected targets are then NaN. Noise is used only for ranks
    within atoms, and for the tracks whose pattern of atoms and ties must change.

    Args:
        tracks: Prefix of each track, with its corrector, or a directory of correctors
            from which `species_from` chooses.
        files: Files, `FILE:TREE`, patterns or addresses; or rows in memory.
        output: A file, if there is one input file; else a directory.
        mode: "append" adds branches; "replace" replaces those that exist; "friend"
            writes trees that hold the new branches only.
        seed: Seed of the noise.
        species_from: NAME of the branches `{track}_NAME` that hold a PDG id.
        mother_from: NAME of the branches `{track}_NAME` that hold the PDG id of the
            true mother.
        where: Cut on branches; only tracks that pass are corrected.
        elsewhere: Value for the other tracks, "nan" or "keep".
        conditions: Branches, units, scales and quantile maps of conditions, and
            branches of simulated targets, where they are not the default.
        suffix: End of the new names. With "" and mode "replace", corrected values
            stand in the place of the simulated ones.
        key: Branches that identify an event, as in `apply`.
        files_part: (i, n) to do part i of n of the list of files, counted from 1.
        chunk: Largest number of entries of a chunk.
        threads: Number of threads that compute.
        workers: Number of processes among which the files are divided.
        client: A `dask.distributed.Client` whose workers process the files.
        overwrite: Whether existing outputs are replaced.
        dry_run: Whether to find out only what would be done.
        progress: Whether a bar is shown; or a function, as in `apply`.

    Returns:
        The `ApplySummary`, or the rows in memory with the new columns.

    Raises:
        NtupleError: A bundle is a generator, or a file, branch, unit or output is not
            as needed.
        BundleError: A bundle is refused.

    Example:
        >>> correct({"Kplus": "corrector.onnx"}, "mc.root", "out.root")
        ... # doctest: +SKIP
    """
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
        corrects=True,
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
