"""Trees on disk: reading in chunks equals reading whole, and damage has a name."""

import os
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import hist
import numpy as np
import pandas as pd
import pytest
import uproot

from pidgan.errors import NtupleError
from pidgan.files.tables import (
    Source,
    describe_tree,
    find_sources,
    iterate_columns,
    list_trees,
    read_columns,
    read_table,
    write_histograms,
    write_table,
    write_trees,
)

ENTRIES = 1001


@dataclass
class Jagged:
    """What the simulation gives for a variable-length branch."""

    content: np.ndarray
    counts: np.ndarray
    counter: str | None = None


def branches() -> dict[str, object]:
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, ENTRIES).astype(np.int32)
    jagged = rng.normal(size=counts.sum())
    return {
        "P": rng.exponential(2e4, ENTRIES).astype(np.float32),
        "M": rng.normal(1865, 8, ENTRIES),
        "charge": rng.choice([-1, 1], ENTRIES).astype(np.int8),
        "event": np.arange(ENTRIES, dtype=np.uint64) + 2**60,
        "good": rng.random(ENTRIES) < 0.5,
        "cov": rng.normal(size=(ENTRIES, 3)).astype(np.float32),
        "nPV": counts,
        "PVZ": Jagged(jagged.astype(np.float32), counts, "nPV"),
        "PVCHI2": Jagged(jagged, counts, "nPV"),
        "hits": ak.unflatten(jagged, counts),
    }


FLAT = ["P", "M", "charge", "event", "good", "nPV"]


@pytest.fixture(params=["ttree", "rntuple", "parquet", "npz"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """The same tree in each format."""
    data = branches()
    if request.param == "ttree":
        write_trees(tmp_path / "a.root", {"Dir/DecayTree": data})
        return Source(str(tmp_path / "a.root"), "Dir/DecayTree")
    if request.param == "parquet":
        write_trees(tmp_path / "a.parquet", {"": data})
        return Source(str(tmp_path / "a.parquet"))
    plain = {k: v for k, v in data.items() if not isinstance(v, Jagged)}
    if request.param == "npz":
        del plain["hits"]
        plain["PVZ"] = np.ones((ENTRIES, 2))
        write_trees(tmp_path / "a.npz", {"": plain})
        return Source(str(tmp_path / "a.npz"))
    plain["PVZ"] = ak.unflatten(data["PVZ"].content, data["PVZ"].counts)
    with uproot.recreate(tmp_path / "r.root") as file:
        file.mkrntuple("Dir/DecayTree", plain)
    return Source(str(tmp_path / "r.root"), "Dir/DecayTree")


def test_what_was_written_is_read_with_its_types(source: Source) -> None:
    data = branches()
    frame = read_columns(source, FLAT)
    assert list(frame.columns) == FLAT
    assert describe_tree(source).entries == ENTRIES
    for name in FLAT:
        assert frame[name].dtype == data[name].dtype
        np.testing.assert_array_equal(frame[name], data[name])


@pytest.mark.parametrize("chunk", [1, 137, 500, ENTRIES, 10**6])
def test_chunks_equal_the_whole(source: Source, chunk: int) -> None:
    if chunk == 1:
        names, stop = ["P"], 20
        whole = read_columns(source, names, stop=stop)
    else:
        names, stop = ["M", "event"], ENTRIES
        whole = read_columns(source, names)
    position = 0
    for first, frame in iterate_columns(source, names, chunk=chunk):
        if first >= stop:
            break
        assert first == position
        assert len(frame) <= chunk
        piece = whole.iloc[first : first + len(frame)].reset_index(drop=True)
        pd.testing.assert_frame_equal(frame, piece)
        position += len(frame)
    assert position >= stop


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (990, None), (300, 700), (5, 5), (None, -1000)]
)
def test_a_range_of_entries_is_a_slice(
    source: Source, start: int | None, stop: int | None
) -> None:
    whole = read_columns(source, ["P", "good"])
    part = read_columns(source, ["P", "good"], start=start, stop=stop)
    pd.testing.assert_frame_equal(part, whole[start:stop].reset_index(drop=True))


def test_parquet_row_groups_do_not_show(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(1000.0)})
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=130)
    source = Source(str(tmp_path / "x.parquet"))
    part = read_columns(source, ["x"], start=125, stop=611)
    np.testing.assert_array_equal(part["x"], np.arange(125, 611))


def test_null_in_parquet_is_nan(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": pd.array([1, None, 3], dtype="Int32")})
    frame.to_parquet(tmp_path / "x.parquet")
    values = read_columns(Source(str(tmp_path / "x.parquet")), ["n"])["n"]
    np.testing.assert_array_equal(values, [1, np.nan, 3])


def test_jagged_branches_share_the_counter_they_name(tmp_path: Path) -> None:
    data = branches()
    write_trees(tmp_path / "a.root", {"T": data})
    with uproot.open({tmp_path / "a.root": "T"}) as tree:
        assert list(tree.keys()) == [*list(data)[:-1], "nhits", "hits"]
        assert tree["PVZ"].count_branch.name == "nPV"
        assert tree["PVCHI2"].count_branch.name == "nPV"
        assert tree["hits"].count_branch.name == "nhits"
        assert tree["cov"].typename == "float[3]"
        for name in ("PVZ", "PVCHI2"):
            expected = ak.unflatten(data[name].content, data[name].counts)
            assert ak.all(tree[name].array() == expected)


def test_large_trees_are_written_in_several_baskets(tmp_path: Path) -> None:
    values = np.arange(500_000, dtype=np.float32)
    write_trees(tmp_path / "a.root", {"T": {"x": values}})
    with uproot.open({tmp_path / "a.root": "T"}) as tree:
        assert tree["x"].num_baskets == 3
    frame = read_columns(Source(str(tmp_path / "a.root"), "T"), ["x"])
    np.testing.assert_array_equal(frame["x"], values)


def test_table_round_trip(tmp_path: Path) -> None:
    frame = pd.DataFrame({"P": np.float32([1.5, 2.5]), "weight": [0.5, -0.1]})
    write_table(tmp_path / "t.parquet", frame)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), frame)


def test_histograms_become_th1_and_th2(tmp_path: Path) -> None:
    flat = hist.Hist.new.Reg(4, 0, 1).Weight().fill([0.1, 0.9], weight=[2.0, 3.0])
    plane = hist.Hist.new.Reg(2, 0, 1).Reg(3, 0, 1).Double().fill([0.1], [0.9])
    write_histograms(tmp_path / "h.root", {"1/flat": flat, "plane": plane})
    with uproot.open(tmp_path / "h.root") as file:
        assert file.classnames(cycle=False)["1/flat"] == "TH1D"
        assert file.classnames(cycle=False)["plane"] == "TH2D"
        np.testing.assert_array_equal(file["1/flat"].values(), [2, 0, 0, 3])
        np.testing.assert_array_equal(file["1/flat"].variances(), [4, 0, 0, 9])


def test_an_array_of_arrays_is_refused(tmp_path: Path) -> None:
    deep = ak.Array([[[1.0, 2.0]], []])
    with pytest.raises(NtupleError, match=r"var \* var \* float64 cannot be written"):
        write_trees(tmp_path / "a.root", {"T": {"x": deep}})
    assert list(tmp_path.iterdir()) == []


def test_natural_order_and_duplicates(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        write_trees(tmp_path / f"b{i}.root", {"T": {"x": np.ones(i)}})
    found = find_sources([tmp_path / "b10.root", f"{tmp_path}/*.root"])
    assert [Path(source.path).name for source in found] == [
        "b1.root",
        "b2.root",
        "b10.root",
    ]
    assert {source.tree for source in found} == {"T"}


def test_a_file_counts_once_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trees(tmp_path / "a.root", {"T": {"x": np.ones(3)}, "U": {"x": np.ones(2)}})
    monkeypatch.chdir(tmp_path)
    spellings = ["a.root", f"{tmp_path}/*.root", f"../{tmp_path.name}/a.root"]
    found = find_sources([*spellings, "./a.root:T"], trees=["T", "U"])
    assert sorted(str(source.tree) for source in found) == ["T", "U"]


def test_which_tree_is_meant(tmp_path: Path) -> None:
    data = {"x": np.ones(3)}
    path = tmp_path / "a.root"
    write_trees(path, {"KP/DecayTree": data, "KM/DecayTree": data, "Lumi": data})
    assert list_trees(path) == ["KP/DecayTree", "KM/DecayTree", "Lumi"]
    assert find_sources(f"{path}:Lumi") == [Source(str(path), "Lumi")]
    several = find_sources(
        path, trees=["KM/DecayTree", "KP/DecayTree", "PiP/DecayTree"]
    )
    assert [source.tree for source in several] == ["KM/DecayTree", "KP/DecayTree"]
    with pytest.raises(NtupleError, match=r"has 3 trees, .*'KP/DecayTree', 'KM"):
        find_sources(path)
    with pytest.raises(NtupleError, match=r"has none of the trees 'X'; .*'Lumi'"):
        find_sources(path, trees=["X"])


@pytest.mark.parametrize(
    ("pattern", "path", "tree"),
    [
        (
            "root://eos.cern.ch//eos/lhcb/a.root:D/DecayTree",
            "root://eos.cern.ch//eos/lhcb/a.root",
            "D/DecayTree",
        ),
        ("http://host:8080/a.root:T", "http://host:8080/a.root", "T"),
        ("https://host/x.parquet", "https://host/x.parquet", None),
    ],
)
def test_addresses_pass_untouched(pattern: str, path: str, tree: str | None) -> None:
    assert find_sources(pattern) == [Source(path, tree)]


def test_an_address_that_does_not_answer_is_named() -> None:
    with pytest.raises(NtupleError, match=r"http://127.0.0.1:9/a.root cannot be read"):
        describe_tree(Source("http://127.0.0.1:9/a.root", "T"))


def test_a_missing_file_has_neighbours(tmp_path: Path) -> None:
    write_trees(tmp_path / "Dst_2018.root", {"T": {"x": np.ones(3)}})
    with pytest.raises(NtupleError, match=r"does not exist; closest: 'Dst_2018.root'"):
        find_sources(tmp_path / "Dst_2017.root")
    with pytest.raises(NtupleError, match="no file matches"):
        find_sources(f"{tmp_path}/*.parquet")
    with pytest.raises(NtupleError, match="nor does its directory"):
        find_sources(tmp_path / "nowhere" / "a.root")
    with pytest.raises(NtupleError, match="no input file given"):
        find_sources([])


def test_a_missing_tree_or_branch_has_neighbours(source: Source) -> None:
    with pytest.raises(NtupleError, match=r"has no branch 'charg'; closest: 'charge'"):
        read_columns(source, ["charg"])
    if source.tree is not None:
        wrong = Source(source.path, "Dir/DecayTre")
        with pytest.raises(NtupleError, match=r"no tree .*; closest: 'Dir/DecayTree'"):
            read_columns(wrong, ["P"])


@pytest.mark.parametrize("name", ["cov", "PVZ"])
def test_a_branch_that_is_not_flat_is_refused(source: Source, name: str) -> None:
    with pytest.raises(
        NtupleError, match=f"branch '{name}' is of type .*, expected one"
    ):
        read_columns(source, [name])


def test_an_empty_tree_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    write_trees(path, {"T": {"x": np.ones(0, np.float32)}})
    assert describe_tree(Source(str(path), "T")).entries == 0
    with pytest.raises(NtupleError, match="is empty: got 0 entries"):
        read_columns(Source(str(path), "T"), ["x"])
    with pytest.raises(NtupleError, match="is empty: got 0 entries"):
        list(iterate_columns(Source(str(path), "T"), ["x"]))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_a_truncated_file_is_named(source: Source, share: float) -> None:
    size = os.path.getsize(source.path)
    os.truncate(source.path, int(size * share))
    with pytest.raises(NtupleError, match=source.path):
        read_columns(source, ["P"])


def test_garbage_within_a_file_is_named(source: Source) -> None:
    content = bytearray(Path(source.path).read_bytes())
    content[len(content) // 4 : -len(content) // 8] = bytes(
        len(content) - len(content) // 4 + (-len(content) // 8)
    )
    Path(source.path).write_bytes(content)
    with pytest.raises(NtupleError, match=source.path):
        read_columns(source, FLAT)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    for name, kind in (("a.root", "ROOT"), ("a.parquet", "Parquet")):
        (tmp_path / name).write_text("hello, this is a text file")
        with pytest.raises(NtupleError, match=f"is not a {kind} file: starts with"):
            describe_tree(Source(str(tmp_path / name), "T"))


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    write_trees(path, {"T": {"x": np.ones(3)}})
    with pytest.raises(NtupleError, match="exists"):
        write_trees(path, {"T": {"x": np.zeros(3)}})
    write_trees(path, {"T": {"x": np.zeros(3)}}, overwrite=True)
    assert read_columns(Source(str(path), "T"), ["x"])["x"].sum() == 0


class Interrupting:
    """An array that is interrupted while it is written."""

    dtype = np.dtype("O")

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_trees(tmp_path / "a.root", {"T": {"x": Interrupting()}})
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.root")
    for path in (tmp_path / "pipe.root", "/dev/null"):
        with pytest.raises(NtupleError, match="cannot be read: a pipe or device"):
            find_sources(path)
        with pytest.raises(NtupleError, match="cannot be read: a pipe or device"):
            read_columns(Source(str(path), "T"), ["x"])
