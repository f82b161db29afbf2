"""Finished runs as other tools use them: decided, and nothing of them stale or edited."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetfilter.data.records import Row
from forgetfilter.errors import DataError
from forgetfilter.runs.decisions import load_decisions
from forgetfilter.runs.inputs import read_input
from forgetfilter.runs.reading import read_scores
from forgetfilter.runs.schema import Summary
from forgetfilter.screening.deciding.decide import (
    apply_decisions,
    finished_run,
    is_decided,
    is_finished,
    read_summary,
)
from forgetfilter.screening.deciding.edits import refuse_edits
from forgetfilter.text import printable


def settled_summary(run: Path) -> dict[str, Any]:
    """The summary of a run whose files say all that was decided; nothing is locked or written.

    So it can be read by many processes at once, as those of a training run are.

    Raises:
        DataError: the run isn't finished or decided, its files were edited by hand, or people have
            decided rows since they were written.
    """
    summary = read_summary(run)
    require_decided(run, summary)
    refuse_edits(run, summary)
    known = (summary.get("overruled") or {}).get("digest", "")
    if not is_finished(run) or load_decisions(run).digest != known:
        raise DataError(
            f"The files of the run {_shown(run)} don't yet say what was decided last. Expected "
            f"files of the latest decision. Write them: forgetfilter filter {_shown(run)}"
        )
    return summary


def require_decided(run: Path, summary: Mapping[str, Any]) -> None:
    """Raise where every row was left undecided.

    Raises:
        DataError: nothing was decided.
    """
    if not is_decided(summary):
        raise DataError(
            f"Nothing was decided in the run {_shown(run)}: its scores can't be trusted, as its "
            "report says. Expected kept and removed rows. Mend it and screen again, or decide all "
            f"the same: forgetfilter filter {_shown(run)} --force"
        )


def kept_rows(path: str | Path) -> tuple[list[Row], dict[str, Any]]:
    """The kept rows of a finished run, in their order, and its summary.

    What people have decided of rows since is applied first.

    Raises:
        DataError: the run isn't finished or decided, kept no row, or was edited by hand.
        RunExistsError: the run is in use.
    """
    with finished_run(path) as folder:
        run = folder.path
        apply_decisions(run)
        summary = read_summary(run)
        require_decided(run, summary)
        decision = read_scores(run, Summary.model_validate(summary)).decision
        kept = [row for row in read_input(run).rows if decision[row.row] == "kept"]
    if not kept:
        raise DataError(
            f"The run {_shown(run)} kept no row, so there is nothing to train on. Expected at "
            f"least one. Decide again: forgetfilter filter {_shown(run)} --threshold RULE"
        )
    return kept, summary


def _shown(run: Path) -> str:
    return shlex.quote(printable(str(run), 300))
