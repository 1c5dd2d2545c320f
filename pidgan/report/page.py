"""The page of every report: sections with text, tables and figures in one HTML file.

Cells of a table hold texts or numbers; numbers are written here, all in the same way.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.errors import PidganError
from pidgan.files.writing import refuse_existing, writing_files, writing_folder
from pidgan.report.plots import Figure, png
from pidgan.report.plots.samples import plot_history

HTML_NAME, JSON_NAME = "report.html", "report.json"
TEMPLATE = "report/report.html"
TINY = 1e-4
"""Smaller numbers are written with a power of ten."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a section.

    Attributes:
        rows: One mapping for each row, from heading to text, number or None.
        title: Heading above the table.
    """

    rows: Sequence[Mapping[str, Any]]
    title: str = ""

    def html(self) -> str:
        """Return the table as HTML, all texts escaped."""
        frame = pd.DataFrame(list(self.rows), dtype=object).map(text_of)
        with pd.option_context("display.max_colwidth", None):
            return frame.to_html(index=False, border=0)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with the caption below it."""

    figure: Figure
    caption: str

    def content(self) -> str:
        """Return the figure as a PNG file in base64."""
        return base64.b64encode(png(self.figure)).decode()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a line in the table of contents.

    Attributes:
        title: Heading, and text of its line in the table of contents.
        text: What a reader has to know to read the tables and figures.
        tables: Tables; those without rows are left out.
        pictures: Figures with captions.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def write_page(
    directory: str | Path,
    title: str,
    sections: Iterable[Section],
    *,
    lead: str = "",
    beside: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write report.html, which needs no other file, into a directory.

    Args:
        directory: Directory to write into; a new one appears complete or not at all.
        title: Heading of the page.
        sections: Parts of the page, in order.
        lead: First line below the heading.
        beside: Texts of further files of the directory, by name.
        overwrite: Whether files of a directory that exists are replaced.

    Returns:
        The path of report.html.

    Raises:
        NtupleError: The directory exists and `overwrite` is not set, or it is a file.
    """
    target = Path(directory)
    refuse_existing(target, overwrite=overwrite)
    texts = {HTML_NAME: render_page(title, sections, lead=lead), **(beside or {})}
    if target.exists():
        paths = [target / name for name in texts]
        with writing_files(paths, overwrite=True) as temporary:
            for path, text in zip(temporary, texts.values(), strict=True):
                path.write_text(text, encoding="utf-8")
        return target / HTML_NAME
    with writing_folder(target) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    return target / HTML_NAME


def render_page(title: str, sections: Iterable[Section], *, lead: str = "") -> str:
    """Return the text of a page that needs no other file."""
    try:
        from jinja2 import Environment
    except ImportError:
        raise PidganError(
            "a report needs jinja2, which comes with the extra 'train' of pidgan"
        ) from None
    template = (files("pidgan") / TEMPLATE).read_text(encoding="utf-8")
    page: str = (
        Environment(autoescape=True)
        .from_string(template)
        .render(title=title, lead=lead, sections=list(sections))
    )
    return page


def training_sections(history: Mapping[str, Sequence[float]]) -> list[Section]:
    """Return the section of the losses by name, against "step"; none without them."""
    if not history.get("step"):
        return []
    caption = "Losses against the number of generator steps."
    picture = Picture(figure=plot_history(history), caption=caption)
    return [Section(title="Training", pictures=[picture])]


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
    """Return a number with its error, rounded to two digits of the error.

    Args:
        value: The number, None or NaN where it is missing.
        error: Its uncertainty, None or NaN where it is not known.
        unit: Text after the number, such as "%", which scales both by 100.

    Example:
        >>> with_error(0.123456, 0.0123)
        '0.123 ± 0.012'
    """
    if value is None or not np.isfinite(value):
        return "-"
    scale = 100.0 if unit == "%" else 1.0
    after = f" {unit}" if unit else ""
    value = scale * value
    if error is None or not np.isfinite(error):
        return text_of(value) + after
    error = scale * error
    if error <= 0:
        return f"{text_of(value)} ± 0{after}"
    digits = int(1 - np.floor(np.log10(error)))
    if digits > 7:
        return f"{value:.2e} ± {error:.1e}{after}"
    digits = max(digits, 0)
    text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return f"({text}) {unit}" if unit else text
