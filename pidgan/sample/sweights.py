"""sWeights from an extended maximum-likelihood fit to the discriminant.

The shapes to choose from are described in `pidgan.sample.mass_shapes`. They are fitted
to a fine histogram (iminuit), so that half a million rows take about a second. With the
shapes fixed, the yields are then found from the unbinned rows, and the sWeights
(package sweights) sum to the signal yield exactly. sWeights assume that in signal and
in background the discriminant is independent of conditions and targets: M. Pivk, F. Le
Diberder, arXiv:physics/0402083; H. Dembinski et al., arXiv:2112.04574.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import chi2 as chi2_distribution

from pidgan.arrays import FloatArray
from pidgan.errors import FitError, PidganWarning
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_shapes import BACKGROUNDS, MEAN, SIGNALS, WIDTH, Component

#: Bins of the fit: a fifth of the narrowest peak in use, so nothing is lost.
N_BINS = 200
#: Bins are merged to this many expected rows before chi2 is taken.
MIN_EXPECTED = 20.0
#: Signal yield over its uncertainty, below which there is no peak to weight.
MIN_SIGNIFICANCE = 4.0
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
_Shapes = tuple[Component, Component]


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
        found = {name: value for name, value in vars(self).items() if name != "weights"}
        for name in ("edges", "counts", "signal", "background"):
            found[name] = found[name].tolist()
        for name in ("yields", "parameters"):
            found[name] = {key: list(pair) for key, pair in found[name].items()}
        return found


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
    histogram, edges = np.histogram(position, bins=N_BINS, range=(0.0, 1.0))
    counts = histogram.astype(np.float64)
    shapes, parameters, errors = _fit(counts, edges, discriminant, where)
    yields = _unbinned_yields(position, shapes, errors, where)
    expected = [
        n * np.diff(shape.cumulative(edges))
        for n, shape in zip(yields, shapes, strict=True)
    ]
    # The two yields are parameters too.
    chi2, n_dof = _goodness(counts, expected[0] + expected[1], len(parameters) + 2)
    p_value = float(chi2_distribution.sf(chi2, n_dof)) if n_dof > 0 else 1.0
    if p_value < POOR_P_VALUE:
        warnings.warn(
            f"{where}: the fit describes the data poorly, chi2/ndof = {chi2:.0f}/"
            f"{n_dof}, p-value {p_value:.1g} (expected > {POOR_P_VALUE:g}); look at "
            "its plot, then change 'signal', 'background' or 'range'",
            PidganWarning,
            stacklevel=2,
        )
    both = zip(("signal", "background"), yields, errors, strict=True)
    return SweightResult(
        weights=_weights(position, shapes, yields, where),
        yields={name: (value, error) for name, value, error in both},
        parameters=_in_mev(parameters, low, high),
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
    """Return a note if the rows do not fill the range: shapes then cannot fit."""
    first, last = float(values.min()), float(values.max())
    if first - low < 0.03 * (high - low) and high - last < 0.03 * (high - low):
        return ""
    return f" (rows span {first:.6g} to {last:.6g}, 'range' is {low:g} to {high:g})"


def _start(counts: FloatArray) -> tuple[float, float, float]:
    """Guess position and width of the peak and its share, sidebands subtracted."""
    n = len(counts)
    side = n // 10
    left, right = counts[:side].mean(), counts[-side:].mean()
    excess = counts - np.linspace(left, right, n)
    smooth = np.convolve(excess, np.ones(5) / 5, mode="same")
    peak = int(np.argmax(smooth))
    below = np.flatnonzero(~(smooth > 0.5 * smooth[peak]))
    first = int(below[below < peak].max(initial=-1)) + 1
    last = int(below[below > peak].min(initial=n)) - 1
    width = (last - first + 1) / n / 2.355  # full width at half maximum of a Gaussian
    share = float(np.clip(excess.sum() / counts.sum(), 0.05, 0.95))
    return float(np.clip((peak + 0.5) / n, 0.05, 0.95)), width, share


def _fit(
    counts: FloatArray, edges: FloatArray, discriminant: Discriminant, where: str
) -> tuple[_Shapes, dict[str, tuple[float, float]], tuple[float, float]]:
    """Return signal and background, their parameters, and the errors of the yields."""
    try:
        from iminuit import Minuit
        from iminuit.cost import ExtendedBinnedNLL
    except ImportError:
        raise FitError(
            f"{where} needs iminuit and sweights: install pidgan's extra 'train'"
        ) from None

    signal = SIGNALS[discriminant.signal]
    background = BACKGROUNDS[discriminant.background]
    split = 2 + len(signal.names)

    def components(p: Sequence[float]) -> _Shapes:
        return (
            Component(shape=signal, parameters=tuple(p[2:split])),
            Component(shape=background, parameters=tuple(p[split:])),
        )

    def expected(x: FloatArray, p: Sequence[float]) -> FloatArray:
        peak, floor = components(p)
        return p[0] * peak.cumulative(x) + p[1] * floor.cumulative(x)

    n = float(counts.sum())
    mean, width, share = _start(counts)
    guess = (*signal.start(mean, width), *background.start(mean, width))
    names = (*signal.names, *background.names)
    minuit = Minuit(
        ExtendedBinnedNLL(counts, edges, expected),
        (share * n, (1 - share) * n, *guess),
        name=("signal", "background", *names),
    )
    minuit.limits = ((0, 2 * n), (0, 2 * n), *signal.limits, *background.limits)
    minuit.strategy = 1
    minuit.migrad(ncall=20_000)
    if not minuit.valid:
        minuit.simplex(ncall=5_000)
        minuit.migrad(ncall=20_000)
    if not minuit.valid:
        raise FitError(
            f"{where} did not converge after {minuit.nfcn} calls ({discriminant.signal}"
            f" + {discriminant.background}, {int(n)} rows); try a simpler 'signal' or "
            f"'background', or another 'range'"
        )
    values, errors = minuit.values, minuit.errors
    if values["signal"] < MIN_SIGNIFICANCE * errors["signal"]:
        raise FitError(
            f"{where} finds no signal: {values['signal']:.0f} +- "
            f"{errors['signal']:.0f} rows; check that branch, 'unit' and 'range' of "
            f"the discriminant hold the peak"
        )
    for name, (low, high) in (("mean", MEAN), ("width", WIDTH)):
        if not low * 1.01 < values[name] < high * 0.99:
            raise FitError(
                f"{where}: the fitted {name} is at the limit of its range; "
                f"check that 'range' = {list(discriminant.range)} holds the whole peak"
            )
    parameters = {name: (values[name], errors[name]) for name in names}
    return components(values), parameters, (errors["signal"], errors["background"])


def _unbinned_yields(
    position: FloatArray, shapes: _Shapes, errors: tuple[float, float], where: str
) -> tuple[float, float]:
    """Maximise the likelihood in the yields alone; their sum is the number of rows."""
    peak, floor = (shape.density(position) for shape in shapes)

    def slope(fraction: float) -> float:
        total = fraction * peak + (1 - fraction) * floor
        return float(np.sum((peak - floor) / total))

    ends = (1e-6, 1 - 1e-6)
    with np.errstate(all="ignore"):
        if not slope(ends[0]) > 0 > slope(ends[1]):
            raise _pure(where, "the fitted yield is at the limit of its range")
        fraction = brentq(slope, *ends, xtol=1e-15, rtol=1e-14)
    n_signal, n_background = fraction * len(position), (1 - fraction) * len(position)
    if n_background < MIN_BACKGROUND * errors[1]:
        raise _pure(where, f"{n_background:.0f} +- {errors[1]:.0f} rows")
    return float(n_signal), float(n_background)


def _pure(where: str, account: str) -> FitError:
    return FitError(
        f"{where} cannot tell signal from background ({account}); if there is "
        f"no background, set unweighted = true"
    )


def _weights(
    position: FloatArray, shapes: _Shapes, yields: tuple[float, float], where: str
) -> FloatArray:
    from sweights import Cows

    # Computed by summing over rows, which makes the sum rule exact.
    cows = Cows(
        position,
        *(shape.density for shape in shapes),
        yields=list(yields),
        range=(0.0, 1.0),
    )
    weights = np.asarray(cows(position), dtype=np.float64)
    if not np.isclose(weights.sum(), yields[0], rtol=1e-6):
        raise FitError(
            f"{where}: the sWeights sum to {weights.sum():.6g}, expected the signal "
            f"yield {yields[0]:.6g}; signal and background are too alike"
        )
    return weights


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


def _in_mev(
    parameters: dict[str, tuple[float, float]], low: float, high: float
) -> dict[str, tuple[float, float]]:
    """Convert from the unit interval; ratios and powers have no unit."""
    span = high - low
    factors = {"mean": span, "width": span, "rate": 1 / span}
    found = {}
    for name, (value, error) in parameters.items():
        factor = factors.get(name, 1.0)
        start = low if name == "mean" else 0.0
        found[name] = (start + factor * value, factor * error)
    return found
