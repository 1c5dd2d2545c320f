"""A short run of `fuzz.py`; PIDGAN_MUTANTS and PIDGAN_FUZZ_SEED make it longer.

PIDGAN_MUTANTS is the number of mutants of each kind.
"""

import os
import shutil
from pathlib import Path

import pytest
from fuzz import run

from pidgan.files.tables import write_trees
from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

MUTANTS = int(os.environ.get("PIDGAN_MUTANTS", "40"))
SEED = int(os.environ.get("PIDGAN_FUZZ_SEED", "1"))
BUNDLES = ("bytes", "resealed", "graph", "card", "root")
DEFINITIONS = ("definition", "geometry")


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
