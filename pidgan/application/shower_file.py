"""Generated showers in a file that the tools of the CaloChallenge read."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.bundle.card import Generator, sample_targets
from pidgan.bundle.opening import GivenGenerator, open_generator
from pidgan.errors import DatasetError, PidganWarning
from pidgan.files.shower_file import write_shower_file
from pidgan.progress import Bar
from pidgan.sample.dataset import Dataset, PartName

BLOCK_NUMBERS = 2**23  # cells of the showers that are generated at a time


@checked
def write_showers(
    generator: GivenGenerator,
    dataset: Dataset | str | Path,
    path: str | Path,
    *,
    entries: int | None = None,
    part: PartName = "test",
    seed: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write generated showers in the layout of the CaloChallenge.

    The file has `incident_energies` (n, 1) and `showers` (n, n_cells) in MeV, with the
    cells in the order of the geometry, for the conditions of a part of a dataset. The
    challenge's `evaluate.py` compares it with a file of real showers.

    Args:
        generator: Anything that can sample: a model or a bundle, or its path.
        dataset: Dataset with the conditions, or its folder.
        path: Path of the file, ending in ".hdf5" or ".h5".
        entries: Number of showers; by default one for each row of the part. More than
            that use each row's conditions again, with other noise.
        part: Part of the dataset whose conditions are taken.
        seed: Seed of the noise.
        overwrite: Whether an existing file is replaced.
        progress: Whether a bar, or a line of a log, is shown.

    Returns:
        The path of the file.

    Raises:
        DatasetError: The dataset has no showers of one view with an incident energy in
            MeV, no rows in that part, or the generator is of another sample.
        NtupleError: The file exists, or h5py is not installed.
    """
    generator, dataset = open_generator(generator), Dataset.open(dataset)
    incident = _check(generator, dataset)
    conditions = dataset.part(part).conditions
    if not len(conditions):
        raise DatasetError(
            f"dataset {dataset.sample.name!r} has no rows in the part {part!r}"
        )
    n = len(conditions) if entries is None else entries
    if n < 1:
        raise ValueError(f"entries is {n}, expected a number above 0")
    n_cells = len(generator.card.target_names)
    size = max(1, BLOCK_NUMBERS // n_cells)

    def blocks(bar: Bar) -> Iterator[tuple[FloatArray, FloatArray]]:
        for start in range(0, n, size):
            rows = np.arange(start, min(start + size, n)) % len(conditions)
            x = conditions[rows]
            cells = sample_targets(
                generator, x, seed=seed, track="showers", start=start
            )
            if not np.isfinite(cells).all():
                raise DatasetError(
                    f"{np.sum(~np.isfinite(cells).all(axis=1))} generated showers have "
                    "cells that are no numbers"
                )
            yield x[:, incident].astype(np.float64), cells.astype(np.float64)
            bar.add(len(rows))

    with Bar("showers", total=n, unit="showers", show=progress) as bar:
        return write_shower_file(
            path, blocks(bar), entries=n, n_cells=n_cells, overwrite=overwrite
        )


def _check(generator: Generator, dataset: Dataset) -> int:
    """Return the number of the condition with the incident energy."""
    sample, card = dataset.sample, generator.card
    cells = sample.cells
    if cells is None or cells.incident is None or len(cells.layout.views) > 1:
        raise DatasetError(
            f"dataset {sample.name!r} has no showers of one view with an incident "
            "energy, which a file of the CaloChallenge holds"
        )
    if (unit := sample.targets[0].package_unit) != "MeV":
        raise DatasetError(
            f"dataset {sample.name!r} has cells in {unit!r}, expected energies"
        )
    if card.target_names != sample.target_names or (
        card.condition_names != sample.condition_names
    ):
        raise DatasetError(
            f"the generator has conditions {', '.join(card.condition_names)} and "
            f"{len(card.target_names)} cells; dataset {sample.name!r} has "
            f"{', '.join(sample.condition_names)} and {len(sample.target_names)} cells"
        )
    others = [name for name in sample.condition_names if name != cells.incident]
    if others:
        warnings.warn(
            f"the layout of the CaloChallenge has the incident energy alone; "
            f"{', '.join(others)} of the showers are not written",
            PidganWarning,
            stacklevel=3,
        )
    return sample.condition_names.index(cells.incident)
