"""Shares of simulated rows that pass cuts near each row of data, and their covariance.

Row i of data has the share g_i of its K nearest simulated rows. A simulated row is near
several rows of data; it enters the efficiency of a bin with c_m = sum_i w_i n_im / K,
n_im = 1 if it is among the K of row i. The variance of the simulated efficiency in a
bin is therefore

    sum_m c_m^2 (p_m - g)^2 / (sum_i w_i)^2,

p_m = 1 if row m passes and g the efficiency. Of this, the spread of w (r - g) counts
sum_i w_i^2 n_im / K^2 in place of c_m^2 already, as if no row were used twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.sparse

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle import reference as reference_rows
from pidgan.bundle.card import Generator
from pidgan.efficiency.simulated_rows import SimulatedRows, warn_of_far
from pidgan.efficiency.table import EfficiencyTable
from pidgan.progress import Bar
from pidgan.sample.cuts import Cut


@dataclass(frozen=True, kw_only=True)
class SimulatedShares:
    """Nearest rows (n, K) of each row of data, and which simulated rows pass cuts.

    `passed` is (n_cuts, m); `among` (m,) tells which rows are in the denominator, None
    for all.
    """

    near: IntArray
    passed: BoolArray
    among: BoolArray | None = None

    def added_covariance(
        self, index: IntArray, weights: FloatArray, n_bins: int
    ) -> FloatArray:
        """Return what is missing in the covariance of shares, (n_cuts, n_cuts, n_bins).

        Rows of data (n,) have a bin in `index`, -1 outside. It is NaN where a bin has
        no positive sum of weights.
        """
        inside, k = index >= 0, self.near.shape[1]
        bins = np.repeat(index[inside], k)
        rows = self.near[inside].ravel()
        w = np.repeat(weights[inside] / k, k)
        shape = (n_bins, self.passed.shape[1])

        def summed(values: FloatArray) -> scipy.sparse.csr_matrix:
            return scipy.sparse.csr_matrix((values, (bins, rows)), shape=shape)

        used = summed(w)
        squares = used.multiply(used) - summed(w**2)
        squares = squares.maximum(0)
        counted = np.ones(shape[1]) if self.among is None else self.among
        total = np.asarray(used @ counted.astype(np.float64))
        total = np.where(total > 0, total, np.nan)
        # The influence of a row is p_m - g h_m, h_m = 1 if it is in the denominator.
        p = np.vstack([self.passed, counted]).astype(np.float64)
        g = np.asarray([used @ one for one in p[:-1]]) / total
        moments = np.empty((len(p), len(p), n_bins))
        for i, first in enumerate(p):
            for j, second in enumerate(p[: i + 1]):
                both = np.asarray(squares @ (first * second))
                moments[i, j] = moments[j, i] = both / total**2
        n = len(p) - 1
        own, cross, last = moments[:n, :n], moments[:n, n], moments[n, n]
        mixed = cross[:, np.newaxis] * g[np.newaxis]
        return np.asarray(
            own
            - mixed
            - mixed.transpose(1, 0, 2)
            + g[:, np.newaxis] * g[np.newaxis] * last
        )

    def added_to(
        self,
        arrays: Sequence[FloatArray],
        index: IntArray,
        weights: FloatArray,
        real: EfficiencyTable,
    ) -> Sequence[FloatArray]:
        """Return the arrays of a record with the statistics of the simulation.

        They are covariance, difference and its error, moments and their effective rows.
        """
        covariance, difference, error, moments, n_moment = map(np.array, arrays)
        n, n_bins = len(self.passed), real.sum_weights.size
        added = np.nan_to_num(self.added_covariance(index, weights, n_bins))
        covariance[n:, n:] += added
        error = np.sqrt(error**2 + np.einsum("iib->ib", added))
        # Moments are those of single rows: times sum w^2 / (sum w)^2 a covariance.
        s, s2 = (v.reshape(-1) for v in (real.sum_weights, real.sum_weights2))
        moments += added * np.where(s2 > 0, s**2 / np.where(s2 > 0, s2, 1.0), 0.0)
        return covariance, difference, error, moments, n_moment

    def take(self, chosen: BoolArray) -> "SimulatedShares":
        """Return the shares of some rows of data, chosen by a mask (n,)."""
        return replace(self, near=self.near[chosen])

    def denominator(self) -> "SimulatedShares | None":
        """Return which simulated rows are in the denominator, as outcomes of a cut."""
        if self.among is None:
            return None
        return SimulatedShares(near=self.near, passed=self.among[np.newaxis])


def shares_of(
    generator: Generator,
    cuts: Sequence[Cut],
    frame: pd.DataFrame,
    *,
    n: int,
    seed: int,
    repeats: int,
) -> SimulatedShares | None:
    """Return what a simulation adds to covariances; None for another generator.

    After the first n cuts may come the one of the denominator.
    """
    if not isinstance(generator, SimulatedRows):
        return None
    warn_of_far(generator, frame)
    passed = generator.passes(cuts)
    return SimulatedShares(
        near=_nearest(generator, frame, seed=seed, repeats=repeats),
        passed=passed[:n],
        among=passed[n] if len(passed) > n else None,
    )


def count_draws(
    generator: Generator,
    cuts: Sequence[Cut],
    frame: pd.DataFrame,
    *,
    seed: int,
    repeats: int,
    stream: str,
    bar: Bar | None = None,
) -> IntArray:
    """Return the number of draws for each row that pass cuts, (n_cuts, n).

    Of a simulation these are the nearest rows, each once.
    """
    if not isinstance(generator, SimulatedRows):
        return reference_rows.count_passing(
            generator, cuts, frame, seed=seed, repeats=repeats, stream=stream, bar=bar
        )
    near = _nearest(generator, frame, seed=seed, repeats=repeats)
    if bar is not None:
        bar.add(repeats)
    counts = [p[near].sum(axis=1) for p in generator.passes(cuts)]
    return np.array(counts, dtype=np.int64)


def _nearest(
    generator: SimulatedRows, frame: pd.DataFrame, *, seed: int, repeats: int
) -> IntArray:
    """Return the numbers of the simulated rows that are nearest to rows of data."""
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected at least 1")
    x = frame[list(generator.card.condition_names)].to_numpy(dtype=np.float64)
    return generator.nearest(x, most=repeats, seed=seed)
