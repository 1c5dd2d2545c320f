"""What a perfect generator would show on the very rows of a comparison.

Real and generated targets of a row belong to the same conditions and weight, so that a
perfect generator would not notice if the two were exchanged. Exchanging them in a
random half of the rows turns a difference of the two samples,

    D_b = sum w (1[generated in b] - 1[real in b]),

into sum s w (1[generated in b] - 1[real in b]) with random signs s: its expectation is
0 and its variance that of D_b, for weights of any sign (a wild bootstrap, Wu, Ann.
Statist. 14 (1986) 1261). Any figure of the D_b thus has a distribution for a perfect
generator, which knows the correlations of bins. A projection is a set of bins with an
order; its figures are the chi2, the largest pull, and the chi2 of the largest run: of
neighbouring bins whose pulls have one sign (Beaujean and Caldwell, J. Stat. Plan.
Inference 141 (2011) 3437). A coherent distortion of many small pulls is seen by runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from pidgan.arrays import FloatArray, IntArray
from pidgan.report.verdict import sigmas

REPLICAS = 300  # they give mean and spread to 6 and 4 % of the spread
BLOCK_ROWS = 50_000  # rows whose signs are in memory at a time


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Sums D (m,) of generated minus real weights, with exchanged ones (REPLICAS, m).

    The standard deviation of each sum is that of exchanged rows.
    """

    value: FloatArray
    deviation: FloatArray
    exchanged: FloatArray

    def part(self, places: Any) -> "Differences":
        """Return some of the sums."""
        return Differences(
            value=self.value[places],
            deviation=self.deviation[places],
            exchanged=self.exchanged[:, places],
        )


def exchange(
    weights: ArrayLike,
    pairs: Sequence[tuple[IntArray, IntArray]],
    n_bins: int,
    *,
    seed: int,
) -> Differences:
    """Return the differences of bins, and those after rows have been exchanged.

    Args:
        weights: (n,) Weights of the rows, of any sign.
        pairs: Bins (n,) of the real and of the generated values of each row, negative
            if they have none; several pairs have distinct bins.
        n_bins: Number of all bins.
        seed: Seed of the signs.
    """
    w = np.asarray(weights, dtype=np.float64)
    value, squares = np.zeros((2, n_bins))
    exchanged = np.zeros((n_bins, REPLICAS))
    for number, start in enumerate(range(0, len(w), BLOCK_ROWS)):
        rows = slice(start, start + BLOCK_ROWS)
        steps = _steps(w[rows], [(r[rows], g[rows]) for r, g in pairs], n_bins)
        bits = np.random.default_rng([seed, number]).integers(
            0, 2, (steps.shape[1], REPLICAS), dtype=np.int8
        )
        exchanged += steps @ (2.0 * bits.astype(np.float32) - 1.0)
        value += np.asarray(steps.sum(axis=1)).ravel()
        squares += np.asarray(steps.multiply(steps).sum(axis=1)).ravel()
    return Differences(
        value=value, deviation=np.sqrt(squares), exchanged=exchanged.T.copy()
    )


def _steps(
    w: FloatArray, pairs: Sequence[tuple[IntArray, IntArray]], n_bins: int
) -> Any:
    """Sparse (n_bins, n) of what each row adds to each difference."""
    rows = np.arange(len(w))
    places, columns, values = [], [], []
    for real, generated in pairs:
        moved = real != generated
        for index, sign in ((real, -1.0), (generated, 1.0)):
            use = moved & (index >= 0)
            places.append(index[use])
            columns.append(rows[use])
            values.append(sign * w[use])
    entries = np.concatenate(values), (np.concatenate(places), np.concatenate(columns))
    return sparse.csr_array(entries, shape=(n_bins, len(w)))


def largest_ks(sums: Differences, total: ArrayLike, shape: tuple[int, int]) -> float:
    """Return the pull of the mean KS distance of groups of ordered bins.

    `total` (groups,) are their sums of weights, `shape` groups and bins in each.
    """
    scale = np.asarray(total, dtype=np.float64)

    def mean(values: FloatArray) -> FloatArray:
        steps = np.cumsum(values.reshape(*values.shape[:-1], *shape), axis=-1)
        return np.asarray(np.mean(np.abs(steps).max(axis=-1) / scale, axis=-1))

    found = sigmas(float(mean(sums.value)), mean(sums.exchanged))
    return float("nan") if found is None else found


def projection(
    sums: Differences,
    labels: Sequence[str],
    *,
    error: ArrayLike | None = None,
    ordered: bool = True,
) -> dict[str, Any] | None:
    """Return chi2, largest pull and largest run of bins, each with its own pull.

    Args:
        sums: Differences of the bins.
        labels: Text of each bin.
        error: (m,) Errors of the differences; None means those of exchanged rows. Bins
            without a positive error do not count.
        ordered: Whether neighbours are close to one another, so that runs make sense.
    """
    e = sums.deviation if error is None else np.asarray(error, dtype=np.float64)
    use = np.flatnonzero(np.isfinite(e) & (e > 0) & (sums.deviation > 0))
    if len(use) < 2:
        return None
    pulls, null = sums.value[use] / e[use], sums.exchanged[:, use] / e[use]
    chi2, chi2_null = float(np.sum(pulls**2)), np.sum(null**2, axis=1)
    at = int(np.argmax(np.abs(pulls)))
    found = {
        "chi2": chi2,
        "ndf": len(use),
        **_beside("chi2", chi2, chi2_null),
        "largest_pull": float(pulls[at]),
        "largest_at": labels[use[at]],
        **_beside("largest_pull", abs(float(pulls[at])), np.abs(null).max(axis=1)),
    }
    if not ordered:
        return found
    runs, first, last = largest_run(np.concatenate([pulls[None], null]))
    return found | {
        "run_chi2": float(runs[0]),
        "run_bins": int(last[0] - first[0] + 1),
        "run_sign": int(np.sign(pulls[first[0]])),
        "run_from": labels[use[first[0]]],
        "run_to": labels[use[last[0]]],
        **_beside("run", float(runs[0]), runs[1:]),
    }


def _beside(name: str, value: float, null: FloatArray) -> dict[str, float | None]:
    """Floor of a figure: its mean for exchanged rows; its spread; and its pull."""
    return {
        f"{name}_floor": float(null.mean()),
        f"{name}_spread": float(null.std(ddof=1)),
        f"{name}_pull": sigmas(value, null),
    }


def largest_run(pulls: ArrayLike) -> tuple[FloatArray, IntArray, IntArray]:
    """Return the largest sum of squares in runs of one sign, its first and last bin.

    Pulls are (k, m), and so the three results are (k,).
    """
    p = np.atleast_2d(np.asarray(pulls, dtype=np.float64))
    most, start = np.zeros(len(p)), np.zeros(len(p), np.int64)
    first, last = start.copy(), start.copy()
    now, before = np.zeros(len(p)), np.zeros(len(p))
    for b, column in enumerate(p.T):
        goes_on = (np.sign(column) == before) & (b > 0)
        now = np.where(goes_on, now, 0.0) + column**2
        start = np.where(goes_on, start, b)
        before = np.sign(column)
        larger = now > most
        most, first = np.where(larger, now, most), np.where(larger, start, first)
        last = np.where(larger, b, last)
    return most, first, last
