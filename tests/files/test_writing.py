"""Files and folders are written whole or not at all, whatever happens meanwhile."""

import os
import platform
import shutil
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pidgan.errors import NtupleError
from pidgan.files.writing import writing_file, writing_files, writing_folder


class BodyError(Exception):
    """What a block raises."""


def content(folder: Path) -> dict[str, str]:
    """Return the text of every file in a folder, by its path there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def write(path: Path, text: str, *, overwrite: bool = False) -> None:
    with writing_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text)


def write_folder(path: Path, text: str, *, overwrite: bool = False) -> None:
    with writing_folder(path, mark="mark", overwrite=overwrite) as folder:
        (folder / "mark").write_text(text)


def fail(block: AbstractContextManager[Any], error: BaseException) -> None:
    """Write half of what a block is for, and raise."""
    with block as given:
        for path in given if isinstance(given, list) else [given]:
            half = path / "half" if path.is_dir() else path
            half.write_text("half")
        raise error


@pytest.mark.parametrize("write", [write, write_folder])
def test_nothing_is_replaced_unasked(tmp_path: Path, write) -> None:
    path = tmp_path / "new" / "a.b"
    write(path, "old")
    message = rf"^{path} exists; choose another name or overwrite=True \(--overwrite\)$"
    with pytest.raises(NtupleError, match=message):
        write(path, "new")
    assert set(content(tmp_path).values()) == {"old"}
    write(path, "new", overwrite=True)
    assert set(content(tmp_path).values()) == {"new"}


def test_the_temporary_file_has_the_same_suffix_and_directory(tmp_path: Path) -> None:
    with writing_file(tmp_path / "a.root") as one, writing_file(tmp_path / "b") as two:
        assert one.suffix == ".root"
        assert one.parent == two.parent == tmp_path
        one.touch()
        two.touch()
    assert sorted(content(tmp_path)) == ["a.root", "b"]


@pytest.mark.parametrize(
    "error", [BodyError("mine"), KeyboardInterrupt(), SystemExit(3)]
)
def test_a_block_that_fails_leaves_the_old_state(
    tmp_path: Path, error: BaseException
) -> None:
    write(tmp_path / "a", "old")
    write_folder(tmp_path / "f", "old")
    before = content(tmp_path)
    paths = tmp_path / "a", tmp_path / "c"
    for block in (
        writing_file(tmp_path / "a", overwrite=True),
        writing_files(paths, overwrite=True),
        writing_folder(tmp_path / "f", mark="mark", overwrite=True),
    ):
        with pytest.raises(type(error)):
            fail(block, error)
    assert content(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "f"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_an_error_of_cleaning_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError("cleaning fails")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(BodyError, match="mine"):
        fail(writing_file(tmp_path / "a"), BodyError("mine"))


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        NtupleError, match=r"a\.root cannot be written: OSError: .*full"
    ):
        fail(writing_file(tmp_path / "a.root"), OSError("the disk is full"))


def test_files_and_folders_are_not_taken_for_one_another(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(NtupleError, match="folder is a directory, expected the name"):
        write(tmp_path / "folder", "", overwrite=True)
    with pytest.raises(NtupleError, match="file is a file, expected the name"):
        write_folder(tmp_path / "file", "", overwrite=True)


def test_folders_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", "mine", overwrite=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(NtupleError, match="holds files but no mark: it is not repl"):
        write_folder(tmp_path / "full", "mine", overwrite=True)
    expected = {"empty/mark": "mine", "full/thesis.tex": "years of work"}
    assert content(tmp_path) == expected


def test_of_several_files_the_first_is_never_seen_with_others_of_an_older_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("card", "arrays", "table")]
    replace, seen = os.replace, []

    def look(source: Path, target: Path) -> None:
        seen.append({path.name for path in paths if path.exists()})
        replace(source, target)

    for text, expected in (
        ("old", [set(), {"table"}, {"table", "arrays"}]),
        ("new", [{"table", "arrays"}] * 3),
    ):
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", look)
            with writing_files(paths, overwrite=True) as temporary:
                for path in temporary:
                    path.write_text(text)
        assert seen == expected
        assert set(content(tmp_path).values()) == {text}


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for text in ("one", "two", "three"):
        write_folder(tmp_path / "f", text, overwrite=True)
        assert content(tmp_path) == {"f/mark": text}


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    write_folder(tmp_path / "f", "old")
    with (
        pytest.raises(NtupleError, match="f cannot be written: FileNotFoundError"),
        writing_folder(tmp_path / "f", mark="mark", overwrite=True) as folder,
    ):
        shutil.rmtree(folder)
    assert content(tmp_path) == {"f/mark": "old"}


def test_threads_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def work(text: str) -> None:
        with writing_file(tmp_path / "a", overwrite=True) as temporary:
            barrier.wait()
            temporary.write_text(text)
            barrier.wait()
            assert temporary.read_text() == text

    threads = [threading.Thread(target=work, args=(c * 1000,)) for c in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (text,) = content(tmp_path).values()
    assert text in {c * 1000 for c in "abcd"}


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")
def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    host = platform.node()
    dead = tmp_path / f".b.root.{host}-{process.pid}.json"
    gone = [
        tmp_path / f".b.{host}-{process.pid}.root",
        tmp_path / f".b.{host}-{process.pid}-0123abcd.root",
    ]
    kept = [
        tmp_path / f".b.{host}-{os.getppid()}.root",
        tmp_path / f".b.{host}-{os.getppid()}-0123abcd.root",
        tmp_path / f".b.elsewhere-{process.pid}.root",
        tmp_path / f".c.{host}-{process.pid}.root",
        tmp_path / f"b.{host}-{process.pid}.root",
    ]
    for path in (dead, *gone, *kept):
        path.touch()
    folder = tmp_path / f".f.{host}-{process.pid}-0123abcd"
    folder.mkdir()
    (folder / "half").touch()
    write(tmp_path / "b.root", "whole")
    write_folder(tmp_path / "f", "whole")
    assert not any(path.exists() for path in (*gone, folder))
    assert all(path.exists() for path in (dead, *kept))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_what_a_process_left_that_nobody_has_waited_for_is_removed(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    left = tmp_path / f".b.{platform.node()}-{process.pid}.root"
    left.touch()
    os.kill(process.pid, 0)
    write(tmp_path / "b.root", "whole")
    assert not left.exists()
    process.wait()
