"""Several small ntuples for `apply`: written, and compared after it."""

import sys
from pathlib import Path

import numpy as np

from pidgan.files.tables import Source, read_columns, write_trees

FILES = 5
ENTRIES = 2000
TARGETS = ["K_DLLk", "K_DLLp", "K_pidgan_status"]


def write(path: Path, seed: int, entries: int = ENTRIES) -> None:
    rng = np.random.default_rng(seed)
    n = entries + 100 * seed
    data = {"K_P": rng.uniform(5e3, 9e4, n), "K_ETA": rng.uniform(2, 4.5, n)}
    data["event"] = rng.integers(0, 2**60, n)
    write_trees(path, {"T": data}, overwrite=True)


def contents(directory: Path) -> dict[str, np.ndarray]:
    """The generated columns of each output."""
    return {
        path.name: read_columns(Source(str(path), "T"), TARGETS).to_numpy()
        for path in sorted(directory.glob("*.root"))
    }


def same(one: Path, other: Path) -> None:
    first, second = contents(one), contents(other)
    assert len(first) == FILES
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def command(bundle: Path, inputs: str, output: Path, *options: str) -> list[str]:
    program = "from pidgan.cli import main; main()"
    words = ["apply", inputs, "--track", f"K={bundle}", "-o", output, "--chunk", "500"]
    return [sys.executable, "-c", program, *map(str, words), *options]
