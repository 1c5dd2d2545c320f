"""Milliseconds a shower in ONNX Runtime on one core, against the full simulation.

Run with `pytest -o addopts= -s tests/benchmarks/test_shower_speed.py`. Speed does not
depend on what was learnt: networks of the default size are trained for a few steps, on
random showers in the block of 12 x 12 crystals with 24 slices, and in its voxels.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.bundle_file import BLOCK_ROWS
from pidgan.sample.building import build_dataset
from pidgan.sample.loading import load_sample

DEFINITIONS = Path(__file__).parents[2] / "examples/showers"
SIMULATION_MS = 5.6  # GEANT 3.21, an electron of 10 GeV, one core
BATCHES = (1, 100, 10_000)
CASES = [
    ("pbwo4", "shower_sequence", {}, 100),
    ("pbwo4", "shower_flow", {}, 100),
    ("pbwo4_3d", "shower_vae", {"network": "dense"}, 10),
    ("pbwo4_3d", "shower_sequence", {"reach": 1.05, "width": 32, "axes": 2}, 3),
]


def write_showers(path: Path, name: str, n: int) -> None:
    """Write random showers with the arrays that a definition of PbWO4 names."""
    rng = np.random.default_rng(1)
    energy = np.exp(rng.uniform(0, np.log(100), n))
    truth = [energy, rng.uniform(0, 0.26, n), rng.uniform(0, 6.28, n)]
    truth += [rng.uniform(-2.2, 2.2, n) for _ in range(2)]
    voxels = rng.gamma(0.05, size=(n, 24, 12, 12)) + 1e-9
    voxels *= (energy / voxels.sum(axis=(1, 2, 3)))[:, None, None, None]
    arrays = {"cells_GeV": voxels.sum(axis=1), "profile_GeV": voxels.sum(axis=(2, 3))}
    if name == "pbwo4_3d":
        arrays = {"voxels_GeV": voxels}
    species = rng.choice([11, 22], n)
    np.savez(path, conditions=np.stack(truth, axis=1), species=species, **arrays)


@pytest.mark.parametrize(("name", "family", "settings", "least"), CASES)
def test_speed(
    name: str, family: str, settings: dict[str, Any], least: int, tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.export import export_bundle
    from pidgan.training.loop import train

    write_showers(tmp_path / "showers.npz", name, 300)
    sample = load_sample(DEFINITIONS / f"{name}.toml")
    dataset = build_dataset(sample, tmp_path / "showers.npz")
    model = train(dataset, family=family, steps=2, settings=settings)
    path = export_bundle(model, tmp_path / "shower.onnx")
    bundle = open_bundle(path, threads=1)
    rng = np.random.default_rng(2)
    found = {}
    for n in BATCHES:
        rows = np.arange(n) % len(dataset)
        conditions = np.asarray(dataset.conditions[rows])
        noise = rng.standard_normal((n, bundle.card.n_noise), dtype=np.float32)
        # `generate` pads to whole blocks, and so says nothing of small batches.
        feeds = [
            {"conditions": conditions[part], "noise": noise[part]}
            for part in (slice(i, i + BLOCK_ROWS) for i in range(0, n, BLOCK_ROWS))
        ]
        seconds = []
        for _ in range(3):
            began = time.process_time()
            for feed in feeds:
                bundle._session.start().run(["targets"], feed)
            seconds.append(time.process_time() - began)
        found[n] = 1e3 * min(seconds) / n
    listed = ", ".join(f"{n}: {ms:.4f}" for n, ms in found.items())
    size = path.stat().st_size / 2**20
    parameters = sum(int(np.prod(v.shape)) for v in model.generator.variables)
    print(
        f"\n{name}, {family}: ms a shower at batch {listed}; {size:.1f} MiB, "
        f"{parameters} weights"
    )
    assert found[10_000] * least < SIMULATION_MS
