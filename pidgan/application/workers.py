"""Where the files of an application are processed: in processes here, or on Dask.

One process is simplest, and overlaps reading, generating and writing by threads.
`in_processes` is for many files on a machine of many cores: what Python itself does is
then parallel too. `on_dask` is for several machines that share a file system; Dask
gives the files of a lost worker to another one.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pidgan.application.one_file import Counts, FileJob, run_job
from pidgan.errors import NtupleError

Done = tuple[int, Counts, list[str]]
"""Number of a job, its counts and its notes."""


def in_processes(jobs: Sequence[FileJob], *, workers: int) -> Iterator[Done]:
    """Yield the results of jobs as they are done by processes of this machine.

    Args:
        jobs: one per file.
        workers: how many processes.

    Raises:
        NtupleError: of the first job that fails; those that run are finished.
    """
    # Forked processes would inherit the locks of this one's threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_end_with_parent
    )
    try:
        futures = {pool.submit(run_job, job): i for i, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], *future.result()
    except BrokenProcessPool as error:
        raise NtupleError(
            "a worker process was killed, perhaps for its memory; the same command "
            "continues with the files that are not done, with fewer --workers in less "
            "memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def on_dask(jobs: Sequence[FileJob], client: Any) -> Iterator[Done]:
    """Yield the results of jobs as they are done by the workers of a Dask cluster.

    Args:
        jobs: one per file; all workers must see the paths.
        client: a `dask.distributed.Client`.

    Raises:
        NtupleError: of the first job that fails, or if workers were lost with the
            same job several times.
    """
    from distributed import KilledWorker
    from distributed import as_completed as completed

    futures = client.map(run_job, jobs, pure=False)
    numbers = {future.key: i for i, future in enumerate(futures)}
    try:
        for future in completed(futures):
            yield numbers[future.key], *future.result()
    except KilledWorker as error:
        raise NtupleError(f"Dask gave up: {' '.join(str(error).split())}") from error
    finally:
        client.cancel(futures)


@contextlib.contextmanager
def dask_client(address: str) -> Iterator[Any]:
    """Give a client of a Dask scheduler, closed at the end of the block.

    Raises:
        NtupleError: Dask is not installed, or nothing answers at the address.
    """
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


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however it did."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
