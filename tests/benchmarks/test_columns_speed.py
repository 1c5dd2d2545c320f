"""Speed of eigenvariation columns: 2M rows, two tracks, at least twelve columns.

Run with `pytest -o addopts= -s tests/benchmarks/test_columns_speed.py`. The process is
a fresh one on two cores. The maps have 720 bins, as those of hadrons.
"""

import subprocess
import sys
from pathlib import Path

ROWS, COLUMNS, MAX_SECONDS = 2_000_000, 12, 30.0

CODE = """
import os, sys, tempfile, time, warnings
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
sys.path.insert(0, sys.argv[1])
import numpy as np, uproot
from dataclasses import replace
from toy_generator import ToyGenerator, make_card
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.systematics import run_systematics
from pidgan.files.tables import write_trees
import pandas as pd
warnings.simplefilter("ignore")
rng, n, m = np.random.default_rng(1), int(sys.argv[2]), 60_000
edges = {"P": np.geomspace(3e3, 1e5, 25).tolist(),
          "ETA": np.linspace(1.5, 5.0, 31).tolist()}
maps = {}
for track, species in (("K", "K+"), ("pi", "pi+")):
    generator = ToyGenerator(card=make_card(species=species))
    x = pd.DataFrame({"P": rng.uniform(3e3, 1e5, m), "ETA": rng.uniform(1.5, 5, m)})
    z = rng.standard_normal((m, generator.card.n_noise)).astype("float32")
    y = generator.generate(x[list(generator.card.condition_names)].to_numpy("f4"), z)
    x = x.assign(**dict(zip(generator.card.target_names, y.T)), weight=1.0)
    maps[track] = run_systematics(generator, x, cuts="DLLk > 0", binning=edges,
                                  progress=False, repeats=2)
columns = {}
for track in maps:
    columns[f"{track}_P"] = rng.uniform(3e3, 1e5, n).astype("f4")
    columns[f"{track}_ETA"] = rng.uniform(1.5, 5, n).astype("f4")
folder = tempfile.mkdtemp()
write_trees(f"{folder}/in.root", {"T": columns})
start = time.perf_counter()
found = write_efficiency_columns(maps, f"{folder}/in.root", f"{folder}/out.root",
    cuts="K_DLLk > 0 & pi_DLLk > 0", eigenvariations=True, trust=True)
seconds = time.perf_counter() - start
with uproot.open(f"{folder}/out.root") as file:
    names = [k for k in file["T"].keys() if "calibration" in k]
    assert file["T"].num_entries == n
print(seconds, len(names))
"""


def test_eigenvariations_of_two_tracks() -> None:
    tests = str(Path(__file__).resolve().parents[1])
    run = subprocess.run(
        [sys.executable, "-c", CODE, tests, str(ROWS)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, columns = map(float, run.stdout.split())
    print(f"{ROWS} rows, {columns:.0f} columns: {seconds:.1f} s")
    assert columns >= COLUMNS
    assert seconds * COLUMNS / columns < MAX_SECONDS
