"""Rows of the same event: they fluctuate together, and count as one in variances.

The candidates of an event share its occupancy, often a track with its generated
response, and in a file that repeats them everything. With the contribution a_i of a row
to the fluctuation of a mean, the variance is

    sum over events (sum of a_i over the rows of the event)^2

(K.-Y. Liang, S. L. Zeger, Biometrika 73 (1986) 13, with independence as the working
correlation). Weights may have any sign: where those of an event cancel, as those of
counter-events, so do their fluctuations. With one row in each event this is the sum of
squares over rows.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.application.record import key_names
from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle.noise import UInt64Array, column_keys
from pidgan.efficiency.proof import Proof
from pidgan.errors import PidganWarning
from pidgan.sample.events import usual_key


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """The event of each row.

    `number` (n,) counts events from 0, and `ids` has a hash of the key of each event.
    """

    number: IntArray
    ids: UInt64Array

    def take(self, chosen: IntArray) -> "Events":
        """Return the events of some rows, with the same numbers."""
        return Events(number=self.number[chosen], ids=self.ids)


def check_key(key: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a key; raise if one is that of a track."""
    for name in key:
        if "{track}" in name:
            raise ValueError(
                f"key has {name!r}, which belongs to a track; expected branches that "
                "identify an event"
            )
    return tuple(key)


def find_keys(
    trees: Sequence[Proof], tracks: Iterable[str], given: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return, for each tree, the branches that identify an event; none if unknown.

    They are those that are given, else those with which the columns of these tracks
    were generated, else, in a tree without a record, usual names.
    """
    if given:
        return [tuple(given)] * len(trees)
    found = [_recorded_key(tree, tracks) for tree in trees]
    if len(set(found)) > 1:
        listed = "; ".join(
            f"{tree.source}: {','.join(key) or 'none'}"
            for tree, key in zip(trees, found, strict=True)
        )
        warnings.warn(
            "the trees have different keys of an event, so that an event in two of "
            f"them is not recognised ({listed}); give one key for all, --key",
            PidganWarning,
            stacklevel=4,
        )
    return found


def _recorded_key(tree: Proof, tracks: Iterable[str]) -> tuple[str, ...]:
    """Return the key of an event in the record of a tree, if it has the branches."""
    own = [one for track in tracks for one in tree.made.get(track, ())]
    branches = tree.info.branches
    if not own:
        # Nothing is known of how the columns were made; take no risk.
        return usual_key(branches)
    names = key_names(own)
    lost = [name for name in names if name not in branches]
    if not lost:
        return names
    warnings.warn(
        f"{tree.source} was made with --key {','.join(names)}, but has no branch "
        f"{lost[0]!r}: each entry counts as an event, and the statistical uncertainty "
        "is too small where events have several",
        PidganWarning,
        stacklevel=5,
    )
    return ()


def find_events(keys: UInt64Array) -> Events:
    """Return the events of rows (n,) with these hashes of their keys."""
    number, ids = pd.factorize(keys)
    return Events(number=np.asarray(number, dtype=np.int64), ids=np.asarray(ids))


def event_keys(
    names: Sequence[str], columns: Mapping[str, npt.NDArray[Any]]
) -> UInt64Array:
    """Return a hash (n,) of the key branches of each row and of their names."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=7).digest()
    seed = int.from_bytes(digest, "little")
    return column_keys([columns[name] for name in names], seed=seed)


def square_sums(
    weights: FloatArray, group: IntArray, n_groups: int, events: Events | None
) -> tuple[FloatArray, IntArray]:
    """Return the sums of squared weights of events in each group, and their numbers.

    Args:
        weights: (n,) weights of rows, of any sign.
        group: (n,) group of each row.
        n_groups: Number of groups.
        events: Events of the rows; None if each row is one.
    """
    squares = weights**2
    if events is not None:
        n = len(events.ids)
        alone = np.bincount(events.number, minlength=n)[events.number] == 1
        several = np.flatnonzero(~alone)
        pairs, owners = pd.factorize(group[several] * n + events.number[several])
        sums = np.bincount(pairs, weights[several], len(owners))
        squares = np.concatenate([squares[alone], sums**2])
        group = np.concatenate([group[alone], owners // n])
    found = np.asarray(np.bincount(group, squares, n_groups), dtype=np.float64)
    return found, np.bincount(group, minlength=n_groups)


def in_several(group: IntArray, events: Events) -> IntArray:
    """Return the event (n,) of each row, -1 unless it has rows in several groups.

    Rows whose group is -1 count nowhere.
    """
    inside = np.flatnonzero(group >= 0)
    number = events.number[inside]
    owners = pd.unique(group[inside] * len(events.ids) + number) % len(events.ids)
    spread = np.bincount(owners, minlength=len(events.ids)) > 1
    result = np.full(len(group), -1, dtype=np.int64)
    chosen = inside[spread[number]]
    result[chosen] = events.number[chosen]
    return result


def event_blocks(
    rows: IntArray, events: Events, size: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield at most `size` rows at a time, sorted by event, and the event of each.

    An event of more rows than that is divided.
    """
    order = rows[np.argsort(events.number[rows], kind="stable")]
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield chosen, events.number[chosen]


class EventSums:
    """Sums of contributions (m, n) over rows of the same event, block after block.

    The blocks come sorted by event. What `add` returns are finished sums (m, k); the
    last event waits for more of its rows, or for `finish`.
    """

    def __init__(self, m: int) -> None:
        self._open = np.zeros((m, 0))
        self._event = -1

    def add(self, values: FloatArray, number: IntArray) -> FloatArray:
        """Return the sums of the events that a block (m, n) finishes."""
        starts = np.flatnonzero(np.diff(number, prepend=-1))
        sums = np.add.reduceat(values, starts, axis=1)
        if number[0] == self._event:
            sums[:, 0] += self._open[:, 0]
        else:
            sums = np.concatenate([self._open, sums], axis=1)
        self._open, self._event = sums[:, -1:], int(number[-1])
        return np.asarray(sums[:, :-1])

    def finish(self) -> FloatArray:
        """Return the sum of the last event."""
        last, self._open, self._event = self._open, self._open[:, :0], -1
        return last
