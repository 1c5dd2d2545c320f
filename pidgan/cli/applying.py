"""Verbs about a trained generator: export it, look at it, apply it to ntuples."""

import contextlib
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pidgan.cli.group import (
    condition_options,
    json_option,
    open_generator,
    output_option,
    overwrite_line,
    overwrite_option,
    parse_pairs,
    seed_option,
)
from pidgan.files.writing import refuse_existing


@click.command(epilog="Example: pidgan export kaon-model -o kaon.onnx")
@click.argument("model", metavar="MODEL|BUNDLE", type=click.Path(path_type=Path))
@output_option
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
@overwrite_option
def export(
    model: Path,
    output: Path,
    kind: str,
    name: str | None,
    dataset: Path | None,
    overwrite: bool,
) -> None:
    """Write a model as a bundle: one ONNX file, and its reference file.

    Of a folder of members, write the bundle of each into a folder PATH.
    With --format c, write a model or a bundle as one C99 file.
    """
    from pidgan.training.members import member_paths

    refuse_existing(output, overwrite=overwrite)
    if kind == "onnx" and name is not None:
        raise click.UsageError("--name needs --format c")
    if kind == "onnx" and not model.is_dir() and model.exists():
        raise click.UsageError(f"{model} is no model; a bundle needs --format c")
    members = member_paths(model)
    if members and kind == "c":
        raise click.UsageError(f"{model} holds {len(members)} members; export one")
    targets = [output / f"{path.stem}.onnx" for path in members] or [output]
    for source, target in zip(members or [model], targets, strict=True):
        opened = open_generator(source)
        report = None
        if dataset is not None:
            import pidgan

            report = pidgan.validate(opened, pidgan.Dataset.open(dataset))
        if kind == "c":
            path = _export_c(
                opened, target, name=name, report=report, overwrite=overwrite
            )
        else:
            from pidgan.training.export import export_bundle

            path = export_bundle(opened, target, report=report, overwrite=overwrite)
        click.echo(f"{path}  {path.stat().st_size / 1024:.0f} kiB")


def _export_c(generator: Any, output: Path, *, report: Any, **options: Any) -> Path:
    """Write a C file of a bundle, or of a model by way of one."""
    from pidgan.bundle.bundle import Bundle, open_bundle
    from pidgan.bundle.c_file import export_c

    if isinstance(generator, Bundle):
        return export_c(generator, output, **options)
    from pidgan.training.export import export_bundle

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        bundle = open_bundle(export_bundle(generator, path, report=report))
        return export_c(bundle, output, **options)


@click.command(epilog="Example: pidgan refine kaon-model kaon -o kaon-refined.onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("dataset", type=click.Path(path_type=Path))
@output_option
@click.option(
    "--candidates",
    default=8,
    type=click.IntRange(min=2),
    help="Generated for each row; one of them is taken.",
)
@click.option(
    "--steps",
    default=2000,
    type=click.IntRange(min=1),
    help="Updates of the classifier.",
)
@seed_option
@overwrite_option
def refine(
    model: Path,
    dataset: Path,
    output: Path,
    candidates: int,
    steps: int,
    seed: int,
    overwrite: bool,
) -> None:
    """Write a bundle that corrects a model with a classifier of real and generated.

    Each row is chosen among several candidates, by the ratio of densities that the
    classifier finds: a bundle like any other, but as many times slower.
    """
    refuse_existing(output, overwrite=overwrite)
    from pidgan.sample.dataset import Dataset
    from pidgan.training.export import export_bundle
    from pidgan.training.model import open_model
    from pidgan.training.refinement import refine as refine_model

    refined = refine_model(
        open_model(model),
        Dataset.open(dataset),
        candidates=candidates,
        steps=steps,
        seed=seed,
    )
    path = export_bundle(refined, output, overwrite=overwrite)
    before, after = refined.losses[0], min(refined.losses)
    click.echo(f"{path}  log-loss of the classifier {before:.4f} -> {after:.4f}")


@click.command(epilog="Example: pidgan inspect kaon.onnx --verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Run the self-test.")
@json_option
def inspect(bundle: Path, verify: bool, as_json: bool) -> None:
    """Show the card of a bundle."""
    from pidgan.bundle.bundle import open_bundle

    opened = open_bundle(bundle, verify=verify)
    if as_json:
        click.echo(opened.card.to_json())
        return
    click.echo(_describe_card(opened))
    if verify:
        click.echo("self-test     passed")


@click.command(
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
@output_option
@overwrite_option
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
    from pidgan.application.quantile_map import make_quantile_map

    refuse_existing(output, overwrite=overwrite)
    x, w = _read_values(files, branch, weights)
    y, v = _read_values(data, data_branch or branch, data_weights)
    found = make_quantile_map(x, y, simulation_weights=w, data_weights=v)
    found.save(output, overwrite=overwrite)
    click.echo(f"{output}: {len(x)} entries of simulation, {len(y)} of data")


@click.command(
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
@output_option
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
@condition_options
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
@seed_option
@overwrite_option
@json_option
def apply(
    files: Sequence[str],
    tracks: Sequence[str],
    output: Path,
    key: str,
    scheduler: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Generate PID columns for tracks of an analysis ntuple."""
    from pidgan.application.apply import apply as apply_bundles
    from pidgan.application.workers import dask_client

    given = contextlib.nullcontext() if scheduler is None else dask_client(scheduler)
    with given as client:
        summary = apply_bundles(
            parse_pairs(tracks),
            list(files),
            output,
            key=tuple(name for name in key.split(",") if name),
            client=client,
            progress=None if quiet else _EntriesLine(),
            **options,
        )
    click.echo(summary.to_json() if as_json else summary.text())


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

    from pidgan.files.tables import find_sources, read_columns

    names = [branch] if weights is None else [branch, weights]
    frames = [read_columns(source, names) for source in find_sources(list(files))]
    frame = pd.concat(frames, ignore_index=True)
    return frame[branch].to_numpy(), None if weights is None else frame[weights]


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
        overwrite_line(line, last=done >= total)
