"""Fits what is known of energies of cells, on training rows only."""

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import View
from pidgan.calorimeter.halving import halve, node_energies
from pidgan.calorimeter.observables import depths
from pidgan.errors import TrainingError
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.training.conditions import LOG, ConditionTransform
from pidgan.training.targets.cells import incident_energies
from pidgan.training.targets.energies import CellEnergies, functions

CELL_BINS, LAYER_BINS, TOTAL_BINS = 24, 24, 40
"""Bins of the logarithms of energies."""

QUANTILES, TOTAL_QUANTILES = 0.7, 0.9
"""Share of the bins that follow the quantiles; the others are of equal size."""

NEXT_TO_NOTHING = 0.01
"""Share of the cells, of those with energy, that have less than what is seen."""

FIT_ROWS = 4000
"""Most showers that bins and axis are fitted to."""

PLACES = ("phi", "x0", "y0")
"""Conditions that act through the axis alone; a symmetry may name others."""

RIDGE = 1e-3
"""Prior of the coefficients of the axis, in units of their own information."""


def fit_energies(
    sample: Sample, part: Part, conditions: ConditionTransform
) -> CellEnergies:
    """Fit bins and axis to the cells of the first view, on training rows only."""
    described = sample.cells
    if described is None:
        raise TrainingError(f"sample {sample.name!r} has no cells")
    view, incident = described.layout.views[0], -1
    if described.incident is not None:
        incident = sample.condition_names.index(described.incident)
    step = max(1, len(part.weights) // FIT_ROWS)
    cells = np.asarray(part.targets[::step, : view.n_cells], dtype=np.float64)
    x = conditions.forward(part.conditions[::step])
    tree = halve(view)
    nodes = node_energies(tree, cells)
    layers = nodes[:, : len(view.layers)]
    deeper = layers[:, ::-1].cumsum(axis=1)[:, ::-1]
    energy = incident_energies(part.conditions[::step], incident)[:, 0]
    halves = np.minimum(nodes[:, tree.first], nodes[:, tree.second])
    rests = np.minimum(layers[:, :-1], deeper[:, 1:])
    column, is_log, unit = _column(conditions, incident)
    depth = depths(view)
    middle, spread = depth.mean(), max(np.ptp(depth), 1e-9)
    depth = (depth - middle) / spread
    places = {
        *PLACES,
        *(described.symmetry.columns.values() if described.symmetry else ()),
    }
    is_place = [name in places for name in sample.condition_names]
    told = np.flatnonzero(~np.array(is_place)[conditions.source])
    return CellEnergies(
        n_cells=view.n_cells,
        threshold=described.threshold,
        incident=np.array([column, is_log]),
        unit=unit,
        told=told,
        least=np.array([_least(cells), _least(layers)]),
        cell_edges=_edges(halves, CELL_BINS),
        layer_edges=_edges(rests, LAYER_BINS),
        total_edges=_edges(deeper[:, 0] / energy, TOTAL_BINS, TOTAL_QUANTILES),
        axis=_fit_axis(cells, x, view, depth),
        depth=depth,
    )


def _column(
    conditions: ConditionTransform, incident: int
) -> tuple[int, int, FloatArray]:
    """Return column of the incident energy, 1 if it is a logarithm, and its unit."""
    found = np.flatnonzero(conditions.source == incident)
    if incident < 0 or not len(found):
        return -1, 0, np.array([0.0, 1.0])
    j = int(found[0])
    unit = np.array([conditions.centre[j], conditions.scale[j]], dtype=np.float64)
    return j, int(conditions.code[j] == LOG), unit


def _least(energies: FloatArray) -> float:
    """Return the energy next to nothing; 1 if there is none at all."""
    positive = energies[energies > 0]
    return float(np.quantile(positive, NEXT_TO_NOTHING)) if len(positive) else 1.0


def _edges(energies: FloatArray, n: int, quantiles: float = QUANTILES) -> FloatArray:
    """Return edges (n + 1,) of bins of ln(energy), partly quantiles, partly equal."""
    logs = np.sort(np.log(energies[energies > 0]))
    if not len(logs):
        return np.linspace(-1, 0, n + 1)
    low, high = logs[int(1e-4 * len(logs))], logs[-1]
    margin = 0.01 * max(high - low, 1e-3)
    grid = np.linspace(low - margin, high + margin, 4001)
    share = np.searchsorted(logs, grid) / len(logs)
    place = quantiles * share + (1 - quantiles) * np.linspace(0, 1, len(grid))
    return np.asarray(np.interp(np.linspace(place[0], place[-1], n + 1), place, grid))


def _fit_axis(
    cells: FloatArray, x: FloatArray, view: View, depth: FloatArray
) -> FloatArray:
    """Return A and B, (2, n_phi, 2), from the centres of energy of the layers."""
    phi = functions(np.ascontiguousarray(x.T, dtype=np.float64)).T
    whole = np.maximum(cells.sum(axis=1), 1e-30)
    design, centres, weights = [], [], []
    for layer, part, z in zip(view.layers, view.layer_slices, depth, strict=True):
        energy = cells[:, part].sum(axis=1)
        here = energy > 0
        design.append(np.concatenate([phi[here], phi[here] * z], axis=1))
        centres.append(cells[:, part][here] @ layer.plane()[0] / energy[here, None])
        weights.append(energy[here] / whole[here])
    a, b, w = (np.concatenate(v) for v in (design, centres, weights))
    weighted = a * w[:, None]
    information = a.T @ weighted
    prior = RIDGE * np.diag(np.diag(information) + 1e-9)
    found = np.linalg.solve(information + prior, weighted.T @ b)
    return np.asarray(found.reshape(2, -1, 2))
