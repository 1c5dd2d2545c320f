"""The page of every report: one HTML file that needs no other file and no network.

A page has sections, which may have parts, and each of them has text, tables, figures
and links. Sections after the first screens are folded; a click, a link to them and
printing open them, with or without JavaScript. The head of the page says in a line of
JSON what it is and how its verdict reads, for the index of a folder of pages.
"""

import base64
import contextlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.efficiency.quoted import decimals
from pidgan.errors import PidganError
from pidgan.files.writing import refuse_existing, writing_files, writing_folder
from pidgan.report.plots import Figure, small_png
from pidgan.report.verdict import Verdict, level_of

HTML_NAME = "report.html"
TEMPLATE = "report/report.html"
TINY = 1e-4  # smaller numbers are written with a power of ten
SMALL_ERROR = 1e-5  # so are numbers with smaller errors

# Lengths in CSS pixels on screens of 800 to 1,300, where two figures stand in a line.
OPEN_HEIGHT = 4600  # of everything that is open at first
COLUMN, PAGE, LINE, TABLE_LINE, HEADING, CHARACTERS = 490, 990, 24, 31, 64, 85
WIDE_INCHES, FULL_INCHES = 8.0, 11.0  # of a figure of two columns, and of all


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A text of a table with a colour ("good", "fair" or "bad") or a link.

    The level "text", which may stand before a colour, is that of a text that wraps.
    """

    text: str
    level: str = ""
    href: str = ""


@dataclass(frozen=True)
class Table:
    """Rows that map headings to texts, numbers or None, and a heading above them."""

    rows: Sequence[Mapping[str, Any]]
    title: str = ""

    @property
    def headings(self) -> list[str]:
        """Headings of the columns that are not empty; a row may lack some."""
        return list(
            dict.fromkeys(
                n for row in self.rows for n, cell in row.items() if cell != ""
            )
        )

    @property
    def classes(self) -> list[str]:
        """Class of each column: "text" where the first cell is a text that wraps."""
        return [cell.level.split(" ")[0] for cell in self.lines[0]]

    @property
    def lines(self) -> list[list[Cell]]:
        """Cells of each row."""
        found = [[row.get(name) for name in self.headings] for row in self.rows]
        return [[_cell(value) for value in line] for line in found]


@dataclass(frozen=True)
class Picture:
    """A figure, or what draws it when it is needed, with the caption below it.

    The name is that of `report.figures`.
    """

    drawn: Figure | Callable[[], Figure]
    caption: str
    name: str = ""

    @cached_property
    def figure(self) -> Figure:
        """The figure, drawn once."""
        return self.drawn if isinstance(self.drawn, Figure) else self.drawn()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in CSS pixels."""
        width, height = self.figure.get_size_inches()
        return round(100 * width), round(100 * height)

    @property
    def width(self) -> str:
        """How many columns the figure needs: "" for one, "wide" or "full"."""
        inches = float(self.figure.get_size_inches()[0])
        return "full" if inches > FULL_INCHES else "wide" * (inches > WIDE_INCHES)

    def content(self) -> str:
        """Return the figure as a PNG file in base64."""
        return base64.b64encode(small_png(self.figure)).decode()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a line in the table of contents.

    The text says how to read tables and figures. Tables without rows are left out.
    `links` are texts and addresses, relative to the page. A section that is `folded` is
    so even if there is room.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    parts: Sequence["Section"] = ()
    links: Sequence[tuple[str, str]] = ()
    folded: bool = False

    @property
    def height(self) -> int:
        """Height in CSS pixels, without heading and parts."""
        height = _text_height(self.text) + LINE * len(self.links)
        for table in self.tables:
            if table.rows:
                height += TABLE_LINE * (len(table.rows) + 1) + HEADING
        narrow = []
        for picture in self.pictures:
            (width, tall), columns = picture.size, 2 if picture.width else 1
            own = tall * min(1.0, (PAGE if picture.width else COLUMN) / width)
            own += LINE + _text_height(picture.caption, CHARACTERS * columns // 2)
            if picture.width:
                height += round(own)
            else:
                narrow.append(round(own))
        return height + sum(max(narrow[i : i + 2]) for i in range(0, len(narrow), 2))


@dataclass(frozen=True, kw_only=True)
class _Folded:
    """A section with its place on the page, and whether it is open at first."""

    section: Section
    key: str
    is_open: bool
    parts: Sequence["_Folded"]


def write_page(
    directory: str | Path,
    title: str,
    sections: Iterable[Section],
    *,
    lead: str = "",
    verdict: Verdict | None = None,
    beside: Mapping[str, str | bytes] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write report.html, which needs no other file, and return its path.

    A new directory appears complete or not at all. `lead` is the line below the title,
    `beside` has contents of further files by name, which repeat parts of the page.
    """
    target = Path(directory)
    refuse_existing(target, overwrite=overwrite)
    page = render_page(title, sections, lead=lead, verdict=verdict)
    contents: dict[str, str | bytes] = {HTML_NAME: page, **(beside or {})}
    with contextlib.ExitStack() as stack:
        if target.exists():
            places = [target / name for name in contents]
            paths = stack.enter_context(writing_files(places, overwrite=True))
        else:
            folder = stack.enter_context(writing_folder(target))
            paths = [folder / name for name in contents]
        for path, content in zip(paths, contents.values(), strict=True):
            data = content if isinstance(content, bytes) else content.encode()
            path.write_bytes(data)
    return target / HTML_NAME


def render_page(
    title: str,
    sections: Iterable[Section],
    *,
    lead: str = "",
    verdict: Verdict | None = None,
) -> str:
    """Return the text of a page that needs no other file."""
    try:
        from jinja2 import Environment
    except ImportError:
        raise PidganError(
            "a report needs jinja2, which comes with the extra 'train' of pidgan"
        ) from None
    template = (files("pidgan") / TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    facts = {"title": title, "lead": lead} | (verdict.facts() if verdict else {})
    return str(
        environment.from_string(template).render(
            title=title,
            lead=lead,
            verdict=verdict,
            facts=json.dumps(facts),
            sections=_fold(list(sections)),
        )
    )


def _fold(sections: Sequence[Section]) -> list[_Folded]:
    """Open sections in their order as long as they fit, the first one always."""
    left = OPEN_HEIGHT - HEADING * len(sections)
    numbers = iter(range(1, 10**6))

    def visit(section: Section, *, within: bool, first: bool = False) -> _Folded:
        nonlocal left
        key = f"section-{next(numbers)}"
        needs = section.height + HEADING * len(section.parts)
        is_open = within and (first or needs <= left) and not section.folded
        if is_open:
            left -= needs
        parts = [visit(part, within=is_open) for part in section.parts]
        return _Folded(section=section, key=key, is_open=is_open, parts=parts)

    return [visit(s, within=True, first=i == 0) for i, s in enumerate(sections)]


def _text_height(text: str, characters: int = CHARACTERS) -> int:
    return LINE * (-(-len(text) // characters)) + LINE if text else 0


def _cell(value: Any) -> Cell:
    return value if isinstance(value, Cell) else Cell(text=text_of(value))


def pull_text(pull: float | None) -> str:
    """Return a pull with one digit after the point and its sign."""
    if pull is None or not math.isfinite(pull):
        return "-"
    return f"{round(pull, 1) + 0.0:+.1f}"  # no "-0.0"


def pull_cell(pull: float | None) -> Cell:
    """Return the cell of a pull, with its colour."""
    return Cell(text=pull_text(pull), level=level_of(pull))


def text_of(value: Any) -> str:
    """Return the text of a cell; a missing number is a dash."""
    if isinstance(value, str):
        return value
    if value is None or not np.isfinite(value):
        return "-"
    if isinstance(value, int | np.integer):
        return f"{value:d}"
    return f"{value:.2e}" if 0 < abs(value) < TINY else f"{value:.4f}"


def with_error(value: float | None, error: float | None, *, unit: str = "") -> str:
    """Return a number with its error, rounded as the Particle Data Group does.

    `decimals` of `pidgan.efficiency.quoted` has the rule, for texts of commands too.
    None and NaN are missing numbers. The unit "%" scales both by 100.

    Example:
        >>> with_error(0.123456, 0.0123)
        '0.123 ± 0.012'
    """
    if value is None or not np.isfinite(value):
        return "-"
    scale = 100.0 if unit == "%" else 1.0
    value, after = scale * value, f" {unit}" if unit else ""
    if error is None or not np.isfinite(error) or error <= 0:
        return text_of(value) + after
    error = scale * error
    if error < SMALL_ERROR:
        return f"{value:.2e} ± {error:.1e}{after}"
    digits = decimals(error)
    text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return f"({text}) {unit}" if unit else text
