"""Families side by side: the same rows, the same figures, and failures named."""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

from pidgan.bundle import open_bundle
from pidgan.errors import PidganError
from pidgan.family_comparison import compare_families

SMALL = {"width": 16, "blocks": 1, "batch_size": 128}
SETTINGS = {
    "energy": SMALL | {"samples": 2},
    "mmd": SMALL | {"samples": 2, "learning_rate": 1e9},
}


@pytest.fixture(scope="module")
def compared(kaon_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    seen: list[str] = []
    found = compare_families(
        kaon_dataset,
        folder,
        families=["energy", "mmd"],
        steps=20,
        settings=SETTINGS,
        c2st_rows=1000,
        progress=lambda name, _: seen.append(name),
    )
    return found, folder, seen


def test_figures_stand_beside_their_floors(compared) -> None:
    found, _, seen = compared
    energy = found.families[0]
    assert seen[0] == "energy"
    assert energy.steps == 20
    assert 0.5 < energy.c2st <= 1
    assert energy.c2st_floor < energy.c2st
    assert energy.ks > energy.ks_floor > 0
    assert 0 < energy.difference < 1
    assert energy.difference_cut in found.text() or energy.difference_cut
    assert energy.rows_per_second > 1000
    assert "energy" in found.text()


def test_a_family_that_diverges_is_named(compared) -> None:
    found, folder, _ = compared
    mmd = found.families[1]
    assert "diverged" in mmd.problem
    assert "failed: training diverged" in found.text()
    assert math.isnan(mmd.c2st)
    assert not (folder / "mmd.onnx").exists()


def test_files(compared) -> None:
    found, folder, _ = compared
    bundle = open_bundle(folder / "energy.onnx")
    assert bundle.card.validation["c2st"]["value"] == found.families[0].c2st
    assert (folder / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    content = json.loads((folder / "comparison.json").read_text())
    assert content == json.loads(found.to_json())
    assert content["families"][1]["c2st"] is None


def test_wrong_choices_are_named(compared, kaon_dataset, tmp_path: Path) -> None:
    _, folder, _ = compared
    with pytest.raises(PidganError, match="closest: 'energy'"):
        compare_families(kaon_dataset, tmp_path, families=["enrgy"])
    with pytest.raises(PidganError, match="expected each once"):
        compare_families(kaon_dataset, tmp_path, families=["energy", "energy"])
    with pytest.raises(PidganError, match="exists already"):
        compare_families(kaon_dataset, folder, families=["energy"], steps=1)
