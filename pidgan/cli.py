"""The command line: one verb for each public function.

Results go to standard output (`--json` for machines), progress and warnings to
standard error. A `PidganError` becomes one line and exit code 1.
"""

import contextlib
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pidgan import TRAINING_HINT
from pidgan.duration import parse_duration
from pidgan.errors import PidganError, PidganWarning

# Verb -> function that does its work; the docs and a test follow this table.
VERBS = {
    "demo": "pidgan.demo.run_demo",
    "simulate": "pidgan.simulation.simulate_calibration",
    "samples": "pidgan.sample.list_samples",
    "prepare": "pidgan.build_dataset",
    "train": "pidgan.train",
    "validate": "pidgan.validate",
    "table": "pidgan.closure.closure_table",
    "systematics": "pidgan.run_systematics",
    "export": "pidgan.export_bundle",
    "inspect": "pidgan.open_bundle",
    "quantile-map": "pidgan.quantile_map.make_quantile_map",
    "apply": "pidgan.apply",
    "efficiency": "pidgan.pid_efficiency",
    "working-point": "pidgan.working_point.working_point",
}

_Command = Callable[..., None]


def main() -> None:
    """Run the command line; the entry point `pidgan`."""
    warnings.showwarning = _show_warning
    try:
        cli(prog_name="pidgan", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PidganError as error:
        _fail(str(error), code=1)
    except ModuleNotFoundError as error:
        if (error.name or "pidgan").startswith("pidgan"):
            raise
        _fail(f"{error.name} is missing; {TRAINING_HINT}", code=1)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", code=130)


def _fail(message: str, *, code: int) -> None:
    """Print one line and leave."""
    click.echo(f"pidgan: error: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _show_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    """Print the project's warnings as one line, and no others."""
    if issubclass(category, PidganWarning):
        click.echo(f"pidgan: warning: {' '.join(str(message).split())}", err=True)


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


def _check_duration(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """Refuse what is no duration before any work is done."""
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_output = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="What is written.",
)
_overwrite = click.option("--overwrite", is_flag=True, help="Replace existing output.")
_seed = click.option("--seed", default=1, help="Seed of everything random.")
_cut = click.option(
    "--cut",
    "cuts",
    multiple=True,
    metavar="CUT",
    help='PID cut on target names, e.g. "RichDLLk > 0"; can be repeated.',
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_branch = click.option(
    "--branch",
    "branches",
    multiple=True,
    metavar="CONDITION=BRANCH",
    help="Branch of a condition, or TRACK.CONDITION=BRANCH for one track.",
)
_unit = click.option(
    "--unit",
    "units",
    multiple=True,
    metavar="CONDITION=UNIT",
    help="Unit of a condition in the file, e.g. P=GeV.",
)


_scale = click.option(
    "--scale",
    "scales",
    multiple=True,
    metavar="CONDITION=FACTOR",
    help="Known ratio of data to simulation, e.g. nTracks=1.15.",
)
_quantile_map = click.option(
    "--quantile-map",
    "quantile_maps",
    multiple=True,
    metavar="CONDITION=MAP.json",
    help="Map from simulation to data, from `pidgan quantile-map`.",
)


@cli.command(epilog="Example: pidgan demo -o demo")
@click.option(
    "-o",
    "--output",
    default="pidgan-demo",
    type=click.Path(path_type=Path),
    help="Directory for everything that is made.",
)
@_seed
@_overwrite
@click.option(
    "--budget",
    default="75s",
    callback=_check_duration,
    help="Training time of each of the two generators.",
)
def demo(output: Path, seed: int, overwrite: bool, budget: float) -> None:
    """Run the whole chain on simulated data, and compare with the truth."""
    from pidgan.demo import run_demo

    run_demo(output, seed=seed, budget=budget, overwrite=overwrite, echo=_progress)


@cli.group(epilog="Example: pidgan simulate rich --mode dstar_k -n 200000 -o k.root")
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
@click.option(
    "-n",
    "--entries",
    default=200_000,
    type=click.IntRange(min=1),
    help="Number of tracks.",
)
@_output
@_seed
@_overwrite
def rich(mode: str, entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write a RICH calibration sample with LHCb's tree and branch names."""
    from pidgan.ntuple import write_trees
    from pidgan.simulation import simulate_calibration

    trees = simulate_calibration(mode, entries, seed=seed)
    write_trees(output, trees, overwrite=overwrite)
    for tree, branches in trees.items():
        click.echo(f"{output}:{tree}  {len(branches['probe_P'])} entries")


@simulate.command(epilog="Example: pidgan simulate analysis -n 50000 -o d2kpi.root")
@click.option(
    "-n",
    "--entries",
    default=50_000,
    type=click.IntRange(min=1),
    help="Number of candidates.",
)
@_output
@_seed
@_overwrite
def analysis(entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write an analysis ntuple, anti-D0 -> K+ pi-, with a wrong PID response."""
    from pidgan.ntuple import write_trees
    from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

    branches = simulate_analysis(entries, seed=seed)
    write_trees(output, {ANALYSIS_TREE: branches}, overwrite=overwrite)
    click.echo(f"{output}:{ANALYSIS_TREE}  {entries} entries")


@cli.command(epilog="Example: pidgan samples run2_dstar_k")
@click.argument("name", required=False)
@_json
def samples(name: str | None, as_json: bool) -> None:
    """List the calibration-sample definitions, or show one."""
    from pidgan.sample import list_samples, load_sample

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


@cli.command(epilog="Example: pidgan prepare run2_dstar_k 'calib/*.root' -o kaon")
@click.argument("sample")
@click.argument("files", nargs=-1, required=True, metavar="FILE[:TREE]...")
@_output
@_seed
@_overwrite
def prepare(
    sample: str, files: Sequence[str], output: Path, seed: int, overwrite: bool
) -> None:
    """Build a dataset: selection, sWeights, split.

    SAMPLE is a name listed by `pidgan samples`, or the path of your own .toml.
    """
    from pidgan.dataset import build_dataset

    _refuse_existing(output, overwrite)
    dataset = build_dataset(sample, list(files), seed=seed)
    dataset.save(output, overwrite=overwrite)
    info = dataset.info
    click.echo(
        f"{output}: {sum(info['rows'].values())} of {info['rows_read']} rows, sum of "
        f"weights {info['sum_weights']:.1f}, effective size {info['n_eff']:.0f}"
    )
    for reason, rows in info["dropped"].items():
        click.echo(f"  dropped {rows}: {reason}")


@cli.command(epilog="Example: pidgan train kaon -o kaon-model --budget 20m")
@click.argument("dataset", type=click.Path(path_type=Path))
@_output
@click.option("--family", default="cramer", help="How the generator is learnt.")
@click.option(
    "--budget", callback=_check_duration, help="Wall-clock time.  [default: 10m]"
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Number of updates instead of a budget."
)
@_seed
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting of the family, e.g. width=128; can be repeated.",
)
@_overwrite
def train(
    dataset: Path,
    output: Path,
    family: str,
    budget: float | None,
    steps: int | None,
    seed: int,
    resume: bool,
    settings: Sequence[str],
    overwrite: bool,
) -> None:
    """Train a generator on a dataset."""
    if budget is not None and steps is not None:
        raise click.UsageError("give --budget or --steps, not both")
    from pidgan.dataset import Dataset

    opened = Dataset.open(dataset)
    has_model = (output / "model.json").exists() and not resume
    has_checkpoint = (output / "checkpoint.npz").exists() and not resume
    _refuse_existing(output, overwrite or not (has_model or has_checkpoint))
    import pidgan

    train_model = pidgan.train
    try:
        model = train_model(
            opened,
            family=family,
            budget=budget,
            steps=steps,
            seed=seed,
            settings={key: _number(value) for key, value in _pairs(settings).items()},
            directory=output,
            resume=resume,
            progress=_print_training,
        )
    except KeyboardInterrupt:
        _fail(f"interrupted; continue with --resume -o {output}", code=130)
        return
    finally:
        click.echo("", err=True)
    model.save(output, overwrite=overwrite or resume)
    click.echo(f"{output}: {model.card.family}, {model.card.steps} steps")


@cli.command(epilog="Example: pidgan validate kaon-model kaon -o kaon-report")
@click.argument("generator", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@click.argument("dataset", type=click.Path(path_type=Path))
@_output
@_cut
@click.option(
    "--misid",
    multiple=True,
    metavar="GENERATOR=DATASET",
    help="Another species, whose misID by the same cuts is shown; can be repeated.",
)
@_seed
@_overwrite
@_json
def validate(
    generator: Path,
    dataset: Path,
    output: Path,
    cuts: Sequence[str],
    misid: Sequence[str],
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare generated with real rows that were never trained on."""
    from pidgan.dataset import Dataset

    _refuse_existing(output, overwrite)
    opened = _open_generator(generator)
    data = Dataset.open(dataset)
    import pidgan
    from pidgan.report import write_report

    others = [
        (_open_generator(Path(other)), Dataset.open(rows))
        for other, rows in _pairs(misid).items()
    ]
    report = pidgan.validate(
        opened, data, seed=seed, cuts=list(cuts) or None, misid=others
    )
    path = write_report(
        report,
        output,
        history=getattr(opened, "history", None),
        mass_fit=data.info.get("fit"),
        overwrite=overwrite,
    )
    click.echo(json.dumps(report.headline()) if as_json else report.summary())
    click.echo(f"{path}", err=True)


@cli.command(
    epilog='Example: pidgan table kaon.onnx --cut "RichDLLk > 4" --binning P=10 '
    "--binning ETA=1.8,3.3,5 -o kaon.csv"
)
@click.argument(
    "source", metavar="MODEL|BUNDLE|DATASET", type=click.Path(path_type=Path)
)
@click.argument(
    "reference",
    metavar="[DATASET|REFERENCE]",
    required=False,
    type=click.Path(path_type=Path),
)
@_cut
@click.option(
    "--binning",
    "binnings",
    multiple=True,
    metavar="NAME|CONDITION=...",
    help="A binning that ships, e.g. hadrons; or of one condition edges, P=3e3,2e4,"
    "1e5, a number of bins of equal population, P=10, or a binning, P=hadrons; can be "
    "repeated.  [default: that of the sample]",
)
@click.option(
    "--variance",
    type=click.Choice(["wilson", "pidcalib"]),
    default="wilson",
    help="Formula of the uncertainty.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Also write it: .csv, .parquet, or .root with histograms.",
)
@_seed
@_overwrite
@_json
def table(
    source: Path,
    reference: Path | None,
    cuts: Sequence[str],
    binnings: Sequence[str],
    output: Path | None,
    variance: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Give real and generated efficiencies in bins of the conditions.

    They are those of rows never trained on: without DATASET or REFERENCE, of the
    reference file beside the bundle. Of a DATASET alone, real efficiencies of all rows.
    """
    if output is not None:
        if output.suffix not in (".csv", ".parquet", ".root"):
            raise click.UsageError(f"{output}: expected .csv, .parquet or .root")
        _refuse_existing(output, overwrite)
    options = {"binning": _binning(binnings), "variance": variance}
    try:
        if (source / "dataset.json").is_file():
            if reference is not None:
                raise click.UsageError("a DATASET alone takes no second argument")
            parts = {"efficiency": _dataset_table(source, cuts, **options)}
            frame = parts["efficiency"].frame()
        else:
            from pidgan.closure import closure_table

            rows = None if reference is None else _open_reference(reference)
            generator = _open_generator(source)
            found = closure_table(
                generator, rows, cuts=list(cuts) or None, seed=seed, **options
            )
            parts = {"real": found.real, "generated": found.generated}
            frame = found.frame()
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if output is not None:
        _write_tables(output, frame, parts, overwrite=overwrite)
    if as_json:
        click.echo(frame.to_json(orient="records"))
        return
    edges = [name for name in frame if str(name).endswith(("_low", "_high"))]
    numbers = (
        *("efficiency", "lower", "upper", "real_efficiency", "real_lower"),
        *("real_upper", "generated_efficiency", "difference", "difference_error"),
    )
    shown = [n for n in ("cut", *edges, *numbers, "n_eff", "few") if n in frame]
    click.echo(frame[shown].to_string(index=False, float_format="{:.5g}".format))


def _dataset_table(path: Path, cuts: Sequence[str], **options: Any) -> Any:
    """Return the real efficiencies of all rows of a dataset."""
    import pandas as pd

    from pidgan.dataset import Dataset
    from pidgan.efficiency import efficiency_table

    data = Dataset.open(path)
    parts = [data.frame(part) for part in ("train", "validation", "test")]
    frame = pd.concat(parts, ignore_index=True)
    sample = data.sample
    if options["binning"] is None:
        options["binning"] = sample.binning
    return efficiency_table(
        frame,
        list(cuts) or sample.cuts,
        weights=frame["weight"].to_numpy(),
        sentinels=sample.sentinels,
        aliases=sample.aliases,
        **options,
    )


def _write_tables(
    output: Path, frame: Any, parts: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Write tables of efficiencies in the format of the name."""
    from pidgan.ntuple import write_histograms, write_table
    from pidgan.treefile import replacing

    if output.suffix == ".parquet":
        write_table(output, frame, overwrite=overwrite)
        return
    if output.suffix == ".csv":
        with replacing(output, overwrite=overwrite) as temporary:
            frame.to_csv(temporary, index=False)
        return
    axes = len(next(iter(parts.values())).binning)
    if not 1 <= axes <= 3:
        raise PidganError(
            f"{output}: ROOT histograms have 1 to 3 axes, got {axes}; choose .csv or "
            ".parquet"
        )
    histograms = {
        f"{kind}_{i + 1}": table.to_hist()[i, ...]
        for kind, table in parts.items()
        for i in range(len(table.cuts))
    }
    write_histograms(output, histograms, overwrite=overwrite)


def _binning(texts: Sequence[str]) -> Any:
    """Turn --binning into what `choose_edges` takes."""
    names = [text for text in texts if "=" not in text]
    if names and len(texts) > 1:
        raise click.UsageError(f"--binning {names[0]} stands alone or needs CONDITION=")
    if names:
        return names[0]
    found: dict[str, Any] = {}
    for name, value in _pairs(texts).items():
        if "," in value:
            found[name] = [float(_number(edge)) for edge in value.split(",")]
        else:
            found[name] = int(value) if value.isdigit() else value
    return found or None


@cli.command(
    epilog='Example: pidgan systematics kaon.onnx --cut "RichDLLk > 0" -o kaon-map.json'
)
@click.argument("generator", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@click.argument(
    "reference",
    metavar="[DATASET|REFERENCE]",
    required=False,
    type=click.Path(path_type=Path),
)
@_cut
@_output
@click.option(
    "--variation",
    "variations",
    multiple=True,
    metavar="NAME",
    help="binning, sweights or none; may be repeated.  [default: binning, sweights]",
)
@click.option(
    "--scale",
    "scales",
    multiple=True,
    metavar="CONDITION=FACTOR",
    help="How well the analysis knows a condition, e.g. nTracks=1.1.",
)
@click.option(
    "--also",
    "others",
    multiple=True,
    metavar="MODEL|BUNDLE",
    type=click.Path(path_type=Path),
    help="A generator of other seed or replica, for the training uncertainty; may be "
    "repeated.",
)
@click.option(
    "--report",
    "report_directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also draw it: report.html in a new directory. Needs the training extra.",
)
@click.option(
    "--misid",
    "misid",
    multiple=True,
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="Another species, whose misID by the same cuts the report shows.",
)
@_seed
@_overwrite
def systematics(
    generator: Path,
    reference: Path | None,
    cuts: Sequence[str],
    output: Path,
    variations: Sequence[str],
    scales: Sequence[str],
    others: Sequence[Path],
    report_directory: Path | None,
    misid: Sequence[Path],
    seed: int,
    overwrite: bool,
) -> None:
    """Measure real-minus-generated efficiencies and write them as a map.

    Without DATASET or REFERENCE, the reference file beside the bundle is used.
    """
    from pidgan.systematics import VARIATIONS, run_systematics

    if misid and report_directory is None:
        raise click.UsageError("--misid needs --report")
    _refuse_existing(output, overwrite)
    if report_directory is not None:
        from pidgan.map_report import MapInput, write_map_report

        _refuse_existing(report_directory, overwrite)
    opened = _open_generator(generator)
    rows = None if reference is None else _open_reference(reference)
    options: dict[str, Any] = {
        "seed": seed,
        "variations": [name for name in variations or VARIATIONS if name != "none"],
        "scales": {name: _number(text) for name, text in _pairs(scales).items()},
    }
    found = run_systematics(
        opened,
        rows,
        cuts=list(cuts) or None,
        others=[_open_generator(other) for other in others],
        **options,
    )
    paths = [*found.save(output, overwrite=overwrite)]
    if report_directory is not None:
        rejected = [_open_generator(path) for path in misid]
        maps = [run_systematics(one, cuts=found.cuts, **options) for one in rejected]
        page = write_map_report(
            MapInput(map=found, generator=opened, reference=rows),
            report_directory,
            misid=[
                MapInput(map=one, generator=generator)
                for one, generator in zip(maps, rejected, strict=True)
            ],
            overwrite=overwrite,
        )
        paths.append(page)
    for path in paths:
        click.echo(str(path))


@cli.command(epilog="Example: pidgan export kaon-model -o kaon.onnx")
@click.argument("model", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@_output
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "c"]),
    default="onnx",
    help="A bundle, or one C99 file without dependencies.",
)
@click.option(
    "--name", help="Of the function in the C file.  [default: the stem of PATH]"
)
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    help="Validate a model on it first; the figures go onto the card.",
)
@_overwrite
def export(
    model: Path,
    output: Path,
    kind: str,
    name: str | None,
    dataset: Path | None,
    overwrite: bool,
) -> None:
    """Write a model as a bundle: one ONNX file, and its reference file.

    With --format c, write a model or a bundle as one C99 file.
    """
    _refuse_existing(output, overwrite)
    if kind == "onnx" and name is not None:
        raise click.UsageError("--name needs --format c")
    if kind == "onnx" and not model.is_dir() and model.exists():
        raise click.UsageError(f"{model} is no model; a bundle needs --format c")
    opened = _open_generator(model)
    report = None
    if dataset is not None:
        import pidgan

        report = pidgan.validate(opened, pidgan.Dataset.open(dataset))
    if kind == "c":
        path = _export_c(opened, output, name=name, report=report, overwrite=overwrite)
    else:
        from pidgan.onnx_export import export_bundle

        path = export_bundle(opened, output, report=report, overwrite=overwrite)
    click.echo(f"{path}  {path.stat().st_size / 1024:.0f} kiB")


def _export_c(generator: Any, output: Path, *, report: Any, **options: Any) -> Path:
    """Write a C file of a bundle, or of a model by way of one."""
    from pidgan.bundle import Bundle, open_bundle
    from pidgan.c_export import export_c

    if isinstance(generator, Bundle):
        return export_c(generator, output, **options)
    from pidgan.onnx_export import export_bundle

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        bundle = open_bundle(export_bundle(generator, path, report=report))
        return export_c(bundle, output, **options)


@cli.command(epilog="Example: pidgan inspect kaon.onnx --verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Run the self-test.")
@_json
def inspect(bundle: Path, verify: bool, as_json: bool) -> None:
    """Show the card of a bundle."""
    from pidgan.bundle import open_bundle

    opened = open_bundle(bundle, verify=verify)
    if as_json:
        click.echo(opened.card.to_json())
        return
    click.echo(_describe_card(opened))
    if verify:
        click.echo("self-test     passed")


@cli.command(
    "quantile-map",
    epilog="Example: pidgan quantile-map mc.root --data data.root --branch nTracks "
    "--data-weights sweight -o nTracks.json",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE[:TREE]...")
@click.option(
    "--data",
    "data",
    multiple=True,
    required=True,
    metavar="FILE[:TREE]",
    help="File of data; can be repeated.",
)
@click.option("--branch", required=True, help="Branch that is compared.")
@click.option("--data-branch", help="Its name in data, if it is another.")
@click.option("--weights", help="Branch with weights in simulation.")
@click.option("--data-weights", help="Branch with weights in data, e.g. sWeights.")
@_output
@_overwrite
def quantile_map(
    files: Sequence[str],
    data: Sequence[str],
    branch: str,
    data_branch: str | None,
    weights: str | None,
    data_weights: str | None,
    output: Path,
    overwrite: bool,
) -> None:
    """Measure how a variable of simulation (FILE) must change to be as in data."""
    from pidgan.quantile_map import make_quantile_map

    _refuse_existing(output, overwrite)
    x, w = _read_values(files, branch, weights)
    y, v = _read_values(data, data_branch or branch, data_weights)
    found = make_quantile_map(x, y, simulation_weights=w, data_weights=v)
    found.save(output, overwrite=overwrite)
    click.echo(f"{output}: {len(x)} entries of simulation, {len(y)} of data")


@cli.command(
    epilog="Example: pidgan apply --track Kplus=kaon.onnx d2kpi.root -o out.root"
)
@click.argument("files", nargs=-1, required=True, metavar="FILE[:TREE]...")
@click.option(
    "--track",
    "tracks",
    multiple=True,
    required=True,
    metavar="TRACK=BUNDLE",
    help="Prefix of a track and its bundle, or directory of bundles.",
)
@_output
@click.option(
    "--mode",
    type=click.Choice(["append", "replace", "friend"]),
    default="append",
    help="Add columns, replace branches of that name, or write only new columns.",
)
@click.option(
    "--species-from",
    metavar="NAME",
    help="Branch {track}_NAME with PDG ids that picks the bundle, e.g. TRUEID.",
)
@click.option(
    "--mother-from",
    metavar="NAME",
    help="Branch {track}_NAME with the mother's PDG id, to flag decays in flight.",
)
@click.option(
    "--where",
    metavar="CUT",
    help='Generate only for tracks that pass, e.g. "{track}_PT > 500".',
)
@click.option(
    "--elsewhere",
    type=click.Choice(["nan", "keep"]),
    default="nan",
    help="What the others get: NaN, or the value that they have.",
)
@_branch
@_unit
@_scale
@_quantile_map
@click.option("--suffix", default="", help="Added to the names of the new columns.")
@click.option(
    "--key",
    default="",
    metavar="BRANCH,...",
    help="Key the noise by these branches instead of the entry number.",
)
@click.option(
    "--part",
    metavar="I/N",
    callback=lambda _, __, text: _parse_part(text),
    help="Do the I-th of N parts of the files, from 1: for batch arrays.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that share the files.  [default: from files and cores]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads of each that generate.  [default: its share of the cores]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler whose workers do the files, e.g. tcp://host:8786.",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    help="Entries at a time.  [default: from the memory, at most 200000]",
)
@click.option("--dry-run", is_flag=True, help="Print the mapping, write nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress: for logs.")
@_seed
@_overwrite
@_json
def apply(
    files: Sequence[str],
    tracks: Sequence[str],
    output: Path,
    branches: Sequence[str],
    units: Sequence[str],
    scales: Sequence[str],
    quantile_maps: Sequence[str],
    key: str,
    scheduler: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Generate PID columns for tracks of an analysis ntuple."""
    from pidgan.application import apply as apply_bundles
    from pidgan.scheduling import dask_client

    given = contextlib.nullcontext() if scheduler is None else dask_client(scheduler)
    with given as client:
        summary = apply_bundles(
            _pairs(tracks),
            list(files),
            output,
            branches=_pairs(branches),
            units=_pairs(units),
            scale={name: _number(text) for name, text in _pairs(scales).items()},
            quantile_map=_pairs(quantile_maps),
            key=tuple(name for name in key.split(",") if name),
            client=client,
            progress=None if quiet else _EntriesLine(),
            **options,
        )
    click.echo(summary.to_json() if as_json else summary.text())


@cli.command(
    epilog="Example: pidgan efficiency out.root --track Kplus "
    '--cut "RichDLLk > 0" --map kaon-map.json'
)
@click.argument("files", nargs=-1, required=True, metavar="FILE[:TREE]...")
@click.option(
    "--track",
    "tracks",
    multiple=True,
    required=True,
    metavar="TRACK",
    help="Prefix of a track; several for a joint selection.",
)
@click.option(
    "--cut",
    "cuts",
    multiple=True,
    metavar="CUT",
    help='PID cut on target names, e.g. "RichDLLk > 0", or on several tracks, '
    '"Kplus_RichDLLk > 5 & piminus_RichDLLk < 0"; can be repeated.',
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    required=True,
    metavar="[TRACK=]MAP.json",
    help="Efficiency map from `pidgan systematics`, of all tracks or of one.",
)
@click.option(
    "--bins",
    multiple=True,
    metavar="BRANCH=EDGE,...",
    help="Give the efficiency in bins of a branch; repeat for more dimensions.",
)
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    metavar="I/J",
    help="Give the ratio of two results too, numbered from 1 in the order printed.",
)
@click.option(
    "--over",
    multiple=True,
    metavar="FILE[:TREE]",
    help="Give the ratio to the same efficiencies on another ntuple too.",
)
@click.option(
    "--latex",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write a LaTeX table.",
)
@click.option(
    "--columns",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write a friend tree with {track}_PIDCalibEff and _PIDCalibErr of each "
    "candidate, from its bin of the map.",
)
@click.option(
    "--species-from",
    metavar="NAME",
    help="Use only rows whose {track}_NAME is the map's species, e.g. TRUEID.",
)
@click.option("--weights", metavar="BRANCH", help="Branch with weights, e.g. sWeights.")
@click.option(
    "--no-correction",
    is_flag=True,
    help="Leave the generated value, add the full difference (over-covers).",
)
@click.option("--suffix", default="", help="Suffix of the generated columns.")
@click.option(
    "--outside",
    type=click.Choice(["grow", "refuse"]),
    default="grow",
    help="Rows outside the map: a larger uncertainty, or an error.",
)
@_branch
@_unit
@_scale
@_quantile_map
@_overwrite
@_json
def efficiency(
    files: Sequence[str],
    tracks: Sequence[str],
    cuts: Sequence[str],
    maps: Sequence[str],
    bins: Sequence[str],
    ratios: Sequence[str],
    over: Sequence[str],
    latex: Path | None,
    columns: Path | None,
    no_correction: bool,
    overwrite: bool,
    branches: Sequence[str],
    units: Sequence[str],
    scales: Sequence[str],
    quantile_maps: Sequence[str],
    as_json: bool,
    **options: Any,
) -> None:
    """Give the efficiency of PID cuts with statistical and systematic uncertainty.

    Without --cut, all cuts of the map are given.
    """
    from pidgan.propagation import pid_efficiency, write_efficiency_columns
    from pidgan.propagation.selection import open_tracks

    for path in (latex, columns):
        if path is not None and not path.is_dir():
            _refuse_existing(path, overwrite)
    pairs = [_parse_ratio(text) for text in ratios]
    opened = open_tracks(tracks, _parse_maps(maps))
    conditions: dict[str, Any] = {
        "track": tracks,
        "cuts": list(cuts) or _shared_cuts(opened),
        "map": opened,
        "branches": _pairs(branches),
        "units": _pairs(units),
        "scale": {name: _number(text) for name, text in _pairs(scales).items()},
        "quantile_map": _pairs(quantile_maps),
    }
    options |= {"correction": not no_correction, "bins": _parse_bins(bins)}
    found = pid_efficiency(list(files), **conditions, **options)
    quotients = _quotients(found, pairs)
    content, texts, tables = found.content(), [found.text()], [found.latex()]
    if over:
        other = pid_efficiency(list(over), **conditions, **options)
        quotients.append(found / other)
        content["over"] = other.content()
        texts.append(other.text())
    if quotients:
        content["ratios"] = [quotient.content() for quotient in quotients]
        texts += [quotient.text() for quotient in quotients]
        tables += [quotient.latex() for quotient in quotients]
    if columns is not None:
        paths = write_efficiency_columns(
            list(files), columns, overwrite=overwrite, **conditions
        )
        _progress("\n".join(map(str, paths)))
    if latex is not None:
        from pidgan.treefile import replacing

        with replacing(latex, overwrite=overwrite) as temporary:
            temporary.write_text("\n".join(tables), encoding="utf-8")
    dumped = json.dumps(content, indent=2, allow_nan=False) if as_json else ""
    click.echo(dumped or "\n\n".join(texts))


def _quotients(found: Any, pairs: Sequence[tuple[int, int]]) -> list[Any]:
    """Return ratios of results, numbered from 1."""
    for pair in pairs:
        if max(pair) > len(found):
            raise click.UsageError(
                f"--ratio {pair[0]}/{pair[1]}: there are {len(found)} results"
            )
    estimates = found.estimates
    return [estimates[i - 1] / estimates[j - 1] for i, j in pairs]


def _shared_cuts(maps: Mapping[str, Any]) -> list[str]:
    """Return the cuts of a map that all tracks share."""
    known = [efficiency_map.cuts for efficiency_map in maps.values()]
    if any(cuts != known[0] for cuts in known):
        raise click.UsageError("tracks with different maps need --cut")
    return list(known[0])


def _parse_maps(texts: Sequence[str]) -> Any:
    """Turn MAP.json, or several TRACK=MAP.json, into what `pid_efficiency` takes."""
    if len(texts) == 1 and ("=" not in texts[0] or Path(texts[0]).exists()):
        return texts[0]
    for text in texts:
        if "=" not in text:
            raise click.UsageError(f"--map {text}: expected TRACK=MAP.json of several")
    return _pairs(texts)


def _parse_bins(texts: Sequence[str]) -> dict[str, list[float]]:
    """Turn BRANCH=EDGE,... into edges."""
    bins = {}
    for name, text in _pairs(texts).items():
        edges = [float(_number(edge)) for edge in text.split(",")]
        if len(edges) < 2 or edges != sorted(set(edges)):
            raise click.UsageError(f"--bins {name}={text}: expected increasing edges")
        bins[name] = edges
    return bins


def _parse_ratio(text: str) -> tuple[int, int]:
    """Turn I/J into two numbers."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None:
        raise click.UsageError(f"--ratio {text}: expected I/J, counted from 1")
    return int(found[1]), int(found[2])


@cli.command(
    "working-point",
    epilog='Example: pidgan working-point kaon.onnx pion.onnx --cut "RichDLLk > x" '
    "--efficiency 0.9",
)
@click.argument("signal", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.argument(
    "others", metavar="[OTHER]...", nargs=-1, type=click.Path(path_type=Path)
)
@click.option(
    "--cut",
    required=True,
    metavar="CUT",
    help='With x for the threshold, e.g. "RichDLLk > x & RichDLLp < 5".',
)
@click.option("--efficiency", type=float, help="Wanted efficiency of BUNDLE; or")
@click.option(
    "--misid", type=float, help="wanted misID, of the OTHER of which most passes."
)
@click.option(
    "--thresholds",
    metavar="X,X,...",
    help="Where the cut is evaluated.  [default: quantiles of all species]",
)
@click.option(
    "--report",
    "report_directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Draw ROC curves: report.html in a new directory. Needs the training extra.",
)
@_seed
@_overwrite
@_json
def find_working_point(
    signal: Path,
    others: Sequence[Path],
    cut: str,
    efficiency: float | None,
    misid: float | None,
    thresholds: str | None,
    report_directory: Path | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Find the threshold at which a cut has a wanted efficiency or misID.

    BUNDLE is the species to keep, OTHER those to reject; each with its reference file
    beside it. Efficiencies refer to the kinematics of those rows.
    """
    from pidgan.working_point import working_point

    if (efficiency is None) == (misid is None):
        raise click.UsageError("give --efficiency or --misid, one of the two")
    if misid is not None and not others:
        raise click.UsageError("--misid needs the bundle of another species")
    wanted = efficiency if efficiency is not None else misid
    if wanted is not None and not 0 < wanted < 1:
        raise click.UsageError(f"{wanted:g}: expected a number between 0 and 1")
    if report_directory is not None:
        from pidgan.map_report import write_working_point_report

        _refuse_existing(report_directory, overwrite)
    numbers = None
    if thresholds is not None:
        numbers = [float(_number(text)) for text in thresholds.split(",")]
    found = working_point(
        _open_generator(signal),
        [_open_generator(path) for path in others],
        cut=cut,
        efficiency=efficiency,
        misid=misid,
        thresholds=numbers,
        seed=seed,
    )
    click.echo(found.to_json() if as_json else found.text())
    if report_directory is not None:
        path = write_working_point_report(found, report_directory, overwrite=overwrite)
        click.echo(str(path), err=True)


def _open_generator(path: Path) -> Any:
    """Open a model directory or a bundle."""
    if path.is_dir():
        from pidgan.models.model import open_model

        return open_model(path)
    from pidgan.bundle import open_bundle

    return open_bundle(path)


def _open_reference(path: Path) -> Any:
    """Open a dataset directory or a reference file."""
    from pidgan.dataset import Dataset
    from pidgan.ntuple import read_table

    return Dataset.open(path) if path.is_dir() else read_table(path)


def _refuse_existing(path: Path, overwrite: bool) -> None:
    """Fail before the work rather than after it."""
    if path.exists() and not overwrite:
        raise PidganError(f"{path} exists; choose another -o, or add --overwrite")


def _pairs(texts: Sequence[str]) -> dict[str, str]:
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


def _parse_part(text: str | None) -> tuple[int, int] | None:
    """Turn I/N into two numbers."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise click.BadParameter(f"{text!r}: expected I/N with 1 <= I <= N")
    return int(found[1]), int(found[2])


def _read_values(
    files: Sequence[str], branch: str, weights: str | None
) -> tuple[Any, Any]:
    """Return a branch of all files, and its weights if there are any."""
    import pandas as pd

    from pidgan.ntuple import find_sources, read_columns

    names = [branch] if weights is None else [branch, weights]
    frames = [read_columns(source, names) for source in find_sources(list(files))]
    frame = pd.concat(frames, ignore_index=True)
    return frame[branch].to_numpy(), None if weights is None else frame[weights]


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no number") from None


def _describe(sample: Any) -> str:
    lines = [
        f"{sample.name}: {sample.title}",
        f"species       {sample.species}",
        f"detector      {sample.detector}",
        f"trees         {', '.join(sample.trees) or 'the only one in the file'}",
        f"source        {sample.source}",
        f"weights       {_describe_weights(sample)}",
    ]
    for kind in ("conditions", "targets"):
        for variable in getattr(sample, kind):
            low, high = variable.range
            where = variable.derive or variable.branch or variable.name
            lines.append(
                f"{kind[:-1]:13} {variable.name}: {where} ({variable.unit}), "
                f"{low:g} to {high:g} {variable.package_unit}"
            )
    lines += [f"cut           {cut}" for cut in sample.cuts]
    return "\n".join(lines)


def _describe_weights(sample: Any) -> str:
    if sample.weight_branch:
        return f"branch {sample.weight_branch}"
    if sample.discriminant:
        return f"sWeights from a fit to {sample.discriminant.branch}"
    return "none"


def _describe_card(bundle: Any) -> str:
    card = bundle.card
    lines = [
        f"{bundle.path}: {card.sample.title}",
        f"species       {card.species}",
        f"detector      {card.detector}",
        f"sample        {card.sample.name}",
        f"family        {card.family}, {card.steps} steps, seed {card.seed}",
        f"noise         {card.n_noise}",
        f"sha256        {bundle.sha256}",
    ]
    for kind in ("conditions", "targets"):
        for variable in getattr(card, kind):
            low, high = variable.range
            unit = "" if variable.unit == "1" else f" {variable.unit}"
            lines.append(
                f"{kind[:-1]:13} {variable.name}: trained {low:g} to {high:g}{unit}"
            )
    reference = card.reference or {}
    if reference:
        lines.append(f"reference     {reference['file']}, {reference['rows']} rows")
    lines += [f"validation    {name}: {v}" for name, v in card.validation.items()]
    return "\n".join(lines)


def _progress(text: str) -> None:
    click.echo(text, err=True)


def _print_training(progress: Any) -> None:
    losses: Mapping[str, float] = progress.losses
    text = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
    line = (
        f"{progress.phase}  step {progress.step}/{progress.steps}  {text}  "
        f"{progress.seconds_left:.0f} s left"
    )
    _overwrite_line(line, last=progress.step == progress.steps)


class _EntriesLine:
    """A line with entries done, rate and time left."""

    def __init__(self) -> None:
        self.started = 0.0
        self.before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        # The first call tells what an earlier run had done.
        if self.before is None:
            self.before, self.started = done, time.monotonic()
        seconds = max(time.monotonic() - self.started, 1e-3)
        line = f"{done}/{total} entries"
        if done > self.before:
            rate = (done - self.before) / seconds
            line += (
                f"  {100 * done // total} %  {rate / 1e3:.0f}k entries/s  "
                f"{(total - done) / rate:.0f} s left"
            )
        _overwrite_line(line, last=done >= total)


def _overwrite_line(line: str, *, last: bool) -> None:
    """Rewrite one line of a terminal; in a log, print little."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", nl=last, err=True)
    elif last:
        click.echo(line, err=True)
