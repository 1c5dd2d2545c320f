"""Every kind of branch is copied with its values, or named before the work.

`tests/root_files/kinds_*.root.xz` hold a tree for each kind that ROOT writes, and a
tree `all` of all kinds.
"""

import dataclasses
import datetime
import lzma
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from pidgan.errors import NtupleError
from pidgan.files import formats
from pidgan.files.copying import check_writable, copy_file
from pidgan.files.tables import describe_tree, iterate_entries
from pidgan.files.trees import Addition, BranchType, Source

ROOT_FILES = Path(__file__).parents[1] / "root_files"

ENTRIES = 8
ROWS = range(ENTRIES)

# What uproot cannot write: friend trees only.
REFUSED = {
    "ttree": {
        "k_variable3",
        "k_leaves",
        *("k_v_string", "k_v_v", "k_pair", "k_map", "k_map_int", "k_set"),
        *("k_struct", "k_struct_whole", "k_event", "k_event_whole", "k_event_dot."),
        *("k_v_struct", "k_v_struct_whole", "k_v_hit"),
        *("k_lorentz", "k_lorentz_whole", "k_v_lorentz", "k_clones"),
    },
    "rntuple": {"k_variant"},
    "parquet": set(),
}

C_STRINGS = {
    "k_c_string": [
        "".join(chr(ord("a") + (i + j) % 26) for j in range(n))
        for i, n in enumerate([2, 0, 4, 5, 0, 300, 8, 0])
    ],
    "k_c_empty": [""] * ENTRIES,
}
"""Values of strings that uproot 5.7 itself reads wrongly."""

COLUMNS: dict[str, Any] = {
    "bool": pa.array([i % 2 == 0 for i in ROWS]),
    **{
        kind: pa.array([i + 1 for i in ROWS], kind)
        for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
    },
    "uint64": pa.array([2**63 + 2**53 + 1 + i for i in ROWS], "uint64"),
    "half": pa.array(np.arange(ENTRIES, dtype=np.float16)),
    "float": pa.array(np.arange(ENTRIES, dtype=np.float32)),
    "double": pa.array(np.arange(ENTRIES) / 3),
    "null_int": pa.array([None, *range(1, ENTRIES)], "int64"),
    "null_float": pa.array([None, *range(1, ENTRIES)], "float32"),
    "null_bool": pa.array([None, *[True] * (ENTRIES - 1)]),
    "null": pa.nulls(ENTRIES),
    "string": pa.array(["s" * (i % 3) for i in ROWS]),
    "null_string": pa.array([None, *["s"] * (ENTRIES - 1)]),
    "large_string": pa.array(["s" * i for i in ROWS], pa.large_string()),
    "binary": pa.array([b"\0" * i for i in ROWS]),
    "fixed_binary": pa.array([b"abc"] * ENTRIES, pa.binary(3)),
    "dictionary": pa.array(["a", "b"] * (ENTRIES // 2)).dictionary_encode(),
    "decimal": pa.array([Decimal("1.25")] * ENTRIES),
    "date": pa.array([datetime.date(2026, 1, 1 + i) for i in ROWS]),
    "timestamp": pa.array([datetime.datetime(2026, 1, 1 + i) for i in ROWS]),
    "list": pa.array([[1.5] * (i % 3) for i in ROWS]),
    "list_int": pa.array([[i] * (i % 3) for i in ROWS], pa.list_(pa.int16())),
    "list_bool": pa.array([[True] * (i % 3) for i in ROWS]),
    "list_null": pa.array([None, *[[1.0, None]] * (ENTRIES - 1)]),
    "large_list": pa.array(
        [[1.5] * (i % 3) for i in ROWS], pa.large_list(pa.float64())
    ),
    "fixed_list": pa.array([[1.0, i] for i in ROWS], pa.list_(pa.float32(), 2)),
    "fixed_list1": pa.array([[i] for i in ROWS], pa.list_(pa.float32(), 1)),
    "list_string": pa.array([["a"] * (i % 3) for i in ROWS]),
    "list_list": pa.array([[[1.0] * (i % 2)] * (i % 3) for i in ROWS]),
    "struct": pa.array([{"x": 1.0, "n": i} for i in ROWS]),
    "list_struct": pa.array([[{"x": 1.0}] * (i % 3) for i in ROWS]),
    "map": pa.array([[("a", i)] for i in ROWS], pa.map_(pa.string(), pa.int32())),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files with all kinds."""
    place = tmp_path_factory.mktemp("kinds")
    for name in ("ttree", "rntuple"):
        packed = (ROOT_FILES / f"kinds_{name}.root.xz").read_bytes()
        (place / f"{name}.root").write_bytes(lzma.decompress(packed))
    own = {"K_P": np.arange(8.0), "K_ETA": np.ones(8)}
    for name, column in COLUMNS.items():
        pq.write_table(pa.table(own | {name: column}), place / f"{name}.parquet")
    pq.write_table(pa.table(own | COLUMNS), place / "all.parquet")
    return place


@pytest.fixture(autouse=True)
def no_other_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a ROOT file hold one tree."""
    alone = dataclasses.replace(formats.ROOT, copy_rest=None)
    others = (known for known in formats.FORMATS if known is not formats.ROOT)
    monkeypatch.setattr(formats, "FORMATS", (alone, *others))


def sources(folder: Path, container: str) -> dict[str, Source]:
    """Return the tree of each kind."""
    if container == "parquet":
        return {name: Source(str(folder / f"{name}.parquet")) for name in COLUMNS}
    path = folder / f"{container}.root"
    with uproot.open(path) as file:
        names = file.keys(cycle=False)
    return {name: Source(str(path), name) for name in names if name != "all"}


def all_kinds(folder: Path, container: str) -> Source:
    if container == "parquet":
        return Source(str(folder / "all.parquet"))
    return Source(str(folder / f"{container}.root"), "all")


def addition(source: Source, name: str) -> Addition:
    """A branch with the number of the entry."""

    def compute(first: int, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: first + np.arange(len(arrays["K_P"]), dtype=float)}

    types = {name: BranchType(np.dtype(float))}
    return Addition(source=source, needed=("K_P",), types=types, compute=compute)


def values(path: Path, source: Source, kind: str) -> list[Any]:
    """Return the values of a branch as another library reads them."""
    if source.tree is None:
        return pq.read_table(path)[kind].to_pylist()
    with uproot.open(path) as file:
        array = file[source.tree][kind].array()
    if "char" in kind and "u" not in kind:
        array = ak.values_astype(array, np.int8)  # uproot forgets the sign
    return array.tolist()


def is_copied(source: Source, kind: str, output: Path, mode: str) -> bool:
    """Copy a tree; return whether the copy has the values."""
    added = "K_ETA" if mode == "replace" else "entry"
    copy_file([addition(source, added)], output, keep=mode != "friend", chunk=3)
    if values(output, source, added) != list(ROWS):
        return False
    if mode == "friend":
        return True
    was = C_STRINGS.get(kind) or values(Path(source.path), source, kind)
    return values(output, source, kind) == was


@pytest.mark.filterwarnings("ignore:.*written as plain numbers")
@pytest.mark.parametrize("mode", ["append", "replace", "friend"])
@pytest.mark.parametrize("container", ["ttree", "rntuple", "parquet"])
def test_a_kind_is_copied_or_refused_by_name(
    folder: Path, tmp_path: Path, container: str, mode: str
) -> None:
    found = sources(folder, container)
    assert len(found) > 30
    wrong = set()
    for kind, source in found.items():
        output = tmp_path / f"{kind}{Path(source.path).suffix}"
        if mode != "friend" and kind in REFUSED[container]:
            message = f"cannot write {re.escape(repr(kind))} .*--mode friend"
            with pytest.raises(NtupleError, match=message):
                check_writable(source)
            continue
        if mode != "friend":
            check_writable(source)
        if not is_copied(source, kind, output, mode):
            wrong.add(kind)
    assert wrong == set()


@pytest.mark.parametrize("container", ["ttree", "rntuple", "parquet"])
def test_all_kinds_that_are_refused_are_named_together(
    folder: Path, tmp_path: Path, container: str
) -> None:
    source = all_kinds(folder, container)
    if not REFUSED[container]:
        check_writable(source)
        return
    with pytest.raises(NtupleError) as caught:
        check_writable(source)
    assert all(f"{kind!r} (" in str(caught.value) for kind in REFUSED[container])
    with pytest.raises(NtupleError, match="cannot write"):
        copy_file([addition(source, "entry")], tmp_path / "out.root")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("container", ["ttree", "rntuple", "parquet"])
def test_what_has_a_type_can_be_read_as_it(folder: Path, container: str) -> None:
    source = all_kinds(folder, container)
    info = describe_tree(source)
    assert len(info.types) > 18
    assert set(info.types) <= set(info.branches)
    rest = ENTRIES
    for arrays in iterate_entries(source, list(info.types), chunk=3):
        for name, kind in info.types.items():
            array = arrays[name]
            assert len(array) == min(rest, 3)
            if kind.shape == (None,):
                assert array.ndim == 2, name
                number = np.asarray(ak.flatten(array)).dtype
            else:
                assert array.shape == (len(array), *kind.shape), name
                number = array.dtype
            # Whole numbers with an empty entry become floating point.
            assert number == kind.number or number == np.float64, name
        rest -= 3


MEMBERS = {
    "ttree": {
        "k_leaves.P": [5000.0 + i for i in ROWS],
        "k_leaves.n": list(ROWS),
        "k_struct/x": list(ROWS),
        "k_struct_whole/y": [2 * i for i in ROWS],
        "k_event/F16": [i / 4 for i in ROWS],
        "k_event/p/p.n": list(ROWS),
        "k_event_dot./k_event_dot.F64": [i / 8 for i in ROWS],
        "k_lorentz/fE": [10 * i + 1 for i in ROWS],
        "k_lorentz/fP/fY": [2 * i for i in ROWS],
        "k_v_struct/k_v_struct.x": [[i] * (i % 3) for i in ROWS],
        "k_clones/k_clones.fX": [[i] * (i % 3) for i in ROWS],
        "k_event/a[3]": [[i, i + 1, i + 2] for i in ROWS],
    },
    "rntuple": {
        "k_struct.y": [2 * i for i in ROWS],
        "k_v_struct.n": [[i] * (i % 3) for i in ROWS],
        "k_pair.1": [i / 2 for i in ROWS],
        "k_map_int.1": [[i] for i in ROWS],
        "k_cardinality": [i % 3 for i in ROWS],
        "k_char": [97 - 20 * i for i in ROWS],
        "k_array1": list(ROWS),
        "k_half": [i / 4 for i in ROWS],
    },
}


@pytest.mark.parametrize("container", list(MEMBERS))
def test_members_are_read_with_their_values(folder: Path, container: str) -> None:
    source = all_kinds(folder, container)
    (arrays,) = iterate_entries(source, list(MEMBERS[container]))
    for name, expected in MEMBERS[container].items():
        assert arrays[name].tolist() == expected, name
    with pytest.raises(NtupleError, match=r"no branch .*; closest: "):
        next(iterate_entries(source, ["k_struct_x"]))
    # uproot 5.7 reads other numbers in vectors that are not split.
    assert "k_v_struct_whole/n" not in describe_tree(source).types


def test_empty_optional_numbers_are_nan(folder: Path) -> None:
    source = all_kinds(folder, "rntuple")
    names = ["k_optional", "k_optional_int", "k_v_optional"]
    (arrays,) = iterate_entries(source, names)
    odd = [i if i % 2 else np.nan for i in ROWS]
    np.testing.assert_array_equal(arrays["k_optional"], odd)
    np.testing.assert_array_equal(arrays["k_optional_int"], odd)
    nested = [v if v == v else None for v in ak.flatten(arrays["k_v_optional"])]
    assert nested == [v for i in ROWS for v in [None, float(i)][: i % 3]]
