"""Classical parametrisations: laws, closure on a known truth, the exported graph."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import scipy.integrate
import scipy.special
from toy_showers import GEOMETRIES, LAYERS, NAMES, PLANE, as_block, toy_showers

from pidgan.bundle import formulas as f
from pidgan.bundle.onnx_operators import OPERATORS
from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.calorimeter.observables import observables
from pidgan.errors import DatasetError
from pidgan.training.classical import lateral_profile as lateral
from pidgan.training.classical.gflash import GFlash, lateral_weights
from pidgan.training.classical.gflash_fit import fit_gflash
from pidgan.training.classical.normal_numbers import KNOTS, spots
from pidgan.training.classical.principal_components import PCA
from pidgan.training.classical.principal_components_fit import fit_pca

FITS: dict[str, Any] = {"gflash": fit_gflash, "pca": fit_pca}
N = 420


@pytest.fixture(scope="module", params=GEOMETRIES)
def sample(request: pytest.FixtureRequest) -> dict[str, Any]:
    conditions, cells = toy_showers(2 * N, seed=1)
    cells = cells if request.param == "stack" else as_block(cells)
    return {
        "geometry": GEOMETRIES[request.param],
        "fit": (cells[:N], conditions[:N]),
        "judge": (cells[N:], conditions[N:]),
    }


@pytest.fixture(scope="module", params=FITS)
def fitted(request: pytest.FixtureRequest, sample: dict[str, Any]) -> GFlash | PCA:
    model: GFlash | PCA = FITS[request.param](
        *sample["fit"], sample["geometry"], names=NAMES
    )
    return model


@pytest.fixture(scope="module")
def generated(fitted: GFlash | PCA, sample: dict[str, Any]) -> np.ndarray:
    x = sample["judge"][1]
    noise = np.random.default_rng(2).normal(size=(len(x), fitted.n_noise))
    return np.asarray(fitted.sample(x, noise))


def test_showers_are_energies(
    fitted: GFlash | PCA, generated: np.ndarray, sample: dict[str, Any]
) -> None:
    assert generated.shape == sample["judge"][0].shape
    assert np.all(np.isfinite(generated))
    assert generated.min() == 0
    geometry = sample["geometry"]
    totals = [generated[:, s].sum(axis=1) for s in geometry.view_slices.values()]
    for total in totals[1:]:  # views account for the same energy
        assert np.allclose(total, totals[0] * total.sum() / totals[0].sum(), rtol=1e-6)


def test_a_row_depends_on_its_own_conditions_and_noise(
    fitted: GFlash | PCA, generated: np.ndarray, sample: dict[str, Any]
) -> None:
    x = sample["judge"][1]
    noise = np.random.default_rng(2).normal(size=(len(x), fitted.n_noise))
    again = fitted.sample(x[5:9], noise[5:9])
    assert np.allclose(again, generated[5:9], rtol=1e-9, atol=1e-9)


def test_closure(generated: np.ndarray, sample: dict[str, Any]) -> None:
    real, x = sample["judge"]
    geometry = sample["geometry"]
    y = observables(real, geometry, x[:, 0], per_layer=False)
    g = observables(generated, geometry, x[:, 0], per_layer=False)
    prefix = "" if len(geometry.views) == 1 else "image."
    response = y[f"{prefix}response"]
    bias = g[f"{prefix}response"].mean() / response.mean() - 1
    assert abs(bias) < 6 * response.std() / np.sqrt(N)
    assert g[f"{prefix}response"].std() == pytest.approx(response.std(), rel=0.2)
    deep = "" if len(geometry.views) == 1 else "profile."
    for name, bound in ((f"{deep}depth", 0.05), (f"{prefix}width_x", 0.12)):
        assert g[name].mean() == pytest.approx(y[name].mean(), rel=bound), name
    # Axes and species are followed row by row, not on average.
    for name in (f"{prefix}x", f"{prefix}y", f"{deep}depth"):
        assert np.corrcoef(y[name], g[name])[0, 1] > 0.3, name


def test_the_graph_computes_the_same(
    fitted: GFlash | PCA, sample: dict[str, Any]
) -> None:
    pytest.importorskip("tensorflow")
    from formula_arms import graph_of

    def in_double(conditions: Any, noise: Any) -> Any:
        x, z = (f.with_precision(v, double=True) for v in (conditions, noise))
        return f.with_precision(fitted.sample(x, z), double=False)

    made = graph_of(in_double, len(NAMES), fitted.n_noise)
    assert {node.op_type for node in made.graph.node} <= {*OPERATORS, "Sin", "Cos"}
    rows = sample["judge"][1].astype(np.float32)
    noise = np.random.default_rng(3).normal(size=(len(rows), fitted.n_noise))
    noise = noise.astype(np.float32)
    session = onnxruntime.InferenceSession(made.SerializeToString())
    (got,) = session.run(None, {"conditions": rows, "noise": noise})
    assert got.shape == (len(rows), sample["geometry"].n_cells)
    expected = in_double(rows, noise)
    energy = rows[:, :1]
    assert np.max(np.abs(got - expected) / energy) < 1e-5
    # Empty cells are the same ones, but for those that have next to nothing.
    different = (got == 0) != (expected == 0)
    assert np.mean(different) < 1e-4


def test_species_and_energy_matter(fitted: GFlash | PCA) -> None:
    noise = np.random.default_rng(4).normal(size=(300, fitted.n_noise))
    geometry = fitted.geometry
    deep = "" if len(geometry.views) == 1 else "profile."

    def depth(energy: float, species: float) -> float:
        x = np.tile([energy, 0.1, 0.0, 0.0, 0.0, species], (300, 1))
        showers = fitted.sample(x, noise)
        return float(observables(showers, geometry)[f"{deep}depth"].mean())

    assert depth(5e4, 11.0) > 1.1 * depth(2e3, 11.0)
    assert depth(1e4, 22.0) > 1.05 * depth(1e4, 11.0)


def test_constant_conditions_and_hidden_axes() -> None:
    conditions, cells = toy_showers(250, seed=5)
    image = load_geometry({"layers": [PLANE]})
    shifted = cells.reshape(250, LAYERS, -1).sum(axis=1)
    x = np.stack([conditions[:, 0], np.full(250, 0.3)], axis=1)
    for fit in FITS.values():
        found = fit(shifted, x, image, names=("energy", "tilt"))
        assert found.plane.hidden.shape == (2, len(KNOTS))
        noise = np.random.default_rng(1).normal(size=(250, found.n_noise))
        y, g = (observables(e, image) for e in (shifted, found.sample(x, noise)))
        # The impact point is not known, but its distribution is.
        assert g["x"].std() == pytest.approx(y["x"].std(), rel=0.25)


RING_SHARE = np.array([0.5, 0.35, 0.15, 0.5, 0.35, 0.15]) / 2


def showers_in_rings(seed: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Geometry, energies and cells of showers in two halves of three rings."""
    conditions, cells = toy_showers(300, seed=seed)
    grid = cells.reshape(300, 8, 36).sum(axis=2)
    rings = {"kind": "cylindrical", "r_edges": [0, 10, 30, 90], "n_alpha": 2}
    rng = np.random.default_rng(1)
    energies = grid[:, :4, None] * rng.dirichlet(20 * RING_SHARE, (300, 4))
    geometry = load_geometry({"layers": [rings | {"count": 4}]})
    return geometry, conditions[:, :1], energies.reshape(300, -1)


def test_rings_and_lists_are_filled() -> None:
    geometry, conditions, flat = showers_in_rings(seed=6)
    share, rng = RING_SHARE, np.random.default_rng(1)
    for fit in FITS.values():
        found = fit(flat, conditions, geometry, names=("energy",))
        noise = rng.normal(size=(300, found.n_noise))
        showers = found.sample(conditions, noise)
        assert showers.sum() == pytest.approx(flat.sum(), rel=0.05)
        mean = showers.reshape(300, 4, 6).sum(axis=(0, 1)) / showers.sum()
        assert np.allclose(mean, share, atol=0.05)


ROUNDING = 1e-12


def showers_of(kind: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Geometry, conditions and cells of which rounding might decide something."""
    if kind == "rings":
        return showers_in_rings(seed=6)
    conditions, cells = toy_showers(240, seed=9)
    layers = cells.reshape(240, LAYERS, -1)
    if kind == "hidden axes":
        image = load_geometry({"layers": [PLANE]})
        return image, conditions[:, :1], layers.sum(axis=1)
    if kind == "one energy":
        conditions[:, 0] = 1e4
    if kind == "single layers":  # equal likelihoods of many profiles
        own = np.arange(LAYERS) == np.arange(80)[:, None] % LAYERS
        layers[:80] *= own[:, :, None]
        layers[:80, :, 14] += 0.1 * own
    if kind == "equal responses":  # but for rounding
        cells *= 0.9 * conditions[:, :1] / cells.sum(axis=1, keepdims=True)
    return GEOMETRIES["stack"], conditions, cells


@pytest.mark.parametrize(
    "kind", ["rings", "hidden axes", "one energy", "single layers", "equal responses"]
)
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_rounding_changes_the_last_digits_only(fit: Any, kind: str) -> None:
    geometry, conditions, cells = showers_of(kind)
    rng = np.random.default_rng(1)
    names = NAMES[: conditions.shape[1]]
    moved = cells * (1 + ROUNDING * rng.standard_normal(cells.shape))
    models = [fit(e, conditions, geometry, names=names) for e in (cells, moved)]
    noise = rng.standard_normal((len(cells), models[0].n_noise))
    made, again = (model.sample(conditions, noise) for model in models)
    assert np.max(np.abs(again - made) / conditions[:, :1]) < 1e-6


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_bad_input_is_refused(fit: Any) -> None:
    conditions, cells = toy_showers(50, seed=7)
    stack = GEOMETRIES["stack"]
    with pytest.raises(DatasetError, match="50 showers with energy, expected"):
        fit(cells, conditions, stack, names=NAMES)
    with pytest.raises(ValueError, match=r"no condition 'energy' among E,"):
        fit(cells, conditions, stack, names=("E", *NAMES[1:]))
    with pytest.raises(ValueError, match=r"shape \(50, 6\) for 2 names"):
        fit(cells, conditions, stack, names=NAMES[:2])
    with pytest.raises(ValueError, match=r"expected \(n, 288\) for stack"):
        fit(cells[:, 1:], conditions, stack, names=NAMES)


# The parts


def test_spots_are_a_compound_poisson_distribution() -> None:
    noise = np.random.default_rng(1).normal(size=(1, 200_000))
    for k in (0.05, 0.5, 3.0, 200.0):
        e = spots(np.full((1, 1), 2 * k), np.full((1, 1), 2.0), noise)
        assert e.mean() == pytest.approx(2 * k, rel=0.02)
        assert e.var() == pytest.approx(2 * 2 * 2 * k, rel=0.03)
        assert np.mean(e == 0) == pytest.approx(np.exp(-k), abs=0.004)


@pytest.mark.parametrize(
    "layer",
    [
        {"kind": "rectangular", "nx": 4, "ny": 3, "cell": [10, 8]},
        {"kind": "rectangular", "nx": 4, "ny": 3, "cell": [10, 8], "order": "xy"},
        {"kind": "list", "centres": [[0, 0], [10, 4], [-7, 1]], "cell": [6, 4]},
    ],
)
def test_gaussians_are_integrated_over_cells(layer: dict[str, Any]) -> None:
    geometry = load_geometry({"layers": [layer]})
    x, y, widths = 2.3, -1.1, np.array([1.5, 12.0])
    axis = (np.array([[x]]), np.array([[y]]))
    found = lateral.spread(geometry.layers[0], axis, widths)[0, 0]
    (cx, cy), (dx, dy) = geometry.centres[:, :2].T, geometry.sizes[:, :2].T
    for k, s in enumerate(widths):
        sides = [
            scipy.special.ndtr((c + d / 2 - a) / s)
            - scipy.special.ndtr((c - d / 2 - a) / s)
            for c, d, a in ((cx, dx, x), (cy, dy, y))
        ]
        assert np.allclose(found[k], sides[0] * sides[1], atol=1e-7)


def test_gaussians_are_integrated_over_rings() -> None:
    table = {"layers": [{"kind": "cylindrical", "r_edges": [0, 4, 20], "n_alpha": 3}]}
    layer = load_geometry(table).layers[0]
    zero = np.zeros((1, 1))
    for scale in (None, np.full((1, 1), 1.5)):
        s = 5.0 * (1 if scale is None else 1.5)
        found = lateral.spread(layer, (zero, zero), np.array([5.0]), scale)[0, 0, 0]
        exact = np.exp(-(np.array([0, 4]) ** 2) / 2 / s**2)
        exact -= np.exp(-(np.array([4, 20]) ** 2) / 2 / s**2)
        assert np.allclose(found, np.tile(exact / 3, 3))
    # An axis beside the origin draws energy to its side.
    moved = lateral.spread(layer, (zero + 1.0, zero), np.array([5.0]))[0, 0, 0]
    at = layer.plane()[0]
    assert moved @ at[:, 0] > 0.5


def test_core_and_tail_are_sums_of_gaussians() -> None:
    widths = 0.1 * 2.0 ** np.arange(14)
    radius = 7.0
    parameters = np.array([[np.log(radius), 0, 0, 0], [9.0, 0, 0, 0], [30.0, 0, 0, 0]])
    zero = np.zeros((1, 1))
    found = lateral_weights(parameters, widths, zero, zero)[0, 0]
    assert found.sum() == pytest.approx(1)
    for r in (2.0, 7.0, 25.0):
        within = found @ (1 - np.exp(-(r**2) / 2 / widths**2))
        assert within == pytest.approx(r**2 / (r**2 + radius**2), abs=0.01)
