"""Efficiency of PID selections on an analysis ntuple, with its uncertainty.

`pid_efficiency` reads ntuples with generated columns and gives the efficiency of cuts
on one or several tracks, in total or in bins; `combine_rows` does the same with arrays.
The formulas are in `pidgan.efficiency.results`, ratios in
`pidgan.efficiency.estimates`. `write_efficiency_columns` writes the efficiency of each
candidate instead.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pidgan.application.conditions import Conditions
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency.analysis_rows import Request, Rows, TrackRows, read_rows
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.estimates import Estimates
from pidgan.efficiency.quoted import Estimate, PidEfficiency
from pidgan.efficiency.results import (
    Outside,
    PidEfficiencies,
    combine,
    warn_of_invalid,
)
from pidgan.efficiency.selections import Selection, open_tracks, parse_selections

__all__ = [
    "Estimate",
    "Estimates",
    "PidEfficiencies",
    "PidEfficiency",
    "combine_rows",
    "pid_efficiency",
    "write_efficiency_columns",
]


def pid_efficiency(
    files: str | Path | Sequence[str | Path],
    *,
    track: str | Sequence[str],
    cuts: str | Sequence[str],
    map: EfficiencyMap | str | Path | Mapping[str, EfficiencyMap | str | Path],
    bins: Mapping[str, Sequence[float]] | None = None,
    species_from: str | None = None,
    weights: str | None = None,
    correction: bool = True,
    suffix: str = "",
    conditions: Conditions | None = None,
    outside: Outside = "grow",
    chunk: int = 200_000,
) -> PidEfficiencies:
    """Return the efficiency of PID selections on ntuples with generated columns.

    Rows in which a track has no targets are left out and counted. Rows outside the map
    keep their generated outcome; nothing is known of the error there, so that their
    efficiency e may lie anywhere in [0, 1]: the share of such rows times
    max(e, 1 - e) / sqrt 3 is added.

    Args:
        files: files, `FILE:TREE` or patterns.
        track: prefix of the track, or of several; the columns are
            `{track}_{target}{suffix}`.
        cuts: selections: cuts on target names, "RichDLLk > 0", required of every track,
            or on several tracks, "Kplus_RichDLLk > 5 & piminus_RichDLLk < 0". The map
            of each track must hold its part.
        map: the efficiency map, or its JSON file; by track, if they have different
            ones.
        bins: edges of analysis bins by branch, in the units of the file; a bin contains
            its lower edge. Rows outside are left out.
        species_from: NAME of the branches `{track}_NAME` with PDG ids; only rows where
            each track is of its map's species, particle or antiparticle, are used.
        weights: branch with weights, of any sign.
        correction: whether to add the correction; without it, the full correction is
            an uncertainty, which over-covers.
        suffix: suffix of the generated columns.
        conditions: Branches, units, scales and quantile maps of conditions, where they
            are not the default. Scales and maps are those that `apply` was given.
        outside: "refuse" raises where rows lie outside the map.
        chunk: rows read at a time; the result does not depend on it.

    Returns:
        A result per selection and bin, and their covariance.

    Raises:
        MapError: a map does not hold a cut or is for another species, or no row can
            be used.
        CutError: a cut is no cut, or does not split into one for each track.
        NtupleError: a file, tree or branch is missing, or a unit is wrong.
    """
    maps = open_tracks(track, map)
    selections = parse_selections(cuts, maps)
    request = Request(
        maps=maps,
        cuts={
            name: sorted({s.cuts[name] for s in selections if name in s.cuts})
            for name in maps
        },
        suffix=suffix,
        species_from=species_from,
        weights=weights,
        bins=bins or {},
        conditions=conditions or Conditions(),
        chunk=chunk,
    )
    rows = read_rows(files, request)
    warn_of_invalid(rows, list(maps))
    return combine(
        selections,
        rows,
        maps,
        bins=bins or {},
        correction=correction,
        outside=outside,
    )


def combine_rows(
    efficiency_map: EfficiencyMap,
    numbers: Sequence[int],
    *,
    place: IntArray,
    passed: BoolArray,
    weights: FloatArray,
    correction: bool = True,
    outside: Outside = "grow",
) -> PidEfficiencies:
    """Return the efficiencies of cuts on one track, from arrays.

    Args:
        efficiency_map: the map.
        numbers: which cuts of the map.
        place: (n,), bin of each row in the map, -1 outside.
        passed: (n_cuts, n), which rows pass the cuts.
        weights: (n,), of any sign.
        correction: as for `pid_efficiency`.
        outside: as for `pid_efficiency`.
    """
    flags = dict(zip(numbers, np.asarray(passed, dtype=np.bool_), strict=True))
    place = np.asarray(place, dtype=np.int64)
    rows = Rows(
        tracks={"track": TrackRows(place=place, passed=flags)},
        weights=np.asarray(weights, dtype=np.float64),
        cell=np.zeros(len(place), dtype=np.int64),
    )
    selections = [
        Selection(text=efficiency_map.cuts[k], cuts={"track": k}) for k in numbers
    ]
    return combine(
        selections,
        rows,
        {"track": efficiency_map},
        bins={},
        correction=correction,
        outside=outside,
    )
