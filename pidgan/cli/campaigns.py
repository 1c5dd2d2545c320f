"""The verb that makes many bundles from one file."""

import sys
from pathlib import Path
from typing import Any

import click

from pidgan.cli import options
from pidgan.cli.group import cli, fail, note, shows_progress


@cli.command("campaign", epilog="Example: pidgan campaign campaign.toml --workers 2")
@click.argument("campaign", metavar="CAMPAIGN.toml", type=options.CAMPAIGN)
@options.output(
    "Folder that is written, with all bundles, reports and maps.  [default: the name "
    "of the file without .toml]",
    required=False,
    refuses=False,
)
@click.option(
    "--workers",
    type=options.COUNT,
    help="Number of tasks at a time, or of jobs of a batch system. More than one needs "
    "Dask.  [default: what the file says, else one for each core]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler whose workers do the tasks, e.g. tcp://host:8786.",
)
@click.option(
    "--batch",
    type=click.Choice(["htcondor", "slurm"]),
    help="Batch system on which workers are started; `run.options` of the file has "
    "its memory, queue, ...",
)
@click.option(
    "--status",
    is_flag=True,
    help="Show what is done, runs and failed, also while another process works on it.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything, and show what would be done and, with a batch system, the "
    "script of a job.",
)
@options.as_json
def make_campaign(
    campaign: Path,
    output: Path | None,
    status: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Make all bundles of a grid: datasets, models, reports, maps, a collection.

    The file has axes, such as samples, years and polarities, and says how each bundle
    is made. Tasks run side by side. What is done is kept: the same command does what
    is missing, failed, or depends on what changed. A task that fails stops only those
    that need it; the exit code is 1 then. Look at overview.html in the folder.
    """
    from pidgan.campaign.definition import Campaign
    from pidgan.campaign.run import chosen_run, run_campaign
    from pidgan.campaign.status import campaign_status

    opened = Campaign.open(campaign)
    if status or dry_run:
        run = chosen_run(opened, **given)
        found = campaign_status(opened, output)
        click.echo(found.to_json() if as_json else found.text())
        if dry_run and run.batch is not None:
            from pidgan.campaign.engines import job_script

            note(job_script(opened, run, found.output))
        return
    try:
        found = run_campaign(opened, output, progress=shows_progress(), **given)
    except KeyboardInterrupt:
        fail("interrupted; the same command continues", code=130)
    click.echo(found.to_json() if as_json else found.text())
    note(str(found.overview))
    if not found.is_complete:
        if not found.failed:
            fail(f"not complete: {found.summary()}", code=1)
        first = found.failed[0]
        more = len(found.failed) - 1
        others = f" (and {more} more)" if more else ""
        fail(f"{first.task} failed{others}: {first.reason}", code=1)
    sys.stdout.flush()
