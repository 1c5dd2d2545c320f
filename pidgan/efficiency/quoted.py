"""Efficiencies, and functions of them, as they are quoted: JSON, text and LaTeX."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PDG_TURN = 3.55
"""Uncertainties up to 354 get two digits, from 355 on one (Particle Data Group, Phys.
Rev. D 110 (2024) 030001, Sec. 5.3 of the introduction)."""

MAX_DECIMALS = 6

NEGLIGIBLE = 1e-3
"""Share of the total uncertainty below which a part may be shown as zero."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\^{}",
    "~": r"\~{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its uncertainties.

    Attributes:
        label: Name of the quantity.
        value: The value; NaN if there is none.
        stat: Statistical uncertainty of the analysis ntuples.
        syst: Systematic uncertainties by name.
        total: All uncertainties in quadrature.
    """

    label: str
    value: float
    stat: float
    syst: dict[str, float]
    total: float

    def content(self) -> dict[str, Any]:
        """Return everything for JSON, with null for NaN."""
        return dict(for_json(asdict(self)))


@dataclass(frozen=True, kw_only=True)
class PidEfficiency:
    """Efficiency of one selection on an analysis ntuple, or in one bin of it.

    Attributes:
        cut: The selection.
        value: Efficiency, corrected unless asked otherwise; never clipped; NaN in a
            bin that is flagged as empty or without a positive sum of weights.
        stat: Statistical uncertainty of the analysis ntuple.
        syst: Systematic uncertainties by name: "calibration", the variations of the
            map, "transfer"; "outside" if rows lie outside the map; "uncorrected"
            without the correction.
        total: All uncertainties in quadrature.
        generated: Efficiency of the generated targets.
        correction: Correction of the generated efficiency by the map, whether or not
            it was added.
        n_rows: Rows used.
        n_eff: Effective number of these rows, (sum w)^2 / sum w^2.
        outside_fraction: Share of the sum of weights outside the map.
        n_invalid: Rows of the ntuple left out, without targets.
        few_events: Whether a reference has few rows on one side of a cut.
        bin: Edges by branch, if the efficiency is that of an analysis bin.
        flags: Warnings, of "empty", "sum of weights not positive", "nothing passes",
            "everything passes", "few reference rows".
    """

    cut: str
    value: float
    stat: float
    syst: dict[str, float]
    total: float
    generated: float
    correction: float
    n_rows: int
    n_eff: float
    outside_fraction: float
    n_invalid: int
    few_events: bool
    bin: dict[str, tuple[float, float]]
    flags: tuple[str, ...]

    @property
    def label(self) -> str:
        """The selection and the bin."""
        return label_of(self.cut, self.bin)

    def content(self) -> dict[str, Any]:
        """Return everything for JSON, with null for NaN and infinity."""
        return dict(for_json(asdict(self)))


def label_of(cut: str, ranges: Mapping[str, tuple[float, float]]) -> str:
    """Name a selection in a bin with these edges by branch."""
    parts = [f"{low:g} <= {name} < {high:g}" for name, (low, high) in ranges.items()]
    return ", ".join([cut, *parts])


def for_json(content: Any) -> Any:
    """Return content for JSON, with None for NaN and infinity."""
    if isinstance(content, Mapping):
        return {key: for_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [for_json(value) for value in content]
    if isinstance(content, float):
        return float(content) if np.isfinite(content) else None
    return content


def efficiency_text(
    found: Sequence[PidEfficiency],
    bins: Mapping[str, Sequence[float]],
    n_outside_bins: int,
) -> str:
    """Return a table of efficiencies and uncertainties in per cent."""
    lines = _lines(found, "cut", unit="%", last=("generated",))
    one = found[0]
    worst = 100 * max(r.outside_fraction for r in found)
    if bins:
        n_cells = len({tuple(r.bin.items()) for r in found})
        n_rows = sum(r.n_rows for r in found[:n_cells])
        lines += [
            f"{n_rows} rows; outside the bins, left out: {n_outside_bins}",
            f"without targets, left out: {one.n_invalid}; outside the map: up to "
            f"{worst:.2f} % of a bin",
        ]
    else:
        lines.append(
            f"{one.n_rows} rows, effectively {one.n_eff:.0f}; without targets, left "
            f"out: {one.n_invalid}; outside the map: {worst:.2f} %"
        )
    few = list(dict.fromkeys(r.cut for r in found if r.few_events))
    if few:
        lines.append(f"few reference rows on one side of: {', '.join(few)}")
    for r in found:
        flags = [flag for flag in r.flags if flag != "few reference rows"]
        if flags:
            lines.append(f"{r.label}: {', '.join(flags)}")
    return "\n".join(lines)


def estimate_text(estimates: Iterable[Estimate]) -> str:
    """Return a table of ratios, sums or differences."""
    return "\n".join(_lines(list(estimates), "", unit=""))


def _lines(
    rows: Sequence[PidEfficiency | Estimate],
    title: str,
    *,
    unit: str,
    last: Sequence[str] = (),
) -> list[str]:
    """Head and rows of a table, in per cent if that is the unit."""
    names = list(dict.fromkeys(name for r in rows for name in r.syst))
    width = max(len(title), *(len(r.label) for r in rows))
    head = ["value", "stat", *names, "total", *last]
    lines = [f"{title:{width}}" + "".join(f"{name:>13}" for name in head)]
    for r in rows:
        numbers = [r.value, r.stat, *(r.syst[name] for name in names), r.total]
        numbers += [getattr(r, name) for name in last]
        cells = "".join(_cell(number, unit) for number in numbers)
        lines.append(f"{r.label:{width}}{cells}")
    return lines


def _cell(number: float, unit: str) -> str:
    """A number in a column."""
    if math.isnan(number):
        return f"{'-':>13}"
    return f"{100 * number:12.3f}%" if unit else f"{number:13.5f}"


def efficiency_latex(found: Iterable[PidEfficiency], bins: Iterable[str]) -> str:
    """Return a `tabular` of efficiencies: value +- statistical +- systematic."""
    head = ["Selection", *map(_escape, bins), r"Efficiency [\%]"]
    rows = []
    for r in found:
        ranges = [f"${_edge(low)}$--${_edge(high)}$" for low, high in r.bin.values()]
        number = latex_number(100 * r.value, 100 * r.stat, 100 * _systematic(r))
        rows.append([_escape(r.cut), *ranges, number])
    return _tabular(head, rows)


def _edge(edge: float) -> str:
    """Return the edge of a bin for LaTeX."""
    return f"{edge:g}".replace("inf", r"\infty")


def estimate_latex(estimates: Iterable[Estimate]) -> str:
    """Return a `tabular` of ratios, sums or differences."""
    rows = [
        [_escape(r.label), latex_number(r.value, r.stat, _systematic(r))]
        for r in estimates
    ]
    return _tabular(["Quantity", "Value"], rows)


def latex_number(value: float, stat: float, syst: float) -> str:
    """Return `$value \\pm stat \\pm syst$`, rounded as the Particle Data Group does.

    The total uncertainty decides the digits; there are more, up to two, if the smaller
    part would be shown as zero.
    """
    if math.isnan(value):
        return "--"
    total = math.hypot(stat, syst)
    decimals = 0
    if total > 0:
        exponent = math.floor(math.log10(total))
        digits = 1 if total / 10**exponent < PDG_TURN else 0
        decimals = min(max(0, digits - exponent), MAX_DECIMALS)
    parts = [part for part in (stat, syst) if part > NEGLIGIBLE * total]
    small = min(parts, default=0.0)
    for _ in range(2):
        if 0 < small < 0.5 * 10**-decimals:
            decimals += 1
    numbers = (f"{number:.{decimals}f}" for number in (value, stat, syst))
    return "$" + r" \pm ".join(numbers) + "$"


def _systematic(one: PidEfficiency | Estimate) -> float:
    return math.sqrt(sum(part**2 for part in one.syst.values()))


def _escape(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    text = text.replace("<=", "\u2264").replace(">=", "\u2265")
    return "".join(_LATEX.get(character, character) for character in text)


def _tabular(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that needs no package."""
    lines = [rf"\begin{{tabular}}{{{'l' * (len(head) - 1)}r}}", r"\hline"]
    lines += [f"{' & '.join(head)} \\\\", r"\hline"]
    lines += [f"{' & '.join(row)} \\\\" for row in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])
