"""Values between the knots of tables, as a formula."""

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.formulas import Array


def interpolate(knots: FloatArray, position: Array, start: Array) -> Array:
    """Return values on straight lines between knots (n_tables, n_knots).

    Positions are in units of the distance between knots; `start` is the first knot of
    each value's table, counted through all tables. The value at the end of a table
    holds beyond it. NaN, the logarithm of a negative condition, looks up the first
    knot, and its fraction stays NaN.
    """
    n_knots = knots.shape[-1]
    position = f.clip(position, 0.0, n_knots - 1.0)
    left = f.minimum(f.floor(position), n_knots - 2.0)
    knot = f.where(f.greater(left, 0.0), left, 0.0)
    index = f.index(knot, start)
    table = knots.ravel()
    rise = f.lookup(np.diff(table, append=table[-1]), index)
    return f.lookup(table, index) + (position - left) * rise
