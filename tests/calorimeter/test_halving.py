"""Halvings of layers: every energy is found once, and nothing sees what comes later."""

from typing import Any

import numpy as np
import pytest

from pidgan.calorimeter.geometry import View
from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.calorimeter.halving import Halvings, halve, node_energies

VIEWS: dict[str, list[dict[str, Any]]] = {
    "voxels": [
        {"kind": "rectangular", "nx": 5, "ny": 7, "cell": [10, 10], "thickness": 20}
        | {"count": 4}
    ],
    "rings": [
        {"kind": "cylindrical", "r_edges": [0, 5, 10, 20], "n_alpha": 6, "count": 3}
    ],
    "other cells in each layer": [
        {"kind": "rectangular", "nx": 8, "ny": 8, "cell": [5, 5], "thickness": 20},
        {"kind": "rectangular", "nx": 1, "ny": 1, "cell": [40, 40], "thickness": 20},
        {"kind": "rectangular", "nx": 4, "ny": 2, "cell": [10, 20], "thickness": 20},
    ],
}


@pytest.fixture(params=VIEWS)
def view(request: pytest.FixtureRequest) -> View:
    return load_geometry({"name": "one", "layers": VIEWS[request.param]}).views[0]


def made_before(tree: Halvings, n_layers: int) -> list[set[int]]:
    """Return the nodes that there are before each stage."""
    found, there = [], set(range(n_layers)) | {tree.n_nodes}
    for stage in tree.stages:
        found.append(set(there))
        there |= {*tree.first[stage].tolist(), *tree.second[stage].tolist()}
    assert there == set(range(tree.n_nodes + 1))
    return found


def test_every_cell_is_reached_once(view: View) -> None:
    tree = halve(view)
    assert len(set(tree.leaf.tolist())) == view.n_cells
    assert len(tree.parent) == view.n_cells - len(view.layers)
    assert tree.n_nodes == 2 * view.n_cells - len(view.layers)
    children = np.concatenate([tree.first, tree.second])
    assert len(np.unique(children)) == len(children)
    assert not set(tree.leaf.tolist()) & set(tree.parent.tolist())


def test_energies_are_sums(view: View) -> None:
    tree, rng = halve(view), np.random.default_rng(1)
    cells = rng.exponential(size=(20, view.n_cells)) * (rng.random((20, 1)) > 0.3)
    nodes = node_energies(tree, cells)
    for k, part in enumerate(view.layer_slices):
        np.testing.assert_allclose(nodes[:, k], cells[:, part].sum(axis=1))
    both = nodes[:, tree.first] + nodes[:, tree.second]
    np.testing.assert_allclose(both, nodes[:, tree.parent])
    np.testing.assert_array_equal(nodes[:, tree.leaf], cells)


def test_no_split_sees_what_comes_later(view: View) -> None:
    tree = halve(view)
    before = made_before(tree, len(view.layers))
    for stage, there in zip(tree.stages, before, strict=True):
        assert set(tree.slots[stage].ravel().tolist()) <= there
        assert set(tree.parent[stage].tolist()) <= there


def test_halves_lie_on_either_side_of_their_cut(view: View) -> None:
    tree = halve(view)
    at = np.concatenate([layer.plane()[0] for layer in view.layers])
    holds = node_energies(tree, np.eye(view.n_cells)) > 0
    for k in range(len(tree.parent)):
        first, second = (
            at[holds[:, part[k]]].mean(axis=0) for part in (tree.first, tree.second)
        )
        step = (second - first) @ tree.across[k]
        assert step == pytest.approx(np.linalg.norm(second - first), abs=1e-6)
        if view.layers[0].kind == "rectangular":
            cut = tree.edge[k] @ tree.across[k]
            assert first @ tree.across[k] < cut < second @ tree.across[k]
