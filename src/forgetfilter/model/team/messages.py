"""What process 0 sends to the others: a function and its arguments.

Rows and adapters go along the first time that they are needed, so that the others read nothing from
the run folder.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from forgetfilter.data.records import EncodedRow
from forgetfilter.model.processes.joining import Processes
from forgetfilter.model.state import ModelState
from forgetfilter.model.team.member import Member, adapter_files, opening_of
from forgetfilter.progress import Progress

if TYPE_CHECKING:
    from forgetfilter.model.workbench import Workbench

NO_MORE = b"no more work"
END_SECONDS = 5.0
"""How long one that failed waits to hear whether process 0 has failed of the same."""
LEAST_PAUSE = 0.01
"""Seconds between two looks, at least."""


@dataclass
class Team:
    """What process 0 knows of the others."""

    group: Processes
    number: int = 0
    """Of the last piece of work."""
    sent_rows: dict[int, tuple[Any, int]] = field(default_factory=dict[int, tuple[Any, int]])
    """Sequences of rows that the others have, by identity, with their numbers."""
    sent_states: set[str] = field(default_factory=set[str])
    is_lost: bool = False
    """Whether one of them has ended or doesn't answer."""
    is_broken: bool = False
    """Whether something failed while all were at work, so that nobody knows where each is."""


def packed(team: Team, bench: Workbench, work: Any) -> bytes:
    """How the workbench is opened, and then the function and its arguments, as one message."""
    buffer = io.BytesIO(pickle.dumps(opening_of(bench)))
    buffer.seek(0, io.SEEK_END)
    _Pickler(buffer, team, bench.__dict__.get("tokenizer")).dump(work)
    return buffer.getvalue()


def unpacked(content: io.BytesIO, member: Member, bench: Workbench) -> tuple[Any, ...]:
    """The function and its arguments, after the `Opening` that ``content`` begins with was read."""
    return _Unpickler(content, member, bench).load()


class _Pickler(pickle.Pickler):
    """Sends rows and adapters once, and no tokenizer and no progress bar."""

    def __init__(self, file: io.BytesIO, team: Team, tokenizer: Any) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._team = team
        self._tokenizer = tokenizer

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Progress):
            return ("progress",)
        if obj is not None and obj is self._tokenizer:
            return ("tokenizer",)
        if isinstance(obj, ModelState) and obj.adapter is not None:
            return self._state(obj)
        if isinstance(obj, Sequence) and not isinstance(obj, str | bytes):
            items = cast(Sequence[Any], obj)
            if len(items) and isinstance(items[0], EncodedRow):
                return self._rows(items)
        return None

    def _state(self, state: ModelState) -> tuple[Any, ...]:
        files = None
        if state.fingerprint not in self._team.sent_states:
            files = adapter_files(state.adapter or "")
            self._team.sent_states.add(state.fingerprint)
        return "state", state.name, state.fingerprint, files

    def _rows(self, rows: Sequence[EncodedRow]) -> tuple[Any, ...]:
        known = self._team.sent_rows.get(id(rows))
        if known is not None:
            return "rows", known[1], None
        number = len(self._team.sent_rows)
        self._team.sent_rows[id(rows)] = rows, number  # kept, so that the identity stays its own
        # As bytes: a persistent id is pickled by the same pickler, which would ask again.
        return "rows", number, pickle.dumps(list(rows), protocol=pickle.HIGHEST_PROTOCOL)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, member: Member, bench: Workbench) -> None:
        super().__init__(file)
        self._member, self._bench = member, bench

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "progress":
            return Progress(is_silent=True)
        if pid[0] == "tokenizer":
            return self._bench.tokenizer
        if pid[0] == "state":
            _, name, fingerprint, files = pid
            return ModelState(name, fingerprint, self._member.keep_adapter(fingerprint, files))
        _, number, content = pid
        rows = None if content is None else cast(Sequence[EncodedRow], pickle.loads(content))
        return self._member.keep_rows(number, rows)
