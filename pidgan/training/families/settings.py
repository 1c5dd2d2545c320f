"""Settings of families: typed values, their meanings, and how texts become them."""

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pydantic

from pidgan.bounds import MOST_COUNT
from pidgan.errors import PidganError, nearest


@dataclasses.dataclass(frozen=True)
class Setting:
    """What can be chosen in a family under one name."""

    name: str
    type: str  # "int", "float", "bool", "str", or the names that there are
    default: Any  # value without a choice
    meaning: str  # one sentence


@dataclasses.dataclass(frozen=True)
class Span:
    """Values of a setting that a search tries, from `low` to `high`.

    With `log` they are spread evenly in the logarithm. `rest` names a share that gets
    what a share leaves of 1.
    """

    low: float
    high: float
    _: dataclasses.KW_ONLY
    log: bool = False
    rest: str = ""


Spans = Mapping[str, Span]
"""The settings of a family that a search changes; the class attribute `spans`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneNetwork:
    """Settings of families whose generator is one residual network.

    Attributes:
        n_noise: Number of noise numbers of the generator.
        width: Width of the generator.
        blocks: Number of residual blocks of the generator.
        batch_size: Number of rows of a step.
        learning_rate: Learning rate of the generator at the start.
        average: Largest momentum of the averaged weights of the generator.
        xla: Whether the steps are compiled with XLA, which pays in trainings of more
            than a few minutes.
    """

    n_noise: int = 16
    width: int = 64
    blocks: int = 3
    batch_size: int = 512
    learning_rate: float = 1e-3
    average: float = 0.999
    xla: bool = False

    spans = {  # noqa: RUF012
        "n_noise": Span(8, 32, log=True),
        "width": Span(32, 128, log=True),
        "blocks": Span(2, 4),
        "learning_rate": Span(2e-4, 2e-3, log=True),
    }


def describe_settings(kind: type) -> tuple[Setting, ...]:
    """Return the settings of a family in order, with the meanings of its docstring."""
    meanings: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        meanings |= dict(_meanings(inspect.cleandoc(owner.__doc__ or "")))
    hints = typing.get_type_hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        words, meaning = _in_words(hints[field.name]), meanings[field.name]
        found.append(Setting(field.name, words, field.default, meaning))
    return tuple(found)


def make_settings(
    kind: Any, settings: Mapping[str, Any], *, family: str
) -> dict[str, Any]:
    """Return the settings that are chosen, by name; texts are converted."""
    hints = typing.get_type_hints(kind)
    chosen = {}
    for name, value in settings.items():
        hint, words = hints[name], _in_words(hints[name])
        if isinstance(value, str) and value.lower() == "none" and "none" in words:
            value = None
        try:
            if isinstance(value, bool) and "bool" not in words:
                raise ValueError
            chosen[name] = pydantic.TypeAdapter(hint).validate_python(value)
        except (ValueError, OverflowError) as error:
            names = [n for n in typing.get_args(hint) if isinstance(n, str)]
            raise PidganError(
                f"setting {name!r} of family {family!r} is {value!r}, expected {words}"
                + nearest(str(value), names)
            ) from error
        problem = _out_of_range(name, chosen[name])
        if problem:
            raise PidganError(
                f"setting {name!r} of family {family!r} is {chosen[name]}, expected "
                f"{problem}"
            )
    return chosen


# Whole numbers that may be 0: without blocks or couplings there is one layer, and
# without sums over earlier cells a cell does not see them.
_MAY_BE_ZERO = re.compile(r".*(blocks|couplings|memory|window|axes)")
_POSITIVE = re.compile(r".*(learning_rate|scale)")


def _out_of_range(name: str, value: Any) -> str:
    """Return what is expected of a number that no training can have, else ""."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if not math.isfinite(value):
        return "a finite number"
    if isinstance(value, int):
        least = 0 if _MAY_BE_ZERO.fullmatch(name) else 1
        bound = f"at least {least}" if value < least else f"at most {MOST_COUNT}"
        return "" if least <= value <= MOST_COUNT else bound
    if value < 0:
        return "at least 0"
    if value == 0 and _POSITIVE.fullmatch(name):
        return "a number above 0"
    return "less than 1" if name == "average" and value >= 1 else ""


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
