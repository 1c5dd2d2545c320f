"""Parquet files, one table each, by pyarrow."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import awkward as ak
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pidgan.errors import NtupleError
from pidgan.files.trees import (
    BASKET_ENTRIES,
    RECORD,
    Addition,
    Append,
    BranchType,
    Format,
    PlainTree,
    entry_shape,
    remote_options,
)

_RECORD = RECORD.encode()


@final
@dataclass(frozen=True)
class ParquetTable(PlainTree):
    """The table of an open Parquet file."""

    file: Any

    @property
    def entries(self) -> int:
        return int(self.file.metadata.num_rows)

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        return {field.name: str(field.type) for field in self.file.schema_arrow}

    def branch_type(self, name: str) -> BranchType | None:
        kind = self.file.schema_arrow.field(name).type
        shape: tuple[int | None, ...] = ()
        if pa.types.is_fixed_size_list(kind):
            kind, shape = kind.value_type, entry_shape((kind.list_size,))
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind, shape = kind.value_type, (None,)
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if not is_number and not pa.types.is_boolean(kind):
            return None
        return BranchType(np.dtype(kind.to_pandas_dtype()), shape)

    def stored_bytes(self, branches: Iterable[str]) -> int:
        wanted, metadata = frozenset(branches), self.file.metadata
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        columns = (
            group.column(j) for group in groups for j in range(group.num_columns)
        )
        return sum(
            column.total_uncompressed_size
            for column in columns
            if column.path_in_schema.partition(".")[0] in wanted
        )

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        metadata = self.file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        groups = np.flatnonzero((ends > start) & (ends - sizes < stop)).tolist()
        if not groups:
            return
        position = int(ends[groups[0]] - sizes[groups[0]])
        for batch in self.file.iter_batches(chunk, row_groups=groups, columns=branches):
            first, last = max(start - position, 0), min(stop - position, batch.num_rows)
            position += batch.num_rows
            if first < last:
                yield batch.slice(first, last - first)

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        return {name: _array(piece.column(name), name) for name in branches}

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        schema = self.file.schema_arrow if kept else pa.schema([])
        # Key-value metadata of the file: the record is written in the end.
        rest = {k: v for k, v in (schema.metadata or {}).items() if k != _RECORD}
        schema = schema.with_metadata(rest or None)
        for column, kind in addition.types.items():
            field = pa.field(column, _arrow_type(kind))
            place = schema.get_field_index(column)
            if place < 0:
                schema = schema.append(field)
            elif pa.types.is_boolean(schema.field(place).type):
                schema = schema.set(place, field)  # flags may become numbers
        writer = new.stack.enter_context(pq.ParquetWriter(new.path, schema))
        new.writers.append(writer)

        def append(piece: Any, fresh: Mapping[str, Any]) -> None:
            data = {name: piece.column(name) for name in kept} | {
                name: _arrow_column(array, schema.field(name).type)
                for name, array in fresh.items()
            }
            writer.write_table(pa.table(data, schema=schema))

        return append


def _array(column: Any, name: str) -> Any:
    """Return a column as numpy or awkward; a null is NaN, or no number of a list."""
    if pa.types.is_fixed_size_list(column.type):
        if column.null_count:
            raise NtupleError(f"column {name!r} holds a null, expected lists")
        size = entry_shape((column.type.list_size,))
        return _array(column.flatten(), name).reshape(len(column), *size)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        counts = pc.fill_null(pc.list_value_length(column), 0)
        return ak.unflatten(_array(column.flatten(), name), np.asarray(counts))
    if column.null_count:
        column = column.cast("float64").fill_null(np.nan)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _arrow_type(kind: BranchType) -> Any:
    """Return the arrow type of a new column."""
    number = pa.from_numpy_dtype(kind.number)
    if kind.shape == ():
        return number
    return pa.list_(number, -1 if kind.shape == (None,) else int(kind.shape[0] or 0))


def _arrow_column(values: Any, kind: Any) -> Any:
    """Return an array as an arrow column of a type."""
    if values.ndim == 1 and not pa.types.is_fixed_size_list(kind):
        return pa.array(values).cast(kind)
    if isinstance(values, np.ndarray):
        size = kind.list_size
        return pa.FixedSizeListArray.from_arrays(values.reshape(-1), size).cast(kind)
    return ak.to_arrow(values, extensionarray=False).cast(kind)


@contextlib.contextmanager
def _open(path: str) -> Iterator[Any]:
    with (
        fsspec.open(path, "rb", **remote_options(path)) as stream,
        pq.ParquetFile(stream) as file,
    ):
        yield file


@dataclass(frozen=True)
class _NewFile:
    """A path, the writer of the file once there is one, and the stack that ends it."""

    path: Path
    stack: contextlib.ExitStack
    writers: list[Any] = field(default_factory=list)


@contextlib.contextmanager
def _create(path: Path) -> Iterator[_NewFile]:
    with contextlib.ExitStack() as stack:
        yield _NewFile(path, stack)


def _read_record(file: Any) -> list[str]:
    found = file.metadata.metadata or {}
    return found[_RECORD].decode().splitlines() if _RECORD in found else []


def _write_record(new: _NewFile, lines: Sequence[str]) -> None:
    for writer in new.writers:
        writer.add_key_value_metadata({_RECORD: "\n".join(lines)})


def _write(
    new: Any, name: str, arrays: Mapping[str, Any], counters: Mapping[str, str]
) -> None:
    columns = {
        name: ak.to_arrow(ak.Array(array), extensionarray=False)
        for name, array in arrays.items()
    }
    pq.write_table(pa.table(columns), new.path, row_group_size=BASKET_ENTRIES)


FORMAT = Format(
    name="Parquet",
    suffixes=(".parquet", ".pq"),
    magic=b"PAR1",
    open=_open,
    tree=lambda file, name: ParquetTable(file),
    create=_create,
    write=_write,
    read_record=_read_record,
    write_record=_write_record,
)
