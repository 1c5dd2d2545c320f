"""What this process may use: cores and memory, as the batch system limits them."""

import contextlib
import os
from pathlib import Path

MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Limit of the control group, versions 2 and 1
(https://docs.kernel.org/admin-guide/cgroup-v2.html). What the group uses, mostly files
in the cache, gives way."""

MEMORY_UNKNOWN = 2 * 2**30
"""Assumed where the system does not tell, in bytes: a small batch slot."""


THREADS_VARIABLE = "PIDGAN_THREADS"
"""Variable of the environment with the number of threads of a process, where several
processes share a machine; that of a training too."""


def available_cores() -> int:
    """Return the number of cores on which this process may run."""
    has_mask = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1
    return min(cores, stated_threads() or cores)


def stated_threads() -> int | None:
    """Return the number of threads that the environment states, if it does."""
    text = os.environ.get(THREADS_VARIABLE, "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def available_memory() -> int:
    """Return the bytes that can be had without swapping, within the group's limit."""
    found = []
    for limit in MEMORY_LIMITS:
        # "max" and missing files: there is no such limit.
        with contextlib.suppress(OSError, ValueError):
            found.append(int(limit.read_text()))
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                found.append(int(value.split()[0]) * 1024)
    return min((memory for memory in found if memory), default=MEMORY_UNKNOWN)
