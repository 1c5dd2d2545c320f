"""Verbs about a trained generator: export it, look at it, apply it to ntuples."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import options
from pidgan.cli.exporting import (
    write_c,
    write_collection,
    write_showers_of,
    write_triton,
)
from pidgan.cli.group import cli, note, open_given, result, shows_progress
from pidgan.cli.ntuples import ntuple_options, run_on_ntuples
from pidgan.files.places import check_end, check_folder_name


def _is_new_unless_repository(
    context: click.Context, param: Any, path: Path | None
) -> Path | None:
    """Refuse an existing output, unless it is a repository that gets another model."""
    if context.params.get("kind") == "triton":
        return path
    return options.is_new(context, param, path)


@cli.command(epilog="Example: pidgan export kaon-model -o kaon.onnx")
@click.argument("model", metavar="MODEL|BUNDLE|COLLECTION", type=options.ANY_GENERATOR)
@options.output(
    "ONNX file or C file that is written; for a folder of members a folder of bundles; "
    "for Triton a model repository, which may be there.",
    callback=_is_new_unless_repository,
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "c", "triton", "hdf5-showers"]),
    default="onnx",
    is_eager=True,  # a repository may exist
    help="Format of the output: a bundle, one C99 file without dependencies, a model "
    "repository of NVIDIA Triton, or generated showers as the CaloChallenge reads "
    "them, for the conditions of the test part of --dataset.",
)
@click.option(
    "--showers",
    type=options.COUNT,
    help="Number of showers of --format hdf5-showers.  [default: one for each row of "
    "the test part]",
)
@options.seed
@click.option(
    "--name",
    help="Name of the function in the C file, or of the model in the repository.  "
    "[default: the stem of PATH, or of BUNDLE]",
)
@click.option(
    "--model-version",
    type=options.COUNT,
    help="Number of the version of the model in a repository.  [default: 1]",
)
@click.option(
    "--dataset",
    type=options.DATASET,
    help="Dataset on which the model is validated first; the figures go onto the card. "
    "For --format hdf5-showers the dataset with the conditions.",
)
@options.overwrite
@options.as_json
def export(
    model: Path,
    output: Path,
    kind: str,
    name: str | None,
    model_version: int | None,
    dataset: Path | None,
    showers: int | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a model as a bundle: one ONNX file, and its reference file.

    If MODEL is a folder of members, PATH becomes a folder with the bundle of each. With
    --format c, a model or a bundle is written as one C99 file, or a collection (.toml),
    with a function for each bundle and one that chooses among them. With --format
    triton, a model, a bundle, or each bundle of a collection becomes a model of the
    server NVIDIA Triton. With --format hdf5-showers, a model or a bundle of showers
    writes generated ones (.hdf5).
    """
    from pidgan.bundle.collection import SUFFIX
    from pidgan.bundle.shipped import shipped_path
    from pidgan.files.recognition import recognise

    origin = click.get_current_context().get_parameter_source("seed")
    seeded = origin is click.core.ParameterSource.COMMANDLINE
    if kind != "hdf5-showers" and (showers is not None or seeded):
        raise click.UsageError("--showers and --seed need --format hdf5-showers")
    if kind == "triton":
        paths = write_triton(
            model,
            output,
            dataset,
            name=name,
            model_version=model_version or 1,
            overwrite=overwrite,
        )
        _show_files(paths, as_json)
        return
    if model_version is not None:
        raise click.UsageError("--model-version needs --format triton")
    if kind == "hdf5-showers":
        if name is not None:
            raise click.UsageError("--name needs --format c or triton")
        path = write_showers_of(model, output, dataset, showers, seed, overwrite)
        _show_files([path], as_json)
        return
    has_members = recognise(model) == "members"
    with options.usage_errors():
        check_folder_name(output) if has_members else check_end(output, [f".{kind}"])
    if kind == "c" and model.suffix == SUFFIX:
        path = write_collection(model, output, dataset, name=name, overwrite=overwrite)
        _show_files([path, path.with_suffix(".h")], as_json)
        return
    if kind == "onnx" and name is not None:
        raise click.UsageError("--name needs --format c or triton")
    if kind == "onnx" and shipped_path(model, ".onnx").is_file():
        raise click.UsageError(
            f"{model} is not a model folder. A bundle can only be exported with "
            "--format c."
        )
    members = []
    if has_members:
        from pidgan.training.members import member_paths

        members = member_paths(model)
    if members and kind == "c":
        raise click.UsageError(f"{model} holds {len(members)} members; export one")
    targets = [output / f"{path.stem}.onnx" for path in members] or [output]
    paths = []
    for source, target in zip(members or [model], targets, strict=True):
        opened = open_given(source)
        report = None
        if dataset is not None:
            rows = pidgan.Dataset.open(dataset)
            report = pidgan.validate(opened, rows, progress=shows_progress())
        given: dict[str, Any] = {"report": report, "overwrite": overwrite}
        if kind == "c":
            path = write_c(opened, target, name=name, **given)
            paths += [path, path.with_suffix(".h")]
        else:
            given["progress"] = shows_progress()
            paths.append(pidgan.export_bundle(opened, target, **given))
    _show_files(paths, as_json)


def _show_files(paths: Sequence[Path], as_json: bool) -> None:
    """Print names and sizes of the files that were written."""
    sizes = {str(path): path.stat().st_size for path in paths}
    lines = (f"{path}  {size / 1024:.0f} kiB" for path, size in sizes.items())
    result("\n".join(lines), as_json=as_json, bytes=sizes)


@cli.command(epilog="Example: pidgan refine kaon-model kaon -o kaon-refined.onnx")
@click.argument("model", type=options.MODEL)
@options.dataset
@options.output("Bundle that is written, an ONNX file.", ".onnx")
@click.option(
    "--candidates",
    type=click.IntRange(min=2),
    help="Number of candidates generated for each row, of which one is taken; 8 by "
    "default. Generation with this bundle takes about that many times longer. Showers "
    "have no candidates.",
)
@click.option(
    "--ratio-steps",
    type=options.COUNT,
    help="Number of updates of the network that finds the ratio, or mends cells; 1000 "
    "by default.",
)
@click.option(
    "--extend",
    is_flag=True,
    help="Take showers beyond the energies of the training part by a parametrisation; "
    "there is no network.",
)
@options.seed
@options.overwrite
@options.as_json
def refine(
    model: Path,
    dataset: Path,
    output: Path,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write a bundle that corrects a model with the ratio of real and generated rows.

    Each row is chosen among several candidates, by the ratio of their densities, which
    a network finds: a bundle like any other, but as many times slower. Of showers, a
    network mends the energies of the cells, and leaves those of the layers as they are.
    """
    from pidgan.training.model import open_model
    from pidgan.training.refinement import refine as refine_model

    opened: Any = open_model(model)
    data = pidgan.Dataset.open(dataset)
    show = shows_progress()
    refined = refine_model(opened, data, progress=show, **given)
    path = pidgan.export_bundle(refined, output, overwrite=overwrite, progress=show)
    if isinstance(refined, pidgan.HybridModel):
        low, high = refined.energies
        text = f"{path}  parametrised below {low:g} and above {high:g} MeV"
        result(text, as_json=as_json, output=path, energies=[low, high])
        return
    gain = refined.losses[0] - min(refined.losses)
    text = f"{path}  gain on rows that were not trained on: {gain:.5f}"
    result(text, as_json=as_json, output=path, gain=gain)


@cli.command(epilog="Example: pidgan collect kaon_up.onnx kaon_down.onnx -o kaons.toml")
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True)
@options.output("Collection that is written, a TOML file.", ".toml")
@options.repeated(
    "--choose choose",
    "COLUMN=BRANCH",
    "Branch of a column that chooses, e.g. year=YEAR; {track} stands for the prefix of "
    "the track",
    options.parse_pairs,
    more=" The defaults are {track}_TRUEID for species, Polarity, year and block.",
)
@click.option("--title", default="", help="Description of the collection in one line.")
@options.overwrite
@options.as_json
def collect(bundles: Sequence[str], output: Path, as_json: bool, **given: Any) -> None:
    """Make a collection: a file of bundles, which columns of an ntuple choose.

    BUNDLE is a bundle, a folder of bundles, or an address. The columns are species,
    polarity, year and block, as far as the cards of the bundles differ in them.
    """
    from pidgan.bundle.collecting import collect as make_collection

    found = make_collection(list(bundles), output, **given)
    result(found.text(), as_json=as_json, output=output, **found.rules())
    note(
        "These branches are assumed; change them with --choose, or in the file. What "
        "all bundles agree in is no column, and other rows are served too: "
        "--choose polarity=Polarity makes them a gap."
    )


@cli.command(epilog="Example: pidgan inspect kaon.onnx --verify")
@click.argument("bundle", metavar="BUNDLE|COLLECTION|MAP.json", type=options.INSPECTED)
@click.option("--verify", is_flag=True, help="Run the self-test of the bundle.")
@options.as_json
def inspect(bundle: Path, verify: bool, as_json: bool) -> None:
    """Show the card of a bundle, what a collection chooses, or what a map holds.

    With --verify, all bundles of a collection are opened and checked. An efficiency map
    is always checked.
    """
    from pidgan.bundle.collection import SUFFIX, Collection

    if bundle.suffix == ".json":
        from pidgan.efficiency.efficiency_map import EfficiencyMap
        from pidgan.efficiency.map_card import map_card, map_card_text

        found = EfficiencyMap.open(bundle)
        lines = f"{bundle}: efficiency map\n{map_card_text(found)}"
        click.echo(json.dumps(map_card(found)) if as_json else lines)
        return
    if bundle.suffix == SUFFIX:
        collection = Collection.open(bundle)
        if verify:
            collection.open_bundles()
        click.echo(json.dumps(collection.rules()) if as_json else collection.text())
        return
    opened = pidgan.open_bundle(bundle, verify=verify)
    if as_json:
        click.echo(opened.card.to_json())
        return
    click.echo(opened.text())
    if verify:
        click.echo("self-test     passed")


@cli.command(
    "quantile-map",
    epilog="Example: pidgan quantile-map mc.root --data data.root --variable nTracks "
    "--data-weights sweight -o nTracks.json",
)
@options.files
@options.repeated("--data", "FILE[:TREE]", "File of data", required=True)
@click.option(
    "--variable",
    "branch",
    required=True,
    metavar="BRANCH",
    help="Branch of the variable that is compared.",
)
@click.option(
    "--data-branch",
    metavar="BRANCH",
    help="Branch of the variable in data, if it has another name there.",
)
@options.weights
@click.option(
    "--data-weights", metavar="BRANCH", help="Branch that holds weights in data."
)
@options.output("Quantile map that is written, a JSON file.", ".json")
@options.overwrite
@options.as_json
def quantile_map(
    files: Sequence[str],
    data: Sequence[str],
    branch: str,
    data_branch: str | None,
    weights: str | None,
    data_weights: str | None,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure how a variable of simulation (FILE) must change to be as in data."""
    from pidgan.application.quantile_map import make_quantile_map

    x, w = _read_values(files, branch, weights)
    y, v = _read_values(data, data_branch or branch, data_weights)
    found = make_quantile_map(x, y, simulation_weights=w, data_weights=v)
    found.save(output, overwrite=overwrite)
    text = f"{output}: {len(x)} entries of simulation, {len(y)} of data"
    sizes = {"simulation": len(x), "data": len(y)}
    result(text, as_json=as_json, output=output, entries=sizes)


def _read_values(
    files: Sequence[str], branch: str, weights: str | None
) -> tuple[Any, Any]:
    """Return a branch of all files, and its weights if there are any."""
    import pandas as pd

    from pidgan.files.tables import find_sources, read_columns

    names = [branch] if weights is None else [branch, weights]
    frames = [read_columns(source, names) for source in find_sources(list(files))]
    frame = pd.concat(frames, ignore_index=True)
    return frame[branch].to_numpy(), None if weights is None else frame[weights]


@cli.command(
    epilog="Example: pidgan apply --track Kplus=kaon.onnx d2kpi.root -o out.root"
)
@options.files
@options.tracks(
    required=True,
    metavar="TRACK=BUNDLE",
    callback=options.paths_of("bundle", "bundles", "collection"),
    help="Prefix of a track and its bundle, a folder of bundles, or a collection "
    "(.toml), or with --server the name of a model there; can be repeated.",
)
@ntuple_options
@options.suffix
@click.option(
    "--server",
    metavar="URL",
    is_eager=True,  # read before the names of bundles
    help="Address of a server that generates, http://host:8000 (`pidgan serve`).",
)
@click.option(
    "--gaps",
    type=click.Choice(["error", "nan"]),
    help="What happens to tracks that no bundle of a collection serves: an error, or "
    "NaN.  [default: from the collection]",
)
def apply(
    files: Sequence[str],
    tracks: dict[str, str],
    output: Path,
    **given: Any,
) -> None:
    """Generate PID columns for tracks of an analysis ntuple.

    With --species-from, each track gets the bundle of its own species. A collection,
    made by `pidgan collect`, chooses by columns such as polarity and year.
    """
    run_on_ntuples(pidgan.apply, tracks, files, output, **given)
