"""What can be wrong with a campaign, looked at before any work begins."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pidgan.bundle.collecting import BRANCHES, check_distinct
from pidgan.campaign.definition import Campaign
from pidgan.campaign.grid import Planned, planned_bundles
from pidgan.campaign.records import MARK
from pidgan.campaign.tasks import Task, patterns_in, plan_tasks
from pidgan.efficiency.among import parse_where
from pidgan.efficiency.systematics import ALL_VARIATIONS
from pidgan.errors import CampaignError, PidganError, nearest
from pidgan.files.places import check_folder_name, check_output
from pidgan.files.tables import find_files
from pidgan.files.writing import refuse_foreign
from pidgan.sample.building import check_shares
from pidgan.sample.cuts import parse_cut
from pidgan.sample.definition import Sample
from pidgan.sample.loading import load_binning, load_sample
from pidgan.training import families
from pidgan.training.budget import length
from pidgan.training.families.settings_file import read_settings_file

NEEDS = {
    "train": "prepare",
    "validate": "train",
    "export": "train",
    "systematics": "export",
    "collect": "export",
}
"""Stage that each stage needs."""


def check_campaign(campaign: Campaign) -> list[Task]:
    """Return the tasks of a campaign; raise a CampaignError if one cannot work."""
    _check_stages(campaign)
    bundles, samples = [], {}
    for planned in planned_bundles(campaign):
        where = f"{campaign.path}: bundle {planned.name}"
        try:
            one = _with_settings(campaign, planned)
            samples[one.name] = _check_bundle(campaign, one)
            bundles.append(one)
        except (PidganError, ValueError) as error:
            text = str(error)
            said = text if text.startswith(where) else f"{where}: {text}"
            raise CampaignError(said) from error
    if "collect" in campaign.head.stages:
        _check_collection(campaign, bundles, samples)
    return plan_tasks(campaign, bundles, samples)


def _with_settings(campaign: Campaign, one: Planned) -> Planned:
    """Return a bundle with the content of its file of settings, if it names one.

    A record then holds the settings themselves, and a changed file is seen.
    """
    given = one.options.train
    if not isinstance(given.settings, str):
        return one
    found = read_settings_file(campaign.folder / given.settings, family=given.family)
    own = {"family": found.family, "settings": dict(found.settings)}
    options = one.options.model_copy(update={"train": given.model_copy(update=own)})
    return replace(one, options=options)


def check_place(output: Path) -> None:
    """Raise if a campaign cannot be written into a folder."""
    try:
        check_folder_name(output)
    except ValueError as error:
        raise CampaignError(str(error)) from None
    check_output(output / MARK)
    if output.exists():
        refuse_foreign(output, MARK)


def check_libraries() -> None:
    """Raise if the libraries that trainings and reports need are not installed."""
    for name in ("tensorflow", "keras", "onnx", "sklearn", "matplotlib", "jinja2"):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f"a campaign needs {name}; pip install '.[train]' in the source tree",
                name=name,
            )


def _check_stages(campaign: Campaign) -> None:
    stages, where = campaign.head.stages, f"{campaign.path}: stages"
    if len(set(stages)) < len(stages):
        raise CampaignError(f"{where} has one twice: {', '.join(stages)}")
    if "prepare" not in stages:
        raise CampaignError(f"{where} lacks 'prepare', which all others need")
    for stage in stages:
        if NEEDS.get(stage, "prepare") not in stages:
            raise CampaignError(f"{where} has {stage!r}, which needs {NEEDS[stage]!r}")
    for name in campaign.head.collect.choose:
        if name not in BRANCHES:
            raise CampaignError(
                f"{campaign.path}: collect.choose has the column {name!r}, which is on "
                f"no card, expected {', '.join(BRANCHES)}{nearest(name, BRANCHES)}"
            )


def _check_bundle(campaign: Campaign, one: Planned) -> Sample:
    """Return the definition of the sample of a bundle; raise if something is wrong."""
    options = one.options
    if not options.sample:
        raise CampaignError("no `sample`, expected a name of `pidgan samples` or .toml")
    if not options.files:
        raise CampaignError("no `files`, expected files or patterns of files")
    is_file = options.sample.endswith(".toml")
    place = campaign.folder / options.sample if is_file else options.sample
    sample = _of_data(load_sample(place), one)
    find_files(patterns_in(options.files, campaign.folder))
    check_shares(options.prepare.shares)
    _check_training(sample, one)
    _check_kind(campaign, sample, one)
    names = [*sample.target_names, *sample.condition_names]
    for text in options.cuts or ():
        parse_cut(text, names=names, aliases=sample.aliases)
    if options.where is not None:
        parse_where(
            options.where,
            targets=sample.target_names,
            conditions=sample.condition_names,
            others=options.prepare.keep,
            aliases=sample.aliases,
        )
    _check_systematics(campaign, sample, one)
    return sample


def _of_data(sample: Sample, one: Planned) -> Sample:
    """Return a definition with the data-taking conditions that the grid states."""
    species = one.values.get("species", sample.species)
    if species != sample.species:
        raise CampaignError(
            f"species = {species!r}, but sample {sample.name!r} is of {sample.species}"
        )
    for name, value in one.data_taking.items():
        said = sample.data_taking.get(name, value)
        if _plain(said) != _plain(value):
            raise CampaignError(
                f"{name} = {value!r}, but sample {sample.name!r} says {said!r}"
            )
    taking = sample.data_taking | one.data_taking
    return sample.model_copy(update={"data_taking": taking})


def _plain(text: str) -> str:
    return text.lower().removeprefix("mag")


def _check_training(sample: Sample, one: Planned) -> None:
    given = one.options.train
    length(given.budget, given.steps)
    if sample.links:
        families.check_shared(None, {}, sample, given.processes)
        return
    name = families.choose_name(given.family, None, sample)
    if not isinstance(given.settings, str):  # a file has been read
        families.check_settings(name, given.settings)
        families.check_shared(name, given.settings, sample, given.processes)


def _check_kind(campaign: Campaign, sample: Sample, one: Planned) -> None:
    """Refuse stages and options that the targets of a sample have no use for."""
    stages, options = set(campaign.head.stages), one.options
    kind = "showers" if sample.cells else "clusters" if sample.clusters else ""
    impossible = {"showers": {"systematics"}, "clusters": {"validate", "systematics"}}
    wrong = sorted(stages & impossible.get(kind, set()))
    if wrong:
        raise CampaignError(
            f"sample {sample.name!r} has {kind}, for which there is no "
            f"{' and no '.join(wrong)}; leave it out of `stages`"
        )
    if kind and (options.cuts or options.where or options.validation.misid):
        raise CampaignError(
            f"sample {sample.name!r} has {kind}; cuts, where and misid are for tracks"
        )
    axis = options.validation.misid
    if axis is not None and axis not in campaign.head.grid:
        raise CampaignError(
            f"validate.misid = {axis!r} is no axis of the grid"
            f"{nearest(axis, campaign.head.grid)}"
        )


def _check_systematics(campaign: Campaign, sample: Sample, one: Planned) -> None:
    """Raise if an efficiency map would have no cuts, or bins that are not known."""
    if "systematics" not in campaign.head.stages:
        return
    options, given = one.options, one.options.systematics
    if not (sample.cuts if options.cuts is None else options.cuts):
        raise CampaignError(
            f"an efficiency map needs cuts, and sample {sample.name!r} has none: give "
            "`cuts`, or leave 'systematics' out of `stages`"
        )
    known = sample.condition_names
    by_condition = given.binning if isinstance(given.binning, dict) else {}
    for what, names in (("binning", by_condition), ("vary", given.vary)):
        for name in names:
            if name not in known:
                raise CampaignError(
                    f"systematics.{what} has {name!r}, which is no condition"
                    f"{nearest(name, known)}"
                )
    named = [given.binning, *by_condition.values()]
    for text in named:
        if isinstance(text, str):
            is_file = ".json" in text
            load_binning(str(campaign.folder / text) if is_file else text)
    for name in given.variations or ():
        if name not in (*ALL_VARIATIONS, "none"):
            raise CampaignError(
                f"systematics.variations has {name!r}, expected "
                f"{', '.join(ALL_VARIATIONS)} or none{nearest(name, ALL_VARIATIONS)}"
            )


def _check_collection(
    campaign: Campaign, bundles: Sequence[Planned], samples: Mapping[str, Sample]
) -> None:
    """Raise if a row of an ntuple could not choose among the bundles."""
    served: dict[str, Any] = {
        one.name: (samples[one.name].species, samples[one.name].data_taking)
        for one in bundles
    }
    try:
        check_distinct(served)
    except PidganError as error:
        raise CampaignError(
            f"{campaign.path}: {error}; axes year, polarity, charge and block tell "
            "bundles apart, or leave 'collect' out of `stages`"
        ) from None
