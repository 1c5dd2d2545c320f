"""The verdict of a report: how far its figures lie above their floors.

A pull is the distance of a figure from its floor, in units of its standard deviation
for a perfect generator, and positive if the figure is worse than the floor. Of many
figures some are above 2 by chance, so that the verdict says how many were looked at,
and how often a perfect generator would show so large a pull in any of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

FAIR, BAD = 2.0, 3.0  # pulls from which a figure has another colour
RANKED = 10  # figures that a page tells the index of its folder
CHANCE, HARDLY = 0.05, 1e-3  # chances of the worst pull, from which a verdict has one


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the figures of a report say together.

    Attributes:
        text: One sentence: how many figures are above their floor, and the worst.
        level: "good", "fair" or "bad"; the worst pull is expected by chance, rare, or
            not to be explained by chance.
        looked: Number of figures that were looked at.
        above: Number of those that are more than `FAIR` above their floor.
        worst: Label of the figure with the largest pull.
        pull: Its pull.
        chance: Chance that a perfect generator has so large a pull in any figure, if
            they were independent; for figures that are not, this is an upper limit.
        more: Further sentences.
        ranked: Labels and pulls of the worst figures.
    """

    text: str
    level: str
    looked: int
    above: int
    worst: str
    pull: float
    chance: float
    more: str = ""
    ranked: tuple[tuple[str, float], ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return the verdict in values that JSON knows."""
        return dict(vars(self))


def judge(
    pulls: Sequence[tuple[str, float | None]], *, more: str = ""
) -> Verdict | None:
    """Return the verdict on labels and pulls; None if no pull is known."""
    known = [(label, p) for label, p in pulls if p is not None and math.isfinite(p)]
    if not known:
        return None
    worst, pull = max(known, key=lambda pair: pair[1])
    n, above = len(known), sum(p > FAIR for _, p in known)
    # log1p and expm1: the chance of one figure may be far below machine precision.
    chance = float(-np.expm1(n * np.log1p(-stats.norm.sf(pull))))
    expected = n * float(stats.norm.sf(FAIR))
    if above == 0:
        head = f"No figure of {n} is more than {FAIR:g} sigma above its floor"
    else:
        verb = "is" if above == 1 else "are"
        head = f"{above} of {n} figures {verb} more than {FAIR:g} sigma above the floor"
    text = f"{head}; worst: {worst}, {pull:.1f} sigma."
    level = "good" if chance > CHANCE else "fair" if chance > HARDLY else "bad"
    because = {
        "good": "The worst is what chance gives",
        "fair": "The worst is rare by chance",
        "bad": "Chance does not explain the worst",
    }[level]
    looked = (
        f"{because}: a perfect generator has on average {expected:.1f} of {n} figures "
        f"above {FAIR:g} sigma, several at once if they see one fluctuation, and a "
        f"pull as large as the worst one in any of them with a probability of "
        f"{_probability(chance)}."
    )
    missing = len(pulls) - n
    if missing:
        figures = "figure has" if missing == 1 else "figures have"
        looked += f" {missing} more {figures} no known pull."
    ranked = sorted(known, key=lambda pair: -pair[1])[:RANKED]
    return Verdict(
        text=text,
        level=level,
        looked=n,
        above=above,
        worst=worst,
        pull=float(pull),
        chance=chance,
        more=f"{looked} {more}".strip(),
        ranked=tuple((label, float(p)) for label, p in ranked),
    )


def flagged(pulls: Sequence[tuple[str, float | None]]) -> list[dict[str, Any]]:
    """Return the figures that chance does not explain, with their pulls, worst first.

    A perfect generator has any of them with a probability of at most `CHANCE`, however
    many figures are looked at.
    """
    known = [(label, p) for label, p in pulls if p is not None and math.isfinite(p)]
    if not known:
        return []
    least = float(stats.norm.isf(-np.expm1(np.log1p(-CHANCE) / len(known))))
    found = sorted((pair for pair in known if pair[1] > least), key=lambda p: -p[1])
    return [{"figure": label, "pull": float(pull)} for label, pull in found]


def chi2_pull(chi2: float, ndf: int) -> float | None:
    """Return the number of standard deviations of the p-value of a chi2."""
    if ndf < 1:
        return None
    log_p = float(stats.chi2.logsf(chi2, ndf))
    return float(min(stats.norm.isf(np.exp(log_p)), MOST_SIGMAS))


def level_of(pull: float | None) -> str:
    """Return the colour of one pull."""
    if pull is None or not math.isfinite(pull):
        return ""
    return "good" if pull <= FAIR else "fair" if pull <= BAD else "bad"


def sigmas(value: float, null: ArrayLike) -> float | None:
    """Return how far a value lies above a sample of its values under a hypothesis.

    The sample gives mean, spread and skewness of a Pearson III (shifted gamma)
    distribution, whose upper tail is turned into that of the normal distribution by
    the cube root of Wilson and Hilferty (PNAS 17 (1931) 684). The chance of values
    beyond all of the sample is known in this way as far as the shape is.
    """
    sample = np.asarray(null, dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    if len(sample) < 3 or not math.isfinite(value):
        return None
    spread = float(sample.std(ddof=1))
    if spread <= 1e-12 * max(abs(value), abs(float(sample.mean()))):
        return 0.0 if value <= float(sample.mean()) * (1 + 1e-9) else None
    z = float(value - sample.mean()) / spread
    skewness = float(stats.skew(sample))
    if skewness < LEAST_SKEWNESS:
        return z
    k = 8.0 / skewness**2  # degrees of freedom of a chi2 with this skewness
    x = max(1.0 + z * math.sqrt(2.0 / k), 0.0)
    return float((np.cbrt(x) - (1.0 - 2.0 / (9.0 * k))) / math.sqrt(2.0 / (9.0 * k)))


MOST_SIGMAS = 37.0  # p-values beyond are below the smallest number
LEAST_SKEWNESS = 0.05  # below which a distribution counts as normal


def _probability(p: float) -> str:
    if p < 1e-6:
        return "less than one in a million"
    return f"{100 * p:.2g} %"
