"""Tables of efficiencies as histograms and as files: CSV, Parquet, ROOT."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arrays import FloatArray
from pidgan.errors import DatasetError, PidganError
from pidgan.files.tables import write_histograms, write_table
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
