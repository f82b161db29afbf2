"""Parquet and Arrow: tables with typed columns, whose schema is kept as it is."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetfilter.data.containers.base import Container, Record, as_line, too_long
from forgetfilter.data.containers.table_bounds import check_table, damaged_table
from forgetfilter.data.formats.values import without_empty
from forgetfilter.errors import DataError
from forgetfilter.text import printable

_BATCH = 1000
_OF_COLUMNS = (b"huggingface", b"pandas")
"""What a schema says of each of its columns; it would be wrong of a table with more of them."""


class Parquet(Container):
    """A Parquet file."""

    name = "parquet"
    suffix = ".parquet"

    def records(self, data: bytes, limit: int) -> Iterator[Record]:
        """Every row of the table."""
        return _records(_parquet(data), limit)

    def subset(self, data: bytes, wanted: Sequence[int]) -> Iterable[bytes]:
        """The rows in a table of the same schema, with what it says beside the columns."""
        return self._some(data, wanted, {})

    def extended(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> Iterable[bytes]:
        """The same with more columns, or others in their place."""
        return self._some(data, wanted, columns)

    def _some(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> Iterable[bytes]:
        import pyarrow as pa
        from pyarrow import parquet

        table = _with_columns(_take(_parquet(data), wanted), columns)
        described = parquet.ParquetFile(pa.BufferReader(data)).metadata
        groups = described.num_row_groups and described.num_columns
        codec = described.row_group(0).column(0).compression if groups else "SNAPPY"
        buffer = io.BytesIO()
        # The codec is said, so that a file doesn't grow on its way.
        kind = "NONE" if codec == "UNCOMPRESSED" else codec
        parquet.write_table(table, buffer, compression=kind)
        return [buffer.getvalue()]


class Arrow(Container):
    """An Arrow file or stream."""

    name = "arrow"
    suffix = ".arrow"

    def records(self, data: bytes, limit: int) -> Iterator[Record]:
        """Every row of the table."""
        return _records(arrow_table(data), limit)

    def subset(self, data: bytes, wanted: Sequence[int]) -> Iterable[bytes]:
        """The rows in a file of the same schema, or in a stream, as it was."""
        return self._some(data, wanted, {})

    def extended(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> Iterable[bytes] | None:
        """The same with more columns, or others in their place."""
        return self._some(data, wanted, columns)

    def _some(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> Iterable[bytes]:
        import pyarrow as pa

        table = _with_columns(_take(arrow_table(data), wanted), columns)
        buffer = io.BytesIO()
        is_file = data.startswith(b"ARROW1")
        new = pa.ipc.new_file if is_file else pa.ipc.new_stream
        with new(buffer, table.schema) as writer:
            writer.write_table(table)
        return [buffer.getvalue()]


class SavedDataset(Arrow):
    """What `Dataset.save_to_disk` writes: a folder, stored in a run as one Arrow stream."""

    name = "dataset"
    suffix = ""

    def extended(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> None:
        """Nothing: such a folder is one of several files."""

    def write(self, data: bytes, wanted: Sequence[int], target: Path) -> None:
        """Write a folder that `datasets.load_from_disk` reads, whole or not at all."""
        import os

        from datasets import Dataset
        from datasets.table import InMemoryTable

        from forgetfilter.files import PART_SUFFIX, fsync_tree, remove

        part = target.parent / f".{target.name}{PART_SUFFIX}"
        remove(part)
        Dataset(InMemoryTable(_take(arrow_table(data), wanted))).save_to_disk(str(part))
        fsync_tree(part)
        remove(target)
        os.replace(part, target)


def is_arrow_stream(data: bytes) -> bool:
    """Whether bytes start like an Arrow stream, which has no mark of its own."""
    import pyarrow as pa

    if not data.startswith(b"\xff\xff\xff\xff"):
        return False
    try:
        pa.ipc.open_stream(pa.BufferReader(data))  # reads the schema and no more
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def arrow_table(data: bytes) -> Any:
    """The table of an Arrow file or stream.

    Raises:
        DataError: it is none, or expands beyond what is read.
    """
    import pyarrow as pa

    is_file = data.startswith(b"ARROW1")
    check_table(data, "file" if is_file else "stream")
    try:
        open_, source = pa.ipc.open_file if is_file else pa.ipc.open_stream, pa.BufferReader(data)
        table = open_(source).read_all()
        rest = 0 if is_file else source.size() - source.tell()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged_table("Arrow", str(error)) from None
    if rest:
        raise damaged_table("Arrow", f"{rest:,} bytes follow the end of its table")
    return _with_each_name_once(table)


def _with_each_name_once(table: Any) -> Any:
    """A table, of whose columns nobody can mean another one than we do.

    Raises:
        DataError: two have one name.
    """
    names = table.schema.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"The table names the column {printable(twice, 60)!r} twice. Expected a name of its "
            "own for each column. Rename one where the file was made."
        )
    return table


def stream_of(table: Any) -> bytes:
    """A table as an Arrow stream."""
    import pyarrow as pa

    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def parquet_of(table: Any) -> bytes:
    """A table as a Parquet file."""
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def _parquet(data: bytes) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    check_table(data, "parquet")
    try:
        _with_each_name_once(parquet.ParquetFile(pa.BufferReader(data)).schema_arrow.empty_table())
        return parquet.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged_table("Parquet", str(error)) from None


def _take(table: Any, wanted: Sequence[int]) -> Any:
    import pyarrow as pa

    return table.take(pa.array(wanted, type=pa.int64()))


def _with_columns(table: Any, columns: Mapping[str, Sequence[Any]]) -> Any:
    """A table with more columns; one in the place of another keeps its type where that fits."""
    import pyarrow as pa

    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        if at < 0:
            table = table.append_column(name, pa.array(values))
            continue
        try:
            column = pa.array(values, type=table.schema.field(at).type)
        except (pa.ArrowException, TypeError, ValueError):
            column = pa.array([None if value is None else str(value) for value in values])
        table = table.set_column(at, name, column)
    described = {k: v for k, v in (table.schema.metadata or {}).items() if k not in _OF_COLUMNS}
    return table.replace_schema_metadata(described) if columns else table


def _records(table: Any, limit: int) -> Iterator[Record]:
    number = 0
    for batch in table.to_batches(max_chunksize=_BATCH):
        for row in _rows(batch):
            number += 1
            if isinstance(row, str):
                yield Record(number, b"", None, row)
                continue
            columns = without_empty(row)
            raw = as_line(columns)
            if len(raw) > limit:
                yield Record(number, raw, None, too_long(len(raw), limit))
            else:
                yield Record(number, raw, columns)


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Rows as Python has them; the reason in place of one that Python can't hold."""
    import pyarrow as pa

    errors = (pa.ArrowException, ValueError, OverflowError, TypeError)
    try:
        yield from batch.to_pylist()
        return
    except errors:
        pass  # nothing was given out yet: the list is made as a whole
    for at in range(batch.num_rows):
        try:
            yield batch.slice(at, 1).to_pylist()[0]
        except errors as error:
            is_text = isinstance(error, UnicodeDecodeError)
            reason = "not UTF-8" if is_text else printable(str(error), 100)
            yield f"a value that can't be read: {reason}"
