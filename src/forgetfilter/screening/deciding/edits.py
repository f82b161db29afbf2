"""Edits by hand of the files of kept and removed rows: found out, and offered as decisions."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from forgetfilter.data import read_rows
from forgetfilter.errors import DataError
from forgetfilter.files import list_files, sha256_once
from forgetfilter.runs.decisions import InputRows, input_rows
from forgetfilter.runs.file_names import SCORES_FILE, rows_file
from forgetfilter.text import printable

_OTHER = {"kept": "removed", "removed": "kept"}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Edits:
    """What was edited, as the decisions that it comes to."""

    keep: tuple[int, ...] = ()
    """Removed rows that were added to the kept ones, or deleted from the removed ones."""
    remove: tuple[int, ...] = ()
    """Kept rows that were deleted from the kept ones, or added to the removed ones."""
    foreign: tuple[tuple[str, int], ...] = ()
    """``(file, line)`` of lines that are no rows of the input: changed, new, or there twice."""
    files: tuple[str, ...] = ()
    """Names of the files."""
    containers: tuple[str, ...] = ()
    """Files of other containers than JSON Lines that were edited, as paths in the run."""

    def __bool__(self) -> bool:
        return bool(self.keep or self.remove or self.foreign or self.containers)

    @property
    def can_be_adopted(self) -> bool:
        """Whether decisions say the same as the edits."""
        return not (self.foreign or self.containers)

    def told(self) -> str:
        """What was found, in words."""
        found = [
            f"{len(rows):,} {was} {'row' if len(rows) == 1 else 'rows'} would be {now}"
            for rows, was, now in (
                (self.remove, "kept", "removed"),
                (self.keep, "removed", "kept"),
            )
            if rows
        ]
        if self.foreign:
            name, line = self.foreign[0]
            lines = "1 line is no row" if len(self.foreign) == 1 else "lines are no rows"
            count = "" if len(self.foreign) == 1 else f"{len(self.foreign):,} "
            found.append(
                f"{count}{lines} of the input, because the text was changed, is new or is there "
                f"twice (the first is line {line} of {name})"
            )
        return "; ".join(found)


def digests_of(run: Path, outputs: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of every file of kept and of removed rows, by its path in the run.

    Args:
        run: the run folder.
        outputs: the file, or folder, of each decision in the input's own container.
    """
    names = [f"{decision}.jsonl" for decision in _OTHER]
    for decision in _OTHER:
        name = outputs.get(decision, "")
        if (run / name).is_dir() and name:
            names += [f"{name}/{within}" for within in list_files(run / name)]
        elif name and name not in names:
            names.append(name)
    return {name: sha256_once(run / name) for name in names if (run / name).is_file()}


def find_edits(run: Path, summary: Mapping[str, Any]) -> Edits:
    """What was edited by hand since the present decision was written.

    Lines are compared by what they say, so that another order, spacing or end of line is no edit;
    files of other containers are compared byte for byte. A file that is gone altogether was lost,
    not edited.

    Raises:
        DataError: an edited file can't be read any more.
    """
    written: Mapping[str, str] = summary.get("file_digests") or {}
    edited = [
        decision
        for decision in _OTHER
        for path in (rows_file(run, decision),)
        if path.is_file() and written.get(path.name) != sha256_once(path)
    ]
    lines = {rows_file(run, decision).name for decision in _OTHER}
    containers = tuple(name for name in edited_files(run, summary) if name not in lines)
    if not edited:
        return Edits(containers=containers)
    decisions = pd.read_parquet(run / SCORES_FILE, columns=["row", "decision"])
    by_row = dict(zip(decisions["row"].tolist(), decisions["decision"].tolist(), strict=True))
    contents = [_content(row.raw) for row in input_rows(run).rows]
    found: dict[str, set[int]] = {"kept": set(), "removed": set()}
    foreign: list[tuple[str, int]] = []
    for decision in edited:
        path = rows_file(run, decision)
        left: dict[str, dict[bytes, deque[int]]] = {
            name: defaultdict(deque[int]) for name in _OTHER
        }
        for row, content in enumerate(contents):
            if by_row.get(row) in left:
                left[by_row[row]][content].append(row)
        for line, content in _lines(run, path):
            if left[decision][content]:
                left[decision][content].popleft()
            elif left[_OTHER[decision]][content]:
                found[decision].add(left[_OTHER[decision]][content].popleft())
            else:
                foreign.append((path.name, line))
        for rows in left[decision].values():
            found[_OTHER[decision]].update(rows)
    names = tuple(rows_file(run, decision).name for decision in edited)
    kept, removed = (tuple(sorted(found[name])) for name in ("kept", "removed"))
    return Edits(kept, removed, tuple(foreign), names, containers)


def edited_files(run: Path, summary: Mapping[str, Any]) -> list[str]:
    """Files of kept and of removed rows whose bytes are not those that were written."""
    written: Mapping[str, str] = summary.get("file_digests") or {}
    return [
        name
        for name, digest in written.items()
        if (run / name).is_file() and sha256_once(run / name) != digest
    ]


def refuse_edits(run: Path, summary: Mapping[str, Any]) -> None:
    """Raise where a file of kept or removed rows was edited, with how to take it over.

    Raises:
        DataError: one was edited.
    """
    if edits := find_edits(run, summary):
        raise edited(run, edits)


def edited(run: Path, edits: Edits) -> DataError:
    """The refusal to go on over an edit."""
    command = f"forgetfilter filter {shlex.quote(printable(str(run), 300))}"
    if edits.containers:
        named = ", ".join(printable(name, 100) for name in edits.containers)
        was = "was" if len(edits.containers) == 1 else "were"
        return DataError(
            f"{named} in {printable(str(run), 300)!r} {was} edited by hand since the decision was "
            "written. Expected the file as it was written: only edits of kept.jsonl and of "
            "removed.jsonl, which hold the same rows, can be taken over as decisions. "
            f"Write the files as they were decided with `{command} --discard-edits`; rows are "
            "decided with --keep-row and --remove-row in the same command, or afterwards with "
            f"`forgetfilter review {shlex.quote(printable(str(run), 300))}`."
        )
    were = "was" if len(edits.files) == 1 else "were"
    found = f"{' and '.join(edits.files)} in {printable(str(run), 300)!r} {were} edited by hand "
    found += f"since the decision was written: {edits.told()}. "
    if edits.foreign:
        return DataError(
            f"{found}Expected lines of the screened file: a decision keeps or removes a row, and "
            "can't change its text. Copy the edited file to another place and use that copy, or "
            f"change the text in your own file and screen it; then `{command} --discard-edits` "
            "writes the run's files as they were decided."
        )
    return DataError(
        f"{found}Expected the files as they were written, because an edit alone is neither trained "
        f"on nor kept by the next decision. Take it over with `{command} --adopt-edits` (add "
        f"--dry-run to see it first), or write them as decided with `{command} --discard-edits`."
    )


def _lines(run: Path, path: Path) -> list[tuple[int, bytes]]:
    """``(line number, content)`` of every line of a file of rows."""
    if not path.read_bytes().strip():
        return []
    try:
        rows = InputRows(read_rows(path)).rows
    except DataError as error:
        raise DataError(
            f"{error} It was edited by hand since it was written; `forgetfilter filter "
            f"{shlex.quote(printable(str(run), 300))} --discard-edits` writes it as decided."
        ) from None
    return [(row.line, _content(row.raw)) for row in rows]


def _content(raw: bytes) -> bytes:
    """What a line says, whatever its spacing and the order of its keys."""
    raw = raw.removeprefix(_BOM).strip()
    try:
        return json.dumps(json.loads(raw), sort_keys=True).encode()
    except (ValueError, RecursionError):
        return raw
