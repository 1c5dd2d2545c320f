"""Blocks of irregular bins, as PIDCalib2's optbinscheme writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from pidgan.errors import SampleError
from pidgan.sample.loading import load_binning


def block(number: int, *edges: float) -> dict[str, Any]:
    return {
        "filename_suffix": f"block{number}",
        "ranges": {"P": [edges[0], edges[-1]], "ETA": [1.5, 5.0]},
        "binning_scheme": {"K": {"P": list(edges), "ETA": [1.5, 3.0, 5.0]}},
    }


def write(path: Path, *blocks: Any) -> Path:
    content = {"log_post": -1.0, "n_bins": 6, "binning_files": list(blocks)}
    path.write_text(json.dumps(content))
    return path


def test_a_block_is_a_binning(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", block(0, 3e3, 1e4), block(1, 1e4, 3e4, 1e5))
    assert load_binning(f"{path}:block1") == {
        "P": (1e4, 3e4, 1e5),
        "ETA": (1.5, 3.0, 5.0),
    }
    with pytest.raises(SampleError, match=r"has 2 blocks .*, block0, block1; name one"):
        load_binning(str(path))
    with pytest.raises(SampleError, match=r"name one, .*; closest: 'block"):
        load_binning(f"{path}:block2")
    alone = write(tmp_path / "one.json", block(0, 3e3, 1e4))
    assert load_binning(str(alone))["P"] == (3e3, 1e4)


@pytest.mark.parametrize("blocks", [(), (3,), ({"filename_suffix": "block0"},)])
def test_blocks_without_bins_are_refused(blocks: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", *blocks)
    with pytest.raises(SampleError, match="holds no block with its bins"):
        load_binning(str(path))
