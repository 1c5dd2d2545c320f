"""What sharing the steps of a training costs: one process against two.

Run `PIDGAN_THREADS=1 python tests/benchmarks/shared_speed.py DATASET -o scaling.json`
on a machine that does nothing else, where each process has a core. It has the same rows
a step in both cases (weak scaling). Milliseconds on the wall and of the processor are
printed, medians of some runs.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pidgan.files.processes import Processes
from pidgan.training.joining import Place, join
from pidgan.training.several import _free_addresses

FAMILIES = {
    "distilled": {"teach_batch_size": 1024, "distil_batch_size": 1024},
    "flow": {"batch_size": 1024},
    "shower_sequence": {"batch_size": 32},
    "shower_tree": {"batch_size": 32},
    "shower_vae": {"batch_size": 32},
}
STEPS, SUMS = 10, 50


def measure(place: Place | None, folder: str, family: str) -> dict[str, Any]:
    """Return milliseconds for a step and for a sum, and the bytes of this sum.

    Both are pairs: on the wall, and of the processor.
    """
    if place is not None:
        join(place)
    import numpy as np

    from pidgan.sample.dataset import Dataset
    from pidgan.training.backend import keras, tf
    from pidgan.training.course import Training
    from pidgan.training.families import parse_settings
    from pidgan.training.setup import set_up
    from pidgan.training.together import together

    these = together()
    own = {name: n * these.size for name, n in FAMILIES[family].items()}
    if family == "shower_tree":
        own["splits"] = 8192 * these.size
    keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    settings = parse_settings(family, own | {"xla": False})
    training = Training(set_up(Dataset.open(folder), settings, seed=1), these)
    step, nbytes = np.zeros(2), 0.0
    for phase in training.descents.phases:
        run = training._steps_of(phase)
        run(0, 2, 0, 10**6, 0, 10**6)
        start = _now()
        run(0, STEPS, 0, 10**6, 0, 10**6)
        step += phase.share * (_now() - start) / STEPS
        sizes = [np.prod(v.shape) for d in phase.descents for v in d.variables]
        nbytes += phase.share * 4 * float(sum(sizes))
    sums = np.zeros(2)
    if these.size > 1:
        own_part = tf.zeros(int(nbytes / 4))
        total = tf.function(lambda v: these.total([v]), autograph=False)
        total(own_part)
        start = _now()
        for _ in range(SUMS):
            total(own_part)
        sums = (_now() - start) / SUMS
    milli = {"step": (1e3 * step).tolist(), "sum": (1e3 * sums).tolist()}
    return {**milli, "bytes": nbytes}


def _now() -> Any:
    import numpy as np

    return np.array([time.perf_counter(), time.process_time()])


def _text(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the medians of all processes as a line."""

    def middle(kind: str, what: str) -> str:
        wall, cpu = (median(one[what][k] for one in found[kind]) for k in (0, 1))
        return f"{wall:.1f} ms ({cpu:.1f} of the processor)"

    return (
        f"alone {middle('alone', 'step')}, two {middle('shared', 'step')}, "
        f"a sum of {found['shared'][0]['bytes'] / 1e3:.0f} kB {middle('shared', 'sum')}"
    )


def main() -> None:
    """Measure all families that a dataset suits, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for family in given.families:
        found[family] = {"alone": [], "shared": []}
        for _ in range(given.pairs):
            with Processes(["alone"], named=False) as one:
                call = partial(measure, None, given.dataset, family)
                found[family]["alone"] += one.call({"alone": call}).values()
            addresses, names = _free_addresses(2), ["0", "1"]
            with Processes(names, named=False) as two:
                calls = {
                    name: partial(
                        measure, Place(addresses, int(name)), given.dataset, family
                    )
                    for name in names
                }
                found[family]["shared"] += two.call(calls).values()
            given.output.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{family}: {_text(found[family])}", flush=True)


if __name__ == "__main__":
    main()
