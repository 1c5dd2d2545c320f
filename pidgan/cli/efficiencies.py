"""Verbs about efficiencies: tables, their systematics, an analysis, working points."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pidgan.cli import options
from pidgan.cli.group import cli, open_generator, open_generators, open_pairs, open_rows
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
@click.argument("source", metavar="MODEL|BUNDLE|DATASET", type=options.PATH)
@options.reference
@options.cuts
@options.binning
@click.option(
    "--variance",
    type=click.Choice(["wilson", "pidcalib"]),
    default="wilson",
    help="Formula of the uncertainty.",
)
@options.output("File that is also written: .csv, .parquet or .root.", required=False)
@options.seed
@options.overwrite
@options.as_json
def table(
    source: Path,
    reference: Path | None,
    output: Path | None,
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
    histograms.
    """
    from pidgan.efficiency.real_vs_generated import closure_table
    from pidgan.efficiency.table import dataset_table
    from pidgan.efficiency.table_files import check_suffix, save_tables
    from pidgan.sample.dataset import Dataset

    try:
        if output is not None:
            check_suffix(output)
            refuse_existing(output, overwrite=overwrite)
        if (source / "dataset.json").is_file():
            if reference is not None:
                raise click.UsageError("a DATASET alone takes no second argument")
            real = dataset_table(Dataset.open(source), **given)
            frame, tables = real.frame(), {"efficiency": real}
        else:
            found = closure_table(
                open_generator(source), open_rows(reference), seed=seed, **given
            )
            frame = found.frame()
            tables = {"real": found.real, "generated": found.generated}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if output is not None:
        save_tables(output, frame, tables, overwrite=overwrite)
    if as_json:
        click.echo(frame.to_json(orient="records"))
        return
    edges = [name for name in frame if str(name).endswith(("_low", "_high"))]
    shown = [name for name in ("cut", *edges, *SHOWN) if name in frame]
    click.echo(frame[shown].to_string(index=False, float_format="{:.5g}".format))


@cli.command(
    epilog='Example: pidgan systematics kaon.onnx --cut "RichDLLk > 0" -o kaon-map.json'
)
@options.generator
@options.reference
@options.cuts
@options.binning
@options.output("Efficiency map that is written, a JSON file.")
@click.option(
    "--variation",
    "variations",
    multiple=True,
    metavar="NAME",
    help="Systematic variation: binning, sweights or none; can be repeated.  "
    "[default: binning, sweights]",
)
@options.scales(
    "Add an uncertainty: repeat with this condition multiplied by FACTOR, e.g. "
    "nTracks=1.1; can be repeated."
)
@click.option(
    "--other",
    "--also",
    "others",
    multiple=True,
    metavar="MODEL|BUNDLE",
    type=options.PATH,
    help="Another generator of the same sample (other seed or replica), or a folder of "
    "members. The spread is the uncertainty of the training. Can be repeated.",
)
@options.report
@options.misid
@options.seed
@options.overwrite
def systematics(
    generator: Path,
    reference: Path | None,
    cuts: Sequence[str],
    binning: Any,
    output: Path,
    variations: Sequence[str],
    others: Sequence[Path],
    report: Path | None,
    misid: Sequence[str],
    overwrite: bool,
    **given: Any,
) -> None:
    """Measure real minus generated efficiencies and write them as a map.

    The rows are those of DATASET or REFERENCE, by default of the reference file beside
    the bundle. If MODEL is a folder of members, the first is the generator and the
    others count as with --other. A --scale says how well the analysis knows a
    condition. The default binning is that of the sample for maps.
    """
    from pidgan.efficiency.efficiency_map import check_suffix
    from pidgan.efficiency.systematics import VARIATIONS, run_systematics

    if misid and report is None:
        raise click.UsageError("--misid needs --report")
    check_suffix(output)
    refuse_existing(output, overwrite=overwrite)
    if report is not None:
        from pidgan.report.map_page import MapInput, write_map_report

        refuse_existing(report, overwrite=overwrite)
    given |= {"variations": [n for n in variations or VARIATIONS if n != "none"]}
    opened, *members = open_generators(generator)
    rows = open_rows(reference)
    found = run_systematics(
        opened,
        rows,
        cuts=cuts or None,
        binning=binning,
        others=members + [one for path in others for one in open_generators(path)],
        **given,
    )
    paths = [*found.save(output, overwrite=overwrite)]
    if report is not None:
        rejected = [
            MapInput(
                map=run_systematics(
                    one, its_rows, cuts=found.cuts, binning=binning, **given
                ),
                generator=one,
                reference=its_rows,
            )
            for one, its_rows in open_pairs(misid)
        ]
        nominal = MapInput(map=found, generator=opened, reference=rows)
        paths.append(
            write_map_report(nominal, report, misid=rejected, overwrite=overwrite)
        )
    for path in paths:
        click.echo(str(path))


@cli.command(
    epilog="Example: pidgan efficiency out.root --map Kplus=kaon-map.json "
    '--cut "RichDLLk > 0"'
)
@options.files
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="TRACK=MAP.json",
    help="Prefix of a track and its efficiency map from `pidgan systematics`; can be "
    "repeated for a joint selection. MAP.json alone is the map of every --track TRACK.",
)
@options.tracks(
    metavar="TRACK=MAP.json",
    help="Prefix of a track and its efficiency map, as with --map, or TRACK alone with "
    "one --map; can be repeated.",
)
@options.cuts
@options.binning
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    metavar="I/J",
    callback=options.reads(lambda texts: [_parse_ratio(text) for text in texts]),
    help="Ratio of two results, numbered from 1 in the order printed; can be repeated.",
)
@click.option(
    "--over",
    multiple=True,
    metavar="FILE[:TREE]",
    help="A second ntuple. Also print each efficiency divided by the same efficiency "
    "on that ntuple.",
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
@options.conditions
@options.overwrite
@options.as_json
def efficiency(
    files: Sequence[str],
    maps: Sequence[str],
    tracks: Sequence[str],
    cuts: Sequence[str],
    binning: Any,
    ratios: Sequence[tuple[int, int]],
    over: Sequence[str],
    latex: Path | None,
    columns: Path | None,
    no_correction: bool,
    overwrite: bool,
    conditions: Any,
    as_json: bool,
    **given: Any,
) -> None:
    """Give the efficiency of PID cuts with statistical and systematic uncertainty.

    A cut may name several tracks, "Kplus_RichDLLk > 5 & piminus_RichDLLk < 0". Without
    --cut, all cuts of the map are given. With --binning, give branch names of the
    ntuple and edges in the units of the file.
    """
    from pidgan.efficiency.pid_efficiency import (
        pid_efficiency,
        write_efficiency_columns,
    )
    from pidgan.efficiency.selections import open_maps

    for path in (latex, columns):
        if path is not None and not path.is_dir():
            refuse_existing(path, overwrite=overwrite)
    opened = open_maps(_parse_maps(tracks, maps))
    given |= {"correction": not no_correction, "conditions": conditions}
    given["cuts"] = list(cuts) or None
    try:
        found = pid_efficiency(opened, list(files), binning=binning, **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    quotients = _quotients(found, ratios)
    content, texts, tables = found.content(), [found.text()], [found.latex()]
    if over:
        other = pid_efficiency(opened, list(over), binning=found.binning, **given)
        quotients.append(found / other)
        content["over"] = other.content()
        texts.append(other.text())
    if quotients:
        content["ratios"] = [quotient.content() for quotient in quotients]
        texts += [quotient.text() for quotient in quotients]
        tables += [quotient.latex() for quotient in quotients]
    if columns is not None:
        paths = write_efficiency_columns(
            opened,
            list(files),
            columns,
            cuts=list(cuts) or None,
            conditions=conditions,
            overwrite=overwrite,
        )
        click.echo("\n".join(map(str, paths)), err=True)
    if latex is not None:
        from pidgan.files.writing import writing_file

        with writing_file(latex, overwrite=overwrite) as temporary:
            temporary.write_text("\n".join(tables), encoding="utf-8")
    dumped = json.dumps(content, indent=2, allow_nan=False) if as_json else ""
    click.echo(dumped or "\n\n".join(texts))


def _parse_maps(tracks: Sequence[str], maps: Sequence[str]) -> dict[str, str]:
    """Return the map of each track, of TRACK=MAP.json or of TRACK and MAP.json."""
    shared = [text for text in maps if "=" not in text or Path(text).exists()]
    alone = [text for text in tracks if "=" not in text]
    pairs = options.parse_pairs(text for text in (*tracks, *maps) if "=" in text)
    if shared and len(maps) == 1 and alone:
        return dict.fromkeys(alone, shared[0])
    if shared or not pairs:
        raise click.UsageError(
            f"--map {shared[0] if shared else 'is missing'}: expected TRACK=MAP.json "
            "for each track, or one MAP.json and --track TRACK"
        )
    given = [text.partition("=")[0] for text in tracks]
    names = given if alone else list(pairs)
    if sorted(names) != sorted(pairs):
        raise click.UsageError(
            f"tracks are {', '.join(names)}, but maps are given for {', '.join(pairs)}"
        )
    return {name: pairs[name] for name in names}


def _parse_ratio(text: str) -> tuple[int, int]:
    found = options.parse_fraction(text)
    if found is None:
        raise click.UsageError(f"--ratio {text}: expected I/J, counted from 1")
    return found


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
@click.argument("signal", metavar="BUNDLE", type=options.PATH)
@click.argument("others", metavar="[OTHER]...", nargs=-1, type=options.PATH)
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
    "--misid",
    "max_misid",
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
    from pidgan.efficiency.working_point import working_point

    if report is not None:
        from pidgan.report.map_page import write_working_point_report

        refuse_existing(report, overwrite=overwrite)
    rejected = [open_generator(path) for path in others]
    try:
        found = working_point(open_generator(signal), rejected, **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(found.to_json() if as_json else found.text())
    if report is not None:
        path = write_working_point_report(found, report, overwrite=overwrite)
        click.echo(str(path), err=True)
