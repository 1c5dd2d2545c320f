"""Judge generated showers against real ones: figures, each beside its floor.

The judged rows are split in two halves. A distance is measured between the real
showers of one half and the showers generated for the conditions of the other, and
averaged over both ways. Its floor is the distance between the real showers of the two
halves. The sizes are equal, so that a perfect generator has the floor, up to the error
of the floor. Separation powers, which are quick, are averaged over ten ways to halve.
Errors are standard deviations of single estimates. Classifiers use all rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import BoolArray, FloatArray
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import check_cells
from pidgan.errors import DatasetError, nearest
from pidgan.report import shower_metrics
from pidgan.report.metrics import c2st
from pidgan.report.report import Report, plain
from pidgan.report.shower_metrics import Curve, Response
from pidgan.report.shower_page import ShowerData, shower_report

MIN_SHOWERS = 400  # a classifier then has 200 of each kind in a half
HALVINGS = 10  # ways to halve the showers for a separation power
BLOCK_ROWS = 1000  # showers that are generated at a time
SHOWN = 3  # single showers that are drawn


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
) -> Report:
    """Compare real showers with showers generated for the same conditions.

    Showers are (n, n_cells) and conditions (n, c), with the names of their columns:
    "energy" is needed, "species" splits the response. `energy_unit` is that of cells
    and incident energies. The classifiers take most of the time. The `data` of the
    report is a `ShowerData`.

    Raises:
        DatasetError: There are too few showers, or generated cells are not finite.
        ValueError: The numbers of rows differ, or no condition is "energy".
    """
    y, g = check_cells(real, geometry), check_cells(generated, geometry)
    x = np.asarray(conditions, dtype=np.float64)
    if len(y) != len(g) or len(y) != len(x):
        raise ValueError(
            f"{len(y)} real and {len(g)} generated showers for {len(x)} conditions"
        )
    if len(y) < MIN_SHOWERS:
        raise DatasetError(f"{len(y)} showers, expected at least {MIN_SHOWERS}")
    if not np.all(np.isfinite(g)):
        raise DatasetError(
            f"{np.sum(~np.isfinite(g).all(axis=1))} generated showers "
            "have cells that are no numbers"
        )
    if "energy" not in names:
        raise ValueError(
            f"no condition 'energy' among {', '.join(names)}{nearest('energy', names)}"
        )
    energy = x[:, list(names).index("energy")]
    observed = [shower_metrics.high_level(cells, geometry, energy) for cells in (y, g)]
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(y)) < len(y) // 2 for _ in range(HALVINGS)]
    half = halves[0]
    figures: dict[str, Any] = {
        "geometry": geometry.name,
        "showers": len(y),
        "floor": "real showers of one half against those of the other",
    }
    figures |= _separations(observed, halves)
    figures |= _distances(observed, half, seed)
    figures["correlations"] = _correlations(y, g, geometry, half)
    if classifiers:
        figures["c2st"] = _classifiers(x, (y, g), observed, energy, half, seed)
    response = _responses(y, g, geometry, energy, _species(x, names))
    figures["response"] = {
        name: _response_figures(*pair, energy_unit) for name, pair in response.items()
    }
    order = np.argsort(energy, kind="stable")
    shown = order[(np.linspace(0.05, 0.95, SHOWN) * (len(order) - 1)).astype(int)]
    data = ShowerData(
        geometry=geometry,
        energy_unit=energy_unit,
        response=response,
        curves=_curves(y, g, geometry),
        observables={k: (v, observed[1][k]) for k, v in observed[0].items()},
        average=(y.mean(axis=0), g.mean(axis=0)),
        single=(y[shown], g[shown]),
        single_energy=energy[shown],
    )
    return shower_report(plain(figures), data)


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
    figures = {name: _figure(*found) for name, found in powers.items()}
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


def _figure(values: FloatArray, floors: FloatArray) -> dict[str, float]:
    """Means and standard deviations of estimates; of one there is none."""
    found = {"value": float(values.mean()), "error": float(values.std())}
    found["floor"] = float(floors.mean())
    if len(floors) > 1:
        found["floor_error"] = float(floors.std(ddof=1))
    return found


def _correlations(
    y: FloatArray, g: FloatArray, geometry: Geometry, half: BoolArray
) -> dict[str, Any]:
    """Differences of the correlations among layers' shares."""
    found = {}
    for view in (one for one in geometry.views if one.has_depth):
        part = geometry.view_slices[view.name]
        starts = np.cumsum([0, *(layer.n_cells for layer in view.layers[:-1])])
        layers = [np.add.reduceat(e[:, part], starts, axis=1) for e in (y, g)]
        y_share, g_share = (
            e / np.maximum(e.sum(axis=1, keepdims=True), 1e-30) for e in layers
        )
        difference = shower_metrics.correlation_difference
        found[view.name] = _figure(*_estimates(difference, y_share, g_share, [half]))
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
    levels = {
        "high": [np.stack(list(o.values()), axis=1) for o in observed],
        "low": [shower_metrics.low_level(e, energy) for e in cells],
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
    return found


def _responses(
    y: FloatArray,
    g: FloatArray,
    geometry: Geometry,
    energy: FloatArray,
    species: dict[str, BoolArray],
) -> dict[str, tuple[Response, Response]]:
    """Response of the first view in bins of the energy, for each species."""
    part = geometry.view_slices[geometry.views[0].name]
    sums = [e[:, part].sum(axis=1) for e in (y, g)]
    edges = shower_metrics.energy_edges(energy)
    response = shower_metrics.energy_response
    found = {}
    for name, rows in species.items():
        real, made = (response(e[rows], energy[rows], edges) for e in sums)
        found[name] = real, made
    return found


def _species(x: FloatArray, names: Sequence[str]) -> dict[str, BoolArray]:
    """Rows (n,) of each species, "all" first."""
    found: dict[str, BoolArray] = {"all": np.ones(len(x), dtype=np.bool_)}
    if "species" in names:
        code = x[:, list(names).index("species")]
        values = np.unique(code)
        if 1 < len(values) <= 10:
            found |= {f"species {value:g}": code == value for value in values}
    return found


def _response_figures(real: Response, generated: Response, unit: str) -> dict[str, Any]:
    """Linearity and resolution of both, their ratios, and the fits."""
    linearity = generated.mean / real.mean - 1
    both = (generated, real)
    linearity_error = np.hypot(*(r.mean_error / r.mean for r in both))
    ratio = generated.resolution / real.resolution
    ratio_error = ratio * np.hypot(*(r.resolution_error / r.resolution for r in both))
    return {
        "energy": real.energy.tolist(),
        "unit": unit,
        "showers": real.count.tolist(),
        "linearity": linearity.tolist(),
        "linearity_error": linearity_error.tolist(),
        "worst_linearity": float(np.nanmax(np.abs(linearity))),
        "resolution_real": real.resolution.tolist(),
        "resolution_generated": generated.resolution.tolist(),
        "resolution_ratio": ratio.tolist(),
        "resolution_ratio_error": ratio_error.tolist(),
        "worst_resolution": float(np.nanmax(np.abs(ratio - 1))),
        "fit_real": asdict(shower_metrics.fit_resolution(real)),
        "fit_generated": asdict(shower_metrics.fit_resolution(generated)),
    }


def _curves(
    y: FloatArray, g: FloatArray, geometry: Geometry
) -> dict[str, tuple[Curve, Curve]]:
    """Profiles and cell spectra of each view."""
    found: dict[str, tuple[Curve, Curve]] = {}
    for view in geometry.views:
        parts = [e[:, geometry.view_slices[view.name]] for e in (y, g)]
        edges = shower_metrics.spectrum_edges(parts[0])
        for kind, there, profile in (
            ("profile", view.has_depth, shower_metrics.longitudinal_profile),
            ("lateral", view.has_plane, shower_metrics.lateral_profile),
        ):
            if there:
                real, made = (profile(e, geometry, view.name) for e in (y, g))
                found[f"{kind}/{view.name}"] = real, made
        real, made = (shower_metrics.cell_spectrum(e, edges) for e in parts)
        found[f"spectrum/{view.name}"] = real, made
    return found
