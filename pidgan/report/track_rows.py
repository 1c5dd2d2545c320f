"""The rows that a validation of tracks compares: real, generated, and of the floor."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.card import Generator, sample_targets
from pidgan.efficiency.binning import bin_index, count_bins
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.errors import DatasetError, PidganWarning
from pidgan.sample.cuts import parse_cut
from pidgan.sample.dataset import Dataset, Part
from pidgan.sample.definition import Sample

Choice = Callable[[Part], BoolArray]

MAX_FLOOR_SAMPLES = 4
MIN_FLOOR_SHARE = 0.7  # of the number of test rows; fewer make a floor too high


@dataclass(frozen=True, kw_only=True)
class TrackRows:
    """Real rows of one species, generated rows of the same conditions, and the floor.

    The floor is samples of the train part, each of about the size of the test part.
    """

    sample: Sample
    real: Part
    generated: Part
    floors: tuple[Part, ...]

    def where(self, choose: Choice) -> "TrackRows":
        """Return the chosen rows; of the floor only samples with a positive sum."""
        floors = (take(part, choose(part)) for part in self.floors)
        return replace(
            self,
            real=take(self.real, choose(self.real)),
            generated=take(self.generated, choose(self.generated)),
            floors=tuple(part for part in floors if is_usable(part)),
        )

    def split(self, edges: Mapping[str, Any]) -> list["TrackRows"]:
        """Return the rows of each bin, in the order of flat bins."""
        parts = (self.real, self.generated, *self.floors)
        index = {id(part): self.bins(part, edges) for part in parts}

        def inside(part: Part, *, number: int) -> BoolArray:
            return np.asarray(index[id(part)] == number)

        return [self.where(partial(inside, number=b)) for b in range(count_bins(edges))]

    def columns(self, part: Part) -> dict[str, FloatArray]:
        """Return the conditions of some rows by name."""
        return dict(zip(self.sample.condition_names, part.conditions.T, strict=True))

    def bins(self, part: Part, edges: Mapping[str, Any]) -> IntArray:
        """Return the flat bin of each row, negative outside."""
        return bin_index(self.columns(part), edges)

    def passing(self, part: Part, cuts: Sequence[str]) -> BoolArray:
        """Return which rows pass cuts, (n_cuts, n)."""
        names = self.sample.target_names
        columns = dict(zip(names, part.targets.T, strict=True))
        parsed = [parse_cut(cut, names=names) for cut in cuts]
        return np.array([cut.passes(columns, self.sample.sentinels) for cut in parsed])

    def outcomes(
        self, cuts: Sequence[str], passing: Choice, *, floor: Part | None = None
    ) -> ComparedRows:
        """Return which real and generated rows are chosen, for efficiencies in bins."""
        real = floor or self.real
        return ComparedRows(
            species=self.sample.species,
            cuts=tuple(cuts),
            columns=self.columns(real),
            weights=real.weights,
            real=passing(real),
            generated=passing(floor or self.generated).astype(np.int64),
            repeats=1,
            units={v.name: v.package_unit for v in self.sample.conditions},
        )


def take(part: Part, rows: Any) -> Part:
    """Return some rows of a part."""
    return Part(
        conditions=part.conditions[rows],
        targets=part.targets[rows],
        weights=part.weights[rows],
        alternatives=part.alternatives[rows],
    )


def is_usable(part: Part) -> bool:
    """Return whether the weights of rows can be normalised."""
    return len(part.weights) > 0 and float(part.weights.sum()) > 0


def check_names(generator: Generator, dataset: Dataset) -> None:
    """Raise a DatasetError if a generator has other variables than a dataset."""
    sample, card = dataset.sample, generator.card
    for kind in ("condition_names", "target_names"):
        if getattr(card, kind) != getattr(sample, kind):
            raise DatasetError(
                f"the generator's {kind} are {', '.join(getattr(card, kind)[:20])}; "
                f"those of dataset {sample.name!r} are "
                f"{', '.join(getattr(sample, kind)[:20])}"
            )


def prepare_rows(
    generator: Generator, dataset: Dataset, *, seed: int, max_rows: int
) -> TrackRows:
    """Return the rows to compare, generated targets included."""
    check_names(generator, dataset)
    sample = dataset.sample
    real = take(dataset.part("test"), slice(max_rows))
    if not is_usable(real):
        raise DatasetError(
            f"the test part of dataset {sample.name!r} has {len(real.weights)} rows "
            f"with sum of weights {real.weights.sum():.6g}, expected a positive sum"
        )
    targets = sample_targets(generator, real.conditions, seed=seed, track="validation")
    generated = replace(real, targets=targets)
    finite = np.asarray(np.isfinite(targets).all(axis=1))
    if not finite.any():
        raise DatasetError(f"no row generated for dataset {sample.name!r} is finite")
    if not finite.all():
        lost = np.count_nonzero(~finite)
        warnings.warn(
            f"{lost} of {len(finite)} generated rows are not finite and left out",
            PidganWarning,
            stacklevel=3,
        )
        real, generated = take(real, finite), take(generated, finite)
    floors = _floor_samples(dataset.part("train"), len(real.weights), seed=seed)
    return TrackRows(sample=sample, real=real, generated=generated, floors=floors)


def _floor_samples(train: Part, n: int, *, seed: int) -> tuple[Part, ...]:
    """Disjoint random samples of about n rows of the train part."""
    order = np.random.default_rng(seed).permutation(len(train.weights))
    count = min(MAX_FLOOR_SAMPLES, max(1, round(len(order) / n)))
    size = min(n, len(order) // count)
    parts = [
        take(train, np.sort(order[i * size : (i + 1) * size])) for i in range(count)
    ]
    usable = tuple(part for part in parts if is_usable(part))
    if not usable or len(usable[0].weights) < MIN_FLOOR_SHARE * n:
        warnings.warn(
            f"the train part has {len(order)} rows, fewer than the {n} of the test "
            f"part: the floors come from fewer rows or are missing",
            PidganWarning,
            stacklevel=4,
        )
    return usable
