"""An order of cells that the impact points contradict is told."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from pidgan.errors import PidganWarning
from pidgan.sample.building import build_dataset

TEXT = """
schema = 1
title = "Toy"
detector = "toy"
species = "gamma"
source = "toy"
unweighted = true
conditions = [
  {name = "energy", unit = "MeV", range = [1, 100]},
  {name = "x0", unit = "mm", range = [-20, 20]},
  {name = "y0", unit = "mm", range = [-20, 20]},
]
[cells]
incident = "energy"
arrays = {cells = "cells"}
symmetry = {mirrors = ["x", "y"], x = "x0", y = "y0"}
[cells.geometry]
layers = [{kind = "rectangular", nx = 8, ny = 8, cell = [10, 10], order = "ORDER"}]
"""


@pytest.mark.parametrize("order", ["yx", "xy"])
def test_a_contradicted_order_warns(order: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x0, y0 = rng.uniform(-20, 20, (2, 400))
    at = 10 * (np.arange(8) - 3.5)
    image = np.exp(
        -((at[None, :, None] - y0[:, None, None]) ** 2) / 200
        - (at[None, None, :] - x0[:, None, None]) ** 2 / 200
    )
    energy = rng.uniform(10, 90, 400)
    image *= (energy / image.sum(axis=(1, 2)))[:, None, None]
    np.savez(tmp_path / "s.npz", energy=energy, x0=x0, y0=y0, cells=image)
    (tmp_path / "toy.toml").write_text(TEXT.replace("ORDER", order))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        build_dataset(tmp_path / "toy.toml", [tmp_path / "s.npz"], seed=1)
    found = [w for w in told if issubclass(w.category, PidganWarning)]
    exchanged = [w for w in found if "x and y are exchanged" in str(w.message)]
    assert bool(exchanged) == (order == "xy")
