"""Rows of an ntuple that an efficiency map serves, by their species and status."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arrays import BoolArray

INVALID_STATUS = 2 | 4 | 16
"""Bits of the status column: a condition is missing; no bundle for the species; the
selection of `apply` fails."""


def is_species(
    ids: npt.NDArray[Any], pdgid: int, *, is_signed: bool = False
) -> BoolArray:
    """Return which rows (n,) of these PDG ids are of a species, or its antiparticle.

    If `is_signed`, the antiparticle has a generator and a map of its own.
    """
    found = ids.astype(np.float64)
    return np.asarray(found == pdgid if is_signed else np.abs(found) == abs(pdgid))


def has_targets(status: npt.NDArray[Any]) -> BoolArray:
    """Return which rows (n,) of this status have generated targets."""
    return np.asarray((status.astype(np.int64) & INVALID_STATUS) == 0)
