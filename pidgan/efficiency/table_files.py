"""Tables of efficiencies as files: CSV, Parquet, or ROOT histograms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pidgan.errors import PidganError
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
    """Write tables of efficiencies in the format that the name of the file says.

    Args:
        path: File, .csv, .parquet, or .root for histograms.
        frame: Rows of the tables, for .csv and .parquet.
        tables: `EfficiencyTable` by name, for histograms `NAME_1`, one for each cut.
        overwrite: Replace an existing file.

    Raises:
        PidganError: A histogram would have more than three axes or none.
    """
    output = Path(path)
    check_suffix(output)
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
