"""What a decision would change, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import FloatArray
from forgetfilter.runs.decisions import Decided, load_decisions
from forgetfilter.runs.file_names import SCORES_FILE
from forgetfilter.scoring.thresholds import THRESHOLDS
from forgetfilter.screening.deciding.by_rule import rule_decides, selection_by
from forgetfilter.screening.deciding.decide import (
    finished_run,
    read_summary,
    require_fit,
    rule_to_apply,
    with_joint,
)
from forgetfilter.screening.deciding.overruling import (
    Overruling,
    decisions_asked_for,
    overrule,
    with_asked,
)


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
    joint: float | None = None,
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
        summary: Mapping[str, Any] = with_joint(present, joint)
        rule, force = rule_to_apply(summary, threshold, force=force, present=present)
        asked = decisions_asked_for(run, summary, overruling or Overruling())
        require_fit(run, summary, rule, force=force)
        decided = with_asked(load_decisions(run), asked)
        return _preview(run, summary, rule, decided, len(asked))


def rule_frame(run: Path, summary: Mapping[str, Any], rule: str) -> tuple[pd.DataFrame, float]:
    """The table of scores as ``rule`` alone decides it, and where it cuts."""
    frame = pd.read_parquet(run / SCORES_FILE)
    selection, readings, _ = selection_by(run, summary, rule)
    weight = float(summary.get("joint", 0.0))
    rule_decides(frame, selection, readings, decided=True, weight=weight)
    return frame, float(selection.cut.value)


def _preview(
    run: Path, summary: Mapping[str, Any], rule: str, decided: Decided, recorded: int
) -> Preview:
    now: list[str] = pd.read_parquet(run / SCORES_FILE, columns=["decision"])["decision"].tolist()
    frame, cut = rule_frame(run, summary, rule)
    overrule(frame, decided)
    then: list[str] = frame["decision"].tolist()
    ids, reasons = frame["example_id"].tolist(), frame["reason"].tolist()
    cut_by = "joint_score" if "joint_score" in frame else "forgetting_score"
    scores: FloatArray = frame[cut_by].to_numpy(dtype=np.float64)
    moves = tuple(
        Move(row, str(ids[row]), now[row], then[row], float(scores[row]), str(reasons[row]))
        for row in range(len(then))
        if now[row] != then[row]
    )
    return Preview(rule, cut, _counts(now), _counts(then), moves, recorded)


def _counts(decisions: list[str]) -> dict[str, int]:
    return {name: decisions.count(name) for name in ("kept", "removed", "undecided", "rejected")}
