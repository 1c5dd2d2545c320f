"""Clusters along helices: how far generators are from the true helix, and how fast.

The script trains a convolutional and a recurrent generator with and without
reconstruction loss on simulated tracks. It exports each as a bundle, and writes the
table of docs/how-to/simulation/time-projection-chamber.md. `--steps N` sets the length
of the training; with 0 the bundles in the directory are judged as they are.
"""

import argparse
import functools
import json
import time
from pathlib import Path

import numpy as np

from pidgan.bundle.bundle import open_bundle
from pidgan.files.tables import write_trees
from pidgan.report.metrics import c2st
from pidgan.sample.building import build_dataset
from pidgan.sample.clusters import SENTINEL
from pidgan.simulation import CLUSTER_TREE, simulate_cluster_tracks
from pidgan.simulation.tpc import ROW_RADII
from pidgan.simulation.tpc_clusters import (
    CLUSTER_ROWS,
    Helices,
    draw_helices,
    helix_points,
    simulate_clusters,
)
from pidgan.training.export import export_bundle
from pidgan.training.families.clusters import Clusters
from pidgan.training.loop import train
from pidgan.training.networks.helix import FEATURES
from pidgan.training.targets.clusters import cluster_transform

DEFINITION = Path(__file__).parents[2] / "examples/clusters/simulated.toml"
VARIANTS = {
    "recurrent": ("recurrent", 0.0),
    "recurrent+": ("recurrent", 1.0),
    "convolutional": ("convolutional", 0.0),
    "convolutional+": ("convolutional", 1.0),
}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tracks", type=int, default=50_000)
    parser.add_argument("--judged", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    arguments = parser.parse_args()
    directory = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    # A tenth of the tracks is for the losses that are recorded.
    n = round((arguments.tracks + arguments.judged) / 0.9)
    shares = (arguments.tracks / n, 0.1, 0.9 - arguments.tracks / n)
    trees = {CLUSTER_TREE: simulate_cluster_tracks(n, seed=1)}
    write_trees(directory / "tracks.root", trees, overwrite=True)
    dataset = build_dataset(DEFINITION, directory / "tracks.root", shares=shares)
    frame = cluster_transform(dataset.sample).frame
    test = dataset.part("test")
    real, x = test.targets, test.conditions.astype("f4")
    names = (name.lower() for name in dataset.sample.condition_names)
    judge = Helices(**dict(zip(names, x.T.astype(np.float64), strict=True)))
    another = _simulated(judge, seed=6)
    part = draw_helices(2048, seed=7)
    simulation = _seconds(lambda: simulate_clusters(part, seed=8), 2048)
    judged = functools.partial(_judged, real=real, judge=judge, frame=frame)
    result = {"simulation": judged(another, times=(simulation, simulation))}
    for name in arguments.variants:
        path = directory / f"{name.replace('+', '-plus')}.onnx"
        if arguments.steps:
            network, reconstruction = VARIANTS[name]
            family = Clusters(network=network, reconstruction=reconstruction)
            model = train(dataset, family=family, steps=arguments.steps)
            export_bundle(model, path, overwrite=True)
        bundle = open_bundle(path, threads=1)
        n_noise = bundle.card.n_noise
        noise = np.random.default_rng(5).standard_normal((len(real), n_noise))
        noise = noise.astype("f4")
        few = x[:2048], noise[:2048]
        each = _seconds(functools.partial(bundle.generate, *few), 2048)
        made = bundle.generate(x, noise)
        result[name] = judged(made, times=(each, simulation))
        print(name, json.dumps(result[name]), flush=True)
        (directory / "helix.json").write_text(json.dumps(result, indent=1))
    print(_table(result))


def _simulated(helices, *, seed):
    """Return targets, (n, 159)."""
    positions, _ = simulate_clusters(helices, seed=seed)
    targets = np.where(np.isnan(positions), SENTINEL, positions)
    return targets.reshape(len(targets), -1).astype("f4")


def _seconds(function, n):
    """Return the shortest of ten times of a function, for each of n tracks."""
    times = []
    for _ in range(10):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times) / n


def _judged(made, *, real, judge, frame, times):
    """Return distances to the true helix and the AUC of a classifier."""
    seconds, simulation = times
    truth = helix_points(judge, ROW_RADII[CLUSTER_ROWS])
    positions = made.reshape(truth.shape)
    found = positions[:, :, 0] != SENTINEL
    squared = np.where(found, ((positions - truth) ** 2).sum(axis=2), 0.0)
    mse = squared.sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    rows = (_clusters(targets, judge, frame) for targets in (real, made))
    score = c2st(*rows, paired=True)
    return {
        "mean_mse_mm2": float(mse.mean()),
        "median_mse_mm2": float(np.median(mse)),
        "found": float(found.mean()),
        "c2st": score.auc,
        "c2st_error": score.error,
        "ms_per_track": 1e3 * seconds,
        "speed_up": simulation / seconds,
    }


def _clusters(targets, judge, frame):
    """Return the inputs of the classifier for one row of each track, (n, 7)."""
    x = judge.table().astype("f4")
    apart, found = frame.residuals(targets, x[:, :5])
    row = np.random.default_rng(7).integers(0, len(CLUSTER_ROWS), len(x))
    at = np.arange(len(x)), row
    rows = frame.cross(x[:, :5].astype(np.float32))
    features = frame.features(rows).reshape(len(x), FEATURES, -1)
    columns = [row, *features[at[0], :, row].T, found[at], *apart[at].T]
    return np.stack(columns, axis=1)


def _table(result):
    """Return the table of the documentation."""
    lines = ["| | mean MSE | median MSE | found | C2ST | ms a track | speed-up |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in result.items():
        lines.append(
            f"| {name} | {row['mean_mse_mm2']:.2f} | {row['median_mse_mm2']:.2f} | "
            f"{row['found']:.3f} | {row['c2st']:.3f} ± {row['c2st_error']:.3f} | "
            f"{row['ms_per_track']:.3f} | {row['speed_up']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
