"""The containers that rows can come in, told by a file's content before its name."""

from __future__ import annotations

import json
import re
from pathlib import Path

from forgetfilter.data.containers.array import Array, broken_array
from forgetfilter.data.containers.base import BOM, MAX_LINE_BYTES, Container, Record
from forgetfilter.data.containers.compression import decompress, inner_name
from forgetfilter.data.containers.delimited import Delimited, delimiter_of
from forgetfilter.data.containers.foreign import (
    EXPECTED,
    empty,
    refuse_by_column,
    refuse_marked,
    refuse_other_json,
)
from forgetfilter.data.containers.lines import Lines
from forgetfilter.data.containers.tables import Arrow, Parquet, SavedDataset, is_arrow_stream
from forgetfilter.data.formats import formats

__all__ = [
    "CONTAINERS",
    "EXPECTED",
    "Container",
    "Record",
    "container_of",
    "decompress",
    "is_object",
]

_AROUND_ONE_LINE = 64
_INK = re.compile(rb"[^\s]")

CONTAINERS: dict[str, Container] = {
    each.name: each
    for each in (
        Lines(),
        Array(),
        Delimited("csv"),
        Delimited("tsv"),
        Parquet(),
        Arrow(),
        SavedDataset(),
    )
}


def container_of(path: Path, shown: str, data: bytes) -> Container:
    """The container of a file's (decompressed) bytes.

    A file whose first line is a JSON object is JSON Lines, whatever its name.

    Raises:
        DataError: the file is empty, or as a whole is something else.
    """
    first = _first_line(data)
    if first is None:
        raise empty(shown)
    if data.startswith(b"PAR1"):
        return CONTAINERS["parquet"]
    if data.startswith(b"ARROW1") or is_arrow_stream(data):
        return CONTAINERS["arrow"]
    if len(first) > MAX_LINE_BYTES and first.startswith(b"{"):
        return CONTAINERS["jsonl"]  # whose reader rejects the line without parsing it
    if is_object(first.decode("utf-8", "replace")):
        # Only short ends are looked at: the file may be large.
        if len(data) - len(first) <= _AROUND_ONE_LINE and data.strip().endswith(first.strip()):
            refuse_by_column(path, shown, first)
        return CONTAINERS["jsonl"]
    refuse_marked(path, shown, data)
    text = data.removeprefix(BOM).decode("utf-8", "replace")
    start = text.lstrip()
    if start.startswith("["):
        if _is_array_of_rows(start):
            return CONTAINERS["json"]
        if start.rstrip() == "[]" or (start[1:].lstrip()[:1] == "]" and broken_array(text) is None):
            raise empty(shown)
    suffix = Path(inner_name(path.name)).suffix.lower()
    if suffix in (".csv", ".tsv") and not start.startswith(("{", "[")):
        return CONTAINERS[suffix[1:]]
    refuse_other_json(path, shown, text, is_object)
    kind = _kind_of_table(re.split(r"[\r\n]", start, maxsplit=1)[0])
    return CONTAINERS[kind or "jsonl"]


def _first_line(data: bytes) -> bytes | None:
    """The first line that isn't blank; the file may be large, so it is not copied."""
    found = _INK.search(data, len(BOM) if data.startswith(BOM) else 0)
    if found is None:
        return None
    end = data.find(b"\n", found.start())
    return data[found.start() : None if end < 0 else end]


def _is_array_of_rows(text: str) -> bool:
    """Whether a text is one whole array with at least one object in it."""
    if broken_array(text) is not None:
        return False
    return any(isinstance(item, dict) for item in json.loads(text, parse_int=float))


def is_object(line: str) -> bool:
    """Whether a text is one JSON object."""
    try:
        return isinstance(json.loads(line, parse_int=float), dict)
    except (ValueError, RecursionError):
        return False


def _kind_of_table(line: str) -> str | None:
    """The kind of a table without a telling name, if its first line names a format's columns."""
    delimiter = delimiter_of(line)
    names = {name.strip().strip('"') for name in line.split(delimiter)}
    if not any(len(each.needs) > 1 and names.issuperset(each.needs) for each in formats()):
        return None
    return "tsv" if delimiter == "\t" else "csv"
