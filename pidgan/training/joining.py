"""Which process of a training this one is, as said before tensorflow is loaded.

Tensorflow connects processes when it starts, and not later. `join` therefore comes
before anything else of `pidgan.training` is imported.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from pidgan.errors import TrainingError, repeated

VARIABLE = "TF_CONFIG"
"""Variable in which TensorFlow's own launchers describe a cluster
(https://www.tensorflow.org/guide/distributed_training#TF_CONFIG)."""

WAIT_SECONDS = 600.0
"""Time in which all processes of a training have to start."""

CANNOT_JOIN = "cannot listen at"
"""Words of the error of a process whose address another program has."""

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})")


@dataclasses.dataclass(frozen=True)
class Place:
    """The addresses, HOST:PORT, of all processes of a training, and the own number."""

    addresses: tuple[str, ...]
    rank: int
    wait_seconds: float = WAIT_SECONDS

    def __post_init__(self) -> None:
        """Raise a ValueError for addresses or a rank that cannot be."""
        for address in self.addresses:
            found = _ADDRESS.fullmatch(address)
            if found is None or not 0 < int(found[2]) < 2**16:
                raise ValueError(f"cluster has {address!r}, expected HOST:PORT")
        if len(self.addresses) < 2:
            raise ValueError(
                f"cluster has {len(self.addresses)} address, expected two or more: "
                "HOST:PORT,HOST:PORT"
            )
        if twice := repeated(self.addresses):
            raise ValueError(f"cluster has {twice[0]!r} twice")
        if not 0 <= self.rank < len(self.addresses):
            raise ValueError(
                f"rank is {self.rank}, expected 0 to {len(self.addresses) - 1}: the "
                "number of this process in the cluster"
            )

    @property
    def number_here(self) -> int:
        """Number of this process among those of its machine."""
        hosts = [address.rpartition(":")[0] for address in self.addresses]
        return hosts[: self.rank].count(hosts[self.rank])


_place: Place | None = None


def join(place: Place) -> None:
    """Let this process train with others, which is so until it ends.

    Raises:
        TrainingError: Tensorflow is loaded, or this is another process already.
    """
    global _place
    if _place == place:
        return
    if _place is not None or "pidgan.training.backend" in sys.modules:
        raise TrainingError(
            "a process joins others before tensorflow is loaded: join at the start of "
            "the program"
        )
    _place = place


def place() -> Place | None:
    """Return what this process has joined as; None if it trains alone."""
    return _place


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let signals end this process while tensorflow waits for others, in C++.

    Functions of Python that signals call are called when it has ended to wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    before = {s: handler for s, handler in before.items() if callable(handler)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def place_of(addresses: Sequence[str], rank: int | None) -> Place | None:
    """Return the place that a user gives, or the variable of TensorFlow; None of none.

    Raises:
        ValueError: One is given without the other, or cannot be.
        TrainingError: The variable is no description of a cluster.
    """
    if addresses or rank is not None:
        if not addresses or rank is None:
            raise ValueError("give a cluster and the rank of this process, or none")
        return Place(tuple(addresses), rank)
    return _of_variable(os.environ.get(VARIABLE, ""))


def _of_variable(text: str) -> Place | None:
    if not text.strip():
        return None
    try:
        content: Any = json.loads(text)
        workers = [str(one) for one in content.get("cluster", {}).get("worker", [])]
        others = set(content.get("cluster", {})) - {"worker"}
        task = content.get("task", {})
        kind, rank = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{VARIABLE} is {text!r}, expected the JSON of a cluster and a task"
        ) from error
    if len(workers) < 2 and not others:
        return None
    if others or kind != "worker":
        raise TrainingError(
            f"{VARIABLE} has a {kind} among {', '.join(sorted({*others, 'worker'}))}, "
            "expected workers only"
        )
    try:
        return Place(tuple(workers), rank)
    except ValueError as error:
        raise TrainingError(f"{VARIABLE}: {error}") from error
