"""Efficiency maps as correction tables of Belle II: a CSV file and its covariance.

The `Reweighter` of basf2 (`sysvar.py`) and the package SysVar read a table with a row
for each bin: `NAME_min` and `NAME_max` for each variable, `data_MC_ratio`, and its
uncertainties `data_MC_uncertainty_stat_up`, `_stat_dn`, `_sys_up` and `_sys_dn`. The
ratio is the corrected efficiency over that of the generated columns: a weight for
candidates that pass the cut. SysVar takes the covariance between rows from a file of
its own. `stat` is the calibration sample, `sys` are all variations of the map.
"""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.errors import MapError
from pidgan.files.writing import refuse_existing, writing_files
from pidgan.sample.cuts import parse_cut

LEAST = 1e-6
"""Generated efficiency of a bin below which there is no ratio."""


@checked
def sysvar_table(
    efficiency_map: EfficiencyMap | str | Path,
    cut: str,
    *,
    hypothesis: int | None = None,
) -> tuple[pd.DataFrame, FloatArray]:
    """Return a cut of a map as a table of SysVar, and the covariance of its ratios.

    Args:
        efficiency_map: The map, or its file.
        cut: Cut that it holds.
        hypothesis: PDG id of the particle that candidates are reconstructed as; by
            default the species of the map, so that the table is of an efficiency.
            Another one makes it the table of a misID.

    Returns:
        A row for each bin with an efficiency, and the covariance (n, n) of
        `data_MC_ratio`, statistical and systematic. Edges are in the units of the map.

    Raises:
        MapError: The map does not hold the cut, or is itself a table without a
            generator.

    Example:
        >>> table, covariance = sysvar_table("demo-kaon", "RichDLLk > 0")
        >>> table["data_MC_ratio"].round(1).median()
        np.float64(1.0)
    """
    own = EfficiencyMap.open(efficiency_map)
    if own.is_table:
        raise MapError(
            f"{own.metadata['name']} is a table of efficiencies: it has no generator "
            "whose columns a ratio could weight"
        )
    i = own.cut_index(cut)
    generated = own.generated[i]
    use = np.flatnonzero(generated > LEAST)
    if not len(use):
        raise MapError(f"no bin of the map has generated rows that pass {cut!r}")
    frame = own.frame()
    frame = frame[frame["cut"] == own.cuts[i]].iloc[use]
    columns: dict[str, Any] = {}
    for name in own.binning:
        for end, short in (("low", "min"), ("high", "max")):
            columns[f"{name}_{short}"] = frame[f"{name}_{end}"].to_numpy()
    scale = 1 / generated[use]
    stat = own.covariance[i][np.ix_(use, use)] * scale * scale[:, np.newaxis]
    moved = [shift[i][use] * scale for shift in own.variations.values()]
    syst = sum((np.outer(s, s) for s in moved), start=np.zeros_like(stat))
    columns["data_MC_ratio"] = own.nominal[i][use] * scale
    for kind, part in (("stat", stat), ("sys", syst)):
        for end in ("up", "dn"):
            columns[f"data_MC_uncertainty_{kind}_{end}"] = np.sqrt(np.diag(part))
    pdgid = int(own.metadata["pdgid"])
    columns |= {"PDG": pdgid if hypothesis is None else hypothesis, "mcPDG": pdgid}
    columns |= dict(zip(("variable", "threshold"), _threshold(own, cut), strict=True))
    return pd.DataFrame(columns), np.asarray(stat + syst)


@checked
def write_sysvar_table(
    efficiency_map: EfficiencyMap | str | Path,
    path: str | Path,
    cut: str,
    *,
    hypothesis: int | None = None,
    overwrite: bool = False,
) -> tuple[Path, Path]:
    """Write `sysvar_table`: TABLE.csv, and TABLE_cov.npy with the covariance.

    Args:
        efficiency_map: The map, or its file.
        path: File of the table, .csv.
        cut: Cut that the map holds.
        hypothesis: As in `sysvar_table`.
        overwrite: Whether to replace existing files.
    """
    path = Path(path)
    if path.suffix != ".csv":
        raise ValueError(f"path is {str(path)!r}, expected .csv")
    table, covariance = sysvar_table(efficiency_map, cut, hypothesis=hypothesis)
    beside = path.with_name(f"{path.stem}_cov.npy")
    refuse_existing(beside, overwrite=overwrite)
    with writing_files([path, beside], overwrite=overwrite) as (first, second):
        table.to_csv(first, index=False)
        with second.open("wb") as file:
            np.save(file, covariance)
    return path, beside


def _threshold(own: EfficiencyMap, cut: str) -> tuple[str, float]:
    """Return variable and threshold of a cut "x > 5"; of others, the cut and 1."""
    parsed = parse_cut(cut, names=own.names, aliases=own.aliases)
    tree = ast.parse(parsed.canonical, mode="eval").body
    if isinstance(tree, ast.Compare) and len(tree.ops) == 1:
        left, right = tree.left, tree.comparators[0]
        is_above = isinstance(tree.ops[0], ast.Gt | ast.GtE)
        if is_above and isinstance(left, ast.Name):
            try:
                return left.id, float(ast.literal_eval(right))
            except ValueError:
                pass
    return cut, 1.0
