"""Milliseconds a shower by family, alone and in batches, in C and in ONNX Runtime.

    pytest tests/benchmarks/test_shower_time.py -o addopts= -n 0 -s

Times are of the process, one core, the fastest of some repetitions, without the noise.
Speed does not depend on what was learnt, apart from `shower_tree`, whose time in C goes
with the cells that have energy: its showers are those of PIDGAN_SHOWERS, a bundle that
was trained, or of a few steps.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from test_shower_speed import DEFINITIONS, write_showers

from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.c_file import export_c
from pidgan.sample.building import build_dataset
from pidgan.sample.loading import load_sample

CC = shutil.which("cc")
BATCHES = (1, 10, 100)
SECONDS = 1.0  # of a timing, about
TREE_MS = {1: 2.0, 100: 0.5}  # most that 1,728 cells of hadrons may take
CASES = [
    ("pbwo4", "shower_sequence"),
    ("pbwo4", "shower_flow"),
    ("pbwo4", "pca"),
    ("pbwo4", "gflash"),
]

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "shower.h"

int main(int argc, char **argv)
{
    const size_t n = 100;
    float *x = malloc(n * shower_n_conditions * sizeof *x);
    float *z = malloc(n * shower_n_noise * sizeof *z);
    float *y = malloc(n * shower_n_targets * sizeof *y);
    void *scratch = aligned_alloc(64, (shower_scratch + 64) / 64 * 64);
    FILE *file = fopen(argv[1], "rb");
    if (fread(x, sizeof *x, n * shower_n_conditions, file) == 0
        || fread(z, sizeof *z, n * shower_n_noise, file) == 0)
        return 1;
    for (int k = 2; k < argc; ++k) {
        const size_t rows = (size_t)atol(argv[k]);
        double best = 1e9;
        for (int repetition = 0; repetition < 5; ++repetition) {
            const clock_t start = clock();
            for (size_t first = 0; first < n; first += rows)
                shower_batch_in(y + first * shower_n_targets,
                                x + first * shower_n_conditions,
                                z + first * shower_n_noise, rows, scratch);
            const double s = (double)(clock() - start) / CLOCKS_PER_SEC;
            best = s < best ? s : best;
        }
        printf("%.6f ", 1e3 * best / n);
    }
    return 0;
}
"""


def inputs(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Conditions of the reference rows and noise, of 100 showers."""
    frame = bundle.reference()
    assert frame is not None
    rows = frame[list(bundle.card.condition_names)].to_numpy(np.float32)
    x = np.ascontiguousarray(rows[np.arange(max(BATCHES)) % len(rows)])
    z = np.random.default_rng(1).standard_normal((len(x), bundle.card.n_noise))
    return x, z.astype(np.float32)


def in_onnxruntime(bundle: Bundle) -> dict[int, float]:
    """Milliseconds a shower by the number of showers of a call, without padding."""
    x, z = inputs(bundle)
    session, found = bundle._session.start(), {}
    for n in BATCHES:
        seconds, began = [], time.process_time()
        while time.process_time() - began < SECONDS:
            start = time.process_time()
            session.run(["targets"], {"conditions": x[:n], "noise": z[:n]})
            seconds.append(time.process_time() - start)
        found[n] = 1e3 * min(seconds) / n
    return found


def in_c(bundle: Bundle, folder: Path) -> tuple[dict[int, float], float]:
    """The same for the C file, and the CPU time of its compiler."""
    export_c(bundle, folder / "shower.c")
    (folder / "main.c").write_text(MAIN)
    x, z = inputs(bundle)
    (folder / "rows").write_bytes(x.tobytes() + z.tobytes())
    began = os.times()
    flags = ("-O3", "-march=native", "main.c", "shower.c", "-o", "main", "-lm")
    subprocess.run([str(CC), *flags], check=True, cwd=folder)
    compiled = os.times().children_user - began.children_user
    command = [str(folder / "main"), str(folder / "rows"), *map(str, BATCHES)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    times = map(float, done.stdout.split())
    return dict(zip(BATCHES, times, strict=True)), compiled


def row(bundle: Bundle, name: str, folder: Path) -> dict[int, float]:
    """Print the row of the table of a family, and return its times in C."""
    folder.mkdir()
    found, compiled = in_c(bundle, folder)
    cells = [f"{ms:.3g}" for ms in (*found.values(), *in_onnxruntime(bundle).values())]
    print(
        f"| {name} | {len(bundle.card.targets)} | {' | '.join(cells)} | "
        f"{compiled:.0f} s |"
    )
    return found


@pytest.mark.skipif(CC is None, reason="needs a C compiler")
def test_time_of_a_shower(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.classical.fit import fit_parametrisation
    from pidgan.training.export import export_bundle
    from pidgan.training.families import CLASSICAL
    from pidgan.training.loop import train

    print("\n| family | cells | C, 1 | 10 | 100 | ONNX, 1 | 10 | 100 | compiler |")
    for name, family in CASES:
        write_showers(tmp_path / f"{name}.npz", name, 500)
        sample = load_sample(DEFINITIONS / f"{name}.toml")
        dataset = build_dataset(sample, tmp_path / f"{name}.npz")
        model = (
            fit_parametrisation(dataset, family)
            if family in CLASSICAL
            else train(dataset, family=family, steps=2)
        )
        path = tmp_path / f"{family}.onnx"
        bundle = open_bundle(export_bundle(model, path), threads=1)
        if any(v.dtype == "float64" for v in bundle.graph.values.values()):
            cells = [f"{ms:.3g}" for ms in in_onnxruntime(bundle).values()]
            print(
                f"| {family} | {len(bundle.card.targets)} | - | - | - | "
                f"{' | '.join(cells)} | |"
            )
        else:
            row(bundle, family, tmp_path / family)
    trained = os.environ.get("PIDGAN_SHOWERS")
    if trained:
        bundle = open_bundle(trained, threads=1)
        times = row(bundle, bundle.card.family, tmp_path / "trained")
        for n, most in TREE_MS.items():
            assert times[n] <= most
