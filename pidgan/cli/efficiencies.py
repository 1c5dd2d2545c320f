"""Verbs about efficiencies in bins: tables, and maps with their systematics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import options
from pidgan.cli.control import in_bins_option, transfer_option
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
from pidgan.cli.pictures import draw, plot_option
from pidgan.files.places import check_end, check_folder_name

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
        draw(drawn, plot, overwrite=overwrite)
    if as_json:
        click.echo(frame.to_json(orient="records"))
        return
    edges = [name for name in frame if str(name).endswith(("_low", "_high"))]
    shown = [name for name in ("cut", *edges, *SHOWN) if name in frame]
    shown += ["unphysical"] if frame["unphysical"].any() else []
    click.echo(frame[shown].to_string(index=False, float_format="{:.5g}".format))
    if outside := frame["rows_outside"].iloc[0]:
        click.echo(f"rows outside the bins, left out: {outside}")


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
@in_bins_option
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
    transfer_in_bins: bool,
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
    if transfer_in_bins and transfer is None:
        raise click.UsageError("--transfer-in-bins needs --transfer CONTROL.json")
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
        found = pidgan.transfer(found, transfer, in_bins=transfer_in_bins)
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
