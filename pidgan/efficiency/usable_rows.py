"""Rows of an ntuple that an efficiency map serves, by their species and status."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.application.one_track import WITHOUT_TARGETS
from pidgan.arrays import BoolArray


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
    return np.asarray((status.astype(np.int64) & int(WITHOUT_TARGETS)) == 0)
