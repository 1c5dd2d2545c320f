"""The family that is taken where none is asked for."""

import numpy as np

from pidgan.sample.dataset import Dataset
from pidgan.training.families import TABLE, kind_of

# The total of showers of hadrons in a calorimeter that samples them fluctuates by more
# than this, that of electrons and photons hardly ever (docs/explanation/showers.md).
SAMPLING_SPREAD = 0.08
# Showers of about one energy, of which the spread is found.
GROUP_SHOWERS = 50
ONE_SIGMA = 0.158655


def default_name(dataset: Dataset) -> str:
    """Return the name of the family that is taken if none is asked for.

    It is the first one for the kind of targets, but "shower_tree" for the voxels of
    hadrons: one view of several layers of cells, whose total fluctuates.
    """
    kind = kind_of(dataset.sample)
    if kind == "cells" and _is_sampling(dataset):
        return "shower_tree"
    return next(name for name, entry in TABLE.items() if entry.targets == kind)


def _is_sampling(dataset: Dataset) -> bool:
    cells = dataset.sample.cells
    if cells is None or cells.incident is None or len(cells.layout.views) > 1:
        return False
    view = cells.layout.views[0]
    if not (view.has_depth and view.has_plane):
        return False
    part = dataset.part("train")
    number = dataset.sample.condition_names.index(cells.incident)
    energy = part.conditions[:, number].astype(np.float64)
    response = part.targets.sum(axis=1) / energy
    order = np.argsort(energy, kind="stable")
    spreads = []
    for rows in np.array_split(order, max(1, len(order) // GROUP_SHOWERS)):
        low, middle, high = np.quantile(response[rows], [ONE_SIGMA, 0.5, 1 - ONE_SIGMA])
        spreads.append((high - low) / 2 / middle if middle > 0 else np.inf)
    return bool(np.median(spreads) > SAMPLING_SPREAD)
