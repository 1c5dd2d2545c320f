"""A short run of `fuzz.py`; PIDGAN_FUZZ_MUTANTS and PIDGAN_FUZZ_SEED make it longer."""

import os
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from fuzz import KINDS, run

from pidgan.files.tables import write_trees
from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

MUTANTS = int(os.environ.get("PIDGAN_FUZZ_MUTANTS", "200"))
SEED = int(os.environ.get("PIDGAN_FUZZ_SEED", "1"))


def test_mutants_end_in_clean_errors(kaon_bundle: Path, tmp_path: Path) -> None:
    ntuple = tmp_path / "analysis.root"
    write_trees(ntuple, {ANALYSIS_TREE: simulate_analysis(300, seed=3)})
    found = list(run(kaon_bundle, ntuple, "Kplus", mutants=MUTANTS, seed=SEED))
    assert [number for number, *_ in found] == list(range(MUTANTS))
    failed = [f"mutant {n} ({kind}): {r}" for n, kind, r in found if "FAILED" in r]
    assert not failed, f"seed {SEED}: {failed}"
    # The mutants reach beyond the first check: some of each kind are refused, and
    # some ntuples still apply.
    refused = {kind for _, kind, result in found if result.startswith("refused")}
    assert refused == set(KINDS)
    assert any(result == "applied" for *_, result in found)
