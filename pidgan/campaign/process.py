"""One task in a process of its own, which a worker starts and waits for.

A process for each task keeps trainings apart: each has its own threads and its own log,
and one that is killed, or that uses too much memory, takes nothing else with it. All
numbers of threads are stated, since results depend on them by rounding.
"""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pidgan.campaign.records import Record, Records, State
from pidgan.campaign.tasks import Task, inputs_of
from pidgan.errors import PidganError
from pidgan.files.machine import THREADS_VARIABLE

STOP_SECONDS = 30.0
"""Time in which a task may stop before its process is killed."""

THREADS = (
    THREADS_VARIABLE,
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
)
"""Variables of the environment that numbers of threads are read from."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task that is to be done.

    Attributes:
        task: The task.
        output: Folder that the campaign writes.
        folder: Folder of the file of the campaign.
        digests: Those of the tasks before it that were done already.
    """

    task: Task
    output: Path
    folder: Path
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task."""

    task: str
    state: State
    digest: str = ""
    reason: str = ""
    seconds: float = 0.0


def run_job(job: Job, before: Iterable[Outcome]) -> Outcome:
    """Do a task after those before it, and return what became of it.

    It raises nothing: a task that fails must not stop others.
    """
    task, records = job.task, Records(job.output)
    digests = dict(job.digests)
    digests |= {one.task: one.digest for one in before if one.state == "done"}
    if lost := [name for name in task.after if name not in digests]:
        reason = f"it needs {lost[0]}, which is not done"
        return Outcome(task=task.name, state="skipped", reason=reason)
    digests = {name: digests[name] for name in task.before if name in digests}
    try:
        inputs = inputs_of(task, digests, job.folder)
        record = records.read(task.name)
        if record is None or not record.is_done(inputs, job.output):
            code = _run_child(job, digests)
            record = _end(records.read(task.name), inputs, code)
            record.write(records.path(task.name))
    except (PidganError, OSError) as error:
        reason = " ".join(str(error).split())
        record = Record(state="failed", inputs={}, reason=reason, began=time.time())
        with contextlib.suppress(PidganError):
            record.write(records.path(task.name))
    return Outcome(
        task=task.name,
        state=record.state,
        digest=record.digest,
        reason=record.reason,
        seconds=record.seconds,
    )


def _end(record: Record | None, inputs: dict[str, Any], code: int) -> Record:
    """Return the record of a process that has ended, perhaps before it wrote one."""
    if record is not None and record.state != "running":
        return record
    found = record or Record(state="failed", inputs=inputs, began=time.time())
    found.state, found.progress = "failed", ""
    found.seconds = time.time() - found.began
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", perhaps for its memory" if -code == signal.SIGKILL else ""
        found.reason = f"its process was killed by {name}{memory}"
    else:
        found.reason = f"its process ended with code {code}; its log may say why"
    return found


def _run_child(job: Job, digests: Mapping[str, str]) -> int:
    """Run the process of a task, and return its exit code."""
    content = {
        "task": job.task.content(),
        "output": str(job.output),
        "folder": str(job.folder),
        "digests": dict(digests),
    }
    with _log(job) as log:
        # Without -P, files beside the campaign would hide modules of Python.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pidgan.campaign.child"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=job.folder,
            env=_environment(job.task.threads),
        )
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(content).encode() + b"\n")
            process.stdin.flush()
            return process.wait()
        finally:
            # The end of its input tells the process to stop.
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _log(job: Job) -> Iterator[Any]:
    """Give the log of a task, with a line that says who begins, and when."""
    path = Records(job.output).log(job.task.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
        log.write(f"== {job.task.name}: {now}, {platform.node()}\n".encode())
        log.flush()
        yield log


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a task."""
    found = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):
        # A source tree that is not installed.
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        found["PYTHONPATH"] = os.pathsep.join(paths)
    return found
