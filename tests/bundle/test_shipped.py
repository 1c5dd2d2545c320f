"""The bundle that ships: it is small, sound, and found by its name everywhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pidgan
from pidgan.bundle.collecting import collect
from pidgan.bundle.shipped import FOLDER, shipped_names, shipped_path
from pidgan.errors import BundleError, MapError, PidganWarning
from pidgan.files.tables import write_trees
from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

NAME = "demo-kaon"
MOST_BYTES = 1_000_000


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_everything_together_is_small() -> None:
    assert shipped_names() == [NAME]
    files = list(FOLDER.iterdir())
    assert {path.name.removeprefix(NAME) for path in files} == {
        *(".onnx", ".reference.parquet", ".json", ".npz", ".root")
    }
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_map_and_reference_belong_to_the_bundle() -> None:
    bundle = pidgan.open_bundle(NAME)
    bundle.run_self_test()
    found = pidgan.EfficiencyMap.open(NAME)
    assert found.metadata["bundle_sha256"] == bundle.sha256
    reference = bundle.reference()
    assert reference is not None
    assert bundle.card.reference is not None
    assert len(reference) == bundle.card.reference["rows"]
    assert "pidgan demo" in bundle.card.sample.source
    assert "not for physics" in bundle.text()


def test_card_names_no_folder() -> None:
    text = pidgan.open_bundle(NAME).card.to_json()
    for one in json.loads(text)["dataset"]["files"]:
        assert not Path(one["source"]).is_absolute()
    assert "/tmp" not in text


def test_the_reference_agrees_with_the_map() -> None:
    """The rows that ship are some of those that the map was measured with."""
    found = pidgan.EfficiencyMap.open(NAME)
    own = pidgan.run_systematics(
        pidgan.open_bundle(NAME), cuts=found.cuts, binning=found.binning, repeats=4
    )
    shares = own.n_eff / own.n_eff.sum()
    for k in range(len(found.cuts)):
        gap = (own.nominal - found.nominal)[k] @ shares
        error = np.sqrt(own.propagate(shares)[k, k] + found.propagate(shares)[k, k])
        assert abs(gap) < 4 * error


def test_apply_and_efficiency_by_name(here: Path, run: Callable[..., Any]) -> None:
    write_trees("in.root", {ANALYSIS_TREE: simulate_analysis(4000, seed=5)})
    replace = ("--mode", "replace", "--species-from", "TRUEID")
    run("apply", "--track", f"Kplus={NAME}", "in.root", "-o", "out.root", *replace)
    given = ("--map", f"Kplus={NAME}", "--species-from", "TRUEID", "--json")
    found = json.loads(run("efficiency", "out.root", *given).out)
    assert [one["cut"] for one in found["results"]] == ["RichDLLk > 0", "RichDLLk > 5"]
    assert all(0.5 < one["value"] < 1 for one in found["results"])
    assert found["unproven"] == []
    manifest = Path("out.root.json").read_text()
    assert pidgan.open_bundle(NAME).sha256 in manifest


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", NAME, "--verify"),
        ("table", NAME, "--cut", "RichDLLk > 0"),
        ("export", NAME, "--format", "c", "-o", "kaon.c"),
        ("collect", NAME, "-o", "all.toml"),
    ],
    ids=lambda words: words[0],
)
def test_verbs_take_the_name(
    here: Path, run: Callable[..., Any], words: tuple[str, ...]
) -> None:
    done = run(*words)
    assert done.code == 0, done.err


def test_a_collection_may_hold_it(here: Path) -> None:
    found = collect([NAME], "all.toml")
    (bundle,) = found.open_bundles()
    assert bundle.sha256 == pidgan.open_bundle(NAME).sha256


def test_a_file_of_that_name_wins_and_says_so(here: Path) -> None:
    for suffix in (".onnx", ".reference.parquet"):
        shutil.copy(FOLDER / f"{NAME}{suffix}", f"mine{suffix}")
    Path("mine.onnx").rename(NAME)
    with pytest.warns(PidganWarning, match="taken from the current folder"):
        bundle = pidgan.open_bundle(NAME)
    assert bundle.path == here / NAME
    Path(NAME).write_text("something else")
    with (
        pytest.warns(PidganWarning, match="taken from the current folder"),
        pytest.raises(BundleError, match="damaged or not an ONNX file"),
    ):
        pidgan.open_bundle(NAME)
    with (
        pytest.warns(PidganWarning, match="taken from the current folder"),
        pytest.raises(MapError),
    ):
        pidgan.EfficiencyMap.open(NAME)


def test_a_name_that_is_almost_right_is_told(here: Path) -> None:
    with pytest.raises(BundleError, match="closest: 'demo-kaon'"):
        pidgan.open_bundle("demo-kaom")
    with pytest.raises(MapError, match="closest: 'demo-kaon'"):
        pidgan.EfficiencyMap.open("demokaon")


def test_a_path_to_elsewhere_is_a_path(here: Path) -> None:
    assert shipped_path(f"elsewhere/{NAME}", ".onnx") == Path(f"elsewhere/{NAME}")
    assert shipped_path("kaon.onnx", ".onnx") == Path("kaon.onnx")
