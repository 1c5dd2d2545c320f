"""Trainings with random settings within the documented ranges end without NaN.

    pytest -o addopts= -s tests/benchmarks/test_random_settings.py

PIDGAN_BENCHMARK_RUNS sets how many (20), PIDGAN_BENCHMARK_SECONDS how long each lasts
(60).
"""

import dataclasses
import math
import os

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.bundle.card import sample_targets
from pidgan.sample.dataset import Dataset
from pidgan.training.families import RANGES, Cramer
from pidgan.training.loop import train

RUNS = int(os.environ.get("PIDGAN_BENCHMARK_RUNS", 20))
SECONDS = float(os.environ.get("PIDGAN_BENCHMARK_SECONDS", 60))
# XLA compiles for half a minute where all four phases take part.
COMPILED_FROM = 300.0


def draw_settings(rng: np.random.Generator) -> dict[str, float]:
    """Draw every setting, evenly in its logarithm where the range allows."""
    drawn: dict[str, float] = {"xla": SECONDS >= COMPILED_FROM}
    for field in dataclasses.fields(Cramer):
        if field.name not in RANGES:
            continue
        least, most = RANGES[field.name]
        if least > 0:
            value = math.exp(rng.uniform(math.log(least), math.log(most)))
        else:
            value = rng.uniform(least, most)
        drawn[field.name] = round(value) if isinstance(field.default, int) else value
    phases = ("teach", "distil", "warm", "play")
    total = sum(drawn[phase] for phase in phases)
    return drawn | {phase: drawn[phase] / total for phase in phases}


# Large networks of all phases are traced for most of a minute on a busy machine.
@pytest.mark.filterwarnings("ignore:the budget of")
@pytest.mark.parametrize("run", range(RUNS))
def test_no_settings_within_the_ranges_end_in_nan(
    run: int, kaon_dataset: Dataset
) -> None:
    settings = draw_settings(np.random.default_rng([97, run]))
    model = train(
        kaon_dataset,
        family=Cramer(**settings),
        budget=SECONDS,
        seed=run + 1,
    )
    targets = sample_targets(model, kaon_dataset.part("test").conditions, seed=1)
    losses = {key: values[-1] for key, values in model.history.items()}
    print({k: float(f"{v:.3g}") for k, v in settings.items()}, losses, sep="\n")
    assert np.isfinite(targets).all()
