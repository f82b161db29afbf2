"""Columns with few different values, by which the rows of a run can be told apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetfilter.review.shown import pieces
from forgetfilter.runs.columns import column_names
from forgetfilter.runs.file_names import SCORES_FILE
from forgetfilter.runs.one_row import RunRows, columns_of
from forgetfilter.runs.schema import WRITTEN_COLUMNS

_FIRST = ("source", "category", "harm")
_MAX_FACETS, _MAX_VALUES, _MAX_CHARACTERS, _MAX_COLUMNS = 10, 200, 100, 100


def counted(values: npt.NDArray[np.object_]) -> list[list[Any]]:
    """``[value, shown, how often]``, the most frequent first."""
    found = Counter(str(value) for value in values.tolist() if value != "")
    return [[value, pieces(value), count] for value, count in found.most_common(_MAX_VALUES)]


def facets_of(known: RunRows) -> dict[str, npt.NDArray[np.object_]]:
    """Columns with few different values, by which rows can be told apart; "" where a row has none.

    They are columns of the user's file, and what else the table of scores says of every row.
    """
    size = len(known.rows)
    found: dict[str, npt.NDArray[np.object_]] = {}
    for row, at in enumerate(known.rows.rows):
        for name, value in columns_of(at.raw).items():
            if isinstance(value, str | int) and len(str(value)) <= _MAX_CHARACTERS:
                if name not in found:
                    if len(found) > _MAX_COLUMNS:  # a file whose every row has keys of its own
                        continue
                    found[name] = np.full(size, "", dtype=object)
                found[name][row] = str(value)
    others = _other_columns(known.run / SCORES_FILE)
    if known.table.source is not None:  # which of several files, beside what the rows say of it
        own = np.array(known.table.source.tolist(), dtype=object)
        found["source" if "source" not in found else "file"] = own
    for name, values in others.items():
        if len(values) == size:
            found[name] = np.array(
                ["" if value is None else str(value) for value in values], object
            )
    useful = {
        name: values
        for name, values in found.items()
        if 2 <= len(set(values.tolist())) <= min(_MAX_VALUES, max(size // 2, 2))
    }
    order = sorted(useful, key=lambda name: (*(name != first for first in _FIRST), name))
    return {name: useful[name] for name in order[:_MAX_FACETS]}


def _other_columns(path: Path) -> dict[str, list[Any]]:
    """Texts and whole numbers that a table of scores has beside its own columns."""
    import pyarrow as pa
    from pyarrow import parquet

    names = [name for name in column_names(path) if name not in WRITTEN_COLUMNS]
    table = parquet.read_table(path, columns=names)
    return {
        field.name: table.column(field.name).to_pylist()
        for field in table.schema
        if pa.types.is_string(field.type) or pa.types.is_integer(field.type)
    }
