"""A definition that keeps intervals out of training says so where it is used."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pidgan.bundle.card import card_rows
from pidgan.cli import cli

DEFINITION = """\
schema = 1
title = "Tracks with a gap"
detector = "toy"
species = "K+"
source = "tests"
unweighted = true
targets = [{name = "dll", branch = "dll", range = [-20, 20]}]
%s
[[conditions]]
name = "P"
branch = "P"
unit = "MeV"
range = [1e3, 1e4]
"""
GAP = "exclude = {P = [[2e3, 3e3], [5e3, 6e3]]}"
WHERE = "P 2000 to 3000 and 5000 to 6000 MeV"


def run(*words: object) -> str:
    done = CliRunner().invoke(cli, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stderr


@pytest.mark.parametrize("gap", [GAP, ""])
def test_excluded_intervals_are_mentioned(tmp_path: Path, gap: str) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.model import open_model

    rng = np.random.default_rng(5)
    p = rng.uniform(1e3, 1e4, 3000)
    rows = pd.DataFrame({"P": p, "dll": rng.normal(p / 1e3, 1)})
    rows.to_parquet(tmp_path / "rows.parquet")
    definition = tmp_path / "gap.toml"
    definition.write_text(DEFINITION % gap, encoding="utf-8")
    inside = ((p >= 2e3) & (p <= 3e3)) | ((p >= 5e3) & (p <= 6e3))
    expected = (
        f"nothing is trained in {WHERE}: `exclude` of the definition keeps "
        f"{inside.sum()} rows out"
    )
    folder, model = tmp_path / "data", tmp_path / "model"
    train = ("train", folder, "--family", "energy", "--steps", 2, "-o", model)
    said = [run("prepare", definition, tmp_path / "rows.parquet", "-o", folder)]
    said.append(run(*train))
    for text in said:
        assert (expected in text.splitlines()) == bool(gap)
        assert ("nothing is trained" in text) == bool(gap)
    card = open_model(model).card
    assert card_rows(card).get("not trained in", "") == (WHERE if gap else "")
    assert "nothing is trained" not in run(*train, "--overwrite", "-q")
