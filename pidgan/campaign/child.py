"""The process of one task: `python -m pidgan.campaign.child`.

It reads what to do from its standard input, which its parent keeps open. When the
parent ends, however it does, the input ends too: a training then writes a checkpoint,
and the process stops. So no task goes on unseen beside its own repetition.
"""

import _thread
import contextlib
import json
import os
import platform
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pidgan.campaign.records import BEAT_SECONDS, Record, Records, sizes_of
from pidgan.campaign.stages import do_stage
from pidgan.campaign.tasks import Task, inputs_of
from pidgan.errors import CampaignError, PidganError, PidganWarning, one_line
from pidgan.files.beats import beating

STOP_SECONDS = 20.0
"""Time in which a task may write a checkpoint after its parent has ended."""

LOCK_SECONDS = 600.0
"""Time to wait for a process that does the same task, and that is about to stop."""

MOST_WARNINGS = 50
"""Warnings of a task that are kept."""


def main() -> None:
    """Do the task that the standard input names, and write its record."""
    job = json.loads(_read_line())
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    given = dict(job["task"])
    for name in ("files", "after", "perhaps"):
        given[name] = tuple(given[name])
    output, folder = Path(job["output"]), Path(job["folder"])
    with _alone(Records(output).lock(f"{given['bundle']}.{given['stage']}")):
        do_task(Task(**given), output, folder, job["digests"])


def do_task(task: Task, output: Path, folder: Path, digests: dict[str, str]) -> Record:
    """Do a task in this process, which is in `folder`, and return its record."""
    records = Records(output)
    inputs = inputs_of(task, digests, folder)
    old = records.read(task.name)
    if old is not None and old.is_done(inputs, output):
        return old
    record = Record(
        state="running",
        inputs=inputs,
        began=time.time(),
        where=f"{platform.node()}, process {os.getpid()}",
    )
    with _beating(record, records.path(task.name)), _kept_warnings(record.warnings):
        try:
            made = do_stage(
                task,
                output,
                digests,
                again=old is None or not old.is_of(inputs),
                tell=lambda text: setattr(record, "progress", text),
            )
            record.outputs = sizes_of(made.files, output)
            record.digest, record.result = made.digest, dict(made.result)
            state: Any = "done"
        except KeyboardInterrupt:
            state, record.reason = "stopped", "it was stopped"
        except Exception as error:
            state, record.reason = "failed", _reason(error)
            traceback.print_exc()
        record.progress, record.seconds = "", time.time() - record.began
        record.state = state
    return record


def _reason(error: Exception) -> str:
    """Return why a task failed, in one line."""
    if isinstance(error, PidganError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"the memory is not enough: {one_line(error)}"
    return one_line(error)


@contextlib.contextmanager
def _beating(record: Record, path: Path) -> Iterator[None]:
    """Write a record now, every few seconds, and at the end."""
    try:
        with beating(lambda: record.write(path), BEAT_SECONDS):
            yield
    finally:
        record.write(path)


@contextlib.contextmanager
def _kept_warnings(kept: list[str]) -> Iterator[None]:
    """Keep the warnings of this package, which go to the log too."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", PidganWarning)
        show = warnings.showwarning

        def keep(message: Any, category: Any, *where: Any) -> None:
            text = " ".join(str(message).split())
            if not issubclass(category, PidganWarning):
                show(message, category, *where)
                return
            print(f"pidgan: warning: {text}", file=sys.stderr)
            if text not in kept and len(kept) < MOST_WARNINGS:
                kept.append(text)

        warnings.showwarning = keep  # type: ignore[assignment]
        yield


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process does the task; the lock ends with the process."""
    try:
        import fcntl
    except ImportError:  # Windows: the parent ends its child there too
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        ends = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise CampaignError(
                        f"{path} is locked: another process does this task"
                    ) from None
                time.sleep(0.2)
                continue
            except OSError:  # a file system without locks
                pass
            break
        yield


def _read_line() -> str:
    """Return the first line of the standard input, without reading on."""
    found = b""
    while not found.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(1)
        found += byte
    return found.decode()


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    _thread.interrupt_main()
    time.sleep(STOP_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
