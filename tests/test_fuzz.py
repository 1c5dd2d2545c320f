"""A short run of `fuzz.py`; PIDGAN_MUTANTS and PIDGAN_FUZZ_SEED make it longer.

PIDGAN_MUTANTS is the number of mutants of each kind.
"""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from fuzz import run
from toy_map import make_map

from pidgan.application.quantile_map import QuantileMap
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.simulation import (
    ANALYSIS_TREE,
    simulate_analysis,
    simulate_calibration,
)

MUTANTS = int(os.environ.get("PIDGAN_MUTANTS", "40"))
SEED = int(os.environ.get("PIDGAN_FUZZ_SEED", "1"))
BUNDLES = ("bytes", "resealed", "graph", "card", "root")
DEFINITIONS = ("definition", "geometry")
GOLDEN = Path(__file__).parent / "golden"


def check(folder: Path, kinds: tuple[str, ...]) -> set[str]:
    """Run mutants of each kind, expect clean errors, and return what else there is."""
    found = list(run(folder, kinds, mutants=MUTANTS * len(kinds), seed=SEED))
    assert len(found) == MUTANTS * len(kinds)
    failed = [f"mutant {n} ({kind}): {r}" for n, kind, r in found if "FAILED" in r]
    assert not failed, f"seed {SEED}: {failed}"
    # The mutants reach beyond the first check: some of each kind are refused.
    refused = {kind for _, kind, result in found if result.startswith("refused")}
    assert refused == set(kinds)
    return {result for *_, result in found}


def test_bundles_and_ntuples(kaon_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    write_trees(tmp_path / "base.root", {ANALYSIS_TREE: simulate_analysis(300, seed=3)})
    shutil.copy(kaon_bundle, tmp_path / "base.onnx")
    assert "applied" in check(tmp_path, BUNDLES)


def test_definitions_and_geometries(tmp_path: Path) -> None:
    assert {"built", "a geometry"} <= check(tmp_path, DEFINITIONS)


def test_maps_and_datasets(tmp_path: Path) -> None:
    for i, name in enumerate(("one", "other")):
        make_map(seed=i).save(tmp_path / "map" / name / "map.json")
        occupancy = QuantileMap(simulation=(0.0, 1.0, 2.0), data=(0.0, 2.0 + i, 4.0))
        occupancy.save(tmp_path / "quantiles" / name / "q.json")
        rows = simulate_calibration("dstar_k", 2000, seed=5 + i)
        write_trees(tmp_path / f"{name}.root", rows)
        dataset = build_dataset("sim_dstar_k", tmp_path / f"{name}.root", seed=1)
        dataset.save(tmp_path / "dataset" / name)
    shutil.copytree(GOLDEN / "kaon", tmp_path / "dataset" / "old")
    for kind, old, new in (("map", "kmap", "map"), ("quantiles", "occupancy", "q")):
        for path in GOLDEN.glob(f"{old}.*"):
            (tmp_path / kind / "old").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / kind / "old" / f"{new}{path.suffix}")
    assert "same" in check(tmp_path, ("map", "dataset", "quantiles"))


def test_models_and_checkpoints(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.course import Training
    from pidgan.training.families import Distilled
    from pidgan.training.loop import CHECKPOINT
    from pidgan.training.model import open_model
    from pidgan.training.setup import set_up

    old = open_model(GOLDEN / "kaon-model")
    old.save(tmp_path / "model" / "one")
    scaled = dataclasses.replace(old.conditions, scale=2 * old.conditions.scale)
    card = old.card.model_copy(update={"species": "pi+"})
    other = dataclasses.replace(old, card=card, conditions=scaled)
    other.save(tmp_path / "model" / "other")
    shutil.copytree(GOLDEN / "kaon-model", tmp_path / "model" / "old")
    dataset = Dataset.open(GOLDEN / "kaon")
    sizes = {"width": 8, "layers": 1, "teacher_width": 8, "teacher_blocks": 1}
    for i, name in enumerate(("one", "other")):
        setup = set_up(dataset, Distilled(**sizes, xla=False), seed=1 + i)
        Training(setup).save(tmp_path / "checkpoint" / name / CHECKPOINT)
    check(tmp_path, ("model", "checkpoint"))
