"""sWeights of a sample that is larger than memory, from counts of the discriminant.

The shapes are fitted to a histogram in any case (`pidgan.sample.mass_fit`). The yields
and the sums of sWeights, which `compute_sweights` takes over rows, are taken here over
`FINE_BINS` bins. Weights are a function of the discriminant, which is tabulated at the
edges of these bins. The narrowest peak that a fit allows is 64 bins wide: a weight
differs from that of an unbinned fit by less than 1e-4 of the largest one, and by 1e-7
where the peak is as wide as a twentieth of the range.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pidgan.arrays import FloatArray
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_fit import MassFit, fit_mass
from pidgan.sample.own_row import influence
from pidgan.sample.sweights import (
    N_BINS,
    SweightResult,
    alternatives_of,
    check_rows,
    check_sum,
    fit_name,
    good_alternatives,
    sweight_result,
    unfilled,
    yields_of,
)

#: Bins in which rows are counted; a multiple of those of the fit.
FINE_BINS = 320 * N_BINS


@dataclass
class MassCounts:
    """Numbers of rows in fine bins of the discriminant between two masses, MeV."""

    low: float
    high: float
    counts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(FINE_BINS, dtype=np.int64)
    )
    first: float = np.inf
    last: float = -np.inf

    def add(self, mass: FloatArray) -> None:
        """Count rows, those outside the range left out."""
        inside = mass[(mass >= self.low) & (mass <= self.high)]
        if len(inside):
            self.first = min(self.first, float(inside.min()))
            self.last = max(self.last, float(inside.max()))
        place = _place(inside, self.low, self.high)[0]
        self.counts += np.bincount(place, minlength=FINE_BINS)


@dataclass(frozen=True, kw_only=True)
class WeightTable:
    """The sWeight as a function of the discriminant, at the edges of fine bins."""

    low: float
    high: float
    weights: FloatArray

    def of(self, mass: FloatArray) -> FloatArray:
        """Return the weights (n,) of masses (n,), MeV; 0 outside the range."""
        inside = (mass >= self.low) & (mass <= self.high)
        place, part = _place(np.where(inside, mass, self.low), self.low, self.high)
        start = self.weights[place]
        return (start + part * (self.weights[place + 1] - start)) * inside


def binned_sweights(
    masses: Iterable[FloatArray], discriminant: Discriminant, *, source: str
) -> tuple[SweightResult, WeightTable, dict[str, WeightTable]]:
    """Return the fit, its weights and those of other fits to rows that come in blocks.

    The result has no weights of rows. Errors and warnings are those of
    `compute_sweights`.
    """
    others = alternatives_of(discriminant)
    ranges = {one.range for one in (discriminant, *others.values())}
    known = {limits: MassCounts(*limits) for limits in ranges}
    for mass in masses:
        for counts in known.values():
            counts.add(mass)

    def weigh(other: Discriminant) -> tuple[SweightResult, WeightTable]:
        return _weigh(known[other.range], other, source)

    result, table = weigh(discriminant)
    return result, table, good_alternatives(discriminant, weigh)


def _weigh(
    known: MassCounts, discriminant: Discriminant, source: str
) -> tuple[SweightResult, WeightTable]:
    """Fit counts, and tabulate the weights that follow."""
    where = fit_name(source, discriminant)
    check_rows(int(known.counts.sum()), where)
    where += unfilled(known.first, known.last, discriminant)
    fine = known.counts.astype(np.float64)
    counts = fine.reshape(N_BINS, -1).sum(axis=1)
    fit = fit_mass(counts, np.linspace(0.0, 1.0, N_BINS + 1), discriminant, where)
    edges = np.linspace(0.0, 1.0, FINE_BINS + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    peak, floor = (shape.density(middle) for shape in fit.components)
    yields = yields_of((peak, floor), fit, where, counts=fine)
    weights = _tabulate(edges, fine, (peak, floor), fit, yields, where)
    result = sweight_result(counts, discriminant, fit, yields, np.zeros(0), where)
    return result, WeightTable(low=known.low, high=known.high, weights=weights)


def _tabulate(
    edges: FloatArray,
    counts: FloatArray,
    densities: tuple[FloatArray, FloatArray],
    fit: MassFit,
    yields: tuple[float, float],
    where: str,
) -> FloatArray:
    """Return sWeights at edges of bins, arXiv:physics/0402083, eq. 15."""
    pair = np.stack(densities)
    total = yields[0] * pair[0] + yields[1] * pair[1]
    each = np.divide(counts, total**2, out=np.zeros_like(total), where=counts > 0)
    inverse = np.linalg.inv((pair * each) @ pair.T)
    at = np.stack([shape.density(edges) for shape in fit.components])
    sums = yields[0] * at[0] + yields[1] * at[1]
    # A straight line of background may end at zero, where no row lies.
    weights = np.divide(inverse[0] @ at, sums, out=np.zeros_like(sums), where=sums > 0)
    check_sum(_sum(weights, counts), yields, where)
    weights += influence(edges, fit, yields)
    return np.asarray(weights * (yields[0] / _sum(weights, counts)))


def _sum(weights: FloatArray, counts: FloatArray) -> float:
    return float(np.sum(counts * 0.5 * (weights[1:] + weights[:-1])))


def _place(
    mass: FloatArray, low: float, high: float
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Return the fine bin (n,) of masses, and how far in it they lie, 0 to 1."""
    position = (mass - low) * (FINE_BINS / (high - low))
    place = np.minimum(position.astype(np.int32), np.int32(FINE_BINS - 1))
    return place, position - place
