"""Tables of efficiencies as histograms and as files: CSV, Parquet, ROOT."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arrays import FloatArray
from pidgan.efficiency.binning import edge_columns
from pidgan.errors import DatasetError, PidganError, nearest
from pidgan.files.seals import reason
from pidgan.files.tables import read_table, write_histograms, write_table
from pidgan.files.writing import writing_file

SUFFIXES = (".csv", ".parquet", ".root")


def check_suffix(path: str | Path) -> None:
    """Raise a ValueError if no format belongs to the name of a file."""
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected .csv, .parquet or .root")


def save_tables(
    path: str | Path,
    frame: pd.DataFrame,
    tables: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the rows of tables, or a ROOT histogram `NAME_1` ... for each cut."""
    check_suffix(path)
    output = Path(path)
    if output.suffix == ".parquet":
        write_table(output, frame, overwrite=overwrite)
        return output
    if output.suffix == ".csv":
        with writing_file(output, overwrite=overwrite) as temporary:
            frame.to_csv(temporary, index=False)
        return output
    axes = len(next(iter(tables.values())).binning)
    if not 1 <= axes <= 3:
        raise PidganError(
            f"{output}: ROOT histograms have 1 to 3 axes, got {axes}; choose .csv or "
            ".parquet"
        )
    histograms = {
        f"{name}_{i + 1}": table.to_hist()[i, ...]
        for name, table in tables.items()
        for i in range(len(table.cuts))
    }
    write_histograms(output, histograms, overwrite=overwrite)
    return output


def read_table_frame(path: str | Path) -> pd.DataFrame:
    """Return the rows of a file of a table; a DatasetError if it is none."""
    file = Path(path)
    if file.suffix == ".pkl":
        raise DatasetError(
            f"{path} is a pickle, which can run code when it is opened; open it where "
            "you trust it, make a table with EfficiencyTable.from_hists(total, "
            "passed), and save that as .csv"
        )
    if file.suffix not in (".csv", ".parquet"):
        raise DatasetError(f"{path}: expected a table in a file .csv or .parquet")
    if not file.is_file():
        siblings = os.listdir(file.parent) if file.parent.is_dir() else []
        raise DatasetError(
            f"{path}: no such table of efficiencies{nearest(file.name, siblings)}"
        )
    try:
        frame = pd.read_csv(file) if file.suffix == ".csv" else read_table(file)
    except (ValueError, OSError, UnicodeError, PidganError) as error:
        raise DatasetError(f"{path} cannot be read: {reason(error)}") from None
    needed = ("cut", "efficiency", "variance", "sum_weights", "n_eff_passed", "status")
    for name in needed:
        if name not in frame or not len(frame):
            hint = ""
            if "real_efficiency" in frame:
                hint = "; this is real against generated, give the table of a DATASET"
            raise DatasetError(
                f"{path} has no column {name!r}, expected what `pidgan table DATASET "
                f"-o` writes{hint}"
            )
    return frame


def edges_of_frame(frame: pd.DataFrame) -> dict[str, tuple[float, ...]]:
    """Return the edges of the bins of one cut; a ValueError if they are no grid."""
    names = [
        str(name).removesuffix("_low")
        for name in frame
        if str(name).endswith("_low")
        and f"{str(name).removesuffix('_low')}_high" in frame
    ]
    edges = {}
    for name in names:
        low, high = frame[f"{name}_low"], frame[f"{name}_high"]
        found = np.unique(np.concatenate([low, high]).astype(np.float64))
        edges[name] = tuple(map(float, found))
    columns = edge_columns(edges, 1)
    for name, values in columns.items():
        if len(values) != len(frame) or not np.array_equal(values, frame[name]):
            raise ValueError(f"its bins in {name!r} are no grid, or not in order")
    return edges


def weight_histogram(
    edges: Mapping[str, Sequence[float]],
    values: FloatArray,
    variances: FloatArray,
    *,
    name: str,
    cuts: Sequence[str] = (),
) -> Any:
    """Return a `hist.Hist` with storage `Weight`; cuts, if any, are its first axis."""
    import hist

    axes = [hist.axis.StrCategory(list(cuts), name="cut")] if cuts else []
    axes += [
        hist.axis.Variable(
            list(bins), name=condition, label=condition, overflow=False, underflow=False
        )
        for condition, bins in edges.items()
    ]
    result = hist.Hist(*axes, storage=hist.storage.Weight(), name=name)
    view = result.view(flow=False)
    view["value"], view["variance"] = values, variances
    return result


def axis_edges(histogram: Any) -> dict[str, tuple[float, ...]]:
    """Return the edges of the axes by their name, or by "name" of their metadata."""
    edges = {}
    for i, axis in enumerate(histogram.axes):
        metadata = getattr(axis, "metadata", None)
        named = metadata.get("name") if isinstance(metadata, Mapping) else None
        name = str(getattr(axis, "name", "") or named or f"axis_{i}")
        edges[name] = tuple(map(float, axis.edges))
    return edges


def weight_sums(name: str, histogram: Any) -> FloatArray:
    """Return the sums of w and of w^2 of a histogram, (2, ...)."""
    view = histogram.view(flow=False)
    if view.dtype.names is None or not {"value", "variance"} <= set(view.dtype.names):
        raise DatasetError(
            f"histogram {name!r} has no sums of squared weights, expected the storage "
            "Weight"
        )
    return np.array([view["value"], view["variance"]])
