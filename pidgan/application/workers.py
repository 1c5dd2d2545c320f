"""Where the files of an application are processed: here, in processes, or on Dask.

One process overlaps reading, generating and writing by threads. Several make what
Python itself does parallel too. Dask is for several machines that share a file system;
it gives the files of a lost worker to another one.
"""

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from pidgan.application import one_file
from pidgan.application.finished import Outcome
from pidgan.application.one_file import FileJob, FilePlan, Progress
from pidgan.errors import NtupleError
from pidgan.files.copying import CHUNK_BYTES
from pidgan.files.machine import available_cores, available_memory
from pidgan.files.processes import end_with_parent, may_start_processes

Result = tuple[int, Outcome]
"""The number of a job, and what its file holds."""

MEMORY_SHARE = 20
"""A chunk takes at most this part of the memory: some five are alive at a time, each
with its compressed, uncompressed and computed arrays."""

CORES_PER_PROCESS = 4
"""Cores that a process uses well: one reads, one writes, the others generate."""


def do_files(
    plans: Sequence[FilePlan],
    *,
    workers: int | None,
    threads: int | None,
    client: Any,
    progress: Progress | None,
) -> Iterator[tuple[FilePlan, Outcome]]:
    """Write files where the arguments of `apply` say; yield them as they are done."""
    if client is not None:
        jobs = [plan.job.portable(absolute=True) for plan in plans]
        results = _on_dask(jobs, client)
    else:
        can_move = all(None not in plan.job.request.paths.values() for plan in plans)
        asked = 1 if workers is None and not can_move else workers
        share = share_machine(len(plans), workers=asked, threads=threads)
        mine = partial(replace, threads=share.threads, chunk_bytes=share.chunk_bytes)
        plans = [replace(plan, job=mine(plan.job)) for plan in plans]
        if share.workers == 1:
            for plan in plans:
                yield plan, one_file.write_file(plan, progress)
            return
        jobs = [plan.job.portable(absolute=False) for plan in plans]
        results = _in_processes(jobs, workers=share.workers)
    for number, outcome in results:
        if progress is not None:
            progress(plans[number].entries)
        yield plans[number], outcome


class Share(NamedTuple):
    """Processes, threads of each, and bytes of a chunk."""

    workers: int
    threads: int
    chunk_bytes: int


def share_machine(files: int, *, workers: int | None, threads: int | None) -> Share:
    """Return how files share the cores and the memory of this machine."""
    cores = available_cores()
    if workers is None:
        workers = cores // CORES_PER_PROCESS if may_start_processes() else 1
    workers = max(1, min(workers, files))
    memory = available_memory() // (MEMORY_SHARE * workers)
    return Share(workers, threads or max(1, cores // workers), min(CHUNK_BYTES, memory))


def _in_processes(jobs: Sequence[FileJob], *, workers: int) -> Iterator[Result]:
    """Yield results as they come; after a failure, files in work are still finished."""
    # Forked processes would inherit the locks of this one's threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    try:
        futures = {pool.submit(one_file.run_job, job): i for i, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise NtupleError(
            "a worker process was killed, perhaps for its memory; the same command "
            "continues with the files that are not done, with fewer --workers in less "
            "memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _on_dask(jobs: Sequence[FileJob], client: Any) -> Iterator[Result]:
    """Yield results as the workers of a Dask cluster, who see the paths, have them."""
    from distributed import KilledWorker
    from distributed import as_completed as completed

    futures = client.map(one_file.run_job, jobs, pure=False)
    numbers = {future.key: i for i, future in enumerate(futures)}
    try:
        for future in completed(futures):
            yield numbers[future.key], future.result()
    except KilledWorker as error:
        raise NtupleError(f"Dask gave up: {' '.join(str(error).split())}") from error
    finally:
        client.cancel(futures)


@contextlib.contextmanager
def dask_client(address: str) -> Iterator[Any]:
    """Give a client of the Dask scheduler at an address, closed at the block's end."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise NtupleError(
            "a Dask scheduler needs dask.distributed: pip install '.[scale]' in the "
            "source tree"
        ) from error
    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise NtupleError(
            f"no Dask scheduler at {address}: {' '.join(str(error).split())}"
        ) from error
    with client:
        yield client
