"""Instead of deleting: all rows in one file, with what was decided of each as columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from forgetfilter.data import write_lines
from forgetfilter.data.containers.base import with_columns
from forgetfilter.data.formats import parse_object
from forgetfilter.data.many_rows.views import chosen
from forgetfilter.data.reading import decode_line
from forgetfilter.data.records import Row, RowFile
from forgetfilter.files import remove, write_chunks_atomic
from forgetfilter.runs.file_names import FLAGGED_FILE, MASKED_FILE, MASKS_FILE, WEIGHTED_FILE
from forgetfilter.runs.parquet_parts import shared_texts
from forgetfilter.screening.deciding.masks import Rule, write_masks

SCORE_COLUMN = "forgetfilter_score"
DECISION_COLUMN = "forgetfilter_decision"
WEIGHT_COLUMN = "weight"
MASK_COLUMN = "forgetfilter_mask"


def write_action(run: Path, rows: RowFile, frame: pd.DataFrame, action: str, rule: Rule) -> str:
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
    decisions: list[str] = shared_texts(frame["decision"]).tolist()
    written: list[str] = []
    readable: Sequence[Row] = ()
    if action != "remove":
        places = [at for at, row in enumerate(rows.rows) if decisions[row.row] != "rejected"]
        readable = chosen(rows.rows, places)
    if action == "flag":
        cut_by = "joint_score" if "joint_score" in frame else "forgetting_score"
        scores: list[float] = frame[cut_by].tolist()
        told = [scores[row.row] if math.isfinite(scores[row.row]) else None for row in readable]
        columns = {SCORE_COLUMN: told, DECISION_COLUMN: [decisions[row.row] for row in readable]}
        written = _write(run, FLAGGED_FILE, rows, readable, columns)
    if action == "weight" and "undecided" not in decisions:
        weights = [0 if decisions[row.row] == "removed" else _own_weight(row) for row in readable]
        written = _write(run, WEIGHTED_FILE, rows, readable, {WEIGHT_COLUMN: weights})
    if action == "mask" and "undecided" not in decisions:
        spans = write_masks(run, rows, frame, rule)
        told_spans = [spans.get(row.row, []) for row in readable]
        written = _write(run, MASKED_FILE, rows, readable, {MASK_COLUMN: told_spans})
    else:
        remove(run / MASKS_FILE)
    for name in (FLAGGED_FILE, WEIGHTED_FILE, MASKED_FILE):
        for path in run.glob(f"{Path(name).stem}.*"):
            if path.name not in written:
                remove(path)
    return written[-1] if written else ""


def _write(
    run: Path,
    name: str,
    rows: RowFile,
    readable: Sequence[Row],
    columns: Mapping[str, Sequence[Any]],
) -> list[str]:
    """Write rows with more columns; the names of the files."""
    lines = (
        with_new(row.raw, {column: values[at] for column, values in columns.items()})
        for at, row in enumerate(readable)
    )
    write_lines(run / name, lines)
    source = rows.sources[0]
    if len(rows.sources) != 1 or source.container.name == "jsonl":
        return [name]
    chunks = source.container.extended(source.data(), [row.row for row in readable], columns)
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


def _own_weight(row: Row) -> Any:
    """The weight of a kept row: its own where it has one."""
    own = parse_object(decode_line(row.raw)).get(WEIGHT_COLUMN)
    return 1 if own is None else own
