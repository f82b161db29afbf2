"""Instead of deleting: all rows in one file, with what was decided of each as columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from forgetfilter.data import write_lines
from forgetfilter.data.formats import parse_object
from forgetfilter.data.reading import decode_line
from forgetfilter.data.records import RowFile
from forgetfilter.files import encode_json, remove
from forgetfilter.runs.file_names import FLAGGED_FILE, WEIGHTED_FILE

SCORE_COLUMN = "forgetfilter_score"
DECISION_COLUMN = "forgetfilter_decision"
WEIGHT_COLUMN = "weight"


def write_action(run: Path, rows: RowFile, frame: pd.DataFrame, action: str) -> None:
    """Write the file that ``action`` asks for, and delete that of an earlier decision.

    ``flag``: all readable rows in the original order, with `SCORE_COLUMN` (null where not scored)
    and `DECISION_COLUMN`. ``weight``: the same rows with `WEIGHT_COLUMN`: 0 for removed rows; a
    kept row keeps its own weight, and has 1 where it has none. Nothing else of a line changes.
    While nothing is decided there are no weights.
    """
    decisions: list[str] = frame["decision"].tolist()
    if action == "flag":
        write_lines(run / FLAGGED_FILE, _flagged(rows, frame))
    else:
        remove(run / FLAGGED_FILE)
    if action == "weight" and "undecided" not in decisions:
        write_lines(run / WEIGHTED_FILE, _weighted(rows, decisions))
    else:
        remove(run / WEIGHTED_FILE)


def _flagged(rows: RowFile, frame: pd.DataFrame) -> Iterator[bytes]:
    decisions: list[str] = frame["decision"].tolist()
    scores: list[float] = frame["forgetting_score"].tolist()
    for row in rows.rows:
        decision, score = decisions[row.row], scores[row.row]
        if decision != "rejected":
            told = score if math.isfinite(score) else None
            yield with_columns(row.raw, {SCORE_COLUMN: told, DECISION_COLUMN: decision})


def _weighted(rows: RowFile, decisions: list[str]) -> Iterator[bytes]:
    for row in rows.rows:
        if decisions[row.row] == "removed":
            yield with_columns(row.raw, {WEIGHT_COLUMN: 0})
        elif decisions[row.row] == "kept":
            has_own = WEIGHT_COLUMN in parse_object(decode_line(row.raw))
            yield row.raw if has_own else with_columns(row.raw, {WEIGHT_COLUMN: 1})


def with_columns(raw: bytes, columns: Mapping[str, Any]) -> bytes:
    """A row's line with more keys at its end; the rest of it stays byte for byte.

    Only where one of the keys is there already is the whole line written anew.
    """
    record = parse_object(decode_line(raw))
    if any(name in record for name in columns):
        return encode_json({**record, **columns})
    start, end = raw.rstrip()[:-1].rstrip(), encode_json(dict(columns))[1:]
    return start + (b", " if record else b"") + end
