"""sWeights from an extended maximum-likelihood fit to the discriminant.

The shapes to choose from, for the signal:

- "gauss" where one resolution is enough (a few thousand rows);
- "double_gauss" for the mass of a hadron or muon pair, whose resolution varies;
- "crystal_ball" where energy is radiated (J/psi -> e+ e-): power laws on both sides.

For the background: "exponential" over wide windows, "polynomial" (a straight line)
where a narrow window leaves no curvature to see.

The shapes are fitted to a fine histogram (iminuit), so that half a million rows take
about a second. With the shapes fixed, the yields are then found from the unbinned rows,
and the sWeights (package sweights) sum to the signal yield exactly. sWeights assume
that in signal and in background the discriminant is independent of conditions and
targets: M. Pivk, F. Le Diberder, arXiv:physics/0402083; H. Dembinski et al.,
arXiv:2112.04574.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2 as chi2_distribution

from pidgan.errors import FitError, PidganWarning
from pidgan.sample.definition import Discriminant

Array = npt.NDArray[np.float64]

#: Bins of the fit: a fifth of the narrowest peak in use, so nothing is lost.
N_BINS = 200
#: Fewer rows than this determine no shape.
MIN_ROWS = 100
#: Bins are merged to this many expected rows before chi2 is taken.
MIN_EXPECTED = 20.0
#: A fit with a smaller p-value describes the histogram badly enough to be looked at.
POOR_P_VALUE = 1e-4
#: Signal yield over its uncertainty, below which there is no peak to weight.
MIN_SIGNIFICANCE = 4.0
#: Background yield over its uncertainty, below which nothing is there to subtract.
MIN_BACKGROUND = 2.0


RANGE_VARIATION = 0.1
"""Share of the range that its variation leaves out, on either side."""

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
        weights: signal sWeights, (n,); their sum is the signal yield.
        yields: "signal" and "background", each (value, uncertainty), in rows.
        parameters: shape parameters by name, each (value, uncertainty); masses in MeV.
        chi2: of the histogram, in bins merged to at least 20 expected rows.
        n_dof: degrees of freedom of that chi2.
        p_value: probability of a larger chi2.
        edges: bin edges of the fit, (m + 1,), MeV.
        counts: rows in each bin, (m,).
        signal: fitted signal in each bin, (m,).
        background: fitted background in each bin, (m,).
    """

    weights: Array
    yields: dict[str, tuple[float, float]]
    parameters: dict[str, tuple[float, float]]
    chi2: float
    n_dof: int
    p_value: float
    edges: Array
    counts: Array
    signal: Array
    background: Array

    @property
    def summary(self) -> dict[str, Any]:
        """Everything but the weights, as plain numbers and lists, for JSON."""
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
    mass: npt.ArrayLike, discriminant: Discriminant, *, where: str = "the sample"
) -> SweightResult:
    """Fit the discriminant and return signal sWeights.

    With densities p_s, p_b and yields N_s, N_b, the weight of a row is
    w_s = (V_ss p_s + V_sb p_b) / (N_s p_s + N_b p_b), where V is the inverse of
    sum p_i p_j / (N_s p_s + N_b p_b)^2 over rows (arXiv:physics/0402083, eq. 15).

    Args:
        mass: values of the discriminant, (n,), MeV, all within its range.
        discriminant: range and shapes.
        where: what messages call the input.

    Returns:
        The weights and the fit; a fit with p-value below 1e-4 warns.

    Raises:
        FitError: too few rows, no peak, no background, or no convergence.

    Example:
        >>> shape = Discriminant(branch="D0_M", range=(1815, 1915))  # doctest: +SKIP
        >>> compute_sweights(mass, shape).weights.sum()  # doctest: +SKIP
    """
    values = np.asarray(mass, dtype=np.float64)
    where = f"mass fit of {where} in {discriminant.branch!r}"
    _check(values, discriminant, where)
    low, high = discriminant.range
    where += _unfilled(values, low, high)
    position = (values - low) / (high - low)
    counts, edges = np.histogram(position, bins=N_BINS, range=(0.0, 1.0))
    fit = _fit(counts.astype(np.float64), edges, discriminant, where)
    n_signal, n_background = _unbinned_yields(position, fit, where)
    weights = _weights(position, fit, (n_signal, n_background), where)
    signal = n_signal * np.diff(fit.signal.cumulative(edges))
    background = n_background * np.diff(fit.background.cumulative(edges))
    n_shape = len(fit.parameters)
    chi2, n_dof = _goodness(counts, signal + background, n_parameters=n_shape + 2)
    p_value = float(chi2_distribution.sf(chi2, n_dof)) if n_dof > 0 else 1.0
    if p_value < POOR_P_VALUE:
        warnings.warn(
            f"{where}: the fit describes the data poorly, chi2/ndof = "
            f"{chi2:.0f}/{n_dof}, p-value {p_value:.1g} (expected > {POOR_P_VALUE:g}); "
            f"look at its plot, then change 'signal', 'background' or 'range' of the "
            f"discriminant",
            PidganWarning,
            stacklevel=2,
        )
    return SweightResult(
        weights=weights,
        yields={
            "signal": (n_signal, fit.yield_errors[0]),
            "background": (n_background, fit.yield_errors[1]),
        },
        parameters=_in_mev(fit.parameters, low, high),
        chi2=chi2,
        n_dof=n_dof,
        p_value=p_value,
        edges=low + (high - low) * edges,
        counts=counts.astype(np.float64),
        signal=signal,
        background=background,
    )


def alternative_sweights(
    mass: npt.ArrayLike, discriminant: Discriminant, *, where: str = "the sample"
) -> dict[str, Array]:
    """Return the sWeights of other mass fits, as a systematic uncertainty needs them.

    "background" has the other shape of background, "signal" another shape of the peak,
    "range" a range that is shorter by a tenth on either side; rows outside of that have
    weight 0. A fit that fails, or that does not describe the data, is left out.

    Args:
        mass: values of the discriminant, (n,), MeV, all within its range.
        discriminant: range and shapes of the nominal fit.
        where: what messages call the input.

    Returns:
        Weights (n,) by name, and nothing else of the fits.
    """
    values = np.asarray(mass, dtype=np.float64)
    low, high = discriminant.range
    less = RANGE_VARIATION * (high - low)
    changes: dict[str, dict[str, Any]] = {
        "background": {"background": _OTHER_BACKGROUND[discriminant.background]},
        "signal": {"signal": _OTHER_SIGNAL[discriminant.signal]},
        "range": {"range": (low + less, high - less)},
    }
    found = {}
    for name, change in changes.items():
        other = discriminant.model_copy(update=change)
        inside = (values >= other.range[0]) & (values <= other.range[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PidganWarning)
            try:
                result = compute_sweights(values[inside], other, where=where)
            except FitError:
                continue
        if result.p_value >= POOR_P_VALUE and result.weights.sum() > 0:
            found[name] = np.zeros(len(values))
            found[name][inside] = result.weights
    return found


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """A density on the unit interval, up to its norm, with its integral."""

    names: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]
    start: Callable[[float, float], tuple[float, ...]]
    density: Callable[..., Array]
    integral: Callable[..., Array]


@dataclass(frozen=True, kw_only=True)
class _Component:
    """A shape with its parameters, normalised on the unit interval."""

    shape: _Shape
    parameters: tuple[float, ...]

    def density(self, x: Array) -> Array:
        ends = self._ends()
        density = self.shape.density(x, *self.parameters)
        return np.asarray(density / (ends[1] - ends[0]))

    def cumulative(self, x: Array) -> Array:
        ends = self._ends()
        integral = self.shape.integral(x, *self.parameters)
        return np.asarray((integral - ends[0]) / (ends[1] - ends[0]))

    def _ends(self) -> Array:
        return self.shape.integral(np.array([0.0, 1.0]), *self.parameters)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    signal: _Component
    background: _Component
    yield_errors: tuple[float, float]
    parameters: dict[str, tuple[float, float]]


def _gauss_density(x: Array, mean: float, width: float) -> Array:
    t = (x - mean) / width
    return np.asarray(np.exp(-0.5 * t * t) / (np.sqrt(2 * np.pi) * width))


def _gauss_integral(x: Array, mean: float, width: float) -> Array:
    return np.asarray(ndtr((x - mean) / width))


def _mixture(function: Callable[..., Array]) -> Callable[..., Array]:
    def mixed(x: Array, mean: float, width: float, ratio: float, core: float) -> Array:
        wide = function(x, mean, ratio * width)
        return np.asarray(core * function(x, mean, width) + (1 - core) * wide)

    return mixed


def _crystal_ball_density(
    x: Array, mean: float, width: float, a1: float, n1: float, a2: float, n2: float
) -> Array:
    t = (x - mean) / width
    core = np.exp(-0.5 * np.clip(t, -a1, a2) ** 2)
    lower = (1 + a1 / n1 * np.maximum(-a1 - t, 0)) ** -n1
    upper = (1 + a2 / n2 * np.maximum(t - a2, 0)) ** -n2
    return np.asarray(core * lower * upper)


def _crystal_ball_integral(
    x: Array, mean: float, width: float, a1: float, n1: float, a2: float, n2: float
) -> Array:
    t = (x - mean) / width
    # Integrals over each tail, from where it meets the core; both powers exceed one.
    below = np.exp(-0.5 * a1 * a1) * n1 / (a1 * (n1 - 1))
    above = np.exp(-0.5 * a2 * a2) * n2 / (a2 * (n2 - 1))
    lower = below * (1 + a1 / n1 * np.maximum(-a1 - t, 0)) ** (1 - n1)
    core = np.sqrt(2 * np.pi) * (ndtr(np.clip(t, -a1, a2)) - ndtr(-a1))
    upper = above * (1 - (1 + a2 / n2 * np.maximum(t - a2, 0)) ** (1 - n2))
    return np.asarray(width * (lower + core + upper))


def _exponential_integral(x: Array, rate: float) -> Array:
    if abs(rate) < 1e-9:
        return x
    return np.asarray(-np.expm1(-rate * x) / rate)


# Limits, masses in units of the fitted range. A second Gaussian wider than four times
# the first, or holding most of the signal, would be taking up background.
_MEAN = (0.02, 0.98)
_WIDTH = (1e-3, 0.5)
_RATIO = (1.05, 4.0)
_CORE = (0.3, 0.98)
_SIGNALS = {
    "gauss": _Shape(
        names=("mean", "width"),
        limits=(_MEAN, _WIDTH),
        start=lambda mean, width: (mean, width),
        density=_gauss_density,
        integral=_gauss_integral,
    ),
    "double_gauss": _Shape(
        names=("mean", "width", "width_ratio", "core_fraction"),
        limits=(_MEAN, _WIDTH, _RATIO, _CORE),
        start=lambda mean, width: (mean, 0.9 * width, 2.0, 0.7),
        density=_mixture(_gauss_density),
        integral=_mixture(_gauss_integral),
    ),
    "crystal_ball": _Shape(
        names=("mean", "width", "alpha_low", "n_low", "alpha_high", "n_high"),
        limits=(_MEAN, _WIDTH, (0.1, 5.0), (1.05, 50.0), (0.1, 5.0), (1.05, 50.0)),
        start=lambda mean, width: (mean, width, 1.5, 4.0, 1.5, 4.0),
        density=_crystal_ball_density,
        integral=_crystal_ball_integral,
    ),
}
_BACKGROUNDS = {
    "exponential": _Shape(
        names=("rate",),
        limits=((-30.0, 30.0),),
        start=lambda mean, width: (0.5,),
        density=lambda x, rate: np.exp(-rate * x),
        integral=_exponential_integral,
    ),
    "polynomial": _Shape(
        names=("slope",),
        limits=((-1.0, 1.0),),
        start=lambda mean, width: (0.0,),
        density=lambda x, slope: 1 + slope * (2 * x - 1),
        integral=lambda x, slope: x + slope * (x * x - x),
    ),
}


def _check(values: Array, discriminant: Discriminant, where: str) -> None:
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


def _unfilled(values: Array, low: float, high: float) -> str:
    """Say so if the rows end well within the fitted range: shapes then cannot fit."""
    first, last = float(values.min()), float(values.max())
    if first - low < 0.03 * (high - low) and high - last < 0.03 * (high - low):
        return ""
    return f" (rows span {first:.6g} to {last:.6g}, 'range' is {low:g} to {high:g})"


def _start(counts: Array) -> tuple[float, float, float]:
    """Guess position and width of the peak and its share, sidebands subtracted."""
    n = len(counts)
    side = n // 10
    left, right = counts[:side].mean(), counts[-side:].mean()
    excess = counts - np.linspace(left, right, n)
    smooth = np.convolve(excess, np.ones(5) / 5, mode="same")
    peak = int(np.argmax(smooth))
    above = smooth > 0.5 * smooth[peak]
    first = last = peak
    while first > 0 and above[first - 1]:
        first -= 1
    while last < n - 1 and above[last + 1]:
        last += 1
    width = (last - first + 1) / n / 2.355  # full width at half maximum of a Gaussian
    share = float(np.clip(excess.sum() / counts.sum(), 0.05, 0.95))
    return float(np.clip((peak + 0.5) / n, 0.05, 0.95)), width, share


def _fit(counts: Array, edges: Array, discriminant: Discriminant, where: str) -> _Fit:
    try:
        from iminuit import Minuit
        from iminuit.cost import ExtendedBinnedNLL
    except ImportError:
        raise FitError(
            f"{where} needs iminuit and sweights: install pidgan's extra 'train'"
        ) from None

    signal = _SIGNALS[discriminant.signal]
    background = _BACKGROUNDS[discriminant.background]
    split = 2 + len(signal.names)

    def components(p: Sequence[float]) -> tuple[_Component, _Component]:
        return (
            _Component(shape=signal, parameters=tuple(p[2:split])),
            _Component(shape=background, parameters=tuple(p[split:])),
        )

    def expected(x: Array, p: Sequence[float]) -> Array:
        peak, floor = components(p)
        return p[0] * peak.cumulative(x) + p[1] * floor.cumulative(x)

    n = float(counts.sum())
    mean, width, share = _start(counts)
    guess = (*signal.start(mean, width), *background.start(mean, width))
    names = ("signal", "background", *signal.names, *background.names)
    minuit = Minuit(
        ExtendedBinnedNLL(counts, edges, expected),
        (share * n, (1 - share) * n, *guess),
        name=names,
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
    values, errors = tuple(minuit.values), tuple(minuit.errors)
    _check_peak(values, errors, discriminant, where)
    peak, floor = components(values)
    return _Fit(
        signal=peak,
        background=floor,
        yield_errors=(float(errors[0]), float(errors[1])),
        parameters={
            name: (float(value), float(error))
            for name, value, error in zip(
                names[2:], values[2:], errors[2:], strict=True
            )
        },
    )


def _check_peak(
    values: Sequence[float],
    errors: Sequence[float],
    discriminant: Discriminant,
    where: str,
) -> None:
    if values[0] < MIN_SIGNIFICANCE * errors[0]:
        raise FitError(
            f"{where} finds no signal: {values[0]:.0f} +- {errors[0]:.0f} rows; check "
            f"that branch, 'unit' and 'range' of the discriminant hold the peak"
        )
    limits = dict(zip(("mean", "width"), (_MEAN, _WIDTH), strict=True))
    for (name, (low, high)), value in zip(limits.items(), values[2:4], strict=True):
        if not low * 1.01 < value < high * 0.99:
            raise FitError(
                f"{where}: the signal's {name} ran to the end of what is allowed; "
                f"check that 'range' = {list(discriminant.range)} holds the whole peak"
            )


def _unbinned_yields(position: Array, fit: _Fit, where: str) -> tuple[float, float]:
    """Maximise the likelihood in the yields alone; their sum is the number of rows."""
    peak, floor = fit.signal.density(position), fit.background.density(position)

    def slope(fraction: float) -> float:
        total = fraction * peak + (1 - fraction) * floor
        return float(np.sum((peak - floor) / total))

    ends = (1e-6, 1 - 1e-6)
    with np.errstate(all="ignore"):
        if not slope(ends[0]) > 0 > slope(ends[1]):
            raise _pure(where, "its yield runs to the end of what is allowed")
        fraction = brentq(slope, *ends, xtol=1e-15, rtol=1e-14)
    n_signal, n_background = fraction * len(position), (1 - fraction) * len(position)
    if n_background < MIN_BACKGROUND * fit.yield_errors[1]:
        raise _pure(where, f"{n_background:.0f} +- {fit.yield_errors[1]:.0f} rows")
    return float(n_signal), float(n_background)


def _pure(where: str, account: str) -> FitError:
    return FitError(
        f"{where} cannot tell signal from background ({account}); a pure sample is "
        f"declared with unweighted = true"
    )


def _weights(
    position: Array, fit: _Fit, yields: tuple[float, float], where: str
) -> Array:
    from sweights import Cows

    # Computed by summing over rows, which makes the sum rule exact.
    cows = Cows(
        position,
        lambda x: fit.signal.density(x),
        lambda x: fit.background.density(x),
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
    counts: npt.NDArray[Any], expected: Array, *, n_parameters: int
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
    scale = {"mean": span, "width": span, "rate": 1 / span}
    shift = {"mean": low}
    return {
        name: (
            shift.get(name, 0.0) + scale.get(name, 1.0) * value,
            scale.get(name, 1.0) * error,
        )
        for name, (value, error) in parameters.items()
    }
