"""The tables of a run, ``scores.parquet`` and ``readings.parquet``, as a screen makes them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import EncodedRow, RejectedRow, RowFile
from forgetfilter.files import write_bytes_atomic
from forgetfilter.runs.file_names import READINGS_FILE
from forgetfilter.runs.schema import TOLD_COLUMNS, UNSCORED_COLUMN, WRITTEN_COLUMNS
from forgetfilter.scoring.records import Readings, SignalScores


def score_frame(
    rows: RowFile,
    rejected: Sequence[RejectedRow],
    readings: Readings,
    scores: SignalScores,
    opinion: FloatArray | None = None,
    described: FloatArray | None = None,
) -> pd.DataFrame:
    """Scores of every row, decisions still open: the columns that `commit_decision` completes.

    ``opinion`` is the second opinion and ``described`` the score of a harm that was named in words,
    each of shape (N,), in the order of ``readings``.
    """
    known = sorted((*rows.rows, *rows.rejected), key=lambda row: row.row)
    frame = pd.DataFrame({"row": np.arange(len(rows), dtype=np.int64)})
    frame["example_id"] = [row.example_id for row in known]
    nothing = np.full(len(readings), np.nan)
    values = {
        "base": scores.base,
        "before": scores.before,
        "after": nothing if scores.after is None else scores.after,
        "forgetting_score": scores.forgetting_score,
        **({} if opinion is None else {"second_opinion": opinion}),
        **({} if described is None else {"described_harm": described}),
    }
    for name, array in values.items():
        column = np.full(len(rows), np.nan)
        column[readings.row] = array
        frame[name] = column
    learned: list[bool | None] = [None] * len(rows)
    for row, is_learned in zip(readings.row, readings.learned, strict=True):
        learned[int(row)] = bool(is_learned)
    frame["learned"] = pd.array(learned, dtype="boolean")
    reasons = {row.row: row.reason for row in rejected}
    frame["decision"] = ["rejected" if row in reasons else "kept" for row in range(len(rows))]
    frame["reason"] = [reasons.get(row, "") for row in range(len(rows))]
    frame["decided_by"], frame["rule_decision"] = "rule", frame["decision"]
    frame["source"] = rows.source_names()
    frame["line"] = [row.line for row in known]
    frame["own_id"] = [row.own_id for row in known]
    return frame.loc[:, in_order(frame)]


def in_order(frame: pd.DataFrame) -> list[str]:
    """The columns of a table of scores in the order in which they are written.

    Those of a second opinion are left out where it has none, and others of other versions stay.
    """
    own = [name for name in (*WRITTEN_COLUMNS, *TOLD_COLUMNS) if name in frame.columns]
    return [*own, *(str(name) for name in frame.columns if name not in own)]


def tell_unscored(frame: pd.DataFrame, rows: Sequence[EncodedRow]) -> None:
    """Add what the template leaves out of each row: names joined by commas, mostly none."""
    told = np.full(len(frame), "", dtype=object)
    for row in rows:
        told[row.row] = ", ".join(row.unscored)
    frame[UNSCORED_COLUMN] = told


def write_readings(run: Path, frame: pd.DataFrame, readings: Readings) -> None:
    """Everything that was measured, one line per readable row (the target's text is left out)."""
    table = pd.DataFrame({"row": readings.row})
    table["example_id"] = frame["example_id"].to_numpy()[readings.row]
    for name, column in readings.columns.items():
        if name != "target":
            table[name] = column
    write_parquet(run / READINGS_FILE, table)


def read_readings(run: Path) -> Readings:
    """The readings of a finished run, without the targets' texts."""
    table = pd.read_parquet(run / READINGS_FILE)
    columns = {
        str(name): table[name].to_numpy()
        for name in table.columns
        if name not in ("row", "example_id")
    }
    return Readings(row=table["row"].to_numpy(dtype=np.int64), columns=columns)


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_bytes_atomic(path, buffer.getvalue())
