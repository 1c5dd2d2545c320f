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

from pidgan.arrays import FloatArray
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.efficiency.smoothing import (
    SmoothDifference,
    grid_terms,
    outcome_correlation,
)


@dataclass(frozen=True, kw_only=True)
class CommonErrors:
    """The models of the differences of all cuts, and how alike they are.

    Attributes:
        amplitudes: (n_cuts, n_terms) amplitudes t of the terms of the grid.
        scale: (n_cuts, n_bins) diagonal of D.
        correlation: (n_cuts, n_cuts) correlations rho.
    """

    amplitudes: FloatArray
    scale: FloatArray
    correlation: FloatArray

    def check(self, n_cuts: int, shape: Sequence[int]) -> None:
        """Raise a ValueError unless they are of this many cuts on this grid."""
        terms = grid_terms(shape)
        expected = {
            "amplitudes": (n_cuts, len(terms)),
            "scale": (n_cuts, terms.shape[1]),
            "correlation": (n_cuts, n_cuts),
        }
        for name, its in expected.items():
            array = getattr(self, name)
            if array.shape != its:
                raise ValueError(f"common_{name}: shape {array.shape}, expected {its}")
            if not np.isfinite(array).all():
                raise ValueError(f"common_{name} holds numbers that are not finite")

    def parts(self, cut: int, operator: FloatArray, slopes: FloatArray) -> FloatArray:
        """Return slopes (n, n_bins) times (1 - A) D t_k, (n_terms, n, n_bins)."""
        left = (slopes - slopes @ operator) * self.scale[cut]
        return np.asarray(self.amplitudes[cut][:, np.newaxis, np.newaxis] * left)

    def between(
        self, i: int, j: int, mine: FloatArray, its: FloatArray, shape: Sequence[int]
    ) -> FloatArray:
        """Return the part of the covariance (n, m) of two cuts that `parts` span."""
        pairs = zip(mine, grid_terms(shape), its, strict=True)
        total = sum((a @ (term @ b.T) for a, term, b in pairs), start=np.zeros(()))
        return np.asarray(self.correlation[i, j] * total)


def common_errors(
    smooth: Sequence[SmoothDifference], found: RealVsGenerated
) -> CommonErrors:
    """Return how alike the errors of smoothed cuts are."""
    return CommonErrors(
        amplitudes=np.exp([cut.log_amplitudes for cut in smooth]),
        scale=np.array([cut.scale for cut in smooth]),
        correlation=outcome_correlation(found),
    )


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
                cross = cross + common.between(
                    i, j, parts[a], parts[b], efficiency_map.shape
                )
            found[a, b] = np.asarray(cross)
    return found
