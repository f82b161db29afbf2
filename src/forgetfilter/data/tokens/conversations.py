"""A row's turns and tools in the forms that chat templates know."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from forgetfilter.data.records import Message

Kind = Literal["content", "reasoning", "call", "tools"]
Change = Callable[[int, Kind, str], str]
"""Called with a turn's index (-1: the row's tools), what a text is, and the text."""


@dataclass(frozen=True)
class Shape:
    """Forms of the same conversation that templates ask for; they can't be told what is meant."""

    is_in_parts: bool = False
    """Content as a list of parts, as templates of models with images read it."""
    has_text_arguments: bool = False
    """Arguments of calls as JSON text, not as an object."""


SHAPES = (Shape(), Shape(False, True), Shape(True), Shape(True, True))


@dataclass
class Conversation:
    """What a template is given of one row."""

    turns: list[dict[str, Any]]
    tools: list[Any] | None = None

    def task(self, upto: int | None = None, *, add_generation_prompt: bool = False) -> Any:
        """The first ``upto`` turns, as a request to render."""
        return {
            "messages": self.turns[:upto],
            "tools": self.tools,
            "add_generation_prompt": add_generation_prompt,
        }


def conversation(
    messages: Sequence[Message], tools: str, shape: Shape, change: Change | None = None
) -> Conversation:
    """Turns and tools as templates know them, each text changed by ``change``.

    Texts come in a fixed order: the tools', then turn by turn reasoning, content and calls.
    """

    def changed(at: int, kind: Kind, text: str) -> str:
        return text if change is None else change(at, kind, text)

    offered = json.loads(tools) if tools else None
    if offered is not None:
        offered = _changed_leaves(offered, lambda text: changed(-1, "tools", text), _TOOL_TEXTS)
    turns: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        turn: dict[str, Any] = {"role": message.role}
        if message.reasoning:
            reasoning = changed(at, "reasoning", message.reasoning)
            # Under the names that templates read.
            turn |= {"reasoning_content": reasoning, "thinking": reasoning}
        text = changed(at, "content", message.content)
        turn["content"] = [{"type": "text", "text": text}] if shape.is_in_parts else text
        if message.tool_calls:
            calls = _with_objects(json.loads(message.tool_calls))
            calls = _changed_leaves(calls, lambda text, at=at: changed(at, "call", text), None)
            turn["tool_calls"] = _with_text(calls) if shape.has_text_arguments else calls
        if message.tool_call_id:
            turn["tool_call_id"] = message.tool_call_id
        if message.name:
            turn["name"] = message.name
        turns.append(turn)
    return Conversation(turns, offered)


_TOOL_TEXTS = frozenset({"name", "description"})
"""What has to be seen of a tool: its schema is written anew by some templates."""
_NEVER_SHOWN = frozenset({"id", "type", "index"})
"""Keys of a call that are no part of what is said."""


def _changed_leaves(value: Any, change: Callable[[str], str], only: frozenset[str] | None) -> Any:
    """``value`` with each text in it changed, of objects only those of the keys ``only``."""
    if isinstance(value, list):
        return [_changed_leaves(item, change, only) for item in value]
    if not isinstance(value, dict):
        return change(value) if isinstance(value, str) and only is None else value
    found: dict[str, Any] = {}
    for name, item in value.items():
        if only is None and name == "arguments":
            found[name] = _all_leaves(item, change)
        elif isinstance(item, str):
            is_text = name in only if only is not None else name not in _NEVER_SHOWN
            found[name] = change(item) if is_text else item
        elif only is not None and name == "parameters":
            found[name] = item  # a schema, whose own names and descriptions are rewritten freely
        else:
            found[name] = _changed_leaves(item, change, only)
    return found


def _all_leaves(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _all_leaves(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_all_leaves(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _with_objects(calls: Any) -> Any:
    """Calls with their arguments as objects, where they are the JSON text of one."""
    return _arguments(calls, lambda a: _parsed(a) if isinstance(a, str) else a)


def _with_text(calls: Any) -> Any:
    return _arguments(
        calls, lambda a: a if isinstance(a, str) else json.dumps(a, ensure_ascii=False)
    )


def _arguments(calls: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(calls, list):
        return [_arguments(call, change) for call in calls]
    if not isinstance(calls, dict):
        return calls
    return {
        name: change(item)
        if name == "arguments"
        else _arguments(item, change)
        if name == "function"
        else item
        for name, item in calls.items()
    }


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) else text
