"""When a signal may end a training: after a chunk of steps, or at once."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Let a signal of this block call its function after it; a second one, at once.

    An error of the block goes first.
    """
    came: list[tuple[int, Any]] = []
    handlers = _handlers()

    def keep(number: int, frame: Any) -> None:
        if came:
            handlers[number](number, frame)
        came.append((number, frame))

    with _replaced(dict.fromkeys(handlers, keep)):
        yield
    for number, frame in came[:1]:
        handlers[number](number, frame)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Let signals end this process while C++ waits for other processes in this block.

    Functions of Python that signals call are called when it has ended to wait.
    """
    with _replaced(dict.fromkeys(_handlers(), signal.SIG_DFL)):
        yield


def _handlers() -> dict[int, Callable[[int, Any], Any]]:
    """Return what signals call, which the main thread alone may change."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: one for number, one in found.items() if callable(one)}


@contextlib.contextmanager
def _replaced(handlers: dict[int, Any]) -> Iterator[None]:
    before = {number: signal.signal(number, one) for number, one in handlers.items()}
    try:
        yield
    finally:
        for number, one in before.items():
            signal.signal(number, one)
