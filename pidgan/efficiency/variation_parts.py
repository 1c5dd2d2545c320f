"""Parts of the uncertainty of an efficiency map: its variations, by name.

A variation with a covariance is several independent shifts, "NAME", "NAME#2", ...; see
`pidgan.efficiency.variations`.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray

MARK = "#"
"""What stands between the name of a variation and the number of a further shift."""


def numbered(name: str, number: int) -> str:
    """Return the name of a shift of a variation, which are counted from 1."""
    return name if number == 1 else f"{name}{MARK}{number}"


def part_of(name: str) -> str:
    """Return the part of the uncertainty that a shift of this name belongs to."""
    return name.partition(MARK)[0]


def parts_of_variations(
    variations: Mapping[str, FloatArray],
) -> dict[str, list[FloatArray]]:
    """Return the shifts of each part of the uncertainty, in the order of the map."""
    found: dict[str, list[FloatArray]] = {}
    for name, shift in variations.items():
        found.setdefault(part_of(name), []).append(shift)
    return found


def in_quadrature(errors: Iterable[ArrayLike]) -> FloatArray:
    """Return the root of the sum of squares of the errors of independent shifts."""
    stacked = np.stack([np.asarray(error, dtype=np.float64) for error in errors])
    return np.asarray(np.sqrt((stacked**2).sum(axis=0)))
