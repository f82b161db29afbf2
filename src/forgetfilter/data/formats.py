"""One parsed JSON object in, one conversation out.

Three shapes are read: ``messages``; ``prompt`` with ``completion``; and ``instruction`` with
``output`` and an optional ``input``. All other columns are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NoReturn, cast, get_args

from forgetfilter.data.records import Message, Role
from forgetfilter.text import printable

_ROLES: tuple[str, ...] = get_args(Role)
_SHOWN_COLUMNS = 8
_FORMATS = "messages, prompt + completion, instruction + output"


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
        raise UnreadableRow(f"not a JSON object but {_kind(value)}")
    return cast(dict[str, Any], value)


def parse_messages(record: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation that a row's object holds; a column that is null counts as absent.

    Raises:
        UnreadableRow: no known format, or one that doesn't end in an answer that can be learned.
    """
    columns = {name: value for name, value in record.items() if value is not None}
    if "messages" in columns:
        turns = _turns(columns["messages"], "messages")
    elif "prompt" in columns and "completion" in columns:
        prompt = _turns_or_text(columns["prompt"], "prompt", "user")
        # As in TRL, a prompt's own assistant turns are context, not something to learn.
        turns = [replace(turn, carries_loss=turn.role != "assistant") for turn in prompt]
        turns += _turns_or_text(columns["completion"], "completion", "assistant")
    elif "instruction" in columns and "output" in columns:
        names = [name for name in ("instruction", "input") if name in columns]
        parts = [_text(columns[name], name) for name in names]
        question = "\n\n".join(part for part in parts if part.strip())
        turns = [
            Message("user", question),
            Message("assistant", _text(columns["output"], "output")),
        ]
    else:
        raise UnreadableRow(
            f"no known format: found {_list_columns(record)}; expected one of {_FORMATS}"
        )
    return _checked(turns)


def _checked(turns: list[Message]) -> tuple[Message, ...]:
    """The turns, once they are known to end in an answer to something."""
    if not turns:
        raise UnreadableRow("no turns: the conversation is empty")
    answer = turns[-1]
    if answer.role != "assistant":
        raise UnreadableRow(f"the last turn is the {answer.role}'s; expected the assistant's")
    if not answer.content.strip():
        raise UnreadableRow("empty completion: the last assistant turn has no text")
    if len(turns) == 1:
        raise UnreadableRow("no turn before the answer: there is nothing to answer")
    return tuple(turns)


def _turns_or_text(value: Any, where: str, role: Literal["user", "assistant"]) -> list[Message]:
    """The turns in ``value``; bare text is one turn of ``role``."""
    if isinstance(value, str):
        return [Message(role, _text(value, where))]
    return _turns(value, where)


def _turns(value: Any, where: str) -> list[Message]:
    """A list of ``{role, content}`` as messages."""
    if not isinstance(value, list):
        raise UnreadableRow(f"{where} is {_kind(value)}; expected a list of turns")
    items = cast(list[Any], value)
    return [_message(item, f"{where} turn {number}") for number, item in enumerate(items, start=1)]


def _message(item: Any, where: str) -> Message:
    """One ``{role, content}``, where content is text or a list of text parts."""
    if not isinstance(item, dict):
        raise UnreadableRow(f"{where} is {_kind(item)}; expected role and content")
    turn = cast(dict[str, Any], item)
    role = turn.get("role")
    if role not in _ROLES:
        shown = repr(printable(role, 30)) if isinstance(role, str) else _kind(role)
        raise UnreadableRow(f"{where}: role is {shown}; expected one of {', '.join(_ROLES)}")
    content = turn.get("content")
    if isinstance(content, list):
        parts = cast(list[Any], content)
        content = "".join(_part(part, f"{where}, part {n}") for n, part in enumerate(parts, 1))
    return Message(role, _text(content, f"{where}: content"))


def _part(item: Any, where: str) -> str:
    """The text of one ``{"type": "text", "text": …}``."""
    part = cast(dict[str, Any], item) if isinstance(item, dict) else {}
    if part.get("type") != "text":
        raise UnreadableRow(f"{where} is not text; only parts of type 'text' can be read")
    return _text(part.get("text"), where)


def _text(value: Any, where: str) -> str:
    """``value`` if it is text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise UnreadableRow(f"{where} is {_kind(value)}; expected text")
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


def _list_columns(record: Mapping[str, Any]) -> str:
    """The names of a row's columns, cut to what fits a message."""
    if not record:
        return "no columns"
    names: list[str] = []
    for name, value in list(record.items())[:_SHOWN_COLUMNS]:
        names.append(printable(name, 30) + (" (null)" if value is None else ""))
    more = len(record) - len(names)
    return "columns " + ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
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
