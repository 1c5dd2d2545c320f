"""From ntuples to a dataset: what is kept, dropped and refused; saved and opened."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from pidgan.errors import DatasetError, NtupleError, PidganWarning, SampleError
from pidgan.files.tables import write_table, write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.cuts import parse_cut
from pidgan.sample.dataset import PARTS, Dataset
from pidgan.sample.loading import load_sample
from pidgan.simulation.calibration import simulate_calibration

GOLDEN = Path(__file__).parents[1] / "golden"

OWN = """
schema = 1
title = "Toy kaons"
detector = "toy"
species = "K+"
source = "this test"
weight_branch = "sw"
trees = ["Plus/DecayTree", "Minus/DecayTree"]
conditions = [
  {name = "P", branch = "K_P", unit = "MeV", range = [3e3, 200e3], transform = "log"},
  {name = "ETA", derive = "eta_from_p_pt", branches = ["K_P", "K_PT"], range = [1, 6]},
]
targets = [
  {name = "DLL", branch = "K_DLL", range = [-150, 150], sentinels = [-999]},
  {name = "DLLp", branch = "K_DLLp", range = [-150, 150]},
]
"""
# Real data are not part of the project; the folder that holds them, if there is one.
REAL_DATA = Path(os.environ.get("PIDGAN_TEST_DATA", "no-such-folder"))
REAL_MUONS = REAL_DATA / "lhcb_richdll_muons" / "muons_data2012_extract.csv"
REAL_PROTONS = REAL_DATA / "run3_lambdac_protons.parquet"

Branches = dict[str, npt.NDArray[Any]]


def branches(n: int = 400, seed: int = 1) -> Branches:
    rng = np.random.default_rng(seed)
    p = rng.uniform(5e3, 100e3, n)
    return {
        "K_P": p,
        "K_PT": p / np.cosh(rng.uniform(2, 5, n)),
        "K_DLL": rng.normal(5, 10, n).astype(np.float32),
        "K_DLLp": rng.normal(0, 10, n).astype(np.float32),
        "sw": rng.choice([1.2, -0.3], n),
    }


def write(folder: Path, data: Branches, *, toml: str = OWN) -> tuple[Path, Path]:
    definition, ntuple = folder / "own.toml", folder / "calib.root"
    definition.write_text(toml, encoding="utf-8")
    halves = {
        f"{charge}/DecayTree": {name: array[rows] for name, array in data.items()}
        for charge, rows in (("Plus", slice(0, 150)), ("Minus", slice(150, None)))
    }
    write_trees(ntuple, halves, overwrite=True)
    return definition, ntuple


def test_values_arrive_in_package_units_and_order(tmp_path: Path) -> None:
    data = branches()
    data["K_P"] /= 1000
    toml = OWN.replace('unit = "MeV"', 'unit = "GeV"')
    data["K_PT"] /= 1000
    dataset = build_dataset(*write(tmp_path, data, toml=toml))
    assert len(dataset) == 400
    np.testing.assert_allclose(dataset.conditions[:, 0], data["K_P"] * 1000, rtol=1e-6)
    eta = np.arccosh(data["K_P"] / data["K_PT"])
    np.testing.assert_allclose(dataset.conditions[:, 1], eta, rtol=1e-6)
    np.testing.assert_array_equal(dataset.targets[:, 0], data["K_DLL"])
    np.testing.assert_array_equal(dataset.weights, data["sw"])
    assert dataset.info["sum_weights"] == pytest.approx(data["sw"].sum())
    assert [file["rows"] for file in dataset.info["files"]] == [150, 250]


def test_parts_share_out_the_rows(tmp_path: Path) -> None:
    dataset = build_dataset(*write(tmp_path, branches()))
    assert dataset.info["rows"] == {"train": 240, "validation": 40, "test": 120}
    frames = [dataset.frame(part) for part in PARTS]
    assert list(frames[0]) == ["P", "ETA", "DLL", "DLLp", "weight"]
    together = np.sort(np.concatenate([frame["P"] for frame in frames]))
    np.testing.assert_array_equal(together, np.sort(dataset.conditions[:, 0]))
    with pytest.raises(ValueError, match="expected one of train"):
        dataset.part("tset")  # type: ignore[arg-type]


def test_the_seed_decides_the_split_and_the_hash(tmp_path: Path) -> None:
    definition, ntuple = write(tmp_path, branches())
    one, again = (build_dataset(definition, ntuple, seed=1) for _ in range(2))
    other = build_dataset(definition, ntuple, seed=2)
    assert one.info["hash"] == again.info["hash"] != other.info["hash"]
    np.testing.assert_array_equal(one.split, again.split)
    np.testing.assert_array_equal(one.targets, other.targets)
    renamed = definition.with_name("renamed.toml")
    renamed.write_text(OWN.replace("Toy", "My"), encoding="utf-8")
    assert build_dataset(renamed, ntuple).info["hash"] != one.info["hash"]


def test_every_dropped_row_is_counted(tmp_path: Path) -> None:
    data = branches()
    data["K_P"][0] = np.nan
    data["K_DLL"][1] = np.inf
    data["sw"][2] = np.nan
    data["K_PT"][3] = 2 * data["K_P"][3]  # no real eta
    data["K_P"][4:8] = 250e3
    data["K_DLL"][8:10] = 160
    data["K_DLL"][10:13] = -999
    data["K_DLLp"][13] = -999  # not declared as a sentinel here
    data["K_PT"][14] = -1.0
    toml = OWN + 'selection = "K_PT > 0"\nfiducial = "ETA > 1.5"\n'
    with pytest.warns(PidganWarning, match=r"4 of 400 rows dropped: NaN or .*P in 1, "):
        dataset = build_dataset(*write(tmp_path, data, toml=toml))
    assert dataset.info["dropped"] == {
        "selection": 1,
        "NaN or infinite": 4,
        "P out of range": 4,
        "DLL out of range": 2,
        "DLLp out of range": 1,
    }
    assert dataset.info["rows_read"] == 400
    assert len(dataset) == 400 - 12
    assert (dataset.targets[:, 0] == -999).sum() == 3


def test_many_rows_out_of_range_warn(tmp_path: Path) -> None:
    data = branches()
    data["K_DLL"][:100] = np.linspace(200, 300, 100)
    with pytest.warns(PidganWarning, match="100 of 400 rows dropped: DLL out of range"):
        dataset = build_dataset(*write(tmp_path, data))
    assert dataset.info["spikes"] == {}


def test_a_spike_outside_a_range_is_named(tmp_path: Path) -> None:
    """It changes the denominator: 12 and 10 of 400 tracks without a measurement."""
    data = branches()
    data["K_DLLp"][:12] = -1000
    data["K_DLL"][5:15] = -2000
    data["K_DLL"][20:24] = 200  # a few, and no spike
    data["K_DLL"][30:45] = -999  # declared
    with pytest.warns(PidganWarning, match="many rows have one value of") as caught:
        dataset = build_dataset(*write(tmp_path, data))
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 2
    assert "DLL outside its range [-150, 150]: -2000 in 2.50%" in texts[0]
    assert "declare sentinels = [-1000] for DLLp" in texts[1]
    spikes = {"DLL": {"-2000": 0.025}, "DLLp": {"-1000": 0.03}}
    assert dataset.info["spikes"] == spikes
    assert "DLLp = -1000 in 3.00% of the rows, outside its range" in dataset.text()
    folder = dataset.save(tmp_path / "dataset")
    assert Dataset.open(folder).info["spikes"] == spikes


@pytest.mark.parametrize("sentinel", [-2.0, -1.0, -999.0, -1000.0])
def test_the_shipped_definition_knows_the_sentinels_of_probnn(
    tmp_path: Path, sentinel: float
) -> None:
    rng = np.random.default_rng(1)
    n = 2000
    columns: Branches = {
        "probe_P": rng.uniform(5e3, 9e4, n),
        "probe_ETA": rng.uniform(2, 4.9, n),
        "nTracks": rng.integers(20, 500, n),
        "probe_sWeight": rng.normal(0.8, 0.5, n),
    }
    failed = rng.random(n) < 0.04
    for name in ("k", "pi", "p", "ghost"):
        value = np.where(failed, sentinel, rng.beta(5, 1, n))
        columns[f"probe_MC15TuneV1_ProbNN{name}"] = value
    path = tmp_path / "calib.root"
    write_trees(path, {"DSt_KPTuple/DecayTree": columns})
    dataset = build_dataset("run2_dstar_k_probnn", path)
    assert len(dataset) == n
    cut = parse_cut("ProbNNk > 0.5")
    values = {"ProbNNk": dataset.targets[:, 0]}
    passed = cut.passes(values, dataset.sample.sentinels)
    weights = columns["probe_sWeight"]
    k = columns["probe_MC15TuneV1_ProbNNk"]
    expected = weights[k > 0.5].sum() / weights.sum()
    assert dataset.weights[passed].sum() / dataset.weights.sum() == pytest.approx(
        expected, rel=1e-6
    )


def test_a_wrong_unit_is_refused(tmp_path: Path) -> None:
    data = branches()
    data["K_P"] /= 1000
    data["K_PT"] /= 1000
    with pytest.raises(SampleError, match=r"'K_P'.*median.*set unit = \"GeV\""):
        build_dataset(*write(tmp_path, data))
    toml = OWN.replace('unit = "MeV"', 'unit = "GeV"')
    with pytest.raises(SampleError, match=r"'K_P'.*\[3000, 200000\].*unit = \"MeV\""):
        build_dataset(*write(tmp_path, branches(), toml=toml))
    data = branches()
    data["K_PT"] /= 1000
    with pytest.raises(SampleError, match=r"derived from K_P, K_PT.*check br"):
        build_dataset(*write(tmp_path, data))


def test_input_without_use_is_refused(tmp_path: Path) -> None:
    data = branches()
    with pytest.raises(DatasetError, match="no rows left; dropped for selection: 400"):
        build_dataset(*write(tmp_path, data, toml=OWN + 'selection = "K_P < 0"\n'))
    data["sw"] = -np.abs(data["sw"])
    with pytest.raises(DatasetError, match=r"sum of 'sw' over 400 rows is -"):
        build_dataset(*write(tmp_path, data))
    data["sw"] = np.zeros(400)
    with pytest.raises(DatasetError, match="expected a positive number"):
        build_dataset(*write(tmp_path, data))
    del data["K_DLLp"]
    with pytest.raises(NtupleError, match="'K_DLLp'; closest: 'K_DLL'"):
        build_dataset(*write(tmp_path, data))
    with pytest.raises(NtupleError, match=r"clib\.root"):
        build_dataset(tmp_path / "own.toml", tmp_path / "clib.root")


def test_sweights_are_fitted_where_the_sample_says_so(tmp_path: Path) -> None:
    path = tmp_path / "k.root"
    trees = simulate_calibration("dstar_k", 4000, seed=3)
    write_trees(path, trees)
    dataset = build_dataset("sim_dstar_k", path)
    fit = dataset.info["fit"]
    assert dataset.weights.sum() == pytest.approx(fit["yields"]["signal"][0])
    assert dataset.weights.min() < 0
    n_signal = sum(branch["probe_TRUE_SIGNAL"].sum() for branch in trees.values())
    assert fit["yields"]["signal"][0] == pytest.approx(n_signal, rel=0.1)
    passed = parse_cut("RichDLLk > 5").passes({"RichDLLk": dataset.targets[:, 0]})
    efficiency = np.sum(dataset.weights * passed) / dataset.weights.sum()
    response = np.concatenate([b["probe_Brunel_RichDLLk"] for b in trees.values()])
    signal = np.concatenate([b["probe_TRUE_SIGNAL"] for b in trees.values()]) == 1
    assert efficiency == pytest.approx(np.mean(response[signal] > 5), abs=0.03)
    for name in ("sim_dstar_k_combined", "sim_dstar_k_probnn"):
        same_fit = build_dataset(name, path).info["fit"]["yields"]
        assert same_fit["signal"][0] == pytest.approx(n_signal, rel=0.1)


def test_saved_and_opened_unchanged(tmp_path: Path) -> None:
    dataset = build_dataset(*write(tmp_path, branches()))
    folder = dataset.save(tmp_path / "new" / "dataset")
    opened = Dataset.open(folder)
    assert opened.sample == dataset.sample
    assert opened.info == dataset.info
    for name in ("conditions", "targets", "weights", "split"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(dataset, name))
    assert isinstance(opened.conditions.base, np.memmap)
    pd.testing.assert_frame_equal(opened.frame("test"), dataset.frame("test"))


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    dataset = build_dataset(*write(tmp_path, branches()))
    folder = dataset.save(tmp_path / "dataset")
    with pytest.raises(NtupleError, match="exists; choose another name"):
        dataset.save(folder)
    dataset.save(folder, overwrite=True)
    assert len(Dataset.open(folder)) == 400
    precious = tmp_path / "analysis"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    with pytest.raises(NtupleError, match=r"holds files but no dataset\.json"):
        dataset.save(precious, overwrite=True)
    assert (precious / "thesis.tex").exists()


def test_an_interrupted_save_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build_dataset(*write(tmp_path, branches()))
    before = sorted(tmp_path.iterdir())

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pidgan.sample.dataset.json.dumps", interrupt)
    with pytest.raises(KeyboardInterrupt):
        dataset.save(tmp_path / "dataset")
    assert sorted(tmp_path.iterdir()) == before


def test_damage_is_found(tmp_path: Path) -> None:
    folder = build_dataset(*write(tmp_path, branches())).save(tmp_path / "dataset")
    with pytest.raises(DatasetError, match="no such file or folder"):
        Dataset.open(tmp_path / "datset")
    with pytest.raises(DatasetError, match="is a directory, expected a dataset"):
        Dataset.open(tmp_path)
    targets = folder / "targets.npy"
    whole = targets.read_bytes()
    message = r"targets\.npy is damaged or belongs to another file: its sha256 is"
    for damaged in (whole[:-4] + b"\0\0\0\1", whole[:-8], b""):
        targets.write_bytes(damaged)
        with pytest.raises(DatasetError, match=message):
            Dataset.open(folder)
    targets.unlink()
    with pytest.raises(DatasetError, match=r"targets\.npy is missing"):
        Dataset.open(folder)
    targets.write_bytes(whole)
    description = folder / "dataset.json"
    text = description.read_text()
    for old, new, message in (
        ('"format": 3', '"format": 9', "format 9, expected 3"),
        ('"format": 3', '"format": 2', "changed after it was written"),
        ('"seed": 1', '"seed": 2', r"dataset\.json is damaged: changed after it was"),
        ('"unit": "MeV"', '"unit": "GeV"', "changed after it was written"),
    ):
        assert old in text
        description.write_text(text.replace(old, new))
        with pytest.raises(DatasetError, match=message):
            Dataset.open(folder)
    description.write_text(text[:100])
    with pytest.raises(DatasetError, match=r"dataset\.json is not valid JSON"):
        Dataset.open(folder)
    description.write_text(json.dumps(json.loads(text)))
    assert len(Dataset.open(folder)) == 400


def test_a_file_of_another_dataset_is_refused(tmp_path: Path) -> None:
    folders = []
    for seed in (1, 2):
        sample, file = write(tmp_path, branches())
        dataset = build_dataset(sample, file, seed=seed)
        folders.append(dataset.save(tmp_path / f"dataset{seed}"))
    one, other = folders
    (one / "split.npy").write_bytes((other / "split.npy").read_bytes())
    with pytest.raises(
        DatasetError, match=r"split\.npy is damaged or belongs to anoth"
    ):
        Dataset.open(one)


def test_a_dataset_of_version_0_1_is_checked_by_its_content(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "kaon", tmp_path / "kaon"))
    targets = folder / "targets.npy"
    whole = targets.read_bytes()
    targets.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(DatasetError, match="recorded hash"):
        Dataset.open(folder)
    targets.write_bytes(whole[:-8])
    with pytest.raises(DatasetError, match=r"targets\.npy is damaged"):
        Dataset.open(folder)
    np.save(targets, np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(
        DatasetError, match=r"float32 \(3, 2\), expected float32 \(2997"
    ):
        Dataset.open(folder)
    targets.unlink()
    with pytest.raises(DatasetError, match=r"lacks targets\.npy"):
        Dataset.open(folder)


@pytest.mark.skipif(not REAL_MUONS.is_file(), reason="the real muons are not here")
def test_real_muons_with_other_branch_names(tmp_path: Path) -> None:
    with REAL_MUONS.open() as lines:
        rows = list(csv.DictReader(lines))
    names = ["TrackP", "TrackPt", "nTracks", "RichDLLk", "RichDLLmu", "RichDLLbt"]
    table = {name: np.array([float(row[name]) for row in rows]) for name in names}
    write_trees(tmp_path / "muons.root", {"TupleB0/Tracks": table})
    definition = tmp_path / "muons.toml"
    definition.write_text(
        """
        extends = "run2_jpsi_mu"
        title = "2012 muons"
        source = "github.com/umd-lhcb/pyBabyMaker"
        trees = []
        unweighted = true
        cuts = ["RichDLLmu > 0"]
        conditions = [
          {name = "P", branch = "TrackP", unit = "MeV", range = [2e3, 200e3]},
          {name = "ETA", range = [1.5, 5.5], derive = "eta_from_p_pt", branches = [
            "TrackP", "TrackPt"]},
          {name = "nTracks", range = [1, 1000], integer = true},
        ]
        targets = [
          {name = "RichDLLk", range = [-150, 150], sentinels = [-999]},
          {name = "RichDLLmu", range = [-150, 150], sentinels = [-999]},
          {name = "RichDLLbt", range = [-150, 150], sentinels = [-999]},
        ]
        """,
        encoding="utf-8",
    )
    dataset = build_dataset(definition, tmp_path / "muons.root")
    assert len(dataset) + sum(dataset.info["dropped"].values()) == 304
    assert len(dataset) > 290


@pytest.mark.skipif(not REAL_PROTONS.is_file(), reason="no real protons here")
def test_real_protons_with_negative_weights() -> None:
    dataset = build_dataset("run3_lambdac_p", REAL_PROTONS)
    assert len(dataset) == 92_486
    assert np.mean(dataset.weights < 0) == pytest.approx(0.43, abs=0.01)
    assert dataset.info["n_eff"] == pytest.approx(27_550, abs=1)


def test_parquet_with_the_columns_of_the_real_protons(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    n = 500
    frame = pd.DataFrame(
        {
            "sWeight": rng.choice([1.1, -0.3], n),
            "P": rng.uniform(5e3, 9e4, n).astype(np.float32),
            "ETA": rng.uniform(2, 5, n).astype(np.float32),
            "nLongTracks": rng.integers(5, 400, n, dtype=np.int32),
            "DLLp": rng.normal(10, 40, n).astype(np.float32),
        }
    )
    write_table(tmp_path / "protons.parquet", frame)
    dataset = build_dataset("run3_lambdac_p", tmp_path / "protons.parquet")
    assert dataset.sample == load_sample("run3_lambdac_p")
    assert len(dataset) == n


OPTIONAL = OWN.replace(
    "conditions = [",
    'conditions = [\n  {name = "CHARGE", branch = "K_Q", categories = [-1, 1], '
    "optional = true},",
)


def prepare_optional(tmp_path: Path, charge: Any) -> Dataset:
    (tmp_path / "own.toml").write_text(OPTIONAL)
    trees = {}
    for seed, name in enumerate(("Plus/DecayTree", "Minus/DecayTree")):
        columns = branches(seed=seed)
        if charge is not None:
            columns["K_Q"] = np.full(400, charge[seed], dtype=np.int32)
        trees[name] = columns
    write_trees(tmp_path / "k.root", trees)
    return build_dataset(tmp_path / "own.toml", tmp_path / "k.root")


@pytest.mark.parametrize(
    ("charge", "left_out"),
    [((1, -1), {}), ((1, 1), {"CHARGE": 1.0}), (None, {"CHARGE": None})],
)
def test_optional_conditions(tmp_path: Path, charge: Any, left_out: Any) -> None:
    """Without a warning, as one charge, or no branch of it, is nothing unexpected."""
    dataset = prepare_optional(tmp_path, charge)
    assert dataset.info.get("left_out", {}) == left_out
    names = ("P", "ETA") if left_out else ("CHARGE", "P", "ETA")
    assert dataset.sample.condition_names == names
    saved = Dataset.open(dataset.save(tmp_path / "data"))
    assert saved.info.get("left_out", {}) == left_out
    assert ("left out CHARGE" in saved.text()) == bool(left_out)


def test_optional_conditions_that_are_needed(tmp_path: Path) -> None:
    text = OPTIONAL + 'fiducial = "CHARGE == 1"\n'
    (tmp_path / "own.toml").write_text(text)
    write_trees(tmp_path / "k.root", {"Plus/DecayTree": branches()})
    with pytest.raises(NtupleError, match="K_Q"):
        build_dataset(tmp_path / "own.toml", f"{tmp_path / 'k.root'}:Plus/DecayTree")
