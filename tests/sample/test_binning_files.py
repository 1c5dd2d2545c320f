"""Binnings in the JSON files of PIDCalib2."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pidgan.efficiency.table import efficiency_table
from pidgan.errors import SampleError
from pidgan.sample.loading import load_binning


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_edges_of_a_particle(tmp_path: Path) -> None:
    k = {"P": [3000, 9300, 15600.5], "PT": [0, 1e3, 2e4]}
    one = write(tmp_path / "one.json", {"K": k})
    two = write(tmp_path / "two.json", {"Pi": {"P": [1, 2]}, "K": k})
    expected = {"P": (3000.0, 9300.0, 15600.5), "PT": (0.0, 1e3, 2e4)}
    assert load_binning(str(one)) == expected
    assert load_binning(f"{two}:K") == expected
    frame = {"PT": np.array([500.0, 1500.0, 2500.0]), "y": np.array([1.0, -1.0, 1.0])}
    table = efficiency_table(frame, "y > 0", binning={"PT": f"{two}:K"})
    np.testing.assert_array_equal(table.efficiency[0], [1.0, 0.5])


@pytest.mark.parametrize(
    ("content", "particle", "message"),
    [
        ({"K": {"P": [1, 2]}, "Pi": {"P": [1, 2]}}, "", "has binnings of K, Pi; say"),
        ({"K": {"P": [1, 2]}}, ":Pi", "has no binning of 'Pi'"),
        ({"K": {"P": [2, 1]}}, "", "edges of K.P do not rise"),
        ({"K": {"P": [1]}}, "", "edges of K.P do not rise"),
        ({"K": {"P": "abc"}}, "", "K.P holds no edges"),
        ({"K": [1, 2]}, "", "'K' is no binning"),
        ([1], "", "holds no binning"),
    ],
)
def test_what_is_no_binning(
    tmp_path: Path, content: Any, particle: str, message: str
) -> None:
    path = write(tmp_path / "wrong.json", content)
    with pytest.raises(SampleError, match=message):
        load_binning(f"{path}{particle}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"gone\.json"):
        load_binning(str(tmp_path / "gone.json"))
