"""Definitions made from PIDCalib2's list of samples."""

import importlib.util
import json
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pidgan.errors import NtupleError, SampleError
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.built_in import translate_cut
from pidgan.sample.cuts import parse_cut
from pidgan.sample.definition import Sample
from pidgan.sample.loading import load_sample
from pidgan.sample.pidcalib import (
    OUTCOMES,
    convert_pidcalib_sample,
    list_pidcalib_samples,
    save_pidcalib_samples,
)

FILES = ["root://host//pid/one.root", "root://host//pid/two.root"]
MUON_CUT = (
    "( ((mutag_MUONLLBG) <0) & ((muprobe_INMUON) ==1) & ((( (muprobe_A_TIS ==1) | "
    "(muprobe_B_TIS ==1) )) ==1)) & (((Jpsi_M) >2930) & ((Jpsi_M) <3270)) & (1==1) & "
    "((muprobe_CHARGE) > 0)"
)
LIST: dict[str, dict[str, Any]] = {
    "Turbo16-MagUp": {"files": FILES},
    "Turbo16-MagUp-K": {"link": "Turbo16-MagUp"},
    "Turbo16-MagUp-P_IncLc": {
        "link": "Turbo16-MagUp",
        "cuts": ["Lc_M > 2240", "Lc_M < 2330"],
    },
    "21_MCTuneV4-MagDown-Pi": {"files": FILES},
    "2024_WithUT_block1_v2-MagUp-K": {
        "calib_files": {"analysis": "tupling", "polarity": "magup", "start_file": 277},
        "sweight_dir": "root://host//sweights/",
        "tuple_names": {"K": ["DstToD0Pi_D0ToKPi"]},
        "probe_prefix": "K",
        "ordering_variables": ["Dst_M - D_M", "D_M"],
    },
    "2025_c4_v0-MagDown-Mup": {
        "calib_files": {"analysis": "tupling"},
        "sweight_dir": "root://host//sweights/",
        "tuple_names": {"Mup": ["JpsiToMuMumTagged_Detached"]},
        "probe_prefix": "muprobe",
        "cuts": [MUON_CUT],
    },
    "2025_c1_without_brem_v1-MagUp-e": {
        "files": FILES[:1],
        "sweight_dir": "root://host//sweights/",
        "tuple_names": {"e": [""]},
        "probe_prefix": "eprobe",
        "ordering_variables": ["B_M", "eprobe_PT"],
    },
    "2024_block1_Tables_with_brem_MagUp-e": {
        "files": FILES,
        "sweight_dir": "root://host//PIDCalib2_ElectronTables",
        "tuple_names": {"e": [""]},
        "probe_prefix": "eprobe",
    },
    "2024_block2-MagUp-K": {
        "files": FILES,
        "sweight_dir": "root://host//sweights/",
        "tuple_names": {"K": ["A"]},
        "probe_prefix": "K",
        "ordering_variables": ["log(K_P)"],
    },
    "Turbo17-MagUp-K": {"link": "Turbo17-MagUp"},
    "Turbo18-MagUp-X_DD": {"link": "Turbo16-MagUp"},
    "Turbo18-MagUp-K_Odd": {"link": "Turbo16-MagUp"},
    "Turbo18-MagUp-K": {"files": FILES, "cuts": ["(a > 1))"]},
    "Turbo18-MagUp-P": {"files": FILES, "cuts": ["1 == 0"]},
    "Turbo18-MagUp-Pi": {"files": FILES, "rotated": True},
    "Turbo18-MagUp-Mu": {"files": "one.root"},
    "../Turbo18-MagUp-Mu": {"files": FILES},
}
CONVERTED = 6


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.json"
    path.write_text(json.dumps(LIST))
    return path


def converted(samples: Path, name: str) -> Sample:
    """The sample of a key, through the text of its definition."""
    found = convert_pidcalib_sample(samples, name)
    return load_sample(found.save(samples.parent / f"{name}.toml"))


def test_keys_of_run_2(samples: Path) -> None:
    kaon = converted(samples, "Turbo16-MagUp-K")
    assert kaon.species == "K+"
    assert kaon.trees == ("DSt_KPTuple/DecayTree", "DSt_KMTuple/DecayTree")
    assert kaon.weight_branch == "probe_sWeight"
    names = ("P", "ETA", "nTracks", "trackcharge")
    assert kaon.condition_names == names
    assert [v.branch for v in kaon.targets][:2] == ["probe_PIDK", "probe_PIDp"]
    assert kaon.data_taking == {
        "run": "2",
        "year": "2016",
        "polarity": "up",
        "sample": "Turbo16",
    }
    proton = converted(samples, "Turbo16-MagUp-P_IncLc")
    assert proton.selection == "Lc_M > 2240 & Lc_M < 2330"
    pion = converted(samples, "21_MCTuneV4-MagDown-Pi")
    assert pion.trees == ("DecayTree",)
    assert pion.data_taking["year"] == "2012"
    assert pion.data_taking["tuning"] == "MCTuneV4"


def test_keys_of_run_3(samples: Path) -> None:
    kaon = converted(samples, "2024_WithUT_block1_v2-MagUp-K")
    assert kaon.trees == ("DstToD0Pi_D0ToKPi/DecayTree",)
    assert kaon.sweights is not None
    assert kaon.sweights.order == ("Dst_M - D_M", "D_M")
    assert kaon.sweights.match == ("order_index",)
    assert kaon.data_taking["block"] == "1"
    assert kaon.targets[0].branch == "K_PID_K"
    muon = converted(samples, "2025_c4_v0-MagDown-Mup")
    assert muon.sweights is not None
    assert muon.sweights.match == ("entry",)
    assert (muon.data_taking["charge"], muon.data_taking["block"]) == ("+", "4")
    assert muon.selection == (
        "mutag_MUONLLBG < 0 & muprobe_INMUON == 1 & (muprobe_A_TIS == 1 | "
        "muprobe_B_TIS == 1) & Jpsi_M > 2930 & Jpsi_M < 3270 & muprobe_CHARGE > 0"
    )


def test_electrons_have_their_bremsstrahlung(samples: Path) -> None:
    electron = converted(samples, "2025_c1_without_brem_v1-MagUp-e")
    assert electron.trees == ("DecayTree",)
    assert electron.data_taking["bremsstrahlung"] == "without"
    names = ("PT", "ETA", "nLongTracks", "CHARGE", "HASBREM")
    assert electron.condition_names == names
    assert tuple(electron.binning) == ("PT", "ETA")
    shipped = load_sample("run3_jpsi_e")
    assert shipped.conditions == electron.conditions
    assert shipped.targets == electron.targets
    assert shipped.binning == electron.binning


def test_no_path_is_in_a_definition(samples: Path) -> None:
    found = convert_pidcalib_sample(samples, "Turbo16-MagUp-K")
    assert "root:" not in found.definition
    assert found.files == tuple(FILES)
    assert all(file in found.text() for file in FILES)
    produced = convert_pidcalib_sample(samples, "2024_WithUT_block1_v2-MagUp-K")
    assert "start_file = 277" in produced.text()
    assert "root://host//sweights/" in produced.text()
    assert json.loads(produced.to_json())["definition"] == produced.definition


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Turbo16-MagUp-k", "closest: 'Turbo16-MagUp-K'"),
        ("Turbo16-MagUp", "choose one of .*: Turbo16-MagUp-K, Turbo16-MagUp-P_IncLc"),
        ("2024_block1_Tables_with_brem_MagUp-e", "a table of efficiencies in bins"),
        (
            "Turbo17-MagUp-K",
            "links to 'Turbo17-MagUp', which .*closest: .*'Turbo16-MagUp'",
        ),
        ("Turbo18-MagUp-X_DD", "unknown particle, 'X_DD'"),
        ("Turbo18-MagUp-K_Odd", "without trees: PIDCalib2 knows none for 'K_Odd'"),
        ("Turbo18-MagUp-K", "PIDCalib2 cannot read either: 1 brackets open and 2"),
        ("Turbo18-MagUp-P", "never true"),
        ("Turbo18-MagUp-Pi", "rotated: Extra inputs"),
        ("Turbo18-MagUp-Mu", "files: Input should be a valid list"),
        ("../Turbo18-MagUp-Mu", "no name of a file"),
    ],
)
def test_keys_that_are_no_sample(samples: Path, name: str, problem: str) -> None:
    with pytest.raises(SampleError, match=problem):
        convert_pidcalib_sample(samples, name)


@pytest.mark.parametrize("content", ["[]", "{}", "5"])
def test_files_that_are_no_list(tmp_path: Path, content: str) -> None:
    (tmp_path / "samples.json").write_text(content)
    with pytest.raises(SampleError, match="no list of samples of PIDCalib2"):
        list_pidcalib_samples(tmp_path / "samples.json")


def test_a_folder_of_all(samples: Path, tmp_path: Path) -> None:
    found = save_pidcalib_samples(samples, tmp_path / "all")
    assert found.keys() == LIST.keys()
    written = {path.name for path in (tmp_path / "all").iterdir()}
    assert len(written) == CONVERTED + 1
    outcomes = json.loads((tmp_path / "all" / OUTCOMES).read_text())
    assert outcomes.keys() == LIST.keys()
    assert "'log(K_P)' is no expression" in outcomes["2024_block2-MagUp-K"]["reason"]
    for path in (tmp_path / "all").glob("*.toml"):
        assert load_sample(path).name == path.stem
    with pytest.raises(NtupleError, match="exists"):
        save_pidcalib_samples(samples, tmp_path / "all")
    save_pidcalib_samples(samples, tmp_path / "all", overwrite=True)


# What PIDCalib2 1.5.9 lists, if it is installed.
spec = importlib.util.find_spec("pidcalib2")
place = (spec.submodule_search_locations or [""])[0] if spec else ""
PLACE = Path(os.environ.get("PIDGAN_TEST_PIDCALIB", place))
OWN = PLACE / "data" / "samples.json"
needs_list = pytest.mark.skipif(not OWN.is_file(), reason="pidcalib2 is not installed")
# Definitions that are loaded: one of so many, or all with PIDGAN_MUTANTS=5000.
SHARE = max(1, 400 // int(os.environ.get("PIDGAN_MUTANTS", "40")))
# The counts of docs/how-to/sample/run-3-samples.md.
COUNTS = {
    "converted": 538,
    "table of efficiencies": 60,
    "list of files": 18,
    "wrong cut": 1,
}


@needs_list
def test_every_key_of_pidcalib_is_handled(tmp_path: Path) -> None:
    found = save_pidcalib_samples(OWN, tmp_path / "all")
    listed = json.loads(OWN.read_text())
    assert found.keys() == listed.keys()
    if len(listed) == sum(COUNTS.values()):
        assert Counter(sample.outcome for sample in found.values()) == COUNTS
    for number, (name, sample) in enumerate(found.items()):
        assert bool(sample.content) != bool(sample.reason)
        assert "//" not in sample.definition
        if sample.content and number % SHARE == 0:
            loaded = load_sample(tmp_path / "all" / f"{name}.toml")
            own = listed[name]
            assert bool(loaded.sweights) == ("sweight_dir" in own), name
            assert bool(loaded.selection) == ("cuts" in own), name


@needs_list
def test_cuts_select_what_pidcalib_selects() -> None:
    """Each term of each cut, and the whole, on rows near the numbers of the cut."""
    rng = np.random.default_rng(1)
    # One of each form, and the numbers in it.
    texts = {}
    for own in json.loads(OWN.read_text()).values():
        cut = " and ".join(own.get("cuts", ()))
        if cut and cut.count("(") == cut.count(")"):
            texts.setdefault((len(cut) // 2000, cut.count("=="), cut[:12]), cut)
    assert len(texts) > 10
    for text in texts.values():
        translated = translate_cut([text])
        assert translated is not None
        cut = parse_cut(translated)
        numbers = {c for w in text.replace("(", " ").split() if (c := number(w))}
        rows = pd.DataFrame(
            {
                name: rng.choice(sorted({0.0, 1.0, *numbers}), 300)
                + rng.choice([-1.0, 0.0, 1.0], 300)
                for name in cut.names
            }
        )
        wanted = rows.index.isin(rows.query(text, engine="python").index)
        np.testing.assert_array_equal(cut.passes(rows), wanted)


def number(word: str) -> float | None:
    """The number that ends a word such as ">2930)", if there is one."""
    digits = word.strip("()<>=&| ")
    return float(digits) if digits.replace(".", "").isdigit() else None


@pytest.mark.filterwarnings("ignore")
def test_rows_and_weights_are_those_of_pidcalib(tmp_path: Path) -> None:
    """The same files through PIDCalib2's own code and through a converted key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its own dependencies
        utils = pytest.importorskip("pidcalib2.utils")
    rng, n = np.random.default_rng(1), 3000
    key, trees = "2024_WithUT_block1_v2-MagUp-K", ("A/DecayTree", "B/DecayTree")
    order = ["Dst_M - D_M", "D_M", "K_P"]
    (tmp_path / "weights").mkdir()
    for number in range(2):
        tuples, sweights = {}, {}
        for tree in trees:
            columns = {
                "K_P": np.exp(rng.uniform(np.log(4e3), np.log(9e4), n)),
                "K_ETA": rng.uniform(2, 4.8, n),
                "K_CHARGE": rng.choice([-1, 1], n),
                "K_INMUON": rng.random(n) < 0.8,
                "K_A_TIS": rng.random(n) < 0.5,
                "K_B_TIS": rng.random(n) < 0.5,
                "D_M": rng.uniform(1800, 1900, n),
                "Dst_M": rng.uniform(2000, 2050, n),
                "nLongTracks": rng.integers(10, 300, n),
                **{f"K_PID_{h}": rng.normal(0, 10, n) for h in ("K", "P", "MU", "E")},
            }
            weight = rng.normal(0.7, 1, n)
            weight[rng.random(n) < 0.1] = np.nan
            ranks = rng.permutation(n)
            tuples[tree] = columns
            sweights[tree] = {"sweight": weight[ranks], "order_index": ranks}
        write_trees(tmp_path / f"t{number}.root", tuples)
        write_trees(tmp_path / "weights" / f"t{number}_sweights.root", sweights)
    cut = MUON_CUT.replace("muprobe", "K").replace("mutag_MUONLLBG", "K_PID_E")
    cut = cut.replace("(Jpsi_M) >2930", "D_M >1810")
    entry: dict[str, Any] = {
        "files": [str(tmp_path / f"t{number}.root") for number in range(2)],
        "cuts": [cut.replace("(Jpsi_M) <3270", "D_M <1890")],
        "sweight_dir": f"{tmp_path / 'weights'}/",
        "tuple_names": {"K": ["A", "B"]},
        "probe_prefix": "K",
        "ordering_variables": order,
    }
    (tmp_path / "samples.json").write_text(json.dumps({key: entry}))
    definition = convert_pidcalib_sample(tmp_path / "samples.json", key)
    path = definition.save(tmp_path / "k.toml")
    files = entry["files"]
    dataset = build_dataset(path, files, sweights_from=tmp_path / "weights")
    mine = pd.concat([dataset.frame(part) for part in ("train", "validation", "test")])
    settings = {
        **dict.fromkeys(("file_list", "max_files", "cuts")),
        **{"sample": key.split("-")[0], "magnet": "up", "particle": "K"},
        "samples_file": str(tmp_path / "samples.json"),
        "pid_cuts": ["DLLK>5"],
        "bin_vars": ["P", "ETA", "nLongTracks"],
    }
    context = utils._prepare_calibration_loading(settings)
    parts = [utils._read_calibration_file(file, context) for file in files]
    for part in parts:
        utils.apply_cuts(part, context["calib_sample"]["cuts"])
    peer = pd.concat(parts)
    assert len(mine) == len(peer) > 500
    mine = mine.sort_values(["PID_K", "P"])
    peer = peer.astype({"DLLK": "f4", "P": "f4"}).sort_values(["DLLK", "P"])
    for own, other in (("PID_K", "DLLK"), ("P", "P"), ("weight", "sWeight")):
        np.testing.assert_array_equal(mine[own].to_numpy(), peer[other].to_numpy())
