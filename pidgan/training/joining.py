"""Which process of a training this one is, and how processes wait for each other.

Tensorflow connects processes when it starts, and not later. `join` therefore comes
before anything else of `pidgan.training` is imported. Tensorflow itself waits without
an end, and cannot be interrupted then. So the processes `meet` before: the first one
listens at its address until all others have come, and lets them go on.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from pidgan.errors import TrainingError, one_line, repeated

VARIABLE = "TF_CONFIG"
"""Variable in which TensorFlow's own launchers describe a cluster
(https://www.tensorflow.org/guide/distributed_training#TF_CONFIG)."""

WAIT_SECONDS = 600.0
"""Time in which all processes of a training have to start."""

CANNOT_JOIN = "cannot listen at"
"""Words of the error of a process whose address another program has."""

GO, OTHER = b"go\n", b"other\n"
RETRY_SECONDS, TALK_SECONDS = 0.2, 5.0
MOST_BYTES = 200

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


def meet(place: Place) -> None:
    """Return when all processes have started.

    Raises:
        TrainingError: Some have not in time, or the address belongs to another program.
    """
    until = time.monotonic() + place.wait_seconds
    if place.rank == 0:
        _receive(place, until)
    else:
        _come(place, until)


def _receive(place: Place, until: float) -> None:
    """Wait for all others at the address of the first process."""
    missing = set(range(1, len(place.addresses)))
    here: dict[socket.socket, int] = {}
    with ExitStack() as stack:
        server = stack.enter_context(_server(place))
        while missing:
            left = until - time.monotonic()
            if left <= 0:
                names = [f"{k} ({place.addresses[k]})" for k in sorted(missing)]
                raise TrainingError(
                    f"process 0 waited {place.wait_seconds:g} s for process "
                    f"{', '.join(names)}; start all processes of the cluster"
                )
            for one in select.select([server, *here], [], [], left)[0]:
                if one is server:
                    if (found := _admitted(server, place, stack)) is not None:
                        here = {s: k for s, k in here.items() if k != found[1]}
                        here[found[0]] = found[1]
                        missing.discard(found[1])
                else:  # it has ended, and may come again
                    if (rank := here.pop(one, None)) is not None:
                        missing.add(rank)
                    one.close()
        for one in here:
            with contextlib.suppress(OSError):
                one.sendall(GO)


def _admitted(
    server: socket.socket, place: Place, stack: ExitStack
) -> tuple[socket.socket, int] | None:
    """Return the connection and the number of a process that comes, if it is one."""
    with contextlib.suppress(OSError, ValueError):
        one = stack.enter_context(server.accept()[0])
        one.settimeout(TALK_SECONDS)
        cluster, rank = _line(one).split()
        if cluster == _mark(place).encode() and 0 < int(rank) < len(place.addresses):
            return one, int(rank)
        one.sendall(OTHER)
        one.close()
    return None


def _come(place: Place, until: float) -> None:
    """Tell the first process that this one is there, until it says to go on."""
    host, _, port = place.addresses[0].rpartition(":")
    text = f"{_mark(place)} {place.rank}\n".encode()
    reason = "nobody listens"
    while (left := until - time.monotonic()) > 0:
        answer = b""
        try:
            goal = (host.strip("[]"), int(port))
            with socket.create_connection(goal, timeout=left) as one:
                one.sendall(text)
                one.settimeout(max(until - time.monotonic(), RETRY_SECONDS))
                answer = _line(one)
        except OSError as error:
            reason = one_line(error)
        if answer == GO:
            return
        if answer == OTHER:
            raise TrainingError(
                f"process 0 at {place.addresses[0]} has another cluster than "
                f"{','.join(place.addresses)}, which process {place.rank} was given"
            )
        time.sleep(RETRY_SECONDS)
    raise TrainingError(
        f"process {place.rank} waited {place.wait_seconds:g} s for process 0 at "
        f"{place.addresses[0]} ({reason}); start all processes of the cluster"
    )


@contextlib.contextmanager
def _server(place: Place) -> Iterator[socket.socket]:
    """Listen at the port of the first process, as tensorflow does afterwards."""
    port = int(place.addresses[0].rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(
            ("", port), family=family, dualstack_ipv6=both, backlog=128
        )
    except OSError as error:
        raise TrainingError(
            f"process 0 {CANNOT_JOIN} {place.addresses[0]}: {one_line(error)}"
        ) from error
    with server:
        yield server


def _line(one: socket.socket) -> bytes:
    """Return the line that comes next; what came until the end without one."""
    found = b""
    while not found.endswith(b"\n") and len(found) < MOST_BYTES:
        if not (more := one.recv(MOST_BYTES)):
            break
        found += more
    return found


def _mark(place: Place) -> str:
    """Return a word that processes of the same cluster share."""
    return hashlib.sha256(",".join(place.addresses).encode()).hexdigest()
