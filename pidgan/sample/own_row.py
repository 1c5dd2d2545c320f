"""The influence of a row on its own sWeight.

Shapes that are fitted to the same rows follow their fluctuations: a peak moves to where
the background is high by chance, which gives that background a positive weight. Each
free parameter so adds about var(N_s) / N_s rows of background to a small signal. A
weight that is the one of a fit without its row has no such part.
"""

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.sample.mass_fit import MassFit, components

#: Nodes between which the correction is interpolated.
_NODES = np.linspace(0.0, 1.0, 2001)
#: Density in place of zero, whose logarithm is finite.
_NO_DENSITY = 1e-200


def influence(
    position: FloatArray, fit: MassFit, yields: tuple[float, float]
) -> FloatArray:
    """Return what the weights (n,) of rows lack for their own influence on the fit."""
    return np.interp(position, _NODES, _without_own_row(fit, yields))


def _without_own_row(fit: MassFit, yields: tuple[float, float]) -> FloatArray:
    """Return by how much a weight changes at each node if the fit lacks this row.

    Without a row at x the parameters are, to first order, lower by I^-1 s, where s is
    the derivative of log(N_s p_s + N_b p_b) at x and I its Fisher information (the
    infinitesimal jackknife: L. Jaeckel, Bell Lab. Memo. MM 72-1215-11 (1972)).
    """
    values = np.array([*yields, *fit.values[2:]])
    steps = 1e-3 * np.maximum(fit.errors, 1e-9 * np.abs(values))
    slopes, scores = [], []
    for k in np.flatnonzero(fit.free):
        ends = []
        for sign in (1.0, -1.0):
            moved = values.copy()
            moved[k] += sign * steps[k]
            ends.append(_curves(fit, moved))
        (above, log_above), (below, log_below) = ends
        slopes.append((above - below) / (2 * steps[k]))
        scores.append((log_above - log_below) / (2 * steps[k]))
    score = np.array(scores)
    density = np.exp(_curves(fit, values)[1])
    information = (score * density * _measure()) @ score.T
    # In units of the uncertainties, so that a combination that the data do not
    # determine is told from a small number.
    size = np.sqrt(np.diag(information))
    # A tail beyond the range changes nothing there.
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    inverse = np.linalg.pinv(information * np.outer(scale, scale), hermitian=True)
    shift = (inverse * np.outer(scale, scale)) @ score
    return np.asarray(-np.sum(np.array(slopes) * shift, axis=0))


def _curves(fit: MassFit, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the sWeight, and log(N_s p_s + N_b p_b), at each node."""
    peak, floor = (
        shape.density(_NODES)
        for shape in components(fit.signal, fit.background, values)
    )
    # A straight line may end at zero, where no row lies.
    total = np.maximum(values[0] * peak + values[1] * floor, _NO_DENSITY)
    pair = np.stack([peak, floor])
    inverse = np.linalg.inv((pair / total * _measure()) @ pair.T)
    return np.asarray(inverse[0] @ pair / total), np.log(total)


def _measure() -> FloatArray:
    """Return the weight of each node in an integral by trapezia."""
    measure = np.full(len(_NODES), _NODES[1])
    measure[[0, -1]] /= 2
    return measure
