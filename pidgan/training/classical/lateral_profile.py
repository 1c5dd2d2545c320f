"""How a shower spreads over cells: beam, axis, kernels and spots.

The parts that the classical parametrisations share. A lateral profile is a sum of
two-dimensional Gaussians of fixed widths, whose integrals over the cells of any layer
are cheap: over rectangles a product of two differences of the normal integral, over
rings exp(-r1^2 / 2 s^2) - exp(-r2^2 / 2 s^2).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special

from pidgan.arrays import FloatArray
from pidgan.bundle.formulas import (
    Array,
    absolute,
    concatenate,
    cos,
    exp,
    log,
    maximum,
    minimum,
    near,
    negative,
    reshape,
    sin,
    sqrt,
    take,
    total,
)
from pidgan.calorimeter.geometry import Geometry, Layer
from pidgan.calorimeter.observables import moments
from pidgan.errors import nearest

ROLES = ("energy", "theta", "phi", "x0", "y0", "species")
"""Conditions with a meaning; the first is needed, all others may be there."""

WIDTH_STEP = 2.0
"""Ratio of neighbouring Gaussian widths: a sum over them follows a power law to 1 %."""

NARROWEST = 0.1
"""Narrowest Gaussian in units of the smallest cell: what is narrower looks the same."""

# Abramowitz and Stegun, 26.2.17 (Hastings): the upper tail of the normal distribution,
# to 7.5e-8. Unlike 1 - erf it does not lose the tail to rounding in float32.
_TAIL_P = 0.2316419
_TAIL = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
_WINITZKI = 0.147  # S. Winitzki, A handy approximation for the error function (2008)
KNOTS = np.linspace(-3.5, 3.5, 36)
"""Normal numbers at which cumulated distributions are tabulated; beyond, one shower in
2000, they are continued by straight lines."""

AXIS_STEPS = 6  # of Newton's method for an axis that is not known
SCORING_STEPS = 30  # of a fit that converges quadratically
MOST_CHANGE = 5.0  # of ln(mean) above that of all rows; E^-2 over two decades has 4
OUTER = 0.01  # cells with less of the shower's energy determine the spots
_FAR = 12.0  # widths beyond which the tail, 1e-33, is nothing


@dataclass(frozen=True, kw_only=True)
class Beam:
    """What the conditions of a shower are and how a parametrisation uses them.

    Attributes:
        names: of the columns, those of `ROLES` with their meaning: energy in the unit
            of the cells, angles in rad, impact point on the front face (z = 0) in mm,
            species as a code.
        energy: scale of the energies.
        species: the codes that occur.
        centre: mean of the columns without a meaning.
        scale: their standard deviation.
        origin: (2,) where the axis enters, mm, where x0 and y0 are not there.
    """

    names: tuple[str, ...]
    energy: float
    species: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    origin: tuple[float, float] = (0.0, 0.0)

    def column(self, conditions: Array, name: str) -> Array:
        """Return the column (n, 1) of a condition."""
        return take(conditions, [self.names.index(name)])

    def features(self, conditions: Array) -> Array:
        """Return what parameters are linear in, (n, m).

        1, u and u^2 with u = ln E / E_scale; the same for each species but the first;
        1 / cos theta - 1; and every other condition, standardised.
        """
        u = log(self.column(conditions, "energy") * (1 / self.energy))
        parts = [u * 0.0 + 1.0, u, u * u]
        if "species" in self.names:
            code = self.column(conditions, "species")
            for value in self.species[1:]:
                is_it = near(code, value)
                parts += [is_it, is_it * u, is_it * u * u]
        if "theta" in self.names:
            parts.append(1.0 / cos(self.column(conditions, "theta")) - 1.0)
        others = [name for name in self.names if name not in ROLES]
        for name, centre, scale in zip(others, self.centre, self.scale, strict=True):
            parts.append((self.column(conditions, name) - centre) * (1 / scale))
        return concatenate(parts)

    def axis(self, conditions: Array, z: Array) -> tuple[Array, Array]:
        """Return where the axis of the shower is at depths z: two (n, k), mm."""
        zero = self.column(conditions, "energy") * 0.0 + z * 0.0
        x, y = zero + self.origin[0], zero + self.origin[1]
        if "x0" in self.names:
            x = zero + self.column(conditions, "x0")
        if "y0" in self.names:
            y = zero + self.column(conditions, "y0")
        if "theta" in self.names and "phi" in self.names:
            theta = self.column(conditions, "theta")
            phi = self.column(conditions, "phi")
            slope = sin(theta) / cos(theta)
            x = x + slope * cos(phi) * z
            y = y + slope * sin(phi) * z
        return x, y


def fit_beam(conditions: FloatArray, names: Sequence[str]) -> Beam:
    """Return the scales of conditions.

    Args:
        conditions: (n, c).
        names: (c,), see `Beam`.

    Raises:
        ValueError: there is no energy, names do not fit, or energies are not positive.
    """
    if conditions.ndim != 2 or conditions.shape[1] != len(names):
        raise ValueError(
            f"conditions of shape {conditions.shape} for {len(names)} names, "
            f"expected (n, {len(names)})"
        )
    if "energy" not in names:
        raise ValueError(
            f"no condition 'energy' among {', '.join(names)}{nearest('energy', names)}"
        )
    columns = dict(zip(names, conditions.T, strict=True))
    energy = columns["energy"]
    if not np.all(energy > 0):
        raise ValueError(f"energies down to {energy.min():g}, expected above 0")
    # A constant condition says nothing; it is left out, not divided by.
    others = [columns[name] for name in names if name not in ROLES]
    scales = [float(np.std(values)) or np.inf for values in others]
    return Beam(
        names=tuple(names),
        energy=float(np.exp(np.mean(np.log(energy)))),
        species=tuple(np.unique(columns.get("species", np.zeros(1))).tolist()),
        centre=tuple(float(np.mean(values)) for values in others),
        scale=tuple(scales),
    )


def widths_of(geometry: Geometry) -> FloatArray:
    """Return widths (k,) of Gaussians, mm, from narrower than a cell to the whole."""
    several = [layer for layer in geometry.layers if layer.n_cells > 1]
    sizes = np.concatenate([layer.plane()[1] for layer in several])
    at = np.concatenate([layer.plane()[0] for layer in several])
    low = NARROWEST * float(sizes.min())
    high = max(float(np.ptp(at, axis=0).max()), 2 * low)
    n = int(np.ceil(np.log(high / low) / np.log(WIDTH_STEP))) + 1
    return low * WIDTH_STEP ** np.arange(n)


def spread(
    layer: Layer,
    axis: tuple[Array, Array],
    widths: FloatArray,
    scale: Array | None = None,
) -> Array:
    """Return the share of each Gaussian in each cell of a layer.

    Args:
        layer: of n_cells cells.
        axis: x and y of the centre, (n, m) each, mm: m depths of a shower.
        widths: (k,) standard deviations, mm.
        scale: (n, 1) factor on the widths of a shower; none means 1.

    Returns:
        (n, m, k, n_cells); what falls beside the cells is missing.
    """
    x, y = axis
    m = x.shape[-1]
    if layer.kind == "cylindrical":
        return _in_rings(layer, (x, y), widths, scale)
    if layer.kind == "rectangular":
        slow, fast = np.array(layer.slow), np.array(layer.fast)
        a, b = (y, x) if layer.order == "yx" else (x, y)
        rows = reshape(
            _between(a, slow, widths, scale), (m, len(widths), len(slow) - 1, 1)
        )
        columns = reshape(
            _between(b, fast, widths, scale), (m, len(widths), 1, len(fast) - 1)
        )
        return reshape(rows * columns, (m, len(widths), layer.n_cells))
    at, size = layer.plane()
    sides = []
    for centre, middle, side in ((x, at[:, 0], size[:, 0]), (y, at[:, 1], size[:, 1])):
        n = len(middle)
        edges = np.concatenate([middle - side / 2, middle + side / 2])
        tails, below = _tails(centre, edges, widths, scale)
        low, high = np.arange(n), np.arange(n, 2 * n)
        sides.append(_inside(tails, below, low, high))
    return sides[0] * sides[1]


def spots(expected: Array, unit: Array, noise: Array) -> Array:
    """Return energies made of a Poisson number of spots of exponential energies.

    With k = E / w expected spots of mean w the variance is 2 w E, and with probability
    exp(-k) there is no spot: the energy is exactly 0. Otherwise it is drawn from the
    gamma distribution with the right mean and variance, by the transformation of Wilson
    and Hilferty (Proc. Nat. Acad. Sci. 17 (1931) 684); normal quantiles are those of
    Winitzki (2008), good to 0.2 %.

    Args:
        expected: (n, m) energies, not negative.
        unit: (n, 1) mean energy w of a spot, in their unit.
        noise: (n, m), standard normal.
    """
    k = maximum(expected / unit, 1e-6)
    none = exp(-k)
    few = negative(k - 0.1)
    some = few * k * (1.0 - k * (0.5 - k * (1 / 6 - k / 24))) + (1.0 - few) * (
        1.0 - none
    )
    # Upper and lower tail of the noise, neither of them lost to rounding.
    low_side = negative(noise)
    tail = _tail(minimum(absolute(noise), _FAR))
    upper = low_side * (1.0 - tail) + (1.0 - low_side) * tail
    lower = low_side * tail + (1.0 - low_side) * (1.0 - tail)
    above = minimum(upper / some, 1.0)
    below = few * (1.0 - above) + (1.0 - few) * ((lower - none) / some)
    z = _normal_quantile(maximum(below, 1e-20), maximum(above, 1e-20))
    mean = k / some
    variance = (2.0 * k + k * k) / some - mean * mean
    root = maximum(sqrt(variance) / mean * (1 / 3), 1e-6)
    root = maximum(1.0 - root * root + z * root, 0.0)
    is_there = negative(above - 1.0)
    return is_there * unit * mean * root * root * root


def interpolate(table: Array, g: Array) -> Array:
    """Return values (n, d, 1) of tables (n, d, knots) at normal numbers g (n, d, 1)."""
    step = KNOTS[1] - KNOTS[0]
    inside = maximum(minimum(g, KNOTS[-1]), KNOTS[0])
    place = (inside - KNOTS[None, None]) * (1 / step)
    value = total(table * maximum(1.0 - absolute(place), 0.0), -1)
    n = len(KNOTS)
    slopes = [
        (take(table, [b]) - take(table, [a])) * (1 / step)
        for a, b in ((0, 1), (n - 2, n - 1))
    ]
    beyond = g - inside
    low, high = minimum(beyond, 0.0), maximum(beyond, 0.0)
    return value + slopes[0] * low + slopes[1] * high


def shift_axis(noise: Array, jitter: Array, hidden: FloatArray) -> Array:
    """Return how far the axis is from where it is expected, (n, 2), mm.

    Args:
        noise: (n, 2), standard normal.
        jitter: (n, 1) standard deviation, mm.
        hidden: (2, knots) quantiles of an axis that no condition tells; or empty.
    """
    if not hidden.size:
        return noise * jitter
    table = hidden[None] * np.ones((1, 1, 1)) + reshape(jitter * 0.0, (1, 1))
    return reshape(interpolate(table, reshape(noise, (2, 1))), (2,))


def normalise(x: Array) -> Array:
    """Return x divided by its sum over the last axis; 0 where that is 0."""
    return x / maximum(total(x, -1), 1e-30)


def _between(
    centre: Array, edges: FloatArray, widths: FloatArray, scale: Array | None
) -> Array:
    """Integral (n, m, k, bins) between neighbouring edges."""
    tails, below = _tails(centre, edges, widths, scale)
    bins = np.arange(len(edges) - 1)
    return _inside(tails, below, bins, bins + 1)


def _tails(
    centre: Array, edges: FloatArray, widths: FloatArray, scale: Array | None
) -> tuple[Array, Array]:
    """Integral beyond each edge, on the edge's side, and whether this is below."""
    m = centre.shape[-1]
    distance = edges[None, None, None] - reshape(centre, (m, 1, 1))
    t = distance * (1 / widths)[None, None, :, None]
    t = t if scale is None else t / reshape(scale, (1, 1, 1))
    return _tail(minimum(absolute(t), _FAR)), negative(t)


def _tail(t: Array) -> Array:
    """Integral of the normal distribution above t >= 0."""
    u = 1.0 / (1.0 + _TAIL_P * t)
    polynomial = u * 0.0
    for coefficient in reversed(_TAIL):
        polynomial = (polynomial + coefficient) * u
    return exp(-0.5 * t * t) * polynomial * (1 / np.sqrt(2 * np.pi))


def _normal_quantile(below: Array, above: Array) -> Array:
    """Normal quantile of a probability, given with its complement."""
    power = -log(maximum(4.0 * below * above, 1e-30)) * (1 / _WINITZKI)
    half = 2 / (np.pi * _WINITZKI) - 0.5 * _WINITZKI * power
    # sqrt(h^2 + p) - h; as a quotient where h > 0, and no rounding near the median.
    root = sqrt(half * half + maximum(power, 0.0))
    small = negative(-half)
    quotient = maximum(power, 0.0) / (root + absolute(half))
    square = small * quotient + (1.0 - small) * (root - half)
    return sqrt(2.0 * square) * (1.0 - 2.0 * negative(below - above))


def _inside(tails: Array, below: Array, low: Array, high: Array) -> Array:
    """Integral between two edges: of one side, or around the centre."""
    a, b = take(tails, low), take(tails, high)
    around = take(below, low) - take(below, high)
    return around * (1.0 - a - b) + (1.0 - around) * absolute(a - b)


def _in_rings(
    layer: Layer,
    axis: tuple[Array, Array],
    widths: FloatArray,
    scale: Array | None,
) -> Array:
    """Rings about the origin are exact; an axis beside it tilts the shares.

    The tilt is the ratio of the densities of the moved and the centred Gaussian at the
    middle of the cell, exp((c d - d^2 / 2) / s^2) for a shift d and a middle c: right
    for shifts that are small against the width, which narrow Gaussians are held to.
    """
    m, k = axis[0].shape[-1], len(widths)
    sectors = layer.shape[0]
    r = np.tile(np.array(layer.fast), (sectors, 1))
    inner = (r[:, :-1].reshape(-1) / widths[:, None]) ** 2 / 2
    outer = (r[:, 1:].reshape(-1) / widths[:, None]) ** 2 / 2
    at = layer.plane()[0]
    x, y = (reshape(a, (m, 1, 1)) for a in axis)
    product = x * at[:, 0][None, None, None] + y * at[:, 1][None, None, None]
    power = (product - 0.5 * (x * x + y * y)) * (1 / widths**2)[None, None, :, None]
    if scale is not None:
        inverse = reshape(1.0 / (scale * scale), (1, 1, 1))
        rings = exp(-inverse * np.minimum(inner, 80)[None, None])
        rings = rings - exp(-inverse * np.minimum(outer, 80)[None, None])
        rings, power = rings * (1 / sectors), power * inverse
    else:
        exact = np.exp(-inner) * -np.expm1(inner - outer) / sectors
        rings = exact[None, None]
    tilt = exp(maximum(minimum(power, 1.0), -1.0))
    if sectors == 1:
        tilt = tilt * 0.0 + 1.0
    return reshape(tilt * rings, (m, k, layer.n_cells))


# Fits that the parametrisations share.


def fit_positive(features: FloatArray, values: FloatArray) -> FloatArray:
    """Return coefficients (m,) of ln(mean) of values (n,) whose mean is positive.

    Maximum likelihood of a gamma distribution by Fisher's scoring, which asks for the
    first moment alone: single values may be negative.
    """
    mean = float(np.mean(values))
    found = np.zeros(features.shape[1])
    found[0] = np.log(max(mean, 1e-12))
    if mean <= 0:
        return found
    for _ in range(SCORING_STEPS):
        pull = values / np.exp(features @ found) - 1
        step = np.linalg.lstsq(features, pull, rcond=None)[0]
        found += np.clip(step, -0.5, 0.5)
    if np.max(features @ found) - np.log(mean) > MOST_CHANGE:
        # Single values of both signs do not tell how the mean changes.
        found[:] = 0
        found[0] = np.log(mean)
    return found


def fit_spot(features: FloatArray, e: FloatArray, expected: FloatArray) -> FloatArray:
    """Return coefficients (m,) of the logarithm of the energy of a spot.

    From the variance 2 w E of the cells (n, k) away from the axis, where the profile's
    own fluctuation is small.
    """
    whole = e.sum(axis=1, keepdims=True)
    outer = (expected < OUTER * whole) & (expected > 1e-3 * OUTER * whole)
    pulls = (e - expected) ** 2 / np.where(outer, expected, 1.0)
    unit = (pulls * outer).sum(axis=1) / np.maximum(2 * outer.sum(axis=1), 1)
    return fit_positive(features, unit)


def centre(at: FloatArray, e: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return centres of energy and widths in x and y, (n, 2) each, mm."""
    x, y = moments(e, at[:, 0]), moments(e, at[:, 1])
    return np.stack([x[0], y[0]], axis=1), np.stack([x[1], y[1]], axis=1)


def find_axis(
    at: FloatArray,
    real: FloatArray,
    image: Callable[[FloatArray], FloatArray],
    start: FloatArray,
) -> FloatArray:
    """Return the shift (n, 2) of the axis that gives the centre of energy, mm.

    Args:
        at: (k, 2 or 3) positions of the cells.
        real: (n, k) images.
        image: expected images (n, k) for shifts (n, 2).
        start: (n, 2) first guess.
    """
    wanted = centre(at, real)[0]
    # Beyond the middles of the cells nothing moves any more.
    low, high = at[:, :2].min(axis=0), at[:, :2].max(axis=0)
    step = 0.02 * float(np.max(high - low))
    shift = start
    for _ in range(AXIS_STEPS):
        found = centre(at, image(shift))[0]
        slope = (centre(at, image(shift + step))[0] - found) / step
        change = (wanted - found) / np.maximum(slope, 0.2)
        shift = np.clip(shift + np.clip(change, -3 * step, 3 * step), low, high)
    return shift


def fit_hidden(shift: FloatArray) -> FloatArray:
    """Return quantiles (2, knots) of shifts (n, 2)."""
    levels = scipy.special.ndtr(KNOTS)
    return np.quantile(shift, levels, axis=0).T


def fit_jitter(
    features: FloatArray,
    at: FloatArray,
    images: tuple[FloatArray, FloatArray, FloatArray],
    *,
    step: float,
    spot: FloatArray,
) -> FloatArray:
    """Return coefficients (m,) of ln(standard deviation) of the axis, mm.

    Args:
        features: (n, m).
        at: (k, 2 or 3) positions of the cells.
        images: (n, k) real; expected; expected, with the axis moved in x and y.
        step: by how much, mm.
        spot: (m,) coefficients from `fit_spot`: what spots move the centre by is not
            counted twice.
    """
    real, expected, moved = images
    middle, width = centre(at, expected)
    # Cells blur how the centre follows the axis.
    slope = max(float((centre(at, moved)[0] - middle).mean()) / step, 0.1)
    rest = (centre(at, real)[0] - middle) / slope
    unit = np.exp(features @ spot)[:, None]
    noise = 2 * unit / real.sum(axis=1, keepdims=True) * (width / slope) ** 2
    return fit_positive(features, np.mean(rest**2 - noise, axis=1)) / 2
