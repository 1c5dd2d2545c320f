"""What can be an output, and what can be read, is known before any work."""

import os
from pathlib import Path

import pytest

from pidgan.errors import NtupleError
from pidgan.files.places import check_output, file_problem
from pidgan.files.writing import refuse_existing, writing_file, writing_folder


@pytest.mark.parametrize("address", ["root://host//a/b.root", "http://host/o.root"])
@pytest.mark.parametrize("kind", [str, Path])
def test_no_output_is_remote(
    address: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    host = f"{address.partition('://')[0]}://host/.* is an address"
    for overwrite in (True, False):
        with pytest.raises(NtupleError, match=host):
            refuse_existing(kind(address), overwrite=overwrite)
        for writing in (writing_file, writing_folder):
            with (
                pytest.raises(NtupleError, match=host),
                writing(kind(address), overwrite=overwrite),
            ):
                pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["new", "new/er/est.root", "a:b", "C:/x"])
def test_local_names_are_outputs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(name)
    check_output(tmp_path / name)
    check_output(tmp_path)
    assert not list(tmp_path.iterdir())


def test_places_that_hold_no_output(tmp_path: Path) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_text("")
    os.mkfifo(pipe)
    for path, message in (
        (file / "below" / "it", f"{file}/below/it cannot be written: {file} is not"),
        (pipe, f"{pipe} is a pipe or device"),
        ("/dev/null", "is a pipe or device"),
        (f"{tmp_path}/a\0b", "cannot be written: ValueError"),
        (tmp_path / ("a" * 300), "cannot be written: OSError"),
    ):
        with pytest.raises(NtupleError, match=message):
            check_output(path)


def test_a_read_only_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The superuser may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(NtupleError, match=f"written: {tmp_path} is read-only"):
        check_output(tmp_path / "new" / "out.root")


def test_a_folder_that_vanished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(NtupleError, match=r"out\.root' cannot be written"):
        check_output("out.root")


def test_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("file", ""),
        ("none", "no such file"),
        ("file/below", "no such file"),
        (".", "a directory"),
        ("pipe", "a pipe or device"),
        ("a\0b", "ValueError"),
        ("a" * 300, "OSError"),
    ):
        found = file_problem(f"{tmp_path}/{name}")
        assert found.startswith(problem), (name, found)
        assert bool(found) == bool(problem)
