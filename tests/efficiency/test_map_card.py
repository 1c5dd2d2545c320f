"""What `pidgan inspect` says of an efficiency map."""

import json
from pathlib import Path

import numpy as np
from command_line import Run

from pidgan.efficiency.map_card import map_card, map_card_text
from pidgan.efficiency.systematics import run_systematics

GOLDEN = Path(__file__).parents[1] / "golden" / "kmap.json"


def test_a_map_shows_its_denominator_and_the_mean_of_its_rows() -> None:
    where = "RichDLLp < 5 & nTracks < 250"
    edges = (3e3, 2e4, 2e5)
    found = run_systematics(
        "demo-kaon", cuts="RichDLLk > 3", where=where, binning={"P": edges}, repeats=1
    )
    card, text = map_card(found), map_card_text(found)
    assert card["where"] == where
    assert f"among       {where}" in text
    assert card["cuts"] == ["RichDLLk > 3"]
    np.testing.assert_array_equal(card["binning"]["P"], edges)
    real = 100 * card["efficiencies"]["RichDLLk > 3"]["real"]
    assert f"RichDLLk > 3      {real:.1f} +- " in text


def test_a_map_of_version_0_1_is_shown(run: Run) -> None:
    done = run("inspect", GOLDEN)
    assert done.code == 0, done.err
    assert "efficiency map" in done.out
    assert "bins in P" in done.out
    card = json.loads(run("inspect", GOLDEN, "--json").out)
    assert card["species"] == "K+"
    assert all(cut in done.out for cut in card["cuts"])
