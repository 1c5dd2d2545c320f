"""sWeights from an extended maximum-likelihood fit to the discriminant.

The shapes to choose from are described in `pidgan.sample.mass_shapes`. They are fitted
to a fine histogram (iminuit), so that half a million rows take about a second. With the
shapes fixed, the yields are then found from the unbinned rows, and the sWeights
(package sweights) sum to the signal yield exactly. sWeights assume that in signal and
in background the discriminant is independent of conditions and targets: M. Pivk, F. Le
Diberder, arXiv:physics/0402083; H. Dembinski et al., arXiv:2112.04574.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2 as chi2_distribution

from pidgan.arrays import FloatArray
from pidgan.errors import FitError, PidganWarning
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_fit import MassFit, fit_mass

#: Fewer rows than this determine no shape.
MIN_ROWS = 100
#: A fit with a smaller p-value describes the histogram badly enough to be looked at.
POOR_P_VALUE = 1e-4
#: Share of the range that its variation leaves out, on either side.
RANGE_VARIATION = 0.1

_OTHER_BACKGROUND = {"exponential": "polynomial", "polynomial": "exponential"}
_OTHER_SIGNAL = {
    "gauss": "double_gauss",
    "double_gauss": "crystal_ball",
    "crystal_ball": "double_gauss",
}


@dataclass(frozen=True, kw_only=True)
class SweightResult:
    """sWeights and the fit that gave them.

    Attributes:
        weights: Signal sWeights (n,), whose sum is the signal yield.
        yields: Number of rows and its uncertainty for "signal" and "background".
        parameters: Value and uncertainty of each shape parameter; masses in MeV.
        chi2: Chi-square of the histogram, in bins of at least 20 expected rows.
        n_dof: Degrees of freedom of the chi-square.
        p_value: Probability of a larger chi-square.
        edges: Bin edges (m + 1,) of the fit, MeV.
        counts: Rows in each bin (m,).
        signal: Fitted signal in each bin (m,).
        background: Fitted background in each bin (m,).
    """

    weights: FloatArray
    yields: dict[str, tuple[float, float]]
    parameters: dict[str, tuple[float, float]]
    chi2: float
    n_dof: int
    p_value: float
    edges: FloatArray
    counts: FloatArray
    signal: FloatArray
    background: FloatArray

    @property
    def summary(self) -> dict[str, Any]:
        """Result without the weights, as plain numbers and lists, for JSON."""
        return {
            "yields": {name: list(pair) for name, pair in self.yields.items()},
            "parameters": {name: list(pair) for name, pair in self.parameters.items()},
            "chi2": self.chi2,
            "n_dof": self.n_dof,
            "p_value": self.p_value,
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "signal": self.signal.tolist(),
            "background": self.background.tolist(),
        }


def compute_sweights(
    mass: ArrayLike, discriminant: Discriminant, *, source: str = "the sample"
) -> SweightResult:
    """Fit the discriminant and return signal sWeights.

    With densities p_s, p_b and yields N_s, N_b, the weight of a row is
    w_s = (V_ss p_s + V_sb p_b) / (N_s p_s + N_b p_b), where V is the inverse of
    sum p_i p_j / (N_s p_s + N_b p_b)^2 over rows (arXiv:physics/0402083, eq. 15).

    Args:
        mass: Values (n,) of the discriminant, MeV, all within its range.
        discriminant: Range and shapes of the fit.
        source: Name of the input in messages.

    Returns:
        The weights and the fit; a fit with a p-value below 1e-4 warns.

    Raises:
        FitError: There are too few rows, there is no peak or no background, or the fit
            does not converge.

    Example:
        >>> shape = Discriminant(branch="D0_M", range=(1815, 1915))  # doctest: +SKIP
        >>> compute_sweights(mass, shape).weights.sum()  # doctest: +SKIP
    """
    values = np.asarray(mass, dtype=np.float64)
    where = f"mass fit of {source} in {discriminant.branch!r}"
    _check(values, discriminant, where)
    low, high = discriminant.range
    where += _unfilled(values, low, high)
    position = (values - low) / (high - low)
    fit = fit_mass(position, discriminant, where=where)
    weights = _weights(position, fit, where)
    p_value = float(chi2_distribution.sf(fit.chi2, fit.n_dof)) if fit.n_dof > 0 else 1.0
    if p_value < POOR_P_VALUE:
        warnings.warn(
            f"{where}: the fit describes the data poorly, chi2/ndof = {fit.chi2:.0f}/"
            f"{fit.n_dof}, p-value {p_value:.1g} (expected > {POOR_P_VALUE:g}); look "
            f"at its plot, then change 'signal', 'background' or 'range' of the "
            f"discriminant",
            PidganWarning,
            stacklevel=2,
        )
    both = zip(("signal", "background"), fit.yields, fit.yield_errors, strict=True)
    return SweightResult(
        weights=weights,
        yields={name: (value, error) for name, value, error in both},
        parameters=_in_mev(fit.parameters, low, high),
        chi2=fit.chi2,
        n_dof=fit.n_dof,
        p_value=p_value,
        edges=low + (high - low) * fit.edges,
        counts=fit.counts,
        signal=fit.expected[0],
        background=fit.expected[1],
    )


def alternative_sweights(
    mass: ArrayLike, discriminant: Discriminant, *, source: str = "the sample"
) -> dict[str, FloatArray]:
    """Return the sWeights of other mass fits, for a systematic uncertainty.

    "background" has the other shape of background, "signal" another shape of the peak.
    "range" has a range that is shorter by a tenth on either side, and weight 0 for the
    rows outside of it. A fit that fails or does not describe the data is left out.

    Args:
        mass: Values (n,) of the discriminant, MeV, all within its range.
        discriminant: Range and shapes of the nominal fit.
        source: Name of the input in messages.

    Returns:
        Weights (n,) by name of the fit.
    """
    values = np.asarray(mass, dtype=np.float64)
    low, high = discriminant.range
    less = RANGE_VARIATION * (high - low)
    changes: dict[str, dict[str, Any]] = {
        "background": {"background": _OTHER_BACKGROUND[discriminant.background]},
        "signal": {"signal": _OTHER_SIGNAL[discriminant.signal]},
        "range": {"range": (low + less, high - less)},
    }
    found: dict[str, FloatArray] = {}
    for name, change in changes.items():
        other = discriminant.model_copy(update=change)
        inside = (values >= other.range[0]) & (values <= other.range[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PidganWarning)
            try:
                result = compute_sweights(values[inside], other, source=source)
            except FitError:
                continue
        if result.p_value >= POOR_P_VALUE and result.weights.sum() > 0:
            found[name] = np.zeros(len(values))
            found[name][inside] = result.weights
    return found


def _check(values: FloatArray, discriminant: Discriminant, where: str) -> None:
    if values.ndim != 1:
        raise ValueError(f"mass has shape {values.shape}, expected (n,)")
    if len(values) < MIN_ROWS:
        raise FitError(f"{where}: {len(values)} rows, at least {MIN_ROWS} are needed")
    low, high = discriminant.range
    outside = int(np.sum(~((values >= low) & (values <= high))))
    if outside:
        raise FitError(
            f"{where}: {outside} of {len(values)} rows are NaN or outside "
            f"[{low:g}, {high:g}] MeV; drop them first"
        )


def _unfilled(values: FloatArray, low: float, high: float) -> str:
    """Say so if the rows end well within the fitted range: shapes then cannot fit."""
    first, last = float(values.min()), float(values.max())
    if first - low < 0.03 * (high - low) and high - last < 0.03 * (high - low):
        return ""
    return f" (rows span {first:.6g} to {last:.6g}, 'range' is {low:g} to {high:g})"


def _weights(position: FloatArray, fit: MassFit, where: str) -> FloatArray:
    from sweights import Cows

    # Computed by summing over rows, which makes the sum rule exact.
    cows = Cows(
        position,
        lambda x: fit.signal.density(x),
        lambda x: fit.background.density(x),
        yields=list(fit.yields),
        range=(0.0, 1.0),
    )
    weights = np.asarray(cows(position), dtype=np.float64)
    if not np.isclose(weights.sum(), fit.yields[0], rtol=1e-6):
        raise FitError(
            f"{where}: the sWeights sum to {weights.sum():.6g}, expected the signal "
            f"yield {fit.yields[0]:.6g}; signal and background are too alike"
        )
    return weights


def _in_mev(
    parameters: dict[str, tuple[float, float]], low: float, high: float
) -> dict[str, tuple[float, float]]:
    """Convert from the unit interval; ratios and powers have no unit."""
    span = high - low
    scale = {"mean": span, "width": span, "rate": 1 / span}
    shift = {"mean": low}
    return {
        name: (
            shift.get(name, 0.0) + scale.get(name, 1.0) * value,
            scale.get(name, 1.0) * error,
        )
        for name, (value, error) in parameters.items()
    }
