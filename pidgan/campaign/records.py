"""What is on disk of each task: its state, its inputs, its outputs, its log.

A record is one JSON file for each task, written anew by one rename whenever something
changes. It decides whether a task is done: its inputs are those of now, and its outputs
are there. A running task writes its record every few seconds, so that one whose process
was killed is known by the age of the record.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from pidgan.errors import CampaignError, PidganError
from pidgan.files.documents import read_json
from pidgan.files.seals import file_sha256
from pidgan.files.writing import writing_file

State: TypeAlias = Literal["running", "done", "failed", "stopped", "skipped"]
"""State of a task; one that was never begun has no record."""

BEAT_SECONDS = 5.0
"""Longest time between two writings of the record of a running task."""

SILENT_SECONDS = 60.0
"""Age of a record from which a running task counts as killed."""

MARK = "campaign.json"
"""File by which the folder of a campaign is known."""


@dataclass(kw_only=True)
class Record:
    """What is known of a task.

    Attributes:
        state: What became of it.
        inputs: What its result depends on.
        outputs: Size of each file that it wrote, by path within the folder.
        digest: Hash of its result.
        result: What later tasks and the overview need of it.
        warnings: Warnings of its work.
        reason: Why it failed, in one line.
        progress: What a running task says of itself.
        began: When it began, in seconds since 1970.
        seconds: How long it ran.
        where: Machine and number of its process.
    """

    state: State
    inputs: dict[str, Any]
    outputs: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    reason: str = ""
    progress: str = ""
    began: float = 0.0
    seconds: float = 0.0
    where: str = ""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the record of a file; None if there is none, or none of ours."""
        if not path.is_file():
            return None
        try:
            content = read_json(path, error=CampaignError)
            return cls(**content)
        except (PidganError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write the record by one rename."""
        with writing_file(path, overwrite=True) as temporary:
            text = json.dumps(vars(self), indent=1, default=str)
            temporary.write_text(text, encoding="utf-8")

    def is_of(self, inputs: Mapping[str, Any]) -> bool:
        """Return whether the record is of these inputs."""
        return bool(self.inputs == as_json(inputs))

    def is_done(self, inputs: Mapping[str, Any], output: Path) -> bool:
        """Return whether the task is done with these inputs, and has its files."""
        if self.state != "done" or not self.is_of(inputs):
            return False
        return all(_size(output / p) == size for p, size in self.outputs.items())


@dataclass(frozen=True)
class Records:
    """The records, logs and locks of a campaign, in the folder that it writes."""

    output: Path

    def path(self, task: str) -> Path:
        """Return the file of the record of a task."""
        return self.output / "state" / f"{task}.json"

    def log(self, task: str) -> Path:
        """Return the log of a task."""
        return self.output / "logs" / f"{task}.log"

    def lock(self, task: str) -> Path:
        """Return the file that is locked by the process of a task."""
        return self.output / "state" / f"{task}.lock"

    def read(self, task: str) -> Record | None:
        """Return the record of a task, None if there is none."""
        return Record.read(self.path(task))

    def is_silent(self, task: str) -> bool:
        """Return whether nothing was written into a record for long."""
        try:
            age = time.time() - self.path(task).stat().st_mtime
        except OSError:
            return True
        return age > SILENT_SECONDS


def as_json(value: Any) -> Any:
    """Return a value as it is after it was written to JSON."""
    return json.loads(json.dumps(value, default=str))


def sizes_of(paths: Iterable[Path], output: Path) -> dict[str, int]:
    """Return the size of files, and of those in folders, by path within a folder."""
    found = {}
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file())
        for file in files if path.is_dir() else [path]:
            found[os.path.relpath(file, output)] = file.stat().st_size
    return found


def digest_of(paths: Iterable[Path], *more: Any) -> str:
    """Return a hash of the contents of files, and of values that JSON knows."""
    import hashlib

    parts = [file_sha256(path) for path in paths]
    text = json.dumps([parts, *more], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return in words what differs between the inputs of two times."""
    found = []
    for name in sorted(set(old) | set(new)):
        before, now = old.get(name), as_json(new.get(name))
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            keys = sorted(
                k for k in set(before) | set(now) if before.get(k) != now.get(k)
            )
            label = {"after": "result of", "files": "file"}.get(name, "")
            found += [f"{label} {key}".strip() for key in keys]
        else:
            found.append(name)
    return ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
