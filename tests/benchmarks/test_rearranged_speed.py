"""Rows per second of a graph that is rearranged, beside the graph as it is in the file.

Run with `pytest -o addopts= -s tests/benchmarks/test_rearranged_speed.py`.
PIDGAN_BENCHMARK_ROWS sets the rows (1 million), PIDGAN_BENCHMARK_BUNDLE a bundle with
the conditions P, ETA and nTracks; without it one is trained for a minute. Noise is
included, and both run in turn, so that both meet the same load of the machine.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from pidgan.bundle import session
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.card import sample_targets
from pidgan.files.machine import available_cores

ROWS = int(os.environ.get("PIDGAN_BENCHMARK_ROWS", 1_000_000))
ROUNDS = 9
LEAST_RATIO = 1.25


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest) -> Path:
    given = os.environ.get("PIDGAN_BENCHMARK_BUNDLE")
    return Path(given) if given else request.getfixturevalue("kaon_bundle")


def seconds(bundle: Bundle, x: np.ndarray) -> tuple[float, float]:
    """Return the time on the wall and of the processor."""
    clock, used = time.perf_counter(), time.process_time()
    sample_targets(bundle, x, seed=1)
    return time.perf_counter() - clock, time.process_time() - used


@pytest.mark.skipif(
    session.channels_at_once() is None, reason="the processor has no blocks of channels"
)
@pytest.mark.parametrize("threads", sorted({1, available_cores()}))
def test_faster_than_the_file(
    bundle: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundle, threads=threads)
    with monkeypatch.context() as patched:
        patched.setattr(session, "channels_at_once", lambda: None)
        as_stored = open_bundle(bundle, threads=threads)
    low, high = np.array([v.range for v in opened.card.conditions]).T
    x = np.random.default_rng(1).uniform(low, high, (ROWS, len(low)))
    x = x.astype(np.float32)
    pairs = [(seconds(as_stored, x), seconds(opened, x)) for _ in range(ROUNDS + 1)]
    found = np.array(pairs[1:])
    wall, used = np.median(found[:, 0] / found[:, 1], axis=0)
    rate = ROWS / found.min(axis=0)[:, 0] / 1e6
    print(
        f"\n{threads} threads: {rate[0]:.2f} -> {rate[1]:.2f} M rows/s, ratio "
        f"{wall:.2f} on the clock, {used:.2f} of the processor"
    )
    assert used >= LEAST_RATIO
