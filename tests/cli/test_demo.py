"""The demo, with little data and hardly any training, stopped and continued."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uproot

pytest.importorskip("tensorflow")

import pidgan
from pidgan.cli import demo
from pidgan.errors import PidganError
from pidgan.files.processes import Processes
from pidgan.report.classifiers import TREES


class StopError(Exception):
    """Stands for whatever stops a demo."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A demo with few tracks, whose trainings are counted and take no time.

    It stays in this process, in which these numbers are changed.
    """
    monkeypatch.setattr(demo, "may_start_processes", lambda: False)
    monkeypatch.setattr(demo, "CALIBRATION_TRACKS", 8_000)
    monkeypatch.setattr(demo, "ANALYSIS_ENTRIES", 1_000)
    monkeypatch.setattr(demo, "STEPS", 10)
    # scikit-learn sorts all rows anew for each of the 255 bins of its trees.
    monkeypatch.setitem(TREES, "max_bins", 31)
    trained: list[str] = []
    train = pidgan.train

    def counted(dataset: Any, **given: Any) -> Any:
        trained.append(pidgan.Dataset.open(dataset).sample.name)
        return train(dataset, **given)

    monkeypatch.setattr(pidgan, "train", counted, raising=False)
    return trained


def _times(folder: Path) -> dict[str, int]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_a_demo_continues_to_its_end(
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
    assert {"kaon-dataset/mass_fit.png", "pion-dataset/mass_fit.png"} <= set(before)
    assert not [name for name in before if Path(name).name.startswith(".")]

    with pytest.raises(PidganError, match="a demo that was stopped, with seed = 2"):
        demo.run_demo(folder, **given | {"seed": 3})
    with pytest.raises(PidganError, match="with budget = None, now '60"):
        demo.run_demo(folder, **given, budget="1m cpu")
    found = demo.run_demo(folder, **given)
    assert small == ["sim_dstar_k", "sim_dstar_pi"]  # not trained again
    after = _times(folder)
    assert before == {name: after[name] for name in before}
    _check_lines(lines, folder)
    _check_comparison(found, folder)
    _check_pages(folder)
    _check_ntuple(folder)
    for name in ("kaon", "pion"):
        card = pidgan.open_bundle(folder / f"{name}.onnx").card
        assert card.steps == demo.STEPS  # on a busy machine too
        for one in card.dataset["files"]:
            assert str(folder) in one["source"]
    with pytest.raises(PidganError, match="exists; choose another name"):
        demo.run_demo(folder, **given)


def _check_lines(lines: list[str], folder: Path) -> None:
    """Stages are counted, poor generators are named, and links lead to files."""
    assert [line.split()[0] for line in lines if line[1:2] == "/"][-4:] == [
        f"{number}/4" for number in range(1, 5)
    ]
    assert any("within 1 total sigma" in line for line in lines)
    assert sum("the generator is poor" in line for line in lines) == len(demo.SPECIES)
    assert lines[-4] == (folder / "report.html").as_uri()
    for uri in lines[-4:]:
        assert Path(uri.removeprefix("file://")).is_file()


def _check_comparison(found: pd.DataFrame, folder: Path) -> None:
    """Uncertainties add up, and demo.json has what is returned."""
    assert len(found) == 6
    assert found["total"].between(0, 1, inclusive="neither").all()
    assert found["truth"].between(0, 1).all()
    np.testing.assert_allclose(found["total"], np.hypot(found["stat"], found["syst"]))
    assert json.loads((folder / "demo.json").read_text())[0]["cut"] == demo.CUTS[0]


def _check_pages(folder: Path) -> None:
    """Pages are complete, and their links lead to files."""
    for name in ("report.html", "kaon-report/report.html", "pion-report/report.html"):
        assert (folder / name).stat().st_size > 10_000
    for page in (folder / "report.html", folder / "index.html"):
        for address in re.findall(r'href="([^"#]+)"', page.read_text()):
            assert (folder / address).is_file(), address
        assert 'href="kaon-report/report.html"' in page.read_text()


def _check_ntuple(folder: Path) -> None:
    """Only what is generated differs between the ntuple before and after."""
    with (
        uproot.open(f"{folder}/analysis.root:DecayTree") as before,
        uproot.open(f"{folder}/analysis-pid.root:DecayTree") as after,
    ):
        for name, branch in before.items():
            kept = after[name]
            if "[]" in branch.typename or name.startswith("n"):
                continue
            assert kept.interpretation == branch.interpretation, name
            generated = "RichDLL" in name and "TRUE" not in name
            if not generated:
                np.testing.assert_array_equal(kept.array(), branch.array())


@pytest.mark.skipif("PIDGAN_DEMO" not in os.environ, reason="takes minutes")
@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_side_by_side_is_as_one_by_one(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "may_start_processes", lambda: True)
    made = [tmp_path / name for name in ("one", "two")]
    for workers, folder in enumerate(made, 1):
        demo.run_demo(folder, workers=workers, echo=lambda _: None, progress=False)
    assert not small  # they were trained in other processes
    one, two = ((folder / "demo.json").read_bytes() for folder in made)
    assert one == two
    for name in ("kaon", "pion"):
        with (
            np.load(made[0] / f"{name}-model/model.npz") as first,
            np.load(made[1] / f"{name}-model/model.npz") as second,
        ):
            assert first.files == second.files
            for key in first.files:
                np.testing.assert_array_equal(first[key], second[key])


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

    monkeypatch.setattr(Processes, "call", interrupt)
    monkeypatch.setattr(demo, "ANALYSIS_ENTRIES", 100)
    done = run("demo", "-o", tmp_path / "demo", "-q", "--workers", "2")
    assert done.code == 130
    assert "the same command continues" in done.err
    assert (tmp_path / "demo" / "analysis.root").is_file()
