"""A measured number with its error, its floor and the rows behind it.

In report.json it is a mapping with "value", "error", "floor", "floor_error" and
"n_eff"; a number that could not be measured has a "reason" and None elsewhere.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.report.page import Table, with_error

Measured = dict[str, Any]


def measured(
    value: float, error: float, floors: Sequence[float], n_eff: float
) -> Measured:
    """Return a number with the mean of its floors and the error of that mean.

    Args:
        value: The number, for generated against real rows.
        error: Its uncertainty.
        floors: The same number for each sample of real rows against the real rows.
        n_eff: Effective rows behind the number.
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
    """Return a number that could not be measured, and why."""
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


def to_json(figures: Mapping[str, Any]) -> str:
    """Return figures as JSON."""
    return json.dumps(plain(figures), indent=1, allow_nan=False)


def table(figures: Iterable[tuple[str, Measured]], *, title: str = "") -> Table:
    """Return the table of named numbers, each with its error and floor."""
    return Table(
        rows=[{"figure": name, **cells(f)} for name, f in figures], title=title
    )


def cells(figure: Measured, *, name: str = "value") -> dict[str, Any]:
    """Return the cells of a number: value and error, floor, effective rows."""
    if figure["value"] is None:
        return {name: figure.get("reason", "too few rows")}
    found: dict[str, Any] = {
        name: with_error(figure["value"], figure["error"]),
        "floor": with_error(figure["floor"], figure.get("floor_error")),
    }
    if figure.get("n_eff") is not None:
        found["effective rows"] = f"{figure['n_eff']:.0f}"
    return found


def text(head: str, figures: Iterable[tuple[str, Measured]]) -> str:
    """Return named numbers as lines of text below a line `head`."""
    lines = [head, f"{'figure':44} {'value':>9} {'error':>8} {'floor':>9}"]
    for label, figure in figures:
        if figure["value"] is None:
            reason = figure.get("reason", "too few rows")
            lines.append(f"{label:44} {'-':>9} ({reason})")
            continue
        numbers = [figure["value"], figure["error"], figure["floor"]]
        texts = ["-" if x is None else f"{x:.4f}" for x in numbers]
        lines.append(f"{label:44} {texts[0]:>9} {texts[1]:>8} {texts[2]:>9}")
    return "\n".join(lines)
