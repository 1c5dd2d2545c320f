"""A test of what sWeights assume: discriminant and response are independent.

sPlot (M. Pivk, F. Le Diberder, arXiv:physics/0402083, Sec. 2.2; H. Dembinski et al.,
arXiv:2112.04574, Sec. 2) needs this within signal and within background. In all rows
together the two do depend on each other, because signal and background respond
differently, so that no ordinary test of independence can be used. Given conditions x,
let P(m) be the share of signal at the discriminant m. Under the assumption, the mean
of any response r is

    E[r | m, x] = b(x) + (s(x) - b(x)) P(m),

with the means s and b of signal and background: m enters through P alone. The test asks
whether the residuals of this regression depend on m in other ways h_k(m), in the signal
by its position and its width, in the background by its slope and its curvature:

    T = U^T (V + W)^-1 U,   U_k = sum_i e_i h_ki,   V_kl = sum_i e_i^2 h_ki h_li,

with e and h the residuals of r and of h_k after the same regression. This is the
generalised covariance measure of R. Shah and J. Peters, Annals of Statistics 48 (2020)
1514 (arXiv:1804.07203, Sec. 3), with a linear regression in each stratum of the
conditions; T has a chi-square distribution under the assumption, whatever the variance
of r. A dependence in one direction alone is seen better by the largest of the pulls
U_k / sqrt(V_kk + W_kk), with the probability of Z. Sidak, J. Am. Stat. Assoc. 62 (1967)
626. The p-value is that of both together, the mean of cot(pi p) of the two, which has a
Cauchy distribution however they depend on each other (Y. Liu, J. Xie, J. Am. Stat.
Assoc. 115 (2020) 393).

P comes from a mass fit in each stratum, whose parameters t have a covariance C:

    W = sum_strata A C A^T,   A_kj = (s - b) sum_i h_ki dP(m_i)/dt_j.

U and the error of t are uncorrelated, because the fit sees the discriminant alone. The
products of dP/dt_j and conditions are regressors too: the shapes may depend on these.

A mass that depends on the conditions is allowed here. sWeights of one fit to all rows
need it to be independent of these too; `mass_and_conditions` tests that.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, ndtr, ndtri  # scipy.stats takes a second to load

from pidgan.arrays import FloatArray, IntArray
from pidgan.errors import FitError
from pidgan.notebook import Facts, shown
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_fit import MassFit, components
from pidgan.sample.mass_fit_pass_fail import fit_all, fit_some, position_of
from pidgan.sample.mass_shapes import Component

#: Rows of a stratum, and largest number of strata.
STRATUM_ROWS, MAX_STRATA = 4_000, 16
#: Directions in which a dependence is sought.
DIRECTIONS = (
    "position of the signal",
    "width of the signal",
    "slope of the background",
    "curvature of the background",
)
#: Rows of the rarer outcome of a cut below which the chi-square is not trusted.
MIN_OUTCOMES = 50
#: Relative singular value below which a regressor adds nothing to the others.
_RANK = 1e-6


@shown
@dataclass(frozen=True, kw_only=True)
class Independence:
    """Whether a response depends on the discriminant within signal or background.

    Attributes:
        chi2: The statistic T.
        n_dof: Its degrees of freedom.
        p_value: Probability of such a statistic and such a largest pull if there is no
            dependence.
        pulls: Significance of each direction alone, in standard deviations; positive if
            the response rises with it.
        n_rows: Rows.
        n_strata: Strata of the conditions.
        few: Whether few rows pass, or fail, so that the p-value may be wrong.
    """

    chi2: float
    n_dof: int
    p_value: float
    pulls: dict[str, float]
    n_rows: int
    n_strata: int
    few: bool

    @property
    def significance(self) -> float:
        """Standard deviations of a normal distribution with this p-value."""
        return float(-ndtri(max(self.p_value, 1e-300) / 2))

    def _facts(self) -> Facts:
        return Facts(
            f"p-value {self.p_value:.2g}, chi2/ndof {self.chi2:.1f}/{self.n_dof}",
            {name: f"{pull:+.1f} sigma" for name, pull in self.pulls.items()},
        )


@dataclass(frozen=True, kw_only=True)
class _Stratum:
    """Rows of a stratum (m,), the functions of their mass, and their conditions.

    `slopes` (q, m) are the derivatives of the share by the parameters of the mass fit,
    whose covariance is (q, q).
    """

    rows: IntArray
    share: FloatArray
    slopes: FloatArray
    covariance: FloatArray
    directions: FloatArray
    conditions: FloatArray


def check_independence(
    discriminant: FloatArray,
    responses: Mapping[str, FloatArray],
    conditions: FloatArray,
    shape: Discriminant,
    *,
    source: str = "the sample",
) -> dict[str, Independence]:
    """Test whether responses depend on the discriminant at given conditions.

    Args:
        discriminant: (n,) values in package units; rows outside its range are left out.
        responses: Responses (n,) by name, such as whether a cut passes.
        conditions: (n, n_conditions) conditions.
        shape: Range and shapes of signal and background.
        source: Name of the input in messages.

    Raises:
        FitError: The mass fit fails.
    """
    strata = _strata(discriminant, conditions, shape, source)
    return {name: _test(values, strata) for name, values in responses.items()}


def mass_and_conditions(
    discriminant: FloatArray,
    conditions: Mapping[str, FloatArray],
    shape: Discriminant,
    *,
    source: str = "the sample",
) -> dict[str, Independence]:
    """Test whether conditions (n,) depend on the discriminant within its components."""
    none = np.zeros((len(discriminant), 0))
    strata = _strata(discriminant, none, shape, source)
    return {name: _test(_ranks(x), strata) for name, x in conditions.items()}


def signal_share(
    discriminant: FloatArray, shape: Discriminant, *, source: str = "the sample"
) -> FloatArray:
    """Return the fitted share of signal (n,) at the discriminant of each row."""
    position = position_of(discriminant, shape)
    return _share(position, fit_all(position, shape, f"mass fit of {source}"))


def _strata(
    discriminant: FloatArray, conditions: FloatArray, shape: Discriminant, source: str
) -> list[_Stratum]:
    position = position_of(np.asarray(discriminant, np.float64), shape)
    inside = np.flatnonzero((position >= 0) & (position <= 1))
    where = f"mass fit of {source} in {shape.branch!r}"
    whole = fit_all(position[inside], shape, where)
    ranks = np.array([_ranks(x) for x in conditions[inside].T]).T
    ranks = ranks.reshape(len(inside), -1)
    place = _places(ranks)
    found = []
    for b in np.unique(place):
        own = place == b
        u = position[inside[own]]
        fit = _refit(u, whole) if place.max() > 0 else whole
        slopes, covariance = _slopes(u, fit)
        found.append(
            _Stratum(
                rows=inside[own],
                share=_share(u, fit),
                slopes=slopes,
                covariance=covariance,
                directions=_directions(u, fit),
                conditions=ranks[own] - ranks[own].mean(axis=0),
            )
        )
    return found


def _places(ranks: FloatArray) -> IntArray:
    """Return the stratum of each row (n,): quantiles of one condition, then another."""
    n = len(ranks)
    place = np.zeros(n, dtype=np.int64)
    wanted = int(np.clip(n // STRATUM_ROWS, 1, MAX_STRATA))
    for axis in range(ranks.shape[1]):
        left = wanted // (int(place.max()) + 1)
        rest = ranks.shape[1] - axis
        parts = max(1, round(left ** (1 / rest)))
        new = np.zeros(n, dtype=np.int64)
        for b in np.unique(place):
            own = np.flatnonzero(place == b)
            order = np.argsort(ranks[own, axis], kind="stable")
            cell = np.empty(len(own), dtype=np.int64)
            cell[order] = np.arange(len(own)) * parts // len(own)
            new[own] = b * parts + cell
        place = new
    return place


def _refit(u: FloatArray, whole: MassFit) -> MassFit:
    """Return the fit of a stratum; that of all rows where it fails."""
    try:
        return fit_some(u, whole, "mass fit of a stratum")
    except FitError:
        return whole


def _densities(u: FloatArray, fit: MassFit, values: FloatArray) -> FloatArray:
    """Return N_s p_s and N_b p_b at positions, (2, n)."""
    peak, floor = components(fit.signal, fit.background, values)
    return np.array([values[0] * peak.density(u), values[1] * floor.density(u)])


def _share(u: FloatArray, fit: MassFit, values: FloatArray | None = None) -> FloatArray:
    """Return N_s p_s / (N_s p_s + N_b p_b) at positions (n,)."""
    signal, background = _densities(u, fit, fit.values if values is None else values)
    return np.asarray(signal / np.maximum(signal + background, 1e-200))


def _slopes(u: FloatArray, fit: MassFit) -> tuple[FloatArray, FloatArray]:
    """Return derivatives of the share by fit parameters, and their covariance.

    The parameters are in units of the step of the derivative.
    """
    slopes, scores = [], []
    for k in np.flatnonzero(fit.free):
        step = 0.1 * max(fit.errors[k], 1e-4 * abs(fit.values[k]), 1e-6)
        ends = []
        for sign in (1.0, -1.0):
            moved = fit.values.copy()
            moved[k] += sign * step
            pair = np.maximum(_densities(u, fit, moved), 1e-200)
            ends.append((pair[0] / pair.sum(axis=0), np.log(pair.sum(axis=0))))
        slopes.append((ends[0][0] - ends[1][0]) / 2)
        scores.append((ends[0][1] - ends[1][1]) / 2)
    score = np.array(scores)
    information = score @ score.T
    size = np.sqrt(np.diag(information))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    scales = np.outer(scale, scale)
    covariance = np.linalg.pinv(information * scales, rcond=1e-9, hermitian=True)
    return np.array(slopes), np.asarray(covariance * scales)


def _directions(u: FloatArray, fit: MassFit) -> FloatArray:
    """Return the functions h_k of the mass, (4, n)."""
    share = _share(u, fit)
    mean, width = _moments(fit.components[0])
    t = np.clip((u - mean) / width, -4.0, 4.0)
    x = 2 * u - 1
    return np.array(
        [
            share * t,
            share * (t * t - 1),
            (1 - share) * x,
            (1 - share) * (3 * x * x - 1) / 2,
        ]
    )


def _moments(peak: Component) -> tuple[float, float]:
    """Return mean and standard deviation of a component within the range."""
    u = (np.arange(2000) + 0.5) / 2000
    p = peak.density(u)
    p = p / p.sum()
    mean = float(p @ u)
    return mean, max(float(np.sqrt(p @ (u - mean) ** 2)), 1e-3)


def _test(response: FloatArray, strata: list[_Stratum]) -> Independence:
    """Return the test of one response."""
    k = len(DIRECTIONS)
    score, variance = np.zeros(k), np.zeros((k, k))
    values = np.asarray(response, dtype=np.float64)
    used = np.concatenate([values[one.rows] for one in strata])
    for one in strata:
        r = values[one.rows]
        basis = _basis(one)
        leverage = np.minimum((basis**2).sum(axis=1), 0.9)
        h = one.directions.T
        h = h - basis @ (basis.T @ h)
        e = r - basis @ (basis.T @ r)
        score += h.T @ e
        # The difference of the mean responses of signal and background.
        both = np.cov(one.share, r)
        contrast = both[0, 1] / both[0, 0] if both[0, 0] > 0 else 0.0
        moved = contrast * (one.slopes @ h)
        variance += moved.T @ one.covariance @ moved
        # J. MacKinnon, H. White, J. Econometrics 29 (1985) 305, "HC2".
        variance += (h * (e**2 / (1 - leverage))[:, np.newaxis]).T @ h
    size = np.sqrt(np.diag(variance))
    usable = size > 0
    pulls = np.divide(score, size, out=np.zeros(k), where=usable)
    scaled = variance / np.outer(np.where(usable, size, 1), np.where(usable, size, 1))
    inverse = np.linalg.pinv(scaled, rcond=_RANK, hermitian=True)
    n_dof = int(np.linalg.matrix_rank(scaled, tol=_RANK, hermitian=True))
    statistic = float(pulls @ inverse @ pulls)
    p_value = _p_value(statistic, float(np.abs(pulls).max()), n_dof)
    outcomes, counts = np.unique(used, return_counts=True)
    return Independence(
        chi2=statistic,
        n_dof=n_dof,
        p_value=p_value,
        pulls=dict(zip(DIRECTIONS, map(float, pulls), strict=True)),
        n_rows=len(used),
        n_strata=len(strata),
        few=bool(
            len(outcomes) < 2 or (len(outcomes) == 2 and counts.min() < MIN_OUTCOMES)
        ),
    )


def _p_value(statistic: float, largest: float, n_dof: int) -> float:
    """Return the p-value of a chi-square and of the largest of its pulls together."""
    if not n_dof:
        return 1.0
    of_largest = -np.expm1(n_dof * np.log1p(-2 * ndtr(-largest)))
    both = np.clip([chdtrc(n_dof, statistic), of_largest], 1e-300, 1 - 1e-9)
    mean = float(np.mean(1 / np.tan(np.pi * both)))
    return float(np.arctan2(1.0, mean) / np.pi)


def _basis(one: _Stratum) -> FloatArray:
    """Return an orthonormal basis (m, q) of the regressors of a stratum."""
    ones = np.ones(len(one.share))
    of_mass = np.array([ones, one.share])
    moving = np.array([*of_mass, *one.slopes])
    products = [a * x for a in moving for x in one.conditions.T]
    columns = np.array([*of_mass, *products]).T
    columns = columns / np.maximum(np.sqrt((columns**2).mean(axis=0)), 1e-12)
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, s > _RANK * s[0]])


def _ranks(x: FloatArray) -> FloatArray:
    """Return ranks from -1 to 1, those of equal values averaged."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - 0.5 * (counts - 1)
    return np.asarray(2 * middle[place.ravel()] / (len(x) + 1) - 1)
