"""How far generated responses are wrong in the denominator, measured and corrected."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.efficiency import smoothing
from pidgan.efficiency.analysis_rows import Rows
from pidgan.efficiency.binning import ChosenEdges
from pidgan.efficiency.estimates import Origin
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.smoothing import SCALE_FLOOR
from pidgan.efficiency.track_maps import Maps, parts_of

MIN_DENOMINATOR = 1e-3
"""Share of generated rows in the denominator below which a bin is left as it is: its
relative error is not known, and an analysis has hardly any rows there."""

MAX_MODES = 30
"""Largest number of modes of the uncertainty of a denominator."""


def conditional_shares(shares: FloatArray, known: FloatArray) -> FloatArray:
    """Return shares of cuts among the last one, (n_cuts, n), the mean if it has none.

    `known` (n_cuts, n_bins) are the efficiencies of other bins, NaN where unknown.
    """
    *passed, total = shares
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.array(passed) / total
    mean = np.nanmean(known, axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, found, mean))


def denominator_error(rows: ComparedRows, edges: ChosenEdges) -> dict[str, Any]:
    """Return the relative error of the denominator in each bin, and its uncertainty.

    It is (real - generated) / generated share of rows that are counted at all,
    smoothed. Where it differs between bins, the generated rows of an analysis fill them
    wrongly. The uncertainty is in modes, the largest eigenvectors of its covariance,
    each times the root of its eigenvalue.
    """
    counted = rows.denominator()
    found = counted.in_bins(edges).measured(smoothing.MIN_N_EFF)
    share = np.nan_to_num(found.generated.efficiency.reshape(1, -1))
    smooth, _ = smoothing.smooth_cuts(found, share)
    scale = np.where(share[0] > MIN_DENOMINATOR, share[0], np.inf)
    shift = np.maximum(smooth[0].mean / scale, -1.0)
    values, vectors = np.linalg.eigh(
        smooth[0].covariance / scale / scale[:, np.newaxis]
    )
    order = np.argsort(-values)[:MAX_MODES]
    modes = np.sqrt(np.maximum(values[order], 0)) * vectors[:, order]
    kept = np.abs(modes).max(axis=0) > 0
    return {"shift": shift.tolist(), "modes": modes.T[kept].tolist()}


def denominator_weights(rows: Rows, maps: Maps) -> FloatArray:
    """Return by how much each row (n,) counts more than it was generated."""
    factor = np.ones(len(rows.weights))
    for track, own in rows.tracks.items():
        for part in parts_of(maps[track]):
            shift = part.map.denominator_shift
            if shift.any():
                mine = (own.place >= part.bins.start) & (own.place < part.bins.stop)
                factor[mine] *= 1 + shift[own.place[mine] - part.bins.start]
    return factor


def denominator_shifts(
    maps: Maps,
    rows: Rows,
    values: FloatArray,
    means: FloatArray,
    *,
    mean: Callable[[FloatArray], FloatArray],
    correction: bool,
) -> dict[Origin, FloatArray]:
    """Return the shifts of means (n_cells,) from errors of denominators.

    `mean` gives the means of values (n,) of the rows. A denominator that is not
    corrected is wrong by its whole error.
    """
    found: dict[Origin, FloatArray] = {}
    for track, own in maps.items():
        place = rows.tracks[track].place
        for part in parts_of(own):
            error = part.map.denominator_shift
            modes = part.map.denominator_modes / np.maximum(1 + error, SCALE_FLOOR)
            if not correction:
                modes = np.concatenate([modes, error[np.newaxis]])
            mine = (place >= part.bins.start) & (place < part.bins.stop)
            for number, mode in enumerate(modes):
                of_rows = np.zeros(len(values))
                of_rows[mine] = mode[place[mine] - part.bins.start]
                shift = mean(of_rows * values)
                shift -= means * mean(of_rows)
                origin = ((part.key, number), "denominator")
                found[origin] = shift + found.get(origin, 0.0)
    return found
