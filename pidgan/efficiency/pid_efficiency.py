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
from pidgan.efficiency.binning import Binning
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
from pidgan.efficiency.selections import Selection, open_maps, parse_selections

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
    maps: Mapping[str, EfficiencyMap | str | Path],
    files: str | Path | Sequence[str | Path],
    *,
    cuts: str | Sequence[str] | None = None,
    binning: Binning | None = None,
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
        maps: Efficiency map, or its JSON file, by the prefix of the track; the columns
            are `{track}_{target}{suffix}`.
        files: Files, `FILE:TREE` or patterns.
        cuts: One selection or several. A cut on target names, "RichDLLk > 0", is
            required of every track; a cut may also name several tracks,
            "Kplus_RichDLLk > 5 & piminus_RichDLLk < 0". The map of each track must
            hold its part. None stands for all cuts of the maps.
        binning: Bins of the analysis: by branch, edges in the units of the file, or a
            number of bins of equal population, or the name of a binning that ships. A
            bin contains its lower edge; rows outside are left out.
        species_from: NAME of the branches `{track}_NAME` with PDG ids; only rows where
            each track is of its map's species, particle or antiparticle, are used.
        weights: Branch with weights, of any sign.
        correction: Whether to add the correction. Without it, the full correction is
            an uncertainty, which over-covers.
        suffix: Suffix of the generated columns.
        conditions: Branches, units, scales and quantile maps of conditions, where they
            are not the default. Scales and maps are those that `apply` was given.
        outside: Treatment of rows outside the map: "grow" adds an uncertainty,
            "refuse" raises.
        chunk: Rows read at a time; the result does not depend on it.

    Returns:
        A result per selection and bin, and their covariance.

    Raises:
        MapError: A map does not hold a cut or is for another species, or no row can
            be used.
        CutError: A cut is no cut, or does not split into one for each track.
        NtupleError: A file, tree or branch is missing, or a unit is wrong.
    """
    opened = open_maps(maps)
    selections = parse_selections(cuts, opened)
    request = Request(
        maps=opened,
        cuts={
            name: sorted({s.cuts[name] for s in selections if name in s.cuts})
            for name in opened
        },
        suffix=suffix,
        species_from=species_from,
        weights=weights,
        binning=binning or {},
        conditions=conditions or Conditions(),
        chunk=chunk,
    )
    rows = read_rows(files, request)
    warn_of_invalid(rows, list(opened))
    return combine(selections, rows, opened, correction=correction, outside=outside)


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
        efficiency_map: The map.
        numbers: Numbers of the cuts in the map.
        place: (n,) bin of each row in the map, -1 outside.
        passed: (n_cuts, n) whether each row passes the cuts.
        weights: (n,) weights of any sign.
        correction: Whether to add the correction, as in `pid_efficiency`.
        outside: Treatment of rows outside the map, as in `pid_efficiency`.
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
        correction=correction,
        outside=outside,
    )
