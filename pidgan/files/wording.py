"""Errors about rows in memory, in the words of Python instead of the command line."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pidgan.errors import PidganError
from pidgan.files.frames import is_frame

P = ParamSpec("P")
T = TypeVar("T")

_ARGUMENTS = {
    "branch": "branches",
    "unit": "units",
    "scale": "scale",
    "quantile-map": "quantile_map",
    "binning": "binning",
    "map": "maps",
}
"""Options whose argument has another name."""

_VALUES = "replace|friend|append|keep|nan|regenerate"
_OPTION = re.compile(
    r"--(?P<name>[a-z][a-z-]*)"
    rf"(?: (?P<value>'[^']*'|(?:{_VALUES})\b|[A-Z][A-Z0-9]+\b))?"
)


def python_words(text: str) -> str:
    """Return a text with arguments in place of options.

    Example:
        >>> python_words("use --mode replace or --suffix, or --where 'P > 0'")
        "use mode='replace' or suffix, or where='P > 0'"
    """
    text = re.sub(r"--trust \(trust=True\)", "trust=True", text)
    text = re.sub(r"(\w+=True) \(--[a-z-]+\)", r"\1", text)

    def argument(found: re.Match[str]) -> str:
        name = found["name"]
        word = _ARGUMENTS.get(name, name.replace("-", "_"))
        if found["value"] is None:
            return word
        return f"{word}={found['value'].strip(chr(39))!r}"

    return _OPTION.sub(argument, text.replace("no such branch", "no such column"))


def words_of_rows(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that puts errors into words of Python if rows are in memory.

    `name` is the argument with rows.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> T:
            try:
                return function(*args, **options)
            except PidganError as error:
                given = inspect.signature(function).bind(*args, **options)
                if _has_frame(given.arguments.get(name)):
                    error.args = (python_words(str(error)), *error.args[1:])
                raise

        return call

    return decorate


def _has_frame(rows: Any) -> bool:
    listed = rows if isinstance(rows, list | tuple) else [rows]
    return any(map(is_frame, listed))
