"""Games with random settings after one teaching: none is NaN, or worse than taught.

    python docs/studies/game_settings.py --runs 20 -o FOLDER

The settings of phases `warm` and `play` of family `cramer` are drawn within the ranges
of `pidgan.training.families.RANGES`. All games follow the same teaching on the same
sample with 60 % of background. Each is judged on fresh signal from truth by the energy
distance, less that of the taught generator, with the same noise; the error is from
eight blocks of rows. Sample and fresh rows are those of `game.py` in FOLDER.
"""

import argparse
import dataclasses
import importlib.util
import math
from pathlib import Path

import numpy as np

from pidgan.bundle.card import sample_targets
from pidgan.report.metrics import energy_distance
from pidgan.training.families import RANGES, Cramer, Distilled
from pidgan.training.loop import train

BLOCKS, BLOCK_ROWS = 8, 4_000
MOST_ROWS = 2_048
"""Rows of a step, more of which would only take longer."""


def main() -> None:
    """Train the taught generator and the games, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("-o", "--output", type=Path, default=Path("game"))
    a = parser.parse_args()
    a.output.mkdir(exist_ok=True)
    game = _study()
    n = BLOCKS * BLOCK_ROWS
    x, y = game._fresh(n, a.output / f"fresh-{n}.npz")
    name = f"60-{a.candidates}-{game.FIRST_SEED}"
    dataset = game._sample(0.6, a.candidates, game.FIRST_SEED, a.output / name)

    def distances(family) -> np.ndarray:
        model = train(dataset, family=family, steps=a.steps)
        made = sample_targets(model, x, seed=1)
        assert np.isfinite(made).all()
        blocks = zip(np.split(y, BLOCKS), np.split(made, BLOCKS), strict=True)
        return np.array([energy_distance(*block) for block in blocks])

    taught = distances(Distilled(xla=False))
    print(f"taught: {taught.mean():.6f}")
    for run in range(a.runs):
        family = draw_game(np.random.default_rng([19, run]))
        off = distances(family) - taught
        error = off.std(ddof=1) / math.sqrt(BLOCKS)
        chosen = {
            f.name: float(f"{getattr(family, f.name):.3g}")
            for f in dataclasses.fields(Cramer)
            if getattr(family, f.name) != f.default and f.name != "xla"
        }
        print(f"{run}: {off.mean():+.6f} +- {error:.6f} {chosen}", flush=True)


def draw_game(rng: np.random.Generator) -> Cramer:
    """Draw each setting of the game, evenly in its logarithm where the range allows."""
    drawn: dict[str, float] = {"xla": False}
    known = {field.name for field in dataclasses.fields(Distilled)}
    for field in dataclasses.fields(Cramer):
        if field.name in known or field.name not in RANGES:
            continue
        least, most = RANGES[field.name]
        if field.name in ("warm", "play"):
            least, most = 0.02, 0.2
        if field.name == "batch_size":
            most = MOST_ROWS
        if least > 0:
            value = math.exp(rng.uniform(math.log(least), math.log(most)))
        else:
            value = rng.uniform(least, most)
        drawn[field.name] = round(value) if isinstance(field.default, int) else value
    return Cramer(**drawn)


def _study():
    """Return the study beside this one."""
    path = Path(__file__).with_name("game.py")
    specification = importlib.util.spec_from_file_location("game", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
