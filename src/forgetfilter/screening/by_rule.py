"""What a rule alone makes of stored scores; loads no model and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetfilter.arrays import BoolArray
from forgetfilter.runs.file_names import SCORES_FILE
from forgetfilter.runs.schema import Finding
from forgetfilter.scoring.records import Readings, Selection
from forgetfilter.scoring.thresholds import THRESHOLDS, decide
from forgetfilter.screening.fitness import OF_A_DECISION, check_decision
from forgetfilter.screening.tables import read_readings


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
