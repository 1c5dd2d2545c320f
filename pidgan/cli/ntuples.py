"""What the verbs that write ntuples have in common: `apply` and `correct`."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pidgan.cli import options
from pidgan.cli.group import shows_progress


def _parse_part(text: str) -> tuple[int, int]:
    i, n = options.parse_fraction(text, expected := "I/N with 1 <= I <= N")
    if i > n:
        raise click.BadParameter(f"{text!r}: expected {expected}")
    return i, n


_OPTIONS = (
    options.output(
        "File that is written; a folder if there are several FILEs.", callback=None
    ),
    click.option(
        "--mode",
        type=click.Choice(["append", "replace", "friend"]),
        default="append",
        help="Way of writing: add branches, replace branches of the same name, or "
        "write a friend tree with the new branches only.",
    ),
    options.species_from,
    click.option(
        "--mother-from",
        metavar="NAME",
        help="Branch {track}_NAME with the PDG id of the mother, to flag decays in "
        "flight.",
    ),
    options.where,
    click.option(
        "--elsewhere",
        type=click.Choice(["nan", "keep"]),
        default="nan",
        help="Value for tracks that fail --where: NaN, or the value that they have.",
    ),
    options.conditions,
    options.key(
        "Branches that identify an event, e.g. runNumber,eventNumber. The generated "
        "values then stay the same if the ntuple is skimmed or reordered."
    ),
    click.option(
        "--files-part",
        metavar="I/N",
        callback=options.reads(_parse_part),
        help="Process only part I of N of the files, counted from 1, e.g. in batch "
        "jobs.",
    ),
    click.option(
        "--workers",
        type=options.COUNT,
        help="Number of processes that share the files.  [default: from files and "
        "cores]",
    ),
    click.option(
        "--threads",
        type=options.COUNT,
        help="Number of threads in each process.  [default: its share of the cores]",
    ),
    options.device,
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Address of a Dask scheduler whose workers process the files, e.g. "
        "tcp://host:8786.",
    ),
    click.option(
        "--chunk",
        type=options.COUNT,
        help="Number of entries read at a time.  [default: from the memory, at most "
        "200000]",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Show which branch is used for each condition, and write nothing.",
    ),
    options.seed,
    options.overwrite,
    options.as_json,
)
"""Options of both verbs, in the order of their help."""


def ntuple_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a verb that writes ntuples."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_on_ntuples(
    function: Callable[..., Any],
    tracks: dict[str, str],
    files: Sequence[str],
    output: Path,
    *,
    scheduler: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Call `apply` or `correct`, perhaps on workers, and print its summary."""
    from pidgan.application.workers import dask_client

    none = contextlib.nullcontext()
    given["progress"] = shows_progress()
    with none if scheduler is None else dask_client(scheduler) as client:
        summary = function(tracks, list(files), output, client=client, **given)
    click.echo(summary.to_json() if as_json else summary.text())
