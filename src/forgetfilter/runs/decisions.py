"""What people decided of single rows: a journal that is only ever appended to.

One JSON object on each line of ``decisions.jsonl``. The latest line about a row counts. A decision
names its row by position and by the sha256 of the row's content, so that it never reaches another
row, and it is on the disk before whoever made it is told so. Nothing of what a model computed
depends on it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from forgetfilter.data.records import RejectedRow, Row, RowFile
from forgetfilter.errors import DataError
from forgetfilter.files import encode_json, fsync_folder
from forgetfilter.runs.file_names import DECISIONS_FILE, DECISIONS_LOCK_FILE
from forgetfilter.runs.inputs import read_input
from forgetfilter.runs.locking import locked, refuse_other_than_file
from forgetfilter.text import printable

Choice = Literal["keep", "remove", "unsure"]
CHOICES: tuple[Choice, ...] = ("keep", "remove", "unsure")
KEPT_BY_REVIEWER = "kept_by_reviewer"
"""The reason, in ``scores.parquet``, of a row that the rule would have removed."""
REMOVED_BY_REVIEWER = "removed_by_reviewer"
"""The reason of a row that the rule would have kept."""
MAX_REASON_CHARACTERS = 2000
MAX_REVIEWER_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the journal."""

    row: int
    """Position among the input's rows, from 0."""
    example_id: str
    decision: Choice | None
    """``unsure`` lets the threshold rule decide; None withdraws what was decided before."""
    reason: str
    reviewer: str
    time: str
    """When it was made, UTC, ISO 8601."""
    row_sha256: str
    """Of the row's content, so that it never reaches another row."""
    input_sha256: str
    """Of the whole input."""
    number: int = 0
    """Its line in the journal, from 1; the version of the row's decision."""


class ConflictError(Exception):
    """Somebody else has decided one of the rows since; holds what they decided, by row."""

    def __init__(self, found: Mapping[int, Decision]) -> None:
        super().__init__(f"{len(found)} rows were decided by others since")
        self.found = dict(found)


class InputRows:
    """The rows of a run's input by their number, for whoever decides on them."""

    def __init__(self, file: RowFile) -> None:
        self.fingerprint = file.fingerprint
        self.rows: list[Row | RejectedRow] = sorted(
            (*file.rows, *file.rejected), key=lambda row: row.row
        )
        self._digests: dict[int, str] = {}
        self._by_digest: dict[str, list[int]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self, row: int) -> str:
        """The sha256 of a row's content."""
        if row not in self._digests:
            self._digests[row] = hashlib.sha256(self.rows[row].raw).hexdigest()
        return self._digests[row]

    def with_digest(self, digest: str) -> list[int]:
        """All rows with this content."""
        if self._by_digest is None:
            self._by_digest = {}
            for row in range(len(self)):
                self._by_digest.setdefault(self.digest(row), []).append(row)
        return self._by_digest.get(digest, [])

    def decide(self, row: int, choice: Choice | None, reason: str, reviewer: str) -> Decision:
        """A decision on a row, now, not yet written.

        Raises:
            DataError: there is no such row, it was rejected, or a text is too long.
        """
        if not 0 <= row < len(self):
            raise DataError(
                f"There is no row {row}. Expected 0 to {len(self) - 1}, as in the column `row` of "
                "scores.parquet. Look rows up with `forgetfilter show RUN --id ID`."
            )
        at = self.rows[row]
        reviewer = " ".join(reviewer.split())
        if not reviewer or len(reviewer) > MAX_REVIEWER_CHARACTERS:
            raise DataError(
                f"The reviewer's name has {len(reviewer)} characters. Expected 1 to "
                f"{MAX_REVIEWER_CHARACTERS}. Give another --reviewer."
            )
        if len(reason) > MAX_REASON_CHARACTERS:
            raise DataError(
                f"The reason has {len(reason)} characters. Expected at most "
                f"{MAX_REASON_CHARACTERS}. Shorten it."
            )
        time = datetime.now(UTC).isoformat(timespec="seconds")
        return Decision(
            row, at.example_id, choice, reason, reviewer, time, self.digest(row), self.fingerprint
        )


class Journal:
    """The decisions of one run. Several processes may read and append at the same time."""

    def __init__(self, run: Path) -> None:
        self.path = run / DECISIONS_FILE
        self._lock = run / DECISIONS_LOCK_FILE
        self._entries: list[Decision] = []
        self._end = 0
        self._inode = 0
        self.has_cut_line = False
        """Whether the last line was cut off when it was last read."""

    def read(self) -> list[Decision]:
        """All decisions, oldest first. Only what was added since the last call is read.

        A last line that was cut off, by a kill or a full disk, was never acknowledged and doesn't
        count; the next `append` removes it.

        Raises:
            DataError: another line is damaged.
        """
        tail, is_whole = self._refresh()
        self.has_cut_line = bool(tail) and not is_whole
        if tail and is_whole:
            return [*self._entries, _parse(self.path, len(self._entries) + 1, tail)]
        return list(self._entries)

    def append(
        self,
        decisions: Sequence[Decision],
        check: Callable[[list[Decision]], None] | None = None,
    ) -> list[Decision]:
        """Add decisions; they are on the disk when this returns.

        Args:
            decisions: what to add, in order.
            check: called with all decisions so far while nobody else can add any; raises, for
                example `ConflictError`, where these may not be added.

        Returns:
            The same decisions with their numbers.

        Raises:
            DataError: a line of the journal is damaged.
            RunExistsError: a link or something else stands in its place.
            OSError: the disk is full, say. Nothing is added.
        """
        if not decisions:
            return []
        with locked(self._lock, waits=True):
            refuse_other_than_file(self.path)  # a link may have come since the run was opened
            tail, is_whole = self._refresh()
            if check is not None:
                check(self.read())
            start = b"\n" if tail and is_whole else b""
            if tail and not is_whole:
                with open(self.path, "r+b") as file:
                    file.truncate(self._end)
                    os.fsync(file.fileno())
            self._write(start + b"".join(_line(decision) for decision in decisions))
            self._refresh()
            return self._entries[len(self._entries) - len(decisions) :]

    def _write(self, data: bytes) -> None:
        is_new = not self.path.exists()
        with open(self.path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
            except BaseException:
                # Whoever made them is told that they failed, so no part of them may stay.
                file.truncate(size)
                raise
        if is_new:
            fsync_folder(self.path.parent)

    def _refresh(self) -> tuple[bytes, bool]:
        """Read on; what stands behind the last line feed, and whether that is a whole decision."""
        try:
            with open(self.path, "rb") as file:
                state = os.fstat(file.fileno())
                if state.st_ino != self._inode or state.st_size < self._end:
                    self._entries, self._end, self._inode = [], 0, state.st_ino
                file.seek(self._end)
                data = file.read()
        except FileNotFoundError:
            self._entries, self._end, self._inode = [], 0, 0
            return b"", False
        except OSError as error:
            raise DataError(
                f"{printable(str(self.path), 300)!r} can't be read: {error.strerror}. Expected the "
                "decisions of the run. Put the file back, or mend its permissions."
            ) from None
        whole, feed, tail = data.rpartition(b"\n")
        if feed:
            lines = enumerate(whole.split(b"\n"), start=len(self._entries) + 1)
            self._entries += [_parse(self.path, number, line) for number, line in lines]
            self._end += len(whole) + 1
        return tail, _is_whole(tail)


@dataclass(frozen=True)
class Decided:
    """What of a journal holds for a run's present input."""

    latest: Mapping[int, Decision]
    """By row of the input: its latest decision; rows whose decision was withdrawn are left out."""
    versions: Mapping[int, int] = field(default_factory=dict[int, int])
    """By row: the number of its latest decision, of a withdrawn one too."""
    elsewhere: int = 0
    """How many decided rows of an earlier input are not in this one."""
    entries: int = 0
    """How many lines of the journal this was read from."""

    @property
    def digest(self) -> str:
        """Names what was decided: the same for the same decisions on the same rows."""
        told = [[row, self.latest[row].decision] for row in sorted(self.latest)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest() if told else ""


NOTHING_DECIDED = Decided({})


def input_rows(run: Path) -> InputRows:
    """The rows of a run's input.

    Raises:
        DataError: it can't be read.
    """
    return InputRows(read_input(run))


def load_decisions(run: Path, rows: RowFile | InputRows | None = None) -> Decided:
    """The decisions on a run's rows: for each row the latest, with reason, reviewer and time.

    Decisions on an earlier input of the run (``screen --overwrite`` on another file) follow their
    row, wherever it is now, by its content.

    Args:
        run: the run folder.
        rows: its input, where that is read already.

    Raises:
        DataError: the journal or the input is damaged, or a decision names a row that is not so.
    """
    entries = Journal(run).read()
    if not entries:
        return NOTHING_DECIDED
    if not isinstance(rows, InputRows):
        rows = InputRows(rows) if rows is not None else input_rows(run)
    return decisions_on(rows, entries, run / DECISIONS_FILE)


def decisions_on(rows: InputRows, entries: Iterable[Decision], path: Path) -> Decided:
    """What of ``entries``, the lines of the journal at ``path``, holds for ``rows``.

    Raises:
        DataError: a decision on this very input names no row of it, or another content.
    """
    latest: dict[int, Decision] = {}
    elsewhere: dict[str, Decision] = {}
    entries = list(entries)
    for entry in entries:
        row = entry.row
        is_there = row < len(rows) and rows.digest(row) == entry.row_sha256
        if not is_there and entry.input_sha256 == rows.fingerprint:
            found = f"has {len(rows)} rows" if row >= len(rows) else "has another text there"
            raise DataError(
                f"{printable(str(path), 300)}, line {entry.number}: a decision on row {row} of "
                f"this input, which {found}. Expected the row that was decided on. Delete this "
                "line of the file, then decide the row again."
            )
        if not is_there:
            same = rows.with_digest(entry.row_sha256)
            if len(same) != 1:  # gone, or nobody can say which of several was meant
                elsewhere[entry.row_sha256] = entry
                continue
            row = same[0]
        latest[row] = entry if row == entry.row else replace(entry, row=row)
    kept = {row: entry for row, entry in latest.items() if entry.decision is not None}
    versions = {row: entry.number for row, entry in latest.items()}
    gone = sum(entry.decision is not None for entry in elsewhere.values())
    return Decided(kept, versions, gone, len(entries))


def refuse_cut(run: Path, honoured: int) -> None:
    """Raise where the journal ends within a line that the present decision has honoured.

    A last line that was cut off before anybody was told of it is none of these.

    Args:
        run: the run folder.
        honoured: how many lines that decision was made from.

    Raises:
        DataError: it was cut, or another line is damaged.
    """
    journal = Journal(run)
    count = len(journal.read())
    if count < honoured and journal.has_cut_line:
        raise DataError(
            f"{printable(str(journal.path), 300)!r} is cut off within line {count + 1}, and the "
            f"present decision honours {honoured}. Expected the decisions as they were written. "
            "Put the file back from a copy, or delete what is left of that line, which forgets "
            "its decision and those that followed."
        )


def _line(decision: Decision) -> bytes:
    record = {name: value for name, value in asdict(decision).items() if name != "number"}
    return encode_json(record) + b"\n"


def _is_whole(tail: bytes) -> bool:
    """Whether a last line without a line feed, which an editor may have left, is whole."""
    try:
        return isinstance(json.loads(tail), dict)
    except (ValueError, RecursionError):
        return False


def _parse(path: Path, number: int, line: bytes) -> Decision:
    def damaged(found: str) -> DataError:
        return DataError(
            f"{printable(str(path), 300)}, line {number}: {found}. Expected a decision as it was "
            "written: one JSON object with row, example_id, decision, reason, reviewer, time, "
            "row_sha256 and input_sha256. Mend the line, or delete it, which forgets that decision."
        )

    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise damaged(f"{printable(line.decode('utf-8', 'replace'), 60)!r} is not JSON") from None
    if not isinstance(found, dict):
        raise damaged("not a JSON object")
    record = cast(dict[str, Any], found)
    texts = ("example_id", "reason", "reviewer", "time", "row_sha256", "input_sha256")
    for name in texts:
        if not isinstance(record.get(name), str):
            raise damaged(f"{name} is {printable(repr(record.get(name)), 60)}")
    row, choice = record.get("row"), record.get("decision", "")
    if not isinstance(row, int) or isinstance(row, bool) or row < 0:
        raise damaged(f"row is {printable(repr(row), 60)}")
    if choice is not None and choice not in CHOICES:
        raise damaged(f"decision is {printable(repr(choice), 60)}; known are {', '.join(CHOICES)}")
    return Decision(row=row, decision=choice, number=number, **{n: record[n] for n in texts})
