"""What is measured on each shower, block by block, so that memory stays bounded."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import check_cells, layer_energies
from pidgan.report import shower_metrics

BLOCK_NUMBERS = 2**24  # cells of showers that are measured at a time, 128 MiB
START_SHARE = 0.05  # of the energy, in the first layer of a shower that has started


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Quantities of n showers; those of views are by the name of the view.

    Attributes:
        observables: Observables that are compared, (n,) each.
        totals: Energy of the first view (n,).
        layers: Energies of layers (n, layers) of views with several layers.
        lateral: Shares of energy (n, bins) against the distance, of views with a plane.
        spectra: Numbers of cells (n, bins) in bins of their energy.
        average: Mean energy of each cell (n_cells,).
    """

    observables: dict[str, FloatArray]
    totals: FloatArray
    layers: dict[str, FloatArray]
    lateral: dict[str, FloatArray]
    spectra: dict[str, FloatArray]
    average: FloatArray

    def starts(self, view: str) -> npt.NDArray[np.int64]:
        """Return the number of the first layer (n,) with 5 % of the energy, from 1.

        It is 0 for a shower without energy.
        """
        energies = self.layers[view]
        total = energies.sum(axis=1)
        begun = energies > START_SHARE * total[:, None]
        return np.where(total > 0, begun.argmax(axis=1) + 1, 0)


def blocks(cells: npt.NDArray[np.floating]) -> Iterator[slice]:
    """Yield the rows of blocks of showers that memory holds in double precision."""
    size = max(1, BLOCK_NUMBERS // max(cells.shape[1], 1))
    for start in range(0, len(cells), size):
        yield slice(start, start + size)


def spectrum_edges(
    cells: npt.NDArray[np.floating], geometry: Geometry
) -> dict[str, FloatArray]:
    """Return the bins of the energies of cells of each view."""
    found = {}
    for name, part in geometry.view_slices.items():
        positive = [
            block[block > 0] for block in (cells[r][:, part] for r in blocks(cells))
        ]
        values = np.concatenate(positive).astype(np.float64)
        found[name] = shower_metrics.spectrum_edges(values)
    return found


def measure(
    cells: npt.NDArray[np.floating],
    geometry: Geometry,
    energy: FloatArray,
    edges: dict[str, FloatArray],
) -> Measures:
    """Measure showers (n, n_cells) of incident energies (n,).

    `edges` are bins of the energies of cells by view.
    """
    parts = [_measure(cells[r], geometry, energy[r], edges) for r in blocks(cells)]

    def joined(name: str) -> dict[str, FloatArray]:
        values = [getattr(part, name) for part in parts]
        return {key: np.concatenate([v[key] for v in values]) for key in values[0]}

    sizes = [len(part.totals) for part in parts]
    average = np.average([part.average for part in parts], axis=0, weights=sizes)
    return Measures(
        observables=joined("observables"),
        totals=np.concatenate([part.totals for part in parts]),
        layers=joined("layers"),
        lateral=joined("lateral"),
        spectra=joined("spectra"),
        average=average if len(parts) > 1 else parts[0].average,
    )


def _measure(
    block: npt.NDArray[np.floating],
    geometry: Geometry,
    energy: FloatArray,
    edges: dict[str, FloatArray],
) -> Measures:
    e = check_cells(block, geometry)
    views = [(view, e[:, geometry.view_slices[view.name]]) for view in geometry.views]
    return Measures(
        observables=shower_metrics.high_level(e, geometry, energy),
        totals=views[0][1].sum(axis=1),
        layers={
            view.name: layer_energies(part, view)
            for view, part in views
            if view.has_depth
        },
        lateral={
            view.name: shower_metrics.lateral_shares(part, geometry, view.name)
            for view, part in views
            if view.has_plane
        },
        spectra={
            view.name: shower_metrics.spectrum_counts(part, edges[view.name])
            for view, part in views
        },
        average=e.mean(axis=0),
    )
