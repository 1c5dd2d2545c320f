"""The columns of an efficiency table, from memory or from files, and its cuts."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pidgan.arrays import BoolArray, IntArray
from pidgan.efficiency import binning as bins
from pidgan.efficiency import sorted_rows
from pidgan.errors import CutError, DatasetError, PidganWarning, nearest
from pidgan.files import tables
from pidgan.files.frames import Rows, frame_source
from pidgan.sample.cuts import Cut, cut_texts, parse_cut
from pidgan.sample.events import usual_key
from pidgan.sample.stored import as_column, equals_any

Weights: TypeAlias = NDArray[Any] | Sequence[float] | str
"""Weights (n,) of rows, or the name of their column."""


def read_columns(
    frame: Rows,
    cuts: str | Sequence[str],
    where: str | None,
    binning: bins.Binning | None,
    weights: Weights | None,
    aliases: Mapping[str, str] | None,
    key: Sequence[str] | None = None,
) -> tuple[bins.Columns, ArrayLike | None]:
    """Return the columns that are needed, and the weights.

    The key of an event is that of usual branches if it is empty, and none if it is
    None.
    """
    by_name = weights if isinstance(weights, str) else None
    columns: bins.Columns
    if isinstance(frame, pd.DataFrame | Mapping):
        columns = frame
        if isinstance(frame, Mapping):
            frame_source(frame)  # raises where values are no columns
        if by_name is not None and by_name not in columns:
            hint = nearest(by_name, map(str, columns))
            raise DatasetError(f"no column {by_name!r} for weights{hint}")
    else:
        sources = tables.find_sources(frame)
        known = list(tables.describe_tree(sources[0]).branches)
        parsed = parse_cuts(dict.fromkeys(known, np.zeros(0)), cuts, aliases)
        if where is not None:
            parsed += parse_cuts(dict.fromkeys(known, np.zeros(0)), where, aliases)
        needed = [name for cut in parsed for name in cut.names]
        needed += [*bins.by_condition(binning or {})]
        needed += [] if by_name is None else [by_name]
        needed += () if key is None else key or usual_key(known)
        names = list(dict.fromkeys(needed))
        columns = pd.concat(
            [tables.read_columns(source, names) for source in sources],
            ignore_index=True,
        )
    if by_name is None:
        return columns, weights
    try:
        return columns, as_column(columns[by_name])
    except ValueError as error:
        raise DatasetError(f"column {by_name!r} for weights {error}") from None


def parse_cuts(
    frame: bins.Columns, cuts: str | Sequence[str], aliases: Mapping[str, str] | None
) -> list[Cut]:
    """The cuts, checked against the columns."""
    names = list(map(str, frame))
    if not (texts := cut_texts(cuts)):
        raise ValueError("no cut given")
    return [parse_cut(text, names=names, aliases=aliases) for text in texts]


def choose_rows(
    frame: bins.Columns,
    where: str,
    weights: ArrayLike | None,
    sentinels: Mapping[str, tuple[float, ...]] | None,
    aliases: Mapping[str, str] | None,
) -> tuple[bins.Columns, ArrayLike | None]:
    """Return the rows that pass a cut, and their weights."""
    (cut,) = parse_cuts(frame, where, aliases)
    chosen = cut.passes(frame, sentinels)
    if not chosen.any():
        raise DatasetError(f"where {where!r}: none of the {len(chosen)} rows passes")
    if chosen.all():
        warnings.warn(
            f"where {where!r}: all {len(chosen)} rows pass; check name, unit and "
            "direction",
            PidganWarning,
            stacklevel=4,
        )
    w = None if weights is None else np.asarray(weights)
    if w is not None and w.shape != chosen.shape:
        raise ValueError(f"weights of shape {w.shape}, expected {chosen.shape}")
    left: bins.Columns
    if isinstance(frame, pd.DataFrame):
        left = frame.loc[chosen]
    else:
        left = {str(name): np.asarray(frame[name])[chosen] for name in frame}
    return left, None if w is None else w[chosen]


def passing_rows(
    frame: bins.Columns,
    cuts: Sequence[Cut],
    rows: sorted_rows.SortedRows,
    sentinels: Mapping[str, tuple[float, ...]] | None,
) -> tuple[BoolArray, IntArray]:
    """Whether rows pass, (n_cuts, m), and how many have no value for a cut."""
    columns: dict[str, NDArray[Any]] = {}
    unusable: dict[str, BoolArray] = {}
    for name in dict.fromkeys(name for cut in cuts for name in cut.names):
        try:
            columns[name] = as_column(frame[name])[rows.order]
        except ValueError as error:
            raise CutError(f"column {name!r} {error}") from None
        unusable[name] = ~np.isfinite(columns[name])
        unusable[name] |= equals_any(columns[name], (sentinels or {}).get(name, ()))
    lost = [np.any([unusable[name] for name in cut.names], axis=0) for cut in cuts]
    missing = np.count_nonzero(lost, axis=1)
    return np.array([cut.passes(columns, sentinels) for cut in cuts]), missing
