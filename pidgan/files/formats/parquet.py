"""Parquet files, one table each, by pyarrow."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import awkward as ak
import numpy as np

from pidgan.errors import NtupleError
from pidgan.files.trees import BASKET_ENTRIES, BranchType, Copy, CopyPlan, Format


@final
@dataclass(frozen=True)
class ParquetTable:
    """The table of an open Parquet file."""

    file: Any

    @property
    def entries(self) -> int:
        return int(self.file.metadata.num_rows)

    def typenames(self) -> dict[str, str]:
        return {field.name: str(field.type) for field in self.file.schema_arrow}

    def names(self) -> list[str]:
        return list(self.file.schema_arrow.names)

    def branch_type(self, name: str) -> BranchType | None:
        import pyarrow as pa

        kind = self.file.schema_arrow.field(name).type
        shape: tuple[int | None, ...] = ()
        if pa.types.is_fixed_size_list(kind):
            kind, shape = kind.value_type, (kind.list_size,)
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

    def arrays(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[dict[str, Any]]:
        for batch in self.batches(branches, start=start, stop=stop, chunk=chunk):
            yield _arrays(batch, branches)

    def batches(
        self, columns: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        """Yield pyarrow batches of a range of rows."""
        metadata = self.file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        groups = [
            i
            for i in range(len(sizes))
            if ends[i] > start and ends[i] - sizes[i] < stop
        ]
        if not groups:
            return
        position = int(ends[groups[0]] - sizes[groups[0]])
        for batch in self.file.iter_batches(chunk, row_groups=groups, columns=columns):
            first, last = max(start - position, 0), min(stop - position, batch.num_rows)
            position += batch.num_rows
            if first < last:
                yield batch.slice(first, last - first)

    def unwritable(self) -> dict[str, str]:
        return {}

    def copy(self, new: Any, name: str, plan: CopyPlan) -> Copy:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self.file.schema_arrow if plan.kept else pa.schema([])
        for column, kind in plan.added.items():
            if schema.get_field_index(column) < 0:
                schema = schema.append(pa.field(column, _arrow_type(kind)))
        path, stack = new
        writer = stack.enter_context(pq.ParquetWriter(path, schema))
        return _ParquetCopy(table=self, schema=schema, writer=writer, plan=plan)


@final
@dataclass(frozen=True, kw_only=True)
class _ParquetCopy:
    """A table that is being copied; its pieces are pyarrow batches."""

    table: ParquetTable
    schema: Any
    writer: Any
    plan: CopyPlan
    notes: Sequence[str] = ()

    def pieces(self) -> Iterator[tuple[int, Any]]:
        first, rows = 0, {"start": 0, "stop": self.table.entries}
        for batch in self.table.batches(self.plan.read, chunk=self.plan.rows, **rows):
            yield first, batch
            first += batch.num_rows

    def needed(self, piece: Any) -> dict[str, Any]:
        return _arrays(piece, self.plan.needed)

    def join(self, piece: Any, fresh: Mapping[str, Any]) -> Any:
        import pyarrow as pa

        data = {name: piece.column(name) for name in self.plan.kept} | {
            name: _arrow_column(array, self.schema.field(name).type)
            for name, array in fresh.items()
        }
        return pa.table(data, schema=self.schema)

    def write(self, piece: Any) -> None:
        self.writer.write_table(piece)


def _arrays(batch: Any, columns: Sequence[str]) -> dict[str, Any]:
    """Return columns of a pyarrow batch as arrays, a null as NaN or as no number."""
    return {name: _array(batch.column(name), name) for name in columns}


def _array(column: Any, name: str) -> Any:
    """Return an arrow column as numpy, or awkward if lists vary in length."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_fixed_size_list(column.type):
        if column.null_count:
            raise NtupleError(f"column {name!r} holds a null, expected lists")
        return _array(column.flatten(), name).reshape(len(column), -1)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        counts = pc.fill_null(pc.list_value_length(column), 0)
        return ak.unflatten(_array(column.flatten(), name), np.asarray(counts))
    if column.null_count:
        column = column.cast("float64").fill_null(np.nan)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _arrow_type(kind: BranchType) -> Any:
    """Return the arrow type of a new column."""
    import pyarrow as pa

    number = pa.from_numpy_dtype(kind.number)
    if kind.shape == ():
        return number
    return pa.list_(number, -1 if kind.shape == (None,) else int(kind.shape[0] or 0))


def _arrow_column(values: Any, kind: Any) -> Any:
    """Return an array as an arrow column of a type."""
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values).cast(kind)
    if isinstance(values, np.ndarray):
        size = values.shape[1]
        return pa.FixedSizeListArray.from_arrays(values.reshape(-1), size).cast(kind)
    return ak.to_arrow(values, extensionarray=False).cast(kind)


@contextlib.contextmanager
def _open(path: str) -> Iterator[Any]:
    import fsspec
    import pyarrow.parquet as pq

    with fsspec.open(path, "rb") as stream, pq.ParquetFile(stream) as file:
        yield file


@contextlib.contextmanager
def _create(path: Path) -> Iterator[Any]:
    """Give a path, and the stack on which the writer of the new file lies."""
    with contextlib.ExitStack() as stack:
        yield path, stack


def _write(
    new: Any, name: str, arrays: Mapping[str, Any], counters: Mapping[str, str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: ak.to_arrow(ak.Array(array), extensionarray=False)
        for name, array in arrays.items()
    }
    pq.write_table(pa.table(columns), new[0], row_group_size=BASKET_ENTRIES)


FORMAT = Format(
    name="Parquet",
    suffixes=(".parquet", ".pq"),
    magic=b"PAR1",
    open=_open,
    tree=lambda file, name: ParquetTable(file),
    create=_create,
    write=_write,
)
