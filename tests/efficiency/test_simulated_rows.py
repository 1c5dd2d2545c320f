"""A simulation compared with data as it is: draws, their statistics, maps, the verb."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from scipy.stats import norm
from toy_generator import make_card, make_sample

import pidgan
from pidgan.efficiency.pid_efficiency import pid_efficiency
from pidgan.efficiency.real_vs_generated import closure_table
from pidgan.efficiency.simulated_rows import (
    FAMILY,
    SimulatedRows,
    open_simulation,
    simulated_rows,
)
from pidgan.efficiency.simulated_shares import SimulatedShares
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import MapError, PidganError, PidganWarning
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset

BINNING = {"P": (3e3, 1e4, 2e4, 4e4, 1e5), "ETA": (1.5, 3.0, 5.0)}
CUT = "DLLk > 2"


def draw(rng: np.random.Generator, n: int, *, shift: float) -> dict[str, np.ndarray]:
    """Tracks whose DLLk falls with the momentum, and is off by `shift`."""
    p = np.minimum(3e3 + rng.gamma(2.0, 1e4, n), 9.9e4)
    eta = rng.uniform(1.6, 4.9, n)
    k = 4.0 - 5e-5 * p + 0.3 * (eta - 3) + shift + rng.standard_normal(n)
    return {"P": p, "ETA": eta, "DLLk": k, "DLLp": k - 1 + rng.standard_normal(n)}


def rows_of(columns: dict[str, np.ndarray], **changes: Any) -> SimulatedRows:
    names = ("P", "ETA"), ("DLLk", "DLLp")
    x, y = (np.stack([columns[n] for n in own], 1).astype("f4") for own in names)
    weights = changes.pop("weights", np.ones(len(x)))
    card = make_card(n_noise=3, family=FAMILY)
    return simulated_rows(
        card, x, y, weights, sha256="0" * 64, data=None, seed=1, **changes
    )


def frame_of(columns: dict[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame(columns).assign(weight=1.0)


def test_draws_are_rows_with_like_conditions() -> None:
    rng = np.random.default_rng(1)
    columns = draw(rng, 5000, shift=0.0)
    simulation = rows_of(columns)
    x = simulation.conditions[:800].astype(np.float64)
    noise = rng.standard_normal((800, 3))
    made = simulation.generate(x, noise)
    known = {tuple(row) for row in simulation.targets.tolist()}
    assert all(tuple(row) in known for row in made.tolist())
    near = simulation.nearest(x, most=8, seed=1)
    assert near.shape == (800, 8)
    distance = np.abs(np.log(simulation.conditions[near, 0] / x[:, :1]))
    assert np.median(distance) < 0.03


def test_rows_with_equal_conditions_are_all_used() -> None:
    rng = np.random.default_rng(2)
    columns = draw(rng, 4000, shift=0.0)
    columns |= {"P": np.full(4000, 2e4), "ETA": rng.choice([2.0, 3.0], 4000)}
    simulation = rows_of(columns)
    used = simulation.nearest(simulation.conditions, most=8, seed=1)
    assert len(np.unique(used)) > 3500


def test_rows_with_large_weights_come_more_often() -> None:
    rng = np.random.default_rng(3)
    columns = draw(rng, 20_000, shift=0.0)
    above = columns["DLLk"] > 2
    simulation = rows_of(columns, weights=np.where(above, 3.0, 1.0))
    share = above[simulation.copies].mean()
    assert share == pytest.approx(3 * above.mean() / (1 + 2 * above.mean()), abs=3e-3)


def test_added_covariance_is_that_of_new_simulations() -> None:
    """The spread of the difference over many simulations is the quoted error."""
    rng = np.random.default_rng(4)
    frame = frame_of(draw(rng, 4000, shift=0.0))
    differences, errors = [], []
    for _ in range(40):
        simulation = rows_of(draw(rng, 600, shift=0.0))
        found = closure_table(simulation, frame, cuts=CUT, binning={"P": (3e3, 1e5)})
        differences.append(found.difference[0, 0])
        real = found.covariance[0, 0, 0]
        errors.append(found.difference_error[0, 0] ** 2 - real)
    spread, expected = np.var(differences), np.mean(errors)
    assert 0.6 < spread / expected < 1.6
    # As if all rows were drawn anew, it would be several times smaller.
    assert expected > 3 * found.covariance[0, 0, 0] / 8


def test_rows_outside_the_bins_take_no_part() -> None:
    rng = np.random.default_rng(5)
    near, weights = rng.integers(50, size=(200, 4)), rng.uniform(0.5, 1.5, 200)
    shares = SimulatedShares(near=near, passed=rng.uniform(size=(2, 50)) < 0.7)
    index = rng.integers(-1, 3, 200)
    kept = index >= 0
    few = shares.take(kept).added_covariance(index[kept], weights[kept], 3)
    np.testing.assert_array_equal(few, shares.added_covariance(index, weights, 3))


@pytest.mark.filterwarnings("ignore:.* lie outside the bins")
def test_maps_may_have_bins_that_leave_rows_out() -> None:
    rng = np.random.default_rng(6)
    simulation = rows_of(draw(rng, 3000, shift=0.5))
    data = frame_of(draw(rng, 2000, shift=0.0))
    for events in ({}, {"pidgan_event": np.arange(2000) // 2}):
        inside = data.assign(**events)
        edges = {"P": (5e3, 1e4, 2e4, 4e4)}
        found = run_systematics(simulation, inside, cuts=CUT, binning=edges, repeats=4)
        assert np.isfinite(found.nominal).all()
        assert (found.error > 0).all()


def test_nothing_is_added_where_each_row_is_used_once() -> None:
    near = np.arange(12).reshape(4, 3)
    passed = np.array([np.arange(12) % 2 == 0])
    shares = SimulatedShares(near=near, passed=passed)
    index, weights = np.zeros(4, dtype=int), np.array([1.0, 2.0, 1.0, 0.5])
    assert np.allclose(shares.added_covariance(index, weights, 1), 0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:cut .* fewer than 20")
@pytest.mark.parametrize("n_simulated", [1500, 15_000])
def test_map_covers_the_truth_with_a_small_simulation(n_simulated: int) -> None:
    """Rows of data and of simulation are few, and both count in the uncertainty."""
    pulls, cut, few = [], 2.0, "PIDGAN_TOYS" not in os.environ
    # The truth is that of all tracks with these kinematics: an analysis has a sample.
    many = draw(np.random.default_rng(99), 200_000, shift=0.0)
    centre = 4 - 5e-5 * many["P"] + 0.3 * (many["ETA"] - 3)
    for seed in range(16 if few else 1000):
        rng = np.random.default_rng(seed)
        shift = 0.3 * rng.standard_normal()
        frame = frame_of(draw(rng, 3000, shift=shift))
        simulation = rows_of(draw(rng, n_simulated, shift=0.0))
        found = run_systematics(
            simulation, frame, cuts=CUT, binning=BINNING, progress=False
        )
        own = draw(rng, 4000, shift=0.0)
        analysis = pd.DataFrame({f"K_{name}": v for name, v in own.items()})
        one = pid_efficiency({"K": found}, analysis, cuts=CUT)[0]
        pulls.append((one.value - norm.sf(cut - centre - shift).mean()) / one.total)
    within = [float((np.abs(pulls) < k).mean()) for k in (1, 1.96)]
    assert 0.4 < within[0] < 0.95 if few else 0.64 < within[0] < 0.74, within
    assert within[1] > 0.8 if few else 0.92 < within[1] < 0.98, within


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of data, and a file of simulation with a prefix of the track."""
    folder = tmp_path_factory.mktemp("simulation")
    rng = np.random.default_rng(5)
    variables = {"conditions": ("P", "ETA"), "targets": ("DLLk", "DLLp")}
    plain = make_sample()
    update = {
        kind: [
            {**v.model_dump(exclude_defaults=True), "branch": f"K_{v.name}"}
            for v in getattr(plain, kind)
        ]
        for kind in variables
    }
    sample = make_sample(**update)
    data, simulation = (draw(rng, 8000, shift=s) for s in (0.4, 0.0))
    branches = {f"K_{n}": v for n, v in data.items()}
    build_dataset(sample, pd.DataFrame(branches), progress=False).save(folder / "data")
    file = folder / "mc.root"
    write_trees(file, {"DecayTree": {f"K_{n}": v for n, v in simulation.items()}})
    return {"data": folder / "data", "mc": file, "folder": folder}


def test_verb_makes_a_map_that_corrects_the_simulation(
    files: dict[str, Path], run: Run
) -> None:
    path = files["folder"] / "map.json"
    words = ["systematics", str(files["data"]), "--simulation", str(files["mc"])]
    run(*words, "--cut", CUT, "-o", path)
    done = run("efficiency", files["mc"], "--map", f"K={path}", "--json")
    assert done.code == 0, done.err
    (one,) = json.loads(done.out)["results"]
    data = pidgan.Dataset.open(files["data"])
    real = (data.targets[:, 0] > 2).mean()
    assert abs(one["value"] - real) < 4 * one["total"] < 0.1
    made = pidgan.EfficiencyMap.open(path)
    assert made.metadata["simulation"]["rows"] > 7000


def test_generated_columns_are_refused_with_a_map_of_simulation(
    files: dict[str, Path],
) -> None:
    from toy_generator import toy_onnx, with_self_test

    simulation = open_simulation(files["data"], files["mc"], progress=False)
    found = run_systematics(simulation, cuts=CUT, progress=False)
    bundle = files["folder"] / "toy.onnx"
    bundle.write_bytes(toy_onnx(with_self_test(make_card())))
    out = files["folder"] / "replaced.root"
    pidgan.apply({"K": bundle}, files["mc"], out, mode="replace", progress=False)
    with pytest.raises(MapError, match=r"made by .*toy.onnx, but the map .* plain"):
        pid_efficiency({"K": found}, out, cuts=CUT)


def test_other_samples_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    data = pidgan.Dataset.open(files["data"])
    targets = [v.model_dump(exclude_defaults=True) for v in make_sample().targets]
    changes = {"species": "pi+"}, {"targets": targets[::-1]}
    problems = r"is of pi\+, expected K\+", "has DLLp, DLLk, expected DLLk, DLLp"
    for k, (change, problem) in enumerate(zip(changes, problems, strict=True)):
        other = dataclasses.replace(data, sample=make_sample(**change))
        other.save(tmp_path / str(k))
        with pytest.raises(MapError, match=problem):
            open_simulation(data, tmp_path / str(k))
    with pytest.raises(PidganError, match="DLLk"):
        open_simulation(data, pd.DataFrame({"K_P": [1e4], "K_ETA": [3.0]}))


def test_data_are_not_their_own_simulation(files: dict[str, Path]) -> None:
    with pytest.raises(MapError, match="are the same dataset: nothing is compared"):
        open_simulation(files["data"], files["data"])


def test_data_far_from_the_simulation_warn() -> None:
    rng = np.random.default_rng(6)
    frame = frame_of(draw(rng, 2000, shift=0.0))
    columns = draw(rng, 2000, shift=0.0)
    simulation = rows_of({n: v[columns["P"] < 2e4] for n, v in columns.items()})
    with pytest.warns(PidganWarning, match="the simulation says nothing of their"):
        closure_table(simulation, frame, cuts=CUT, binning=BINNING)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["{data}"], "is a dataset; say what is compared with it"),
        (["{bundle}", "--simulation", "{mc}"], "is compared with a dataset, got"),
    ],
)
def test_verb_says_what_belongs_together(
    files: dict[str, Path], run: Run, words: list[str], problem: str
) -> None:
    from toy_generator import toy_onnx, with_self_test

    bundle = files["folder"] / "other.onnx"
    bundle.write_bytes(toy_onnx(with_self_test(make_card())))
    names = {**files, "bundle": bundle}
    given = [word.format(**names) for word in words]
    out = str(files["folder"] / "no.json")
    done = run("systematics", *given, "--cut", CUT, "-o", out)
    assert done.code == 2
    assert problem in done.err
