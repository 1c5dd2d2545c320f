"""Reference rows of a generator, and numbers of its draws that pass cuts.

Reference rows are conditions, real targets and weights of rows that no training saw.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.card import Card, Generator, sample_targets
from pidgan.errors import MapError, PidganWarning, nearest
from pidgan.files.frames import Frame, as_dataframe
from pidgan.files.tables import read_table
from pidgan.progress import Bar
from pidgan.sample.cuts import Columns, Cut, cut_texts, parse_cut
from pidgan.sample.dataset import Dataset, is_of_weights
from pidgan.sample.sampling import count_rows, some_rows

GivenReference: TypeAlias = Dataset | Frame | str | Path
"""Rows that a generator was not trained on: a dataset, a table, or their path."""

MOST_ROWS = 4_000_000  # of the test part of a dataset
REPEATS = 8  # number of draws for each row: 6 % more error than infinitely many have


def reference_frame(
    generator: Generator, reference: GivenReference | None, *, others: bool = False
) -> pd.DataFrame:
    """Return conditions, targets and "weight" of the reference, checked.

    It is a table, a dataset with a test part, the path of one of them, or None for the
    generator's own; a MapError says that there is none, or that it cannot be used. All
    `others` of its columns follow if they are asked for.
    """
    card = generator.card
    if reference is None:
        own = getattr(generator, "reference", None)
        reference = own() if callable(own) else None
        if reference is None:
            path = getattr(generator, "address", None)
            path = path or getattr(generator, "path", None)
            where = "" if path is None else f"{path}: "
            raise MapError(
                f"{where}the generator of {card.species} has no reference file beside "
                "it, expected a dataset or a table of conditions, targets and 'weight'"
            )
    frame = _as_frame(reference)
    columns = [*card.condition_names, *card.target_names, "weight"]
    for name in columns:
        if name not in frame.columns:
            raise MapError(
                f"the reference has no column {name!r}"
                f"{nearest(name, map(str, frame.columns))}"
            )
    values = frame[columns].to_numpy(dtype=np.float64)
    n_bad = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
    if n_bad:
        raise MapError(f"{n_bad} of {len(frame)} rows of the reference are not finite")
    total = float(values[:, -1].sum())
    if total <= 0:
        raise MapError(
            f"the reference of {len(frame)} rows has a sum of weights of {total:.6g}, "
            "expected a positive sum"
        )
    more = [
        name
        for name in map(str, frame)
        if name not in columns and (others or is_of_weights(name))
    ]
    return frame[[*columns, *more]]


def _as_frame(reference: GivenReference) -> pd.DataFrame:
    """Return rows that are given by a path, as a dataset or in memory."""
    if isinstance(reference, str | Path):
        is_folder = Path(reference).is_dir()
        reference = Dataset.open(reference) if is_folder else read_table(reference)
    if isinstance(reference, Dataset):
        return _test_frame(reference)
    return as_dataframe(reference, "reference")


def _test_frame(dataset: Dataset) -> pd.DataFrame:
    """Return the test part of a dataset, or random rows of a large one."""
    part, n = some_rows(dataset, "test", MOST_ROWS, seed=1), count_rows(dataset, "test")
    if n > MOST_ROWS:
        warnings.warn(
            f"the reference is {len(part.weights):,} random rows of the {n:,} of the "
            "test part, as all of its rows are held in memory",
            PidganWarning,
            stacklevel=3,
        )
    return dataset.frame_of(part)


def parse_cuts(card: Card, cuts: str | Sequence[str] | None) -> list[Cut]:
    """Return cuts on targets and conditions; None stands for the sample's cuts."""
    chosen = card.sample.cuts if cuts is None else cuts
    texts = cut_texts(chosen)
    if not texts:
        raise MapError(f"no cut given, and sample {card.sample.name!r} has none")
    names = [*card.target_names, *card.condition_names]
    return [parse_cut(text, names=names, aliases=card.sample.aliases) for text in texts]


def passing(card: Card, cuts: Sequence[Cut], columns: Columns) -> BoolArray:
    """Return whether rows pass cuts (n_cuts, n); columns are conditions and targets."""
    sentinels = {v.name: v.sentinels for v in card.targets}
    return np.array([cut.passes(columns, sentinels) for cut in cuts])


def draw_passing(
    generator: Generator,
    cuts: Sequence[Cut],
    conditions: FloatArray,
    *,
    seed: int,
    track: str,
) -> BoolArray:
    """Return whether a draw for each row (n, n_conditions) passes cuts, (n_cuts, n)."""
    card = generator.card
    y = sample_targets(generator, conditions, seed=seed, track=track)
    columns = dict(zip(card.condition_names, conditions.T, strict=True))
    columns |= dict(zip(card.target_names, y.T, strict=True))
    return passing(card, cuts, columns)


def count_passing(
    generator: Generator,
    cuts: Sequence[Cut],
    frame: pd.DataFrame,
    *,
    seed: int,
    repeats: int,
    stream: str,
    bar: Bar | None = None,
) -> IntArray:
    """Return the number of draws for each row that pass cuts, (n_cuts, n).

    `stream` names the draws: another name gives independent ones. A bar counts them.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected at least 1")
    x = frame[list(generator.card.condition_names)].to_numpy(dtype=np.float64)
    counts = np.zeros((len(cuts), len(x)), dtype=np.int64)
    for k in range(repeats):
        track = f"{stream} {k}"
        counts += draw_passing(generator, cuts, x, seed=seed, track=track)
        if bar is not None:
            bar.add()
    return counts
