"""The variation "fit_and_count" of an efficiency map: signal counted by mass fits.

sWeights subtract background whose discriminant is independent of conditions and
response. Mass fits of the rows that pass and that fail, in bins, need no such
assumption (`pidgan.sample.mass_fit_pass_fail`). The variation is the difference of the
two efficiencies, fitted minus sWeighted, in bins of the map that are merged until each
has enough signal for a fit. Both are measured on the same rows, so that most of their
fluctuations cancel.
"""

import warnings
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency import binning as bins
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.errors import FitError, MapError, PidganWarning
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_fit_pass_fail import count_signal, fit_all, position_of

NAME = "fit_and_count"
"""Name of the variation, and of its account in the metadata of a map."""

FIT_ROWS = 4000.0
"""Sum of weights, the signal, of a merged bin."""

MAX_FITS = 16
"""Largest number of merged bins."""


def add_counted(
    efficiency_map: EfficiencyMap,
    rows: ComparedRows,
    shape: Discriminant | None,
    *,
    is_asked: bool,
) -> None:
    """Add the variation to a map that was made of these rows.

    If nobody asked for it, it is left out with a warning where that is impossible.
    """
    try:
        change, account = counted_difference(rows, efficiency_map.binning, shape)
    except MapError as error:
        if is_asked:
            raise
        efficiency_map.metadata[NAME] = {"left_out": str(error)}
        warnings.warn(f"{error}; it is left out", PidganWarning, stacklevel=4)
        return
    pairs = zip(efficiency_map.operator, change, strict=True)
    efficiency_map.variations[NAME] = np.array([a @ d for a, d in pairs])
    efficiency_map.metadata[NAME] = account


def counted_difference(
    rows: ComparedRows, edges: bins.ChosenEdges, shape: Discriminant | None
) -> tuple[FloatArray, dict[str, Any]]:
    """Return fitted minus sWeighted efficiency in bins, and an account of the fits.

    The difference is (n_cuts, n_bins). A bin whose fit failed has the mean of the
    others, which is announced.

    Raises:
        MapError: The rows have no discriminant, or no fit converges.
    """
    if rows.discriminant is None or shape is None:
        raise MapError(
            f"variation {NAME!r} needs the discriminant of the sWeights, which the "
            "reference does not have; prepare the dataset again, and export the bundle"
        )
    merged, n_merged = _merged_bins(rows, edges)
    place = bins.bin_index(rows.columns, edges)
    inside = place >= 0
    if rows.among is not None:
        inside = inside & rows.among
    cell = np.where(inside, merged[place], -1)
    position = position_of(rows.discriminant, shape)
    fitted = (position >= 0) & (position <= 1)
    try:
        start = fit_all(position[fitted & inside], shape, "mass fit of the reference")
    except FitError as error:
        raise MapError(f"variation {NAME!r}: {error}") from None
    found = count_signal(
        position,
        rows.real,
        np.where(fitted, cell, -1),
        n_bins=n_merged,
        start=start,
    )
    weighted = np.full(found.efficiency.shape, np.nan)
    sizes = np.bincount(cell[inside], rows.weights[inside], n_merged)
    w = np.asarray(sizes, dtype=np.float64)
    for i, passed in enumerate(rows.real[:, inside]):
        sums = np.bincount(cell[inside], rows.weights[inside] * passed, n_merged)
        weighted[i] = np.divide(sums, w, out=weighted[i].copy(), where=w > 0)
    difference = found.efficiency - weighted
    account = {
        "bins": n_merged,
        "failed": {
            rows.cuts[i]: [text for (j, _), text in found.problems.items() if j == i]
            for i in sorted({i for i, _ in found.problems})
        },
        "p_values": {
            cut: [None if np.isnan(p) else float(p) for p in values]
            for cut, values in zip(rows.cuts, found.p_value, strict=True)
        },
    }
    return _everywhere(rows, difference, w)[:, merged], account


def _everywhere(
    rows: ComparedRows, difference: FloatArray, sizes: FloatArray
) -> FloatArray:
    """Return differences with the mean of the others where there is none."""
    filled = difference.copy()
    for i, cut in enumerate(rows.cuts):
        lost = ~np.isfinite(difference[i])
        if lost.all():
            raise MapError(f"variation {NAME!r}: no mass fit of {cut!r} converges")
        if lost.any():
            warnings.warn(
                f"variation {NAME!r}: {np.count_nonzero(lost)} of {len(lost)} mass "
                f"fits of {cut!r} fail; the mean difference of the others stands there",
                PidganWarning,
                stacklevel=5,
            )
            kept = np.abs(sizes[~lost])
            filled[i, lost] = np.average(difference[i, ~lost], weights=kept)
    return filled


def _merged_bins(rows: ComparedRows, edges: bins.ChosenEdges) -> tuple[IntArray, int]:
    """Return the merged bin of each bin of a map (n_bins,), and how many there are."""
    shape = bins.bin_shape(edges)
    place = bins.bin_index(rows.columns, edges)
    w = np.bincount(place[place >= 0], rows.weights[place >= 0], bins.count_bins(edges))
    allowed = int(np.clip(w.sum() / FIT_ROWS, 1, MAX_FITS))
    parts = [1] * len(shape)
    while True:
        more = [
            axis
            for axis, n in enumerate(shape)
            if parts[axis] < n
            and np.prod(parts) // parts[axis] * (parts[axis] + 1) <= allowed
        ]
        if not more:
            break
        parts[min(more, key=lambda axis: parts[axis])] += 1
    grid = np.maximum(w, 0).reshape(shape)
    number = np.zeros(shape, dtype=np.int64)
    for axis, n in enumerate(parts):
        along = grid.sum(axis=tuple(a for a in range(len(shape)) if a != axis))
        # The middle of each bin among the rows says which part it belongs to.
        middle = (np.cumsum(along) - 0.5 * along) / max(along.sum(), 1e-12)
        part = np.minimum((middle * n).astype(np.int64), n - 1)
        view = [1] * len(shape)
        view[axis] = len(part)
        number = number * n + part.reshape(view)
    _, numbered = np.unique(number.ravel(), return_inverse=True)
    return numbered, int(numbered.max()) + 1
