"""The random division of rows into parts for training, monitoring and testing."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pidgan.files.mapped import read_rows
from pidgan.sample.dataset import PARTS
from pidgan.sample.event_numbers import EventNumbers

#: Events that are divided at once: each block of so many has the stated shares.
BLOCK_EVENTS = 16_000_000

Codes = npt.NDArray[np.uint8]


def split_events(
    rows: int,
    shares: Sequence[float],
    seed: int,
    *,
    events: EventNumbers | None = None,
    apart: npt.NDArray[np.bool_] | None = None,
) -> Codes:
    """Return the number of the part that each row (n,) belongs to, by its event.

    Rows that are `apart` (n,) are in the part of those that are excluded.
    """
    n = rows if events is None else events.events
    parts = np.concatenate([*_blocks(n, shares, seed)])
    split = parts
    if events is not None:
        split = np.empty(rows, dtype=np.uint8)
        for place, numbers in events.blocks():
            split[place] = parts[numbers]
    if apart is not None:
        split[read_rows(apart, slice(0, rows))] = PARTS.index("excluded")
    return split


def _blocks(n: int, shares: Sequence[float], seed: int) -> Iterator[Codes]:
    """Yield the part of each event, in blocks."""
    for number, start in enumerate(range(0, n, BLOCK_EVENTS)):
        size = min(BLOCK_EVENTS, n - start)
        bounds = np.round(np.cumsum(shares)[:-1] * size).astype(int)
        rng = np.random.default_rng([seed, number] if number else seed)
        order = rng.permutation(size)
        split = np.empty(size, dtype=np.uint8)
        for part, rows in enumerate(np.split(order, bounds)):
            split[rows] = part
        yield split
