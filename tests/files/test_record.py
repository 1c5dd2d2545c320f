"""The record of a file: lines of text that are no tree, no branch and no column."""

from pathlib import Path

import numpy as np
import pytest
import uproot

from pidgan.files.copying import copy_file
from pidgan.files.tables import (
    Source,
    describe_tree,
    find_sources,
    list_trees,
    read_columns,
    read_record,
    write_trees,
)
from pidgan.files.trees import RECORD, Addition, BranchType

LINES = ['{"tree": "T", "text": "\u03c0 and quotes \\" \\\\"}', "{}"]


@pytest.mark.parametrize("suffix", [".root", ".parquet", ".npz"])
def test_a_record_goes_with_copies_and_hides(tmp_path: Path, suffix: str) -> None:
    old, new, last = (tmp_path / f"{name}{suffix}" for name in "abc")
    tree = "T" if suffix == ".root" else None
    write_trees(old, {"T": {"x": np.arange(5.0)}})
    assert read_record(old) == []
    copy_file([Addition(source=Source(str(old), tree))], new, record=lambda o, n: LINES)
    assert read_record(new) == LINES
    copy_file([Addition(source=Source(str(new), tree))], last)
    assert read_record(last) == LINES
    again = Addition(source=Source(str(new), tree))
    copy_file([again], last, overwrite=True, record=lambda o, n: [*o, "1"])
    assert read_record(last) == [*LINES, "1"]
    (source,) = find_sources([last])
    assert list(describe_tree(source).branches) == ["x"]
    np.testing.assert_array_equal(read_columns(source, ["x"])["x"], np.arange(5.0))
    if suffix == ".root":
        assert list_trees(last) == ["T"]


def test_a_friend_has_a_record_of_its_own(tmp_path: Path) -> None:
    old, new = tmp_path / "a.root", tmp_path / "b.root"
    write_trees(old, {"T": {"x": np.arange(5.0)}})
    source = Source(str(old), "T")
    copy_file([Addition(source=source)], new, record=lambda o, n: LINES)
    friend = Addition(
        source=Source(str(new), "T"),
        needed=("x",),
        types={"y": BranchType(np.dtype(np.float64))},
        compute=lambda first, arrays: {"y": arrays["x"]},
    )
    copy_file([friend], tmp_path / "c.root", keep=False)
    assert read_record(tmp_path / "c.root") == []


def test_what_stands_for_hadd_puts_records_together(tmp_path: Path) -> None:
    """A merger knows the record only as a tree of bytes."""
    pieces = []
    for number in range(3):
        old, new = tmp_path / f"a{number}.root", tmp_path / f"b{number}.root"
        write_trees(old, {"T": {"x": np.arange(5.0)}})
        lines = [f'{{"part": {number}, "long": "{"x" * 10**number}"}}']
        source = Source(str(old), "T")
        copy_file([Addition(source=source)], new, record=lambda o, n, own=lines: own)
        pieces.append(uproot.open(new)[RECORD]["text"].array(library="np"))
    with uproot.recreate(tmp_path / "sum.root") as file:
        tree = file.mktree(RECORD, {"text": np.uint8})
        for piece in pieces:
            tree.extend({"text": piece})
    lines = read_record(tmp_path / "sum.root")
    assert [line[:11] for line in lines] == [f'{{"part": {n},' for n in range(3)]
