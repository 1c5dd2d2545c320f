"""Efficiencies, and functions of them, as they are quoted: JSON, text and LaTeX."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pidgan.notebook import Facts, shown

PDG_TURN = 3.55
"""Uncertainties up to 354 get two digits, from 355 on one (Particle Data Group, Phys.
Rev. D 110 (2024) 030001, Sec. 5.3 of the introduction)."""

MAX_DECIMALS = 6

SAID_ELSEWHERE = ("few reference rows", "not proven")
"""Flags of which a text says once what they mean."""

NEGLIGIBLE = 1e-3
"""Share of the total uncertainty below which a part may be shown as zero."""

_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "{}&%#_"}
    | {c: f"\\{c}{{}}" for c in "^~"}
    | {c: f"${c}$" for c in "<>|"}
    | {"\\": r"\textbackslash{}", "\u2264": r"$\leq$", "\u2265": r"$\geq$"}
)


@shown
@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its uncertainties.

    Attributes:
        value: The value of the quantity; NaN if there is none.
        stat: Statistical uncertainty of the analysis ntuples.
        syst: Systematic uncertainties by name.
        total: All uncertainties in quadrature.
    """

    label: str
    value: float
    stat: float
    syst: dict[str, float]
    total: float

    def _facts(self) -> Facts:
        parts = {name: f"{error:.5f}" for name, error in self.syst.items()}
        found = {"value": f"{self.value:.5f}", "stat": f"{self.stat:.5f}", **parts}
        return Facts(
            f"{self.label}: {self.value:.4f} +- {self.stat:.4f} stat +- "
            f"{_systematic(self):.4f} syst",
            {**found, "total": f"{self.total:.5f}"},
        )


@shown
@dataclass(frozen=True, kw_only=True)
class PidEfficiency:
    """Efficiency of one selection on an analysis ntuple, or in one bin of it.

    Attributes:
        value: Efficiency, corrected unless asked otherwise; never clipped; NaN in a
            bin that is flagged as empty or without a positive sum of weights.
        stat: Statistical uncertainty of the analysis ntuple.
        syst: Systematic uncertainties: "calibration", the variations of the map,
            "transfer", "outside" if rows lie outside the map, "uncorrected" without
            the correction.
        total: All uncertainties in quadrature.
        generated: Efficiency of the generated targets.
        correction: Correction of the generated efficiency by the map, whether or not
            it was added.
        n_events: Number of events of the rows used: of different keys, else of entries.
        n_eff: Effective number of events, (sum w)^2 / sum w^2, with w the sum of the
            weights of an event.
        outside_fraction: Share of the sum of weights outside the map.
        n_invalid: Rows of the ntuple left out, without targets.
        few_events: Whether a reference has few rows on one side of a cut.
        bin: Edges by branch, if the efficiency is that of an analysis bin.
        flags: Warnings, of "empty", "sum of weights not positive", "nothing passes",
            "everything passes", "below 0", "above 1", "few effective events", "few
            reference rows", "not proven".
    """

    cut: str
    value: float
    stat: float
    syst: dict[str, float]
    total: float
    generated: float
    correction: float
    n_rows: int
    n_events: int
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

    def _facts(self) -> Facts:
        parts = {name: f"{100 * error:.3f} %" for name, error in self.syst.items()}
        return Facts(
            f"{self.label}: {percent_text(self)}",
            {
                "generated": f"{100 * self.generated:.3f} %",
                "stat": f"{100 * self.stat:.3f} %",
                **parts,
                "total": f"{100 * self.total:.3f} %",
                "rows": f"{self.n_rows:,}, effectively {self.n_eff:,.0f}",
                "flags": ", ".join(self.flags) or "none",
            },
        )


def percent_text(one: PidEfficiency) -> str:
    """Return a value and its uncertainties on one line, in per cent."""
    return f"({_number_text(one, 100)}) %" if not math.isnan(one.value) else "no value"


def quote_lines(rows: Sequence[PidEfficiency | Estimate], *, unit: str) -> list[str]:
    """Return a line for each result: its value and uncertainties, rounded."""
    width = max(len(r.label) for r in rows)
    texts = [
        "no value"
        if math.isnan(r.value)
        else (f"({_number_text(r, 100)}) %" if unit else _number_text(r, 1))
        for r in rows
    ]
    return [f"{r.label:{width}}   {t}" for r, t in zip(rows, texts, strict=True)]


def _number_text(one: PidEfficiency | Estimate, factor: float) -> str:
    parts = (factor * x for x in (one.value, one.stat, _systematic(one)))
    value, stat, syst = rounded(*parts)
    return f"{value} +- {stat} stat +- {syst} syst"


def label_of(cut: str, ranges: Mapping[str, tuple[float, float]]) -> str:
    """Name a selection in a bin with these edges by branch."""
    parts = [f"{low:g} <= {name} < {high:g}" for name, (low, high) in ranges.items()]
    return ", ".join([cut, *parts])


def for_json(content: Any) -> Any:
    """Return records and numbers for JSON, with None for NaN and infinity."""
    if isinstance(content, Estimate | PidEfficiency):
        return for_json(asdict(content))
    if isinstance(content, Mapping):
        return {key: for_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [for_json(value) for value in content]
    if isinstance(content, np.ndarray):
        return for_json(content.tolist())
    if isinstance(content, float):
        return float(content) if np.isfinite(content) else None
    return content


def efficiency_text(
    found: Sequence[PidEfficiency],
    bins: Mapping[str, Sequence[float]],
    n_outside_bins: int,
    key: Sequence[str] = (),
) -> str:
    """Return a table of efficiencies and uncertainties in per cent."""
    lines = quote_lines(found, unit="%")
    lines += ["", *table_lines(found, "cut", unit="%", last=("generated",)), ""]
    one = found[0]
    worst = 100 * max(r.outside_fraction for r in found)
    n_cells = len({tuple(r.bin.items()) for r in found})
    n_rows = sum(r.n_rows for r in found[:n_cells])
    is_repeated = any(r.n_events < r.n_rows for r in found[:n_cells])
    by = f" by {','.join(key)}" if key else ""
    if bins:
        several = f"; rows of one event{by} count as one" if is_repeated else ""
        lines += [
            f"{n_rows} rows{several}; outside the bins, left out: {n_outside_bins}",
            f"without targets, left out: {one.n_invalid}; outside the map: up to "
            f"{worst:.2f} % of a bin",
        ]
    else:
        several = f" of {one.n_events} events{by}" if is_repeated else ""
        lines.append(
            f"{n_rows} rows{several}, effectively {one.n_eff:.0f}; without targets, "
            f"left out: {one.n_invalid}; outside the map: {worst:.2f} %"
        )
    if few := list(dict.fromkeys(r.cut for r in found if r.few_events)):
        lines.append(f"few reference rows on one side of: {', '.join(few)}")
    for r in found:
        if flags := [flag for flag in r.flags if flag not in SAID_ELSEWHERE]:
            lines.append(f"{r.label}: {', '.join(flags)}")
    return "\n".join(lines)


def table_lines(
    rows: Sequence[PidEfficiency | Estimate],
    title: str,
    *,
    unit: str,
    last: Sequence[str] = (),
) -> list[str]:
    """Return head and rows of a table, in per cent if that is the unit."""
    names = list(dict.fromkeys(name for r in rows for name in r.syst))
    width = max(len(title), *(len(r.label) for r in rows))
    head = ["value", "stat", *names, "total", *last]
    widths = [max(len(name) + 2, 13) for name in head]

    def line(label: str, cells: Sequence[str]) -> str:
        padded = [f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)]
        return f"{label:{width}}{''.join(padded)}"

    lines = [line(title, head)]
    for r in rows:
        numbers = [r.value, r.stat, *(r.syst[name] for name in names), r.total]
        numbers += [getattr(r, name) for name in last]
        scaled = [100 * x if unit else x for x in numbers]
        parts = [scaled[1], *scaled[2 : 2 + len(names)]]
        digits = decimals(scaled[2 + len(names)], parts)
        cells = ["-" if math.isnan(x) else f"{x:.{digits}f}{unit}" for x in scaled]
        lines.append(line(r.label, cells))
    return lines


def efficiency_latex(found: Iterable[PidEfficiency], bins: Iterable[str]) -> str:
    """Return a `tabular` of efficiencies: value +- statistical +- systematic."""
    head = ["Selection", *map(_escape, bins), r"Efficiency [\%]"]
    rows = []
    for r in found:
        ranges = [f"${low:g}$--${high:g}$" for low, high in r.bin.values()]
        ranges = [text.replace("inf", r"\infty") for text in ranges]
        number = latex_number(100 * r.value, 100 * r.stat, 100 * _systematic(r))
        rows.append([_escape(r.cut), *ranges, number])
    return _tabular(head, rows)


def estimate_latex(estimates: Iterable[Estimate]) -> str:
    """Return a `tabular` of ratios, sums or differences."""
    rows = [
        [_escape(r.label), latex_number(r.value, r.stat, _systematic(r))]
        for r in estimates
    ]
    return _tabular(["Quantity", "Value"], rows)


def decimals(total: float, parts: Iterable[float] = ()) -> int:
    """Return the digits after the point that a total uncertainty gives a number.

    They are those of the Particle Data Group: of the three highest digits of the
    uncertainty, 100 to 354 are rounded to two, 355 to 949 to one, and 950 to 999 to
    1000 with two. There are more, up to two, if the smallest part would be shown as
    zero.
    """
    found = 0
    if total > 0 and math.isfinite(total):
        exponent = math.floor(math.log10(total))
        digits = 1 if total / 10**exponent < PDG_TURN else 0
        found = min(max(0, digits - exponent), MAX_DECIMALS)
    small = min((part for part in parts if part > NEGLIGIBLE * total), default=0.0)
    for _ in range(2):
        if 0 < small < 0.5 * 10**-found:
            found += 1
    return found


def rounded(value: float, stat: float, syst: float) -> tuple[str, str, str]:
    """Return a value and its uncertainties with the digits of `decimals`."""
    digits = decimals(math.hypot(stat, syst), (stat, syst))
    first, second, third = (f"{x:.{digits}f}" for x in (value, stat, syst))
    return first, second, third


def latex_number(value: float, stat: float, syst: float) -> str:
    """Return `$value \\pm stat \\pm syst$`, rounded as the Particle Data Group does."""
    if math.isnan(value):
        return "--"
    return "$" + r" \pm ".join(rounded(value, stat, syst)) + "$"


def _systematic(one: PidEfficiency | Estimate) -> float:
    return math.sqrt(sum(part**2 for part in one.syst.values()))


def _escape(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return text.replace("<=", "\u2264").replace(">=", "\u2265").translate(_LATEX)


def _tabular(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that needs no package."""
    lines = [rf"\begin{{tabular}}{{{'l' * (len(head) - 1)}r}}", r"\hline"]
    lines += [f"{' & '.join(head)} \\\\", r"\hline"]
    lines += [f"{' & '.join(row)} \\\\" for row in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])
