"""The index of a folder of reports: links to all of them, the worst figures first.

The index shows what lies in the folder when it is written, and is brought up to date
whenever pidgan writes a report below a folder that has one. Two commands may do so at
once: who writes an index looks again afterwards, and writes anew if reports came or
went meanwhile, so that the last one written is true.
"""

import html
import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pidgan.arguments import checked
from pidgan.errors import NtupleError, PidganError, PidganWarning
from pidgan.files.leftovers import is_temporary
from pidgan.files.writing import writing_file
from pidgan.report.page import (
    HTML_NAME,
    Cell,
    Section,
    Table,
    pull_cell,
    render_page,
)

INDEX_NAME, JSON_NAME = "index.html", "report.json"
DEPTH = 3  # folders below the folder in which reports are found
HEAD_BYTES = 65_536  # of a page, which hold its facts
MOST_FIGURES, MOST_FILES = 15, 200
TRIES = 10  # to write while others write
OTHER_FILES = (".onnx", ".json", ".root", ".parquet", ".png", ".pdf", ".html")
MARK = '<meta name="pidgan-index"'

_FACTS = re.compile(r'<meta name="pidgan-page" content="([^"]*)">')
_TITLE = re.compile(r"<title>([^<]*)</title>")


@dataclass(frozen=True, kw_only=True)
class FoundPage:
    """A report of a folder: its path below it, what it says of itself, and its time."""

    path: Path
    facts: dict[str, Any]
    time: float

    @property
    def title(self) -> str:
        return str(self.facts.get("title") or self.path.parent)

    @property
    def pull(self) -> float:
        pull = self.facts.get("pull")
        return float(pull) if isinstance(pull, int | float) else float("-inf")

    @property
    def rank(self) -> tuple[int, float, str]:
        order = ["bad", "fair", "good"]
        level = self.facts.get("level")
        place = order.index(level) if level in order else len(order)
        return place, -self.pull, str(self.path)


@checked
def write_index(folder: str | Path) -> Path:
    """Write index.html with links to all reports of a folder, and return its path.

    An index that pidgan wrote is replaced, another file of the name is not. Reports
    that are written below the folder later are added at once. `pidgan.validate`,
    `write_map_report` and all others that write a report.html do so.

    Args:
        folder: Folder with reports, which may lie up to three folders below it.

    Returns:
        The path of index.html.

    Raises:
        NtupleError: The folder does not exist, has no reports, or has an index.html
            that is not of pidgan.

    Example:
        >>> write_index("reports")  # doctest: +SKIP
        PosixPath('reports/index.html')
    """
    place = Path(folder)
    if not place.is_dir():
        found = "is a file" if place.exists() else "does not exist"
        raise NtupleError(f"{place} {found}, expected a folder with reports")
    index = place / INDEX_NAME
    if index.exists() and not is_index(index):
        raise NtupleError(f"{index} was not written by pidgan; it is not replaced")
    pages = find_pages(place)
    if not pages:
        raise NtupleError(
            f"{place} has no {HTML_NAME} up to {DEPTH} folders below; `pidgan validate "
            "... -o REPORT` writes one"
        )
    for _ in range(TRIES):
        with writing_file(index, overwrite=True) as temporary:
            temporary.write_text(_render(place, pages), encoding="utf-8")
        again = find_pages(place)
        if again == pages:
            break
        pages = again
    return index


def refresh_index(page: str | Path) -> None:
    """Bring up to date the indices of the folders above a report, where there are.

    The report is complete: an index that cannot be written is no more than a warning.
    """
    folder = Path(os.path.abspath(page)).parent
    for _ in range(DEPTH + 1):
        if is_index(folder / INDEX_NAME):
            try:
                write_index(folder)
            except PidganError as error:
                text = f"the index of reports is not up to date: {error}"
                warnings.warn(text, PidganWarning, stacklevel=4)
        folder = folder.parent


def is_index(path: Path) -> bool:
    """Return whether a file is an index that pidgan wrote."""
    return MARK in _head(path)


def find_pages(folder: Path) -> list[FoundPage]:
    """Return the reports of a folder and of those below it, the worst first."""
    found = []
    for path in _paths(folder, DEPTH):
        head = _head(path)
        if not head:  # deleted meanwhile
            continue
        match, title = _FACTS.search(head), _TITLE.search(head)
        facts: Any = {"title": html.unescape(title[1])} if title else {}
        if match:
            try:
                facts = json.loads(html.unescape(match[1]))
            except ValueError:
                facts = {"title": "unreadable"}
        try:
            time = path.stat().st_mtime
        except OSError:
            continue
        facts = facts if isinstance(facts, dict) else {}
        below = path.relative_to(folder)
        found.append(FoundPage(path=below, facts=facts, time=time))
    return sorted(found, key=lambda page: page.rank)


def _paths(folder: Path, depth: int) -> Iterator[Path]:
    """Reports of a folder, and of those below; none of hidden or temporary folders."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or is_temporary(path):
            continue
        if entry.name == HTML_NAME and entry.is_file():
            yield path
        elif depth and entry.is_dir(follow_symlinks=False):
            yield from _paths(path, depth - 1)


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _render(folder: Path, pages: list[FoundPage]) -> str:
    name = folder.resolve().name
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    count = "1 report" if len(pages) == 1 else f"{len(pages)} reports"
    files = _files(folder, pages)
    text = render_page(
        f"Reports in {name}",
        [
            Section(title="Reports", tables=[Table([_row(folder, p) for p in pages])]),
            _figures(pages),
            *([files] if files.links else []),
        ],
        lead=f"{count}, as of {now}; `pidgan report` lists them anew.",
    )
    return text.replace("</head>", f'{MARK} content="{len(pages)}">\n</head>', 1)


def _row(folder: Path, page: FoundPage) -> dict[str, Any]:
    """A line of the table of reports."""
    facts = page.facts
    when = datetime.fromtimestamp(page.time, UTC).strftime("%Y-%m-%d %H:%M")
    verdict = Cell(text=str(facts.get("text", "-")), level=str(facts.get("level", "")))
    row = {
        "report": Cell(text=page.title, href=_address(page.path)),
        "verdict": Cell(text=verdict.text, level=f"text {verdict.level}".strip()),
        "what was compared": Cell(text=str(facts.get("lead", "-")), level="text"),
        "written (UTC)": when,
        "numbers": "-",
    }
    numbers = page.path.parent / JSON_NAME
    if (folder / numbers).is_file():
        row["numbers"] = Cell(text=JSON_NAME, href=_address(numbers))
    return row


def _figures(pages: list[FoundPage]) -> Section:
    """The figures of all reports that are farthest above their floors."""
    found = []
    for page in pages:
        listed = page.facts.get("ranked")
        for item in listed if isinstance(listed, list) else []:
            if not (isinstance(item, list) and len(item) == 2):
                continue
            if isinstance(item[1], int | float):
                found.append((float(item[1]), str(item[0]), page))
    found.sort(key=lambda one: -one[0])
    rows = [
        {
            "figure": label,
            "pull": pull_cell(pull),
            "report": Cell(text=page.title, href=_address(page.path), level="text"),
        }
        for pull, label, page in found[:MOST_FIGURES]
    ]
    text = "A pull is the number of standard deviations by which a figure is worse "
    text += "than its floor." if rows else "than its floor. No report here has one."
    return Section(title="Worst figures", text=text, tables=[Table(rows)])


def _files(folder: Path, pages: list[FoundPage]) -> Section:
    """Links to bundles, maps and other files of the folder itself."""
    shown = {page.path for page in pages} | {Path(INDEX_NAME)}
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_file()
        and entry.name.endswith(OTHER_FILES)
        and not entry.name.startswith(".")
        and Path(entry.name) not in shown
    )
    links = [(name, _address(Path(name))) for name in names[:MOST_FILES]]
    left = len(names) - len(links)
    text = f"{left} more are not listed." if left else ""
    return Section(title="Other files of the folder", text=text, links=links)


def _address(path: Path) -> str:
    return quote(path.as_posix())
