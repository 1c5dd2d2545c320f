"""Efficiency of PID selections on an analysis ntuple, with its uncertainty.

`pid_efficiency` reads ntuples with generated columns and gives the efficiency of cuts
on one or several tracks, in total or in bins. Ratios are in
`pidgan.efficiency.estimates`; `write_efficiency_columns` writes the efficiency of each
candidate instead.

For rows i of an analysis bin, with weights w and W = sum w, and for the tracks t of a
selection, pass_t = 0 or 1, and the discrepancy d_t of the map in the row's bin b_t(i),

    value = sum_i w_i v_i / W,      v_i = prod_t v_ti,    v_ti = pass_ti + d_t(b_t(i)).

The responses of the tracks are independent at given conditions, in data as among the
generated draws; then E[v_i] is the product of the corrected efficiencies. Uncertainties
are propagated linearly:

    stat: cov_kl = sum_e z_ke z_le,  z_ke = sum_{i in e} w_i (v_ki - value_k) / W,
    calibration, and every variation of the map: by the gradient
    G_tb = sum_{i: b_t(i) = b} w_i prod_{s != t} v_si / W,
    transfer = sum_tb G_tb d_tb ([e_tb (1 - e_tb)] / [g_tb (1 - g_tb)] - 1),

with e in `stat` an event, of one row or of several (`pidgan.efficiency.events`), and
with g and e the generated efficiency in a bin for the rows of the map and of the
analysis. The transfer is the change of the correction if the error of the generator in
a bin were a constant shift of the logit of the efficiency: it matters where the
analysis fills a wide bin differently. Gradients of several tracks by the same map add
up, because their errors are the same error.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from pidgan.application.conditions import Conditions
from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.efficiency import quoted, sums
from pidgan.efficiency.analysis_rows import Request, Rows, check_places, read_rows
from pidgan.efficiency.binning import Binning, count_bins
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.efficiency_map import EfficiencyMap, Maps
from pidgan.efficiency.estimates import Estimates, map_key, stack, warn_of_relatives
from pidgan.efficiency.events import check_key
from pidgan.efficiency.quoted import Estimate, PidEfficiency
from pidgan.efficiency.selections import Selection, open_maps, parse_selections
from pidgan.efficiency.table import EMPTY, FILLED, NOT_POSITIVE
from pidgan.errors import MapError

__all__ = [
    "Estimate",
    "Estimates",
    "PidEfficiencies",
    "PidEfficiency",
    "combine",
    "pid_efficiency",
    "write_efficiency_columns",
]

Outside = Literal["grow", "refuse"]

MAX_ESTIMATES = 5000
"""Largest number of selections times bins; above it the covariance exceeds 200 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PidEfficiencies:
    """Efficiencies of several selections, in several bins, on the same rows.

    The first selection in all bins comes first. Ratios are those of `estimates`:
    `found.estimates[1] / found.estimates[0]`, or `found / other` for all.

    Attributes:
        results: Efficiencies, one per selection and bin.
        estimates: The same with all derivatives, for ratios and sums.
        binning: Edges of the analysis bins by branch; empty for one bin of all rows.
        n_outside_bins: Rows outside these bins, left out.
        key: Branches that identify an event, whose rows count as one in `stat`; empty
            if each entry does.
    """

    results: tuple[PidEfficiency, ...]
    estimates: Estimates
    binning: dict[str, tuple[float, ...]]
    n_outside_bins: int
    key: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[PidEfficiency]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, number: int) -> PidEfficiency:
        return self.results[number]

    def __truediv__(self, other: "PidEfficiencies") -> Estimates:
        return self.estimates / other.estimates

    @property
    def covariance(self) -> FloatArray:
        """Covariance (n, n) of the values, diagonal total^2; NaN without a value."""
        return self.estimates.covariance

    @property
    def covariances(self) -> dict[str, FloatArray]:
        """Parts of `covariance` by name: "stat", then those of `syst`."""
        return {"stat": self.estimates.stat, **self.estimates.systematics}

    def frame(self) -> pd.DataFrame:
        """Return one row per selection and bin: edges, value, every uncertainty."""
        rows = []
        for one in self.results:
            edges = {
                f"{name}_{end}": edge
                for name, pair in one.bin.items()
                for end, edge in zip(("low", "high"), pair, strict=True)
            }
            numbers = {"value": one.value, "stat": one.stat, **one.syst}
            numbers |= {"total": one.total, "generated": one.generated}
            counts = {n: getattr(one, n) for n in ("n_rows", "n_events", "n_eff")}
            flags = {"flags": ", ".join(one.flags)}
            rows.append({"cut": one.cut, **edges, **numbers, **counts, **flags})
        return pd.DataFrame(rows)

    def content(self) -> dict[str, Any]:
        """Return everything for JSON, with null for NaN and infinity."""
        return {
            "results": quoted.for_json(self.results),
            "bins": quoted.for_json(self.binning),
            "n_outside_bins": self.n_outside_bins,
            "key": list(self.key),
            **self.estimates.covariances(),
        }

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.content(), indent=2, allow_nan=False)

    def text(self) -> str:
        """Return a table: value and uncertainties in per cent."""
        return quoted.efficiency_text(
            self.results, self.binning, self.n_outside_bins, self.key
        )

    def latex(self) -> str:
        """Return a LaTeX table: value +- statistical +- systematic, in per cent."""
        return quoted.efficiency_latex(self.results, list(self.binning))


@checked
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
    key: Sequence[str] = (),
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
            bin contains its lower edge, the last one its upper edge too; rows outside
            are left out.
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
        key: Branches that identify an event, such as ("runNumber", "eventNumber").
            Rows of one event fluctuate together and count as one in the statistical
            uncertainty. By default the key that `apply` was given; without one, each
            entry is an event, with all its tracks.
        chunk: Number of rows read at a time; the result does not depend on it.

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
        key=check_key(key),
    )
    rows = read_rows(files, request)
    return combine(selections, rows, opened, correction=correction, outside=outside)


def combine(
    selections: Sequence[Selection],
    rows: Rows,
    maps: Maps,
    *,
    correction: bool = True,
    outside: Outside = "grow",
) -> PidEfficiencies:
    """Return the efficiencies of selections; `pid_efficiency` reads the rows."""
    if outside not in ("grow", "refuse"):
        raise ValueError(f"outside is {outside!r}, expected 'grow' or 'refuse'")
    edges = dict(rows.binning)
    n_cells = count_bins(edges)
    if len(selections) * n_cells > MAX_ESTIMATES:
        raise MapError(
            f"{len(selections)} selections in {n_cells} bins of the analysis: got "
            f"{len(selections) * n_cells} efficiencies, at most {MAX_ESTIMATES}"
        )
    inside = rows.cell >= 0
    n_outside_bins = int(np.count_nonzero(~inside))
    used = rows.take(np.flatnonzero(inside)) if n_outside_bins else rows
    check_places(used, maps, refuse=outside == "refuse")
    cells = sums.sum_cells(used)
    if not (cells.status == FILLED).any():
        where = " in the bins of the analysis" if edges else ""
        raise MapError(
            f"{len(used.weights)} rows{where} with a sum of weights of "
            f"{used.weights.sum():.6g}, expected a positive sum"
        )
    keys = {track: map_key(own) for track, own in maps.items()}
    warn_of_relatives({keys[track]: maps[track] for track in maps})
    integrate = partial(
        sums.integrate,
        cells=cells,
        squares=sums.sum_squares(used, maps, n_cells),
        correction=correction,
    )
    parts = [integrate(selection, used, maps, keys) for selection in selections]
    sample = sums.RowSample(
        rows=rows,
        selections=tuple(selections),
        maps=maps,
        correction=correction,
        means=np.array([p.corrected if correction else p.generated for p in parts]),
        sums=np.where(cells.status == FILLED, cells.sums, 0.0),
    )
    estimates = _estimates(parts, sample, keys, cells=cells)
    return PidEfficiencies(
        results=tuple(_describe(parts, estimates, cells, n_invalid=rows.n_invalid)),
        estimates=estimates,
        binning=edges,
        n_outside_bins=n_outside_bins,
        key=rows.key,
    )


def _estimates(
    parts: Sequence[sums.Part],
    sample: sums.RowSample,
    keys: Mapping[str, str],
    *,
    cells: sums.Cells,
) -> Estimates:
    """Return the values of all selections in all bins, with their derivatives."""
    by_key = {keys[track]: own for track, own in sample.maps.items()}
    joined = stack(
        Estimates(
            labels=tuple(quoted.label_of(part.selection.text, r) for r in cells.ranges),
            values=np.where(cells.status == FILLED, means, np.nan),
            gradients=part.gradients,
            shifts=part.shifts,
            maps=by_key,
        )
        for part, means in zip(parts, sample.means, strict=True)
    )
    gradients = {k: joined.gradients[k] for k in by_key if k in joined.gradients}
    ones = sparse.eye_array(len(joined), format="csr")
    return replace(joined, samples={sample: ones}, gradients=gradients)


def _describe(
    parts: Sequence[sums.Part],
    estimates: Estimates,
    cells: sums.Cells,
    *,
    n_invalid: int,
) -> Iterator[PidEfficiency]:
    """Yield the result of each selection in each bin."""
    places = [(part, cell) for part in parts for cell in range(len(cells.sums))]
    for (part, cell), one in zip(places, estimates, strict=True):
        status, n_passing = cells.status[cell], part.n_passing[cell]
        usable = status == FILLED
        generated = part.generated[cell] if usable else np.nan
        flags = {
            "empty": status == EMPTY,
            "sum of weights not positive": status == NOT_POSITIVE,
            "nothing passes": usable and n_passing == 0,
            "everything passes": usable and n_passing == cells.n_rows[cell],
            "few reference rows": part.few,
        }
        yield PidEfficiency(
            cut=part.selection.text,
            **{name: getattr(one, name) for name in ("value", "stat", "syst", "total")},
            generated=float(generated),
            correction=float(part.corrected[cell] - generated),
            n_rows=int(cells.n_rows[cell]),
            n_events=int(cells.n_events[cell]),
            n_eff=float(cells.n_eff[cell]),
            outside_fraction=float(part.outside_fraction[cell]),
            n_invalid=n_invalid,
            few_events=part.few,
            bin=cells.ranges[cell],
            flags=tuple(flag for flag, is_set in flags.items() if is_set),
        )
