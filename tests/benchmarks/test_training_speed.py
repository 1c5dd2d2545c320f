"""Training beside the CramerGAN of PyPI's `pidgan` 0.2.0, another project.

It needs an interpreter of its own, whose path is in PIDGAN_PEER_PYTHON:

    python -m venv peer && peer/bin/pip install pidgan==0.2.0
    PIDGAN_PEER_PYTHON=peer/bin/python \\
        pytest -o addopts= -s tests/benchmarks/test_training_speed.py

PIDGAN_BENCHMARK_TRACKS sets the simulated tracks (300,000),
PIDGAN_BENCHMARK_SECONDS the peer's training (300).

- Throughput: real rows per second of the same network - ten layers of 128 units, 64
  numbers of noise, critic output 256 - with one update of critic and generator on each
  batch. Of the rows in a batch the peer uses a quarter as real ones.
- Quality: the default recipe reaches the peer's final C2ST in a fifth of its time.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.bundle.card import sample_targets
from pidgan.files.tables import write_trees
from pidgan.report.metrics import c2st
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.weights import with_differences
from pidgan.simulation import simulate_calibration
from pidgan.training.conditions import fit_conditions
from pidgan.training.loop import train
from pidgan.training.record import Progress
from pidgan.training.targets.track_fits import fit_columns

PEER = os.environ.get("PIDGAN_PEER_PYTHON")
TRACKS = int(os.environ.get("PIDGAN_BENCHMARK_TRACKS", 300_000))
SECONDS = float(os.environ.get("PIDGAN_BENCHMARK_SECONDS", 300))

BATCH = 1024
REAL_SHARE = 4
NETWORK = {"width": 128, "layers": 10, "n_noise": 64, "critic_output": 256}
ROUNDS = 5
THROUGHPUT_SECONDS = 15.0
LEAST_RATIO = 3.0
MOST_TIME = 1 / 5
# What comes before and after the steps of a budget, such as the regressed weights.
PREPARATION = 10.0

pytestmark = pytest.mark.skipif(PEER is None, reason="PIDGAN_PEER_PYTHON is not set")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("speed") / "kaon.root"
    write_trees(path, simulate_calibration("dstar_k", TRACKS, seed=31))
    return build_dataset("sim_dstar_k", [path], seed=1)


def run_peer(dataset: Dataset, folder: Path, *, seconds: float) -> dict:
    """Train the peer on the training part; generate at the conditions of the test."""
    part, judged = dataset.part("train"), dataset.part("test").conditions
    conditions = fit_conditions(
        part.conditions, [v.transform for v in dataset.sample.conditions]
    )
    targets = fit_columns(part.targets, part.weights)
    pattern, y = targets.forward(part.targets)
    assert (pattern == 0).all()
    np.savez(
        folder / "input.npz",
        x=conditions.forward(part.conditions),
        y=y,
        w=part.weights.astype(np.float32),
        judged=conditions.forward(judged),
        sizes=[BATCH, *NETWORK.values()],
        seconds=seconds,
    )
    script = Path(__file__).with_name("peer_cramer.py")
    command = [str(PEER), str(script), "input.npz", "output.npz"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ""}
    subprocess.run(command, check=True, cwd=folder, env=environment)
    found = dict(np.load(folder / "output.npz"))
    codes = np.ones((len(judged), 1), dtype=np.float32)
    found["targets"] = targets.inverse(found["generated"], codes)
    return found


def own_rate(dataset: Dataset) -> float:
    """Return real rows per second of the published network, without compilation."""
    real = BATCH // REAL_SHARE
    marks: list[tuple[int, float]] = []

    def mark(progress: Progress) -> None:
        marks.append((progress.step, time.perf_counter()))
        if marks[-1][1] - marks[0][1] > THROUGHPUT_SECONDS:
            raise KeyboardInterrupt

    settings = NETWORK | {
        "batch_size": real,
        "first_critic_updates": 1,
        "critic_updates": 1,
        "begin": 0.0,
        "xla": True,
    }
    with pytest.raises(KeyboardInterrupt):
        train(
            dataset,
            recipe="maevskiy2019",
            steps=10**7,
            settings=settings,
            progress=mark,
        )
    # The first calls are short, until it is known how long a step takes.
    return real * typical_rate(marks[2:])


def typical_rate(marks: Sequence[tuple[int, float]]) -> float:
    """Return the median rate between marks, of which other work disturbs few."""
    steps, seconds = np.diff(np.array(marks), axis=0).T
    return float(np.median(steps / seconds))


def test_throughput(dataset: Dataset, tmp_path: Path) -> None:
    ratios = []
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        peer = run_peer(dataset, folder, seconds=THROUGHPUT_SECONDS)
        theirs = BATCH / REAL_SHARE * typical_rate(peer["marks"])
        own = own_rate(dataset)
        ratios.append(own / theirs)
        print(f"\nreal rows/s: {own:.0f}, peer {theirs:.0f}, ratio {ratios[-1]:.2f}")
    assert np.median(ratios) >= LEAST_RATIO


def test_time_to_the_quality_of_the_peer(dataset: Dataset, tmp_path: Path) -> None:
    part = dataset.part("test")
    real = with_differences(part.conditions, part.targets)

    def judge(targets: np.ndarray) -> float:
        generated = with_differences(part.conditions, targets)
        w = part.weights
        return c2st(real, generated, w, w, seed=1, max_rows=20_000, paired=True).auc

    theirs = judge(run_peer(dataset, tmp_path, seconds=SECONDS)["targets"])
    start = time.perf_counter()
    model = train(dataset, budget=MOST_TIME * SECONDS - PREPARATION)
    seconds = time.perf_counter() - start
    own = judge(sample_targets(model, part.conditions, seed=1))
    print(f"\nC2ST: peer {theirs:.3f} in {SECONDS:.0f} s, ", end="")
    print(f"here {own:.3f} in {seconds:.0f} s")
    assert seconds <= MOST_TIME * SECONDS
    assert own <= theirs
