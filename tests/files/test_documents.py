"""Documents of users are read within bounds, or refused with one line."""

import os
from pathlib import Path
from typing import Any

import pytest

from pidgan.application.quantile_map import QuantileMap
from pidgan.bundle.bundle import open_bundle
from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.errors import MapError, PidganError
from pidgan.files.documents import MAX_DEPTH, read_json, read_text, read_toml
from pidgan.sample.loading import load_sample

READERS = {"json": read_json, "toml": read_toml}
OPENERS: dict[str, Any] = {
    ".toml": load_sample,
    ".xml": load_geometry,
    ".json": QuantileMap.open,
    ".onnx": open_bundle,
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", "[" * 100_000),
        ("x.json", "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)),
        ("x.json", '{"a":' * 200 + "1" + "}" * 200),
        ("x.json", "1" * 5000),
        ("x.json", "{"),
        ("x.toml", "a = " + "[" * 100_000),
        ("x.toml", "a = " + "[" * 100 + "]" * 100),
        ("x.toml", ".".join("a" * 3000) + " = 1"),
        ("x.toml", "a = " + "1" * 5000),
        ("x.toml", "a"),
    ],
)
def test_what_is_no_document(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(MapError, match=f"^{path} is no") as found:
        READERS[name[2:]](path, error=MapError)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400


def test_documents_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    depth = MAX_DEPTH - 1
    path.write_text("[" * depth + "1" + "]" * depth)
    found = read_json(path, error=MapError)
    for _ in range(depth):
        (found,) = found
    assert found == 1
    path.write_bytes(b'a = "b"\r\nc = 2')
    assert read_toml(path, error=MapError) == {"a": "b", "c": 2}
    path.write_bytes(b"\xff\xff")
    with pytest.raises(MapError, match="not a text file in UTF-8"):
        read_toml(path, error=MapError)


def test_a_document_of_nothing_is_not_called_deep(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("null")
    assert read_json(path, error=MapError) is None
    with pytest.raises(MapError, match="not an efficiency map"):
        EfficiencyMap.open(path)


def test_a_file_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(2**20 + 1))
    with pytest.raises(MapError, match="1 MiB, expected at most 1 MiB"):
        read_text(path, error=MapError, most=2**20)


@pytest.mark.parametrize("suffix", OPENERS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "nothing", "NUL", "long"])
def test_what_is_no_file_is_refused_at_once(
    suffix: str, kind: str, tmp_path: Path
) -> None:
    path = f"{tmp_path}/x{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "folder":
        Path(path).mkdir()
    middle = {"NUL": "\0", "long": 300 * "a"}.get(kind, "")
    with pytest.raises((PidganError, ValueError)) as found:
        OPENERS[suffix](f"{tmp_path}/x{middle}{suffix}")
    assert "\n" not in str(found.value)
    expected = {"pipe": "a pipe or device", "folder": "a directory"}
    assert expected.get(kind, "") in str(found.value)
