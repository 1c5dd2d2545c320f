"""The extended maximum-likelihood fit to the mass that sWeights are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from pidgan.arrays import FloatArray
from pidgan.errors import FitError
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_shapes import BACKGROUNDS, MEAN, SIGNALS, WIDTH, Component

#: Bins of the fit: a fifth of the narrowest peak in use, so nothing is lost.
N_BINS = 200
#: Bins are merged to this many expected rows before chi2 is taken.
MIN_EXPECTED = 20.0
#: Signal yield over its uncertainty, below which there is no peak to weight.
MIN_SIGNIFICANCE = 4.0
#: Background yield over its uncertainty, below which nothing is there to subtract.
MIN_BACKGROUND = 2.0


@dataclass(frozen=True, kw_only=True)
class MassFit:
    """A fit to positions in the fitted range, which is the unit interval.

    Attributes:
        signal: Density of the signal.
        background: Density of the background.
        yields: Number of rows of signal and of background; their sum is all rows.
        yield_errors: Uncertainty of each yield.
        parameters: Value and uncertainty of each parameter of the shapes.
        edges: Bin edges of the histogram (m + 1,).
        counts: Rows in each bin (m,).
        expected: Fitted signal and background in each bin (2, m).
        chi2: Chi-square of the histogram, in bins of at least 20 expected rows.
        n_dof: Degrees of freedom of the chi-square.
    """

    signal: Component
    background: Component
    yields: tuple[float, float]
    yield_errors: tuple[float, float]
    parameters: dict[str, tuple[float, float]]
    edges: FloatArray
    counts: FloatArray
    expected: FloatArray
    chi2: float
    n_dof: int


def fit_mass(
    position: FloatArray, discriminant: Discriminant, *, where: str
) -> MassFit:
    """Fit the shapes to a histogram, then the yields to the rows.

    Args:
        position: Position (n,) of each row in the fitted range, from 0 to 1.
        discriminant: Shapes of signal and background.
        where: Name of the fit in messages.

    Raises:
        FitError: There is no peak or no background, or the fit does not converge.
    """
    histogram, edges = np.histogram(position, bins=N_BINS, range=(0.0, 1.0))
    counts = histogram.astype(np.float64)
    signal, background, errors, parameters = _fit(counts, edges, discriminant, where)
    yields = _unbinned_yields(position, (signal, background), errors, where)
    expected = np.array(
        [
            n * np.diff(shape.cumulative(edges))
            for n, shape in zip(yields, (signal, background), strict=True)
        ]
    )
    # The two yields are parameters too.
    chi2, n_dof = _goodness(counts, expected.sum(axis=0), len(parameters) + 2)
    return MassFit(
        signal=signal,
        background=background,
        yields=yields,
        yield_errors=errors,
        parameters=parameters,
        edges=edges,
        counts=counts,
        expected=expected,
        chi2=chi2,
        n_dof=n_dof,
    )


def _start(counts: FloatArray) -> tuple[float, float, float]:
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


def _fit(
    counts: FloatArray, edges: FloatArray, discriminant: Discriminant, where: str
) -> tuple[Component, Component, tuple[float, float], dict[str, tuple[float, float]]]:
    """Return signal, background, errors of the yields, and all parameters."""
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

    def components(p: Sequence[float]) -> tuple[Component, Component]:
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
    parameters = {
        name: (float(value), float(error))
        for name, value, error in zip(names[2:], values[2:], errors[2:], strict=True)
    }
    return *components(values), (float(errors[0]), float(errors[1])), parameters


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
    limits = dict(zip(("mean", "width"), (MEAN, WIDTH), strict=True))
    for (name, (low, high)), value in zip(limits.items(), values[2:4], strict=True):
        if not low * 1.01 < value < high * 0.99:
            raise FitError(
                f"{where}: the signal's {name} ran to the end of what is allowed; "
                f"check that 'range' = {list(discriminant.range)} holds the whole peak"
            )


def _unbinned_yields(
    position: FloatArray,
    shapes: tuple[Component, Component],
    errors: tuple[float, float],
    where: str,
) -> tuple[float, float]:
    """Maximise the likelihood in the yields alone; their sum is the number of rows."""
    peak, floor = (shape.density(position) for shape in shapes)

    def slope(fraction: float) -> float:
        total = fraction * peak + (1 - fraction) * floor
        return float(np.sum((peak - floor) / total))

    ends = (1e-6, 1 - 1e-6)
    with np.errstate(all="ignore"):
        if not slope(ends[0]) > 0 > slope(ends[1]):
            raise _pure(where, "its yield runs to the end of what is allowed")
        fraction = brentq(slope, *ends, xtol=1e-15, rtol=1e-14)
    n_signal, n_background = fraction * len(position), (1 - fraction) * len(position)
    if n_background < MIN_BACKGROUND * errors[1]:
        raise _pure(where, f"{n_background:.0f} +- {errors[1]:.0f} rows")
    return float(n_signal), float(n_background)


def _pure(where: str, account: str) -> FitError:
    return FitError(
        f"{where} cannot tell signal from background ({account}); a pure sample is "
        f"declared with unweighted = true"
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
