"""Temporary names that tell the run they belong to, and what dead runs left behind.

A name holds machine, process, the space of process numbers (of a container, and of one
start of the machine), the start of the process and a token, so that no two runs share
one, and so that a later run knows whether the run of a name still lives.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

ENDED = ("Z", "X")
"""States, in Linux' /proc, of processes that have ended: zombie and dead."""

FOREIGN_DAYS = 7
"""Days without a change after which what a run elsewhere left counts as left."""

MOST_CHARACTERS = 100
"""Longest start of a temporary name, as file systems allow 255 bytes."""


def _shortened(text: str) -> str:
    """Return the start of a temporary name for a stem, shortened if it is long."""
    if len(text.encode()) <= MOST_CHARACTERS:
        return text
    return f"{text[:20]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def temporary_name(path: Path) -> Path:
    """Return a free name beside a path, of this run and of the same suffix."""
    # The token keeps threads of a process apart that write the same path.
    token = uuid.uuid4().hex[:8]
    start, end = _around(path)
    return path.with_name(f"{start}{_run()}-{token}{end}")


def is_temporary(path: Path) -> bool:
    """Return whether a path has a temporary name of this run."""
    token = rf"\..+\.{re.escape(_run())}-[0-9a-f]{{8}}{re.escape(path.suffix)}"
    return re.fullmatch(token, path.name) is not None


def remove_leftovers(path: Path) -> None:
    """Remove what dead runs left that wrote a file or folder of this name."""
    path = Path(os.path.abspath(path))
    for name in leftovers(path):
        remove(path.with_name(name))


def remove(path: Path) -> None:
    """Remove a file or folder; an error here must not hide the one that led here."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def leftovers(path: Path) -> Iterator[str]:
    """Yield the names that dead runs left beside a path."""
    first, last = _around(path)
    names = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(path.parent) if name.startswith(first)]
    if not names:  # A folder may have many files, and each of them asks.
        return
    start, end = re.escape(first), re.escape(last)
    # Version 0.1 had no space and no start.
    run = r"(?P<process>\d+)(-(?P<space>[0-9a-f]{8})-(?P<start>\d+))?(-[0-9a-f]{8})?"
    mine = re.compile(f"{start}{re.escape(_machine())}-{run}{end}")
    any_run = re.compile(rf"{start}.+-\d+-[0-9a-f]{{8}}-\d+-[0-9a-f]{{8}}{end}")
    for name in sorted(names):
        found = mine.fullmatch(name)
        if found is not None and found["space"] in (None, _space()):
            if not _is_running(int(found["process"]), found["start"]):
                yield name
        elif any_run.fullmatch(name) and _is_old(path.with_name(name)):
            yield name


def this_run() -> str:
    """Return a text that tells this run from all others, on any machine."""
    return _run()


def has_ended(run: str) -> bool:
    """Return whether a run of this machine has ended; of another it is not known."""
    machine, *numbers = run.rsplit("-", 3)
    if machine != _machine() or len(numbers) < 3 or not numbers[0].isdigit():
        return False
    return numbers[1] == _space() and not _is_running(int(numbers[0]), numbers[2])


def process_number() -> int:
    """Return the number of this process."""
    return os.getpid()


def _run() -> str:
    return f"{_machine()}-{process_number()}-{_space()}-{_start_of('self')}"


def _around(path: Path) -> tuple[str, str]:
    """Return what a temporary name begins and ends with."""
    return f".{_shortened(path.stem)}.", path.suffix


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > FOREIGN_DAYS * 86_400
    except OSError:
        return False


def _machine() -> str:
    return platform.node() or "localhost"


@functools.cache
def _space() -> str:
    """Return a mark of the machine's start and of the container's process numbers."""
    texts = []
    with contextlib.suppress(OSError):
        texts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        texts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:8]


def _status(process: int | str) -> list[str]:
    """Return the fields of a process from its state on, none without Linux' /proc."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return []
    return status.rpartition(")")[2].split()


def _start_of(process: int | str) -> str:
    """Return when a process started, in ticks of the machine; 0 if that is unknown."""
    fields = _status(process)
    return fields[19] if len(fields) > 19 else "0"


def _is_running(process: int, start: str | None) -> bool:
    """Return whether a process exists, has not ended, and started when it is said."""
    if os.name != "posix":
        return True  # Elsewhere `os.kill` ends processes instead of asking for them.
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    # One that has ended exists until its parent asks: in a container, perhaps for ever.
    fields = _status(process)
    if fields and fields[0] in ENDED:
        return False
    # Another process may have its number by now.
    return start in (None, "0") or _start_of(process) in ("0", start)
