"""Shapes of signal and background in a mass, on the unit interval.

For the signal:

- "gauss" where one resolution is enough (a few thousand rows);
- "double_gauss" for the mass of a hadron or muon pair, whose resolution varies;
- "crystal_ball" where energy is radiated (J/psi -> e+ e-): power laws on both sides.

For the background: "exponential" over wide windows, "polynomial" (a straight line)
where a narrow window leaves no curvature to see.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from pidgan.arrays import FloatArray


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A density on the unit interval, up to its norm, with its integral."""

    names: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]
    start: Callable[[float, float], tuple[float, ...]]
    density: Callable[..., FloatArray]
    integral: Callable[..., FloatArray]


@dataclass(frozen=True, kw_only=True)
class Component:
    """A shape with its parameters, normalised on the unit interval."""

    shape: Shape
    parameters: tuple[float, ...]

    def density(self, x: FloatArray) -> FloatArray:
        """Return the density at x, of integral 1 over the unit interval."""
        ends = self._ends()
        density = self.shape.density(x, *self.parameters)
        return np.asarray(density / (ends[1] - ends[0]))

    def cumulative(self, x: FloatArray) -> FloatArray:
        """Return the integral of the density from 0 to x."""
        ends = self._ends()
        integral = self.shape.integral(x, *self.parameters)
        return np.asarray((integral - ends[0]) / (ends[1] - ends[0]))

    def _ends(self) -> FloatArray:
        return self.shape.integral(np.array([0.0, 1.0]), *self.parameters)


def _gauss_density(x: FloatArray, mean: float, width: float) -> FloatArray:
    t = (x - mean) / width
    return np.asarray(np.exp(-0.5 * t * t) / (np.sqrt(2 * np.pi) * width))


def _gauss_integral(x: FloatArray, mean: float, width: float) -> FloatArray:
    return np.asarray(ndtr((x - mean) / width))


def _mixture(function: Callable[..., FloatArray]) -> Callable[..., FloatArray]:
    def mixed(
        x: FloatArray, mean: float, width: float, ratio: float, core: float
    ) -> FloatArray:
        wide = function(x, mean, ratio * width)
        return np.asarray(core * function(x, mean, width) + (1 - core) * wide)

    return mixed


def _crystal_ball_density(
    x: FloatArray, mean: float, width: float, a1: float, n1: float, a2: float, n2: float
) -> FloatArray:
    t = (x - mean) / width
    core = np.exp(-0.5 * np.clip(t, -a1, a2) ** 2)
    lower = (1 + a1 / n1 * np.maximum(-a1 - t, 0)) ** -n1
    upper = (1 + a2 / n2 * np.maximum(t - a2, 0)) ** -n2
    return np.asarray(core * lower * upper)


def _crystal_ball_integral(
    x: FloatArray, mean: float, width: float, a1: float, n1: float, a2: float, n2: float
) -> FloatArray:
    t = (x - mean) / width
    # Integrals over each tail, from where it meets the core; both powers exceed one.
    below = np.exp(-0.5 * a1 * a1) * n1 / (a1 * (n1 - 1))
    above = np.exp(-0.5 * a2 * a2) * n2 / (a2 * (n2 - 1))
    lower = below * (1 + a1 / n1 * np.maximum(-a1 - t, 0)) ** (1 - n1)
    core = np.sqrt(2 * np.pi) * (ndtr(np.clip(t, -a1, a2)) - ndtr(-a1))
    upper = above * (1 - (1 + a2 / n2 * np.maximum(t - a2, 0)) ** (1 - n2))
    return np.asarray(width * (lower + core + upper))


def _exponential_integral(x: FloatArray, rate: float) -> FloatArray:
    if abs(rate) < 1e-9:
        return x
    return np.asarray(-np.expm1(-rate * x) / rate)


# Limits, masses in units of the fitted range. A second Gaussian wider than four times
# the first, or holding most of the signal, would be taking up background.
MEAN = (0.02, 0.98)
WIDTH = (1e-3, 0.5)
_RATIO = (1.05, 4.0)
_CORE = (0.3, 0.98)
SIGNALS = {
    "gauss": Shape(
        names=("mean", "width"),
        limits=(MEAN, WIDTH),
        start=lambda mean, width: (mean, width),
        density=_gauss_density,
        integral=_gauss_integral,
    ),
    "double_gauss": Shape(
        names=("mean", "width", "width_ratio", "core_fraction"),
        limits=(MEAN, WIDTH, _RATIO, _CORE),
        start=lambda mean, width: (mean, 0.9 * width, 2.0, 0.7),
        density=_mixture(_gauss_density),
        integral=_mixture(_gauss_integral),
    ),
    "crystal_ball": Shape(
        names=("mean", "width", "alpha_low", "n_low", "alpha_high", "n_high"),
        limits=(MEAN, WIDTH, (0.1, 5.0), (1.05, 50.0), (0.1, 5.0), (1.05, 50.0)),
        start=lambda mean, width: (mean, width, 1.5, 4.0, 1.5, 4.0),
        density=_crystal_ball_density,
        integral=_crystal_ball_integral,
    ),
}
BACKGROUNDS = {
    "exponential": Shape(
        names=("rate",),
        limits=((-30.0, 30.0),),
        start=lambda mean, width: (0.5,),
        density=lambda x, rate: np.exp(-rate * x),
        integral=_exponential_integral,
    ),
    "polynomial": Shape(
        names=("slope",),
        limits=((-1.0, 1.0),),
        start=lambda mean, width: (0.0,),
        density=lambda x, slope: 1 + slope * (2 * x - 1),
        integral=lambda x, slope: x + slope * (x * x - x),
    ),
}
