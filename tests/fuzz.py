"""Damaged and hostile files must end in clean errors: no crash, hang or silent success.

    python tests/fuzz.py FOLDER -n 5000 --kinds definition geometry --seed 1

Each mutant is a function of its number and the seed. Mutants are judged in a worker
process with limits on memory and time; what ends the worker is a failure of the mutant
it was at. FOLDER holds what is damaged, such as base.onnx; it stays as it is.

A module of `KINDS` has a function `judges` of a folder with a copy of these files. It
returns, for each kind, a function of random numbers that makes a mutant and returns
what came of it: "refused: ..." for a `PidganError`, "FAILED: ..." for what must not be.
"""

import argparse
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

Judge = Callable[[random.Random], str]

# Kinds of mutants, and the module that judges them.
KINDS = {
    **dict.fromkeys(("bytes", "resealed", "graph", "card", "root"), "fuzz_bundles"),
    **dict.fromkeys(("definition", "geometry"), "fuzz_definitions"),
    **dict.fromkeys(
        ("map", "dataset", "model", "checkpoint", "quantiles"), "fuzz_sets"
    ),
}
MEMORY = 6 * 2**30
SECONDS = 30


def reason(error: Exception, path: Path) -> str:
    """The kind of an error message: without path, names and numbers."""
    text = str(error)
    if "\n" in text.strip():
        return f"FAILED: a message of several lines: {text!r}"[:300]
    text = text.replace(str(path), "")
    text = re.sub(r"b?'[^']*'|\"[^\"]*\"|[\d.]+", "_", text)
    return " ".join(text.split())[:60]


def work(folder: Path, kinds: Sequence[str], seed: int, numbers: range) -> None:
    """Judge mutants; print a line before and after each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    judges: dict[str, Judge] = {}
    for module in dict.fromkeys(KINDS[kind] for kind in kinds):
        judges |= importlib.import_module(module).judges(folder)
    for number in numbers:
        rng = random.Random(f"{seed} {number}")
        kind = kinds[number % len(kinds)]
        print(json.dumps([number, kind, None]), flush=True)
        signal.alarm(SECONDS)
        try:
            found = judges[kind](rng)
        # Whatever is not a clean error is what this script looks for.
        except Exception as error:
            found = f"FAILED: {type(error).__name__}: {error}"[:300]
        signal.alarm(0)
        found = found[found.find("FAILED") :] if "FAILED" in found else found
        print(json.dumps([number, kind, found]), flush=True)


def run(
    base: Path, kinds: Sequence[str], *, mutants: int, seed: int, first: int = 0
) -> Iterator[tuple[int, str, str]]:
    """Yield number, kind and result of each mutant, from number `first` on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "work"
        shutil.copytree(base, folder)
        done, end = first, first + mutants
        while done < end:
            words = ["--work", str(folder), ",".join(kinds), str(seed), f"{done}:{end}"]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            with subprocess.Popen(
                [sys.executable, __file__, *words],
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            ) as worker:
                assert worker.stdout is not None
                at = None
                for line in worker.stdout:
                    number, kind, found = json.loads(line)
                    at = (number, kind) if found is None else None
                    if found is not None:
                        yield number, kind, found
                        done = number + 1
            if worker.returncode > 0 or (worker.returncode and at is None):
                raise RuntimeError(f"the worker failed at mutant {done}")
            if at is not None:
                why = signal.strsignal(-worker.returncode) or "unknown"
                yield (*at, f"FAILED: the process ended: {why}")
                done = at[0] + 1


def main() -> None:
    """Run as a script."""
    if sys.argv[1:2] == ["--work"]:
        folder, kinds, seed, span = sys.argv[2:]
        work(
            Path(folder), kinds.split(","), int(seed), range(*map(int, span.split(":")))
        )
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("-n", "--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    start, counts, failures = time.monotonic(), Counter[tuple[str, str]](), 0
    for number, kind, found in run(
        given.folder,
        given.kinds,
        mutants=given.mutants,
        seed=given.seed,
        first=given.first,
    ):
        counts[kind, found] += 1
        if found.startswith("FAILED"):
            failures += 1
            print(f"seed {given.seed} mutant {number} ({kind}): {found}", flush=True)
    for (kind, found), count in sorted(counts.items()):
        print(f"{count:6} {kind:9} {found}")
    print(
        f"seed {given.seed}: {counts.total()} mutants from {given.first} on, "
        f"{failures} failures, "
        f"{time.monotonic() - start:.0f} s"
    )
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
