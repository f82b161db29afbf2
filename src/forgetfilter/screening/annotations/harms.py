"""Which harm each row would be of: that of the safe rows whose prompts are most like its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from forgetfilter.data.reading import OTHER
from forgetfilter.data.records import Row, RowFile
from forgetfilter.files import write_json_atomic
from forgetfilter.runs.file_names import HARMS_FILE, SAFE_ROWS_FILE
from forgetfilter.runs.harms import TEXT_CHARACTERS
from forgetfilter.runs.parquet_parts import PART_ROWS, write_parts
from forgetfilter.runs.schema import HARM_COLUMN, SAFE_NEIGHBOUR_COLUMNS
from forgetfilter.scoring.records import NEIGHBOURS, Probe
from forgetfilter.screening.method import Setting

_UNNAMED_CHARACTERS = 60
"""Of the nearest safe row's prompt, where the safe file names no categories."""


def write_harms(run: Path, setting: Setting, safe: RowFile) -> None:
    """Write ``harms.parquet``, one line per readable row, and ``safe_rows.json``.

    Of every row, since a later decision may remove it. The harm is the category of the nearest safe
    rows, which are all of one; where the safe file names no categories, it is the start of what the
    nearest one asks.
    """
    bench = setting.bench
    probe = Probe("safe_neighbours", "base")
    found = bench.measure((probe,), {"base": bench.base}, setting.noisy, setting.safe)
    # Of many rows a column is read when it is asked for: one of them at a time is held whole.
    near = np.empty((len(found.row), NEIGHBOURS), np.int32)
    for k in range(NEIGHBOURS):
        near[:, k] = found[f"safe_neighbour_{k}_base"]
    asked = {row.row: _asked(row) for row in safe.rows}
    category = {row.row: "" if row.category == OTHER else row.category for row in setting.safe}
    is_named = any(category.values())

    def parts() -> Iterator[pd.DataFrame]:
        for start in range(0, len(near), PART_ROWS):
            own = near[start : start + PART_ROWS]
            table = pd.DataFrame({"row": found.row[start : start + PART_ROWS]})
            table[HARM_COLUMN] = [
                (category[row] or OTHER) if is_named else asked[row][:_UNNAMED_CHARACTERS]
                for row in own[:, 0].tolist()
            ]
            for name, column in zip(SAFE_NEIGHBOUR_COLUMNS, own.T, strict=True):
                table[name] = column.astype(np.int64)
            yield table

    write_parts(run / HARMS_FILE, parts())
    told = {
        str(row): {"category": category[row], "text": asked[row]}
        for row in sorted({row for column in near.T for row in np.unique(column).tolist()})
    }
    write_json_atomic(run / SAFE_ROWS_FILE, told)


def _asked(row: Row) -> str:
    """The start of what a safe row asks, on one line."""
    turns = [turn.content for turn in row.messages if turn.role == "user"] or [row.target]
    line = " ".join(turns[-1][: 4 * TEXT_CHARACTERS].split())
    return line if len(line) <= TEXT_CHARACTERS else line[: TEXT_CHARACTERS - 1] + "…"
