"""Rows in memory as a tree: a DataFrame, a dict of arrays, an awkward or numpy array.

Whoever reads rows gets a `Source`. One of a file has a path, one of rows in memory has
the rows: `pidgan.files.tables` reads both alike, in chunks, of the stored types. A
value that is masked, null or None is NaN, as in Parquet. Columns of other things than
numbers are there, and reading them is an error that says what they are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, final

import awkward as ak
import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.arguments import brief, repair
from pidgan.errors import NtupleError
from pidgan.files.trees import RECORD, BranchType, Source, entry_shape, row_slices

Frame: TypeAlias = pd.DataFrame | Mapping[str, Any] | ak.Array | npt.NDArray[np.void]
"""Rows in memory: a DataFrame, a dict of arrays, an awkward array of records, or a
structured array of numpy."""

Rows: TypeAlias = str | Path | Frame | Sequence[str | Path | Frame]
"""Rows to read: a file, FILE:TREE, a pattern or an address, rows in memory, or
several of them."""

EXPECTED = (
    "a DataFrame, a dict of arrays, an awkward array of records or a structured array"
)

_NUMBERS = "biuf"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryTree:
    """Columns in memory.

    Attributes:
        rows: What the user gave.
        entries: Number of rows.
        columns: By name, a function that returns the values.
        repeated: By name, how often it stands there, if more than once.
        record: Lines that say how generated columns were made.
    """

    rows: Any
    entries: int
    columns: Mapping[str, Callable[[], Any]]
    repeated: Mapping[str, int] = field(default_factory=dict)
    record: tuple[str, ...] = ()

    @cached_property
    def _kinds(self) -> dict[str, tuple[BranchType | None, str]]:
        """By name, the type of numbers of a column, and its type in words."""
        return {name: self._kind(name) for name in self.columns}

    def _kind(self, name: str) -> tuple[BranchType | None, str]:
        if name in self.repeated:
            return None, f"{self.repeated[name]} columns of this name"
        return _kind_of(self.columns[name]())

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        return {name: text for name, (_, text) in self._kinds.items()}

    def branch_type(self, name: str) -> BranchType | None:
        return self._kinds[name][0]

    def stored_bytes(self, branches: Iterable[str]) -> int:
        kinds = (self.branch_type(name) for name in set(branches))
        return self.entries * sum(
            kind.number.itemsize * (kind.shape[0] or 1 if kind.shape else 1)
            for kind in kinds
            if kind is not None
        )

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[slice]:
        return row_slices(start, stop, chunk)

    def arrays(self, piece: slice, branches: Sequence[str]) -> dict[str, Any]:
        return {
            name: _numbers(self.columns[name](), piece, self.branch_type(name))
            for name in branches
        }


def is_frame(rows: Any) -> bool:
    """Return whether something is rows in memory."""
    is_structured = isinstance(rows, np.ndarray) and rows.dtype.names is not None
    is_records = isinstance(rows, ak.Array) and bool(rows.fields)
    return is_structured or is_records or isinstance(rows, pd.DataFrame | Mapping)


def is_rows(given: Any) -> bool:
    """Return whether something is rows in memory, a path, or several of these."""
    if isinstance(given, str | Path) or is_frame(given):
        return True
    is_listed = isinstance(given, list | tuple) and len(given) > 0
    return is_listed and all(isinstance(one, str | Path) for one in given)


def frame_source(rows: Any, name: str = "") -> Source:
    """Return rows in memory as a source, which messages name.

    A TypeError says that they are something else, an NtupleError that columns have no
    names or different lengths.
    """
    if not is_frame(rows):
        shown = f"{brief(rows)} ({type(rows).__name__})"
        fix = repair(name or "frame", rows)
        raise TypeError(f"{name or 'frame'} is {shown}, expected {EXPECTED}{fix}")
    where = name or _title(rows)
    make = _tree_of_frame if isinstance(rows, pd.DataFrame) else _tree_of_arrays
    return Source(where, table=make(rows, where))


def record_of(rows: Any) -> tuple[str, ...]:
    """Return the lines that say how generated columns of a frame were made."""
    found = getattr(rows, "attrs", {}).get(RECORD, ())
    is_text = isinstance(found, list | tuple) and all(isinstance(n, str) for n in found)
    return tuple(found) if is_text else ()


def with_columns(
    source: Source, fresh: Mapping[str, Any], *, keep: bool, record: Sequence[str]
) -> Any:
    """Return a copy of rows with new columns, or these alone, and with their record.

    Rows of an awkward array stay one, others become a DataFrame with their index.
    """
    rows = source.table.rows
    if isinstance(rows, ak.Array):
        names = rows.fields if keep else []
        old = {name: rows[name] for name in names if name not in fresh}
        attrs = {**rows.attrs, RECORD: list(record)}
        return ak.zip({**old, **fresh}, depth_limit=1, attrs=attrs)
    index = rows.index if isinstance(rows, pd.DataFrame) else None
    new = pd.DataFrame(dict(fresh), index=index, copy=False)
    if keep:
        frame = rows if isinstance(rows, pd.DataFrame) else as_dataframe(rows)
        places = [i for i, name in enumerate(frame.columns) if name not in new.columns]
        new = pd.concat([frame.iloc[:, places], new], axis=1)
        new.attrs = dict(frame.attrs)
    new.attrs[RECORD] = list(record)
    return new


def as_dataframe(rows: Any, name: str = "") -> pd.DataFrame:
    """Return rows in memory as a DataFrame, with all columns of one value per row."""
    if isinstance(rows, pd.DataFrame):
        return rows
    source = frame_source(rows, name)
    nested = [
        column
        for column, kind in source.table._kinds.items()
        if kind[0] is not None and kind[0].shape
    ]
    if nested:
        raise NtupleError(
            f"{source}: column {nested[0]!r} has several values per row, which a "
            "DataFrame cannot hold; give an awkward array"
        )
    # A Series would bring its index, by which pandas sorts the rows.
    columns: dict[str, Any] = {}
    for column, find in source.table.columns.items():
        values, kind = find(), source.table.branch_type(column)
        if kind is not None:
            columns[column] = _numbers(values, slice(None), kind)
        else:
            columns[column] = values.array if isinstance(values, pd.Series) else values
    return pd.DataFrame(columns)


def fits_dataframe(rows: Any, shapes: Iterable[tuple[int | None, ...]]) -> bool:
    """Return whether new columns of these shapes have a place beside rows."""
    return isinstance(rows, ak.Array) or not any(shapes)


def _title(rows: Any) -> str:
    """Return what messages call rows in memory."""
    if isinstance(rows, pd.DataFrame):
        return "the DataFrame"
    if isinstance(rows, ak.Array):
        return "the awkward array"
    return "the dict" if isinstance(rows, Mapping) else "the structured array"


def _tree_of_frame(frame: pd.DataFrame, where: str) -> MemoryTree:
    """Return the columns of a DataFrame, and the named levels of its index."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise NtupleError(
            f"{where}: its columns have {frame.columns.nlevels} levels of names, "
            "expected one name each; join them first, frame.columns = "
            "frame.columns.map('_'.join)"
        )
    columns: dict[str, Callable[[], Any]] = {}
    counts: dict[str, int] = {}
    for place, name in enumerate(frame.columns):
        if isinstance(name, str):
            columns[name] = lambda place=place: frame.iloc[:, place]  # type: ignore[misc]
            counts[name] = counts.get(name, 0) + 1
    if len(frame.columns) and not columns:
        listed = ", ".join(map(repr, frame.columns[:5]))
        raise NtupleError(f"{where}: its columns are {listed}, expected names")
    for level in frame.index.names:
        if isinstance(level, str) and level not in columns:
            columns[level] = lambda level=level: frame.index.get_level_values(level)  # type: ignore[misc]
    return MemoryTree(
        rows=frame,
        entries=len(frame),
        columns=columns,
        repeated={name: n for name, n in counts.items() if n > 1},
        record=record_of(frame),
    )


def _tree_of_arrays(rows: Any, where: str) -> MemoryTree:
    """Return the columns of a dict of arrays, or the fields of an array."""
    if isinstance(rows, Mapping):
        found = {name: _as_column(name, v, where) for name, v in rows.items()}
        _check_indexes(found, where)
    else:
        if rows.ndim != 1:
            raise NtupleError(f"{where} has {rows.ndim} axes, expected one, of rows")
        names = rows.fields if isinstance(rows, ak.Array) else rows.dtype.names
        found = {name: rows[name] for name in names}
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        first, *rest = lengths.items()
        other = next(pair for pair in rest if pair[1] != first[1])
        raise NtupleError(
            f"{where}: columns have different lengths, {first[0]!r} has {first[1]} "
            f"rows and {other[0]!r} has {other[1]}"
        )
    entries = next(iter(lengths.values()), 0)
    return MemoryTree(
        rows=rows,
        entries=entries,
        columns={name: lambda v=v: v for name, v in found.items()},  # type: ignore[misc]
        record=record_of(rows),
    )


def _as_column(name: Any, values: Any, where: str) -> Any:
    """Return a value of a dict as a column; raise if it is none."""
    if not isinstance(name, str):
        raise NtupleError(f"{where}: {brief(name)} is no name of a column")
    if isinstance(values, pd.Series | pd.Index | np.ndarray | ak.Array):
        column = values
    elif isinstance(values, pd.api.extensions.ExtensionArray):
        column = pd.Series(values)
    else:
        try:
            column = np.asarray(values)
        except ValueError:
            column = np.asarray(None)
    if not column.ndim:
        raise NtupleError(
            f"{where}: column {name!r} is {brief(values)}, expected an array with a "
            "value for each row"
        )
    return column


def _check_indexes(columns: Mapping[str, Any], where: str) -> None:
    """Raise if Series of a dict have rows in different orders."""
    series = {n: v for n, v in columns.items() if isinstance(v, pd.Series)}
    first = next(iter(series), None)
    for name, values in series.items():
        if not values.index.equals(series[str(first)].index):
            raise NtupleError(
                f"{where}: Series {first!r} and {name!r} have different indexes; make "
                "a DataFrame of them, or give arrays"
            )


def _kind_of(values: Any) -> tuple[BranchType | None, str]:
    """Return the type of numbers of a column, None for others, and the type as text."""
    if isinstance(values, ak.Array):
        return _awkward_kind(values.type.content), str(values.type.content)
    dtype, text = _plain_type(values), str(values.dtype)
    if dtype is None or dtype.kind not in _NUMBERS:
        return None, text
    shape = entry_shape(values.shape[1:]) if values.ndim > 1 else ()
    kind = BranchType(dtype.newbyteorder("="), shape)
    return kind, str(kind) if isinstance(values, np.ndarray) else text


def _plain_type(values: Any) -> np.dtype[Any] | None:
    """Return the numpy type of the values of a column, None if there is none."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        found = dtype.categories.dtype
        return found if isinstance(found, np.dtype) else None
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    if not isinstance(dtype, np.dtype):
        dtype = getattr(dtype, "numpy_dtype", None)
    return dtype if isinstance(dtype, np.dtype) else None


def _awkward_kind(kind: Any) -> BranchType | None:
    """Return the type of the numbers of an awkward column."""
    kind = kind.content if isinstance(kind, ak.types.OptionType) else kind
    shape: tuple[int | None, ...] = ()
    if kind.parameters.get("__array__") is not None:
        return None  # text
    if isinstance(kind, ak.types.ListType):
        kind, shape = kind.content, (None,)
    elif isinstance(kind, ak.types.RegularType):
        kind, shape = kind.content, entry_shape((kind.size,))
    kind = kind.content if isinstance(kind, ak.types.OptionType) else kind
    if not isinstance(kind, ak.types.NumpyType):
        return None
    number = np.dtype(kind.primitive)
    return BranchType(number, shape) if number.kind in _NUMBERS else None


def _numbers(values: Any, piece: slice, kind: BranchType | None) -> Any:
    """Return rows of a column: numpy (n,) or (n, k), or awkward (n, variable).

    Without a missing value, they have the type of the column.
    """
    if kind is None:
        raise NtupleError("a column holds no numbers")
    if isinstance(values, ak.Array):
        return _awkward_numbers(values[piece], kind)
    if isinstance(values, np.ndarray):
        array = _filled(values[piece])
        return np.ascontiguousarray(
            array.reshape(len(array), *kind.shape), array.dtype.newbyteorder("=")
        )
    part = values.iloc[piece] if isinstance(values, pd.Series) else values[piece]
    if isinstance(part.dtype, np.dtype):
        return np.asarray(part).astype(kind.number, copy=False)
    if part.isna().any():
        return np.asarray(part.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(part.to_numpy()).astype(kind.number, copy=False)


def _filled(array: Any) -> Any:
    """Return a masked array as a plain one, in which masked values are NaN."""
    if not np.ma.isMaskedArray(array):
        return array
    if not np.ma.is_masked(array):
        return array.data
    return np.ma.filled(array.astype(np.float64), np.nan)


def _awkward_numbers(part: ak.Array, kind: BranchType) -> Any:
    """Return rows of an awkward column."""
    if kind.shape == ():
        flat = ak.flatten(part, axis=None) if part.ndim > 1 else part
        return _filled(ak.to_numpy(flat, allow_missing=True))
    if isinstance(part.type.content, ak.types.OptionType):
        if kind.shape != (None,):
            raise NtupleError("a column holds None, expected lists")
        part = ak.fill_none(part, [], axis=0)
    if isinstance(part.type.content.content, ak.types.OptionType):
        part = ak.fill_none(part, np.nan, axis=-1)
    if kind.shape == (None,):
        return ak.to_packed(part)
    return np.asarray(ak.to_numpy(part)).reshape(len(part), *kind.shape)
