"""Arguments of public functions, checked against their annotations.

Whoever passes a path where a dataset is expected, or -1 as a seed, gets a TypeError or
ValueError that names the argument, before any work:

    >>> @checked
    ... def draw(n: int, *, seed: int = 1) -> None: ...
    >>> draw(5, seed="x")
    Traceback (most recent call last):
    TypeError: draw: seed is 'x' (str), expected int
"""

import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union

import numpy as np

from pidgan.bounds import BOUNDS
from pidgan.errors import nearest

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_NAME = 255  # characters in the name of a file, on any common system
SHOWN = 60  # most characters of a wrong value in a message


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that checks its arguments before it runs.

    Annotations that are texts, of types known to type checkers only, are not checked.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def with_check(*args: P.args, **given: P.kwargs) -> R:
        bound = signature.bind(*args, **given)
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            # A number of numpy goes on as one of Python, which JSON knows.
            plain = value.item() if isinstance(value, np.generic) else value
            if _is_other_sequence(plain, parameter.annotation):
                plain = list(plain)
            if value is not parameter.default:
                _check(function.__name__, name, plain, parameter.annotation)
                bound.arguments[name] = plain
        return function(*bound.args, **bound.kwargs)

    return with_check


def check_fields(record: Any) -> None:
    """Check the fields of a dataclass, for its `__post_init__`."""
    for name, parameter in inspect.signature(type(record)).parameters.items():
        _check(type(record).__name__, name, getattr(record, name), parameter.annotation)


def _check(function: str, name: str, value: Any, hint: Any) -> None:
    """Raise a TypeError or ValueError that names an argument."""
    if isinstance(hint, str):
        hint = Callable[..., Any] | bool | None if hint.startswith("Callable[") else Any
    if hint is inspect.Parameter.empty:
        return
    shown = f"{function}: {name} is {brief(value)}"
    if not _fits(value, hint):
        choices = [c for one in _parts(hint) for c in _choices(one)]
        if choices and isinstance(value, str):
            listed = f"one of {', '.join(choices)}"
            raise ValueError(f"{shown}, expected {listed}{nearest(value, choices)}")
        kind, fix = type(value).__name__, repair(name, value)
        raise TypeError(f"{shown} ({kind}), expected {_text(hint)}{fix}")
    is_path = isinstance(value, str | os.PathLike) and Path in _parts(hint)
    if is_path and not _is_name(str(value)):
        raise ValueError(
            f"{shown}, expected a path, without NUL characters and with names of at "
            f"most {LONGEST_NAME} characters"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{shown}, expected a finite number")
    if isinstance(value, int) and int not in _parts(hint) and abs(value) > 2**1000:
        raise ValueError(f"{shown}, expected a smaller number")
    if isinstance(value, int) and name in BOUNDS:
        least, most = BOUNDS[name]
        bound = f"at least {least}" if value < least else f"at most {most}"
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}, expected {bound}")


def repair(name: str, value: Any) -> str:
    """Return how a table of another library becomes a DataFrame, for a message."""
    for method in ("to_pandas", "to_frame"):
        if callable(getattr(value, method, None)):
            return f"; give {name}.{method}()"
    return ""


def check_path(function: str, path: Any) -> None:
    """Raise a TypeError or ValueError unless an argument is a path."""
    _check(function, "path", path, str | Path)


def brief(value: Any) -> str:
    """Return a value as a short text of one line, for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _is_name(path: str) -> bool:
    """Return whether a system may have a path."""
    longest = max(map(len, path.replace("\\", "/").split("/")))
    return len(path) > 0 and "\0" not in path and longest <= LONGEST_NAME


def _is_other_sequence(value: Any, hint: Any) -> bool:
    """Return whether an iterator or array stands for the sequence that is meant."""
    kinds = [typing.get_origin(part) for part in _parts(hint)]
    others = (Iterator, Set) if np.ndarray in kinds else (Iterator, Set, np.ndarray)
    return isinstance(value, others) and any(
        isinstance(kind, type) and issubclass(kind, Sequence) for kind in kinds
    )


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of an annotation."""
    hint = _expanded(hint)
    if typing.get_origin(hint) in (Union, types.UnionType):
        return tuple(part for own in typing.get_args(hint) for part in _parts(own))
    return (hint,)


def _expanded(hint: Any) -> Any:
    """Return what an alias stands for: those of numpy 2.5 hide their types."""
    alias = typing.get_origin(hint) or hint
    if type(alias).__name__ != "TypeAliasType":  # of typing from Python 3.12 on
        return hint
    arguments = typing.get_args(hint)
    return alias.__value__[arguments] if arguments else alias.__value__


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type of an annotation."""
    if hint is Any or isinstance(hint, str | TypeVar):
        return True
    if hint is None or hint is type(None):
        return value is None
    hint = _expanded(hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        parts = _parts(hint)
        # ArrayLike is a union of protocols of numpy, which has scalars too.
        if any("numpy._typing" in str(part) for part in parts):
            return (value is None and type(None) in parts) or _is_array(value)
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is np.ndarray and "numpy.void" in str(hint):
        return isinstance(value, np.ndarray) and value.dtype.names is not None
    if origin is np.ndarray:
        return _is_array(value) and np.ndim(value) > 0
    if origin is tuple and ... not in parts:
        is_row = isinstance(value, tuple | list) and len(value) == len(parts)
        return is_row and all(map(_fits, value, parts))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(item, parts[1])
            for key, item in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Iterable):
        is_table = isinstance(value, str | bytes | Mapping) or hasattr(value, "columns")
        if is_table or not isinstance(value, Iterable):
            return False
        return not hasattr(value, "__len__") or all(_fits(v, parts[0]) for v in value)
    return _is_instance(value, origin or hint)


def _is_instance(value: Any, kind: Any) -> bool:
    if kind is bool:
        return isinstance(value, int) and value in (0, 1)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool | np.bool_)
    if kind is Path:
        return isinstance(value, os.PathLike)
    if getattr(kind, "_is_protocol", False):
        members = [name for name in vars(kind) if not name.startswith("_")]
        return not isinstance(value, type) and all(hasattr(value, m) for m in members)
    if kind is Callable or getattr(kind, "__name__", "") == "Callable":
        return callable(value)
    return not isinstance(kind, type) or isinstance(value, kind)


def _is_array(value: Any) -> bool:
    """Return whether a value is an array of numbers, or can become one."""
    try:
        return np.asarray(value).dtype.kind in "biuf"
    # Whatever the conversion of an object raises, it is no array.
    except Exception:
        return False


def _text(hint: Any) -> str:
    """Return an annotation as words: "str or Path"."""
    if any("numpy._typing" in str(part) for part in _parts(hint)):
        return "an array of numbers"
    names = []
    for part in _parts(hint):
        origin = typing.get_origin(part) or part
        name = getattr(origin, "__name__", str(origin)).replace("NoneType", "None")
        if origin is np.ndarray:
            kind = "a structured array" if "numpy.void" in str(part) else "an array"
            name = kind if kind != "an array" else "an array of numbers"
        elif origin is Literal:
            name = " or ".join(map(repr, typing.get_args(part)))
        elif name != "Callable":
            inner = ", ".join(_text(p) for p in typing.get_args(part) if p is not ...)
            name = f"{name}[{inner}]" if inner else name
        names.append(name)
    return " or ".join(dict.fromkeys(names))
