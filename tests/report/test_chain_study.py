"""The study of a chain, `docs/studies/chain.py`, in small."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.bundle.card import Card, CardVariable

SCRIPT = Path(__file__).parents[2] / "docs" / "studies" / "chain.py"
SMALL = {
    "CHUNK": 3000,
    "C2ST_ROWS": 500,
    "COMPARED_ROWS": 300,
    "POOL": 40_000,
    "POPULATION": 4000,
    "REFERENCE_ROWS": (20_000,),
    "ANALYSIS_ROWS": (500,),
    "REPEATS": 2,
}

pytestmark = pytest.mark.skipif(
    not SCRIPT.is_file(), reason="the documentation is not part of a wheel"
)


class Truth:
    """The simulation as a generator: what a perfect one would be."""

    def __init__(self, study: ModuleType) -> None:
        sample = study.load_sample("sim_chain_mu")
        conditions, targets = (
            tuple(
                CardVariable(
                    name=v.name,
                    range=v.range,
                    unit=v.package_unit,
                    categories=v.categories,
                    sentinels=v.sentinels,
                )
                for v in variables
            )
            for variables in (sample.conditions, sample.targets)
        )
        self.respond = study.respond
        self.card = Card(
            detector=sample.detector,
            species=sample.species,
            conditions=conditions,
            targets=targets,
            n_noise=2,
            sample=sample,
            family="simulation",
            seed=0,
            steps=0,
        )

    def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
        # The noise says which draw.
        seed = int(np.frombuffer(noise.tobytes(), np.uint32).sum(dtype=np.uint64))
        y = self.respond("mu", conditions, self.card.sample, seed=seed % 2**31)
        return y.astype(np.float32)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    specification = importlib.util.spec_from_file_location("chain_study", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "chain_study", module)
    specification.loader.exec_module(module)
    for name, value in SMALL.items():
        monkeypatch.setattr(module, name, value)
    return module


def rows_of(text: str) -> dict[str, list[str]]:
    """Return the cells of the rows of all tables by their first cell."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


@pytest.mark.skipif("PIDGAN_STUDIES" not in os.environ, reason="takes minutes")
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_study_runs(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = ["--candidates", 6000, "--steps", 60, "--rows", 700, "--experiments", 3]
    words = ["chain.py", "-o", tmp_path / "out", *given]
    monkeypatch.setattr("sys.argv", [*map(str, words)])
    study.main()
    found = rows_of((tmp_path / "out" / "chain.md").read_text())
    for link in ("rich", "calorimeter", "muon", "dll", "probnn"):
        real, generated, floor = (
            max(map(float, cell.split("±")[0].split(","))) for cell in found[link]
        )
        assert 0.4 < floor < 0.6, link
        # A training of a few steps is found out.
        assert max(real, generated) > floor, link
    # keras, ONNX and C do the same.
    for name in ("keras, ONNX", "C, ONNX"):
        largest, other = map(float, found[name])
        assert largest <= 1e-2
        assert other < 1e-2
    assert len(found["`isMuon & DLLmu > 0`"]) == 5


def test_a_perfect_generator_is_within_its_error(study: ModuleType) -> None:
    truth, cuts = Truth(study), study.CUTS["mu"]
    pool = study.calibration_pool(truth, "mu", cuts, seed=1)
    assert pool.real.shape == pool.generated.shape == (len(cuts), len(pool.mass))
    assert pool.generated.max() == study.REPEATS
    analyses = study.populations(truth, "mu", cuts, seed=2)
    assert list(analyses) == ["dimuons", "hard", "soft"]
    n_bins = study.count_bins(study.default_binning(truth.card))
    bins = np.full((len(cuts), n_bins), 0.8)
    given = (truth.card, cuts, pool, analyses)
    found = np.array(
        [study.quote(*given, bins=bins, rng=np.random.default_rng(k)) for k in range(4)]
    )
    value, total, _, stat, true = np.moveaxis(found, -1, 0)
    assert np.all((stat > 0) & (stat < total) & (total < 0.1))
    assert np.all(np.abs(value - true) < 4 * total)


def test_rows_outside_of_a_range_are_left_out(study: ModuleType) -> None:
    sample = study.load_sample("sim_chain_mu")
    y = study.respond("mu", np.array([[2e4, 3.0, 100.0, 1.0]] * 5), sample, seed=1)
    assert study.within_ranges(sample, y).all()
    y[1, 0], y[2, sample.target_names.index("MuonDLL")] = 300.0, -1000.0
    assert study.within_ranges(sample, y).tolist() == [True, False, True, True, True]


def test_probnn_alone_has_the_conditions_only(study: ModuleType) -> None:
    alone = study.probnn_alone(study.load_sample("sim_chain_mu"))
    assert alone.condition_names == ("P", "ETA", "nTracks", "trackcharge")
    assert all(name.startswith("ProbNN") for name in alone.target_names)
    assert not alone.links
