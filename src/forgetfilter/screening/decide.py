"""From scores to files: the decision on every row, and deciding again without a model.

A decision replaces several files, which no rename can do at once. So its rule, and the files that
it is made from, are committed first (`pending`); whoever finds a committed decision completes it.
The files that it writes are a pure function of those that it is made from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import BoolArray
from forgetfilter.data import write_rejected
from forgetfilter.data.records import RejectedRow, RowFile
from forgetfilter.errors import DataError
from forgetfilter.files import sha256_file, write_bytes_atomic, write_json_atomic
from forgetfilter.runs import pending
from forgetfilter.runs.decisions import Journal, load_decisions
from forgetfilter.runs.cards import write_dataset_card
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
from forgetfilter.runs.inputs import has_input, read_input, write_decided
from forgetfilter.runs.report.page import render_report
from forgetfilter.runs.schema import SCORED_QUANTITIES, WRITTEN_COLUMNS, Finding, Summary
from forgetfilter.scoring.records import Readings, Selection
from forgetfilter.scoring.thresholds import THRESHOLDS, check_unit, decide, for_unit
from forgetfilter.screening.actions import write_action
from forgetfilter.screening.coverage_verdict import read_measurement
from forgetfilter.screening.edits import refuse_edits
from forgetfilter.screening.file_verdict import judge_file
from forgetfilter.screening.fitness import OF_A_DECISION, check_decision, is_severe, unfit
from forgetfilter.screening.overruling import Overruling, decisions_asked_for, overrule
from forgetfilter.screening.tables import read_readings, write_parquet

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
    files = summary.get("files") or {Path(name).stem: name for name in rows}
    return has_input(run) and all((run / name).exists() for name in files.values())


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


def filter_run(
    path: str | Path,
    threshold: str | None = None,
    *,
    force: bool = False,
    overruling: Overruling | None = None,
    action: str | None = None,
) -> dict[str, Any]:
    """Decide a finished run again, from its stored scores and what people decided; loads no model.

    Args:
        path: the run folder.
        threshold: spec of the threshold rule; None: that of the present decision.
        force: decide in spite of severe findings. What was forced stays so under the same rule.
        overruling: rows to keep or remove whatever the rule says, and what to do with edits by
            hand of the files; None: nothing is overruled, and edits are refused.
        action: ``remove``, ``flag`` or ``weight``; None: as before.

    Returns:
        The new summary.

    Raises:
        ConfigError: unknown rule, or one that doesn't fit the run's signal.
        DataError: not a finished run, or see `decisions_asked_for`. RunExistsError: run in use.
        UnfitError: a severe finding, and no ``force``; the run stays as it is.
    """
    if threshold is not None:
        THRESHOLDS.build(threshold)
    with finished_run(path) as folder:
        run, summary = folder.path, read_summary(folder.path)
        rule, force = rule_to_apply(summary, threshold, force=force)
        asked = decisions_asked_for(run, summary, overruling or Overruling())
        require_fit(run, summary, rule, force=force)
        Journal(run).append(asked)
        return decide_again(run, rule, "filter", force=force, action=action)


def rule_to_apply(
    summary: Mapping[str, Any], threshold: str | None, *, force: bool = False
) -> tuple[str, bool]:
    """The rule that is asked for or else the present one, and whether it decides by force.

    Raises:
        ConfigError: the rule doesn't fit the run's signal.
    """
    present = str(summary["threshold"]["rule"])
    rule = present if threshold is None else for_unit(threshold, summary["unit"])
    check_unit(rule, summary["signal"], summary["unit"])
    return rule, force or (rule == present and is_decided(summary))


def apply_decisions(run: Path) -> bool:
    """Let decisions of people hold that were made since the run was decided; its lock must be held.

    Returns:
        Whether there were any, so that the files were written again.

    Raises:
        DataError: the journal is damaged, or a file was edited by hand.
    """
    summary = read_summary(run)
    if not is_decided(summary):
        return False
    refuse_edits(run, summary)
    known = (summary.get("overruled") or {}).get("digest", "")
    if load_decisions(run).digest == known:
        return False
    rule, force = rule_to_apply(summary, None)
    decide_again(run, rule, str(summary.get("decided_by", "screen")), force=force)
    return True


def require_fit(run: Path, summary: Mapping[str, Any], rule: str, *, force: bool) -> None:
    """Raise where a severe finding stands against deciding by a rule, unless forced.

    Raises:
        UnfitError: one does.
    """
    _, _, findings = selection_by(run, summary, rule)
    if is_severe(findings) and not force:
        raise unfit(run, findings)


def decide_again(
    run: Path,
    threshold: str,
    decided_by: str,
    config: str | None = None,
    *,
    force: bool = False,
    action: str | None = None,
) -> dict[str, Any]:
    """Decide a finished run again from its stored scores; its lock must be held.

    Args:
        run: folder of the run.
        threshold: spec of the threshold rule.
        decided_by: the command that asked for it.
        config: new text of ``config.yaml``, where that changes.
        force: decide in spite of severe findings.
        action: what to write beside kept and removed rows; None: as before.

    Returns:
        The new summary.

    Raises:
        UnfitError: a severe finding, and no ``force``; the run stays as it is.
    """
    require_fit(run, read_summary(run), threshold, force=force)
    load_decisions(run)  # what is damaged is found before anything is committed
    part = pending.prepare(run)
    if config is not None:
        write_bytes_atomic(part / CONFIG_FILE, config.encode("utf-8"))
    summary = {**read_summary(run), "decided_by": decided_by}
    if action is not None:
        summary["action"] = action
    commit_decision(run, summary, threshold, force=force)
    return read_summary(run)


def selection_by(
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


def rule_decides(
    frame: pd.DataFrame, selection: Selection, readings: Readings, *, decided: bool
) -> None:
    """Fill in ``decision`` and ``reason`` of a table of scores as the rule alone decides."""
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


def _write_decision(
    run: Path,
    summary: Mapping[str, Any],
    threshold: str,
    is_of_screen: bool,
    force: bool = False,
) -> None:
    frame, rows = pd.read_parquet(run / SCORES_FILE), read_input(run)
    selection, readings, findings = selection_by(run, summary, threshold)
    decided = force or not is_severe(findings)
    scores = frame["forgetting_score"].to_numpy(dtype=np.float64)[readings.row]
    rule_decides(frame, selection, readings, decided=decided)
    overruled = overrule(frame, load_decisions(run, rows))
    own = [name for name in WRITTEN_COLUMNS if name in frame.columns]
    frame = frame.loc[:, [*own, *(name for name in frame.columns if name not in own)]]
    action = str(summary.get("action", "remove"))
    files = _write_rows(run, rows, frame)
    write_action(run, rows, frame, action)
    write_parquet(run / SCORES_FILE, frame)
    cut = selection.cut
    decision = _fingerprint(frame, threshold, cut.value)
    made_from = {"evidence": decision} if is_of_screen else dict(summary.get("made_from", {}))
    if (run / COVERAGE_FILE).is_file():  # its counts are of this decision
        is_removed = (frame["decision"] == "removed").to_numpy(dtype=np.bool_)[readings.row]
        gone = is_removed if decided else selection.is_removed
        coverage = read_measurement(run / COVERAGE_FILE).decided(scores, gone)
        summary = {**summary, **coverage.as_dict()}
        made_from["coverage"] = decision
    said = Summary.model_validate(
        {
            **summary,
            "rows": len(frame),
            "kept": frame["decision"].tolist().count("kept"),
            "removed": frame["decision"].tolist().count("removed"),
            "undecided": frame["decision"].tolist().count("undecided"),
            "rejected": frame["decision"].tolist().count("rejected"),
            "files": files,
            "threshold": {"rule": threshold, "value": _finite(cut.value)},
            "expected_false_removals": _finite(cut.expected_false_removals),
            "threshold_notes": dict(cut.notes),
            "learned_share": float(readings.learned.mean()) if len(readings) else 0.0,
            "judged": _count_judged(summary, readings),
            "decision": decision,
            # What was measured with a model for one decision, and goes on to name that one.
            "made_from": made_from,
            "findings": [found.model_dump() for found in findings],
            "is_decided": decided,
            "action": action,
            "overruled": overruled.as_json(),
            "file_digests": {
                path.name: sha256_file(path)
                for path in (run / files[name] for name in ("kept", "removed") if name in files)
                if path.is_file()
            },
        }
    )
    said = said.model_copy(update={"verdict": judge_file(said, cut)})
    write_json_atomic(run / SUMMARY_FILE, said.as_json())
    write_dataset_card(run, said)
    render_report(run)


def _count_judged(summary: Mapping[str, Any], readings: Readings) -> int:
    """How many rows could be judged."""
    needs_learned = bool(summary.get("needs_learned", True))
    return int(readings.learned.sum()) if needs_learned else len(readings)


def _fingerprint(frame: pd.DataFrame, rule: str, value: float) -> str:
    """The sha256 of a decision: rule, value, and every row's scores and decision."""
    digest = hashlib.sha256(json.dumps([rule, repr(float(value))]).encode())
    for name in SCORED_QUANTITIES:
        digest.update(frame[name].to_numpy(dtype="<f8", na_value=np.nan).tobytes())
    digest.update(json.dumps(frame["decision"].tolist()).encode())
    return digest.hexdigest()


def _write_rows(run: Path, rows: RowFile, frame: pd.DataFrame) -> dict[str, str]:
    """Kept, removed and rejected rows, in the input's container; the name of each file."""
    decisions = frame["decision"].tolist()
    reasons = frame["reason"].tolist()
    rejected = [
        RejectedRow(r.row, r.line, r.example_id, r.raw, reason=str(reasons[r.row]))
        for r in sorted((*rows.rows, *rows.rejected), key=lambda r: r.row)
        if decisions[r.row] == "rejected"
    ]
    names = rows.source_names() if len(rows.sources) > 1 else ()
    write_rejected(run / REJECTED_FILE, rejected, names)
    return write_decided(run, rows, decisions)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
