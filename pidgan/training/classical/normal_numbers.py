"""Formulas of normal numbers: tails, quantiles, spots of energy, tables."""

import numpy as np

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array

# Normal numbers at which cumulated distributions are tabulated. Straight lines go on
# beyond the knots, for one shower in 2000.
KNOTS = np.linspace(-3.5, 3.5, 36)
FAR = 12.0  # normal number beyond which the tail, 1e-33, counts as empty

# Coefficients of Abramowitz and Stegun, 26.2.17 (Hastings), for the upper tail of the
# normal distribution to 7.5e-8. 1 - erf would lose the tail to rounding in float32.
_TAIL_P = 0.2316419
_TAIL = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
_WINITZKI = 0.147  # S. Winitzki, A handy approximation for the error function (2008)


class Numbers:
    """Columns of noise (n, n_noise), taken one after another."""

    def __init__(self, noise: Array) -> None:
        self._noise, self._used = noise, 0

    def take(self, n: int) -> Array:
        """Return the next n columns."""
        self._used += n
        return f.take(self._noise, np.arange(self._used - n, self._used))


def tail(t: Array) -> Array:
    """Return the integral of the normal distribution above t >= 0."""
    u = 1.0 / (1.0 + _TAIL_P * t)
    polynomial = u * 0.0
    for coefficient in reversed(_TAIL):
        polynomial = (polynomial + coefficient) * u
    return f.exp(-0.5 * t * t) * polynomial * (1 / np.sqrt(2 * np.pi))


def spots(expected: Array, unit: Array, noise: Array) -> Array:
    """Return energies (n, m) of a Poisson number of spots with exponential energies.

    The variance is 2 w E for k = E / w expected spots with mean energy w, `unit` (n,
    1). There is no spot with probability exp(-k), and then the energy is exactly 0.
    Otherwise it has a gamma distribution with the right mean and variance, drawn by the
    transformation of Wilson and Hilferty (Proc. Nat. Acad. Sci. 17 (1931) 684) with the
    normal quantiles of Winitzki (2008), which are good to 0.2 %.
    """
    k = f.maximum(expected / unit, 1e-6)
    none = f.exp(-k)
    few = f.negative(k - 0.1)
    some = few * k * (1.0 - k * (0.5 - k * (1 / 6 - k / 24))) + (1.0 - few) * (
        1.0 - none
    )
    # The upper and the lower tail of the noise: neither is lost to rounding.
    low_side = f.negative(noise)
    beyond = tail(f.minimum(f.absolute(noise), FAR))
    upper = low_side * (1.0 - beyond) + (1.0 - low_side) * beyond
    lower = low_side * beyond + (1.0 - low_side) * (1.0 - beyond)
    above = f.minimum(upper / some, 1.0)
    below = few * (1.0 - above) + (1.0 - few) * ((lower - none) / some)
    z = _normal_quantile(f.maximum(below, 1e-20), f.maximum(above, 1e-20))
    mean = k / some
    variance = (2.0 * k + k * k) / some - mean * mean
    root = f.maximum(f.sqrt(variance) / mean * (1 / 3), 1e-6)
    root = f.maximum(1.0 - root * root + z * root, 0.0)
    is_there = f.negative(above - 1.0)
    return is_there * unit * mean * root * root * root


def interpolate(table: Array, g: Array) -> Array:
    """Return values (n, d, 1) of tables (n, d, knots) at normal numbers g (n, d, 1)."""
    step = KNOTS[1] - KNOTS[0]
    inside = f.maximum(f.minimum(g, KNOTS[-1]), KNOTS[0])
    place = (inside - KNOTS[None, None]) * (1 / step)
    value = f.total(table * f.maximum(1.0 - f.absolute(place), 0.0), -1)
    n = len(KNOTS)
    slopes = [
        (f.take(table, [b]) - f.take(table, [a])) * (1 / step)
        for a, b in ((0, 1), (n - 2, n - 1))
    ]
    beyond = g - inside
    low, high = f.minimum(beyond, 0.0), f.maximum(beyond, 0.0)
    return value + slopes[0] * low + slopes[1] * high


def _normal_quantile(below: Array, above: Array) -> Array:
    """Normal quantile of a probability, given with its complement."""
    power = -f.log(f.maximum(4.0 * below * above, 1e-30)) * (1 / _WINITZKI)
    half = 2 / (np.pi * _WINITZKI) - 0.5 * _WINITZKI * power
    # f.sqrt(h^2 + p) - h; a quotient for h > 0, which has no rounding near the median.
    root = f.sqrt(half * half + f.maximum(power, 0.0))
    small = f.negative(-half)
    quotient = f.maximum(power, 0.0) / (root + f.absolute(half))
    square = small * quotient + (1.0 - small) * (root - half)
    return f.sqrt(2.0 * square) * (1.0 - 2.0 * f.negative(below - above))
