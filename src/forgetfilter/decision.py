"""From scores to files: the decision on every row, and deciding again without a model.

A decision replaces several files, which no rename can do at once. So the rule is written to a
journal first and the journal is removed last; whoever finds one repeats the decision, which is a
pure function of files that it doesn't touch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.coverage_verdict import read_measurement
from forgetfilter.data import read_rows, write_lines, write_rejected
from forgetfilter.errors import DataError
from forgetfilter.files import fsync_folder, remove, write_bytes_atomic, write_json_atomic
from forgetfilter.records import (
    BoolArray,
    Readings,
    RejectedRow,
    RowFile,
    Selection,
    SignalScores,
)
from forgetfilter.report import render_report
from forgetfilter.store import RUN_OUTPUTS, RunFolder
from forgetfilter.thresholds import THRESHOLDS, decide

INPUT_FILE = "input.jsonl"
READINGS_FILE = "readings.parquet"
SCORES_FILE = "scores.parquet"
SUMMARY_FILE = "summary.json"
EVIDENCE_FILE = "evidence.parquet"
EVALUATION_FILE = "evaluation.json"
COVERAGE_FILE = "coverage.json"
REPORT_FILE = "report.html"
_JOURNAL_FILE = ".deciding.json"

OUTPUTS = RUN_OUTPUTS | {INPUT_FILE, EVIDENCE_FILE, EVALUATION_FILE, COVERAGE_FILE, _JOURNAL_FILE}


def run_folder(path: str | Path) -> RunFolder:
    """The run folder at ``path``, knowing everything that a screen writes."""
    return RunFolder(Path(path), OUTPUTS)


def is_finished(run: Path) -> bool:
    """Whether a screen of this folder has come to its end and no decision is half written."""
    needed = ("kept.jsonl", "removed.jsonl", "rejected.jsonl", SCORES_FILE, READINGS_FILE)
    return not (run / _JOURNAL_FILE).exists() and all(
        (run / name).is_file() for name in (*needed, SUMMARY_FILE, REPORT_FILE)
    )


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
    """Scores of every row, decisions still open: the columns that `write_decision` completes."""
    ids = {row.row: row.example_id for row in (*rows.rows, *rows.rejected)}
    frame = pd.DataFrame({"row": np.arange(len(rows), dtype=np.int64)})
    frame["example_id"] = [ids[row] for row in range(len(rows))]
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
    return frame


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


def write_decision(
    run: Path, frame: pd.DataFrame, readings: Readings, summary: Mapping[str, Any], threshold: str
) -> Selection:
    """Decide by ``threshold`` and write everything that follows from it, journal first.

    Args:
        run: folder that holds the input, the readings and, where made, the evidence.
        frame: from `score_frame`, or read back from an earlier decision.
        readings: the readings behind the scores.
        summary: what the summary says beside counts and threshold.
        threshold: spec of the threshold rule.
    """
    scores = frame["forgetting_score"].to_numpy(dtype=np.float64)[readings.row]
    selection = decide(THRESHOLDS.build(threshold), scores, readings)
    write_json_atomic(run / _JOURNAL_FILE, {"threshold": threshold, "summary": dict(summary)})
    frame = frame.copy()
    is_removed = np.zeros(len(frame), dtype=np.bool_)
    is_removed[readings.row] = selection.is_removed
    is_rejected: BoolArray = (frame["decision"] == "rejected").to_numpy(dtype=np.bool_)
    frame["decision"] = np.select([is_rejected, is_removed], ["rejected", "removed"], "kept")
    reasons = frame["reason"].to_numpy(dtype=object)
    reasons[readings.row] = list(selection.reasons)
    frame["reason"] = reasons
    _write_rows(run, frame)
    write_parquet(run / SCORES_FILE, frame)
    cut = selection.cut
    if (run / COVERAGE_FILE).is_file():  # its counts are of this decision
        coverage = read_measurement(run / COVERAGE_FILE).decided(scores, selection.is_removed)
        summary = {**summary, **coverage.as_dict()}
    write_json_atomic(
        run / SUMMARY_FILE,
        {
            "rows": len(frame),
            "kept": frame["decision"].tolist().count("kept"),
            "removed": int(is_removed.sum()),
            "rejected": int(is_rejected.sum()),
            **summary,
            "threshold": {"rule": threshold, "value": _finite(cut.value)},
            "expected_false_removals": _finite(cut.expected_false_removals),
            "threshold_notes": dict(cut.notes),
            "learned_share": float(readings.learned.mean()) if len(readings) else 0.0,
        },
    )
    render_report(run)
    remove(run / _JOURNAL_FILE)
    fsync_folder(run)
    return selection


def filter_run(path: str | Path, threshold: str) -> dict[str, Any]:
    """Decide a finished run again by another rule, from its stored scores; loads no model.

    Returns:
        The new summary.

    Raises:
        ConfigError: unknown rule. DataError: not a finished run. RunExistsError: run in use.
    """
    THRESHOLDS.build(threshold)
    folder = run_folder(path)
    folder.config()
    with folder.lock():
        summary = read_summary(folder.path)
        summary["decided_by"] = "filter"
        _decide_stored(folder.path, summary, threshold)
    return read_summary(folder.path)


def finish_decision(run: Path) -> None:
    """Complete a decision that a killed process left half written; nothing if there is none."""
    journal = run / _JOURNAL_FILE
    if not journal.exists():
        return
    begun = json.loads(journal.read_text(encoding="utf-8"))
    if (run / SCORES_FILE).is_file():
        _decide_stored(run, begun["summary"], begun["threshold"])


def _decide_stored(run: Path, summary: Mapping[str, Any], threshold: str) -> None:
    derived = {"rows", "kept", "removed", "rejected"}
    rest = {name: value for name, value in summary.items() if name not in derived}
    write_decision(run, pd.read_parquet(run / SCORES_FILE), read_readings(run), rest, threshold)


def _write_rows(run: Path, frame: pd.DataFrame) -> None:
    """Kept, removed and rejected rows, original lines in the original order."""
    rows = read_rows(run / INPUT_FILE)
    decisions = frame["decision"].tolist()
    for decision in ("kept", "removed"):
        write_lines(
            run / f"{decision}.jsonl", (r.raw for r in rows.rows if decisions[r.row] == decision)
        )
    reasons = frame["reason"].tolist()
    rejected = [
        RejectedRow(r.row, r.line, r.example_id, r.raw, reason=str(reasons[r.row]))
        for r in sorted((*rows.rows, *rows.rejected), key=lambda r: r.row)
        if decisions[r.row] == "rejected"
    ]
    write_rejected(run / "rejected.jsonl", rejected)


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    import io

    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_bytes_atomic(path, buffer.getvalue())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
