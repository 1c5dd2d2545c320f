"""Verbs about efficiencies: tables, their systematics, an analysis, working points."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pidgan.cli.group import (
    condition_options,
    cut_option,
    json_option,
    open_generator,
    open_generators,
    open_reference,
    output_option,
    overwrite_option,
    parse_number_pairs,
    parse_numbers,
    parse_pairs,
    reference_argument,
    seed_option,
    show_progress,
)
from pidgan.errors import PidganError
from pidgan.files.writing import refuse_existing


@click.command(
    epilog='Example: pidgan table kaon.onnx --cut "RichDLLk > 4" --binning P=10 '
    "--binning ETA=1.8,3.3,5 -o kaon.csv"
)
@click.argument(
    "source", metavar="MODEL|BUNDLE|DATASET", type=click.Path(path_type=Path)
)
@reference_argument
@cut_option
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
@seed_option
@overwrite_option
@json_option
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
        refuse_existing(output, overwrite=overwrite)
    options = {"binning": _binning(binnings), "variance": variance}
    try:
        if (source / "dataset.json").is_file():
            if reference is not None:
                raise click.UsageError("a DATASET alone takes no second argument")
            parts = {"efficiency": _dataset_table(source, cuts, **options)}
            frame = parts["efficiency"].frame()
        else:
            from pidgan.efficiency.real_vs_generated import closure_table

            rows = open_reference(reference)
            generator = open_generator(source)
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

    from pidgan.efficiency.table import efficiency_table
    from pidgan.sample.dataset import Dataset

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
    from pidgan.files.tables import write_histograms, write_table
    from pidgan.files.writing import writing_file

    if output.suffix == ".parquet":
        write_table(output, frame, overwrite=overwrite)
        return
    if output.suffix == ".csv":
        with writing_file(output, overwrite=overwrite) as temporary:
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
    for name, value in parse_pairs(texts).items():
        if "," in value:
            found[name] = parse_numbers(value)
        else:
            found[name] = int(value) if value.isdigit() else value
    return found or None


@click.command(
    epilog='Example: pidgan systematics kaon.onnx --cut "RichDLLk > 0" -o kaon-map.json'
)
@click.argument("generator", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@reference_argument
@cut_option
@output_option
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
    callback=lambda _, __, texts: parse_number_pairs(texts),
    help="How well the analysis knows a condition, e.g. nTracks=1.1.",
)
@click.option(
    "--also",
    "others",
    multiple=True,
    metavar="MODEL|BUNDLE",
    type=click.Path(path_type=Path),
    help="A generator of other seed or replica, or a folder of members, for the "
    "training uncertainty; may be repeated.",
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
@seed_option
@overwrite_option
def systematics(
    generator: Path,
    reference: Path | None,
    cuts: Sequence[str],
    output: Path,
    variations: Sequence[str],
    scales: Mapping[str, float],
    others: Sequence[Path],
    report_directory: Path | None,
    misid: Sequence[Path],
    seed: int,
    overwrite: bool,
) -> None:
    """Measure real-minus-generated efficiencies and write them as a map.

    Without DATASET or REFERENCE, the reference file beside the bundle is used. Of a
    folder of members the first is the generator; the others count as with --also.
    """
    from pidgan.efficiency.systematics import VARIATIONS, run_systematics

    if misid and report_directory is None:
        raise click.UsageError("--misid needs --report")
    refuse_existing(output, overwrite=overwrite)
    if report_directory is not None:
        from pidgan.report.map_page import MapInput, write_map_report

        refuse_existing(report_directory, overwrite=overwrite)
    opened, *members = open_generators(generator)
    rows = open_reference(reference)
    options: dict[str, Any] = {
        "seed": seed,
        "variations": [name for name in variations or VARIATIONS if name != "none"],
        "scales": scales,
    }
    found = run_systematics(
        opened,
        rows,
        cuts=list(cuts) or None,
        others=members + [one for path in others for one in open_generators(path)],
        **options,
    )
    paths = [*found.save(output, overwrite=overwrite)]
    if report_directory is not None:
        rejected = [open_generator(path) for path in misid]
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


@click.command(
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
@condition_options
@overwrite_option
@json_option
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
    conditions: Any,
    as_json: bool,
    **options: Any,
) -> None:
    """Give the efficiency of PID cuts with statistical and systematic uncertainty.

    Without --cut, all cuts of the map are given.
    """
    from pidgan.efficiency.pid_efficiency import (
        pid_efficiency,
        write_efficiency_columns,
    )
    from pidgan.efficiency.selections import open_tracks

    for path in (latex, columns):
        if path is not None and not path.is_dir():
            refuse_existing(path, overwrite=overwrite)
    pairs = [_parse_ratio(text) for text in ratios]
    opened = open_tracks(tracks, _parse_maps(maps))
    selection: dict[str, Any] = {
        "track": tracks,
        "cuts": list(cuts) or _shared_cuts(opened),
        "map": opened,
        "conditions": conditions,
    }
    options |= {"correction": not no_correction, "bins": _parse_bins(bins)}
    found = pid_efficiency(list(files), **selection, **options)
    quotients = _quotients(found, pairs)
    content, texts, tables = found.content(), [found.text()], [found.latex()]
    if over:
        other = pid_efficiency(list(over), **selection, **options)
        quotients.append(found / other)
        content["over"] = other.content()
        texts.append(other.text())
    if quotients:
        content["ratios"] = [quotient.content() for quotient in quotients]
        texts += [quotient.text() for quotient in quotients]
        tables += [quotient.latex() for quotient in quotients]
    if columns is not None:
        paths = write_efficiency_columns(
            list(files), columns, overwrite=overwrite, **selection
        )
        show_progress("\n".join(map(str, paths)))
    if latex is not None:
        from pidgan.files.writing import writing_file

        with writing_file(latex, overwrite=overwrite) as temporary:
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
    return parse_pairs(texts)


def _parse_bins(texts: Sequence[str]) -> dict[str, list[float]]:
    """Turn BRANCH=EDGE,... into edges."""
    bins = {}
    for name, text in parse_pairs(texts).items():
        edges = parse_numbers(text)
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


@click.command(
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
@seed_option
@overwrite_option
@json_option
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
    from pidgan.efficiency.working_point import working_point

    if (efficiency is None) == (misid is None):
        raise click.UsageError("give --efficiency or --misid, one of the two")
    if misid is not None and not others:
        raise click.UsageError("--misid needs the bundle of another species")
    wanted = efficiency if efficiency is not None else misid
    if wanted is not None and not 0 < wanted < 1:
        raise click.UsageError(f"{wanted:g}: expected a number between 0 and 1")
    if report_directory is not None:
        from pidgan.report.map_page import write_working_point_report

        refuse_existing(report_directory, overwrite=overwrite)
    found = working_point(
        open_generator(signal),
        [open_generator(path) for path in others],
        cut=cut,
        efficiency=efficiency,
        misid=misid,
        thresholds=None if thresholds is None else parse_numbers(thresholds),
        seed=seed,
    )
    click.echo(found.to_json() if as_json else found.text())
    if report_directory is not None:
        path = write_working_point_report(found, report_directory, overwrite=overwrite)
        click.echo(str(path), err=True)
