"""Several candidates of one event in a calibration sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pidgan.errors import NtupleError
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.events import EVENT, find_reference_events

DEFINITION = """
schema = 1
title = "Toy kaons"
detector = "toy"
species = "K+"
source = "this test"
unweighted = true
conditions = [{name = "P", branch = "K_P", unit = "MeV", range = [3e3, 200e3]}]
targets = [{name = "DLL", branch = "K_DLL", range = [-150, 150]}]
cuts = ["DLL > 0"]
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    (tmp_path / "own.toml").write_text(DEFINITION)
    return tmp_path / "own.toml"


def rows(per_event: int, names: tuple[str, str] = ("runNumber", "eventNumber")) -> Any:
    rng = np.random.default_rng(1)
    event = np.repeat(np.arange(300), per_event)
    order = rng.permutation(len(event))
    return pd.DataFrame(
        {
            "K_P": rng.uniform(5e3, 1e5, len(event)),
            "K_DLL": rng.normal(1, 5, len(event)),
            names[0]: (event[order] % 7).astype(np.uint32),
            # The same numbers come again in another run.
            names[1]: (event[order] // 7).astype(np.uint64) + 2**60,
        }
    )


def test_candidates_of_an_event_stay_in_one_part(sample: Path, tmp_path: Path) -> None:
    frame = rows(3)
    dataset = build_dataset(sample, frame)
    assert dataset.kept_names == (EVENT,)
    assert dataset.info["events"] == 300
    assert "300 events, of several rows" in dataset.text()
    number = dataset.kept[:, 0]
    key = frame["runNumber"] * 10**6 + (frame["eventNumber"] - 2**60)
    assert len(set(zip(number, key, strict=True))) == len(set(number)) == 300
    parts = pd.Series(dataset.split).groupby(number).nunique()
    assert (parts == 1).all()
    assert np.abs(np.mean(dataset.split == 2) - 0.3) < 0.01
    dataset.save(tmp_path / "kaon")
    test = Dataset.open(tmp_path / "kaon").frame("test")
    events = find_reference_events(test)
    assert events is not None
    assert len(set(events)) == len(test) // 3


def test_events_of_one_row_change_nothing(sample: Path) -> None:
    plain = rows(1).drop(columns=["runNumber", "eventNumber"])
    one, without = build_dataset(sample, rows(1)), build_dataset(sample, plain)
    assert one.kept_names == ()
    assert one.info["hash"] == without.info["hash"]
    assert find_reference_events(one.frame("test")) is None


def test_a_key_of_other_names_is_given(sample: Path) -> None:
    frame = rows(2, ("my_run", "my_event"))
    assert build_dataset(sample, frame).kept_names == ()
    dataset = build_dataset(sample, frame, key=("my_run", "my_event"))
    assert dataset.info["events"] == 300
    with pytest.raises(NtupleError, match="my_evnt"):
        build_dataset(sample, frame, key=("my_run", "my_evnt"))


def test_a_kept_key_is_found_in_a_reference() -> None:
    frame = rows(2).rename(columns={"eventNumber": "EVENTNUMBER"})
    assert find_reference_events(frame) is None
    events = find_reference_events(rows(2))
    assert events is not None
    assert len(set(events)) == 300
