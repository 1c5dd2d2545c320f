"""Options for files of pictures, and their writer."""

from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import options
from pidgan.cli.group import note


def picture(context: click.Context, parameter: Any, path: Path | None) -> Path | None:
    """Refuse a name that no picture can have, before the work."""
    if path is not None:
        from pidgan.report.suffixes import check_suffix

        try:
            check_suffix(path)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return options.is_new(context, parameter, path)


plot_option = click.option(
    "--plot",
    type=options.PATH,
    metavar="FILE",
    callback=picture,
    help="File for pictures of the efficiencies in bins: .png, .pdf or .svg; a name "
    "without suffix is a folder. Needs the training dependencies.",
)


def draw(found: Any, path: Path, *, overwrite: bool) -> None:
    """Write the pictures of a result, and say which files they are."""
    for written in pidgan.plot(found).save(path, overwrite=overwrite):
        note(str(written))
