"""What people decided of single rows, put above what the threshold rule decided."""

from __future__ import annotations

import getpass
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from forgetfilter.arrays import SharedTexts
from forgetfilter.errors import DataError
from forgetfilter.runs.decisions import (
    KEPT_BY_REVIEWER,
    REMOVED_BY_REVIEWER,
    Choice,
    Decided,
    Decision,
    input_rows,
    load_decisions,
)
from forgetfilter.runs.file_names import SCORES_FILE
from forgetfilter.runs.schema import Overruled
from forgetfilter.screening.deciding.edits import edited, find_edits
from forgetfilter.screening.deciding.row_decisions import RowDecisions
from forgetfilter.text import printable

_MEANT: dict[Choice | None, str] = {"keep": "kept", "remove": "removed"}
_REASONS = {"kept": KEPT_BY_REVIEWER, "removed": REMOVED_BY_REVIEWER}


@dataclass(frozen=True)
class Overruling:
    """What a command is asked to decide of single rows, beside the threshold rule."""

    keep: tuple[int, ...] = ()
    """Rows to keep, whatever the rule says."""
    remove: tuple[int, ...] = ()
    """Rows to remove."""
    reason: str = ""
    reviewer: str = ""
    """Who decides; empty: the login name."""
    edits: Literal["refuse", "adopt", "discard"] = "refuse"
    """What to do with edits by hand of the files of kept and removed rows."""


def decisions_asked_for(run: Path, summary: Mapping[str, Any], asked: Overruling) -> list[Decision]:
    """The decisions that a command is to write, checked; nothing is written yet.

    Raises:
        DataError: a row is unknown, was rejected, or is to be both kept and removed; a file was
            edited by hand and nothing is said of that; the journal is damaged.
    """
    edits = find_edits(run, summary) if asked.edits != "discard" else None
    if edits and (asked.edits == "refuse" or not edits.can_be_adopted):
        raise edited(run, edits)
    wanted: dict[int, tuple[Choice, str]] = {}
    if edits:
        named = " and ".join(edits.files)
        why = asked.reason or f"edited by hand: {named}"
        wanted |= dict.fromkeys(edits.keep, ("keep", why))
        wanted |= dict.fromkeys(edits.remove, ("remove", why))
    if both := set(asked.keep) & set(asked.remove):
        raise DataError(
            f"Row {min(both)} is to be kept and to be removed. Expected one of the two. Leave one "
            "of --keep-row and --remove-row out."
        )
    wanted |= dict.fromkeys(asked.keep, ("keep", asked.reason))
    wanted |= dict.fromkeys(asked.remove, ("remove", asked.reason))
    if not wanted:
        load_decisions(run)  # what is damaged is found before anything is replaced
        return []
    rows = input_rows(run)
    load_decisions(run, rows)
    made = [
        rows.decide(row, choice, reason, asked.reviewer or login_name())
        for row, (choice, reason) in wanted.items()
    ]
    require_scored(run, list(wanted))
    return made


def require_scored(run: Path, rows: list[int]) -> None:
    """Raise where one of the rows was rejected, so that there is nothing to decide.

    Raises:
        DataError: it was.
    """
    frame = pd.read_parquet(run / SCORES_FILE, columns=["row", "decision", "reason"])
    rejected = frame[(frame["decision"] == "rejected") & frame["row"].isin(rows)]
    for row, reason in zip(rejected["row"].tolist(), rejected["reason"].tolist(), strict=True):
        raise DataError(
            f"Row {row} was rejected when the file was read, because: "
            f"{printable(str(reason))}. Expected a row "
            "that could be read, which is kept or removed. Mend it in your file and screen again."
        )


def decided_with(run: Path, asked: list[Decision]) -> Decided:
    """What would hold of a run's decisions if ``asked`` were written.

    Raises:
        DataError: see `load_decisions`.
    """
    decided = load_decisions(run)
    return replace(decided, latest={**decided.latest, **{one.row: one for one in asked}})


def overrule(rows: RowDecisions, decided: Decided) -> Overruled:
    """Let decisions of people hold on rows whose ``decision`` is the rule's.

    ``rule_decision`` and ``is_reviewed`` are filled in, and ``decision`` and ``reason`` change
    where somebody decided otherwise. Rows that were rejected, and rows of a
    run that left all undecided, can't be overruled.

    Returns:
        What was honoured, for the summary.
    """
    decisions, reasons = rows.decision, rows.reason
    rows.rule_decision = SharedTexts.of(decisions)
    rows.is_reviewed = np.zeros(len(rows), dtype=np.bool_)
    counts: Counter[str] = Counter()
    elsewhere = decided.elsewhere
    for row, made in decided.latest.items():
        if decisions[row] == "rejected" or made.decision is None:
            elsewhere += 1
            continue
        counts[made.decision] += 1
        meant = _MEANT.get(made.decision)
        if meant is None or decisions[row] not in _REASONS:
            continue
        rows.is_reviewed[row] = True
        if decisions[row] != meant:
            counts[f"{meant}_instead"] += 1
            decisions.put(row, meant)
            reasons.put(row, _REASONS[meant])
    names = ("keep", "remove", "unsure", "kept_instead", "removed_instead")
    told = {name: counts[name] for name in names}
    said = Overruled(digest=decided.digest, elsewhere=elsewhere, **told)
    return said.model_copy(update={"entries": decided.entries}) if decided.entries else said


def login_name() -> str:
    """Who is at the keyboard, as far as the system knows."""
    try:
        return getpass.getuser() or "unknown"
    except (OSError, KeyError, ImportError):
        return "unknown"
