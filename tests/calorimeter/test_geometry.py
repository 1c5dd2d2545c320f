"""Geometries: files of three kinds, flat index, positions, grids, error lines."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.calorimeter.observables import observables
from pidgan.errors import SampleError

PBWO4 = """
name = "block"

[[views]]
name = "cells"
layers = [{kind = "rectangular", nx = 12, ny = 12, cell = [22, 22], thickness = 240}]

[[views]]
name = "profile"
layers = [{kind = "rectangular", cell = [264, 264], thickness = 10, count = 24}]
"""

XML = """<Bins>
  <Bin pid="22" name="photon">
    <Layer id="0" r_edges="0,5,10,30" n_bin_alpha="1" />
    <Layer id="1" r_edges="0,2,4" n_bin_alpha="10"/>
    <Layer id="2" r_edges="0" n_bin_alpha="1" />
    <Layer id="12" r_edges="0,100" n_bin_alpha="1" />
  </Bin>
  <Bin pid="211" name="pion"><Layer id="0" r_edges="0,5" n_bin_alpha="2"/></Bin>
</Bins>
"""

RECTANGLE = {"kind": "rectangular", "nx": 3, "ny": 2, "cell": [10, 20]}
RINGS = {"kind": "cylindrical", "r_edges": [0, 1, 3], "n_alpha": 4}
LIST = {"kind": "list", "centres": [[0, 0], [4, 1], [-3, 2]], "cell": [2, 2]}
GEOMETRIES = {
    "rectangles": {"layers": [RECTANGLE, RECTANGLE | {"nx": 1, "ny": 4}]},
    "rings": {"layers": [RINGS, RINGS | {"n_alpha": 1, "r_edges": [0, 5, 9, 20]}]},
    "stack": {"layers": [RECTANGLE | {"count": 5, "thickness": 3.0}]},
    "mixture": {"layers": [RECTANGLE | {"z": 4.0, "order": "xy"}, RINGS, LIST]},
    "views": {
        "name": "two",
        "views": [{"name": "a", "layers": [RINGS]}, {"name": "b", "layers": [LIST]}],
    },
}


@pytest.fixture(params=GEOMETRIES)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return load_geometry(GEOMETRIES[request.param])


def test_the_table_of_a_card_gives_the_geometry_again(geometry: Geometry) -> None:
    assert load_geometry(geometry.to_dict()) == geometry


def test_grids_are_inverted_exactly(geometry: Geometry) -> None:
    cells = np.random.default_rng(1).normal(size=(4, geometry.n_cells))
    for name, part in geometry.view_slices.items():
        grid = geometry.to_grid(cells, name)
        assert grid.shape == (4, *geometry.view(name).grid_shape)
        assert np.array_equal(geometry.from_grid(grid, name), cells[:, part])
        # A view alone is taken as well, and energy is neither lost nor repeated.
        assert np.array_equal(geometry.to_grid(cells[:, part], name), grid)
        assert np.allclose(grid.sum(axis=(1, 2, 3)), cells[:, part].sum(axis=1))


def test_index_runs_over_views_layers_and_cells(geometry: Geometry) -> None:
    n = geometry.n_cells
    assert (
        len(geometry.layer_index) == len(geometry.centres) == len(geometry.sizes) == n
    )
    assert np.all(np.diff(geometry.layer_index) >= 0)
    counts = np.bincount(geometry.layer_index)
    assert counts.tolist() == [layer.n_cells for layer in geometry.layers]
    ends = [part.stop for part in geometry.view_slices.values()]
    assert ends[-1] == n


def test_rectangles_lie_where_they_should() -> None:
    layer = load_geometry({"layers": [RECTANGLE | {"centre": [100, 0]}]})
    x, y = layer.centres[:, 0], layer.centres[:, 1]
    assert x.tolist() == [90, 100, 110, 90, 100, 110]  # x runs fastest
    assert y.tolist() == [-10] * 3 + [10] * 3
    assert layer.sizes[:, :2].tolist() == [[10, 20]] * 6
    swapped = load_geometry({"layers": [RECTANGLE | {"order": "xy"}]})
    assert swapped.centres[:, 1].tolist() == [-10, 10] * 3
    assert swapped.view("cells").grid_shape == (1, 3, 2)


def test_cylindrical_cells_follow_the_calochallenge() -> None:
    # Its XMLHandler.fill_r_a_lists: alpha outside, r inside, alpha from -pi on.
    g = load_geometry({"layers": [RINGS]})
    alpha = np.repeat(-np.pi + 2 * np.pi * (np.arange(4) + 0.5) / 4, 2)
    r = np.tile([0.5, 2.0], 4)
    assert np.allclose(g.centres[:, 0], r * np.cos(alpha))
    assert np.allclose(g.centres[:, 1], r * np.sin(alpha))
    assert np.allclose(g.sizes[:, 0], np.tile([1.0, 2.0], 4))
    assert np.allclose(g.sizes.T[0] * g.sizes.T[1] * 4, np.pi * np.tile([1, 8], 4))


def test_depth_follows_from_thickness() -> None:
    g = load_geometry({"layers": [RECTANGLE | {"count": 3, "thickness": 4, "z": 100}]})
    assert np.unique(g.centres[:, 2]).tolist() == [102, 106, 110]
    assert np.isnan(load_geometry({"layers": [RECTANGLE]}).centres[:, 2]).all()


def test_files(tmp_path: Path) -> None:
    (tmp_path / "block.toml").write_text(PBWO4)
    (tmp_path / "binning.xml").write_text(XML)
    block = load_geometry(tmp_path / "block.toml")
    assert block.view_slices == {"cells": slice(0, 144), "profile": slice(144, 168)}
    assert block.centres[-1].tolist() == [0, 0, 235]
    photon = load_geometry("binning.xml", particle="photon", folder=tmp_path)
    assert [layer.name for layer in photon.layers] == ["0", "1", "12"]
    assert photon.n_cells == 3 + 20 + 1
    assert photon.view("cells").grid_shape == (3, 10, 3)
    table = {"file": "binning.xml", "particle": 22}
    assert load_geometry(table, folder=tmp_path) == photon


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"layers": []}, r"geometry: layers is \[\]: .*at least 1 item"),
        ({}, "expected either 'layers' or 'views'"),
        ({"layers": [{"nx": 2}]}, "key 'layers.0.kind' is missing"),
        ({"layers": [RECTANGLE | {"nz": 3}]}, "layers.0.nz'; closest: 'z', 'ny', 'nx'"),
        ({"layers": [RECTANGLE | {"r_max": 3.0}]}, "'r_max' is not for kind 'rectan"),
        ({"layers": [{"kind": "rectangular"}]}, "expected x_edges and y_edges, or nx"),
        ({"layers": [RINGS | {"r_edges": [0, 2, 1]}]}, "r_edges do not rise"),
        ({"layers": [RINGS | {"n_r": 2}]}, "expected either r_edges, or n_r and r_max"),
        (
            {"layers": [LIST | {"cell": [0, 1]}]},
            r"cell is \[0.0, 1.0\], expected sizes",
        ),
        ({"layers": [LIST, LIST | {"name": "0"}]}, "layer '0' is there more than once"),
        (
            {"layers": [RECTANGLE | {"nx": 10**5, "ny": 9}]},
            "900000 cells, expected at",
        ),
        ({"file": "b.xml", "nx": 1}, "keys 'nx' beside 'file'"),
    ],
)
def test_wrong_tables_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(SampleError, match=message):
        load_geometry(table)


@pytest.mark.parametrize(
    ("text", "particle", "message"),
    [
        (XML, None, "no particle given; in the file: photon, pion"),
        (XML, "foton", "no particle 'foton'; closest: 'photon'"),
        (XML.replace('"0,2,4"', '"0;2"'), "photon", "photon: layer '1': could not con"),
        ("<Bins>", None, "is not valid XML"),
        ("<Bins></Bins>", None, "has no element <Bin>"),
    ],
)
def test_wrong_xml_is_refused(
    tmp_path: Path, text: str, particle: str | None, message: str
) -> None:
    path = tmp_path / "b.xml"
    path.write_text(text)
    with pytest.raises(SampleError, match=re.escape(str(path)) + f".*{message}"):
        load_geometry(path, particle=particle)
    with pytest.raises(SampleError, match="cannot be read: no such file"):
        load_geometry(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("file", "particle", "n_cells", "n_layers"),
    [  # The numbers of voxels of arXiv:2410.21611, table 1.
        ("binning_dataset_1_photons.xml", "photon", 368, 5),
        ("binning_dataset_1_pions.xml", "pion", 533, 7),
        ("binning_dataset_2.xml", "electron", 6480, 45),
        ("binning_dataset_3.xml", "electron", 40500, 45),
    ],
)
def test_calochallenge(file: str, particle: str, n_cells: int, n_layers: int) -> None:
    shared = os.environ.get("PIDGAN_SHARED_DATA")
    if not shared:
        pytest.skip("PIDGAN_SHARED_DATA is not set")
    geometry = load_geometry(Path(shared) / "calochallenge_geometry" / file)
    assert geometry.name.endswith(particle)
    assert (geometry.n_cells, len(geometry.layers)) == (n_cells, n_layers)


# Observables


def test_observables_of_one_hot_cell() -> None:
    geometry = load_geometry({"layers": [RECTANGLE | {"count": 3, "thickness": 4}]})
    cells = np.eye(geometry.n_cells)[7:8] * 50.0
    found = observables(cells, geometry, [100.0])
    assert found["total"] == 50
    assert found["response"] == 0.5
    assert (found["x"], found["y"], found["depth"]) == (0.0, -10.0, 6.0)
    for name in ("width_x", "width_y", "width_depth", "skew_depth"):
        assert found[name] == 0
    assert found["layer[1]"] == 50
    assert found["fraction[1]"] == found["peak"] == 1
    assert found["y[1]"] == -10
    assert found["y[0]"] == 0  # no energy
    assert found["sparsity"] == pytest.approx(17 / 18)


def test_observables_are_moments() -> None:
    rng = np.random.default_rng(2)
    table = {"layers": [RECTANGLE | {"count": 4, "thickness": 4.0, "nx": 5}]}
    geometry = load_geometry(table)
    e = rng.exponential(size=(6, geometry.n_cells))
    found = observables(e, geometry)
    x, z = geometry.centres[:, 0], geometry.centres[:, 2]
    for row in range(6):
        draws = [np.average(v, weights=e[row]) for v in (x, (x - found["x"][row]) ** 2)]
        assert found["x"][row] == pytest.approx(draws[0])
        assert found["width_x"][row] == pytest.approx(np.sqrt(draws[1]))
        pull = (z - found["depth"][row]) / found["width_depth"][row]
        assert np.average(pull, weights=e[row]) == pytest.approx(0, abs=1e-9)
        assert np.average(pull**2, weights=e[row]) == pytest.approx(1)
        assert found["skew_depth"][row] == pytest.approx(
            np.average(pull**3, weights=e[row])
        )
    layers = sum(found[f"layer[{i}]"] for i in range(4))
    assert np.allclose(layers, found["total"])
    assert not any(
        name.endswith("[2]")
        for name in observables(e, geometry, per_layer=False)
        if name.startswith(("x", "width"))
    )


def test_shares_do_not_depend_on_the_unit(geometry: Geometry) -> None:
    e = np.random.default_rng(3).exponential(size=(5, geometry.n_cells))
    gev, mev = observables(e, geometry), observables(1000 * e, geometry)
    for name in gev:
        unit = 1000 if re.search(r"(^|\.)(total|layer)", name) else 1
        assert np.allclose(mev[name], unit * gev[name], atol=1e-9), name


def test_empty_showers_have_zeros(geometry: Geometry) -> None:
    for name, values in observables(np.zeros((2, geometry.n_cells)), geometry).items():
        assert np.all(values == (1 if "sparsity" in name else 0)), name


def test_rings_without_sectors_have_no_x_and_y() -> None:
    flat = load_geometry({"layers": [RINGS | {"n_alpha": 1}]})
    names = observables(np.ones((1, 2)), flat)
    assert "r" in names
    assert "width_r" in names
    assert "x" not in names


def test_cells_must_fit() -> None:
    geometry = load_geometry({"name": "small", "layers": [RECTANGLE]})
    with pytest.raises(
        ValueError, match=r"shape \(4, 5\), expected \(n, 6\) for small"
    ):
        observables(np.ones((4, 5)), geometry)
    with pytest.raises(ValueError, match="no view 'cell'; closest: 'cells'"):
        geometry.view("cell")
