"""The event of each row of a calibration sample, where events have several.

The candidates of an event share its occupancy, and often the probe with its response.
They fluctuate together. A dataset whose events have one row each needs no numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.arrays import IntArray

EVENT = "pidgan_event"
"""Column of a dataset, and of a reference file, with the number of a row's event."""

EVENT_BRANCHES = (
    ("runNumber", "eventNumber"),
    ("RUNNUMBER", "EVENTNUMBER"),
    ("run", "luminosityBlock", "event"),
    ("__experiment__", "__run__", "__event__"),
    ("run", "event"),
)
"""Usual names of the branches that identify an event: LHCb, Runs 1 and 2 and Run 3;
NanoAOD; Belle II; others."""


def usual_key(branches: Iterable[str]) -> tuple[str, ...]:
    """Return the branches of usual names that identify an event; none if unknown."""
    known = set(branches)
    return next((key for key in EVENT_BRANCHES if known.issuperset(key)), ())


def common_key(trees: Iterable[Any]) -> tuple[str, ...]:
    """Return the usual branches of an event that every tree has; none otherwise.

    Trees are what `pidgan.files.tables.describe_tree` says of them.
    """
    found = set()
    for tree in trees:
        types = tree.types
        found.add(usual_key(name for name, kind in types.items() if kind.shape == ()))
    return found.pop() if len(found) == 1 else ()


def event_hashes(
    columns: Mapping[str, Any] | pd.DataFrame, key: Sequence[str]
) -> npt.NDArray[np.uint64]:
    """Return a hash (n,) of the branches that identify an event."""
    frame = pd.DataFrame({name: np.asarray(columns[name]) for name in key})
    hashes = pd.util.hash_pandas_object(frame, index=False)
    return np.asarray(hashes.to_numpy(), dtype=np.uint64)


def number_events(hashes: npt.NDArray[np.uint64]) -> IntArray | None:
    """Return the number of the event (n,) of each row; None if each row is one."""
    number, ids = pd.factorize(hashes)
    return None if len(ids) == len(number) else np.asarray(number, dtype=np.int64)


def find_reference_events(frame: pd.DataFrame) -> IntArray | None:
    """Return the event (n,) of rows with `EVENT`, or with branches of usual names."""
    key = (EVENT,) if EVENT in frame else usual_key(map(str, frame))
    return number_events(event_hashes(frame, key)) if key else None
