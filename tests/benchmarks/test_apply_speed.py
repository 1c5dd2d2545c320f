"""Speed and memory of `apply`.

Run with `pytest -o addopts= -s tests/benchmarks/test_apply_speed.py`.
PIDGAN_BENCHMARK_ENTRIES sets the entries (5 million), PIDGAN_BENCHMARK_BUNDLE a bundle
with the conditions P, ETA and nTracks; without it one is trained for a minute.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from pidgan.application.apply import apply
from pidgan.application.one_track import NOT_SELECTED
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.noise import keyed_normal
from pidgan.files.copying import write_copy
from pidgan.files.formats.root import COMPRESSION
from pidgan.files.tables import BranchType, Source
from pidgan.files.trees import Addition

ENTRIES = int(os.environ.get("PIDGAN_BENCHMARK_ENTRIES", 5_000_000))
BRANCHES = 30
CHUNK = 200_000

MAX_RATIO = 1.4
"""End-to-end time over that of generation alone and of input and output alone."""

ROUNDS = 3

TEMPLATE = (70, 20, 20, 20)
"""Bins of a PIDGen2 template: of the variable (its own number), and of conditions."""

RESAMPLE_BINS = 100
MIN_SPEED_UP = 20.0

MAX_GROWTH = 1.10
MAX_MEMORY = 1.5e9


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest) -> Path:
    given = os.environ.get("PIDGAN_BENCHMARK_BUNDLE")
    return Path(given) if given else request.getfixturevalue("kaon_bundle")


def write_input(path: Path, entries: int) -> None:
    """Write a tree of 30 branches, floats and doubles in equal numbers."""
    rng = np.random.default_rng(1)
    names = [f"x{i}" for i in range(BRANCHES - 3)]
    types: dict[str, Any] = {"K_P": "f8", "K_ETA": "f8", "nTracks": "i4"}
    types |= {name: "f8" if i % 2 else "f4" for i, name in enumerate(names)}
    with uproot.recreate(path, compression=COMPRESSION) as file:
        tree = file.mktree("T", types)
        for first in range(0, entries, CHUNK):
            n = min(CHUNK, entries - first)
            chunk = {name: rng.normal(size=n).astype(types[name]) for name in names}
            chunk["K_P"] = rng.uniform(5e3, 9e4, n)
            chunk["K_ETA"] = rng.uniform(2, 4.5, n)
            chunk["nTracks"] = rng.integers(20, 400, n).astype("i4")
            tree.extend(chunk)


@pytest.fixture(scope="module")
def ntuple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speed") / "in.root"
    write_input(path, ENTRIES)
    return path


def generation_alone(path: Path) -> float:
    """Return seconds to generate all entries from conditions and noise in memory."""
    opened = open_bundle(path)
    rng = np.random.default_rng(1)
    low, high = np.array([v.range for v in opened.card.conditions]).T
    x = rng.uniform(low, high, (CHUNK, len(low))).astype(np.float32)
    z = keyed_normal(np.arange(CHUNK, dtype=np.uint64), n_noise=opened.card.n_noise)
    opened.generate(x, z)
    started = time.perf_counter()
    for first in range(0, ENTRIES, CHUNK):
        n = min(CHUNK, ENTRIES - first)
        opened.generate(x[:n], z[:n])
    return time.perf_counter() - started


def input_output_alone(path: Path, output: Path, bundle: Path, *, keep: bool) -> float:
    """Return seconds to read the file and write it with columns that are there."""
    card = open_bundle(bundle).card
    rng = np.random.default_rng(1)
    names = [f"K_{target}" for target in card.target_names]
    columns = {name: rng.normal(size=CHUNK).astype("f4") for name in names}
    columns["K_pidgan_status"] = np.full(CHUNK, NOT_SELECTED)
    addition = Addition(
        source=Source(str(path), "T"),
        needed=("K_P", "K_ETA", "nTracks"),
        types={name: BranchType(values.dtype) for name, values in columns.items()},
        compute=lambda first, arrays: {
            name: values[: len(arrays["K_P"])] for name, values in columns.items()
        },
    )
    started = time.perf_counter()
    write_copy([addition], output, keep=keep, chunk=CHUNK)
    return time.perf_counter() - started


@pytest.mark.parametrize("mode", ["friend", "append"])
def test_end_to_end(bundle: Path, ntuple: Path, tmp_path: Path, mode: Any) -> None:
    def whole() -> float:
        started = time.perf_counter()
        apply({"K": bundle}, ntuple, tmp_path / "b.root", mode=mode, overwrite=True)
        return time.perf_counter() - started

    keep = mode != "friend"
    ratios = []
    for _ in range(ROUNDS):
        # In turn, so that all meet the same load of the machine.
        generation = generation_alone(bundle)
        total = whole()
        io = input_output_alone(ntuple, tmp_path / "io.root", bundle, keep=keep)
        ratios.append(total / (generation + io))
        print(
            f"\n{mode}: {ENTRIES} entries in {total:.1f} s, "
            f"{ENTRIES / total / 1e3:.0f}k/s; generation {generation:.1f} s, input and "
            f"output {io:.1f} s: ratio {ratios[-1]:.2f}"
        )
    assert np.median(ratios) <= MAX_RATIO


def test_faster_than_resampling_templates(
    bundle: Path, ntuple: Path, tmp_path: Path
) -> None:
    """Our whole `apply` against PIDGen2's resampling alone, five variables in turn."""
    peer = pytest.importorskip("pidgen2.density_estimation")
    rng = np.random.default_rng(1)
    counts = rng.random(TEMPLATE)
    edges = [np.linspace(-2.5, 2.5, n + 1) for n in TEMPLATE]
    rows = 20_000
    data = rng.uniform(-2, 2, (rows, len(TEMPLATE) - 1))
    started = time.perf_counter()
    for _ in range(5):
        peer.resample(counts, edges, data, rng.random(rows), bins=RESAMPLE_BINS)
    theirs = rows / (time.perf_counter() - started)
    started = time.perf_counter()
    apply({"K": bundle}, ntuple, tmp_path / "out.root", mode="append")
    ours = ENTRIES / (time.perf_counter() - started)
    print(f"\n{ours:.0f} entries/s against {theirs:.0f}: {ours / theirs:.0f} times")
    assert ours >= MIN_SPEED_UP * theirs


def peak_memory(bundle: Path, path: Path, output: Path, mode: str) -> int:
    """Return the largest resident size of a process that applies, in bytes."""
    program = (
        "from pidgan.cli import main; main()\n"
        "status = open('/proc/self/status').read()\n"
        "print(status.partition('VmHWM:')[2].split()[0])"
    )
    words = [
        "apply",
        "--track",
        f"K={bundle}",
        path,
        "-o",
        output,
        "--mode",
        mode,
        "-q",
    ]
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024


@pytest.mark.parametrize("mode", ["friend", "append"])
def test_memory_does_not_grow(
    bundle: Path, ntuple: Path, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "large.root"
    write_input(path, 4 * ENTRIES)
    small = peak_memory(bundle, ntuple, tmp_path / "small_out.root", mode)
    large = peak_memory(bundle, path, tmp_path / "large_out.root", mode)
    print(
        f"\n{mode}: peak {small / 1e6:.0f} MB for {ENTRIES} entries, "
        f"{large / 1e6:.0f} MB for {4 * ENTRIES}"
    )
    assert large <= MAX_GROWTH * small
    assert large <= MAX_MEMORY
