"""Efficiencies, and functions of them, as they are quoted, with uncertainties."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray


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
        """Return everything for JSON; what has no value is null."""
        return {name: _without_nan(value) for name, value in asdict(self).items()}


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
        correction: What the map adds to the generated efficiency, whether or not it
            was added.
        n_rows: Rows used.
        n_eff: Effective number of these rows, (sum w)^2 / sum w^2.
        outside_fraction: Share of the sum of weights outside the map.
        n_invalid: Rows of the ntuple left out, without targets.
        few_events: Whether a reference has few rows on one side of a cut.
        bin: Edges by branch, if the efficiency is that of an analysis bin.
        flags: Warnings: "empty", "sum of weights not positive", "nothing passes",
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
        """Return everything for JSON; no value, and an edge at infinity, is null."""
        return {name: _without_nan(value) for name, value in asdict(self).items()}


def label_of(cut: str, ranges: Mapping[str, tuple[float, float]]) -> str:
    """Name a selection in a bin with these edges by branch."""
    parts = [f"{low:g} <= {name} < {high:g}" for name, (low, high) in ranges.items()]
    return ", ".join([cut, *parts])


def finite(value: float) -> float | None:
    """Return a number for JSON, None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def finite_matrix(matrix: FloatArray) -> list[list[float | None]]:
    """Return a matrix for JSON."""
    return [[finite(value) for value in row] for row in matrix.tolist()]


def _without_nan(content: Any) -> Any:
    """Content for JSON, with None for floats that JSON does not know."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return finite(content) if isinstance(content, float) else content
