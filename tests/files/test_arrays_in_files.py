"""Files of arrays, .npz and HDF5: layouts of public challenges, columns, copies."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pidgan.errors import NtupleError
from pidgan.files.copying import copy_file
from pidgan.files.tables import (
    BranchType,
    Source,
    describe_tree,
    find_sources,
    iterate_entries,
    iterate_rows,
    read_columns,
    write_trees,
)
from pidgan.files.trees import Addition, common_length, entry_shape

ROWS = 40
FORMATS = [".npz", ".hdf5", ".h5"]


@pytest.fixture(params=FORMATS)
def suffix(request: pytest.FixtureRequest) -> str:
    if request.param != ".npz":
        pytest.importorskip("h5py")
    return str(request.param)


def showers() -> dict[str, np.ndarray]:
    """A layout as CaloChallenge and Par04 have it, with a table of another length."""
    rng = np.random.default_rng(1)
    return {
        "incident_energies": rng.uniform(1e3, 1e5, (ROWS, 1)),
        "showers": rng.random((ROWS, 4, 3)).astype(">f4"),
        "theta": rng.random(ROWS),
        "overflow": rng.random((ROWS, 3)),
        "edges": np.arange(533.0),
        "is_pion": rng.random(ROWS) < 0.5,
    }


def addition(source: Source, name: str, shape: tuple[int, ...] = ()) -> Addition:
    """A branch that is twice the energy, in each of its numbers."""

    def compute(first: int, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        twice = 2 * arrays["incident_energies"]
        return {
            name: np.broadcast_to(
                twice.reshape(-1, *[1] * len(shape)), (len(twice), *shape)
            )
        }

    return Addition(
        source=source,
        needed=("incident_energies",),
        types={name: BranchType(np.dtype(np.float64), shape)},
        compute=compute,
    )


def test_an_array_of_one_column_is_one_number_an_entry(
    tmp_path: Path, suffix: str
) -> None:
    data = showers()
    write_trees(tmp_path / f"a{suffix}", {"": data})
    (source,) = find_sources(tmp_path / f"a{suffix}")
    info = describe_tree(source)
    assert info.entries == ROWS
    assert {name: kind.shape for name, kind in info.types.items()} == {
        "incident_energies": (),
        "showers": (12,),
        "theta": (),
        "overflow": (3,),
        "edges": (),
        "is_pion": (),
    }
    names = ["incident_energies", "incident_energies[0]", "theta[0]", "overflow[2]"]
    frame = read_columns(source, [*names, "is_pion"])
    for name in names[:2]:
        np.testing.assert_array_equal(frame[name], data["incident_energies"][:, 0])
    np.testing.assert_array_equal(frame["theta[0]"], data["theta"])
    np.testing.assert_array_equal(frame["is_pion"], data["is_pion"])
    parts = list(iterate_rows(source, ["showers"], chunk=7))
    rows = np.concatenate([part["showers"] for part in parts])
    np.testing.assert_array_equal(rows, data["showers"].reshape(ROWS, 12))
    with pytest.raises(NtupleError, match=r"'edges' has 533 \w+, expected 40"):
        next(iterate_entries(source, ["edges", "theta"]))
    with pytest.raises(NtupleError, match="'theta' has one number per entry"):
        read_columns(source, ["theta[1]"])


@pytest.mark.parametrize("chunk", [7, 1000])
def test_a_copy_keeps_everything_else(tmp_path: Path, suffix: str, chunk: int) -> None:
    data = showers()
    old, new = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_trees(old, {"": data})
    copy_file([addition(Source(str(old)), "twice")], new, chunk=chunk)
    info = describe_tree(Source(str(new)))
    assert list(info.branches) == (
        [*data, "twice"] if suffix == ".npz" else sorted([*data, "twice"])
    )
    names = [name for name in info.types if name != "edges"]
    for arrays in iterate_entries(Source(str(new)), names):
        for name in names:
            expected = data.get(name, 2 * data["incident_energies"])
            found = arrays[name].reshape(expected.shape)
            np.testing.assert_array_equal(found, expected)
    copy_file(
        [addition(Source(str(old)), "twice")], tmp_path / f"f{suffix}", keep=False
    )
    assert list(describe_tree(Source(str(tmp_path / f"f{suffix}"))).types) == ["twice"]


@pytest.mark.parametrize(
    ("name", "shape"), [("incident_energies", ()), ("showers", (12,))]
)
def test_an_array_that_is_replaced_keeps_its_shape_and_type(
    tmp_path: Path, suffix: str, name: str, shape: tuple[int, ...]
) -> None:
    data = showers()
    old, new = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_trees(old, {"": data})
    copy_file([addition(Source(str(old)), name, shape)], new, chunk=11)
    twice = 2 * data["incident_energies"].reshape(ROWS, *[1] * (data[name].ndim - 1))
    expected = np.broadcast_to(twice, data[name].shape).astype(data[name].dtype)
    np.testing.assert_array_equal(stored(new, name), expected)


def stored(path: Path, name: str) -> np.ndarray:
    """Return an array as another library reads it."""
    if path.suffix == ".npz":
        return np.asarray(np.load(path)[name])
    import h5py

    with h5py.File(path) as file:
        return np.asarray(file[name])


def test_groups_members_and_links_of_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    table = np.zeros(5, [("P", "f4"), ("hits", "i2", (2,))])
    table["P"], table["hits"] = np.arange(5), 7
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["author"] = "me"
        group = file.create_group("events/deep")
        group.create_dataset("energy", data=np.arange(5.0), compression="gzip")
        group["energy"].attrs["unit"] = "MeV"
        file["table"] = table
        file["names"] = ["a", "b", "c", "d", "e"]
        file["scalar"] = 3
        file["link"] = h5py.SoftLink("/events/deep/energy")
    source = Source(str(tmp_path / "a.h5"))
    assert set(describe_tree(source).types) == {
        "events/deep/energy",
        "table.P",
        "table.hits",
    }
    columns = read_columns(source, ["table.P", "events/deep/energy", "table.hits[1]"])
    np.testing.assert_array_equal(columns.to_numpy()[3], [3, 3, 7])
    added = Addition(
        source=source,
        needed=("table.P",),
        types={"new": BranchType(np.dtype(np.float32))},
        compute=lambda first, arrays: {"new": arrays["table.P"] + 1},
    )
    copy_file([added], tmp_path / "b.h5", chunk=2, record=lambda old, notes: ["{}"])
    with h5py.File(tmp_path / "b.h5") as file:
        assert file.attrs["author"] == "me"
        assert file["events/deep/energy"].attrs["unit"] == "MeV"
        assert file["events/deep/energy"].compression == "gzip"
        assert file["names"].asstr()[()].tolist() == list("abcde")
        assert file["link"][3] == 3
        np.testing.assert_array_equal(file["table"][()], table)
        np.testing.assert_array_equal(file["new"][()], np.arange(1, 6))


def test_hdf5_without_its_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(NtupleError, match=r"a\.hdf5: HDF5 files need h5py, which is n"):
        describe_tree(Source(str(tmp_path / "a.hdf5")))


def test_damaged_hdf5_is_named(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(NtupleError, match=r"a\.hdf5 cannot be read: "):
        describe_tree(Source(str(tmp_path / "a.hdf5")))
    (tmp_path / "b.hdf5").write_bytes(b"root" + bytes(100))
    with pytest.raises(NtupleError, match=r"b\.hdf5 is a ROOT file, expected a HDF5"):
        find_sources(tmp_path / "b.hdf5")


def test_the_entries_are_those_of_most_arrays() -> None:
    assert common_length([3, 7, 3]) == 3
    assert common_length([3, 7]) == 7
    assert common_length([]) == 0
    assert entry_shape(()) == entry_shape((1,)) == entry_shape((1, 1)) == ()
    assert entry_shape((2, 3)) == (6,)
