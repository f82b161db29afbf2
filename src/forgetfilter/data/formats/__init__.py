"""One parsed JSON object in, one conversation out; each format that can be read is a file in here.

See `base.Format` for what such a file holds. `formats` lists them in the order in which they are
tried.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from forgetfilter.data.formats.base import Format
from forgetfilter.data.formats.values import UnreadableRow, is_encodable, parse_object
from forgetfilter.data.records import Message
from forgetfilter.text import printable

__all__ = ["UnreadableRow", "formats", "is_encodable", "parse_messages", "parse_object"]

_SHOWN_COLUMNS = 8


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
    """The conversation that a row's object holds; a column that is null counts as absent.

    Raises:
        UnreadableRow: no known format, or one that doesn't end in an answer that can be learned.
    """
    columns = {name: value for name, value in record.items() if value is not None}
    for each in formats():
        if each.matches(columns):
            return _checked(each.messages(columns))
    raise UnreadableRow(
        f"no known format: found {_list_columns(record)}; expected one of "
        + ", ".join(each.name for each in formats())
    )


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


def _list_columns(record: Mapping[str, Any]) -> str:
    """The names of a row's columns, cut to what fits a message."""
    if not record:
        return "no columns"
    names: list[str] = []
    for name, value in list(record.items())[:_SHOWN_COLUMNS]:
        names.append(printable(name, 30) + (" (null)" if value is None else ""))
    more = len(record) - len(names)
    return "columns " + ", ".join(names) + (f" and {more} more" if more > 0 else "")
