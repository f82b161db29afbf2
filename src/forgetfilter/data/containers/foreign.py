"""Files that as a whole are something else: what they are, and the way out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from forgetfilter.data.containers import convert
from forgetfilter.data.containers.array import broken_array
from forgetfilter.data.containers.base import BOM
from forgetfilter.data.formats.values import whole_number
from forgetfilter.errors import DataError
from forgetfilter.text import printable

EXPECTED = (
    "Expected rows as JSON Lines (one object on each line), a JSON array, CSV, TSV, Parquet or "
    "Arrow, text in UTF-8."
)
_DOWNLOAD = (
    "Download the file itself; on the Hugging Face Hub its address has /resolve/ where the page's "
    "has /blob/."
)
_UNPACK = "Unpack it and name a file in it: python -m zipfile -e {path} {folder}"

_BINARY = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and name a file in it."),
    (b"Rar!", "a RAR archive", "Unpack it and name a file in it."),
    (b"%PDF", "a PDF", "Save its rows as CSV or JSON Lines."),
    (b"SQLite format 3", "an SQLite database", "Save the table as CSV: sqlite3 -header -csv"),
    (b"\x93NUMPY", "a NumPy array", "Save the rows as JSON Lines."),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "Save it as CSV in UTF-8."),
    (b"\x80\x04\x95", "a Python pickle", "Open it where it was made and save it as JSON Lines."),
    (b"\x89PNG", "a picture", "Name the file that holds the rows."),
    (b"\xff\xd8\xff", "a picture", "Name the file that holds the rows."),
)
_COMPRESSED = ((b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))
_BINARY_SAMPLE = 4000
_LINES_LOOKED_AT = 50


def refuse_marked(path: Path, shown: str, data: bytes) -> None:
    """Raise for a file whose first bytes say that it is something else."""
    start = data[:600].removeprefix(BOM).lstrip()
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        _refuse(
            f"{shown} is a Git LFS pointer, not the file that it stands for",
            f"Fetch that: git lfs pull --include {shlex.quote(path.name)}",
        )
    low = start.lower()
    if low.startswith((b"<!doctype html", b"<html", b"<head")):
        _refuse(f"{shown} is a web page (HTML)", _DOWNLOAD)
    if low.startswith((b"<?xml", b"<error")):
        _refuse(f"{shown} is XML", _DOWNLOAD)
    if data.startswith(b"PK\x03\x04"):
        if b"xl/" in data[:4000] or b"xl/workbook" in data[-4000:]:
            _refuse(f"{shown} is an Excel workbook", "Save it as CSV in UTF-8.")
        folder = shlex.quote(path.stem + "-unpacked")
        advice = _UNPACK.format(path=shlex.quote(str(path)), folder=folder)
        _refuse(f"{shown} looks like zip", advice)
    for mark, kind, advice in _BINARY:
        if data.startswith(mark):
            _refuse(f"{shown} is {kind}", advice)
    for mark, kind in _COMPRESSED:
        if data.startswith(mark):
            inner = path.suffix.lower() in (".bz2", ".xz")
            output = _free(path.with_suffix("") if inner else path.with_suffix(".converted.jsonl"))
            _refuse(f"{shown} looks like {kind}", _convert(path, output))
    if convert.encoding_of(data) is not None:
        output = _free(path.with_name(f"{path.stem}.utf8{path.suffix}"))
        _refuse(f"{shown} looks like UTF-16", _convert(path, output))
    sample = data[:_BINARY_SAMPLE]
    if sample.count(0) > len(sample) // 50:
        _refuse(f"{shown} holds binary data", "Name the file that holds the rows as text.")


def refuse_other_json(path: Path, shown: str, text: str, is_object: Callable[[str], bool]) -> None:
    """Raise for objects that aren't on a line each, or aren't JSON, if most lines are no objects.

    A single bad line turns no file of good rows away.
    """
    lines = [line for line in text.split("\n") if line.strip()][:_LINES_LOOKED_AT]
    first = text.lstrip()[:1]
    good = 2 * sum(map(is_object, lines))
    if good > len(lines) or (good == len(lines) and first != "["):
        return
    number = text[: len(text) - len(text.lstrip())].count("\n") + 1
    if first not in ("[", "{"):
        return
    advice = _convert(path, _free(path.with_name(f"{path.stem}.converted.jsonl")))
    broken = broken_array(text) if first == "[" else None
    rows = convert.objects_of(text)
    if rows is not None and broken is None:
        kind = "JSON objects that are not on one line each"
        _refuse(f"{shown} holds {kind}, from line {number}", advice)
    cleaned = convert.without_trailing_commas(text)
    if cleaned != text and convert.objects_of(cleaned) is not None:
        at = next(
            (n for n, (a, b) in enumerate(zip(text, cleaned + "\0", strict=False)) if a != b), 0
        )
        line = text.count("\n", 0, at) + 1
        _refuse(f"{shown} is JSON with a comma before a closing bracket, in line {line}", advice)
    if convert.python_objects_of(text) is not None:
        kind = "dictionaries as Python prints them, not JSON"
        _refuse(f"{shown} holds {kind}, from line {number}", advice)
    if rows is not None:
        _refuse(f"{shown} holds JSON objects in a broken array ({broken})", advice)
    rest = text.lstrip()[1:].lstrip()[:1]
    if broken is not None and (rest in ("{", "]", "") or len(lines) == 1):
        _refuse(
            f"{shown} is a JSON array that breaks: {broken}",
            f"Mend line {broken.line}, or copy the file again if it was cut off.",
        )


def refuse_by_column(path: Path, shown: str, line: bytes) -> None:
    """Raise for a single object that holds a whole table, column by column."""
    record = json.loads(line.decode("utf-8", "replace"), parse_int=whole_number)
    rows = convert.rows_of_columns(record)
    if rows is not None:
        output = _free(path.with_name(f"{path.stem}.converted.jsonl"))
        found = f"{shown} is a table of {len(rows)} rows stored by column, in line 1"
        _refuse(found, _convert(path, output))


def _convert(path: Path, output: Path) -> str:
    """The command that makes a readable file beside the one that can't be read."""
    if not (str(path).isprintable() and str(output).isprintable()):
        return "Give the file a plain name, then repeat."
    return (
        "Convert it into a new file, and screen that: "
        f"forgetfilter convert {shlex.quote(str(path))} {shlex.quote(str(output))}"
    )


def _free(path: Path) -> Path:
    """A path at which there is nothing yet."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _refuse(found: str, advice: str) -> None:
    raise DataError(f"{found}. {EXPECTED} {advice}")


def empty(shown: str) -> DataError:
    """What is said of a file without rows."""
    return DataError(f"{shown} has 0 rows. {EXPECTED} Check that it is the file you meant.")


def quoted(path: Path | str) -> str:
    """A path as messages show it."""
    return repr(printable(str(path), 300))
