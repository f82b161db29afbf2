"""Records of a file one by one, JSON Lines without ever holding all of them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forgetfilter.data.containers import Record
from forgetfilter.data.many_rows.line_files import is_large_jsonl, lines_of
from forgetfilter.data.sources import Source, open_file


@dataclass(frozen=True)
class Stream:
    """The records of one file, and what container they are in."""

    name: str
    container: str
    records: Iterator[Record]


def stream_file(path: Path) -> Stream:
    """A file's records, the same as those of its `Source`, but read only as they are asked for.

    That holds for JSON Lines, compressed or not, of any size; every other container is read whole.

    Raises:
        DataError: the file can't be read, or as a whole is something else; also from ``records``.
    """
    if is_large_jsonl(path):
        return Stream(str(path), "jsonl", lines_of(path))
    return stream_source(open_file(path))


def stream_source(source: Source) -> Stream:
    """The records of a source, JSON Lines of a file as they are asked for."""
    return Stream(source.name, source.container.name, source.records())
