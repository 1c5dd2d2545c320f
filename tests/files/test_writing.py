"""Files and folders are written whole or not at all, whatever happens meanwhile."""

import contextlib
import errno
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pidgan.errors import NtupleError
from pidgan.files.leftovers import temporary_name
from pidgan.files.seals import (
    check_seal,
    file_sha256,
    part_of,
    read_set,
    sealed,
    waiting_name,
)
from pidgan.files.writing import (
    refuse_existing,
    writing_file,
    writing_files,
    writing_folder,
    writing_set,
    writing_set_folder,
)


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


@pytest.mark.parametrize("path", [".", "/"])
def test_a_new_folder_has_a_name(path: str) -> None:
    with pytest.raises(NtupleError, match="is not a new folder; give it a name"):
        fail(writing_folder(path, overwrite=True), BodyError("mine"))


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


def write_set(paths: list[Path], text: str, *, overwrite: bool = False) -> None:
    """Write a head, which holds the hashes of its parts, and parts."""
    with writing_set(*paths, overwrite=overwrite) as (head, *parts):
        for i, part in enumerate(parts):
            part.write_text(f"{text} {i}")
        head.write_text("\n".join([text, *map(file_sha256, parts)]))


def read_text_of_set(paths: list[Path]) -> str:
    """Return the text of a set, whose parts are those that the head lists."""
    text, *hashes = paths[0].read_text().splitlines()
    for i, (part, sha256) in enumerate(zip(paths[1:], hashes, strict=True)):
        assert part_of(part, sha256).read_text() == f"{text} {i}"
    return text


def renames(monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> None:
    """Call a function before every rename, link and removal of a file."""

    def wrap(module: Any, name: str) -> None:
        real = getattr(module, name)

        def wrapped(*given: Any, **options: Any) -> Any:
            look()
            return real(*given, **options)

        monkeypatch.setattr(module, name, wrapped)

    for name in ("replace", "rename", "link", "unlink"):
        wrap(os, name)


def test_files_that_repeat_another_are_never_seen_beside_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("page", "numbers", "picture")]
    seen: list[set[str]] = []
    states = [path.write_text("old") for path in paths[1:]]

    def look() -> None:
        seen.append({path.read_text() for path in paths if path.exists()})

    with monkeypatch.context() as patch:
        renames(patch, look)
        for text, overwrite in (("one", False), ("two", True)):
            with writing_files(paths, overwrite=overwrite) as temporary:
                for path in temporary:
                    path.write_text(text)
    assert all(len(state) <= 1 for state in seen[len(states) :])
    assert content(tmp_path) == dict.fromkeys(("page", "numbers", "picture"), "two")


def test_a_set_is_the_old_or_the_new_one_before_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("card.json", "arrays.npz", "table.parquet")]
    seen = []

    def look() -> None:
        seen.append(read_text_of_set(paths) if paths[0].exists() else "")

    renames(monkeypatch, look)
    write_set(paths, "old")
    write_set(paths, "new", overwrite=True)
    look()
    assert [text for text, _ in itertools.groupby(seen)] == ["", "old", "new"]
    assert sorted(content(tmp_path)) == ["arrays.npz", "card.json", "table.parquet"]


def test_a_part_that_a_set_lacks_is_removed(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("map.json", "map.npz", "map.root")]
    write_set(paths, "old")
    with writing_set(*paths, overwrite=True) as (head, part, _):
        part.write_text("new 0")
        head.write_text(f"new\n{file_sha256(part)}")
    assert sorted(content(tmp_path)) == ["map.json", "map.npz"]


def test_a_folder_of_a_set_appears_whole_and_keeps_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with writing_set_folder(folder, "card", "arrays", overwrite=text == "new") as (
            head,
            part,
        ):
            assert folder.exists() == (text == "new")
            part.write_text(f"{text} 0")
            head.write_text(f"{text}\n{file_sha256(part)}")
        assert read_text_of_set([folder / "card", folder / "arrays"]) == text
        (folder / "checkpoint").write_text("mine")
    assert sorted(content(folder)) == ["arrays", "card", "checkpoint"]
    with (
        pytest.raises(NtupleError, match=r"card exists"),
        writing_set_folder(folder, "card", "arrays"),
    ):
        pass


def test_a_part_is_known_by_its_hash(tmp_path: Path) -> None:
    paths = [tmp_path / "head", tmp_path / "part"]
    write_set(paths, "one")
    sha256 = file_sha256(paths[1])
    with pytest.raises(ValueError, match=r"part is damaged or belongs to another file"):
        part_of(paths[1], "0" * 64)
    waiting = waiting_name(paths[1], sha256)
    paths[1].rename(waiting)
    assert part_of(paths[1], sha256) == waiting
    paths[1].write_text("another")
    assert part_of(paths[1], sha256) == waiting
    assert part_of(paths[1], sha256, verify=False) == waiting
    waiting.unlink()
    assert part_of(paths[1], sha256, verify=False) == paths[1]
    paths[1].unlink()
    with pytest.raises(ValueError, match="part is missing"):
        part_of(paths[1], sha256)


def test_a_seal_knows_values_and_their_order(tmp_path: Path) -> None:
    head = {"cuts": ["a", "b"], "edges": {"P": [1.0, 2.0], "ETA": [float("nan")]}}
    content = json.loads(json.dumps(sealed(head), indent=3))
    check_seal(content)
    for changed in (
        {**content, "cuts": ["b", "a"]},
        {**content, "edges": dict(reversed(content["edges"].items()))},
        {**content, "more": None},
        {key: value for key, value in content.items() if key != "cuts"},
        {**content, "seal": "0" * 64},
        {key: value for key, value in content.items() if key != "seal"},
    ):
        with pytest.raises(ValueError, match="changed after it was written: its seal"):
            check_seal(changed)


def test_reading_is_repeated_if_the_head_is_replaced_meanwhile(tmp_path: Path) -> None:
    paths = [tmp_path / "head", tmp_path / "part"]
    write_set(paths, "old")
    texts = iter(["new", "newer"])

    def read() -> str:
        head = paths[0].read_text().splitlines()
        for text in texts:
            write_set(paths, text, overwrite=True)
            break
        return part_of(paths[1], head[1]).read_text()

    assert read_set(paths[0], read) == "newer 0"
    paths[1].write_text("damaged")
    with pytest.raises(ValueError, match="damaged"):
        read_set(paths[0], read)


def write_two(tmp_path: Path, name: str, block: Any, *, overwrite: bool) -> list[str]:
    """Let two writers begin, and both end; return what became of them."""
    found = []
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(contextlib.ExitStack()) for _ in range(2)]
        given = [
            one.enter_context(block(tmp_path / name, overwrite)) for one in writers
        ]
        for text, path in zip(("one", "two"), given, strict=True):
            if isinstance(path, list):
                path[1].write_text(f"{text} 0")
                path[0].write_text(f"{text}\n{file_sha256(path[1])}")
            else:
                (path / "mark" if path.is_dir() else path).write_text(text)
        for one in writers:
            try:
                one.close()
                found.append("wrote")
            except NtupleError as error:
                found.append(str(error).partition(";")[0])
    return found


BLOCKS = {
    "file": lambda path, overwrite: writing_file(path, overwrite=overwrite),
    "files": lambda path, overwrite: writing_files(
        [path, f"{path}.h"], overwrite=overwrite
    ),
    "set": lambda path, overwrite: writing_set(
        path, f"{path}.part", overwrite=overwrite
    ),
    "set of a folder": lambda path, overwrite: writing_set_folder(
        path, "head", "part", overwrite=overwrite
    ),
    "folder": lambda path, overwrite: writing_folder(
        path, mark="mark", overwrite=overwrite
    ),
}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", BLOCKS)
def test_of_two_writers_of_a_new_output_the_second_fails(
    tmp_path: Path, name: str, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    found = write_two(tmp_path, "a", BLOCKS[name], overwrite=False)
    assert found == ["wrote", f"{tmp_path / 'a'} exists"]
    assert "two" not in "".join(content(tmp_path).values())
    assert not [path for path in content(tmp_path) if "/." in f"/{path}"]
    found = write_two(tmp_path, "b", BLOCKS[name], overwrite=True)
    assert found == ["wrote", "wrote"]
    texts = [text for path, text in content(tmp_path).items() if path[0] == "b"]
    assert texts
    assert all(text.startswith("two") for text in texts)


def test_writers_of_one_set_leave_one_of_their_sets(tmp_path: Path) -> None:
    paths = [tmp_path / "head", tmp_path / "part", tmp_path / "other"]
    write_set(paths, "0")
    errors: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for i in range(first, first + 25):
                write_set(paths, str(i), overwrite=True)
                read_set(paths[0], lambda: read_text_of_set(paths))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    read_text_of_set(paths)
    assert sorted(content(tmp_path)) == ["head", "other", "part"]


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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_what_a_living_or_foreign_run_writes_stays(tmp_path: Path) -> None:
    mine = temporary_name(tmp_path / "b.root")
    *run, space, start, token = mine.name.removesuffix(".root").split("-")
    process = run[-1]
    assert process == str(os.getpid())
    names = {
        "mine": mine.name,
        "number taken again": mine.name.replace(f"-{start}-", f"-{int(start) + 1}-"),
        "container": mine.name.replace(f"-{space}-", "-00000000-"),
        "machine": mine.name.replace(platform.node(), "elsewhere"),
    }
    assert len(set(names.values())) == len(names)
    for age, left in ((0, {"mine", "container", "machine"}), (8, {"mine"})):
        for name in names.values():
            (tmp_path / name).touch()
            then = time.time() - age * 86_400
            os.utime(tmp_path / name, (then, then))
        refuse_existing(tmp_path / "b.root", overwrite=False)
        assert {
            key for key, name in names.items() if (tmp_path / name).exists()
        } == left
    assert token not in temporary_name(tmp_path / "b.root").name


def test_a_folder_that_was_being_replaced_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two folders cannot be exchanged at once, and the process is killed."""
    monkeypatch.setattr("pidgan.files.writing._exchange", lambda *_: False)
    write_folder(tmp_path / "f", "one")
    write_folder(tmp_path / "f", "two", overwrite=True)
    assert content(tmp_path) == {"f/mark": "two"}
    with monkeypatch.context() as patch:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        patch.setattr("pidgan.files.leftovers.process_number", lambda: process.pid)
        (tmp_path / "f").rename(temporary_name(tmp_path / "f.replaced"))
    with pytest.raises(NtupleError, match="f exists"):
        write_folder(tmp_path / "f", "three")
    assert content(tmp_path) == {"f/mark": "two"}


def test_a_disk_that_is_full_behind_an_error_of_a_library(tmp_path: Path) -> None:
    error = ValueError("I/O operation on closed file")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    message = r"a\.root cannot be written: OSError: .*No space left"
    with pytest.raises(NtupleError, match=message):
        fail(writing_file(tmp_path / "a.root"), error)
    with pytest.raises(ValueError, match="no matter of the disk"):
        fail(writing_file(tmp_path / "a.root"), ValueError("no matter of the disk"))
