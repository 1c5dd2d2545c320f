"""Work ahead: a stage of a pipeline that runs in a thread of its own.

Reading, generating and writing of an ntuple release Python's lock most of the time
(decompression, inference, compression); stages that are chained by `ahead` overlap.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")


@contextlib.contextmanager
def ahead(items: Iterable[_T]) -> Iterator[Iterator[_T]]:
    """Give the items, in order, while a thread makes the next one.

    At most two items are alive that were not taken: one that waits, one in the making.
    An exception of the thread is raised where its item would have come. The thread has
    ended when the block ends, however it ends.

    Example:
        >>> with ahead(range(3)) as numbers:
        ...     list(numbers)
        [0, 1, 2]
    """
    iterator, end = iter(items), object()
    pool = ThreadPoolExecutor(1)

    def take() -> Iterator[_T]:
        waiting: deque[Any] = deque(pool.submit(next, iterator, end) for _ in range(2))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, iterator, end))
            yield item

    try:
        yield take()
    finally:
        pool.shutdown(cancel_futures=True)
