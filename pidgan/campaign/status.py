"""What is done of a campaign, what runs, and what failed and why."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pidgan.arguments import checked
from pidgan.campaign.checks import check_campaign, check_place
from pidgan.campaign.definition import Campaign
from pidgan.campaign.records import Record, Records, difference
from pidgan.campaign.tasks import ALL, Task, inputs_of
from pidgan.notebook import Facts, shown

OVERVIEW = "overview.html"
"""Name of the page of all reports of a campaign."""

MOST_WORDS = 60  # characters of the progress of a running task that are shown


@shown
@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """What became of a task.

    Attributes:
        task: Name of the task.
        bundle: Name of the bundle, "all" for the collection.
        stage: Name of the stage.
        state: "done", "running", "failed", "skipped" for one that needs a failed one,
            or "waiting".
        reason: Why it failed or waits, in one line.
        seconds: How long it ran.
        progress: What a running task says of itself.
        warnings: Warnings of its work.
        log: Its log.
        result: What is known of its result.
        digest: Hash of its result, "" if it is not done.
    """

    task: str
    bundle: str
    stage: str
    state: str
    reason: str = ""
    seconds: float = 0.0
    progress: str = ""
    warnings: Sequence[str] = ()
    log: Path
    result: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    def _facts(self) -> Facts:
        return Facts(f"{self.task}: {self.state}", {"reason": self.reason or "none"})


@shown
@dataclass(frozen=True, kw_only=True)
class CampaignStatus:
    """What is done of a campaign.

    Attributes:
        output: Folder that the campaign writes.
        tasks: What became of each task.

    Example:
        >>> status = pidgan.campaign_status("campaign.toml")     # doctest: +SKIP
        >>> status.counts["done"]                                # doctest: +SKIP
    """

    output: Path
    tasks: Sequence[TaskStatus]

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of tasks by state."""
        return Counter(task.state for task in self.tasks)

    @property
    def failed(self) -> list[TaskStatus]:
        """The tasks that failed."""
        return [task for task in self.tasks if task.state == "failed"]

    @property
    def is_complete(self) -> bool:
        """Whether every task is done."""
        return all(task.state == "done" for task in self.tasks)

    @property
    def overview(self) -> Path:
        """The page of all reports."""
        return self.output / OVERVIEW

    def text(self) -> str:
        """Return a table of bundles and stages, and what runs, failed and waits."""
        lines = [*self._table(), "", self.summary()]
        for task in self.tasks:
            if task.state == "running":
                lines.append(f"running  {task.task}: {task.progress[:MOST_WORDS]}")
        for task in self.failed:
            lines.append(f"failed   {task.task}: {task.reason}  [{task.log}]")
        return "\n".join(lines)

    def summary(self) -> str:
        """Return how many tasks are in each state."""
        states = ("done", "running", "failed", "skipped", "waiting")
        counts = self.counts
        parts = [f"{counts[name]} {name}" for name in states if counts.get(name)]
        return f"{len(self.tasks)} tasks: {', '.join(parts)}"

    def to_json(self) -> str:
        """Return everything as JSON."""
        tasks = [
            {
                **{k: v for k, v in vars(task).items() if k != "result"},
                "log": str(task.log),
                "warnings": list(task.warnings),
            }
            for task in self.tasks
        ]
        content = {
            "output": str(self.output),
            "overview": str(self.overview),
            "complete": self.is_complete,
            "counts": dict(self.counts),
            "tasks": tasks,
        }
        return json.dumps(content, indent=1)

    def by_bundle(self) -> dict[str, dict[str, TaskStatus]]:
        """Return the tasks of each bundle by stage."""
        found: dict[str, dict[str, TaskStatus]] = {}
        for task in self.tasks:
            found.setdefault(task.bundle, {})[task.stage] = task
        return found

    def _table(self) -> list[str]:
        """Return lines of a table: a bundle each, with a column for each stage."""
        stages = dict.fromkeys(task.stage for task in self.tasks if task.bundle != ALL)
        bundles = self.by_bundle()
        together = bundles.pop(ALL, {})
        width = max([len("bundle"), *map(len, bundles)])
        wide = {name: max(len(name), len("running")) for name in stages}
        head = "  ".join(f"{name:{wide[name]}}" for name in stages)
        lines = [f"{'bundle':{width}}  {head}".rstrip()]
        for name, own in bundles.items():
            cells = [f"{own[stage].state:{wide[stage]}}" for stage in stages]
            lines.append(f"{name:{width}}  {'  '.join(cells)}".rstrip())
        for stage, task in together.items():
            made = task.result
            text = task.state
            if task.state == "done" and made:
                text = f"done, {made['bundles']} of {made['of']} bundles"
            lines.append(f"{stage:{width}}  {text}")
        return lines

    def _facts(self) -> Facts:
        failed = {task.task: task.reason for task in self.failed}
        return Facts(f"{self.output.name}: {self.summary()}", failed)


@checked
def campaign_status(
    campaign: Campaign | str | Path, output: str | Path | None = None
) -> CampaignStatus:
    """Return what is done of a campaign, also while another process works on it.

    Args:
        campaign: The campaign, or its file.
        output: Folder that the campaign writes; by default that of the file's name
            without its end, beside it.

    Raises:
        CampaignError: The file is wrong, or the folder is of something else.

    Example:
        >>> print(campaign_status("campaign.toml").text())       # doctest: +SKIP
    """
    campaign = Campaign.open(campaign)
    place = Path(output or campaign.place).absolute()
    check_place(place)
    return find_status(campaign, check_campaign(campaign), place)


def find_status(
    campaign: Campaign, tasks: Sequence[Task], output: Path
) -> CampaignStatus:
    """Return what became of tasks, by their records in a folder."""
    records, folder = Records(output), campaign.folder
    found: dict[str, TaskStatus] = {}
    digests: dict[str, str] = {}
    for task in tasks:
        inputs = inputs_of(task, digests, folder)
        record = records.read(task.name)
        lost = [n for n in task.after if found[n].state in ("failed", "skipped")]
        if lost and not (record and record.state == "running"):
            state, reason = "skipped", f"it needs {lost[0]}, which is not done"
        else:
            state, reason = _state(record, inputs, records, task)
        own: Any = {}
        if record is not None and record.is_of(inputs):
            own = {
                name: getattr(record, name)
                for name in ("seconds", "warnings", "result")
            }
        if state == "running" and record is not None:
            own["progress"] = record.progress
        if state == "done" and record is not None:
            digests[task.name] = own["digest"] = record.digest
        found[task.name] = TaskStatus(
            task=task.name,
            bundle=task.bundle,
            stage=task.stage,
            state=state,
            reason=reason,
            log=records.log(task.name),
            **own,
        )
    return CampaignStatus(output=output, tasks=tuple(found.values()))


def _state(
    record: Record | None, inputs: Mapping[str, Any], records: Records, task: Task
) -> tuple[str, str]:
    """Return the state of a task and why it is so."""
    if record is None:
        return "waiting", ""
    if record.state == "running":
        if records.is_silent(task.name):
            return "waiting", "its process was killed"
        return "running", ""
    if not record.is_of(inputs):
        if record.state == "failed" and not record.inputs:
            return "failed", record.reason
        return "waiting", f"changed: {difference(record.inputs, inputs)}"
    if record.is_done(inputs, records.output):
        return "done", ""
    if record.state == "done":
        return "waiting", "files are missing"
    if record.state == "failed":
        return "failed", record.reason
    return "waiting", record.reason
