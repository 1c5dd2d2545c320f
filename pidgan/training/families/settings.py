"""Settings of families: typed values, their meanings, and how texts become them."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pidgan.errors import PidganError, nearest

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What can be chosen in a family under one name.

    Attributes:
        name: Name of the setting.
        type: Type of its value in words: "int", "float", "bool", "str", or the names
            that there are.
        default: Value without a choice.
        meaning: Meaning of the setting, one sentence.
    """

    name: str
    type: str
    default: Any
    meaning: str


def describe_settings(kind: type) -> tuple[Setting, ...]:
    """Return the settings of a family in order, with the meanings of its docstring."""
    meanings: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        meanings |= dict(_meanings(inspect.cleandoc(owner.__doc__ or "")))
    hints = typing.get_type_hints(kind)
    return tuple(
        Setting(
            name=field.name,
            type=_in_words(hints[field.name]),
            default=field.default,
            meaning=meanings[field.name],
        )
        for field in dataclasses.fields(kind)
    )


def make_settings(kind: type, settings: Mapping[str, Any], *, family: str) -> Any:
    """Return the settings of a family as one value, with some of them chosen.

    Texts become numbers where a number is expected, so that settings may come from a
    command line.

    Args:
        kind: Dataclass of the settings.
        settings: Chosen values by name; all names must be settings.
        family: Name of the family, for messages.

    Raises:
        PidganError: A value has another type than the setting.
    """
    hints = typing.get_type_hints(kind)
    chosen = {}
    for name, value in settings.items():
        try:
            chosen[name] = _convert(value, hints[name])
        except ValueError as error:
            raise PidganError(
                f"setting {name!r} of family {family!r} is {value!r}, expected "
                f"{_in_words(hints[name])}{error}"
            ) from error
    return kind(**chosen)


def _convert(value: Any, hint: Any) -> Any:
    """Return a value of a type; ValueError, with a hint of its own, if it is none."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
    if typing.get_origin(hint) is Literal:
        names = typing.get_args(hint)
        if value not in names:
            raise ValueError(nearest(str(value), names))
        return value
    if hint is str:
        if not isinstance(value, str):
            raise ValueError("")
        return value
    if hint is bool:
        found = _TRUTH.get(str(value).lower())
        if found is None:
            raise ValueError("")
        return found
    if isinstance(value, bool):
        raise ValueError("")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError("") from None
    if hint is int:
        if number != int(number):
            raise ValueError("")
        return int(number)
    return number


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_in_words(a) for a in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return "none" if hint is type(None) else str(hint.__name__)


def _meanings(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield names and sentences of the section "Attributes:" of a docstring."""
    _, _, section = docstring.partition("Attributes:\n")
    for entry in re.split(r"\n    (?=\w)", "\n" + section):
        name, separator, sentence = entry.partition(": ")
        if separator:
            yield name.strip(), " ".join(sentence.split())
