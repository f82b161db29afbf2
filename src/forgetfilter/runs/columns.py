"""Columns of a run's tables, each of the type that it was written with.

A table may be damaged, or be that of another version, of a tool, or of somebody else. What is read
here is what its name says, or an error that names file and column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import SharedTexts
from forgetfilter.errors import DataError
from forgetfilter.runs.inputs import SCREEN_AGAIN
from forgetfilter.runs.parquet_parts import PART_ROWS
from forgetfilter.runs.schema import (
    EVIDENCE_TEXTS,
    OPINION_COLUMNS,
    SAFE_NEIGHBOUR_COLUMNS,
    SCORED_QUANTITIES,
    SIZE_COLUMNS,
    TOLD_COLUMNS,
    WHO_COLUMNS,
)
from forgetfilter.text import printable

REMEDY = f"Expected a table that a screen has written. {SCREEN_AGAIN}"
_TEXTS = frozenset(
    {
        *("example_id", "decision", "reason", "source", "own_id"),
        *WHO_COLUMNS,
        *TOLD_COLUMNS,
        *EVIDENCE_TEXTS,
    }
)
_WHOLE = frozenset({"row", "line", *SAFE_NEIGHBOUR_COLUMNS, *SIZE_COLUMNS})
_REAL = frozenset({*SCORED_QUANTITIES, *OPINION_COLUMNS})
_NEEDED = frozenset({"row"})
"""Columns without which a line of a table says nothing."""


def read_columns(path: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Those of the named columns that a Parquet file has, or all, as Arrow arrays of their types.

    Raises:
        DataError: the file can't be read, or a column is not what its name says.
    """
    import pyarrow
    from pyarrow import parquet

    present = column_names(path)
    wanted = present if names is None else [name for name in names if name in present]
    try:
        table = parquet.read_table(path, columns=wanted)
        found = {name: table.column(name).combine_chunks() for name in table.column_names}
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None
    return {name: _typed(path, name, column) for name, column in found.items()}


def read_parts(path: Path, name: str, as_codes: bool = False) -> Iterator[tuple[slice, Any]]:
    """A column in parts: where each stands, and an Arrow array; as codes if that is asked for.

    Raises:
        DataError: see `read_columns`.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, read_dictionary=[name] if as_codes else None) as file:
            start = 0
            for batch in file.iter_batches(PART_ROWS, columns=[name], use_threads=False):
                own = slice(start, start + len(batch))
                yield own, _typed(path, name, batch.column(0))
                start += len(batch)
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None


def read_values(path: Path, name: str, fill: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A column of numbers, shape (N,); ``fill`` where there is none.

    Raises:
        DataError: see `read_columns`.
    """
    found = np.full(rows_in(path), fill, dtype=dtype)
    for own, column in read_parts(path, name):
        if str(column.type) != "null":  # a column without a value, which can't be filled
            column = column.fill_null(fill) if column.null_count else column
            found[own] = column.to_numpy(zero_copy_only=False)
    return found


def read_shared_texts(path: Path, name: str, fill: str = "") -> SharedTexts:
    """A column of texts of which few differ, shape (N,); ``fill`` where there is none.

    Raises:
        DataError: see `read_columns`.
    """
    found = SharedTexts.full(rows_in(path), fill)
    for own, column in read_parts(path, name, as_codes=True):
        if hasattr(column, "indices"):  # else one without a single value
            known = [fill if text is None else text for text in column.dictionary.to_pylist()]
            texts = SharedTexts.of([*known, fill])
            codes = column.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
            found.put_all(own, texts[codes])
    return found


def rows_in(path: Path) -> int:
    """How many rows a Parquet file has.

    Raises:
        DataError: it can't be read.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file.

    Raises:
        DataError: it can't be read, or two columns have one name.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        names: list[str] = parquet.read_schema(path).names
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None
    if len(set(names)) != len(names):
        raise DataError(f"{path} has two columns of one name. {REMEDY}")
    return names


def _typed(path: Path, name: str, column: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type):
        _typed(path, name, column.dictionary)
        return column
    kind = _kind_of(name)
    if kind is None:
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if is_number or pa.types.is_boolean(column.type) or pa.types.is_null(column.type):
            return column
        raise _wrong(path, name, column, "numbers")
    try:
        typed = column if column.type == kind else column.cast(kind)
        if kind == pa.string():
            typed.validate(full=True)  # is it text in UTF-8?
    except (pa.ArrowException, TypeError, ValueError):
        raise _wrong(path, name, column, str(kind)) from None
    if name in _NEEDED and typed.null_count:
        raise DataError(f"{path}: {typed.null_count} lines have no {name}. {REMEDY}")
    return typed


def _kind_of(name: str) -> Any:
    """The type that a column of this name has; None for what a signal has measured."""
    import pyarrow as pa

    if name in _TEXTS:
        return pa.string()
    if name in _WHOLE:
        return pa.int64()
    if name in _REAL:
        return pa.float64()
    named = {
        "learned": pa.bool_(),
        "pieces": pa.list_(pa.string()),
        "rises": pa.list_(pa.float64()),
    }
    return named.get(name)


def _unreadable(path: Path, error: Exception) -> DataError:
    said = (isinstance(error, OSError) and error.strerror) or str(error)
    return DataError(f"{path} can't be read: {printable(said, 200).rstrip('. ')}. {REMEDY}")


def _wrong(path: Path, name: str, column: Any, expected: str) -> DataError:
    return DataError(
        f"{path}: the column {printable(name, 60)} holds {printable(str(column.type), 60)}, not "
        f"{expected}. {REMEDY}"
    )
