"""The decisions of a finished run, found again by what a row says.

Tools that bring rows one by one, in another order and with columns of their own, ask here what was
decided of each. A row counts as judged only if it says exactly what a screened row said.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from forgetfilter.api import ForgetFilter
from forgetfilter.data.formats import Conversation, Reading, UnreadableRow, parse_object, parse_row
from forgetfilter.data.reading import decode_line, own_id_of
from forgetfilter.data.records import Message
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.integrations.settled import settled_summary
from forgetfilter.runs.inputs import read_input, stored_reading
from forgetfilter.runs.reading import read_scores
from forgetfilter.runs.schema import Summary
from forgetfilter.text import printable

Unjudged = Literal["raise", "drop", "keep"]
"""What happens with rows that the run never judged."""
UNJUDGED: tuple[Unjudged, ...] = ("raise", "drop", "keep")

_JSON_PARTS = frozenset({"tool_calls"})


@dataclass(frozen=True, slots=True)
class _Judged:
    own_id: str
    decision: str


@dataclass(frozen=True, slots=True)
class _Index:
    reading: Reading
    rows: dict[bytes, list[_Judged]]
    """By `_key`."""


class JudgedRows:
    """What a finished run decided of its rows.

    Its files are read when the first row is asked about, in each process once, so that an object
    of this class can be sent to other processes; they all answer by the same decision.

    Args:
        run: the run folder.
        unjudged: ``raise``, ``drop`` or ``keep`` rows that the run never judged.

    Raises:
        ConfigError: ``unjudged`` is something else.
        DataError: the run isn't finished or decided, or its files are not those of the latest
            decision.
    """

    def __init__(self, run: str | Path, unjudged: str = "raise") -> None:
        if unjudged not in UNJUDGED:
            raise ConfigError(
                f"unjudged is {printable(repr(unjudged), 60)}; expected one of "
                f"{', '.join(UNJUDGED)}. Choose what happens with rows that were never judged."
            )
        self.run = Path(run).absolute()
        self.unjudged = unjudged
        self.decision = str(settled_summary(self.run)["decision"])
        """The fingerprint of the decision that every answer is by."""
        self._index: _Index | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def found(self, record: Mapping[str, Any]) -> str | None:
        """What was decided of a row: ``kept``, ``removed``, ``rejected``; None if never judged.

        Where several rows say the same, the one with the record's own id counts; of several that
        can't be told apart, one that was removed.
        """
        index = self._load()
        rows = index.rows.get(_key(record, index.reading), [])
        own_id = own_id_of(record, index.reading)
        named = [one for one in rows if own_id and one.own_id == own_id]
        decisions = {one.decision for one in named or rows}
        return next((one for one in ("removed", "rejected", "kept") if one in decisions), None)

    def keeps(self, record: Mapping[str, Any], where: str) -> tuple[bool, str]:
        """Whether a row is kept, and why: what was decided, or ``unjudged``.

        Args:
            record: the row's columns.
            where: what to call the row in a message.

        Raises:
            DataError: the run never judged the row, and ``unjudged`` is ``raise``.
        """
        decision = self.found(record)
        if decision is not None:
            return decision == "kept", decision
        if self.unjudged == "raise":
            raise DataError(
                f"{printable(where, 200)} is none of the rows that the run {_shown(self.run)} has "
                "judged: no screened row says exactly the same. Expected rows of the screened "
                "files, with their texts unchanged. Screen the file that holds it, or say what "
                "happens with such rows: unjudged='drop' or unjudged='keep'."
            )
        return self.unjudged == "keep", "unjudged"

    def _load(self) -> _Index:
        if self._index is not None:
            return self._index
        summary = settled_summary(self.run)
        if str(summary["decision"]) != self.decision:
            raise DataError(
                f"The run {_shown(self.run)} was decided again while its decisions were used. "
                "Expected one decision for all rows. Start over."
            )
        decisions = read_scores(self.run, Summary.model_validate(summary)).decision
        file, reading = read_input(self.run), stored_reading(self.run)
        found: dict[bytes, list[_Judged]] = {}
        for row in file.rows:
            said = Conversation(row.messages, row.tools)
            judged = _Judged(row.own_id, str(decisions[row.row]))
            found.setdefault(_content_key(said), []).append(judged)
        for row in file.rejected:
            try:
                record = parse_object(decode_line(row.raw))
            except (UnreadableRow, UnicodeDecodeError):
                continue  # no tool can bring it as columns
            judged = _Judged(row.own_id, "rejected")
            found.setdefault(_key(record, reading), []).append(judged)
        self._index = _Index(reading, found)
        return self._index


def screened(
    records: Sequence[Mapping[str, Any]],
    run: str | Path,
    model: str | Path,
    safe_data: str | Path | None,
    settings: Mapping[str, Any],
) -> list[str]:
    """Screen rows as one file and say what was decided of each, in their order.

    The same rows in the same run folder find what was done before. See `ForgetFilter` and its
    `screen` for arguments and errors.

    Raises:
        DataError: nothing was decided, because the scores can't be trusted.
    """
    screener = ForgetFilter(model, safe_data, is_silent=True, **settings)
    result = screener.screen([plain(record) for record in records], run)
    summary = settled_summary(Path(result.output_dir))
    decisions = read_scores(Path(result.output_dir), Summary.model_validate(summary)).decision
    return [str(one) for one in decisions]


def plain(value: Any) -> Any:
    """A value of another library's own dictionaries and lists, as Python's."""
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {str(key): plain(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast(Iterable[Any], value)]
    return value


def _key(record: Mapping[str, Any], reading: Reading) -> bytes:
    """What identifies the text of a row; of one that can't be read, all of its columns."""
    try:
        return _content_key(parse_row(record, reading))
    except UnreadableRow:
        told = json.dumps(_without_null(record), sort_keys=True, default=str)
        return hashlib.sha256(b"row" + told.encode("utf-8", "surrogatepass")).digest()


def _content_key(said: Conversation) -> bytes:
    """What identifies a conversation: every part of every turn, and the tools.

    Tables give each object the keys of all others, with null in them, so those don't count.
    """
    turns = [
        {part.name: _part(part.name, getattr(turn, part.name)) for part in fields(Message)}
        for turn in said.messages
    ]
    told = json.dumps([turns, _json(said.tools)], sort_keys=True)
    return hashlib.sha256(b"said" + told.encode("utf-8", "surrogatepass")).digest()


def _part(name: str, value: Any) -> Any:
    return _json(value) if name in _JSON_PARTS else value


def _json(text: str) -> Any:
    return _without_null(json.loads(text)) if text else None


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {str(key): _without_null(item) for key, item in items if item is not None}
    if isinstance(value, list | tuple):
        return [_without_null(item) for item in cast(Iterable[Any], value)]
    return value


def _shown(run: Path) -> str:
    return shlex.quote(printable(str(run), 300))
