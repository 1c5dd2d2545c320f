"""The report of a validation: its figures, and the tables that show them.

A measured figure is a mapping with "value", "error", "floor", "floor_error" and
"n_eff". One that could not be measured has a "reason", and None for the rest. A
"pull" says how many standard deviations it is worse than its floor; where there is
none, value and floor with their errors give it.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.notebook import Facts, shown
from pidgan.report.index_page import refresh_index
from pidgan.report.page import (
    Picture,
    Section,
    Table,
    pull_cell,
    pull_text,
    with_error,
    write_page,
)
from pidgan.report.pictures import Pictures
from pidgan.report.plots import Figure
from pidgan.report.plots.samples import plot_history
from pidgan.report.verdict import Verdict, judge

JSON_NAME = "report.json"


def training_sections(history: Mapping[str, Sequence[float]]) -> list[Section]:
    """Return the section of the losses by name, against "step"; none without them."""
    if not history.get("step"):
        return []
    caption = "Losses against the number of generator steps."
    picture = Picture(partial(plot_history, history), caption, name="losses")
    return [Section(title="Training", pictures=[picture])]


Measured = dict[str, Any]


@shown
@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a validation, of tracks or of showers.

    Attributes:
        numbers: Everything that was measured, nested by kind and name, in values that
            JSON knows; a missing number is None.
        title: Title of the page.
        lead: What was compared, in one line.
        main: Label and figure of each line of the summary.
        further: Label and figure of what else the verdict looks at.
        remark: Sentence that ends the verdict.
        card: Figures that belong on the card of a bundle.
        data: What the figures were measured from: a `TrackData` or a `ShowerData`.
        draw: Function of numbers and data that returns the sections of the page.

    Example:
        >>> report = pidgan.validate(model, dataset)  # doctest: +SKIP
        >>> report.figures["RichDLLk"]  # doctest: +SKIP
        >>> report.numbers["targets"]["RichDLLk"]["ks"]["value"]  # doctest: +SKIP
    """

    numbers: dict[str, Any]
    title: str
    lead: str
    main: list[tuple[str, Measured]]
    card: dict[str, Any]
    data: Any
    draw: Callable[[Mapping[str, Any], Any], Iterable[Section]]
    further: Sequence[tuple[str, Measured]] = ()
    remark: str = ""

    @cached_property
    def figures(self) -> Pictures:
        """The pictures of the page by name: a target has its own, "RichDLLk"."""
        sections = [*self.draw(self.numbers, self.data)]
        return Pictures(
            {one.name: partial(_figure_of, one) for one in _pictures_of(sections)},
            elsewhere="; `report.numbers` has what was measured",
        )

    def plot(self) -> Pictures:
        """Return the pictures of the page by name, as `figures` has them."""
        return self.figures

    @property
    def verdict(self) -> Verdict | None:
        """How far all figures together lie above their floors; None without floors."""
        looked = [*self.main, *self.further]
        pulls = [(label, pull_of(figure)) for label, figure in looked]
        return judge(pulls, more=self.remark)

    def to_json(self) -> str:
        """Return all figures as JSON."""
        return json.dumps(plain(self.numbers), indent=1, allow_nan=False)

    def headline(self) -> dict[str, Any]:
        """Return the figures that belong on the card of a bundle."""
        return self.card

    def summary(self) -> str:
        """Return the main figures as a table of a few lines."""
        width = max([44, *(len(label) for label, _ in self.main)])
        lines = [
            f"{self.title}; {self.lead} Floor: {self.numbers['floor']}",
            f"{'figure':{width}} {'value':>9} {'error':>8} {'floor':>9} {'pull':>6}",
        ]
        for label, figure in self.main:
            if figure["value"] is None:
                lines.append(f"{label:{width}} {'-':>9} ({_reason(figure)})")
                continue
            numbers = [figure["value"], figure["error"], figure["floor"]]
            texts = ["-" if x is None else f"{x:.4f}" for x in numbers]
            pull = pull_text(pull_of(figure))
            lines.append(
                f"{label:{width}} {texts[0]:>9} {texts[1]:>8} {texts[2]:>9} {pull:>6}"
            )
        ends = [self.verdict.text] if self.verdict else []
        ends += [self.remark] if self.numbers.get("flags") else []
        return "\n".join([*lines, *ends])

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
        path = write_page(
            directory,
            self.title,
            [*self.draw(self.numbers, self.data), *extra_sections],
            lead=self.lead,
            verdict=self.verdict,
            beside={JSON_NAME: self.to_json()},
            overwrite=overwrite,
        )
        refresh_index(path)
        return path

    def _facts(self) -> Facts:
        main = {label: _main_text(figure) for label, figure in self.main}
        first = "".join(f"; {name} {text}" for name, text in list(main.items())[:1])
        return Facts(f"{self.title}{first}", {"compared": self.lead, **main})


def _pictures_of(sections: Iterable[Section]) -> Iterator[Picture]:
    """Yield the pictures of sections and of their parts that have a name."""
    for section in sections:
        yield from (one for one in section.pictures if one.name)
        yield from _pictures_of(section.parts)


def _figure_of(picture: Picture) -> Figure:
    return picture.figure


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


def pull_of(figure: Measured) -> float | None:
    """Return how many standard deviations a figure is worse than its floor."""
    if "pull" in figure:
        return None if figure["pull"] is None else float(figure["pull"])
    value, floor = figure["value"], figure["floor"]
    if value is None or floor is None or figure.get("floor_error") is None:
        return None
    error = math.hypot(figure["error"] or 0.0, figure["floor_error"])
    return float((value - floor) / error) if error > 0 else None


def figure_table(
    figures: Iterable[tuple[str, Measured]], *, title: str = "", rows: bool = True
) -> Table:
    """Return the table of figures with errors, floors, pulls, and effective rows."""
    lines = [{"figure": name, **figure_cells(figure)} for name, figure in figures]
    for line in lines if not rows else ():
        line.pop("effective rows", None)
    return Table(rows=lines, title=title)


def figure_cells(figure: Measured, *, name: str = "value") -> dict[str, Any]:
    """Return the cells of a figure: value and error, floor, effective rows."""
    if figure["value"] is None:
        return {name: _reason(figure)}
    found: dict[str, Any] = {
        name: with_error(figure["value"], figure["error"]),
        "floor": with_error(figure["floor"], figure.get("floor_error")),
        "pull": pull_cell(pull_of(figure)),
    }
    if figure.get("n_eff") is not None:
        found["effective rows"] = f"{figure['n_eff']:.0f}"
    return found


def _reason(figure: Measured) -> str:
    return str(figure.get("reason", "too few rows"))
