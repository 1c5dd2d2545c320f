"""The page of all reports of a campaign: the worst bundles and figures first."""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pidgan.campaign.definition import Campaign
from pidgan.campaign.status import OVERVIEW, CampaignStatus, TaskStatus
from pidgan.campaign.tasks import ALL, Paths
from pidgan.errors import CampaignError, PidganError
from pidgan.files.documents import read_json
from pidgan.files.writing import writing_file
from pidgan.report.index_page import FoundPage, find_pages
from pidgan.report.page import (
    Cell,
    Section,
    Table,
    pull_cell,
    render_page,
    with_error,
)
from pidgan.report.report import pull_of
from pidgan.report.verdict import level_of

MOST_FIGURES = 25  # figures of all reports that are shown
MOST_WARNINGS = 100  # warnings that are shown

COLUMNS = {
    "C2ST, AUC": "the better of two classifiers that tell generated rows, at best 0.5",
    "KS": "the weighted KS distance of the worst target",
    "tails": "the Wasserstein distance of the worst target, which sees its tails",
    "separation": "the mean separation power of the observables of showers",
    "efficiency": "generated minus real efficiency of the worst cut",
}
"""Columns of figures, and what they are."""

Levels = {"bad": 0, "fair": 1, "good": 2}


def write_overview(campaign: Campaign, status: CampaignStatus) -> Path:
    """Write the overview of a campaign into its folder, and return its path."""
    path = status.output / OVERVIEW
    with writing_file(path, overwrite=True) as temporary:
        temporary.write_text(overview_text(campaign, status), encoding="utf-8")
    return path


def overview_text(campaign: Campaign, status: CampaignStatus) -> str:
    """Return the page of what is done of a campaign."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    pages = _pages(status)
    sections = [
        *_failures(status),
        _bundles(status, pages),
        _figures(pages, status),
        *_warnings(status),
        _files(campaign, status),
    ]
    title = campaign.head.title or f"Campaign {campaign.path.stem}"
    return render_page(title, sections, lead=f"{status.summary()}, as of {now}.")


def _pages(status: CampaignStatus) -> dict[tuple[str, str], FoundPage]:
    """Return the reports of tasks that are done, by bundle and stage."""
    done = {(t.bundle, t.stage) for t in status.tasks if t.state == "done"}
    folder = status.output / "reports"
    found = {}
    for page in find_pages(folder) if folder.is_dir() else []:
        key = (page.path.parts[0], page.path.parent.name)
        stage = {"validation": "validate"}.get(key[1], key[1])
        if (key[0], stage) in done:
            found[key[0], stage] = page
    return found


def _failures(status: CampaignStatus) -> Iterator[Section]:
    """The tasks that failed, and those that wait for them."""
    rows = [
        {
            "task": Cell(text=task.task, level="text"),
            "why it is not done": Cell(text=task.reason, level="text"),
            "log": _link("log", task.log, status.output),
        }
        for task in status.tasks
        if task.state in ("failed", "skipped")
    ]
    if rows:
        yield Section(
            title="Not done",
            text="A second call of `pidgan campaign` tries these tasks again.",
            tables=[Table(rows)],
        )


def _bundles(
    status: CampaignStatus, pages: Mapping[tuple[str, str], FoundPage]
) -> Section:
    """A line for each bundle, the worst verdict first."""
    rows, order = [], []
    for bundle, tasks in status.by_bundle().items():
        if bundle == ALL:
            continue
        page = pages.get((bundle, "validate"))
        rows.append(_row(bundle, tasks, page, pages, status))
        order.append(page.rank if page else (len(Levels) + 1, 0.0, bundle))
    ranked = [rows[i] for i in sorted(range(len(rows)), key=lambda i: order[i])]
    shown = {name for row in ranked for name in row}
    listed = [f"{name}: {text}" for name, text in COLUMNS.items() if name in shown]
    text = (
        f"{'; '.join(listed)}. Colours change at pulls of 2 and 3: a pull is the "
        "number of standard deviations by which a figure is worse than its floor, the "
        "same figure for real against real rows. Bundles without a report come last."
    )
    return Section(title="Bundles, the worst first", text=text, tables=[Table(ranked)])


def _row(
    bundle: str,
    tasks: Mapping[str, TaskStatus],
    page: FoundPage | None,
    pages: Mapping[tuple[str, str], FoundPage],
    status: CampaignStatus,
) -> dict[str, Any]:
    states = {task.state for task in tasks.values()}
    left = next((s for s in ("failed", "running", "waiting") if s in states), "done")
    row: dict[str, Any] = {
        "bundle": Cell(text=bundle, level="text"),
        "state": left if left != "done" else "",
    }
    if page is not None:
        facts, place = page.facts, Path("reports") / page.path
        row["bundle"] = Cell(text=bundle, level="text", href=quote(place.as_posix()))
        row["verdict"] = Cell(
            text=str(facts.get("level") or "-"), level=str(facts.get("level", ""))
        )
        row |= _measured(status.output / place.with_name("report.json"))
    own_map = pages.get((bundle, "systematics"))
    if own_map is not None:
        place = Path("reports") / own_map.path
        verdict = str(own_map.facts.get("level") or "")
        row["map"] = Cell(text="map", href=quote(place.as_posix()), level=verdict)
    number = sum(len(task.warnings) for task in tasks.values())
    row["warnings"] = Cell(text=str(number), level="fair" if number else "")
    row["time"] = _duration(sum(task.seconds for task in tasks.values()))
    if page is not None:
        pull = pull_cell(page.facts.get("pull"))
        worst = f"{page.facts.get('worst', '-')}, pull {pull.text}"
        row["worst figure"] = Cell(text=worst, level=f"text {pull.level}".strip())
    return row


def _measured(path: Path) -> dict[str, Any]:
    """Return the cells of the main figures of a report, tracks or showers."""
    try:
        numbers = read_json(path, error=CampaignError)
        found = dict(_figures_of(numbers))
    except (PidganError, KeyError, TypeError, AttributeError):
        return {}
    return {
        name: Cell(
            text=with_error(figure["value"], figure.get("error")),
            level=level_of(_pull(figure)),
        )
        for name, figure in found.items()
        if figure is not None and figure.get("value") is not None
    }


def _figures_of(numbers: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield column and figure, the worst one of its kind."""
    if "separation_mean" in numbers:
        if "c2st" in numbers:
            yield "C2ST, AUC", _worst(numbers["c2st"].values())
        yield "separation", numbers["separation_mean"]
        return
    yield "C2ST, AUC", numbers["c2st"]
    targets = numbers["targets"].values()
    yield "KS", _worst(target["ks"] for target in targets)
    yield "tails", _worst(target["wasserstein"] for target in targets)
    cuts = numbers["efficiency"].values()
    differences = [cut["overall"]["difference"] | {"floor": 0.0} for cut in cuts]
    yield "efficiency", _worst(differences)


def _worst(figures: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    known = [one for one in figures if one.get("value") is not None]

    def rank(figure: Mapping[str, Any]) -> float:
        pull = _pull(figure)
        return float("-inf") if pull is None else pull

    return max(known, key=rank, default=None)


def _pull(figure: Mapping[str, Any]) -> float | None:
    """Return the pull of a figure; that of a difference has no floor."""
    if figure.get("floor") == 0.0 and figure.get("error"):
        return abs(float(figure["value"])) / float(figure["error"])
    return pull_of(dict(figure))


def _figures(
    pages: Mapping[tuple[str, str], FoundPage], status: CampaignStatus
) -> Section:
    """The figures of all reports that are farthest above their floors."""
    found = []
    for (bundle, stage), page in pages.items():
        ranked = page.facts.get("ranked")
        for item in ranked if isinstance(ranked, list) else []:
            if isinstance(item, list) and len(item) == 2:
                found.append((float(item[1]), str(item[0]), bundle, stage, page))
    found.sort(key=lambda one: -one[0])
    rows = [
        {
            "figure": label,
            "pull": pull_cell(pull),
            "report": Cell(
                text=f"{bundle}, {stage}",
                href=quote((Path("reports") / page.path).as_posix()),
                level="text",
            ),
        }
        for pull, label, bundle, stage, page in found[:MOST_FIGURES]
    ]
    text = (
        "The largest pulls of all reports. Of so many figures some are large by "
        "chance; the verdict of a report says how many it looked at."
    )
    return Section(title="Worst figures", text=text, tables=[Table(rows)])


def _warnings(status: CampaignStatus) -> Iterator[Section]:
    """The warnings of all tasks, those that many tasks have once."""
    by_text: dict[str, list[TaskStatus]] = {}
    for task in status.tasks:
        for text in task.warnings:
            by_text.setdefault(text, []).append(task)
    rows = [
        {
            "task": Cell(
                text=tasks[0].task if len(tasks) == 1 else f"{len(tasks)} tasks",
                level="text",
            ),
            "warning": Cell(text=text, level="text"),
            "log": _link("log", tasks[0].log, status.output),
        }
        for text, tasks in by_text.items()
    ]
    if rows:
        left = len(rows) - MOST_WARNINGS
        text = f"{left} more are in the logs." if left > 0 else ""
        yield Section(title="Warnings", text=text, tables=[Table(rows[:MOST_WARNINGS])])


def _files(campaign: Campaign, status: CampaignStatus) -> Section:
    """Links to the collection, the bundles and the maps."""
    links = [(campaign.path.name, _address(campaign.path.absolute(), status.output))]
    for name, own in status.by_bundle().items():
        paths = Paths(output=status.output, bundle=name)
        done = {stage for stage, task in own.items() if task.state == "done"}
        files = (
            {"collect": paths.collection}
            if name == ALL
            else {
                "export": paths.exported,
                "systematics": paths.map,
            }
        )
        links += [
            (_relative(path, status.output), _address(path, status.output))
            for stage, path in files.items()
            if stage in done
        ]
    return Section(title="Files", links=links)


def _link(text: str, path: Path, output: Path) -> Cell | str:
    return Cell(text=text, href=_address(path, output)) if path.is_file() else "-"


def _relative(path: Path, output: Path) -> str:
    return Path(os.path.relpath(path, output)).as_posix()


def _address(path: Path, output: Path) -> str:
    return quote(_relative(path, output))


def _duration(seconds: float) -> str:
    """Return a time as people write it: "2 h 5 min", "3 min 20 s", "12 s"."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
