"""Twenty runs of `apply`, each killed at a random moment, and one that ends.

Run with `pytest -o addopts= tests/benchmarks/test_apply_kill.py`; it takes minutes.
"""

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from many_files import FILES, command, same, write
from toy_generator import make_card, toy_onnx, with_self_test

MOMENTS = 20


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_kills_at_random_moments(tmp_path: Path, options: tuple[str, ...]) -> None:
    bundle = tmp_path / "kaon.onnx"
    bundle.write_bytes(toy_onnx(with_self_test(make_card())))
    for i in range(FILES):
        write(tmp_path / f"in/part{8 + i}.root", i, entries=20_000)
    inputs, whole = f"{tmp_path}/in/*.root:T", tmp_path / "whole"
    started = time.monotonic()
    subprocess.run(command(bundle, inputs, whole, *options), check=True)
    duration = time.monotonic() - started
    rng = np.random.default_rng(1)
    killed = 0
    for moment in rng.uniform(0, 1.1 * duration, MOMENTS):
        out = tmp_path / "out"
        words = command(bundle, inputs, out, *options)
        process = subprocess.Popen(words)
        time.sleep(moment)
        killed += process.poll() is None
        process.kill()
        process.wait()
        subprocess.run(words, check=True)
        same(whole, out)
        assert not list(out.glob(".*")), "what killed processes left"
        shutil.rmtree(out)
    assert killed > MOMENTS // 2
