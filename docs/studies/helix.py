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
import pandas as pd

from pidgan.bundle.bundle import open_bundle
from pidgan.report.classifiers import c2st
from pidgan.simulation.tpc import DRIFT_LENGTH, ROW_RADII, TPC_SPECIES
from pidgan.simulation.tpc_clusters import (
    CLUSTER_ROWS,
    FIELD,
    MAX_DIP,
    N_SECTORS,
    PT_RANGE,
    VERTEX_SPREAD,
    draw_helices,
    helix_points,
    simulate_clusters,
)
from pidgan.training.conditions import fit_conditions
from pidgan.training.export import export_bundle
from pidgan.training.families.clusters import (
    ClusterSettings,
    cluster_model,
    cluster_sample,
    train_clusters,
    with_helix,
)
from pidgan.training.networks.helix import FEATURES, SENTINEL, Frame

CONDITIONS = {
    "PT": {"unit": "MeV", "range": PT_RANGE, "transform": "log"},
    "DIP": {"range": (-MAX_DIP, MAX_DIP)},
    "PHI": {"unit": "rad", "range": (-np.pi, np.pi), "transform": "angle"},
    "Z": {"unit": "mm", "range": (-3 * VERTEX_SPREAD, 3 * VERTEX_SPREAD)},
    "CHARGE": {"categories": (-1, 1)},
    "SPECIES": {"categories": tuple(range(len(TPC_SPECIES)))},
}
FRAME = Frame(
    radii=tuple(ROW_RADII[CLUSTER_ROWS]),
    field=FIELD,
    n_sectors=N_SECTORS,
    drift_length=DRIFT_LENGTH,
)
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
    arguments.directory.mkdir(parents=True, exist_ok=True)
    train = draw_helices(arguments.tracks, seed=1)
    judge = draw_helices(arguments.judged, seed=2)
    targets = _simulated(train, seed=3)
    real = _simulated(judge, seed=4)
    another = _simulated(judge, seed=6)
    part = draw_helices(2048, seed=7)
    simulation = _seconds(lambda: simulate_clusters(part, seed=8), 2048)
    result = {"simulation": _judged(another, real, judge, simulation, simulation)}
    for name in arguments.variants:
        path = arguments.directory / f"{name.replace('+', '-plus')}.onnx"
        if arguments.steps:
            _train(name, path, train, targets, judge, real, arguments)
        bundle = open_bundle(path, threads=1)
        n_noise = bundle.card.n_noise
        noise = np.random.default_rng(5).standard_normal((len(real), n_noise))
        x, noise = judge.table().astype("f4"), noise.astype("f4")
        few = x[:2048], noise[:2048]
        each = _seconds(functools.partial(bundle.generate, *few), 2048)
        made = bundle.generate(x, noise)
        result[name] = _judged(made, real, judge, each, simulation)
        print(name, json.dumps(result[name]), flush=True)
        (arguments.directory / "helix.json").write_text(json.dumps(result, indent=1))
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


def _train(name, path, train, targets, judge, held_out, arguments):
    """Train and export one generator."""
    network, reconstruction = VARIANTS[name]
    settings = ClusterSettings(network=network, reconstruction=reconstruction)
    x = train.table().astype("f4")
    sample = cluster_sample(CONDITIONS, len(CLUSTER_ROWS), "docs/studies/helix.py")
    scaling = fit_conditions(
        x,
        [variable.transform for variable in sample.conditions],
        categories=[variable.categories for variable in sample.conditions],
    )
    scaling = with_helix(scaling, (0, 1, 2, 3, 4))
    trained = train_clusters(
        scaling.forward(x), targets, FRAME, settings=settings, steps=arguments.steps
    )
    columns = np.concatenate([judge.table().astype("f4"), held_out], axis=1)
    names = [*sample.condition_names, *sample.target_names]
    model = cluster_model(
        trained,
        sample=sample,
        conditions=scaling,
        settings=settings,
        held_out=pd.DataFrame(columns, columns=names).assign(weight=1.0),
        seed=1,
        steps=arguments.steps,
    )
    export_bundle(model, path, overwrite=True)
    print(name, {k: [round(v, 4) for v in vs] for k, vs in trained.history.items()})


def _judged(made, real, judge, seconds, simulation):
    """Return distances to the true helix and the AUC of a classifier."""
    truth = helix_points(judge, ROW_RADII[CLUSTER_ROWS])
    positions = made.reshape(truth.shape)
    found = positions[:, :, 0] != SENTINEL
    squared = np.where(found, ((positions - truth) ** 2).sum(axis=2), 0.0)
    mse = squared.sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    score = c2st(_clusters(real, judge), _clusters(made, judge), paired=True)
    return {
        "mean_mse_mm2": float(mse.mean()),
        "median_mse_mm2": float(np.median(mse)),
        "found": float(found.mean()),
        "c2st": score.auc,
        "c2st_error": score.error,
        "ms_per_track": 1e3 * seconds,
        "speed_up": simulation / seconds,
    }


def _clusters(targets, judge):
    """Return the inputs of the classifier for one row of each track, (n, 7)."""
    x = judge.table().astype("f4")
    apart, found = FRAME.residuals(targets, x[:, :5])
    row = np.random.default_rng(7).integers(0, len(CLUSTER_ROWS), len(x))
    at = np.arange(len(x)), row
    rows = FRAME.cross(x[:, :5].astype(np.float32))
    features = FRAME.features(rows).reshape(len(x), FEATURES, -1)
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
