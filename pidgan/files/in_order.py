"""Work on several pieces at a time, whose results come in the order of the pieces.

Reading is done by threads: decompression and the functions of numpy run side by side.
The results do not depend on the number of threads.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pidgan.files.machine import available_cores

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")

MOST_THREADS = 4
"""More threads than this wait for one another: a part of the work is done by Python."""


def in_order(
    work: Callable[[_Piece], _Result],
    pieces: Iterable[_Piece],
    *,
    threads: int | None = None,
) -> Iterator[_Result]:
    """Yield the result of each piece; at most one more than `threads` wait at a time.

    With one thread, the work is done by the caller.
    """
    threads = threads or min(available_cores(), MOST_THREADS)
    if threads == 1:
        yield from map(work, pieces)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[_Result]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
