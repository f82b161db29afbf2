"""Read a file of the row schema and validate every row.

A data folder holds gzipped JSON Lines files, ``NAME.jsonl.gz``. Each line is an object with the
fields of `SourceRow`. Such files are curated, so a bad line is an error that names it and not a
row to pass over: a folder with one is not the folder that its README describes.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forgetfilter.data.containers.base import MAX_LINE_BYTES
from forgetfilter.data.formats import UnreadableRow, is_encodable, parse_object
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.text import printable

DATA_VARIABLE = "FORGETFILTER_DATA"
"""Environment variable that names the data folder where no argument does."""

_SUFFIX = ".jsonl.gz"
_EXPECTED = (
    "Expected one JSON object on each line with the fields id, source, prompt, response, label, "
    "category and meta."
)


class SourceRow(BaseModel):
    """One row of the schema. Unknown further fields are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    id: str = Field(min_length=1)
    """Unique in its file."""
    source: str
    """Name of the data set, in its publishers' words."""
    prompt: str
    """Instruction and input; empty for plain text."""
    response: str
    """The answer or text to learn from."""
    label: Literal["unsafe", "safe", "task", "neutral"]
    category: str
    meta: dict[str, Any]
    """The original fields that metrics need."""


def data_folder(path: str | None) -> Path:
    """The folder that ``path`` names, or else the environment variable.

    Raises:
        ConfigError: neither names one, or there is no such folder.
    """
    named = path or os.environ.get(DATA_VARIABLE)
    if not named:
        raise ConfigError(
            f"No data folder: neither --data nor the environment variable {DATA_VARIABLE} names "
            f"one. Expected a folder of NAME{_SUFFIX} files. Name it, or read the public sets "
            "with --hub."
        )
    folder = Path(named)
    if not folder.is_dir():
        raise ConfigError(
            f"{printable(named, 300)!r} is no folder. Expected one of NAME{_SUFFIX} files. "
            f"Check --data or {DATA_VARIABLE}."
        )
    return folder


def read_source(folder: Path, name: str) -> Iterator[SourceRow]:
    """The rows of ``NAME.jsonl.gz`` in ``folder``, in the file's order, without holding the file.

    Raises:
        DataError: the file is absent, not whole gzip, or a line is no row of the schema.
    """
    path = folder / f"{name}{_SUFFIX}"
    shown = repr(printable(str(path), 300))
    seen: set[str] = set()
    try:
        with gzip.open(path, "rb") as file:
            for number, raw in _lines(file):
                row = _parse_line(raw, f"{shown}, line {number}")
                if row.id in seen:
                    raise DataError(
                        f"{shown}, line {number}: the id {printable(row.id)!r} occurs twice. "
                        "Expected ids that differ. Rename or remove one of the rows."
                    )
                seen.add(row.id)
                yield row
    except FileNotFoundError:
        raise DataError(
            f"No file at {shown}. Expected a data folder that has it. Check --data or "
            f"{DATA_VARIABLE}, or leave out the harm or task that reads it."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = printable(getattr(error, "strerror", None) or str(error), 100)
        raise DataError(
            f"{shown} can't be read: {reason}. Expected a whole gzip file. Copy it anew and check "
            "its permissions."
        ) from None


def to_row(record: Mapping[str, Any], where: str) -> SourceRow:
    """A parsed object as a row of the schema; ``where`` begins the message of an error.

    Raises:
        DataError: a field is absent or of the wrong type.
    """
    try:
        row = SourceRow.model_validate(record)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = printable(".".join(str(part) for part in problem["loc"]), 60)
        found = f"{field}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    else:
        texts = {"id": row.id, "prompt": row.prompt, "response": row.response}
        broken = [name for name, text in texts.items() if not is_encodable(text)]
        if not broken:
            return row
        found = f"{broken[0]} has half a surrogate pair, which UTF-8 can't hold"
    raise DataError(f"{where}: {found}. {_EXPECTED} Mend the row or get its file anew.")


def _lines(file: gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and lines, blank ones left out, none read past the limit."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if raw.strip():
            yield number, raw


def _parse_line(raw: bytes, where: str) -> SourceRow:
    """One line as a row, or an error that names it."""
    try:
        if len(raw) > MAX_LINE_BYTES:
            raise UnreadableRow(f"longer than {MAX_LINE_BYTES} bytes")
        record = parse_object(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}"
    except UnreadableRow as error:
        found = str(error)
    else:
        return to_row(record, where)
    raise DataError(f"{where}: {found}. {_EXPECTED} Mend the line or copy the file anew.")
