"""Application: nothing depends on chunks, nothing is invented, nothing is lost."""

import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pytest
import uproot
from toy_generator import (
    ToyGenerator,
    location,
    make_card,
    make_sample,
    toy_onnx,
    with_self_test,
)

from pidgan.application.apply import apply
from pidgan.application.conditions import Conditions
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.tables import Source, describe_tree, read_columns, write_trees

ENTRIES = 3000
TARGETS = ["Kplus_DLLk", "Kplus_DLLp", "Kplus_pidgan_status"]


def kaon(**changes: Any) -> ToyGenerator:
    return ToyGenerator(card=make_card(**changes))


def pion() -> ToyGenerator:
    return ToyGenerator(card=make_card(species="pi+"), offset=-20.0)


def events(entries: int = ENTRIES, seed: int = 1) -> dict[str, Any]:
    """Branches of two tracks, inside the trained range."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, entries).astype(np.int32)
    data: dict[str, Any] = {
        "runNumber": rng.integers(1, 9, entries).astype(np.uint32),
        "eventNumber": np.arange(entries, dtype=np.uint64) * 7 + 1,
        "nPV": counts,
        "PVZ": ak.unflatten(rng.normal(size=counts.sum()), counts),
        "cov": rng.normal(size=(entries, 3)).astype(np.float32),
    }
    for track in ("Kplus", "piminus"):
        p = rng.uniform(5e3, 9e4, entries)
        eta = rng.uniform(2, 4.5, entries)
        phi = rng.uniform(-3, 3, entries)
        pt = p / np.cosh(eta)
        data |= {
            f"{track}_P": p,
            f"{track}_ETA": eta.astype(np.float32),
            f"{track}_PX": pt * np.cos(phi),
            f"{track}_PY": pt * np.sin(phi),
            f"{track}_PZ": p * np.tanh(eta),
            f"{track}_PT": pt,
            f"{track}_TRUEID": rng.choice([321, -321, 211, -211], entries).astype("i4"),
        }
    return data


def write(path: Path, data: dict[str, Any], tree: str = "DecayTree") -> Path:
    write_trees(path, {tree if path.suffix == ".root" else "": data})
    return path


def read(path: Path, branches: list[str] = TARGETS) -> pd.DataFrame:
    tree = None if path.suffix == ".parquet" else "DecayTree"
    return read_columns(Source(str(path), tree), branches)


@pytest.fixture
def ntuple(tmp_path: Path) -> Path:
    return write(tmp_path / "a.root", events())


def test_targets_are_those_of_the_generator(ntuple: Path, tmp_path: Path) -> None:
    data = events()
    summary = apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root", seed=3)
    frame = read(tmp_path / "b.root")
    keys = entry_keys(seed=3, track="Kplus", start=0, stop=ENTRIES)
    x = np.column_stack([data["Kplus_P"], data["Kplus_ETA"]]).astype(np.float32)
    y = kaon().generate(x, keyed_normal(keys, n_noise=3))
    np.testing.assert_array_equal(frame[TARGETS[:2]], y)
    assert frame.dtypes.tolist() == [np.float32, np.float32, np.int8]
    assert not frame["Kplus_pidgan_status"].any()
    assert summary.counts["Kplus"]["generated"] == summary.entries == ENTRIES
    assert summary.targets == {"Kplus": TARGETS}
    assert summary.mapping["Kplus"] == {"P": "Kplus_P [MeV]", "ETA": "Kplus_ETA"}
    assert json.loads(summary.to_json())["entries"] == ENTRIES
    assert "P = Kplus_P [MeV]" in summary.text()


@pytest.mark.parametrize("suffix", ["root", "parquet"])
def test_the_rest_of_the_file_survives(tmp_path: Path, suffix: str) -> None:
    data = events()
    path = write(tmp_path / f"a.{suffix}", data)
    before = path.read_bytes()
    output = tmp_path / f"b.{suffix}"
    apply({"Kplus": kaon(), "piminus": pion()}, path, output, chunk=700)
    assert path.read_bytes() == before
    flat = [n for n, values in data.items() if getattr(values, "ndim", 2) == 1]
    pd.testing.assert_frame_equal(read(path, flat), read(output, flat))
    if suffix == "root":
        with uproot.open({output: "DecayTree"}) as tree:
            assert tree["PVZ"].count_branch.name == "nPVZ"
            assert ak.array_equal(tree["PVZ"].array(), data["PVZ"])
            assert tree["cov"].typename == "float[3]"
            np.testing.assert_array_equal(tree["cov"].array(), data["cov"])


@pytest.mark.parametrize("key", [(), ("runNumber", "eventNumber")])
@pytest.mark.parametrize("chunk", [1000, 7777, 311])
def test_the_chunk_does_not_matter(
    ntuple: Path, tmp_path: Path, chunk: int, key: tuple[str, ...]
) -> None:
    tracks = {"Kplus": kaon(), "piminus": pion()}
    names = [*TARGETS, "piminus_DLLk"]
    apply(tracks, ntuple, tmp_path / "whole.root", chunk=10**6, key=key)
    apply(tracks, ntuple, tmp_path / "chunks.root", chunk=chunk, key=key)
    pd.testing.assert_frame_equal(
        read(tmp_path / "whole.root", names), read(tmp_path / "chunks.root", names)
    )


def test_splitting_files_in_order_does_not_matter(tmp_path: Path) -> None:
    data = events()
    write(tmp_path / "whole.root", data)
    for i, part in enumerate((slice(0, 500), slice(500, 1100), slice(1100, None))):
        piece = {name: values[part] for name, values in data.items()}
        write(tmp_path / f"in/part{9 + i}.root", piece)
    apply({"Kplus": kaon()}, tmp_path / "whole.root", tmp_path / "out.root")
    summary = apply({"Kplus": kaon()}, f"{tmp_path}/in/*.root", tmp_path / "out")
    assert [Path(p).name for p in summary.outputs] == [
        "part9.root",
        "part10.root",
        "part11.root",
    ]
    parts = pd.concat([read(Path(p)) for p in summary.outputs], ignore_index=True)
    pd.testing.assert_frame_equal(parts, read(tmp_path / "out.root"))


def test_the_trees_of_a_file_are_numbered_on(tmp_path: Path) -> None:
    data = events()
    write(tmp_path / "whole.root", data)
    halves = [
        {n: v[s] for n, v in data.items()} for s in (slice(900), slice(900, None))
    ]
    write_trees(tmp_path / "two.root", {"A": halves[0], "B": halves[1]})
    apply({"Kplus": kaon()}, tmp_path / "whole.root", tmp_path / "out.root")
    both = [f"{tmp_path}/two.root:A", f"{tmp_path}/two.root:B"]
    apply({"Kplus": kaon()}, both, tmp_path / "out2.root")
    found = [read_columns(Source(f"{tmp_path}/out2.root", t), TARGETS) for t in "AB"]
    whole = read(tmp_path / "out.root")
    pd.testing.assert_frame_equal(pd.concat(found, ignore_index=True), whole)


def test_a_key_survives_skims_and_another_order(ntuple: Path, tmp_path: Path) -> None:
    data = events()
    order = np.random.default_rng(5).permutation(ENTRIES)[:1234]
    write(tmp_path / "skim.root", {name: v[order] for name, v in data.items()})
    key = ("runNumber", "eventNumber")
    apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root", key=key)
    apply({"Kplus": kaon()}, tmp_path / "skim.root", tmp_path / "c.root", key=key)
    expected = read(tmp_path / "b.root").iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(read(tmp_path / "c.root"), expected)


def test_with_a_key_the_prefix_of_a_track_does_not_matter(tmp_path: Path) -> None:
    data = events()
    data |= {n.replace("Kplus", "h1"): v for n, v in data.items() if "Kplus" in n}
    path = write(tmp_path / "a.root", data)
    tracks = {track: kaon() for track in ("Kplus", "h1", "piminus")}
    apply(tracks, path, tmp_path / "b.root", key=("runNumber", "eventNumber"))
    names = [f"{track}_DLLk" for track in tracks]
    first, same, other = read(tmp_path / "b.root", names).to_numpy().T
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()
    apply(tracks, path, tmp_path / "c.root")
    first, same, _ = read(tmp_path / "c.root", names).to_numpy().T
    assert (first != same).all()


def test_a_key_branch_of_the_track_is_its_identity(tmp_path: Path) -> None:
    data = events()
    data["Kplus_KEY"] = np.arange(ENTRIES, dtype=np.int32)
    path = write(tmp_path / "a.root", data)
    scaled = data | {"Kplus_P": data["Kplus_P"] * 1.001}
    write(tmp_path / "scaled.root", scaled)
    key = ("eventNumber", "{track}_KEY")
    apply({"Kplus": kaon()}, path, tmp_path / "b.root", key=key)
    apply({"Kplus": kaon()}, tmp_path / "scaled.root", tmp_path / "c.root", key=key)
    noise = [
        read(tmp_path / f"{n}.root", ["Kplus_DLLk"])["Kplus_DLLk"].to_numpy()
        - location(np.column_stack([d["Kplus_P"], d["Kplus_ETA"]]))[:, 0]
        for n, d in (("b", data), ("c", scaled))
    ]
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-4)


def test_seed_and_track_change_the_noise(ntuple: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        apply({"Kplus": kaon()}, ntuple, tmp_path / f"s{seed}.root", seed=seed)
    first, second = (read(tmp_path / f"s{s}.root")["Kplus_DLLk"] for s in (1, 2))
    assert (first != second).mean() > 0.99


def test_replace_keeps_place_and_type(tmp_path: Path) -> None:
    data = events()
    data = {"Kplus_DLLk": np.zeros(ENTRIES)} | data
    path = write(tmp_path / "a.root", data)
    apply({"Kplus": kaon()}, path, tmp_path / "b.root", mode="replace")
    types = describe_tree(Source(f"{tmp_path}/b.root", "DecayTree")).branches
    assert next(iter(types)) == "Kplus_DLLk"
    assert list(types)[-2:] == ["Kplus_DLLp", "Kplus_pidgan_status"]
    assert types["Kplus_DLLk"] == "double"
    assert read(tmp_path / "b.root")["Kplus_DLLk"].std() > 0.5


@pytest.mark.parametrize("suffix", ["root", "parquet"])
def test_a_flag_is_replaced_by_the_numbers_that_are_generated(
    tmp_path: Path, suffix: str
) -> None:
    data = events()
    data["Kplus_P"][:5] = np.nan
    path = write(tmp_path / f"a.{suffix}", data)
    data["Kplus_DLLk"] = np.arange(ENTRIES) % 2 == 0
    flags = write(tmp_path / f"b.{suffix}", data)
    apply({"Kplus": kaon()}, path, tmp_path / f"new.{suffix}")
    with pytest.warns(PidganWarning, match="flags as numbers: 'Kplus_DLLk'"):
        apply({"Kplus": kaon()}, flags, tmp_path / f"old.{suffix}", mode="replace")
    new, old = (read(tmp_path / f"{name}.{suffix}")[TARGETS] for name in ("new", "old"))
    assert old["Kplus_DLLk"].isna().sum() == 5
    pd.testing.assert_frame_equal(old, new)


def test_append_never_replaces(tmp_path: Path) -> None:
    path = write(tmp_path / "a.root", events() | {"Kplus_DLLk": np.zeros(ENTRIES)})
    with pytest.raises(NtupleError, match=r"has branches 'Kplus_DLLk' already; use"):
        apply({"Kplus": kaon()}, path, tmp_path / "b.root")
    apply({"Kplus": kaon()}, path, tmp_path / "b.root", suffix="_gen")
    names = [f"{name}_gen" for name in TARGETS]
    assert not read(tmp_path / "b.root", ["Kplus_DLLk"]).to_numpy().any()
    assert read(tmp_path / "b.root", names)["Kplus_DLLk_gen"].std() > 0.5


@pytest.mark.parametrize("suffix", ["root", "parquet"])
def test_a_friend_is_the_same_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", events())
    before = path.read_bytes()
    apply({"Kplus": kaon()}, path, tmp_path / f"b.{suffix}")
    apply({"Kplus": kaon()}, path, tmp_path / f"f.{suffix}", mode="friend", chunk=501)
    assert path.read_bytes() == before
    tree = None if suffix == "parquet" else "DecayTree"
    found = describe_tree(Source(f"{tmp_path}/f.{suffix}", tree))
    assert list(found.branches) == TARGETS
    friend, full = read(tmp_path / f"f.{suffix}"), read(tmp_path / f"b.{suffix}")
    pd.testing.assert_frame_equal(friend, full)


def test_what_is_flagged_and_what_is_nan(tmp_path: Path) -> None:
    data = events()
    p = data["Kplus_P"]
    p[:6] = [np.nan, np.inf, 2000.0, 2e5, 20e3, 20e3]
    data["Kplus_ETA"][4] = 6.0
    card = make_card(sample=make_sample(fiducial="P > 1e4"))
    path = write(tmp_path / "a.root", data)
    summary = apply({"Kplus": ToyGenerator(card=card)}, path, tmp_path / "b.root")
    frame = read(tmp_path / "b.root")
    status = frame["Kplus_pidgan_status"].to_numpy()
    assert status[:6].tolist() == [2, 2, 1 + 8, 1, 1, 0]
    missing = np.arange(ENTRIES) < 2
    assert frame["Kplus_DLLk"].isna().to_numpy().tolist() == missing.tolist()
    counts = summary.counts["Kplus"]
    assert counts["missing_condition"] == 2
    assert counts["outside_range"] == 3
    assert counts["no_bundle"] == 0
    assert counts["generated"] == ENTRIES - 2
    assert counts["outside_fiducial"] == np.count_nonzero(p[2:] <= 1e4)
    assert counts["outside_fiducial"] > 100


def test_the_species_of_one_bundle(ntuple: Path, tmp_path: Path) -> None:
    summary = apply(
        {"Kplus": kaon()}, ntuple, tmp_path / "b.root", species_from="TRUEID"
    )
    frame = read(tmp_path / "b.root", [*TARGETS, "Kplus_TRUEID"])
    is_kaon = frame["Kplus_TRUEID"].abs() == 321
    assert (frame["Kplus_DLLk"].notna() == is_kaon).all()
    assert (frame["Kplus_pidgan_status"] == np.where(is_kaon, 0, 4)).all()
    assert summary.counts["Kplus"]["no_bundle"] == np.count_nonzero(~is_kaon)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """A directory with a kaon and a pion bundle."""
    pytest.importorskip("onnx")
    directory = tmp_path / "bundles"
    directory.mkdir()
    for name, species in (("kaon", "K+"), ("pion", "pi+")):
        card = with_self_test(make_card(species=species))
        (directory / f"{name}.onnx").write_bytes(toy_onnx(card))
    return directory


def test_a_directory_of_bundles(ntuple: Path, tmp_path: Path, bundles: Path) -> None:
    summary = apply(
        {"Kplus": bundles}, ntuple, tmp_path / "b.root", species_from="TRUEID"
    )
    apply({"Kplus": bundles / "kaon.onnx"}, ntuple, tmp_path / "c.root")
    assert summary.counts["Kplus"]["generated"] == ENTRIES
    assert [b["species"] for b in summary.bundles["Kplus"]] == ["K+", "pi+"]
    # Both bundles hold the same function and the noise is that of the entry.
    pd.testing.assert_frame_equal(read(tmp_path / "b.root"), read(tmp_path / "c.root"))
    with pytest.raises(
        NtupleError, match="is a directory of bundles; say which branch"
    ):
        apply({"Kplus": bundles}, ntuple, tmp_path / "d.root")
    with pytest.raises(NtupleError, match="no branch 'Kplus_TRUEI', needed for Kplus"):
        apply({"Kplus": bundles}, ntuple, tmp_path / "d.root", species_from="TRUEI")


def test_bundles_that_clash_are_named(
    ntuple: Path, tmp_path: Path, bundles: Path
) -> None:
    sample = make_sample(data_taking={"year": "2017"})
    card = with_self_test(make_card(sample=sample))
    (bundles / "kaon17.onnx").write_bytes(toy_onnx(card))
    with pytest.raises(NtupleError, match=r"several .* K\+.*kaon.onnx.*kaon17.*2017"):
        apply({"Kplus": bundles}, ntuple, tmp_path / "b.root", species_from="TRUEID")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NtupleError, match="holds no bundle"):
        apply({"Kplus": empty}, ntuple, tmp_path / "b.root", species_from="TRUEID")


def test_bundles_of_both_charges_go_by_sign(ntuple: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    directory = tmp_path / "charges"
    directory.mkdir()
    for name, low in (("K+", -200), ("K-", -100)):
        targets = [v.model_copy() for v in make_card().targets]
        targets[0] = targets[0].model_copy(update={"range": (low, 200)})
        card = make_card(species=name, targets=tuple(targets))
        (directory / f"{name}.onnx").write_bytes(toy_onnx(with_self_test(card)))
    summary = apply(
        {"Kplus": directory}, ntuple, tmp_path / "b.root", species_from="TRUEID"
    )
    kaons = np.count_nonzero(np.abs(events()["Kplus_TRUEID"]) == 321)
    assert summary.counts["Kplus"]["generated"] == kaons


@pytest.mark.parametrize(
    ("present", "mapping"),
    [
        (("PX", "PY", "PZ"), ("p_from_px_py_pz", "eta_from_px_py_pz")),
        (("P", "PT"), ("Kplus_P", "eta_from_p_pt")),
        (("PT", "ETA"), ("p_from_pt_eta", "Kplus_ETA")),
    ],
)
def test_conditions_are_derived(
    ntuple: Path, tmp_path: Path, present: tuple[str, ...], mapping: tuple[str, ...]
) -> None:
    data = events()
    kept = {f"Kplus_{name}": data[f"Kplus_{name}"] for name in present}
    write(tmp_path / "d.root", kept)
    summary = apply({"Kplus": kaon()}, tmp_path / "d.root", tmp_path / "e.root")
    apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root")
    found = summary.mapping["Kplus"]
    assert found["P"].startswith(mapping[0])
    assert found["ETA"].startswith(mapping[1])
    np.testing.assert_allclose(
        read(tmp_path / "e.root"), read(tmp_path / "b.root"), atol=1e-3
    )


@pytest.mark.parametrize(
    ("names", "branches", "mapping"),
    [
        (
            {"PT": "Kplus_pt", "ETA": "Kplus_eta"},
            {},
            ("p_from_pt_eta(Kplus_pt, Kplus_eta)", "Kplus_eta"),
        ),
        ({"PT": "pt", "ETA": "eta"}, {}, ("p_from_pt_eta(pt, eta)", "eta")),
        (
            {"PX": "Kplus_px", "PY": "Kplus_py", "PZ": "Kplus_pz"},
            {},
            ("p_from_px_py_pz(Kplus_px, Kplus_py, Kplus_pz)", "eta_from_px_py_pz"),
        ),
        (
            {"PT": "Muon_pt", "ETA": "Muon_eta"},
            {"PT": "Muon_pt", "Kplus.ETA": "Muon_eta"},
            ("p_from_pt_eta(Muon_pt, Muon_eta)", "Muon_eta"),
        ),
        # The part that is named wins over the one that would be found.
        (
            {"PT": "{track}_TRUEPT", "ETA": "Kplus_ETA"},
            {"PT": "{track}_TRUEPT"},
            ("p_from_pt_eta(Kplus_TRUEPT, Kplus_ETA)", "Kplus_ETA"),
        ),
    ],
)
def test_layouts_in_lower_case_give_the_momentum(
    ntuple: Path,
    tmp_path: Path,
    names: dict[str, str],
    branches: dict[str, str],
    mapping: tuple[str, str],
) -> None:
    data = events()
    renamed = {
        new.format(track="Kplus"): data[f"Kplus_{old}"] / (1 if old == "ETA" else 1e3)
        for old, new in names.items()
    }
    if "{track}_TRUEPT" in branches.values():
        renamed |= {"Kplus_PT": data["Kplus_P"]}
    write(tmp_path / "d.root", renamed)
    conditions = Conditions(branches=branches, units={"P": "GeV"})
    found = apply(
        {"Kplus": kaon()},
        tmp_path / "d.root",
        tmp_path / "e.root",
        conditions=conditions,
    ).mapping["Kplus"]
    assert found["P"].removesuffix(" [GeV]") == mapping[0]
    assert found["ETA"].startswith(mapping[1])
    apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root")
    np.testing.assert_allclose(
        read(tmp_path / "e.root"), read(tmp_path / "b.root"), atol=1e-3
    )


def test_a_named_branch_that_is_not_used_is_refused(
    ntuple: Path, tmp_path: Path
) -> None:
    for branches, message in (
        ({"PT": "Kplus_PT"}, "PT=Kplus_PT, named for Kplus, is not used.* P = Kplus"),
        ({"PT": "Kplus_pt"}, "no branch 'Kplus_pt', named .*; closest: 'Kplus_PT'"),
    ):
        conditions = Conditions(branches=branches)
        with pytest.raises(NtupleError, match=message):
            apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root", conditions=conditions)


def test_branches_and_units_are_overridden(ntuple: Path, tmp_path: Path) -> None:
    data = events()
    renamed = data | {"Kplus_TRACK_P": data["Kplus_P"] / 1e3}
    del renamed["Kplus_P"]
    path = write(tmp_path / "r.root", renamed)
    summary = apply(
        {"Kplus": kaon(), "piminus": pion()},
        path,
        tmp_path / "s.root",
        conditions=Conditions(
            branches={"Kplus.P": "{track}_TRACK_P"}, units={"Kplus.P": "GeV"}
        ),
    )
    assert summary.mapping["Kplus"]["P"] == "Kplus_TRACK_P [GeV]"
    assert summary.mapping["piminus"]["P"] == "piminus_P [MeV]"
    apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root")
    np.testing.assert_allclose(
        read(tmp_path / "s.root"), read(tmp_path / "b.root"), atol=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branches": {"P": "Kplus_p"}}, "no branch 'Kplus_p', .*; closest: 'Kplus_P'"),
        ({"branches": {"p": "Kplus_P"}}, "branch p=Kplus_P: no such condition; .*ETA"),
        ({"units": {"K.P": "GeV"}}, "unit K.P=GeV: no such condition; .*Kplus.P"),
        ({"units": {"P": "TeV"}}, "unit of P of Kplus is 'TeV', expected MeV or GeV"),
        ({"units": {"ETA": "GeV"}}, "unit of ETA of Kplus is 'GeV', expected 1"),
        ({"units": {"P": "GeV"}}, "looks like MeV where GeV .* give --unit P=MeV"),
    ],
)
def test_wrong_mappings_are_named(
    ntuple: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    conditions = Conditions(**arguments)
    with pytest.raises(NtupleError, match=message):
        apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root", conditions=conditions)
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]


def test_a_wrong_key_is_named(ntuple: Path, tmp_path: Path) -> None:
    with pytest.raises(NtupleError, match=r"'runnumber', .*; closest: 'runNumber'"):
        apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root", key=("runnumber",))
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]


def test_gev_where_mev_is_meant_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.root", events() | {"Kplus_P": events()["Kplus_P"] / 1e3})
    with pytest.raises(NtupleError, match=r"'Kplus_P'.*looks like GeV.*--unit P=GeV"):
        apply({"Kplus": kaon()}, path, tmp_path / "b.root")
    with pytest.raises(NtupleError, match="looks like GeV"):
        apply({"Kplus": kaon()}, path, tmp_path / "b.root", dry_run=True)


def test_a_condition_without_branch_names_what_was_tried(tmp_path: Path) -> None:
    path = write(tmp_path / "a.root", {"Kplus_Q": np.ones(5), "Kplus_ETA": np.ones(5)})
    with pytest.raises(NtupleError, match=r"tried Kplus_P, P; closest: .*--branch P="):
        apply({"Kplus": kaon()}, path, tmp_path / "b.root")


def test_only_branches_that_hold_numbers_are_offered(tmp_path: Path) -> None:
    names = {"K_name": np.array(["kaon"] * 5), "K_nam": np.ones(5), "ETA": np.ones(5)}
    path = write(tmp_path / "a.root", names)
    conditions = Conditions(branches={"P": "K_names"})
    with pytest.raises(NtupleError, match=r"no branch 'K_names'.*; closest: 'K_nam'$"):
        apply({"K": kaon()}, path, tmp_path / "b.root", conditions=conditions)


def test_dry_run_writes_nothing(ntuple: Path, tmp_path: Path) -> None:
    summary = apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root", dry_run=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]
    assert summary.dry_run
    assert summary.outputs == (str(tmp_path / "b.root"),)
    assert "would write" in summary.text()


def test_a_rerun_skips_what_is_finished(tmp_path: Path) -> None:
    for i in (1, 2):
        write(tmp_path / f"in/a{i}.root", events(500, seed=i))
    files, out = f"{tmp_path}/in/*.root", tmp_path / "out"
    first = apply({"Kplus": kaon()}, files, out)
    (out / "a2.root").unlink()
    kept = (out / "a1.root").stat().st_mtime_ns
    second = apply({"Kplus": kaon()}, files, out)
    assert first.skipped == ()
    assert second.skipped == (str(out / "a1.root"),)
    assert "skipped, finished before:" in second.text()
    assert (out / "a1.root").stat().st_mtime_ns == kept
    assert second.counts == first.counts
    with pytest.raises(NtupleError, match=r"a1.root exists and differs in seed; "):
        apply({"Kplus": kaon()}, files, out, seed=2)
    apply({"Kplus": kaon()}, files, out, seed=2, overwrite=True)
    manifest = json.loads((out / "a2.root.json").read_text())
    assert manifest["request"]["seed"] == 2
    assert manifest["request"]["input"]["trees"] == [["DecayTree", 500, 500]]
    assert manifest["counts"]["Kplus"]["generated"] == 500
    assert manifest["versions"]["uproot"] == uproot.__version__


def test_outputs_that_exist_are_safe(ntuple: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "b.root"
    foreign.write_text("something else")
    with pytest.raises(NtupleError, match=r"b.root exists; choose another name"):
        apply({"Kplus": kaon()}, ntuple, foreign)
    with pytest.raises(NtupleError, match="is an input; an input is never changed"):
        apply({"Kplus": kaon()}, ntuple, ntuple, overwrite=True)
    with pytest.raises(NtupleError, match="is an input; an input is never changed"):
        apply({"Kplus": kaon()}, ntuple, tmp_path, overwrite=True)
    (tmp_path / "c.root.json").write_text("[]")
    with pytest.raises(NtupleError, match="is not the manifest of an output"):
        apply({"Kplus": kaon()}, ntuple, tmp_path / "c.root")


@pytest.mark.parametrize(
    "address", ["root://eos.example//a", "http://x.example/b.root"]
)
def test_outputs_are_local(ntuple: Path, tmp_path: Path, address: str) -> None:
    """Named before the bundle is looked for, and before folders are made."""
    for output in (address, Path(address)):
        with pytest.raises(NtupleError, match=r"is an address, and outputs are local"):
            apply({"Kplus": "no such bundle"}, ntuple, output)
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]


def test_names_of_outputs_are_checked(ntuple: Path, tmp_path: Path) -> None:
    write(tmp_path / "x/a.root", events(10))
    files = [ntuple, tmp_path / "x/a.root"]
    with pytest.raises(NtupleError, match="expected a directory for 2 files"):
        apply({"Kplus": kaon()}, files, tmp_path / "b.root")
    with pytest.raises(NtupleError, match="have the same name: both would be"):
        apply({"Kplus": kaon()}, files, tmp_path / "out")
    with pytest.raises(NtupleError, match="expected the same file extension as"):
        apply({"Kplus": kaon()}, ntuple, tmp_path / "b.parquet")


def test_empty_trees(tmp_path: Path) -> None:
    write(tmp_path / "in/a1.root", events(0))
    with pytest.raises(NtupleError, match="got 0 entries, expected at least 1"):
        apply({"Kplus": kaon()}, tmp_path / "in/a1.root", tmp_path / "b.root")
    write(tmp_path / "in/a2.root", events(10))
    with pytest.warns(PidganWarning, match=r"a1.root:DecayTree has 0 entries"):
        apply({"Kplus": kaon()}, f"{tmp_path}/in/*.root", tmp_path / "out")
    assert len(read(tmp_path / "out/a2.root")) == 10


def test_what_cannot_be_copied_is_offered_as_a_friend(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "root_files" / "vector_of_vectors.root"
    generator = kaon()
    with pytest.raises(NtupleError, match="no branch for condition P of K"):
        apply({"K": generator}, f"{path}:t", tmp_path / "b.root")
    with uproot.recreate(tmp_path / "a.root") as file:
        types = {"K_P": np.float64, "K_ETA": np.float64, "deep": "var * 3 * float32"}
        file.mktree("T", types)
        tree = file.mktree("U", {"K_P": np.float64, "K_ETA": np.float64})
        tree.extend({"K_P": np.full(5, 2e4), "K_ETA": np.full(5, 3.0)})
    both = [f"{tmp_path}/a.root:T", f"{tmp_path}/a.root:U"]
    with pytest.raises(NtupleError, match=r"cannot write 'deep' .*--mode friend"):
        apply({"K": generator}, both, tmp_path / "b.root")
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]
    with pytest.warns(PidganWarning, match="has 0 entries"):
        apply({"K": generator}, both, tmp_path / "b.root", mode="friend")


def test_an_interrupt_leaves_nothing_behind(ntuple: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root", chunk=500, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]


def test_damage_within_a_file_leaves_nothing_behind(
    ntuple: Path, tmp_path: Path
) -> None:
    content = bytearray(ntuple.read_bytes())
    with uproot.open({ntuple: "DecayTree"}) as tree:
        place = tree["piminus_PZ"].member("fBasketSeek")[0] + 100
    content[place : place + 2000] = bytes(2000)
    ntuple.write_bytes(content)
    with pytest.raises(NtupleError, match=r"a.root:DecayTree cannot be read"):
        apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root")
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    for i in (1, 2):
        write(tmp_path / f"in/a{i}.root", events(500, seed=i))
    seen: list[tuple[int, int]] = []
    apply(
        {"Kplus": kaon()},
        f"{tmp_path}/in/*.root",
        tmp_path / "out",
        chunk=200,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(n, 1000) for n in (0, 200, 400, 500, 700, 900, 1000)]


def test_misuse_is_named(ntuple: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode is 'add'"):
        apply({"Kplus": kaon()}, ntuple, tmp_path / "b.root", mode="add")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tracks is empty"):
        apply({}, ntuple, tmp_path / "b.root")
