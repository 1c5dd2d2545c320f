"""Options that several verbs share, each defined once, and how their texts are read."""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Turn NAME=VALUE texts into a dictionary."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise click.UsageError(f"{text!r}: expected NAME=VALUE")
        if name in pairs:
            raise click.UsageError(f"{name!r} is given twice")
        pairs[name] = value
    return pairs


def parse_number(text: str) -> int | float:
    """Turn a text into a number, a whole one if possible."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise click.UsageError(f"{text!r} is not a number")


def parse_numbers(text: str) -> list[float]:
    """Turn NUMBER,NUMBER,... into a list."""
    return [float(parse_number(number)) for number in text.split(",")]


def parse_factors(texts: Iterable[str]) -> dict[str, int | float]:
    """Turn NAME=NUMBER texts into a dictionary."""
    return {name: parse_number(text) for name, text in parse_pairs(texts).items()}


def parse_binning(texts: Sequence[str]) -> str | dict[str, Any] | None:
    """Turn NAME, or several CONDITION=..., into a binning; None if there are none."""
    names = [text for text in texts if "=" not in text]
    if names and len(texts) > 1:
        raise click.UsageError(
            f"--binning {names[0]} cannot be combined with other --binning; give one "
            "name, or CONDITION=... for each condition"
        )
    if names:
        return names[0]
    found: dict[str, Any] = {}
    for name, value in parse_pairs(texts).items():
        if "," in value:
            found[name] = parse_numbers(value)
        else:
            found[name] = int(value) if value.isdigit() else value
    return found or None


def parse_fraction(text: str) -> tuple[int, int] | None:
    """Turn I/N into two numbers, or return None."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    return None if found is None else (int(found[1]), int(found[2]))


def parse_duration(text: str) -> float:
    """Turn a duration such as 20m into seconds."""
    from pidgan.training.budget import parse_duration as parse

    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def reads(parse: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a callback of click that reads a text, or several, if any is given."""
    return lambda _, __, given: None if given is None else parse(given)


def output(help_text: str, **changes: Any) -> Callable[..., Any]:
    """Return the option for an output, which may have a default or be left out."""
    settings = {"required": True, "type": PATH, "metavar": "PATH", **changes}
    return click.option("-o", "--output", help=help_text, **settings)


def entries(default: int) -> Callable[..., Any]:
    """Return the option for the size of a simulated sample."""
    size = click.IntRange(min=1)
    help_text = "Number of simulated entries."
    return click.option("-n", "--entries", type=size, default=default, help=help_text)


def budget(default: str) -> Callable[..., Any]:
    """Return the option for the time of one training."""
    return click.option(
        "--budget",
        metavar="DURATION",
        callback=reads(parse_duration),
        help=f"Wall-clock time of one training, e.g. 20m.  [default: {default}]",
    )


def settings(metavar: str, example: str) -> Callable[..., Any]:
    """Return the option for settings of families."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar=metavar,
        callback=reads(parse_pairs),
        help=f"Setting of a family, e.g. {example}; can be repeated. `pidgan families "
        "NAME` lists them.",
    )


def species(*names: str) -> Callable[..., Any]:
    """Return the option for the species that a detector sees."""
    return click.option(
        "--species",
        required=True,
        type=click.Choice(names),
        help="Particle that is simulated.",
    )


def tracks(**changes: Any) -> Callable[..., Any]:
    """Return the option for the prefixes of tracks and their bundles or maps."""
    return click.option("--track", "tracks", multiple=True, **changes)


overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace an existing output."
)
seed = click.option(
    "--seed", default=1, help="Seed of all random numbers; the same seed repeats a run."
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON."
)
cuts = click.option(
    "--cut",
    "cuts",
    multiple=True,
    metavar="CUT",
    help='PID cut on targets, e.g. "RichDLLk > 0"; can be repeated.',
)
binning = click.option(
    "--binning",
    "--bins",
    "binning",
    multiple=True,
    metavar="NAME|CONDITION=...",
    callback=reads(parse_binning),
    help="Bins in which efficiencies are given: a binning that ships, e.g. hadrons, or "
    "for each condition its edges, P=3e3,2e4,1e5, a number of bins of equal "
    "population, P=10, or a binning, P=hadrons; can be repeated.",
)
misid = click.option(
    "--misid",
    multiple=True,
    metavar="GENERATOR[=ROWS]",
    help="Model or bundle of a species to reject, and its dataset after '=', e.g. "
    "pion-model=pion. The report shows how often it passes the same cuts. Can be "
    "repeated.",
)
report = click.option(
    "--report",
    type=PATH,
    metavar="DIR",
    help="New folder for report.html, a page with figures. Needs the training "
    "dependencies.",
)
steps = click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Number of training steps, instead of a budget. Family cramer adds its share "
    "`play` on top.",
)
weights = click.option(
    "--weights", metavar="BRANCH", help="Branch that holds weights, e.g. sWeights."
)
species_from = click.option(
    "--species-from",
    metavar="NAME",
    help="Branch {track}_NAME with the PDG id of each track, e.g. TRUEID; a bundle or "
    "map is used only for its own species.",
)
suffix = click.option(
    "--suffix", default="", help="Suffix of the names of generated columns."
)
reference = click.argument(
    "reference", metavar="[DATASET|REFERENCE]", required=False, type=PATH
)
generator = click.argument("generator", metavar="MODEL|BUNDLE", type=PATH)
dataset = click.argument("dataset", type=PATH)
files = click.argument("files", nargs=-1, required=True, metavar="FILE[:TREE]...")


def scales(help_text: str) -> Callable[..., Any]:
    """Return the option for factors of conditions."""
    return click.option(
        "--scale",
        "scales",
        multiple=True,
        metavar="CONDITION=FACTOR",
        callback=reads(parse_factors),
        help=help_text,
    )


_condition_options = (
    click.option(
        "--branch",
        "branches",
        multiple=True,
        metavar="CONDITION=BRANCH",
        callback=reads(parse_pairs),
        help="Branch that holds a condition, for one track TRACK.CONDITION=BRANCH; can "
        "be repeated.",
    ),
    click.option(
        "--unit",
        "units",
        multiple=True,
        metavar="CONDITION=UNIT",
        callback=reads(parse_pairs),
        help="Unit of a condition in the file, e.g. P=GeV; can be repeated.",
    ),
    scales(
        "Known ratio of data to simulation for a condition, e.g. nTracks=1.15; can be "
        "repeated."
    ),
    click.option(
        "--quantile-map",
        "quantile_maps",
        multiple=True,
        metavar="CONDITION=MAP.json",
        callback=reads(parse_pairs),
        help="Map of a condition from simulation to data, made by `pidgan "
        "quantile-map`; can be repeated.",
    ),
)


def conditions(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where conditions are and how their values change.

    The command gets them as one argument, `conditions`.
    """

    @functools.wraps(command)
    def with_conditions(**options: Any) -> Any:
        from pidgan.application.conditions import Conditions

        names = ("branches", "units", "scales", "quantile_maps")
        given = {name: options.pop(name) for name in names}
        return command(conditions=Conditions(**given), **options)

    for option in reversed(_condition_options):
        with_conditions = option(with_conditions)
    return with_conditions
