"""Looks through files row by row, without training and in little memory, and says what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from forgetfilter.data.containers import Record
from forgetfilter.data.containers.foreign import empty
from forgetfilter.data.containers.formulas import is_formula
from forgetfilter.data.formats import Conversation, Reading, UnreadableRow, parse_row
from forgetfilter.data.formats.keys import ID_COLUMNS, IGNORED_TURN_KEYS, TURN_COLUMNS
from forgetfilter.data.formats.turns import turns_in_text
from forgetfilter.data.formats.values import is_empty
from forgetfilter.data.reading import own_id_of
from forgetfilter.data.records import Row
from forgetfilter.data.sources import HUB, open_sources, paths_of, quoted
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.data.validation.problems import Place, Problem, unfit, unreadable
from forgetfilter.data.validation.rules import OTHER, REPEATED_ID, RULES, UNSCORED, rule_of
from forgetfilter.data.validation.seen_ids import SeenIds
from forgetfilter.data.validation.streaming import Stream, stream_file, stream_source
from forgetfilter.errors import DataError
from forgetfilter.text import printable

_TOGETHER = 32
"""Rows that a chat template renders together."""
_LARGE = 2**17
"""Bytes of a row after which no further one is held beside it."""
_MOST_NAMES = 1000
"""Different columns, and keys, that are counted."""
_FIXES = {rule.name: rule.fix for rule in (*RULES, OTHER, REPEATED_ID, *UNSCORED.values())}


@dataclass
class FileFound:
    """What was found in one file."""

    file: str
    container: str = ""
    rows: int = 0
    rejected: int = 0
    formula_cells: int = 0
    """Cells that a spreadsheet would run; only in CSV and TSV."""
    error: str = ""
    """Why it can't be read as a whole, or not to its end."""


@dataclass
class Validation:
    """What was found in all files; `as_json` describes it."""

    most_problems: int
    files: list[FileFound] = field(default_factory=list[FileFound])
    problems: list[Problem] = field(default_factory=list[Problem])
    """The first ``most_problems``, in order of rows."""
    rejected: Counter[str] = field(default_factory=Counter[str])
    """Rejected rows by rule."""
    notes: Counter[str] = field(default_factory=Counter[str])
    firsts: dict[str, Problem] = field(default_factory=dict[str, Problem])
    """By rule, the first row with it."""
    columns: Counter[str] = field(default_factory=Counter[str])
    """In how many readable rows a column holds something that nothing reads."""
    turn_keys: Counter[str] = field(default_factory=Counter[str])
    repeated: Counter[str] = field(default_factory=Counter[str])
    """By name, how many rows are called as an earlier one is."""
    malformed: int = 0
    """How many of the rejected are not even records."""
    tokens: Counter[str] = field(default_factory=Counter[str])
    """``total``, ``with_loss``, ``longest`` and ``longest_row`` of the rows that fit a model."""

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(file.rows for file in self.files)

    @property
    def status(self) -> int:
        """0 where all rows can be used, else 1."""
        return int(bool(self.rejected) or any(file.error for file in self.files))

    def add(self, problem: Problem) -> None:
        """Count a problem; it is kept where there is room."""
        is_note = problem.severity == "note"
        (self.notes if is_note else self.rejected)[problem.rule] += 1
        self.firsts.setdefault(problem.rule, problem)
        if len(self.problems) < self.most_problems:
            self.problems.append(problem)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; every text is safe to print. docs/validate.md has the keys."""
        rejected = sum(self.rejected.values())
        counted = [
            *((name, "rejected", count) for name, count in self.rejected.most_common()),
            *((name, "note", count) for name, count in self.notes.most_common()),
        ]
        return {
            "status": self.status,
            "rows": self.rows,
            "readable": self.rows - rejected,
            "rejected": rejected,
            "malformed": self.malformed,
            "files": [
                {
                    "file": printable(file.file, 300),
                    "container": file.container,
                    "rows": file.rows,
                    "readable": file.rows - file.rejected,
                    "rejected": file.rejected,
                    "formula_cells": file.formula_cells,
                    "error": file.error or None,
                }
                for file in self.files
            ],
            "by_rule": [
                {
                    "rule": name,
                    "severity": severity,
                    "rows": count,
                    "first_file": self.firsts[name].file,
                    "first_line": self.firsts[name].line,
                    "fix": _FIXES[name],
                }
                for name, severity, count in counted
            ],
            "problems": [problem.as_json() for problem in self.problems],
            "problems_found": rejected + sum(self.notes.values()),
            "ignored_columns": _names(self.columns),
            "ignored_turn_keys": _names(self.turn_keys),
            "repeated_ids": {
                "rows": self.notes[REPEATED_ID.name],
                "most": _names(self.repeated, 10),
            },
        }


def validate(
    where: Sequence[str],
    reading: Reading,
    encoder: Encoder | None = None,
    most_problems: int = 20,
) -> Validation:
    """Look through all rows of the files, patterns and Hub names that ``where`` lists.

    A file that can't be read is told in its `FileFound`; the others are read all the same.

    Args:
        where: paths, patterns or ``hub:`` names.
        reading: how the rows are to be read.
        encoder: of a model, where rows are to be checked against it too.
        most_problems: how many are kept; all are counted.

    Raises:
        ModelError: the model's template can't be used at all.
    """
    found = Validation(most_problems)
    looking = _Looking(found, reading, encoder)
    for file, records in _files(where, found):
        try:
            for batch in _batches(records):
                looking.look(file, batch)
        except DataError as error:
            file.error = _error(file.file, error)
        if not file.rows and not file.error:
            file.error = printable(str(empty(quoted(file.file))), 600)
    return found


def find_row(
    where: Sequence[str], number: int, reading: Reading
) -> tuple[Place, Record, Row | None]:
    """The row with a number, counted over all files; None for the last where it can't be read.

    Raises:
        DataError: there is no such row, or a file before it can't be read.
    """
    found = Validation(0)
    row = 0
    for file, records in _files(where, found):
        for record in records:
            if row == number:
                own_id = own_id_of(record.columns, reading) if record.columns is not None else ""
                place = Place(file.file, record.line, row, own_id)
                said = _parsed(record, reading)
                return place, record, _row(place, record, said) if said else None
            row += 1
    errors = [DataError(file.error) for file in found.files if file.error]
    if errors:
        raise errors[0]
    raise DataError(
        f"There is no row {number}: the input has {row:,}, numbered from 0. Expected a number of "
        "these. `forgetfilter validate` names the row of each problem."
    )


class _Looking:
    """Goes through the rows of all files."""

    def __init__(self, found: Validation, reading: Reading, encoder: Encoder | None) -> None:
        self._found = found
        self._reading = reading
        self._encoder = encoder
        self._seen = SeenIds()
        self._next = 0

    def look(self, file: FileFound, records: Sequence[Record]) -> None:
        """Look at some records of a file."""
        rejected: dict[int, Problem] = {}
        rows: list[Row] = []
        places: list[Place] = []
        for record in records:
            columns = record.columns
            own_id = own_id_of(columns, self._reading) if columns is not None else ""
            place = Place(file.file, record.line, self._next, own_id)
            self._next += 1
            places.append(place)
            try:
                if columns is None:
                    self._found.malformed += 1
                    raise UnreadableRow(record.reason or "no record")
                said = parse_row(columns, self._reading)
                self._count_ignored(columns, said, own_id)
                rows.append(_row(place, record, said))
            except UnreadableRow as error:
                rejected[place.row] = self._unreadable(place, record, str(error))
        notes = self._fit(rows, {place.row: place for place in places}, rejected)
        if file.container in ("csv", "tsv"):
            file.formula_cells += sum(map(_formula_cells, records))
        for place in places:
            file.rows += 1
            if place.row in rejected:
                file.rejected += 1
                self._found.add(rejected[place.row])
            for note in notes.get(place.row, ()):
                self._found.add(note)
            self._name(place)

    def _unreadable(self, place: Place, record: Record, reason: str) -> Problem:
        if len(self._found.problems) < self._found.most_problems:
            return unreadable(place, record, reason, self._reading)
        rule = rule_of(reason).rule  # it is only counted, or the first of its kind
        if rule.name in self._found.firsts:
            return place.problem("rejected", rule, reason)
        return unreadable(place, record, reason, self._reading)

    def _fit(
        self, rows: Sequence[Row], places: Mapping[int, Place], rejected: dict[int, Problem]
    ) -> dict[int, list[Problem]]:
        """What a model's tokenizer and template say of rows; notes on those that fit, by row."""
        if self._encoder is None or not rows:
            return {}
        encoded, unfitting = self._encoder.encode(rows)
        messages = {row.row: row.messages for row in rows}
        for bad in unfitting:
            rejected[bad.row] = unfit(places[bad.row], messages[bad.row], bad.reason)
        tokens = self._found.tokens
        notes: dict[int, list[Problem]] = {}
        for row in encoded:
            length = len(row.input_ids)
            tokens["total"] += length
            tokens["with_loss"] += row.target_tokens
            if length > tokens["longest"]:
                tokens["longest"], tokens["longest_row"] = length, row.row
            for name in row.unscored:
                reason = f"the chat template leaves out this row's {name}"
                note = places[row.row].problem("note", UNSCORED[name], reason)
                notes.setdefault(row.row, []).append(note)
        return notes

    def _count_ignored(self, columns: Mapping[str, Any], said: Conversation, own_id: str) -> None:
        for name in said.ignored:
            is_id = name.strip().lower() in ID_COLUMNS and own_id and str(columns[name]) == own_id
            if not is_id:
                _count(self._found.columns, name)
        for key in _ignored_turn_keys(columns):
            _count(self._found.turn_keys, key)

    def _name(self, place: Place) -> None:
        """Remember what a row is called, and say so where another was called the same."""
        if not place.own_id:
            return
        first = self._seen.first(place.own_id, place.row)
        if first is not None:
            _count(self._found.repeated, place.own_id)
            reason = f"an earlier row is called the same (row {first})"
            found = printable(place.own_id, 60)
            self._found.add(place.problem("note", REPEATED_ID, reason, "", found))


def _files(where: Sequence[str], found: Validation) -> Iterator[tuple[FileFound, Iterator[Record]]]:
    """Every file with its records; one that can't be read is only noted."""
    for name in where:
        try:
            places: list[Any] = [name] if name.startswith(HUB) else list(paths_of(name))
        except DataError as error:
            found.files.append(FileFound(name, error=_error(name, error)))
            continue
        for place in places:
            file = FileFound(str(place))
            found.files.append(file)
            try:
                stream = _stream(place)
            except DataError as error:
                file.error = _error(file.file, error)
                continue
            file.file, file.container = stream.name, stream.container
            yield file, stream.records


def _stream(place: Path | str) -> Stream:
    if isinstance(place, str):
        (source,) = open_sources(place)
        return stream_source(source)
    return stream_file(place)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Some records at a time; where reading breaks off, those before it all the same."""
    batch: list[Record] = []
    try:
        for record in records:
            batch.append(record)
            if len(batch) == _TOGETHER or len(record.raw) > _LARGE:
                yield batch
                batch = []
    except DataError:
        yield batch
        raise
    yield batch


def _parsed(record: Record, reading: Reading) -> Conversation | None:
    if record.columns is None:
        return None
    try:
        return parse_row(record.columns, reading)
    except UnreadableRow:
        return None


def _row(place: Place, record: Record, said: Conversation) -> Row:
    return Row(place.row, place.line, place.own_id, record.raw, said.messages, said.tools)


def _formula_cells(record: Record) -> int:
    cells = (record.columns or {}).values()
    return sum(is_formula(cell) for cell in cells if isinstance(cell, str))


def _ignored_turn_keys(columns: Mapping[str, Any]) -> set[str]:
    """Keys of turns that hold something and that nothing reads."""
    found: set[str] = set()
    for name in TURN_COLUMNS:
        value = columns.get(name)
        if isinstance(value, str):
            value = turns_in_text(value)
        for item in cast(list[Any], value) if isinstance(value, list) else ():
            turn = cast(dict[str, Any], item) if isinstance(item, dict) else {}
            for key in IGNORED_TURN_KEYS.intersection(turn):
                is_tool = key == "name" and "tool_call_id" in turn
                if not is_tool and not is_empty(turn[key]):
                    found.add(key)
    return found


def _count(counter: Counter[str], name: str) -> None:
    if name in counter or len(counter) < _MOST_NAMES:
        counter[name] += 1


def _names(counter: Counter[str], most: int = 50) -> dict[str, int]:
    """Names and how often, most often first; what is beyond ``most`` is left out."""
    return {printable(name, 60): count for name, count in counter.most_common(most)}


def _error(name: str, error: DataError) -> str:
    said = str(error)
    shown = quoted(name)
    return printable(said if shown in said else f"{shown}: {said}", 800)
