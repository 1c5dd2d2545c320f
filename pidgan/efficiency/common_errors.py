"""How far the corrections of two cuts are wrong together, beyond the rows they share.

The smoothed differences of cut i are d_i = A_i raw_i, with the model d_i ~ N(0, P_ii)
(`pidgan.efficiency.smoothing`). Their errors are (A_i - 1) d_i + A_i noise_i, so that

    C_ij = (1 - A_i) P_ij (1 - A_j)^T + A_i N_ij A_j^T,

which is the covariance of the posterior for i = j. N_ij is known from the rows. A
generator that is wrong for one cut is wrong for a similar one in the same way: with the
amplitudes t and the scale D of both cuts, the model of coregionalisation (P. Goovaerts,
*Geostatistics for Natural Resources Evaluation*, 1997, Ch. 4) has

    P_ij = rho_ij D_i (sum_k t_ik t_jk O_k) D_j.

rho is taken as the correlation of the outcomes r - g of the two cuts in all rows: rows
that move across both cuts make both differences. It is 1 for a cut and itself, and -1
for a cut and its opposite. An error of the generator that is smooth in the targets
moves two similar cuts together at least as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.between_bins import between_bins, pair_matrix
from pidgan.efficiency.real_vs_generated import ComparedRows, RealVsGenerated
from pidgan.efficiency.smoothing import (
    SmoothDifference,
    grid_terms,
    is_measured,
    outcome_correlation,
)


@dataclass(frozen=True, kw_only=True)
class CommonErrors:
    """The models of the differences of all cuts, and how alike they are.

    Attributes:
        amplitudes: (n_cuts, n_terms) amplitudes t of the terms of the grid.
        scale: (n_cuts, n_bins) diagonal of D.
        correlation: (n_cuts, n_cuts) correlations rho.
        pairs: (2, n_pairs) different bins that have rows of the same events.
        between: (n_cuts, n_cuts, n_pairs) covariance of raw differences in them.
    """

    amplitudes: FloatArray
    scale: FloatArray
    correlation: FloatArray
    pairs: IntArray
    between: FloatArray

    def check(self, n_cuts: int, shape: Sequence[int]) -> None:
        """Raise a ValueError unless they are of this many cuts on this grid."""
        terms = grid_terms(shape)
        expected = {
            "amplitudes": (n_cuts, len(terms)),
            "scale": (n_cuts, terms.shape[1]),
            "correlation": (n_cuts, n_cuts),
            "pairs": (2, self.pairs.shape[-1]),
            "between": (n_cuts, n_cuts, self.pairs.shape[-1]),
        }
        for name, its in expected.items():
            array = getattr(self, name)
            if array.shape != its:
                raise ValueError(f"common_{name}: shape {array.shape}, expected {its}")
            if not np.isfinite(array).all():
                raise ValueError(f"common_{name} holds numbers that are not finite")
        if self.pairs.size and not (
            self.pairs.min() >= 0 and self.pairs.max() < terms.shape[1]
        ):
            raise ValueError("common_pairs names bins that there are not")

    def parts(self, cut: int, operator: FloatArray, slopes: FloatArray) -> FloatArray:
        """Return slopes (n, n_bins) times (1 - A) D t_k, (n_terms, n, n_bins)."""
        left = (slopes - slopes @ operator) * self.scale[cut]
        return np.asarray(self.amplitudes[cut][:, np.newaxis, np.newaxis] * left)

    def cross(
        self, i: int, j: int, mine: FloatArray, its: FloatArray, shape: Sequence[int]
    ) -> FloatArray:
        """Return the part of the covariance (n, m) of two cuts that `parts` span."""
        pairs = zip(mine, grid_terms(shape), its, strict=True)
        total = sum((a @ (term @ b.T) for a, term, b in pairs), start=np.zeros(()))
        return np.asarray(self.correlation[i, j] * total)


def common_errors(
    smooth: Sequence[SmoothDifference],
    found: RealVsGenerated,
    rows: ComparedRows,
    place: IntArray,
) -> CommonErrors:
    """Return how alike the errors of smoothed cuts are; rows (n,) lie in bins."""
    sums = np.where(is_measured(found), found.real.sum_weights.reshape(-1), 0.0)
    pairs, between = between_bins(rows, place, sums)
    return CommonErrors(
        amplitudes=np.exp([cut.log_amplitudes for cut in smooth]),
        scale=np.array([cut.scale for cut in smooth]),
        correlation=outcome_correlation(found),
        pairs=pairs,
        between=between,
    )


def added_between_bins(common: CommonErrors, operator: FloatArray) -> FloatArray:
    """Return what events in several bins add to covariances (n_cuts, n_bins, n_bins).

    `operator` (n_cuts, n_bins, n_bins) smooths the differences.
    """
    added = np.zeros_like(operator)
    for cut, own in enumerate(operator if common.pairs.size else ()):
        raw = pair_matrix(common.pairs, common.between[cut, cut], len(own))
        added[cut] = own @ (raw @ own.T)
    return added


def between_cuts(
    efficiency_map: Any, slopes: Sequence[tuple[int, FloatArray]]
) -> dict[tuple[int, int], FloatArray]:
    """Return covariances between different cuts of a map, by the places of a pair.

    Args:
        efficiency_map: The map.
        slopes: Cut and derivatives (n, n_bins) by its differences; the covariance
            (n, m) of the second with the first of a pair is that of its transpose.
    """
    raw, common = efficiency_map.raw_covariance, efficiency_map.common
    pulls = [own @ efficiency_map.operator[cut] for cut, own in slopes]
    parts = [
        common.parts(cut, efficiency_map.operator[cut], own) if common else None
        for cut, own in slopes
    ]
    found = {}
    for a, (i, _) in enumerate(slopes):
        for b, (j, _) in enumerate(slopes[:a]):
            cross = (pulls[a] * raw[i, j]) @ pulls[b].T
            if common:
                shape = efficiency_map.shape
                cross = cross + common.cross(i, j, parts[a], parts[b], shape)
                if common.pairs.size:
                    n_bins = len(efficiency_map.n_eff)
                    own = pair_matrix(common.pairs, common.between[i, j], n_bins)
                    cross = cross + pulls[a] @ (own @ pulls[b].T)
            found[a, b] = np.asarray(cross)
    return found
