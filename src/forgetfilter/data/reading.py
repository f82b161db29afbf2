"""Files in, their rows out: each one readable, or rejected with a reason."""

from __future__ import annotations

import hashlib
import json
import marshal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

from forgetfilter.data.containers import Record
from forgetfilter.data.containers.base import BOM
from forgetfilter.data.formats import (
    Conversation,
    Reading,
    UnreadableRow,
    is_encodable,
    parse_row,
)
from forgetfilter.data.formats.keys import ID_COLUMNS
from forgetfilter.data.many_rows.settled_ids import SettledIds
from forgetfilter.data.many_rows.spilled import Spill
from forgetfilter.data.records import Message, RejectedRow, Row, RowFile
from forgetfilter.data.sources import Source, open_sources
from forgetfilter.errors import DataError
from forgetfilter.text import printable

OTHER = "other"
"""The category of a row that names none."""

MAX_ID_CHARACTERS = 200
"""A longer id of a row's own is not used."""

_PLAIN = Reading()
_TURN = tuple(field.name for field in fields(Message))


@dataclass(frozen=True, slots=True)
class _Parsed:
    """One record before ids are settled: a conversation or else a ``reason``."""

    line: int
    raw: bytes
    own_id: str
    said: Conversation | None
    reason: str


def read_rows(where: Any, reading: Reading = _PLAIN) -> RowFile:
    """Read rows of one file or several, in any container, whose formats may differ.

    A row that can't be used is never an error but is listed in ``rejected``; readable and rejected
    rows together are all the rows. ``example_id`` is unique; it is what the file calls the row
    (``id``, or another such name) where no other row is called the same, else it is made from the
    position.

    Args:
        where: a path, a pattern, ``hub:owner/name``, a list of these, or data in Python.
        reading: which format the rows have and what they call their columns, where that is not
            to be found out.

    Raises:
        DataError: a file can't be read, has no rows, or as a whole is something else.
    """
    return read_sources(open_sources(where), reading)


def read_sources(
    sources: Sequence[Source], reading: Reading = _PLAIN, folder: Path | None = None
) -> RowFile:
    """The same of sources that are opened.

    Args:
        sources: where the rows come from.
        reading: how they are read.
        folder: on whose disk rows lie where they are many (see `Spill`).

    Raises:
        DataError: see `read_rows`.
    """
    ids = SettledIds()
    readable, rejected = Spill(folder), Spill(folder)
    counts: list[int] = []
    malformed = row = 0
    for source in sources:
        before = row
        try:
            for record in source.records():
                malformed += record.columns is None
                if before and record.line == 1:  # a mark is one only where a file begins
                    record = replace(record, raw=record.raw.removeprefix(BOM))
                parsed = _parse(record, reading)
                ids.add(parsed.own_id)
                (rejected if parsed.said is None else readable).append(_packed(row, parsed))
                row += 1
        except DataError as error:
            raise _of(source, error) from None
        counts.append(row - before)
    if not row:
        names = ", ".join(printable(source.name, 100) for source in sources)
        raise DataError(
            f"{names!r} has 0 rows. Expected JSON Lines, a JSON array, CSV, TSV, Parquet or Arrow "
            "with at least one row. Check that it is the file you meant."
        )
    ids.settle()
    return RowFile(
        ", ".join(source.name for source in sources),
        fingerprint_of(sources, reading),
        readable.sequence(lambda packed: _row(packed, ids)),
        rejected.sequence(lambda packed: _rejected(packed, ids)),
        malformed,
        tuple(sources),
        tuple(counts),
        reading,
    )


def _packed(row: int, parsed: _Parsed) -> bytes:
    """A record as bytes, for `_row` or `_rejected`, which are told later what it is called."""
    place = (row, parsed.line, parsed.raw, parsed.own_id)
    if parsed.said is None:
        return marshal.dumps((*place, parsed.reason))
    turns = [tuple(getattr(turn, name) for name in _TURN) for turn in parsed.said.messages]
    return marshal.dumps((*place, turns, parsed.said.tools))


def _row(packed: bytes, ids: SettledIds) -> Row:
    row, line, raw, own_id, turns, tools = marshal.loads(packed)
    messages = tuple(Message(*turn) for turn in turns)
    return Row(row, line, ids.name(row, own_id), raw, messages, tools, own_id)


def _rejected(packed: bytes, ids: SettledIds) -> RejectedRow:
    row, line, raw, own_id, reason = marshal.loads(packed)
    return RejectedRow(row, line, ids.name(row, own_id), raw, reason, own_id)


def fingerprint_of(sources: Sequence[Source], reading: Reading = _PLAIN) -> str:
    """What identifies the rows: the bytes of one file, or of several and how they are read."""
    if len(sources) == 1 and reading.is_plain:
        return sources[0].fingerprint
    parts = [[source.container.name, source.fingerprint] for source in sources]
    told = json.dumps([parts, reading.as_json()], sort_keys=True)
    return hashlib.sha256(told.encode("utf-8")).hexdigest()


def category_of(row: Row) -> str:
    """The ``category`` that a reference row names."""
    found = json.loads(row.raw).get("category")
    return printable(found, 60) if isinstance(found, str) and found else OTHER


def decode_line(raw: bytes) -> str:
    """The text of a row's line, without the byte order mark that a file's first line may have.

    Raises:
        UnicodeDecodeError: the line is not UTF-8.
    """
    return raw.removeprefix(BOM).decode("utf-8")


def repeated_ids(file: RowFile) -> list[str]:
    """What the file calls more than one row, in order of appearance."""
    rows = chain(file.rows, file.rejected)
    return list(dict.fromkeys(r.own_id for r in rows if r.own_id and r.own_id != r.example_id))


def _parse(record: Record, reading: Reading) -> _Parsed:
    """Read one record; whatever is wrong with it becomes its reason."""
    if record.columns is None:
        return _Parsed(record.line, record.raw, "", None, record.reason or "no record")
    own_id = own_id_of(record.columns, reading)
    try:
        said = parse_row(record.columns, reading)
        return _Parsed(record.line, record.raw, own_id, said, "")
    except UnreadableRow as error:
        return _Parsed(record.line, record.raw, own_id, None, str(error))


def own_id_of(columns: Mapping[str, Any], reading: Reading) -> str:
    """What a row is called in its file, as text; empty where nothing can be used."""
    mapped = reading.columns.get("id")
    names = (mapped,) if mapped else ID_COLUMNS
    found = next((text for name in names if (text := _id_text(columns.get(name)))), "")
    if found or mapped:
        return found
    lower = {name.strip().lower(): value for name, value in columns.items()}
    return next((text for name in names if (text := _id_text(lower.get(name)))), "")


def _id_text(value: Any) -> str:
    if isinstance(value, dict) and len(cast(dict[str, Any], value)) == 1:
        value = next(iter(cast(dict[str, Any], value).values()))  # as MongoDB writes them
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return ""
    text = str(value)
    usable = text.strip() and len(text) <= MAX_ID_CHARACTERS and is_encodable(text)
    return text if usable else ""


def _of(source: Source, error: DataError) -> DataError:
    """An error of a container, with the name of the file in it."""
    name = repr(printable(source.name, 300))
    return error if name in str(error) else DataError(f"{name}: {error}")
