"""Where the tasks of a campaign run: one by one here, or on workers of Dask.

Dask knows the graph: a task begins when those before it have ended, on any worker that
is free, and it is done again elsewhere if its worker is lost. The work itself is in a
process of its own (`pidgan.campaign.process`), so that a worker is only who waits for
it.
"""

import contextlib
import functools
import importlib.util
import inspect
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pidgan.application.request import package_version
from pidgan.application.workers import dask_client
from pidgan.arguments import brief
from pidgan.campaign.definition import BATCH, Campaign, Run
from pidgan.campaign.process import Job, Outcome, run_job
from pidgan.errors import CampaignError, nearest
from pidgan.files.beats import beating
from pidgan.files.machine import available_cores

SCALE_HINT = "pip install '.[scale]' in the source tree"

LOST_WORKERS = 10
"""Workers that a task may lose before it counts as failed. Batch systems stop some, and
a training goes on from its checkpoint."""

LOST_SCHEDULER = (
    "the connection to the Dask scheduler was lost; nothing that is done is lost, and "
    "the same command goes on"
)

NO_PAGE = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""Options of a scheduler without pages of its own. Any port of this machine serves its
figures: two campaigns at a time do not meet, and nobody else sees them."""

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "10s",
    "distributed.admin.system-monitor.interval": "5s",
}
"""Settings of workers that only wait. Dask looks at itself 100 times a second, which
took 11 % of a core for two workers, and takes 2 % so."""

SUBMITS = {"htcondor": "condor_submit", "slurm": "sbatch"}
"""Programs that take jobs."""

WAIT_SECONDS, LOOK_SECONDS = 10.0, 2.0
"""Time without any worker after which a campaign says so, and between two looks."""

MEMORY, DISK = "4GB", "10GB"
"""What a job of a batch system asks for unless the options say it."""


def run_here(jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Do tasks one by one, and yield what became of each."""
    found: dict[str, Outcome] = {}
    for job in jobs:
        before = [found[name] for name in job.task.before if name in found]
        found[job.task.name] = run_job(job, before)
        yield found[job.task.name]


def run_on_dask(jobs: Sequence[Job], client: Any) -> Iterator[Outcome]:
    """Do tasks on the workers of a client of Dask; yield them as they end."""
    found: dict[str, Outcome] = {}
    left = list(jobs)
    while left:
        again = []
        for job, outcome in _submitted(left, found, client):
            if outcome is None:
                again.append(job)
            else:
                found[job.task.name] = outcome
                yield outcome
        left = again


def _submitted(
    jobs: Sequence[Job], found: Mapping[str, Outcome], client: Any
) -> Iterator[tuple[Job, Outcome | None]]:
    """Submit tasks; yield each with its outcome, None if one before it was lost."""
    from distributed import as_completed

    futures: dict[str, Any] = {}
    by_key: dict[str, Job] = {}
    token = uuid.uuid4().hex[:8]
    for number, job in enumerate(jobs):
        names = [name for name in job.task.before if name in futures]
        known = [found[name] for name in job.task.before if name in found]
        future = client.submit(
            functools.partial(_run_after, job, known),
            *(futures[name] for name in names),
            key=f"{job.task.name}-{token}",
            priority=-number,
            pure=False,
        )
        futures[job.task.name], by_key[future.key] = future, job
    try:
        for future in as_completed([*futures.values()]):
            yield by_key[future.key], _outcome(future, by_key[future.key])
    finally:
        client.cancel([*futures.values()], force=True)


def _run_after(job: Job, known: Sequence[Outcome], *before: Outcome) -> Outcome:
    return run_job(job, [*known, *before])


def _outcome(future: Any, job: Job) -> Outcome | None:
    """Return what a future holds; None if its task waits for one that was lost."""
    if future.cancelled():
        raise CampaignError(LOST_SCHEDULER)
    error = future.exception()
    if error is None:
        outcome: Outcome = future.result()
        return outcome
    lost = getattr(error, "task", None)
    if lost is not None and lost != future.key:
        return None
    text = " ".join(str(error).split())
    reason = f"{type(error).__name__}: {text}"
    if lost is not None:
        reason = f"{LOST_WORKERS} workers were lost while they did it"
    return Outcome(task=job.task.name, state="failed", reason=reason[:500])


def has_dask() -> bool:
    """Return whether dask.distributed is installed."""
    return importlib.util.find_spec("distributed") is not None


def check_run(run: Run, where: str) -> None:
    """Raise a CampaignError if tasks cannot run as a file or its caller says."""
    if run.scheduler is not None and run.batch is not None:
        raise CampaignError(f"{where}: give a scheduler or a batch system, not both")
    if run.options and run.batch is None:
        raise CampaignError(
            f"{where}: run.options are those of a batch system, and `batch` is not "
            f"given; expected {' or '.join(BATCH)}"
        )
    needs_dask = run.scheduler or run.batch or (run.workers or 1) > 1
    if needs_dask and not has_dask():
        raise CampaignError(
            f"{where}: several workers need dask.distributed: {SCALE_HINT}"
        )
    if run.batch is not None:
        if importlib.util.find_spec("dask_jobqueue") is None:
            raise CampaignError(
                f"{where}: a batch system needs dask-jobqueue: {SCALE_HINT}"
            )
        _check_options(run, where)


def check_submits(run: Run) -> None:
    """Raise a CampaignError if jobs cannot be given to a batch system from here."""
    if run.batch is not None and shutil.which(SUBMITS[run.batch]) is None:
        raise CampaignError(
            f"batch = {run.batch!r} needs {SUBMITS[run.batch]}, which is not in PATH; "
            f"run this where jobs of {run.batch} are submitted, or without a batch "
            "system"
        )


def _check_options(run: Run, where: str) -> None:
    """Raise if dask-jobqueue does not know an option."""
    from dask_jobqueue.core import Job as BatchJob
    from dask_jobqueue.core import JobQueueCluster

    kinds = (_cluster_type(run).job_cls, BatchJob, JobQueueCluster)
    known = {
        name
        for kind in kinds
        for name, one in inspect.signature(kind.__init__).parameters.items()
        if one.kind is not one.VAR_KEYWORD and name != "self"
    }
    known -= {
        "scheduler",
        "name",
        "config_name",
        "job_cls",
        "n_workers",
        "asynchronous",
    }
    for name in run.options:
        if name not in known:
            raise CampaignError(
                f"{where}: run.options has {name!r}, which a cluster of {run.batch} "
                f"does not take{nearest(name, known)}"
            )


def _cluster_type(run: Run) -> Any:
    import dask_jobqueue

    names = {"htcondor": "HTCondorCluster", "slurm": "SLURMCluster"}
    return getattr(dask_jobqueue, names[str(run.batch)])


def job_script(campaign: Campaign, run: Run, output: Path) -> str:
    """Return the script of a job of a batch system."""
    with batch_cluster(campaign, run, output) as cluster:
        return str(cluster.job_script())


def batch_cluster(campaign: Campaign, run: Run, output: Path) -> Any:
    """Return the cluster of a batch system, which has no jobs yet."""
    given = {
        "cores": campaign.cores,
        "processes": 1,
        "memory": MEMORY,
        "log_directory": str(output / "logs" / "batch"),
        **({"disk": DISK} if run.batch == "htcondor" else {}),
        **run.options,
    }
    # A worker waits for one task at a time, whatever its cores are for.
    extra = [*given.pop("worker_extra_args", []), "--nthreads", "1"]
    try:
        return _cluster_type(run)(
            **given,
            worker_extra_args=extra,
            scheduler_options=NO_PAGE,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise CampaignError(
            f"{campaign.path}: run.options {brief(run.options)} are refused: "
            f"{' '.join(str(error).split())}"
        ) from error


@contextlib.contextmanager
def engine(
    campaign: Campaign, run: Run, output: Path, *, tell: Callable[[str], None]
) -> Iterator[Any]:
    """Give the function that does tasks and yields what became of them.

    `tell` is called with what is waited for, where nothing can go on.
    """
    if run.scheduler is not None:
        with (
            dask_client(run.scheduler) as client,
            _telling(client, f"workers of {run.scheduler}", tell),
        ):
            try:
                client.wait_for_workers(1)
            except OSError as error:
                raise CampaignError(LOST_SCHEDULER) from error
            _check_workers(client, run.scheduler, output)
            yield functools.partial(run_on_dask, client=client)
        return
    workers = run.workers or default_workers(campaign.cores)
    if run.batch is None and workers == 1:
        yield run_here
        return
    import dask
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        patience = {"distributed.scheduler.allowed-failures": LOST_WORKERS}
        stack.enter_context(dask.config.set({**QUIET, **patience}))
        if run.batch is None:
            # The workers only wait: their memory is not that of their tasks.
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                scheduler_kwargs=NO_PAGE,
                silence_logs=logging.CRITICAL,
            )
        else:
            (output / "logs" / "batch").mkdir(parents=True, exist_ok=True)
            cluster = batch_cluster(campaign, run, output)
            # A job that ends, as its time is over, is followed by another one.
            number = run.workers or 1
            cluster.adapt(minimum_jobs=number, maximum_jobs=number)
        stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster))
        jobs = f"jobs of {run.batch}" if run.batch else "processes of Dask"
        stack.enter_context(_telling(client, jobs, tell))
        yield functools.partial(run_on_dask, client=client)


@contextlib.contextmanager
def _telling(client: Any, workers: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell that a campaign waits for workers, once each time that there are none."""
    without = 0.0

    def look() -> None:
        nonlocal without
        with contextlib.suppress(Exception):  # what is wrong is found elsewhere
            if client.scheduler_info()["workers"]:
                without = 0.0
                return
            without += LOOK_SECONDS
            if 0 <= without - WAIT_SECONDS < LOOK_SECONDS:
                tell(f"there are no {workers} now; waiting for one to start")

    with beating(look, LOOK_SECONDS):
        yield


def default_workers(cores: int) -> int:
    """Return how many workers with so many cores this machine has; 1 without Dask."""
    return max(1, available_cores() // cores) if has_dask() else 1


def _check_workers(client: Any, address: str, output: Path) -> None:
    """Raise if workers of a scheduler do not see the folder, or are other ones."""
    for worker, (version, sees) in client.run(_worker_facts, str(output)).items():
        if not sees:
            raise CampaignError(
                f"worker {worker} of {address} does not see {output}; a campaign needs "
                "a file system that all workers share"
            )
        if version != package_version("pidgan"):
            raise CampaignError(
                f"worker {worker} of {address} has pidgan {version}, expected "
                f"{package_version('pidgan')}"
            )


def _worker_facts(output: str) -> tuple[str, bool]:
    return package_version("pidgan"), Path(output).is_dir()
