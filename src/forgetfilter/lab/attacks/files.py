"""Labelled files in, attacked files out: what stays is the same bytes; the truth says the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetfilter.data.containers.base import BOM
from forgetfilter.data.reading import OTHER, category_of
from forgetfilter.data.records import Row, RowFile
from forgetfilter.data.writing import write_lines, write_records
from forgetfilter.files import write_json_atomic
from forgetfilter.lab.attacks.base import Material, Subject
from forgetfilter.lab.studies.datasets.base import RowKind

NOISY, SAFE = "noisy.jsonl", "safe.jsonl"
TRUTH, SAFE_TRUTH, LEFT_OUT = "truth.jsonl", "safe_truth.jsonl", "left_out.jsonl"
SUMMARY = "attack.json"


def noisy_subjects(
    file: RowFile, is_unsafe: Mapping[str, bool], kinds: Mapping[str, RowKind]
) -> tuple[Subject, ...]:
    """Every row of a noisy file in its order, the unreadable ones too, with its truth."""
    unknown = RowKind("", None)
    readable = {row.row: row for row in file.rows}
    found: list[Subject] = []
    for row in sorted((*file.rows, *file.rejected), key=lambda row: row.row):
        own = readable.get(row.row)
        kind = kinds.get(row.example_id, unknown)
        found.append(
            Subject(
                row.raw.removeprefix(BOM),
                row.example_id,
                own.messages if own else (),
                is_unsafe.get(row.example_id, False),
                kind.kind,
                kind.harm,
            )
        )
    return tuple(found)


def safe_subjects(file: RowFile) -> tuple[Subject, ...]:
    """Every row of a safe file in its order, with its category as its harm."""
    readable = {row.row: row for row in file.rows}
    found: list[Subject] = []
    for row in sorted((*file.rows, *file.rejected), key=lambda row: row.row):
        own = readable.get(row.row)
        category = category_of(own) if own else OTHER
        harm = None if category == OTHER else category
        messages = own.messages if own else ()
        raw = row.raw.removeprefix(BOM)
        found.append(Subject(raw, row.example_id, messages, False, harm=harm))
    return tuple(found)


def pool_subjects(rows: Sequence[Row], category: str | None = None) -> tuple[Subject, ...]:
    """Rows known to be unsafe."""
    return tuple(
        Subject(row.raw.removeprefix(BOM), row.example_id, row.messages, True, harm=category)
        for row in rows
    )


def write_attacked(folder: Path, after: Material, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the files of an attack; returns what `SUMMARY` holds."""
    write_lines(folder / NOISY, (row.raw for row in after.noisy))
    write_records(folder / TRUTH, (_truth(at, row) for at, row in enumerate(after.noisy)))
    if after.safe:
        write_lines(folder / SAFE, (row.raw for row in after.safe))
        write_records(folder / SAFE_TRUTH, (_truth(at, row) for at, row in enumerate(after.safe)))
    if after.left_out:
        write_records(folder / LEFT_OUT, map(_left_out, after.left_out))
    summary = {
        **facts,
        "noisy_rows": len(after.noisy),
        "noisy_rows_changed": sum(bool(row.change) for row in after.noisy),
        "unsafe_rows": sum(row.is_unsafe for row in after.noisy),
        "safe_rows": len(after.safe),
        "safe_rows_changed": sum(bool(row.change) for row in after.safe),
        "rows_left_out": len(after.left_out),
    }
    write_json_atomic(folder / SUMMARY, summary)
    return summary


def _truth(at: int, row: Subject) -> dict[str, Any]:
    return {
        "row": at,
        "example_id": row.example_id,
        "is_unsafe": row.is_unsafe,
        "kind": row.kind,
        "harm": row.harm,
        "is_changed": bool(row.change),
        "change": row.change,
    }


def _left_out(row: Subject) -> dict[str, Any]:
    told = {"example_id": row.example_id, "is_unsafe": row.is_unsafe, "change": row.change}
    return {**told, "raw": row.raw.decode("utf-8", "backslashreplace")}
