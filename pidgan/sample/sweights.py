"""sWeights from an extended maximum-likelihood fit to the discriminant.

The shapes to choose from are described in `pidgan.sample.mass_shapes`. They are fitted
to a fine histogram (`pidgan.sample.mass_fit`), so that half a million rows take about a
second. With the shapes fixed, the yields are then found from the unbinned rows, and the
sWeights (package sweights) sum to the signal yield exactly. sWeights assume that in
signal and in background the discriminant is independent of conditions and targets: M.
Pivk, F. Le Diberder, arXiv:physics/0402083; H. Dembinski et al., arXiv:2112.04574.

Shapes that are fitted to the same rows follow their fluctuations. The weight of a row
therefore is the one of a fit without this row (`pidgan.sample.own_row`).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import scipy  # scipy.optimize takes long to load, and comes when it is used
from numpy.typing import ArrayLike
from scipy.special import chdtrc  # scipy.stats takes a second to load

from pidgan import higher
from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.errors import FitError, PidganWarning
from pidgan.files.frames import Rows, is_rows
from pidgan.files.tables import find_sources, read_columns
from pidgan.notebook import Facts, shown
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_fit import MassFit, fit_mass
from pidgan.sample.own_row import influence
from pidgan.sample.variables import Variable

#: Bins of the fit: a fifth of the narrowest peak in use, so nothing is lost.
N_BINS = 200
#: Bins are merged to this many expected rows before chi2 is taken.
MIN_EXPECTED = 20.0
#: Background yield over its uncertainty, below which there is none to subtract.
MIN_BACKGROUND = 2.0
#: Number of rows below which no shape can be fitted.
MIN_ROWS = 100
#: A fit with a smaller p-value describes the histogram badly, and warns.
POOR_P_VALUE = 1e-4
#: Share of the range that its variation leaves out, on either side.
RANGE_VARIATION = 0.1

_OTHER_BACKGROUND = {"exponential": "polynomial", "polynomial": "exponential"}
_OTHER_SIGNAL = {
    "gauss": "double_gauss",
    "double_gauss": "crystal_ball",
    "crystal_ball": "double_gauss",
}
Densities = tuple[FloatArray, FloatArray]
_Weights = TypeVar("_Weights")


@shown
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

    plot = higher.plot

    @property
    def summary(self) -> dict[str, Any]:
        """Result without the weights, as plain numbers and lists, for JSON."""
        found = {name: value for name, value in vars(self).items() if name != "weights"}
        for name in ("edges", "counts", "signal", "background"):
            found[name] = found[name].tolist()
        for name in ("yields", "parameters"):
            found[name] = {key: list(pair) for key, pair in found[name].items()}
        return found

    def _facts(self) -> Facts:
        (signal, error), (background, _) = (
            self.yields[name] for name in ("signal", "background")
        )
        found = {
            name: f"{value:.4g} +- {error:.2g}"
            for name, (value, error) in self.parameters.items()
        }
        return Facts(
            f"signal {signal:,.0f} +- {error:,.0f}, background {background:,.0f}, "
            f"chi2/ndof {self.chi2:.0f}/{self.n_dof}",
            {
                "rows": f"{len(self.weights):,}",
                "purity": f"{100 * signal / (signal + background):.1f} %",
                "p-value": f"{self.p_value:.2g}",
                **found,
            },
        )


@checked
def compute_sweights(
    mass: FloatArray | Sequence[float] | Rows,
    discriminant: Discriminant,
    *,
    source: str = "the sample",
) -> SweightResult:
    """Fit the discriminant and return signal sWeights.

    With densities p_s, p_b and yields N_s, N_b, the weight of a row is
    w_s = (V_ss p_s + V_sb p_b) / (N_s p_s + N_b p_b), where V is the inverse of
    sum p_i p_j / (N_s p_s + N_b p_b)^2 over rows (arXiv:physics/0402083, eq. 15).

    Args:
        mass: Values (n,) of the discriminant, MeV, all within its range; or rows in
            memory or files, of which its branch is read, in its unit.
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
    values = _values(mass, discriminant)
    where = fit_name(source, discriminant)
    _check(values, discriminant, where)
    low, high = discriminant.range
    where += unfilled(float(values.min()), float(values.max()), discriminant)
    position = (values - low) / (high - low)
    histogram, edges = np.histogram(position, bins=N_BINS, range=(0.0, 1.0))
    counts = histogram.astype(np.float64)
    fit = fit_mass(counts, edges, discriminant, where)
    densities = _densities(fit, position)
    yields = yields_of(densities, fit, where)
    return sweight_result(
        counts,
        discriminant,
        fit,
        yields,
        _weights(position, densities, fit, yields, where),
        where,
    )


def sweight_result(
    counts: FloatArray,
    discriminant: Discriminant,
    fit: MassFit,
    yields: tuple[float, float],
    weights: FloatArray,
    where: str,
) -> SweightResult:
    """Return a fit to counts (m,), and warn if it describes them poorly."""
    low, high = discriminant.range
    edges = np.linspace(0.0, 1.0, len(counts) + 1)
    shapes, errors = fit.components, (float(fit.errors[0]), float(fit.errors[1]))
    expected = [
        n * np.diff(shape.cumulative(edges))
        for n, shape in zip(yields, shapes, strict=True)
    ]
    # The two yields are parameters too.
    chi2, n_dof = _goodness(counts, expected[0] + expected[1], len(fit.values))
    p_value = float(chdtrc(n_dof, chi2)) if n_dof > 0 else 1.0
    if p_value < POOR_P_VALUE:
        warnings.warn(
            f"{where}: the fit describes the data poorly, chi2/ndof = {chi2:.0f}/"
            f"{n_dof}, p-value {p_value:.1g} (expected > {POOR_P_VALUE:g}); look at "
            "its plot, then change 'signal', 'background' or 'range'",
            PidganWarning,
            stacklevel=3,
        )
    both = zip(("signal", "background"), yields, errors, strict=True)
    return SweightResult(
        weights=weights,
        yields={name: (value, error) for name, value, error in both},
        parameters=_in_mev(fit, low, high),
        chi2=chi2,
        n_dof=n_dof,
        p_value=p_value,
        edges=low + (high - low) * edges,
        counts=counts,
        signal=expected[0],
        background=expected[1],
    )


def alternative_sweights(
    mass: ArrayLike, discriminant: Discriminant, *, source: str = "the sample"
) -> dict[str, FloatArray]:
    """Return the sWeights of other mass fits, for a systematic uncertainty.

    "background" has the other shape of background, "signal" another shape of the peak.
    "range" has a range that is shorter by a tenth on either side, and weight 0 for the
    rows outside of it. `mass` (n,) is in MeV. A fit that fails or does not describe the
    data is left out.
    """
    values = np.asarray(mass, dtype=np.float64)

    def weigh(other: Discriminant) -> tuple[SweightResult, FloatArray]:
        low, high = other.range
        inside = (values >= low) & (values <= high)
        result = compute_sweights(values[inside], other, source=source)
        weights = np.zeros(len(values))
        weights[inside] = result.weights
        return result, weights

    return good_alternatives(discriminant, weigh)


def good_alternatives(
    discriminant: Discriminant,
    weigh: Callable[[Discriminant], tuple[SweightResult, _Weights]],
) -> dict[str, _Weights]:
    """Return the weights of other fits by name, of those that describe the data."""
    found: dict[str, _Weights] = {}
    for name, other in alternatives_of(discriminant).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PidganWarning)
            try:
                result, weights = weigh(other)
            except FitError:
                continue
        if result.p_value >= POOR_P_VALUE and sum_of(result) > 0:
            found[name] = weights
    return found


def alternatives_of(discriminant: Discriminant) -> dict[str, Discriminant]:
    """Return the other fits by name."""
    low, high = discriminant.range
    less = RANGE_VARIATION * (high - low)
    changes: dict[str, dict[str, Any]] = {
        "background": {"background": _OTHER_BACKGROUND[discriminant.background]},
        "signal": {"signal": _OTHER_SIGNAL[discriminant.signal]},
        "range": {"range": (low + less, high - less)},
    }
    return {
        name: discriminant.model_copy(update=change) for name, change in changes.items()
    }


def sum_of(result: SweightResult) -> float:
    """Return the sum of weights of a fit: its signal yield where it has no rows."""
    if not len(result.weights):
        return result.yields["signal"][0]
    return float(result.weights.sum())


def fit_name(source: str, discriminant: Discriminant) -> str:
    """Return what messages call a fit."""
    return f"mass fit of {source} in {discriminant.branch!r}"


def _values(mass: Any, discriminant: Discriminant) -> FloatArray:
    """Return the values (n,) of the discriminant, MeV."""
    if not is_rows(mass):
        return np.asarray(mass, dtype=np.float64)
    branch = discriminant.branch
    read = Variable(name=branch, unit=discriminant.unit, range=discriminant.range)
    frames = [read_columns(one, [branch]) for one in find_sources(mass)]
    return np.concatenate([read.evaluate(frame) for frame in frames])


def _check(values: FloatArray, discriminant: Discriminant, where: str) -> None:
    if values.ndim != 1:
        raise ValueError(f"mass has shape {values.shape}, expected (n,)")
    check_rows(len(values), where)
    low, high = discriminant.range
    outside = int(np.sum(~((values >= low) & (values <= high))))
    if outside:
        raise FitError(
            f"{where}: {outside} of {len(values)} rows are NaN or outside "
            f"[{low:g}, {high:g}] MeV; drop them first"
        )


def check_rows(n: int, where: str) -> None:
    """Raise a FitError if there are too few rows for a fit."""
    if n < MIN_ROWS:
        raise FitError(f"{where}: {n} rows, at least {MIN_ROWS} are needed")


def unfilled(first: float, last: float, discriminant: Discriminant) -> str:
    """Return a note if the rows do not fill the range: shapes then cannot fit."""
    low, high = discriminant.range
    if first - low < 0.03 * (high - low) and high - last < 0.03 * (high - low):
        return ""
    return f" (rows span {first:.6g} to {last:.6g}, 'range' is {low:g} to {high:g})"


def _densities(fit: MassFit, position: FloatArray) -> Densities:
    """Return the densities (n,) of signal and background."""
    peak, floor = (shape.density(position) for shape in fit.components)
    return peak, floor


def yields_of(
    densities: Densities,
    fit: MassFit,
    where: str,
    *,
    counts: FloatArray | None = None,
) -> tuple[float, float]:
    """Maximise the likelihood in the yields alone; their sum is the number of rows.

    Densities (n,) are those of each row, or of each bin with its `counts` (n,).
    """
    peak, floor = densities
    difference, total, part = peak - floor, np.empty_like(peak), np.empty_like(peak)
    n = float(len(peak) if counts is None else counts.sum())

    def slope(fraction: float) -> float:
        np.multiply(peak, fraction, out=total)
        np.multiply(floor, 1 - fraction, out=part)
        np.add(total, part, out=total)
        np.divide(difference, total, out=total)
        return float(np.sum(total if counts is None else total * counts))

    ends = (1e-6, 1 - 1e-6)
    with np.errstate(all="ignore"):
        if not slope(ends[0]) > 0 > slope(ends[1]):
            raise _pure(where, "the fitted yield is at the limit of its range")
        fraction = scipy.optimize.brentq(slope, *ends, xtol=1e-15, rtol=1e-14)
    n_signal, n_background = fraction * n, (1 - fraction) * n
    error = float(fit.errors[1])
    if n_background < MIN_BACKGROUND * error:
        account = f"{n_background:.0f} +- {error:.0f} of {n:.0f} rows"
        raise _pure(where, f"background {account}")
    return float(n_signal), float(n_background)


def _pure(where: str, account: str) -> FitError:
    return FitError(
        f"{where} cannot tell signal from background ({account}): give "
        "more rows or a simpler 'signal'; if there is no background, set "
        "unweighted = true"
    )


def _weights(
    position: FloatArray,
    densities: Densities,
    fit: MassFit,
    yields: tuple[float, float],
    where: str,
) -> FloatArray:
    from sweights import Cows

    peak, floor = densities
    # Computed by summing over rows, which makes the sum rule exact. Cows asks for the
    # densities of these rows a dozen times.
    cows = Cows(
        position,
        lambda _: peak,
        lambda _: floor,
        yields=list(yields),
        range=(0.0, 1.0),
    )
    weights = np.asarray(cows(position), dtype=np.float64)
    check_sum(float(weights.sum()), yields, where)
    weights += influence(position, fit, yields)
    return np.asarray(weights * (yields[0] / weights.sum()))


def check_sum(total: float, yields: tuple[float, float], where: str) -> None:
    """Raise a FitError if sWeights do not sum to the yield of the signal."""
    if not np.isclose(total, yields[0], rtol=1e-6):
        raise FitError(
            f"{where}: the sWeights sum to {total:.6g}, expected the signal "
            f"yield {yields[0]:.6g}; signal and background are too alike"
        )


def _goodness(
    counts: FloatArray, expected: FloatArray, n_parameters: int
) -> tuple[float, int]:
    """Return chi2 and degrees of freedom in bins of at least `MIN_EXPECTED` rows."""
    merged: list[tuple[float, float]] = []
    n = mu = 0.0
    for count, value in zip(counts, expected, strict=True):
        n, mu = n + float(count), mu + float(value)
        if mu >= MIN_EXPECTED:
            merged.append((n, mu))
            n = mu = 0.0
    if merged:
        merged[-1] = (merged[-1][0] + n, merged[-1][1] + mu)
    observed, model = np.array(merged).T if merged else np.zeros((2, 0))
    return float(np.sum((observed - model) ** 2 / model)), len(merged) - n_parameters


def _in_mev(fit: MassFit, low: float, high: float) -> dict[str, tuple[float, float]]:
    """Convert from the unit interval; ratios and powers have no unit."""
    span = high - low
    factors = {"mean": span, "width": span, "rate": 1 / span}
    found = {}
    for name, value, error in zip(
        fit.names, fit.values[2:], fit.errors[2:], strict=True
    ):
        factor = factors.get(name, 1.0)
        start = low if name == "mean" else 0.0
        found[name] = (float(start + factor * value), float(factor * error))
    return found
