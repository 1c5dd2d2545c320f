"""Efficiencies from weights of any sign, with their uncertainties.

With S = sum w, P = sum of w over the rows that pass, S2 and P2 the same sums of w^2,
the efficiency is e = P / S. Two uncertainties are offered:

- ``wilson`` (default): the score interval of Wilson (J. Am. Stat. Assoc. 22 (1927)
  209) with its binomial term n e (1 - e) replaced by the weighted one; it has a
  finite width at e = 0 and e = 1, and is Wilson's own for unit weights. Use this.
- ``pidcalib``: |(1 - 2e) P2 + e^2 S2| / S^2 (LHCb-PUB-2016-021, Eq. 13), symmetric and
  zero at e = 0 and e = 1, however few the rows. Use it to reproduce tables made with
  PIDCalib.

Neither includes the uncertainty of the mass fit behind sWeights.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray

VarianceName = Literal["wilson", "pidcalib"]

Z = 1.0  # intervals are quoted at one standard deviation, 68.27 %


def efficiency_interval(
    passed: ArrayLike,
    total: ArrayLike,
    passed2: ArrayLike,
    total2: ArrayLike,
    *,
    variance: VarianceName = "wilson",
    spread: ArrayLike = 0.0,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return e, its variance and the ends of its one-sigma interval from sums.

    V = (1 - 2e) P2 + e^2 S2 = sum w^2 (pass - e)^2 is the weighted n e (1 - e). With
    the effective weight of one row u = S2 / S, Wilson's interval becomes
    (P + z^2 u / 2 -+ z sqrt(V + z^2 u^2 / 4)) / (S + z^2 u).

    Rows of which a share s passes (the part of several generated draws) count with
    P = sum w s and P2 = sum w^2 s; V = sum w^2 (s - e)^2 is then smaller by
    sum w^2 s (1 - s).

    Args:
        passed: P, sums of weights of the rows that pass.
        total: S, sums of weights; where S <= 0 the results are NaN.
        passed2: P2, sums of squared weights of the rows that pass.
        total2: S2, sums of squared weights.
        variance: Formula of the interval, "wilson" or "pidcalib".
        spread: sum w^2 s (1 - s), zero where rows pass or fail.

    Returns:
        Four arrays of the common shape: e, variance, lower and upper end. The
        variance is the squared half width. Weights of both signs can put e itself
        outside [0, 1]; nothing is clipped.
    """
    if variance not in ("wilson", "pidcalib"):
        raise ValueError(f"variance {variance!r}: expected 'wilson' or 'pidcalib'")
    p, s, p2, s2 = np.broadcast_arrays(
        *(np.asarray(a, dtype=np.float64) for a in (passed, total, passed2, total2))
    )
    s = np.where(s > 0, s, np.nan)
    e = p / s
    v = np.abs((1 - 2 * e) * p2 + e**2 * s2 - spread)
    if variance == "pidcalib":
        half, centre = np.sqrt(v) / s, e
    else:
        u = s2 / s
        norm = s + Z**2 * u
        half = Z * np.sqrt(v + (Z * u / 2) ** 2) / norm
        centre = (p + Z**2 * u / 2) / norm
    return e, half**2, centre - half, centre + half
