"""Speed and memory of `prepare` and `train` on a large sample.

Run with `pytest -o addopts= -s tests/benchmarks/test_large_samples_speed.py`. The files
are made once, from simulated tracks, with fresh masses and events. Both verbs run in
processes of their own, so that the peak memory is theirs. PIDGAN_ROWS sets another
number of rows, PIDGAN_BUDGET the budget of the training.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pidgan.files.tables import write_trees
from pidgan.sample.loading import load_sample
from pidgan.simulation import simulate_calibration

ROWS = int(os.environ.get("PIDGAN_ROWS", "10000000"))
BUDGET = os.environ.get("PIDGAN_BUDGET", "1m")
FILE_ROWS = 2_000_000
MAX_GIGABYTES = 2.0
CODE = """
import resource, sys, time
from pidgan.cli import cli
start = time.perf_counter()
cli(sys.argv[1:], standalone_mode=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
print("MEASURED", time.perf_counter() - start, time.process_time(), peak)
"""


def write_sample(folder: Path) -> None:
    """Write tracks of a smaller sample with masses and events of their own."""
    branches = [*load_sample("sim_dstar_k").branches, "probe_TRUE_SIGNAL"]
    trees = simulate_calibration("dstar_k", 400_000, seed=1)
    for number in range(-(-ROWS // FILE_ROWS)):
        rng, written = np.random.default_rng(number), {}
        for name, columns in trees.items():
            rows = rng.integers(0, len(columns["D0_M"]), FILE_ROWS // 2)
            new = {branch: columns[branch][rows] for branch in branches}
            is_signal = new.pop("probe_TRUE_SIGNAL").astype(bool)
            width = np.where(rng.random(len(rows)) < 0.6, 6.5, 11.0)
            flat = rng.uniform(1825, 1910, len(rows))
            new["D0_M"] = np.where(is_signal, rng.normal(1864.8, width), flat)
            new["runNumber"] = np.full(len(rows), number, dtype=np.uint32)
            new["eventNumber"] = rng.integers(0, 2**40, len(rows)).astype(np.uint64)
            written[name] = new
        write_trees(folder / f"part{number}.root", written)


def measure(*arguments: str) -> tuple[float, float, float]:
    """Run a verb; return its seconds, those of the processor and its peak memory."""
    run = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    line = next(x for x in run.stdout.splitlines() if x.startswith("MEASURED"))
    seconds, cpu, peak = map(float, line.split()[1:])
    print(f"{arguments[0]}: {seconds:.0f} s, {cpu:.0f} s of CPU, {peak:.2f} GB")
    return seconds, cpu, peak


def test_prepare_and_train_stay_within_memory(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    write_sample(tmp_path)
    dataset, model = str(tmp_path / "kaon"), str(tmp_path / "model")
    files = str(tmp_path / "part*.root")
    _, cpu, peak = measure("prepare", "sim_dstar_k", files, "-o", dataset)
    print(f"prepare: {ROWS / cpu:,.0f} rows a second of CPU")
    assert peak < MAX_GIGABYTES
    assert measure("train", dataset, "-o", model, "--budget", BUDGET)[2] < MAX_GIGABYTES
