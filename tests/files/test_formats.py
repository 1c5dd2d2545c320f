"""A file format is one record: reading, writing and copying find it by its name."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pidgan.errors import NtupleError
from pidgan.files import formats
from pidgan.files.copying import copy_file
from pidgan.files.formats import npz
from pidgan.files.tables import (
    BranchType,
    Source,
    describe_tree,
    find_outputs,
    find_sources,
    iterate_rows,
    read_columns,
    write_trees,
)
from pidgan.files.trees import Addition


def test_the_formats_of_the_package() -> None:
    assert {known.name for known in formats.FORMATS} == {
        "ROOT",
        "Parquet",
        ".npz",
        "HDF5",
    }
    for name, expected in {
        "a.root": "ROOT",
        "a.PQ": "Parquet",
        "https://x.org/a.parquet?key=1": "Parquet",
        "a.npz": ".npz",
        "a": "ROOT",
    }.items():
        assert formats.format_of(name).name == expected


def test_a_new_format_is_known_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = dataclasses.replace(npz.FORMAT, name="toy", suffixes=(".toy",))
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, own))
    old, new = tmp_path / "a.toy", tmp_path / "out" / "a.toy"
    write_trees(old, {"": {"x": np.arange(5.0), "y": np.ones((5, 2))}})
    (source,) = find_sources(tmp_path / "*.toy")
    assert find_outputs([str(old)], new.parent) == {str(old): new}
    assert find_outputs([str(old)], new) == {str(old): new}
    added = Addition(
        source=source,
        needed=("x",),
        types={"z": BranchType(np.dtype(float))},
        compute=lambda first, arrays: {"z": arrays["x"] + first},
    )
    copy_file([added], new, chunk=2)
    assert list(describe_tree(Source(str(new))).types) == ["x", "y", "z"]
    found = read_columns(Source(str(new)), ["z"])["z"]
    assert found.tolist() == [0, 1, 4, 5, 8]
    with pytest.raises(NtupleError, match="a toy file has no trees to name"):
        find_sources(f"{old}:T".replace("a.toy", "*.toy"))
    with pytest.raises(NtupleError, match="expected the same file extension as"):
        find_outputs([str(old)], tmp_path / "a.npz")


def test_elements_of_an_array_are_branches(tmp_path: Path) -> None:
    data = {"p": np.arange(6.0).reshape(3, 2), "x[0]": np.ones(3), "x": np.zeros(3)}
    for name in ("a.root", "a.parquet", "a.npz"):
        write_trees(tmp_path / name, {"T": data})
        (source,) = find_sources(tmp_path / name)
        frame = read_columns(source, ["p[1]", "x[0]"])
        assert frame["p[1]"].tolist() == [1, 3, 5]
        assert frame["x[0]"].tolist() == [1, 1, 1]
        (rows,) = iterate_rows(source, ["p", "p[0]"])
        assert rows["p"].tolist() == data["p"].tolist()
        assert rows["p[0]"].tolist() == [0, 2, 4]
        with pytest.raises(NtupleError, match=r"p\[2\] is element 2.* has 2 numbers"):
            read_columns(source, ["p[2]"])
        with pytest.raises(NtupleError, match=r"'p' is of type .*one number per entry"):
            read_columns(source, ["p"])
