"""Chains of definitions: what `after` joins, and every way to get it wrong."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pidgan.errors import PidganWarning, SampleError
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.loading import load_sample

RICH = """
schema = 1
title = "Kaons in the RICH"
detector = "toy"
species = "K+"
source = "my thesis"
unweighted = true
conditions = [
  {name = "P", range = [3e3, 100e3], transform = "log"},
  {name = "ETA", range = [1, 6]},
]
targets = [
  {name = "DLLK", range = [-150, 150], sentinels = [-999]},
  {name = "DLLp", range = [-150, 150], sentinels = [-999]},
]
cuts = ["DLLK > 0"]
data_taking = {year = "2018"}
"""
MUON = """
title = "Kaons in the muon stations"
after = "rich.toml"
targets = [{name = "isMuon", categories = [0, 1]}]
cuts = ["isMuon == 1 & DLLK > 0"]
data_taking = {tuning = "MC15TuneV1"}
"""
PROBNN = """
title = "Networks"
after = "muon.toml"
targets = [{name = "ProbNNk", range = [0, 1], sentinels = [-2]}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("rich", RICH), ("muon", MUON), ("probnn", PROBNN)):
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def test_a_chain_has_the_targets_of_all_links(folder: Path) -> None:
    sample = load_sample(folder / "probnn.toml")
    assert (sample.name, sample.title) == ("probnn", "Networks")
    assert sample.condition_names == ("P", "ETA")
    assert [(link.name, link.targets) for link in sample.links] == [
        ("rich", ("DLLK", "DLLp")),
        ("muon", ("isMuon",)),
        ("probnn", ("ProbNNk",)),
    ]
    assert sample.target_names == ("DLLK", "DLLp", "isMuon", "ProbNNk")
    assert sample.cuts == ("DLLK > 0", "isMuon == 1 & DLLK > 0")
    assert sample.data_taking == {"year": "2018", "tuning": "MC15TuneV1"}
    assert "link          muon: isMuon" in sample.text()
    assert Sample.model_validate_json(sample.to_json()) == sample


def test_a_link_alone_has_earlier_targets_as_conditions(folder: Path) -> None:
    sample = load_sample(folder / "probnn.toml")
    first, second, third = (sample.of_link(k) for k in range(3))
    assert first.condition_names == ("P", "ETA")
    assert first.targets == load_sample(folder / "rich.toml").targets
    assert second.condition_names == ("P", "ETA", "DLLK", "DLLp")
    assert second.target_names == ("isMuon",)
    assert third.condition_names == ("P", "ETA", "DLLK", "DLLp", "isMuon")
    assert third.conditions[2].sentinels == (-999,)
    assert third.conditions[2].transform == "quantiles"
    assert third.links == ()


def test_a_definition_extends_a_link(folder: Path) -> None:
    text = 'extends = "probnn.toml"\ntitle = "Mine"\nafter = "rich.toml"\n'
    (folder / "other.toml").write_text(text)
    sample = load_sample(folder / "other.toml")
    assert [link.name for link in sample.links] == ["rich", "other"]
    assert sample.target_names == ("DLLK", "DLLp", "ProbNNk")
    # Keys of the first link are the same, and may be repeated.
    text = 'extends = "rich.toml"\nafter = "rich.toml"\ntargets = [{name = "isMuon", '
    (folder / "again.toml").write_text(text + "categories = [0, 1]}]")
    assert load_sample(folder / "again.toml").target_names[2:] == ("isMuon",)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("muon", '"rich.toml"', '"probnn.toml"', "circle: probnn after muon after pro"),
        ("muon", '"rich.toml"', '"muon.toml"', "circle: muon after muon"),
        (
            "muon",
            '"rich.toml"',
            '"rihc.toml"',
            "after 'rihc.toml': no file 'rihc.toml'",
        ),
        ("muon", '"rich.toml"', "3", "after is 3, expected a name or a path"),
        ("rich", '"K+"', "3", r"after 'muon.toml'.*after 'rich.toml'.*species is 3"),
        ("probnn", "ProbNNk", "isMuon", "'isMuon' is one of link 'muon' already"),
        ("probnn", "ProbNNk", "ETA", "'ETA' is a condition of the chain"),
        ("probnn", "title", 'species = "pi+"\ntitle', "species is 'pi.', expected 'K"),
        ("probnn", "title", 'trees = ["T"]\ntitle', "trees is .'T'., expected None"),
        ("probnn", "title", 'selection = "a > 0"\ntitle', "leave 'selection' out"),
        ("probnn", "title", 'conditions = [{name = "Q"}]\ntitle', "conditions is"),
        ("probnn", "targets", "# targets", "expected a list of 'targets', got None"),
        ("probnn", "targets", 'targets = "a"#', "expected a list of 'targets', got a"),
        ("probnn", "targets", "cells = 1#", "'probnn' has cells; links of a chain"),
        ("probnn", "2]}", '2], at_most = "DLLK"}', "names 'DLLK' of link 'rich'"),
        ("probnn", "title", 'data_taking = {year="2"}\ntitle', "year is '2', expected"),
    ],
)
def test_wrong_chains(
    folder: Path, name: str, old: str, new: str, message: str
) -> None:
    path = folder / f"{name}.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SampleError, match=message) as raised:
        load_sample(folder / "probnn.toml")
    assert "\n" not in str(raised.value)


def test_showers_have_no_links(folder: Path) -> None:
    showers = '[cells]\nscheme = "cells"\n'
    path = folder / "rich.toml"
    path.write_text(path.read_text().split("targets")[0] + showers)
    with pytest.raises(SampleError, match=r"rich.toml"):
        load_sample(folder / "muon.toml")


def test_rows_are_those_of_all_links(folder: Path) -> None:
    rng = np.random.default_rng(1)
    n = 4000
    frame = pd.DataFrame(
        {
            "P": rng.uniform(3e3, 100e3, n),
            "ETA": rng.uniform(1, 6, n),
            "DLLK": rng.normal(0, 10, n),
            "DLLp": rng.normal(0, 10, n),
            "isMuon": rng.random(n) < 0.3,
            "ProbNNk": rng.uniform(0, 1, n),
        }
    )
    frame.loc[:9, "DLLK"] = -999
    frame.loc[10:19, "DLLp"] = np.linspace(200, 209, 10)
    frame["isMuon"] = frame["isMuon"].astype(np.int8)
    frame.loc[20:24, "isMuon"] = 7
    frame.loc[25:27, "ProbNNk"] = 1.5
    frame.loc[28:30, "ProbNNk"] = -2
    frame.to_parquet(folder / "rows.parquet")
    dataset = build_dataset(folder / "probnn.toml", folder / "rows.parquet", seed=2)
    assert dataset.info["dropped"] == {
        "DLLp out of range, link rich": 10,
        "isMuon unknown, link muon": 5,
        "ProbNNk out of range, link probnn": 3,
    }
    assert len(dataset) == n - 18
    assert set(np.unique(dataset.targets[:, 2])) == {0, 1}
    again = build_dataset(folder / "probnn.toml", folder / "rows.parquet", seed=2)
    assert again.info["hash"] == dataset.info["hash"]
    dataset.save(folder / "dataset")
    assert Dataset.open(folder / "dataset").sample == dataset.sample
    frame = frame.drop(columns="ProbNNk")
    frame.to_parquet(folder / "rows.parquet")
    with pytest.raises(Exception, match="ProbNNk"):
        build_dataset(folder / "probnn.toml", folder / "rows.parquet")


def test_many_rows_that_a_link_drops_are_announced(folder: Path) -> None:
    n = 1000
    frame = pd.DataFrame({"P": np.linspace(4e3, 9e4, n), "ETA": np.linspace(2, 5, n)})
    frame = frame.assign(DLLK=np.linspace(-9, 9, n), DLLp=np.linspace(-9, 9, n))
    frame = frame.assign(isMuon=np.arange(n) % 3, ProbNNk=np.linspace(0, 1, n))
    frame.to_parquet(folder / "rows.parquet")
    with pytest.warns(PidganWarning) as caught:
        build_dataset(folder / "probnn.toml", folder / "rows.parquet")
    spikes, dropped = (str(warning.message) for warning in caught)
    assert "one value of isMuon that is none of its categories 0, 1: 2 in 33" in spikes
    assert "333 of 1000 rows dropped: isMuon unknown, link muon" in dropped


def test_links_are_checked_without_files(folder: Path) -> None:
    content = json.loads(load_sample(folder / "probnn.toml").to_json())
    for links, message in (
        (content["links"][:2], "each once and in this order"),
        (content["links"][::-1], "each once and in this order"),
        ([{"name": "a", "targets": ["DLLK"]}], "2 to 10 links, got 1"),
        ([*content["links"], content["links"][0]], "more than once: rich"),
    ):
        with pytest.raises(ValueError, match=message):
            Sample.model_validate(content | {"links": links})
