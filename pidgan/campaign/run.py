"""Run a campaign: only what is missing, or was made of other inputs than those of now.

Two calls never work in one folder at once: the first one locks it.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pidgan.arguments import checked
from pidgan.campaign.checks import check_campaign, check_libraries, check_place
from pidgan.campaign.definition import Campaign, Run
from pidgan.campaign.engines import check_run, check_submits, engine, run_here
from pidgan.campaign.process import Job, Outcome
from pidgan.campaign.records import MARK, Records
from pidgan.campaign.status import CampaignStatus, find_status
from pidgan.campaign.tasks import Task
from pidgan.errors import CampaignError
from pidgan.files.documents import read_json
from pidgan.files.writing import writing_file
from pidgan.progress import Bar, is_interactive, say

OVERVIEW_SECONDS = 60.0
"""Least time between two pages of a running campaign."""


@checked
def run_campaign(
    campaign: Campaign | str | Path,
    output: str | Path | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    batch: Literal["htcondor", "slurm"] | None = None,
    progress: bool = True,
) -> CampaignStatus:
    """Make all bundles of a campaign, their reports, their maps and the collection.

    Whatever is done with the inputs of now is kept, so that a second call does what is
    missing, what failed, and what depends on anything that changed. Each task runs in a
    process of its own, with the number of threads that the file states: the same seeds
    give the same bundles, bit for bit, whatever the number of workers. A training that
    was killed continues from its checkpoint.

    Args:
        campaign: The campaign, or its file.
        output: Folder that is written; by default that of the file's name without its
            end, beside it.
        workers: Number of tasks at a time, and of jobs of a batch system; by default
            what the file says, else one for each core. One runs without Dask.
        scheduler: Address of a Dask scheduler, whose workers share the file system.
        batch: Batch system on which workers are started.
        progress: Whether a bar, or a line of a log for each task, is shown.

    Returns:
        What is done, and what failed. A task that fails stops only those that need it.

    Raises:
        CampaignError: The file is wrong; the folder cannot be written, is of something
            else, or another process works in it. All of this is found before any work.

    Example:
        >>> status = run_campaign("campaign.toml", workers=2)    # doctest: +SKIP
        >>> status.is_complete                                   # doctest: +SKIP
        True
    """
    check_libraries()
    from pidgan.campaign.overview import write_overview  # loads matplotlib

    campaign = Campaign.open(campaign)
    run = chosen_run(campaign, workers=workers, scheduler=scheduler, batch=batch)
    check_submits(run)

    def tell(text: str) -> None:
        if progress:
            say(f"pidgan: {text}")

    place = Path(output or campaign.place).absolute()
    check_place(place)
    tasks = check_campaign(campaign)
    _mark(campaign, place)
    with _locked(place):
        status = find_status(campaign, tasks, place)
        jobs = _jobs(campaign, tasks, status)
        written = time.monotonic()
        with (
            Bar("campaign", total=len(tasks), unit="tasks", show=progress) as bar,
            contextlib.ExitStack() as stack,
        ):
            bar.to(len(tasks) - len(jobs))
            does: Any = (
                stack.enter_context(engine(campaign, run, place, tell=tell))
                if jobs
                else run_here
            )
            for outcome in does(jobs):
                _tell(outcome, bar, show=progress)
                if time.monotonic() - written > OVERVIEW_SECONDS:
                    write_overview(campaign, find_status(campaign, tasks, place))
                    written = time.monotonic()
        status = find_status(campaign, tasks, place)
        write_overview(campaign, status)
    return status


def _jobs(
    campaign: Campaign, tasks: Sequence[Task], status: CampaignStatus
) -> list[Job]:
    """Return the tasks that are not done, and those that wait for one of them.

    A task of these that finds nothing changed is kept.
    """
    done = {one.task: one.digest for one in status.tasks if one.digest}
    jobs = []
    for task in tasks:
        if task.name in done and done.keys() >= set(task.before):
            continue
        done.pop(task.name, None)
        jobs.append(
            Job(
                task=task,
                output=status.output,
                folder=campaign.folder,
                digests={n: done[n] for n in task.before if n in done},
            )
        )
    return jobs


def chosen_run(
    campaign: Campaign,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    batch: Literal["htcondor", "slurm"] | None = None,
) -> Run:
    """Return where tasks run: what the file says, and what a caller says instead."""
    said: dict[str, Any] = campaign.head.run.model_dump()
    if workers is not None:
        said["workers"] = workers
        if scheduler is None and batch is None and workers == 1:
            said |= {"scheduler": None, "batch": None, "options": {}}
    if scheduler is not None:
        said |= {"scheduler": scheduler}
        if batch is None:
            said |= {"batch": None, "options": {}}
    if batch is not None:
        said |= {"batch": batch, "scheduler": scheduler}
        if batch != campaign.head.run.batch:
            said["options"] = {}
    run = Run(**said)
    check_run(run, str(campaign.path))
    return run


def _tell(outcome: Outcome, bar: Bar, *, show: bool) -> None:
    """Count a task, and say what became of it."""
    failed = outcome.state in ("failed", "stopped")
    if show and (failed or not is_interactive()):
        text = f": {outcome.reason}" if outcome.reason else ""
        say(f"pidgan: {outcome.task} {outcome.state}, {outcome.seconds:.0f} s{text}")
    bar.add(1, f"{outcome.task} {outcome.state}")


def _mark(campaign: Campaign, output: Path) -> None:
    """Write the file by which the folder is known."""
    content = {"schema": 1, "campaign": str(campaign.path.absolute())}
    path = output / MARK
    if path.is_file():
        found = read_json(path, error=CampaignError)
        if isinstance(found, dict) and found.get("schema", 1) != 1:
            raise CampaignError(
                f"{path} has schema {found['schema']!r}, expected 1; it was written by "
                "another version"
            )
    with writing_file(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Keep other calls out of a folder; the lock ends with the process."""
    path = Records(output).lock("campaign")
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read(200).strip() or "another process"
            raise CampaignError(
                f"{output}: {who} works on this campaign; --status shows how far it is"
            ) from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
