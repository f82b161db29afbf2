"""What the exports for trainers share: a name, a place, and rows that the trainer can't hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetfilter.data.formats import answer_column, columns_of, parse_object
from forgetfilter.data.reading import decode_line
from forgetfilter.data.records import Row
from forgetfilter.data.writing import write_records
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.runs.inputs import stored_reading
from forgetfilter.text import printable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Exported:
    """What an export has written."""

    data: Path
    """The rows."""
    entry: Path
    """The file that tells the trainer of them."""
    name: str
    rows: int
    left_out: int
    """Kept rows that the trainer has no shape for."""
    left_out_file: Path | None
    """Which those are, each with the reason."""
    notes: tuple[str, ...] = ()
    """What has to be set for the trainer to learn what was judged."""


class NotHeld(Exception):
    """A trainer has no shape for a row, or would learn of it what wasn't judged; the reason."""


def chosen_name(name: str, run: Path, noisy_data: str) -> str:
    """The name that was asked for, or one made of the screened file's.

    Raises:
        ConfigError: a name that a trainer or a file system may not take.
    """
    if not name:
        stem = Path(noisy_data).name.partition(".")[0] if _is_one_file(noisy_data) else ""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{stem or run.resolve().name}_kept").lstrip("_.-")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name is {printable(repr(name), 100)}; expected letters, digits, _ . and -, with a "
            "letter or digit first. Choose such a name."
        )
    return name


def refuse_pairs(rows: Sequence[Row], run: Path) -> None:
    """Raise where a row is a pair of answers, of which only the chosen one was judged.

    Raises:
        DataError: there is such a row.
    """
    reading = stored_reading(run)
    for row in rows:
        columns = columns_of(parse_object(decode_line(row.raw)), reading)
        if answer_column(columns, reading) == "chosen":
            raise DataError(
                f"Row {row.row} is a pair of a chosen and a rejected answer. Expected rows with "
                "one answer, as they are fine-tuned on. Train on pairs from "
                f"{printable(str(run / 'kept.jsonl'), 300)} as it is, which has the rows unchanged."
            )


def refuse_others_files(paths: Sequence[Path], *, is_ours: bool, overwrite: bool) -> None:
    """Raise where an export would write over what it hasn't made of the same rows.

    Raises:
        ConfigError: one of ``paths`` is there, ``is_ours`` and ``overwrite`` are false.
    """
    there = [path for path in paths if path.exists()]
    if there and not is_ours and not overwrite:
        raise ConfigError(
            f"{printable(str(there[0]), 300)!r} is there already and isn't an export of the same "
            "screened file. Expected a free name. Choose another --name, or add --overwrite to "
            "replace it."
        )


def write_left_out(path: Path, left_out: Sequence[tuple[Row, str]]) -> Path | None:
    """Write which rows were left out and why; a file of an earlier export goes."""
    path.unlink(missing_ok=True)
    if not left_out:
        return None
    write_records(path, (_left_out_record(row, reason) for row, reason in left_out))
    return path


def require_any(rows: Sequence[Any], left_out: Sequence[tuple[Row, str]], trainer: str) -> None:
    """Raise where no row at all can be exported.

    Raises:
        DataError: none can.
    """
    if not rows:
        row, reason = left_out[0]
        raise DataError(
            f"None of the {len(left_out)} kept rows can be exported for {trainer}: row {row.row} "
            f"{reason}. Expected at least one. Train on them with another trainer, or with "
            "`forgetfilter finetune`."
        )


def _left_out_record(row: Row, reason: str) -> dict[str, Any]:
    return {"row": row.row, "example_id": row.example_id, "reason": reason}


def _is_one_file(noisy_data: str) -> bool:
    return not any(sign in noisy_data for sign in "[]*<>,")
