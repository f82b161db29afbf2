"""Files that nearly are what can be read, made into what can be read.

Nothing here writes over a file: what a file should have been is a guess, and its owner decides.
"""

from __future__ import annotations

import ast
import bz2
import io
import json
import lzma
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from forgetfilter.data.containers.base import BOM, as_line
from forgetfilter.data.containers.compression import bounded
from forgetfilter.errors import DataError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.places import shown

_DECODER = json.JSONDecoder()
_STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[\]}])', re.DOTALL)
_BETWEEN = " \t\r\n,"
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_SAMPLE = 1000


def convert_file(path: Path, output: Path) -> int:
    """Write what ``path`` holds as UTF-8 or JSON Lines to a new file.

    Returns:
        The number of rows; 0 where the text was only decoded or decompressed.

    Raises:
        DataError: nothing can be made of the file, or there is something at ``output``.
    """
    require_new(output)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{shown(path)} can't be read: {error.strerror}. Expected a file. Check the path."
        ) from None
    encoding = encoding_of(data)
    if encoding is not None:
        write_bytes_atomic(output, data.decode(encoding).encode("utf-8"))
        return 0
    for mark, opened, command in _COMPRESSED:
        if data.startswith(mark):
            source = opened(io.BytesIO(data))
            try:
                with bounded(source, len(data), shown(path), command) as file:
                    write_bytes_atomic(output, file.read())
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                raise DataError(
                    f"{shown(path)} can't be decompressed: {error}. Expected a whole file. Copy "
                    "or download it again."
                ) from None
            return 0
    try:
        rows = rows_of(data.removeprefix(BOM).decode("utf-8"))
    except UnicodeDecodeError:
        rows = None
    if not rows:
        raise DataError(
            f"No rows are found in {shown(path)}. Expected objects in JSON or Python. Mend the "
            "file by hand."
        )
    write_bytes_atomic(output, b"".join(as_line(row) + b"\n" for row in rows))
    return len(rows)


def require_new(output: Path) -> None:
    """Raise `DataError` where there is something at ``output``."""
    if output.exists():
        raise DataError(
            f"{shown(output)} is there already. Expected a new file. Choose another name, or move "
            "it away."
        )


def encoding_of(data: bytes) -> str | None:
    """The encoding of a text in UTF-16 or UTF-32; None for anything else."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            # The mark alone may be a bad line; in real UTF-16 about half of the bytes are null.
            sample = data[len(mark) : len(mark) + _SAMPLE]
            return (
                encoding if sample.count(0) * 4 > len(sample) and _decodes(data, encoding) else None
            )
    sample = data[:_SAMPLE]
    for encoding, nulls in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        rest = sample[::2] if encoding == "utf-16-le" else sample[1::2]
        if len(nulls) > 1 and nulls.count(0) * 4 > len(nulls) * 3 and rest.count(0) == 0:
            return encoding if _decodes(data, encoding) else None
    return None


def rows_of(text: str) -> list[dict[str, Any]] | None:
    """The objects that a text holds, however they are laid out; None where it holds others."""
    return objects_of(text) or objects_of(without_trailing_commas(text)) or python_objects_of(text)


def objects_of(text: str) -> list[dict[str, Any]] | None:
    """JSON objects one after the other: apart, between commas, in a list, or in an object."""
    found: list[dict[str, Any]] = []
    inside, at = 0, 0
    while at < len(text):
        if text[at] in _BETWEEN:
            at += 1
        elif text[at] == "[" and not inside:
            inside, at = 1, at + 1
        elif text[at] == "]" and inside:
            inside, at = 0, at + 1
        else:
            try:
                value, at = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError):
                return None
            if not isinstance(value, dict):
                return None
            found.append(cast(dict[str, Any], value))
    return _rows_of_document(found[0]) if len(found) == 1 else found or None


def python_objects_of(text: str) -> list[dict[str, Any]] | None:
    """Dictionaries as Python prints them: a list, or one on each line."""
    pieces = [text.strip()] if text.lstrip().startswith("[") else text.splitlines()
    found: list[dict[str, Any]] = []
    for piece in pieces:
        if not piece.strip(" \t,"):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value: Any = ast.literal_eval(piece.strip(" \t,\r"))
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return None
        rows = cast(list[Any], value) if isinstance(value, list) else [value]
        if not all(isinstance(row, dict) for row in rows):
            return None
        found += rows
    return found or None


def without_trailing_commas(text: str) -> str:
    """JSON without the commas before a closing bracket, which other languages allow."""
    return _STRING_OR_COMMA.sub(lambda found: found[0] if found[0] != "," else "", text)


def rows_of_columns(record: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of a table that is stored by column, as pandas writes it; None for anything else."""
    values = list(record.values())
    if len(values) < 2:
        return None
    if all(isinstance(value, dict) for value in values):
        keys = [list(cast(dict[str, Any], value)) for value in values]
        if not keys[0] or any(own != keys[0] for own in keys) or not all(map(str.isdigit, keys[0])):
            return None
        return [{name: value[key] for name, value in record.items()} for key in keys[0]]
    if all(isinstance(value, list) for value in values):
        lengths = {len(cast(list[Any], value)) for value in values}
        texts = sum(all(isinstance(item, str) for item in value) for value in values)
        if len(lengths) != 1 or lengths == {0} or texts < 2:
            return None
        return [dict(zip(record, row, strict=True)) for row in zip(*values, strict=True)]
    return None


def _rows_of_document(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows in one object: below its names, in its columns, or itself."""
    lists: dict[str, list[Any]] = {name: item for name, item in record.items() if _is_rows(item)}
    rows = lists.get("rows") or [row for item in lists.values() for row in item]
    if rows and all(isinstance(row.get("row"), dict) for row in rows):
        rows = [row["row"] for row in rows]  # as the Hub's viewer hands them out
    return rows or rows_of_columns(record) or [record]


def _is_rows(value: Any) -> bool:
    items = cast(list[Any], value) if isinstance(value, list) else []
    return (
        bool(items)
        and all(isinstance(item, dict) for item in items)
        and not any("role" in item or "from" in item for item in items)
    )


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


_COMPRESSED: tuple[tuple[bytes, Callable[[io.BytesIO], Any], str], ...] = (
    (b"BZh", bz2.BZ2File, "bzip2 -dk"),
    (b"\xfd7zXZ\x00", lzma.LZMAFile, "xz -dk"),
)
