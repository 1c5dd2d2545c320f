"""Work ahead: a stage of a pipeline that runs in a thread of its own.

Reading, generating and writing of an ntuple release Python's lock most of the time
(decompression, inference, compression); stages that are chained by `ahead` overlap.
The order of what comes out is that of what went in.
"""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


@contextlib.contextmanager
def ahead(items: Iterable[_T]) -> Iterator[Iterator[_T]]:
    """Give the items while a thread makes the next one.

    At most two items are alive that were not taken: one that waits, one in the making.
    An exception of the thread is raised where its item would have come. The thread has
    ended when the block ends, however it ends.

    Args:
        items: what to go through; only the thread touches it.

    Example:
        >>> with ahead(range(3)) as numbers:
        ...     list(numbers)
        [0, 1, 2]
    """
    waiting: queue.Queue[tuple[_T | None, BaseException | None, bool]] = queue.Queue(1)
    stopped = threading.Event()

    def put(item: tuple[_T | None, BaseException | None, bool]) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
        # Whatever it is, it belongs to the thread that takes the items.
        except BaseException as error:
            put((None, error, True))
        else:
            put((None, None, True))

    def take() -> Iterator[_T]:
        while True:
            item, error, ended = waiting.get()
            if error is not None:
                raise error
            if ended:
                return
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stopped.set()
        thread.join()
