"""Starts a server of bundles, and stops it when the process is told to end.

Models are opened and tested before a port is, so that a server which answers is ready.
Requests in work are finished before it ends.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.bundle.bundle import Bundle
from pidgan.errors import PidganError, PidganWarning
from pidgan.files.machine import available_cores
from pidgan.service.batching import Batcher
from pidgan.service.metrics import start_metrics
from pidgan.service.models import open_models
from pidgan.service.service import Service

HTTP_PORT, GRPC_PORT = 8000, 8001
"""Ports of the protocol that clients expect."""

MEBIBYTE = 2**20
REQUEST_MEBIBYTES = 64

READ_BYTES = 2**20
"""Bytes of a request that are received before it waits to be read."""

SWITCH_SECONDS = 0.0005
"""Time after which a thread that generates lets the one that answers go on: Python's
own 5 ms are a third of what 10000 rows take."""

GRACE_SECONDS = 30
"""Longest time in which requests in work are finished at the end."""


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where a server answers; `grpc` is empty without gRPC."""

    http: str
    grpc: str
    models: tuple[str, ...]

    def text(self) -> str:
        """Return the addresses as a line to read."""
        also = f" and grpc://{self.grpc}" if self.grpc else ""
        return f"serving {', '.join(self.models)} at {self.http}{also}"


@checked
def serve(
    bundles: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    http_port: int = HTTP_PORT,
    grpc_port: int = GRPC_PORT,
    no_grpc: bool = False,
    threads: int | None = None,
    max_request: int = REQUEST_MEBIBYTES,
    tell: Callable[[Addresses], None] | None = None,
) -> None:
    """Answer requests for generated rows until SIGTERM or SIGINT.

    The protocol is KServe v2 over HTTP and gRPC, with `conditions` and a source of
    noise as inputs, `targets` and `status` as outputs. The results are those of
    `Bundle.sample` and `apply` for the same noise keys, whichever requests are
    answered together.

    Args:
        bundles: Texts `[NAME[/VERSION]=]PATH` of bundles, collections, folders of
            bundles or model repositories.
        host: Address that is listened at. The default can be reached from this machine
            only: the server knows no passwords.
        http_port: Port of HTTP; 0 takes a free one.
        grpc_port: Port of gRPC; 0 takes a free one.
        no_grpc: Whether only HTTP is answered.
        threads: Number of threads that generate, by default one for each core. The
            results do not depend on it.
        max_request: Largest size of a request, and of its reply, in MiB.
        tell: Function that gets the addresses when requests are answered.

    Raises:
        BundleError: A path is no bundle, or a bundle is refused.
        PidganError: A port is in use, or a library is missing.

    Example:
        >>> serve(["kaon.onnx", "pion.onnx"])                       # doctest: +SKIP
    """
    if not host.strip():
        raise ValueError("host is empty, expected an address such as 127.0.0.1")
    port = None if no_grpc else grpc_port
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with _service(bundles, threads, max_request, port) as service:
            asyncio.run(_until_signal(service, host, http_port, port, tell))
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def serving(
    bundles: Sequence[str | Path],
    *,
    http_port: int = 0,
    grpc_port: int | None = None,
    threads: int | None = None,
    max_request: int = REQUEST_MEBIBYTES,
) -> Iterator[Addresses]:
    """Give the addresses of a server in this process, which ends with the block.

    It is for notebooks and tests; the arguments are those of `serve`.

    Example:
        >>> with serving(["kaon.onnx"]) as server:                  # doctest: +SKIP
        ...     print(server.http)
    """
    with _service(bundles, threads, max_request, grpc_port) as service:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()

        def run(work: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        try:
            running = run(_start(service, "127.0.0.1", http_port, grpc_port))
            try:
                yield running.addresses
            finally:
                run(running.stop())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


@contextlib.contextmanager
def _service(
    bundles: Sequence[str | Path],
    threads: int | None,
    max_request: int,
    grpc_port: int | None,
) -> Iterator[Service]:
    """Give the service of bundles, whose threads end with the block."""
    if not bundles:
        raise ValueError("bundles is empty, expected at least one")
    metrics = start_metrics()
    if grpc_port is not None:
        from pidgan.service.grpc_server import check_grpc

        check_grpc()
    models = open_models([str(path) for path in bundles])
    for model in models.all:
        _warm_up(model.bundle)
    batcher = Batcher(threads or available_cores(), metrics.count_block)
    with warnings.catch_warnings():
        # The status of a reply says which rows have no targets.
        warnings.simplefilter("ignore", PidganWarning)
        try:
            yield Service(
                models=models,
                batcher=batcher,
                metrics=metrics,
                most_bytes=max_request * MEBIBYTE,
            )
        finally:
            batcher.close()


def _warm_up(bundle: Bundle) -> None:
    """Let the network see a row and a block, whose sessions start then."""
    card = bundle.card
    test = card.self_test or {}
    row = np.asarray(test["conditions"], dtype=np.float32)[:1]
    for n in (1, bundle.block_rows):
        bundle.generate(
            np.repeat(row, n, axis=0), np.zeros((n, card.n_noise), np.float32)
        )


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A server that answers, and how it is stopped."""

    service: Service
    addresses: Addresses
    http: Any
    grpc: Any

    async def stop(self) -> None:
        """Take no new requests, finish those in work."""
        self.service.is_ready = False
        ends = [self.http.cleanup()]
        if self.grpc is not None:
            ends.append(self.grpc.stop(GRACE_SECONDS))
        await asyncio.gather(*ends)


async def _start(
    service: Service, host: str, http_port: int, grpc_port: int | None
) -> _Running:
    from aiohttp import web

    from pidgan.service.http_server import http_application

    quiet = logging.getLogger("pidgan.service")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    runner = web.AppRunner(
        http_application(service),
        access_log=None,
        logger=quiet,
        shutdown_timeout=GRACE_SECONDS,
        handle_signals=False,
        auto_decompress=False,  # with a limit of our own
        read_bufsize=READ_BYTES,
    )
    await runner.setup()
    grpc = None
    try:
        site = web.TCPSite(runner, host, http_port)
        await site.start()
        port = runner.addresses[0][1]
        if grpc_port is not None:
            from pidgan.service.grpc_server import grpc_server

            grpc = grpc_server(service)
            grpc_port = _open_grpc(grpc, host, grpc_port)
            await grpc.start()
    except OSError as error:
        await runner.cleanup()
        raise _port_error(host, http_port, "--http-port", error) from error
    except PidganError:
        await runner.cleanup()
        raise
    shown = f"[{host}]" if ":" in host else host
    models = service.models
    names = tuple(
        f"{m.name}/{m.version}" if len(models.by_name[m.name]) > 1 else m.name
        for m in models.all
    )
    return _Running(
        service=service,
        addresses=Addresses(
            http=f"http://{shown}:{port}",
            grpc="" if grpc is None else f"{shown}:{grpc_port}",
            models=names,
        ),
        http=runner,
        grpc=grpc,
    )


def _open_grpc(server: Any, host: str, port: int) -> int:
    """Open the port of gRPC and return its number."""
    shown = f"[{host}]" if ":" in host else host
    try:
        # grpcio prints lines of its own where it cannot.
        with socket.create_server((host, port), family=_family(host)):
            pass
        number = server.add_insecure_port(f"{shown}:{port}")
    except (OSError, RuntimeError) as error:
        raise _port_error(host, port, "--grpc-port", error) from error
    return int(number)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _port_error(host: str, port: int, option: str, error: Exception) -> PidganError:
    reason = "it is in use, or there is no such address"
    if isinstance(error, OSError) and error.errno:
        reason = os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return PidganError(
        f"port {port} of {host} cannot be opened ({reason}); is a server running "
        f"there? {option} takes another port, 0 a free one"
    )


async def _until_signal(
    service: Service,
    host: str,
    http_port: int,
    grpc_port: int | None,
    tell: Callable[[Addresses], None] | None,
) -> None:
    """Start, wait for a signal, and stop."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    running = await _start(service, host, http_port, grpc_port)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if tell is not None:
        tell(running.addresses)
    await ended.wait()
    await running.stop()
