"""JSON values as objects and texts, each with the reason where it is something else."""

from __future__ import annotations

import json
from typing import Any, cast

from forgetfilter.data.formats.bounded_json import (
    RepeatedKeyError,
    TooDeepError,
    literal,
    parse_json,
)
from forgetfilter.text import printable


class UnreadableRow(Exception):
    """A row can't be used; the message is the reason, in plain words and safe to print."""


class MalformedRow(UnreadableRow):
    """A row that is not even a record of its file: broken JSON, another encoding, lost fields."""


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in ``text``.

    NaN and Infinity, which Python's own writer makes, are read as such: they are no text, so a
    column that is read refuses them, and any other may hold them. A key that stands twice costs
    the row: the line is kept as it is, and who reads it next may take the other value.

    Raises:
        MalformedRow: not JSON, nested too deeply, with a key twice, or not an object.
    """
    try:
        value: Any = parse_json(text)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise MalformedRow(f"malformed JSON at character {error.pos + 1}: {what}") from None
    except (TooDeepError, RepeatedKeyError) as error:
        raise MalformedRow(f"malformed JSON: {printable(str(error), 100)}") from None
    if not isinstance(value, dict):
        raise MalformedRow(f"not a JSON object but {kind_of(value)}")
    return cast(dict[str, Any], value)


def parse_value(text: str, where: str) -> Any:
    """What a column that holds text means by it: JSON, or a list or object as Python writes it.

    Tables without nested columns keep turns and tools so.
    """
    try:
        return parse_json(text)
    except (TooDeepError, RepeatedKeyError) as error:
        said = printable(str(error), 100)
        raise UnreadableRow(f"{where} is text that is no JSON: {said}") from None
    except ValueError:
        pass
    try:
        # Through JSON once, so that tuples are lists and keys are text.
        return parse_json(json.dumps(literal(text.strip())))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        shown = printable(text.strip(), 30)
        raise UnreadableRow(f"{where} is text that is no JSON: {shown!r}") from None


def as_text(value: Any, where: str) -> str:
    """``value`` if it is text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise UnreadableRow(f"{where} is {kind_of(value)}; expected text")
    if not is_encodable(value):
        raise UnreadableRow(f"{where} has half a surrogate pair, which UTF-8 can't hold")
    return value


def is_encodable(text: str) -> bool:
    """Whether ``text`` has no lone surrogate (JSON's escapes can make one)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, or text, a list or an object without content."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | dict) and not value)


def without_empty(value: Any) -> Any:
    """``value`` without the nulls that a table with nested columns puts where a key is missing."""
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {name: without_empty(item) for name, item in items if item is not None}
    if isinstance(value, list):
        return [without_empty(item) for item in cast(list[Any], value)]
    return value


def kind_of(value: Any) -> str:
    """What a JSON value is, in plain words."""
    if value is None:
        return "null or absent"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"
