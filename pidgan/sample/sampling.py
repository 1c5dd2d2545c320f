"""A random part of the rows of a dataset, where all rows would not fit into memory.

The rows are chosen in blocks, the same share of each, so that the choice neither takes
memory nor depends on anything but the seed.
"""

import dataclasses
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.errors import PidganWarning
from pidgan.files.mapped import read_rows, row_blocks, take_rows
from pidgan.sample.dataset import PARTS, Dataset, Part, PartName
from pidgan.sample.weights import WeightSums, n_eff

#: Rows of a block in which rows are chosen.
BLOCK_ROWS = 1_000_000
# Stream of the random choice, apart from others of the same seed.
_CHOICE = 23


def some_rows(dataset: Dataset, name: PartName, most: int, *, seed: int) -> Part:
    """Return a part, or about `most` random rows of a larger one, in their order."""
    if count_rows(dataset, name) <= most:
        return dataset.part(name)
    return _taken(dataset, _choose(dataset, [name], most, seed))


def spread_rows(dataset: Dataset, name: PartName, most: int) -> Part:
    """Return at most so many rows of a part, spread evenly over all of it."""
    n = count_rows(dataset, name)
    index = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
    found, seen = [], 0
    for place, block in row_blocks(dataset.split):
        rows = place.start + np.flatnonzero(block == PARTS.index(name))
        first, last = np.searchsorted(index, (seen, seen + len(rows)))
        found.append(rows[index[first:last] - seen])
        seen += len(rows)
    return _taken(dataset, np.concatenate(found))


def _taken(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Part:
    """Return rows by their numbers, which rise."""
    arrays = ["conditions", "targets", "weights", "alternatives"]
    arrays += ["discriminant"] if dataset.has_discriminant else []
    arrays += ["kept"] if dataset.kept_names else []
    return Part(**{key: take_rows(getattr(dataset, key), rows) for key in arrays})


def count_rows(dataset: Dataset, name: PartName) -> int:
    """Return the number of rows of a part."""
    code = PARTS.index(name)
    blocks = (block for _, block in row_blocks(dataset.split))
    return sum(int(np.count_nonzero(block == code)) for block in blocks)


def part_sums(dataset: Dataset, name: PartName) -> WeightSums:
    """Return the sums of the weights of a part, taken block by block."""
    code, n, total, squares = PARTS.index(name), 0, 0.0, 0.0
    for place, weights in row_blocks(dataset.weights):
        w = weights[read_rows(dataset.split, place) == code]
        n, total = n + len(w), total + float(w.sum())
        squares += float(np.sum(w * w))
    return WeightSums(rows=n, infinite=0, total=total, squares=squares, most=0.0, row=0)


def in_memory(dataset: Dataset, most: int, *, seed: int, what: str) -> Dataset:
    """Return a dataset, or one in memory of about `most` random rows of a larger one.

    A warning says that `what` takes no more of them.
    """
    n = len(dataset)
    if n <= most:
        return dataset
    rows = _choose(dataset, list(PARTS), most, seed)
    arrays: dict[str, Any] = {
        key: take_rows(getattr(dataset, key), rows) for key in dataset.arrays
    }
    parts = np.bincount(arrays["split"], minlength=len(PARTS))
    weights = arrays["weights"]
    warnings.warn(
        f"{what} takes {len(rows):,} random rows of the {n:,} of dataset "
        f"{dataset.sample.name!r}: it holds all of its rows in memory",
        PidganWarning,
        stacklevel=3,
    )
    info = {
        **dataset.info,
        "rows": {name: int(parts[PARTS.index(name)]) for name in dataset.info["rows"]},
        "sum_weights": float(weights.sum()),
        "n_eff": n_eff(weights),
        "taken": {"rows": len(rows), "of": n, "seed": seed},
    }
    return dataclasses.replace(dataset, **arrays, info=info)


def _choose(
    dataset: Dataset, names: list[PartName], most: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return the numbers of about `most` rows of parts, rising."""
    total = sum(count_rows(dataset, name) for name in names)
    share = min(1.0, most / max(total, 1))
    codes = [PARTS.index(name) for name in names]
    found = []
    for number, start in enumerate(range(0, len(dataset), BLOCK_ROWS)):
        block = read_rows(dataset.split, slice(start, start + BLOCK_ROWS))
        rows = np.flatnonzero(np.isin(block, codes))
        rng = np.random.default_rng([seed, _CHOICE, number])
        size = round(share * len(rows))
        chosen = rng.choice(len(rows), size, replace=False, shuffle=False)
        found.append(start + rows[np.sort(chosen)])
    return np.concatenate(found)
