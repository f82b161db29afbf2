"""Parquet tables that are written in parts of rows, and read by part or by column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ctypes import CDLL
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forgetfilter.files import open_atomic

PART_ROWS = 2**15
"""Rows that are held at once."""

Column = npt.NDArray[Any]


def write_parts(path: Path, frames: Iterable[pd.DataFrame]) -> None:
    """Write the rows of all ``frames``, which have the same columns, whole or not at all.

    Each becomes a row group.
    """
    import pyarrow as pa
    from pyarrow import parquet

    parts = iter(frames)
    frame = next(parts, None)
    assert frame is not None
    schema = _schema_of(pa.Table.from_pandas(frame, preserve_index=False))
    is_first = True
    with open_atomic(path) as file, parquet.ParquetWriter(file, schema) as writer:
        while frame is not None:
            table = pa.Table.from_pandas(frame, schema, preserve_index=False)
            del frame  # of two parts one at a time is held
            writer.write_table(table)
            del table
            frame = next(parts, None)
            if not is_first or frame is not None:
                give_back()
            is_first = False


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    write_parts(path, (frame.iloc[own] for own in slices_of(len(frame))))


def slices_of(rows: int) -> Iterator[slice]:
    """Which rows each part holds; there is one at least."""
    return (slice(at, at + PART_ROWS) for at in range(0, max(rows, 1), PART_ROWS))


def _schema_of(table: Any) -> Any:
    """A table's schema; a column without a value yet is one of text."""
    import pyarrow as pa

    schema = table.schema
    for at, field in enumerate(schema):
        if pa.types.is_null(field.type):
            schema = schema.set(at, field.with_type(pa.string()))
    return schema.with_metadata(table.schema.metadata)


def read_parts(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Some columns, `PART_ROWS` rows at a time; those that the file doesn't have are left out."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        # Nothing here holds a part while the next one is read.
        yield from map(_as_frame, file.iter_batches(PART_ROWS, columns=there))


def _as_frame(batch: Any) -> pd.DataFrame:
    return batch.to_pandas(use_threads=False)


def names_in(path: Path) -> list[str]:
    """The columns of a table."""
    from pyarrow import parquet

    return list(parquet.read_schema(path).names)


def read_column(path: Path, name: str) -> Column:
    """One column of a table, shape (N,)."""
    numbers = _read_numbers(path, name)
    if numbers is None:
        return pd.read_parquet(path, columns=[name])[name].to_numpy()
    return numbers


def _read_numbers(path: Path, name: str) -> Column | None:
    """A column of numbers, of which only a part is there twice; None where it is something else."""
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        if name not in file.schema_arrow.names:
            return None
        kind = file.schema_arrow.field(name).type
        is_real = pa.types.is_floating(kind)
        if not (is_real or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            return None
        found = np.empty(file.metadata.num_rows, dtype=kind.to_pandas_dtype())
        start = 0
        for batch in file.iter_batches(PART_ROWS, columns=[name], use_threads=False):
            if batch.column(0).null_count and not is_real:
                return None
            found[start : start + len(batch)] = batch.column(0).to_numpy(zero_copy_only=False)
            start += len(batch)
    if start > PART_ROWS:
        give_back()
    return found


def give_back() -> None:
    """Give the system what allocators keep of memory that is no longer used, as far as they can."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # another C library
        CDLL("libc.so.6").malloc_trim(0)


class LazyColumns(Mapping[str, Column]):
    """Columns that are read, or made, each time they are asked for: only names are held.

    Args:
        makers: by name, what makes the column.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Column]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> Column:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __contains__(self, name: object) -> bool:
        return name in self._makers


def columns_of(path: Path, without: Sequence[str] = ()) -> Mapping[str, Column]:
    """The columns of a table; each read when it is asked for, where the table has many rows."""
    from pyarrow import parquet

    names = [name for name in names_in(path) if name not in without]
    if parquet.read_metadata(path).num_rows <= PART_ROWS:
        frame = pd.read_parquet(path, columns=names)
        return {str(name): frame[name].to_numpy() for name in frame.columns}
    return LazyColumns({name: lambda name=name: read_column(path, name) for name in names})
