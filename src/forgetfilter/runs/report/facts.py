"""report.json: what the page says, for programs. docs/read_the_report.md lists the fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetfilter.files import encode_json, write_chunks_atomic
from forgetfilter.runs.file_names import REPORT_JSON_FILE
from forgetfilter.runs.harms import as_json
from forgetfilter.runs.report.groups import Group, Harm
from forgetfilter.runs.report.headline import headline, method
from forgetfilter.runs.report.row_data import LABELS, labels_of
from forgetfilter.runs.report.row_texts import RowTexts
from forgetfilter.runs.schema import Summary

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields don't raise it."""


def write_facts(
    run: Path,
    summary: Summary,
    judged: int,
    groups: Mapping[str, Sequence[Group]],
    harms: Sequence[Harm],
    texts: RowTexts,
    order: npt.NDArray[np.int64],
    overruled: Mapping[int, str],
) -> None:
    """Write ``report.json`` with every row that the page lists.

    Args:
        run: the run folder.
        summary: of the run.
        judged: how many rows could be judged.
        groups: counts by ``source`` and ``category``.
        harms: counts of the removed rows by what they pull against.
        texts: of all rows, loaded for those of ``order``.
        order: positions of the listed rows.
        overruled: what a reviewer has decided, by row.
    """
    head = {
        "schema_version": SCHEMA_VERSION,
        "headline": headline(summary, judged),
        "method": method(summary),
        "judged": judged,
        "summary": summary.as_json(),
        **{
            f"by_{name}": [asdict(g) | {"removed_share": g.removed_share} for g in found]
            for name, found in groups.items()
        },
        "by_harm": [asdict(harm) for harm in harms],
    }
    opening = encode_json(head, indent=2).removesuffix(b"\n}")
    write_chunks_atomic(run / REPORT_JSON_FILE, _chunks(opening, _rows(texts, order, overruled)))


def _chunks(opening: bytes, rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    yield opening + b',\n  "rows": ['
    before = b"\n    "
    for row in rows:
        yield before + encode_json(row)
        before = b",\n    "
    yield b"\n  ]\n}\n"


def _rows(
    texts: RowTexts, order: npt.NDArray[np.int64], overruled: Mapping[int, str]
) -> Iterator[dict[str, Any]]:
    """One record for each listed row; without what was not measured."""
    table = texts.table
    labels = {name: labels_of(texts, name, order) for name in LABELS}
    for at, position in enumerate(int(place) for place in order):
        row = int(table.row[position])
        said = texts.said.get(row, {})
        record: dict[str, Any] = {
            "row": row,
            "example_id": str(table.example_id[position]),
            "decision": str(table.decision[position]),
            "reason": str(table.reason[position]),
            **{name: _finite(values[position]) for name, values in table.quantities.items()},
            "file": f"{table.decision[position]}.jsonl",
            "line": int(texts.place[position]) + 1,
            **{name: found[at] or None for name, found in labels.items()},
            "safe_rows": as_json(texts.safe_rows.get(row, ())) or None,
            "unscored": None if table.unscored is None else str(table.unscored[position]) or None,
            "overruled": overruled.get(row),
            "learned_text": said.get("learned_text"),
            "forgotten_text": said.get("forgotten_text"),
        }
        yield {name: value for name, value in record.items() if value is not None}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
