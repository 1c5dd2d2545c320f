"""Rows of a control sample that an efficiency map was measured with.

Both would count as independent, and the same fluctuation would be taken twice. A map
keeps the smallest of the hashes of its reference rows (the bottom-k sketch, E. Cohen,
J. Comput. Syst. Sci. 55 (1997) 441): of the rows of another sample that hash as low,
those are the same which the sketch has too. A row is recognised by the conditions of
the bins, in single precision, where these tell rows apart.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle.noise import UInt64Array, column_keys

SKETCH = "row_hashes"
"""Where the metadata of a map have the hashes, with the reference rows."""

SIZE = 512
"""Number of hashes that a map keeps."""

ALIKE = 0.005
"""Share of rows with the same conditions as another row up to which they tell rows
apart."""


def _hashes(columns: Mapping[str, FloatArray], names: list[str]) -> UInt64Array:
    """Return a hash (n,) of the values of each row in single precision."""
    return column_keys(
        [np.asarray(columns[n], dtype=np.float32) for n in names], seed=0
    )


def sketch_of(columns: Mapping[str, FloatArray], names: list[str]) -> dict[str, Any]:
    """Return what a map records of its rows; nothing if they cannot be told apart."""
    if not names or not len(columns[names[0]]):
        return {}
    found = np.unique(_hashes(columns, names))
    if len(found) < (1 - ALIKE) * len(columns[names[0]]):
        return {}
    kept = [f"{one:016x}" for one in found[:SIZE].tolist()]
    return {SKETCH: {"conditions": names, "hashes": kept}}


def shared_share(
    reference: Mapping[str, Any], columns: Mapping[str, FloatArray]
) -> float:
    """Return the share of rows that are reference rows of a map, NaN if nothing tells.

    `reference` is what the metadata of the map say of its rows.
    """
    known = reference.get(SKETCH)
    if not known or any(name not in columns for name in known["conditions"]):
        return math.nan
    hashes = np.array([int(one, 16) for one in known["hashes"]], dtype=np.uint64)
    own = _hashes(columns, list(known["conditions"]))
    low = own[own <= hashes.max()] if len(hashes) == SIZE else own
    if not len(low):
        return 0.0
    return float(np.isin(low, hashes).mean())
