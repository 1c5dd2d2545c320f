"""EfficiencyMap: corrected efficiencies of named cuts in bins, and its three files.

`MAP.json` follows the schema of correctionlib (https://cms-nanoaod.github.io/
correctionlib): one correction per cut, from the conditions and a variation to an
efficiency. `MAP.npz` holds the arrays at full precision, and `MAP.root` histograms.
All three can be read without this package:

- the covariance of cut i between all bins is `covariance[i]`;
- the covariance between cuts i and j, due to the rows that they share, is
  `einsum("ab,b,cb->ac", operator[i], raw_covariance[i, j], operator[j])`; how much the
  *smoothing* of two cuts is wrong together is not known and counts as independent.

The variations in MAP.json are `nominal`, `<name>_up` and `<name>_down`: eigenvectors of
the covariance (`calibration_1` is the largest; `calibration_rest` is the remaining
variance of each bin), and one for each further variation (`binning`).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from pidgan.arguments import check_path, checked
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.shipped import shipped_names, shipped_path
from pidgan.efficiency import binning as bins
from pidgan.efficiency import map_averages
from pidgan.efficiency.binning import bin_shape, count_bins, edge_columns
from pidgan.efficiency.sorted_rows import is_unphysical
from pidgan.efficiency.table_files import weight_histogram
from pidgan.errors import MapError, PidganError, nearest
from pidgan.files.documents import read_json
from pidgan.files.recognition import refuse_other
from pidgan.files.seals import (
    SEAL,
    check_seal,
    file_sha256,
    part_of,
    read_set,
    reason,
    sealed,
)
from pidgan.files.tables import read_arrays, write_histograms
from pidgan.files.writing import writing_set
from pidgan.notebook import Facts, count, listed, shown
from pidgan.sample.cuts import parse_cut

SCHEMA_VERSION = 2

WITH_WHERE = 3
"""Schema of a map with a denominator, which older versions would not know of."""

UNSEALED = 1
"""Schema without a seal, which version 0.1 of this package wrote."""

EIGEN_SHARE = 0.99
"""Share of the variance that the eigen-variations in MAP.json represent."""

MAX_EIGEN = 40
"""Largest number of eigen-variations in MAP.json, whatever their share."""

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
_MARK = "pidgan: "

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
        if i == j:
            return np.asarray(self.covariance[i])
        first = self.operator[i] * self.raw_covariance[i, j]
        return np.asarray(first @ self.operator[j].T)

    @checked
    def propagate(self, fractions: FloatArray) -> FloatArray:
        """Return the covariance (n_cuts, n_cuts) of mean discrepancies sum_b f_b d_b.

        The fractions f (n_bins,) are the shares of the analysis' rows in each bin.
        """
        expected = (len(self.n_eff),)
        if np.shape(fractions) != expected:
            got = np.shape(fractions)
            raise ValueError(f"fractions has shape {got}, expected {expected}")
        pull = np.einsum("a,cab->cb", fractions, self.operator)
        joint = np.einsum("ib,ijb,jb->ij", pull, self.raw_covariance, pull)
        own = np.einsum("a,cab,b->c", fractions, self.covariance, fractions)
        joint[np.diag_indices_from(joint)] = own
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
        head = _read_head(path)
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
        content = {
            "schema_version": 2,
            "description": title,
            "corrections": [self._correction(i, c) for i, c in enumerate(self.cuts)],
        }
        head[SEAL] = sealed({**content, "pidgan": head})[SEAL]
        return {**content, "description": f"{title}\n{_MARK}{json.dumps(head)}"}

    def _correction(self, i: int, cut: str) -> dict[str, Any]:
        text = "nominal, <name>_up or <name>_down"
        inputs: list[dict[str, str | None]]
        inputs = [{"name": "variation", "type": "string", "description": text}]
        units = {v["name"]: v["unit"] for v in self.metadata["conditions"]}
        for name in self.binning:
            unit = f"in {units[name]}" if units[name] != "1" else None
            inputs.append({"name": name, "type": "real", "description": unit})
        nominal = self.nominal[i]
        tables = {"nominal": nominal}
        for name, shift in self._shifts(i).items():
            tables |= {f"{name}_up": nominal + shift, f"{name}_down": nominal - shift}
        return {
            "name": cut,
            "description": f"efficiency of {cut}"
            + (f" among {self.where}" if self.where else ""),
            "version": 1,
            "inputs": inputs,
            "output": {"name": "efficiency", "type": "real"},
            "data": {
                "nodetype": "category",
                "input": "variation",
                "content": [
                    {"key": key, "value": self._node(values)}
                    for key, values in tables.items()
                ],
            },
        }

    def _node(self, values: FloatArray) -> dict[str, Any]:
        return {
            "nodetype": "multibinning",
            "inputs": list(self.binning),
            "edges": [list(edges) for edges in self.binning.values()],
            # Nine digits: a float32, and half the size of the file.
            "content": [float(f"{value:.9g}") for value in values],
            "flow": "error",
        }

    def _shifts(self, i: int) -> dict[str, FloatArray]:
        """One-sigma shifts (n_bins,) of cut i, independent of one another."""
        values, vectors = np.linalg.eigh(self.covariance[i])
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        # The sign of an eigenvector is free, and up is up on average.
        vectors = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
        share = np.cumsum(values) / values.sum() if values.sum() > 0 else np.ones(1)
        n = min(int(np.searchsorted(share, EIGEN_SHARE)) + 1, MAX_EIGEN, len(values))
        sigma = np.sqrt(values)
        shifts = {f"calibration_{k + 1}": sigma[k] * vectors[:, k] for k in range(n)}
        shifts["calibration_rest"] = np.sqrt((vectors[:, n:] ** 2) @ values[n:])
        shifts |= {name: shift[i] for name, shift in self.variations.items()}
        return shifts

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


def check_suffix(path: str | Path) -> None:
    """Raise a MapError if the name of a map does not end in .json."""
    if Path(path).suffix != ".json":
        raise MapError(f"{path}: expected a name that ends in .json")


def _read_head(path: Path) -> dict[str, Any]:
    if not path.is_file():
        refuse_other(path, "map", error=MapError)
        siblings = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
        siblings += shipped_names()
        raise MapError(f"{path}: no such efficiency map{nearest(path.name, siblings)}")
    refuse_other(path, "map", error=MapError)
    content = read_json(path, error=MapError)
    description = content.get("description") if isinstance(content, Mapping) else None
    title, mark, text = str(description or "").partition(f"\n{_MARK}")
    if not mark:
        raise MapError(f"{path}: JSON, but not an efficiency map of pidgan")
    try:
        head: dict[str, Any] = json.loads(text)
        version = head["schema_version"]
        if type(version) is not int or version < UNSEALED:
            raise ValueError(f"schema version {version!r}, expected a number")
        if version <= WITH_WHERE and (version > UNSEALED or SEAL in head):
            seal = head.pop(SEAL, None)
            parts = {**content, "description": title, "pidgan": head}
            check_seal({**parts, SEAL: seal})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        text = f"{path}: damaged efficiency map ({reason(error)})"
        raise MapError(text) from error
    if version > WITH_WHERE:
        raise MapError(
            f"{path}: schema version {version}, this package reads up to "
            f"{WITH_WHERE}: install a newer version"
        )
    return head
