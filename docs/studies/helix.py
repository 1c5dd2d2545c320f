"""Clusters along helices: how far generators are from the true helix, and how fast.

Trains a convolutional and a recurrent generator with and without reconstruction on
simulated tracks, exports each as a bundle, and writes the table of
docs/how-to/time-projection-chamber.md. `--steps N` shortens the training.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pidgan.bundle import open_bundle
from pidgan.models.clusters import (
    ClusterSettings,
    cluster_model,
    cluster_sample,
    train_clusters,
    with_helix,
)
from pidgan.models.helix import SENTINEL, Frame
from pidgan.onnx_export import export_bundle
from pidgan.preprocessing import fit_conditions
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
    parser.add_argument("--judged", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    train, judge = (
        draw_helices(arguments.tracks, seed=1),
        draw_helices(arguments.judged, seed=2),
    )
    y, _ = simulate_clusters(train, seed=3)
    began = time.perf_counter()
    y_judge, _ = simulate_clusters(judge, seed=4)
    simulation = (time.perf_counter() - began) / arguments.judged
    targets = [
        np.where(np.isnan(v), SENTINEL, v).reshape(len(v), -1).astype("f4")
        for v in (y, y_judge)
    ]
    truth = helix_points(judge, ROW_RADII[CLUSTER_ROWS])
    result = {"simulation": _judged(targets[1], truth, simulation, 1.0, 0)}
    for name in arguments.variants:
        network, reconstruction = VARIANTS[name]
        settings = ClusterSettings(network=network, reconstruction=reconstruction)
        generate, seconds, size = _train(
            name, train, targets[0], judge, targets[1], settings, arguments
        )
        noise = np.random.default_rng(5).standard_normal((arguments.judged, size))
        x = judge.table().astype("f4")
        generate(x[:256], noise[:256].astype("f4"))
        began = time.perf_counter()
        made = generate(x, noise.astype("f4"))
        each = (time.perf_counter() - began) / arguments.judged
        result[name] = _judged(made, truth, each, simulation / each, seconds)
        print(name, json.dumps(result[name]), flush=True)
    (arguments.directory / "helix.json").write_text(json.dumps(result, indent=1))
    print(_table(result))


def _train(name, train, targets, judge, held_out, settings, arguments):
    """Train and export one generator; return its function, training time and noise."""
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
    frame = pd.DataFrame(columns, columns=names).assign(weight=1.0)
    model = cluster_model(
        trained,
        sample=sample,
        conditions=scaling,
        settings=settings,
        held_out=frame,
        seed=1,
        steps=arguments.steps,
    )
    path = arguments.directory / f"{name.replace('+', '-plus')}.onnx"
    bundle = open_bundle(export_bundle(model, path, overwrite=True))
    print(name, {k: [round(v, 4) for v in vs] for k, vs in trained.history.items()})
    return bundle.generate, trained.history["seconds"][0], trained.n_noise


def _judged(made, truth, seconds, speed_up, training):
    """Return the distance of clusters to the true helix, mean and median of tracks."""
    positions = made.reshape(truth.shape)
    found = positions[:, :, 0] != SENTINEL
    squared = np.where(found, ((positions - truth) ** 2).sum(axis=2), 0.0)
    mse = squared.sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    return {
        "mean_mse_mm2": float(mse.mean()),
        "median_mse_mm2": float(np.median(mse)),
        "found": float(found.mean()),
        "ms_per_track": 1e3 * seconds,
        "speed_up": speed_up,
        "training_s": training,
    }


def _table(result):
    """Return the table of the documentation."""
    lines = ["| | mean MSE | median MSE | found | ms a track | speed-up |"]
    lines.append("|---|---|---|---|---|---|")
    for name, row in result.items():
        lines.append(
            f"| {name} | {row['mean_mse_mm2']:.2f} | {row['median_mse_mm2']:.2f} | "
            f"{row['found']:.3f} | {row['ms_per_track']:.3f} | {row['speed_up']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
