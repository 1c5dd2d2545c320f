"""EfficiencyMap: corrected efficiencies of named cuts in bins, and its three files.

`MAP.json` follows the schema of correctionlib (https://cms-nanoaod.github.io/
correctionlib): one correction per cut, from the conditions and a variation to an
efficiency. `MAP.npz` holds the arrays at full precision, and `MAP.root` histograms.
All three can be read without this package:

- the covariance of cut i between all bins is `covariance[i]`;
- the covariance between cuts i and j, due to the rows that they share, is
  `einsum("ab,b,cb->ac", operator[i], raw_covariance[i, j], operator[j])`; how far their
  *smoothing* is wrong together adds to it (`common_errors`): `joint_covariance`.

The variations in MAP.json are `nominal`, `<name>_up` and `<name>_down`: eigenvectors of
the covariance (`calibration_1` is the largest; `calibration_rest` is the remaining
variance of each bin), and one for each further variation (`binning`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from pidgan import higher
from pidgan.arguments import check_path, checked
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.shipped import shipped_path
from pidgan.efficiency import binning as bins
from pidgan.efficiency import map_averages
from pidgan.efficiency.binning import bin_shape, count_bins, edge_columns
from pidgan.efficiency.common_errors import CommonErrors, between_cuts
from pidgan.efficiency.eigen_variations import eigen_shifts
from pidgan.efficiency.map_json import (
    SCHEMA_VERSION,
    WITH_WHERE,
    check_suffix,
    correction,
    read_head,
    sealed_content,
)
from pidgan.efficiency.sorted_rows import is_unphysical
from pidgan.efficiency.table_files import weight_histogram
from pidgan.errors import MapError, PidganError, nearest
from pidgan.files.seals import (
    file_sha256,
    part_of,
    read_set,
    reason,
)
from pidgan.files.tables import read_arrays, write_histograms
from pidgan.files.writing import writing_set
from pidgan.notebook import Facts, count, listed, shown
from pidgan.sample.cuts import parse_cut

MIN_EVENTS = 20.0
"""Effective passing and failing rows of the reference below which a cut is flagged.
The smoothed difference is then little more than its prior."""

MAX_ROOT_AXES = 3

# Arrays with their axes: cuts and bins.
_ARRAYS = {
    **dict.fromkeys(("generated", "discrepancy"), "cb"),
    **dict.fromkeys(("covariance", "operator"), "cbb"),
    "raw_covariance": "ccb",
    "n_eff": "b",
    **dict.fromkeys(("passing", "failing"), "c"),
}
_COMMON = "common_"
"""What the names of the arrays of `common` begin with; older maps have none."""

TABLE = "table"
"""Metadata: the kind of a map that is a table of efficiencies."""

DENOMINATOR = "denominator"
"""Metadata: the relative error of the denominator in each bin, if targets are in it,
and its uncertainty."""


@shown
@dataclass(frozen=True, kw_only=True)
class EfficiencyMap:
    """Efficiencies of named cuts in bins of conditions; made by `run_systematics`.

    Bins are numbered in C order of the binning.

    Attributes:
        cuts: Cuts that the map knows; it refuses others.
        binning: Edges by condition, in package units.
        generated: (n_cuts, n_bins) efficiency of the generated targets.
        discrepancy: (n_cuts, n_bins) smoothed real minus generated efficiency.
        covariance: (n_cuts, n_bins, n_bins) covariance of `discrepancy`, cut by cut.
        operator: (n_cuts, n_bins, n_bins) matrix from raw to smoothed discrepancies.
        raw_covariance: (n_cuts, n_cuts, n_bins) covariance of raw discrepancies within
            a bin.
        n_eff: (n_bins,) effective rows of the reference in each bin.
        passing: (n_cuts,) effective rows of the reference that pass.
        failing: (n_cuts,) effective rows of the reference that fail.
        variations: (n_cuts, n_bins) shifts of the efficiency by name.
        metadata: Species, detector, bundle, reference, seed, versions; conditions and
            targets as in the bundle's card; the denominator, if there is one.
        common: How far the smoothing of two cuts is wrong together; None for a table,
            and for a map of an older version, in which it counts as independent.
    """

    cuts: tuple[str, ...]
    binning: dict[str, tuple[float, ...]]
    generated: FloatArray
    discrepancy: FloatArray
    covariance: FloatArray
    operator: FloatArray
    raw_covariance: FloatArray
    n_eff: FloatArray
    passing: FloatArray
    failing: FloatArray
    variations: dict[str, FloatArray]
    metadata: dict[str, Any]
    common: CommonErrors | None = None

    plot = higher.plot

    @property
    def nominal(self) -> FloatArray:
        """(n_cuts, n_bins), generated efficiency + discrepancy; not clipped."""
        return self.generated + self.discrepancy

    @property
    def error(self) -> FloatArray:
        """(n_cuts, n_bins), all uncertainties of `nominal` added in quadrature."""
        variance = np.einsum("cbb->cb", self.covariance).copy()
        for shift in self.variations.values():
            variance += shift**2
        return np.asarray(np.sqrt(variance))

    @property
    def shape(self) -> tuple[int, ...]:
        """Bins along each condition."""
        return bin_shape(self.binning)

    @property
    def few(self) -> BoolArray:
        """(n_cuts,), whether fewer than `MIN_EVENTS` effective rows pass, or fail."""
        return np.asarray(np.minimum(self.passing, self.failing) < MIN_EVENTS)

    @property
    def flagged(self) -> tuple[str, ...]:
        """Cuts with fewer than `MIN_EVENTS` effective rows on one side."""
        return tuple(cut for cut, few in zip(self.cuts, self.few, strict=True) if few)

    @property
    def names(self) -> tuple[str, ...]:
        """Variables that a cut may name: targets, then conditions."""
        variables = (*self.metadata["targets"], *self.metadata["conditions"])
        return tuple(str(variable["name"]) for variable in variables)

    @property
    def where(self) -> str:
        """Denominator: the cut of those that are counted; empty for all tracks."""
        return str(self.metadata.get("where", ""))

    @property
    def is_table(self) -> bool:
        """Whether it is a table of efficiencies, which corrects no generator."""
        return self.metadata.get("kind") == TABLE

    @property
    def usable(self) -> BoolArray:
        """(n_bins,), bins that have an efficiency: all, except of a table."""
        found = np.ones(len(self.n_eff), dtype=np.bool_)
        found[list(self.metadata.get("unusable", ()))] = False
        return found

    def place(self, columns: bins.Columns) -> IntArray:
        """Return the bin (n,) of rows, -1 where they have no efficiency."""
        place = bins.bin_index(columns, self.binning)
        if not self.is_table:
            return place
        return np.where((place >= 0) & self.usable[place], place, -1)

    @property
    def denominator_shift(self) -> FloatArray:
        """(n_bins,) relative error of the denominator, zero without targets in it."""
        found = self.metadata.get(DENOMINATOR)
        return np.zeros(len(self.n_eff)) if found is None else np.array(found["shift"])

    @property
    def denominator_modes(self) -> FloatArray:
        """(n_modes, n_bins) independent uncertainties of `denominator_shift`."""
        found = self.metadata.get(DENOMINATOR, {})
        return np.array(found.get("modes", ())).reshape(-1, len(self.n_eff))

    @property
    def aliases(self) -> dict[str, str]:
        """Further names for them: the branches of the calibration sample."""
        return dict(self.metadata.get("aliases", {}))

    def cut_index(self, cut: str) -> int:
        """Return the number of a cut; spaces and spelling of `and` do not matter."""
        wanted, *known = (
            parse_cut(text, names=self.names, aliases=self.aliases).canonical
            for text in (cut, *self.cuts)
        )
        if wanted not in known:
            hint = nearest(cut, self.cuts) or f"; known: {', '.join(self.cuts)}"
            if self.is_table:
                raise MapError(f"{self.metadata['name']} has no cut {cut!r}{hint}")
            text = f"the efficiency map has no cut {cut!r}{hint}"
            raise MapError(f"{text}; run systematics for it")
        return known.index(wanted)

    @checked
    def joint_covariance(self, i: int, j: int) -> FloatArray:
        """Return the covariance (n_bins, n_bins) of the discrepancies of two cuts."""
        n = len(self.cuts)
        for name, number in (("i", i), ("j", j)):
            if not -n <= number < n:
                raise ValueError(f"{name} is {number}, expected 0 to {n - 1}")
        if i % n == j % n:
            return np.asarray(self.covariance[i])
        every = np.eye(len(self.n_eff))
        return between_cuts(self, [(j % n, every), (i % n, every)])[1, 0]

    @checked
    def propagate(self, fractions: FloatArray) -> FloatArray:
        """Return the covariance (n_cuts, n_cuts) of mean discrepancies sum_b f_b d_b.

        The fractions f (n_bins,) are the shares of the analysis' rows in each bin.
        """
        expected = (len(self.n_eff),)
        if np.shape(fractions) != expected:
            got = np.shape(fractions)
            raise ValueError(f"fractions has shape {got}, expected {expected}")
        joint = np.diag(np.einsum("a,cab,b->c", fractions, self.covariance, fractions))
        slopes = [(i, fractions[np.newaxis]) for i in range(len(self.cuts))]
        for (i, j), cross in between_cuts(self, slopes).items():
            joint[i, j] = joint[j, i] = cross[0, 0]
        return np.asarray(joint)

    def frame(self) -> pd.DataFrame:
        """Return one row per cut and bin: edges, efficiencies, error, n_eff."""
        n_bins = len(self.n_eff)
        columns: dict[str, Any] = {"cut": np.repeat(np.array(self.cuts), n_bins)}
        columns |= edge_columns(self.binning, len(self.cuts))
        for key in ("nominal", "error", "generated", "discrepancy"):
            columns[key] = getattr(self, key).reshape(-1)
        columns["n_eff"] = np.tile(self.n_eff, len(self.cuts))
        columns["unphysical"] = is_unphysical(self.nominal).reshape(-1)
        return pd.DataFrame(columns)

    @property
    def averages(self) -> dict[str, dict[str, float]]:
        """Efficiencies of all reference rows by cut, and their uncertainties.

        They are `real`, `generated` and `corrected`; empty in a map of version 0.1.
        """
        return map_averages.averages(self)

    def text(self) -> str:
        """Return the efficiencies of all reference rows: real, generated, corrected."""
        return map_averages.averages_text(self.averages, self.where)

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
        """Write MAP.json, MAP.npz beside it and, up to three conditions, MAP.root.

        The path is that of the JSON file. Each file is written under a temporary name;
        none appears if one fails. The files are returned.
        """
        path = Path(path)
        check_suffix(path)
        paths = [path, path.with_suffix(".npz"), path.with_suffix(".root")]
        has_histograms = len(self.binning) <= MAX_ROOT_AXES
        with writing_set(*paths, overwrite=overwrite) as (head, arrays, histograms):
            self._write_arrays(arrays)
            hashes = {"npz_sha256": file_sha256(arrays)}
            if has_histograms:
                write_histograms(histograms, self._histograms())
                hashes["root_sha256"] = file_sha256(histograms)
            content = self._correction_set(hashes)
            head.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        return tuple(paths if has_histograms else paths[:2])

    @classmethod
    @checked
    def open(cls, path: "str | Path | EfficiencyMap") -> "EfficiencyMap":
        """Read a map that `save` wrote, or "demo-kaon", the one that ships.

        A map that is open is returned unchanged.

        Raises:
            MapError: A file is missing, damaged, changed, too new or of another map.
        """
        if isinstance(path, EfficiencyMap):
            return path
        check_path("open", path)
        file = shipped_path(path, ".json")
        return read_set(file, lambda: cls._read(file))

    @classmethod
    def _read(cls, path: Path) -> Self:
        head = read_head(path)
        histograms = path.with_suffix(".root")
        try:
            arrays_path = part_of(path.with_suffix(".npz"), head.get("npz_sha256"))
            if "root_sha256" in head and histograms.is_file():
                part_of(histograms, head["root_sha256"])
            arrays = read_arrays(arrays_path)
        except (ValueError, OSError, PidganError) as error:
            raise MapError(f"{path}: {reason(error)}") from None
        try:
            result = cls(
                cuts=tuple(head["cuts"]),
                binning={k: tuple(map(float, v)) for k, v in head["binning"].items()},
                variations={
                    name: arrays[f"variation_{name}"] for name in head["variations"]
                },
                metadata=head["metadata"],
                common=_read_common(arrays),
                **{name: arrays[name] for name in _ARRAYS},
            )
            result._check()
            result._check_head(arrays)
        # A damaged file of version 0.1, which has no seal, may raise whatever there is.
        except Exception as error:
            text = f"{path}: damaged efficiency map ({reason(error)})"
            raise MapError(text) from error
        return result

    def _check(self) -> None:
        sizes = {"c": len(self.cuts), "b": count_bins(self.binning)}
        arrays = {name: getattr(self, name) for name in _ARRAYS} | self.variations
        for name, array in arrays.items():
            expected = tuple(sizes[axis] for axis in _ARRAYS.get(name, "cb"))
            if array.shape != expected:
                raise ValueError(f"{name}: shape {array.shape}, expected {expected}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds numbers that are not finite")
        if self.common is not None:
            self.common.check(sizes["c"], self.shape)
        if self.denominator_shift.shape != (sizes["b"],):
            raise ValueError("the denominator has another number of bins")

    def _check_head(self, arrays: Mapping[str, Any]) -> None:
        """Raise a ValueError if cuts, edges or metadata are not those of the arrays."""
        edges = {k.removeprefix("edges_") for k in arrays if k.startswith("edges_")}
        same = {
            "cuts": self.cuts == tuple(map(str, arrays["cuts"])),
            "binning": edges == set(self.binning)
            and all(tuple(arrays[f"edges_{k}"]) == v for k, v in self.binning.items()),
            "variations": [f"variation_{name}" for name in self.variations]
            == [key for key in arrays if key.startswith("variation_")],
            "metadata": self.metadata == json.loads(str(arrays["metadata_json"])),
        }
        for name, is_same in same.items():
            if not is_same:
                raise ValueError(f"its {name} are not those of its arrays")

    def _write_arrays(self, path: Path) -> None:
        content: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        content |= {f"variation_{k}": v for k, v in self.variations.items()}
        content |= {f"edges_{k}": np.array(v) for k, v in self.binning.items()}
        if self.common is not None:
            content |= {f"{_COMMON}{k}": v for k, v in vars(self.common).items()}
        content["cuts"] = np.array(self.cuts)
        content["metadata_json"] = np.array(json.dumps(self.metadata))
        with path.open("wb") as file:
            np.savez_compressed(file, **content)

    def _histograms(self) -> dict[str, Any]:
        """Nominal, generated and discrepancy of each cut, numbered from 1."""
        contents = {
            "nominal": [self.nominal, self.error**2],
            "generated": [self.generated, np.zeros_like(self.generated)],
            "discrepancy": [self.discrepancy, np.einsum("cbb->cb", self.covariance)],
        }
        return {
            f"{kind}_{i + 1}": weight_histogram(
                self.binning, *(a[i].reshape(self.shape) for a in arrays), name=cut
            )
            for i, cut in enumerate(self.cuts)
            for kind, arrays in contents.items()
        }

    def _correction_set(self, hashes: Mapping[str, str]) -> dict[str, Any]:
        species, detector = self.metadata["species"], self.metadata["detector"]
        title = f"PID efficiencies of {species} ({detector}): generated + discrepancy"
        title += f", among {self.where}" if self.where else ""
        head = {
            "schema_version": WITH_WHERE if self.where else SCHEMA_VERSION,
            "cuts": list(self.cuts),
            "binning": {name: list(edges) for name, edges in self.binning.items()},
            "variations": list(self.variations),
            **hashes,
            "metadata": self.metadata,
        }
        units = {v["name"]: v["unit"] for v in self.metadata["conditions"]}
        corrections = [
            correction(
                cut,
                self.nominal[i],
                self.shifts(i),
                binning=self.binning,
                units=units,
                where=self.where,
            )
            for i, cut in enumerate(self.cuts)
        ]
        return sealed_content(title, corrections, head)

    def shifts(self, i: int) -> dict[str, FloatArray]:
        """Return independent one-sigma shifts (n_bins,) of a cut by name.

        They are `calibration_1`, ..., `calibration_rest` and the variations of the map.
        """
        own = {name: shift[i] for name, shift in self.variations.items()}
        return {**eigen_shifts(self.covariance[i]), **own}

    def _facts(self) -> Facts:
        mean = map_averages.average(self, map_averages.map_sizes(self))
        values = {
            cut: (e, g)
            for cut, e, g in zip(self.cuts, mean.corrected, mean.generated, strict=True)
        }
        for cut, own in self.averages.items():
            values[cut] = own["corrected"], own["generated"]
        return Facts(
            f"{self.metadata.get('species')}, {count(len(self.cuts), 'cuts')} in "
            f"{count(len(self.n_eff), 'bins')} of {listed(list(self.binning))}",
            {
                "sample": self.metadata.get("sample"),
                "detector": self.metadata.get("detector"),
                **{
                    f"mean {cut}": f"{100 * e:.2f} %, generated {100 * g:.2f} %"
                    for cut, (e, g) in values.items()
                },
                "variations": listed(list(self.variations)) or "none",
                "few reference rows": listed(self.flagged) or "none",
            },
        )


def _read_common(arrays: Mapping[str, Any]) -> CommonErrors | None:
    """Return what a file says of errors that cuts have in common, None without."""
    names = [field.name for field in fields(CommonErrors)]
    if f"{_COMMON}{names[0]}" not in arrays:
        return None
    return CommonErrors(**{name: arrays[f"{_COMMON}{name}"] for name in names})
