"""Verbs about efficiencies: tables, their systematics, an analysis, working points."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import options
from pidgan.cli.control import transfer_option
from pidgan.cli.given_maps import look_at_maps, parse_periods
from pidgan.cli.group import (
    cli,
    note,
    open_generator,
    open_generators,
    open_pairs,
    open_rows,
    result,
    shows_progress,
)
from pidgan.cli.pictures import plot_option
from pidgan.files.places import check_end, check_folder_name
from pidgan.files.writing import refuse_existing

# Columns of a table that are printed, edges before them.
SHOWN = (
    *("efficiency", "lower", "upper", "real_efficiency", "real_lower", "real_upper"),
    *("generated_efficiency", "difference", "difference_error", "n_eff", "few"),
)


@cli.command(
    epilog='Example: pidgan table kaon.onnx --cut "RichDLLk > 4" --binning P=10 '
    "--binning ETA=1.8,3.3,5 -o kaon.csv"
)
@click.argument(
    "source", metavar="MODEL|BUNDLE|DATASET", type=options.GENERATOR_OR_DATASET
)
@options.reference
@options.cuts
@options.where
@options.binning
@click.option(
    "--variance",
    type=click.Choice(["wilson", "pidcalib"]),
    default="wilson",
    help="Formula of the uncertainty.",
)
@options.output(
    "File that is also written: .csv, .parquet or .root.",
    *(".csv", ".parquet", ".root"),
    required=False,
)
@plot_option
@options.device
@options.seed
@options.overwrite
@options.as_json
def table(
    source: Path,
    reference: Path | None,
    output: Path | None,
    plot: Path | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Give real and generated efficiencies in bins of the conditions.

    The efficiencies are those of rows never trained on, by default of the reference
    file beside the bundle. A DATASET as the first argument gives the real efficiencies
    of all its rows. A difference is generated minus real. The default binning is that
    of the sample. With -o, the table is also written: .csv, .parquet, or .root with
    histograms. With --plot, it is drawn.
    """
    from pidgan.efficiency.dataset_table import dataset_table
    from pidgan.efficiency.real_vs_generated import closure_table
    from pidgan.efficiency.table_files import save_tables

    with options.usage_errors():
        if (source / "dataset.json").is_file():
            if reference is not None:
                raise click.UsageError("a DATASET alone takes no second argument")
            real = dataset_table(pidgan.Dataset.open(source), **given)
            frame, tables = real.frame(), {"efficiency": real}
            drawn: Any = real
        else:
            generator, rows = open_generator(source), open_rows(reference)
            found = closure_table(generator, rows, seed=seed, **given)
            frame, drawn = found.frame(), found
            tables = {"real": found.real, "generated": found.generated}
    if output is not None:
        save_tables(output, frame, tables, overwrite=overwrite)
    if plot is not None:
        _draw(drawn, plot, overwrite=overwrite)
    if as_json:
        click.echo(frame.to_json(orient="records"))
        return
    edges = [name for name in frame if str(name).endswith(("_low", "_high"))]
    shown = [name for name in ("cut", *edges, *SHOWN) if name in frame]
    shown += ["unphysical"] if frame["unphysical"].any() else []
    click.echo(frame[shown].to_string(index=False, float_format="{:.5g}".format))
    if outside := frame["rows_outside"].iloc[0]:
        click.echo(f"rows outside the bins, left out: {outside}")


def _draw(found: Any, path: Path, *, overwrite: bool) -> None:
    """Write the pictures of a result, and say which files they are."""
    for written in pidgan.plot(found).save(path, overwrite=overwrite):
        note(str(written))


@cli.command(
    epilog='Example: pidgan systematics kaon.onnx --cut "RichDLLk > 0" -o kaon-map.json'
)
@click.argument(
    "generator",
    metavar="MODEL|BUNDLE|COLLECTION|DATASET",
    type=options.ANY_GENERATOR_OR_DATASET,
)
@options.reference
@options.repeated(
    "--simulation",
    "FILE[:TREE]",
    "Simulation that is compared, as it is, with the first argument, a DATASET: files "
    "with the branches of its definition, or another dataset",
)
@options.cuts
@options.where
@options.binning
@options.output(
    "Efficiency map that is written, a JSON file; for a collection a folder of maps.",
    callback=options.is_new,
)
@options.repeated(
    "--variation variations",
    "NAME",
    "Systematic variation: binning, sweights, fit_and_count, limit or none",
    more="  [default: all that the reference allows]",
)
@options.repeated(
    "--vary",
    "CONDITION=FACTOR",
    "Add an uncertainty: repeat with this condition multiplied by FACTOR, e.g. "
    "nTracks=1.1",
    options.parse_factors,
)
@options.repeated(
    "--other others",
    "MODEL|BUNDLE",
    "Another generator of the same sample (other seed or replica), or a folder of "
    "members, whose spread is the uncertainty of the training",
    type=options.GENERATORS,
)
@transfer_option
@options.report
@options.misid
@options.device
@options.seed
@options.overwrite
@options.as_json
def systematics(
    generator: Path,
    reference: Path | None,
    simulation: Sequence[str],
    output: Path,
    variations: Sequence[str],
    others: Sequence[Path],
    report: Path | None,
    misid: Sequence[str],
    vary: Any,
    transfer: Path | None,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure real minus generated efficiencies and write them as a map.

    The rows are those of DATASET or REFERENCE, by default of the reference file beside
    the bundle. If MODEL is a folder of members, the first is the generator and the
    others count as with --other. A --vary says how well the analysis knows a
    condition. The default binning is that of the sample for maps. For a collection
    (.toml), a map of each bundle is written, with the reference file beside it. With
    --simulation, the map is of a simulation that keeps its own PID variables, for
    `pidgan efficiency` on files of that simulation.
    """
    from pidgan.bundle.collection import SUFFIX
    from pidgan.efficiency.quoted import for_json
    from pidgan.efficiency.systematics import run_systematics

    if misid and report is None:
        raise click.UsageError("--misid needs --report")
    chosen = [name for name in variations if name != "none"]
    given["variations"] = chosen if variations else None
    given |= {"cuts": given["cuts"] or None, "scales": vary}
    given["progress"] = shows_progress()
    if generator.suffix == SUFFIX:
        alone = (reference, others, report, simulation, transfer)
        if any(one is not None and one != () for one in alone):
            raise click.UsageError(
                f"{generator} is a collection, whose bundles have their reference "
                "files: it takes no second argument, --other, --report, --simulation "
                "or --transfer"
            )
        with options.usage_errors():
            check_folder_name(output)
        names = _write_maps(generator, output, overwrite=overwrite, **given)
        result(str(output), as_json=as_json, outputs=[output / name for name in names])
        return
    with options.usage_errors():
        check_end(output, [".json"])
    opened, *members = _open_compared(generator, simulation)
    rows = open_rows(reference)
    members += [one for path in others for one in open_generators(path)]
    found = run_systematics(opened, rows, others=members, **given)
    if transfer is not None:
        found = pidgan.transfer(found, transfer)
    paths = [*found.save(output, overwrite=overwrite)]
    if report is not None:
        from pidgan.report.map_page import MapInput, write_map_report

        given["cuts"] = found.cuts
        rejected = [
            MapInput(
                map=run_systematics(one, its_rows, **given),
                generator=one,
                reference=its_rows,
            )
            for one, its_rows in open_pairs(misid)
        ]
        nominal = MapInput(map=found, generator=opened, reference=rows)
        path = write_map_report(nominal, report, misid=rejected, overwrite=overwrite)
        paths.append(path)
    text = "\n".join([found.text(), *map(str, paths)])
    known = {"where": found.where or None, "efficiencies": found.averages}
    result(text, as_json=as_json, outputs=paths, **for_json(known))


def _open_compared(generator: Path, simulation: Sequence[str]) -> list[Any]:
    """Open the generators of a map, or a simulation that is compared with a dataset."""
    from pidgan.efficiency.simulated_rows import open_simulation

    is_dataset = (generator / "dataset.json").is_file()
    if not simulation:
        if is_dataset:
            raise click.UsageError(
                f"{generator} is a dataset; say what is compared with it, --simulation "
                "FILE, or give a model or a bundle"
            )
        return open_generators(generator)
    if not is_dataset:
        raise click.UsageError(
            f"--simulation is compared with a dataset, got {generator}"
        )
    files = list(simulation)
    given = files[0] if len(files) == 1 else files
    return [open_simulation(generator, given, progress=shows_progress())]


def _write_maps(
    collection: Path, folder: Path, *, overwrite: bool, **given: Any
) -> list[str]:
    """Write a map of each bundle of a collection into a folder."""
    from pidgan.bundle.collection import Collection
    from pidgan.efficiency.systematics import run_systematics
    from pidgan.files.writing import writing_folder

    opened = Collection.open(collection)
    bundles = opened.open_bundles()
    width = len(str(len(bundles)))
    stems = [Path(str(one.address or one.path)).stem for one in bundles]
    names = [f"{n:0{width}}_{stem}.json" for n, stem in enumerate(stems, 1)]
    with writing_folder(folder, mark=names[0], overwrite=overwrite) as temporary:
        for name, bundle in zip(names, bundles, strict=True):
            run_systematics(bundle, None, **given).save(temporary / name)
            note(f"{name}: {bundle.card.species}, sha256 {bundle.sha256[:12]}...")
    return names


@cli.command(
    epilog="Example: pidgan efficiency out.root --map Kplus=kaon-map.json "
    '--cut "RichDLLk > 0"'
)
@options.files
@options.repeated(
    "--map maps",
    "TRACK=MAP.json",
    "Prefix of a track and its efficiency map from `pidgan systematics`, or a folder "
    "with the maps of a collection",
    more=" MAP.json alone is the map of every --track TRACK. Several are for a joint "
    "selection, or for one track the maps of a collection. MAP.json=SHARE, or "
    "TRACK=MAP.json=SHARE, is the map of a period with this share of the luminosity.",
    callback=look_at_maps,
)
@options.repeated(
    "--table tables",
    "TRACK=TABLE.csv",
    "Prefix of a track and a table from `pidgan table DATASET -o`, for the efficiency "
    "without a generator, as from PIDCalib",
)
@options.tracks(
    metavar="TRACK=MAP.json",
    callback=look_at_maps,
    help="Prefix of a track and its efficiency map, as with --map, or TRACK alone with "
    "one --map; can be repeated.",
)
@options.cuts
@options.where
@options.binning
@options.repeated(
    "--ratio ratios",
    "I/J",
    "Ratio of two results, numbered from 1 in the order printed",
    lambda texts: [options.parse_fraction(t, "I/J, counted from 1") for t in texts],
)
@options.repeated(
    "--over",
    "FILE[:TREE]",
    "A second ntuple, whose efficiencies are printed too, with the ratio to them",
)
@click.option(
    "--latex", type=options.PATH, metavar="PATH", help="File for a LaTeX table."
)
@click.option(
    "--columns",
    type=options.PATH,
    metavar="PATH",
    help="File for a friend tree with {track}_PIDCalibEff and _PIDCalibErr of each "
    "candidate, from its bin of the map.",
)
@click.option(
    "--eigenvariations",
    is_flag=True,
    help="With --columns: a column PIDCalibEff_calibration_1 and so on for each "
    "independent uncertainty of the maps, up by a standard deviation.",
)
@click.option(
    "--replicas",
    type=click.IntRange(min=0),
    default=0,
    help="With --columns: number of columns PIDCalibEff_replica_1 and so on, with the "
    "maps drawn from their uncertainty.",
)
@options.seed
@click.option(
    "--pyhf",
    type=options.PATH,
    metavar="FILE.json",
    help="File for a workspace of pyhf and cabinetry: yields in the bins of --binning, "
    "and a modifier for each independent uncertainty.",
)
@click.option(
    "--matrix",
    type=options.PATH,
    metavar="MATRIX.csv",
    help="File for the misID matrix, .csv or .json: a row for each track, a column for "
    "each --cut, without names of tracks, and the covariance.",
)
@transfer_option
@options.species_from
@options.weights
@click.option(
    "--no-correction",
    is_flag=True,
    help="Do not correct the generated efficiency. The full correction becomes an "
    "uncertainty, which is then too large.",
)
@options.suffix
@click.option(
    "--outside",
    type=click.Choice(["grow", "refuse"]),
    default="grow",
    help="Treatment of rows outside the map: a larger uncertainty, or an error.",
)
@options.key(
    "Branches that identify an event, e.g. runNumber,eventNumber. Rows of one event "
    "count as one in the statistical uncertainty.  [default: --key of `pidgan apply`, "
    "else each entry]"
)
@click.option(
    "--trust",
    is_flag=True,
    help="Go on without proof that the columns were generated by the bundle of the "
    "map. The result then says what is not proven.",
)
@plot_option
@options.conditions
@options.overwrite
@options.as_json
def efficiency(
    files: Sequence[str],
    maps: Sequence[str],
    tables: Sequence[str],
    tracks: Sequence[str],
    binning: Any,
    ratios: Sequence[tuple[int, int]],
    over: Sequence[str],
    latex: Path | None,
    columns: Path | None,
    eigenvariations: bool,
    replicas: int,
    seed: int,
    pyhf: Path | None,
    matrix: Path | None,
    plot: Path | None,
    transfer: Path | None,
    no_correction: bool,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Give the efficiency of PID cuts with statistical and systematic uncertainty.

    A cut may name several tracks, "Kplus_RichDLLk > 5 & piminus_RichDLLk < 0". Without
    --cut, all cuts of the map are given. With --binning, give branch names of the
    ntuple and edges in the units of the file.
    """
    periods = parse_periods(tracks, [*maps, *tables])
    from pidgan.efficiency.fit_inputs import write_fit_workspace
    from pidgan.efficiency.misid_matrix import misid_matrix
    from pidgan.efficiency.periods import check_shares, efficiency_of_periods
    from pidgan.efficiency.pid_efficiency import write_efficiency_columns
    from pidgan.efficiency.selections import open_maps
    from pidgan.efficiency.transfer import transfer_maps
    from pidgan.files.writing import writing_file

    for path, ends in ((pyhf, (".json",)), (matrix, (".csv", ".json"))):
        if path is not None and path.suffix not in ends:
            text = f"{path}: expected a name that ends in {' or '.join(ends)}"
            raise click.UsageError(text)
    for path in (latex, columns, pyhf, matrix):
        if path is not None and not path.is_dir():
            refuse_existing(path, overwrite=overwrite)
    if (eigenvariations or replicas) and columns is None:
        raise click.UsageError("--eigenvariations and --replicas need --columns PATH")
    shares = [share for share, _ in periods if share is not None]
    if shares:
        check_shares(shares)
    opened, *others = (open_maps(own) for _, own in periods)
    for name, path in (("columns", columns), ("pyhf", pyhf), ("matrix", matrix)):
        if shares and path is not None:
            text = f"--{name} takes no maps with shares of the luminosity"
            raise click.UsageError(text)
    if transfer is not None:
        if others:
            raise click.UsageError("--transfer takes the maps of one period")
        opened = transfer_maps(opened, transfer, trust=given["trust"])
    given |= {"correction": not no_correction, "cuts": list(given["cuts"]) or None}
    given["progress"] = shows_progress()
    suffix = given.pop("suffix")

    def evaluate(files: Sequence[str], bins: Any) -> Any:
        if not shares:
            more = {**given, "suffix": suffix, "binning": bins}
            return pidgan.pid_efficiency(opened, list(files), **more)
        return efficiency_of_periods(
            [opened, *others],
            shares,
            list(files),
            evaluate=partial(pidgan.pid_efficiency, **given),
            suffix=suffix,
            binning=bins,
            all_cuts=given["cuts"] is None,
        )

    with options.usage_errors():
        found = evaluate(files, binning)
    quotients = _quotients(found, ratios)
    shown, content = [found], found.content()
    if over:
        other = evaluate(over, found.binning)
        content["over"] = other.content()
        shown.append(other)
        quotients.append(found / other)
    if quotients:
        content["ratios"] = [quotient.content() for quotient in quotients]
    if columns is not None:
        names = ("cuts", "where", "species_from", "conditions", "trust")
        written = write_efficiency_columns(
            opened,
            list(files),
            columns,
            suffix=suffix,
            overwrite=overwrite,
            eigenvariations=eigenvariations,
            replicas=replicas,
            seed=seed,
            **{name: given[name] for name in names},
        )
        note(written.text())
        content["columns"] = written.counts
    if pyhf is not None:
        note(str(write_fit_workspace(found, pyhf, overwrite=overwrite)))
    if matrix is not None:
        rates = misid_matrix(
            opened, list(files), given["cuts"], suffix=suffix, **_without_cuts(given)
        )
        for path in rates.save(matrix, overwrite=overwrite):
            note(str(path))
        note(rates.text())
        content["matrix"] = rates.content()
    if latex is not None:
        with writing_file(latex, overwrite=overwrite) as temporary:
            parts = (one.latex() for one in (found, *quotients))
            temporary.write_text("\n".join(parts), encoding="utf-8")
    if plot is not None:
        _draw(found, plot, overwrite=overwrite)
    dumped = json.dumps(content, indent=2, allow_nan=False) if as_json else ""
    click.echo(dumped or "\n\n".join(one.text() for one in (*shown, *quotients)))


def _without_cuts(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "cuts"}


def _quotients(found: Any, ratios: Sequence[tuple[int, int]]) -> list[Any]:
    """Return ratios of results, numbered from 1."""
    for i, j in ratios:
        if max(i, j) > len(found):
            raise click.UsageError(f"--ratio {i}/{j}: there are {len(found)} results")
    return [found.estimates[i - 1] / found.estimates[j - 1] for i, j in ratios]


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
