"""The files of a finished run folder, read back and checked against each other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from forgetfilter.arrays import BoolArray, FloatArray, SharedTexts
from forgetfilter.data.formats import Reading, UnreadableRow, parse_object, parse_row
from forgetfilter.data.many_rows.spilled import Spill
from forgetfilter.data.reading import decode_line
from forgetfilter.data.records import Message
from forgetfilter.errors import DataError
from forgetfilter.runs.columns import (
    column_names,
    read_columns,
    read_parts,
    read_shared_texts,
    read_values,
    rows_in,
)
from forgetfilter.runs.file_names import EVALUATION_FILE, REJECTED_FILE, SCORES_FILE, SUMMARY_FILE
from forgetfilter.runs.inputs import SCREEN_AGAIN
from forgetfilter.runs.lines import Lines, open_lines
from forgetfilter.runs.parquet_parts import PART_ROWS
from forgetfilter.runs.schema import (
    HARM_COLUMN,
    OPINION_COLUMNS,
    SCORE_COLUMNS,
    SCORED_QUANTITIES,
    TOLD_COLUMNS,
    UNSCORED_COLUMN,
    WHO_COLUMNS,
    Evaluation,
    Record,
    Summary,
)
from forgetfilter.text import printable

M = TypeVar("M", bound=Record)

_REMEDY = "Expected a finished run folder. Run `forgetfilter screen` to its end, then try again."
_DECIDE_AGAIN = (
    "Run `forgetfilter filter RUN --discard-edits` on the folder to decide and write them again."
)


class TextColumn:
    """Texts of which most differ: once one is asked for, they lie in a file if they are many."""

    def __init__(self, path: Path, name: str, order: npt.NDArray[np.int64] | None) -> None:
        """``order``: which line of the table each text is taken from; None: as they stand."""
        self._path, self._name, self._order = path, name, order
        self._rows = rows_in(path)
        for _ in read_parts(path, name):  # what is damaged is found at once
            pass

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, at: int) -> str:
        return self._texts[int(at if self._order is None else self._order[at])]

    def places_of(self, text: str) -> list[int]:
        """Where this text stands."""
        return [at for at in range(len(self)) if self[at] == text]

    @cached_property
    def _texts(self) -> Sequence[str]:
        folder = self._path.parent
        spill = Spill(folder if os.access(folder, os.W_OK) else None)
        for _, part in read_parts(self._path, self._name):
            for text in part.to_pylist():
                spill.append((text or "").encode("utf-8"))
        return spill.sequence(bytes.decode)


@dataclass(frozen=True)
class ScoreTable:
    """``scores.parquet`` as arrays of shape (N,), in the order of ``row``."""

    row: npt.NDArray[np.int64]
    example_id: TextColumn
    decision: SharedTexts
    reason: SharedTexts
    is_learned: BoolArray
    quantities: Mapping[str, FloatArray]
    """``base``, ``before``, ``after`` and ``forgetting_score``, and ``second_opinion``,
    ``joint_score`` and ``described_harm`` where there are such; NaN where not measured."""
    decided_by: SharedTexts
    """``rule`` or ``reviewer``."""
    rule_decision: SharedTexts
    """What the rule alone would have decided."""
    source: SharedTexts | None = None
    """Which file a row is from, where several were given."""
    harm: SharedTexts | None = None
    """What the safe rows are about that a removed row pulls against; empty for other rows."""
    unscored: SharedTexts | None = None
    """What the template leaves out of a row."""

    @property
    def cut_by(self) -> FloatArray:
        """What the threshold rule has cut, shape (N,); NaN where not measured."""
        return self.quantities.get("joint_score", self.quantities["forgetting_score"])


def read_summary(run: Path) -> Summary:
    """The counts and settings of a finished run."""
    return _read_record(run / SUMMARY_FILE, Summary)


def read_evaluation(run: Path) -> Evaluation | None:
    """The evaluation, where there is one."""
    path = run / EVALUATION_FILE
    return _read_record(path, Evaluation) if path.exists() else None


def read_scores(run: Path, summary: Summary) -> ScoreTable:
    """All scores and decisions, once their counts are known to be those of the summary."""
    path = run / SCORES_FILE
    wanted = (*SCORE_COLUMNS, *WHO_COLUMNS, "source", *TOLD_COLUMNS, *OPINION_COLUMNS)
    columns = set(column_names(path)) & set(wanted)
    if missing := [name for name in SCORE_COLUMNS if name not in columns]:
        raise DataError(f"{path} has no column {', '.join(missing)}. {_REMEDY}")
    row = read_values(path, "row", 0, np.int64)
    order = np.argsort(row, kind="stable") if np.any(row[1:] < row[:-1]) else None

    def in_order(name: str, fill: Any, dtype: Any) -> Any:
        values = read_values(path, name, fill, dtype)
        return values if order is None else values[order]

    def texts(name: str, fill: str = "") -> SharedTexts:
        values = read_shared_texts(path, name, fill)
        return values if order is None else values[order]

    decision = texts("decision")
    source = texts("source") if "source" in columns else None
    table = ScoreTable(
        row=row if order is None else row[order],
        example_id=TextColumn(path, "example_id", order),
        decision=decision,
        reason=texts("reason"),
        is_learned=in_order("learned", False, np.bool_),
        quantities={
            name: in_order(name, float("nan"), np.float64)
            for name in (*SCORED_QUANTITIES, *(n for n in OPINION_COLUMNS if n in columns))
        },
        decided_by=(
            texts("decided_by", "rule")
            if "decided_by" in columns
            else SharedTexts.full(len(row), "rule")
        ),
        rule_decision=texts("rule_decision") if "rule_decision" in columns else decision,
        source=source if source is not None and len(source.counts()) > 1 else None,
        harm=texts(HARM_COLUMN) if HARM_COLUMN in columns else None,
        unscored=texts(UNSCORED_COLUMN) if UNSCORED_COLUMN in columns else None,
    )
    said = {
        "kept": summary.kept,
        "removed": summary.removed,
        "undecided": summary.undecided,
        "rejected": summary.rejected,
    }
    found = {name: table.decision.counts()[name] for name in said}
    if len(row) and (table.row[0] or np.any(table.row[1:] - table.row[:-1] != 1)):
        raise DataError(
            f"{path} doesn't have each row once, from 0. Expected one line for each row of the "
            f"input. {SCREEN_AGAIN}"
        )
    if found != said or len(table.row) != summary.rows:
        raise DataError(
            f"{path} has {len(table.row)} rows ({_listing(found)}), but {SUMMARY_FILE} says "
            f"{summary.rows} ({_listing(said)}). Expected the same counts. {_DECIDE_AGAIN}"
        )
    return table


@contextmanager
def rows_of_decision(
    run: Path, decision: str, expected: int, see: Callable[[int, bytes], None] | None = None
) -> Generator[Lines]:
    """The original lines of the rows with one decision, in the order of the rows.

    Args:
        run: the run folder.
        decision: ``kept``, ``removed``, ``undecided`` or ``rejected`` (whose lines are records).
        expected: how many rows have it.
        see: is shown each line once, with its number from 0.
    """
    with open_lines(run / f"{decision}.jsonl", expected, _DECIDE_AGAIN, see) as lines:
        yield lines


def conversation(
    run: Path, decision: str, number: int, raw: bytes, reading: Reading
) -> tuple[Message, ...]:
    """The conversation on a line of a readable row, read as `stored_reading` says."""
    try:
        return parse_row(parse_object(decode_line(raw)), reading).messages
    except (UnicodeDecodeError, UnreadableRow) as error:
        raise DataError(
            f"{run / decision}.jsonl, line {number + 1}: {error}. Expected the original line of a "
            f"readable row. {_DECIDE_AGAIN}"
        ) from None


def read_numbers(
    path: Path, names: Iterable[str], rows: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.int32]]:
    """Some columns of whole numbers in the order of ``rows``, shape (N,); -1 where there is none.

    Nothing where the file doesn't exist.
    """
    if not path.exists():
        return {}
    there = column_names(path)
    if "row" not in there:
        raise DataError(f"{path} has no column row. {_REMEDY}")
    known = read_values(path, "row", 0, np.int64)
    if not len(known):
        return {}
    order = np.argsort(known, kind="stable") if np.any(known[1:] < known[:-1]) else None
    known = known if order is None else known[order]
    found: dict[str, npt.NDArray[np.int32]] = {}
    for name in (name for name in names if name in there):
        own = read_values(path, name, -1, np.int32)
        own = own if order is None else own[order]
        values = found[name] = np.full(len(rows), -1, dtype=np.int32)
        for start in range(0, len(rows), PART_ROWS):
            asked = rows[start : start + PART_ROWS]
            at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
            values[start : start + PART_ROWS] = np.where(known[at] == asked, own[at], -1)
    return found


def read_by_row(
    path: Path, names: tuple[str, ...], rows: Collection[int] | npt.NDArray[np.int64]
) -> dict[int, dict[str, Any]]:
    """Some columns of some rows of a table; empty where the file doesn't exist."""
    if not path.exists():
        return {}
    columns = read_columns(path, ("row", *names))
    if "row" not in columns:
        raise DataError(f"{path} has no column row. {_REMEDY}")
    asked = np.fromiter(rows, np.int64, len(rows))
    at = np.flatnonzero(np.isin(columns["row"].to_numpy(zero_copy_only=False), asked))
    taken: dict[str, list[Any]] = {
        name: column.take(at).to_pylist() for name, column in columns.items()
    }
    return {
        int(row): {name: taken[name][index] for name in names if name in taken}
        for index, row in enumerate(taken["row"])
    }


def read_rejected(run: Path, limit: int) -> list[tuple[int, int, str]]:
    """``(line, row, reason)`` of the first rejected rows."""
    if not limit:
        return []
    path = run / REJECTED_FILE
    try:
        with open(path, "rb") as file:
            records = [cast(dict[str, Any], json.loads(raw)) for raw in islice(file, limit)]
        return [(int(r["line"]), int(r["row"]), str(r["reason"])) for r in records]
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}. {_REMEDY}") from None
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise DataError(
            f"{path} is damaged. Expected JSON Lines of row, line and reason. {_DECIDE_AGAIN}"
        ) from None


def read_text(path: Path) -> str:
    """A text file, or nothing where there is none."""
    return path.read_text(encoding="utf-8", errors="backslashreplace") if path.exists() else ""


def read_json(path: Path) -> Any:
    """A JSON file."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}. {_REMEDY}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not JSON. {_REMEDY}") from None


def _read_record(path: Path, model: type[M]) -> M:
    loaded = read_json(path)
    try:
        return model.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise DataError(f"{path}: {where}: {printable(first['msg'])}. {_REMEDY}") from None


def _listing(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {name}" for name, value in counts.items())
