"""Tracks of an entry: laid out as rows and put back unchanged."""

import awkward as ak
import numpy as np
import pytest

from pidgan.application.several_tracks import common_shape, lay_out, restore
from pidgan.errors import NtupleError
from pidgan.files.tables import BranchType

FLAT = BranchType(np.dtype(np.float64))
PAIR = BranchType(np.dtype(np.float64), (2,))
LIST = BranchType(np.dtype(np.float32), (None,))

COUNTS = np.array([2, 0, 3, 1])
TRACKS = ak.unflatten(np.arange(6.0), COUNTS)
EVENT = np.array([10, 11, 12, 13])


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (EVENT, ()),
        (np.arange(8.0).reshape(4, 2), (2,)),
        (TRACKS, (None,)),
        (ak.unflatten(np.empty(0), np.zeros(4, np.int64)), (None,)),
    ],
)
def test_restore_undoes_lay_out(values: object, shape: tuple[int | None, ...]) -> None:
    rows, counts = lay_out({"x": values}, ["x"], shape, where="t")
    assert rows["x"].ndim == 1
    assert ak.array_equal(restore(rows["x"], shape, counts), values)


def test_what_belongs_to_the_entry_is_repeated() -> None:
    columns = {"run": EVENT, "x": TRACKS, "other": EVENT}
    rows, counts = lay_out(columns, ["run", "x"], (None,), where="t")
    assert list(rows) == ["run", "x"]
    assert rows["run"].tolist() == [10, 10, 12, 12, 12, 13]
    assert rows["x"].tolist() == [0, 1, 2, 3, 4, 5]
    assert counts is not None
    assert counts.tolist() == COUNTS.tolist()


def test_lengths_that_differ_are_named() -> None:
    other = ak.unflatten(np.arange(6.0), [2, 1, 2, 1])
    with pytest.raises(
        NtupleError, match=r"f\.root:T, K: 'x' holds 0 tracks and 'y' 1 "
    ):
        lay_out({"x": TRACKS, "y": other}, ["x", "y"], (None,), where="f.root:T, K")


def test_shapes_that_differ_are_named() -> None:
    def shape(own: str, **types: BranchType) -> object:
        return common_shape(types, own=own.split(), where="t")

    assert shape("a b", a=FLAT, b=FLAT) == ()
    assert shape("a b", a=FLAT, b=LIST) == (None,)
    assert shape("a c", a=PAIR, b=FLAT, c=PAIR) == (2,)
    assert shape("a", a=LIST, b=LIST) == (None,)
    with pytest.raises(NtupleError, match=r"different .*'a' \(float64\[2\]\), 'b'"):
        shape("a b", a=PAIR, b=LIST)
    with pytest.raises(
        NtupleError, match=r"t: 'b' is of type float32\[\], expected fl"
    ):
        shape("a", a=FLAT, b=LIST)
