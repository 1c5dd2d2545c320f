"""The report of a validation, and the page of every report.

A page is one HTML file, whose sections have text, tables and figures. Cells of a table
hold texts or numbers, which are all written in the same way.

A measured figure is a mapping with "value", "error", "floor", "floor_error" and
"n_eff". One that could not be measured has a "reason", and None for the rest.
"""

import base64
import contextlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.errors import PidganError
from pidgan.files.writing import refuse_existing, writing_files, writing_folder
from pidgan.notebook import Facts, shown
from pidgan.report.plots import Figure, png
from pidgan.report.plots.samples import plot_history

HTML_NAME, JSON_NAME = "report.html", "report.json"
TEMPLATE = "report/report.html"
TINY = 1e-4  # smaller numbers are written with a power of ten


@dataclass(frozen=True)
class Table:
    """Rows that map headings to texts, numbers or None, and a heading above them."""

    rows: Sequence[Mapping[str, Any]]
    title: str = ""

    def html(self) -> str:
        """Return the table as HTML, all texts escaped."""
        frame = pd.DataFrame(list(self.rows), dtype=object).map(text_of)
        with pd.option_context("display.max_colwidth", None):
            return frame.to_html(index=False, border=0)


@dataclass(frozen=True)
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

    The text says how to read tables and figures. Tables without rows are left out.
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
    beside: Mapping[str, str | bytes] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write report.html, which needs no other file, and return its path.

    A new directory appears complete or not at all. `lead` is the line below the title,
    `beside` has contents of further files by name, which repeat parts of the page.
    """
    target = Path(directory)
    refuse_existing(target, overwrite=overwrite)
    page = render_page(title, sections, lead=lead)
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


def render_page(title: str, sections: Iterable[Section], *, lead: str = "") -> str:
    """Return the text of a page that needs no other file."""
    try:
        from jinja2 import Environment
    except ImportError:
        raise PidganError(
            "a report needs jinja2, which comes with the extra 'train' of pidgan"
        ) from None
    template = (files("pidgan") / TEMPLATE).read_text(encoding="utf-8")
    empty = Environment(autoescape=True).from_string(template)
    return str(empty.render(title=title, lead=lead, sections=list(sections)))


def training_sections(history: Mapping[str, Sequence[float]]) -> list[Section]:
    """Return the section of the losses by name, against "step"; none without them."""
    if not history.get("step"):
        return []
    caption = "Losses against the number of generator steps."
    picture = Picture(plot_history(history), caption)
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
    digits = int(1 - np.floor(np.log10(error)))
    if digits > 7:
        return f"{value:.2e} ± {error:.1e}{after}"
    digits = max(digits, 0)
    text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return f"({text}) {unit}" if unit else text


Measured = dict[str, Any]


@shown
@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a validation, of tracks or of showers.

    Attributes:
        figures: Everything that was measured, nested by kind and name, in values that
            JSON knows; a missing number is None.
        title: Title of the page.
        lead: What was compared, in one line.
        main: Label and figure of each line of the summary.
        card: Figures that belong on the card of a bundle.
        data: What the figures were measured from: a `TrackData` or a `ShowerData`.
        draw: Function of figures and data that returns the sections of the page.
    """

    figures: dict[str, Any]
    title: str
    lead: str
    main: list[tuple[str, Measured]]
    card: dict[str, Any]
    data: Any
    draw: Callable[[Mapping[str, Any], Any], Iterable[Section]]

    def to_json(self) -> str:
        """Return all figures as JSON."""
        return json.dumps(plain(self.figures), indent=1, allow_nan=False)

    def headline(self) -> dict[str, Any]:
        """Return the figures that belong on the card of a bundle."""
        return self.card

    def summary(self) -> str:
        """Return the main figures as a table of a few lines."""
        lines = [
            f"{self.title}; {self.lead} Floor: {self.figures['floor']}",
            f"{'figure':44} {'value':>9} {'error':>8} {'floor':>9}",
        ]
        for label, figure in self.main:
            if figure["value"] is None:
                lines.append(f"{label:44} {'-':>9} ({_reason(figure)})")
                continue
            numbers = [figure["value"], figure["error"], figure["floor"]]
            texts = ["-" if x is None else f"{x:.4f}" for x in numbers]
            lines.append(f"{label:44} {texts[0]:>9} {texts[1]:>8} {texts[2]:>9}")
        return "\n".join(lines)

    @checked
    def save(
        self,
        directory: str | Path,
        *,
        extra_sections: Sequence[Section] = (),
        overwrite: bool = False,
    ) -> Path:
        """Write report.html, with everything inside, and report.json.

        Args:
            directory: Directory to write into; a new one appears complete or not at
                all.
            extra_sections: Further sections at the end of the page.
            overwrite: Whether the two files of an existing directory are replaced.

        Returns:
            The path of report.html.

        Raises:
            NtupleError: The directory exists and `overwrite` is not set.
        """
        return write_page(
            directory,
            self.title,
            [*self.draw(self.figures, self.data), *extra_sections],
            lead=self.lead,
            beside={JSON_NAME: self.to_json()},
            overwrite=overwrite,
        )

    def _facts(self) -> Facts:
        main = {label: _main_text(figure) for label, figure in self.main}
        first = "".join(f"; {name} {text}" for name, text in list(main.items())[:1])
        return Facts(f"{self.title}{first}", {"compared": self.lead, **main})


def _main_text(figure: Measured) -> str:
    """Return a figure with its error and its floor."""
    if figure["value"] is None:
        return f"- ({_reason(figure)})"
    text = with_error(figure["value"], figure["error"])
    floor = with_error(figure["floor"], figure.get("floor_error"))
    return f"{text} (floor {floor})"


def measured(
    value: float, error: float, floors: Sequence[float], n_eff: float
) -> Measured:
    """Return a figure with the mean of its floors and the error of that mean.

    A floor is the value for a sample of other real rows; `n_eff` is the effective
    number of rows behind the value.
    """
    spread = None
    if len(floors) > 1:
        spread = np.std(floors, ddof=1) / math.sqrt(len(floors))
    return {
        "value": value,
        "error": error,
        "floor": float(np.mean(floors)) if floors else None,
        "floor_error": spread,
        "n_eff": n_eff,
    }


def missing(reason: str) -> Measured:
    """Return a figure that could not be measured, and why."""
    names = ("value", "error", "floor", "floor_error", "n_eff")
    return {**dict.fromkeys(names), "reason": reason}


def plain(value: Any) -> Any:
    """Return nested figures with None for numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def figure_table(figures: Iterable[tuple[str, Measured]], *, title: str = "") -> Table:
    """Return the table of figures with errors and floors."""
    rows = [{"figure": name, **figure_cells(figure)} for name, figure in figures]
    return Table(rows=rows, title=title)


def figure_cells(figure: Measured, *, name: str = "value") -> dict[str, Any]:
    """Return the cells of a figure: value and error, floor, effective rows."""
    if figure["value"] is None:
        return {name: _reason(figure)}
    found: dict[str, Any] = {
        name: with_error(figure["value"], figure["error"]),
        "floor": with_error(figure["floor"], figure.get("floor_error")),
    }
    if figure.get("n_eff") is not None:
        found["effective rows"] = f"{figure['n_eff']:.0f}"
    return found


def _reason(figure: Measured) -> str:
    return str(figure.get("reason", "too few rows"))
