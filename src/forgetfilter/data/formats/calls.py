"""Tool calls and tools of a row, as the JSON lists that chat templates expect."""

from __future__ import annotations

import json
from typing import Any, cast

from forgetfilter.data.formats.values import (
    UnreadableRow,
    as_text,
    kind_of,
    parse_value,
    without_empty,
)
from forgetfilter.text import printable

_CALL_KEYS = frozenset({"id", "type", "function", "index"})
_FUNCTION_KEYS = frozenset({"name", "arguments", "parameters"})


def calls_text(value: Any, where: str) -> str:
    """OpenAI's ``tool_calls`` (a list), or one ``{name, arguments}``, as a JSON list.

    Arguments become an object where they were written as JSON text.
    """
    value = parse_value(value, where) if isinstance(value, str) else value
    items = cast(list[Any], value) if isinstance(value, list) else [value]
    calls = [_call(item, f"{where} {number}") for number, item in enumerate(items, start=1)]
    return _as_json(calls, where)


def tools_text(value: Any, where: str) -> str:
    """The tools that a row offers, each as ``{"type": "function", "function": {…}}``."""
    value = parse_value(value, where) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise UnreadableRow(f"{where} is {kind_of(value)}; expected a list of tools")
    items = [without_empty(item) for item in cast(list[Any], value)]
    return _as_json([_tool(item, f"{where} {n}") for n, item in enumerate(items, 1)], where)


def _call(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise UnreadableRow(f"{where} is {kind_of(item)}; expected name and arguments")
    call = {k: v for k, v in cast(dict[str, Any], item).items() if v is not None}
    is_bare = "function" not in call
    if call.get("type", "function") != "function":
        raise UnreadableRow(
            f"{where} is of type {_shown(call['type'])}; only functions can be read"
        )
    known = _FUNCTION_KEYS | {"id", "type"} if is_bare else _CALL_KEYS
    _refuse_other_keys(call, known, where)
    function: Any = call if is_bare else call["function"]
    if not isinstance(function, dict):
        raise UnreadableRow(f"{where}: function is {kind_of(function)}; expected an object")
    own = cast(dict[str, Any], function)
    _refuse_other_keys(own, _FUNCTION_KEYS | ({"id", "type"} if is_bare else set()), where)
    name = as_text(own.get("name"), f"{where}: name")
    arguments = own.get("arguments", own.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = parse_value(arguments, f"{where}: arguments") if arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise UnreadableRow(f"{where}: arguments are {kind_of(arguments)}; expected an object")
    found: dict[str, Any] = {"id": as_text(call["id"], f"{where}: id")} if "id" in call else {}
    return {**found, "type": "function", "function": {"name": name, "arguments": arguments}}


def _tool(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise UnreadableRow(f"{where} is {kind_of(item)}; expected an object with a name")
    tool = cast(dict[str, Any], item)
    if isinstance(tool.get("function"), dict):
        return {"type": "function", **tool}
    if not isinstance(tool.get("name"), str):
        raise UnreadableRow(f"{where} has no name; expected a function's name and parameters")
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _refuse_other_keys(found: dict[str, Any], known: frozenset[str] | set[str], where: str) -> None:
    other = [name for name, value in found.items() if name not in known and value is not None]
    if other:
        raise UnreadableRow(f"{where} has a key that is not read: {_shown(other[0])}")


def _as_json(value: Any, where: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise UnreadableRow(f"{where} holds what JSON has no word for, such as NaN") from None
    return as_text(text, where)


def _shown(value: Any) -> str:
    return repr(printable(value, 30)) if isinstance(value, str) else kind_of(value)
