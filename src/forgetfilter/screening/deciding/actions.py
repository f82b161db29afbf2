"""Instead of deleting: all rows in one file, with what was decided of each as columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.data import write_lines
from forgetfilter.data.containers.base import with_columns
from forgetfilter.data.formats import parse_object
from forgetfilter.data.many_rows.views import chosen
from forgetfilter.data.reading import decode_line
from forgetfilter.data.records import Row, RowFile
from forgetfilter.files import remove, write_chunks_atomic
from forgetfilter.runs.file_names import FLAGGED_FILE, MASKED_FILE, MASKS_FILE, WEIGHTED_FILE
from forgetfilter.runs.inputs import files_called
from forgetfilter.screening.deciding.masks import Rule, write_masks
from forgetfilter.screening.deciding.row_decisions import RowDecisions

SCORE_COLUMN = "forgetfilter_score"
DECISION_COLUMN = "forgetfilter_decision"
WEIGHT_COLUMN = "weight"
MASK_COLUMN = "forgetfilter_mask"


def write_action(run: Path, rows: RowFile, decided: RowDecisions, action: str, rule: Rule) -> str:
    """Write the files that ``action`` asks for, and delete those of an earlier decision.

    ``flag``: all readable rows in the original order, with `SCORE_COLUMN` (null where not scored)
    and `DECISION_COLUMN`. ``weight``: the same rows with `WEIGHT_COLUMN`: 0 for removed rows; a
    kept row keeps its own weight, and has 1 where it has none. Nothing else of a row changes.
    ``mask``: the same rows with `MASK_COLUMN`: ``[answer, start, stop]`` for each piece of one of
    the row's answers (counted from 0) that carries no loss, in characters; empty for kept rows. And
    ``masks.parquet``, the same in tokens (`write_masks`). While nothing is decided there are
    neither weights nor masks.

    They are written as JSON Lines and, where one table or JSON array was screened, as such a one.
    People open a flagged CSV or TSV file in spreadsheets, so its cells are guarded against being
    run as formulas; a weighted one is trained on, and its cells stay as they are.

    Returns:
        The name of the file in the input's own container, or of the one of JSON Lines; empty where
        there is none.
    """
    decisions = decided.decision
    written: list[str] = []
    readable: Sequence[Row] = ()
    if action != "remove":
        is_rejected = decisions == "rejected"
        own = (at for at, row in enumerate(rows.rows) if not is_rejected[row.row])
        readable = chosen(rows.rows, np.fromiter(own, np.int64))
    if action == "flag":
        scores = decided.cut_by
        columns: dict[str, Callable[[Row], Any]] = {
            SCORE_COLUMN: lambda row: _finite(float(scores[row.row])),
            DECISION_COLUMN: lambda row: decisions[row.row],
        }
        written = _write(run, FLAGGED_FILE, rows, readable, columns)
    if action == "weight" and "undecided" not in decisions:
        is_removed = decisions == "removed"
        columns = {WEIGHT_COLUMN: lambda row: 0 if is_removed[row.row] else _own_weight(row)}
        written = _write(run, WEIGHTED_FILE, rows, readable, columns)
    if action == "mask" and "undecided" not in decisions:
        spans = write_masks(run, rows, decided, rule)
        columns = {MASK_COLUMN: lambda row: spans.get(row.row, [])}
        written = _write(run, MASKED_FILE, rows, readable, columns)
    else:
        remove(run / MASKS_FILE)
    for name in (FLAGGED_FILE, WEIGHTED_FILE, MASKED_FILE):
        for other in files_called(Path(name).stem).difference(written):
            remove(run / other)
    return written[-1] if written else ""


def _write(
    run: Path,
    name: str,
    rows: RowFile,
    readable: Sequence[Row],
    columns: Mapping[str, Callable[[Row], Any]],
) -> list[str]:
    """Write rows with more columns, each made of its row; the names of the files."""
    lines = (
        with_new(row.raw, {column: value_of(row) for column, value_of in columns.items()})
        for row in readable
    )
    write_lines(run / name, lines)
    source = rows.sources[0]
    if len(rows.sources) != 1 or source.container.name == "jsonl":
        return [name]
    told = {column: [value_of(row) for row in readable] for column, value_of in columns.items()}
    chunks = source.container.extended(source.data(), [row.row for row in readable], told)
    if chunks is None:
        return [name]
    own = f"{Path(name).stem}{source.container.suffix}"
    if name == FLAGGED_FILE and source.container.can_hold_formulas:
        chunks = [source.container.guarded(b"".join(chunks))]
    write_chunks_atomic(run / own, chunks)
    return [name, own]


def with_new(raw: bytes, columns: Mapping[str, Any]) -> bytes:
    """A row's line with more keys; as it is where it says the same already."""
    record = parse_object(decode_line(raw))
    is_said = all(name in record and record[name] == value for name, value in columns.items())
    return raw if is_said else with_columns(raw, columns)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _own_weight(row: Row) -> Any:
    """The weight of a kept row: its own where it has one."""
    own = parse_object(decode_line(row.raw)).get(WEIGHT_COLUMN)
    return 1 if own is None else own
