"""Branches with the efficiency of each candidate, named as PIDCalib2 names them.

`{track}_PIDCalibEff` and `{track}_PIDCalibErr` are the corrected efficiency of the map
in the bin of the track, and its uncertainty; `PIDCalibEff` and `PIDCalibErr` are the
product over the tracks of the candidate, and its uncertainty. The names of several
selections go in between: `{track}_RichDLLk_gt_5_PIDCalibEff`.

PIDCalib2 adds the relative errors of the tracks in quadrature. Here errors that tracks
share, because they use the same map, are added with their correlation. Both numbers are
NaN where a track lies outside its map, or has no conditions.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.application.conditions import (
    UNIT_CHECK_ENTRIES,
    Conditions,
    check_numbers,
    check_units,
)
from pidgan.application.several_tracks import common_shape, lay_out, restore
from pidgan.arguments import checked
from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.analysis_rows import check_conditions, find_track_conditions
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.efficiency_map import EfficiencyMap, Maps
from pidgan.efficiency.estimates import map_key
from pidgan.efficiency.selections import Selection, open_maps, parse_selections
from pidgan.errors import CutError
from pidgan.files import tables
from pidgan.files.copying import copy_file
from pidgan.files.trees import Addition

_SIGNS = (">=", "<=", "==", "!=", ">", "<", "-", "+", "*", "/", "&&", "&", "||", "|")
_WORDS = (
    *("ge", "le", "eq", "ne", "gt", "lt"),
    *("minus", "plus", "times", "over", "and", "and", "or", "or"),
)


@checked
def write_efficiency_columns(
    maps: Mapping[str, EfficiencyMap | str | Path],
    files: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    cuts: str | Sequence[str] | None = None,
    conditions: Conditions | None = None,
    overwrite: bool = False,
    chunk: int = 200_000,
) -> tuple[Path, ...]:
    """Write friend trees with the efficiency of each candidate and its uncertainty.

    The branches are `{track}_PIDCalibEff`, `{track}_PIDCalibErr`, `PIDCalibEff` and
    `PIDCalibErr` (float64), with the name of the selection before `PIDCalib` if there
    are several. The trees have the names and entries of the input's trees. The input is
    never changed and needs no generated columns.

    Args:
        maps: Efficiency map, or its JSON file, by the prefix of the track.
        files: Files, `FILE:TREE` or patterns.
        output: File of the same format, or a directory for several files.
        cuts: One selection or several, as in `pid_efficiency`.
        conditions: Branches, units, scales and quantile maps of conditions, where they
            are not the default.
        overwrite: Whether to replace existing files.
        chunk: Number of entries read at a time.

    Returns:
        The files written.

    Raises:
        MapError: A map does not hold a cut.
        NtupleError: A file, tree or branch is missing, or a unit is wrong.
    """
    opened = open_maps(maps)
    selections = parse_selections(cuts, opened)
    conditions = conditions or Conditions()
    check_conditions(conditions, opened)
    by_path: dict[str, list[tables.Source]] = {}
    for source in tables.find_sources(files):
        by_path.setdefault(source.path, []).append(source)
    outputs = tables.find_outputs(list(by_path), Path(output))
    # Every tree is checked before the first file is written.
    additions = {
        outputs[path]: [_addition(s, opened, selections, conditions) for s in found]
        for path, found in by_path.items()
    }
    for file, found in additions.items():
        copy_file(found, file, keep=False, overwrite=overwrite, chunk=chunk)
    return tuple(additions)


def _selection_names(selections: Sequence[Selection]) -> list[str]:
    """Prefixes such as `RichDLLk_gt_5_`, of which one selection alone has none."""
    if len(selections) == 1:
        return [""]
    names = [f"{_name(selection.text)}_" for selection in selections]
    for name, selection in zip(names, selections, strict=True):
        if names.count(name) > 1:
            raise CutError(
                f"cut {selection.text!r} is given twice, as {name}PIDCalibEff"
            )
    return names


def _name(text: str) -> str:
    """Return a cut as part of a branch's name."""
    text = re.sub(r"(\d)\.(\d)", r"\1p\2", text)
    for sign, word in zip(_SIGNS, _WORDS, strict=True):
        text = text.replace(sign, f" {word} ")
    return "_".join(re.findall(r"\w+", text.replace("!", " not ")))


def _addition(
    source: tables.Source,
    maps: Maps,
    selections: Sequence[Selection],
    conditions: Conditions,
) -> Addition:
    """Return the new branches of a tree; raise if it does not hold what they need."""
    tree = tables.describe_tree(source)
    found = {
        track: find_track_conditions(
            track, own, source, tree, needed=list(own.binning), conditions=conditions
        )
        for track, own in maps.items()
    }
    tracks = ", ".join(maps)
    where = f"{source}, {tracks}"
    read = [name for own in found.values() for c in own for name in c.inputs]
    inputs = list(dict.fromkeys(read))
    check_numbers(inputs, tree, source, tracks)
    types = {name: tree.types[name] for name in inputs}
    shape = common_shape(types, own=inputs, where=where)
    if tree.entries:
        head = next(tables.iterate_entries(source, inputs, chunk=UNIT_CHECK_ENTRIES))
        rows, _ = lay_out(head, inputs, shape, where=where)
        for track, own in found.items():
            check_units(own, rows, source, track)
    kind = tables.BranchType(np.dtype(np.float64), shape)
    selected = {
        name: _Table(selection, maps)
        for name, selection in zip(
            _selection_names(selections), selections, strict=True
        )
    }
    fresh = [
        f"{owner}{name}{number}"
        for name, table in selected.items()
        for owner in table.owners
        for number in ("PIDCalibEff", "PIDCalibErr")
    ]
    nested = [name for name in inputs if types[name].shape == (None,)]

    def compute(first: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
        rows, counts = lay_out(arrays, inputs, shape, where=where)
        places = {
            track: bin_index(
                {c.variable.name: c.evaluate(rows) for c in own}, maps[track].binning
            )
            for track, own in found.items()
        }
        numbers = [
            values
            for table in selected.values()
            for tracks in table.owners.values()
            for values in table.product(tracks, places)
        ]
        columns = zip(fresh, numbers, strict=True)
        return {name: restore(values, shape, counts) for name, values in columns}

    return Addition(
        source=source,
        needed=tuple(inputs),
        types=dict.fromkeys(fresh, kind),
        compute=compute,
        like=dict.fromkeys(fresh, nested[0]) if nested else {},
    )


class _Table:
    """A selection in every bin (n_bins,) of the maps of its tracks."""

    def __init__(self, selection: Selection, maps: Maps) -> None:
        cuts = selection.cuts
        keys = {track: map_key(maps[track]) for track in cuts}
        self.owners = {**{f"{track}_": [track] for track in cuts}, "": list(cuts)}
        self.efficiency = {t: maps[t].nominal[cut] for t, cut in cuts.items()}
        self.covariance = {
            (t, s): maps[t].joint_covariance(cuts[t], cuts[s])
            for t, s in product(cuts, cuts)
            if keys[t] == keys[s]
        }
        # By map and variation, then by track.
        self.shifts: dict[tuple[str, str], dict[str, FloatArray]] = {}
        for track, cut in cuts.items():
            for name, values in maps[track].variations.items():
                own = self.shifts.setdefault((keys[track], name), {})
                own[track] = values[cut]

    def product(
        self, tracks: Sequence[str], places: Mapping[str, IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the product (n,) of the efficiencies of tracks, and its error."""
        factors = [self.efficiency[t][places[t]] for t in tracks]
        slopes = {
            t: np.prod([np.ones(len(f)), *factors[:i], *factors[i + 1 :]], axis=0)
            for i, (t, f) in enumerate(zip(tracks, factors, strict=True))
        }
        variance = np.zeros(len(factors[0]))
        for (t, s), covariance in self.covariance.items():
            if t in slopes and s in slopes:
                variance += slopes[t] * slopes[s] * covariance[places[t], places[s]]
        for shift in self.shifts.values():
            parts = [slopes[t] * shift[t][places[t]] for t in tracks if t in shift]
            variance += np.sum(parts, axis=0) ** 2
        inside = np.all([places[track] >= 0 for track in tracks], axis=0)
        value = np.where(inside, np.prod(factors, axis=0), np.nan)
        return value, np.where(inside, np.sqrt(variance), np.nan)
