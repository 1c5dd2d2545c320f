"""Verbs of those who train: from simulated or calibration data to a judged model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from pidgan.cli.group import (
    cut_option,
    fail,
    json_option,
    open_generator,
    output_option,
    overwrite_line,
    overwrite_option,
    parse_pairs,
    parse_setting,
    seed_option,
    show_progress,
)
from pidgan.files.writing import refuse_existing
from pidgan.training.budget import parse_duration


def _check_duration(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """Refuse what is no duration before any work is done."""
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _check_shares(_: click.Context, __: click.Parameter, text: str) -> Any:
    """Refuse what is no list of three shares."""
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise click.BadParameter(
            f"{text!r}, expected three numbers of sum 1: 0.5,0.1,0.4"
        )
    return shares


@click.command(epilog="Example: pidgan demo -o demo")
@click.option(
    "-o",
    "--output",
    default="pidgan-demo",
    type=click.Path(path_type=Path),
    help="Directory for everything that is made.",
)
@seed_option
@overwrite_option
@click.option(
    "--budget",
    default="75s",
    callback=_check_duration,
    help="Training time of each of the two generators.",
)
def demo(output: Path, seed: int, overwrite: bool, budget: float) -> None:
    """Run the whole chain on simulated data, and compare with the truth."""
    from pidgan.cli.demo import run_demo

    run_demo(output, seed=seed, budget=budget, overwrite=overwrite, echo=show_progress)


_tracks_option = click.option(
    "-n",
    "--entries",
    default=200_000,
    type=click.IntRange(min=1),
    help="Number of tracks.",
)


def _write(
    output: Path, trees: Mapping[str, Mapping[str, Any]], *, overwrite: bool
) -> None:
    """Write the trees of a calibration sample, and say what was written."""
    from pidgan.files.tables import write_trees

    write_trees(output, trees, overwrite=overwrite)
    for tree, branches in trees.items():
        click.echo(f"{output}:{tree}  {len(branches['probe_P'])} entries")


@click.group(epilog="Example: pidgan simulate rich --mode dstar_k -n 200000 -o k.root")
def simulate() -> None:
    """Write simulated data with known truth."""


@simulate.command(
    epilog="Example: pidgan simulate rich --mode dstar_k -n 200000 -o k.root"
)
@click.option(
    "--mode",
    required=True,
    type=click.Choice(["dstar_k", "dstar_pi", "lambda_p", "jpsi_mu", "jpsi_e"]),
    help="Decay that the calibration tracks come from.",
)
@_tracks_option
@output_option
@seed_option
@overwrite_option
def rich(mode: str, entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write a RICH calibration sample with LHCb's tree and branch names."""
    from pidgan.simulation import simulate_calibration

    _write(output, simulate_calibration(mode, entries, seed=seed), overwrite=overwrite)


@simulate.command(epilog="Example: pidgan simulate tpc --species K+ -o k.root")
@click.option(
    "--species",
    required=True,
    type=click.Choice(["e+", "mu+", "pi+", "K+", "p"]),
    help="Particle that leaves the tracks.",
)
@_tracks_option
@output_option
@seed_option
@overwrite_option
def tpc(species: str, entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write a calibration sample of dE/dx in a time projection chamber."""
    from pidgan.simulation import simulate_tpc

    _write(output, simulate_tpc(species, entries, seed=seed), overwrite=overwrite)


@simulate.command(epilog="Example: pidgan simulate calorimeter --species e+ -o e.root")
@click.option(
    "--species",
    required=True,
    type=click.Choice(["e+", "mu+", "pi+", "K+", "p", "gamma"]),
    help="Particle that leaves the tracks.",
)
@_tracks_option
@output_option
@seed_option
@overwrite_option
def calorimeter(
    species: str, entries: int, output: Path, seed: int, overwrite: bool
) -> None:
    """Write a calibration sample of E/p, shower widths and hadronic fraction."""
    from pidgan.simulation import simulate_calorimeter

    trees = simulate_calorimeter(species, entries, seed=seed)
    _write(output, trees, overwrite=overwrite)


@simulate.command(epilog="Example: pidgan simulate analysis -n 50000 -o d2kpi.root")
@click.option(
    "-n",
    "--entries",
    default=50_000,
    type=click.IntRange(min=1),
    help="Number of candidates.",
)
@output_option
@seed_option
@overwrite_option
def analysis(entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write an analysis ntuple, anti-D0 -> K+ pi-, with a wrong PID response."""
    from pidgan.files.tables import write_trees
    from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

    branches = simulate_analysis(entries, seed=seed)
    write_trees(output, {ANALYSIS_TREE: branches}, overwrite=overwrite)
    click.echo(f"{output}:{ANALYSIS_TREE}  {entries} entries")


@simulate.command(epilog="Example: pidgan simulate showers -n 20000 -o showers.root")
@click.option(
    "-n",
    "--entries",
    default=20_000,
    type=click.IntRange(min=1),
    help="Number of showers.",
)
@output_option
@seed_option
@overwrite_option
def showers(entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write showers of electrons and photons in a block of lead tungstate."""
    from pidgan.files.tables import write_trees
    from pidgan.simulation import SHOWER_TREE, simulate_showers

    branches = simulate_showers(entries, seed=seed)
    write_trees(output, {SHOWER_TREE: branches}, overwrite=overwrite)
    click.echo(f"{output}:{SHOWER_TREE}  {entries} entries")


@click.command(epilog="Example: pidgan samples run2_dstar_k")
@click.argument("name", required=False)
@json_option
def samples(name: str | None, as_json: bool) -> None:
    """List the calibration-sample definitions, or show one."""
    from pidgan.sample.loading import list_samples, load_sample

    if name is not None:
        sample = load_sample(name)
        dumped = sample.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        click.echo(json.dumps(dumped, indent=2) if as_json else _describe(sample))
        return
    paths = list_samples()
    if as_json:
        click.echo(json.dumps({key: str(path) for key, path in paths.items()}))
        return
    for key in paths:
        sample = load_sample(key)
        click.echo(f"{key:24} {sample.species:4} {sample.title}")


@click.command(epilog="Example: pidgan prepare run2_dstar_k 'calib/*.root' -o kaon")
@click.argument("sample")
@click.argument("files", nargs=-1, required=True, metavar="FILE[:TREE]...")
@output_option
@seed_option
@click.option(
    "--shares",
    default="0.6,0.1,0.3",
    callback=_check_shares,
    help="Of the rows that train, watch the training and judge.",
)
@overwrite_option
def prepare(
    sample: str,
    files: Sequence[str],
    output: Path,
    seed: int,
    shares: tuple[float, float, float],
    overwrite: bool,
) -> None:
    """Build a dataset: selection, sWeights, split.

    SAMPLE is a name listed by `pidgan samples`, or the path of your own .toml.
    """
    from pidgan.sample.building import build_dataset

    refuse_existing(output, overwrite=overwrite)
    dataset = build_dataset(sample, list(files), seed=seed, shares=shares)
    dataset.save(output, overwrite=overwrite)
    info = dataset.info
    click.echo(
        f"{output}: {sum(info['rows'].values())} of {info['rows_read']} rows, sum of "
        f"weights {info['sum_weights']:.1f}, effective size {info['n_eff']:.0f}"
    )
    for reason, rows in info["dropped"].items():
        click.echo(f"  dropped {rows}: {reason}")


@click.command(epilog="Example: pidgan train kaon -o kaon-model --budget 20m")
@click.argument("dataset", type=click.Path(path_type=Path))
@output_option
@click.option(
    "--family",
    help="How the generator is learnt.  [default: cramer; of cells shower_sequence]",
)
@click.option("--recipe", help="A published way instead: maevskiy2019.")
@click.option(
    "--budget", callback=_check_duration, help="Wall-clock time.  [default: 10m]"
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Number of updates instead of a budget."
)
@seed_option
@click.option(
    "--members",
    type=click.IntRange(min=1),
    help="Train so many, with seeds of their own, into a folder PATH.",
)
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting of the family, e.g. width=128; can be repeated.",
)
@overwrite_option
def train(
    dataset: Path,
    output: Path,
    family: str | None,
    recipe: str | None,
    budget: float | None,
    steps: int | None,
    seed: int,
    members: int | None,
    resume: bool,
    settings: Sequence[str],
    overwrite: bool,
) -> None:
    """Train a generator on a dataset."""
    if budget is not None and steps is not None:
        raise click.UsageError("give --budget or --steps, not both")
    if family is not None and recipe is not None:
        raise click.UsageError("give --family or --recipe, not both")
    from pidgan.sample.dataset import Dataset

    opened = Dataset.open(dataset)
    options: dict[str, Any] = {
        "family": family,
        "recipe": recipe,
        "budget": budget,
        "steps": steps,
        "seed": seed,
        "settings": {
            key: parse_setting(value) for key, value in parse_pairs(settings).items()
        },
        "resume": resume,
    }
    may_write = overwrite or resume or not _holds_training(output)
    refuse_existing(output, overwrite=may_write)
    import pidgan

    train_model = pidgan.train
    try:
        if members is not None:
            from pidgan.training.members import train_members

            trained = train_members(
                opened,
                output,
                members=members,
                overwrite=overwrite,
                progress=lambda name, p: _print_training(p, label=name),
                **options,
            )
        else:
            trained = [
                train_model(
                    opened, directory=output, progress=_print_training, **options
                )
            ]
    except KeyboardInterrupt:
        fail(f"interrupted; continue with --resume -o {output}", code=130)
        return
    finally:
        click.echo("", err=True)
    if members is None:
        trained[0].save(output, overwrite=overwrite or resume)
    card = trained[0].card
    count = "" if members is None else f", {members} members"
    click.echo(f"{output}: {card.family}, {card.steps} steps{count}")


def _holds_training(output: Path) -> bool:
    """Return whether a directory has a model, a checkpoint or members."""
    names = ("model.json", "checkpoint.npz")
    return any((output / name).exists() for name in names) or any(
        output.glob("member_*")
    )


@click.command(epilog="Example: pidgan compare kaon -o families --budget 10m")
@click.argument("dataset", type=click.Path(path_type=Path))
@output_option
@click.option(
    "--families",
    metavar="NAME,...",
    help="Families and recipes to train, with commas.  [default: every family]",
)
@click.option(
    "--budget",
    callback=_check_duration,
    help="Wall-clock time of each training.  [default: 10m]",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Number of updates instead of a budget."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FAMILY.NAME=VALUE",
    help="Setting of a family, e.g. energy.width=128; can be repeated.",
)
@seed_option
@overwrite_option
@json_option
def compare(
    dataset: Path,
    output: Path,
    families: str | None,
    budget: float | None,
    steps: int | None,
    settings: Sequence[str],
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train several families on the same rows for the same time, and judge them.

    Writes into the directory PATH: a bundle of each, comparison.json, comparison.png.
    """
    if budget is not None and steps is not None:
        raise click.UsageError("give --budget or --steps, not both")
    from pidgan.sample.dataset import Dataset

    opened = Dataset.open(dataset)
    refuse_existing(output, overwrite=overwrite)
    from pidgan.report.family_comparison import compare_families
    from pidgan.training.families import FAMILIES

    chosen: dict[str, dict[str, Any]] = {}
    for key, value in parse_pairs(settings).items():
        family, separator, name = key.partition(".")
        if not (separator and name):
            raise click.UsageError(f"{key!r}: expected FAMILY.NAME=VALUE")
        chosen.setdefault(family, {})[name] = parse_setting(value)
    names = [name.strip() for name in (families or ",".join(FAMILIES)).split(",")]

    def show(name: str, progress: Any) -> None:
        _print_training(progress, label=name)

    found = compare_families(
        opened,
        output,
        families=names,
        budget=budget,
        steps=steps,
        seed=seed,
        settings=chosen,
        overwrite=overwrite,
        progress=show,
    )
    click.echo(found.to_json() if as_json else found.text())
    click.echo(f"{output}", err=True)


@click.command(epilog="Example: pidgan validate kaon-model kaon -o kaon-report")
@click.argument("generator", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@click.argument("dataset", type=click.Path(path_type=Path))
@output_option
@cut_option
@click.option(
    "--misid",
    multiple=True,
    metavar="GENERATOR=DATASET",
    help="Another species, whose misID by the same cuts is shown; can be repeated.",
)
@click.option(
    "--part",
    default="test",
    type=click.Choice(["test", "excluded"]),
    help="Of showers: what is judged; intervals that the definition excludes.",
)
@seed_option
@overwrite_option
@json_option
def validate(
    generator: Path,
    dataset: Path,
    output: Path,
    cuts: Sequence[str],
    misid: Sequence[str],
    part: Literal["test", "excluded"],
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare generated with real rows that were never trained on."""
    from pidgan.sample.dataset import Dataset

    refuse_existing(output, overwrite=overwrite)
    opened = open_generator(generator)
    data = Dataset.open(dataset)
    import pidgan

    others = [
        (open_generator(Path(other)), Dataset.open(rows))
        for other, rows in parse_pairs(misid).items()
    ]
    report = pidgan.validate(
        opened, data, cuts=cuts, misid=others, part=part, seed=seed
    )
    path = report.save(output, overwrite=overwrite)
    click.echo(json.dumps(report.headline()) if as_json else report.summary())
    click.echo(f"{path}", err=True)


def _describe(sample: Any) -> str:
    lines = [
        f"{sample.name}: {sample.title}",
        f"species       {sample.species}",
        f"detector      {sample.detector}",
        f"trees         {', '.join(sample.trees) or 'the only one in the file'}",
        f"source        {sample.source}",
        f"weights       {_describe_weights(sample)}",
    ]
    variables = (("condition", sample.conditions), ("target", sample.variables))
    for kind, found in variables:
        for variable in found:
            low, high = variable.range
            where = variable.derive or variable.branch or variable.name
            lines.append(
                f"{kind:13} {variable.name}: {where} ({variable.unit}), "
                f"{low:g} to {high:g} {variable.package_unit}"
            )
    for view in sample.cells.layout.views if sample.cells else ():
        where = sample.cells.arrays[view.name]
        lines.append(
            f"{'cells':13} {view.name}: {where} ({sample.cells.unit}), {view.n_cells} "
            f"in {len(view.layers)} layers"
        )
    lines += [f"cut           {cut}" for cut in sample.cuts]
    return "\n".join(lines)


def _describe_weights(sample: Any) -> str:
    if sample.weight_branch:
        return f"branch {sample.weight_branch}"
    if sample.discriminant:
        return f"sWeights from a fit to {sample.discriminant.branch}"
    return "none"


def _print_training(progress: Any, *, label: str = "") -> None:
    losses: Mapping[str, float] = progress.losses
    text = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
    line = (
        f"{label}  {progress.phase}  step {progress.step}/{progress.steps}  {text}  "
        f"{progress.seconds_left:.0f} s left"
    )
    overwrite_line(line.strip(), last=progress.step == progress.steps)
