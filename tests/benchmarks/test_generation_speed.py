"""Rows per second of the default network, beside the published one, noise included.

Run with `pytest -o addopts= -s tests/benchmarks/test_generation_speed.py`.
PIDGAN_BENCHMARK_ROWS sets the rows (2 million).
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.card import sample_targets
from pidgan.sample.dataset import Dataset
from pidgan.training.export import export_bundle
from pidgan.training.loop import train

ROWS = int(os.environ.get("PIDGAN_BENCHMARK_ROWS", 2_000_000))
ROUNDS = 5
LEAST_RATIO = 1.5


def make_bundle(dataset: Dataset, path: Path, **kind: str) -> Bundle:
    """Export a network whose training is over at once: its size sets its speed."""
    model = train(dataset, steps=1, seed=1, settings={"xla": False}, **kind)
    return open_bundle(export_bundle(model, path))


def measure_seconds(bundle: Bundle, conditions: np.ndarray) -> float:
    """Return the wall-clock time of generation on all cores."""
    start = time.perf_counter()
    sample_targets(bundle, conditions, seed=1)
    return time.perf_counter() - start


def test_rows_per_second(kaon_dataset: Dataset, tmp_path: Path) -> None:
    default = make_bundle(kaon_dataset, tmp_path / "default.onnx")
    published = make_bundle(
        kaon_dataset, tmp_path / "published.onnx", recipe="maevskiy2019"
    )
    x = np.resize(kaon_dataset.part("train").conditions, (ROWS, 3))
    seconds = {"default": [], "published": []}
    for _ in range(ROUNDS):
        seconds["default"].append(measure_seconds(default, x))
        seconds["published"].append(measure_seconds(published, x))
    best = {name: ROWS / min(values) for name, values in seconds.items()}
    print({name: f"{rate / 1e6:.2f} M rows/s" for name, rate in best.items()})
    assert best["default"] > LEAST_RATIO * best["published"]
