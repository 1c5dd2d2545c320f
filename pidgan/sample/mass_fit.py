"""An extended maximum-likelihood fit of signal and background to a histogram.

A likelihood with a small peak on much background has several minima. The fit starts
from several places (`_starts`), and the lowest minimum with a peak inside the range
counts. A fit that does not converge, one without a signal and one at a limit are
different errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy  # scipy.optimize takes long to load, and comes when it is used

from pidgan.arrays import FloatArray
from pidgan.errors import FitError
from pidgan.notebook import Facts, shown
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_shapes import (
    BACKGROUNDS,
    MEAN,
    SIGNALS,
    WIDTH,
    Component,
    Shape,
)

if TYPE_CHECKING:
    from iminuit import Minuit

#: Standard deviations, from the likelihood without a signal, below which there is none.
MIN_SIGNIFICANCE = 4.0
#: Signal yield over its uncertainty, below which the shapes do not determine it.
MIN_PRECISION = 2.0
#: Excesses over the background that the fit starts from, besides the tallest.
N_EXCESSES = 3
#: Share of rows with which a component starts at least.
_LEAST_SHARE = 0.005
#: Minima of the negative log-likelihood that differ by less are the same one.
_SAME_MINIMUM = 0.01
#: Widths of the Gaussians that search for excesses, as shares of the range.
_SEARCHED_WIDTHS = np.geomspace(0.008, 0.25, 14)
_Start = tuple[float, float, float]


@shown
@dataclass(frozen=True, kw_only=True)
class MassFit:
    """A converged fit, on the unit interval.

    Attributes:
        signal: Shape of the signal.
        background: Shape of the background.
        values: Both yields, then the parameters of the signal and the background.
        errors: Their uncertainties.
        free: Which of them are not at a limit.
    """

    signal: Shape
    background: Shape
    values: FloatArray
    errors: FloatArray
    free: tuple[bool, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters after the yields."""
        return (*self.signal.names, *self.background.names)

    @property
    def components(self) -> tuple[Component, Component]:
        """Signal and background."""
        return components(self.signal, self.background, self.values)

    def _facts(self) -> Facts:
        names = ("signal", "background", *self.names)
        pairs = zip(names, self.values, self.errors, strict=True)
        found = {name: f"{value:.4g} +- {error:.2g}" for name, value, error in pairs}
        return Facts(
            f"signal {found['signal']}, background {found['background']}",
            found,
        )


def components(
    signal: Shape, background: Shape, values: Sequence[float] | FloatArray
) -> tuple[Component, Component]:
    """Return signal and background of parameters in the order of `MassFit.values`."""
    split = 2 + len(signal.names)
    return (
        Component(shape=signal, parameters=tuple(values[2:split])),
        Component(shape=background, parameters=tuple(values[split:])),
    )


def fit_mass(
    counts: FloatArray, edges: FloatArray, discriminant: Discriminant, where: str
) -> MassFit:
    """Fit the shapes of a discriminant to counts (m,) between edges (m + 1,) in [0, 1].

    `where` names the fit in messages. A FitError says that the fit did not converge,
    that there is no signal, or that the peak is at a limit of its range.
    """
    signal = SIGNALS[discriminant.signal]
    background = BACKGROUNDS[discriminant.background]
    slope = _background_alone(counts, edges, background)
    tried = [
        _minimise(counts, edges, signal, background, start, where)
        for start in _starts(counts, edges, background, slope)
    ]
    converged = sorted(
        (minuit for minuit in tried if minuit.valid), key=lambda minuit: minuit.fval
    )
    if not converged:
        raise FitError(
            f"{where} did not converge from {len(tried)} starting points "
            f"({discriminant.signal} + {discriminant.background}, "
            f"{int(counts.sum())} rows); try a simpler 'signal' or 'background', or "
            f"another 'range'"
        )
    shape = converged[0].values[2 : 2 + len(signal.names)]
    alone = converged[0].fcn((0.0, counts.sum(), *shape, slope))
    problems = [_problem(minuit, discriminant, alone) for minuit in converged]
    peaks = [m for m, problem in zip(converged, problems, strict=True) if not problem]
    if not peaks:
        raise FitError(f"{where}{problems[0]}")
    # The first start of those that lead there: not decided by rounding.
    same = [minuit for minuit in peaks if minuit.fval < peaks[0].fval + _SAME_MINIMUM]
    best = next(minuit for minuit in tried if minuit in same)
    return _as_fit(best, signal, background)


def refit_mass(
    counts: FloatArray, edges: FloatArray, near: MassFit, where: str
) -> MassFit:
    """Fit the shapes of another fit again, from its values, to counts of fewer rows.

    A FitError says that the fit did not converge.
    """
    mean, width = near.values[2], near.values[3]
    share = near.values[0] / (near.values[0] + near.values[1])
    start = (float(mean), float(width), float(share))
    minuit = _minimise(counts, edges, near.signal, near.background, start, where)
    if not minuit.valid or not minuit.values[0] > 0:
        raise FitError(f"{where} did not converge ({int(counts.sum())} rows)")
    return _as_fit(minuit, near.signal, near.background)


def _as_fit(minuit: "Minuit", signal: Shape, background: Shape) -> MassFit:
    return MassFit(
        signal=signal,
        background=background,
        values=np.array(minuit.values),
        errors=np.array(minuit.errors),
        free=tuple(
            bool(low < value - 1e-3 * error and value + 1e-3 * error < high)
            for value, error, (low, high) in zip(
                minuit.values, minuit.errors, minuit.limits, strict=True
            )
        ),
    )


def _minimise(
    counts: FloatArray,
    edges: FloatArray,
    signal: Shape,
    background: Shape,
    start: _Start,
    where: str,
) -> "Minuit":
    """Return the minimum that a guess of mean, width and share leads to."""
    try:
        from iminuit import Minuit
        from iminuit.cost import ExtendedBinnedNLL
    except ImportError:
        raise FitError(
            f"{where} needs iminuit and sweights: "
            'pip install ".[train]" in the source tree'
        ) from None

    def expected(x: FloatArray, p: Sequence[float]) -> FloatArray:
        peak, floor = components(signal, background, p)
        return p[0] * peak.cumulative(x) + p[1] * floor.cumulative(x)

    n = float(counts.sum())
    mean, width, share = start
    minuit = Minuit(
        ExtendedBinnedNLL(counts, edges, expected),
        (
            share * n,
            (1 - share) * n,
            *signal.start(mean, width),
            *background.start(mean, width),
        ),
        name=("signal", "background", *signal.names, *background.names),
    )
    minuit.limits = ((0, 2 * n), (0, 2 * n), *signal.limits, *background.limits)
    minuit.strategy = 1
    # The yields and the background adapt to the guess before the peak may move.
    minuit.fixed[2 : 2 + len(signal.names)] = True
    minuit.migrad(ncall=20_000)
    minuit.fixed = False
    minuit.migrad(ncall=20_000)
    if not minuit.valid:
        minuit.simplex(ncall=5_000)
        minuit.migrad(ncall=20_000)
    return minuit


def _problem(minuit: "Minuit", discriminant: Discriminant, alone: float) -> str | None:
    """Say why a minimum is no peak on a background; None if it is one.

    `alone` is twice the negative log-likelihood of a background alone.
    """
    values, errors = minuit.values, minuit.errors
    sigma = float(np.sqrt(max(alone - minuit.fval, 0.0)))
    signal = f"{values['signal']:.0f} +- {errors['signal']:.0f} rows"
    if sigma < MIN_SIGNIFICANCE:
        return (
            f" finds no signal: {signal}, {sigma:.1f} sigma, "
            f"expected {MIN_SIGNIFICANCE:g}; check that branch, 'unit' and "
            f"'range' of the discriminant hold the peak"
        )
    if values["signal"] < MIN_PRECISION * errors["signal"]:
        return (
            f" finds a peak of {sigma:.1f} sigma, but cannot tell its yield from the "
            f"background: {signal}; try a simpler 'signal' than "
            f"{discriminant.signal!r}, or another 'range'"
        )
    for name, (low, high) in (("mean", MEAN), ("width", WIDTH)):
        if not low * 1.01 < values[name] < high * 0.99:
            return (
                f": the fitted {name} is at the limit of its range; "
                f"check that 'range' = {list(discriminant.range)} holds the whole peak"
            )
    return None


def _starts(
    counts: FloatArray, edges: FloatArray, background: Shape, slope: float
) -> list[_Start]:
    """Return guesses of mean, width and share: the tallest peak, and excesses."""
    smooth = _expected(counts, edges, background, slope)
    return [_tallest(counts), *_excesses(counts, smooth)]


def _tallest(counts: FloatArray) -> _Start:
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


def _expected(
    counts: FloatArray, edges: FloatArray, background: Shape, slope: float
) -> FloatArray:
    """Return the expected counts (m,) of a background alone."""
    shape = Component(shape=background, parameters=(slope,))
    shares = np.maximum(np.diff(shape.cumulative(edges)), 1e-12)
    return np.asarray(counts.sum() * shares)


def _background_alone(
    counts: FloatArray, edges: FloatArray, background: Shape
) -> float:
    """Return the parameter of the background that alone is closest to the counts."""
    low, high = background.limits[0]
    edge = 1e-6 * (high - low)
    best = scipy.optimize.minimize_scalar(
        lambda slope: (
            -np.sum(counts * np.log(_expected(counts, edges, background, float(slope))))
        ),
        bounds=(low + edge, high - edge),
        method="bounded",
    )
    return float(best.x)


def _excesses(counts: FloatArray, smooth: FloatArray) -> list[_Start]:
    """Find the most significant Gaussian excesses over a smooth background.

    In least squares, the amplitude of a Gaussian beside a background of free yield and
    slope is known at once for every mean and width. Excesses whose means are closer
    than a width are one.
    """
    n = len(counts)
    x = (np.arange(n) + 0.5) / n
    spread = np.sqrt(np.maximum(smooth, 0.1 * float(counts.mean())))
    basis, _ = np.linalg.qr(np.stack([smooth / spread, x * smooth / spread], axis=1))
    data = counts / spread
    data = data - basis @ (basis.T @ data)
    means, widths = (
        grid.ravel()
        for grid in np.meshgrid(np.linspace(0.05, 0.95, 91), _SEARCHED_WIDTHS)
    )
    t = (x - means[:, None]) / widths[:, None]
    peaks = np.exp(-0.5 * t * t) / (np.sqrt(2 * np.pi) * widths[:, None] * n) / spread
    peaks = peaks - (peaks @ basis) @ basis.T
    norm = np.sum(peaks * peaks, axis=1)
    amplitude = peaks @ data / norm
    significance = amplitude * np.sqrt(norm)
    found: list[_Start] = []
    for i in np.argsort(-significance, kind="stable"):
        if len(found) == N_EXCESSES or significance[i] <= 0:
            break
        if all(
            abs(means[i] - mean) > max(widths[i], width) for mean, width, _ in found
        ):
            share = np.clip(amplitude[i] / counts.sum(), _LEAST_SHARE, 0.95)
            found.append((float(means[i]), float(widths[i]), float(share)))
    return found
