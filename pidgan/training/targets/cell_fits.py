"""Fits the quantiles of the energies of cells, on training rows only."""

from typing import Any

import numpy as np
import scipy.special

from pidgan.arrays import FloatArray, IntArray
from pidgan.calorimeter.geometry import Geometry
from pidgan.training.targets.cells import (
    ALONE,
    N_KNOTS,
    NO_EDGE,
    ONE,
    SMALLEST,
    ZERO,
    CellTransform,
    groups,
    incident_energies,
    quantities,
    to_scale,
)

MIN_POSITIVE = 8
"""Fewer positive values than this have no distribution; the quantity is zero then."""

LINE_MARGIN = 0.1
"""Straight lines end this far beyond all values, in units of their spread."""

MISSING_UNIT = 0.1
"""Added to what is missing, in units of its median: a total of 1 is not far away."""


def fit_cells(
    cells: FloatArray,
    conditions: FloatArray,
    geometry: Geometry,
    *,
    incident: int = -1,
    scheme: str = "layers",
    scale: str = "log",
    threshold: float = 0.0,
    lines: bool = False,
) -> CellTransform:
    """Fit the quantiles of all quantities of cells (n, n_cells), on training rows only.

    `incident` is the number of the condition that is the incident energy, -1 for none;
    scheme is 'layers' or 'cells', scale 'log' or 'logit'. With `lines`, coordinates are
    logarithms in a common unit, the same for all cells of a layer, and for all layers
    of a view; the total over the incident energy is seen through its logit, as near 1
    what counts is what is missing.
    """
    layer_of = view_of = np.zeros(0, dtype=np.int64)
    sizes = np.zeros(0, dtype=np.int64)
    if scheme == "layers":
        layer_of = np.asarray(geometry.layer_index)
        counts = [len(view.layers) for view in geometry.views]
        view_of = np.repeat(np.arange(len(counts)), counts)
        in_layer = np.bincount(layer_of)
        sizes = np.concatenate([[2], np.array(counts)[view_of], in_layer[layer_of]])
    quantity = quantities(
        cells,
        incident_energies(conditions, incident),
        layer_of=layer_of,
        view_of=view_of,
    )
    positive = quantity > SMALLEST
    place = np.full(quantity.shape[1], ZERO)
    place[positive.sum(axis=0) >= MIN_POSITIVE] = 0
    if len(sizes):
        place[sizes == 1] = ONE
    place[place == 0] = np.arange((place == 0).sum())
    has_logit = np.full(len(place), scale == "logit" and scheme == "layers")
    has_logit[: len(sizes) and 1] = False
    kept = place >= 0
    values = to_scale(quantity[:, kept], has_logit[kept] & (not lines))
    fitted = [_fit_knots(column) for column in values.T]
    if lines:
        scale = "log"
        group = groups(layer_of, view_of)[kept] if len(sizes) else np.zeros(kept.sum())
        fitted = _fit_lines(values, group)
        if len(sizes) and incident >= 0 and kept[0]:
            fitted[0] |= _fit_logit(values[:, 0])
    return CellTransform(
        incident=incident,
        layer_of=layer_of,
        view_of=view_of,
        place=place,
        logit=scale == "logit",
        **{
            name: np.array([found[name] for found in fitted], dtype=np.float32)
            for name in ("edge", "z_min", "z_max", "knots")
        },
        threshold=threshold,
    )


def _fit_knots(values: FloatArray) -> dict[str, Any]:
    """Return edge, z_min, z_max and the values at the knots of one quantity."""
    found = np.sort(values[~np.isneginf(values)])
    zeros = 1 - len(found) / len(values)
    ranks = (np.arange(len(found)) + 0.5) / len(found)
    z_min, z_max = scipy.special.ndtri(zeros + (1 - zeros) * ranks[[0, -1]])
    at = scipy.special.ndtr(np.linspace(z_min, z_max, N_KNOTS))
    knots = np.interp((at - zeros) / (1 - zeros), ranks, found)
    return {
        "edge": scipy.special.ndtri(zeros) if zeros > 0 else NO_EDGE,
        "z_min": z_min,
        "z_max": z_max,
        "knots": np.maximum.accumulate(knots),
    }


def _fit_lines(values: FloatArray, group: IntArray) -> list[dict[str, Any]]:
    """Return edge, z_min, z_max and knots on the straight line of each group."""
    found: list[dict[str, Any]] = [{} for _ in values.T]
    for number in np.unique(group):
        mine = np.flatnonzero(group == number)
        seen = values[:, mine]
        seen = seen[~np.isneginf(seen)]
        mean, scale = seen.mean(), max(seen.std(), SMALLEST)
        for j in mine:
            column = values[:, j][~np.isneginf(values[:, j])]
            margin = LINE_MARGIN * column.std()
            low, high = column.min() - margin, column.max() + margin
            ends = {"z_min": (low - mean) / scale, "z_max": (high - mean) / scale}
            has_zeros = len(column) < len(values)
            found[j] = {
                **ends,
                # Rare values lie far below a narrow bulk.
                "edge": ends["z_min"] if has_zeros else min(NO_EDGE, ends["z_min"] - 1),
                "knots": np.linspace(low, high, N_KNOTS),
            }
    return found


def _fit_logit(values: FloatArray) -> dict[str, Any]:
    """Return edge, z_min, z_max and knots of ln q on a line of ln(q / (top - q))."""
    share = np.exp(values)
    largest = max(1.0, share.max())
    top = largest + max(MISSING_UNIT * np.median(largest - share), SMALLEST)
    alone = np.array([ALONE])
    (found,) = _fit_lines((values - np.log(top - share))[:, None], alone)
    return found | {"knots": np.log(top) - np.logaddexp(0, -found["knots"])}
