"""Signs of life of a process, for others that see the same files."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def beating(beat: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call a function at once, and every few seconds while a block lasts."""
    ended = threading.Event()
    beat()

    def repeat() -> None:
        while not ended.wait(seconds):
            beat()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
