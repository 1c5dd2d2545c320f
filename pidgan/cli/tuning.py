"""The verb of a search for settings."""

from pathlib import Path
from typing import Any

import click

from pidgan.bounds import BOUNDS
from pidgan.cli import lengths, options
from pidgan.cli.group import cli, note, shows_progress
from pidgan.cli.learning import family


@cli.command(epilog="Example: pidgan tune kaon -o kaon-tuning --budget 1h")
@options.dataset
@options.output("Folder of the search, which is joined if it is there.", refuses=False)
@family
@click.option(
    "--metric",
    type=click.Choice(["likelihood", "energy"]),
    help="Figure on rows not trained on by which settings are compared: likelihood of "
    "the generator, or energy score.  [default: likelihood where there is one]",
)
@click.option(
    "--budget",
    metavar="DURATION",
    callback=options.reads(lengths.parse_duration),
    help="Wall-clock time of this process for trials and comparison.  [default: 30m, "
    "or none with --trials]",
)
@click.option(
    "--trials",
    type=options.COUNT,
    help="Number of trials of the search, of all processes together.",
)
@click.option(
    "--trial-budget",
    metavar="DURATION",
    callback=options.reads(lengths.parse_duration),
    help="Time of a trial with the default settings, which becomes its number of "
    "steps.  [default: a 32nd of the budget]",
)
@click.option(
    "--trial-steps",
    type=options.COUNT,
    help="Number of steps of a trial, instead of a time; with one process, it and the "
    "seed repeat a search.",
)
@click.option(
    "--seeds",
    type=click.IntRange(*BOUNDS["seeds"]),
    default=3,
    help="Number of seeds of the comparison at the end.",
)
@options.settings("NAME=VALUE", "width=128")
@options.seed
@options.as_json
def tune(dataset: Path, output: Path, as_json: bool, **given: Any) -> None:
    """Search the settings of a family, and compare the best with the default.

    PATH/settings.toml is for `pidgan train --settings`. It holds the best settings
    where these are better on rows that the search never saw, else the default ones.
    Jobs with the same PATH share one search; a second call continues it.
    """
    if given["trial_budget"] is not None and given["trial_steps"] is not None:
        raise click.UsageError("give --trial-budget or --trial-steps, not both")
    options.refuse_place(output, "tuning", "folder")
    from pidgan.report.tuning import tune as search

    found = search(dataset, output, progress=shows_progress(), **given)
    click.echo(found.to_json() if as_json else found.text())
    note(f"{output / 'settings.toml'}, {output / 'report.html'}")
