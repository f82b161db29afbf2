"""A JSON Lines file in, its rows out: each one readable, or rejected with a reason."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from forgetfilter.data.formats import UnreadableRow, is_encodable, parse_messages, parse_object
from forgetfilter.data.records import Message, RejectedRow, Row, RowFile
from forgetfilter.errors import DataError
from forgetfilter.text import printable

OTHER = "other"
"""The category of a row that names none."""

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is rejected without being parsed."""
MAX_ID_CHARACTERS = 200
"""A longer id of a row's own is not used."""

_BOM = b"\xef\xbb\xbf"
_EXPECTED = "Expected JSON Lines: one JSON object on each line, as UTF-8."
_MAGIC = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_SUFFIXES = {
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".zip": "zip",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".zst": "zstd",
}


@dataclass(frozen=True, slots=True)
class _Line:
    """One non-blank line before ids are settled: ``messages`` or else a ``reason``."""

    line: int
    raw: bytes
    own_id: str | None
    messages: tuple[Message, ...]
    reason: str | None


def read_rows(path: str | Path) -> RowFile:
    """Read a JSON Lines file, plain or gzip, whose rows may differ in format.

    Lines end at a line feed and nowhere else; lines of white space are not rows. A row that can't
    be used is never an error but is listed in ``rejected``; readable and rejected rows together
    are all the rows. ``example_id`` is unique in the file; it is the row's own ``id`` (text or a
    whole number) where no other row has the same one, else it is made from the position.

    Raises:
        DataError: the file can't be read, has no rows, or as a whole is not JSON Lines.
    """
    shown = repr(printable(str(path), 300))
    stored = _read_bytes(Path(path), shown)
    data = _decompress(stored, shown)
    pieces = data.split(b"\n")
    lines = [
        _parse_line(number, raw) for number, raw in enumerate(pieces, start=1) if not _is_blank(raw)
    ]
    if not lines:
        raise DataError(f"{shown} has 0 rows. {_EXPECTED} Check that it is the file you meant.")
    _refuse_other_formats(Path(path), shown, data, lines[0])
    rows: list[Row] = []
    rejected: list[RejectedRow] = []
    example_ids = _settle_ids([line.own_id for line in lines])
    for row, (line, example_id) in enumerate(zip(lines, example_ids, strict=True)):
        if line.reason is None:
            rows.append(Row(row, line.line, example_id, line.raw, line.messages))
        else:
            rejected.append(RejectedRow(row, line.line, example_id, line.raw, line.reason))
    fingerprint = hashlib.sha256(stored).hexdigest()
    return RowFile(str(path), fingerprint, tuple(rows), tuple(rejected))


def category_of(row: Row) -> str:
    """The ``category`` that a reference row names."""
    found = json.loads(row.raw).get("category")
    return printable(found, 60) if isinstance(found, str) and found else OTHER


def decode_line(raw: bytes) -> str:
    """The text of a row's line, without the byte order mark that a file's first line may have.

    Raises:
        UnicodeDecodeError: the line is not UTF-8.
    """
    return raw.removeprefix(_BOM).decode("utf-8")


def _read_bytes(path: Path, shown: str) -> bytes:
    """The file as it is stored. Read once, so that the fingerprint is that of the rows."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        found, remedy = f"No file at {shown}.", "Check the path."
    except IsADirectoryError:
        found, remedy = f"{shown} is a folder.", "Name a file in it."
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        found, remedy = f"{shown} can't be read: {reason}.", "Check the path and its permissions."
    raise DataError(f"{found} {_EXPECTED} {remedy}")


def _decompress(stored: bytes, shown: str) -> bytes:
    """The file's text, decompressed if it is gzip by its first bytes."""
    if not stored.startswith(b"\x1f\x8b"):
        return stored
    try:
        return gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{shown} starts like a gzip file but can't be decompressed "
            f"({printable(str(error), 100)}). Expected a whole gzip file. Copy or compress it anew."
        ) from None


def _is_blank(raw: bytes) -> bool:
    return not raw.strip()


def _parse_line(number: int, raw: bytes) -> _Line:
    """Read one line; whatever is wrong with it becomes its reason."""
    own_id = None
    try:
        if len(raw) > MAX_LINE_BYTES:
            raise UnreadableRow(f"the line has {len(raw)} bytes; at most {MAX_LINE_BYTES} are read")
        try:
            text = decode_line(raw) if number == 1 else raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnreadableRow(
                f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}"
            ) from None
        record = parse_object(text)
        own_id = _own_id(record.get("id"))
        return _Line(number, raw, own_id, parse_messages(record), None)
    except UnreadableRow as error:
        return _Line(number, raw, own_id, (), str(error))


def _own_id(value: Any) -> str | None:
    """A row's ``id`` as text, or None where there is none that can be used."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    usable = text.strip() and len(text) <= MAX_ID_CHARACTERS and is_encodable(text)
    return text if usable else None


def _settle_ids(own_ids: Sequence[str | None]) -> list[str]:
    """One id for each row, no two the same: its own where only it has that, else ``row-N``."""
    counts = Counter(own_ids)
    taken = {own_id for own_id in own_ids if own_id is not None}
    settled: list[str] = []
    for row, own_id in enumerate(own_ids):
        if own_id is None or counts[own_id] > 1:
            own_id = f"row-{row}"
            attempt = 1
            while own_id in taken:
                attempt += 1
                own_id = f"row-{row}-{attempt}"
            taken.add(own_id)
        settled.append(own_id)
    return settled


def _refuse_other_formats(path: Path, shown: str, data: bytes, first: _Line) -> None:
    """Raise for a file that as a whole is something else, and say how to convert it.

    A file is only suspected when its first row can't be read, so that no name and no chance
    likeness can turn away a file of good rows.
    """
    if first.reason is None:
        return
    magic = next((kind for start, kind in _MAGIC.items() if data.startswith(start)), None)
    suffix = None if first.raw.lstrip().startswith((b"{", _BOM)) else path.suffix.lower()
    kind = magic or _SUFFIXES.get(suffix or "") or _kind_by_content(data, first)
    if kind is None:
        return
    name = repr(printable(path.name, 100))
    remedy = {
        "Parquet": f'python -c "import datasets as d; d.Dataset.from_parquet({name})'
        ".to_json('rows.jsonl')\"",
        "Arrow": f'python -c "import datasets as d; d.Dataset.from_file({name})'
        ".to_json('rows.jsonl')\"",
        "CSV": f'python -c "import datasets as d; d.Dataset.from_csv({name})'
        ".to_json('rows.jsonl')\"",
        "one JSON array": f'python -c "import json; [print(json.dumps(row)) for row in '
        f"json.load(open({name}, encoding='utf-8'))]\" > rows.jsonl",
        "one JSON document": "put each row's object on one line of its own",
        "UTF-16": f"iconv -f UTF-16 -t UTF-8 {name} > rows.jsonl",
    }.get(kind, "decompress it first (gzip is read as it is)")
    raise DataError(f"{shown} looks like {kind}. {_EXPECTED} Convert it: {remedy}")


def _kind_by_content(data: bytes, first: _Line) -> str | None:
    """Recognise UTF-16, and JSON that is one document, not one object on each line."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        # The mark alone may be a bad line; in real UTF-16 about half of the bytes are null.
        sample = data[2:1002]
        return "UTF-16" if sample.count(0) * 4 > len(sample) else None
    if first.raw.removeprefix(_BOM).lstrip()[:1] not in (b"[", b"{"):
        return None
    try:
        whole: Any = json.loads(data.removeprefix(_BOM).decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if isinstance(whole, list):
        items = cast(list[Any], whole)
        return "one JSON array" if any(isinstance(item, dict) for item in items) else None
    # An object on a single line is simply a row, if a bad one.
    return "one JSON document" if first.raw.strip() != data.strip() else None
