"""Bins of an efficiency map that are too coarse: the correction changes inside them.

A map takes the difference of real and generated efficiency as constant in a bin. An
analysis that fills a bin at another place than the reference gets the difference of the
wrong place. With the place u of a row in its bin along an axis, from -1/2 to 1/2 about
the mean of the rows, and the residual rho = r - g - d_b, the slope is

    s = sum w u rho / sum w u^2,    sigma_s^2 = sum w^2 u^2 rho^2 / (sum w u^2)^2,

over all bins: how much the difference changes from one end of a bin to the other.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.efficiency import binning as bins
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.errors import PidganWarning

NAME = "coarse_bins"
"""Where the metadata of a map say what changes inside its bins."""

SHIFT = 0.1
"""Distance in u by which an analysis may fill all bins at another place."""

LARGE = 3.0
"""Errors of the average that this shift changes it by, from which bins are too coarse.
A smaller change is what the variation "binning" is for."""

SIGNIFICANT = 4.0
"""Standard deviations from which a slope is no fluctuation."""


def slopes_in_bins(
    rows: ComparedRows, edges: bins.ChosenEdges
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return the slope of each cut along each axis, and its error, (n_cuts,) each."""
    place = bins.bin_index(rows.columns, edges)
    use = place >= 0
    at, w, n = place[use], rows.weights[use], bins.count_bins(edges)
    norm = np.bincount(at, w, n)
    usable = norm > 0
    norm = np.where(usable, norm, 1.0)
    w = np.where(usable[at], w, 0.0)

    def centred(values: FloatArray) -> FloatArray:
        return values - (np.bincount(at, w * values, n) / norm)[at]

    step = rows.real[:, use] - rows.generated[:, use] / rows.repeats
    residuals = np.array([centred(one) for one in step])
    steps = np.unravel_index(at, bins.bin_shape(edges))
    found = {}
    for (name, ends), number in zip(edges.items(), steps, strict=True):
        low, high = np.array(ends)[number], np.array(ends)[number + 1]
        u = centred((rows.columns[name][use] - low) / (high - low))
        total = (w * u * u).sum()
        if not total > 0:
            continue
        slope = residuals @ (w * u) / total
        error = np.sqrt(residuals**2 @ (w * u) ** 2) / total
        found[name] = slope, error
    return found


def warn_of_coarse(
    rows: ComparedRows, edges: bins.ChosenEdges, errors: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Warn of axes whose bins are too coarse, and return the slopes there by cut.

    The errors are those of the average of each cut: what is less than `LARGE` of
    them is within what other parts of the uncertainty cover.
    """
    coarse: dict[str, dict[str, float]] = {}
    if rows.among is not None:
        return {}
    for name, (slope, sigma) in slopes_in_bins(rows, edges).items():
        moved = SHIFT * np.abs(slope)
        is_coarse = (np.abs(slope) > SIGNIFICANT * sigma) & (
            moved > LARGE * np.array(errors)
        )
        for cut, value, error in zip(
            np.array(rows.cuts)[is_coarse],
            slope[is_coarse],
            sigma[is_coarse],
            strict=True,
        ):
            coarse.setdefault(str(cut), {})[name] = float(value)
            warnings.warn(
                f"cut {str(cut)!r}: the bins in {name} are too coarse: from one end of "
                f"a bin to the other, real minus generated efficiency changes by "
                f"{100 * value:.2g} +- {100 * error:.2g} %, so that an analysis with "
                f"other tracks in a bin gets a wrong correction; give more bins in "
                f"{name}",
                PidganWarning,
                stacklevel=4,
            )
    return coarse
