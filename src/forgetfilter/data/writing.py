"""Rows out again: the original lines byte for byte, the rejected ones with their reasons."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.data.formats import parse_object
from forgetfilter.data.reading import decode_line
from forgetfilter.data.records import RejectedRow, Row
from forgetfilter.files import encode_json, write_chunks_atomic

if TYPE_CHECKING:
    from datasets import Dataset

_MAX_COLUMNS = 1000
"""With more, the union of the rows' keys is no table any more but a denial of service."""


def write_lines(path: Path, raws: Iterable[bytes]) -> None:
    """Write the lines as they are, each with a line feed; the file is whole or as it was."""
    write_chunks_atomic(path, (raw + b"\n" for raw in raws))


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON Lines; the file is whole or as it was."""
    write_chunks_atomic(path, (encode_json(record) + b"\n" for record in records))


def write_rejected(
    path: Path, rejected: Iterable[RejectedRow], sources: Sequence[str] = ()
) -> None:
    """Write JSON Lines of ``{row, line, reason, raw}``, or ``raw_base64`` where not UTF-8.

    ``sources`` names the source of every row, where there are several.
    """
    write_records(path, (_rejected_record(row, sources) for row in rejected))


def to_dataset(rows: Sequence[Row]) -> Dataset:
    """The rows as a `datasets.Dataset`, for use in Python (files are written from ``raw``).

    The columns are the union of the rows' own; a row without one has None there. Where Arrow
    can't hold that (a column of both text and numbers, say), the columns are ``row``,
    ``example_id``, ``messages`` and ``raw`` (the line as text).
    """
    import pyarrow
    from datasets import Dataset

    try:
        return Dataset.from_dict(_union_of_columns(rows))
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
        # Not a failure: the user's columns don't fit one table, so the common ones are given.
        pass
    return Dataset.from_dict(
        {
            "row": [row.row for row in rows],
            "example_id": [row.example_id for row in rows],
            "messages": [
                [{"role": turn.role, "content": turn.content} for turn in row.messages]
                for row in rows
            ],
            "raw": [decode_line(row.raw) for row in rows],
        }
    )


def _rejected_record(rejected: RejectedRow, sources: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {
        **({"source": sources[rejected.row]} if sources else {}),
        "row": rejected.row,
        "line": rejected.line,
        "reason": rejected.reason,
    }
    try:
        record["raw"] = rejected.raw.decode("utf-8")
    except UnicodeDecodeError:
        record["raw_base64"] = base64.b64encode(rejected.raw).decode("ascii")
    return record


def _union_of_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Each key that any row has, in order of first appearance, with a value for every row."""
    records = [parse_object(decode_line(row.raw)) for row in rows]
    names = list(dict.fromkeys(name for record in records for name in record))
    if len(names) > _MAX_COLUMNS:
        raise ValueError(f"{len(names)} columns are too many for one table")
    return {name: [record.get(name) for record in records] for name in names}
