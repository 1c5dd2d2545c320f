"""The verbs that show what the package makes: pictures, and an index of reports."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import options
from pidgan.cli.group import cli, note
from pidgan.cli.pictures import picture


@cli.command(epilog="Example: pidgan plot kaon kaon.onnx -o kaon.pdf")
@click.argument("what", metavar="WHAT")
@click.argument("beside", metavar="[BESIDE]...", nargs=-1)
@options.output(
    "File of pictures that is written: .pdf with a page for each, .png or .svg with "
    "all on one sheet; a name without suffix is a folder with a PNG file for each.",
    callback=picture,
)
@options.cuts
@options.binning
@options.repeated("--variable variables", "NAME", "Variable that is drawn")
@options.tracks(
    metavar="TRACK",
    help="Prefix of the track in an ntuple beside, e.g. Kplus.",
)
@options.weights
@options.conditions
@options.seed
@options.overwrite
@options.as_json
def plot(
    what: str,
    beside: Sequence[str],
    output: Path,
    tracks: Sequence[str],
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Draw a dataset, bundle, model, efficiency map, ntuple or table.

    WHAT is recognised by its content. What stands beside it decides the rest: a bundle
    of the same species gives the generated rows of a dataset, one of another species
    its misIDs and ROC curves; an ntuple is compared with the conditions of a
    calibration sample, which may cover it or not. A definition of a sample with its
    ntuples is drawn as a dataset.
    """
    if len(tracks) > 1:
        raise click.UsageError(f"--track is given {len(tracks)} times, expected once")
    with options.usage_errors():
        found = pidgan.plot(what, *beside, track="".join(tracks), **given)
        paths = found.save(output, overwrite=overwrite)
    if as_json:
        content = {
            "files": list(map(str, paths)),
            "pictures": list(found),
            "notes": list(found.notes),
        }
        click.echo(json.dumps(content))
        return
    for line in (*found.notes, *map(str, paths)):
        click.echo(line)
    note(f"{len(found)} pictures: {', '.join(found)}")


@cli.command("report", epilog="Example: pidgan report reports")
@click.argument("folder", type=options.PATH)
@options.as_json
def index_reports(folder: Path, as_json: bool) -> None:
    """Write index.html with links to all reports of a folder, the worst first.

    FOLDER has reports of `validate`, `systematics`, `compare` or `demo` in it or in
    folders below. Reports that are written below it later are added at once.
    """
    from pidgan.report.index_page import find_pages, write_index

    path = write_index(folder)
    if as_json:
        reports = [
            {**page.facts, "path": str(page.path)} for page in find_pages(folder)
        ]
        click.echo(json.dumps({"path": str(path), "reports": reports}))
    else:
        click.echo(str(path))
