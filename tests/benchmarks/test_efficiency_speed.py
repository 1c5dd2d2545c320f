"""Speed and memory of efficiency tables: 2M rows, 20 cuts, bins in three conditions.

Run with `pytest -o addopts= -s tests/benchmarks/test_efficiency_speed.py`. The process
is a fresh one on two cores, so that its peak memory is that of the tables.
"""

import subprocess
import sys

ROWS, CUTS = 2_000_000, 20
MAX_SECONDS, MAX_GIGABYTES = 5.0, 2.0

CODE = f"""
import os, resource, time, warnings
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import numpy as np, pandas as pd
from pidgan.efficiency.table import cut_covariance, efficiency_table
warnings.simplefilter("ignore")
rng, n = np.random.default_rng(1), {ROWS}
frame = pd.DataFrame({{
    "P": 3e3 + rng.exponential(3e4, n), "ETA": rng.uniform(1.5, 5.0, n),
    "nTracks": rng.integers(0, 500, n), "RichDLLk": rng.normal(5, 20, n),
    "RichDLLp": rng.normal(0, 20, n),
}}).astype("float32")
w = rng.normal(0.7, 1.0, n)
options = {{
    "binning": "hadrons", "weights": w,
    "sentinels": dict.fromkeys(("RichDLLk", "RichDLLp"), (-999.0, -1000.0)),
}}
cuts = [f"RichDLLk > {{x}} & RichDLLp < {{20 - x}}" for x in range({CUTS})]
start = time.perf_counter()
table = efficiency_table(frame, cuts, **options)
covariance = cut_covariance(frame, cuts, **options)
seconds = time.perf_counter() - start
assert covariance.shape == ({CUTS}, {CUTS}, 18, 4, 4)
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


def test_tables_of_two_million_rows() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    seconds, gigabytes = (float(word) for word in done.stdout.split())
    print(f"\n{ROWS} rows, {CUTS} cuts: {seconds:.2f} s, peak {gigabytes:.2f} GB")
    assert seconds <= MAX_SECONDS
    assert gigabytes <= MAX_GIGABYTES
