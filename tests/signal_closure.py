"""A background-contaminated sample and its pure signal, and generators of both.

The sWeighted contaminated sample and the true signal must teach the same response.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.bundle.card import sample_targets
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.cuts import parse_cut
from pidgan.sample.dataset import Dataset
from pidgan.sample.loading import load_sample
from pidgan.simulation import simulate_calibration
from pidgan.training.loop import train

CUTS = ("RichDLLk > 0", "RichDLLk > 5", "RichDLLp > 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """The same tracks as a dataset each.

    Attributes:
        weighted: signal and background, with sWeights.
        unweighted: the same rows, with weights 1.
        pure: the rows that are signal in truth, with weights 1.
    """

    weighted: Dataset
    unweighted: Dataset
    pure: Dataset


def make_samples(folder: Path, tracks: int, *, seed: int) -> Samples:
    """Simulate kaons under a background, and select the true signal."""
    trees = simulate_calibration("dstar_k", tracks, seed=seed)
    signal = {
        tree: {
            name: values[branches["probe_TRUE_SIGNAL"] == 1]
            for name, values in branches.items()
        }
        for tree, branches in trees.items()
    }
    write_trees(folder / "all.root", trees)
    write_trees(folder / "signal.root", signal)
    weighted = build_dataset("sim_dstar_k", folder / "all.root", seed=1)
    unweighted = dataclasses.replace(
        weighted, weights=np.ones_like(np.asarray(weighted.weights))
    )
    bare = load_sample("sim_dstar_k").model_copy(
        update={"discriminant": None, "unweighted": True}
    )
    pure = build_dataset(bare, folder / "signal.root", seed=1)
    return Samples(weighted=weighted, unweighted=unweighted, pure=pure)


def generated_efficiencies(
    dataset: Dataset, conditions: np.ndarray, *, seed: int, **training: Any
) -> np.ndarray:
    """Train on a dataset and return the efficiency of each cut at some conditions."""
    model = train(dataset, seed=seed, **training)
    return _pass(sample_targets(model, conditions, seed=1), dataset).mean(axis=1)


def real_errors(dataset: Dataset) -> np.ndarray:
    """Return the statistical error of the cuts' efficiencies in the training part."""
    part = dataset.part("train")
    passed, w = _pass(part.targets, dataset), part.weights
    efficiency = passed @ w / w.sum()
    squares = (w * (passed - efficiency[:, None])) ** 2
    return np.sqrt(squares.sum(axis=1)) / w.sum()


def compare(
    samples: Samples, *, seeds: tuple[int, int] = (1, 2), **training: Any
) -> Mapping[str, np.ndarray]:
    """Return pulls, of each cut, of contaminated samples against the pure signal.

    The error holds the statistics of both training samples, though the rows of the
    pure one are among those of the other, and the spread of two seeds.
    """
    conditions = samples.pure.part("test").conditions
    first, second = (
        generated_efficiencies(samples.pure, conditions, seed=seed, **training)
        for seed in seeds
    )
    spread = np.sqrt(np.mean((first - second) ** 2)) / np.sqrt(2)
    error = np.sqrt(
        real_errors(samples.pure) ** 2
        + real_errors(samples.weighted) ** 2
        + 2 * spread**2
    )
    found = {}
    for name in ("weighted", "unweighted"):
        dataset = getattr(samples, name)
        efficiency = generated_efficiencies(
            dataset, conditions, seed=seeds[0], **training
        )
        found[name] = (efficiency - first) / error
        found[f"{name}_difference"] = efficiency - first
    return found | {"error": error}


def _pass(targets: np.ndarray, dataset: Dataset) -> np.ndarray:
    names = dataset.sample.target_names
    columns = dict(zip(names, targets.T, strict=True))
    return np.array(
        [
            parse_cut(cut, names=names).passes(columns, dataset.sample.sentinels)
            for cut in CUTS
        ]
    )
