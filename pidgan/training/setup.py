"""What a training needs before its first step: transforms, networks, rows."""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pidgan.bundle.card import Card, describe_variables
from pidgan.errors import TrainingError
from pidgan.sample.dataset import Dataset, Part
from pidgan.sample.definition import Sample
from pidgan.sample.sampling import count_rows, in_memory, part_sums, some_rows
from pidgan.sample.weights import WeightSums
from pidgan.training import families, feed
from pidgan.training import targets as kinds
from pidgan.training.conditions import ConditionTransform, fit_conditions
from pidgan.training.families.default import default_name
from pidgan.training.families.settings_file import read_settings_file
from pidgan.training.model import Model
from pidgan.training.patterns import pattern_network, with_patterns
from pidgan.training.phases import Family, Phase
from pidgan.training.rows import Rows, device_rows, feed_rows
from pidgan.training.start import begin_at, beside, gentler, record_of
from pidgan.training.start_checks import check_family, check_start, started_settings
from pidgan.training.targets.energy_fits import fit_energies
from pidgan.training.targets.tracks import TargetTransform

MIN_TRAINING_ROWS = 50
PACKAGES = ("pidgan", "keras", "tensorflow", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of the packages that a training depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def choose_family(
    family: Any,
    recipe: str | None,
    settings: Mapping[str, Any] | str | Path | None,
    data: Sample | Dataset,
    *,
    start: Model | None = None,
) -> Any:
    """Return the settings of the family that `train` is asked for, as one value.

    The default depends on the rows of a dataset; of a sample it is the kind's first.
    Settings may be a file, which names the family. With a start, it is the family of
    the start, and its settings but for those given.
    """
    sample = data.sample if isinstance(data, Dataset) else data
    if isinstance(settings, str | Path):
        if family is not None and not isinstance(family, str):
            raise ValueError("give settings in a file or in the family's value")
        found = read_settings_file(
            settings, family=recipe if family is None else family
        )
        family, recipe, settings = found.family, None, found.settings
    if start is not None and (family is None or isinstance(family, str)):
        name = check_family(start, recipe or family)
        settings, recipe = started_settings(start, name, settings or {}), None
        family = name
    if family is None and recipe is None and isinstance(data, Dataset):
        family = default_name(data)
    if recipe is not None or family is None or isinstance(family, str):
        if family is not None and not isinstance(family, str):
            raise ValueError("give a family or a recipe, not both")
        name = families.choose_name(family, recipe, sample)
        return families.parse_settings(name, settings or {})
    if settings:
        raise ValueError("give settings by name or in the family's value, not both")
    name = families.choose_name(families.name_of(family), None, sample)
    return families.parse_settings(name, dataclasses.asdict(family))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transforms:
    """Conditions and targets as networks see them, fitted beforehand."""

    conditions: ConditionTransform
    targets: kinds.Targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """A training that has not begun; rows are on the device."""

    dataset: Dataset
    seed: int
    settings: Any
    conditions: ConditionTransform
    targets: kinds.Targets
    family: Family
    patterns: Any  # network of the patterns of discrete structure; None without any
    phases: Sequence[Phase]  # those of the family, in which the patterns are learnt too
    rows: Rows
    validation: Rows
    start: dict[str, Any]  # what the card says of the model that it starts from

    @property
    def name(self) -> str:
        """Name of the family."""
        return families.name_of(self.settings)

    @property
    def published(self) -> bool:
        """Whether the family is a published recipe."""
        return families.TABLE[self.name].published

    def model(
        self, settings: Any, *, steps: int, history: Any, plan: str = ""
    ) -> Model:
        """Return the model of the generator as it is now."""
        dataset, sample = self.dataset, self.dataset.sample
        card = Card(
            detector=sample.detector,
            species=sample.species,
            conditions=describe_variables(sample.conditions, dataset.conditions),
            targets=kinds.describe_targets(sample, self.targets, dataset.targets),
            n_noise=self.family.n_noise + (1 if self.patterns else 0),
            sample=sample,
            dataset={**dataset.info, **self._account()},
            family=self.name,
            settings=dataclasses.asdict(settings),
            seed=self.seed,
            steps=steps,
            plan=plan,
            start=self.start,
            versions=versions(),
        )
        return Model(
            card=card,
            conditions=self.conditions,
            targets=self.targets,
            generator=self.family.generator,
            patterns=self.patterns,
            history=history,
            held_out=self._test_rows(),
            beside=tuple(v.numpy() for v in beside(self.family)),
        )

    def _account(self) -> dict[str, Any]:
        """Return how many rows were fitted to, where these are not all."""
        if self.rows.feed is None:
            return {}
        names = ("FITTED_ROWS", "VALIDATION_ROWS", "HELD_OUT_ROWS")
        return {"random_rows": {name.lower(): getattr(feed, name) for name in names}}

    def _test_rows(self) -> pd.DataFrame:
        """Return the rows that stay beside the model."""
        dataset = self.dataset
        if self.rows.feed is None:
            return dataset.frame("test")
        part = some_rows(dataset, "test", feed.HELD_OUT_ROWS, seed=self.seed)
        return dataset.frame_of(part)


def fit_sample_conditions(sample: Sample, part: Part) -> ConditionTransform:
    """Fit the scaling of the conditions of a sample."""
    return fit_conditions(
        part.conditions,
        [variable.transform for variable in sample.conditions],
        categories=[variable.categories for variable in sample.conditions],
        sentinels=[variable.sentinels for variable in sample.conditions],
        plain=kinds.plain_conditions(sample),
    )


def fit_own_targets(
    sample: Sample, part: Part, entry: families.Entry, seen: ConditionTransform
) -> kinds.Targets:
    """Fit the targets of a sample as a family wants them."""
    if entry.as_energies:
        return fit_energies(sample, part, seen)
    options = {"plain": entry.published, "log_scale": entry.log_scale}
    return kinds.fit_targets(sample, part, **options)


def started_transforms(
    start: Model, sample: Sample, part: Part, entry: families.Entry
) -> Transforms:
    """Return the transforms of a training with a start.

    Conditions, and targets of tracks, stay as the networks know them: directions in
    which targets of a track hardly vary would move far if their quantiles were fitted
    again. Those of cells are, unless other cells have energy.
    """
    known = start.targets
    if isinstance(known, TargetTransform):
        known = kinds.widened(known, part)
    else:
        fresh = fit_own_targets(sample, part, entry, start.conditions)
        known = fresh if kinds.are_alike(fresh, known) else known
    return Transforms(conditions=start.conditions, targets=known)


def set_up(
    dataset: Dataset,
    settings: Any,
    *,
    seed: int,
    transforms: Transforms | None = None,
    start: Model | None = None,
) -> Setup:
    """Fit the transforms, build the networks and bring the rows to the device.

    Transforms that are given are those of several trainings.
    """
    sample, n = dataset.sample, count_rows(dataset, "train")
    if n < MIN_TRAINING_ROWS:
        raise TrainingError(
            f"the training part has {n} rows, expected at least {MIN_TRAINING_ROWS}"
        )
    if sample.cells or sample.clusters:
        dataset = in_memory(dataset, feed.WHOLE_ROWS, seed=seed, what="a training")
        n = count_rows(dataset, "train")
    is_large = n > feed.MEMORY_ROWS and not (sample.cells or sample.clusters)
    part = some_rows(dataset, "train", feed.FITTED_ROWS if is_large else n, seed=seed)
    name = families.name_of(settings)
    entry = families.TABLE[name]
    sums = part_sums(dataset, "train") if is_large else WeightSums.of(part.weights)
    n_rows = round(sums.n_eff)  # mirror images are no rows more
    part = kinds.with_images(sample, part)
    if start is not None:
        check_start(start, sample, part, settings)
        transforms = started_transforms(start, sample, part, entry)
    elif transforms is None:
        seen = fit_sample_conditions(sample, part)
        transforms = Transforms(
            conditions=seen, targets=fit_own_targets(sample, part, entry, seen)
        )
    conditions, targets = transforms.conditions, transforms.targets
    shape = targets.shape(sample, n_conditions=conditions.n_columns)
    shape = dataclasses.replace(shape, n_rows=n_rows)
    family, patterns, phases = _networks(settings, shape=shape, seed=seed, start=start)
    families.warn_outside_ranges(name, settings)
    bring = functools.partial(
        device_rows, sample=sample, conditions=conditions, targets=targets, seed=seed
    )
    wanted: dict[str, Any] = {
        "positive": family.needs_positive_weights or bool(shape.n_patterns),
        "flatter": not entry.published,
    }
    if is_large:
        rows = feed_rows(
            dataset,
            part,
            conditions=conditions,
            targets=targets,
            seed=seed,
            mean=sums.total / sums.rows,
            **wanted,
        )
    else:
        rows = bring(part, **wanted)
    most = feed.VALIDATION_ROWS if is_large else n
    return Setup(
        dataset=dataset,
        seed=seed,
        settings=settings,
        conditions=conditions,
        targets=targets,
        family=family,
        patterns=patterns,
        phases=phases,
        rows=rows,
        validation=bring(some_rows(dataset, "validation", most, seed=seed)),
        start={} if start is None else record_of(start),
    )


def with_settings(setup: Setup, settings: Any) -> Setup:
    """Return the training of other settings of the same family, on the same rows."""
    sample, targets = setup.dataset.sample, setup.targets
    n_rows = round(part_sums(setup.dataset, "train").n_eff)
    shape = targets.shape(sample, n_conditions=setup.conditions.n_columns)
    shape = dataclasses.replace(shape, n_rows=n_rows)
    family, patterns, phases = _networks(settings, shape=shape, seed=setup.seed)
    own: Any = {"family": family, "patterns": patterns, "phases": phases}
    return dataclasses.replace(setup, settings=settings, **own)


def _networks(
    settings: Any, *, shape: Any, seed: int, start: Model | None = None
) -> tuple[Family, Any, Sequence[Phase]]:
    """Return a family, the network of the patterns if any, and all phases."""
    family = families.build_family(settings, shape=shape, seed=seed)
    patterns = None
    if shape.n_patterns:
        patterns = pattern_network(shape=shape, seed=seed + 2)
    phases = with_patterns(family.phases, patterns, judged=start is not None)
    if start is not None:
        phases = gentler(phases, begin_at(start, family, patterns))
    return family, patterns, phases
