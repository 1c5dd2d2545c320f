"""Efficiencies of rows in memory are those of the same rows in a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, location, make_card

import pidgan
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.table import cut_covariance
from pidgan.errors import CutError, DatasetError, MapError, NtupleError, PidganWarning
from pidgan.files.tables import write_table, write_trees

N = 2000
CUT = "DLLk > 1"
KAON = ToyGenerator(card=make_card())


def rows_of(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    p, eta = rng.uniform(5e3, 9e4, n), rng.uniform(2, 4.5, n)
    return pd.DataFrame(
        {
            "K_P": p,
            "K_ETA": eta.astype(np.float32),
            "event": rng.integers(0, n // 2, n) + 2**60,
            "q2": rng.uniform(0, 9, n),
            "sw": rng.choice([1.2, -0.3], n),
        }
    )


@pytest.fixture(scope="module")
def map_of_kaons() -> pidgan.EfficiencyMap:
    rows = rows_of(3000, 1)
    x = rows[["K_P", "K_ETA"]].to_numpy(np.float64)
    y = location(x) + np.random.default_rng(2).standard_normal((3000, 2))
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    reference = {**columns, "weight": np.ones(3000)}  # a dict of arrays is a table too
    return pidgan.run_systematics(KAON, reference, cuts=[CUT], repeats=2, variations=[])


def same(found: Any, expected: Any) -> None:
    pd.testing.assert_frame_equal(found.frame(), expected.frame())
    np.testing.assert_array_equal(found.covariance, expected.covariance)


KINDS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "DataFrame": lambda f: f,
    "reversed columns": lambda f: f[f.columns[::-1]],
    "dict": lambda f: {k: v.to_numpy() for k, v in f.items()},
    "structured": lambda f: f.to_records(index=False),
    "awkward": lambda f: ak.zip({k: v.to_numpy() for k, v in f.items()}),
    "nullable": lambda f: f.convert_dtypes(),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"weights": "sw"},
    "bins": {"binning": {"q2": [0, 3, 9]}},
    "events": {"key": ["event"]},
    "without correction": {"correction": False},
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_efficiency_is_that_of_a_file(
    map_of_kaons: pidgan.EfficiencyMap, make: Any, options: Any, tmp_path: Path
) -> None:
    rows, given = rows_of(N, 3), {"cuts": CUT, **options}
    write_table(tmp_path / "in.parquet", rows)
    pidgan.apply({"K": KAON}, tmp_path / "in.parquet", tmp_path / "out.parquet")
    expected = pidgan.pid_efficiency(
        {"K": map_of_kaons}, tmp_path / "out.parquet", **given
    )
    made = pidgan.apply({"K": KAON}, make(rows))
    same(pidgan.pid_efficiency({"K": map_of_kaons}, made, **given), expected)
    parts = [pidgan.apply({"K": KAON}, make(rows[:700]), key=["event"])]
    parts.append(pidgan.apply({"K": KAON}, make(rows[700:]), key=["event"]))
    chunked = {"chunk": 13} if options else {}
    joint = pidgan.pid_efficiency({"K": map_of_kaons}, parts, **given, **chunked)
    whole = pidgan.apply({"K": KAON}, make(rows), key=["event"])
    expected = pidgan.pid_efficiency({"K": map_of_kaons}, whole, **given)
    np.testing.assert_allclose(joint.covariance, expected.covariance, rtol=1e-9)
    assert [one.n_rows for one in joint] == [one.n_rows for one in expected]


def test_a_frame_carries_the_proof(map_of_kaons: pidgan.EfficiencyMap) -> None:
    made, maps = pidgan.apply({"K": KAON}, rows_of(N, 3)), {"K": map_of_kaons}
    expected = pidgan.pid_efficiency(maps, made)
    assert not expected.unproven
    kept = made.assign(other=1.0).rename(columns={"q2": "q"})
    same(pidgan.pid_efficiency(maps, kept), expected)

    def refused(rows: Any, message: str) -> None:
        with pytest.raises(MapError, match=message) as caught:
            pidgan.pid_efficiency(maps, rows)
        assert "\n" not in str(caught.value)
        assert "trust=True" in str(caught.value)
        trusted = pidgan.pid_efficiency(maps, rows, trust=True)
        assert trusted.unproven
        assert "not proven" in trusted[0].flags

    refused(made[made["q2"] > 3], "its record is about 2000 of .* entries")
    refused(made.assign(K_DLLk=made["K_DLLk"] + 1), "K_DLLk changed after apply")
    refused(made.assign(K_P=made["K_P"] * 1.01), "K_P changed after apply")
    lost = made.copy()
    lost.attrs = {}
    refused(lost, r"the rows carry no record, attrs\['pidgan_record'\]")
    other = pidgan.apply({"K": ToyGenerator(card=make_card(seed=2))}, rows_of(N, 3))
    refused(other, "was measured for another bundle")
    refused([made, made.copy()], "2000 of its entries are a copy of entries in table 1")
    damaged = made.copy()
    damaged.attrs = {"pidgan_record": ["{"]}
    with pytest.raises(NtupleError, match="its record, pidgan_record, is damaged"):
        pidgan.pid_efficiency(maps, damaged)


def test_a_record_goes_with_a_file(
    map_of_kaons: pidgan.EfficiencyMap, tmp_path: Path
) -> None:
    made = pidgan.apply({"K": KAON}, rows_of(N, 3))
    made.to_parquet(tmp_path / "made.parquet")
    again = pd.read_parquet(tmp_path / "made.parquet")
    maps = {"K": map_of_kaons}
    same(pidgan.pid_efficiency(maps, again), pidgan.pid_efficiency(maps, made))


def test_older_columns_keep_their_record(map_of_kaons: pidgan.EfficiencyMap) -> None:
    first = pidgan.apply({"K": KAON}, rows_of(N, 3))
    both = pidgan.apply({"K": KAON}, first, seed=2, suffix="_2")
    maps = {"K": map_of_kaons}
    same(pidgan.pid_efficiency(maps, both), pidgan.pid_efficiency(maps, first))
    assert not pidgan.pid_efficiency(maps, both, suffix="_2").unproven
    with pytest.raises(NtupleError, match=r"has columns 'K_DLLk', .*already"):
        pidgan.apply({"K": KAON}, first)
    replaced = pidgan.apply({"K": KAON}, first, seed=2, mode="replace")
    assert replaced.columns.tolist() == first.columns.tolist()
    np.testing.assert_array_equal(replaced["K_DLLk"], both["K_DLLk_2"])
    friend = pidgan.apply({"K": KAON}, first, seed=2, mode="friend")
    pd.testing.assert_frame_equal(friend, replaced[friend.columns])
    assert "K_DLLk_2" not in first


def test_a_ratio_knows_that_rows_are_the_same(
    map_of_kaons: pidgan.EfficiencyMap, tmp_path: Path
) -> None:
    rows, maps = rows_of(N, 3), {"K": map_of_kaons}
    write_table(tmp_path / "in.parquet", rows)
    pidgan.apply({"K": KAON}, tmp_path / "in.parquet", tmp_path / "out.parquet")
    made = pidgan.apply({"K": KAON}, rows)

    def ratio(first: Any, second: Any) -> Any:
        found = pidgan.pid_efficiency(maps, first, weights="sw")
        return (found / pidgan.pid_efficiency(maps, second)).covariance

    expected = ratio(tmp_path / "out.parquet", tmp_path / "out.parquet")
    np.testing.assert_array_equal(ratio(made, made), expected)
    np.testing.assert_array_equal(ratio(made, made.assign(x=1)), expected)
    other = pidgan.apply({"K": KAON}, rows_of(N, 4))
    assert ratio(made, other) > expected


def test_arguments_of_files_are_refused_for_rows() -> None:
    rows = rows_of(10, 1)
    for given in ({"output": "x.root"}, {"workers": 2}, {"dry_run": True}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} is .* for files"):
            pidgan.apply({"K": KAON}, rows, **given)
    with pytest.raises(TypeError, match="output is missing"):
        pidgan.apply({"K": KAON}, "a.root")
    with pytest.raises(TypeError, match="holds rows in memory, expected them alone"):
        pidgan.apply({"K": KAON}, [rows], "out")


def test_tables_of_files_and_rows_are_the_same(tmp_path: Path) -> None:
    rows = rows_of(N, 5).assign(DLLk=np.random.default_rng(1).normal(size=N))
    given: dict[str, Any] = {"binning": {"K_P": [5e3, 3e4, 9e4]}, "weights": "sw"}
    cuts = ["DLLk > 0", f"event > {2**60 + 500}"]
    expected = pidgan.efficiency_table(
        rows, cuts, **{**given, "weights": rows["sw"].to_numpy()}
    )
    write_trees(tmp_path / "a.root", {"T": dict(rows[:900].items())})
    write_trees(tmp_path / "b.root", {"T": dict(rows[900:].items())})
    sources = [make(rows) for make in KINDS.values()]
    for source in (*sources, [tmp_path / "a.root", str(tmp_path / "b.root")]):
        found = pidgan.efficiency_table(source, cuts, **given)
        pd.testing.assert_frame_equal(found.frame(), expected.frame())
        np.testing.assert_array_equal(
            cut_covariance(source, cuts, **given), cut_covariance(rows, cuts, **given)
        )
    with pytest.raises(DatasetError, match="no column 'sv' for weights; closest: 'sw'"):
        pidgan.efficiency_table(rows, cuts, weights="sv")
    with pytest.raises(CutError, match="unknown variable 'DLLx'"):
        pidgan.efficiency_table(tmp_path / "a.root", "DLLx > 0")
    with pytest.raises(NtupleError, match="no branch 'sv'; closest: 'sw'"):
        pidgan.efficiency_table(tmp_path / "a.root", cuts, weights="sv")


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_columns_of_candidates_are_those_of_a_file(
    map_of_kaons: pidgan.EfficiencyMap, make: Any, tmp_path: Path
) -> None:
    rows, maps = rows_of(300, 3), {"K": map_of_kaons}
    write_table(tmp_path / "in.parquet", rows)
    pidgan.apply({"K": KAON}, tmp_path / "in.parquet", tmp_path / "out.parquet")
    write_efficiency_columns(maps, tmp_path / "out.parquet", tmp_path / "e.parquet")
    expected = pd.read_parquet(tmp_path / "e.parquet")
    made = pidgan.apply({"K": KAON}, make(rows))
    found = write_efficiency_columns(maps, made, chunk=77)
    assert found.paths == ()
    for name in expected:
        np.testing.assert_array_equal(np.asarray(found.frame[name]), expected[name])
    with pytest.raises(MapError, match="the rows carry no record"):
        write_efficiency_columns(maps, make(rows))
    with pytest.warns(PidganWarning, match="NOT PROVEN"):
        write_efficiency_columns(maps, make(rows), trust=True)
    with pytest.raises(ValueError, match="output is 'x', which is for files"):
        write_efficiency_columns(maps, made, "x")
