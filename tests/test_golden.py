"""Files of version 0.1 open, and give the numbers that version 0.1 computed.

Same numbers are promised for one type of CPU. Matrix products of single precision are
added in another order on another type, so that real numbers may differ here by
`TOLERANCE` of the largest value in a column; integers and sentinels never differ.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from command_line import Run

from pidgan.application.quantile_map import QuantileMap
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.systematics import run_systematics
from pidgan.sample.dataset import Dataset

GOLDEN = Path(__file__).parent / "golden"
NUMBERS = np.load(GOLDEN / "numbers.npz")
PRINTED = json.loads((GOLDEN / "numbers.json").read_text())
TOLERANCE = 1e-6


def assert_same(got: Any, expected: Any) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    if expected.dtype.kind not in "fc":
        np.testing.assert_array_equal(got, expected)
        return
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    scale = np.nanmax(np.abs(expected), axis=0 if expected.ndim == 2 else None)
    assert (np.nan_to_num(np.abs(got - expected)) <= TOLERANCE * scale).all()


def assert_same_json(got: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        for name, value in expected.items():
            assert_same_json(got[name], value)
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same_json(one, other)
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, rel=TOLERANCE, abs=1e-9, nan_ok=True)
    else:
        assert got == expected


def assert_same_targets(bundle: Bundle, got: Any, expected: Any) -> None:
    for target, one, other in zip(bundle.card.targets, got.T, expected.T, strict=True):
        for sentinel in target.sentinels:
            np.testing.assert_array_equal(one == sentinel, other == sentinel)
    assert_same(got, expected)


@pytest.fixture(scope="module")
def kaon() -> Bundle:
    return open_bundle(GOLDEN / "kaon.onnx")


def test_bundle_gives_the_same_targets(kaon: Bundle) -> None:
    x = NUMBERS["kaon.conditions"]
    got = kaon.generate(x, NUMBERS["kaon.noise"])
    assert_same_targets(kaon, got, NUMBERS["kaon.targets"])
    keyed = kaon.generate_keyed(x, np.arange(len(x), dtype=np.uint64))
    assert_same_targets(kaon, keyed, NUMBERS["kaon.keyed"])


def test_bundle_of_showers_gives_the_same_targets() -> None:
    showers = open_bundle(GOLDEN / "showers.onnx")
    got = showers.generate(NUMBERS["showers.conditions"], NUMBERS["showers.noise"])
    assert_same_targets(showers, got, NUMBERS["showers.targets"])
    np.testing.assert_array_equal(got == 0, NUMBERS["showers.targets"] == 0)


def test_reference_file_belongs_to_the_bundle(kaon: Bundle) -> None:
    frame = kaon.reference()
    assert frame is not None
    names = list(kaon.card.condition_names)
    assert_same(frame[names].to_numpy(np.float32)[:200], NUMBERS["kaon.conditions"])


def test_dataset_opens() -> None:
    dataset = Dataset.open(GOLDEN / "kaon")
    assert dataset.sample.name == "sim_dstar_k"
    for name in ("train", "validation", "test"):
        assert len(dataset.part(name).weights) == NUMBERS[f"dataset.{name}_rows"]


def test_model_gives_the_same_targets(kaon: Bundle) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.model import open_model

    model = open_model(GOLDEN / "kaon-model")
    got = model.generate(NUMBERS["kaon.conditions"], NUMBERS["kaon.noise"])
    assert_same_targets(kaon, got, NUMBERS["model.targets"])


def test_model_exports_to_the_same_bundle(kaon: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from pidgan.training.export import export_bundle
    from pidgan.training.model import open_model

    path = tmp_path / "again.onnx"
    export_bundle(open_model(GOLDEN / "kaon-model"), path)
    again = open_bundle(path)
    got = again.generate(NUMBERS["kaon.conditions"], NUMBERS["kaon.noise"])
    assert_same_targets(kaon, got, NUMBERS["kaon.targets"])


def test_quantile_map_gives_the_same_values() -> None:
    occupancy = QuantileMap.open(GOLDEN / "occupancy.json")
    got = occupancy.evaluate(NUMBERS["occupancy.simulation"])
    assert_same(got, NUMBERS["occupancy.data"])


def test_efficiency_map_opens() -> None:
    assert_same_map(EfficiencyMap.open(GOLDEN / "kmap.json"))


def test_systematics_give_the_same_map(kaon: Bundle) -> None:
    stored = EfficiencyMap.open(GOLDEN / "kmap.json")
    found = run_systematics(kaon, cuts=stored.cuts, binning=stored.binning, seed=4)
    # Version 0.1 gave the parts of a merged bin the same difference, whatever their
    # efficiency. Its numbers are those of the maps that it wrote.
    assert "binning" in found.variations
    assert_same_map(found, but=("binning",))
    assert found.cuts == stored.cuts
    assert found.binning == stored.binning


def assert_same_map(found: EfficiencyMap, but: tuple[str, ...] = ()) -> None:
    for name in ("generated", "discrepancy", "covariance", "n_eff"):
        assert_same(np.ravel(getattr(found, name)), np.ravel(NUMBERS[f"map.{name}"]))
    stored = {name for name in NUMBERS.files if name.startswith("map.variation.")}
    assert {f"map.variation.{name}" for name in found.variations} == stored
    for name, shift in found.variations.items():
        if name in but:
            continue
        assert_same(np.ravel(shift), np.ravel(NUMBERS[f"map.variation.{name}"]))


@pytest.fixture
def applied(run: Run, tmp_path: Path) -> Path:
    """The stored ntuple with generated columns, noise keyed by entry numbers."""
    path = tmp_path / "entry.root"
    # Options are spelled as version 0.1 spelled them: scripts go on working.
    arguments = ("--track", f"Kplus={GOLDEN / 'kaon.onnx'}", GOLDEN / "analysis.root")
    arguments += ("-o", path, "--mode", "replace", "--seed", 3, "--quiet")
    arguments += ("--quantile-map", f"nTracks={GOLDEN / 'occupancy.json'}")
    assert run("apply", *arguments).code == 0
    return path


def assert_same_columns(path: Path, name: str) -> None:
    columns = [key for key in NUMBERS.files if key.startswith(f"{name}.")]
    assert columns
    with uproot.open(path) as file:
        tree = file["DecayTree"]
        for key in columns:
            got = tree[key.removeprefix(f"{name}.")].array(library="np")
            assert_same(got, NUMBERS[key])


def test_apply_keyed_by_entry_numbers(applied: Path) -> None:
    assert_same_columns(applied, "entry")


def test_apply_keyed_by_branches(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "key.root"
    arguments = ("--track", f"Kplus={GOLDEN / 'kaon.onnx'}", GOLDEN / "analysis.root")
    arguments += ("-o", path, "--mode", "friend", "--seed", 3, "--quiet")
    arguments += ("--key", "runNumber,eventNumber", "--scale", "nTracks=1.1")
    assert run("apply", *arguments).code == 0
    assert_same_columns(path, "key")


def test_efficiency_of_the_applied_ntuple(run: Run, applied: Path) -> None:
    options = ("efficiency", applied, "--track", "Kplus", "--json")
    options += ("--map", GOLDEN / "kmap.json")
    corrected = run(*options, "--cut", "RichDLLk > 5", "--species-from", "TRUEID")
    assert_same_json(json.loads(corrected.out), PRINTED["efficiency"])
    raw = run(
        *(*options, "--cut", "RichDLLk > 15", "--no-correction"),
        *("--quantile-map", f"nTracks={GOLDEN / 'occupancy.json'}"),
    )
    assert_same_json(json.loads(raw.out), PRINTED["efficiency_raw"])


def test_table_of_the_bundle(run: Run) -> None:
    options = ("--cut", "RichDLLk > 5", "--binning", "P=3e3,1.5e4,2e5", "--json")
    printed = run("table", GOLDEN / "kaon.onnx", *options)
    assert_same_json(json.loads(printed.out), PRINTED["table"])
