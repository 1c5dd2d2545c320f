"""The verb that finds thresholds of PID cuts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pidgan.cli import options
from pidgan.cli.group import cli, note, open_generator


@cli.command(
    "working-point",
    epilog='Example: pidgan working-point kaon.onnx pion.onnx --cut "RichDLLk > x" '
    "--efficiency 0.9",
)
@click.argument("signal", metavar="BUNDLE", type=options.GENERATOR)
@click.argument("others", metavar="[OTHER]...", nargs=-1, type=options.GENERATOR)
@click.option(
    "--cut",
    required=True,
    metavar="CUT",
    help='PID cut with x for the threshold, e.g. "RichDLLk > x & RichDLLp < 5".',
)
@click.option(
    "--efficiency", type=float, help="Efficiency that BUNDLE must have, from 0 to 1."
)
@click.option(
    "--max-misid",
    type=float,
    help="Highest misID allowed for any OTHER species, from 0 to 1.",
)
@click.option(
    "--thresholds",
    metavar="X,X,...",
    callback=options.reads(options.parse_numbers),
    help="Thresholds at which the cut is evaluated.  [default: quantiles of all "
    "species]",
)
@options.binning
@options.report
@options.device
@options.seed
@options.overwrite
@options.as_json
def find_working_point(
    signal: Path,
    others: Sequence[Path],
    report: Path | None,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Find the threshold at which a cut has a wanted efficiency or misID.

    BUNDLE is the species to keep, OTHER are the species to reject, each with its
    reference file beside it. Give either --efficiency or --max-misid. Efficiencies
    refer to the kinematics of the reference rows, and are corrected in bins: by default
    bins of equal population. With --report, ROC curves are drawn.
    """
    if (given["efficiency"] is None) == (given["max_misid"] is None):
        raise click.UsageError("give either --efficiency or --max-misid")
    from pidgan.efficiency.working_point import working_point

    rejected = [open_generator(path) for path in others]
    with options.usage_errors():
        found = working_point(open_generator(signal), rejected, **given)
    click.echo(found.to_json() if as_json else found.text())
    if report is not None:
        from pidgan.report.map_page import write_working_point_report

        path = write_working_point_report(found, report, overwrite=overwrite)
        note(str(path))
