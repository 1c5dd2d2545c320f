"""Speed of a collection of 24 bundles on mixed rows, against one bundle on all rows.

Run with `pytest -o addopts= -s tests/benchmarks/test_collection_speed.py`.
PIDGAN_BENCHMARK_ENTRIES sets the entries (1 million), PIDGAN_BENCHMARK_BUNDLE a bundle
with the conditions P, ETA and nTracks; without it one is trained for a minute.
"""

import itertools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from pidgan.application.apply import apply
from pidgan.bundle.bundle_file import CARD_KEY, seal
from pidgan.bundle.card import Card
from pidgan.bundle.collecting import collect
from pidgan.files.formats.root import COMPRESSION

ENTRIES = int(os.environ.get("PIDGAN_BENCHMARK_ENTRIES", 1_000_000))
OTHERS = 24
"""Branches that are only copied."""

MAX_RATIO = 1.2
ROUNDS = 5

IDS = {"K+": 321, "K-": -321, "pi+": 211, "pi-": -211, "p": 2212, "p~": -2212}
POLARITIES = {"up": 1, "down": -1}
YEARS = (2017, 2018)


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest) -> Path:
    given = os.environ.get("PIDGAN_BENCHMARK_BUNDLE")
    return Path(given) if given else request.getfixturevalue("kaon_bundle")


@pytest.fixture(scope="module")
def collection(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 bundles that differ in their cards, so that each has a session of its own."""
    onnx = pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("collection")
    for name, magnet, year in itertools.product(IDS, POLARITIES, YEARS):
        model = onnx.load(bundle)
        (text,) = (p.value for p in model.metadata_props if p.key == CARD_KEY)
        card = Card.from_json(text)
        taking = {"polarity": magnet, "year": str(year), "charge": "+"}
        taking["charge"] = "-" if IDS[name] < 0 else "+"
        sample = card.sample.model_copy(update={"species": name, "data_taking": taking})
        card = card.model_copy(update={"species": name, "sample": sample})
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
        path = folder / f"{name}_{magnet}_{year}.onnx"
        path.write_bytes(seal(model.SerializeToString()))
    collect([folder], folder / "collection.toml")
    return folder / "collection.toml"


@pytest.fixture(scope="module")
def ntuple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speed") / "in.root"
    rng = np.random.default_rng(1)
    n = ENTRIES
    columns: dict[str, Any] = {
        "K_P": rng.uniform(5e3, 9e4, n),
        "K_ETA": rng.uniform(2, 4.5, n),
        "nTracks": rng.integers(20, 400, n).astype("i4"),
        "K_TRUEID": rng.choice(list(IDS.values()), n).astype("i4"),
        "Polarity": rng.choice(list(POLARITIES.values()), n).astype("i2"),
        "year": rng.choice(YEARS, n).astype("i4"),
    }
    columns |= {f"x{i}": rng.normal(size=n).astype("f4") for i in range(OTHERS)}
    with uproot.recreate(path, compression=COMPRESSION) as file:
        tree = file.mktree("T", {k: v.dtype for k, v in columns.items()})
        for first in range(0, n, 200_000):
            tree.extend({k: v[first : first + 200_000] for k, v in columns.items()})
    return path


@pytest.mark.parametrize("mode", ["friend", "append"])
def test_as_fast_as_one_bundle(
    bundle: Path, collection: Path, ntuple: Path, tmp_path: Path, mode: Any
) -> None:
    def seconds(given: Path) -> tuple[float, float]:
        clock, used = time.perf_counter(), time.process_time()
        apply({"K": given}, ntuple, tmp_path / "b.root", mode=mode, overwrite=True)
        return time.perf_counter() - clock, time.process_time() - used

    seconds(bundle)
    ratios = []
    for _ in range(ROUNDS):
        # In turn, so that both meet the same load of the machine.
        one, many = seconds(bundle), seconds(collection)
        ratios.append(many[0] / one[0])
        print(
            f"\n{mode}: one bundle {one[0]:.2f} s ({one[1]:.2f} s of CPU), 24 bundles "
            f"{many[0]:.2f} s ({many[1]:.2f} s of CPU): ratio {ratios[-1]:.3f}"
        )
    assert np.median(ratios) <= MAX_RATIO
