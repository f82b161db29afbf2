"""Files of JSON Lines read from beginning to end, of any size, compressed or not."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from forgetfilter.data.containers import Record, is_object
from forgetfilter.data.containers.base import BOM, MAX_LINE_BYTES, too_long
from forgetfilter.data.containers.compression import expanded
from forgetfilter.data.containers.lines import parse_line
from forgetfilter.errors import DataError, ForgetFilterError
from forgetfilter.text import printable

_LINES_LOOKED_AT = 50
_SMALL = 2**22
"""A file of fewer bytes (decompressed) is read whole: all of it says what it is."""
_CHUNK = 2**16


def is_large_jsonl(path: Path) -> bool:
    """Whether a file isn't small and its beginning is enough to tell JSON Lines."""
    try:
        if not path.is_file():
            return False
        with _opened(path) as file:
            head = file.read(_SMALL)
    except (OSError, ValueError, ForgetFilterError):
        return False  # told where the file is opened for good
    if len(head) < _SMALL:
        return False
    lines = [line for line in head.removeprefix(BOM).split(b"\n")[:-1] if line.strip()]
    lines = lines[:_LINES_LOOKED_AT]
    if not lines:
        return False
    good = [is_object(line.decode("utf-8", "replace")) for line in lines]
    if good[0]:
        return True
    is_other = path.suffix.lower() in (".csv", ".tsv") or not lines[0].lstrip().startswith(b"{")
    return not is_other and 2 * sum(good) > len(good)


def lines_of(path: Path, is_whole: bool = False) -> Iterator[Record]:
    """Every line that isn't blank, as `containers.lines.Lines` reads them.

    Args:
        path: the file.
        is_whole: whether a line that is too long to be parsed is given whole too, which takes as
            much memory; else its beginning.

    Raises:
        DataError: the file can't be read, is damaged, or expands beyond what is read.
    """
    with _opened(path) as file:
        for number, (raw, size) in enumerate(_raw_lines(file, is_whole), start=1):
            if size > MAX_LINE_BYTES and not (is_whole and not raw.strip()):
                yield Record(number, raw, None, too_long(size, MAX_LINE_BYTES))
            elif raw.strip():
                yield parse_line(number, raw, MAX_LINE_BYTES)


def _raw_lines(file: IO[bytes], is_whole: bool) -> Iterator[tuple[bytes, int]]:
    """Each line without its line feed, and its length; of one that is too long the beginning."""
    while raw := file.readline(MAX_LINE_BYTES + 2):
        size = len(raw)
        if size > MAX_LINE_BYTES + 1:
            last, pieces = raw, [raw if is_whole else raw[:_CHUNK]]
            while not last.endswith(b"\n") and (last := file.readline(_CHUNK)):
                size += len(last)
                pieces += [last] if is_whole else []
            size -= last.endswith(b"\n")
            yield b"".join(pieces)[:size], size
        else:
            raw = raw.removesuffix(b"\n")
            yield raw, len(raw)


@contextmanager
def _opened(path: Path) -> Generator[IO[bytes]]:
    """A file to read from its beginning, decompressed on the way.

    Raises:
        DataError: it can't be read, is damaged, or expands beyond what is read.
    """
    shown = repr(printable(str(path), 300))
    try:
        with (
            open(path, "rb") as stored,
            expanded(stored, os.fstat(stored.fileno()).st_size, shown) as file,
        ):
            yield file
    except OSError as error:
        raise DataError(
            f"{shown} can't be read: {error.strerror}. Expected a file that can be read to "
            "its end. Check the path and its permissions."
        ) from None
