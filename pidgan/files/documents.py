"""Files read whole: bytes, and documents in JSON and TOML, within bounds.

What is no plain file, is too large, or is nested too deeply is refused with one line;
so a file of a user can neither hang the process nor end it.
"""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pidgan.errors import PidganError, one_line
from pidgan.files.places import file_problem

MAX_BYTES = 256 * 2**20  # largest size of a document; a large map has some megabytes
MAX_DEPTH = 64  # deepest level of lists and tables; a definition has 5


def read_bytes(
    path: str | Path, *, error: type[PidganError], most: int = MAX_BYTES
) -> bytes:
    """Return the bytes of a plain file of at most so many, or raise the error."""
    problem = file_problem(path)
    if problem:
        raise error(f"{path} cannot be read: {problem}")
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(most) if size <= most else b""
    except OSError as reason:
        raise error(f"{path} cannot be read: {one_line(reason)}") from reason
    if size > most:
        got, expected = size / 2**20, most // 2**20
        raise error(f"{path}: {got:.0f} MiB, expected at most {expected} MiB")
    return data


def read_text(
    path: str | Path, *, error: type[PidganError], most: int = MAX_BYTES
) -> str:
    """Return the text of a plain file in UTF-8, or raise the error."""
    data = read_bytes(path, error=error, most=most)
    try:
        # As a file opened as text: any end of a line is "\n".
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise error(f"{path} is not a text file in UTF-8") from None


def read_json(path: str | Path, *, error: type[PidganError]) -> Any:
    """Return the content of a JSON file, or raise the error."""
    return _parsed(json.loads, "JSON", path, error)


def read_toml(path: str | Path, *, error: type[PidganError]) -> dict[str, Any]:
    """Return the content of a TOML file, or raise the error."""
    content: dict[str, Any] = _parsed(tomllib.loads, "TOML", path, error)
    return content


def _parsed(
    parse: Callable[[str], Any], kind: str, path: str | Path, error: type[PidganError]
) -> Any:
    text = read_text(path, error=error)
    deep = error(f"{path} is no {kind} of this package: it is nested too deeply")
    try:
        content = parse(text)
    # Numbers of thousands of digits are a ValueError too, beside those of the formats.
    except ValueError as reason:
        problem = " ".join(str(reason).split())[:200]
        raise error(f"{path} is not valid {kind}: {problem}") from None
    except RecursionError:
        raise deep from None
    if _is_deep(content):
        raise deep
    return content


def _is_deep(content: Any) -> bool:
    """Return whether lists and tables go deeper than `MAX_DEPTH`."""
    level = [content]
    for _ in range(MAX_DEPTH):
        tables = [value.values() for value in level if isinstance(value, dict)]
        lists = [value for value in level if isinstance(value, list)]
        level = [item for values in (*tables, *lists) for item in values]
    return bool(level)
