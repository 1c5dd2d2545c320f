"""The group of all verbs, with the options and parsers that several of them share."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click


@click.group(
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="pidgan")
def cli() -> None:
    """Learn a detector's PID response from calibration data, judge it, apply it.

    \b
    The usual order:  prepare -> train -> validate -> export      (PID expert)
                      apply -> efficiency                         (analyst)
    FILE is a ROOT or Parquet file, FILE:TREE, a pattern in quotes, or an address.
    """


output_option = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="What is written.",
)


overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace existing output."
)


seed_option = click.option("--seed", default=1, help="Seed of everything random.")


cut_option = click.option(
    "--cut",
    "cuts",
    multiple=True,
    metavar="CUT",
    help='PID cut on target names, e.g. "RichDLLk > 0"; can be repeated.',
)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


reference_argument = click.argument(
    "reference",
    metavar="[DATASET|REFERENCE]",
    required=False,
    type=click.Path(path_type=Path),
)


def condition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options on where conditions are found and how they are altered.

    The command gets them as one argument, `conditions`.
    """

    @functools.wraps(command)
    def with_conditions(**options: Any) -> Any:
        from pidgan.application.conditions import Conditions

        names = ("branches", "units", "scales", "quantile_maps")
        given = {name: options.pop(name) for name in names}
        return command(conditions=Conditions(**given), **options)

    for option in reversed(_CONDITION_OPTIONS):
        with_conditions = option(with_conditions)
    return with_conditions


_CONDITION_OPTIONS = (
    click.option(
        "--branch",
        "branches",
        multiple=True,
        metavar="CONDITION=BRANCH",
        callback=lambda _, __, texts: parse_pairs(texts),
        help="Branch of a condition, or TRACK.CONDITION=BRANCH for one track.",
    ),
    click.option(
        "--unit",
        "units",
        multiple=True,
        metavar="CONDITION=UNIT",
        callback=lambda _, __, texts: parse_pairs(texts),
        help="Unit of a condition in the file, e.g. P=GeV.",
    ),
    click.option(
        "--scale",
        "scales",
        multiple=True,
        metavar="CONDITION=FACTOR",
        callback=lambda _, __, texts: parse_number_pairs(texts),
        help="Known ratio of data to simulation, e.g. nTracks=1.15.",
    ),
    click.option(
        "--quantile-map",
        "quantile_maps",
        multiple=True,
        metavar="CONDITION=MAP.json",
        callback=lambda _, __, texts: parse_pairs(texts),
        help="Map from simulation to data, from `pidgan quantile-map`.",
    ),
)


def fail(message: str, *, code: int) -> None:
    """Print one line and leave."""
    click.echo(f"pidgan: error: {' '.join(message.split())}", err=True)
    sys.exit(code)


def open_generator(path: Path) -> Any:
    """Open a model directory or a bundle."""
    if path.is_dir():
        from pidgan.training.model import open_model

        return open_model(path)
    from pidgan.bundle.bundle import open_bundle

    return open_bundle(path)


def open_generators(path: Path) -> list[Any]:
    """Open a model or a bundle, or every one of a folder of members."""
    from pidgan.training.members import member_paths

    return [open_generator(one) for one in member_paths(path) or [path]]


def open_reference(path: Path | None) -> Any:
    """Open a dataset directory or a reference file, if one is given."""
    if path is None:
        return None
    from pidgan.files.tables import read_table
    from pidgan.sample.dataset import Dataset

    return Dataset.open(path) if path.is_dir() else read_table(path)


def parse_pairs(texts: Sequence[str]) -> dict[str, str]:
    """Turn NAME=VALUE texts into a dictionary."""
    pairs = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise click.UsageError(f"{text!r}: expected NAME=VALUE")
        if name in pairs:
            raise click.UsageError(f"{name!r} is given twice")
        pairs[name] = value
    return pairs


def parse_number_pairs(texts: Sequence[str]) -> dict[str, int | float]:
    """Turn NAME=NUMBER texts into a dictionary."""
    return {name: parse_number(text) for name, text in parse_pairs(texts).items()}


def parse_numbers(text: str) -> list[float]:
    """Turn NUMBER,NUMBER,... into a list."""
    return [float(parse_number(number)) for number in text.split(",")]


def parse_number(text: str) -> int | float:
    """Turn a text into a number, a whole one if it is."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no number") from None


def parse_setting(text: str) -> int | float | str:
    """Return a number, or the text where it is none."""
    try:
        return parse_number(text)
    except click.UsageError:
        return text


def show_progress(text: str) -> None:
    click.echo(text, err=True)


def overwrite_line(line: str, *, last: bool) -> None:
    """Rewrite one line of a terminal; in a log, print little."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", nl=last, err=True)
    elif last:
        click.echo(line, err=True)
