"""From scores to files: the decision on every row, and deciding again without a model.

A decision replaces several files, which no rename can do at once. So its rule, and the files that
it is made from, are committed first (`pending`); whoever finds a committed decision completes it.
The files that it writes are a pure function of those that it is made from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import BoolArray
from forgetfilter.data import write_lines, write_rejected
from forgetfilter.data.records import RejectedRow, RowFile
from forgetfilter.errors import DataError
from forgetfilter.files import remove, write_bytes_atomic, write_json_atomic
from forgetfilter.runs import pending
from forgetfilter.runs.file_names import (
    CONFIG_FILE,
    COVERAGE_FILE,
    KEPT_FILE,
    READINGS_FILE,
    REJECTED_FILE,
    REMOVED_FILE,
    REPORT_FILE,
    SCORES_FILE,
    SUMMARY_FILE,
    UNDECIDED_FILE,
)
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.inputs import has_input, read_input, write_containers
from forgetfilter.runs.report.page import render_report
from forgetfilter.runs.schema import SCORED_QUANTITIES, WRITTEN_COLUMNS, Finding, Summary
from forgetfilter.scoring.records import Readings, Selection, SignalScores
from forgetfilter.scoring.thresholds import THRESHOLDS, check_unit, decide, for_unit
from forgetfilter.screening.coverage_verdict import read_measurement
from forgetfilter.screening.fitness import OF_A_DECISION, check_decision, is_severe, unfit

_DECIDED = (KEPT_FILE, REMOVED_FILE)
_ALWAYS = (REJECTED_FILE, SUMMARY_FILE)


def run_folder(path: str | Path) -> RunFolder:
    """The run folder at ``path``, knowing everything that a screen writes."""
    return RunFolder(Path(path))


def is_finished(run: Path) -> bool:
    """Whether a screen of this folder has come to its end and no decision is half written."""
    needed = (*_ALWAYS, SCORES_FILE, READINGS_FILE, REPORT_FILE)
    if pending.committed(run) is not None or not all((run / name).is_file() for name in needed):
        return False
    summary = read_summary(run)
    rows = _DECIDED if is_decided(summary) else (UNDECIDED_FILE,)
    outputs = summary.get("outputs", {}).values()
    return has_input(run) and all((run / name).exists() for name in (*rows, *outputs))


def is_decided(summary: Mapping[str, Any]) -> bool:
    """Whether the rows of a finished run are kept or removed, not left undecided."""
    return bool(summary.get("is_decided", True))


def has_decision(run: Path) -> bool:
    """Whether the folder holds any file that a decision wrote; some may have been lost since."""
    names = (*_DECIDED, *_ALWAYS, UNDECIDED_FILE)
    return any((run / name).exists() for name in names)


@contextmanager
def finished_run(path: str | Path) -> Generator[RunFolder]:
    """A finished run, locked; a decision that a killed process left half written is completed.

    Raises:
        DataError: not a run, or the screen has not come to its end.
        RunExistsError: the run is in use.
    """
    folder = run_folder(path)
    folder.config()
    with folder.lock():
        folder.sweep()
        finish_decision(folder.path)
        read_summary(folder.path)
        yield folder


def read_summary(run: Path) -> dict[str, Any]:
    """The counts and settings of a finished run.

    Raises:
        DataError: the screen has not come to its end.
    """
    try:
        return json.loads((run / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"The run in {run} is not finished: no readable {SUMMARY_FILE} in it. Repeat the "
            "`forgetfilter screen` command that began it; it resumes where it stopped."
        ) from None


def score_frame(
    rows: RowFile, rejected: Sequence[RejectedRow], readings: Readings, scores: SignalScores
) -> pd.DataFrame:
    """Scores of every row, decisions still open: the columns that `commit_decision` completes."""
    known = sorted((*rows.rows, *rows.rejected), key=lambda row: row.row)
    frame = pd.DataFrame({"row": np.arange(len(rows), dtype=np.int64)})
    frame["example_id"] = [row.example_id for row in known]
    nothing = np.full(len(readings), np.nan)
    values = {
        "base": scores.base,
        "before": scores.before,
        "after": nothing if scores.after is None else scores.after,
        "forgetting_score": scores.forgetting_score,
    }
    for name, array in values.items():
        column = np.full(len(rows), np.nan)
        column[readings.row] = array
        frame[name] = column
    learned: list[bool | None] = [None] * len(rows)
    for row, is_learned in zip(readings.row, readings.learned, strict=True):
        learned[int(row)] = bool(is_learned)
    frame["learned"] = pd.array(learned, dtype="boolean")
    reasons = {row.row: row.reason for row in rejected}
    frame["decision"] = ["rejected" if row in reasons else "kept" for row in range(len(rows))]
    frame["reason"] = [reasons.get(row, "") for row in range(len(rows))]
    frame["source"] = rows.source_names()
    frame["line"] = [row.line for row in known]
    frame["own_id"] = [row.own_id for row in known]
    return frame.loc[:, list(WRITTEN_COLUMNS)]


def write_readings(run: Path, frame: pd.DataFrame, readings: Readings) -> None:
    """Everything that was measured, one line per readable row (the target's text is left out)."""
    table = pd.DataFrame({"row": readings.row})
    table["example_id"] = frame["example_id"].to_numpy()[readings.row]
    for name, column in readings.columns.items():
        if name != "target":
            table[name] = column
    write_parquet(run / READINGS_FILE, table)


def read_readings(run: Path) -> Readings:
    """The readings of a finished run, without the targets' texts."""
    table = pd.read_parquet(run / READINGS_FILE)
    columns = {
        str(name): table[name].to_numpy()
        for name in table.columns
        if name not in ("row", "example_id")
    }
    return Readings(row=table["row"].to_numpy(dtype=np.int64), columns=columns)


def commit_decision(
    run: Path,
    summary: Mapping[str, Any],
    threshold: str,
    *,
    is_of_screen: bool = False,
    force: bool = False,
) -> None:
    """Decide by ``threshold`` and write everything that follows from it.

    Args:
        run: folder of the run. What `pending.prepare` has made ready there replaces its files;
            scores, readings and input that are not among them are those of the run.
        summary: what the summary says beside counts and threshold.
        threshold: spec of the threshold rule.
        is_of_screen: whether coverage and evidence have been made for this very decision.
        force: decide in spite of severe findings; else they leave every row undecided.
    """
    record = {
        "threshold": threshold,
        "summary": dict(summary),
        "is_of_screen": is_of_screen,
        "force": force,
    }
    pending.commit(run, record)
    finish_decision(run)


def finish_decision(run: Path) -> None:
    """Complete a decision that was committed, perhaps by a killed process; else do nothing."""
    record = pending.committed(run)
    if record is not None:
        pending.move_into_place(run)
        _write_decision(run, **record)
    pending.close(run)


def filter_run(path: str | Path, threshold: str, *, force: bool = False) -> dict[str, Any]:
    """Decide a finished run again by another rule, from its stored scores; loads no model.

    Returns:
        The new summary.

    Raises:
        ConfigError: unknown rule, or one that doesn't fit the run's signal.
        DataError: not a finished run. RunExistsError: run in use.
        UnfitError: a severe finding, and no ``force``; the run stays as it is.
    """
    THRESHOLDS.build(threshold)
    with finished_run(path) as folder:
        summary = read_summary(folder.path)
        threshold = for_unit(threshold, summary["unit"])
        check_unit(threshold, summary["signal"], summary["unit"])
        return decide_again(folder.path, threshold, "filter", force=force)


def decide_again(
    run: Path,
    threshold: str,
    decided_by: str,
    config: str | None = None,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Decide a finished run again from its stored scores; its lock must be held.

    Args:
        run: folder of the run.
        threshold: spec of the threshold rule.
        decided_by: the command that asked for it.
        config: new text of ``config.yaml``, where that changes.
        force: decide in spite of severe findings.

    Returns:
        The new summary.

    Raises:
        UnfitError: a severe finding, and no ``force``; the run stays as it is.
    """
    _, _, findings = _selection(run, read_summary(run), threshold)
    if is_severe(findings) and not force:
        raise unfit(run, findings)
    part = pending.prepare(run)
    if config is not None:
        write_bytes_atomic(part / CONFIG_FILE, config.encode("utf-8"))
    summary = {**read_summary(run), "decided_by": decided_by}
    commit_decision(run, summary, threshold, force=force)
    return read_summary(run)


def _selection(
    run: Path, summary: Mapping[str, Any], threshold: str
) -> tuple[Selection, Readings, list[Finding]]:
    """What a rule makes of the stored scores, and all that is to be said against it."""
    frame, readings = pd.read_parquet(run / SCORES_FILE), read_readings(run)
    scores = frame["forgetting_score"].to_numpy(dtype=np.float64)[readings.row]
    needs_learned = bool(summary.get("needs_learned", True))  # unsaid by earlier versions
    rule = THRESHOLDS.build(threshold)
    selection = decide(rule, scores, readings, needs_learned=needs_learned)
    is_judged = readings.learned if needs_learned else np.ones(len(scores), dtype=np.bool_)
    of_scores = [Finding.model_validate(found) for found in summary.get("findings", [])]
    return (
        selection,
        readings,
        [
            *(found for found in of_scores if found.name not in OF_A_DECISION),
            *check_decision(selection, is_judged),
        ],
    )


def _write_decision(
    run: Path,
    summary: Mapping[str, Any],
    threshold: str,
    is_of_screen: bool,
    force: bool = False,
) -> None:
    frame = pd.read_parquet(run / SCORES_FILE)
    selection, readings, findings = _selection(run, summary, threshold)
    decided = force or not is_severe(findings)
    scores = frame["forgetting_score"].to_numpy(dtype=np.float64)[readings.row]
    is_removed = np.zeros(len(frame), dtype=np.bool_)
    is_removed[readings.row] = selection.is_removed
    is_rejected: BoolArray = (frame["decision"] == "rejected").to_numpy(dtype=np.bool_)
    frame["decision"] = np.select(
        [is_rejected, ~np.full(len(frame), decided), is_removed],
        ["rejected", "undecided", "removed"],
        "kept",
    )
    reasons = frame["reason"].to_numpy(dtype=object)
    reasons[readings.row] = list(selection.reasons) if decided else "undecided"
    frame["reason"] = reasons
    outputs = _write_rows(run, frame)
    write_parquet(run / SCORES_FILE, frame)
    cut = selection.cut
    decision = _fingerprint(frame, threshold, cut.value)
    made_from = {"evidence": decision} if is_of_screen else dict(summary.get("made_from", {}))
    if (run / COVERAGE_FILE).is_file():  # its counts are of this decision
        coverage = read_measurement(run / COVERAGE_FILE).decided(scores, selection.is_removed)
        summary = {**summary, **coverage.as_dict()}
        made_from["coverage"] = decision
    said = Summary.model_validate(
        {
            **summary,
            "rows": len(frame),
            "kept": frame["decision"].tolist().count("kept"),
            "removed": frame["decision"].tolist().count("removed"),
            "undecided": frame["decision"].tolist().count("undecided"),
            "rejected": int(is_rejected.sum()),
            "outputs": outputs,
            "threshold": {"rule": threshold, "value": _finite(cut.value)},
            "expected_false_removals": _finite(cut.expected_false_removals),
            "threshold_notes": dict(cut.notes),
            "learned_share": float(readings.learned.mean()) if len(readings) else 0.0,
            "decision": decision,
            # What was measured with a model for one decision, and goes on to name that one.
            "made_from": made_from,
            "findings": [found.model_dump() for found in findings],
            "is_decided": decided,
        }
    )
    write_json_atomic(run / SUMMARY_FILE, said.as_json())
    render_report(run)


def _fingerprint(frame: pd.DataFrame, rule: str, value: float) -> str:
    """The sha256 of a decision: rule, value, and every row's scores and decision."""
    digest = hashlib.sha256(json.dumps([rule, repr(float(value))]).encode())
    for name in SCORED_QUANTITIES:
        digest.update(frame[name].to_numpy(dtype="<f8", na_value=np.nan).tobytes())
    digest.update(json.dumps(frame["decision"].tolist()).encode())
    return digest.hexdigest()


def _write_rows(run: Path, frame: pd.DataFrame) -> dict[str, str]:
    """Kept, removed and rejected rows, original lines in the original order.

    Returns:
        The name of the file that holds each in the input's own container.
    """
    rows = read_input(run)
    decisions = frame["decision"].tolist()
    files = ("undecided",) if "undecided" in decisions else ("kept", "removed")
    for decision in ("kept", "removed", "undecided"):
        path = run / f"{decision}.jsonl"
        if decision in files:
            write_lines(path, (r.raw for r in rows.rows if decisions[r.row] == decision))
        else:
            remove(path)  # of an earlier decision
    reasons = frame["reason"].tolist()
    rejected = [
        RejectedRow(r.row, r.line, r.example_id, r.raw, reason=str(reasons[r.row]))
        for r in sorted((*rows.rows, *rows.rejected), key=lambda r: r.row)
        if decisions[r.row] == "rejected"
    ]
    names = rows.source_names() if len(rows.sources) > 1 else ()
    write_rejected(run / REJECTED_FILE, rejected, names)
    return write_containers(run, rows, decisions)


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    import io

    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_bytes_atomic(path, buffer.getvalue())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
