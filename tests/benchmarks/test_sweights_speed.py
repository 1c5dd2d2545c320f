"""Speed and memory of sWeights from another file: 5M rows, sorted by five branches.

Run with `pytest -o addopts= -s tests/benchmarks/test_sweights_speed.py`. The match, and
the whole of `build_dataset`, run in fresh processes on two cores, so that the peak
memory is theirs. PIDGAN_ROWS sets another number of rows.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import uproot

ROWS = int(os.environ.get("PIDGAN_ROWS", "5000000"))
BASKET = 200_000
MIN_RATE, MAX_GIGABYTES = 200_000, 1.5
ORDER = ["RUNNUMBER", "FillNumber", "Jpsi_M", "muprobe_PT", "muprobe_P"]
CODE = """
import json, os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import numpy as np
from pidgan.sample.building import build_dataset
from pidgan.sample.definition import Sample
from pidgan.sample.matching import find_weighted
path, mode, match = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
sample = Sample.model_validate({
    "schema": 1, "name": "mu", "title": "Muons", "detector": "toy", "species": "mu+",
    "source": "this test", "sweights": {"file": "{stem}_sweights.root", **match},
    "conditions": [
        {"name": "P", "branch": "muprobe_P", "range": [0, 1e9]},
        {"name": "PT", "branch": "muprobe_PT", "range": [0, 1e9]},
        {"name": "nTracks", "range": [0, 1000]},
    ],
    "targets": [{"name": f"DLL{k}", "range": [-500, 500]} for k in range(4)],
})
def peak():  # of this process only, unlike that of getrusage
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) * 1024 / 1e9
before, start, cpu = peak(), time.perf_counter(), time.process_time()
if mode == "match":
    sources, matcher = find_weighted(sample, path)
    weights = matcher.match(sources[0]).weights
else:
    weights = build_dataset(sample, path).weights
seconds = time.perf_counter() - start
cpu = time.process_time() - cpu
print(seconds, cpu, peak(), before, len(weights), np.nansum(weights))
"""


def columns(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    run = rng.integers(300_000, 300_200, n).astype(np.uint32)
    pt = rng.exponential(2000, n).astype(np.float32)
    return {
        "RUNNUMBER": run,
        "FillNumber": (run // 20).astype(np.int32),
        "EVENTNUMBER": rng.integers(0, 2**62, n).astype(np.uint64),
        "Jpsi_M": rng.normal(3096, 30, n).astype(np.float32),
        "muprobe_PT": pt,
        "muprobe_P": (pt * rng.uniform(3, 50, n) + 1e3).astype(np.float32),
        "nTracks": rng.integers(1, 500, n).astype(np.float32),
        **{f"DLL{k}": rng.normal(0, 20, n).astype(np.float32) for k in range(4)},
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A tuple and its weights in another order, and the sum of the weights."""
    folder = tmp_path_factory.mktemp("sweights")
    rng = np.random.default_rng(1)
    options = {"compression": uproot.LZ4(1)}
    parts = []
    with uproot.recreate(folder / "tuple.root", **options) as file:
        for first in range(0, ROWS, BASKET):
            part = columns(min(BASKET, ROWS - first), rng)
            if not parts:
                file.mktree("DecayTree", {name: a.dtype for name, a in part.items()})
            file["DecayTree"].extend(part)
            parts.append({name: part[name] for name in (*ORDER, "EVENTNUMBER")})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort([whole[name] for name in ORDER[::-1]])
    weights = rng.normal(0.7, 0.6, ROWS)
    weights[rng.random(ROWS) < 0.1] = np.nan
    moved = rng.permutation(ROWS)
    rows = order[moved]
    with uproot.recreate(folder / "tuple_sweights.root", **options) as file:
        other = {
            "order_index": moved,
            "sweight": weights[rows],
            "RUNNUMBER": whole["RUNNUMBER"][rows],
            "EVENTNUMBER": whole["EVENTNUMBER"][rows],
        }
        file.mktree("DecayTree", {name: array.dtype for name, array in other.items()})
        file["DecayTree"].extend(other)
    return folder / "tuple.root", float(np.nansum(weights))


@pytest.mark.parametrize(
    ("mode", "match"),
    [
        ("match", {"order": ORDER}),
        ("match", {"match": ["RUNNUMBER", "EVENTNUMBER"]}),
        ("whole", {"order": ORDER}),
    ],
    ids=["ranks", "keys", "build_dataset"],
)
def test_five_million_rows(
    files: tuple[Path, float], mode: str, match: dict[str, list[str]]
) -> None:
    path, total = files
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path), mode, json.dumps(match)],
        capture_output=True,
        text=True,
        check=True,
    )
    words = map(float, done.stdout.split())
    seconds, cpu, peak, before, n, found = words
    print(
        f"\n{mode} {match}: {ROWS} rows in {seconds:.1f} s ({cpu:.1f} s of CPU), "
        f"{ROWS / seconds:.0f} rows/s, peak {peak:.2f} GB, {before:.2f} GB before"
    )
    assert found == pytest.approx(total, rel=1e-9)
    assert n <= ROWS
    assert ROWS / seconds >= MIN_RATE
    assert peak <= MAX_GIGABYTES
