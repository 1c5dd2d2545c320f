"""A whole search, as a user runs it: files, page, a second call, and wrong calls."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, run  # noqa: F401

from pidgan.errors import DatasetError, PidganError
from pidgan.sample.dataset import PARTS, Dataset, content_hash

pytest.importorskip("tensorflow")
pytest.importorskip("optuna")

from pidgan.report.tuned import Tuning
from pidgan.report.tuning import tune
from pidgan.training.families import TABLE, parse_settings, spans_of
from pidgan.training.families.settings_file import read_settings_file
from pidgan.training.search.comparison import Difference

SMALL = {"width": 8, "blocks": 1, "samples": 2, "n_noise": 4}
SEARCH = {"family": "energy", "settings": SMALL, "trials": 2, "trial_steps": 4}
SEARCH |= {"seeds": 2, "progress": False}
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "training" / "tune.md"


@pytest.fixture(scope="module")
def few(kaon_dataset) -> Dataset:
    """Every eighth row, as trainings of a few steps need no more."""
    found = {
        name: value[::8] if np.size(value) else value
        for name, value in vars(kaon_dataset).items()
        if isinstance(value, np.ndarray)
    }
    part = dataclasses.replace(kaon_dataset, **found)
    rows = {name: len(part.part(name).weights) for name in PARTS}
    info = {**part.info, "rows": rows, "hash": content_hash(part)}
    return dataclasses.replace(part, info=info)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuning") / "search"


@pytest.fixture(scope="module")
def tuned(few, folder: Path) -> Tuning:
    return tune(few, folder, **SEARCH)


def test_the_result_is_never_worse_than_the_default(
    tuned: Tuning, folder: Path
) -> None:
    assert [t.number for t in tuned.complete] == [0, 1]
    assert tuned.complete[0].is_default
    assert tuned.complete[0].settings["learning_rate"] == 1e-3
    best = min(tuned.complete, key=lambda t: t.score)
    assert tuned.best == best.number
    if not tuned.is_better:
        assert tuned.chosen == tuned.plan.default
        assert "The default is as good" in tuned.verdict()
    if tuned.difference is not None:
        assert tuned.is_better == (tuned.difference.difference < tuned.difference.limit)
        assert tuned.difference.limit < 0
    front = tuned.front
    assert min(front, key=lambda t: t.score).number == best.number
    assert [t.operations for t in front] == sorted(t.operations for t in front)


def test_what_is_written_says_where_it_comes_from(
    tuned: Tuning, folder: Path, few
) -> None:
    found = read_settings_file(folder / "settings.toml", family="energy")
    assert parse_settings("energy", found.settings) == parse_settings(
        "energy", tuned.chosen
    )
    known = found.provenance
    assert known["dataset"] == few.info["hash"]
    assert (known["metric"], known["trials"], known["steps"]) == ("energy", 2, 8)
    assert known["result"] == tuned.verdict()
    numbers = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))
    assert numbers["best"] == tuned.best
    assert numbers["chosen"] == tuned.chosen
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Settings of energy on sim_dstar_k" in page
    for trial in tuned.front:
        read_settings_file(folder / "front" / f"trial-{trial.number}.toml")


def test_a_second_call_continues(tuned: Tuning, folder: Path, few) -> None:
    again = tune(few, folder, **SEARCH)
    assert again.trials == tuned.trials
    assert again.chosen == tuned.chosen
    assert again.difference == tuned.difference
    for change, message in (
        ({"seed": 2}, "seed was 1, now 2"),
        ({"family": "mmd", "settings": {}}, "family was 'energy'"),
        ({"trial_steps": 5}, "steps was 4, now 5"),
        ({"settings": {}}, "fixed was"),
    ):
        with pytest.raises(PidganError, match=message):
            tune(few, folder, **{**SEARCH, **change})


def test_a_call_that_cannot_work_is_told_before_it_works(few, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for change, message in (
        ({"family": "energi"}, "closest: 'energy'"),
        ({"metric": "likelihood"}, "'energy' has no likelihood"),
        ({"settings": {"widht": 8}}, "closest: 'width'"),
        ({"family": "shower_tree", "settings": {}}, "has variables"),
        ({"settings": {**SMALL, "learning_rate": 1e-3}}, "are given"),
    ):
        with pytest.raises(PidganError, match=message):
            tune(few, new, **{**SEARCH, **change})
    for change, message in (
        ({"trial_budget": "1m"}, "not both"),
        ({"seeds": 1}, "seeds is 1, expected at least 2"),
        ({"trials": 0}, "trials is 0"),
        ({"budget": "5m cpu"}, "expected wall-clock time"),
        ({"budget": "soon"}, "is no duration"),
    ):
        with pytest.raises(ValueError, match=message):
            tune(few, new, **{**SEARCH, **change})
    split = few.split.copy()
    split[split == PARTS.index("validation")] = PARTS.index("train")
    parts = {**vars(few), "split": split}
    with pytest.raises(DatasetError, match="the validation part has 0 rows"):
        tune(Dataset(**parts), new, **SEARCH)
    assert not new.exists() or not list(new.iterdir())


def test_the_example_of_the_page_runs(
    few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few.save("kaon")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(compile(blocks[1], str(PAGE), "exec"), {"__name__": "example"})
    assert Path("shared/settings.toml").is_file()


def test_a_better_result_says_by_how_much(tuned: Tuning) -> None:
    difference = Difference(
        default=2.0,
        best=1.9,
        difference=-0.1,
        error=0.02,
        error_rows=0.01,
        error_seeds=0.017,
        limit=-0.05,
        comparisons=1,
        rows=1000,
        seeds=2,
        by_seed={"default": (2.0, 2.0), "best": (1.9, 1.9)},
    )
    own = {"difference": difference, "is_better": True, "best": 1}
    speeds = {"default": 1e6, "best": 2e6, "ratio": 2.0, "error": 0.1}
    chosen = {**tuned.plan.default, "learning_rate": 5e-4}
    found = dataclasses.replace(tuned, **own, chosen=chosen, speeds=speeds)
    assert "Trial 1 is better" in found.verdict()
    assert "-0.100 ± 0.020" in found.verdict()
    assert "learning_rate = 0.0005, by default 0.001" in found.text()
    known = found.settings_file().provenance
    assert known["comparison"]["difference"] == -0.1
    assert known["trial"] == 1


def test_a_command_prints_the_result(
    run: Run,  # noqa: F811
    tuned: Tuning,
    folder: Path,
    few,
    tmp_path: Path,
) -> None:
    data = few.save(tmp_path / "kaon")
    words = ["--family", "energy", "--trials", "2", "--trial-steps", "4"]
    words += ["--seeds", "2", "-q"]
    for name, value in SMALL.items():
        words += ["--set", f"{name}={value}"]
    done = run("tune", data, "-o", folder, *words)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == tuned.verdict()
    done = run("tune", data, "-o", data, *words)
    assert done.code == 1
    assert "is a dataset; choose another name" in done.err


@pytest.mark.skipif(
    "PIDGAN_EDGES" not in os.environ, reason="trains each family twice: PIDGAN_EDGES=1"
)
@pytest.mark.parametrize("edge", ["low", "high"])
@pytest.mark.parametrize(
    "name", [name for name, entry in TABLE.items() if entry.targets == "variables"]
)
def test_each_edge_trains(name: str, edge: str, kaon_dataset) -> None:
    from pidgan.training.loop import train

    settings = {}
    for setting, span in spans_of(name).items():
        value = getattr(span, edge)
        settings[setting] = value
        if span.rest:
            settings[span.rest] = 1 - value
    hints = {k: type(v) for k, v in vars(parse_settings(name, {})).items()}
    settings = {k: hints[k](v) for k, v in settings.items()}
    model = train(kaon_dataset, family=name, settings=settings, steps=8, progress=False)
    part = kaon_dataset.part("test")
    noise = np.random.default_rng(1).normal(size=(200, model.card.n_noise))
    made = model.generate(part.conditions[:200], noise.astype(np.float32))
    assert np.isfinite(made).all()
