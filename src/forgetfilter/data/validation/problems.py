"""What is wrong with a row, where, and what to do: a reader's reason with the value that it means.

Texts come from strangers' files. In here they are cut and escaped, so whatever prints a problem may
print all of it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from forgetfilter.data.containers import Record
from forgetfilter.data.formats import Reading, answer_column, columns_of
from forgetfilter.data.formats.keys import CONTENT_KEYS
from forgetfilter.data.records import Message
from forgetfilter.data.validation.rules import Rule, Told, rule_of
from forgetfilter.text import printable

_MOST = 80
"""Characters of a value that are shown."""
_AROUND = 20
_STEP = re.compile(r", part (?P<part>\d+)|(?: turn)? (?P<number>\d+)|: (?P<key>\w+)")
_OF_THE_END = frozenset(
    {"last_turn_not_assistant", "empty_answer", "nothing_to_answer", "nothing_learned", "no_turns"}
)
_CONTROL = re.compile(r"holds the tokenizer's control token (.+), which could forge a turn")
_TOKENS = re.compile(r".+: (\d+ tokens), .+")
_TURN = re.compile(r".* in (turn \d+)\..*", re.DOTALL)
_LISTED = re.compile(r"no known format: found (.+?); expected .+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to know of one row; every text is safe to print."""

    file: str
    line: int
    """Where the row begins in its file, from 1; in a table without lines, its number."""
    row: int
    """Position among all rows of all files, from 0, as in ``scores.parquet``."""
    id: str
    """What the file calls the row; empty where it has no name."""
    severity: str
    """``rejected``: the row can't be used; ``note``: it can."""
    field: str
    """The column, turn or key that is meant; empty where it is the row as a whole."""
    rule: str
    found: str
    reason: str
    """The reader's own sentence, the same as in ``rejected.jsonl``."""
    fix: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Place:
    """Which row of which file."""

    file: str
    line: int
    row: int
    own_id: str

    def problem(
        self,
        severity: str,
        rule: Rule,
        reason: str,
        field: str = "",
        found: str = "",
        fix: str | None = None,
    ) -> Problem:
        """A problem of this row; ``fix`` where the rule's own isn't exact."""
        return Problem(
            printable(self.file, 300),
            self.line,
            self.row,
            printable(self.own_id, 60),
            severity,
            printable(field, 120),
            rule.name,
            found,
            printable(reason, 600),
            rule.fix if fix is None else fix,
        )


def unreadable(place: Place, record: Record, reason: str, reading: Reading) -> Problem:
    """The problem of a record that no format reads, or that is none."""
    told = rule_of(reason)
    if record.columns is None:
        return place.problem("rejected", told.rule, reason, "", _around(record.raw, told))
    field, found = _in_columns(record.columns, reason, told, reading)
    fix = None
    if told.rule.name == "column_not_read" and re.fullmatch(r"[\w.-]+", field):
        fix = told.rule.fix.replace("NAME=", f"{field}=")
    return place.problem("rejected", told.rule, reason, field, found, fix)


def unfit(place: Place, messages: Sequence[Message], reason: str) -> Problem:
    """The problem of a row that can be read but doesn't fit the model or its template."""
    told = rule_of(reason)
    field, found = "", ""
    if told.rule.name == "control_token":
        field, found = _control_token(messages, reason)
    elif length := _TOKENS.fullmatch(reason):
        found = length[1]
    elif turn := _TURN.fullmatch(reason):
        field = turn[1]
    return place.problem("rejected", told.rule, reason, field, found)


def shown(value: Any) -> str:
    """A value as JSON, short and escaped."""
    if isinstance(value, str):
        return printable(json.dumps(value[: 2 * _MOST], ensure_ascii=False), _MOST)
    if isinstance(value, list | dict):
        value = _shortened(value)
    return printable(json.dumps(value, ensure_ascii=False, default=str), _MOST)


def _shortened(value: Any, depth: int = 0) -> Any:
    """A value without what would be cut off anyway; it may be large and deep."""
    if isinstance(value, str):
        return value[:_MOST]
    if isinstance(value, list):
        return [_shortened(v, depth + 1) for v in cast(list[Any], value)[:9]] if depth < 6 else []
    if isinstance(value, dict):
        items = list(cast(dict[Any, Any], value).items())[:9]
        return {str(k)[:_MOST]: _shortened(v, depth + 1) for k, v in items} if depth < 6 else {}
    return value


def _around(raw: bytes, told: Told) -> str:
    """What stands in a line around the place that is meant, or its beginning."""
    if told.at is None:
        return printable(raw[: 4 * _MOST].decode("utf-8", "backslashreplace"), _MOST)
    if told.rule.name == "not_utf8":
        start = max(0, told.at - 1 - _AROUND)
        piece = raw[start : told.at + _AROUND].decode("utf-8", "backslashreplace")
    else:
        text = raw.decode("utf-8", "replace")
        start = max(0, told.at - 1 - _AROUND)
        piece = text[start : told.at + _AROUND]
    return printable(("…" if start else "") + piece, _MOST)


def _in_columns(
    record: Mapping[str, Any], reason: str, told: Told, reading: Reading
) -> tuple[str, str]:
    """The field that a reason means, as the file calls it, and its value."""
    columns = columns_of(record, reading)
    listed = _LISTED.fullmatch(reason)
    if listed is not None:
        return "", printable(listed[1], _MOST)
    if told.rule.name in _OF_THE_END and not told.where:
        return _at_the_end(columns, told, reading)
    if not told.where:
        return "", ""
    column = max((n for n in columns if told.where.startswith(n)), key=len, default="")
    if not column:
        return told.where, ""
    field = _own_name(column, reading) + told.where[len(column) :]
    key = told.key
    is_there, value = _follow(columns[column], told.where[len(column) :])
    if key and is_there:
        turn = cast(dict[str, Any], value) if isinstance(value, dict) else {}
        if key == "role" and "role" not in turn and "from" in turn:
            key = "from"
        is_there, value = key in turn, turn.get(key)
        field = f"{field}: {key}"
    return field, shown(value) if is_there else "(absent)" if key else ""


def _follow(value: Any, steps: str) -> tuple[bool, Any]:
    """What stands at the end of a path such as `` turn 2: tool_calls 1``, if anything does."""
    at = 0
    while at < len(steps):
        step = _STEP.match(steps, at)
        if step is None:
            return False, None
        at = step.end()
        if isinstance(value, str):
            value = _parsed(value)
        if step["part"] and isinstance(value, dict):
            turn = cast(dict[str, Any], value)
            value = next((turn[k] for k in CONTENT_KEYS if isinstance(turn.get(k), list)), None)
        number = step["part"] or step["number"]
        if number is not None:
            items = cast(list[Any], value) if isinstance(value, list) else [value]
            if not 0 < int(number) <= len(items):
                return False, None
            value = items[int(number) - 1]
        elif isinstance(value, list):  # a pair of a question and an answer
            pair = cast(list[Any], value)
            at_pair = {"question": 0, "answer": 1}.get(step["key"], len(pair))
            if at_pair >= len(pair):
                return False, None
            value = pair[at_pair]
        else:
            turn = cast(dict[str, Any], value) if isinstance(value, dict) else {}
            if step["key"] not in turn:
                return True, None
            value = turn[step["key"]]
    return True, value


def _at_the_end(columns: Mapping[str, Any], told: Told, reading: Reading) -> tuple[str, str]:
    """The answer, or what stands where it should."""
    name = answer_column(columns, reading)
    if not name:
        return "", ""
    value, field = columns.get(name), _own_name(name, reading)
    value = _parsed(value) if isinstance(value, str) and value.lstrip()[:1] == "[" else value
    if not isinstance(value, list):
        return field, shown(value)
    turns = cast(list[Any], value)
    if not turns:
        return field, "[]"
    return f"{field} turn {len(turns)}", shown(turns[-1])


def _control_token(messages: Sequence[Message], reason: str) -> tuple[str, str]:
    """The turn that holds a control token, and what stands around it there."""
    found = _CONTROL.fullmatch(reason)
    mark = str(ast.literal_eval(found[1])) if found else ""
    for number, turn in enumerate(messages, start=1):
        for text in (turn.content, turn.reasoning, turn.tool_calls):
            at = text.find(mark)
            if at >= 0:
                start = max(0, at - _AROUND)
                piece = text[start : at + len(mark) + _AROUND]
                return f"turn {number} ({turn.role})", shown(("…" if start else "") + piece)
    return "", shown(mark)


def _own_name(column: str, reading: Reading) -> str:
    return reading.columns.get(column) or column


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
