"""What is decided of each row while a decision is made: codes, a few bytes a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import BoolArray, FloatArray, SharedTexts
from forgetfilter.runs.columns import read_shared_texts
from forgetfilter.runs.file_names import SCORES_FILE
from forgetfilter.runs.parquet_parts import read_column
from forgetfilter.runs.schema import HARM_COLUMN

_WHO = ("rule", "reviewer")


@dataclass
class RowDecisions:
    """The columns of a table of scores that a decision writes, of all N rows."""

    run: Path
    decision: SharedTexts
    reason: SharedTexts
    rule_decision: SharedTexts
    """What the rule alone decides."""
    is_reviewed: BoolArray
    """Where a reviewer has decided."""
    joint_score: FloatArray | None = None
    """Where that is what was cut; NaN for rows without one."""
    harm: SharedTexts | None = None
    """Where it was measured."""

    def __len__(self) -> int:
        return len(self.decision)

    def score(self, name: str = "forgetting_score") -> FloatArray:
        """A column that no decision changes, shape (N,), read from the table; NaN: none."""
        return read_column(self.run / SCORES_FILE, name).astype(np.float64, copy=False)

    @property
    def cut_by(self) -> FloatArray:
        """What was cut, shape (N,)."""
        return self.score() if self.joint_score is None else self.joint_score

    def columns(self, part: slice) -> dict[str, Any]:
        """Some rows of the columns, as they are written."""
        is_reviewed = self.is_reviewed[part].astype(np.int64)
        found: dict[str, Any] = {
            "decision": self.decision[part],
            "reason": self.reason[part],
            "decided_by": [_WHO[who] for who in is_reviewed.tolist()],
            "rule_decision": self.rule_decision[part],
        }
        if self.joint_score is not None:
            found["joint_score"] = self.joint_score[part]
        if self.harm is not None:
            found[HARM_COLUMN] = self.harm[part]
        return found


def open_decisions(run: Path) -> RowDecisions:
    """The decisions of a table of scores as it stands."""
    path = run / SCORES_FILE
    decision = read_shared_texts(path, "decision")
    nobody = np.zeros(len(decision), dtype=np.bool_)
    reason = read_shared_texts(path, "reason")
    return RowDecisions(run, decision, reason, SharedTexts.of(decision), nobody)
