"""What each row on the page says, as the page's script takes it: marked, cut, never as markup."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from forgetfilter.arrays import SharedTexts
from forgetfilter.data.formats import Reading
from forgetfilter.data.records import Message
from forgetfilter.runs.file_names import EVIDENCE_FILE, READINGS_FILE
from forgetfilter.runs.harms import SafeRow, safe_rows_of
from forgetfilter.runs.inputs import stored_reading
from forgetfilter.runs.lines import Lines
from forgetfilter.runs.reading import (
    ScoreTable,
    conversation,
    read_by_row,
    read_numbers,
    rows_of_decision,
)
from forgetfilter.runs.report.shown_rows import PIECES_SHOWN
from forgetfilter.runs.report.shown_text import count, marked, marked_clip, number
from forgetfilter.runs.schema import EVIDENCE_TEXTS, EVIDENCE_WORDS, SIZE_COLUMNS

_TURNS_SHOWN = 4
_DEGREES = (0.1, 0.4, 1.0, 2.0)
"""Nats lost by one token from which it is shaded more darkly."""
_LABELS = ("source", "category")
_LABEL_CHARACTERS = 60
_MOST_LABELS = 60
"""With more different ones, a column is no grouping of the rows."""


class Labels:
    """A short text of each row, by position, of which few are different."""

    def __init__(self, size: int) -> None:
        self.texts = SharedTexts.full(size)
        """What each row says; empty where it says nothing."""

    @property
    def different(self) -> int:
        """How many different ones there are; counted as far as it matters."""
        return len(self.texts.texts) - 1

    def note(self, at: int, text: str) -> None:
        """Remember what a row says."""
        if self.different <= _MOST_LABELS:
            self.texts.put(at, text)


@dataclass
class RowTexts:
    """The texts of a run's rows by their position in the table; made by `open_texts`."""

    run: Path
    table: ScoreTable
    reading: Reading
    lines: dict[str, Lines]
    place: npt.NDArray[np.uint32]
    """Which line of its decision's file a position is."""
    labels: dict[str, Labels]
    """By name, what the rows' own columns ``source`` and ``category`` say."""
    said: Mapping[int, Mapping[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    sizes: Mapping[str, npt.NDArray[np.int32]] = field(
        default_factory=dict[str, npt.NDArray[np.int32]]
    )
    """Tokens of the prompt and of the answer, by position; -1 where not known."""
    safe_rows: Mapping[int, Sequence[SafeRow]] = field(default_factory=dict[int, list[SafeRow]])
    """Of removed rows, the safe rows that they are most like."""

    def load(self, wanted: npt.NDArray[np.int64]) -> None:
        """Read what was measured of the ``wanted`` positions."""
        rows = self.table.row[wanted]
        self.said = read_by_row(self.run / EVIDENCE_FILE, (*EVIDENCE_TEXTS, *EVIDENCE_WORDS), rows)
        self.sizes = read_numbers(self.run / READINGS_FILE, SIZE_COLUMNS, self.table.row)
        is_removed = self.table.decision[wanted] == "removed"
        self.safe_rows = safe_rows_of(self.run, self.table.row[wanted][is_removed])

    def record(self, at: int) -> dict[str, Any]:
        """What the row at a position says.

        Keys: ``raw`` of a rejected row; else ``turns`` (role, text, note), ``earlier`` (how many
        are left out), ``answer`` (text, note), ``states`` (name, value), ``tokens``, ``words``
        (text, degree 0 to 4, nats), ``said`` (state, text or null, note), ``against`` (number,
        category, text of the nearest safe rows), ``unscored``. What is empty is left out.
        """
        decision, place = str(self.table.decision[at]), int(self.place[at])
        raw = self.lines[decision][place]
        if decision == "rejected":
            return {"raw": marked_clip(_raw_text(raw))}
        row = int(self.table.row[at])
        messages = conversation(self.run, decision, place, raw, self.reading)
        told = self._of_conversation(at, messages, self.said.get(row, {}))
        return {name: value for name, value in told.items() if value}

    def _of_conversation(
        self,
        at: int,
        messages: Sequence[Message],
        said: Mapping[str, Any],
    ) -> dict[str, Any]:
        quantity = {name: number(float(v[at])) for name, v in self.table.quantities.items()}
        learned = "learned, early on" if said.get("earlier") == "early" else "learned"
        tokens = [
            count(size, f"{part} token", f"{part} tokens")
            for part in ("prompt", "completion")
            if (sizes := self.sizes.get(f"{part}_tokens")) is not None
            and (size := int(sizes[at])) >= 0
        ]
        prompt = messages[:-1]
        texts = [(learned, said.get("learned_text")), ("forgotten", said.get("forgotten_text"))]
        return {
            "earlier": max(len(prompt) - _TURNS_SHOWN, 0),
            "turns": [(turn.role, *marked_clip(turn.content)) for turn in prompt[-_TURNS_SHOWN:]],
            "answer": marked_clip(messages[-1].content),
            "states": [
                ("base", quantity["base"]),
                (learned, quantity["before"]),
                ("forgotten", quantity["after"]),
            ],
            "tokens": ", ".join(tokens),
            "against": [
                (near.row, marked(near.category), marked(near.text))
                for near in self.safe_rows.get(int(self.table.row[at]), ())
            ],
            "unscored": "" if self.table.unscored is None else str(self.table.unscored[at]),
            "words": _words(said.get("pieces") or [], said.get("rises") or []),
            "said": [
                (name, None, "") if text is None else (name, *marked_clip(str(text)))
                for name, text in texts
            ]
            if any(text is not None for _, text in texts)
            else [],
        }


@contextmanager
def open_texts(run: Path, table: ScoreTable) -> Generator[RowTexts]:
    """The texts of all rows, read when asked for; their labels are read at once.

    Raises:
        DataError: a file has not as many lines as the table says.
    """
    place = np.zeros(len(table.row), dtype=np.uint32)
    lines: dict[str, Lines] = {}
    labels = {name: Labels(len(table.row)) for name in _LABELS}
    with ExitStack() as opened:
        for decision in ("kept", "removed", "undecided", "rejected"):
            positions = np.flatnonzero(table.decision == decision).astype(np.uint32)
            if not len(positions):
                continue
            place[positions] = np.arange(len(positions), dtype=np.uint32)
            see = None if decision == "rejected" else _collector(labels, positions)
            lines[decision] = opened.enter_context(
                rows_of_decision(run, decision, len(positions), see)
            )
        kept = {name: own for name, own in labels.items() if 1 < own.different <= _MOST_LABELS}
        yield RowTexts(run, table, stored_reading(run), lines, place, kept)


def _collector(labels: dict[str, Labels], positions: npt.NDArray[np.uint32]) -> Any:
    """Notes what each line's own columns say of it, by the position of its row."""
    quoted = {name: f'"{name}"'.encode() for name in _LABELS}

    def see(line: int, raw: bytes) -> None:
        if line >= len(positions) or not any(mark in raw for mark in quoted.values()):
            return
        try:
            record: Any = json.loads(raw)
        except (ValueError, RecursionError):
            return
        if not isinstance(record, dict):
            return
        for name in _LABELS:
            value = cast(dict[str, Any], record).get(name)
            if isinstance(value, str) and value.strip():
                labels[name].note(int(positions[line]), value.strip()[:_LABEL_CHARACTERS])

    return see


def _raw_text(raw: bytes) -> str:
    """What a rejected row said, from its record."""
    try:
        record: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return ""
    held = cast(dict[str, Any], record) if isinstance(record, dict) else {}
    text = held.get("raw", held.get("raw_base64", ""))
    return text if isinstance(text, str) else ""


def _words(pieces: Sequence[str], rises: Sequence[float]) -> list[tuple[str, int, str]]:
    """The first pieces of an answer with their degree of forgetting."""
    shown = list(zip(pieces, rises, strict=False))[:PIECES_SHOWN]
    return [
        (marked(piece), int(np.searchsorted(_DEGREES, rise)), number(rise)) for piece, rise in shown
    ]
