"""JSON values as objects, turns and texts, each with the reason where it is something else."""

from __future__ import annotations

import json
from typing import Any, Literal, NoReturn, cast, get_args

from forgetfilter.data.records import Message, Role
from forgetfilter.text import printable

_ROLES: tuple[str, ...] = get_args(Role)


class UnreadableRow(Exception):
    """A row can't be used; the message is the reason, in plain words and safe to print."""


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in ``text``; of a repeated key the last value counts.

    Raises:
        UnreadableRow: not JSON (NaN and Infinity aren't), nested too deeply, or not an object.
    """
    try:
        value: Any = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise UnreadableRow(f"malformed JSON at character {error.pos + 1}: {what}") from None
    except RecursionError:
        raise UnreadableRow("malformed JSON: nested too deeply") from None
    except ValueError:
        # The parser's only other complaint: more digits than Python converts.
        raise UnreadableRow("malformed JSON: a number has too many digits") from None
    if not isinstance(value, dict):
        raise UnreadableRow(f"not a JSON object but {kind_of(value)}")
    return cast(dict[str, Any], value)


def as_turns_or_text(value: Any, where: str, role: Literal["user", "assistant"]) -> list[Message]:
    """The turns in ``value``; bare text is one turn of ``role``."""
    if isinstance(value, str):
        return [Message(role, as_text(value, where))]
    return as_turns(value, where)


def as_turns(value: Any, where: str) -> list[Message]:
    """A list of ``{role, content}`` as messages."""
    if not isinstance(value, list):
        raise UnreadableRow(f"{where} is {kind_of(value)}; expected a list of turns")
    items = cast(list[Any], value)
    return [_message(item, f"{where} turn {number}") for number, item in enumerate(items, start=1)]


def _message(item: Any, where: str) -> Message:
    """One ``{role, content}``, where content is text or a list of text parts."""
    if not isinstance(item, dict):
        raise UnreadableRow(f"{where} is {kind_of(item)}; expected role and content")
    turn = cast(dict[str, Any], item)
    role = turn.get("role")
    if role not in _ROLES:
        shown = repr(printable(role, 30)) if isinstance(role, str) else kind_of(role)
        raise UnreadableRow(f"{where}: role is {shown}; expected one of {', '.join(_ROLES)}")
    content = turn.get("content")
    if isinstance(content, list):
        parts = cast(list[Any], content)
        content = "".join(_part(part, f"{where}, part {n}") for n, part in enumerate(parts, 1))
    return Message(role, as_text(content, f"{where}: content"))


def _part(item: Any, where: str) -> str:
    """The text of one ``{"type": "text", "text": …}``."""
    part = cast(dict[str, Any], item) if isinstance(item, dict) else {}
    if part.get("type") != "text":
        raise UnreadableRow(f"{where} is not text; only parts of type 'text' can be read")
    return as_text(part.get("text"), where)


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


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableRow(f"malformed JSON: {name} is not a JSON value")
