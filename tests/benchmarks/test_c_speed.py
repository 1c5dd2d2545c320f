"""Speed of the C code of the default network, beside ONNX Runtime's, on one core.

    pytest tests/benchmarks/test_c_speed.py -s

Times are of the process, so that others on the machine count less; the fastest of some
repetitions is taken.
"""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.c_file import export_c

CC = shutil.which("cc")
ROWS = 20_480
REPETITIONS = 7
MOST_ROW_MICROSECONDS = 30
LEAST_BATCH_RATE = 250_000

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "kaon.c"

static double seconds(clock_t start)
{
    return (double)(clock() - start) / CLOCKS_PER_SEC;
}

int main(int argc, char **argv)
{
    const size_t rows = (size_t)atol(argv[1]);
    const int repetitions = atoi(argv[2]);
    float *x = malloc(rows * N_CONDITIONS * sizeof *x);
    float *z = malloc(rows * N_NOISE * sizeof *z);
    float *y = malloc(rows * N_TARGETS * sizeof *y);
    double batch = 1e9, row = 1e9;
    FILE *file = fopen(argv[3], "rb");
    (void)argc;
    if (fread(x, sizeof *x, rows * N_CONDITIONS, file) != rows * N_CONDITIONS
        || fread(z, sizeof *z, rows * N_NOISE, file) != rows * N_NOISE)
        return 1;
    for (int i = 0; i < repetitions; ++i) {
        clock_t start = clock();
        kaon_batch(y, x, z, rows);
        batch = fmin(batch, seconds(start));
        start = clock();
        for (size_t r = 0; r < rows; ++r)
            kaon(y + r * N_TARGETS, x + r * N_CONDITIONS, z + r * N_NOISE);
        row = fmin(row, seconds(start));
    }
    printf("%.9f %.9f\\n", batch, row);
    return 0;
}
"""


def fastest(call: Callable[[], object]) -> float:
    """Process time of the fastest repetition, s."""
    times = []
    for _ in range(REPETITIONS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.skipif(CC is None, reason="needs a C compiler")
def test_speed_of_the_c_code(kaon_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(kaon_bundle, threads=1)
    export_c(bundle, tmp_path / "kaon.c")
    frame = bundle.reference()
    assert frame is not None
    rows = frame[list(bundle.card.condition_names)].to_numpy(np.float32)
    x = np.ascontiguousarray(rows[np.arange(ROWS) % len(rows)])
    z = np.random.default_rng(1).standard_normal((ROWS, bundle.card.n_noise))
    z = z.astype(np.float32)
    (tmp_path / "rows").write_bytes(x.tobytes() + z.tobytes())
    (tmp_path / "main.c").write_text(MAIN)
    program = tmp_path / "main"
    flags = ("-O3", "-march=native", "main.c", "-o", "main", "-lm")
    subprocess.run([str(CC), *flags], check=True, cwd=tmp_path)
    command = [str(program), str(ROWS), str(REPETITIONS), str(tmp_path / "rows")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    batch, row = (float(word) for word in done.stdout.split())
    onnxruntime = fastest(lambda: bundle.generate(x, z))
    print(
        f"\nC, batch: {ROWS / batch:.0f} rows/s; ONNX Runtime: "
        f"{ROWS / onnxruntime:.0f} rows/s; ratio {onnxruntime / batch:.2f}\n"
        f"C, one row: {row / ROWS * 1e6:.2f} us"
    )
    assert row / ROWS * 1e6 <= MOST_ROW_MICROSECONDS
    assert ROWS / batch >= LEAST_BATCH_RATE
