"""`--action mask`: all rows are kept, and the most forgotten tokens of removed ones carry no loss.

Pure: from ``tokens.parquet``, which a screen has measured, and a decision. No model.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data.records import EncodedRow, Row, RowFile
from forgetfilter.errors import DataError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.runs.file_names import MASKS_FILE, TOKENS_FILE
from forgetfilter.scoring.token_mask import masked_tokens
from forgetfilter.screening.deciding.row_decisions import RowDecisions
from forgetfilter.text import printable

Spans = list[list[int]]
"""``[answer, start, stop]`` of each masked piece: characters of one of a row's answers."""

_LISTS = ("input_ids", "is_target", "rises", "answers", "starts", "stops")
_ROWS_TOGETHER = 5000
_AGAIN = "Repeat the `forgetfilter screen` command with --action mask; nothing is trained again."


@dataclass(frozen=True)
class Rule:
    """What decided the rows, as far as it says which tokens to mask."""

    cut: float
    unit: str


def require_tokens(run: Path) -> None:
    """Raise where a run has not measured how tokens were forgotten.

    Raises:
        DataError: it hasn't, or the table of it is damaged or another's.
    """
    import pyarrow as pa
    from pyarrow import parquet

    path = run / TOKENS_FILE
    if not path.is_file():
        raise DataError(
            f"The screen in {run} has measured rows, not tokens: it has no {TOKENS_FILE}. Expected "
            f"one by --action mask. {_AGAIN}"
        )
    said = ""
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            kinds = {name: schema.field(name).type for name in schema.names}
            wrong = [name for name in _LISTS if not pa.types.is_list(kinds.get(name, pa.null()))]
            wrong += [] if kinds.get("row") == pa.int64() else ["row"]
            if wrong:
                said = f"it has no column {', '.join(wrong)} of the type that a screen writes"
            for _ in () if wrong else file.iter_batches(_ROWS_TOGETHER):
                pass
    except (OSError, ValueError, pa.ArrowException) as error:
        said = printable(str(error), 200).rstrip(". ")
    if said:
        raise DataError(
            f"{path} can't be read: {said}. Expected what the screen measured by --action mask. "
            f"{_AGAIN}"
        )


def write_masks(run: Path, rows: RowFile, decided: RowDecisions, rule: Rule) -> dict[int, Spans]:
    """Write ``masks.parquet``, one line per readable row, and return the masked characters.

    Columns: ``row``, ``input_ids``, ``loss_mask`` (whether a token carries loss), ``masked`` (how
    many answer tokens don't). Kept rows carry loss on all answer tokens. Of rows that the rule
    removed the most forgotten tokens carry none (`masked_tokens`); of those that a reviewer
    removed, or of which no token was measured because a later rule removed them, none carries
    any.

    Returns:
        By row, what is masked; rows that train whole are not in it.

    Raises:
        DataError: no token was measured.
    """
    import pyarrow as pa
    from pyarrow import parquet

    require_tokens(run)
    schema = pa.schema(
        [
            ("row", pa.int64()),
            ("input_ids", pa.list_(pa.int32())),
            ("loss_mask", pa.list_(pa.bool_())),
            ("masked", pa.int32()),
        ]
    )
    place = np.zeros(len(rows), dtype=np.int64)
    for at, row in enumerate(rows.rows):
        place[row.row] = at
    scores = decided.score()
    spans: dict[int, Spans] = {}
    buffer = io.BytesIO()
    with parquet.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for batch in _batches(run):
            masks: list[BoolArray] = []
            counts: list[int] = []
            for told in batch:
                row = int(told["row"])
                is_target = np.array(told["is_target"], dtype=np.bool_)
                masks.append(_mask(told, is_target, decided, scores, rule))
                is_masked = ~masks[-1][is_target]
                counts.append(int(is_masked.sum()))
                if counts[-1]:
                    spans[row] = _spans(told, is_masked, rows.rows[int(place[row])])
            arrays = [
                pa.array([told["row"] for told in batch], schema.field("row").type),
                pa.array([told["input_ids"] for told in batch], schema.field("input_ids").type),
                pa.array(masks, schema.field("loss_mask").type),
                pa.array(counts, schema.field("masked").type),
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    write_bytes_atomic(run / MASKS_FILE, buffer.getvalue())
    return spans


def masked_rows(run: Path, rows: Sequence[EncodedRow]) -> list[EncodedRow]:
    """Rows as they are trained on with the masks of a run; without those that carry no loss.

    Raises:
        DataError: there are no masks, or they are of other tokens.
    """
    try:
        table = pd.read_parquet(run / MASKS_FILE)
        columns = (table["input_ids"], table["loss_mask"])
        numbers = table["row"]
    except (OSError, ValueError, KeyError) as error:
        said = printable(str(error), 200).rstrip(". ")
        raise DataError(
            f"{run / MASKS_FILE} can't be read: {said}. Expected the masks of the run. {_AGAIN}"
        ) from None
    masks = dict(zip(numbers, zip(*columns, strict=True), strict=True))
    found: list[EncodedRow] = []
    for row in rows:
        ids, mask = masks.get(row.row, ((), ()))
        if not np.array_equal(ids, row.input_ids):
            raise DataError(
                f"Row {row.row} has other tokens than in {run / MASKS_FILE}. Expected the "
                f"tokenizer and the template of the screen. {_AGAIN}"
            )
        if np.any(mask):
            found.append(replace(row, is_target=np.asarray(mask, dtype=np.bool_)))
    return found


def digest_of_masks(run: Path) -> str:
    """The sha256 of a run's masks.

    Raises:
        DataError: there are none.
    """
    if not (run / MASKS_FILE).is_file():
        raise DataError(f"The run in {run} has no {MASKS_FILE}. Expected one. {_AGAIN}")
    return hashlib.sha256((run / MASKS_FILE).read_bytes()).hexdigest()


def _batches(run: Path) -> Iterator[list[dict[str, Any]]]:
    from pyarrow import parquet

    with parquet.ParquetFile(run / TOKENS_FILE) as file:
        for batch in file.iter_batches(_ROWS_TOGETHER):
            yield batch.to_pylist()


def loss_mask(row: EncodedRow, rises: FloatArray, score: float, rule: Rule) -> BoolArray:
    """Which tokens of a removed row still carry loss, shape (T,).

    Args:
        row: the row.
        rises: by how many nats each of its answer tokens was forgotten, shape (K,).
        score: its forgetting score.
        rule: what removed it.
    """
    weights = row.leading_weights
    return carries_loss(row, masked_tokens(rises, weights, score, rule.cut, rule.unit))


def carries_loss(row: EncodedRow, is_masked: BoolArray) -> BoolArray:
    """Which tokens of a row carry loss, (T,), once some of its answer tokens, (K,), are masked."""
    places = np.flatnonzero(row.is_target)
    places = places[places > 0]  # nothing predicts a first token
    mask = row.is_target.copy()
    mask[places[is_masked]] = False
    return mask


def _mask(
    told: dict[str, Any],
    is_target: BoolArray,
    decided: RowDecisions,
    scores: FloatArray,
    rule: Rule,
) -> BoolArray:
    """Which of a row's tokens carry loss, shape (T,)."""
    row = int(told["row"])
    if decided.decision[row] != "removed":
        return is_target
    if told["rises"] is None or decided.rule_decision[row] != "removed":
        return np.zeros_like(is_target)
    ids = np.array(told["input_ids"], dtype=np.int32)
    score = float(scores[row])
    rises = np.array(told["rises"], dtype=np.float64)
    return loss_mask(EncodedRow(row, ids, is_target, 0, ""), rises, score, rule)


def _spans(told: dict[str, Any], is_masked: BoolArray, row: Row) -> Spans:
    """The characters that masked tokens hold, pieces that touch as one."""
    answers = [turn for turn in row.messages if turn.role == "assistant"]
    if told["answers"] is None or is_masked.all():
        return [[at, 0, len(turn.content)] for at, turn in enumerate(answers) if turn.carries_loss]
    spans: Spans = []
    pieces = zip(told["answers"], told["starts"], told["stops"], is_masked.tolist(), strict=True)
    for answer, start, stop, is_gone in pieces:
        if not is_gone or answer < 0:
            continue
        if spans and spans[-1][0] == answer and start <= spans[-1][2]:
            spans[-1][2] = max(spans[-1][2], stop)
        else:
            spans.append([answer, start, stop])
    return spans
