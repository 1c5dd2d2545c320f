"""Efficiencies from mass fits: signal is counted among rows that pass and that fail.

In each bin, the rows that pass a cut and those that fail it are fitted together. Both
have the signal shape of the bin, and each has a background of its own, in yield, slope
and curvature. Unlike sWeights, this needs no background whose mass is independent of
conditions and response; the signal may differ from bin to bin. The tails of the signal
are those of the fit to all rows. The likelihood is that of a histogram, extended (R.
Barlow, Nucl. Instrum. Meth. A 297 (1990) 496).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import chdtrc  # scipy.stats takes a second to load

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.errors import FitError
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_fit import MassFit, components, fit_mass, refit_mass

if TYPE_CHECKING:
    from iminuit import Minuit

#: Bins of the histograms that are fitted.
N_BINS = 100
#: Rows of a bin below which nothing is fitted.
MIN_ROWS = 100
#: Rows of either kind below which its background has no term of order 0, 1, 2.
MIN_OF_ORDER = (0, 60, 300)
#: Bins are merged to this many expected rows before chi2 is taken.
MIN_EXPECTED = 20.0
#: Rows that a histogram bin is expected to have at least.
_LEAST_EXPECTED = 1e-9
#: Steps that find the yields with which a fit starts.
_START_STEPS = 20
#: Parameters of the signal that a bin may change: the mean and the width.
_MOVING = 2


@dataclass(frozen=True, kw_only=True)
class PassFail:
    """Signal counted in bins: of each cut and bin, (n_cuts, n_bins).

    Attributes:
        efficiency: Share of the signal that passes; NaN where a fit failed.
        variance: Its variance, from the Fisher information of all parameters.
        signal: Rows of signal that pass, and that fail, (2, n_cuts, n_bins).
        p_value: Probability of a larger chi-square of the histograms.
        problems: What went wrong, by number of cut and bin.
    """

    efficiency: FloatArray
    variance: FloatArray
    signal: FloatArray
    p_value: FloatArray
    problems: dict[tuple[int, int], str]


def position_of(mass: FloatArray, discriminant: Discriminant) -> FloatArray:
    """Return values of a discriminant as positions in its range, from 0 to 1."""
    low, high = discriminant.range
    return np.asarray((mass - low) / (high - low))


def fit_all(position: FloatArray, discriminant: Discriminant, where: str) -> MassFit:
    """Return the fit to all rows, in which the fits in bins begin."""
    counts, edges = np.histogram(position, bins=2 * N_BINS, range=(0.0, 1.0))
    return fit_mass(counts.astype(np.float64), edges, discriminant, where)


def fit_some(position: FloatArray, near: MassFit, where: str) -> MassFit:
    """Return the fit to some of the rows, which is not far from that to all."""
    counts, edges = np.histogram(position, bins=2 * N_BINS, range=(0.0, 1.0))
    return refit_mass(counts.astype(np.float64), edges, near, where)


def count_signal(
    position: FloatArray,
    passes: BoolArray,
    place: IntArray,
    *,
    n_bins: int,
    start: MassFit,
) -> PassFail:
    """Count the signal that passes cuts (n_cuts, n), in bins.

    Args:
        position: (n,) positions in the range of the discriminant, from 0 to 1.
        passes: Whether a row passes each cut.
        place: (n,) bin of each row, -1 outside.
        n_bins: Number of bins.
        start: Fit to all rows.
    """
    shape = (len(passes), n_bins)
    efficiency, variance, p_value = np.full((3, *shape), np.nan)
    signal = np.full((2, *shape), np.nan)
    problems: dict[tuple[int, int], str] = {}
    for b in range(n_bins):
        own = place == b
        here = position[own]
        for i, passed in enumerate(passes[:, own]):
            kinds = [here[passed], here[~passed]]
            try:
                found = _fit(_histograms(kinds), start)
            except FitError as error:
                problems[i, b] = str(error)
                continue
            efficiency[i, b], variance[i, b] = found.efficiency()
            signal[:, i, b] = found.values[:2]
            p_value[i, b] = found.p_value()
    return PassFail(
        efficiency=efficiency,
        variance=variance,
        signal=signal,
        p_value=p_value,
        problems=problems,
    )


@dataclass(frozen=True, kw_only=True)
class _Model:
    """Expected counts (2, m) of rows that pass and fail, from the parameters.

    The parameters are two yields of signal, mean and width of the signal, and for the
    background of either kind the coefficients of `floor` (3, m): the background of all
    rows, times the Legendre polynomials of order 0, 1 and 2.
    """

    start: MassFit
    edges: FloatArray
    floor: FloatArray

    @classmethod
    def of(cls, start: MassFit, n_bins: int) -> "_Model":
        """Return the model that begins with the fit to all rows."""
        edges = np.linspace(0.0, 1.0, n_bins + 1)
        x = edges[1:] + edges[:-1] - 1.0
        floor = np.diff(start.components[1].cumulative(edges))
        orders = np.array([np.ones_like(x), x, (3 * x * x - 1) / 2])
        return cls(start=start, edges=edges, floor=orders * floor)

    def peak(self, mean: float, width: float) -> FloatArray:
        """Return the share of signal in each bin (m,)."""
        values = np.array(self.start.values)
        values[2 : 2 + _MOVING] = mean, width
        signal, _ = components(self.start.signal, self.start.background, values)
        return np.diff(signal.cumulative(self.edges))

    def expected(self, values: Any) -> FloatArray:
        """Return the expected counts (2, m)."""
        yields = np.asarray(values[:2])[:, np.newaxis]
        floors = np.asarray(values[4:]).reshape(2, -1) @ self.floor
        return np.asarray(yields * self.peak(values[2], values[3]) + floors)


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """A fit of the model to the counts (2, m) of rows that pass and fail."""

    model: _Model
    counts: FloatArray
    values: FloatArray
    free: BoolArray

    def covariance(self) -> FloatArray:
        """Covariance of the free parameters, from their Fisher information."""
        steps = 1e-4 * np.maximum(np.abs(self.values), 1e-2)
        slopes = []
        for k in np.flatnonzero(self.free):
            ends = np.tile(self.values, (2, 1))
            ends[:, k] += steps[k], -steps[k]
            above, below = (self.model.expected(end) for end in ends)
            slopes.append(((above - below) / (2 * steps[k])).ravel())
        slope = np.array(slopes)
        expected = np.maximum(self.model.expected(self.values).ravel(), _LEAST_EXPECTED)
        # A bin where nothing is expected has no information, not an infinite one.
        use = expected > 1e-6
        information = (slope[:, use] / expected[use]) @ slope[:, use].T
        size = np.sqrt(np.diag(information))
        scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
        scales = np.outer(scale, scale)
        return np.asarray(np.linalg.pinv(information * scales, hermitian=True) * scales)

    def efficiency(self) -> tuple[float, float]:
        """Return the share of signal that passes, and its variance.

        The variance is at least that of half an event on either side.
        """
        passing, failing = self.values[:2]
        total = float(passing + failing)
        slope = np.array([failing, -passing]) / total**2
        variance = float(slope @ self.covariance()[:2, :2] @ slope)
        p = 0.5 / (total + 1)
        return float(passing / total), max(variance, p * (1 - p) / total)

    def p_value(self) -> float:
        """Return the probability of a larger chi-square."""
        chi2, n = 0.0, 0
        expected = np.maximum(self.model.expected(self.values), 0.0)
        for observed, model in zip(self.counts, expected, strict=True):
            last = np.floor(np.cumsum(model) / MIN_EXPECTED).astype(int)
            last = np.minimum(last, max(int(model.sum() / MIN_EXPECTED) - 1, 0))
            merged = [np.bincount(last, weights=one) for one in (observed, model)]
            use = merged[1] > 0.5 * MIN_EXPECTED
            chi2 += float(np.sum((merged[0] - merged[1])[use] ** 2 / merged[1][use]))
            n += int(np.count_nonzero(use))
        n_dof = n - int(np.count_nonzero(self.free))
        return float(chdtrc(n_dof, chi2)) if n_dof > 0 else 1.0


def _histograms(kinds: Sequence[FloatArray]) -> FloatArray:
    """Return counts (2, m) of the rows that pass and fail."""
    found = [np.histogram(one, bins=N_BINS, range=(0.0, 1.0))[0] for one in kinds]
    return np.array(found, dtype=np.float64)


def _fit(counts: FloatArray, start: MassFit) -> _Fitted:
    """Fit counts (2, m); a FitError says why that is impossible."""
    rows = counts.sum(axis=1)
    if rows.sum() < MIN_ROWS:
        raise FitError(f"{rows.sum():.0f} rows, expected at least {MIN_ROWS}")
    model = _Model.of(start, counts.shape[1])
    minuit = _minimise(model, counts)
    if not minuit.valid:
        raise FitError(
            f"the mass fit did not converge ({rows[0]:.0f} rows pass, {rows[1]:.0f} "
            "fail)"
        )
    values = np.array(minuit.values)
    if not values[:2].sum() > 0:
        raise FitError(f"the mass fit finds no signal among {rows.sum():.0f} rows")
    return _Fitted(
        model=model, counts=counts, values=values, free=~np.array(minuit.fixed)
    )


def _first_values(model: _Model, counts: FloatArray) -> FloatArray:
    """Return start values: yields of the shapes of all rows, which EM finds."""
    mean, width = model.start.values[2:4]
    shapes = np.maximum([model.peak(mean, width), model.floor[0]], 1e-12)
    yields = []
    for observed in counts:
        share = np.array([0.5, 0.5])
        for _ in range(_START_STEPS if observed.any() else 0):
            parts = share[:, np.newaxis] * shapes
            share = (parts / parts.sum(axis=0)) @ observed
            share = share / share.sum()
        yields.append(share * observed.sum())
    (s, b), (t, c) = yields
    return np.array([s, t, mean, width, b, 0.0, 0.0, c, 0.0, 0.0])


def _minimise(model: _Model, counts: FloatArray) -> "Minuit":
    """Return the minimum of the negative log-likelihood."""
    from iminuit import Minuit

    def cost(values: FloatArray) -> float:
        mu = np.maximum(model.expected(values), _LEAST_EXPECTED)
        return float(np.sum(mu - counts * np.log(mu)))

    first = _first_values(model, counts)
    minuit = Minuit(cost, first)
    minuit.errordef = Minuit.LIKELIHOOD
    n = counts.sum(axis=1)
    # A yield may be a little negative, where the background fluctuates downwards.
    least = np.where(n < MIN_OF_ORDER[1], 0.0, -0.2 * n)
    most = 2.0 * n + 10.0
    yields = list(zip(least, most, strict=True))
    floors = [
        [(low, high), (-2 * high, 2 * high), (-2 * high, 2 * high)]
        for low, high in yields
    ]
    minuit.limits = [
        *yields,
        *model.start.signal.limits[:_MOVING],
        *floors[0],
        *floors[1],
    ]
    minuit.errors = [
        *np.sqrt(np.maximum(first[:2], 1.0)),
        *np.maximum(model.start.errors[2:4], 1e-4),
        *np.repeat(np.sqrt(np.maximum(n, 1.0)), 3),
    ]
    orders = [[bool(rows < least) for least in MIN_OF_ORDER] for rows in n]
    minuit.strategy = 0
    minuit.fixed = [False, False, True, True, *[False, True, True] * 2]
    minuit.migrad(ncall=4_000)
    minuit.fixed = [False] * 4 + orders[0] + orders[1]
    minuit.migrad(ncall=10_000)
    if not minuit.valid:
        minuit.simplex(ncall=5_000)
        minuit.strategy = 1
        minuit.migrad(ncall=20_000)
    return minuit
