"""Binned: efficiencies of cuts in bins as they are drawn, whatever they come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from pidgan.arrays import FloatArray
from pidgan.efficiency.binning import bin_shape
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.pid_efficiency import PidEfficiencies
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.efficiency.table import EfficiencyTable
from pidgan.errors import NtupleError

MEV = {"P", "PT", "PX", "PY", "PZ", "PE", "TRACK_P", "TRACK_PT"}
"""Names of conditions, after the prefix of a track, that are momenta."""

LEAST_MEV = 500.0
"""Largest edge of a momentum from which it is in MeV: no track has 500 GeV."""

# Columns of a table of efficiencies, by what they are: value, and ends or error.
_COLUMNS = {
    "real": (("real_efficiency", "real_lower", "real_upper"),),
    "generated": (("generated_efficiency", "generated_lower", "generated_upper"),),
    "efficiency": (("efficiency", "lower", "upper"),),
    "corrected": (("nominal", "error"), ("value", "total")),
    "made": (("generated",),),
}


@dataclass(frozen=True, kw_only=True)
class Values:
    """Values (n_cuts, ...) of one kind, with the ends of their intervals."""

    value: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def error(self) -> FloatArray:
        """Half width of the intervals."""
        return np.asarray((self.high - self.low) / 2)

    def of(self, *place: Any) -> "Values":
        """Return the values of a cut, or of some bins."""
        return Values(
            value=self.value[place], low=self.low[place], high=self.high[place]
        )


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Efficiencies of several cuts in the same bins.

    Attributes:
        edges: Edges by condition, in the order of the axes after the cuts.
        units: Unit of each condition.
        kinds: Values by kind: "real", "generated", "corrected" or "efficiency".
        difference: Generated minus real with its error, where both are there.
        species: Species of the rows, "" if it is not known.
    """

    cuts: tuple[str, ...]
    edges: dict[str, tuple[float, ...]]
    units: tuple[str, ...]
    kinds: dict[str, Values]
    difference: Values | None = None
    species: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Bins along each condition."""
        return bin_shape(self.edges)

    @staticmethod
    def fits(frame: pd.DataFrame) -> bool:
        """Return whether the columns of a table are those of efficiencies."""
        names = set(map(str, frame.columns))
        has_edges = all(f"{n[:-4]}_high" in names for n in names if n.endswith("_low"))
        return "cut" in names and has_edges and bool(_found(names))

    def only(self, cuts: Sequence[str]) -> "Binned":
        """Return the efficiencies of some of the cuts."""
        rows = [self.cuts.index(cut) for cut in cuts]
        difference = self.difference
        return replace(
            self,
            cuts=tuple(cuts),
            kinds={kind: values.of(rows) for kind, values in self.kinds.items()},
            difference=None if difference is None else difference.of(rows),
        )

    def slices(self) -> Iterator[tuple[tuple[int, ...], str]]:
        """Yield the places along all conditions but the first, and their texts."""
        others = list(self.edges.items())[1:]
        for place in np.ndindex(self.shape[1:]):
            texts = [
                range_text(name, unit, edges[i], edges[i + 1])
                for (name, edges), unit, i in zip(
                    others, self.units[1:], place, strict=True
                )
            ]
            yield place, ", ".join(texts)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, where: str) -> Self:
        """Make it of the rows of a table, one for each cut and bin."""
        names = [str(n)[:-4] for n in frame.columns if str(n).endswith("_low")]
        names = [
            n for n in names if f"{n}_high" in frame and n not in ("real", "generated")
        ]
        edges = {}
        for name in names:
            ends = np.concatenate([frame[f"{name}_low"], frame[f"{name}_high"]])
            edges[name] = tuple(map(float, np.unique(ends)))
        cuts = tuple(dict.fromkeys(frame["cut"].astype(str)))
        shape = (len(cuts), *bin_shape(edges))
        place = [np.array([cuts.index(cut) for cut in frame["cut"].astype(str)])]
        place += [np.searchsorted(edges[n], frame[f"{n}_low"]) for n in names]
        flat = np.ravel_multi_index(tuple(place), shape, mode="clip")
        if len(np.unique(flat)) < len(frame):
            raise NtupleError(f"{where}: two rows of the table are of one cut and bin")

        def array(column: str) -> FloatArray:
            found = np.full(shape, np.nan)
            found.flat[flat] = frame[column].to_numpy(np.float64)
            return found

        kinds = {}
        for kind, columns in _found(set(map(str, frame.columns))).items():
            value, *rest = map(array, columns)
            if not rest:
                ends_of = (value, value)
            elif len(rest) == 1:
                ends_of = (value - rest[0], value + rest[0])
            else:
                ends_of = (rest[0], rest[1])
            name = "generated" if kind == "made" else kind
            kinds[name] = Values(value=value, low=ends_of[0], high=ends_of[1])
        difference = None
        if {"difference", "difference_error"} <= set(map(str, frame.columns)):
            value, error = array("difference"), array("difference_error")
            difference = Values(value=value, low=value - error, high=value + error)
        units = tuple(unit_of(name, e) for name, e in edges.items())
        return cls(
            cuts=cuts, edges=edges, units=units, kinds=kinds, difference=difference
        )


def _found(names: set[str]) -> dict[str, tuple[str, ...]]:
    """Return the columns of each kind that a table has."""
    found = {}
    for kind, choices in _COLUMNS.items():
        for columns in choices:
            if set(columns) <= names:
                found[kind] = columns
                break
    if "generated" in found or "corrected" not in found:
        found.pop("made", None)
    return found


def unit_of(name: str, edges: Sequence[float]) -> str:
    """Return the unit of a condition of which only name and edges are known."""
    is_momentum = any(name == end or name.endswith(f"_{end}") for end in MEV)
    return "MeV" if is_momentum and edges[-1] > LEAST_MEV else "1"


def range_text(name: str, unit: str, low: float, high: float) -> str:
    """Return a bin as text, momenta in GeV."""
    scale, shown = (1e-3, " GeV") if unit == "MeV" else (1.0, "")
    return f"{name} {low * scale:.4g} to {high * scale:.4g}{shown}"


def binned(given: Any, where: str | Path = "the table") -> Binned:
    """Return efficiencies of any origin as they are drawn."""
    if isinstance(given, Binned):
        return given
    if isinstance(given, RealVsGenerated):
        return _of_record(given)
    if isinstance(given, EfficiencyTable):
        units = tuple(unit_of(name, e) for name, e in given.binning.items())
        return Binned(
            cuts=given.cuts,
            edges=dict(given.binning),
            units=units,
            kinds={"efficiency": _of_table(given)},
        )
    if isinstance(given, EfficiencyMap):
        return _of_map(given)
    if isinstance(given, PidEfficiencies):
        return Binned.from_frame(given.frame(), str(where))
    if isinstance(given, pd.DataFrame):
        return Binned.from_frame(given, str(where))
    return _of_histograms(given, str(where))


def _of_table(table: EfficiencyTable) -> Values:
    return Values(value=table.efficiency, low=table.lower, high=table.upper)


def _of_record(record: RealVsGenerated) -> Binned:
    value, error = record.difference, record.difference_error
    return Binned(
        cuts=record.cuts,
        edges=dict(record.binning),
        units=record.units,
        kinds={
            "real": _of_table(record.real),
            "generated": _of_table(record.generated),
        },
        difference=Values(value=value, low=value - error, high=value + error),
        species=record.species,
    )


def _of_map(given: EfficiencyMap) -> Binned:
    shape = (len(given.cuts), *given.shape)
    value, error, made = (
        a.reshape(shape) for a in (given.nominal, given.error, given.generated)
    )
    units = {v["name"]: v["unit"] for v in given.metadata["conditions"]}
    return Binned(
        cuts=given.cuts,
        edges=dict(given.binning),
        units=tuple(str(units[name]) for name in given.binning),
        kinds={
            "corrected": Values(value=value, low=value - error, high=value + error),
            "generated": Values(value=made, low=made, high=made),
        },
        species=str(given.metadata["species"]),
    )


def _of_histograms(found: Mapping[str, Any], where: str) -> Binned:
    """Read NAME_1, NAME_2 ... for each cut, as `save_tables` and maps write them."""
    names = {"efficiency": "efficiency", "real": "real", "generated": "generated",
             "nominal": "corrected"}  # fmt: skip
    kinds, edges, cuts = {}, {}, []
    for name, kind in names.items():
        numbered = (f"{name}_{i + 1}" for i in range(len(found)))
        mine = [found[key] for key in numbered if key in found]
        if not mine:
            continue
        edges = {n: tuple(map(float, e)) for n, e in mine[0].edges.items()}
        cuts = [one.title or f"cut {i + 1}" for i, one in enumerate(mine)]
        value = np.array([one.contents for one in mine], dtype=np.float64)
        error = np.sqrt(np.array([one.variances for one in mine], dtype=np.float64))
        kinds[kind] = Values(value=value, low=value - error, high=value + error)
    if not kinds:
        listed = ", ".join(list(found)[:4]) or "nothing"
        raise NtupleError(
            f"{where}: found {listed}; expected trees, or the histograms efficiency_1, "
            "real_1, generated_1 or nominal_1 of a table or map"
        )
    units = tuple(unit_of(name, e) for name, e in edges.items())
    return Binned(cuts=tuple(cuts), edges=edges, units=units, kinds=kinds)
