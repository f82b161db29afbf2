"""What a container of rows is: a file's layout, apart from what its rows say."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forgetfilter.data.formats.values import parse_object
from forgetfilter.files import encode_json, write_chunks_atomic

BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 64 * 2**20
"""A longer line is rejected without being parsed."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file: its columns, or why it has none."""

    line: int
    """Where it begins, from 1; in a table without lines, its number."""
    raw: bytes
    """As one line of JSON where it is one; as it stands in the file where it can't be read."""
    columns: dict[str, Any] | None
    reason: str | None = None
    """Why it is no record, where ``columns`` is None."""


class Container(ABC):
    """One layout of files. Records are numbered from 0, in file order."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    """Ends the names of the files that hold the rows of a decision."""
    can_hold_formulas: ClassVar[bool] = False
    """Whether spreadsheets open such a file and run what begins as a formula."""

    @abstractmethod
    def records(self, data: bytes, limit: int) -> Iterator[Record]:
        """All records of a file's (decompressed) bytes, readable or not.

        A record of more than ``limit`` bytes is not parsed.

        Raises:
            DataError: the file as a whole can't be read.
        """

    @abstractmethod
    def subset(self, data: bytes, wanted: Sequence[int]) -> Iterable[bytes]:
        """A file of the same layout with the ``wanted`` records only, ascending, in pieces."""

    def extended(
        self, data: bytes, wanted: Sequence[int], columns: Mapping[str, Sequence[Any]]
    ) -> Iterable[bytes] | None:
        """The same as `subset` with more columns: a value for each of the ``wanted`` records.

        A column of such a name that is there already is replaced. None where the container is
        better left alone.
        """
        return None

    def formula_cells(self, data: bytes) -> int:
        """How many cells a spreadsheet that opens the file would take for formulas."""
        return 0

    def guarded(self, data: bytes) -> bytes:
        """The file with those cells made text; the same bytes where there is none."""
        return data

    def write(self, data: bytes, wanted: Sequence[int], target: Path) -> None:
        """Write that file, whole or not at all."""
        write_chunks_atomic(target, self.subset(data, wanted))


def with_columns(raw: bytes, columns: Mapping[str, Any]) -> bytes:
    """A JSON object with more keys at its end; the rest of it stays byte for byte.

    Only where one of the keys is there already is the whole object written anew, on one line.
    """
    record = parse_object(raw.removeprefix(BOM).decode("utf-8"))
    if any(name in record for name in columns):
        return encode_json({**record, **columns})
    start, end = raw.rstrip()[:-1].rstrip(), encode_json(dict(columns))[1:]
    return start + (b", " if record else b"") + end


def too_long(size: int, limit: int) -> str:
    """Why a record of ``size`` bytes is not read."""
    return f"the line has {size} bytes; at most {limit} are read"


def not_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    """Why bytes are no text."""
    return f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}"


def as_line(value: Any) -> bytes:
    """A value as one line of JSON; what JSON has no word for, as Python writes it."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, default=str).encode("ascii")
