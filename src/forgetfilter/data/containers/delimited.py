"""CSV and TSV: a header, and records whose fields may hold line feeds between quotes."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from forgetfilter.data.containers.base import BOM, Container, Record, as_line, too_long
from forgetfilter.data.containers.formulas import guarded, is_formula
from forgetfilter.data.formats.keys import TURN_COLUMNS
from forgetfilter.data.formats.turns import turns_in_text
from forgetfilter.errors import DataError
from forgetfilter.text import printable

_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True, slots=True)
class _Piece:
    """One record as it stands: where it begins, its bytes, its fields or what is wrong."""

    line: int
    raw: bytes
    fields: list[str]
    reason: str | None = None


class Delimited(Container):
    """A table whose first record names the columns; an empty field counts as absent."""

    can_hold_formulas = True

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]  # one class, two names
        self.suffix = f".{name}"  # type: ignore[misc]

    def records(self, data: bytes, limit: int) -> Iterator[Record]:
        """Every record below the header."""
        pieces = self._pieces(data)
        header = header_of(next(pieces, None))
        for piece in pieces:
            reason = piece.reason
            if len(piece.raw) > limit:
                reason = too_long(len(piece.raw), limit)
            elif reason is None and len(piece.fields) != len(header):
                reason = f"{len(piece.fields)} fields; the header has {len(header)}"
            if reason is not None:
                yield Record(piece.line, piece.raw.rstrip(b"\r\n"), None, reason)
                continue
            columns: dict[str, Any] = {
                name: (name in TURN_COLUMNS and turns_in_text(field)) or field or None
                for name, field in zip(header, piece.fields, strict=True)
            }
            yield Record(piece.line, as_line(columns), columns)

    def subset(self, data: bytes, wanted: Sequence[int]) -> Iterable[bytes]:
        """The header and the records, byte for byte."""
        chosen = set(wanted)
        pieces = self._pieces(data)
        header = next(pieces, None)
        if header is None:
            return
        end = b"\r\n" if header.raw.endswith(b"\r\n") else b"\n"
        mark = BOM if data.startswith(BOM) else b""
        pending = mark + header.raw
        for number, piece in enumerate(pieces):
            if number in chosen:
                yield pending if pending.endswith((b"\n", b"\r")) else pending + end
                pending = piece.raw
        yield pending

    def extended(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> Iterable[bytes]:
        """The header and the records with more fields at their end.

        A record is written anew only where one of its own fields is replaced.
        """
        place = {number: at for at, number in enumerate(wanted)}
        pieces = self._pieces(data)
        header = next(pieces, None)
        if header is None:
            return
        names = header_of(header)
        delimiter = delimiter_of(header.raw.decode("utf-8", "replace"), self.name)
        end = "\r\n" if header.raw.endswith(b"\r\n") else "\n"
        at_end = {name: name for name in columns if name not in names}
        yield (BOM if data.startswith(BOM) else b"") + _joined(
            header.raw, _record(list(at_end), delimiter), delimiter, end
        )
        for number, piece in enumerate(pieces):
            if number not in place:
                continue
            told = {name: values[place[number]] for name, values in columns.items()}
            raw = piece.raw
            if len(at_end) < len(told):
                fields = [
                    _field(told[name]) if name in told else field
                    for name, field in zip(names, piece.fields, strict=True)
                ]
                raw = _record(fields, delimiter).encode("utf-8", "surrogateescape")
            more = [_field(told[name]) for name in at_end]
            yield _joined(raw, _record(more, delimiter), delimiter, end)

    def formula_cells(self, data: bytes) -> int:
        """How many cells, names of columns among them, begin as formulas do."""
        return sum(is_formula(cell) for piece in self._pieces(data) for cell in _cells(piece))

    def guarded(self, data: bytes) -> bytes:
        """The file with those cells made text; what is no record becomes one cell of text."""
        written: list[bytes] = []
        delimiter = ""
        for piece in self._pieces(data):
            raw = piece.raw.decode("utf-8", "surrogateescape")
            delimiter = delimiter or delimiter_of(raw, self.name)
            cells = _cells(piece)
            if piece.reason is not None or any(map(is_formula, cells)):
                end = raw[len(raw.rstrip("\r\n")) :]
                raw = _record([guarded(cell) for cell in cells], delimiter) + end
            written.append(raw.encode("utf-8", "surrogateescape"))
        return (BOM if data.startswith(BOM) else b"") + b"".join(written)

    def _pieces(self, data: bytes) -> Iterator[_Piece]:
        """The header and all records that aren't blank lines.

        Bytes that are no UTF-8 are carried through as half surrogates, which text in UTF-8 can't
        hold, so that they cost their own record alone.
        """
        text = data.removeprefix(BOM).decode("utf-8", "surrogateescape")
        is_old = "\n" not in text and "\r" in text
        end = "\r" if is_old else "\n"
        lines = [line + end for line in text.split(end)]
        lines[-1] = lines[-1][:-1]
        if not lines[-1]:
            lines.pop()
        source = (line.replace("\r", "\n") if is_old else line for line in lines)
        delimiter = delimiter_of(lines[0] if lines else "", self.name)
        reader = csv.reader(source, delimiter=delimiter, strict=True)
        begin = 0
        while begin < len(lines):
            fields, reason = list[str](), None
            try:
                with _long_fields():  # not over a yield: a reader may be left before its end
                    fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = _explain(str(error), begin + 1, reader.line_num)
            raw = "".join(lines[begin : reader.line_num])
            if fields or reason:
                stored = raw.encode("utf-8", "surrogateescape")
                reason = reason or _not_utf8(raw)
                yield _Piece(begin + 1, stored, fields, reason)
            begin = reader.line_num


def _cells(piece: _Piece) -> list[str]:
    """The fields of a record; of what is none the whole."""
    if piece.reason is None:
        return piece.fields
    return [piece.raw.decode("utf-8", "surrogateescape").rstrip("\r\n")]


def _field(value: Any) -> str:
    return "" if value is None else str(value)


def _record(fields: list[str], delimiter: str) -> str:
    """Fields as one record without its end."""
    written = io.StringIO()
    # Only what is in the end of a record makes the writer quote a field that holds a line's end.
    csv.writer(written, delimiter=delimiter, lineterminator="\r\n").writerow(fields)
    return written.getvalue().removesuffix("\r\n")


def _joined(raw: bytes, more: str, delimiter: str, end: str) -> bytes:
    """A record with more fields."""
    added = delimiter + more if more else ""
    return raw.rstrip(b"\r\n") + (added + end).encode("utf-8")


def header_of(piece: _Piece | None) -> list[str]:
    """The names of the columns.

    Raises:
        DataError: there is no header that names each column once.
    """
    header = [] if piece is None else [name.strip() for name in piece.fields]
    named = [name for name in header if name]
    is_broken = piece is None or piece.reason is not None
    if not named or is_broken or len(set(named)) != len(named):
        twice = next((name for name in named if named.count(name) > 1), None)
        found = f"names {printable(twice, 60)!r} twice" if twice else "can't be read"
        raise DataError(
            f"The first line of the table {found}. Expected a header that names each column "
            "once. Mend the first line."
        )
    return [name or f"column {number}" for number, name in enumerate(header, start=1)]


def delimiter_of(line: str, name: str = "csv") -> str:
    """What stands between the fields of a header."""
    if name == "tsv":
        return "\t"
    plain = _QUOTED.sub("", line)
    return max(_DELIMITERS, key=plain.count)


def _not_utf8(text: str) -> str | None:
    for at, character in enumerate(text):
        if "\udc80" <= character <= "\udcff":
            return f"not UTF-8: byte 0x{ord(character) - 0xDC00:02x} at character {at + 1}"
    return None


def _explain(error: str, first: int, last: int) -> str:
    if "unexpected end" in error:
        return f"a quote that is never closed takes in lines {first} to {last}"
    if "expected after" in error:
        return "a quote inside a quoted field; write it twice"
    if "new-line character" in error:
        return "a carriage return in a field without quotes"
    return f"no record: {printable(error, 80)}"


@contextmanager
def _long_fields() -> Generator[None]:
    """Python's limit of 131,072 characters is one for the whole process."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
