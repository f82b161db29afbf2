"""Turns of a conversation, by whatever names a file has for their parts.

Each key of a turn is used, or stands in the closed list of those that don't matter, or costs the
row by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from forgetfilter.data.formats.calls import calls_text
from forgetfilter.data.formats.keys import (
    CALL_KEYS,
    CONTENT_KEYS,
    IGNORED_TURN_KEYS,
    LOSS_KEYS,
    REASONING_KEYS,
    ROLE_KEYS,
    ROLES,
)
from forgetfilter.data.formats.values import (
    UnreadableRow,
    as_text,
    is_empty,
    kind_of,
    parse_value,
)
from forgetfilter.data.records import Message
from forgetfilter.text import printable

_TEXT_PARTS = ("text", "input_text", "output_text")
_EXPECTED_ROLES = "system, user, assistant, tool"


def as_turns_or_text(value: Any, where: str, role: Literal["user", "assistant"]) -> list[Message]:
    """The turns in ``value``; bare text is one turn of ``role``, and so is a single turn."""
    if isinstance(value, str):
        return [Message(role, as_text(value, where))]
    return as_turns([value] if isinstance(value, dict) else value, where)


def turns_in_text(text: str) -> list[Any] | None:
    """The list of turns that a table without nested columns holds as text; else None.

    Text that only happens to be JSON stays text: each item has to name a known role.
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        value = parse_value(text, "")
    except UnreadableRow:
        return None
    items = cast(list[Any], value) if isinstance(value, list) else []
    for item in items:
        turn = cast(dict[str, Any], item) if isinstance(item, dict) else {}
        role = turn.get("role", turn.get("from"))
        if not isinstance(role, str) or role.strip().lower() not in ROLES:
            return None
    return items or None


def as_turns(value: Any, where: str) -> list[Message]:
    """A list of turns, or the JSON text of one, as messages."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_value(value, where)
    if not isinstance(value, list):
        raise UnreadableRow(f"{where} is {kind_of(value)}; expected a list of turns")
    items = cast(list[Any], value)
    return [_message(item, f"{where} turn {number}") for number, item in enumerate(items, start=1)]


def pairs(value: Any, where: str) -> list[Message]:
    """Earlier questions and answers, ``[[question, answer], …]``, as turns that are learned too.

    LLaMA-Factory's documentation of the ``history`` column (data/README.md) says that its answers
    "will also be learned by the model in supervised fine-tuning".
    """
    if isinstance(value, str):
        value = parse_value(value, where)
    if not isinstance(value, list):
        raise UnreadableRow(f"{where} is {kind_of(value)}; expected a list of pairs")
    turns: list[Message] = []
    for number, item in enumerate(cast(list[Any], value), start=1):
        pair = list(cast(list[Any], item)) if isinstance(item, list | tuple) else []
        if len(pair) != 2:
            raise UnreadableRow(f"{where} {number} is no pair of a question and an answer")
        turns.append(Message("user", as_text(pair[0], f"{where} {number}: question")))
        turns.append(Message("assistant", as_text(pair[1], f"{where} {number}: answer")))
    return turns


def _message(item: Any, where: str) -> Message:
    """One turn, all of whose keys are used or don't matter."""
    if not isinstance(item, dict):
        raise UnreadableRow(f"{where} is {kind_of(item)}; expected role and content")
    turn = cast(dict[str, Any], item)
    role = _role(turn, where)
    spoken = "assistant" if role == "call" else role
    parts: dict[str, Any] = {"reasoning": _reasoning(turn, where)}
    for key in CALL_KEYS:
        if not is_empty(turn.get(key)):
            if parts.get("tool_calls"):
                raise UnreadableRow(f"{where} has both tool_calls and function_call")
            parts["tool_calls"] = calls_text(turn[key], f"{where}: {key}")
    if spoken == "tool":
        if not is_empty(turn.get("tool_call_id")):
            parts["tool_call_id"] = as_text(turn["tool_call_id"], f"{where}: tool_call_id")
        if not is_empty(turn.get("name")):
            parts["name"] = as_text(turn["name"], f"{where}: name")
    content = _content(
        turn, where, may_be_absent=bool(parts.get("tool_calls") or parts["reasoning"])
    )
    if role == "call":
        parts["tool_calls"], content = calls_text(content, f"{where}: content"), ""
    for name in ("reasoning", "tool_calls"):
        if parts.get(name) and spoken != "assistant":
            raise UnreadableRow(f"{where} has {name.replace('_', ' ')}, but it is the {spoken}'s")
    _refuse_other_keys(turn, spoken, where)
    return Message(spoken, content, carries_loss=_carries_loss(turn, spoken, where), **parts)


def _role(turn: Mapping[str, Any], where: str) -> Any:
    found = [turn[key] for key in ROLE_KEYS if turn.get(key) is not None]
    role = found[0] if found else None
    known = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        shown = repr(printable(role, 30)) if isinstance(role, str) else kind_of(role)
        raise UnreadableRow(f"{where}: role is {shown}; expected one of {_EXPECTED_ROLES}")
    if len(found) > 1 and found[1] != role:
        raise UnreadableRow(f"{where} has two roles, as role and as from")
    return known


def _content(turn: Mapping[str, Any], where: str, *, may_be_absent: bool) -> str:
    """The text of a turn: ``content``, ``value`` or ``text``, or a list of text parts."""
    names = [key for key in CONTENT_KEYS if turn.get(key) is not None]
    if not names:
        if may_be_absent:
            return ""
        raise UnreadableRow(f"{where}: content is null or absent; expected text")
    texts = [_text_of(turn[name], f"{where}: {name}", where) for name in names]
    # ShareGPT's own files have the text once more, as it was shown; it has to be the same.
    for name, text in zip(names[1:], texts[1:], strict=True):
        if text.strip() and text.strip() != texts[0].strip():
            raise UnreadableRow(f"{where} has text twice, as {names[0]} and as {name}")
    return texts[0]


def _text_of(value: Any, what: str, where: str) -> str:
    if isinstance(value, list):
        parts = cast(list[Any], value)
        value = "".join(_part(part, f"{where}, part {n}") for n, part in enumerate(parts, 1))
    return as_text(value, what)


def _part(item: Any, where: str) -> str:
    """The text of one ``{"type": "text", "text": …}``."""
    part = cast(dict[str, Any], item) if isinstance(item, dict) else {}
    if part.get("type") not in _TEXT_PARTS:
        raise UnreadableRow(f"{where} is not text; only parts of type 'text' can be read")
    known = {"type", "text", *IGNORED_TURN_KEYS}
    other = [name for name, value in part.items() if name not in known and not is_empty(value)]
    if other:
        raise UnreadableRow(f"{where} has a key that is not read: {printable(other[0], 30)!r}")
    return as_text(part.get("text"), where)


def _reasoning(turn: Mapping[str, Any], where: str) -> str:
    texts = {key: turn[key] for key in REASONING_KEYS if not is_empty(turn.get(key))}
    found = [as_text(text, f"{where}: {key}") for key, text in texts.items()]
    if len(set(found)) > 1:
        raise UnreadableRow(f"{where} has different texts as {' and '.join(texts)}")
    return found[0] if found else ""


def _carries_loss(turn: Mapping[str, Any], role: str, where: str) -> bool:
    """What ``weight`` and its relatives say; without one, every answer is learned."""
    said: dict[str, bool] = {}
    for key in LOSS_KEYS:
        value = turn.get(key)
        if value is None or value == "":
            continue
        is_number = isinstance(value, int | float) and not (key == "weight" and value is True)
        if not is_number or value not in (0, 1):
            shown = printable(repr(value), 30)
            raise UnreadableRow(f"{where}: {key} is {shown}; a turn is learned (1) or not (0)")
        said[key] = bool(value)
    if len(set(said.values())) > 1:
        raise UnreadableRow(f"{where}: {' and '.join(said)} say different things")
    is_learned = next(iter(said.values()), True)
    if said and is_learned and role != "assistant":
        key = next(iter(said))
        raise UnreadableRow(
            f"{where}: {key} asks to learn what the {role} says, which isn't scored"
        )
    return is_learned if role == "assistant" else True


def _refuse_other_keys(turn: Mapping[str, Any], role: str, where: str) -> None:
    """Raise for a key that says something and that nothing here reads."""
    known = {*ROLE_KEYS, *CONTENT_KEYS, *REASONING_KEYS, *CALL_KEYS, *LOSS_KEYS}
    if role == "tool":
        known.add("tool_call_id")
    for name, value in turn.items():
        if name not in known and name not in IGNORED_TURN_KEYS and not is_empty(value):
            raise UnreadableRow(
                f"{where} has a key that is not read: {printable(name, 30)!r} ({kind_of(value)})"
            )
