"""The files of a decision: a pure function of scores, readings, input and what people decided."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.data import write_lines, write_rejected
from forgetfilter.data.records import RejectedRow, RowFile
from forgetfilter.files import remove, write_json_atomic
from forgetfilter.runs.cards import write_dataset_card
from forgetfilter.runs.decisions import load_decisions
from forgetfilter.runs.file_names import (
    COVERAGE_FILE,
    REJECTED_FILE,
    SCORES_FILE,
    SUMMARY_FILE,
    TOKENS_FILE,
    rows_file,
)
from forgetfilter.runs.harms import harm_of_each
from forgetfilter.runs.inputs import read_input, write_containers
from forgetfilter.runs.intact import written_by_decision
from forgetfilter.runs.parquet_parts import (
    PART_ROWS,
    by_code,
    give_back,
    names_in,
    read_parts,
    shared_texts,
    write_parts,
)
from forgetfilter.runs.report.page import render_report
from forgetfilter.runs.schema import HARM_COLUMN, SCORED_QUANTITIES, UNSCORED_COLUMN, Summary
from forgetfilter.scoring.formulas import FIRST_VERSION, rule_version
from forgetfilter.scoring.records import Readings
from forgetfilter.screening.annotations.agreement import agreement
from forgetfilter.screening.checks.coverage_verdict import read_measurement
from forgetfilter.screening.checks.fitness import is_severe
from forgetfilter.screening.deciding.actions import write_action
from forgetfilter.screening.deciding.by_rule import rule_decides, selection_by
from forgetfilter.screening.deciding.edits import digests_of
from forgetfilter.screening.deciding.file_verdict import judge_file
from forgetfilter.screening.deciding.masks import Rule
from forgetfilter.screening.deciding.overruling import overrule
from forgetfilter.screening.deciding.tables import in_order

_CARRIED = ("example_id", "line", "source", "own_id", UNSCORED_COLUMN)
"""Columns of the table of scores that go from one decision to the next as they are."""
_FEW_TEXTS = ("decision", "reason", "decided_by", "rule_decision", HARM_COLUMN)
"""Columns of texts of which few differ."""


def write_decision(
    run: Path,
    summary: Mapping[str, Any],
    threshold: str,
    is_of_screen: bool,
    force: bool = False,
) -> None:
    """Write everything that follows from a decision: see `commit_decision` for the arguments."""
    frame, rows = _open_scores(run), read_input(run)
    selection, readings, findings = selection_by(run, summary, threshold)
    decided = force or not is_severe(findings)
    scores = frame["forgetting_score"].to_numpy(dtype=np.float64)[readings.row]
    weight = float(summary.get("joint", 0.0))
    rule_decides(frame, selection, readings, decided=decided, weight=weight)
    overruled = overrule(frame, load_decisions(run, rows))
    harms = harm_of_each(run, len(frame))
    if harms is not None:  # what a kept row is most like says nothing against it
        frame[HARM_COLUMN] = by_code(np.where(frame["decision"] == "removed", harms, ""))
    action = str(summary.get("action", "remove"))
    outputs = _write_rows(run, rows, frame)
    cut = selection.cut
    if is_of_screen and action != "mask":
        remove(run / TOKENS_FILE)  # of an earlier screen
    rule = Rule(float(cut.value), str(summary.get("unit", "")))
    action_file = write_action(run, rows, frame, action, rule)
    _write_scores(run, frame)
    decision = _fingerprint(frame, threshold, cut.value, weight)
    made_from = {"evidence": decision} if is_of_screen else dict(summary.get("made_from", {}))
    if (run / COVERAGE_FILE).is_file():  # its counts are of this decision
        is_removed = (frame["decision"] == "removed").to_numpy(dtype=np.bool_)[readings.row]
        gone = is_removed if decided else selection.is_removed
        coverage = read_measurement(run / COVERAGE_FILE).decided(scores, gone)
        summary = {**summary, **coverage.as_dict()}
        made_from["coverage"] = decision
    counts = Counter(shared_texts(frame["decision"]))
    said = Summary.model_validate(
        {
            **summary,
            "rows": len(frame),
            **{name: counts[name] for name in ("kept", "removed", "undecided", "rejected")},
            "outputs": outputs,
            "threshold": {"rule": threshold, "value": _finite(cut.value)},
            "expected_false_removals": _finite(cut.expected_false_removals),
            "threshold_notes": dict(cut.notes),
            "learned_share": readings.learned_share,
            "formulas": {
                "signal": (summary.get("formulas") or {}).get("signal", FIRST_VERSION),
                "rule": rule_version(threshold),
            },
            "judged": _count_judged(summary, readings),
            "decision": decision,
            # What was measured with a model for one decision, and goes on to name that one.
            "made_from": made_from,
            "findings": [found.model_dump() for found in findings],
            "is_decided": decided,
            "action": action,
            "action_file": action_file,
            "formula_cells": _formula_cells(rows),
            "overruled": overruled.as_json(),
            **agreement(frame, readings, summary, threshold),
            "file_digests": digests_of(run, outputs),
            "written": written_by_decision(run, outputs, action_file),
        }
    )
    said = said.model_copy(update={"verdict": judge_file(said, cut)})
    write_json_atomic(run / SUMMARY_FILE, said.as_json())
    write_dataset_card(run, said)
    del frame, rows, readings, selection, scores, overruled, harms  # the page reads files alone
    give_back()
    render_report(run)


def _formula_cells(rows: RowFile) -> int:
    """How many cells of the input a spreadsheet would take for formulas."""
    tables = [source for source in rows.sources if source.container.can_hold_formulas]
    return sum(source.container.formula_cells(source.data()) for source in tables)


def _count_judged(summary: Mapping[str, Any], readings: Readings) -> int:
    """How many rows could be judged."""
    needs_learned = bool(summary.get("needs_learned", True))
    return int(readings.learned.sum()) if needs_learned else len(readings)


def _fingerprint(frame: pd.DataFrame, rule: str, value: float, weight: float) -> str:
    """The sha256 of a decision: rule, value, and every row's scores and decision.

    A second opinion is part of it where it is part of what was cut, with a ``weight``.
    """
    joint = [repr(weight)] if weight else []
    digest = hashlib.sha256(json.dumps([rule, repr(float(value)), *joint]).encode())
    for name in (*SCORED_QUANTITIES, *(["joint_score"] if weight else [])):
        digest.update(frame[name].to_numpy(dtype="<f8", na_value=np.nan).tobytes())
    decisions: list[str] = shared_texts(frame["decision"]).tolist()
    digest.update(b"[")  # one JSON list, of which only a part is made at once
    for start in range(0, len(decisions), PART_ROWS):
        part = json.dumps(decisions[start : start + PART_ROWS])[1:-1]
        digest.update((", " if start else "").encode() + part.encode())
    digest.update(b"]")
    return digest.hexdigest()


def _open_scores(run: Path) -> pd.DataFrame:
    """The table of scores without what a decision neither reads nor changes, which may be large."""
    path = run / SCORES_FILE
    frame = pd.DataFrame()
    for name in names_in(path):  # one after the other: texts take much until they are codes
        if name not in _CARRIED:
            column = pd.read_parquet(path, columns=[name])[name]
            frame[name] = by_code(column) if name in _FEW_TEXTS else column
    return frame


def _write_scores(run: Path, frame: pd.DataFrame) -> None:
    """Write the table of scores with what `_open_scores` has left out."""
    path, start = run / SCORES_FILE, 0

    def parts() -> Iterator[pd.DataFrame]:
        nonlocal start
        for carried in read_parts(path, _CARRIED):
            stop = start + len(carried)
            own = frame.iloc[start:stop].reset_index(drop=True)
            own[list(carried.columns)] = carried
            for name in _FEW_TEXTS:
                if name in own.columns:
                    own[name] = own[name].tolist()
            start = stop
            yield own.loc[:, in_order(own)]

    write_parts(path, parts())


def _write_rows(run: Path, rows: RowFile, frame: pd.DataFrame) -> dict[str, str]:
    """Kept, removed and rejected rows, original lines in the original order.

    Returns:
        The name of the file that holds each in the input's own container.
    """
    decisions: list[str] = shared_texts(frame["decision"]).tolist()
    files = ("undecided",) if "undecided" in decisions else ("kept", "removed")
    for decision in ("kept", "removed", "undecided"):
        path = rows_file(run, decision)
        if decision in files:
            write_lines(path, (r.raw for r in rows.rows if decisions[r.row] == decision))
        else:
            remove(path)  # of an earlier decision
    reasons: list[str] = shared_texts(frame["reason"]).tolist()
    rejected = (
        RejectedRow(r.row, r.line, r.example_id, r.raw, reason=str(reasons[r.row]))
        for r in rows.in_order()
        if decisions[r.row] == "rejected"
    )
    names = rows.source_names() if len(rows.sources) > 1 else ()
    write_rejected(run / REJECTED_FILE, rejected, names)
    return write_containers(run, rows, decisions)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
