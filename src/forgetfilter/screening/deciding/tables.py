"""The tables of a run, ``scores.parquet`` and ``readings.parquet``, as a screen makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from forgetfilter.arrays import FloatArray
from forgetfilter.data.records import EncodedRow, RejectedRow, RowFile
from forgetfilter.runs.file_names import READINGS_FILE, SCORES_FILE
from forgetfilter.runs.parquet_parts import (
    PART_ROWS,
    columns_of,
    read_column,
    read_parts,
    write_parts,
)
from forgetfilter.runs.schema import TOLD_COLUMNS, UNSCORED_COLUMN, WRITTEN_COLUMNS
from forgetfilter.scoring.records import Readings, SignalScores

R = TypeVar("R", RejectedRow, EncodedRow)


def write_scores(
    folder: Path,
    rows: RowFile,
    rejected: Sequence[RejectedRow],
    readings: Readings,
    scores: SignalScores,
    opinion: FloatArray | None = None,
    described: FloatArray | None = None,
    encoded: Sequence[EncodedRow] = (),
) -> None:
    """Write ``scores.parquet``, decisions still open: the columns `commit_decision` completes.

    Args:
        folder: where to.
        rows: the whole input.
        rejected: all that can't be scored, by position.
        readings: of the others, by position.
        scores: of the same.
        opinion: the second opinion, shape (N,), in the order of ``readings``.
        described: scores of a harm that was named in words, of the same shape.
        encoded: the rows that were read, which say what their template leaves out: names joined by
            commas, mostly none.
    """
    columns: dict[str, npt.NDArray[Any]] = {
        "base": scores.base,
        "before": scores.before,
        "after": np.full(len(readings), np.nan) if scores.after is None else scores.after,
        "forgetting_score": scores.forgetting_score,
        **({} if opinion is None else {"second_opinion": opinion}),
        **({} if described is None else {"described_harm": described}),
        "learned": readings.learned,
    }
    write_parts(folder / SCORES_FILE, _score_frames(rows, rejected, readings, columns, encoded))


def _score_frames(
    rows: RowFile,
    rejected: Sequence[RejectedRow],
    readings: Readings,
    columns: Mapping[str, npt.NDArray[Any]],
    encoded: Sequence[EncodedRow],
) -> Iterator[pd.DataFrame]:
    """Some thousand rows at a time."""
    every, unfit, scored = rows.in_order(), _Ahead(rejected), _Ahead(encoded)
    sources = rows.source_names() if len(rows.sources) > 1 else []
    name = rows.sources[0].name if rows.sources else ""
    for start in range(0, len(rows), PART_ROWS):
        # Rows themselves would take far more memory than what is told of them.
        told = [(row.example_id, row.line, row.own_id) for row in islice(every, PART_ROWS)]
        example_ids, lines, own_ids = zip(*told, strict=True)
        size = len(told)
        stop = start + size
        frame = pd.DataFrame({"row": np.arange(start, stop, dtype=np.int64)})
        frame["example_id"] = example_ids
        first, last = np.searchsorted(readings.row, (start, stop))
        places = readings.row[first:last] - start
        for column, values in columns.items():
            if column != "learned":
                own = np.full(size, np.nan)
                own[places] = values[first:last]
                frame[column] = own
        learned: list[bool | None] = [None] * size
        for at, is_learned in zip(places, columns["learned"][first:last], strict=True):
            learned[int(at)] = bool(is_learned)
        frame["learned"] = pd.array(learned, dtype="boolean")
        reasons = {row.row: row.reason for row in unfit.until(stop)}
        frame["decision"] = ["rejected" if row in reasons else "kept" for row in range(start, stop)]
        frame["reason"] = [reasons.get(row, "") for row in range(start, stop)]
        frame["decided_by"], frame["rule_decision"] = "rule", frame["decision"]
        frame["source"] = sources[start:stop] or name
        frame["line"], frame["own_id"] = lines, own_ids
        if encoded:
            unscored = np.full(size, "", dtype=object)
            for row in scored.until(stop):
                unscored[row.row - start] = ", ".join(row.unscored)
            frame[UNSCORED_COLUMN] = unscored
        yield frame.loc[:, in_order(frame)]


class _Ahead(Generic[R]):
    """Goes through rows that are sorted by position, part by part."""

    def __init__(self, rows: Iterable[R]) -> None:
        self._rows = iter(rows)
        self._next = next(self._rows, None)

    def until(self, stop: int) -> Iterator[R]:
        """Those that come next, before the position ``stop``."""
        while self._next is not None and self._next.row < stop:
            yield self._next
            self._next = next(self._rows, None)


def in_order(frame: pd.DataFrame) -> list[str]:
    """The columns of a table of scores in the order in which they are written.

    Those of a second opinion are left out where it has none, and others of other versions stay.
    """
    own = [name for name in (*WRITTEN_COLUMNS, *TOLD_COLUMNS) if name in frame.columns]
    return [*own, *(str(name) for name in frame.columns if name not in own)]


def write_readings(run: Path, readings: Readings) -> None:
    """Everything that was measured, one line per readable row (the target's text is left out).

    ``scores.parquet`` is there already and says what the rows are called.
    """
    write_parts(run / READINGS_FILE, _reading_frames(run, readings))


def _reading_frames(run: Path, readings: Readings) -> Iterator[pd.DataFrame]:
    start = 0
    for known in read_parts(run / SCORES_FILE, ["row", "example_id"]):
        first, last = np.searchsorted(readings.row, (start, start + len(known)))
        table = pd.DataFrame({"row": readings.row[first:last]})
        table["example_id"] = known["example_id"].to_numpy()[readings.row[first:last] - start]
        for name in readings.columns:
            if name != "target":
                table[name] = readings[name][first:last]
        start += len(known)
        yield table


def read_readings(run: Path) -> Readings:
    """The readings of a finished run, without the targets' texts."""
    path = run / READINGS_FILE
    row = read_column(path, "row").astype(np.int64)
    return Readings(row=row, columns=columns_of(path, without=("row", "example_id")))
