"""Rows that are known to be unsafe: those of a file, or those that reviewers removed from a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetfilter.config import KNOWN_UNSAFE
from forgetfilter.data import read_rows
from forgetfilter.data.records import RejectedRow, Row
from forgetfilter.errors import ConfigError
from forgetfilter.files import sha256_file
from forgetfilter.runs.decisions import Journal, input_rows, load_decisions
from forgetfilter.text import printable


@dataclass(frozen=True)
class KnownRows:
    """Rows that are known to be unsafe, as they were read."""

    rows: Sequence[Row]
    rejected: Sequence[RejectedRow]
    fingerprint: str


def known_unsafe_place(name: str) -> Path | None:
    """The file, or the run, that a ``second_opinion`` names; None where it is not of this kind.

    Raises:
        ConfigError: it names neither.
    """
    if not name.startswith(KNOWN_UNSAFE):
        return None
    path, shown = Path(name.removeprefix(KNOWN_UNSAFE)), printable(name, 300)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(
            f"second_opinion is {shown!r}, and there is no such file. Expected {KNOWN_UNSAFE}FILE, "
            "a file of rows that are known to be unsafe, in any format that rows to screen may "
            "have, or the folder of a run whose rows were reviewed. Check the path."
        )
    latest = {one.row: one.decision for one in Journal(path).read()}
    if "remove" not in latest.values():
        raise ConfigError(
            f"second_opinion is {shown!r}, a folder in which nobody has decided that a row is to "
            "be removed. Expected a run in which somebody has. Read its highest rows and decide: "
            f"forgetfilter review {printable(str(path), 300)}"
        )
    return path


def known_fingerprint(path: Path) -> str:
    """What identifies the rows: the bytes of the file, or the rows that were removed by hand.

    Raises:
        DataError: the run's rows or decisions can't be read.
    """
    return sha256_file(path) if path.is_file() else _removed_by_hand(path).fingerprint


def read_known(path: Path) -> KnownRows:
    """The rows of a file, or those that the reviewers of a run have decided to remove.

    Raises:
        DataError: they can't be read.
    """
    if path.is_dir():
        return _removed_by_hand(path)
    file = read_rows(path)
    return KnownRows(file.rows, file.rejected, file.fingerprint)


def _removed_by_hand(run: Path) -> KnownRows:
    rows = input_rows(run)
    latest = load_decisions(run, rows).latest
    removed = [row for row in sorted(latest) if latest[row].decision == "remove"]
    digest = hashlib.sha256("".join(map(rows.digest, removed)).encode()).hexdigest()
    known = [rows.rows[row] for row in removed]
    return KnownRows([row for row in known if isinstance(row, Row)], (), digest)
