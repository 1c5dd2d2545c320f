"""Hashes by which a head knows its parts, and a head that it is as it was written."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pidgan.errors import PidganError, one_line

SEAL = "seal"
"""Key of a head under which the hash of all its other content lies."""

SHORT = 16
"""Hexadecimal digits of a hash in the name of a part that waits for its own."""

_T = TypeVar("_T")


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_arrays(digest: Any, arrays: Mapping[str, Any]) -> None:
    """Add names, types, shapes and values of numpy arrays to a hash."""
    import numpy as np  # the help of the command line does without it

    from pidgan.files.mapped import row_blocks

    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        for _, block in row_blocks(np.atleast_1d(array)):
            whole = np.ascontiguousarray(block)
            digest.update(whole.data.cast("B") if whole.size else b"")


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file with the hash of its values and their order."""
    return {**content, SEAL: _content_sha256(content)}


def check_seal(content: Any) -> None:
    """Raise a ValueError if a JSON file does not have the content it was sealed with.

    Spaces and line breaks do not matter.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"a JSON {type(content).__name__}, expected an object")
    stated, found = content.get(SEAL), _content_sha256(content)
    if stated != found:
        got = "none" if stated is None else repr(stated)[:80]
        raise ValueError(
            f"changed after it was written: its seal is {got}, expected {found!r} for "
            "this content"
        )


def part_of(part: Path, sha256: object, *, verify: bool = True) -> Path:
    """Return where a part lies whose hash a head states; a ValueError if nowhere.

    It waits under another name if the process was killed that gave the head its name.
    Without `verify`, the hash is computed only if there is more than one place.
    """
    if not verify and part.is_file() and not waiting_parts(part):
        return part
    found = []
    if part.is_file():
        found.append(file_sha256(part))
        if found[0] == sha256:
            return part
    for path, _ in waiting_parts(part):
        if file_sha256(path) == sha256:
            return path
    if not found:
        raise ValueError(f"{part.name} is missing, expected beside it")
    raise ValueError(
        f"{part.name} is damaged or belongs to another file: its sha256 is {found[0]}, "
        f"expected {str(sha256)[:64]}"
    )


def waiting_name(part: Path, sha256: str) -> Path:
    """Return the path at which a part waits while the head is renamed."""
    return part.with_name(f".{part.stem}.part-{sha256[:SHORT]}{part.suffix}")


def waiting_parts(part: Path) -> list[tuple[Path, str]]:
    """Return the parts that wait for a name, with the first digits of their hashes."""
    start, end = re.escape(f".{part.stem}.part-"), re.escape(part.suffix)
    pattern = re.compile(f"{start}([0-9a-f]{{{SHORT}}}){end}")
    matches = map(pattern.fullmatch, sorted(os.listdir(part.parent)))
    return [(part.with_name(m[0]), m[1]) for m in matches if m is not None]


def read_set(head: Path, read: Callable[[], _T]) -> _T:
    """Return what `read` reads from a head and its parts, all of one set.

    It is done again if it fails and another process has replaced the head meanwhile;
    and once more in any case, as a part may just have got its own name.
    """
    failed: set[tuple[int, int, int] | None] = set()
    while True:
        before = _stamp(head)
        try:
            return read()
        except Exception:
            if _stamp(head) == before and before in failed:
                raise
            failed.add(before)


def reason(error: BaseException) -> str:
    """Return in one line why a file cannot be read."""
    is_told = isinstance(error, PidganError) or type(error) is ValueError
    return str(error).partition("\n")[0] if is_told else one_line(error)


def _content_sha256(content: Mapping[str, Any]) -> str:
    """Return the hash of everything but the seal; the order of keys matters."""
    rest = {key: value for key, value in content.items() if key != SEAL}
    text = json.dumps(rest, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
