"""Sums over the rows of a control sample: both efficiencies, and covariances."""

from typing import Any

import numpy as np
from scipy.special import chdtrc  # scipy.stats takes a second to load

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.control_rows import ControlRows
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.smoothing import PRIOR_EVENTS
from pidgan.sample.mass_fit_pass_fail import count_signal, fit_all


class Comparison:
    """The rows of a control sample with the prediction of each, (n_cuts, n)."""

    def __init__(
        self,
        rows: ControlRows,
        efficiency_map: EfficiencyMap,
        numbers: list[int],
        place: IntArray,
        predicted: FloatArray,
    ) -> None:
        self.rows, self.map, self.numbers = rows, efficiency_map, numbers
        self.place, self.predicted = place, predicted
        self.start = None
        if rows.position is not None and rows.shape is not None:
            where = f"mass fit of {rows.source} in {rows.shape.branch!r}"
            self.start = fit_all(rows.position[place >= 0], rows.shape, where)

    def shares(self, cell: IntArray, n_cells: int) -> FloatArray:
        """Return the share of the weights of each bin in bins of the map."""
        n_bins = len(self.map.n_eff)
        use = cell >= 0
        flat = cell[use] * n_bins + self.place[use]
        sums = np.bincount(flat, self.rows.weights[use], n_cells * n_bins)
        sums = sums.reshape(n_cells, n_bins)
        norm = sums.sum(axis=1, keepdims=True)
        return np.where(norm > 0, sums / np.where(norm > 0, norm, 1), np.nan)

    def compare(self, cell: IntArray, n_cells: int) -> dict[str, Any]:
        """Return efficiencies, (n_cuts, n_cells) each, and covariances of c - p."""
        w, use = self.rows.weights[cell >= 0], cell >= 0
        at = cell[use]

        def total(values: FloatArray) -> FloatArray:
            return np.bincount(at, values, n_cells).astype(np.float64)

        s, s2, s4 = total(w), total(w**2), total(w**4)
        usable = s > 0
        norm = np.where(usable, s, 1.0)
        r, p = self.rows.passed[:, use].astype(float), self.predicted[:, use]
        real, mean = (
            np.where(usable, np.array([total(w * v) for v in values]) / norm, np.nan)
            for values in (r, p)
        )
        squares = np.array([total((w * v) ** 2) for v in r - p])
        moment_rows = np.divide(s2**2, s4, out=np.zeros_like(s), where=s4 > 0)
        n = np.divide(s**2, s2, out=np.zeros_like(s), where=s2 > 0)
        # Few rows may all agree by chance: what is expected counts as a few events.
        q = (n * np.clip(mean, 0, 1) + 0.5) / (n + 1)
        typical = q * (1 - q)
        above = np.nansum(squares, axis=1) / np.nansum(typical * s2, axis=1)
        typical = typical * np.maximum(above, 1.0)[:, np.newaxis]
        seen = np.divide(squares, s2, out=np.zeros_like(squares), where=s2 > 0)
        events = moment_rows * typical
        known = (events * seen + PRIOR_EVENTS * typical) / (events + PRIOR_EVENTS)
        variance = np.where(usable, known * s2 / norm**2, np.nan)
        problems: dict[tuple[int, int], str] = {}
        p_values = np.full(real.shape, np.nan)
        if self.start is not None and self.rows.position is not None:
            pairs = zip(r, real, strict=True)
            spread = np.array([total((w * (v - e[at])) ** 2) for v, e in pairs])
            fitted = count_signal(
                self.rows.position,
                self.rows.passed,
                cell,
                n_bins=n_cells,
                start=self.start,
            )
            # The spread of conditions is common to the fit and the prediction.
            common = np.divide(
                known * s2, spread, out=np.ones_like(spread), where=spread > 0
            )
            real, problems, p_values = (
                fitted.efficiency,
                fitted.problems,
                fitted.p_value,
            )
            variance = fitted.variance * np.clip(common, 0.2, 1.5)
        difference = (r - p) * w
        joint = (
            np.array([[total(a * b) for b in difference] for a in difference]) / norm**2
        )
        return {
            "control": real,
            "predicted": mean,
            "variance": variance,
            "n_eff": n,
            "usable": usable,
            "problems": problems,
            "p_values": p_values,
            "shares": np.nan_to_num(self.shares(cell, n_cells)),
            "joint": _rescaled(joint[:, :, 0], variance[:, 0]),
        }

    def map_covariance(self, i: int, shares: FloatArray) -> FloatArray:
        """Return the covariance of the predictions of a cut in bins with shares."""
        number = self.numbers[i]
        result = shares @ self.map.covariance[number] @ shares.T
        for shift in self.map.variations.values():
            moved = shares @ shift[number]
            result = result + np.outer(moved, moved)
        return np.asarray(result)


def _rescaled(covariance: FloatArray, variance: FloatArray) -> FloatArray:
    """Return a covariance with its correlations and other variances."""
    size = np.sqrt(np.diag(covariance))
    scale = np.divide(np.sqrt(variance), size, out=np.zeros_like(size), where=size > 0)
    result = covariance * np.outer(scale, scale)
    result[np.diag_indices_from(result)] = variance
    return np.asarray(result)


def chi2_of(difference: FloatArray, covariance: FloatArray) -> tuple[float, int]:
    """Return the chi-square of differences (n,), and its degrees of freedom."""
    if not len(difference):
        return 0.0, 0
    inverse = np.linalg.pinv(covariance, hermitian=True)
    return float(difference @ inverse @ difference), len(difference)


def chi2_of_constant(
    c: FloatArray, p: FloatArray, covariance: FloatArray
) -> tuple[float, int]:
    """Return chi2 and degrees of freedom of c = factor * p with the best factor."""
    if len(c) < 2:
        return 0.0, 0
    inverse = np.linalg.pinv(covariance, hermitian=True)
    factor = float(p @ inverse @ c / (p @ inverse @ p))
    rest = c - factor * p
    return float(rest @ inverse @ rest), len(c) - 1


def p_value_of(chi2: float, n_dof: int) -> float:
    """Return the probability of a larger chi-square."""
    return float(chdtrc(n_dof, chi2)) if n_dof > 0 else 1.0
