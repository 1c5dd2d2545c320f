"""A control sample that made the map itself is recognised, and gives no factor."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, make_card, make_sample

from pidgan.efficiency.control import closure
from pidgan.efficiency.control_result import ControlClosure
from pidgan.efficiency.map_averages import REFERENCE
from pidgan.efficiency.shared_rows import SIZE, SKETCH, shared_share, sketch_of
from pidgan.efficiency.systematics import run_systematics
from pidgan.efficiency.transfer import transfer
from pidgan.errors import MapError, PidganWarning
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset

CUT = "DLLk > 2"
NAMES = ["P", "ETA"]


def draw(seed: int, n: int = 6000) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    p, eta = 3e3 + rng.gamma(2.0, 1e4, n), rng.uniform(1.6, 4.9, n)
    k = 4.0 - 5e-5 * p + 0.3 * (eta - 3) + rng.standard_normal(n)
    values = np.stack([p, eta, k, rng.standard_normal(n)], axis=1)
    inside = p < 99e3
    names = (*NAMES, "DLLk", "DLLp")
    return dict(zip(names, values[inside].astype("f4").astype("f8").T, strict=True))


@pytest.mark.parametrize("n", [1000, 5000, 20_000])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_share_of_known_rows_is_estimated(n: int, share: float) -> None:
    own, other = draw(1, 20_000), draw(2, 20_000)
    known = sketch_of(own, NAMES)
    is_own = np.random.default_rng(3).random(20_000) < share
    size = min(len(own["P"]), len(other["P"]))
    mixed = {
        k: np.where(is_own[:size], own[k][:size], other[k][:size])[:n] for k in own
    }
    found = shared_share(known, mixed)
    assert abs(found - share) <= 5 * np.sqrt(share * (1 - share) / (SIZE * n / 2e4))


def test_conditions_that_many_rows_share_tell_nothing() -> None:
    columns = {"nTracks": np.random.default_rng(1).integers(300, size=5000) + 0.0}
    assert sketch_of(columns, ["nTracks"]) == {}
    assert np.isnan(shared_share({}, columns))


@pytest.mark.parametrize("how", ["dataset", "file", "frame"])
def test_the_calibration_sample_is_no_control_channel(how: str, tmp_path: Path) -> None:
    columns = draw(4)
    sample = make_sample(binning={"P": (3e3, 1e4, 3e4, 1e5), "ETA": (1.5, 3.0, 5.0)})
    frame = pd.DataFrame({k: v.astype("f4") for k, v in columns.items()})
    build_dataset(sample, frame, progress=False).save(tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    known = run_systematics(
        ToyGenerator(card=make_card()), dataset, cuts=CUT, progress=False
    )
    known.save(tmp_path / "map.json")
    write_trees(tmp_path / "own.root", {"DecayTree": columns})
    given = {"species": "K+", "unweighted": True} if how != "dataset" else {}
    rows = {"dataset": tmp_path / "data", "file": tmp_path / "own.root"}.get(how, frame)
    with pytest.warns(PidganWarning, match=r"% of its rows are reference rows of the"):
        found = closure(tmp_path / "map.json", rows, **given)
    assert found.shared > 0.1
    assert "same rows as the map" in found[0].flags
    assert "rows that made the map too" in found.text()
    again = ControlClosure.open(found.save(tmp_path / "control.json"))
    with pytest.raises(MapError, match="would count the same fluctuation twice"):
        transfer(known, again)


def test_another_sample_is_one() -> None:
    frame = pd.DataFrame(draw(5)).assign(weight=1.0)
    known = run_systematics(
        ToyGenerator(card=make_card()), frame, cuts=CUT, progress=False
    )
    found = closure(known, pd.DataFrame(draw(6)), species="K+", unweighted=True)
    assert found.shared == 0
    assert transfer(known, found).metadata["control"]


def test_a_map_of_an_older_version_cannot_know(tmp_path: Path) -> None:
    frame = pd.DataFrame(draw(5)).assign(weight=1.0)
    known = run_systematics(
        ToyGenerator(card=make_card()), frame, cuts=CUT, progress=False
    )
    reference = {n: v for n, v in known.metadata[REFERENCE].items() if n != SKETCH}
    old = replace(known, metadata={**known.metadata, REFERENCE: reference})
    given = {"species": "K+", "unweighted": True}
    with pytest.warns(PidganWarning, match="whether its rows made the map too is not"):
        found = closure(old, pd.DataFrame(draw(6)), **given)
    assert np.isnan(found.shared)
    assert found[0].flags[0] == "rows of the map not known"
    assert "made the map too: not known" in found.text()
    assert json.loads(found.to_json())["shared"] is None
    again = ControlClosure.open(found.save(tmp_path / "control.json"))
    assert np.isnan(again.shared)
    assert transfer(old, again).metadata["control"]
