"""From scores to files: the decision on every row, and deciding again without a model.

A decision replaces several files, which no rename can do at once. So its rule, and the files that
it is made from, are committed first (`pending`); whoever finds a committed decision completes it.
The files that it writes are a pure function of those that it is made from.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forgetfilter.errors import DataError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.runs import pending
from forgetfilter.runs.decisions import Decided, Journal, load_decisions, refuse_cut
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
from forgetfilter.runs.inputs import has_input
from forgetfilter.runs.intact import (
    record_measured,
    refuse_changed_measurements,
    refuse_damage,
)
from forgetfilter.runs.schema import Summary
from forgetfilter.scoring.joint import JointWeight
from forgetfilter.scoring.thresholds import THRESHOLDS
from forgetfilter.screening.checks.coverage_verdict import read_measurement
from forgetfilter.screening.checks.fitness import is_severe, unfit
from forgetfilter.screening.deciding.asked_for import (
    is_decided,
    rule_to_apply,
    weight_asked_for,
    with_joint,
)
from forgetfilter.screening.deciding.by_rule import selection_by
from forgetfilter.screening.deciding.decision_files import write_decision
from forgetfilter.screening.deciding.edits import refuse_edits
from forgetfilter.screening.deciding.masks import require_tokens
from forgetfilter.screening.deciding.overruling import (
    Overruling,
    decided_with,
    decisions_asked_for,
)

_DECIDED = (KEPT_FILE, REMOVED_FILE)
_ALWAYS = (REJECTED_FILE, SUMMARY_FILE)


def run_folder(path: str | Path) -> RunFolder:
    """The run folder at ``path``, knowing everything that a screen writes."""
    return RunFolder(Path(path))


def is_finished(run: Path) -> bool:
    """Whether a screen of this folder has come to its end and no decision is half written."""
    needed = (*_ALWAYS, SCORES_FILE, READINGS_FILE, REPORT_FILE)
    try:
        is_open = pending.committed(run) is not None
        if is_open or not all((run / name).is_file() for name in needed):
            return False
        summary = read_summary(run)
        rows = _DECIDED if is_decided(summary) else (UNDECIDED_FILE,)
        outputs = summary.get("outputs", {}).values()
        return has_input(run) and all((run / name).exists() for name in (*rows, *outputs))
    except DataError:  # a damaged record is none
        return False


def honoured(summary: Mapping[str, Any]) -> int:
    """How many lines of the journal a decision was made from."""
    return int((summary.get("overruled") or {}).get("entries", 0))


def has_decision(run: Path) -> bool:
    """Whether the folder holds any file that a decision wrote; some may have been lost since."""
    names = (*_DECIDED, *_ALWAYS, UNDECIDED_FILE)
    return any((run / name).exists() for name in names)


@contextmanager
def finished_run(path: str | Path) -> Generator[RunFolder]:
    """A finished run, locked; a decision that a killed process left half written is completed.

    Raises:
        DataError: not a run, the screen has not come to its end, or what it measured has changed
            since.
        RunExistsError: the run is in use.
    """
    folder = run_folder(path)
    folder.config()
    with folder.lock():
        folder.sweep()
        finish_decision(folder.path)
        summary = read_summary(folder.path)
        refuse_damage(folder.path, summary)
        refuse_cut(folder.path, honoured(summary))
        yield folder


def read_summary(run: Path) -> dict[str, Any]:
    """The counts and settings of a finished run.

    Raises:
        DataError: the screen has not come to its end.
    """
    try:
        told = json.loads((run / SUMMARY_FILE).read_bytes())
        Summary.model_validate(told)
        return told
    except (OSError, ValueError, RecursionError):  # a ValidationError is a ValueError
        raise DataError(
            f"The run in {run} is not finished: no readable {SUMMARY_FILE} in it. Expected "
            "that of a screen that came to its end. Repeat the `forgetfilter screen` command that "
            "began it; it resumes where it stopped."
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
    record_measured(run, pending.prepared(run))
    pending.commit(run, record)
    pending.move_into_place(run)
    _complete(run, record)


def finish_decision(run: Path) -> None:
    """Complete a decision that was committed, perhaps by a killed process; else do nothing.

    Raises:
        DataError: what it is made from has changed since. A screen can then replace it.
    """
    record = pending.committed(run)
    if record is None:
        pending.close(run)
        return
    pending.move_into_place(run)
    refuse_changed_measurements(run)
    _complete(run, record)


def _complete(run: Path, record: Mapping[str, Any]) -> None:
    write_decision(run, **record)
    pending.close(run)


def filter_run(
    path: str | Path,
    threshold: str | None = None,
    *,
    force: bool = False,
    overruling: Overruling | None = None,
    action: str | None = None,
    joint: JointWeight | None = None,
) -> dict[str, Any]:
    """Decide a finished run again, from its stored scores and what people decided; loads no model.

    Args:
        path: the run folder.
        threshold: spec of the threshold rule; None: that of the present decision.
        force: decide in spite of severe findings. What was forced stays so under the same rule.
        overruling: rows to keep or remove whatever the rule says, and what to do with edits by
            hand of the files; None: nothing is overruled, and edits are refused.
        action: ``remove``, ``flag``, ``weight`` or ``mask``; None: as before.
        joint: weight of the second opinion in what is cut; ``reviewed``: the one that what people
            decided says; None: as before.

    Returns:
        The new summary.

    Raises:
        ConfigError: unknown rule, or one that doesn't fit the run's signal; or see `with_joint`.
        DataError: not a finished run, ``mask`` where no token was measured, or see
            `decisions_asked_for`. RunExistsError: run in use.
        UnfitError: a severe finding, and no ``force``; the run stays as it is.
    """
    if threshold is not None:
        THRESHOLDS.build(threshold)
    with finished_run(path) as folder:
        run, present = folder.path, read_summary(folder.path)
        if (action or present.get("action")) == "mask":
            require_tokens(run)
        asked = decisions_asked_for(run, present, overruling or Overruling())
        decided = decided_with(run, asked)
        joint = weight_asked_for(run, present, joint, decided)
        summary = with_joint(present, joint)
        rule, force = rule_to_apply(summary, threshold, force=force, present=present)
        require_fit(run, summary, rule, force=force, decided=decided if asked else None)
        Journal(run).append(asked)
        return decide_again(run, rule, "filter", force=force, action=action, joint=joint)


def apply_decisions(run: Path) -> bool:
    """Let decisions of people hold that were made since the run was decided; its lock must be held.

    A rule that cuts by those decisions may come to a severe finding by them, which nobody has
    forced; then every row is left undecided, as after a screen.

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
    decide_as_before(run, summary)
    return True


def decide_as_before(run: Path, summary: Mapping[str, Any]) -> None:
    """Decide a run anew by its own rule; what is severe and was not forced leaves it undecided."""
    rule, force = rule_to_apply(summary, None)
    by = str(summary.get("decided_by", "screen"))
    decide_again(run, rule, by, force=force, must_fit=False)


def require_fit(
    run: Path,
    summary: Mapping[str, Any],
    rule: str,
    *,
    force: bool,
    decided: Decided | None = None,
) -> None:
    """Raise where a severe finding stands against deciding by a rule, unless forced.

    Raises:
        ConfigError: see `selection_by`.
        UnfitError: one does.
    """
    _, _, findings = selection_by(run, summary, rule, decided)
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
    joint: float | None = None,
    must_fit: bool = True,
) -> dict[str, Any]:
    """Decide a finished run again from its stored scores; its lock must be held.

    Args:
        run: folder of the run.
        threshold: spec of the threshold rule.
        decided_by: the command that asked for it.
        config: new text of ``config.yaml``, where that changes.
        force: decide in spite of severe findings.
        action: what to write beside kept and removed rows; None: as before.
        joint: weight of the second opinion in what is cut; None: as before.
        must_fit: whether a severe finding that isn't forced leaves the run as it is; else it leaves
            its rows undecided.

    Returns:
        The new summary.

    Raises:
        ConfigError: see `with_joint`.
        UnfitError: a severe finding, and no ``force``; the run stays as it is.
    """
    summary = with_joint(read_summary(run), joint)
    if must_fit:
        require_fit(run, summary, threshold, force=force)
    # What is damaged is found before anything is committed.
    load_decisions(run)
    if (run / COVERAGE_FILE).is_file():
        read_measurement(run / COVERAGE_FILE)
    part = pending.prepare(run)
    if config is not None:
        write_bytes_atomic(part / CONFIG_FILE, config.encode("utf-8"))
    summary["decided_by"] = decided_by
    if action is not None:
        summary["action"] = action
    commit_decision(run, summary, threshold, force=force)
    return read_summary(run)
