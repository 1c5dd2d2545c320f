"""Coverage of quoted efficiencies: the study of the documentation, in small.

The study itself (`docs/studies/coverage.py`) has trained networks and many more
pseudo-experiments. Here the generators are the simulation with a known distortion.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "studies" / "coverage.py"
KINDS = ("none", "shift")
N_EXPERIMENTS = 15
N_REFERENCE = 25_000
N_ANALYSIS = 12_000


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    specification = importlib.util.spec_from_file_location("coverage_study", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "coverage_study", module)
        specification.loader.exec_module(module)
        patch.setattr(module, "CANDIDATES", 120_000)
        patch.setattr(module, "POPULATION", 60_000)
        patch.setattr(module, "REPEATS", 2)
        patch.setattr(module, "POPULATIONS", ("decay",))
        yield module


@pytest.fixture(scope="module")
def results(study: ModuleType) -> pd.DataFrame:
    species = "K+"
    card = study.make_card(species)
    pools = {
        "calibration": study.calibration_pool(species, card, seed=1),
        "decay": study.population_pool(species, "decay", card, seed=1),
    }
    drawn = {
        kind: study.draw_outcomes(
            species, study.Distorted(card=card, kind=kind), pools, seed=1
        )
        for kind in KINDS
    }
    world = study.World(
        card=card, edges=study.default_binning(card), pools=pools, drawn=drawn
    )
    rng = np.random.default_rng(4)
    records = []
    for number in range(N_EXPERIMENTS):
        calibration = rng.choice(len(pools["calibration"].mass), N_REFERENCE, False)
        analysis = rng.choice(len(pools["decay"].conditions), N_ANALYSIS, False)
        for kind in KINDS:
            found = study.quote(
                world,
                kind,
                number % len(study.CUTS[species]),
                "decay",
                calibration=calibration,
                analysis=analysis,
            )
            records += [{"generator": kind, "population": "decay", **r} for r in found]
    return pd.DataFrame(records)


@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_quoted_uncertainties_cover_the_truth(
    study: ModuleType, results: pd.DataFrame
) -> None:
    whole = results[results["bin"] < 0]
    found = study.coverage(whole, value="value", error="total")
    # 30 results, of which two share their samples: some 10 % either way.
    assert 0.5 < found.one < 0.9
    assert found.two > 0.85
    assert (whole["total"] / whole["ideal"]).median() < 1.5
    bins = study.coverage(results[results["bin"] >= 0], value="value", error="total")
    assert 0.55 < bins.one < 0.85


@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_without_systematics_they_do_not(
    study: ModuleType, results: pd.DataFrame
) -> None:
    bad = results[(results["bin"] < 0) & (results["generator"] != "none")]
    assert study.coverage(bad, value="generated", error="stat").one < 0.4


def test_table_and_figure(study: ModuleType, results: pd.DataFrame) -> None:
    assert "| whole sample | 30 |" in study.summarise(results)
