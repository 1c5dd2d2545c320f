"""Processes that wait for each other before tensorflow starts.

Tensorflow itself waits without an end, and cannot be interrupted then. Here the first
process listens at its address until all others have come, and lets them go on.
"""

import contextlib
import hashlib
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

from pidgan.errors import TrainingError, one_line
from pidgan.training.joining import CANNOT_JOIN, Place

GO, OTHER = b"go\n", b"other\n"
RETRY_SECONDS, TALK_SECONDS = 0.2, 5.0
MOST_BYTES = 200


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
