"""One parsed record in, one conversation out; each format that can be read is a file in here.

See `base.Format` for what such a file holds. `formats` lists them in the order in which they are
tried.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from forgetfilter.data.formats.base import Format
from forgetfilter.data.formats.calls import tools_text
from forgetfilter.data.formats.keys import (
    IGNORED_TURN_KEYS,
    ROLE_KEYS,
    SYSTEM_COLUMNS,
    TOOLS_COLUMNS,
    may_be_learned,
)
from forgetfilter.data.formats.mapping import AUTO, Reading
from forgetfilter.data.formats.values import (
    MalformedRow,
    UnreadableRow,
    as_text,
    is_empty,
    is_encodable,
    parse_object,
)
from forgetfilter.data.records import Message
from forgetfilter.text import printable

__all__ = [
    "Conversation",
    "MalformedRow",
    "Reading",
    "UnreadableRow",
    "answer_column",
    "columns_of",
    "formats",
    "is_encodable",
    "parse_messages",
    "parse_object",
    "parse_row",
]

_SHOWN_COLUMNS = 8
_SHOWN_FORMATS = 4
_PLAIN = Reading()
_MOST_AROUND = 1000
"""Characters that a rendering of a row may have beside the row's own turns."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a row says: its turns, and the tools that it offers as JSON text."""

    messages: tuple[Message, ...]
    tools: str = ""
    ignored: tuple[str, ...] = ()
    """The columns that hold something and that nothing reads, as the file calls them."""


@cache
def formats() -> tuple[Format, ...]:
    """Every format of this package, by priority: of those that match a row, the first reads it."""
    modules = (
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
    )
    found = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return tuple(sorted(found, key=lambda each: each.priority))


def parse_messages(record: Mapping[str, Any]) -> tuple[Message, ...]:
    """The turns of `parse_row`."""
    return parse_row(record).messages


def parse_row(record: Mapping[str, Any], reading: Reading = _PLAIN) -> Conversation:
    """The conversation that a row's record holds; a column that is null counts as absent.

    Raises:
        UnreadableRow: no known format; one that doesn't end in an answer that can be learned; or
            a column or a key of a turn that a trainer may learn from and that is not read.
    """
    named = reading.apply(record)
    columns = {name: value for name, value in named.items() if value is not None}
    format_ = _format_of(columns, reading)
    if format_ is None:
        columns = _in_lower_case(columns)
        format_ = _format_of(columns, reading) or _refuse(record, reading)
    turns = _with_system(format_.messages(columns), columns)
    tools = _tools(columns)
    _refuse_unread(columns, format_, turns)
    return Conversation(_checked(turns), tools, _ignored(record, reading, format_))


def columns_of(record: Mapping[str, Any], reading: Reading = _PLAIN) -> Mapping[str, Any]:
    """A row's columns by the names that formats know, as far as one fits; for messages."""
    try:
        named = reading.apply(record)
    except UnreadableRow:
        return record
    columns = {name: value for name, value in named.items() if value is not None}
    return columns if _format_of(columns, reading) else _in_lower_case(columns)


def answer_column(columns: Mapping[str, Any], reading: Reading = _PLAIN) -> str:
    """The column of `columns_of` that holds a row's answer; empty where no format fits."""
    format_ = _format_of(columns, reading)
    if format_ is None:
        return ""
    return "chosen" if "chosen" in format_.needs else format_.needs[-1]


def _format_of(columns: Mapping[str, Any], reading: Reading) -> Format | None:
    """The format that reads a row; one whose columns hold something comes before all others."""
    possible = [each for each in formats() if reading.format in (AUTO, each.name)]
    filled = {name for name, value in columns.items() if value != [] and value != {}}
    matching = [each for each in possible if each.matches(columns)]
    return next((each for each in matching if filled.issuperset(each.needs)), None) or next(
        iter(matching), None
    )


def _in_lower_case(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns as programs name them, such as ``Question`` in a table; all of them or none."""
    lower = {name.strip().lower().replace(" ", "_"): value for name, value in columns.items()}
    return lower if len(lower) == len(columns) else dict(columns)


def _refuse(record: Mapping[str, Any], reading: Reading) -> Format:
    possible = [each for each in formats() if reading.format in (AUTO, each.name)]
    if not possible:
        names = ", ".join(each.name for each in formats())
        raise UnreadableRow(f"no format is called {printable(reading.format, 30)!r}: {names}")
    shapes = [each.shape for each in possible[:_SHOWN_FORMATS]]
    expected = ", ".join(shapes)
    if len(possible) > len(shapes):
        expected = f"one of {expected} or another of docs/formats.md"
    raise UnreadableRow(f"no known format: found {_list_columns(record)}; expected {expected}")


def _with_system(turns: list[Message], columns: Mapping[str, Any]) -> list[Message]:
    """The turns after the system text of a column of its own, where there is one."""
    found = {
        name: as_text(columns[name], name)
        for name in SYSTEM_COLUMNS
        if not is_empty(columns.get(name))
    }
    texts = list(dict.fromkeys(found.values()))
    own = [turn.content for turn in turns if turn.role == "system"]
    if not texts or texts == own[:1]:
        return turns
    if own or len(texts) > 1:
        names = " and ".join([*found, *(["a system turn"] if own else [])])
        raise UnreadableRow(f"two system texts: {names} differ")
    return [Message("system", texts[0]), *turns]


def _tools(columns: Mapping[str, Any]) -> str:
    found = {
        name: tools_text(columns[name], name)
        for name in TOOLS_COLUMNS
        if not is_empty(columns.get(name)) and columns[name] != "[]"
    }
    if len(set(found.values())) > 1:
        raise UnreadableRow(f"{' and '.join(found)} offer different tools")
    return next(iter(found.values()), "")


def _refuse_unread(columns: Mapping[str, Any], format_: Format, turns: list[Message]) -> None:
    """Raise for a column that a trainer may learn from and whose text is not in the turns."""
    read = {*format_.needs, *format_.reads, *SYSTEM_COLUMNS, *TOOLS_COLUMNS}
    for name, value in columns.items():
        is_history = name == "history" and name not in read
        if is_empty(value) or name in read or not (is_history or may_be_learned(name)):
            continue
        if isinstance(value, bool | int | float) or _is_in(value, name, turns):
            continue
        if name == "rejected" and _is_in(columns.get("chosen", [0]), "chosen", turns):
            continue  # training moves away from it
        shown = printable(name, 30)
        raise UnreadableRow(
            f"column {shown!r} is not read beside {format_.shape}, and a trainer may learn from "
            f"it; if yours doesn't, say so with --column-map {shown}="
        )


def _ignored(record: Mapping[str, Any], reading: Reading, format_: Format) -> tuple[str, ...]:
    read = {*format_.needs, *format_.reads, *SYSTEM_COLUMNS, *TOOLS_COLUMNS}
    mapped = {theirs for own, theirs in reading.columns.items() if own in read}
    names = {*mapped, *(() if reading.is_whole else read)}
    return tuple(
        name
        for name, value in record.items()
        if name not in names and not is_empty(value)
        if reading.is_whole or name.strip().lower().replace(" ", "_") not in names
    )


def _is_in(value: Any, name: str, turns: list[Message]) -> bool:
    """Whether a column says nothing that the turns don't say."""
    said = {text.strip() for turn in turns for text in (turn.content, turn.reasoning)}
    if name == "text" and isinstance(value, str):
        # A rendering of the row, as Alpaca's own files have it.
        longest = sum(len(text) for text in said) + _MOST_AROUND
        parts = [part.strip() for turn in turns for part in turn.content.split("\n\n")]
        return len(value) <= longest and all(part in value for part in parts)
    return all(text.strip() in said for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, but for what only names a role or a turn."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in cast(list[Any], value):
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in cast(dict[str, Any], value).items():
            if key not in ROLE_KEYS and key not in IGNORED_TURN_KEYS and key != "type":
                yield from _texts(item)
    elif value is not None:
        yield repr(value)


def _checked(turns: list[Message]) -> tuple[Message, ...]:
    """The turns, once they are known to end in an answer to something, and to be learned."""
    if not turns:
        raise UnreadableRow("no turns: the conversation is empty")
    answer = turns[-1]
    if answer.role != "assistant":
        raise UnreadableRow(f"the last turn is the {answer.role}'s; expected the assistant's")
    if not (answer.content.strip() or answer.tool_calls or answer.reasoning.strip()):
        raise UnreadableRow("empty completion: the last assistant turn has no text")
    if len(turns) == 1:
        raise UnreadableRow("no turn before the answer: there is nothing to answer")
    learned = [turn for turn in turns if turn.role == "assistant" and turn.carries_loss]
    if not learned:
        raise UnreadableRow("no answer is learned (weight 0): there is nothing to learn from it")
    last = learned[-1]
    if not (last.content.strip() or last.tool_calls or last.reasoning.strip()):
        raise UnreadableRow("empty completion: the last turn that is learned has no text")
    return tuple(turns)


def _list_columns(record: Mapping[str, Any]) -> str:
    """The names of a row's columns, cut to what fits a message."""
    if not record:
        return "no columns"
    names: list[str] = []
    for name, value in list(record.items())[:_SHOWN_COLUMNS]:
        names.append(printable(name, 30) + (" (null)" if value is None else ""))
    more = len(record) - len(names)
    return "columns " + ", ".join(names) + (f" and {more} more" if more > 0 else "")
