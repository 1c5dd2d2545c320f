"""Rows that a training draws: those at rare conditions more often than they come.

A generator learns the targets *given* the conditions, which does not depend on how
often a condition comes: with every weight multiplied by a function of the conditions,
its losses have the same optimum. How well it learns them in a training does depend on
it. Rows are drawn with a probability in proportion to

    density(x)^(-FLATTENING), at most MOST_OFTEN times the mean,

so that a corner with few tracks, where an efficiency is as much asked for as elsewhere,
is seen more often. The density is that of the conditions as networks see them, from
the distance to the k-th nearest row (Loftsgaarden and Quesenberry, Ann. Math. Statist.
36 (1965) 1049).
"""

import numpy as np
import scipy.spatial

from pidgan.arrays import FloatArray, IntArray

FLATTENING = 0.25
MOST_OFTEN = 10.0
# Rows that the density is taken from; more would not make it better.
REFERENCE_ROWS = 20_000
NEIGHBOURS = 10
# Mean number of times that a row is in the list: fractions of it are lost.
REPEATS = 8


def draw_probabilities(x: FloatArray, dimension: int) -> FloatArray:
    """Return how often each row is drawn (n,), mean 1, at conditions (n, c).

    They are ones where most rows share their conditions with others, whose density has
    no meaning. `dimension` counts continuous conditions.
    """
    rows = np.asarray(x, dtype=np.float64)
    known = rows[:: max(1, len(rows) // REFERENCE_ROWS)]
    neighbour = min(NEIGHBOURS, len(known))
    tree = scipy.spatial.cKDTree(known)
    distance = np.ravel(tree.query(rows, k=[neighbour], workers=-1)[0])
    middle = np.median(distance)
    if not middle > 0:
        return np.ones(len(rows))
    often = (distance / middle) ** (FLATTENING * dimension)
    often = np.minimum(often, MOST_OFTEN * often.mean())
    return np.asarray(often / often.mean())


def flatter_draws(x: FloatArray, dimension: int) -> IntArray:
    """Return numbers of rows (REPEATS n,), each as often as it is to be drawn."""
    often = np.cumsum(draw_probabilities(x, dimension))
    n = REPEATS * len(often)
    places = (np.arange(n) + 0.5) / n * often[-1]
    return np.asarray(np.searchsorted(often, places), dtype=np.int32)
