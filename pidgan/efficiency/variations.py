"""Named variations of an efficiency map, each with one shift or with a covariance.

A variation is a shift of the efficiency of all cuts in all bins together, and its
covariance is s s^T. An uncertainty with a covariance of a higher rank is a sum of
independent shifts, sum_k s_k s_k^T. The map holds them as "NAME", "NAME#2", "NAME#3",
so that whoever reads it without this package has all of them. Breakdowns show them as
one part, NAME.
"""

import re
from dataclasses import replace

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.variation_parts import MARK, parts_of_variations
from pidgan.errors import MapError

NEGLIGIBLE_VARIANCE = 1e-6
"""Share of the variance that the smallest eigenvalues together may have to be left out
of the shifts of a covariance."""

_NAME = re.compile(r"[A-Za-z]\w*")


def shifts_of(covariance: FloatArray) -> FloatArray:
    """Return independent shifts (k, n) with a covariance (n, n): sum_k s_k s_k^T."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    total = values.sum()
    if not total > 0:
        return np.zeros((1, len(values)))
    left_out = total - np.cumsum(values)
    k = int(np.argmax(left_out <= NEGLIGIBLE_VARIANCE * total)) + 1
    return np.asarray((np.sqrt(values[:k]) * vectors[:, :k]).T)


def with_variation(
    efficiency_map: EfficiencyMap, name: str, shifts: FloatArray
) -> EfficiencyMap:
    """Return a map with one more variation.

    The shifts are (n_cuts, n_bins), or (k, n_cuts, n_bins) for k independent ones. A
    MapError says that the map has a variation of this name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"variation {name!r}: expected letters, digits and _")
    if name in parts_of_variations(efficiency_map.variations):
        raise MapError(f"the efficiency map has a variation {name!r} already")
    wanted = efficiency_map.generated.shape
    found = np.asarray(shifts, dtype=np.float64)
    found = found[np.newaxis] if found.ndim == 2 else found
    if found.ndim != 3 or found.shape[1:] != wanted or not np.isfinite(found).all():
        raise ValueError(
            f"variation {name!r}: shifts of shape {np.shape(shifts)}, expected finite "
            f"ones of shape {wanted}, or several of these"
        )
    marks = ("", *(f"{MARK}{k}" for k in range(2, len(found) + 1)))
    more = {f"{name}{mark}": one for mark, one in zip(marks, found, strict=True)}
    return replace(efficiency_map, variations={**efficiency_map.variations, **more})
