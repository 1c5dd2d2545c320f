"""Files of settings: what is written is read, and what is wrong is said in one line."""

import tomllib
from pathlib import Path

import pytest
from command_line import Run, run  # noqa: F401

from pidgan.errors import PidganError
from pidgan.training.families import TABLE, check_settings, describe_family
from pidgan.training.families.settings_file import SettingsFile, read_settings_file


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", TABLE)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    defaults = {s.name: s.default for s in describe_family(name).settings}
    written = SettingsFile(
        family=name,
        settings=defaults,
        provenance={
            "result": 'a "quoted" \\ text\twith µ \x7f',
            "steps": 300,
            "difference": {"value": -0.01, "error": 1e-6, "seeds": [1, 2]},
        },
    )
    path = tmp_path / "settings.toml"
    written.save(path)
    found = read_settings_file(path, family=name)
    chosen = {k: v for k, v in defaults.items() if v is not None}
    assert dict(found.settings) == chosen
    assert check_settings(name, defaults) == {**defaults, **chosen}
    assert found.provenance == written.provenance
    assert tomllib.loads(path.read_text(encoding="utf-8"))["format"] == 1
    with pytest.raises(PidganError, match="exists"):
        written.save(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('family = "flo"', "no family 'flo'.*closest: 'flow'"),
        ('family = "flow"\nwidth = 3', "width is a setting: write it below"),
        ('famly = "flow"', "closest: 'family'"),
        ('family = "flow"\n[settings]\nwidht = 3', "closest: 'width'"),
        ('family = "flow"\n[settings]\nplay = 0.1', "family 'cramer' has it"),
        ('family = "flow"\n[settings]\nwidth = "a"', "'a', expected int"),
        ('family = "flow"\n[settings]\nwidth = 3.5', "3.5, expected int"),
        ('family = "flow"\n[settings]\nwidth = 0', "0, expected at least 1"),
        ('family = "flow"\n[settings]\nwidth = true', "True, expected int"),
        ('family = "flow"\n[settings]\nlearning_rate = 0.0', "a number above 0"),
        ('family = "flow"\n[settings]\nlearning_rate = nan', "a finite number"),
        ('family = "flow"\n[settings]\nweight_decay = -1', "at least 0"),
        ('family = "energy"\n[settings]\naverage = 1.0', "less than 1"),
        ('family = "flow"\nsettings = 3', "expected a table"),
        ("[settings]\nwidth = 3", "family is missing"),
        ('family = "flow"\nformat = 2', "format 2, expected 1"),
        ("family = ", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PidganError, match=message) as caught:
        read_settings_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_families_are_a_conflict(tmp_path: Path) -> None:
    path = write(tmp_path, 'family = "flow"')
    with pytest.raises(PidganError, match=r"of family 'flow'.*'energy'"):
        read_settings_file(path, family="energy")
    with pytest.raises(PidganError, match="cannot be read: no such file"):
        read_settings_file(tmp_path / "none.toml")


def test_a_training_takes_a_file(kaon_dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training import families
    from pidgan.training.loop import train
    from pidgan.training.members import train_members

    path = write(tmp_path, 'family = "flow"\n[settings]\nwidth = 8\nbatch_size = 64')
    given = {"steps": 2, "seed": 3, "progress": False}
    model = train(kaon_dataset, settings=path, **given)
    assert model.card.family == "flow"
    assert (model.card.settings["width"], model.card.settings["bins"]) == (8, 16)
    same = train(kaon_dataset, family="flow", settings=str(path), **given)
    assert same.card == model.card
    for family in ("energy", families.Flow(width=8)):
        with pytest.raises((PidganError, ValueError), match="famil"):
            train(kaon_dataset, family=family, settings=path, **given)
    folder = tmp_path / "members"
    (first,) = train_members(kaon_dataset, folder, members=1, settings=path, **given)
    assert first.card == model.card
    both = train_members(
        kaon_dataset, folder, members=2, settings=path, resume=True, **given
    )
    assert [one.card.settings["width"] for one in both] == [8, 8]


def test_a_command_takes_a_file_and_changes_of_it(
    run: Run,  # noqa: F811
    kaon_dataset,
    tmp_path: Path,
) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.model import open_model

    folder = kaon_dataset.save(tmp_path / "kaon")
    path = write(tmp_path, 'family = "flow"\n[settings]\nwidth = 8\nbatch_size = 64')
    words = ("train", str(folder), "--settings", str(path), "--steps", "1")
    model = tmp_path / "model"
    done = run(*words, "--set", "width=10", "-o", str(model))
    assert done.code == 0, done.err
    settings = open_model(model).card.settings
    assert (settings["width"], settings["batch_size"]) == (10, 64)
    done = run(*words, "--family", "energy", "-o", str(tmp_path / "other"))
    assert done.code == 1
    assert "of family 'flow', but the family asked for is 'energy'" in done.err
