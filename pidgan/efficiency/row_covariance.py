"""Statistical covariance of efficiencies that were made from rows.

A row with weight w and value v contributes w (v - mean) / W to the fluctuation of the
mean of its bin. The covariance of two means is the sum over the rows that both have of
the product of these contributions; so also between results of two calls.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.analysis_rows import Rows
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.sums import factors_of
from pidgan.sample.weights import n_eff_of_sums

BLOCK_ROWS = 100_000
"""Rows whose values for all selections are in memory at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSample:
    """The rows behind estimates, numbered selection by selection, bin by bin.

    Attributes:
        rows: the rows, also those in no bin.
        selections: the selections.
        maps: the map of each track.
        correction: whether the values have the correction.
        means: (n_selections, n_cells), the values.
        sums: (n_cells,), sums of weights; zero where a bin has no value.
    """

    rows: Rows
    selections: tuple[Selection, ...]
    maps: Mapping[str, EfficiencyMap]
    correction: bool
    means: FloatArray
    sums: FloatArray

    @cached_property
    def covariance(self) -> FloatArray:
        """(n, n), never below that of half a row on either side."""
        n_selections, n_cells = self.means.shape
        blocks = np.zeros((n_cells, n_selections, n_selections))
        squares = np.zeros(n_cells)
        for one, chosen in self._blocks():
            influence = self._influence(one, chosen)
            blocks[one] += influence @ influence.T
            squares[one] += (self.rows.weights[chosen] ** 2).sum()
        result = np.zeros((self.means.size, self.means.size))
        n_eff = n_eff_of_sums(self.sums, squares)
        for cell in np.flatnonzero(squares > 0):
            p = 0.5 / (n_eff[cell] + 1)
            floor = p * (1 - p) / n_eff[cell]
            block = blocks[cell]
            lift = np.maximum(floor - np.diag(block), 0.0)
            at = np.arange(n_selections) * n_cells + cell
            result[np.ix_(at, at)] = block + np.diag(lift)
        return result

    def shared_covariance(self, other: "RowSample") -> FloatArray | None:
        """(n, n_other), due to rows that both have; None if there are none."""
        result = None
        first_start = 0
        for name, (n_rows, used) in self.rows.origin.items():
            second_start = 0
            for other_name, (other_n, other_used) in other.rows.origin.items():
                if name == other_name and n_rows == other_n:
                    _, i, j = np.intersect1d(
                        used, other_used, assume_unique=True, return_indices=True
                    )
                    cross = self._cross(other, i + first_start, j + second_start)
                    result = cross if result is None else result + cross
                second_start += len(other_used)
            first_start += len(used)
        return result

    def _cross(self, other: "RowSample", i: IntArray, j: IntArray) -> FloatArray:
        """Sum over rows i of this sample, which are rows j of the other."""
        total = np.zeros((self.means.size, other.means.size))
        for start in range(0, len(i), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            first, second = (
                s._spread(rows) for s, rows in ((self, i[block]), (other, j[block]))
            )
            total += (first @ second.T).toarray()
        return total

    def _spread(self, chosen: IntArray) -> Any:
        """(n, n_chosen) sparse, influence of rows on every estimate."""
        n_selections, n_cells = self.means.shape
        cells = self.rows.cell[chosen]
        at = np.flatnonzero((cells >= 0) & (self.sums[cells] > 0))
        cells = cells[at]
        influence = self._influence(cells, chosen[at])
        rows = np.arange(n_selections)[:, np.newaxis] * n_cells + cells
        columns = np.broadcast_to(at, rows.shape)
        return sparse.csr_array(
            (influence.ravel(), (rows.ravel(), columns.ravel())),
            shape=(self.means.size, len(chosen)),
        )

    def _blocks(self) -> Iterator[tuple[int, IntArray]]:
        """Yield (bin, rows), never many rows at a time."""
        order = np.argsort(self.rows.cell, kind="stable")
        limits = np.searchsorted(
            self.rows.cell[order], np.arange(self.means.shape[1] + 1)
        )
        for cell in np.flatnonzero(self.sums > 0):
            rows = order[limits[cell] : limits[cell + 1]]
            for start in range(0, len(rows), BLOCK_ROWS):
                yield int(cell), rows[start : start + BLOCK_ROWS]

    def _influence(self, cell: Any, chosen: IntArray) -> FloatArray:
        """(n_selections, n_chosen), what rows in a bin contribute to fluctuations."""
        rows = self.rows.take(chosen)
        values = np.array(
            [
                np.prod(
                    factors_of(s, rows, self.maps, correction=self.correction), axis=0
                )
                for s in self.selections
            ]
        )
        means = self.means[:, cell]
        means = means if means.ndim == 2 else means[:, np.newaxis]
        return np.asarray((values - means) * (rows.weights / self.sums[cell]))
