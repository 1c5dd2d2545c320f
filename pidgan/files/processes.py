"""Functions that run side by side, each in a process of its own.

The processes are started anew ("spawn"), on all systems: a forked one would inherit the
locks of this one's threads. What they show, their warnings and their errors appear
here, with their names. None of them outlives this process.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

from pidgan.errors import PidganError, PidganWarning, one_line
from pidgan.progress import Elsewhere, Lines, is_interactive, show_elsewhere

GRACE_SECONDS = 30.0
"""Time for a process that is to end: a training writes its checkpoint."""

THREAD_NUMBERS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that limit the threads of a process; whoever sets one has chosen."""


class Processes:
    """Processes by name, for a `with` block; each does one call after another.

    An error in one of them, or an interruption, ends all.

    Args:
        names: Names, which stand before what the processes show.
        show: Whether bars, or lines of a log, are shown.
        threads: Number of threads of numerical libraries in each process; None for what
            these libraries choose.
        named: Whether what they show has their names; else it is as of this process.
        hear: Function that gets what they tell, see `tell_elsewhere`.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        show: bool = True,
        threads: int | None = None,
        named: bool = True,
        hear: Callable[[Any], None] | None = None,
    ) -> None:
        self._lines = Lines(names, named=named) if show else None
        self._named, self._hear = named, hear
        self._running: dict[str, tuple[Any, Connection]] = {}
        self._busy: set[str] = set()
        context = multiprocessing.get_context("spawn")
        with _environment(threads), _no_interrupts():
            for name in names:
                here, there = context.Pipe()
                process = context.Process(
                    target=_serve, args=(there, is_interactive()), name=name
                )
                process.start()
                there.close()
                self._running[name] = (process, here)

    def call(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Do a call in each of some processes; return their results by name.

        Functions and results are pickled.

        Raises:
            PidganError: A process was killed.
            Exception: What a function raises.
        """
        for name, call in calls.items():
            with contextlib.suppress(OSError):  # it was killed, which is told below
                self._running[name][1].send(call)
            self._busy.add(name)
        found: dict[str, Any] = {}
        while len(found) < len(calls):
            left = {self._running[name][1]: name for name in calls if name not in found}
            for one in wait(list(left)):
                assert isinstance(one, Connection)
                name = left[one]
                try:
                    kind, content = one.recv()
                except (EOFError, OSError):
                    raise PidganError(self._end_of(name)) from None
                if kind not in ("result", "error"):
                    self._tell(name, kind, content)
                    continue
                self._busy.discard(name)
                if kind == "error":
                    raise content
                found[name] = content
        return found

    def close(self) -> None:
        """End the processes; those that still work are interrupted."""
        for name, (process, connection) in self._running.items():
            if name in self._busy:
                process.terminate()
            with contextlib.suppress(OSError):  # it has ended
                connection.send(None)
        for process, connection in self._running.values():
            # Whatever it still tells must be taken, or it waits for that.
            threading.Thread(target=_drain, args=(connection,), daemon=True).start()
            process.join(GRACE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._running = {}
        if self._lines is not None:
            self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, name: str, kind: str, content: Any) -> None:
        """Show what a process shows, or warn as it does."""
        if kind == "told":
            if self._hear is not None:
                self._hear(content)
        elif kind == "warning":
            category, text = content
            with Lines.apart():
                text = f"{name}: {text}" if self._named else text
                warnings.warn(text, category, stacklevel=4)
        elif self._lines is not None:
            self._lines.show(name, kind, content)

    def _end_of(self, name: str) -> str:
        """Return how a process ended that had more to do."""
        process, _ = self._running[name]
        process.join(GRACE_SECONDS)
        code = process.exitcode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by signal {-code}, perhaps for its memory"
        return f"the process of {name} {how}; the others were ended"


def may_start_processes() -> bool:
    """Return whether new processes can import the program without running it."""
    # They import a script that was started by its path, which needs the usual guard.
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return True
    try:
        return "__main__" in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def end_with_parent() -> None:
    """End this process when the one that started it has ended, however it did."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _serve(connection: Connection, interactive: bool) -> None:
    """Do the calls that come, and send back all that is shown, raised or returned."""
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lock = threading.Lock()

    def send(kind: str, content: Any) -> None:
        with lock, contextlib.suppress(OSError):  # nobody listens any more
            connection.send((kind, content))

    def warn(message: Any, category: Any, *_: Any, **__: Any) -> None:
        if issubclass(category, PidganWarning):
            send("warning", (PidganWarning, str(message)))

    warnings.showwarning = warn
    show_elsewhere(Elsewhere(send, interactive=interactive))
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError):
        while (call := connection.recv()) is not None:
            try:
                result = call()
            except Exception as error:
                send("error", _portable(error))
            else:
                send("result", result)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _portable(error: Exception) -> Exception:
    """Return an error that every process knows, with the traceback that it has here."""
    known = type(error).__module__ in ("builtins", PidganError.__module__)
    found = error if known else RuntimeError(one_line(error))
    found.add_note("".join(traceback.format_exception(error)))
    return found


def _drain(connection: Connection) -> None:
    with contextlib.suppress(OSError, EOFError):
        while True:
            connection.recv()


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Let processes that start now ignore Ctrl-C, which reaches the whole terminal.

    This process ends them by another signal, once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _environment(threads: int | None) -> Iterator[None]:
    """Limit the threads of processes that start now, unless the user chose a number."""
    chosen = any(name in os.environ for name in THREAD_NUMBERS)
    names = () if threads is None or chosen else THREAD_NUMBERS
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
