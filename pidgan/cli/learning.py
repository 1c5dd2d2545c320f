"""Verbs of those who train: from calibration data to a judged model."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import completion, lengths, options
from pidgan.cli.group import (
    cli,
    fail,
    note,
    note_excluded,
    open_generator,
    open_pairs,
    result,
    shows_progress,
)
from pidgan.files.places import check_end, check_folder_name
from pidgan.files.writing import refuse_existing


def _parse_shares(text: str) -> tuple[float, ...]:
    from pidgan.sample.building import check_shares

    shares = tuple(options.parse_numbers(text))
    check_shares(shares)
    return shares


@cli.command(epilog="Example: pidgan samples run2_dstar_k")
@click.argument(
    "name", required=False, shell_complete=completion.completes(completion.sample_names)
)
@click.option(
    "--from-pidcalib",
    type=options.SAMPLES_OF_PIDCALIB,
    metavar="SAMPLES.json",
    help="PIDCalib2's own list, pidcalib2/data/samples.json: NAME is one of its keys, "
    "and becomes a definition. Without NAME, its keys are listed.",
)
@click.option(
    "--all", "every", is_flag=True, help="Convert all keys of the list into a folder."
)
@options.output(
    "TOML file of the definition that is made, or folder of all; printed by default.",
    required=False,
    callback=options.is_new,
)
@options.overwrite
@options.as_json
def samples(
    name: str | None,
    from_pidcalib: Path | None,
    every: bool,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """List the calibration samples that ship, or show one of them.

    With --from-pidcalib, make a definition of a sample that PIDCalib2 lists.
    """
    from pidgan.sample.loading import list_samples, load_sample

    if from_pidcalib is None and (every or output):
        raise click.UsageError("--all and -o need a list, --from-pidcalib")
    if from_pidcalib is not None:
        _convert(from_pidcalib, name, every, output, overwrite, as_json)
        return
    if name is not None:
        sample = load_sample(name)
        click.echo(sample.to_json() if as_json else sample.text())
        return
    paths = list_samples()
    if as_json:
        click.echo(json.dumps({key: str(path) for key, path in paths.items()}))
        return
    for key in paths:
        sample = load_sample(key)
        click.echo(f"{key:24} {sample.species:4} {sample.title}")


def _convert(
    path: Path,
    name: str | None,
    every: bool,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert one key of PIDCalib2's list, or all, or list them."""
    from pidgan.sample import pidcalib

    if name is not None and every:
        raise click.UsageError("give NAME or --all, got both")
    if output is not None:
        with options.usage_errors():
            check_folder_name(output) if every else check_end(output, [".toml"])
    if name is not None:
        found = pidcalib.convert_pidcalib_sample(path, name)
        if output is not None:
            found.save(output, overwrite=overwrite)
        if as_json:
            click.echo(found.to_json())
        elif output is None:
            click.echo(found.definition, nl=False)
        else:
            click.echo(output)
        note(found.text())
        return
    if every != (output is not None):
        raise click.UsageError("give --all and -o FOLDER, or NAME, or none of them")
    if output is not None:
        listed = pidcalib.save_pidcalib_samples(path, output, overwrite=overwrite)
    else:
        listed = pidcalib.list_pidcalib_samples(path)
    if as_json:
        click.echo(pidcalib.outcomes_json(listed))
    else:
        for key, sample in listed.items():
            click.echo(f"{key:44} {sample.outcome}")
    counts = Counter(sample.outcome for sample in listed.values())
    note(", ".join(f"{n} {outcome}" for outcome, n in counts.most_common()))


@cli.command(epilog="Example: pidgan prepare run2_dstar_k 'calib/*.root' -o kaon")
@click.argument(
    "sample", shell_complete=completion.completes(completion.sample_names, files=True)
)
@options.files
@options.output("Folder of the dataset that is written.")
@options.seed
@click.option(
    "--shares",
    default="0.6,0.1,0.3",
    metavar="TRAIN,VALIDATION,TEST",
    callback=options.reads(_parse_shares),
    help="Fractions of rows for training, for the losses shown during a training, and "
    "for `pidgan validate`, which uses the test part.",
)
@click.option(
    "--sweights-from",
    metavar="FOLDER_OR_ADDRESS",
    help="Place of the files with the sWeights, for a definition with `sweights` in "
    "files of their own.  [default: beside the files]",
)
@click.option(
    "--keep",
    default="",
    metavar="BRANCH,...",
    callback=options.reads(lambda text: tuple(filter(None, text.split(",")))),
    help="Further branches that the rows keep, for --where of efficiencies, e.g. "
    "Polarity,runNumber.",
)
@click.option(
    "--key",
    default="",
    metavar="BRANCH,...",
    callback=options.reads(lambda text: tuple(filter(None, text.split(",")))),
    help="Branches that identify an event, e.g. runNumber,eventNumber. Candidates of "
    "one event go to the same part and count as one in uncertainties.  [default: usual "
    "names]",
)
@options.overwrite
@options.as_json
def prepare(
    sample: str,
    files: Sequence[str],
    output: Path,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Build a dataset: apply the selection, compute sWeights and split the rows.

    SAMPLE is a name listed by `pidgan samples`, or the path of your own .toml. Where a
    mass is fitted, look at the fit: mass_fit.png in the folder of the dataset.
    """
    given["progress"] = shows_progress()
    given["scratch"] = output.absolute().parent
    dataset = pidgan.build_dataset(sample, list(files), **given)
    picture = _mass_fit(dataset)
    dataset.save(output, mass_fit=picture, overwrite=overwrite)
    text = f"{output}: {dataset.text()}"
    info = {key: value for key, value in dataset.info.items() if key != "fit"}
    result(text, as_json=as_json, output=output, **info)
    note_excluded(dataset)
    if picture is not None:
        note(f"look at the mass fit: {output / 'mass_fit.png'}")


def _mass_fit(dataset: "pidgan.Dataset") -> bytes | None:
    """Return the picture of the mass fit of a dataset, if it has one."""
    if "fit" not in dataset.info:
        return None
    try:
        return pidgan.plot(dataset).only("mass fit").content(".png")
    except ModuleNotFoundError as error:
        note(f"the mass fit is not drawn: {error}")
        return None


family = click.option(
    "--family",
    shell_complete=completion.completes(completion.family_names),
    metavar="NAME",
    help="Way in which the generator is learnt, or a published recipe; `pidgan "
    "families` lists them.  [default: distilled; for cells shower_sequence, "
    "or shower_tree for the voxels of hadrons]",
)


@cli.command(epilog="Example: pidgan train kaon -o kaon-model --budget 20m")
@options.dataset
@options.output("Folder of the model that is written.", refuses=False)
@family
@click.option(
    "--from",
    "from_model",
    type=options.GENERATOR,
    metavar="MODEL",
    help="Trained model of a neighbouring sample, such as another year, whose weights "
    "the training begins with. Family and settings are those of MODEL, and the default "
    "budget is 2m.",
)
@lengths.budget("10m")
@lengths.steps
@options.seed
@click.option(
    "--members",
    type=options.COUNT,
    help="Number of models to train, each with its own seed. PATH holds one folder for "
    "each model.",
)
@lengths.resume
@lengths.shared
@click.option(
    "--settings",
    "settings_file",
    type=options.SETTINGS,
    metavar="FILE.toml",
    help="File with a family and its settings, such as `pidgan tune` writes; --set "
    "changes single ones of them.",
)
@options.settings("NAME=VALUE", "width=128")
@options.overwrite
@options.as_json
def train(
    dataset: Path,
    output: Path,
    settings_file: Path | None,
    members: int | None,
    cluster: tuple[str, ...],
    rank: int | None,
    processes: int | None,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a generator on a dataset.

    With --from, go on from the generator of a neighbouring sample.
    """
    lengths.check_length(given)
    alone = {"--members": members, "--from": given["from_model"]}
    joined = lengths.join_others(processes, cluster, rank, alone=alone)
    from pidgan.training import families
    from pidgan.training.families.default import default_name

    if settings_file is not None:
        given |= _from_file(settings_file, given["family"], given["settings"])
    opened = pidgan.Dataset.open(dataset)
    # Tensorflow takes seconds: a misspelt word should not.
    if not opened.sample.links and (given["family"] or given["from_model"] is None):
        name = given["family"] or default_name(opened)
        name = families.choose_name(name, None, opened.sample)
        families.check_settings(name, given["settings"])
    options.refuse_place(output, "model", "unfinished", "members", "folder")
    may_write = overwrite or given["resume"] or not _holds_training(output)
    if joined is None or joined.rank == 0:
        refuse_existing(output, overwrite=may_write)
        note_excluded(opened)
    from pidgan.training.members import train_members

    given["progress"] = shows_progress()
    try:
        if members is not None:
            given |= {"members": members, "overwrite": overwrite}
            model, *_ = train_members(opened, output, **given)
        else:
            rows = opened if processes is None else dataset
            given |= {"directory": output, "processes": processes}
            model = pidgan.train(rows, **given)
            if joined is not None and joined.rank:
                note(f"process {joined.rank} is done; process 0 writes {output}")
                return
            model.save(output, overwrite=overwrite or given["resume"])
    except KeyboardInterrupt:
        fail(f"interrupted; continue with --resume -o {output}", code=130)
    count = "" if members is None else f", {members} members"
    repeat = f"; --steps {model.card.plan} repeats it" if model.card.plan else ""
    steps = f"{model.card.steps} steps{count}{repeat}"
    card = model.card
    result(
        f"{output}: {card.family}, {steps}",
        as_json=as_json,
        output=output,
        members=members,
        **{key: getattr(card, key) for key in ("family", "steps", "plan", "seed")},
        **({"start": card.start} if card.start else {}),
    )


def _from_file(
    path: Path, family: str | None, changes: Mapping[str, str]
) -> dict[str, Any]:
    """Return the family and the settings of a file, some of them changed."""
    from pidgan.training.families.settings_file import read_settings_file

    found = read_settings_file(path, family=family)
    if found.provenance:
        note(f"{path}: {found.origin()}")
    return {"family": found.family, "settings": {**found.settings, **changes}}


def _holds_training(output: Path) -> bool:
    """Return whether a folder has a model, a checkpoint or members."""
    names = ("model.json", "checkpoint.npz", "chain.json", "member_*")
    return any(any(output.glob(name)) for name in names)


@cli.command(epilog="Example: pidgan families energy")
@click.argument(
    "name", required=False, shell_complete=completion.completes(completion.family_names)
)
@options.as_json
def families(name: str | None, as_json: bool) -> None:
    """List the families and published recipes, or the settings of one of them."""
    from pidgan.training.families import describe_family, list_families

    found = list_families() if name is None else [describe_family(name)]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(family) for family in found]))
    elif name is None:
        for family in found:
            click.echo(f"{family.name:16} {family.title}")
    else:
        click.echo(found[0].text())


@cli.command(epilog="Example: pidgan compare kaon -o families --budget 10m")
@options.dataset
@options.output("Folder that is written, with a bundle of each family.")
@click.option(
    "--families",
    metavar="NAME,...",
    shell_complete=completion.completes(completion.family_names),
    callback=options.reads(lambda text: [name.strip() for name in text.split(",")]),
    help="Families and recipes to train, with commas.  [default: every family]",
)
@lengths.budget("10m")
@lengths.steps
@options.settings("FAMILY.NAME=VALUE", "energy.width=128")
@options.seed
@options.overwrite
@options.as_json
def compare(dataset: Path, output: Path, as_json: bool, **given: Any) -> None:
    """Train several families on the same rows for the same time, and judge them.

    PATH becomes a folder with a bundle of each family, comparison.json and
    comparison.png.
    """
    lengths.check_length(given)
    from pidgan.training import families

    opened = pidgan.Dataset.open(dataset)
    if given["families"] is None:  # every family
        del given["families"]
    given["settings"] = _by_family(given["settings"])
    for name in given.get("families", ()):
        if opened.sample.cells is None or name not in families.CLASSICAL:
            families.choose_name(name, None, opened.sample)
    for name, settings in given["settings"].items():
        families.check_settings(name, settings)
    from pidgan.report.family_comparison import compare_families

    given["progress"] = shows_progress()
    found = compare_families(opened, output, **given)
    click.echo(found.to_json() if as_json else found.text())
    note(f"{output}")


def _by_family(settings: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Turn settings FAMILY.NAME into settings by family."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        family, separator, name = key.partition(".")
        if not (separator and name):
            raise click.UsageError(f"{key!r}: expected FAMILY.NAME=VALUE")
        found.setdefault(family, {})[name] = value
    return found


@cli.command(epilog="Example: pidgan validate kaon-model kaon -o kaon-report")
@options.generator
@options.dataset
@options.output("Folder of the report that is written.")
@options.cuts
@options.where
@options.misid
@click.option(
    "--part",
    default="test",
    type=click.Choice(["test", "excluded"]),
    help="Rows that are judged: the test part, or for showers the intervals that the "
    "definition excludes.",
)
@options.device
@options.seed
@options.overwrite
@options.as_json
def validate(
    generator: Path,
    dataset: Path,
    output: Path,
    misid: Sequence[str],
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compare generated with real rows that were never trained on."""
    for text in misid:
        if "=" not in text or Path(text).exists():
            raise click.UsageError(f"--misid {text}: expected GENERATOR=DATASET")
    data, opened = pidgan.Dataset.open(dataset), open_generator(generator)
    others = open_pairs(misid)
    for text, (_, rows) in zip(misid, others, strict=True):
        if not isinstance(rows, pidgan.Dataset):
            raise click.UsageError(f"--misid {text}: expected GENERATOR=DATASET")
    given["progress"] = shows_progress()
    report = pidgan.validate(opened, data, misid=others, **given)
    path = report.save(output, overwrite=overwrite)
    click.echo(json.dumps(report.headline()) if as_json else report.summary())
    note(f"{path}")
