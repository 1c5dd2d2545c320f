"""Background in weights and generators, `docs/studies/game.py`, in small."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "studies" / "game.py"


@pytest.fixture
def study() -> ModuleType:
    specification = importlib.util.spec_from_file_location("game_study", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_weights_are_judged(
    study: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = "--samples 2 --candidates 8000 --background 0.5 --fresh 20000"
    given = ["weights", *arguments.split(), "-o", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["game.py", *given])
    study.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[1] for row in cells] == ["sWeights", "regressed", "balanced"]
    # Statistics of 2,000 rows, and not the several percent of background.
    assert all(0 < float(row[3]) < 3 for row in cells)
    assert len(list(tmp_path.glob("50-8000-*"))) == 2


def test_half_of_the_candidates_is_background(
    study: ModuleType, tmp_path: Path
) -> None:
    dataset = study._sample(0.5, 8_000, 1, tmp_path / "sample")
    assert len(dataset) == pytest.approx(8_000, rel=0.03)
    found, error = dataset.info["fit"]["yields"]["signal"]
    assert abs(found - 4_000) < 4 * error
    assert found != pytest.approx(8_000 * 0.75, rel=0.1)  # that of the simulation
