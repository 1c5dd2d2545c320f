"""Memory that a training keeps, where the allocator would give it back at each step.

The allocator of glibc asks the system for every block above 32 MiB, and returns it when
it is free. The system clears each of its pages when it is used for the first time. A
step of a training needs the same blocks again and again: for 1,728 cells, 128 showers a
step and the default networks, this was a fifth of the CPU time (73,000 pages a step).
Within `kept_memory`, large blocks come from the heap, which keeps up to `MOST_KEPT`
bytes that are free. The process grew by a tenth. Where blocks are small, as for tracks,
nothing changes.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

# Largest number of free bytes at the end of the heap.
MOST_KEPT = 2**30
# Parameters of mallopt (malloc.h), and the values that glibc would have found for large
# blocks by itself.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 65536}
# Whoever sets these has chosen.
CHOICES = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Keep the memory of large blocks while this lasts; elsewhere than in glibc, not.

    What is free is returned to the system at the end.
    """
    library = _glibc()
    if library is None or any(name in os.environ for name in CHOICES):
        yield
        return
    for parameter, value in {TRIM_THRESHOLD: MOST_KEPT, MMAP_MAX: 0}.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            library.mallopt(parameter, value)
        library.malloc_trim(ctypes.c_size_t(0))


def _glibc() -> Any:
    """Return the C library if it is glibc, else None."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no such library
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
