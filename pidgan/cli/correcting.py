"""Verbs about correctors: train one, and correct the PID variables of simulation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import lengths, options
from pidgan.cli.group import cli, fail, note, result, shows_progress
from pidgan.cli.ntuples import ntuple_options, run_on_ntuples
from pidgan.files.writing import refuse_existing


@cli.command(
    "train-corrector",
    epilog="Example: pidgan train-corrector kaon kaon-mc -o kaon-corrector",
)
@options.dataset
@click.argument("simulated", metavar="SIMULATED", type=options.DATASET)
@options.output("Folder of the corrector that is written.", refuses=False)
@lengths.budget("10m")
@lengths.steps
@options.seed
@lengths.resume
@options.settings("NAME=VALUE", "width=128")
@options.overwrite
@options.as_json
def train_corrector(
    dataset: Path,
    simulated: Path,
    output: Path,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a corrector: simulated PID variables become those of data.

    DATASET is one of data, SIMULATED one of simulation with the same conditions and
    targets, without sWeights. `pidgan export` makes a bundle of the result, and `pidgan
    correct` applies it.
    """
    lengths.check_length(given)
    options.refuse_place(output, "model", "unfinished", "folder")
    if any(any(output.glob(name)) for name in ("model.json", "*/checkpoint.npz")):
        refuse_existing(output, overwrite=overwrite or given["resume"])
    from pidgan.training.correction import train_corrector as train

    given["progress"] = shows_progress()
    try:
        model = train(dataset, simulated, directory=output, **given)
    except KeyboardInterrupt:
        fail(f"interrupted; continue with --resume -o {output}", code=130)
    # What exists was refused before the training.
    model.save(output, overwrite=True)
    text = f"{output}: corrector of {', '.join(model.card.target_names)}"
    result(text, as_json=as_json, output=output, steps=model.card.steps)
    note(f"next: pidgan export {output} -o {output.name}.onnx")


@cli.command(
    epilog="Example: pidgan correct --track Kplus=corrector.onnx mc.root -o out.root"
)
@options.files
@options.tracks(
    required=True,
    metavar="TRACK=BUNDLE",
    callback=options.paths_of("bundle", "bundles"),
    help="Prefix of a track and its corrector, or a folder of correctors; can be "
    "repeated.",
)
@ntuple_options
@click.option(
    "--suffix",
    default="_corr",
    help="End of the names of the new branches. An empty one and --mode replace put "
    "corrected values in the place of simulated ones.",
)
def correct(
    files: Sequence[str], tracks: dict[str, str], output: Path, **given: Any
) -> None:
    """Correct simulated PID variables of an ntuple to those of data.

    They keep what they share with the rest of the event, which generated ones lose. The
    corrector is made by `pidgan train-corrector` and `pidgan export`. --branch also
    says where a simulated variable is, e.g. --branch RichDLLk=Kplus_DLLk.
    """
    run_on_ntuples(pidgan.correct, tracks, files, output, **given)
