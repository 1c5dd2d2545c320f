"""End a run at its n-th operation on files, as a kill would, and look at what is there.

The functions of the standard library that change names, make or remove files, or open
them for writing, are counted. From the chosen one on, none has an effect any more and
each raises: whatever the program does in its `finally` is done in vain, as if the
process were gone. Its temporary files then have the number of a process that has ended.
"""

import builtins
import dataclasses
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pidgan.errors import NtupleError

OPERATIONS = (
    *("replace", "rename", "link", "symlink", "unlink", "remove", "mkdir", "rmdir"),
    *("truncate", "fsync"),
)


class Killed(BaseException):
    """Stands for the end of the process."""


class Killer:
    """Counts operations on files, and lets a run end before operation number `at`."""

    def __init__(self, at: int | None) -> None:
        self.at, self.done = at, 0
        self.names: list[str] = []

    def __call__(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **options: Any) -> Any:
            if self.at is not None and self.done >= self.at:
                raise Killed
            if name != "open" or self._writes(*given, **options):
                if self.done + 1 == self.at:
                    self.done += 1
                    raise Killed
                self.done += 1
                self.names.append(f"{name} {given[0]}")
            return real(*given, **options)

        return wrapped

    @staticmethod
    def _writes(file: Any, mode: Any = "r", *_: Any, **options: Any) -> bool:
        mode = options.get("mode", mode)
        if isinstance(mode, int):
            return bool(mode & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return bool(set(mode) & set("wax+"))


def dead_process() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def run_until(work: Callable[[], Any], at: int | None, process: int) -> Killer:
    """Do the work until it is killed before operation number `at`; count operations."""
    killer = Killer(at)
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, killer(name, getattr(os, name)))
        patch.setattr(os, "open", killer("open", os.open))
        patch.setattr(io, "open", killer("open", io.open))
        patch.setattr(builtins, "open", killer("open", builtins.open))
        patch.setattr("pidgan.files.leftovers.process_number", lambda: process)
        try:
            work()
        except Killed:
            assert at is not None
        else:
            assert at is None or killer.done < at, "the kill was swallowed"
    return killer


def names(folder: Path) -> set[str]:
    """Return the paths of all files and folders below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@dataclasses.dataclass(frozen=True)
class Output:
    """What `write(folder, which, overwrite)` makes, of which there are two, 0 and 1.

    `read` returns the numbers, and None if there is no output.
    """

    write: Callable[[Path, int, bool], Any]
    read: Callable[[Path], Any]


def kill_everywhere(output: Output, folder: Path, *, overwrite: bool) -> int:
    """Kill a run before each of its operations; return their number.

    It leaves the old or the new state, and a second run the new one, nothing else.
    """
    process = dead_process()
    start, whole = folder / "start", folder / "whole"
    start.mkdir()
    if overwrite:
        output.write(start, 0, False)
    old = output.read(start)
    shutil.copytree(start, whole)
    killer = run_until(partial(output.write, whole, 1, overwrite), None, process)
    new = output.read(whole)
    assert new is not None
    assert new != old
    states = []
    for number, operation in enumerate(killer.names, 1):
        place = folder / "killed"
        shutil.copytree(start, place)
        run_until(partial(output.write, place, 1, overwrite), number, process)
        step = f"before {number}, {operation}"
        found = output.read(place)
        assert found in (old, new), step
        states.append(found == new)
        if found == new and not overwrite:
            again(output, place)
        else:
            output.write(place, 1, overwrite)
        assert output.read(place) == new, step
        assert names(place) == names(whole), step
        shutil.rmtree(place)
    # From one moment on it is the new state.
    assert states == sorted(states)
    assert not states[0]
    return len(states)


def again(output: Output, place: Path) -> None:
    """Write what is there already: it is refused, unless it is known to be finished."""
    try:
        output.write(place, 1, False)
    except NtupleError as error:
        if "exists" not in str(error):
            raise
        output.write(place, 1, True)
