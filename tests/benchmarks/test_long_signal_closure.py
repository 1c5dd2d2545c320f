"""sWeights in training, with a realistic sample: every family against the truth.

    pytest -o addopts= -s tests/benchmarks/test_long_signal_closure.py

PIDGAN_BENCHMARK_TRACKS sets the simulated tracks (200,000), PIDGAN_BENCHMARK_STEPS the
updates of each training (2,000).
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")
sys.path.insert(0, str(Path(__file__).parents[1]))

from signal_closure import CUTS, Samples, compare, make_samples

from pidgan.training.families import FAMILIES

TRACKS = int(os.environ.get("PIDGAN_BENCHMARK_TRACKS", 200_000))
STEPS = int(os.environ.get("PIDGAN_BENCHMARK_STEPS", 2_000))
MOST_PULL = 3.5


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("closure"), TRACKS, seed=22)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_contaminated_sample_teaches_its_signal(
    samples: Samples, family: str
) -> None:
    found = compare(samples, family=family, steps=STEPS)
    print()
    for name in ("weighted", "unweighted"):
        for cut, difference, pull in zip(
            CUTS, found[f"{name}_difference"], found[name], strict=True
        ):
            print(f"{family:8} {name:10} {cut:14} {difference:+.4f} pull {pull:+.1f}")
    assert np.abs(found["weighted"]).max() < MOST_PULL
    assert np.abs(found["unweighted"]).max() > 2 * MOST_PULL
