"""From simulated targets to those of data at the same conditions.

With two autoregressive flows, T of simulation and of data, a row (x, y) of simulation
becomes

    y' = T_data(T_sim^-1(y | x) | x),

the Knothe-Rosenblatt map (M. Rosenblatt, Ann. Math. Statist. 23 (1952) 470; H. Knothe,
Michigan Math. J. 4 (1957) 39): the first target keeps its rank among rows of the same
conditions, each later one its rank among rows of the same conditions and earlier
targets. The order of the targets therefore matters for which row gets which value, but
not for the distribution of all. The coordinates are those of
`pidgan.training.targets.tracks`: a target tied to another is a difference to it.

A row whose *pattern* of atoms and ties is k keeps it with the probability
min(1, q_k / p_k), where p(x) and q(x) are the probabilities of patterns in simulation
and in data. Otherwise it gets one of those that data have more often, in proportion to
(q - p)+. No other coupling of p and q changes fewer rows (the maximal coupling, e.g. T.
Lindvall, *Lectures on the Coupling Method*, 1992); the ordered transport of ranks
through all patterns would move nearly all of them by one place. Coordinates that are
continuous in both patterns keep their ranks. One that is not in the old pattern has a
rank that is drawn.
"""

from typing import Any

import numpy as np

from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array

# Share of the excess that a draw stays below: no pattern without excess is drawn.
_BELOW = 1.0 - 1e-6


def changed_pattern(codes: Array, p: Array, q: Array, noise: Array) -> Array:
    """Return the code (n, n_patterns) of the pattern that each row gets.

    Args:
        codes: One-hot code of the pattern that the row has.
        p: Probabilities of the patterns in simulation.
        q: Probabilities of the patterns in data.
        noise: A standard normal number a row, (n, 1).
    """
    n = p.shape[-1]
    own_p, own_q = (f.total(codes * each, 1) for each in (p, q))
    # U p_k is uniform below p_k: where it is below q_k, the row stays.
    level = f.uniform(noise) * own_p
    excess = f.cumulated(f.relu(q - p))
    # (U p_k - q_k) / (p_k - q_k) is uniform among the rows that do not.
    place = (level - own_q) * f.columns(excess, n - 1, n) * _BELOW
    above = f.numbers(
        f.greater(place, f.columns(excess, 0, n - 1) * (own_p - own_q)), p
    )
    difference = np.eye(n - 1, n, k=1) - np.eye(n - 1, n)
    drawn = f.affine(above, difference, np.eye(n)[0])
    return f.where(f.less(level, own_q), codes, drawn)


def only_known(q: Array, known: Any) -> Array:
    """Return probabilities (n, n_patterns) of those patterns alone that are known."""
    kept = q * np.asarray(known, dtype=np.float32)[np.newaxis]
    return kept / f.total(kept, 1)
