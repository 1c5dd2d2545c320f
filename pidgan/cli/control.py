"""The verb that compares a control channel with its prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import options
from pidgan.cli.group import cli, note, open_generator

transfer_option = click.option(
    "--transfer",
    type=options.CONTROL,
    metavar="CONTROL.json",
    help="Result of `pidgan closure`, whose factor multiplies the map, and whose "
    "uncertainty is a part of its own.",
)

in_bins_option = click.option(
    "--transfer-in-bins",
    is_flag=True,
    help="With --transfer: a factor of its own in each bin of the control channel, "
    "which must be made of bins of the map.",
)


def _range(text: str) -> tuple[float, float]:
    found = options.parse_numbers(text)
    if len(found) != 2 or not found[0] < found[1]:
        raise click.BadParameter(f"{text!r}: expected LOW,HIGH, two numbers that rise")
    return found[0], found[1]


def _mass(given: dict[str, Any]) -> Any:
    """Return the mass that signal is counted in, of the options about it."""
    from pidgan.sample.definition import Discriminant

    branch, span = given.pop("mass"), given.pop("mass_range")
    shapes = {name: given.pop(name) for name in ("signal", "background")}
    shapes["unit"] = given.pop("mass_unit")
    if (branch is None) != (span is None):
        raise click.UsageError("--mass and --mass-range are given together, or neither")
    if branch is None:
        return None
    if shapes["unit"] == "GeV":
        span = (1000 * span[0], 1000 * span[1])
    return Discriminant(branch=branch, range=span, **shapes)


@cli.command(
    epilog="Example: pidgan closure kaon-map.json control.root --species K+ "
    "--track Kplus --weights sWeight --binning P=6 -o control.json"
)
@click.argument("efficiency_map", metavar="MAP.json", type=options.MAP)
@click.argument("control", metavar="DATASET|FILE[:TREE]...", nargs=-1, required=True)
@click.option(
    "--generator",
    type=options.GENERATOR,
    metavar="MODEL|BUNDLE",
    help="Generator of the map: responses are then drawn at the conditions of each "
    "candidate. Without it, a candidate has the efficiency of its bin in the map.",
)
@options.cuts
@options.binning
@click.option(
    "--species",
    metavar="NAME",
    help="Particle of the control sample in files, by its PDG name, e.g. K+.",
)
@click.option(
    "--track",
    default="",
    help="Prefix of the branches of a track in files, e.g. Kplus.",
)
@options.weights
@click.option(
    "--mass",
    metavar="BRANCH",
    help="Branch with a mass, in which signal is counted by simultaneous fits of the "
    "candidates that pass and that fail.",
)
@click.option(
    "--mass-range",
    metavar="LOW,HIGH",
    callback=options.reads(_range),
    help="Range of the mass, in the unit of the branch.",
)
@click.option(
    "--mass-unit",
    type=click.Choice(["MeV", "GeV"]),
    default="MeV",
    help="Unit of the mass.",
)
@click.option(
    "--signal",
    type=click.Choice(["gauss", "double_gauss", "crystal_ball"]),
    default="double_gauss",
    help="Shape of the signal in the mass.",
)
@click.option(
    "--background",
    type=click.Choice(["exponential", "polynomial"]),
    default="exponential",
    help="Shape of the background in the mass.",
)
@click.option(
    "--unweighted", is_flag=True, help="The control sample has no background."
)
@click.option(
    "--count",
    is_flag=True,
    help="Count signal of a DATASET by mass fits, instead of its weights.",
)
@options.repeated(
    "--target targets",
    "TARGET=BRANCH",
    "Branch that holds a target in files, where it is not {track}_TARGET",
    options.parse_pairs,
)
@options.suffix
@options.conditions
@options.output("JSON file that is also written.", ".json", required=False)
@options.report
@options.seed
@options.overwrite
@options.as_json
def closure(
    efficiency_map: Path,
    control: Sequence[str],
    generator: Path | None,
    cuts: Sequence[str],
    output: Path | None,
    report: Path | None,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compare a control channel with the efficiency that is predicted for it.

    The control sample has real PID variables: a dataset of `pidgan prepare`, or files
    with weights or with a mass to fit. Its efficiency stands beside the corrected one
    at its conditions, in bins, with chi-square and p-value. The ratio is a transfer
    factor, which `pidgan efficiency --transfer` takes.
    """
    given["mass"] = _mass(given)
    given["targets"] = given["targets"] or None
    rows: Any = control[0] if len(control) == 1 else list(control)
    made = None if generator is None else open_generator(generator)
    with options.usage_errors():
        found = pidgan.closure(
            efficiency_map, rows, generator=made, cuts=list(cuts) or None, **given
        )
    if output is not None:
        note(str(found.save(output, overwrite=overwrite)))
    if report is not None:
        from pidgan.report.control_page import write_control_report

        note(str(write_control_report(found, report, overwrite=overwrite)))
    click.echo(found.to_json() if as_json else found.text())
