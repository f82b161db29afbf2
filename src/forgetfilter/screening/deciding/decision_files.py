"""The files of a decision: a pure function of scores, readings, input and what people decided."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from heapq import merge
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.data import write_rejected
from forgetfilter.data.records import RejectedRow, RowFile
from forgetfilter.files import open_atomic, remove, write_json_atomic
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
    give_back,
    names_in,
    read_parts,
    write_parts,
)
from forgetfilter.runs.report.page import render_report
from forgetfilter.runs.schema import SCORED_QUANTITIES, Summary
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
from forgetfilter.screening.deciding.row_decisions import RowDecisions, open_decisions
from forgetfilter.screening.deciding.tables import in_order


def write_decision(
    run: Path,
    summary: Mapping[str, Any],
    threshold: str,
    is_of_screen: bool,
    force: bool = False,
) -> None:
    """Write everything that follows from a decision: see `commit_decision` for the arguments."""
    rows = read_input(run)
    give_back()
    made = open_decisions(run)
    selection, readings, findings = selection_by(run, summary, threshold)
    give_back()
    decided = force or not is_severe(findings)
    weight = float(summary.get("joint", 0.0))
    rule_decides(made, selection, readings, decided=decided, weight=weight)
    overruled = overrule(made, load_decisions(run, rows))
    made.harm = harm_of_each(run, len(made))
    if made.harm is not None:  # what a kept row is most like says nothing against it
        made.harm.put(made.decision != "removed", "")
    action = str(summary.get("action", "remove"))
    outputs = _write_rows(run, rows, made)
    give_back()
    cut = selection.cut
    if is_of_screen and action != "mask":
        remove(run / TOKENS_FILE)  # of an earlier screen
    rule = Rule(float(cut.value), str(summary.get("unit", "")))
    action_file = write_action(run, rows, made, action, rule)
    _write_scores(run, made)
    give_back()
    decision = _fingerprint(made, threshold, cut.value, weight)
    made_from = {"evidence": decision} if is_of_screen else dict(summary.get("made_from", {}))
    if (run / COVERAGE_FILE).is_file():  # its counts are of this decision
        scores = made.score()[readings.row]
        is_removed = (made.decision == "removed")[readings.row]
        gone = is_removed if decided else selection.is_removed
        coverage = read_measurement(run / COVERAGE_FILE).decided(scores, gone)
        summary = {**summary, **coverage.as_dict()}
        made_from["coverage"] = decision
    counts, is_judged = made.decision.counts(), _is_judged(summary, readings)
    said = Summary.model_validate(
        {
            **summary,
            "rows": len(made),
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
            "judged": int(is_judged.sum()),
            "decision": decision,
            # What was measured with a model for one decision, and goes on to name that one.
            "made_from": made_from,
            "findings": [found.model_dump() for found in findings],
            "is_decided": decided,
            "action": action,
            "action_file": action_file,
            "formula_cells": _formula_cells(rows),
            "overruled": overruled.as_json(),
            **agreement(run, readings, summary, threshold),
            "file_digests": digests_of(run, outputs),
            "written": written_by_decision(run, outputs, action_file),
        }
    )
    trusted = int((is_judged & readings.trusted).sum())
    said = said.model_copy(update={"verdict": judge_file(said, cut, trusted=trusted)})
    write_json_atomic(run / SUMMARY_FILE, said.as_json())
    write_dataset_card(run, said)
    del made, rows, readings, selection, overruled  # the page reads files alone
    give_back()
    render_report(run)


def _formula_cells(rows: RowFile) -> int:
    """How many cells of the input a spreadsheet would take for formulas."""
    tables = [source for source in rows.sources if source.container.can_hold_formulas]
    return sum(source.container.formula_cells(source.data()) for source in tables)


def _is_judged(summary: Mapping[str, Any], readings: Readings) -> BoolArray:
    """Which rows could be judged, shape (N,)."""
    needs_learned = bool(summary.get("needs_learned", True))
    return readings.learned if needs_learned else np.ones(len(readings), dtype=np.bool_)


def _fingerprint(made: RowDecisions, rule: str, value: float, weight: float) -> str:
    """The sha256 of a decision: rule, value, and every row's scores and decision.

    A second opinion is part of it where it is part of what was cut, with a ``weight``.
    """
    joint = [repr(weight)] if weight else []
    digest = hashlib.sha256(json.dumps([rule, repr(float(value)), *joint]).encode())
    for name in SCORED_QUANTITIES:
        digest.update(_bytes_of(made.score(name)))
    if weight and made.joint_score is not None:
        digest.update(_bytes_of(made.joint_score))
    digest.update(b"[")  # one JSON list, of which only a part is made at once
    for start in range(0, len(made), PART_ROWS):
        part = json.dumps(made.decision[start : start + PART_ROWS])[1:-1]
        digest.update((", " if start else "").encode() + part.encode())
    digest.update(b"]")
    return digest.hexdigest()


def _bytes_of(values: FloatArray) -> memoryview:
    """Numbers as eight bytes each, the lowest first; all that are none look the same."""
    told: Any = np.where(np.isnan(values), np.nan, values).astype("<f8", copy=False)
    return memoryview(told)


def _write_scores(run: Path, made: RowDecisions) -> None:
    """Write the table of scores anew, with what was decided; all else goes over as it is."""
    path = run / SCORES_FILE

    def parts() -> Iterator[pd.DataFrame]:
        start = 0
        for frame in read_parts(path, names_in(path)):
            frame.drop(columns="joint_score", errors="ignore", inplace=True)
            stop = start + len(frame)
            for name, values in made.columns(slice(start, stop)).items():
                frame[name] = values
            start = stop
            yield frame.loc[:, in_order(frame)]
            del frame

    write_parts(path, parts())


def _write_rows(run: Path, rows: RowFile, made: RowDecisions) -> dict[str, str]:
    """Kept, removed and rejected rows, original lines in the original order.

    Returns:
        The name of the file that holds each in the input's own container.
    """
    decisions, reasons = made.decision, made.reason
    files = ("undecided",) if "undecided" in decisions else ("kept", "removed")
    unfit = array("q")  # rows that were read, and rejected since
    with ExitStack() as opened:  # in one go: to read a row again is what takes long
        of = {name: opened.enter_context(open_atomic(rows_file(run, name))) for name in files}
        for at, row in enumerate(rows.rows):
            decision = decisions[row.row]
            if decision in of:
                of[decision].write(row.raw + b"\n")
            elif decision == "rejected":
                unfit.append(at)
    for decision in {"kept", "removed", "undecided"}.difference(files):
        remove(rows_file(run, decision))  # of an earlier decision
    rejected = (
        RejectedRow(r.row, r.line, r.example_id, r.raw, reason=reasons[r.row])
        for r in merge((rows.rows[at] for at in unfit), rows.rejected, key=lambda one: one.row)
        if decisions[r.row] == "rejected"
    )
    names = rows.source_names() if len(rows.sources) > 1 else ()
    write_rejected(run / REJECTED_FILE, rejected, names)
    return write_containers(run, rows, decisions)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
