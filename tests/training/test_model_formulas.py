"""Every formula of a model is the same for numpy, tensorflow, ONNX Runtime and C."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from formula_arms import assert_equal_on_every_arm
from toy_showers import BLOCK, as_block, toy_showers

from pidgan.bundle import formulas as f
from pidgan.training.conditions import ConditionTransform, fit_conditions
from pidgan.training.families.vae import moments
from pidgan.training.networks import splines
from pidgan.training.networks.autoregressive import FlowGenerator, SplineFlow
from pidgan.training.networks.cell_by_cell import Sequence
from pidgan.training.networks.helix import SENTINEL, Frame
from pidgan.training.networks.per_coordinate import OnePassGenerator
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.patterns import pick_pattern
from pidgan.training.targets.cell_fits import fit_cells
from pidgan.training.targets.track_fits import fit_columns, fit_tracks
from pidgan.training.targets.tracks import TargetTransform

N = 200
RNG = np.random.default_rng(7)
Case = tuple[Callable[[Any, Any], Any], np.ndarray, np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def _conditions() -> tuple[ConditionTransform, np.ndarray]:
    rng = np.random.default_rng(1)
    columns = [
        rng.uniform(3e3, 2e5, N),
        rng.uniform(-3, 3, N),
        rng.uniform(0, 40, N),
        rng.choice([-1.0, 1.0], N),
        rng.normal(size=N),
    ]
    x = np.stack(columns, axis=1).astype(np.float32)
    names = ["log", "angle", "fraction", "linear", "linear"]
    return fit_conditions(x, names, categories=[(), (), (), (-1, 1), ()]), x


def conditions() -> Case:
    transform, x = _conditions()
    return lambda x, z: transform.forward(x), x, normal(N, 2)


def pattern() -> Case:
    return lambda x, z: pick_pattern(x, f.columns(z, 0, 1)), normal(N, 4), normal(N, 2)


def _tracks(single: bool) -> TargetTransform:
    rng = np.random.default_rng(5)
    y = rng.normal(size=(4000, 4)).astype(np.float32)
    if single:
        return fit_columns(y, np.ones(4000))
    for j in range(3):
        rows = slice(1000 * j, 1000 * (j + 1))
        y[rows, j + 1] = y[rows, j]
    y[3800:] = -999
    return fit_tracks(y, np.ones(4000), sentinels=[(-999.0,)] * 4)


def tracks_with_patterns() -> Case:
    transform = _tracks(single=False)
    assert transform.depth > 1

    def formula(x: Any, z: Any) -> Any:
        targets = transform.inverse(z, pick_pattern(x, f.columns(z, 0, 1)))
        return f.maximum(targets, -20.0)

    return formula, normal(N, transform.n_patterns), 2 * normal(N, 4)


def tracks_of_one_pattern() -> Case:
    transform = _tracks(single=True)
    return lambda x, z: transform.inverse(z, None), normal(N, 2), 2 * normal(N, 4)


def cells(**options: Any) -> Case:
    x, energies = toy_showers(N, seed=1)
    energies = as_block(energies)
    transform = fit_cells(energies, x, BLOCK, incident=0, threshold=1.0, **options)
    z = 1.5 * normal(N, transform.n_coordinates)
    return lambda x, z: transform.inverse(z, None, x) / 1e3, x.astype(np.float32), z


FREE = ((1, 1, 1), (1, 0, 1))
SHAPE = Shape(n_conditions=2, n_patterns=2, n_targets=3, free=FREE)


def _inputs(x: Any, z: Any) -> dict[str, Any]:
    codes = pick_pattern(x, f.columns(z, 3, 4))
    return {"conditions": x, "pattern": codes, "noise": f.columns(z, 0, 3)}


def one_pass() -> Case:
    generator = OnePassGenerator(shape=SHAPE, width=12, layers=2, seed=1)
    return lambda x, z: generator(_inputs(x, z)), normal(N, 2), 2 * normal(N, 4)


def flow() -> Case:
    spline_flow = SplineFlow(shape=SHAPE, width=12, blocks=1, bins=6, seed=1)
    for kernel in spline_flow.networks.kernels:
        kernel.assign(0.4 * RNG.normal(size=kernel.shape))
    generator = FlowGenerator(spline_flow, SHAPE)
    return lambda x, z: generator(_inputs(x, z)), normal(N, 2), 3 * normal(N, 4)


def spline() -> Case:
    def formula(x: Any, z: Any) -> Any:
        parts = (f.columns(z, 0, 4), f.columns(z, 4, 8), f.columns(z, 8, 13))
        image, _, _ = splines.back(
            f.columns(x, 0, 1), *parts[:2], splines.slopes_from(parts[2])
        )
        return image

    return formula, 4 * normal(N, 1), normal(N, 13)


def decoder() -> Case:
    def formula(x: Any, z: Any) -> Any:
        mean, log_width = moments(x)
        return mean + f.exp(log_width) * f.columns(z, 0, 2)

    return formula, 4 * normal(N, 4), normal(N, 2)


def sequence() -> Case:
    from pidgan.training.families.shower_sequence import make_order

    x, energies = toy_showers(N, seed=2)
    transform = fit_cells(energies[:, :72], x, _two_layers(), incident=0, lines=True)
    shape = Shape(
        n_conditions=3,
        n_patterns=0,
        n_targets=transform.n_coordinates,
        n_energies=transform.n_energies,
        transform=transform,
        geometry=_two_layers(),
    )
    makes = slice(transform.n_energies, transform.n_coordinates)
    order = make_order(shape, makes, reach=1.05)
    model = Sequence(order, n_context=3, width=8, memory=4, axes=2, seed=1)

    def formula(x: Any, z: Any) -> Any:
        made = model.generate(f.turn(f.precise(z)), f.turn(f.precise(x)))
        return f.with_precision(f.turn(made), double=False)

    return formula, normal(N, 3), normal(N, order.n)


def _two_layers() -> Any:
    from toy_showers import PLANE

    from pidgan.calorimeter.geometry_file import load_geometry

    return load_geometry({"layers": [PLANE | {"thickness": 25.0, "count": 2}]})


def helix() -> Case:
    radii = (200.0, 400.0, 600.0)
    frame = Frame(radii=radii, field=0.5, n_sectors=6, drift_length=1000.0)

    def formula(x: Any, z: Any) -> Any:
        rows = frame.cross(x)
        names = ("along", "z", "flag")
        parts = {name: f.columns(z, 3 * k, 3 * k + 3) for k, name in enumerate(names)}
        seen = f.concatenate([frame.features(rows), frame.place(rows, parts) / 1e3])
        return f.where(f.less(seen, SENTINEL / 2e3), -1.0, seen)

    rng = np.random.default_rng(3)
    x = np.stack(
        [
            rng.uniform(300, 2000, N),
            rng.uniform(-1, 1, N),
            rng.uniform(-3, 3, N),
            rng.uniform(-200, 200, N),
            rng.choice([-1.0, 1.0], N),
        ],
        axis=1,
    )
    return formula, x.astype(np.float32), normal(N, 9)


CASES: dict[str, Callable[[], Case]] = {
    "conditions": conditions,
    "pattern": pattern,
    "tracks with patterns": tracks_with_patterns,
    "tracks of one pattern": tracks_of_one_pattern,
    "cells, normal scores": cells,
    "cells, logits": lambda: cells(scale="logit"),
    "cells, lines": lambda: cells(lines=True),
    "cells by themselves": lambda: cells(scheme="cells"),
    "one pass": one_pass,
    "flow": flow,
    "spline": spline,
    "decoder": decoder,
    "sequence": sequence,
    "helix": helix,
}
# Sine, cosine and arcsine have no C translation.
NOT_IN_C = {"conditions", "helix"}


@pytest.mark.parametrize("case", CASES)
def test_a_formula_is_the_same_everywhere(case: str, tmp_path: Path) -> None:
    formula, x, z = CASES[case]()
    found = assert_equal_on_every_arm(
        formula, x, z, path=tmp_path, c=case not in NOT_IN_C, tolerance=1e-4
    )
    assert np.isfinite(found).all()
    assert (found.std(axis=0) > 0).any()


def test_a_constant_target_of_one_pattern_is_its_atom() -> None:
    y = np.random.default_rng(6).normal(size=(1000, 2)).astype(np.float32)
    y[:, 1] = 3.5
    transform = fit_tracks(y, np.ones(1000))
    assert transform.n_patterns == 1
    made = transform.inverse(normal(50, 2), None)
    assert (made[:, 1] == 3.5).all()
    assert made[:, 0].std() > 0.5
