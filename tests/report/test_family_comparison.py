"""Families side by side: the same rows, the same figures, and failures named."""

import json
import math
from pathlib import Path

import pytest
from command_line import Run

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import open_bundle
from pidgan.errors import PidganError, PidganWarning
from pidgan.report.family_comparison import compare_families

SMALL = {"width": 16, "blocks": 1, "batch_size": 128}
SETTINGS = {
    "energy": SMALL | {"samples": 2},
    "mmd": SMALL | {"samples": 2, "learning_rate": 1e9},
}


@pytest.fixture(scope="module")
def compared(kaon_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    seen: list[tuple[str, str]] = []
    results = folder / "comparison.json"

    def look(name: str, _: object) -> None:
        seen.append((name, results.read_text() if results.exists() else ""))

    with pytest.warns(PidganWarning, match="'learning_rate' of family 'mmd' is 1e"):
        found = compare_families(
            kaon_dataset,
            folder,
            families=["mmd", "energy"],
            steps=20,
            settings=SETTINGS,
            c2st_rows=1000,
            progress=look,
        )
    return found, folder, seen


def test_figures_stand_beside_their_floors(compared) -> None:
    found, _, _ = compared
    energy = found.families[1]
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
    mmd = found.families[0]
    assert "diverged" in mmd.problem
    assert "failed: training diverged" in found.text()
    assert math.isnan(mmd.c2st)
    assert not (folder / "mmd.onnx").exists()


def test_finished_families_are_written_before_the_next(compared) -> None:
    _, _, seen = compared
    assert [seen[0][0], seen[-1][0]] == ["mmd", "energy"]
    written = next(text for name, text in seen if name == "energy")
    assert [f["family"] for f in json.loads(written)["families"]] == ["mmd"]


def test_files(compared) -> None:
    found, folder, _ = compared
    bundle = open_bundle(folder / "energy.onnx")
    assert bundle.card.validation["c2st"]["value"] == found.families[1].c2st
    assert (folder / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    content = json.loads((folder / "comparison.json").read_text())
    assert content == json.loads(found.to_json())
    assert content["families"][0]["c2st"] is None


def test_command_line(
    run: Run,
    compared,
    kaon_dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The options are the arguments; the table is what is printed."""
    found, folder, _ = compared
    asked = {}

    def remember(dataset, directory, *, progress, **options):
        asked.update(options, directory=directory)
        return found

    monkeypatch.setattr("pidgan.report.family_comparison.compare_families", remember)
    kaon_dataset.save(tmp_path / "data")
    command = ("compare", tmp_path / "data", "-o", tmp_path / "out", "--steps", 7)
    chosen = ("--set", "mmd.kernel=gaussian", "--set", "mmd.width=16")
    result = run(*command, "--families", "mmd, maevskiy2019", *chosen)
    assert result.out.strip() == found.text()
    assert asked["families"] == ["mmd", "maevskiy2019"]
    assert asked["settings"] == {"mmd": {"kernel": "gaussian", "width": "16"}}
    assert (asked["steps"], asked["budget"]) == (7, None)
    asked.clear()
    assert json.loads(run(*command, "--json").out) == json.loads(found.to_json())
    assert "families" not in asked  # the default is that of the function
    assert run(*command, "--set", "width=16").code == 2
    assert run(*command, "--budget", "1m").code == 2
    result = run("compare", tmp_path / "data", "-o", folder, "--steps", 7)
    assert result.code == 1
    assert "exists" in result.err


def test_wrong_choices_are_named(compared, kaon_dataset, tmp_path: Path) -> None:
    _, folder, _ = compared
    with pytest.raises(PidganError, match="closest: 'energy'"):
        compare_families(kaon_dataset, tmp_path, families=["enrgy"])
    with pytest.raises(PidganError, match="expected each once"):
        compare_families(kaon_dataset, tmp_path, families=["energy", "energy"])
    with pytest.raises(PidganError, match="exists; choose another name"):
        compare_families(kaon_dataset, folder, families=["energy"], steps=1)
