"""What a decision would change, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetfilter.arrays import SharedTexts
from forgetfilter.runs.columns import read_parts, read_shared_texts
from forgetfilter.runs.decisions import Decided
from forgetfilter.runs.file_names import SCORES_FILE
from forgetfilter.scoring.joint import JointWeight
from forgetfilter.scoring.thresholds import THRESHOLDS
from forgetfilter.screening.deciding.asked_for import rule_to_apply, weight_asked_for, with_joint
from forgetfilter.screening.deciding.by_rule import rule_decides, selection_by
from forgetfilter.screening.deciding.decide import (
    finished_run,
    read_summary,
    require_fit,
)
from forgetfilter.screening.deciding.overruling import (
    Overruling,
    decided_with,
    decisions_asked_for,
    overrule,
)
from forgetfilter.screening.deciding.row_decisions import RowDecisions, open_decisions


@dataclass(frozen=True)
class Move:
    """A row that would be decided otherwise than now."""

    row: int
    example_id: str
    before: str
    after: str
    score: float
    reason: str
    """Why, as the column ``reason`` would say it."""


@dataclass(frozen=True)
class Preview:
    """What `filter_run` would do with the same arguments."""

    rule: str
    cut: float
    """The threshold's value."""
    joint: float
    """Weight of the second opinion in what is cut; 0: it counts nothing."""
    before: Mapping[str, int]
    """Rows by decision now."""
    after: Mapping[str, int]
    """Rows by decision then."""
    moves: tuple[Move, ...]
    """In file order."""
    recorded: int
    """How many decisions would be added to the journal."""


def preview(
    path: str | Path,
    threshold: str | None = None,
    *,
    force: bool = False,
    overruling: Overruling | None = None,
    joint: JointWeight | None = None,
) -> Preview:
    """What deciding a finished run again would change; writes nothing.

    Raises:
        ConfigError, DataError, RunExistsError, UnfitError: as `filter_run` would.
    """
    if threshold is not None:
        THRESHOLDS.build(threshold)
    with finished_run(path) as folder:
        run = folder.path
        present = read_summary(run)
        asked = decisions_asked_for(run, present, overruling or Overruling())
        decided = decided_with(run, asked)
        joint = weight_asked_for(run, present, joint, decided)
        summary: Mapping[str, Any] = with_joint(present, joint)
        rule, force = rule_to_apply(summary, threshold, force=force, present=present)
        require_fit(run, summary, rule, force=force, decided=decided)
        return _preview(run, summary, rule, decided, len(asked))


def ruled(
    run: Path, summary: Mapping[str, Any], rule: str, decided: Decided | None = None
) -> tuple[RowDecisions, float]:
    """The rows as ``rule`` alone decides them, and where it cuts; see `selection_by`."""
    rows = open_decisions(run)
    selection, readings, _ = selection_by(run, summary, rule, decided)
    weight = float(summary.get("joint", 0.0))
    rule_decides(rows, selection, readings, decided=True, weight=weight)
    return rows, float(selection.cut.value)


def _preview(
    run: Path, summary: Mapping[str, Any], rule: str, decided: Decided, recorded: int
) -> Preview:
    now = read_shared_texts(run / SCORES_FILE, "decision")
    rows, cut = ruled(run, summary, rule, decided)
    overrule(rows, decided)
    then, reasons, scores = rows.decision, rows.reason, rows.cut_by
    moves: list[Move] = []
    for part, ids in read_parts(run / SCORES_FILE, "example_id"):
        for row in range(part.start, part.stop):
            if now[row] != then[row]:
                told = str(ids[row - part.start].as_py())
                moves.append(Move(row, told, now[row], then[row], float(scores[row]), reasons[row]))
    weight = float(summary.get("joint", 0.0))
    return Preview(rule, cut, weight, _counts(now), _counts(then), tuple(moves), recorded)


def _counts(decisions: SharedTexts) -> dict[str, int]:
    found = decisions.counts()
    return {name: found[name] for name in ("kept", "removed", "undecided", "rejected")}
