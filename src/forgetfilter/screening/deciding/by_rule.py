"""What a rule alone makes of stored scores; loads no model and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.arrays import FloatArray, SharedTexts
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.runs.decisions import Decided, load_decisions
from forgetfilter.runs.file_names import READINGS_FILE, SCORES_FILE
from forgetfilter.runs.inputs import SCREEN_AGAIN
from forgetfilter.runs.parquet_parts import read_column
from forgetfilter.runs.schema import Finding
from forgetfilter.scoring.joint import decide_joint
from forgetfilter.scoring.joint_weight import weight_by_decisions
from forgetfilter.scoring.records import REVIEWED, Readings, Selection
from forgetfilter.scoring.thresholds import THRESHOLDS, decide, reads_decisions
from forgetfilter.scoring.thresholds.reviewed import FEWEST_DECISIONS
from forgetfilter.screening.checks.fitness import OF_A_DECISION, check_decision
from forgetfilter.screening.deciding.reviewed_rows import (
    has_likeness,
    is_likeness,
    with_reviewed,
)
from forgetfilter.screening.deciding.row_decisions import RowDecisions
from forgetfilter.screening.deciding.tables import read_readings
from forgetfilter.text import printable


def selection_by(
    run: Path, summary: Mapping[str, Any], threshold: str, decided: Decided | None = None
) -> tuple[Selection, Readings, list[Finding]]:
    """What a rule makes of the stored scores, and all that is to be said against it.

    Where the summary has a ``joint`` weight, the joint score is what is cut.

    Args:
        run: folder of the run.
        summary: of the run.
        threshold: spec of the rule.
        decided: what people decided, for a rule that reads it; None: what stands in the journal.

    Raises:
        ConfigError: the rule reads decisions, and there are too few.
        DataError: a column that the rule needs was not measured, or has been lost since; or see
            `load_decisions`.
    """
    try:
        return _selection_by(run, summary, threshold, decided)
    except KeyError as error:
        raise DataError(
            f"{SCORES_FILE} and {READINGS_FILE} in {printable(str(run), 300)!r} lack a column: "
            f"{printable(str(error.args[0] if error.args else error), 200)}. Expected all that the "
            f"rule {printable(threshold, 60)} decides by. {SCREEN_AGAIN}"
        ) from None


def _selection_by(
    run: Path, summary: Mapping[str, Any], threshold: str, decided: Decided | None
) -> tuple[Selection, Readings, list[Finding]]:
    readings, weight = read_readings(run), float(summary.get("joint", 0.0))
    scores = _column(run, "forgetting_score", readings)
    needs_learned = bool(summary.get("needs_learned", True))  # unsaid by earlier versions
    rule = THRESHOLDS.build(threshold)
    opinion = _column(run, "second_opinion", readings) if weight else None
    if reads_decisions(threshold):
        decided = load_decisions(run) if decided is None else decided
        readings = with_reviewed(readings, decided, opinion if has_likeness(summary) else None)
    if opinion is not None:
        selection = decide_joint(
            rule, scores, opinion, weight, readings, needs_learned=needs_learned
        )
    else:
        selection = decide(rule, scores, readings, needs_learned=needs_learned)
    learned = readings.learned  # the summary counts them, whatever the rule needs
    is_judged = learned if needs_learned else np.ones(len(scores), dtype=np.bool_)
    of_scores = [Finding.model_validate(found) for found in summary.get("findings", [])]
    return (
        selection,
        readings,
        [
            *(found for found in of_scores if found.name not in OF_A_DECISION),
            *check_decision(selection, is_judged, readings.trusted),
        ],
    )


def weight_by(run: Path, summary: Mapping[str, Any], decided: Decided) -> float:
    """The joint weight that what people decided of a run's rows says; see `weight_by_decisions`.

    Args:
        run: folder of the run.
        summary: of the run.
        decided: what people decided.

    Returns:
        The present weight where none ranks the decided rows.

    Raises:
        ConfigError: too few decisions can be used.
        DataError: the table of scores lacks a column.
    """
    readings = read_readings(run)
    scores, opinion = (
        _column(run, name, readings) for name in ("forgetting_score", "second_opinion")
    )
    made = with_reviewed(readings, decided, opinion if is_likeness(summary) else None)[REVIEWED]
    is_known = made >= 0
    is_unsafe = made[is_known] == 1
    unsafe, of_all = int(is_unsafe.sum()), len(is_unsafe)
    if of_all < FEWEST_DECISIONS or unsafe in (0, of_all):
        raise ConfigError(
            "--joint reviewed finds the weight by what people decided of this run's rows, and "
            f"{of_all} of their decisions can be used ({unsafe} to remove, {of_all - unsafe} to "
            f"keep). Expected {FEWEST_DECISIONS} or more, of both kinds. Read some with "
            "`forgetfilter review`, in the order 'Spread over the scores', and decide them, or "
            "give a number, for example --joint 0.6."
        )
    found = weight_by_decisions(scores[is_known], opinion[is_known], is_unsafe)
    return float(summary.get("joint", 0.0)) if found is None else found


def rule_decides(
    decisions: RowDecisions,
    selection: Selection,
    readings: Readings,
    *,
    decided: bool,
    weight: float = 0.0,
) -> None:
    """Fill in ``decision`` and ``reason`` of all rows as the rule alone decides.

    ``joint_score`` is there where that is what was cut, and only there.
    """
    codes = np.full(len(decisions), 0 if decided else 2, dtype=np.uint8)
    if decided:
        codes[readings.row] = selection.is_removed
    codes[decisions.decision == "rejected"] = 3
    decisions.decision = SharedTexts(codes, ("kept", "removed", "undecided", "rejected"))
    if decided:
        decisions.reason.put_all(readings.row, SharedTexts.of(selection.reasons))
    else:
        decisions.reason.put(readings.row, "undecided")
    decisions.joint_score = None
    if weight and selection.scores is not None:
        decisions.joint_score = np.full(len(decisions), np.nan)
        decisions.joint_score[readings.row] = selection.scores


def _column(run: Path, name: str, readings: Readings) -> FloatArray:
    """A column of the table of scores, at the rows that were scored, shape (N,)."""
    values = read_column(run / SCORES_FILE, name)
    return values.astype(np.float64, copy=False)[readings.row]
