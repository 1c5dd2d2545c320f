"""Judge generated showers against real ones: figures, each beside its floor.

The judged rows are split in two halves. A distance is measured between the real
showers of one half and the showers generated for the conditions of the other, and
averaged over both ways. Its floor is the distance between the real showers of the two
halves. The sizes are equal, so that a perfect generator has the floor, up to the error
of the floor. Separation powers, which are quick, are averaged over ten ways to halve.
Errors are standard deviations of single estimates. Classifiers use all rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import BoolArray, FloatArray
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import check_cells
from pidgan.errors import DatasetError, nearest
from pidgan.report import shower_energies, shower_metrics
from pidgan.report.metrics import c2st, separation_power
from pidgan.report.report import Report, plain
from pidgan.report.shower_data import ShowerData
from pidgan.report.shower_measures import Measures, blocks, measure, spectrum_edges
from pidgan.report.shower_metrics import Curve
from pidgan.report.shower_page import shower_report
from pidgan.report.shower_tests import (
    code_pull,
    correlation_pull,
    correlation_shares,
    histogram_pull,
    mean_pull,
)

MIN_SHOWERS = 400  # a classifier then has 200 of each kind in a half
HALVINGS = 10  # ways to halve the showers for a separation power
BLOCK_ROWS = 1000  # showers that are generated at a time
SHOWN = 3  # single showers that are drawn
CLASSIFIED_CELLS = 4000  # most cells that a classifier sees
SPECTRUM_JOINED = 5  # bins of a drawn spectrum in a tested one
MOST_CHANGES = 2**26  # showers times pairs of layers of the test of correlations


def generate_showers(
    generate: Callable[[FloatArray, FloatArray], FloatArray],
    conditions: ArrayLike,
    *,
    n_noise: int,
    seed: int = 1,
) -> FloatArray:
    """Return one generated shower for each row of conditions.

    `generate` is a function from conditions (m, c) and standard normal noise
    (m, n_noise) to cells (m, n_cells), such as `sample` of a parametrisation.
    Conditions are (n, c) and the energies of the cells (n, n_cells).
    """
    x = np.asarray(conditions, dtype=np.float32)
    rng = np.random.default_rng(seed)
    blocks = []
    for start in range(0, len(x), BLOCK_ROWS):
        part = x[start : start + BLOCK_ROWS]
        noise = rng.standard_normal((len(part), n_noise), dtype=np.float32)
        blocks.append(np.asarray(generate(part, noise), dtype=np.float32))
    return np.concatenate(blocks)


def compare_showers(
    real: ArrayLike,
    generated: ArrayLike,
    conditions: ArrayLike,
    geometry: Geometry,
    *,
    names: Sequence[str],
    energy_unit: str = "MeV",
    seed: int = 1,
    classifiers: bool = True,
    distances: bool = True,
) -> Report:
    """Compare real showers with showers generated for the same conditions.

    Showers are (n, n_cells) and conditions (n, c), with the names of their columns:
    "energy" is needed, "species" splits the response. `energy_unit` is that of cells
    and incident energies. The classifiers take most of the time; FPD, KPD and PRDC, the
    `distances`, half of the rest. The `data` of the report is a `ShowerData`.

    Raises:
        DatasetError: There are too few showers, or generated cells are not finite.
        ValueError: The numbers of rows differ, or no condition is "energy".
    """
    y, g = _checked(real, geometry), _checked(generated, geometry)
    x = np.asarray(conditions, dtype=np.float64)
    if len(y) != len(g) or len(y) != len(x):
        raise ValueError(
            f"{len(y)} real and {len(g)} generated showers for {len(x)} conditions"
        )
    if len(y) < MIN_SHOWERS:
        raise DatasetError(f"{len(y)} showers, expected at least {MIN_SHOWERS}")
    bad = sum(int(np.sum(~np.isfinite(g[rows]).all(axis=1))) for rows in blocks(g))
    if bad:
        raise DatasetError(f"{bad} generated showers have cells that are no numbers")
    if "energy" not in names:
        raise ValueError(
            f"no condition 'energy' among {', '.join(names)}{nearest('energy', names)}"
        )
    energy = x[:, list(names).index("energy")]
    spectra = spectrum_edges(y, geometry)
    real_ones, made = (measure(cells, geometry, energy, spectra) for cells in (y, g))
    observed = [real_ones.observables, made.observables]
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(y)) < len(y) // 2 for _ in range(HALVINGS)]
    half = halves[0]
    figures: dict[str, Any] = {
        "geometry": geometry.name,
        "showers": len(y),
        "floor": "real showers of one half against those of the other",
    }
    figures |= _separations(observed, halves)
    if distances:
        figures |= _distances(observed, half, seed)
    figures["correlations"] = _correlations(real_ones, made, half, seed)
    figures["start"] = _starts(real_ones, made, halves)
    figures["spectrum"] = _spectra(real_ones, made, halves)
    if classifiers:
        figures["c2st"] = _classifiers(x, (y, g), observed, energy, half, seed)
    species = _species(x, names)
    edges = shower_metrics.energy_edges(energy)
    response = shower_energies.responses(real_ones, made, energy, edges, species)
    figures["response"] = {
        name: shower_energies.response_figures(
            real_ones, made, energy, edges, species[name], energy_unit, seed
        )
        for name in response
    }
    figures["tails"] = shower_energies.tail_figures(real_ones, made, energy, edges)
    order = np.argsort(energy, kind="stable")
    shown = order[(np.linspace(0.05, 0.95, SHOWN) * (len(order) - 1)).astype(int)]
    data = ShowerData(
        geometry=geometry,
        energy_unit=energy_unit,
        response=response,
        curves=_curves(real_ones, made, geometry, spectra),
        observables={k: (v, observed[1][k]) for k, v in observed[0].items()},
        average=(real_ones.average, made.average),
        single=(y[shown].astype(np.float64), g[shown].astype(np.float64)),
        single_energy=energy[shown],
        energy=energy,
        edges=edges,
        responses=(real_ones.totals / energy, made.totals / energy),
    )
    return shower_report(plain(figures), data)


def _checked(cells: ArrayLike, geometry: Geometry) -> FloatArray:
    """Return cells (n, n_cells) in their own precision."""
    e = np.asarray(cells)
    if e.ndim != 2 or e.shape[1] != geometry.n_cells:
        return check_cells(e, geometry)
    return e if e.dtype == np.float32 else e.astype(np.float64, copy=False)


def _separations(
    observed: Sequence[dict[str, FloatArray]], halves: Sequence[BoolArray]
) -> dict[str, Any]:
    """Separation power of each observable, and the mean of those that are no list."""
    y, g = observed
    powers = {
        name: _estimates(shower_metrics.separation, y[name], g[name], halves)
        for name in y
    }
    whole = [powers[name] for name in y if "[" not in name]
    values, floors = (np.mean(found, axis=0) for found in zip(*whole, strict=True))
    figures = {
        name: _figure(*found) | {"pull": histogram_pull(y[name], g[name])}
        for name, found in powers.items()
    }
    return {"separation": figures, "separation_mean": _figure(values, floors)}


def _distances(
    observed: Sequence[dict[str, FloatArray]], half: BoolArray, seed: int
) -> dict[str, Any]:
    """FPD, KPD and PRDC with floors."""
    y, g = observed
    whole = [name for name in y if "[" not in name]
    a, b = (np.stack([o[name] for name in whole], axis=1) for o in (y, g))
    one, two = (shower_metrics.neighbour_figures(a[m], b[~m]) for m in (half, ~half))
    floor = shower_metrics.neighbour_figures(a[half], a[~half], seed=seed)

    def with_floor(distance: Callable[..., tuple[float, float]]) -> dict[str, float]:
        values = _estimates(lambda s, t: distance(s, t, seed=seed)[0], a, b, [half])
        return _figure(*values)

    found: dict[str, Any] = {
        "fpd": with_floor(shower_metrics.frechet_distance),
        "kpd": with_floor(shower_metrics.kernel_distance),
    }
    found["prdc"] = {
        name: {
            "value": (one[name] + two[name]) / 2,
            "error": abs(one[name] - two[name]) / 2,
            "floor": floor[name],
        }
        for name in floor
    }
    return found


def _estimates(
    distance: Callable[[Any, Any], float],
    real: Any,
    generated: Any,
    halves: Sequence[BoolArray],
) -> tuple[FloatArray, FloatArray]:
    """Estimates of a distance (2 k,), two for each way to halve, and floors (k,)."""
    values = [distance(real[m], generated[~m]) for h in halves for m in (h, ~h)]
    return np.array(values), np.array([distance(real[h], real[~h]) for h in halves])


def _figure(values: FloatArray, floors: FloatArray) -> dict[str, Any]:
    """Means and standard deviations of estimates; of one there is none."""
    found: dict[str, Any] = {
        "value": float(values.mean()),
        "error": float(values.std()),
    }
    found["floor"] = float(floors.mean())
    if len(floors) > 1:
        found["floor_error"] = float(floors.std(ddof=1))
    return found


def _correlations(
    y: Measures, g: Measures, half: BoolArray, seed: int
) -> dict[str, Any]:
    """Differences of the correlations among layers' shares."""
    found = {}
    for view in y.layers:
        y_share, g_share = (
            e / np.maximum(e.sum(axis=1, keepdims=True), 1e-30)
            for e in (y.layers[view], g.layers[view])
        )
        difference = shower_metrics.correlation_difference
        figure = _figure(*_estimates(difference, y_share, g_share, [half]))
        rows = slice(max(MOST_CHANGES // y_share.shape[1] ** 2, 100))
        pair = y_share[rows], g_share[rows]
        figure |= correlation_shares(*pair)
        figure["pull"] = correlation_pull(*pair, seed=seed)
        found[view] = figure
    return found


def _starts(y: Measures, g: Measures, halves: Sequence[BoolArray]) -> dict[str, Any]:
    """Distributions of the first layer with 5 % of the energy, by view."""
    found = {}
    for view, energies in y.layers.items():
        a, b = y.starts(view), g.starts(view)
        figure = _figure(*_estimates(shower_metrics.separation, a, b, halves))
        most = energies.shape[1] + 1
        shares = [np.bincount(v, minlength=most) / len(v) for v in (a, b)]
        figure["pull"] = code_pull(a, b)
        figure |= {"real": shares[0].tolist(), "generated": shares[1].tolist()}
        found[view] = figure
    return found


def _spectra(y: Measures, g: Measures, halves: Sequence[BoolArray]) -> dict[str, Any]:
    """Spectra of the energies of cells with energy, by view."""
    found = {}

    def distance(a: FloatArray, b: FloatArray) -> float:
        if not (a.any() and b.any()):
            return float(a.any() != b.any())
        return separation_power(a.sum(axis=0), b.sum(axis=0))

    for view, counts in y.spectra.items():
        figure = _figure(*_estimates(distance, counts, g.spectra[view], halves))
        joined = [
            np.add.reduceat(c, np.arange(0, c.shape[1], SPECTRUM_JOINED), axis=1)
            for c in (counts, g.spectra[view])
        ]
        figure["pull"] = mean_pull(*joined)
        hit = [float(c.sum(axis=1).mean()) for c in joined]
        figure |= {"cells_real": hit[0], "cells_generated": hit[1]}
        found[view] = figure
    return found


def _classifiers(
    x: FloatArray,
    cells: tuple[FloatArray, FloatArray],
    observed: Sequence[dict[str, FloatArray]],
    energy: FloatArray,
    half: BoolArray,
    seed: int,
) -> dict[str, Any]:
    """Two-sample tests on observables and on cells, beside the conditions."""
    # The network sees energies over decades better by their logarithm.
    known = np.concatenate([x, np.log(energy)[:, None]], axis=1)
    most = _energetic_cells(cells[0])
    levels = {
        "high": [np.stack(list(o.values()), axis=1) for o in observed],
        "low": [shower_metrics.low_level(e[:, most], energy) for e in cells],
    }
    found = {}
    for name, (a, b) in levels.items():
        a, b = np.concatenate([known, a], axis=1), np.concatenate([known, b], axis=1)
        value = c2st(a, b, seed=seed, paired=True)
        floor = c2st(a[half], a[~half], seed=seed)
        found[name] = {
            "value": value.auc,
            "error": value.error,
            "floor": floor.auc,
            "floor_error": floor.error,
            "trees": value.auc_trees,
            "network": value.auc_network,
            "showers": value.n_real,
        }
    found["low"]["cells"] = len(np.arange(cells[0].shape[1])[most])
    return found


def _energetic_cells(cells: FloatArray) -> Any:
    """Cells that a classifier sees: all, or those with the most energy on average."""
    if cells.shape[1] <= CLASSIFIED_CELLS:
        return slice(None)
    sums = sum(cells[rows].sum(axis=0, dtype=np.float64) for rows in blocks(cells))
    return np.sort(np.argsort(-np.asarray(sums), kind="stable")[:CLASSIFIED_CELLS])


def _species(x: FloatArray, names: Sequence[str]) -> dict[str, BoolArray]:
    """Rows (n,) of each species, "all" first."""
    found: dict[str, BoolArray] = {"all": np.ones(len(x), dtype=np.bool_)}
    if "species" in names:
        code = x[:, list(names).index("species")]
        values = np.unique(code)
        if 1 < len(values) <= 10:
            found |= {f"species {value:g}": code == value for value in values}
    return found


def _curves(
    y: Measures, g: Measures, geometry: Geometry, spectra: dict[str, FloatArray]
) -> dict[str, tuple[Curve, Curve]]:
    """Profiles and cell spectra of each view."""
    found: dict[str, tuple[Curve, Curve]] = {}
    mean = shower_metrics.mean_curve
    for view in geometry.views:
        name = view.name
        bins = {
            "profile": (y.layers, g.layers, shower_metrics.depth_edges),
            "lateral": (y.lateral, g.lateral, shower_metrics.radial_edges),
        }
        for kind, (real, made, edges_of) in bins.items():
            if name in real:
                edges = edges_of(geometry, name)
                found[f"{kind}/{name}"] = (
                    mean(edges, real[name]),
                    mean(edges, made[name]),
                )
        edges = spectra[name]
        found[f"spectrum/{name}"] = (
            mean(edges, y.spectra[name]),
            mean(edges, g.spectra[name]),
        )
    return found
