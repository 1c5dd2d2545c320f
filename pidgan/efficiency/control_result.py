"""What a control channel says about an efficiency map, as a record and a JSON file."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from pidgan.arguments import check_path, checked
from pidgan.efficiency.binning import edge_columns
from pidgan.efficiency.quoted import for_json, rounded
from pidgan.errors import MapError
from pidgan.files.documents import read_json
from pidgan.files.seals import check_seal, reason, sealed
from pidgan.files.writing import writing_file
from pidgan.notebook import Facts, count, listed, shown

KIND = "control channel"
"""What a JSON file says that it is."""

SCHEMA_VERSION = 1


@shown
@dataclass(frozen=True, kw_only=True)
class CutClosure:
    """A control channel beside its prediction, for one cut.

    Attributes:
        control: Efficiency in the control channel, and its uncertainty.
        predicted: Predicted efficiency, and its uncertainty.
        filling: Prediction by generated rows minus that by the bins of the map.
        factor: Ratio of control to predicted efficiency, with its uncertainty, and the
            part of it from the control sample, `factor_stat`.
        scale: Factor by which this part is scaled up, as the ratio is not constant.
        chi2: Chi-square of the difference in bins, with its degrees of freedom and
            p-value. `constant_...` are those of a constant ratio.
        bins: Arrays over the bins: both efficiencies with their uncertainties,
            effective rows, and whether chi2 uses a bin.
        covariance: (n_bins, n_bins) covariance of the difference.
        problems: Why mass fits failed.
        flags: "same rows as the map", "rows of the map not known", "far from 1", "not
            constant", "few rows", "poor mass fit", "fits failed", "bins left out".
    """

    cut: str
    control: float
    control_error: float
    predicted: float
    predicted_error: float
    filling: float
    factor: float
    factor_stat: float
    factor_error: float
    scale: float
    chi2: float
    n_dof: int
    p_value: float
    constant_chi2: float
    constant_dof: int
    constant_p_value: float
    bins: dict[str, list[Any]]
    covariance: list[list[float]]
    problems: list[str]
    flags: tuple[str, ...]

    @property
    def text(self) -> str:
        """Both efficiencies, their ratio and the p-value in one line."""
        pairs = (
            (100 * self.control, 100 * self.control_error, " %"),
            (100 * self.predicted, 100 * self.predicted_error, " %"),
            (self.factor, self.factor_error, ""),
        )
        shown_ = []
        for value, error, unit in pairs:
            digits, size, _ = rounded(value, error, 0.0)
            shown_.append(f"{digits} +- {size}{unit}")
        marks = f"   {', '.join(self.flags)}" if self.flags else ""
        return (
            f"{self.cut}: control {shown_[0]}, predicted {shown_[1]}, factor "
            f"{shown_[2]}, chi2/ndof {self.chi2:.1f}/{self.n_dof}, p-value "
            f"{self.p_value:.2g}{marks}"
        )

    def _facts(self) -> Facts:
        return Facts(self.text, {"flags": ", ".join(self.flags) or "none"})


@shown
@dataclass(frozen=True, kw_only=True)
class ControlClosure:
    """A control channel beside the efficiencies that are predicted for it.

    Attributes:
        source: Where the rows come from.
        species: Their species.
        method: "sweights", or "fits" where signal is counted.
        has_generator: Whether responses were generated for each row.
        cuts: The comparison of each cut.
        binning: Edges of the bins of the comparison.
        n_rows: Rows that can be used, and their effective number, `n_eff`.
        n_outside: Rows outside the map, left out, and their share of the weights.
        dropped: Further rows left out, by reason.
        shared: Share of the rows that made the map too; 0 if they are independent, NaN
            if the map does not tell.
        shares: Share of the rows in each bin of the map.
        covariance: (n_cuts, n_cuts) covariance of control minus predicted efficiency of
            all rows, from the control sample.
        map_binning: Edges of the map.
        bundle_sha256: Bundle of the map.
    """

    source: str
    species: str
    method: str
    has_generator: bool
    cuts: tuple[CutClosure, ...]
    binning: dict[str, tuple[float, ...]]
    n_rows: int
    n_eff: float
    n_outside: int
    outside_fraction: float
    dropped: dict[str, int]
    shared: float
    shares: list[float]
    covariance: list[list[float]]
    map_binning: dict[str, tuple[float, ...]]
    bundle_sha256: str | None

    def __iter__(self) -> Iterator[CutClosure]:
        return iter(self.cuts)

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, number: int) -> CutClosure:
        return self.cuts[number]

    def frame(self) -> pd.DataFrame:
        """Return one row per cut and bin: edges, both efficiencies, ratio and pull."""
        columns: dict[str, Any] = {}
        n = len(self.cuts[0].bins["control"])
        columns["cut"] = np.repeat([one.cut for one in self.cuts], n)
        columns |= edge_columns(self.binning, len(self.cuts))
        for name in self.cuts[0].bins:
            columns[name] = np.concatenate([one.bins[name] for one in self.cuts])
        variance = np.concatenate([np.diag(one.covariance) for one in self.cuts])
        difference = columns["control"] - columns["predicted"]
        with np.errstate(divide="ignore", invalid="ignore"):
            columns["ratio"] = columns["control"] / columns["predicted"]
            columns["ratio_error"] = np.sqrt(variance) / columns["predicted"]
            columns["pull"] = difference / np.sqrt(variance)
        return pd.DataFrame(columns)

    def text(self) -> str:
        """Return a line for each cut, and what is left out."""
        how = "mass fits" if self.method == "fits" else "weights"
        made = "bundle and map" if self.has_generator else "the map alone"
        lines = [one.text for one in self.cuts]
        lines.append(
            f"{self.n_rows} rows of {self.species}, effectively {self.n_eff:.0f}, by "
            f"{how}; predicted by {made}; outside the map, left out: {self.n_outside} "
            f"({100 * self.outside_fraction:.2f} % of the weights)"
        )
        lines += [f"left out, {why}: {n} rows" for why, n in self.dropped.items()]
        if not self.has_generator and any("not constant" in c.flags for c in self):
            lines.append(
                "not constant: the map alone gives all rows of one of its bins the "
                "same efficiency; with the generator, each has that of its conditions"
            )
        if math.isnan(self.shared):
            lines.append(
                "rows that made the map too: not known, the map keeps no hashes of its "
                "reference rows"
            )
        elif self.shared:
            lines.append(f"rows that made the map too: {self.shared:.0%}")
        lines += [
            f"{one.cut}: {text}" for one in self.cuts for text in one.problems[:3]
        ]
        return "\n".join(lines)

    def content(self) -> dict[str, Any]:
        """Return everything for JSON, with null for NaN."""
        found = for_json(asdict(self))
        return {"kind": KIND, "schema_version": SCHEMA_VERSION, **found}

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.content(), indent=1, allow_nan=False)

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write everything to a JSON file, which `open` reads."""
        path = Path(path)
        if path.suffix != ".json":
            raise MapError(f"{path}: expected a name that ends in .json")
        text = json.dumps(sealed(self.content()), indent=1, allow_nan=False)
        with writing_file(path, overwrite=overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    @classmethod
    @checked
    def open(cls, path: "str | Path | ControlClosure") -> Self:
        """Read what `save` wrote; a record is returned unchanged.

        Raises:
            MapError: The file is missing, damaged, changed or something else.
        """
        if isinstance(path, cls):
            return path
        check_path("open", path)
        content = read_json(str(path), error=MapError)
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise MapError(
                f"{path}: JSON, but not the comparison with a control channel that "
                "`pidgan closure` writes"
            )
        try:
            check_seal(content)
            version = content["schema_version"]
            if version != SCHEMA_VERSION:
                raise ValueError(f"schema version {version}, expected {SCHEMA_VERSION}")
            names = {field.name for field in fields(cls)} - {"cuts"}
            cuts = tuple(_cut(one) for one in content["cuts"])
            edges = ("binning", "map_binning")
            # Null, or missing in a file of before, if the map did not tell.
            shared = content.pop("shared", None)
            content["shared"] = math.nan if shared is None else shared
            found = {name: content[name] for name in names}
            for name in edges:
                found[name] = {k: tuple(v) for k, v in found[name].items()}
            return cls(cuts=cuts, **found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MapError(
                f"{path}: damaged control channel ({reason(error)})"
            ) from None

    def _facts(self) -> Facts:
        return Facts(
            f"{self.species}, {count(len(self.cuts), 'cuts')}, "
            f"{count(self.n_rows, 'rows')}, first factor {self.cuts[0].factor:.4f} +- "
            f"{self.cuts[0].factor_error:.4f}",
            {one.cut: one.text for one in self.cuts}
            | {"bins in": listed(list(self.binning))},
        )


def _cut(content: dict[str, Any]) -> CutClosure:
    names = [field.name for field in fields(CutClosure)]
    found = {name: content[name] for name in names}
    found["flags"] = tuple(found["flags"])
    found["bins"] = {
        name: [np.nan if value is None else value for value in values]
        for name, values in found["bins"].items()
    }
    return CutClosure(**found)
