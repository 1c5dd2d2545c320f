"""A demo that is stopped keeps what is finished, and the same command continues."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("tensorflow")

import pidgan
from pidgan.cli import demo
from pidgan.errors import PidganError


class StopError(Exception):
    """Stands for whatever stops a demo."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A demo with few tracks, whose trainings are counted and take no time."""
    monkeypatch.setattr(demo, "CALIBRATION_TRACKS", 15_000)
    monkeypatch.setattr(demo, "ANALYSIS_ENTRIES", 1_000)
    monkeypatch.setattr(demo, "STEPS", 10)
    trained: list[str] = []
    train = pidgan.train

    def short(dataset: Any, **given: Any) -> Any:
        trained.append(dataset.sample.name)
        return train(dataset, **given)

    monkeypatch.setattr(pidgan, "train", short, raising=False)
    return trained


def _times(folder: Path) -> dict[str, int]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_a_demo_continues(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lines = tmp_path / "demo", []
    given: dict[str, Any] = {"seed": 2, "echo": lines.append, "progress": False}
    with monkeypatch.context() as stopping:

        def stop(*_: Any, **__: Any) -> None:
            raise StopError

        stopping.setattr(pidgan, "validate", stop, raising=False)
        with pytest.raises(StopError):
            demo.run_demo(folder, **given)
    assert small == ["sim_dstar_k", "sim_dstar_pi"]
    before = _times(folder)
    assert {"kaon-model/model.json", "pion-model/model.json"} <= set(before)
    assert not [name for name in before if Path(name).name.startswith(".")]

    with pytest.raises(PidganError, match="a demo that was stopped, with seed = 2"):
        demo.run_demo(folder, **given | {"seed": 3})
    found = demo.run_demo(folder, **given)
    assert isinstance(found, pd.DataFrame)
    assert small == ["sim_dstar_k", "sim_dstar_pi"]  # not trained again
    after = _times(folder)
    assert before == {name: after[name] for name in before}
    assert [line.split()[0] for line in lines if line[1:2] == "/"][-6:] == [
        f"{number}/6" for number in range(1, 7)
    ]
    assert sum("the generator is poor" in line for line in lines) == len(demo.SPECIES)
    assert lines[-4] == (folder / "report.html").as_uri()
    for uri in lines[-4:]:
        assert Path(uri.removeprefix("file://")).is_file()
    page = (folder / "report.html").read_text()
    assert 'href="kaon-report/report.html"' in page

    for name in ("kaon", "pion"):
        files = pidgan.open_bundle(folder / f"{name}.onnx").card.dataset["files"]
        for one in files:
            assert str(folder) in one["source"]
    with pytest.raises(PidganError, match="exists; choose another name"):
        demo.run_demo(folder, **given)


def test_overwrite_replaces_demos_only(small: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    with pytest.raises(PidganError, match=r"holds files but no demo\.json"):
        demo.run_demo(mine, overwrite=True)
    assert (mine / "thesis.tex").exists()


def test_interrupting_says_how_to_continue(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_train", interrupt)
    monkeypatch.setattr(demo, "ANALYSIS_ENTRIES", 100)
    done = run("demo", "-o", tmp_path / "demo", "-q")
    assert done.code == 130
    assert "the same command continues" in done.err
    assert (tmp_path / "demo" / "analysis.root").is_file()
