"""Copies of files with branches added: nothing else changes."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import hist
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import uproot

from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.copying import check_writable, copy_file
from pidgan.files.tables import BranchType, Source, read_columns, write_trees
from pidgan.files.trees import Addition

ENTRIES = 1000

ROOT_FILES = Path(__file__).parents[1] / "root_files"


def branches(*, jagged: bool = True) -> dict[str, object]:
    """One branch of each type that a TTree can have and uproot can write."""
    rng = np.random.default_rng(1)
    data: dict[str, object] = {
        f"s_{kind}": rng.integers(0, 100, ENTRIES).astype(kind)
        for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
    }
    data["flag"] = rng.random(ENTRIES) < 0.5
    data["odd name[*]"] = rng.normal(size=ENTRIES)
    data["D0.PX"] = rng.normal(size=ENTRIES)
    data["fixed"] = rng.normal(size=(ENTRIES, 2, 3))
    data["fixed_i1"] = rng.integers(0, 9, (ENTRIES, 2)).astype(np.int8)
    if jagged:
        counts = rng.integers(0, 3, ENTRIES).astype(np.int32)
        total = int(counts.sum())
        data["nPV"] = counts
        for name, content in {
            "PVZ": rng.normal(size=total).astype(np.float32),
            "PVCHI2": rng.normal(size=total),
            "PVKEY": rng.integers(0, 9, total),
        }.items():
            data[name] = ak.unflatten(content, counts)
        data["name"] = ak.Array([f"B{i % 7}" for i in range(ENTRIES)])
    return data


def write_rich_file(path: Path) -> None:
    """Write a file with two trees in directories, and histograms."""
    data = branches()
    types = {
        name: np.dtype((values.dtype, values.shape[1:]))
        if isinstance(values, np.ndarray)
        else ak.type(values).content
        for name, values in data.items()
    }
    with uproot.recreate(path) as file:
        tree = file.mktree(
            "D/DecayTree", types, title="a title", counter_name=lambda name: "nPV"
        )
        for first in range(0, ENTRIES, 300):
            tree.extend({k: v[first : first + 300] for k, v in data.items()})
        file.mktree("Lumi", {"lumi": np.float64}).extend({"lumi": np.ones(3)})
        file["D/hist"] = (
            hist.Hist.new.Reg(10, 0, 1).Double().fill(np.linspace(0, 1, 99))
        )
        file["note"] = "a text"


def shape(path: str | Path, name: str) -> dict[str, tuple[str, str, str | None]]:
    """Return type on disk, leaf class and counter of each branch of a TTree."""
    with uproot.open({str(path): name}) as tree:
        return {
            b.name: (
                b.typename,
                b.member("fLeaves")[0].classname,
                b.count_branch and b.count_branch.name,
            )
            for b in tree.branches
        }


def twice(first: int, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    values = arrays["s_f4"]
    return {"twice": 2 * values, "entry": first + np.arange(len(values))}


def typed(**types: object) -> dict[str, BranchType]:
    return {name: BranchType(np.dtype(kind)) for name, kind in types.items()}


def addition(source: Source, **types: object) -> Addition:
    new = typed(**(types or {"twice": np.float32, "entry": np.int64}))
    return Addition(source=source, needed=("s_f4",), types=new, compute=twice)


@pytest.mark.parametrize("chunk", [77, 300, 10**6])
def test_every_other_branch_keeps_values_and_type(tmp_path: Path, chunk: int) -> None:
    old, new = tmp_path / "a.root", tmp_path / "b.root"
    write_rich_file(old)
    before = old.read_bytes()
    source = Source(str(old), "D/DecayTree")
    copy_file([addition(source)], new, chunk=chunk)
    assert old.read_bytes() == before
    added = {
        "twice": ("float", "TLeafF", None),
        "entry": ("int64_t", "TLeafL", None),
    }
    assert shape(new, "D/DecayTree") == shape(old, "D/DecayTree") | added
    with (
        uproot.open({str(old): "D/DecayTree"}) as tree,
        uproot.open({str(new): "D/DecayTree"}) as copy,
    ):
        assert copy.title == tree.title
        assert list(copy.keys()) == [*tree.keys(), *added]
        for name, branch in tree.items():
            assert ak.array_equal(branch.array(), copy[name].array())
        np.testing.assert_array_equal(copy["entry"].array(), np.arange(ENTRIES))
        np.testing.assert_array_equal(copy["twice"].array(), 2 * tree["s_f4"].array())


def test_other_trees_and_objects_come_along(tmp_path: Path) -> None:
    old, new = tmp_path / "a.root", tmp_path / "b.root"
    write_rich_file(old)
    copy_file([addition(Source(str(old), "D/DecayTree"))], new)
    with uproot.open(old) as before, uproot.open(new) as after:
        assert after.classnames(cycle=False) == before.classnames(cycle=False)
        np.testing.assert_array_equal(
            after["D/hist"].values(), before["D/hist"].values()
        )
        assert str(after["note"]) == "a text"
        assert after["Lumi/lumi"].array().tolist() == [1, 1, 1]


def test_a_friend_holds_the_additions_only(tmp_path: Path) -> None:
    old, new = tmp_path / "a.root", tmp_path / "b.root"
    write_rich_file(old)
    copy_file([addition(Source(str(old), "D/DecayTree"))], new, keep=False)
    assert list(shape(new, "D/DecayTree")) == ["twice", "entry"]
    with uproot.open(new) as file:
        assert file.keys(cycle=False) == ["D", "D/DecayTree"]


def test_a_branch_that_is_replaced_keeps_its_place_and_type(tmp_path: Path) -> None:
    old, new = tmp_path / "a.root", tmp_path / "b.root"
    write_rich_file(old)
    source = Source(str(old), "D/DecayTree")
    replacement = Addition(
        source=source,
        needed=("s_f8",),
        types=typed(s_f8=np.float32),
        compute=lambda first, arrays: {"s_f8": arrays["s_f8"] + 1},
    )
    copy_file([replacement], new)
    assert shape(new, "D/DecayTree") == shape(old, "D/DecayTree")
    before = read_columns(source, ["s_f8"])
    after = read_columns(Source(str(new), "D/DecayTree"), ["s_f8"])
    pd.testing.assert_frame_equal(after, before + 1)


@pytest.mark.parametrize("name", ["s_i4", "fixed", "PVZ"])
def test_a_branch_that_cannot_hold_the_values_is_not_replaced(
    tmp_path: Path, name: str
) -> None:
    write_rich_file(tmp_path / "a.root")
    source = Source(str(tmp_path / "a.root"), "D/DecayTree")
    wrong = addition(source, **{name: np.float32})
    with pytest.raises(NtupleError, match=f"branch '{name}' cannot be replaced"):
        copy_file([wrong], tmp_path / "b.root")
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]


@pytest.mark.parametrize("ending", ["root", "parquet", "npz"])
def test_a_flag_is_replaced_by_numbers_that_may_be_missing(
    tmp_path: Path, ending: str
) -> None:
    old, new = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    columns = {"x": np.arange(5.0), "isMuon": np.array([True, False] * 2 + [True])}
    write_trees(old, {"T": columns})
    tree = "T" if ending == "root" else None
    source = Source(str(old), tree)
    values = np.array([1, 0, np.nan, 1, 0], dtype=np.float32)
    flags = Addition(
        source=source,
        needed=("x",),
        types=typed(isMuon=np.float32),
        compute=lambda first, arrays: {
            "isMuon": values[first : first + len(arrays["x"])]
        },
    )
    with pytest.warns(PidganWarning, match=r"flags as numbers: 'isMuon' \(bool\)"):
        copy_file([flags], new, chunk=2)
    after = read_columns(Source(str(new), tree), ["x", "isMuon"])
    np.testing.assert_array_equal(after["isMuon"], values)
    np.testing.assert_array_equal(after["x"], columns["x"])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("chunk", [77, 10**6])
def test_rntuple(tmp_path: Path, chunk: int, keep: bool) -> None:
    old, new = tmp_path / "a.root", tmp_path / "b.root"
    data = {k: v for k, v in branches().items() if "[" not in k and "." not in k}
    data["deep"] = ak.Array([[[1.0, i], []] for i in range(ENTRIES)])
    with uproot.recreate(old) as file:
        file.mkrntuple("D/DecayTree", data)
    source = Source(str(old), "D/DecayTree")
    check_writable(source)
    copy_file([addition(source)], new, keep=keep, chunk=chunk)
    with (
        uproot.open({str(old): "D/DecayTree"}) as tree,
        uproot.open({str(new): "D/DecayTree"}) as copy,
    ):
        kept = tree.typenames() if keep else {}
        types = {"twice": "float", "entry": "std::int64_t"}
        assert copy.typenames() == kept | types
        assert copy.num_entries == ENTRIES
        for name in kept:
            assert ak.array_equal(tree[name].array(), copy[name].array())


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("chunk", [77, 10**6])
def test_parquet(tmp_path: Path, chunk: int, keep: bool) -> None:
    old, new = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_trees(old, {"": branches()})
    copy_file([addition(Source(str(old)))], new, keep=keep, chunk=chunk)
    before, after = pq.read_table(old), pq.read_table(new)
    if keep:
        assert after.select(before.schema.names).equals(before)
    assert after.schema.names[-2:] == ["twice", "entry"]
    assert len(after.schema.names) == 2 + keep * len(before.schema.names)
    np.testing.assert_array_equal(after["entry"].to_numpy(), np.arange(ENTRIES))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("chunk", [77, 10**6])
def test_npz(tmp_path: Path, chunk: int, keep: bool) -> None:
    old, new = tmp_path / "a.npz", tmp_path / "b.npz"
    write_trees(old, {"": branches(jagged=False)})
    copy_file([addition(Source(str(old)))], new, keep=keep, chunk=chunk)
    with np.load(old) as before, np.load(new) as after:
        kept = list(before) if keep else []
        assert list(after) == [*kept, "twice", "entry"]
        for name in kept:
            np.testing.assert_array_equal(after[name], before[name])
        np.testing.assert_array_equal(after["entry"], np.arange(ENTRIES))
        np.testing.assert_array_equal(after["twice"], 2 * before["s_f4"])


def test_entries_of_different_lengths_are_not_for_npz(tmp_path: Path) -> None:
    with pytest.raises(NtupleError, match="'x' would have entries of different len"):
        write_trees(tmp_path / "a.npz", {"": {"x": ak.Array([[1.0], []])}})
    write_trees(tmp_path / "a.npz", {"": {"s_f4": np.ones(3)}})
    source = Source(str(tmp_path / "a.npz"))
    types = {"x": BranchType(np.dtype(float), (None,))}
    jagged = Addition(source=source, needed=("s_f4",), types=types, compute=twice)
    with pytest.raises(NtupleError, match="'x' would have entries of different len"):
        copy_file([jagged], tmp_path / "b.npz")


@pytest.mark.parametrize("kind", ["ttree", "rntuple", "parquet", "npz"])
def test_an_empty_tree_stays_empty(tmp_path: Path, kind: str) -> None:
    data = {k: v[:0] for k, v in branches().items() if "[" not in k}
    suffix = kind if kind in ("parquet", "npz") else "root"
    if kind == "npz":
        data = {name: v for name, v in data.items() if isinstance(v, np.ndarray)}
    old, new = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    if kind == "rntuple":
        with uproot.recreate(old) as file:
            file.mkrntuple("T", {k: v for k, v in data.items() if "." not in k})
    else:
        write_trees(old, {"T": data})
    source = Source(str(old), "T" if suffix == "root" else None)
    copy_file([addition(source)], new)
    with pytest.raises(NtupleError, match="is empty"):
        read_columns(Source(str(new), source.tree), ["twice"])


def test_several_trees_of_one_file(tmp_path: Path) -> None:
    data = {"s_f4": np.ones(5, np.float32)}
    write_trees(tmp_path / "a.root", {"KP/T": data, "KM/T": data})
    sources = [Source(str(tmp_path / "a.root"), name) for name in ("KM/T", "KP/T")]
    copy_file([addition(source) for source in sources], tmp_path / "b.root")
    for source in sources:
        copy = Source(str(tmp_path / "b.root"), source.tree)
        assert read_columns(copy, ["twice"])["twice"].tolist() == [2] * 5


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    write_rich_file(tmp_path / "a.root")

    def interrupt(first: int, arrays: Mapping[str, np.ndarray]) -> Mapping[str, object]:
        if first > 0:
            raise KeyboardInterrupt
        return twice(first, arrays)

    source = Source(str(tmp_path / "a.root"), "D/DecayTree")
    types = typed(twice=np.float32)
    stopped = Addition(source=source, needed=("s_f4",), types=types, compute=interrupt)
    with pytest.raises(KeyboardInterrupt):
        copy_file([stopped], tmp_path / "b.root", chunk=100)
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]


def copy_of(name: str, tree: str, needed: str, output: Path, *, keep: bool) -> None:
    """Copy one of the files that ROOT wrote, with a branch `entry`."""

    def number(first: int, arrays: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        return {"entry": first + np.arange(len(next(iter(arrays.values()))))}

    entry = Addition(
        source=Source(str(ROOT_FILES / name), tree),
        needed=(needed,) if needed else (),
        types=typed(entry=np.int64),
        compute=number,
    )
    copy_file([entry], output, keep=keep, chunk=17)


@pytest.mark.parametrize(
    ("name", "tree", "needed", "counters"),
    [
        ("all_types.root", "sample", "i4", []),
        ("unsigned_counters.root", "tree", "nMuon", ["nnJet", "nnMuon"]),
    ],
)
def test_files_of_root_are_copied(
    tmp_path: Path, name: str, tree: str, needed: str, counters: list[str]
) -> None:
    copy_of(name, tree, needed, tmp_path / "b.root", keep=True)
    with (
        uproot.open({ROOT_FILES / name: tree}) as old,
        uproot.open({tmp_path / "b.root": tree}) as new,
    ):
        assert sorted(set(new.keys()) - set(old.keys())) == ["entry", *counters]
        for branch, values in old.items():
            assert new[branch].typename == values.typename
            assert ak.array_equal(values.array(), new[branch].array())


@pytest.mark.parametrize(
    ("name", "tree", "needed", "refused"),
    [
        ("leaflist.root", "tree", "", "'leaflist'"),
        (
            "vector_of_vectors.root",
            "t",
            "",
            r"'x' \(std::vector<std::vector<double>>\)",
        ),
    ],
)
def test_what_cannot_be_written_is_named_before_work(
    tmp_path: Path, name: str, tree: str, needed: str, refused: str
) -> None:
    with pytest.raises(NtupleError, match=f"cannot write {refused}.*friend tree"):
        copy_of(name, tree, needed, tmp_path / "b.root", keep=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NtupleError, match=f"cannot write {refused}"):
        check_writable(Source(str(ROOT_FILES / name), tree))


def test_vectors_become_arrays_with_a_warning(tmp_path: Path) -> None:
    name, tree = "vectors.root", "ntupler/tree"
    source = Source(str(ROOT_FILES / name), tree)
    first = Addition(source=source, needed=(), types={}, compute=lambda i, arrays: {})
    with pytest.warns(PidganWarning, match=r"'v_int16' \(std::vector<int16_t>\)"):
        copy_file([first], tmp_path / "b.root")
    with (
        uproot.open({ROOT_FILES / name: tree}) as old,
        uproot.open({tmp_path / "b.root": tree}) as new,
    ):
        for branch, values in old.items():
            assert new[branch].count_branch.name == f"n{branch}"
            assert ak.array_equal(values.array(), new[branch].array())


@pytest.mark.filterwarnings("ignore:.*written as plain numbers")
@pytest.mark.parametrize("keep", [True, False])
def test_counters_have_names_of_their_own(tmp_path: Path, keep: bool) -> None:
    """`hits` and `nhits`, `Mu_x[nMu]` and `Mu` would get the same counter."""
    types = {
        "new_Mu": BranchType(np.dtype(np.float32), (None,)),
        "new_hits": BranchType(np.dtype(np.float32), (None,)),
    }
    added = Addition(
        source=Source(str(ROOT_FILES / "counters.root"), "T"),
        needed=("Mu_x", "hits"),
        types=types,
        compute=lambda first, a: {"new_Mu": a["Mu_x"] + 1, "new_hits": a["hits"] + 2},
        like={"new_Mu": "Mu_x", "new_hits": "hits"},
    )
    copy_file([added], tmp_path / "b.root", keep=keep, chunk=7)
    with (
        uproot.open({ROOT_FILES / "counters.root": "T"}) as old,
        uproot.open({tmp_path / "b.root": "T"}) as new,
    ):
        for branch, values in old.items() if keep else ():
            assert ak.array_equal(values.array(), new[branch].array())
        assert ak.array_equal(old["Mu_x"].array() + 1, new["new_Mu"].array())
        assert ak.array_equal(old["hits"].array() + 2, new["new_hits"].array())
        counters = {branch.name: branch.count_branch for branch in new.branches}
        named = {n: own.name for n, own in counters.items() if own is not None}
        own = {name: new[name].array() for name in named}
        for name, counter in named.items():
            assert new[counter].array().tolist() == ak.num(own[name]).tolist()
    alike = [{"new_Mu", "Mu_x"}, {"new_hits", "hits"}, {"nhits"}, {"Mu"}]
    groups = [{n for n in named if named[n] == c} for c in set(named.values())]
    expected = alike if keep else [{"new_Mu"}, {"new_hits"}]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, expected))


def test_a_wide_rntuple_is_checked_in_linear_time(tmp_path: Path) -> None:
    """Calls of uproot for all fields are counted, as a clock would depend on others."""
    data = {f"B_var{i}": np.ones(3, np.float32) for i in range(300)}
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mkrntuple("T", data)
    source, calls = Source(str(tmp_path / "a.root"), "T"), 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        check_writable(source)
    finally:
        sys.setprofile(None)
    # It was 3 million: one call of `to_akform` for each field, over all fields.
    assert calls < 150_000


def test_the_loss_of_an_object_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rich_file(tmp_path / "a.root")

    def refuse(*arguments: object, **options: object) -> None:
        raise NotImplementedError("not this one")

    monkeypatch.setattr(uproot.WritableDirectory, "copy_from", refuse)
    source = Source(str(tmp_path / "a.root"), "D/DecayTree")
    with pytest.warns(PidganWarning, match=r"not copied: D/hist \(TH1D: NotImpl.*note"):
        copy_file([addition(source)], tmp_path / "b.root")


def test_another_tree_that_cannot_be_written_is_announced(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("T", {"s_f4": np.float32}).extend({"s_f4": np.ones(3, np.float32)})
        file.mktree("deep", {"x": "var * 3 * float64"})
    source = Source(str(tmp_path / "a.root"), "T")
    with pytest.warns(PidganWarning, match=r"not copied: deep \(TTree: .*write 'x' "):
        copy_file([addition(source)], tmp_path / "b.root")


def test_contents_that_contradict_each_other_name_the_file(tmp_path: Path) -> None:
    """A damaged counter can be read, but not be written with its branch."""
    path = tmp_path / "in.root"
    counts = np.array([5, 3, 7], ">i4")
    with uproot.recreate(path, compression=None) as file:
        values = ak.unflatten(np.arange(15.0), counts.astype("i4"))
        file.mktree("T", {"v": "var * float64", "x": "f8"})
        file["T"].extend({"v": values, "x": np.arange(3.0)})
    data = path.read_bytes()
    assert data.count(counts.tobytes()) == 1
    path.write_bytes(data.replace(counts.tobytes(), (counts - 1).tobytes()))
    addition = Addition(
        source=Source(str(path), "T"),
        needed=("x",),
        types=typed(y="f4"),
        compute=lambda first, frame: {"y": np.zeros(3, np.float32)},
    )
    with pytest.raises(NtupleError, match=r"in.root:T cannot be copied: ValueError"):
        copy_file([addition], tmp_path / "out.root")
    assert not (tmp_path / "out.root").exists()
