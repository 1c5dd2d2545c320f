"""Energies of cells as files hold them: views put together, units, sums that agree."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pidgan.arrays import FloatArray
from pidgan.errors import SampleError
from pidgan.files.tables import Source
from pidgan.sample.cells import Cells
from pidgan.sample.variables import UNIT_FACTORS

#: Relative difference up to which two views hold the same total energy.
VIEWS_AGREE = 1e-3
#: No calorimeter shows more than its incident energy, but for fluctuations and
#: calibrations.
MOST_RESPONSE = 3.0


def stack_views(
    arrays: Mapping[str, FloatArray], cells: Cells, source: Source
) -> FloatArray:
    """Return the cells of all views (n, n_cells) from branches with one view each.

    Args:
        arrays: Array (n, n_cells of the view) by branch.
        cells: Cells of the sample.
        source: File, for messages.

    Raises:
        SampleError: A view has more or fewer cells than the geometry.
    """
    found = []
    for view in cells.layout.views:
        array = arrays[cells.arrays[view.name]]
        array = array[:, None] if array.ndim == 1 else array
        if array.shape[1] != view.n_cells:
            raise SampleError(
                f"{source}: the array of view {view.name!r} has {array.shape[1]} "
                f"cells, the geometry {view.n_cells}"
            )
        found.append(array)
    return np.concatenate(found, axis=1)


def energies(stored: FloatArray, cells: Cells) -> npt.NDArray[np.float32]:
    """Return energies in package units, with zero for cells below the threshold."""
    converted = stored.astype(np.float32) * UNIT_FACTORS[cells.unit]
    converted[converted < cells.threshold] = 0
    return converted.astype(np.float32)


def check_energies(
    values: FloatArray, cells: Cells, columns: Mapping[str, FloatArray], *, where: str
) -> None:
    """Refuse views that differ in their total, and a wrong unit of energy.

    Args:
        values: Energies (n, n_cells) in package units.
        cells: Cells of the sample.
        columns: Conditions (n,) by name.
        where: Name of the files in messages.

    Raises:
        SampleError: The views or the unit are wrong.
    """
    totals = {
        name: values[:, part].sum(axis=1, dtype=np.float64)
        for name, part in cells.layout.view_slices.items()
    }
    first, *others = totals.items()
    for name, total in others if cells.scheme == "layers" else ():
        bad = np.abs(total - first[1]) > VIEWS_AGREE * np.abs(first[1])
        if bad.any() and cells.threshold == 0:
            raise SampleError(
                f"{where}: views {first[0]!r} and {name!r} hold different energies in "
                f"{bad.sum()} of {len(bad)} rows, expected two accounts of one energy; "
                f'set scheme = "cells", or give each a definition of its own'
            )
    if cells.incident:
        response = float(np.median(first[1] / columns[cells.incident]))
        if response > MOST_RESPONSE:
            raise SampleError(
                f"{where}: the cells hold {response:.3g} times the incident energy "
                f"{cells.incident!r} (median); check cells.unit = {cells.unit!r}"
            )
