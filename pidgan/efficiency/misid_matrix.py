"""MisID matrix: how often tracks of each species pass the selection of each hypothesis.

Row i is a track of the ntuple, and so a species; column j a selection. Its entries are
efficiencies and misIDs with one covariance: rows of one ntuple share its events, and
cuts of one map its calibration sample.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.efficiency import quoted
from pidgan.efficiency.estimates import Estimates, stack
from pidgan.efficiency.period_maps import check_periods, check_shares, suffix_of
from pidgan.efficiency.periods import mean_estimates
from pidgan.efficiency.pid_efficiency import pid_efficiency
from pidgan.efficiency.selections import open_maps
from pidgan.efficiency.track_maps import GivenMap, Maps, as_track_maps
from pidgan.errors import MapError
from pidgan.files.frames import Rows
from pidgan.files.writing import refuse_existing, writing_file, writing_files
from pidgan.notebook import Facts, shown


@shown
@dataclass(frozen=True, kw_only=True, eq=False)
class MisIDMatrix:
    """Probabilities of species to pass selections, with their covariance.

    Attributes:
        species: True species of each row.
        tracks: Track of the ntuple that each row was measured with.
        selections: Name of each column.
        cuts: Cut of each column.
        estimates: The entries, row by row, with all derivatives.
    """

    species: tuple[str, ...]
    tracks: tuple[str, ...]
    selections: tuple[str, ...]
    cuts: tuple[str, ...]
    estimates: Estimates = field(repr=False)

    @property
    def values(self) -> FloatArray:
        """Probabilities (n_species, n_selections)."""
        shape = (len(self.species), len(self.selections))
        return np.reshape(self.estimates.values, shape)

    @property
    def errors(self) -> FloatArray:
        """Total uncertainties (n_species, n_selections)."""
        variances = np.maximum(np.diag(self.covariance), 0)
        return np.asarray(np.sqrt(variances).reshape(self.values.shape))

    @property
    def covariance(self) -> FloatArray:
        """Covariance (n, n) of all entries, row by row."""
        return self.estimates.covariance

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the entries, "K+ as kaon", in the order of the covariance."""
        pairs = [(s, c) for s in self.species for c in self.selections]
        return tuple(f"{species} as {name}" for species, name in pairs)

    def frame(self) -> pd.DataFrame:
        """Return the probabilities with rows and columns named."""
        return pd.DataFrame(self.values, self._index(), list(self.selections))

    def covariance_frame(self) -> pd.DataFrame:
        """Return the covariance with rows and columns named."""
        names = list(self.names)
        return pd.DataFrame(self.covariance, names, names)

    def _index(self) -> pd.Index:
        return pd.Index(list(self.species), name="true species")

    def content(self) -> dict[str, Any]:
        """Return everything for JSON, with null for NaN."""
        return {
            "species": list(self.species),
            "tracks": list(self.tracks),
            "selections": dict(zip(self.selections, self.cuts, strict=True)),
            "values": quoted.for_json(self.values),
            "errors": quoted.for_json(self.errors),
            "names": list(self.names),
            **self.estimates.covariances(),
        }

    def text(self) -> str:
        """Return a table in per cent."""
        cells = [
            [f"{100 * v:.2f} +- {100 * e:.2f} %" for v, e in zip(*row, strict=True)]
            for row in zip(self.values, self.errors, strict=True)
        ]
        return str(pd.DataFrame(cells, self._index(), list(self.selections)))

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
        """Write the matrix, everything as .json or probabilities as .csv.

        The file MATRIX.csv has the species in its first column; a second one,
        MATRIX.covariance.csv, has the covariance. The files written are returned.
        """
        path = Path(path)
        if path.suffix == ".json":
            with writing_file(path, overwrite=overwrite) as temporary:
                text = json.dumps(self.content(), indent=1, allow_nan=False)
                temporary.write_text(text, encoding="utf-8")
            return (path,)
        if path.suffix != ".csv":
            raise ValueError(f"path is {str(path)!r}, expected .json or .csv")
        beside = path.with_suffix(".covariance.csv")
        refuse_existing(beside, overwrite=overwrite)
        with writing_files([path, beside], overwrite=overwrite) as (first, second):
            self.frame().to_csv(first)
            self.covariance_frame().to_csv(second)
        return path, beside

    def _facts(self) -> Facts:
        pairs = zip(self.names, self.estimates, strict=True)
        found = {n: f"{100 * e.value:.2f} +- {100 * e.total:.2f} %" for n, e in pairs}
        species, columns = ", ".join(self.species), ", ".join(self.selections)
        return Facts(f"{species} as {columns}", found)


@checked
def misid_matrix(
    maps: Mapping[str, GivenMap],
    files: Rows,
    cuts: Mapping[str, str] | str | Sequence[str] | None = None,
    **options: Any,
) -> MisIDMatrix:
    """Return how often tracks of each species pass the selection of each hypothesis.

    Args:
        maps: Efficiency map, or its file, by the prefix of a track, as in
            `pid_efficiency`; each track is a row of the matrix, of its map's species.
        files: Files, `FILE:TREE` or patterns; or rows in memory, as `apply` gives them.
        cuts: Selections by name, {"kaon": "RichDLLk > 5", "pion": "RichDLLk < 0"}, or
            one or several without names. Every map holds all of them; None stands for
            the cuts of the maps.
        options: Further arguments of `pid_efficiency`, such as `weights` and `where`.

    Returns:
        The matrix with its covariance.

    Raises:
        MapError: A map does not hold a cut; two tracks are of one species; there is no
            proof that columns were generated by the bundle of their map.

    Example:
        >>> maps = {"Kplus": "kaon-map.json", "piminus": "pion-map.json"}
        >>> cuts = {"kaon": "RichDLLk > 5", "pion": "RichDLLk < 0"}
        >>> print(misid_matrix(maps, "out.root", cuts).text())    # doctest: +SKIP
    """
    if "binning" in options:
        raise ValueError("binning is not for a matrix, expected one bin of all rows")
    opened = open_maps(maps)
    species = [
        "/".join(dict.fromkeys(m.metadata["species"] for m in as_track_maps(own).maps))
        for own in opened.values()
    ]
    for name in species:
        if species.count(name) > 1:
            raise MapError(
                f"two tracks are of the species {name}, expected one for each row"
            )
    if cuts is None:
        first = next(iter(opened.values()))
        cuts = first.cuts
    if isinstance(cuts, str):
        cuts = [cuts]
    named = dict(cuts) if isinstance(cuts, Mapping) else {c: c for c in cuts}
    if not named:
        raise ValueError("no cut given")
    parts = [
        pid_efficiency({track: own}, files, cuts=list(named.values()), **options)
        for track, own in opened.items()
    ]
    return MisIDMatrix(
        species=tuple(species),
        tracks=tuple(opened),
        selections=tuple(named),
        cuts=tuple(named.values()),
        estimates=stack(part.estimates for part in parts),
    )


def matrix_of_periods(
    periods: Sequence[Maps],
    shares: Sequence[float],
    files: Rows,
    cuts: Mapping[str, str] | str | Sequence[str] | None = None,
    *,
    suffix: str = "",
    **options: Any,
) -> MisIDMatrix:
    """Return the mean of the matrices of several periods, as `efficiency_of_periods`.

    Args:
        periods: Maps by track of each period.
        shares: Share of the luminosity of each period; they sum to 1.
        files: Files, or rows in memory, with columns of the bundle of each period.
        cuts: Selections, as in `misid_matrix`.
        suffix: Suffix of the columns, if it is the same for all periods.
        options: Further arguments of `pid_efficiency`.
    """
    check_shares(shares)
    check_periods(periods, all_cuts=cuts is None)
    found = [
        misid_matrix(
            maps, files, cuts, suffix=suffix or suffix_of(maps, files), **options
        )
        for maps in periods
    ]
    return replace(
        found[0], estimates=mean_estimates([m.estimates for m in found], shares)
    )
